//! Bytes a second.

use std::time::{Duration, Instant};

/// An idle time up to this long can be caught up.
const CATCH_UP: Duration = Duration::from_millis(100);

/// A limit on bytes a second, which can change while it is in force. Requests pass in the
/// order in which they come. Senders that each ask for the same number of bytes, and ask
/// again only when those have passed, get equal shares.
#[derive(Debug, Default)]
pub struct ByteRate {
    bytes_per_second: Option<u64>,
    /// The time at which everything counted so far has passed at that rate.
    due: Option<Instant>,
}

impl ByteRate {
    /// `None` for no limit.
    #[must_use]
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self {
            bytes_per_second: bytes_per_second.map(|limit| limit.max(1)),
            due: None,
        }
    }

    /// Whether there is a limit.
    #[must_use]
    pub const fn is_limited(&self) -> bool {
        self.bytes_per_second.is_some()
    }

    /// Counts `bytes`. Returns when they may pass, or `None` if they may pass now.
    pub fn reserve(&mut self, now: Instant, bytes: u64) -> Option<Instant> {
        let bytes_per_second = self.bytes_per_second?;
        let start = now.checked_sub(CATCH_UP).unwrap_or(now);
        let due = self.due.map_or(start, |due| due.max(start));
        let micros = bytes.saturating_mul(1_000_000) / bytes_per_second;
        let due = due.checked_add(Duration::from_micros(micros))?;
        self.due = Some(due);
        Some(due).filter(|due| *due > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_limit_nothing_waits() {
        let mut rate = ByteRate::default();
        assert_eq!(rate.reserve(Instant::now(), u64::MAX), None);
        assert!(!rate.is_limited());
    }

    #[test]
    fn bytes_pass_at_the_limit_and_a_pause_is_hardly_caught_up() {
        let mut rate = ByteRate::new(Some(1000));
        let start = Instant::now();
        assert_eq!(rate.reserve(start, 100), None, "catches up");
        let mut due = start;
        for _ in 0..10 {
            due += Duration::from_millis(500);
            assert_eq!(rate.reserve(start, 500), Some(due));
        }
        let later = due + Duration::from_secs(60);
        let next = rate.reserve(later, 600).unwrap();
        assert_eq!(next - later, Duration::from_millis(500));
    }

    #[test]
    fn several_share_one_limit() {
        let mut rate = ByteRate::new(Some(1000));
        let now = Instant::now();
        rate.reserve(now, 100);
        let (one, other) = (rate.reserve(now, 50), rate.reserve(now, 50));
        assert_eq!(other.unwrap() - one.unwrap(), Duration::from_millis(50));
    }
}
