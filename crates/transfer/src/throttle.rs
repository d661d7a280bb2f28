//! A limit on bytes per second, shared by everything that obeys it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// At most so much passes at once, so that a slow limit still flows evenly.
pub(crate) const SLICE_BYTES: usize = 32 * 1024;
/// A pause up to this long may be caught up.
const CATCH_UP: Duration = Duration::from_millis(100);

/// A limit that can be changed while it is in force. Whoever has bytes to move
/// asks before; several who do are served in turn.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    bytes_per_second: Option<u64>,
    /// When what has passed so far would have passed at that speed.
    due: Option<Instant>,
}

impl Throttle {
    /// `None` lifts the limit. What already waits still waits for its turn, for
    /// at most 32 KiB.
    pub fn set(&self, bytes_per_second: Option<u64>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State {
            bytes_per_second: bytes_per_second.map(|limit| limit.max(1)),
            due: None,
        };
    }

    /// Returns when `bytes` may pass.
    pub(crate) async fn pass(&self, bytes: usize) {
        let Some(due) = self.reserve(bytes, Instant::now()) else {
            return;
        };
        tokio::time::sleep_until(due).await;
    }

    /// Whether there is a limit at all.
    pub(crate) fn is_set(&self) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes_per_second.is_some()
    }

    /// When `bytes` may pass; `None` for at once.
    fn reserve(&self, bytes: usize, now: Instant) -> Option<Instant> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes_per_second = state.bytes_per_second?;
        let start = now.checked_sub(CATCH_UP).unwrap_or(now);
        let due = state.due.map_or(start, |due| due.max(start));
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let micros = bytes.saturating_mul(1_000_000) / bytes_per_second;
        let due = due.checked_add(Duration::from_micros(micros))?;
        state.due = Some(due);
        Some(due).filter(|due| *due > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_limit_nobody_waits() {
        let throttle = Throttle::default();
        assert_eq!(throttle.reserve(usize::MAX, Instant::now()), None);
        throttle.set(Some(1000));
        throttle.set(None);
        assert!(!throttle.is_set());
        assert_eq!(throttle.reserve(usize::MAX, Instant::now()), None);
    }

    #[test]
    fn bytes_pass_at_the_limit_and_a_pause_is_hardly_caught_up() {
        let throttle = Throttle::default();
        throttle.set(Some(1000));
        let start = Instant::now();
        assert_eq!(throttle.reserve(100, start), None, "catches up");
        let mut due = start;
        for _ in 0..10 {
            due += Duration::from_millis(500);
            assert_eq!(throttle.reserve(500, start), Some(due));
        }
        let later = due + Duration::from_secs(60);
        let next = throttle.reserve(600, later).unwrap();
        assert_eq!(next - later, Duration::from_millis(500));
    }

    #[test]
    fn several_share_one_limit() {
        let throttle = Throttle::default();
        throttle.set(Some(1000));
        let now = Instant::now();
        throttle.reserve(100, now);
        let (one, other) = (throttle.reserve(50, now), throttle.reserve(50, now));
        assert_eq!(other.unwrap() - one.unwrap(), Duration::from_millis(50));
    }
}
