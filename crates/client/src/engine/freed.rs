//! When to give memory back that ended transfers and sessions have taken.

use std::time::{Duration, Instant};

use pinhole_budget::give_back_memory;
use pinhole_transfer::Resources;
use tokio::task::spawn_blocking;

/// So long after something has ended: more of it often ends at the same time.
const DELAY: Duration = Duration::from_secs(5);

/// Whether something has ended since memory was given back last.
#[derive(Debug, Default)]
pub(super) struct Freed {
    due: Option<Instant>,
}

impl Freed {
    pub(super) fn note(&mut self) {
        self.due.get_or_insert_with(|| Instant::now() + DELAY);
    }

    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn give_back(&mut self, resources: &Resources) {
        self.due = None;
        resources.buffers.free_spare();
        spawn_blocking(give_back_memory);
    }
}
