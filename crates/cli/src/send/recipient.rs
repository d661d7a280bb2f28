//! One of those who are to have it.

use std::time::Duration;

use pinhole_client::{Command, Failure, PeerKey, PeerView, Stage, TransferId, TransferView};
use tokio::time::Instant;

use crate::arguments::PeerSpec;
use crate::exit::Exit;
use crate::report::AwaitedState;
use crate::terminal::{Online, Terminal};

/// The first pause before another attempt; it doubles with each that fails.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause. When the peer comes back online it is not waited for.
const LAST_PAUSE: Duration = Duration::from_secs(15);
/// The longest when its user has something to do first, or its Pinhole is busy: each
/// attempt is one more thing for them.
const LAST_PAUSE_FOR_PEOPLE: Duration = Duration::from_secs(60);

pub(super) struct Recipient {
    pub(super) spec: PeerSpec,
    pub(super) state: RecipientState,
    /// What the user knows.
    told: Vec<String>,
    /// Why the attempt before failed, if the user knows that.
    passing: Option<&'static str>,
    /// Before the next attempt.
    pause: Duration,
    /// The last attempt.
    last: Option<TransferId>,
    /// The present attempt was accepted.
    is_accepted: bool,
}

#[derive(Clone, Copy)]
pub(super) enum RecipientState {
    /// Until the peer is online.
    Waiting,
    /// Until then, unless the peer goes offline before, after an attempt that failed.
    Resting(Instant),
    /// The engine is to send; there is no transfer yet. Only one recipient at a
    /// time, so that it is clear whom a refusal concerns.
    Asked(PeerKey),
    Running(TransferId),
    Ended(Exit),
}

impl Recipient {
    pub(super) const fn new(spec: PeerSpec) -> Self {
        Self {
            spec,
            state: RecipientState::Waiting,
            told: Vec::new(),
            passing: None,
            pause: FIRST_PAUSE,
            last: None,
            is_accepted: false,
        }
    }

    /// When there is to be another attempt.
    pub(super) const fn again_at(&self) -> Option<Instant> {
        match self.state {
            RecipientState::Resting(until) => Some(until),
            _ => None,
        }
    }

    /// Whether this transfer is another than that of the last attempt.
    pub(super) fn is_new(&self, transfer: TransferId) -> bool {
        Some(transfer) > self.last
    }

    /// Ends a rest that is long enough, or that the peer has ended by going away:
    /// the moment it is back, it is tried.
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

    /// Says of whom is only known what it says of itself.
    pub(super) fn introduce(&mut self, terminal: &Terminal<'_>, peer: &PeerView) {
        if peer.claimed && self.is_news("claimed") {
            terminal.report.claimed(&peer.identity);
        }
    }

    pub(super) fn is_ourselves(&mut self, terminal: &mut Terminal<'_>) {
        let name = &self.spec.name;
        let detail = format!("{name} is you yourself. To whom is it to go?");
        self.fail(terminal, &Failure::NotPossible { detail });
    }

    pub(super) fn ambiguous(&mut self, terminal: &mut Terminal<'_>) {
        let name = &self.spec.name;
        let detail = format!(
            "Several people nearby call themselves {name}, and none is known. Say whose key it is, as {name}#FINGERPRINT; `pinhole peers` lists them."
        );
        self.fail(terminal, &Failure::NotPossible { detail });
    }

    /// Somebody calls himself so, but the name is the server's to give.
    pub(super) fn unconfirmed(&mut self, terminal: &mut Terminal<'_>, peer: &PeerView) {
        let (name, fingerprint) = (&self.spec.name, peer.identity.key.fingerprint());
        let reason = format!(
            "Somebody nearby goes by the name {name}, but the server does not confirm it: there, {name} is not online at the moment, or the server cannot be asked. Nothing was sent. If {name} tells you that {fingerprint} is the right fingerprint, send to {name}#{fingerprint}."
        );
        terminal.report.ended(Some(name), "claimed", &reason);
        self.state = RecipientState::Ended(Exit::PeerOffline);
    }

    /// Nobody has the key that was said.
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
            Stage::AwaitingAnswer if self.is_news("accepted") => {
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
        if self.is_news("online") {
            terminal
                .report
                .waiting(&self.spec.name, AwaitedState::Online);
        }
    }

    /// Says what of it is not sent.
    pub(super) fn left_out(&mut self, terminal: &Terminal<'_>, transfer: &TransferView) {
        let left_out = &transfer.offer.left_out;
        if !left_out.is_empty() && self.is_news("left out") {
            for one in left_out {
                terminal.report.left_out(&self.spec.name, one);
            }
        }
    }

    /// An attempt is over: the last one, unless it is waited for another.
    pub(super) fn finished(
        &mut self,
        terminal: &mut Terminal<'_>,
        transfer: &TransferView,
        waits: bool,
    ) {
        self.last = Some(transfer.id);
        let is_online = is_online(terminal, &transfer.peer.key);
        // Before it has accepted, a peer that does not want it declines.
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

    /// Lets some time go by before the next attempt.
    pub(super) fn rest(&mut self, terminal: &Terminal<'_>, failure: &Failure) {
        let longest = match failure {
            Failure::NeedsPermission { .. } | Failure::PeerBusy { .. } => LAST_PAUSE_FOR_PEOPLE,
            _ => LAST_PAUSE,
        };
        let pause = self.pause.min(longest);
        self.pause = (2 * pause).min(longest);
        self.state = RecipientState::Resting(Instant::now() + pause);
        self.is_accepted = false;
        self.told
            .retain(|told| told != "online" && told != "accepted");
        if self.passing.replace(failure.kind()) != Some(failure.kind()) {
            if !matches!(failure, Failure::PeerOffline { .. }) {
                terminal.report.warning(failure);
            }
            terminal
                .report
                .waiting(&self.spec.name, AwaitedState::Receiving);
        }
    }

    /// Whether the user was not told yet.
    fn is_news(&mut self, what: &str) -> bool {
        let is_news = !self.told.iter().any(|told| told == what);
        if is_news {
            self.told.push(what.to_owned());
        }
        is_news
    }

    /// Nobody of that name is there.
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

    /// Its Pinhole runs, but for something else.
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

/// Whether it may be otherwise in a while, without anybody deciding anything else.
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
