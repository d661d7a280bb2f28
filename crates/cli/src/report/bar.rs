//! The one progress bar: of what moves, or of everything that moves together.

use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use pinhole_client::{Direction, Progress, Snapshot, Stage, TransferView};

use crate::display;

/// The bar needs room, too.
const TITLE_CHARS: usize = 40;

/// The bar and what it is of.
pub(super) struct Bar {
    title: String,
    pub(super) bar: ProgressBar,
}

/// What the bar shows at a moment.
pub(super) struct Shown {
    title: String,
    progress: Progress,
    message: String,
}

impl Shown {
    /// `None` when nothing moves.
    pub(super) fn of(snapshot: &Snapshot) -> Option<Self> {
        if let Some(all) = snapshot.overall() {
            return Some(Self {
                title: format!("{} transfers", all.transfers),
                message: joined(&[files(&all.progress), pace(&all.progress)]),
                progress: all.progress,
            });
        }
        let mut transfers = snapshot.transfers.iter();
        // A few words are there before anybody could look.
        let is_moving = |t: &&TransferView| {
            matches!(t.stage, Stage::Transferring | Stage::Reconnecting) && t.text.is_none()
        };
        let moving = transfers.find(is_moving)?;
        Some(Self {
            title: title(moving),
            progress: moving.progress,
            message: message(moving),
        })
    }
}

impl Bar {
    pub(super) fn new(shown: &Shown) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        let percent = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = write!(out, "{:>3.0}%", state.fraction() * 100.0);
        };
        let template = "{prefix}  {wide_bar} {share}  {decimal_bytes}/{decimal_total_bytes}  {msg}";
        // The template is constant; if it were wrong the default one would serve.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.with_key("share", percent).progress_chars("━━╌"));
        }
        Self {
            title: shown.title.clone(),
            bar: bar.with_prefix(display::shortened(&shown.title, TITLE_CHARS)),
        }
    }

    /// Whether it is the bar of the same thing.
    pub(super) fn is_of(&self, shown: &Shown) -> bool {
        self.title == shown.title
    }

    pub(super) fn show(&self, shown: &Shown) {
        self.bar.set_length(shown.progress.bytes_total);
        self.bar.set_position(shown.progress.bytes_done);
        self.bar.set_message(shown.message.clone());
    }
}

/// As "film.mp4 to bob".
pub(super) fn title(transfer: &TransferView) -> String {
    let way = match transfer.direction {
        Direction::Sending => "to",
        Direction::Receiving => "from",
    };
    let (offer, peer) = (&transfer.offer, &transfer.peer.name);
    // Only a part of it may be wanted.
    match transfer.progress.files_total {
        wanted if wanted < offer.files => {
            format!("{wanted} of {} files {way} {peer}", offer.files)
        }
        _ => format!("{} {way} {peer}", offer.title),
    }
}

fn message(transfer: &TransferView) -> String {
    let (progress, peer) = (&transfer.progress, &transfer.peer.name);
    let pace = if let Stage::Reconnecting = transfer.stage {
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
    };
    joined(&[files(progress), pace])
}

fn files(progress: &Progress) -> String {
    match progress.files_total {
        0 | 1 => String::new(),
        total => format!("{} of {total} files", progress.files_done),
    }
}

fn pace(progress: &Progress) -> String {
    if progress.bytes_done == progress.bytes_total {
        return "making it safe on disk".to_owned();
    }
    match (progress.bytes_per_second, progress.time_left) {
        (Some(0), _) => "stalled".to_owned(),
        (Some(speed), Some(left)) => {
            let speed = display::speed(speed, Duration::from_secs(1));
            format!("{speed}, {:#} left", HumanDuration(left))
        }
        (Some(speed), None) => display::speed(speed, Duration::from_secs(1)),
        (None, _) => String::new(),
    }
}

fn joined(parts: &[String]) -> String {
    let said: Vec<_> = parts.iter().filter(|part| !part.is_empty()).collect();
    said.iter()
        .map(|s| s.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}
