//! Encoded frames, and the memory that they take while they wait for clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pinhole_proto::frame::{self, FrameKind};
use pinhole_proto::rendezvous::ServerMessage;
use tokio::sync::Notify;
use tracing::error;

/// An encoded frame, shared by all who receive it.
pub(crate) type SharedFrame = Arc<[u8]>;

/// The most bytes that wait for all clients together. Beyond it, the client with the
/// longest backlog is cut off.
const MAX_BYTES: u64 = 32 << 20;
/// What a frame counts that other clients also wait for.
const SHARED_FRAME_BYTES: u64 = 64;

/// The backlogs of all clients.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backlogs(Arc<AtomicU64>);

/// The backlog of one client.
#[derive(Debug)]
pub(crate) struct Backlog {
    bytes: AtomicU64,
    all: Backlogs,
    overrun: Notify,
}

/// A waiting frame. It counts until it is dropped.
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

    /// Ends the connection at once.
    pub(crate) fn cut(&self) {
        self.overrun.notify_one();
    }

    /// Completes when the connection is cut.
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

/// Encodes a message; `None`, with an error in the log, if it does not fit into a frame.
/// The registry keeps messages within the limits, so that is a defect.
pub(crate) fn encoded(message: &ServerMessage) -> Option<SharedFrame> {
    let frame = frame::encode(FrameKind::Server, message);
    frame
        .inspect_err(|error| error!("a message to a client cannot be sent: {error}"))
        .ok()
        .map(SharedFrame::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_frames_count_until_they_are_dropped() {
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
