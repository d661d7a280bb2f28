//! `pinhole doctor`.

use pinhole_client::{Command, Event, Multicast, diagnosis::Reach, examine_multicast};

use crate::arguments::Common;
use crate::exit::Exit;
use crate::peers;
use crate::terminal::{Terminal, Wake};

/// How many of the last connections are shown below a diagnosis.
const SHOWN_CONNECTIONS: usize = 3;

/// Measures the network and reports what follows, or only shows the last attempts to
/// connect. Without a server, it looks for peers nearby.
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
        // Only a server can tell what the internet lets through.
        let exit = peers::list(terminal, common, &[]).await?;
        if exit == Exit::Done {
            terminal
                .report
                .note(&of_multicast(&examine_multicast().await));
        }
        return Ok(exit);
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

/// Whether people nearby can be found, as far as this machine can tell.
fn of_multicast(multicast: &Multicast) -> String {
    match multicast {
        Multicast::Heard => "this machine lets multicast (UDP port 5353) through, by which people on one network find each other; a firewall on the other machine, or an access point that keeps its clients apart, may still be in the way".to_owned(),
        Multicast::NotHeard => "a firewall on this machine drops multicast, by which people on one network find each other: let UDP port 5353 through".to_owned(),
        Multicast::NotSent(reason) => format!(
            "this machine does not send multicast, by which people on one network find each other ({reason}): let UDP port 5353 through its firewall"
        ),
        Multicast::NoNetwork => "this machine is on no network".to_owned(),
    }
}
