//! `pinhole receive CODE`: receives from whoever has opened a code.

use std::collections::BTreeSet;
use std::time::Duration;

use pinhole_client::{
    Code, Command, Direction, Event, Failure, PeerIdentity, PeerName, TransferId, TransferView,
};
use tokio::time::{Instant, sleep_until};

use super::put_off;
use crate::arguments::Common;
use crate::exit::Exit;
use crate::invitations::log_in_for_code;
use crate::terminal::{Terminal, Wake};

/// How long whoever has opened the code may take to list what it offers.
const OFFER_PATIENCE: Duration = Duration::from_secs(5 * 60);

/// Joins whoever has opened the code, and takes what they offer: to type it in is a yes to
/// that, and to nothing else.
pub(crate) async fn receive(
    terminal: &mut Terminal<'_>,
    common: &Common,
    code: &str,
) -> anyhow::Result<Exit> {
    let code: Code = match code.parse() {
        Ok(code) => code,
        Err(error) => {
            let reason = format!("This is no code: {error}.");
            terminal.report.error("usage", &reason);
            return Ok(Exit::Usage);
        }
    };
    // Fails now rather than at the offer.
    if let Err(failure) = terminal.client.check_download_folder() {
        return Ok(terminal.fail(&failure));
    }
    let name = match log_in_for_code(terminal, common)? {
        Ok(name) => name,
        Err(exit) => return Ok(exit),
    };
    terminal.client.command(Command::JoinCode { code })?;
    let receiving = ReceivingByCode {
        name,
        sender: None,
        gives_up_at: None,
    };
    receiving.run(terminal).await
}

struct ReceivingByCode {
    /// Our own.
    name: PeerName,
    /// Whoever has opened the code, once both have shown that they know the words.
    sender: Option<PeerIdentity>,
    /// When nothing was offered.
    gives_up_at: Option<Instant>,
}

impl ReceivingByCode {
    async fn run(mut self, terminal: &mut Terminal<'_>) -> anyhow::Result<Exit> {
        loop {
            let at = self.gives_up_at;
            let wake = tokio::select! {
                wake = terminal.wait() => wake?,
                () = sleep_until(at.unwrap_or_else(Instant::now)), if at.is_some() => {
                    return Ok(self.nothing_offered(terminal));
                }
            };
            match wake {
                Wake::Event(event) => {
                    if let Some(exit) = self.handle(terminal, event)? {
                        return Ok(exit);
                    }
                }
                Wake::Changed => {
                    let snapshot = terminal.client.snapshot();
                    terminal.report.progress(&snapshot);
                }
                Wake::Interrupted(_) => {
                    put_off(terminal).await?;
                    return Ok(Exit::Interrupted);
                }
            }
        }
    }

    fn nothing_offered(&self, terminal: &mut Terminal<'_>) -> Exit {
        let name = self.sender.as_ref().map(|sender| &sender.name);
        let reason = "The other side has offered nothing. Ask them for a new code.";
        terminal.report.ended(name, "nothing_offered", reason);
        Exit::PeerOffline
    }

    /// What the sender offers; nothing that somebody else does.
    fn is_meant(&self, transfer: &TransferView) -> bool {
        let sender = self.sender.as_ref();
        transfer.direction == Direction::Receiving
            && sender.is_some_and(|sender| sender.key == transfer.peer.key)
    }

    /// Does what an event asks for. Returns how the program ends, when it does.
    fn handle(
        &mut self,
        terminal: &mut Terminal<'_>,
        event: Event,
    ) -> anyhow::Result<Option<Exit>> {
        match event {
            Event::Joined { peer, is_told } => {
                terminal.report.joined(&self.name, &peer, is_told);
                self.sender = Some(peer);
                self.gives_up_at = Some(Instant::now() + OFFER_PATIENCE);
            }
            Event::Offered { transfer } => self.offered(terminal, transfer)?,
            Event::Started { transfer } => {
                let view = terminal.transfer(transfer);
                if view.is_some_and(|view| self.is_meant(&view)) {
                    self.gives_up_at = None;
                }
                terminal.tell(&event);
            }
            Event::TextReceived { transfer } => {
                self.gives_up_at = None;
                terminal.tell(&event);
                // A text that could not be written has not arrived.
                if terminal.report.lost().is_none() {
                    terminal.client.command(Command::TextShown { transfer })?;
                }
            }
            Event::Finished { transfer, .. } => {
                let view = terminal.transfer(transfer);
                let view = view.filter(|view| self.is_meant(view));
                return Ok(view.map(|view| match view.is_text {
                    true if matches!(view.stage, pinhole_client::Stage::Completed(_)) => Exit::Done,
                    _ => terminal.finish(&view),
                }));
            }
            Event::CommandFailed {
                failure: failure @ Failure::Profile { .. },
            } => terminal.report.warning(&failure),
            Event::LogInFailed { failure } => return Ok(Some(terminal.fail(&failure))),
            Event::CommandFailed { failure } if self.sender.is_none() => {
                return Ok(Some(terminal.fail(&failure)));
            }
            event => terminal.tell(&event),
        }
        Ok(None)
    }

    fn offered(&mut self, terminal: &mut Terminal<'_>, transfer: TransferId) -> anyhow::Result<()> {
        let view = terminal.transfer(transfer);
        if !view.is_some_and(|view| self.is_meant(&view)) {
            return Ok(terminal.client.command(Command::Decline { transfer })?);
        }
        self.gives_up_at = None;
        terminal.client.command(Command::Accept {
            transfer,
            into: None,
            unwanted: BTreeSet::new(),
            existing: None,
        })?;
        Ok(())
    }
}
