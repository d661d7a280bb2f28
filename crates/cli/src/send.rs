//! `pinhole send`.

use std::path::PathBuf;

use pinhole_client::{Command, Event, Failure, PeerName, Stage, TransferId};

use crate::arguments::Common;
use crate::exit::Exit;
use crate::terminal::{Terminal, Wake};

/// Offers the paths to the peer and waits until everything is durable there.
pub(crate) async fn send(
    terminal: &mut Terminal<'_>,
    common: &Common,
    peer: &PeerName,
    paths: Vec<PathBuf>,
) -> anyhow::Result<Exit> {
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
    let snapshot = terminal.client.snapshot();
    let Some(online) = snapshot.peers.iter().find(|p| p.identity.name == *peer) else {
        return Ok(terminal.fail(&Failure::PeerOffline {
            peer: peer.to_string(),
        }));
    };
    let key = online.identity.key;
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
            Wake::Event(Event::Finished { transfer, .. }) => return Ok(finish(terminal, transfer)),
            Wake::Event(Event::LogInFailed { failure } | Event::CommandFailed { failure }) => {
                return Ok(terminal.fail(&failure));
            }
            Wake::Event(event) => terminal.tell(&event),
            Wake::Changed => {
                let snapshot = terminal.client.snapshot();
                let Some(transfer) = snapshot.transfers.first() else {
                    continue;
                };
                match transfer.stage {
                    Stage::Transferring => terminal.report.progress(&transfer.progress),
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
