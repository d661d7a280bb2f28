//! The progress bar: of the one transfer that moves, or of all that move.

use std::time::{Duration, Instant};

use console::{Term, measure_text_width};
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use pinhole_client::{Direction, Progress, Snapshot, Stage, TransferView, amount};

use crate::display;

/// A longer title is shortened in the middle.
const TITLE_CHARS: usize = 40;
/// The part of a title that is always shown.
const TITLE_CHARS_MIN: usize = 12;
/// The text behind the bar changes. Up to this length, the title keeps its width.
const PACE_CHARS: usize = 20;
/// A shorter bar is of no use.
const BAR_CHARS: usize = 8;
/// The percentage and the gaps.
const OTHER_CHARS: usize = " 100%".len() + 3 * "  ".len();

/// A narrower terminal has no room for a bar beside its title.
const BAR_COLUMNS_MIN: usize = 48;
/// Without a bar, a line reports the progress this often.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// The progress of something, drawn or as lines.
pub(super) struct Bar {
    title: String,
    kind: BarKind,
}

enum BarKind {
    Drawn(ProgressBar),
    /// The terminal cannot move its cursor or is too narrow. Holds when a line was last
    /// written.
    Lines(Option<Instant>),
}

/// The content of the bar.
pub(super) struct BarContent {
    title: String,
    progress: Progress,
    files: String,
    pace: String,
}

impl BarContent {
    /// `None` when nothing moves.
    pub(super) fn of(snapshot: &Snapshot) -> Option<Self> {
        if let Some(all) = snapshot.overall() {
            return Some(Self {
                title: format!("{} transfers", all.transfers),
                files: files(&all.progress),
                pace: pace(&all.progress),
                progress: all.progress,
            });
        }
        let mut transfers = snapshot.transfers.iter();
        // A text message has arrived before anyone could look.
        let is_moving = |t: &&TransferView| {
            matches!(t.stage, Stage::Transferring | Stage::Reconnecting) && !t.is_text
        };
        let moving = transfers.find(is_moving)?;
        Some(Self {
            title: title(moving),
            progress: moving.progress,
            files: files(&moving.progress),
            pace: pace_of(moving),
        })
    }

    /// As "34% of film.mp4 to bob, 98.2 MB/s, 3m left".
    fn line(&self) -> String {
        let done = self.progress.bytes_done;
        let share = |total| (u128::from(done) * 100).checked_div(u128::from(total));
        let parts = [
            match self.progress.bytes_total {
                Some(total) => format!("{}% of {}", share(total).unwrap_or(100), self.title),
                None => format!("{} of {}", amount::display(done), self.title),
            },
            self.files.clone(),
            self.pace.clone(),
        ];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join(", ")
    }

    /// The title and the text behind the bar that fit into this many columns and leave
    /// room for the bar. The count of files is shown only if it fits as well.
    fn fitting(&self, columns: usize) -> (String, String) {
        let progress = &self.progress;
        let amounts = amounts(progress.bytes_done, progress.bytes_total);
        let taken = OTHER_CHARS + BAR_CHARS + amounts.len();
        let room = columns.saturating_sub(taken);
        let all = [&*self.files, &*self.pace]
            .iter()
            .filter(|part| !part.is_empty())
            .copied()
            .collect::<Vec<_>>()
            .join(", ");
        let fits = |message: &String| TITLE_CHARS_MIN + measure_text_width(message) <= room;
        let message = [all, self.pace.clone()].into_iter().find(fits);
        let message = message.unwrap_or_default();
        let left = room.saturating_sub(measure_text_width(&message).max(PACE_CHARS));
        let title = display::shortened(&self.title, left.clamp(TITLE_CHARS_MIN, TITLE_CHARS));
        (title, message)
    }
}

impl Bar {
    pub(super) fn new(shown: &BarContent, is_ascii: bool) -> Self {
        let kind = match has_room_for_bar() {
            true if shown.progress.bytes_total.is_none() => BarKind::Drawn(drawn_without_end()),
            true => BarKind::Drawn(drawn(is_ascii)),
            false => BarKind::Lines(None),
        };
        Self {
            title: shown.title.clone(),
            kind,
        }
    }

    /// Whether the bar belongs to the same thing.
    pub(super) fn is_of(&self, shown: &BarContent) -> bool {
        self.title == shown.title
    }

    /// Shows the progress. Returns a line to be written where there is no bar.
    pub(super) fn show(
        &mut self,
        shown: &BarContent,
        plain: impl Fn(&str) -> String,
    ) -> Option<String> {
        match &mut self.kind {
            BarKind::Drawn(bar) => {
                match shown.progress.bytes_total {
                    Some(total) => bar.set_length(total),
                    None => bar.unset_length(),
                }
                bar.set_position(shown.progress.bytes_done);
                let (title, message) = shown.fitting(columns());
                bar.set_prefix(plain(&title));
                bar.set_message(plain(&message));
                None
            }
            BarKind::Lines(said_at) => {
                let is_due = said_at.is_none_or(|at| at.elapsed() >= LINE_INTERVAL);
                is_due.then(|| {
                    *said_at = Some(Instant::now());
                    shown.line()
                })
            }
        }
    }

    /// Writes something above the bar.
    pub(super) fn suspend<R>(&self, write: impl FnOnce() -> R) -> R {
        match &self.kind {
            BarKind::Drawn(bar) => bar.suspend(write),
            BarKind::Lines(_) => write(),
        }
    }

    pub(super) fn clear(&self) {
        if let BarKind::Drawn(bar) = &self.kind {
            bar.finish_and_clear();
        }
    }
}

fn columns() -> usize {
    usize::from(Term::stderr().size().1)
}

fn has_room_for_bar() -> bool {
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !is_dumb && columns() >= BAR_COLUMNS_MIN
}

/// For a stream, of which nobody knows how much is to come.
fn drawn_without_end() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
    let amount = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = out.write_str(&amounts(state.pos(), None));
    };
    // The template is constant. If it were wrong, the default would do.
    if let Ok(style) = ProgressStyle::with_template("{prefix}  {amount} in {elapsed}  {msg}") {
        bar.set_style(style.with_key("amount", amount));
    }
    bar
}

fn drawn(is_ascii: bool) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
    let percent = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = write!(out, "{:>3.0}%", state.fraction() * 100.0);
    };
    let amounts = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = out.write_str(&amounts(state.pos(), state.len()));
    };
    let template = "{prefix}  {wide_bar} {share}  {amounts}  {msg}";
    let characters = if is_ascii { "==-" } else { "━━╌" };
    // The template is constant. If it were wrong, the default would do.
    if let Ok(style) = ProgressStyle::with_template(template) {
        let style = style
            .with_key("share", percent)
            .with_key("amounts", amounts);
        bar.set_style(style.progress_chars(characters));
    }
    bar
}

/// As "345 MB/1.23 GB", or "345 MB" of what has no known end.
fn amounts(done: u64, total: Option<u64>) -> String {
    match total {
        Some(total) => format!("{}/{}", amount::display(done), amount::display(total)),
        None => amount::display(done),
    }
}

/// As "film.mp4 to bob".
pub(super) fn title(transfer: &TransferView) -> String {
    let way = match transfer.direction {
        Direction::Sending => "to",
        Direction::Receiving => "from",
    };
    let (offer, peer) = (&transfer.offer, &transfer.peer.name);
    // Only a part of the offer may be wanted.
    match transfer.progress.files_total {
        wanted @ 1.. if wanted < offer.files => {
            format!("{wanted} of {} files {way} {peer}", offer.files)
        }
        _ => format!("{} {way} {peer}", offer.title),
    }
}

/// The rate of a transfer, or why it does not move.
fn pace_of(transfer: &TransferView) -> String {
    let (progress, peer) = (&transfer.progress, &transfer.peer.name);
    if let Stage::Reconnecting = transfer.stage {
        format!("connecting to {peer} again")
    } else if progress.paused.by_peer {
        format!("paused by {peer}")
    } else if progress.paused.by_us {
        "paused".to_owned()
    } else if progress.is_stalled() {
        match transfer.direction {
            Direction::Sending => format!("stalled: {peer} or the network takes nothing"),
            Direction::Receiving => format!("stalled: nothing comes from {peer}"),
        }
    } else {
        pace(progress)
    }
}

fn files(progress: &Progress) -> String {
    match progress.files_total {
        0 | 1 => String::new(),
        total => format!("{} of {total} files", progress.files_done),
    }
}

fn pace(progress: &Progress) -> String {
    if progress.bytes_total == Some(progress.bytes_done) {
        return "making it safe on disk".to_owned();
    }
    match (progress.bytes_per_second, progress.time_left) {
        (Some(0), _) if progress.bytes_total.is_none() => "nothing comes".to_owned(),
        (Some(0), _) => "stalled".to_owned(),
        (Some(rate), Some(left)) => {
            let rate = amount::display_rate(rate);
            format!("{rate}, {:#} left", HumanDuration(left))
        }
        (Some(rate), None) => amount::display_rate(rate),
        (None, _) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(title: &str) -> BarContent {
        BarContent {
            title: title.to_owned(),
            progress: Progress {
                bytes_done: 345_000_000,
                bytes_total: Some(1_230_000_000),
                ..Progress::default()
            },
            files: "12 of 130 files".to_owned(),
            pace: "98.2 MB/s, 3m left".to_owned(),
        }
    }

    #[test]
    fn the_bar_has_room_in_a_narrow_terminal() {
        let amounts = "345 MB/1.23 GB".len();
        for (columns, files_are_said) in [(76, false), (100, true), (200, true)] {
            let (title, message) = shown("holiday photos and 129 more to bob").fitting(columns);
            let taken = title.chars().count() + amounts + message.len() + OTHER_CHARS;
            assert!(taken + BAR_CHARS <= columns, "{title} {message}");
            assert_eq!(message.contains("files"), files_are_said, "{message}");
            assert!(message.ends_with("3m left"), "{message}");
        }
    }

    #[test]
    fn a_short_title_is_whole_and_a_tiny_terminal_no_trouble() {
        assert_eq!(shown("film.mp4 to bob").fitting(76).0, "film.mp4 to bob");
        let (title, message) = shown("film.mp4 to bob").fitting(10);
        assert_eq!((title.chars().count(), &*message), (TITLE_CHARS_MIN, ""));
    }

    #[test]
    fn of_a_stream_there_is_neither_a_share_nor_an_end() {
        let mut stream = shown("photos.tar to bob");
        stream.progress.bytes_total = None;
        (stream.files, stream.pace) = (String::new(), "98.2 MB/s".to_owned());
        assert_eq!(stream.line(), "345 MB of photos.tar to bob, 98.2 MB/s");
        let progress = |rate| Progress {
            bytes_per_second: Some(rate),
            ..stream.progress
        };
        assert_eq!(pace(&progress(98_200_000)), "98.2 MB/s");
        assert_eq!(pace(&progress(0)), "nothing comes");
    }

    #[test]
    fn a_title_in_wide_characters_leaves_room_for_the_bar() {
        let (title, message) = shown(&"猫".repeat(60)).fitting(80);
        let taken = measure_text_width(&title) + "345 MB/1.23 GB".len() + message.len();
        assert!(taken + OTHER_CHARS + BAR_CHARS <= 80, "{title} {message}");
    }

    #[test]
    fn without_a_bar_a_line_reports_the_progress() {
        let line = shown("film.mp4 to bob").line();
        assert_eq!(
            line,
            "28% of film.mp4 to bob, 12 of 130 files, 98.2 MB/s, 3m left"
        );
    }
}
