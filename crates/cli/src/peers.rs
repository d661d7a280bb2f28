//! `pinhole peers` and `pinhole id`.

use std::time::Duration;

use pinhole_client::{Event, PeerName};
use tokio::time::{Instant, sleep_until};

use crate::arguments::Common;
use crate::exit::Exit;
use crate::terminal::{OnlineOptions, Terminal, Wake};

/// How long answers from peers nearby are waited for. Most come at once, but a responder
/// that has answered another query within the last second waits until that second is over
/// (RFC 6762, 6).
pub(crate) const NEARBY_PATIENCE: Duration = Duration::from_millis(1_500);

/// Lists the peers that are online or nearby.
pub(crate) async fn list(terminal: &mut Terminal<'_>, common: &Common) -> anyhow::Result<Exit> {
    let patience = Instant::now() + NEARBY_PATIENCE;
    let presence = OnlineOptions {
        announces: false,
        patient: false,
    };
    let online = match terminal.go_online(common, presence)? {
        Ok(online) => online,
        Err(exit) => return Ok(exit),
    };
    let mut waits_for = online;
    let mut is_complete = true;
    while waits_for.server || waits_for.nearby {
        let event = tokio::select! {
            wake = terminal.wait() => match wake? {
                Wake::Event(event) => event,
                Wake::Interrupted(_) => return Ok(Exit::Interrupted),
                Wake::Changed => continue,
            },
            () = sleep_until(patience), if waits_for.nearby => {
                waits_for.nearby = false;
                continue;
            }
        };
        if let Some(exit) = terminal.is_cut_off(online, &event) {
            return Ok(exit);
        }
        if let Event::LoggedIn { .. } | Event::LogInFailed { .. } = event {
            waits_for.server = false;
            is_complete = matches!(event, Event::LoggedIn { .. });
        }
        terminal.tell(&event);
    }
    let snapshot = terminal.client.snapshot();
    let peers: Vec<_> = snapshot.peers.iter().filter(|p| p.online).collect();
    for peer in &peers {
        terminal.report.peer(peer);
    }
    if peers.is_empty() {
        terminal.report.note(match (is_complete && online.server, online.nearby) {
            (true, true) => "nobody else is online or nearby",
            (true, false) => "nobody else is online",
            (false, _) => {
                "nobody else is nearby; if somebody should be, a firewall may not let UDP port 5353 through"
            }
        });
    }
    Ok(match is_complete {
        true => Exit::Done,
        // The server could not be asked who is online.
        false => Exit::NoPath,
    })
}

/// Shows the profile's own identity.
pub(crate) fn id(terminal: &Terminal<'_>, name: Option<PeerName>) -> Exit {
    let snapshot = terminal.client.snapshot();
    let name = name.or_else(|| snapshot.settings.name.clone());
    terminal.report.id(name.as_ref(), snapshot.key);
    Exit::Done
}
