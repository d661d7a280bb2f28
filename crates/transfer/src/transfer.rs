//! One transfer under way, as its threads, the connection and whoever watches share it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::control::Control;
use crate::file_digests::FileDigests;
use crate::progress::{Progress, ProgressCounter};
use crate::protocol::digest::Digest;
use crate::protocol::index::EntryIndex;
use crate::protocol::manifest::Manifest;
use crate::protocol::message::TransferId;
use crate::protocol::selection::Selection;
use crate::resume::ResumeState;

/// What all who work on a transfer have in common.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) id: TransferId,
    pub(crate) control: Arc<Control>,
    pub(crate) progress: ProgressCounter,
    pub(crate) digests: FileDigests,
    /// What the attempts before have left in memory.
    pub(crate) resume: ResumeState,
    /// What of the offer is wanted, once it was accepted.
    selection: OnceLock<Arc<Selection>>,
    /// Receiving: how much was verified and written.
    arrived_bytes: AtomicU64,
}

impl Transfer {
    pub(crate) fn new(id: TransferId, manifest: &Manifest, resume: ResumeState) -> Self {
        Self {
            id,
            control: Arc::default(),
            progress: ProgressCounter::new(manifest),
            digests: FileDigests::default(),
            resume,
            selection: OnceLock::new(),
            arrived_bytes: AtomicU64::new(0),
        }
    }

    /// So much more was verified and written.
    pub(crate) fn add_arrived(&self, bytes: u64) {
        self.arrived_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How much was verified and written.
    pub(crate) fn arrived_bytes(&self) -> u64 {
        self.arrived_bytes.load(Ordering::Relaxed)
    }

    /// The offer is taken, as far as this goes.
    pub(crate) fn select(&self, selection: &Arc<Selection>) {
        let _ = self.selection.set(Arc::clone(selection));
        self.progress.select(selection);
    }

    /// What of the offer is wanted, once that is known.
    pub(crate) fn selection(&self) -> Option<&Arc<Selection>> {
        self.selection.get()
    }

    /// The entries before `end` need no more care. Returns those of them that are
    /// files, made it and were not settled before.
    pub(crate) fn settle(&self, end: EntryIndex) -> Vec<(EntryIndex, Digest)> {
        let selection = self.selection();
        selection.map_or_else(Vec::new, |it| self.digests.settle(end, it))
    }

    /// Whether it was ended early.
    pub(crate) fn is_stopped(&self) -> bool {
        self.control.stopped().is_some()
    }

    /// How far it is.
    pub(crate) fn progress_now(&self) -> Progress {
        self.progress.at(Instant::now(), self.control.paused())
    }
}
