//! `pinhole send`.

use pinhole_client::{Command, Event, Failure, PeerKey, PeerName, Stage, TransferId};

use crate::arguments::{Common, Send};
use crate::exit::Exit;
use crate::terminal::{Terminal, Wake};

/// Offers the paths to the peer and waits until everything is durable there.
pub(crate) async fn send(
    terminal: &mut Terminal<'_>,
    common: &Common,
    task: Send,
) -> anyhow::Result<Exit> {
    let Send {
        peer, wait, paths, ..
    } = task;
    // Before anything is asked of others.
    if let Some(missing) = paths
        .iter()
        .find(|path| std::fs::symlink_metadata(path).is_err())
    {
        let detail = format!("{}: no such file or folder", missing.display());
        return Ok(terminal.fail(&Failure::LocalFiles { detail }));
    }
    if let Err(exit) = terminal.log_in(common).await? {
        return Ok(exit);
    }
    let key = match online(terminal, &peer, wait).await? {
        Ok(key) => key,
        Err(exit) => return Ok(exit),
    };
    // The profile may have transfers of its own that waited for their peers.
    let others = terminal.client.snapshot().transfers.last().map(|t| t.id);
    let is_ours = |id: TransferId| Some(id) > others;
    terminal
        .client
        .command(Command::Send { peer: key, paths })?;
    let mut told_waiting = false;
    loop {
        match terminal.wait().await? {
            Wake::Interrupted => {
                cancel_all(terminal);
                terminal.fail(&Failure::Cancelled);
                return Ok(Exit::Interrupted);
            }
            Wake::Event(Event::Finished { transfer, .. }) if is_ours(transfer) => {
                return Ok(finish(terminal, transfer));
            }
            Wake::Event(Event::LogInFailed { failure } | Event::CommandFailed { failure }) => {
                return Ok(terminal.fail(&failure));
            }
            Wake::Event(event) => terminal.tell(&event),
            Wake::Changed => {
                let snapshot = terminal.client.snapshot();
                let Some(transfer) = snapshot.transfers.iter().find(|t| is_ours(t.id)) else {
                    continue;
                };
                match transfer.stage {
                    Stage::Transferring => terminal.report.progress(&snapshot),
                    Stage::AwaitingAnswer if !told_waiting => {
                        told_waiting = true;
                        for skipped in &transfer.offer.skipped {
                            terminal.report.note(&format!("left out: {skipped}"));
                        }
                        terminal
                            .report
                            .note(&format!("waiting for {peer} to accept"));
                    }
                    _ => {}
                }
            }
        }
    }
}

/// The key of the peer once it is online. `Err(exit)` inside when that is where
/// it ends.
async fn online(
    terminal: &mut Terminal<'_>,
    peer: &PeerName,
    wait: bool,
) -> anyhow::Result<Result<PeerKey, Exit>> {
    let mut told = false;
    loop {
        let snapshot = terminal.client.snapshot();
        let mut named = snapshot.peers.iter().filter(|p| p.identity.name == *peer);
        if let Some(found) = named.find(|p| p.online) {
            return Ok(Ok(found.identity.key));
        }
        if !wait {
            let failure = Failure::PeerOffline {
                peer: peer.to_string(),
            };
            return Ok(Err(terminal.fail(&failure)));
        }
        if !told {
            told = true;
            terminal
                .report
                .note(&format!("waiting until {peer} is online; Ctrl-C ends"));
        }
        match terminal.wait().await? {
            Wake::Interrupted => return Ok(Err(Exit::Interrupted)),
            Wake::Event(Event::LogInFailed { failure }) => return Ok(Err(terminal.fail(&failure))),
            Wake::Event(event) => terminal.tell(&event),
            Wake::Changed => {}
        }
    }
}

fn finish(terminal: &mut Terminal<'_>, transfer: TransferId) -> Exit {
    match terminal.transfer(transfer) {
        Some(transfer) => terminal.finish(&transfer),
        None => Exit::Trouble,
    }
}

fn cancel_all(terminal: &Terminal<'_>) {
    // The engine cancels whatever still runs when it ends; this is sooner.
    for transfer in &terminal.client.snapshot().transfers {
        let _ = terminal.client.command(Command::Cancel {
            transfer: transfer.id,
        });
    }
}
