//! A limit on bytes per second.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A pause up to this long may be caught up.
const CATCH_UP: Duration = Duration::from_millis(100);

/// Lets so many bytes pass in a second. Who comes waits behind everybody who
/// came before; so of those who come again only when their last bytes have
/// passed, with as many each time, each gets the same share.
#[derive(Debug)]
pub(crate) struct Throttle {
    bytes_per_second: Option<u64>,
    /// When what has passed so far would have passed at that speed.
    due: Mutex<Option<Instant>>,
}

impl Throttle {
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Self {
        Self {
            bytes_per_second: bytes_per_second.map(|limit| limit.max(1)),
            due: Mutex::default(),
        }
    }

    /// Returns when `bytes` may pass.
    pub(crate) async fn pass(&self, bytes: usize) {
        let Some(bytes_per_second) = self.bytes_per_second else {
            return;
        };
        let micros = (bytes as u64).saturating_mul(1_000_000) / bytes_per_second;
        sleep_until(self.reserve(Duration::from_micros(micros))).await;
    }

    fn reserve(&self, time: Duration) -> Instant {
        let now = Instant::now();
        let start = now.checked_sub(CATCH_UP).unwrap_or(now);
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let next = due.map_or(start, |due| due.max(start)) + time;
        *due = Some(next);
        next
    }
}
