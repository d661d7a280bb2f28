//! What is printed: one JSON object a line for scripts, or text for people.

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use pinhole_client::snapshot::{Completion, Progress};
use pinhole_client::{
    Direction, Failure, Fingerprint, HistoryEntry, OfferView, Outcome, PathKind, PeerIdentity,
    PeerKey, PeerName, ServerAddress, TransferView, display_lines,
};
use serde::Serialize;

use crate::display;

/// The bar needs room, too.
const BAR_TITLE_CHARS: usize = 40;

/// A line of `--json` output.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    LoggedIn {
        name: &'a PeerName,
        observed: SocketAddr,
        server: String,
    },
    Disconnected {
        reason: String,
        retry_in_ms: u64,
    },
    Connected {
        peer: &'a PeerName,
        path: PathKind,
        local: SocketAddr,
        remote: SocketAddr,
        elapsed_ms: u64,
    },
    Offered {
        peer: &'a PeerName,
        fingerprint: Fingerprint,
        files: u64,
        folders: u64,
        bytes: u64,
        entries: Vec<Entry<'a>>,
    },
    Text {
        peer: &'a PeerName,
        text: &'a str,
    },
    Started {
        peer: &'a PeerName,
        files: u64,
        folders: u64,
        bytes: u64,
    },
    Progress {
        bytes: u64,
        total: u64,
    },
    FileFailed {
        path: &'a str,
        reason: String,
    },
    Completed {
        peer: &'a PeerName,
        files: u64,
        bytes: u64,
        resent_bytes: u64,
        failed_files: u64,
        elapsed_ms: u64,
        path: Option<PathKind>,
        folder: Option<String>,
    },
    Failed {
        reason: &'a str,
    },
    Peer {
        name: &'a PeerName,
        key: PeerKey,
        fingerprint: Fingerprint,
        contact: bool,
        key_changed: bool,
    },
    History(&'a HistoryEntry),
    Id {
        name: Option<&'a PeerName>,
        key: PeerKey,
        fingerprint: Fingerprint,
    },
}

#[derive(Debug, Serialize)]
struct Entry<'a> {
    path: &'a str,
    size_bytes: Option<u64>,
}

/// Prints. Text about what goes on is for standard error, results are for
/// standard output; with `--json` everything is for standard output.
pub(crate) struct Report {
    json: bool,
    bar: Option<ProgressBar>,
    shown_bytes: Option<u64>,
}

impl Report {
    pub(crate) const fn new(json: bool) -> Self {
        Self {
            json,
            bar: None,
            shown_bytes: None,
        }
    }

    fn line(&self, line: &Line<'_>) {
        // A reader that has gone away is no reason to end a transfer.
        if let Ok(text) = serde_json::to_string(line) {
            let _ = writeln!(std::io::stdout(), "{text}");
        }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| {
                let _ = writeln!(std::io::stderr(), "{text}");
            }),
            None => {
                let _ = writeln!(std::io::stderr(), "{text}");
            }
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

    pub(crate) fn disconnected(&self, failure: &Failure, retry_in: Duration) {
        if self.json {
            let retry_in_ms = millis(retry_in);
            self.line(&Line::Disconnected {
                reason: failure.to_string(),
                retry_in_ms,
            });
        } else {
            self.say(&format!(
                "{failure} Trying again in {}.",
                display::time(retry_in)
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

    /// An offer that somebody has to decide on.
    pub(crate) fn offered(&self, peer: &PeerIdentity, offer: &OfferView) {
        if self.json {
            let entries = offer.entries.iter().map(|e| Entry {
                path: &e.path,
                size_bytes: e.size_bytes,
            });
            self.line(&Line::Offered {
                peer: &peer.name,
                fingerprint: peer.key.fingerprint(),
                files: offer.files,
                folders: offer.folders,
                bytes: offer.bytes,
                entries: entries.collect(),
            });
        } else {
            self.say(&format!("{} offers {}:", peer.name, summary(offer)));
            for entry in &offer.entries {
                match entry.size_bytes {
                    Some(size) => self.say(&format!("{:>12}  {}", display::size(size), entry.path)),
                    None => self.say(&format!("{:>12}  {}/", "", entry.path)),
                }
            }
        }
    }

    /// A few words of a peer.
    pub(crate) fn text(&self, transfer: &TransferView) {
        let (peer, text) = (&transfer.peer.name, transfer.text.as_deref());
        let text = text.unwrap_or_default();
        if self.json {
            return self.line(&Line::Text { peer, text });
        }
        self.say(&format!("{peer} writes:"));
        let _ = writeln!(std::io::stdout(), "{}", display_lines(text));
    }

    /// Bytes begin to move.
    pub(crate) fn started(&mut self, peer: &PeerName, direction: Direction, offer: &OfferView) {
        self.shown_bytes = None;
        if self.json {
            let (files, folders, bytes) = (offer.files, offer.folders, offer.bytes);
            return self.line(&Line::Started {
                peer,
                files,
                folders,
                bytes,
            });
        }
        let what = match direction {
            Direction::Sending => format!("{} to {peer}", offer.title),
            Direction::Receiving => format!("{} from {peer}", offer.title),
        };
        if std::io::stderr().is_terminal() {
            self.bar = Some(progress_bar(&what, offer.bytes));
        } else {
            self.say(&format!("{what}: {}", summary(offer)));
        }
    }

    pub(crate) fn progress(&mut self, progress: &Progress) {
        if let Some(bar) = &self.bar {
            bar.set_position(progress.bytes_done);
            bar.set_message(pace(progress));
        }
        if self.json && self.shown_bytes != Some(progress.bytes_done) {
            self.shown_bytes = Some(progress.bytes_done);
            let (bytes, total) = (progress.bytes_done, progress.bytes_total);
            self.line(&Line::Progress { bytes, total });
        }
    }

    pub(crate) fn file_failed(&self, path: &str, failure: &Failure) {
        if self.json {
            self.line(&Line::FileFailed {
                path,
                reason: failure.to_string(),
            });
        } else {
            self.say(&format!("not transferred: {path}: {failure}"));
        }
    }

    pub(crate) fn completed(
        &mut self,
        (peer, direction): (&PeerName, Direction),
        title: &str,
        path: Option<PathKind>,
        completion: &Completion,
    ) {
        self.clear_bar();
        let Completion {
            files,
            bytes,
            resent_bytes,
            failed_files,
            elapsed,
            ..
        } = *completion;
        let folder = completion.folder.as_ref().map(|f| f.display().to_string());
        if self.json {
            let elapsed_ms = millis(elapsed);
            return self.line(&Line::Completed {
                peer,
                files,
                bytes,
                resent_bytes,
                failed_files,
                elapsed_ms,
                path,
                folder,
            });
        }
        let whence = match (direction, folder) {
            (Direction::Sending, _) => format!("to {peer}"),
            (Direction::Receiving, Some(folder)) => format!("from {peer} into {folder}"),
            (Direction::Receiving, None) => format!("from {peer}"),
        };
        let way = path.map_or("", path_in_words);
        let (size, time) = (display::size(bytes), display::time(elapsed));
        let speed = display::speed(bytes, elapsed);
        let mark = if failed_files == 0 { "✓" } else { "!" };
        let _ = writeln!(
            std::io::stdout(),
            "{mark} {title} {whence}: {size} in {time}, {speed}, {way}"
        );
        if failed_files > 0 {
            self.say(&format!(
                "{} could not be transferred",
                display::count(failed_files, 0)
            ));
        }
    }

    pub(crate) fn failed(&mut self, failure: &Failure) {
        self.error(&failure.to_string());
    }

    pub(crate) fn error(&mut self, reason: &str) {
        self.clear_bar();
        if self.json {
            self.line(&Line::Failed { reason });
        } else {
            self.say(&format!("pinhole: {reason}"));
        }
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
        if self.json {
            return self.line(&Line::Peer {
                name,
                key,
                fingerprint,
                contact,
                key_changed,
            });
        }
        let note = match (key_changed, contact) {
            (true, _) => "  KEY HAS CHANGED",
            (false, true) => "  contact",
            (false, false) => "",
        };
        let _ = writeln!(std::io::stdout(), "{name:<32}  {fingerprint}{note}");
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
        let _ = writeln!(
            std::io::stdout(),
            "{when}  {way} {peer:<16}  {size:>10}  {title}  {end}"
        );
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
            bar.finish_and_clear();
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn summary(offer: &OfferView) -> String {
    format!(
        "{}, {}",
        display::count(offer.files, offer.folders),
        display::size(offer.bytes)
    )
}

/// The path for people.
fn path_in_words(path: PathKind) -> &'static str {
    match path {
        PathKind::Lan => "directly, on your network",
        PathKind::Ipv6 => "directly, over IPv6",
        PathKind::Punched => "directly, through both NATs",
        PathKind::Relay => "through the relay",
    }
}

fn pace(progress: &Progress) -> String {
    match (progress.bytes_per_second, progress.time_left) {
        (Some(0), _) => "stalled".to_owned(),
        (Some(speed), Some(left)) => {
            let speed = display::speed(speed, Duration::from_secs(1));
            format!("{speed}, {:#} left", indicatif::HumanDuration(left))
        }
        (Some(speed), None) => display::speed(speed, Duration::from_secs(1)),
        (None, _) => String::new(),
    }
}

fn progress_bar(what: &str, total_bytes: u64) -> ProgressBar {
    let bar =
        ProgressBar::with_draw_target(Some(total_bytes), ProgressDrawTarget::stderr_with_hz(10));
    let percent = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = write!(out, "{:>3.0}%", state.fraction() * 100.0);
    };
    let template = "{prefix}  {wide_bar} {share}  {decimal_bytes}/{decimal_total_bytes}  {msg}";
    // The template is constant; if it were wrong the default one would serve.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.with_key("share", percent).progress_chars("━━╌"));
    }
    bar.with_prefix(display::shortened(what, BAR_TITLE_CHARS))
}
