//! `pinhole trust`.

use pinhole_client::{Command, Event, Failure, Fingerprint, LoginState, PeerName, PeerView};
use tokio::time::{Instant, sleep_until};

use crate::arguments::{Common, Trust};
use crate::exit::Exit;
use crate::peers::{NEARBY_PATIENCE, is_looking};
use crate::report::AwaitedState;
use crate::terminal::{Online, OnlineOptions, Terminal, Wake};

/// Pins the present key of a peer, if it is the one that the user confirmed.
pub(crate) async fn trust(
    terminal: &mut Terminal<'_>,
    common: &Common,
    task: Trust,
) -> anyhow::Result<Exit> {
    let patience = Instant::now() + NEARBY_PATIENCE;
    let presence = OnlineOptions {
        announces: false,
        patient: task.wait,
    };
    terminal.look_up(std::slice::from_ref(&task.peer))?;
    let online = match terminal.go_online(common, presence)? {
        Ok(online) => online,
        Err(exit) => return Ok(exit),
    };
    let mut waits_for = online;
    let (mut pinned, mut is_waiting) = (None, false);
    loop {
        let snapshot = terminal.client.snapshot();
        let is_logged_in = matches!(snapshot.login, LoginState::LoggedIn { .. });
        let may_show = waits_for.server || waits_for.nearby || is_looking(terminal, is_logged_in);
        match find(&snapshot.peers, &task.peer, task.fingerprint) {
            KeyMatch::Same(peer)
                if peer.changed_from.is_none() && pinned == Some(peer.identity.key) =>
            {
                terminal.report.trusted(&task.peer, task.fingerprint);
                return Ok(Exit::Done);
            }
            KeyMatch::Same(peer) if pinned.is_none() => {
                let key = peer.identity.key;
                terminal
                    .client
                    .command(Command::TrustNewKey { peer: key })?;
                pinned = Some(key);
            }
            KeyMatch::Other(peer) if !may_show => {
                return Ok(refuse(terminal, peer, task.fingerprint));
            }
            KeyMatch::Nobody if !may_show && !task.wait => {
                let peer = task.peer.to_string();
                return Ok(terminal.fail(&Failure::PeerOffline { peer }));
            }
            KeyMatch::Nobody if !may_show && !is_waiting => {
                is_waiting = true;
                terminal.report.waiting(&task.peer, AwaitedState::Online);
            }
            KeyMatch::Same(_) | KeyMatch::Other(_) | KeyMatch::Nobody => {}
        }
        let end = listen(terminal, online, &mut waits_for, patience, pinned.is_some());
        if let Some(exit) = end.await? {
            return Ok(exit);
        }
    }
}

/// Waits for the next event. Returns the exit code if it ends the command.
async fn listen(
    terminal: &mut Terminal<'_>,
    online: Online,
    waits_for: &mut Online,
    patience: Instant,
    is_pinned: bool,
) -> anyhow::Result<Option<Exit>> {
    let wake = tokio::select! {
        wake = terminal.wait() => wake?,
        () = sleep_until(patience), if waits_for.nearby => {
            waits_for.nearby = false;
            return Ok(None);
        }
    };
    match wake {
        Wake::Interrupted(_) => return Ok(Some(Exit::Interrupted)),
        Wake::Changed => {}
        Wake::Event(Event::CommandFailed { failure }) if is_pinned => {
            return Ok(Some(terminal.fail(&failure)));
        }
        Wake::Event(event) => {
            if let Some(exit) = terminal.is_cut_off(online, &event) {
                return Ok(Some(exit));
            }
            if let Event::LoggedIn { .. } | Event::LogInFailed { .. } | Event::Disconnected { .. } =
                event
            {
                waits_for.server = false;
            }
            terminal.tell(&event);
        }
    }
    Ok(None)
}

/// The peer that has the name.
enum KeyMatch<'a> {
    /// Its key is the expected one.
    Same(&'a PeerView),
    /// Its key is another one.
    Other(&'a PeerView),
    Nobody,
}

fn find<'a>(peers: &'a [PeerView], name: &PeerName, fingerprint: Fingerprint) -> KeyMatch<'a> {
    let named = || {
        let online = peers.iter().filter(|peer| peer.online);
        online.filter(|peer| peer.identity.name == *name)
    };
    let is_same = |peer: &&PeerView| peer.identity.key.fingerprint() == fingerprint;
    match (named().find(is_same), named().next()) {
        (Some(same), _) => KeyMatch::Same(same),
        (None, Some(other)) => KeyMatch::Other(other),
        (None, None) => KeyMatch::Nobody,
    }
}

fn refuse(terminal: &mut Terminal<'_>, peer: &PeerView, wanted: Fingerprint) -> Exit {
    let (name, found) = (&peer.identity.name, peer.identity.key.fingerprint());
    let reason =
        format!("The fingerprint of {name} is {found}, not {wanted}. Nothing was changed.");
    terminal
        .report
        .ended(Some(name), "other_fingerprint", &reason);
    Exit::Verification
}
