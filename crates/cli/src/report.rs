//! The output: JSON objects for scripts, or text for people.

mod bar;
mod json_line;
mod meeting;
mod network;
mod output;
mod people;
mod presence;
mod recovery;
mod words;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use pinhole_client::Completion;
use pinhole_client::snapshot::LeftOut;
use pinhole_client::{
    Attempt, Diagnosis, Direction, Failure, HistoryEntry, PathKind, PeerIdentity, PeerName,
    Snapshot, Stage, TransferId, TransferView, amount,
};

use self::bar::{Bar, BarContent};
pub(crate) use self::json_line::AwaitedState;
use self::json_line::{JsonEntry, JsonLine};
use self::output::{Level, Output};
pub(crate) use self::output::{Lines, Results};
pub(crate) use self::presence::Outage;
pub(crate) use self::words::plain;
use self::words::{LISTED_MAX, listing, outcome, path_in_words, summary};
use crate::{display, tty};

/// The gutter before each line of a peer's text.
const GUTTER: &str = "│ ";

/// What is known about the change of a peer's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyChange {
    Unexplained,
    /// The name was released, because nobody used it.
    Released,
}

/// Prints events to standard error and results to standard output. With `--json`
/// everything goes to standard output.
pub(crate) struct Reporter {
    json: bool,
    output: Output,
    /// Where questions are shown when standard error is redirected.
    tty: Option<File>,
    bar: Option<Bar>,
    /// With `--json`: the bytes and files last reported.
    told: HashMap<TransferId, (u64, u64)>,
    /// The unanswered question on the last line.
    question: Option<String>,
}

impl Reporter {
    pub(crate) fn new(json: bool, results: Results, lines: Lines) -> Self {
        let is_seen = io::stderr().is_terminal() || !io::stdin().is_terminal();
        Self {
            json,
            output: Output::of_process(results, lines),
            tty: if is_seen || lines == Lines::WithLevels {
                None
            } else {
                tty::open()
            },
            bar: None,
            told: HashMap::new(),
            question: None,
        }
    }

    /// The error after which standard output takes no more results.
    pub(crate) fn lost(&self) -> Option<&io::Error> {
        self.output.lost()
    }

    /// Reports on standard error why the program ends, even with `--json`.
    pub(crate) fn unheard(&mut self, reason: &str) {
        self.clear_bar();
        self.say_at(Level::Error, &format!("pinhole: {}", plain(reason)));
    }

    fn line(&self, line: &JsonLine<'_>) {
        if let Ok(text) = serde_json::to_string(line) {
            self.output.json(&text);
        }
    }

    fn say(&self, text: &str) {
        self.say_at(Level::Info, text);
    }

    fn say_at(&self, level: Level, text: &str) {
        let text = self.output.note_at(level, text);
        let mut out = io::stderr();
        let _ = match (&self.bar, &self.question) {
            (_, Some(question)) if self.tty.is_none() => write!(out, "\n{text}\n{question}"),
            (Some(bar), None) => bar.suspend(|| writeln!(out, "{text}")),
            _ => writeln!(out, "{text}"),
        };
    }

    /// Shows text that belongs to a question, where the user sees it.
    fn show(&self, text: &str) {
        self.say(text);
        if let Some(mut tty) = self.tty.as_ref() {
            let _ = writeln!(tty, "{}", self.output.note(text));
        }
    }

    /// Writes part of a line where the user sees it.
    fn put(&self, text: &str) {
        let _ = match self.tty.as_ref() {
            Some(mut tty) => write!(tty, "{text}"),
            None => write!(io::stderr(), "{text}"),
        };
    }

    /// Prints a result of one line.
    fn print(&self, text: &str) {
        self.beside_question(|| self.output.result(text));
    }

    /// Writes to standard output, and shows the question again behind it.
    fn beside_question(&self, write: impl FnOnce()) {
        let question = self.question.as_ref();
        let question = question.filter(|_| self.output.results_are_seen());
        if question.is_some() {
            self.put("\n");
        }
        write();
        if let Some(question) = question {
            self.put(question);
        }
    }

    /// Shows a question and leaves the cursor behind it.
    pub(crate) fn ask(&mut self, question: &str) {
        self.clear_bar();
        if self.json {
            // Lines of JSON can follow at any time.
            return self.show(question);
        }
        let question = self.output.note(question) + " ";
        self.put(&question);
        self.question = Some(question);
    }

    /// The user has answered, which has ended the line.
    pub(crate) fn is_answered(&mut self) {
        self.question = None;
    }

    /// Withdraws the question.
    pub(crate) fn withdraw_question(&mut self) {
        if self.question.take().is_some() {
            self.put("\n");
        }
    }

    /// Shows text that belongs to a question.
    pub(crate) fn hint(&self, text: &str) {
        self.show(text);
    }

    pub(crate) fn connected(
        &self,
        peer: &PeerIdentity,
        path: PathKind,
        local: SocketAddr,
        remote: SocketAddr,
        elapsed: Duration,
    ) {
        if self.json {
            let elapsed_ms = millis(elapsed);
            self.line(&JsonLine::Connected {
                peer: &peer.name,
                path,
                local,
                remote,
                elapsed_ms,
            });
        } else {
            let (name, way) = (&peer.name, path_in_words(path));
            self.say(&format!(
                "connected to {name}: {way}, {}",
                display::time(elapsed)
            ));
        }
    }

    /// A session has moved to another path.
    pub(crate) fn moved(
        &self,
        peer: &PeerIdentity,
        path: PathKind,
        local: SocketAddr,
        remote: SocketAddr,
    ) {
        if self.json {
            self.line(&JsonLine::Moved {
                peer: &peer.name,
                path,
                local,
                remote,
            });
        } else {
            let (name, way) = (&peer.name, path_in_words(path));
            self.say(&format!("to {name} from now on: {way}"));
        }
    }

    /// An offer that the user has to decide on.
    pub(crate) fn offered(&self, transfer: &TransferView) {
        let (peer, offer, claimed) = (&transfer.peer, &transfer.offer, transfer.claimed);
        if self.json {
            let entries = offer.entries.iter().map(|e| JsonEntry {
                path: &e.path,
                size_bytes: e.size_bytes,
            });
            return self.line(&JsonLine::Offered {
                peer: &peer.name,
                fingerprint: peer.key.fingerprint(),
                claimed,
                stranger: transfer.stranger,
                text: transfer.is_text,
                files: offer.files,
                folders: offer.folders,
                bytes: display::known_bytes(offer),
                existing: offer.existing,
                unread: offer.unread,
                existing_names: &offer.existing_names,
                entries: entries.collect(),
            });
        }
        if claimed {
            let (name, fingerprint) = (&peer.name, peer.key.fingerprint());
            self.show(&format!(
                "somebody nearby calls itself {name}; no server confirms the name. Fingerprint: {fingerprint}"
            ));
        }
        if transfer.is_text {
            let (name, size) = (&peer.name, amount::display(offer.bytes));
            return self.show(&format!("{name}, a stranger, has sent a message ({size})"));
        }
        self.show(&format!("{} offers {}:", peer.name, summary(offer)));
        let lines = listing(offer);
        for line in lines.iter().take(LISTED_MAX) {
            self.show(line);
        }
        if let Some(more @ 1..) = lines.len().checked_sub(LISTED_MAX) {
            self.show(&format!("… and {more} more"));
        }
        if offer.unread > 0 {
            self.say(&words::unread(transfer.direction, &peer.name, offer.unread));
        }
    }

    /// A connection was lost, and the transfer waits for a new one.
    pub(crate) fn reconnecting(&self, peer: &PeerName) {
        if self.json {
            return self.line(&JsonLine::Reconnecting { peer });
        }
        self.say(&format!(
            "the connection to {peer} was lost; connecting again"
        ));
    }

    /// A text from a peer.
    pub(crate) fn text(&self, transfer: &TransferView) {
        let (peer, text) = (&transfer.peer.name, transfer.text.as_deref());
        let text = text.unwrap_or_default();
        if self.json {
            return self.line(&JsonLine::Text { peer, text });
        }
        self.say(&format!("{peer} writes:"));
        self.beside_question(|| self.output.lines(text, GUTTER));
    }

    /// The transfer of bytes begins.
    pub(crate) fn started(&self, transfer: &TransferView) {
        let offer = &transfer.offer;
        if self.json {
            self.line(&JsonLine::Started {
                peer: &transfer.peer.name,
                files: offer.files,
                folders: offer.folders,
                bytes: display::known_bytes(offer),
            });
        } else if !io::stderr().is_terminal() {
            self.say(&format!("{}: {}", bar::title(transfer), summary(offer)));
        }
    }

    pub(crate) fn progress(&mut self, snapshot: &Snapshot) {
        if self.json {
            for transfer in &snapshot.transfers {
                self.tell_progress(transfer);
            }
        } else if io::stderr().is_terminal() {
            self.show_progress(snapshot);
        }
    }

    fn tell_progress(&mut self, transfer: &TransferView) {
        let progress = &transfer.progress;
        let news = (progress.bytes_done, progress.files_done);
        let is_moving = matches!(transfer.stage, Stage::Transferring);
        if is_moving && self.told.insert(transfer.id, news) != Some(news) {
            self.line(&JsonLine::Progress {
                peer: &transfer.peer.name,
                bytes: progress.bytes_done,
                total: progress.bytes_total,
                files: progress.files_done,
                files_total: progress.files_total,
            });
        }
    }

    fn show_progress(&mut self, snapshot: &Snapshot) {
        // The bar would overwrite the question, or the output of another program.
        let is_free = self.question.is_none() && !tty::is_in_background();
        let Some(shown) = BarContent::of(snapshot).filter(|_| is_free) else {
            return;
        };
        if !self.bar.as_ref().is_some_and(|bar| bar.is_of(&shown)) {
            self.clear_bar();
        }
        let bar = self
            .bar
            .get_or_insert_with(|| Bar::new(&shown, self.output.is_ascii()));
        if let Some(line) = bar.show(&shown, |text| self.output.plain(text)) {
            self.say(&line);
        }
    }

    /// The peer has paused a transfer, or resumed it.
    pub(crate) fn paused(&self, peer: &PeerName, paused: bool) {
        if self.json {
            return self.line(&JsonLine::Paused { peer, paused });
        }
        let what = if paused { "has paused" } else { "goes on" };
        self.say(&format!("{peer} {what}"));
    }

    pub(crate) fn file_failed(&self, path: &str, failure: &Failure) {
        if self.json {
            self.line(&JsonLine::FileFailed {
                path,
                kind: failure.kind(),
                reason: words::failure(failure),
            });
        } else {
            let why = words::failure(failure);
            self.say_at(Level::Warning, &format!("not transferred: {path}: {why}"));
        }
    }

    pub(crate) fn completed(&mut self, transfer: &TransferView, completion: &Completion) {
        self.clear_bar();
        self.told.remove(&transfer.id);
        if self.json {
            let folder = completion.folder.as_ref();
            let paths = completion.paths.iter();
            let paths = paths.map(|path| path.display().to_string());
            return self.line(&JsonLine::Completed {
                peer: &transfer.peer.name,
                files: completion.files,
                bytes: completion.bytes,
                here_bytes: completion.here_bytes,
                resent_bytes: completion.resent_bytes,
                failed_files: completion.failed_files,
                unread: completion.unread,
                skipped_files: completion.skipped_files,
                skipped: &completion.skipped,
                elapsed_ms: millis(completion.elapsed),
                path: transfer.path,
                digest: completion.digest.as_deref(),
                folder: folder.map(|folder| folder.display().to_string()),
                paths: paths.collect(),
                renamed: &completion.renamed.first,
            });
        }
        self.print(&outcome(transfer, completion));
        for line in words::skipped(&completion.skipped) {
            self.say(&line);
        }
        for line in words::renamed(transfer.direction, &completion.renamed) {
            self.say(&line);
        }
        let files = |count| display::count(count, 0);
        if completion.failed_files > 0 {
            let failed = files(completion.failed_files);
            self.say(&format!("{failed} could not be transferred"));
        }
        if completion.unread > 0 {
            self.say(&words::unread(
                transfer.direction,
                &transfer.peer.name,
                completion.unread,
            ));
        }
    }

    /// The failure that ends a command, or a transfer with `peer`.
    pub(crate) fn failed(&mut self, peer: Option<&PeerName>, failure: &Failure) {
        let bytes = match failure {
            Failure::Broken { arrived_bytes, .. } => Some(*arrived_bytes),
            _ => None,
        };
        self.end(peer, failure.kind(), &words::failure(failure), bytes);
    }

    pub(crate) fn error(&mut self, kind: &str, reason: &str) {
        self.ended(None, kind, reason);
    }

    pub(crate) fn ended(&mut self, peer: Option<&PeerName>, kind: &str, reason: &str) {
        self.end(peer, kind, reason, None);
    }

    /// `bytes` of what was broken off had arrived.
    fn end(&mut self, peer: Option<&PeerName>, kind: &str, reason: &str, bytes: Option<u64>) {
        self.clear_bar();
        let reason = &plain(reason);
        if self.json {
            self.line(&JsonLine::Failed {
                peer,
                kind,
                reason,
                bytes,
            });
        }
        // The user has to hear of it in any case.
        if !self.json || self.lost().is_some() {
            self.say_at(Level::Error, &format!("pinhole: {reason}"));
        }
    }

    /// Reports arguments that cannot be used.
    pub(crate) fn unusable(&mut self, text: &str) {
        if !self.json {
            return text.lines().for_each(|line| self.say(line));
        }
        let (reason, _) = text.split_once("\n\nUsage:").unwrap_or((text, ""));
        let (reason, _) = reason.split_once("\n\nFor more").unwrap_or((reason, ""));
        let words: Vec<&str> = reason.split_whitespace().collect();
        let reason = words.join(" ");
        self.error("usage", reason.trim_start_matches("error: "));
    }

    /// Something failed, but the command goes on.
    pub(crate) fn warning(&self, failure: &Failure) {
        let reason = words::failure(failure);
        if self.json {
            let kind = failure.kind();
            return self.line(&JsonLine::Warning { kind, reason });
        }
        self.say_at(Level::Warning, &reason);
    }

    /// The peer has to do something first.
    pub(crate) fn waiting(&self, peer: &PeerName, until: AwaitedState) {
        if self.json {
            return self.line(&JsonLine::Waiting { peer, until });
        }
        self.say(&match until {
            AwaitedState::Online => format!("waiting until {peer} is online; Ctrl-C ends"),
            AwaitedState::Receiving => format!("waiting until {peer} receives; Ctrl-C ends"),
            AwaitedState::Accepted => format!("waiting for {peer} to accept"),
        });
    }

    /// A file that is not sent.
    pub(crate) fn left_out(&self, peer: &PeerName, left_out: &LeftOut) {
        if self.json {
            return self.line(&JsonLine::LeftOut {
                peer,
                path: &left_out.path,
                reason: &left_out.reason,
            });
        }
        self.say(&format!("left out: {left_out}"));
    }

    pub(crate) fn note(&self, text: &str) {
        if !self.json {
            self.say(text);
        }
    }

    pub(crate) fn history(&self, entry: &HistoryEntry) {
        if self.json {
            return self.line(&JsonLine::History(entry));
        }
        let when = display::date(entry.ended_at_s);
        let (title, peer) = (&entry.title, &entry.peer.name);
        let way = match entry.direction {
            Direction::Sending => "to  ",
            Direction::Receiving => "from",
        };
        let end = words::end(entry);
        let size = amount::display(entry.bytes);
        let path = entry.path.map(|path| path.to_string()).unwrap_or_default();
        let elapsed = entry.elapsed_ms.filter(|&elapsed_ms| elapsed_ms > 0);
        let travelled = entry.bytes.saturating_sub(entry.here_bytes);
        let speed = elapsed.map_or_else(String::new, |ms| {
            amount::display_rate(amount::average_rate(travelled, Duration::from_millis(ms)))
        });
        self.print(&format!(
            "{when}  {way} {peer:<16}  {size:>10}  {path:<7}  {speed:>13}  {title}  {end}"
        ));
    }

    pub(crate) fn diagnosis(&self, diagnosis: &Diagnosis) {
        if self.json {
            self.line(&JsonLine::Diagnosis(diagnosis));
        } else {
            self.output.lines(&network::diagnosis(diagnosis), "");
        }
    }

    pub(crate) fn attempt(&self, attempt: &Attempt) {
        if self.json {
            self.line(&JsonLine::Attempt(attempt));
        } else {
            self.output.lines(&network::attempt(attempt), "");
        }
    }

    fn clear_bar(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.clear();
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
