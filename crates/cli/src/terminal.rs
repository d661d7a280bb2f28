//! The running engine as the commands see it, with Ctrl-C.

use std::collections::HashSet;

use anyhow::Context as _;
use pinhole_client::{
    Client, Command, Direction, Event, Events, Failure, PeerKey, PeerName, Snapshot, Stage,
    TransferId, TransferView,
};

use crate::arguments::Common;
use crate::exit::Exit;
use crate::interrupts::{Interrupt, Interrupts};
use crate::report::{KeyChange, Outage, Reporter};

/// Engine and output together.
pub(crate) struct Terminal<'a> {
    pub(crate) client: &'a mut Client,
    events: &'a mut Events,
    pub(crate) report: &'a mut Reporter,
    interrupts: &'a mut Interrupts,
    /// The user was told that the server cannot be reached.
    is_outage_told: bool,
    /// Keys whose refusal was reported.
    refused_keys: HashSet<PeerKey>,
}

/// How the user goes online.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OnlineOptions {
    /// Announces the user to people nearby.
    pub(crate) announces: bool,
    /// Waits for a server that cannot be reached.
    pub(crate) patient: bool,
}

/// The ways in which people can be reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Online {
    /// Through a server.
    pub(crate) server: bool,
    /// On the same network.
    pub(crate) nearby: bool,
}

impl Online {
    /// Whether people nearby can be reached although the login has failed.
    pub(crate) const fn goes_on_after(self, failure: &Failure) -> bool {
        let is_away = matches!(
            failure,
            Failure::ServerUnreachable { .. } | Failure::ServerLost { .. }
        );
        self.nearby && is_away
    }
}

/// What woke a command up.
#[derive(Debug)]
pub(crate) enum Wake {
    Event(Event),
    /// The snapshot is new.
    Changed,
    Interrupted(Interrupt),
}

impl<'a> Terminal<'a> {
    pub(crate) fn new(
        client: &'a mut Client,
        events: &'a mut Events,
        report: &'a mut Reporter,
        interrupts: &'a mut Interrupts,
    ) -> Self {
        Self {
            client,
            events,
            report,
            interrupts,
            is_outage_told: false,
            refused_keys: HashSet::new(),
        }
    }

    /// Waits for the next thing to happen. Events come before snapshots, so that a start
    /// is reported before its progress.
    pub(crate) async fn wait(&mut self) -> anyhow::Result<Wake> {
        loop {
            tokio::select! {
                biased;
                by = self.interrupts.next() => return Ok(Wake::Interrupted(by)),
                event = self.events.next() => {
                    let event = event.with_context(|| self.why_ended())?;
                    if self.concerns_us(&event) {
                        return Ok(Wake::Event(event));
                    }
                }
                _ = self.client.changed() => return Ok(Wake::Changed),
            }
        }
    }

    fn why_ended(&self) -> String {
        match self.client.holder() {
            Some(holder) => format!(
                "{holder} has ended, and this command worked through it. Run it again; a transfer goes on where it stopped"
            ),
            None => "the engine ended unexpectedly; run with PINHOLE_LOG=debug".to_owned(),
        }
    }

    /// Whether a transfer belongs to this command, and not to another one at the same
    /// engine.
    pub(crate) fn is_ours(&self, transfer: &TransferView) -> bool {
        transfer.face == self.client.face()
    }

    /// Whether an event belongs to this command, and not to another one at the same engine.
    fn concerns_us(&self, event: &Event) -> bool {
        match event {
            Event::Offered { transfer }
            | Event::Started { transfer }
            | Event::TextReceived { transfer }
            | Event::PausedByPeer { transfer, .. }
            | Event::Reconnecting { transfer }
            | Event::FileFailed { transfer, .. }
            | Event::Finished { transfer, .. } => {
                let transfer = self.transfer(*transfer);
                transfer.is_some_and(|transfer| self.is_ours(&transfer))
            }
            Event::Connected { peer, .. } | Event::Moved { peer, .. } => {
                let snapshot = self.client.snapshot();
                let all = snapshot.transfers.iter();
                let mut all = all.filter(|it| it.peer.key == peer.key).peekable();
                // Whoever connects without a transfer wants something of the holder.
                let is_for_nobody = all.peek().is_none() && self.client.holder().is_none();
                is_for_nobody || all.any(|it| self.is_ours(it))
            }
            Event::Asked { .. } | Event::KeyRefused { .. } => self.client.holder().is_none(),
            _ => true,
        }
    }

    /// Shows how far the transfers of this command are.
    pub(crate) fn show_progress(&mut self) {
        let snapshot = self.client.snapshot();
        if snapshot.transfers.iter().all(|it| self.is_ours(it)) {
            return self.report.progress(&snapshot);
        }
        let mut ours = Snapshot::clone(&snapshot);
        ours.transfers.retain(|it| self.is_ours(it));
        self.report.progress(&ours);
    }

    /// Looks people up by name. Asked for before the login, the answer comes with it.
    pub(crate) fn look_up(&mut self, names: &[PeerName]) -> anyhow::Result<()> {
        for name in names {
            let name = name.clone();
            self.client.command(Command::LookUp { name })?;
        }
        Ok(())
    }

    /// Starts to log in, if there is a server, and to look for people nearby. The inner
    /// `Err` holds the exit code when that fails.
    pub(crate) fn go_online(
        &mut self,
        common: &Common,
        OnlineOptions { announces, patient }: OnlineOptions,
    ) -> anyhow::Result<Result<Online, Exit>> {
        let snapshot = self.client.snapshot();
        // The engine may have been logged in for another face.
        let (name, server) = snapshot.login.wanted().unzip();
        let server = common.server.as_ref().or(server);
        let server = server.or(snapshot.settings.server.as_ref()).cloned();
        let name = common.name.as_ref().or(name).or(snapshot.nearby.as_ref());
        let nearby = snapshot.settings.allows_nearby();
        if server.is_none() && !nearby {
            self.report.error(
                "usage",
                "no server: pass --server HOST:PORT or set PINHOLE_SERVER",
            );
            return Ok(Err(Exit::Usage));
        }
        let Some(name) = name.or(snapshot.settings.name.as_ref()).cloned() else {
            self.report
                .error("usage", "no name: pass --name NAME or set PINHOLE_NAME");
            return Ok(Err(Exit::Usage));
        };
        if let (Some(holder), Some(own)) = (self.client.holder(), &snapshot.nearby)
            && *own != name
        {
            let reason = format!(
                "{holder} holds the profile and goes by the name {own}. Leave out --name, or use another --data-dir"
            );
            self.report.error("usage", &reason);
            return Ok(Err(Exit::Usage));
        }
        let online = Online {
            server: server.is_some(),
            nearby,
        };
        if nearby {
            let name = name.clone();
            let alone = server.is_none();
            self.client.command(Command::GoNearby {
                name,
                announces,
                alone,
            })?;
        }
        match server {
            Some(server) => self.client.command(Command::LogIn {
                name,
                server,
                patient,
            })?,
            None => self.report.nearby_only(None),
        }
        Ok(Ok(online))
    }

    /// Reports a failed command or login. Returns the exit code when no way to reach
    /// people is left.
    pub(crate) fn is_cut_off(&mut self, online: Online, event: &Event) -> Option<Exit> {
        match event {
            Event::LogInFailed { failure } if online.goes_on_after(failure) => {
                self.report.nearby_only(Some(failure));
                None
            }
            Event::LogInFailed { failure } => Some(self.fail(failure)),
            // People nearby cannot be looked for.
            Event::CommandFailed { failure } if !online.server => {
                let is_off = self.client.snapshot().nearby.is_none();
                is_off.then(|| self.fail(failure))
            }
            _ => None,
        }
    }

    /// Interrupts these transfers after Ctrl-C and reports how each ends. What has
    /// arrived is kept. A second Ctrl-C ends the wait. Returns whether there were any.
    pub(crate) async fn interrupt(
        &mut self,
        is_meant: impl Fn(&TransferView) -> bool,
    ) -> anyhow::Result<bool> {
        let snapshot = self.client.snapshot();
        let is_running = |t: &&TransferView| is_meant(t) && !t.stage.is_final();
        let meant = snapshot.transfers.iter().filter(is_running).map(|t| t.id);
        let mut running: Vec<TransferId> = meant.collect();
        let were_any = !running.is_empty();
        for &transfer in &running {
            self.client.command(Command::Interrupt { transfer })?;
        }
        while !running.is_empty() {
            match self.wait().await? {
                Wake::Interrupted(_) => break,
                Wake::Event(event) => self.tell(&event),
                Wake::Changed => {}
            }
            for id in std::mem::take(&mut running) {
                match self.transfer(id) {
                    Some(transfer) if transfer.stage.is_final() => {
                        self.finish(&transfer);
                    }
                    Some(_) => running.push(id),
                    None => {}
                }
            }
        }
        Ok(were_any)
    }

    /// Reports why the command ends.
    pub(crate) fn fail(&mut self, failure: &Failure) -> Exit {
        self.report.failed(None, failure);
        Exit::from(failure)
    }

    pub(crate) fn is_receiving(&self, id: TransferId) -> bool {
        let transfer = self.transfer(id);
        transfer.is_some_and(|transfer| transfer.direction == Direction::Receiving)
    }

    pub(crate) fn transfer(&self, id: TransferId) -> Option<TransferView> {
        self.client
            .snapshot()
            .transfers
            .iter()
            .find(|t| t.id == id)
            .cloned()
    }

    /// Reports how a transfer ended.
    pub(crate) fn finish(&mut self, transfer: &TransferView) -> Exit {
        match &transfer.stage {
            Stage::Completed(completion) => {
                self.report.completed(transfer, completion);
                if completion.missing() == 0 {
                    Exit::Done
                } else {
                    Exit::LocalFiles
                }
            }
            Stage::Failed(failure @ Failure::Interrupted) => {
                let peer = &transfer.peer.name;
                let reason = match transfer.direction {
                    Direction::Sending => format!(
                        "Stopped. What has arrived at {peer} is kept; the same command goes on from there."
                    ),
                    Direction::Receiving => format!(
                        "Stopped. What has arrived from {peer} is kept; when both do the same again, it goes on from there."
                    ),
                };
                self.report.ended(Some(peer), failure.kind(), &reason);
                Exit::from(failure)
            }
            Stage::Failed(failure) => {
                self.report.failed(Some(&transfer.peer.name), failure);
                Exit::from(failure)
            }
            _ => Exit::Trouble,
        }
    }

    /// Reports what is the same in every command.
    pub(crate) fn tell(&mut self, event: &Event) {
        match event {
            Event::LoggedIn {
                name,
                server,
                observed,
            } => {
                self.is_outage_told = false;
                self.report.logged_in(name, server, *observed);
            }
            Event::Nearby { name, port } => self.report.nearby(name, *port),
            Event::Disconnected { failure, retry_in } => {
                let outage = Outage {
                    is_news: !std::mem::replace(&mut self.is_outage_told, true),
                    is_nearby: self.client.snapshot().nearby.is_some(),
                };
                self.report.disconnected(failure, *retry_in, outage);
            }
            Event::Connected {
                peer,
                path,
                local,
                remote,
                elapsed,
            } => {
                self.report
                    .connected(peer, *path, *local, *remote, *elapsed);
            }
            Event::Moved {
                peer,
                path,
                local,
                remote,
            } => self.report.moved(peer, *path, *local, *remote),
            Event::KeyRefused { .. }
            | Event::KeySucceeded { .. }
            | Event::KeyRevoked { .. }
            | Event::Welcomed { .. } => self.tell_of_person(event),
            Event::FileFailed { path, failure, .. } => self.report.file_failed(path, failure),
            Event::CommandFailed { failure } => self.report.warning(failure),
            Event::Started { transfer }
            | Event::TextReceived { transfer }
            | Event::PausedByPeer { transfer, .. }
            | Event::Reconnecting { transfer } => self.tell_of_transfer(event, *transfer),
            Event::Offered { .. }
            | Event::Invitation { .. }
            | Event::Joined { .. }
            | Event::Code { .. }
            | Event::CodeClosed { .. }
            | Event::Asked { .. }
            | Event::LogInFailed { .. }
            | Event::Finished { .. }
            | Event::RecoveryWords { .. }
            | Event::Revoked { .. }
            | Event::Raised { .. }
            | Event::Diagnosed { .. } => {}
        }
    }

    /// Reports what happens to a transfer.
    fn tell_of_transfer(&mut self, event: &Event, id: TransferId) {
        let Some(transfer) = self.transfer(id) else {
            return;
        };
        match event {
            Event::Started { .. } => self.report.started(&transfer),
            Event::TextReceived { .. } => self.report.text(&transfer),
            Event::PausedByPeer { paused, .. } => {
                self.report.paused(&transfer.peer.name, *paused);
            }
            Event::Reconnecting { .. } => self.report.reconnecting(&transfer.peer.name),
            _ => {}
        }
    }

    /// Reports a peer that is new, whose key is another one, or is not to be believed.
    fn tell_of_person(&mut self, event: &Event) {
        match event {
            Event::KeyRefused {
                peer,
                known,
                released,
            } => {
                let change = match released {
                    true => KeyChange::Released,
                    false => KeyChange::Unexplained,
                };
                if self.refused_keys.insert(peer.key) {
                    self.report.key_refused(peer, *known, change);
                }
            }
            Event::KeySucceeded { peer, was } => self.report.key_succeeded(peer, *was),
            Event::KeyRevoked { peer } => self.report.key_revoked(peer),
            Event::Welcomed { peer, .. } => self.report.welcomed(peer),
            _ => {}
        }
    }
}
