//! How far a transfer is, how fast it goes, and how long it will take.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::protocol::manifest::Manifest;
use crate::protocol::selection::Selection;

/// A snapshot of a transfer under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes handed to the connection, or arrived from it; those that the receiver
    /// had already count once they are compared, and those of a stream that is sent once
    /// the receiver has said that they have arrived.
    pub bytes_done: u64,
    /// Those of them that the receiver had already. They have no speed.
    pub here_bytes: u64,
    /// Bytes of all files that travel; `None` for a stream, of which nobody knows.
    pub bytes_total: Option<u64>,
    /// Files durable on the receiving side, failed ones included.
    pub files_done: u32,
    /// Files that travel.
    pub files_total: u32,
    /// Speed over the last seconds; `None` before it can be told, zero in a
    /// stall.
    pub bytes_per_second: Option<u64>,
    /// At this speed; `None` before it can be told and in a stall.
    pub time_left: Option<Duration>,
    /// Which side has paused the sender.
    pub paused: Paused,
}

/// Which sides have paused the sender of a transfer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// This side does.
    pub by_us: bool,
    /// The peer does.
    pub by_peer: bool,
}

/// Counts what is done of a transfer, from whatever thread.
#[derive(Debug)]
pub(crate) struct ProgressCounter {
    bytes_done: AtomicU64,
    /// Bytes that went ahead of the answer, and whether they count.
    early_bytes: AtomicU64,
    counts_early: AtomicBool,
    /// Bytes that the receiver had already.
    here_bytes: AtomicU64,
    resent_bytes: AtomicU64,
    bytes_total: AtomicU64,
    is_stream: bool,
    files_done: AtomicU32,
    files_total: AtomicU32,
    speed: Mutex<Speed>,
}

impl ProgressCounter {
    /// Nothing is done, and nobody has said yet that anything is not wanted.
    pub(crate) fn new(manifest: &Manifest) -> Self {
        Self {
            bytes_done: AtomicU64::new(0),
            early_bytes: AtomicU64::new(0),
            counts_early: AtomicBool::new(false),
            here_bytes: AtomicU64::new(0),
            resent_bytes: AtomicU64::new(0),
            bytes_total: AtomicU64::new(manifest.total_bytes()),
            is_stream: manifest.is_stream(),
            files_done: AtomicU32::new(0),
            files_total: AtomicU32::new(manifest.files()),
            speed: Mutex::default(),
        }
    }

    /// No more than this travels.
    pub(crate) fn select(&self, selection: &Selection) {
        let (files, bytes) = (selection.files(), selection.total_bytes());
        self.files_total.store(files, Ordering::Relaxed);
        self.bytes_total.store(bytes, Ordering::Relaxed);
    }

    /// Notes what the comparison of chunks has shown: so many bytes need not
    /// travel, and so many must although something was in their place.
    pub(crate) fn add_compared(&self, same_bytes: u64, differing_bytes: u64) {
        // First, so that what is compared never looks as if it had travelled.
        self.here_bytes.fetch_add(same_bytes, Ordering::Relaxed);
        self.add_bytes(same_bytes);
        self.resent_bytes
            .fetch_add(differing_bytes, Ordering::Relaxed);
    }

    pub(crate) fn here_bytes(&self) -> u64 {
        self.here_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn resent_bytes(&self) -> u64 {
        self.resent_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes bytes that go ahead of the answer.
    pub(crate) fn add_early(&self, bytes: u64) {
        self.early_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The files go on behind those.
    pub(crate) fn count_early(&self) {
        self.counts_early.store(true, Ordering::Relaxed);
    }

    fn bytes_done(&self) -> u64 {
        let early_bytes = match self.counts_early.load(Ordering::Relaxed) {
            true => self.early_bytes.load(Ordering::Relaxed),
            false => 0,
        };
        self.bytes_done.load(Ordering::Relaxed) + early_bytes
    }

    pub(crate) fn set_files(&self, files: u32) {
        self.files_done.store(files, Ordering::Relaxed);
    }

    /// How far it is at this time.
    pub(crate) fn at(&self, now: Instant, paused: Paused) -> Progress {
        let bytes_done = self.bytes_done();
        let here_bytes = self.here_bytes();
        let travelled_bytes = bytes_done.saturating_sub(here_bytes);
        let bytes_per_second = self.speed.lock().sample(now, travelled_bytes);
        let bytes_total = self.bytes_total.load(Ordering::Relaxed);
        let bytes_total = (!self.is_stream).then_some(bytes_total);
        let bytes_left = bytes_total.map(|total| total.saturating_sub(bytes_done));
        Progress {
            bytes_done,
            here_bytes,
            bytes_total,
            files_done: self.files_done.load(Ordering::Relaxed),
            files_total: self.files_total.load(Ordering::Relaxed),
            bytes_per_second,
            time_left: bytes_per_second.and_then(|speed| time_left(bytes_left?, speed)),
            paused,
        }
    }
}

/// Over which time speed is measured.
const WINDOW: Duration = Duration::from_secs(3);
/// Samples closer than this add nothing.
const SAMPLE_GAP: Duration = Duration::from_millis(50);

/// Speed over a short window, from samples taken whenever somebody looks.
#[derive(Debug, Default)]
struct Speed {
    samples: VecDeque<(Instant, u64)>,
}

impl Speed {
    /// Notes that `bytes` were done at `now` and returns bytes per second.
    fn sample(&mut self, now: Instant, bytes: u64) -> Option<u64> {
        let due = |(last, _): &(Instant, u64)| now.saturating_duration_since(*last) >= SAMPLE_GAP;
        if self.samples.back().is_none_or(due) {
            self.samples.push_back((now, bytes));
        }
        // The oldest sample kept is the last one outside the window, so that
        // rare looks still measure over the whole of it.
        while let Some((second, _)) = self.samples.get(1)
            && now.saturating_duration_since(*second) >= WINDOW
        {
            self.samples.pop_front();
        }
        let (start, start_bytes) = self.samples.front()?;
        let elapsed_ms = now.saturating_duration_since(*start).as_millis();
        if elapsed_ms < SAMPLE_GAP.as_millis() {
            return None;
        }
        let rate = u128::from(bytes.saturating_sub(*start_bytes)) * 1000 / elapsed_ms;
        u64::try_from(rate).ok()
    }
}

/// How long the rest takes at this speed.
fn time_left(bytes_left: u64, bytes_per_second: u64) -> Option<Duration> {
    bytes_left
        .checked_mul(1000)?
        .checked_div(bytes_per_second)
        .map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::manifest::ManifestBuilder;

    #[test]
    fn only_what_travels_has_a_speed() {
        let counter = ProgressCounter::new(&ManifestBuilder::default().build());
        let start = Instant::now();
        counter.at(start, Paused::default());
        counter.add_compared(900_000_000, 0);
        counter.add_bytes(1_000);
        let progress = counter.at(start + Duration::from_secs(1), Paused::default());
        assert_eq!(progress.bytes_done, 900_001_000);
        assert_eq!(progress.here_bytes, 900_000_000);
        assert_eq!(progress.bytes_per_second, Some(1_000));
    }

    #[test]
    fn speed_follows_the_window_and_shows_a_stall() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut speed = Speed::default();
        assert_eq!(speed.sample(at(0), 0), None);
        assert_eq!(speed.sample(at(20), 500), None, "too soon to tell");
        for tick in 1..=50 {
            let rate = speed.sample(at(tick * 100), tick * 1000);
            assert_eq!(rate, Some(10_000));
        }
        let mut rates = (51..=90).map(|tick| speed.sample(at(tick * 100), 50_000).unwrap());
        assert!(
            rates
                .by_ref()
                .take(29)
                .all(|rate| (1..10_000).contains(&rate))
        );
        assert_eq!(rates.next_back(), Some(0), "nothing for a whole window");
        assert!(speed.samples.len() < 64);
    }

    #[test]
    fn time_left_is_unknown_in_a_stall() {
        assert_eq!(time_left(1000, 0), None);
        assert_eq!(time_left(1000, 500), Some(Duration::from_secs(2)));
        assert_eq!(time_left(u64::MAX, 1), None);
    }
}
