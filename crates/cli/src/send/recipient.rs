//! One recipient of a payload.

use std::collections::BTreeSet;
use std::time::Duration;

use pinhole_client::{Command, Failure, PeerKey, PeerView, Stage, TransferId, TransferView};
use tokio::time::Instant;

use crate::arguments::PeerSpec;
use crate::exit::Exit;
use crate::report::AwaitedState;
use crate::terminal::{Online, Terminal};

/// The first pause before another attempt. It doubles with each failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause. When the peer comes back online, the pause ends at once.
const LAST_PAUSE: Duration = Duration::from_secs(15);
/// The longest pause when the peer is busy or its user has to act first, because each
/// attempt disturbs them.
const LAST_PAUSE_FOR_PEOPLE: Duration = Duration::from_secs(60);

pub(super) struct Recipient {
    pub(super) spec: PeerSpec,
    pub(super) state: RecipientState,
    /// What the user knows.
    told: BTreeSet<Told>,
    /// The kind of the last failure, if the user was told.
    passing: Option<&'static str>,
    /// Before the next attempt.
    pause: Duration,
    /// The last attempt.
    last: Option<TransferId>,
    /// The present attempt was accepted.
    is_accepted: bool,
}

/// What the user was told about a recipient.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    /// Its name is only a claim.
    Claimed,
    /// It has to come online.
    AwaitsPeer,
    /// It has to accept.
    AwaitsAnswer,
    /// Some files are not sent.
    LeftOut,
}

#[derive(Clone, Copy)]
pub(super) enum RecipientState {
    /// Until the peer is online.
    Waiting,
    /// Waiting after a failed attempt, until then or until the peer goes offline.
    Resting(Instant),
    /// The engine was told to send but has no transfer yet. Only one recipient at a time
    /// is in this state, so that a refusal can be assigned.
    Asked(PeerKey),
    Running(TransferId),
    Ended(Exit),
}

impl Recipient {
    pub(super) const fn new(spec: PeerSpec) -> Self {
        Self {
            spec,
            state: RecipientState::Waiting,
            told: BTreeSet::new(),
            passing: None,
            pause: FIRST_PAUSE,
            last: None,
            is_accepted: false,
        }
    }

    /// The time of the next attempt.
    pub(super) const fn again_at(&self) -> Option<Instant> {
        match self.state {
            RecipientState::Resting(until) => Some(until),
            _ => None,
        }
    }

    /// Whether this transfer is newer than the last attempt.
    pub(super) fn is_new(&self, transfer: TransferId) -> bool {
        Some(transfer) > self.last
    }

    /// Ends a pause that is over, or when the peer went offline. A peer that comes back
    /// is tried at once.
    pub(super) fn rest_is_over(&mut self, peers: &[PeerView]) {
        let RecipientState::Resting(until) = self.state else {
            return;
        };
        let mut named = peers
            .iter()
            .filter(|peer| peer.identity.name == self.spec.name);
        let is_away = !named.any(|peer| peer.online);
        if is_away {
            self.pause = FIRST_PAUSE;
        }
        if is_away || until <= Instant::now() {
            self.state = RecipientState::Waiting;
        }
    }

    /// Reports a peer whose name is only a claim.
    pub(super) fn introduce(&mut self, terminal: &Terminal<'_>, peer: &PeerView) {
        if peer.claimed && self.told.insert(Told::Claimed) {
            terminal.report.claimed(&peer.identity);
        }
    }

    pub(super) fn is_ourselves(&mut self, terminal: &mut Terminal<'_>) {
        let name = &self.spec.name;
        let detail = format!("{name} is you yourself. Name another recipient.");
        self.fail(terminal, &Failure::NotPossible { detail });
    }

    pub(super) fn ambiguous(&mut self, terminal: &mut Terminal<'_>) {
        let name = &self.spec.name;
        let detail = format!(
            "Several people nearby call themselves {name}, and none is known. Say whose key it is, as {name}#FINGERPRINT; `pinhole peers` lists them."
        );
        self.fail(terminal, &Failure::NotPossible { detail });
    }

    /// Fails because a peer claims the name without confirmation by the server.
    pub(super) fn unconfirmed(&mut self, terminal: &mut Terminal<'_>, peer: &PeerView) {
        let (name, fingerprint) = (&self.spec.name, peer.identity.key.fingerprint());
        let reason = format!(
            "Somebody nearby goes by the name {name}, but the server does not confirm it: there, {name} is not online at the moment, or the server cannot be asked. Nothing was sent. If {name} tells you that {fingerprint} is the right fingerprint, send to {name}#{fingerprint}."
        );
        terminal.report.ended(Some(name), "claimed", &reason);
        self.state = RecipientState::Ended(Exit::PeerOffline);
    }

    /// Fails because the peer has another key than the given one.
    pub(super) fn other_key(&mut self, terminal: &mut Terminal<'_>, peer: &PeerView) {
        let (name, found) = (&self.spec.name, peer.identity.key.fingerprint());
        let reason = format!(
            "The fingerprint of {name} is {found}, not the one you named. Nothing was sent."
        );
        terminal
            .report
            .ended(Some(name), "other_fingerprint", &reason);
        self.state = RecipientState::Ended(Exit::Verification);
    }

    pub(super) fn watch(
        &mut self,
        terminal: &mut Terminal<'_>,
        transfer: &TransferView,
        waits: bool,
    ) -> anyhow::Result<()> {
        self.left_out(terminal, transfer);
        match transfer.stage {
            Stage::Queued if waits => self.wait(terminal),
            Stage::Queued => {
                let transfer = transfer.id;
                terminal.client.command(Command::Cancel { transfer })?;
                let peer = self.spec.name.to_string();
                self.fail(terminal, &Failure::PeerOffline { peer });
            }
            Stage::AwaitingAnswer if self.told.insert(Told::AwaitsAnswer) => {
                terminal
                    .report
                    .waiting(&self.spec.name, AwaitedState::Accepted);
            }
            Stage::Transferring if !transfer.is_text => self.is_accepted = true,
            _ => {}
        }
        Ok(())
    }

    pub(super) fn wait(&mut self, terminal: &Terminal<'_>) {
        if self.told.insert(Told::AwaitsPeer) {
            terminal
                .report
                .waiting(&self.spec.name, AwaitedState::Online);
        }
    }

    /// Reports files that are not sent.
    pub(super) fn left_out(&mut self, terminal: &Terminal<'_>, transfer: &TransferView) {
        let left_out = &transfer.offer.left_out;
        if !left_out.is_empty() && self.told.insert(Told::LeftOut) {
            for one in left_out {
                terminal.report.left_out(&self.spec.name, one);
            }
        }
    }

    /// Handles the end of an attempt. It is the last one unless the recipient waits for
    /// another.
    pub(super) fn finished(
        &mut self,
        terminal: &mut Terminal<'_>,
        transfer: &TransferView,
        waits: bool,
    ) {
        self.last = Some(transfer.id);
        let is_online = is_online(terminal, &transfer.peer.key);
        // A peer that does not want the offer declines. Cancelling before accepting means
        // that it has left.
        let has_left = |failure: &Failure| {
            matches!(failure, Failure::CancelledByPeer { .. }) && !self.is_accepted
        };
        match &transfer.stage {
            Stage::Failed(failure)
                if waits && (has_left(failure) || is_passing(failure, is_online)) =>
            {
                if transfer.progress.bytes_done > 0 {
                    (self.pause, self.passing) = (FIRST_PAUSE, None);
                }
                self.rest(terminal, failure);
            }
            Stage::Failed(Failure::PeerOffline { .. }) if is_online => {
                self.not_receiving(terminal);
            }
            _ => self.state = RecipientState::Ended(terminal.finish(transfer)),
        }
    }

    /// Pauses before the next attempt.
    pub(super) fn rest(&mut self, terminal: &Terminal<'_>, failure: &Failure) {
        let longest = match failure {
            Failure::NeedsPermission { .. } | Failure::PeerBusy { .. } => LAST_PAUSE_FOR_PEOPLE,
            _ => LAST_PAUSE,
        };
        let pause = self.pause.min(longest);
        self.pause = (2 * pause).min(longest);
        self.state = RecipientState::Resting(Instant::now() + pause);
        self.is_accepted = false;
        self.told.remove(&Told::AwaitsPeer);
        self.told.remove(&Told::AwaitsAnswer);
        if self.passing.replace(failure.kind()) != Some(failure.kind()) {
            if !matches!(failure, Failure::PeerOffline { .. }) {
                terminal.report.warning(failure);
            }
            terminal
                .report
                .waiting(&self.spec.name, AwaitedState::Receiving);
        }
    }

    /// Fails because no peer has the name.
    pub(super) fn absent(&mut self, terminal: &mut Terminal<'_>, online: Online) {
        let name = &self.spec.name;
        let peer = name.to_string();
        let failure = Failure::PeerOffline { peer };
        if !online.nearby {
            return self.fail(terminal, &failure);
        }
        let reason = format!(
            "{failure} On your own network a firewall, on either computer, may also keep you from finding each other: it has to let UDP port 5353 through."
        );
        terminal.report.ended(Some(name), failure.kind(), &reason);
        self.state = RecipientState::Ended(Exit::from(&failure));
    }

    /// Fails because the peer is online but does not receive.
    fn not_receiving(&mut self, terminal: &mut Terminal<'_>) {
        let name = &self.spec.name;
        let reason = format!(
            "{name} is online, but does not receive at the moment. Ask them to run `pinhole receive`, or wait for it with --wait."
        );
        terminal.report.ended(Some(name), "peer_offline", &reason);
        self.state = RecipientState::Ended(Exit::PeerOffline);
    }

    pub(super) fn fail(&mut self, terminal: &mut Terminal<'_>, failure: &Failure) {
        terminal.report.failed(Some(&self.spec.name), failure);
        self.state = RecipientState::Ended(Exit::from(failure));
    }
}

fn is_online(terminal: &Terminal<'_>, key: &PeerKey) -> bool {
    let snapshot = terminal.client.snapshot();
    let mut peers = snapshot.peers.iter();
    peers.any(|peer| peer.online && peer.identity.key == *key)
}

/// Whether the failure may pass without anyone's decision.
const fn is_passing(failure: &Failure, is_online: bool) -> bool {
    match failure {
        Failure::PeerOffline { .. }
        | Failure::NeedsPermission { .. }
        | Failure::PeerBusy { .. }
        | Failure::InterruptedByPeer { .. }
        | Failure::ConnectionLost { .. }
        | Failure::ServerLost { .. } => true,
        Failure::NoPath { .. } => !is_online,
        _ => false,
    }
}
