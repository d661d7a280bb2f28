//! Frames that wait for clients: how many bytes of the server's memory they take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// An encoded frame, shared by all who receive it.
pub(crate) type SharedFrame = Arc<[u8]>;

/// What may wait for all clients together. Beyond it, the one for whom most waits does
/// not read.
const MAX_BYTES: u64 = 32 << 20;
/// What a frame takes that waits for others, too.
const SHARED_FRAME_BYTES: u64 = 64;

/// What waits for all clients.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backlogs(Arc<AtomicU64>);

/// What waits for one.
#[derive(Debug)]
pub(crate) struct Backlog {
    bytes: AtomicU64,
    all: Backlogs,
    overrun: Notify,
}

/// A frame that waits, until it is dropped.
#[derive(Debug)]
pub(crate) struct QueuedFrame {
    pub(crate) frame: SharedFrame,
    bytes: u64,
    backlog: Arc<Backlog>,
}

impl Backlogs {
    pub(crate) fn of_one(&self) -> Arc<Backlog> {
        Arc::new(Backlog {
            bytes: AtomicU64::new(0),
            all: self.clone(),
            overrun: Notify::new(),
        })
    }

    pub(crate) fn are_too_long(&self) -> bool {
        self.0.load(Ordering::Relaxed) > MAX_BYTES
    }
}

impl Backlog {
    pub(crate) fn queued(self: &Arc<Self>, frame: &SharedFrame, is_shared: bool) -> QueuedFrame {
        let bytes = match is_shared {
            true => SHARED_FRAME_BYTES,
            false => frame.len() as u64,
        };
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.all.0.fetch_add(bytes, Ordering::Relaxed);
        QueuedFrame {
            frame: Arc::clone(frame),
            bytes,
            backlog: Arc::clone(self),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Has the connection end at once, whatever waits for it.
    pub(crate) fn cut(&self) {
        self.overrun.notify_one();
    }

    /// Completes when the connection has to end for what waits for it.
    pub(crate) async fn is_cut(&self) {
        self.overrun.notified().await;
    }
}

impl Drop for QueuedFrame {
    fn drop(&mut self) {
        self.backlog.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.backlog.all.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_counted_until_it_is_gone() {
        let all = Backlogs::default();
        let (one, other) = (all.of_one(), all.of_one());
        let frame: SharedFrame = vec![0; (MAX_BYTES / 2) as usize].into();
        let queued = [one.queued(&frame, false), other.queued(&frame, false)];
        assert!(!all.are_too_long());
        let shared = one.queued(&frame, true);
        assert!(all.are_too_long());
        assert_eq!(one.bytes(), other.bytes() + SHARED_FRAME_BYTES);
        drop((queued, shared));
        assert_eq!((one.bytes(), all.0.load(Ordering::Relaxed)), (0, 0));
    }
}
