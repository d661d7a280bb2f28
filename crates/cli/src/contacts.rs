//! `pinhole contacts`, `block`, `unblock` and `forget`.

use pinhole_client::{Command, Event, PeerIdentity, Snapshot};

use crate::arguments::PeerSpec;
use crate::exit::Exit;
use crate::terminal::{Terminal, Wake};

/// A change to the contacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContactChange {
    Block,
    Unblock,
    Forget,
}

impl ContactChange {
    fn command(self, peer: &PeerIdentity) -> Command {
        let peer = peer.key;
        match self {
            Self::Block => Command::Block { peer },
            Self::Unblock => Command::Unblock { peer },
            Self::Forget => Command::Forget { peer },
        }
    }

    fn is_done(self, peer: &PeerIdentity, snapshot: &Snapshot) -> bool {
        let is_among = |peers: &[PeerIdentity]| peers.iter().any(|one| one.key == peer.key);
        match self {
            Self::Block => is_among(&snapshot.blocked),
            Self::Unblock => !is_among(&snapshot.blocked),
            Self::Forget => !is_among(&snapshot.contacts),
        }
    }

    /// The people that the change can apply to.
    fn candidates(self, snapshot: &Snapshot) -> Vec<PeerIdentity> {
        let mut all = match self {
            Self::Unblock => snapshot.blocked.clone(),
            Self::Forget => snapshot.contacts.to_vec(),
            // People to block are in the history.
            Self::Block => {
                let history = snapshot.history.iter().map(|entry| entry.peer.clone());
                history.chain(snapshot.contacts.iter().cloned()).collect()
            }
        };
        all.sort_by_key(|peer| (peer.name.clone(), *peer.key.as_bytes()));
        all.dedup();
        all
    }
}

/// Lists the contacts, and the people who are blocked.
pub(crate) fn list(terminal: &Terminal<'_>) -> Exit {
    let snapshot = terminal.client.snapshot();
    for peer in snapshot.contacts.iter() {
        let blocked = snapshot.blocked.iter().any(|one| one.key == peer.key);
        terminal.report.contact(peer, blocked);
    }
    let is_listed = |peer: &PeerIdentity| snapshot.contacts.iter().any(|one| one.key == peer.key);
    for peer in snapshot.blocked.iter().filter(|peer| !is_listed(peer)) {
        terminal.report.contact(peer, true);
    }
    if snapshot.contacts.is_empty() && snapshot.blocked.is_empty() {
        terminal.report.note("you have no contacts yet");
    }
    Exit::Done
}

/// Makes a change to the contacts.
pub(crate) async fn change(
    terminal: &mut Terminal<'_>,
    wish: ContactChange,
    spec: &PeerSpec,
) -> anyhow::Result<Exit> {
    let candidates = wish.candidates(&terminal.client.snapshot());
    let is_meant = |peer: &&PeerIdentity| {
        let fingerprint = spec.fingerprint;
        peer.name == spec.name && fingerprint.is_none_or(|it| it == peer.key.fingerprint())
    };
    let meant: Vec<_> = candidates.iter().filter(is_meant).collect();
    let [peer] = *meant else {
        return Ok(not_one(terminal, spec, &meant));
    };
    terminal.client.command(wish.command(peer))?;
    while !wish.is_done(peer, &terminal.client.snapshot()) {
        match terminal.wait().await? {
            Wake::Interrupted(_) => return Ok(Exit::Interrupted),
            Wake::Event(Event::CommandFailed { failure }) => return Ok(terminal.fail(&failure)),
            Wake::Event(_) | Wake::Changed => {}
        }
    }
    match wish {
        ContactChange::Forget => terminal.report.forgotten(peer),
        ContactChange::Block => terminal.report.contact(peer, true),
        ContactChange::Unblock => terminal.report.contact(peer, false),
    }
    Ok(Exit::Done)
}

/// Reports that nobody or several people match.
fn not_one(terminal: &mut Terminal<'_>, spec: &PeerSpec, meant: &[&PeerIdentity]) -> Exit {
    let name = &spec.name;
    let reason = if meant.is_empty() {
        format!("Nobody called {name} is known here. `pinhole contacts` and `history` list who is.")
    } else {
        let keys = meant
            .iter()
            .map(|peer| format!("{name}#{}", peer.key.fingerprint()));
        let keys: Vec<_> = keys.collect();
        format!("Several are called {name}. Say which: {}.", keys.join(", "))
    };
    terminal.report.ended(Some(name), "usage", &reason);
    Exit::Usage
}
