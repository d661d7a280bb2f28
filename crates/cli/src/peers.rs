//! `pinhole peers` and `pinhole id`.

use pinhole_client::PeerName;

use crate::arguments::Common;
use crate::exit::Exit;
use crate::terminal::Terminal;

/// Lists who is online.
pub(crate) async fn list(terminal: &mut Terminal<'_>, common: &Common) -> anyhow::Result<Exit> {
    if let Err(exit) = terminal.log_in(common).await? {
        return Ok(exit);
    }
    let snapshot = terminal.client.snapshot();
    let online: Vec<_> = snapshot.peers.iter().filter(|p| p.online).collect();
    for peer in &online {
        terminal.report.peer(peer);
    }
    if online.is_empty() {
        terminal.report.note("nobody else is online");
    }
    Ok(Exit::Done)
}

/// Shows the profile's own identity.
pub(crate) fn id(terminal: &Terminal<'_>, name: Option<PeerName>) -> Exit {
    let snapshot = terminal.client.snapshot();
    let name = name.or_else(|| snapshot.settings.name.clone());
    terminal.report.id(name.as_ref(), snapshot.key);
    Exit::Done
}
