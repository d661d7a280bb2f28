//! `pinhole send`: the same to one or several.

use pinhole_client::{
    Command, Direction, Event, Failure, PeerKey, PeerName, PeerView, Stage, TransferId,
    TransferView,
};
use tokio::time::{Instant, sleep_until};

use crate::arguments::{Common, Send};
use crate::exit::Exit;
use crate::parcel::{Parcel, parcel_of};
use crate::peers::NEARBY_PATIENCE;
use crate::report::Until;
use crate::terminal::{Online, Presence, Terminal, Wake};

/// Sends it and waits until everything is durable everywhere.
pub(crate) async fn send(
    terminal: &mut Terminal<'_>,
    common: &Common,
    task: Send,
) -> anyhow::Result<Exit> {
    let parcel = match parcel_of(terminal, task.text, task.paths).await? {
        Ok(parcel) => parcel,
        Err(exit) => return Ok(exit),
    };
    let presence = Presence {
        announces: false,
        patient: task.wait,
    };
    let online = match terminal.go_online(common, presence)? {
        Ok(online) => online,
        Err(exit) => return Ok(exit),
    };
    let recipients = task.peers.0.into_iter().map(|name| Recipient {
        name,
        state: State::Waiting,
        told: Vec::new(),
    });
    let snapshot = terminal.client.snapshot();
    let sending = Sending {
        parcel,
        waits: task.wait,
        own_name: common
            .name
            .clone()
            .or_else(|| snapshot.settings.name.clone()),
        recipients: recipients.collect(),
        // The profile may have transfers of its own that waited for their peers.
        others: snapshot.transfers.last().map(|t| t.id),
        login: online.server.then_some(Login::UnderWay),
        searches_nearby: online.nearby,
    };
    sending.run(terminal, online).await
}

fn is_ours(transfer: &TransferView, others: Option<TransferId>) -> bool {
    Some(transfer.id) > others && transfer.direction == Direction::Sending
}

/// The sending of one thing to everybody who is to have it.
struct Sending {
    parcel: Parcel,
    /// Whether to wait for whoever is not online.
    waits: bool,
    own_name: Option<PeerName>,
    recipients: Vec<Recipient>,
    /// The last transfer that was there before.
    others: Option<TransferId>,
    /// With a server.
    login: Option<Login>,
    /// Whoever is nearby may not have answered yet.
    searches_nearby: bool,
}

/// How the login stands.
enum Login {
    UnderWay,
    Done,
    Failed(Failure),
}

struct Recipient {
    name: PeerName,
    state: State,
    /// What the user knows.
    told: Vec<String>,
}

#[derive(Clone, Copy)]
enum State {
    /// Until the peer is online.
    Waiting,
    /// The engine is to send; there is no transfer yet. Only one recipient at a
    /// time, so that it is clear whom a refusal concerns.
    Asked(PeerKey),
    Running(TransferId),
    Ended(Exit),
}

impl Sending {
    async fn run(mut self, terminal: &mut Terminal<'_>, online: Online) -> anyhow::Result<Exit> {
        let patience = Instant::now() + NEARBY_PATIENCE;
        self.go_on(terminal)?;
        loop {
            if let Some(exit) = self.exit() {
                return Ok(exit);
            }
            let wake = tokio::select! {
                wake = terminal.wait() => wake?,
                () = sleep_until(patience), if self.searches_nearby => {
                    self.searches_nearby = false;
                    Wake::Changed
                }
            };
            match wake {
                Wake::Interrupted => {
                    let others = self.others;
                    if !terminal.interrupt(|t| is_ours(t, others)).await? {
                        terminal.fail(&Failure::Cancelled);
                    }
                    return Ok(Exit::Interrupted);
                }
                Wake::Event(Event::Finished { transfer, .. }) => {
                    self.finish(terminal, transfer);
                    self.go_on(terminal)?;
                }
                Wake::Event(event @ Event::LoggedIn { .. }) => {
                    terminal.tell(&event);
                    self.login = Some(Login::Done);
                    self.go_on(terminal)?;
                }
                Wake::Event(Event::LogInFailed { failure }) if online.goes_on_after(&failure) => {
                    self.login = Some(Login::Failed(failure));
                    self.go_on(terminal)?;
                }
                Wake::Event(event @ Event::Disconnected { .. }) => {
                    terminal.tell(&event);
                    self.server_is_away(event);
                    self.go_on(terminal)?;
                }
                Wake::Event(Event::LogInFailed { failure }) => return Ok(terminal.fail(&failure)),
                Wake::Event(Event::CommandFailed { failure }) => {
                    self.refused(terminal, failure);
                    self.go_on(terminal)?;
                }
                Wake::Event(Event::Offered { transfer }) => {
                    // Whoever sends is not there to decide, and soon gone.
                    terminal.client.command(Command::Decline { transfer })?;
                }
                Wake::Event(event) => terminal.tell(&event),
                Wake::Changed => self.go_on(terminal)?,
            }
        }
    }

    /// Whoever is nearby need not wait for it.
    fn server_is_away(&mut self, event: Event) {
        if let (Some(Login::UnderWay), Event::Disconnected { failure, .. }) = (&self.login, event) {
            self.login = Some(Login::Failed(failure));
        }
    }

    /// How it all ended: as badly as the worst. `None` while it has not.
    fn exit(&self) -> Option<Exit> {
        let ends = self
            .recipients
            .iter()
            .map(|recipient| match recipient.state {
                State::Ended(exit) => Some(exit),
                _ => None,
            });
        ends.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// Does what the latest snapshot allows, and shows how far it is.
    fn go_on(&mut self, terminal: &mut Terminal<'_>) -> anyhow::Result<()> {
        let snapshot = terminal.client.snapshot();
        let mut transfers = snapshot.transfers.iter();
        let mut is_asking = false;
        for recipient in &mut self.recipients {
            if let State::Asked(key) = recipient.state {
                let is_theirs = |t: &&TransferView| is_ours(t, self.others) && t.peer.key == key;
                match transfers.clone().find(is_theirs) {
                    Some(transfer) => recipient.state = State::Running(transfer.id),
                    None => is_asking = true,
                }
            }
            if let State::Running(id) = recipient.state
                && let Some(transfer) = transfers.find(|t| t.id == id)
            {
                recipient.watch(terminal, transfer, self.waits)?;
            }
        }
        for recipient in &mut self.recipients {
            if let (State::Waiting, false) = (recipient.state, is_asking) {
                let is_settled = !matches!(self.login, Some(Login::UnderWay));
                let named = choose(
                    &snapshot.peers,
                    &recipient.name,
                    is_settled,
                    self.searches_nearby,
                );
                match named {
                    Choice::Peer(peer) => {
                        recipient.introduce(terminal, peer);
                        let key = peer.identity.key;
                        terminal.client.command(self.parcel.command(key))?;
                        recipient.state = State::Asked(key);
                        is_asking = true;
                    }
                    Choice::NotYet => {}
                    Choice::Several => recipient.ambiguous(terminal),
                    Choice::Nobody if self.own_name.as_ref() == Some(&recipient.name) => {
                        recipient.is_ourselves(terminal);
                    }
                    Choice::Nobody if self.waits => recipient.wait(terminal),
                    Choice::Nobody => match &self.login {
                        Some(Login::Failed(failure)) => recipient.fail(terminal, failure),
                        _ => recipient.offline(terminal),
                    },
                }
            }
        }
        terminal.report.progress(&snapshot);
        Ok(())
    }

    /// One of the transfers has ended.
    fn finish(&mut self, terminal: &mut Terminal<'_>, id: TransferId) {
        let Some(transfer) = terminal.transfer(id) else {
            return;
        };
        let others = self.others;
        let is_its = |recipient: &&mut Recipient| match recipient.state {
            State::Running(running) => running == id,
            State::Asked(key) => is_ours(&transfer, others) && key == transfer.peer.key,
            _ => false,
        };
        if let Some(recipient) = self.recipients.iter_mut().find(is_its) {
            // An offer may be over before it could be looked at.
            recipient.left_out(terminal, &transfer);
            recipient.state = State::Ended(terminal.finish(&transfer));
        }
    }

    /// The engine would not do something.
    fn refused(&mut self, terminal: &mut Terminal<'_>, failure: Failure) {
        let mut recipients = self.recipients.iter_mut();
        let asked = recipients.find(|recipient| matches!(recipient.state, State::Asked(_)));
        match (asked, &failure) {
            // Whatever was asked for goes on without a profile to note it in.
            (None, _) | (_, Failure::Profile { .. }) => {
                terminal.tell(&Event::CommandFailed { failure });
            }
            (Some(recipient), Failure::PeerOffline { .. }) => recipient.offline(terminal),
            (Some(recipient), _) => recipient.fail(terminal, &failure),
        }
    }
}

/// Whom a name means now.
enum Choice<'a> {
    Peer(&'a PeerView),
    /// That may show in a moment.
    NotYet,
    /// Several, of whom none is known.
    Several,
    Nobody,
}

/// Whom a name means: whoever a server names so, or we know; only then who
/// calls itself so, nearby. `is_settled` says whether the server has been
/// asked.
fn choose<'a>(
    peers: &'a [PeerView],
    name: &PeerName,
    is_settled: bool,
    searches_nearby: bool,
) -> Choice<'a> {
    let named = || {
        peers
            .iter()
            .filter(|p| p.online && p.identity.name == *name)
    };
    let with_right_key = || named().filter(|peer| peer.changed_from.is_none());
    if let Some(peer) = with_right_key().find(|peer| !peer.claimed) {
        return Choice::Peer(peer);
    }
    if !is_settled {
        return Choice::NotYet;
    }
    let mut strangers = with_right_key();
    match (strangers.next(), strangers.next()) {
        (Some(_), Some(_)) => Choice::Several,
        (Some(stranger), None) => Choice::Peer(stranger),
        (None, _) if searches_nearby => Choice::NotYet,
        // The engine refuses, and says why.
        (None, _) => named().next().map_or(Choice::Nobody, Choice::Peer),
    }
}

impl Recipient {
    /// Says of whom is only known what it says of itself.
    fn introduce(&mut self, terminal: &Terminal<'_>, peer: &PeerView) {
        if peer.claimed {
            let fingerprint = peer.identity.key.fingerprint();
            let note = format!(
                "{} is nearby; no server confirms the name. Its fingerprint: {fingerprint}",
                self.name
            );
            if self.is_news(&note) {
                terminal.report.note(&note);
            }
        }
    }

    fn is_ourselves(&mut self, terminal: &mut Terminal<'_>) {
        let detail = format!("{} is you yourself. To whom is it to go?", self.name);
        self.fail(terminal, &Failure::NotPossible { detail });
    }

    fn ambiguous(&mut self, terminal: &mut Terminal<'_>) {
        let detail = format!(
            "Several people nearby call themselves {}, and none is known. Ask all but one to choose another name, or use a server.",
            self.name
        );
        self.fail(terminal, &Failure::NotPossible { detail });
    }

    fn watch(
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
                self.offline(terminal);
            }
            Stage::AwaitingAnswer if self.is_news("accepted") => {
                terminal.report.waiting(&self.name, Until::Accepted);
            }
            _ => {}
        }
        Ok(())
    }

    fn wait(&mut self, terminal: &Terminal<'_>) {
        if self.is_news("online") {
            terminal.report.waiting(&self.name, Until::Online);
        }
    }

    /// Says what of it is not sent.
    fn left_out(&mut self, terminal: &Terminal<'_>, transfer: &TransferView) {
        let left_out = &transfer.offer.left_out;
        if !left_out.is_empty() && self.is_news("left out") {
            for one in left_out {
                terminal.report.left_out(&self.name, one);
            }
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

    fn offline(&mut self, terminal: &mut Terminal<'_>) {
        let peer = self.name.to_string();
        self.fail(terminal, &Failure::PeerOffline { peer });
    }

    fn fail(&mut self, terminal: &mut Terminal<'_>, failure: &Failure) {
        terminal.report.failed(Some(&self.name), failure);
        self.state = State::Ended(Exit::from(failure));
    }
}

#[cfg(test)]
mod tests {
    use pinhole_client::{PeerIdentity, PeerKey};

    use super::*;

    fn peer(key: u8) -> PeerView {
        PeerView {
            identity: PeerIdentity {
                name: "bob".parse().unwrap(),
                key: PeerKey::from_bytes([key; 32]),
            },
            online: true,
            nearby: false,
            claimed: false,
            contact: false,
            changed_from: None,
            path: None,
        }
    }

    fn claimed(key: u8) -> PeerView {
        PeerView {
            nearby: true,
            claimed: true,
            ..peer(key)
        }
    }

    fn changed(key: u8) -> PeerView {
        PeerView {
            changed_from: Some(peer(1).identity.key.fingerprint()),
            ..claimed(key)
        }
    }

    /// The first byte of the key that `bob` means, or a word.
    fn chosen(peers: &[PeerView], is_settled: bool, searches_nearby: bool) -> String {
        let name = "bob".parse().unwrap();
        match choose(peers, &name, is_settled, searches_nearby) {
            Choice::Peer(peer) => peer.identity.key.as_bytes()[0].to_string(),
            Choice::NotYet => "not yet".to_owned(),
            Choice::Several => "several".to_owned(),
            Choice::Nobody => "nobody".to_owned(),
        }
    }

    #[test]
    fn a_name_means_whom_a_server_confirms_before_who_only_claims_it() {
        let offline = PeerView {
            online: false,
            ..peer(1)
        };
        for (peers, is_settled, searches_nearby, expected) in [
            (vec![], false, true, "not yet"),
            (vec![], true, true, "not yet"),
            (vec![], true, false, "nobody"),
            (vec![offline], true, false, "nobody"),
            (vec![claimed(2), peer(1)], false, true, "1"),
            (vec![changed(2), peer(1)], false, true, "1"),
            // The server may know another.
            (vec![claimed(2)], false, true, "not yet"),
            (vec![claimed(2)], true, true, "2"),
            (vec![claimed(2), claimed(3)], true, true, "several"),
            // The right one may show yet; else the engine refuses.
            (vec![changed(2)], true, true, "not yet"),
            (vec![changed(2)], true, false, "2"),
        ] {
            let found = chosen(&peers, is_settled, searches_nearby);
            assert_eq!(found, expected, "{peers:#?}");
        }
    }
}
