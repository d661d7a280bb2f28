//! `pinhole send --code`: sends to whoever joins by a code.

use pinhole_client::{
    Command, Direction, Event, Failure, PeerKey, ServerAddress, TransferId, TransferView,
};

use crate::arguments::Common;
use crate::exit::Exit;
use crate::invitations::log_in_for_code;
use crate::payload::Payload;
use crate::terminal::{Terminal, Wake};

/// Opens a code, waits for whoever joins by it, and sends the payload to them.
pub(crate) async fn send(
    terminal: &mut Terminal<'_>,
    common: &Common,
    payload: Payload,
) -> anyhow::Result<Exit> {
    if let Err(exit) = log_in_for_code(terminal, common)? {
        return Ok(exit);
    }
    terminal.client.command(Command::OpenCode)?;
    // The profile may hold earlier transfers that waited for their peers.
    let others = terminal.client.snapshot().transfers.last().map(|t| t.id);
    let sending = SendingByCode {
        payload,
        others,
        server: None,
        recipient: None,
    };
    sending.run(terminal).await
}

struct SendingByCode {
    payload: Payload,
    /// The last transfer from before this command.
    others: Option<TransferId>,
    /// Where we are logged in, with the fingerprint of its key.
    server: Option<ServerAddress>,
    /// Who has joined.
    recipient: Option<PeerKey>,
}

impl SendingByCode {
    async fn run(mut self, terminal: &mut Terminal<'_>) -> anyhow::Result<Exit> {
        loop {
            match terminal.wait().await? {
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
                    terminal.client.command(Command::CloseCode)?;
                    if !terminal.interrupt(|t| self.is_ours(t)).await? {
                        terminal.fail(&Failure::Cancelled);
                    }
                    return Ok(Exit::Interrupted);
                }
            }
        }
    }

    fn is_ours(&self, transfer: &TransferView) -> bool {
        Some(transfer.id) > self.others
            && transfer.direction == Direction::Sending
            && Some(transfer.peer.key) == self.recipient
    }

    /// Does what an event asks for. Returns how the program ends, when it does.
    fn handle(
        &mut self,
        terminal: &mut Terminal<'_>,
        event: Event,
    ) -> anyhow::Result<Option<Exit>> {
        match event {
            Event::LoggedIn { ref server, .. } => {
                self.server = Some(server.clone());
                terminal.tell(&event);
            }
            Event::Code { code } => terminal.report.code(code, self.server.as_ref()),
            Event::Welcomed {
                ref peer,
                is_by_code: true,
            } => {
                terminal.tell(&event);
                self.recipient = Some(peer.key);
                terminal.client.command(self.payload.command(peer.key))?;
            }
            Event::Finished { transfer, .. } => {
                let view = terminal.transfer(transfer);
                let Some(view) = view.filter(|view| self.is_ours(view)) else {
                    return Ok(None);
                };
                for one in &view.offer.left_out {
                    terminal.report.left_out(&view.peer.name, one);
                }
                return Ok(Some(terminal.finish(&view)));
            }
            Event::CommandFailed {
                failure: failure @ Failure::Profile { .. },
            } => terminal.report.warning(&failure),
            Event::CodeClosed { failure }
            | Event::LogInFailed { failure }
            | Event::CommandFailed { failure } => return Ok(Some(terminal.fail(&failure))),
            event => terminal.tell(&event),
        }
        Ok(None)
    }
}
