//! What the user answers on the terminal.

use std::collections::BTreeSet;
use std::io::{BufRead as _, IsTerminal as _};

use pinhole_client::Existing;
use tokio::sync::mpsc;

/// Answers to questions put one at a time.
pub(crate) struct Prompt {
    /// What is typed, from the first question on.
    lines: Option<mpsc::UnboundedReceiver<String>>,
}

/// What the user wants of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// All of it. Where names are taken, perhaps otherwise than the settings say.
    Yes(Option<Existing>),
    No,
    /// The items with these numbers, counted from 1.
    Only(BTreeSet<usize>),
}

impl Prompt {
    pub(crate) const fn new() -> Self {
        Self { lines: None }
    }

    /// Whether anybody can answer.
    pub(crate) fn has_reader() -> bool {
        std::io::stdin().is_terminal()
    }

    /// Makes ready for a new question: what was typed before it is no answer.
    pub(crate) fn clear(&mut self) {
        let lines = self.lines.get_or_insert_with(read_lines);
        while lines.try_recv().is_ok() {}
    }

    /// Waits for the next line; `None` at an end of the input. At a terminal that
    /// is no more than a Ctrl-D, and more may follow.
    pub(crate) async fn line(&mut self) -> Option<String> {
        let Some(lines) = &mut self.lines else {
            return std::future::pending().await;
        };
        let line = lines.recv().await;
        if line.is_none() {
            self.lines = Some(read_lines());
        }
        line
    }
}

/// Reads the terminal on a thread of its own, for that cannot be called off.
fn read_lines() -> mpsc::UnboundedReceiver<String> {
    let (sender, lines) = mpsc::unbounded_channel();
    tokio::task::spawn_blocking(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// What a line says to an offer of so many items, of which some names may be
/// taken; `None` when it makes no sense.
pub(crate) fn answer(line: &str, items: usize, is_taken: bool) -> Option<Answer> {
    match line.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Some(Answer::Yes(None)),
        "s" | "skip" if is_taken => Some(Answer::Yes(Some(Existing::Skip))),
        "r" | "replace" if is_taken => Some(Answer::Yes(Some(Existing::Replace))),
        "" | "n" | "no" => Some(Answer::No),
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
            Some(Answer::Only(chosen))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_answers() {
        let only = |numbers: &[usize]| Some(Answer::Only(numbers.iter().copied().collect()));
        for (line, expected) in [
            ("y", Some(Answer::Yes(None))),
            (" YES ", Some(Answer::Yes(None))),
            ("s", Some(Answer::Yes(Some(Existing::Skip)))),
            ("Replace", Some(Answer::Yes(Some(Existing::Replace)))),
            ("", Some(Answer::No)),
            ("N", Some(Answer::No)),
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
