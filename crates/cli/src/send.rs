//! `pinhole send`: sends the same payload to one or several peers.

mod by_code;
mod lookup;
mod recipient;

use pinhole_client::{
    Command, Direction, Event, FaceId, Failure, LookUpState, PeerName, TransferId, TransferView,
};
use tokio::time::{Instant, sleep_until};

use self::lookup::{LookupProgress, Resolution, resolve};
use self::recipient::{Recipient, RecipientState};
use crate::arguments::{Common, PeerSpecs, Send};
use crate::exit::Exit;
use crate::payload::{Payload, payload_of};
use crate::peers::NEARBY_PATIENCE;
use crate::pipes;
use crate::terminal::{Online, OnlineOptions, Terminal, Wake};

/// Sends the payload and waits until it is durable at every recipient.
pub(crate) async fn send(
    terminal: &mut Terminal<'_>,
    common: &Common,
    task: Send,
) -> anyhow::Result<Exit> {
    let paths = task.code.clone().unwrap_or(task.paths);
    if let (Some(_), Some(holder)) = (&task.as_name, terminal.client.holder()) {
        let reason = format!(
            "{holder} holds the profile, and cannot read this program's standard input. Close it, or use another --data-dir"
        );
        terminal.report.error("usage", &reason);
        return Ok(Exit::Usage);
    }
    let payload = match task.as_name {
        Some(name) => Payload::Stream(name, pipes::input()),
        None => match payload_of(terminal, task.text, paths).await? {
            Ok(payload) => payload,
            Err(exit) => return Ok(exit),
        },
    };
    let Some(PeerSpecs(peers)) = task.peers else {
        return by_code::send(terminal, common, payload).await;
    };
    let presence = OnlineOptions {
        announces: false,
        patient: task.wait,
    };
    let names: Vec<_> = peers.iter().map(|spec| spec.name.clone()).collect();
    terminal.look_up(&names)?;
    let online = match terminal.go_online(common, presence)? {
        Ok(online) => online,
        Err(exit) => return Ok(exit),
    };
    // Whoever waits for a peer to come online may wait for days.
    let stays = !task.wait;
    terminal.client.command(Command::Attend { stays })?;
    let recipients = peers.into_iter().map(Recipient::new);
    let snapshot = terminal.client.snapshot();
    let sending = Sending {
        payload,
        waits: task.wait,
        own_name: common
            .name
            .clone()
            .or_else(|| snapshot.settings.name.clone()),
        recipients: recipients.collect(),
        ours: Ours {
            face: terminal.client.face(),
            others: snapshot.transfers.last().map(|t| t.id),
        },
        login: online.server.then_some(LoginProgress::UnderWay),
        searches_nearby: online.nearby,
        online,
    };
    sending.run(terminal).await
}

/// Which transfers this command has begun.
#[derive(Clone, Copy)]
struct Ours {
    face: FaceId,
    /// The last transfer from before: the profile may hold some that waited for their
    /// peers.
    others: Option<TransferId>,
}

impl Ours {
    fn has(self, transfer: &TransferView) -> bool {
        transfer.face == self.face
            && Some(transfer.id) > self.others
            && transfer.direction == Direction::Sending
    }
}

/// A payload on its way to all recipients.
struct Sending {
    payload: Payload,
    /// Whether to wait for recipients who are not online.
    waits: bool,
    own_name: Option<PeerName>,
    recipients: Vec<Recipient>,
    ours: Ours,
    /// The login, if there is a server.
    login: Option<LoginProgress>,
    /// Peers nearby may not have answered yet.
    searches_nearby: bool,
    online: Online,
}

/// The state of the login.
enum LoginProgress {
    UnderWay,
    Done,
    Failed(Failure),
}

impl Sending {
    async fn run(mut self, terminal: &mut Terminal<'_>) -> anyhow::Result<Exit> {
        let patience = Instant::now() + NEARBY_PATIENCE;
        self.go_on(terminal)?;
        loop {
            if let Some(exit) = self.exit() {
                return Ok(exit);
            }
            let again_at = self.recipients.iter().filter_map(Recipient::again_at).min();
            let wake = tokio::select! {
                wake = terminal.wait() => wake?,
                () = sleep_until(patience), if self.searches_nearby => {
                    self.searches_nearby = false;
                    Wake::Changed
                }
                () = sleep_until(again_at.unwrap_or(patience)), if again_at.is_some() => {
                    Wake::Changed
                }
            };
            match wake {
                Wake::Interrupted(_) => {
                    let ours = self.ours;
                    if !terminal.interrupt(|t| ours.has(t)).await? {
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
                    self.login = Some(LoginProgress::Done);
                    self.go_on(terminal)?;
                }
                Wake::Event(Event::LogInFailed { failure })
                    if self.online.goes_on_after(&failure) =>
                {
                    self.login = Some(LoginProgress::Failed(failure));
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
                Wake::Event(event) => terminal.tell(&event),
                Wake::Changed => self.go_on(terminal)?,
            }
        }
    }

    /// Recipients nearby do not wait for the server.
    fn server_is_away(&mut self, event: Event) {
        if let (Some(LoginProgress::UnderWay), Event::Disconnected { failure, .. }) =
            (&self.login, event)
        {
            self.login = Some(LoginProgress::Failed(failure));
        }
    }

    /// The exit code: the worst of all recipients. `None` while some are under way.
    fn exit(&self) -> Option<Exit> {
        let ends = self
            .recipients
            .iter()
            .map(|recipient| match recipient.state {
                RecipientState::Ended(exit) => Some(exit),
                _ => None,
            });
        ends.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// Takes the next steps that the snapshot allows, and shows the progress.
    fn go_on(&mut self, terminal: &mut Terminal<'_>) -> anyhow::Result<()> {
        let snapshot = terminal.client.snapshot();
        let mut is_asking = false;
        for recipient in &mut self.recipients {
            recipient.rest_is_over(&snapshot.peers);
            if let RecipientState::Asked(key) = recipient.state {
                let is_theirs = |t: &&TransferView| self.ours.has(t) && t.peer.key == key;
                // A transfer that was given up before may still be there.
                match snapshot.transfers.iter().rfind(is_theirs) {
                    Some(transfer) if recipient.is_new(transfer.id) => {
                        recipient.state = RecipientState::Running(transfer.id);
                    }
                    _ => is_asking = true,
                }
            }
            if let RecipientState::Running(id) = recipient.state
                && let Some(transfer) = snapshot.transfers.iter().find(|t| t.id == id)
            {
                recipient.watch(terminal, transfer, self.waits)?;
            }
        }
        let progress = LookupProgress {
            has_server: self.online.server,
            is_settled: !matches!(self.login, Some(LoginProgress::UnderWay)),
            searches_nearby: self.searches_nearby,
        };
        let is_logged_in = matches!(self.login, Some(LoginProgress::Done));
        for recipient in &mut self.recipients {
            let mut looked_up = snapshot.looked_up.iter();
            let is_looked_up = looked_up
                .any(|it| it.name == recipient.spec.name && it.state != LookUpState::Searching);
            let progress = LookupProgress {
                is_settled: progress.is_settled && (is_looked_up || !is_logged_in),
                ..progress
            };
            if let (RecipientState::Waiting, false) = (recipient.state, is_asking) {
                match resolve(&snapshot.peers, &recipient.spec, progress) {
                    Resolution::Peer(peer) => {
                        recipient.introduce(terminal, peer);
                        let key = peer.identity.key;
                        terminal.client.command(self.payload.command(key))?;
                        recipient.state = RecipientState::Asked(key);
                        is_asking = true;
                    }
                    Resolution::NotYet => {}
                    Resolution::Several => recipient.ambiguous(terminal),
                    Resolution::Nobody if self.own_name.as_ref() == Some(&recipient.spec.name) => {
                        recipient.is_ourselves(terminal);
                    }
                    Resolution::Nobody | Resolution::Unconfirmed(_) | Resolution::OtherKey(_)
                        if self.waits =>
                    {
                        recipient.wait(terminal);
                    }
                    Resolution::Unconfirmed(peer) => recipient.unconfirmed(terminal, peer),
                    Resolution::OtherKey(peer) => recipient.other_key(terminal, peer),
                    Resolution::Nobody => match &self.login {
                        Some(LoginProgress::Failed(failure)) => recipient.fail(terminal, failure),
                        _ => recipient.absent(terminal, self.online),
                    },
                }
            }
        }
        terminal.show_progress();
        Ok(())
    }

    /// Notes that a transfer has ended.
    fn finish(&mut self, terminal: &mut Terminal<'_>, id: TransferId) {
        let Some(transfer) = terminal.transfer(id) else {
            return;
        };
        let ours = self.ours;
        let is_its = |recipient: &&mut Recipient| match recipient.state {
            RecipientState::Running(running) => running == id,
            RecipientState::Asked(key) => ours.has(&transfer) && key == transfer.peer.key,
            _ => false,
        };
        if let Some(recipient) = self.recipients.iter_mut().find(is_its) {
            // The offer may have ended before it was looked at.
            recipient.left_out(terminal, &transfer);
            recipient.finished(terminal, &transfer, self.waits);
        }
    }

    /// The engine refused a command.
    fn refused(&mut self, terminal: &mut Terminal<'_>, failure: Failure) {
        let mut recipients = self.recipients.iter_mut();
        let asked =
            recipients.find(|recipient| matches!(recipient.state, RecipientState::Asked(_)));
        match (asked, &failure) {
            // The command goes on even if the profile cannot be written.
            (None, _) | (_, Failure::Profile { .. }) => {
                terminal.tell(&Event::CommandFailed { failure });
            }
            (Some(recipient), Failure::PeerOffline { .. }) if self.waits => {
                recipient.rest(terminal, &failure);
            }
            (Some(recipient), _) => recipient.fail(terminal, &failure),
        }
    }
}
