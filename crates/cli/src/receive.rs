//! `pinhole receive`.

use std::collections::{BTreeSet, VecDeque};

use pinhole_client::{
    Command, Direction, Event, Existing, OfferView, Stage, TransferId, TransferView,
};

use crate::arguments::Common;
use crate::display;
use crate::exit::Exit;
use crate::prompt::{self, Answer, Prompt};
use crate::terminal::{Online, Presence, Terminal, Wake};

/// There to be found, for as long as it takes.
const PRESENCE: Presence = Presence {
    announces: true,
    patient: true,
};

/// Offers that wait for the user; the first one has been put to them.
struct Offers {
    prompt: Prompt,
    waiting: VecDeque<TransferId>,
}

/// What receives.
struct Receiving {
    online: Online,
    offers: Offers,
    once: bool,
    /// The one that counts with `once`.
    first: Option<TransferId>,
}

/// Waits for offers and takes or declines them, for ever or `once`.
pub(crate) async fn receive(
    terminal: &mut Terminal<'_>,
    common: &Common,
    once: bool,
) -> anyhow::Result<Exit> {
    // Whoever offers something should not be the first to find out.
    if let Err(failure) = terminal.client.check_download_folder() {
        return Ok(terminal.fail(&failure));
    }
    let online = match terminal.go_online(common, PRESENCE)? {
        Ok(online) => online,
        Err(exit) => return Ok(exit),
    };
    let folder = terminal.client.snapshot().download_folder.clone();
    terminal
        .report
        .note(&format!("receiving into {}; Ctrl-C ends", folder.display()));
    let receiving = Receiving {
        online,
        offers: Offers {
            prompt: Prompt::new(),
            waiting: VecDeque::new(),
        },
        once,
        first: None,
    };
    receiving.run(terminal).await
}

impl Receiving {
    async fn run(mut self, terminal: &mut Terminal<'_>) -> anyhow::Result<Exit> {
        loop {
            let wake = tokio::select! {
                wake = terminal.wait() => wake?,
                line = self.offers.prompt.line(), if !self.offers.waiting.is_empty() => {
                    let declined = self.offers.answered(terminal, line.as_deref())?;
                    if declined.is_some_and(|declined| self.is_what_counts(declined)) {
                        return Ok(Exit::Declined);
                    }
                    continue;
                }
            };
            match wake {
                Wake::Interrupted => {
                    terminal.report.withdraw_question();
                    let is_begun = |t: &TransferView| {
                        matches!(t.stage, Stage::Transferring | Stage::Reconnecting)
                    };
                    terminal.interrupt(is_begun).await?;
                    return Ok(Exit::Interrupted);
                }
                Wake::Event(event) => {
                    if let Some(exit) = self.handle(terminal, &event)? {
                        return Ok(exit);
                    }
                }
                Wake::Changed => {
                    let snapshot = terminal.client.snapshot();
                    terminal.report.progress(&snapshot);
                }
            }
        }
    }

    /// Whether the program ends with this offer.
    fn is_what_counts(&self, transfer: TransferId) -> bool {
        self.once && self.first == Some(transfer)
    }

    /// Does what an event asks for. Returns how the program ends, when it does.
    fn handle(
        &mut self,
        terminal: &mut Terminal<'_>,
        event: &Event,
    ) -> anyhow::Result<Option<Exit>> {
        match *event {
            Event::Offered { transfer } => {
                self.first.get_or_insert(transfer);
                if Prompt::has_reader() {
                    self.offers.add(terminal, transfer);
                    return Ok(None);
                }
                decline(terminal, transfer)?;
                Ok(self.is_what_counts(transfer).then_some(Exit::Declined))
            }
            Event::Finished { transfer, .. } => {
                let received = finished(terminal, &mut self.offers, transfer)?;
                if received.is_some() {
                    // It may have come to nothing before it began.
                    self.first.get_or_insert(transfer);
                }
                Ok(received.filter(|_| self.is_what_counts(transfer)))
            }
            Event::TextReceived { transfer } => {
                terminal.tell(event);
                terminal.client.command(Command::TextShown { transfer })?;
                if self.once && self.first.is_none() {
                    return Ok(Some(Exit::Done));
                }
                terminal.client.command(Command::Dismiss { transfer })?;
                Ok(None)
            }
            _ => {
                if let Event::Started { transfer } = *event
                    && terminal.is_receiving(transfer)
                {
                    self.first.get_or_insert(transfer);
                }
                let exit = terminal.is_cut_off(self.online, event);
                if exit.is_none() {
                    terminal.tell(event);
                }
                Ok(exit)
            }
        }
    }
}

/// Tells how a transfer has ended. Returns the exit code of one that was
/// received; words are told, and dismissed, by an event of their own.
fn finished(
    terminal: &mut Terminal<'_>,
    offers: &mut Offers,
    transfer: TransferId,
) -> anyhow::Result<Option<Exit>> {
    let Some(view) = terminal.transfer(transfer) else {
        return Ok(None);
    };
    let is_received = view.direction == Direction::Receiving;
    if is_received && view.text.is_some() {
        return Ok(None);
    }
    let was_asked = offers.remove(terminal, transfer);
    let exit = terminal.finish(&view);
    terminal.client.command(Command::Dismiss { transfer })?;
    if was_asked {
        offers.ask(terminal);
    }
    Ok(is_received.then_some(exit))
}

impl Offers {
    fn add(&mut self, terminal: &mut Terminal<'_>, transfer: TransferId) {
        self.waiting.push_back(transfer);
        if self.waiting.len() == 1 {
            self.ask(terminal);
        }
    }

    /// One that is over needs no answer. Returns whether the user was at it.
    fn remove(&mut self, terminal: &mut Terminal<'_>, transfer: TransferId) -> bool {
        let was_asked = self.waiting.front() == Some(&transfer);
        self.waiting.retain(|&waiting| waiting != transfer);
        if was_asked {
            terminal.report.withdraw_question();
        }
        was_asked
    }

    /// Puts the first waiting offer before the user.
    fn ask(&mut self, terminal: &mut Terminal<'_>) {
        let first = self.waiting.front();
        let Some(transfer) = first.and_then(|&id| terminal.transfer(id)) else {
            return;
        };
        let offer = &transfer.offer;
        terminal.report.offered(&transfer);
        if offer.existing > 0 {
            let existing = terminal.client.snapshot().settings.existing;
            terminal.report.note(&what_exists(offer, existing));
        }
        self.prompt.clear();
        terminal.report.ask(question(&transfer));
    }

    /// Carries the user's answer out and goes on to the next offer. Returns the
    /// offer that was declined, if one was.
    fn answered(
        &mut self,
        terminal: &mut Terminal<'_>,
        line: Option<&str>,
    ) -> anyhow::Result<Option<TransferId>> {
        match line {
            Some(_) => terminal.report.is_answered(),
            None => terminal.report.withdraw_question(),
        }
        let first = self.waiting.front();
        let Some(transfer) = first.and_then(|&id| terminal.transfer(id)) else {
            return Ok(None);
        };
        let offer = &transfer.offer;
        let items = offer.top_level.len();
        let line = line.unwrap_or_default();
        let Some(answer) = prompt::answer(line, items, offer.existing > 0) else {
            terminal.report.note(&hint(offer));
            terminal.report.ask(question(&transfer));
            return Ok(None);
        };
        self.waiting.pop_front();
        let existing = match answer {
            Answer::Yes(existing) => existing,
            Answer::Only(_) => None,
            Answer::No => {
                let reason = format!("Declined what {} offered.", transfer.peer.name);
                turn_down(terminal, &transfer, &reason)?;
                self.ask(terminal);
                return Ok(Some(transfer.id));
            }
        };
        terminal.client.command(Command::Accept {
            transfer: transfer.id,
            into: None,
            unwanted: unwanted(offer, &answer),
            existing,
        })?;
        self.ask(terminal);
        Ok(None)
    }
}

/// Turns an offer down because nobody can be asked.
fn decline(terminal: &mut Terminal<'_>, transfer: TransferId) -> anyhow::Result<()> {
    let Some(transfer) = terminal.transfer(transfer) else {
        return Ok(());
    };
    let peer = &transfer.peer.name;
    let size = display::size(transfer.offer.bytes);
    let snapshot = terminal.client.snapshot();
    let max = snapshot.settings.unasked_bytes_max;
    let why = match max.filter(|&max| transfer.offer.bytes > max) {
        Some(max) => format!("it is more than {}", display::size(max)),
        None => "use --accept contacts or --accept all".to_owned(),
    };
    let reason = format!("Declined {size} from {peer}, for there is nobody to ask: {why}.");
    turn_down(terminal, &transfer, &reason)
}

fn turn_down(
    terminal: &mut Terminal<'_>,
    transfer: &TransferView,
    reason: &str,
) -> anyhow::Result<()> {
    terminal
        .report
        .ended(Some(&transfer.peer.name), "turned_down", reason);
    let transfer = transfer.id;
    terminal.client.command(Command::Decline { transfer })?;
    Ok(())
}

fn question(transfer: &TransferView) -> String {
    let (offer, peer) = (&transfer.offer, &transfer.peer.name);
    let size = display::size(offer.bytes);
    let what = display::count(offer.files, offer.folders);
    let numbers = match offer.top_level.len() {
        0 | 1 => "",
        2 => ", or the number of one",
        _ => ", or numbers: 1,3-5",
    };
    let taken = if offer.existing > 0 { "/s/r" } else { "" };
    format!("Accept {what}, {size} from {peer}? [y/N{taken}{numbers}] ")
}

/// What can be answered.
fn hint(offer: &OfferView) -> String {
    let taken = if offer.existing > 0 { ", s, r" } else { "" };
    match offer.top_level.len() {
        0 | 1 => format!("Answer y, n{taken}."),
        items => format!("Answer y, n{taken}, or some of the numbers 1 to {items}."),
    }
}

/// Which names are taken, and what can become of them.
fn what_exists(offer: &OfferView, existing: Existing) -> String {
    let named = offer.existing_names.join(", ");
    let more = u64::from(offer.existing).saturating_sub(offer.existing_names.len() as u64);
    let names = match (offer.existing, more) {
        (1, _) => format!("{named} is here already"),
        (_, 0) => format!("{named} are here already"),
        (_, more) => format!("{named} and {more} more are here already"),
    };
    let yes = match existing {
        Existing::Rename => "gives the new one a number",
        Existing::Skip => "skips the new one",
        Existing::Replace => "replaces the old one",
    };
    format!("{names}: y {yes}, s skips the new one, r replaces the old one")
}

/// The places of what was not chosen.
fn unwanted(offer: &OfferView, answer: &Answer) -> BTreeSet<u32> {
    let Answer::Only(chosen) = answer else {
        return BTreeSet::new();
    };
    let tops = offer.top_level.iter().zip(1..);
    tops.filter(|(_, number)| !chosen.contains(number))
        .map(|(top, _)| top.entry)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_taken_are_named() {
        let offer = |existing, names: &[&str]| OfferView {
            existing,
            existing_names: names.iter().map(|&name| name.to_owned()).collect(),
            ..OfferView::default()
        };
        for (offer, begin) in [
            (offer(1, &["a"]), "a is here already: y gives"),
            (offer(2, &["a", "b"]), "a, b are here already: y gives"),
            (offer(9, &["a", "b"]), "a, b and 7 more are here already: y"),
        ] {
            let said = what_exists(&offer, Existing::Rename);
            assert!(said.starts_with(begin), "{said}");
        }
    }
}
