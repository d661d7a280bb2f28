//! `pinhole history`.

use pinhole_client::Command;

use crate::exit::Exit;
use crate::terminal::{Terminal, Wake};

/// Lists every transfer that has ended, or clears the list.
pub(crate) async fn history(terminal: &mut Terminal<'_>, clear: bool) -> anyhow::Result<Exit> {
    if clear {
        terminal.client.command(Command::ClearHistory)?;
        while !terminal.client.snapshot().history.is_empty() {
            if let Wake::Interrupted(_) = terminal.wait().await? {
                return Ok(Exit::Interrupted);
            }
        }
        terminal.report.note("the history is empty now");
        return Ok(Exit::Done);
    }
    for entry in terminal.client.snapshot().history.iter() {
        terminal.report.history(entry);
    }
    if terminal.client.snapshot().history.is_empty() {
        terminal.report.note("nothing was sent or received yet");
    }
    Ok(Exit::Done)
}
