//! Answers from the terminal.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, stdin};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use pinhole_client::Existing;
use tokio::sync::mpsc;

use crate::tty;

/// How often a reader checks whether its question still stands and whether it may read.
const TICK: Duration = Duration::from_millis(100);

/// Reads answers to one question at a time. Input belongs to the question that was shown
/// when it was typed.
pub(crate) struct Prompt {
    /// The input for the question that is shown.
    typed: Option<mpsc::Receiver<PromptInput>>,
}

/// Input from the terminal.
#[derive(Debug)]
pub(crate) enum PromptInput {
    Line(String),
    /// Ctrl-D.
    End,
    /// The process has come to the foreground, so the question can be answered now.
    Foreground,
}

/// The answer to an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OfferAnswer {
    /// Accept all of it. The user may override the setting for names that are taken.
    Yes(Option<Existing>),
    No,
    /// Decline it and block the peer.
    Block,
    /// Decline everything from strangers.
    NoStranger,
    /// Accept the items with these numbers, counted from 1.
    Only(BTreeSet<usize>),
}

impl Prompt {
    pub(crate) const fn new() -> Self {
        Self { typed: None }
    }

    /// Whether standard input is a terminal.
    pub(crate) fn has_reader() -> bool {
        stdin().is_terminal()
    }

    /// Prepares for a new question. Earlier input is discarded.
    pub(crate) fn open(&mut self) {
        // The reader of the earlier question ends, even if it has read something.
        let (question, typed) = mpsc::channel(1);
        self.typed = Some(typed);
        tty::forget_typed();
        // Reading cannot be cancelled, so it has its own thread.
        tokio::task::spawn_blocking(move || read_for(&question));
    }

    /// Ends the question.
    pub(crate) fn close(&mut self) {
        self.typed = None;
    }

    /// Waits for the next input.
    pub(crate) async fn next(&mut self) -> PromptInput {
        let typed = match &mut self.typed {
            Some(typed) => typed.recv().await,
            None => None,
        };
        match typed {
            Some(typed) => typed,
            None => std::future::pending().await,
        }
    }
}

/// Reads the terminal while the question stands, but never from the background, where the
/// system would stop the whole process.
fn read_for(question: &mpsc::Sender<PromptInput>) {
    /// Another reader may not have noticed yet that its question is gone.
    static READER: Mutex<()> = Mutex::new(());
    let _only_one = READER.lock();
    let mut was_behind = false;
    while !question.is_closed() {
        if tty::is_in_background() {
            was_behind = true;
            thread::sleep(TICK);
            continue;
        }
        if std::mem::take(&mut was_behind)
            && question.blocking_send(PromptInput::Foreground).is_err()
        {
            return;
        }
        let may_read = tty::has_input(TICK) && !question.is_closed() && !tty::is_in_background();
        if may_read && question.blocking_send(read_line()).is_err() {
            return;
        }
    }
}

fn read_line() -> PromptInput {
    let mut line = String::new();
    match stdin().read_line(&mut line) {
        Ok(0) | Err(_) => PromptInput::End,
        Ok(_) => PromptInput::Line(line),
    }
}

/// Parses an answer to an offer of `items` items; `None` if it makes no sense.
pub(crate) fn answer(line: &str, items: usize, is_taken: bool) -> Option<OfferAnswer> {
    match line.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Some(OfferAnswer::Yes(None)),
        "s" | "skip" if is_taken => Some(OfferAnswer::Yes(Some(Existing::Skip))),
        "r" | "replace" if is_taken => Some(OfferAnswer::Yes(Some(Existing::Replace))),
        "" | "n" | "no" => Some(OfferAnswer::No),
        "b" | "block" => Some(OfferAnswer::Block),
        "none" => Some(OfferAnswer::NoStranger),
        numbers => {
            let mut chosen = BTreeSet::new();
            for part in numbers.split(',').map(str::trim) {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let first: usize = first.trim().parse().ok()?;
                let last: usize = last.trim().parse().ok()?;
                if first == 0 || first > last || last > items {
                    return None;
                }
                chosen.extend(first..=last);
            }
            Some(OfferAnswer::Only(chosen))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_answers() {
        let only = |numbers: &[usize]| Some(OfferAnswer::Only(numbers.iter().copied().collect()));
        for (line, expected) in [
            ("y", Some(OfferAnswer::Yes(None))),
            (" YES ", Some(OfferAnswer::Yes(None))),
            ("s", Some(OfferAnswer::Yes(Some(Existing::Skip)))),
            ("Replace", Some(OfferAnswer::Yes(Some(Existing::Replace)))),
            ("", Some(OfferAnswer::No)),
            ("N", Some(OfferAnswer::No)),
            ("b", Some(OfferAnswer::Block)),
            ("none", Some(OfferAnswer::NoStranger)),
            ("2", only(&[2])),
            ("1,3-5", only(&[1, 3, 4, 5])),
            (" 1 , 4 - 5 ", only(&[1, 4, 5])),
            ("3-3", only(&[3])),
            ("0", None),
            ("6", None),
            ("5-4", None),
            ("1-99999999999", None),
            ("1,", None),
            ("-", None),
            ("perhaps", None),
        ] {
            assert_eq!(answer(line, 5, true), expected, "{line:?}");
        }
        assert_eq!(answer("s", 5, false), None, "nothing to skip");
    }
}
