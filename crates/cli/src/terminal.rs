//! The running engine as the commands see it, with Ctrl-C.

use anyhow::Context as _;
use pinhole_client::{
    Client, Command, Direction, Event, Events, Failure, Stage, TransferId, TransferView,
};

use crate::arguments::Common;
use crate::exit::Exit;
use crate::interrupts::Interrupts;
use crate::report::Report;

/// Engine and output together.
pub(crate) struct Terminal<'a> {
    pub(crate) client: &'a mut Client,
    events: &'a mut Events,
    pub(crate) report: &'a mut Report,
    interrupts: &'a mut Interrupts,
}

/// What woke a command up.
#[derive(Debug)]
pub(crate) enum Wake {
    Event(Event),
    /// The snapshot is new.
    Changed,
    Interrupted,
}

impl<'a> Terminal<'a> {
    pub(crate) fn new(
        client: &'a mut Client,
        events: &'a mut Events,
        report: &'a mut Report,
        interrupts: &'a mut Interrupts,
    ) -> Self {
        Self {
            client,
            events,
            report,
            interrupts,
        }
    }

    /// Waits for something to happen. Events come before snapshots, so that a
    /// start is told before its progress.
    pub(crate) async fn wait(&mut self) -> anyhow::Result<Wake> {
        tokio::select! {
            biased;
            () = self.interrupts.next() => Ok(Wake::Interrupted),
            event = self.events.next() => {
                event.map(Wake::Event).context("the engine ended unexpectedly; run with PINHOLE_LOG=debug")
            }
            _ = self.client.changed() => Ok(Wake::Changed),
        }
    }

    /// Logs in. `Err(exit)` inside when that is where it ends.
    pub(crate) async fn log_in(&mut self, common: &Common) -> anyhow::Result<Result<(), Exit>> {
        let snapshot = self.client.snapshot();
        let Some(server) = common
            .server
            .clone()
            .or_else(|| snapshot.settings.server.clone())
        else {
            self.report
                .error("no server: pass --server HOST:PORT or set PINHOLE_SERVER");
            return Ok(Err(Exit::Usage));
        };
        let Some(name) = common
            .name
            .clone()
            .or_else(|| snapshot.settings.name.clone())
        else {
            self.report
                .error("no name: pass --name NAME or set PINHOLE_NAME");
            return Ok(Err(Exit::Usage));
        };
        self.client.command(Command::LogIn { name, server })?;
        loop {
            match self.wait().await? {
                Wake::Event(Event::LoggedIn {
                    name,
                    server,
                    observed,
                }) => {
                    self.report.logged_in(&name, &server, observed);
                    return Ok(Ok(()));
                }
                Wake::Event(Event::LogInFailed { failure }) => {
                    return Ok(Err(self.fail(&failure)));
                }
                Wake::Interrupted => return Ok(Err(Exit::Interrupted)),
                Wake::Event(_) | Wake::Changed => {}
            }
        }
    }

    /// Puts these transfers off at Ctrl-C, and says what becomes of each. What
    /// has arrived is kept; at a second Ctrl-C nothing is waited for. Returns
    /// whether there were any.
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
                Wake::Interrupted => break,
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

    /// Says why it ends.
    pub(crate) fn fail(&mut self, failure: &Failure) -> Exit {
        self.report.failed(None, failure);
        Exit::from(failure)
    }

    pub(crate) fn transfer(&self, id: TransferId) -> Option<TransferView> {
        self.client
            .snapshot()
            .transfers
            .iter()
            .find(|t| t.id == id)
            .cloned()
    }

    /// Tells how a transfer ended.
    pub(crate) fn finish(&mut self, transfer: &TransferView) -> Exit {
        match &transfer.stage {
            Stage::Completed(completion) => {
                self.report.completed(transfer, completion);
                if completion.failed_files == 0 {
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
                self.report.ended(Some(peer), &reason);
                Exit::from(failure)
            }
            Stage::Failed(failure) => {
                self.report.failed(Some(&transfer.peer.name), failure);
                Exit::from(failure)
            }
            _ => Exit::Trouble,
        }
    }

    /// What every command tells in the same way.
    pub(crate) fn tell(&mut self, event: &Event) {
        match event {
            Event::LoggedIn {
                name,
                server,
                observed,
            } => {
                self.report.logged_in(name, server, *observed);
            }
            Event::Disconnected { failure, retry_in } => {
                self.report.disconnected(failure, *retry_in);
            }
            Event::Connected {
                peer,
                path,
                local,
                remote,
                elapsed,
            } => {
                self.report
                    .connected(peer, *path, (*local, *remote), *elapsed);
            }
            Event::Started { transfer } => {
                if let Some(transfer) = self.transfer(*transfer) {
                    self.report.started(&transfer);
                }
            }
            Event::FileFailed { path, failure, .. } => self.report.file_failed(path, failure),
            Event::CommandFailed { failure } => self.report.note(&failure.to_string()),
            Event::TextReceived { transfer } => {
                if let Some(transfer) = self.transfer(*transfer) {
                    self.report.text(&transfer);
                }
            }
            Event::PausedByPeer { transfer, paused } => {
                if let Some(transfer) = self.transfer(*transfer) {
                    self.report.paused(&transfer.peer.name, *paused);
                }
            }
            Event::Reconnecting { transfer } => {
                if let Some(transfer) = self.transfer(*transfer) {
                    self.report.reconnecting(&transfer.peer.name);
                }
            }
            Event::Offered { .. }
            | Event::LogInFailed { .. }
            | Event::Finished { .. }
            | Event::Diagnosed { .. } => {}
        }
    }
}
