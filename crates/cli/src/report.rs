//! What is printed: one JSON object a line for scripts, or text for people.

mod bar;
mod line;
mod network;
mod words;

use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use pinhole_client::snapshot::{Completion, LeftOut};
use pinhole_client::{
    Attempt, Diagnosis, Direction, Failure, Fingerprint, HistoryEntry, Outcome, PathKind,
    PeerIdentity, PeerKey, PeerName, ServerAddress, Snapshot, Stage, TransferId, TransferView,
    display_lines,
};

use self::bar::{Bar, Shown};
pub(crate) use self::line::Until;
use self::line::{Entry, Line};
use self::words::{LISTED_MAX, listing, outcome, path_in_words, summary};
use crate::display;

/// Prints. Text about what goes on is for standard error, results are for
/// standard output; with `--json` everything is for standard output.
pub(crate) struct Report {
    json: bool,
    bar: Option<Bar>,
    /// With `--json`: the bytes and files told last.
    told: HashMap<TransferId, (u64, u64)>,
    /// The question that waits for an answer on the last line.
    question: Option<String>,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            bar: None,
            told: HashMap::new(),
            question: None,
        }
    }

    fn line(&self, line: &Line<'_>) {
        // A reader that has gone away is no reason to end a transfer.
        if let Ok(text) = serde_json::to_string(line) {
            let _ = writeln!(std::io::stdout(), "{text}");
        }
    }

    fn say(&self, text: &str) {
        let mut out = std::io::stderr();
        let _ = match (&self.bar, &self.question) {
            (_, Some(question)) => write!(out, "\n{text}\n{question}"),
            (Some(bar), None) => bar.bar.suspend(|| writeln!(out, "{text}")),
            (None, None) => writeln!(out, "{text}"),
        };
    }

    /// A result, for standard output.
    fn print(&self, text: &str) {
        let mut out = std::io::stdout();
        if let Some(question) = &self.question {
            let _ = writeln!(std::io::stderr());
            let _ = writeln!(out, "{text}");
            let _ = write!(std::io::stderr(), "{question}");
        } else {
            let _ = writeln!(out, "{text}");
        }
    }

    /// Puts a question and leaves the cursor behind it.
    pub(crate) fn ask(&mut self, question: String) {
        self.clear_bar();
        if self.json {
            // Lines of JSON may follow at any time.
            return self.say(&question);
        }
        let _ = write!(std::io::stderr(), "{question}");
        self.question = Some(question);
    }

    /// The user has answered, which ended the line.
    pub(crate) fn is_answered(&mut self) {
        self.question = None;
    }

    /// The question is of no interest any more.
    pub(crate) fn withdraw_question(&mut self) {
        if self.question.take().is_some() {
            let _ = writeln!(std::io::stderr());
        }
    }

    pub(crate) fn logged_in(&self, name: &PeerName, server: &ServerAddress, observed: SocketAddr) {
        if self.json {
            self.line(&Line::LoggedIn {
                name,
                observed,
                server: server.to_string(),
            });
        } else {
            self.say(&format!("logged in as {name} at {server}"));
        }
    }

    pub(crate) fn nearby(&self, name: &PeerName, port: Option<u16>) {
        if self.json {
            self.line(&Line::Nearby { name, port });
        } else if let Some(port) = port {
            self.say(&format!(
                "people on your network can find you as {name} (TCP port {port})"
            ));
        }
    }

    /// There is no server, or none that answers.
    pub(crate) fn nearby_only(&self, failure: Option<&Failure>) {
        if self.json {
            let reason = failure.map(ToString::to_string);
            return self.line(&Line::NearbyOnly { reason });
        }
        let why = failure.map_or_else(|| "No server is set.".to_owned(), ToString::to_string);
        self.say(&format!("{why} Only people nearby can be reached."));
    }

    /// There is no connection to the server, and there will be another attempt.
    /// People hear of it only when it `is_news`.
    pub(crate) fn disconnected(
        &self,
        failure: &Failure,
        retry_in: Duration,
        (is_news, is_nearby): (bool, bool),
    ) {
        if self.json {
            let retry_in_ms = millis(retry_in);
            self.line(&Line::Disconnected {
                reason: failure.to_string(),
                retry_in_ms,
            });
        } else if is_news {
            let meanwhile = match is_nearby {
                true => " Meanwhile only people nearby can be reached.",
                false => "",
            };
            self.say(&format!(
                "{failure} Trying again until it is there.{meanwhile}"
            ));
        }
    }

    pub(crate) fn connected(
        &self,
        peer: &PeerIdentity,
        path: PathKind,
        (local, remote): (SocketAddr, SocketAddr),
        elapsed: Duration,
    ) {
        if self.json {
            let elapsed_ms = millis(elapsed);
            self.line(&Line::Connected {
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

    /// A session goes another way from now on.
    pub(crate) fn moved(
        &self,
        peer: &PeerIdentity,
        path: PathKind,
        (local, remote): (SocketAddr, SocketAddr),
    ) {
        if self.json {
            self.line(&Line::Moved {
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

    /// Somebody under a known name has another key and was not let in.
    pub(crate) fn key_refused(&self, peer: &PeerIdentity, known: Fingerprint) {
        let (name, fingerprint) = (&peer.name, peer.key.fingerprint());
        if self.json {
            return self.line(&Line::KeyRefused {
                peer: name,
                fingerprint,
                known,
            });
        }
        let trust = words::trust(name.as_str(), known, fingerprint);
        self.say(&format!(
            "refused {name}, whose key has changed. It may be a new device, or somebody else. {trust}"
        ));
    }

    /// A key is trusted from now on.
    pub(crate) fn trusted(&self, name: &PeerName, fingerprint: Fingerprint) {
        if self.json {
            return self.line(&Line::Trusted { name, fingerprint });
        }
        self.print(&format!("{name} is {fingerprint} from now on"));
    }

    /// An offer that somebody has to decide on.
    pub(crate) fn offered(&self, transfer: &TransferView) {
        let (peer, offer, claimed) = (&transfer.peer, &transfer.offer, transfer.claimed);
        if self.json {
            let entries = offer.entries.iter().map(|e| Entry {
                path: &e.path,
                size_bytes: e.size_bytes,
            });
            return self.line(&Line::Offered {
                peer: &peer.name,
                fingerprint: peer.key.fingerprint(),
                claimed,
                files: offer.files,
                folders: offer.folders,
                bytes: offer.bytes,
                existing: offer.existing,
                existing_names: &offer.existing_names,
                entries: entries.collect(),
            });
        }
        if claimed {
            let (name, fingerprint) = (&peer.name, peer.key.fingerprint());
            self.say(&format!(
                "somebody nearby who calls itself {name}; no server confirms it. Fingerprint: {fingerprint}"
            ));
        }
        self.say(&format!("{} offers {}:", peer.name, summary(offer)));
        let lines = listing(offer);
        for line in lines.iter().take(LISTED_MAX) {
            self.say(line);
        }
        if let Some(more @ 1..) = lines.len().checked_sub(LISTED_MAX) {
            self.say(&format!("… and {more} more"));
        }
    }

    /// A connection was lost, and the transfer waits for a new one.
    pub(crate) fn reconnecting(&self, peer: &PeerName) {
        if self.json {
            return self.line(&Line::Reconnecting { peer });
        }
        self.say(&format!(
            "the connection to {peer} was lost; connecting again"
        ));
    }

    /// A few words of a peer.
    pub(crate) fn text(&self, transfer: &TransferView) {
        let (peer, text) = (&transfer.peer.name, transfer.text.as_deref());
        let text = text.unwrap_or_default();
        if self.json {
            return self.line(&Line::Text { peer, text });
        }
        self.say(&format!("{peer} writes:"));
        self.print(&display_lines(text));
    }

    /// Bytes begin to move.
    pub(crate) fn started(&self, transfer: &TransferView) {
        let offer = &transfer.offer;
        if self.json {
            self.line(&Line::Started {
                peer: &transfer.peer.name,
                files: offer.files,
                folders: offer.folders,
                bytes: offer.bytes,
            });
        } else if !std::io::stderr().is_terminal() {
            self.say(&format!("{}: {}", bar::title(transfer), summary(offer)));
        }
    }

    pub(crate) fn progress(&mut self, snapshot: &Snapshot) {
        if self.json {
            for transfer in &snapshot.transfers {
                self.tell_progress(transfer);
            }
        } else if std::io::stderr().is_terminal() {
            self.show_progress(snapshot);
        }
    }

    fn tell_progress(&mut self, transfer: &TransferView) {
        let progress = &transfer.progress;
        let news = (progress.bytes_done, progress.files_done);
        let is_moving = matches!(transfer.stage, Stage::Transferring);
        if is_moving && self.told.insert(transfer.id, news) != Some(news) {
            self.line(&Line::Progress {
                peer: &transfer.peer.name,
                bytes: progress.bytes_done,
                total: progress.bytes_total,
                files: progress.files_done,
                files_total: progress.files_total,
            });
        }
    }

    fn show_progress(&mut self, snapshot: &Snapshot) {
        // The bar would be drawn over the question.
        let shown = Shown::of(snapshot).filter(|_| self.question.is_none());
        let Some(shown) = shown else {
            return;
        };
        if !self.bar.as_ref().is_some_and(|bar| bar.is_of(&shown)) {
            self.clear_bar();
        }
        self.bar
            .get_or_insert_with(|| Bar::new(&shown))
            .show(&shown);
    }

    /// The other side has stopped a transfer for a while, or lets it go on.
    pub(crate) fn paused(&self, peer: &PeerName, paused: bool) {
        if self.json {
            return self.line(&Line::Paused { peer, paused });
        }
        let what = if paused { "has paused" } else { "goes on" };
        self.say(&format!("{peer} {what}"));
    }

    pub(crate) fn file_failed(&self, path: &str, failure: &Failure) {
        if self.json {
            self.line(&Line::FileFailed {
                path,
                kind: failure.kind(),
                reason: failure.to_string(),
            });
        } else {
            self.say(&format!("not transferred: {path}: {failure}"));
        }
    }

    pub(crate) fn completed(&mut self, transfer: &TransferView, completion: &Completion) {
        self.clear_bar();
        self.told.remove(&transfer.id);
        if self.json {
            let folder = completion.folder.as_ref();
            let paths = completion.paths.iter();
            let paths = paths.map(|path| path.display().to_string());
            return self.line(&Line::Completed {
                peer: &transfer.peer.name,
                files: completion.files,
                bytes: completion.bytes,
                here_bytes: completion.here_bytes,
                resent_bytes: completion.resent_bytes,
                failed_files: completion.failed_files,
                skipped_files: completion.skipped_files,
                elapsed_ms: millis(completion.elapsed),
                path: transfer.path,
                digest: completion.digest.as_deref(),
                folder: folder.map(|folder| folder.display().to_string()),
                paths: paths.collect(),
            });
        }
        self.print(&outcome(transfer, completion));
        let files = |count| display::count(count, 0);
        if completion.failed_files > 0 {
            let failed = files(completion.failed_files);
            self.say(&format!("{failed} could not be transferred"));
        }
    }

    /// Why a command ends, or why a transfer with `peer` does.
    pub(crate) fn failed(&mut self, peer: Option<&PeerName>, failure: &Failure) {
        self.ended(peer, failure.kind(), &words::failure(failure));
    }

    pub(crate) fn error(&mut self, kind: &str, reason: &str) {
        self.ended(None, kind, reason);
    }

    pub(crate) fn ended(&mut self, peer: Option<&PeerName>, kind: &str, reason: &str) {
        self.clear_bar();
        if self.json {
            self.line(&Line::Failed { peer, kind, reason });
        } else {
            self.say(&format!("pinhole: {reason}"));
        }
    }

    /// Something did not go as it should; what was asked for goes on.
    pub(crate) fn warning(&self, failure: &Failure) {
        let reason = words::failure(failure);
        if self.json {
            let kind = failure.kind();
            return self.line(&Line::Warning { kind, reason });
        }
        self.say(&reason);
    }

    /// The other side is waited for.
    pub(crate) fn waiting(&self, peer: &PeerName, until: Until) {
        if self.json {
            return self.line(&Line::Waiting { peer, until });
        }
        self.say(&match until {
            Until::Online => format!("waiting until {peer} is online; Ctrl-C ends"),
            Until::Accepted => format!("waiting for {peer} to accept"),
        });
    }

    /// Something found is not sent.
    pub(crate) fn left_out(&self, peer: &PeerName, left_out: &LeftOut) {
        if self.json {
            return self.line(&Line::LeftOut {
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

    pub(crate) fn peer(&self, peer: &pinhole_client::PeerView) {
        let (name, key) = (&peer.identity.name, peer.identity.key);
        let fingerprint = key.fingerprint();
        let (contact, key_changed) = (peer.contact, peer.changed_from.is_some());
        let (nearby, claimed) = (peer.nearby, peer.claimed);
        if self.json {
            return self.line(&Line::Peer {
                name,
                key,
                fingerprint,
                contact,
                key_changed,
                nearby,
                claimed,
            });
        }
        let note = match (key_changed, contact) {
            (true, _) => "  KEY HAS CHANGED",
            (false, true) => "  contact",
            (false, false) => "",
        };
        let place = match (nearby, claimed) {
            (true, true) => "  nearby, name not confirmed by a server",
            (true, false) => "  nearby",
            (false, _) => "",
        };
        let _ = writeln!(std::io::stdout(), "{name:<32}  {fingerprint}{note}{place}");
    }

    pub(crate) fn history(&self, entry: &HistoryEntry) {
        if self.json {
            return self.line(&Line::History(entry));
        }
        let when = display::date(entry.ended_at_s);
        let (title, peer) = (&entry.title, &entry.peer.name);
        let way = match entry.direction {
            Direction::Sending => "to  ",
            Direction::Receiving => "from",
        };
        let end = match &entry.outcome {
            Outcome::Completed { failed_files: 0 } => "✓".to_owned(),
            Outcome::Completed { failed_files } => format!("✓ but {failed_files} failed"),
            Outcome::Failed { reason } => reason.clone(),
        };
        let size = display::size(entry.bytes);
        let path = entry.path.map(|path| path.to_string()).unwrap_or_default();
        let elapsed = entry.elapsed_ms.filter(|&elapsed_ms| elapsed_ms > 0);
        let travelled = entry.bytes.saturating_sub(entry.here_bytes);
        let speed = elapsed.map(|ms| display::speed(travelled, Duration::from_millis(ms)));
        let speed = speed.unwrap_or_default();
        let _ = writeln!(
            std::io::stdout(),
            "{when}  {way} {peer:<16}  {size:>10}  {path:<7}  {speed:>13}  {title}  {end}"
        );
    }

    pub(crate) fn diagnosis(&self, diagnosis: &Diagnosis) {
        if self.json {
            self.line(&Line::Diagnosis(diagnosis));
        } else {
            self.print(&network::diagnosis(diagnosis));
        }
    }

    pub(crate) fn attempt(&self, attempt: &Attempt) {
        if self.json {
            self.line(&Line::Attempt(attempt));
        } else {
            self.print(&network::attempt(attempt));
        }
    }

    pub(crate) fn id(&self, name: Option<&PeerName>, key: PeerKey) {
        let fingerprint = key.fingerprint();
        if self.json {
            return self.line(&Line::Id {
                name,
                key,
                fingerprint,
            });
        }
        let shown = name.map_or("(none yet; pass --name)", PeerName::as_str);
        let mut out = std::io::stdout();
        let _ = writeln!(
            out,
            "name         {shown}\nkey          {key}\nfingerprint  {fingerprint}"
        );
    }

    fn clear_bar(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.bar.finish_and_clear();
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
