//! `pinhole peers` and `pinhole id`.

use std::time::Duration;

use pinhole_client::{Directory, Event, LookUpState, PeerName, PeerView};
use tokio::time::{Instant, sleep_until};

use crate::arguments::Common;
use crate::exit::Exit;
use crate::terminal::{Online, OnlineOptions, Terminal, Wake};

/// How long answers from peers nearby are waited for. Most come at once, but a responder
/// that has answered another query within the last second waits until that second is over
/// (RFC 6762, 6).
pub(crate) const NEARBY_PATIENCE: Duration = Duration::from_millis(1_500);

/// How long the server may take to look names up.
const LOOK_UP_PATIENCE: Duration = Duration::from_secs(10);

/// Lists the peers that are online or nearby, or those of them that have one of these
/// names.
pub(crate) async fn list(
    terminal: &mut Terminal<'_>,
    common: &Common,
    names: &[PeerName],
) -> anyhow::Result<Exit> {
    terminal.look_up(names)?;
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
    let look_up_patience = Instant::now() + LOOK_UP_PATIENCE;
    while waits_for.server || waits_for.nearby || is_looking(terminal, is_complete) {
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
            () = sleep_until(look_up_patience), if !waits_for.server => break,
        };
        let event = if_impatient(event, waits_for);
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
    let is_meant = |peer: &&PeerView| names.is_empty() || names.contains(&peer.identity.name);
    let online_peers = snapshot.peers.iter().filter(|peer| peer.online);
    let peers: Vec<_> = online_peers.filter(is_meant).collect();
    for peer in &peers {
        terminal.report.peer(peer);
    }
    let is_there = |name: &&PeerName| peers.iter().any(|peer| peer.identity.name == **name);
    let absent: Vec<_> = names.iter().filter(|name| !is_there(name)).collect();
    for name in &absent {
        terminal.report.absent(name);
    }
    let is_closed = snapshot.directory == Some(Directory::Closed);
    if is_closed && names.is_empty() {
        terminal.report.directory_closed();
    } else if peers.is_empty() && names.is_empty() {
        terminal.report.note(match (is_complete && online.server, online.nearby) {
            (true, true) => "nobody else is online or nearby",
            (true, false) => "nobody else is online",
            (false, _) => {
                "nobody else is nearby; if somebody should be, a firewall may not let UDP port 5353 through"
            }
        });
    }
    Ok(match (is_complete, absent.is_empty()) {
        (true, true) => Exit::Done,
        (true, false) => Exit::PeerOffline,
        // The server could not be asked who is online.
        (false, _) => Exit::NoPath,
    })
}

/// Whoever holds the profile may wait for the server for longer than this command.
fn if_impatient(event: Event, waits_for: Online) -> Event {
    match event {
        Event::Disconnected { failure, .. } if waits_for.server => Event::LogInFailed { failure },
        event => event,
    }
}

/// Whether the server has not answered for every name yet.
pub(crate) fn is_looking(terminal: &Terminal<'_>, is_logged_in: bool) -> bool {
    let snapshot = terminal.client.snapshot();
    let mut looked_up = snapshot.looked_up.iter();
    is_logged_in && looked_up.any(|it| it.state == LookUpState::Searching)
}

/// Shows the profile's own identity.
pub(crate) fn id(terminal: &Terminal<'_>, name: Option<PeerName>) -> Exit {
    let snapshot = terminal.client.snapshot();
    let name = name.or_else(|| snapshot.settings.name.clone());
    terminal.report.id(name.as_ref(), snapshot.key);
    Exit::Done
}
