//! `pinhole receive`.

use std::collections::BTreeSet;

use pinhole_client::{Command, Event, Failure, Stage, TransferId};

use crate::arguments::Common;
use crate::display;
use crate::exit::Exit;
use crate::prompt::Prompt;
use crate::terminal::{Terminal, Wake};

/// Waits for offers and takes or declines them, for ever or `once`.
pub(crate) async fn receive(
    terminal: &mut Terminal<'_>,
    common: &Common,
    once: bool,
) -> anyhow::Result<Exit> {
    if let Err(exit) = terminal.log_in(common).await? {
        return Ok(exit);
    }
    let folder = terminal.client.snapshot().download_folder.clone();
    terminal
        .report
        .note(&format!("receiving into {}; Ctrl-C ends", folder.display()));
    let mut prompt = Prompt::new();
    let mut asked: Vec<TransferId> = Vec::new();
    loop {
        let wake = tokio::select! {
            wake = terminal.wait() => wake?,
            answer = prompt.answer(), if !asked.is_empty() => {
                let transfer = asked.remove(0);
                if !decide(terminal, transfer, answer)? && once {
                    return Ok(Exit::Declined);
                }
                ask_next(terminal, &mut prompt, &asked);
                continue;
            }
        };
        match wake {
            Wake::Interrupted => return Ok(Exit::Interrupted),
            Wake::Event(Event::Offered { transfer }) => {
                asked.push(transfer);
                if asked.len() == 1 {
                    ask_next(terminal, &mut prompt, &asked);
                }
            }
            Wake::Event(Event::Finished { transfer, .. }) => {
                asked.retain(|&id| id != transfer);
                let Some(view) = terminal.transfer(transfer) else {
                    continue;
                };
                let exit = terminal.finish(&view);
                if once {
                    return Ok(exit);
                }
                terminal.client.command(Command::Dismiss { transfer })?;
            }
            Wake::Event(Event::LogInFailed { failure }) => return Ok(terminal.fail(&failure)),
            Wake::Event(event) => terminal.tell(&event),
            Wake::Changed => show_progress(terminal),
        }
    }
}

/// Puts the first waiting offer before the user.
fn ask_next(terminal: &Terminal<'_>, prompt: &mut Prompt, asked: &[TransferId]) {
    let Some(offer) = asked.first().and_then(|&id| terminal.transfer(id)) else {
        return;
    };
    terminal.report.offered(&offer.peer, &offer.offer);
    let size = display::size(offer.offer.bytes);
    prompt.ask(&format!("Accept {size} from {}? [y/N] ", offer.peer.name));
}

/// Carries the user's answer out; returns it.
fn decide(terminal: &mut Terminal<'_>, transfer: TransferId, accept: bool) -> anyhow::Result<bool> {
    if accept {
        terminal.client.command(Command::Accept {
            transfer,
            into: None,
            unwanted: BTreeSet::new(),
            existing: None,
        })?;
    } else {
        if let Some(offer) = terminal.transfer(transfer) {
            terminal.report.failed(&Failure::NotPossible {
                detail: format!("Declined what {} offered.", offer.peer.name),
            });
        }
        terminal.client.command(Command::Decline { transfer })?;
    }
    Ok(accept)
}

/// The bar shows the oldest transfer that moves.
fn show_progress(terminal: &mut Terminal<'_>) {
    let snapshot = terminal.client.snapshot();
    let moving = snapshot
        .transfers
        .iter()
        .find(|t| matches!(t.stage, Stage::Transferring));
    if let Some(transfer) = moving {
        terminal.report.progress(&transfer.progress);
    }
}
