//! How much of a stream has arrived, as its sender hears it.

use std::time::{Duration, Instant};

use super::Receiving;

/// As often as a peer says that it is there: the sender shows this as progress.
const INTERVAL: Duration = Duration::from_millis(250);

/// Counts what was verified and written, and tells the sender of a stream.
pub(super) struct Arrival<'a> {
    receiving: &'a Receiving,
    said_at: Instant,
}

impl<'a> Arrival<'a> {
    pub(super) fn new(receiving: &'a Receiving) -> Self {
        Self {
            receiving,
            said_at: Instant::now(),
        }
    }

    /// So much more was written.
    pub(super) fn add(&mut self, bytes: usize) {
        self.receiving.transfer.add_arrived(bytes as u64);
        if self.said_at.elapsed() >= INTERVAL {
            self.say();
        }
    }

    /// Tells how much that is by now.
    pub(super) fn say(&mut self) {
        self.said_at = Instant::now();
        self.receiving.say_arrived();
    }
}
