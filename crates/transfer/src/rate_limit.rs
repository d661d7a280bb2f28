//! A limit on bytes per second, shared by everything that obeys it.

use parking_lot::{Mutex, MutexGuard};
use pinhole_budget::ByteRate;
use tokio::time::Instant;

/// At most so much passes at once, so that a slow limit still flows evenly.
pub(crate) const SLICE_BYTES: usize = 32 * 1024;

/// A limit that can be changed while it is in force. Whoever has bytes to move
/// asks before; several who do are served in turn.
#[derive(Debug, Default)]
pub struct RateLimit(Mutex<ByteRate>);

impl RateLimit {
    /// `None` lifts the limit. What already waits still waits for its turn, for
    /// at most 32 KiB.
    pub fn set(&self, bytes_per_second: Option<u64>) {
        *self.rate() = ByteRate::new(bytes_per_second);
    }

    /// Returns when `bytes` may pass.
    pub(crate) async fn pass(&self, bytes: usize) {
        let now = Instant::now().into_std();
        let due = self.rate().reserve(now, bytes as u64);
        if let Some(due) = due {
            tokio::time::sleep_until(due.into()).await;
        }
    }

    /// Whether there is a limit at all.
    pub(crate) fn is_set(&self) -> bool {
        self.rate().is_limited()
    }

    fn rate(&self) -> MutexGuard<'_, ByteRate> {
        self.0.lock()
    }
}
