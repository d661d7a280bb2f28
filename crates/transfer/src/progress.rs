//! How far a transfer is, how fast it goes, and how long it will take.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A snapshot of a transfer under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes handed to the connection, or arrived from it; those that the receiver
    /// had already count once they are compared.
    pub bytes_done: u64,
    /// Those of them that the receiver had already. They have no speed.
    pub here_bytes: u64,
    /// Bytes of all files that travel.
    pub bytes_total: u64,
    /// Files durable on the receiving side, failed ones included.
    pub files_done: u32,
    /// Files that travel.
    pub files_total: u32,
    /// Speed over the last seconds; `None` before it can be told, zero in a
    /// stall.
    pub bytes_per_second: Option<u64>,
    /// At this speed; `None` before it can be told and in a stall.
    pub time_left: Option<Duration>,
    /// Who wants the sender to stop for a while: this side, the peer.
    pub paused: Paused,
}

/// Who wants the sender of a transfer to stop for a while.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Paused {
    /// This side does.
    pub by_us: bool,
    /// The peer does.
    pub by_peer: bool,
}

/// Over which time speed is measured.
const WINDOW: Duration = Duration::from_secs(3);
/// Samples closer than this add nothing.
const SAMPLE_GAP: Duration = Duration::from_millis(50);

/// Speed over a short window, from samples taken whenever somebody looks.
#[derive(Debug, Default)]
pub(crate) struct Speed {
    samples: VecDeque<(Instant, u64)>,
}

impl Speed {
    /// Notes that `bytes` were done at `now` and returns bytes per second.
    pub(crate) fn sample(&mut self, now: Instant, bytes: u64) -> Option<u64> {
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
pub(crate) fn time_left(bytes_left: u64, bytes_per_second: u64) -> Option<Duration> {
    bytes_left
        .checked_mul(1000)?
        .checked_div(bytes_per_second)
        .map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

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
