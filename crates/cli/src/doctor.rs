//! `pinhole doctor`.

use pinhole_client::{Command, Event, diagnosis::Reach};

use crate::arguments::Common;
use crate::exit::Exit;
use crate::peers;
use crate::terminal::{Terminal, Wake};

/// How many of the last connections are shown below a diagnosis.
const SHOWN_CONNECTIONS: usize = 3;

/// Measures what the network does and says what follows, or only shows what
/// the last attempts to connect have tried. Without a server it looks who is nearby.
pub(crate) async fn doctor(
    terminal: &mut Terminal<'_>,
    common: &Common,
    last: bool,
) -> anyhow::Result<Exit> {
    let attempts = terminal.client.snapshot().attempts.clone();
    if last {
        for attempt in attempts.iter() {
            terminal.report.attempt(attempt);
        }
        if attempts.is_empty() {
            terminal.report.note("no connection was made or tried yet");
        }
        return Ok(Exit::Done);
    }
    let server = common.server.clone();
    if server.is_none() && terminal.client.snapshot().settings.server.is_none() {
        // What the internet lets through only a server can tell.
        return peers::list(terminal, common).await;
    }
    terminal.client.command(Command::Diagnose { server })?;
    terminal.report.note("measuring, this takes a few seconds");
    let diagnosis = loop {
        match terminal.wait().await? {
            Wake::Event(Event::Diagnosed { diagnosis }) => break diagnosis,
            Wake::Event(Event::CommandFailed { failure }) => return Ok(terminal.fail(&failure)),
            Wake::Interrupted(_) => return Ok(Exit::Interrupted),
            Wake::Event(_) | Wake::Changed => {}
        }
    };
    terminal.report.diagnosis(&diagnosis);
    let latest = attempts.len().saturating_sub(SHOWN_CONNECTIONS);
    for attempt in attempts.iter().skip(latest) {
        terminal.report.attempt(attempt);
    }
    Ok(match diagnosis.reach {
        Reach::Nobody => Exit::NoPath,
        _ => Exit::Done,
    })
}
