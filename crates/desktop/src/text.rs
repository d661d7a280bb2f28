//! Every word that the application shows, and how numbers are formatted.

mod drops;
mod invite;
mod keys;
mod leave;
mod recovery;
mod strangers;

use std::time::Duration;

use pinhole_client::Completion;
use pinhole_client::snapshot::Overall;
use pinhole_client::{
    Attempt, Direction, Failure, HistoryEntry, Outcome, PathKind, Paused, PeerName, Progress,
    Stage, TEXT_BYTES_MAX, TransferView, amount, display_text,
};

pub(crate) use drops::*;
pub(crate) use invite::*;
pub(crate) use keys::*;
pub(crate) use leave::*;
pub(crate) use recovery::*;
pub(crate) use strangers::*;

use crate::selection::SelectedAmount;

/// The application's name, as people write it.
pub(crate) const APP: &str = "Pinhole";
/// Shown under the name on the first screen.
pub(crate) const TAGLINE: &str =
    "Send files straight to another computer,\nencrypted from end to end.";

/// The words of a text field: over it, in it while it is empty, and under it.
pub(crate) struct FieldWords {
    pub(crate) label: &'static str,
    pub(crate) hint: &'static str,
    pub(crate) help: &'static str,
}

pub(crate) const NAME_FIELD: FieldWords = FieldWords {
    label: "Your name",
    hint: "for example alice",
    help: "Others see it and send to it. 3 to 32 of a–z, 0–9, . _ -",
};
pub(crate) const SERVER_FIELD: FieldWords = FieldWords {
    label: "Server",
    hint: "host or host:port",
    help: "Where you meet. Everybody who wants to exchange files uses the same one.",
};
pub(crate) const LOG_IN: &str = "Log in";
pub(crate) const CANCEL: &str = "Cancel";
pub(crate) const YOUR_FINGERPRINT: &str = "Your fingerprint";
pub(crate) const FINGERPRINT_HELP: &str =
    "Read it to the other person to be sure that you talk to each other, and to nobody between.";
pub(crate) const COPY: &str = "Copy";
pub(crate) const COPIED: &str = "Copied.";

pub(crate) const PEOPLE: &str = "People";
pub(crate) const TRANSFERS: &str = "Transfers";
pub(crate) const NOBODY: &str = "Nobody else is here yet";
pub(crate) const NO_TRANSFERS: &str = "Drop files or folders on a name, or paste them with Ctrl+V. Nothing is saved before the other side accepts.";
pub(crate) const COPY_SERVER: &str = "Copy the server's address";
pub(crate) const SEND_FILES: &str = "Send files";
pub(crate) const SEND_FOLDER: &str = "Send a folder";
pub(crate) const REVIEW: &str = "Review";
pub(crate) const ONLINE: &str = "Online";
pub(crate) const OFFLINE: &str = "Offline, gets it when back";
pub(crate) const CONTACT_ONLINE: &str = "Online, known to you";
pub(crate) const LOGGED_OUT: &str = "Not logged in any more";
pub(crate) const NEARBY: &str = "Nearby";
pub(crate) const CONTACT_NEARBY: &str = "Nearby, known to you";
pub(crate) const CLAIMED: &str = "Nearby, name not confirmed";
pub(crate) const CLAIMED_HELP: &str =
    "No server confirms this name. Compare fingerprints if it matters who this is.";
pub(crate) const SEARCH: &str = "Search";
pub(crate) const SEARCH_FOR_A_NAME: &str = "Search for a name";
pub(crate) const SEARCH_HELP: &str =
    "This server does not list everybody. You see people you know, and those you search for.";
pub(crate) const NOBODY_KNOWN: &str = "Nobody you know is online";
pub(crate) const SEARCH_FOR_THEM: &str = "Search for somebody by name";
pub(crate) const SEARCHING: &str = "Searching…";
pub(crate) const NOBODY_NEARBY: &str = "Nobody is nearby yet";
pub(crate) const ASK_NEARBY: &str = "Ask them to start Pinhole on this network";
pub(crate) const NEARBY_ONLY: &str = "Nearby only, without a server";
pub(crate) const WITHOUT_SERVER: &str = "Use without a server";
pub(crate) const WITHOUT_SERVER_HELP: &str = "With people on your own network only.";
pub(crate) const PEOPLE_NEARBY: &str = "People nearby";
pub(crate) const FIND_NEARBY: &str = "Find people on my network, and be found by them";
pub(crate) const FIND_NEARBY_HELP: &str = "Shows your name and key to everybody on it.";
pub(crate) const KEY_CHANGED: &str = "The key has changed";
pub(crate) const DROP_ON_A_NAME: &str = "Drop on a name to send, or here to choose";
pub(crate) const DROP_TO_CHOOSE: &str = "Drop to choose who gets it";

pub(crate) const ACCEPT: &str = "Accept";
pub(crate) const DECLINE: &str = "Decline";
pub(crate) const SAVE_ELSEWHERE: &str = "Save elsewhere…";
pub(crate) const DECIDE_LATER: &str =
    "Press Esc to decide later. Nothing is saved until you accept.";
pub(crate) const LOOK: &str = "Look at the offer";
pub(crate) const FOLDER: &str = "folder";
pub(crate) const ACCEPT_BY_KEYBOARD: &str = "Ctrl+Enter";
pub(crate) const NOTHING_TICKED: &str = "Tick what you want of it first.";
pub(crate) const KEEP_BOTH: &str = "Keep both";
pub(crate) const SKIP: &str = "Skip";
pub(crate) const REPLACE: &str = "Replace";

pub(crate) const SEND_TO_SEVERAL: &str = "Send to several…";
pub(crate) const SEND_TO_WHOM: &str = "Send to whom?";
pub(crate) const NOBODY_TO_SEND_TO: &str =
    "Nobody else is here yet. As soon as somebody is, you can choose them here.";

pub(crate) const MESSAGE: &str = "Message";
pub(crate) const MESSAGE_HELP: &str = "Shown as soon as it is there. Ctrl+Enter sends it.";
pub(crate) const SEND: &str = "Send";

pub(crate) const OPEN_FOLDER: &str = "Open folder";
pub(crate) const DISMISS: &str = "Dismiss";
pub(crate) const SEND_AGAIN: &str = "Send again";
pub(crate) const PAUSE: &str = "Pause";
pub(crate) const RESUME: &str = "Resume";
pub(crate) const STOP: &str = "Stop";
pub(crate) const KEEP_PART: &str = "Stop, keep what has arrived";
pub(crate) const KEEP_NOTHING: &str = "Cancel, keep nothing";
pub(crate) const DISMISS_ALL: &str = "Dismiss all finished";

pub(crate) const HISTORY: &str = "History";
pub(crate) const NO_HISTORY: &str = "Nothing was sent or received yet.";
pub(crate) const CLEAR_HISTORY: &str = "Clear";
pub(crate) const CLEAR_FOR_GOOD: &str = "Clear for good";

pub(crate) const SETTINGS: &str = "Settings";
pub(crate) const CLOSE: &str = "Close";
pub(crate) const DOWNLOADS: &str = "Accepted files go to";
pub(crate) const CHANGE: &str = "Change…";
pub(crate) const ACCEPT_FROM: &str = "Accept without asking";
pub(crate) const ACCEPT_NOBODY: &str = "from nobody";
pub(crate) const ACCEPT_CONTACTS: &str = "from people I have accepted before";
pub(crate) const ACCEPT_EVERYBODY: &str = "from everybody";
pub(crate) const UNASKED_MAX: &str = "up to (MB)";
pub(crate) const EXISTING: &str = "When a name is there already";
pub(crate) const KEEPS_EXECUTABLE: &str = "Received programs can be started";
pub(crate) const LIMITS: &str = "Most speed, in MB/s";
pub(crate) const SEND_LIMIT: &str = "sending";
pub(crate) const RECEIVE_LIMIT: &str = "receiving";
pub(crate) const NO_LIMIT: &str = "no limit";
pub(crate) const NOT_A_NUMBER: &str = "Enter a number, such as 2.5, or nothing.";
pub(crate) const PROXY: &str = "HTTP proxy";
pub(crate) const PROXY_HINT: &str = "as the system says";
pub(crate) const PROXY_HELP: &str =
    "The way to the server where nothing else is open: http://host:port, or none.";
pub(crate) const CONNECTION: &str = "Connection";
pub(crate) const PORT_MAPPING: &str = "Let my router open ports for direct transfers";
pub(crate) const DIAGNOSE: &str = "Check the connection";
pub(crate) const DIAGNOSING: &str = "Measuring, this takes a few seconds.";
pub(crate) const LAST_CONNECTIONS: &str = "What the last connections tried";
pub(crate) const APPEARANCE: &str = "Appearance, until Pinhole is closed";
pub(crate) const LIGHT: &str = "light";
pub(crate) const DARK: &str = "dark";
pub(crate) const AS_SYSTEM: &str = "as the system";
pub(crate) const LOG_OUT: &str = "Log out";
pub(crate) const LOG_OUT_HELP: &str = "Ends every transfer that is still running.";

pub(crate) const LOG_IN_TO_SERVER: &str = "Log in to a server";
pub(crate) const DISCARD: &str = "Discard";

pub(crate) const NO_DIALOG: &str = "No file dialog could be opened. Install xdg-desktop-portal or zenity, or drop the files on the window.";
pub(crate) const NO_FONT: &str = "Some characters cannot be shown: no font here has them. On Debian and Ubuntu, install fonts-noto-cjk and fonts-noto-core.";
pub(crate) const NOT_LOGGED_IN: &str = "Log in first, then choose who gets them.";
pub(crate) const ENGINE_BUSY: &str = "Pinhole has too much to do at the moment. Try again.";
pub(crate) const ENGINE_ENDED: &str =
    "Pinhole's engine has ended. Close the window and start Pinhole again.";
pub(crate) const CANNOT_START: &str = "Pinhole cannot start";
pub(crate) const QUIT: &str = "Quit";

/// The window's title.
pub(crate) fn window_title(name: Option<&str>) -> String {
    name.map_or_else(|| APP.to_owned(), |name| format!("{APP} - {name}"))
}

/// Shown while the first login is under way.
pub(crate) fn logging_in_as(name: &str, server: &str) -> String {
    format!("Logging in to {server} as {name}…")
}

/// Shown while a login is under way.
pub(crate) fn logging_in(server: &str) -> String {
    format!("Logging in to {server}…")
}

/// Shown under the user's own name.
pub(crate) fn online_at(server: &str) -> String {
    format!("Online at {server}")
}

/// Shown under the user's own name while the server cannot be reached.
pub(crate) fn reconnecting(server: &str) -> String {
    format!("Not connected to {server}")
}

/// When the next attempt to reach the server begins.
pub(crate) fn next_attempt(wait: Duration) -> String {
    match wait.as_secs_f32().ceil() {
        0.0 => "Reconnecting now…".to_owned(),
        seconds => format!("Reconnecting in {seconds:.0} s"),
    }
}

/// The end of a search in vain.
pub(crate) fn not_found(name: &str) -> String {
    format!("Nobody of the name {name} is online.")
}

/// Advice while nobody else is online.
pub(crate) fn ask_them(host: &str) -> String {
    format!("Ask them to start Pinhole and log in to\n{host}")
}

/// Shown on the peer under dragged files.
pub(crate) fn drop_to_send(peer: &str) -> String {
    format!("Drop to send to {peer}")
}

/// The accessible name of a "Send files" button.
pub(crate) fn send_files_to(peer: &str) -> String {
    format!("Send files to {peer}")
}

/// The accessible name of a message button, or why it is disabled.
pub(crate) fn send_message_to(peer: &str, online: bool) -> String {
    if online {
        message_to(peer)
    } else {
        format!("{peer} is offline, and messages do not wait")
    }
}

/// The heading of the field for a message.
pub(crate) fn message_to(peer: &str) -> String {
    format!("Message to {peer}")
}

/// Why a message cannot be sent as it is.
pub(crate) fn message_trouble(peer: &str, online: bool, bytes: usize) -> Option<String> {
    match bytes.checked_sub(TEXT_BYTES_MAX) {
        Some(excess @ 1..) => {
            let (excess, max) = (
                amount::display(excess as u64),
                amount::display(TEXT_BYTES_MAX as u64),
            );
            Some(format!(
                "Too long by {excess}: a message has at most {max}. Send a file instead."
            ))
        }
        _ if !online => Some(format!("{peer} is offline at the moment.")),
        _ => None,
    }
}

/// The title of a transfer.
pub(crate) fn title(transfer: &TransferView) -> String {
    let peer = &transfer.peer.name;
    match (&transfer.text, transfer.direction) {
        (None, _) => transfer.offer.title.clone(),
        (Some(_), Direction::Sending) => message_to(peer.as_str()),
        (Some(_), Direction::Receiving) => format!("Message from {peer}"),
    }
}

/// The accessible name of a button that sends a folder.
pub(crate) fn send_folder_to(peer: &str) -> String {
    format!("Send a folder to {peer}")
}

/// The accessible name of a "Review" button.
pub(crate) fn review_key_of(peer: &str) -> String {
    format!("Review the key of {peer}")
}

/// The path of a connected peer, short enough to fit beside a name.
pub(crate) const fn connected(path: PathKind) -> &'static str {
    match path {
        PathKind::Lan | PathKind::Ipv6 | PathKind::Mapped | PathKind::Punched => {
            "Connected directly"
        }
        PathKind::Relay => "Connected by relay",
    }
}

/// The path of a transfer.
pub(crate) const fn path(path: PathKind) -> &'static str {
    match path {
        PathKind::Lan => "Direct, on the same network",
        PathKind::Ipv6 => "Direct, over IPv6",
        PathKind::Mapped => "Direct, by a port that the router opened",
        PathKind::Punched => "Direct, punched through both NATs",
        PathKind::Relay => "Through the relay, encrypted end to end",
    }
}

/// "3 files", "1 file and 2 folders".
pub(crate) fn count(files: u64, folders: u64) -> String {
    let some = |n: u64, one: &str| match n {
        1 => format!("1 {one}"),
        _ => format!("{n} {one}s"),
    };
    match (files, folders) {
        (_, 0) => some(files, "file"),
        (0, _) => some(folders, "folder"),
        _ => format!("{} in {}", some(files, "file"), some(folders, "folder")),
    }
}

/// The title of files that wait to be sent.
pub(crate) fn paths_title(paths: &[std::path::PathBuf]) -> String {
    let name = paths.first().map_or_else(String::new, |path| {
        let name = path.file_name().unwrap_or(path.as_os_str());
        display_text(&name.to_string_lossy())
    });
    match paths.len() {
        0 | 1 => name,
        2 => format!("{name} and 1 more"),
        n => format!("{name} and {} more", n - 1),
    }
}

/// The text of an I/O error, without its number.
pub(crate) fn reason(error: &std::io::Error) -> String {
    let words = error.to_string();
    let end = words.find(" (os error").unwrap_or(words.len());
    words.get(..end).unwrap_or_default().to_owned()
}

/// Shown while files wait for the login.
pub(crate) fn waiting_to_be_sent(title: &str) -> String {
    format!("{title} is waiting. {NOT_LOGGED_IN}")
}

/// The button that sends to the chosen people.
pub(crate) fn send_to(people: usize) -> String {
    match people {
        0 | 1 => SEND.to_owned(),
        n => format!("Send to {n} people"),
    }
}

/// How long ago something happened.
pub(crate) fn ago(seconds: u64) -> String {
    let some = |n: u64, unit: &str| match n {
        1 => format!("1 {unit} ago"),
        _ => format!("{n} {unit}s ago"),
    };
    match seconds {
        0..60 => "just now".to_owned(),
        60..3_600 => some(seconds / 60, "minute"),
        3_600..86_400 => some(seconds / 3_600, "hour"),
        _ => some(seconds / 86_400, "day"),
    }
}

/// The peer, time and path of an attempt to connect.
pub(crate) fn attempt(attempt: &Attempt, now_s: u64) -> String {
    let peer = &attempt.peer;
    let whom = if attempt.invited {
        format!("From {peer}")
    } else {
        format!("To {peer}")
    };
    let when = ago(now_s.saturating_sub(attempt.ended_at_s));
    let way = attempt.path.map_or("No path", path);
    format!("{whom}  ·  {when}  ·  {way}")
}

/// The second line of a history entry: peer, amount and rate.
pub(crate) fn entry(entry: &HistoryEntry, now_s: u64) -> String {
    let peer = &entry.peer.name;
    let whom = match entry.direction {
        Direction::Sending => format!("To {peer}"),
        Direction::Receiving => format!("From {peer}"),
    };
    let mut parts = vec![whom, ago(now_s.saturating_sub(entry.ended_at_s))];
    parts.push(amount::display(entry.bytes));
    let travelled = entry.bytes.saturating_sub(entry.here_bytes);
    if let Some(ms @ 1..) = entry.elapsed_ms {
        let rate = amount::average_rate(travelled, Duration::from_millis(ms));
        parts.push(amount::display_rate(rate));
    }
    parts.join("  ·  ")
}

/// The third line of a history entry: outcome and path.
pub(crate) fn ended(entry: &HistoryEntry) -> String {
    match (&entry.outcome, entry.path) {
        (Outcome::Failed { reason }, _) => reason.clone(),
        (
            Outcome::Completed {
                failed_files: n @ 1..,
            },
            _,
        ) => {
            format!("{} failed", count(*n, 0))
        }
        (Outcome::Completed { .. }, Some(way)) => path(way).to_owned(),
        (Outcome::Completed { .. }, None) => String::new(),
    }
}

/// The question about an offer.
pub(crate) fn wants_to_send(peer: &str) -> String {
    format!("{peer} wants to send you files")
}

/// The size of something; `None` if nobody knows it before its end.
pub(crate) fn size(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "size not known".to_owned(), amount::display)
}

/// How much of an offer is wanted.
pub(crate) fn amount(wanted: SelectedAmount) -> String {
    let count = count(wanted.files, wanted.folders);
    format!(
        "{count}, {}",
        size((!wanted.stream).then_some(wanted.bytes))
    )
}

/// How many names of an offer are taken.
pub(crate) fn names_taken(n: u32) -> String {
    match n {
        1 => "1 name is there already:".to_owned(),
        n => format!("{n} names are there already:"),
    }
}

/// Where accepted files will go.
pub(crate) fn into_folder(folder: &std::path::Path) -> String {
    format!("Will be saved in {}", folder.display())
}

/// How many more offers wait.
pub(crate) fn more_offers(n: usize) -> String {
    match n {
        1 => "1 more offer is waiting".to_owned(),
        n => format!("{n} more offers are waiting"),
    }
}

/// How long something takes or took, in the two largest units.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => "less than 1 s".to_owned(),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Whether a failed transfer can be resumed by the same offer.
pub(crate) const fn can_go_on(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Interrupted | Failure::InterruptedByPeer { .. }
    )
}

/// The stage of a transfer.
pub(crate) fn stage(transfer: &TransferView) -> String {
    let peer = &transfer.peer.name;
    match (&transfer.stage, transfer.direction) {
        (Stage::Queued, _) => format!("Waiting until {peer} is online"),
        (Stage::Preparing, Direction::Sending) => "Reading the list of files…".to_owned(),
        (Stage::Preparing, Direction::Receiving) => "Getting the folder ready…".to_owned(),
        (Stage::Connecting, _) => format!("Connecting to {peer}…"),
        (Stage::AwaitingAnswer, _) => format!("Waiting for {peer} to accept"),
        (Stage::Reconnecting, _) => format!("Connection lost, connecting to {peer} again"),
        (Stage::AwaitingDecision, _) => format!("{peer} waits for your answer"),
        (Stage::Transferring, direction) => moving(peer, direction, &transfer.progress),
        (Stage::Completed(_), Direction::Sending) => format!("Delivered to {peer}"),
        (Stage::Completed(_), Direction::Receiving) => format!("Received from {peer}"),
        (Stage::Failed(failure), _) => failure.to_string(),
    }
}

/// Whether bytes move, and if not, why.
fn moving(peer: &PeerName, direction: Direction, progress: &Progress) -> String {
    let Paused { by_us, by_peer } = progress.paused;
    match (by_us, by_peer, direction) {
        (true, true, _) => format!("Paused by you and {peer}"),
        (true, false, _) => "Paused by you".to_owned(),
        (false, true, _) => format!("Paused by {peer}"),
        (_, _, Direction::Sending) if progress.is_stalled() => {
            format!("{peer} takes nothing at the moment")
        }
        (_, _, Direction::Receiving) if progress.is_stalled() => {
            format!("Nothing arrives from {peer} at the moment")
        }
        (_, _, Direction::Sending) => format!("Sending to {peer}"),
        (_, _, Direction::Receiving) => format!("Receiving from {peer}"),
    }
}

/// Several transfers together.
pub(crate) fn overall(overall: &Overall) -> String {
    let transfers = format!("{} transfers", overall.transfers);
    format!("{transfers}  ·  {}", progress(&overall.progress))
}

/// The progress of a transfer.
pub(crate) fn progress(progress: &Progress) -> String {
    let mut parts = Vec::new();
    if progress.files_total > 1 {
        let (done, total) = (progress.files_done, progress.files_total);
        parts.push(format!("{done} of {total} files"));
    }
    parts.push(match progress.bytes_total {
        Some(total) => done_of(progress.bytes_done, total),
        None => amount::display(progress.bytes_done),
    });
    let rate = progress.bytes_per_second.filter(|&rate| rate > 0);
    if progress.paused == Paused::default()
        && let Some(rate) = rate
    {
        parts.push(amount::display_rate(rate));
        parts.extend(progress.time_left.map(|t| format!("{} left", duration(t))));
    }
    parts.join("  ·  ")
}

/// "1.20 of 5.00 GB".
fn done_of(done: u64, total: u64) -> String {
    let (done, total) = (amount::display(done), amount::display(total));
    match (done.split_once(' '), total.split_once(' ')) {
        (Some((amount, unit)), Some((_, same))) if unit == same => format!("{amount} of {total}"),
        _ => format!("{done} of {total}"),
    }
}

/// What a completed transfer has done.
pub(crate) fn completion(done: &Completion) -> String {
    let mut parts = vec![amount::display(done.bytes)];
    if done.files != 1 {
        parts.push(count(done.files, 0));
    }
    parts.push(format!("in {}", duration(done.elapsed)));
    if done.elapsed >= Duration::from_millis(1) {
        let rate = amount::average_rate(done.travelled_bytes(), done.elapsed);
        parts.push(amount::display_rate(rate));
    }
    if done.here_bytes > 0 {
        parts.push(format!(
            "{} were there already",
            amount::display(done.here_bytes)
        ));
    }
    if done.skipped_files > 0 {
        parts.push(format!("{} skipped", count(done.skipped_files, 0)));
    }
    if done.unread > 0 {
        parts.push(format!("{} could not be read by the sender", done.unread));
    }
    parts.join("  ·  ")
}

/// How many files of a transfer failed.
pub(crate) fn files_failed(n: usize) -> String {
    match n {
        1 => "1 file failed:".to_owned(),
        n => format!("{n} files failed:"),
    }
}

/// The heading of names that had to change.
pub(crate) fn renamed(n: usize) -> String {
    match n {
        1 => "1 name had to change:".to_owned(),
        n => format!("{n} names had to change:"),
    }
}

/// The heading of skipped files.
pub(crate) const SKIPPED: &str = "Skipped, because they were there already:";

/// An old name and its new one.
pub(crate) fn now_called(before: &str, now: &str) -> String {
    format!("{before} → {now}")
}

/// A folder could not be shown.
pub(crate) fn cannot_open(folder: &std::path::Path, error: &std::io::Error) -> String {
    format!("Cannot open {}: {}", folder.display(), reason(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_waits_are_words() {
        assert_eq!(duration(Duration::from_millis(300)), "less than 1 s");
        assert_eq!(duration(Duration::from_secs(61)), "1 min 1 s");
        assert_eq!(duration(Duration::from_secs(7_260)), "2 h 1 min");
        assert_eq!(
            next_attempt(Duration::from_millis(1_200)),
            "Reconnecting in 2 s"
        );
        assert_eq!(next_attempt(Duration::ZERO), "Reconnecting now…");
    }

    #[test]
    fn the_done_amount_shares_the_unit_of_the_total() {
        assert_eq!(done_of(1_200_000_000, 5_000_000_000), "1.20 of 5.00 GB");
        assert_eq!(done_of(3, 5_000), "3 B of 5.00 kB");
        assert_eq!(done_of(0, 1), "0 of 1 B");
    }

    #[test]
    fn counts_and_titles() {
        assert_eq!(count(1, 0), "1 file");
        assert_eq!(count(3, 2), "3 files in 2 folders");
        assert_eq!(count(0, 1), "1 folder");
        let paths = ["/a/photo\u{202e}gpj.exe".into(), "/b".into(), "/c".into()];
        assert_eq!(paths_title(&paths), "photo\\u{202e}gpj.exe and 2 more");
        assert_eq!(grouped("abcdefghij"), "abcd efgh ij");
    }
}
