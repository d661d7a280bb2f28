//! One transfer under way: what its threads, the connection and whoever watches
//! share. How far it is, and whether it should stop.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::accept_options::Selection;
use crate::disk::digest_cache::DigestCache;
use crate::event::{Party, TransferError};
use crate::progress::{Paused, Progress, Speed, time_left};
use crate::protocol::digest::{Digest, Listing};
use crate::protocol::manifest::Manifest;
use crate::protocol::message::TransferId;
use crate::resume::ResumeState;
use parking_lot::{Condvar, Mutex, MutexGuard};

#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) id: TransferId,
    /// What the chunks of files were found to be.
    pub(crate) known: DigestCache,
    /// Who sends it, after whom parts are named.
    pub(crate) owner: [u8; 32],
    /// What the attempts before have left in memory.
    pub(crate) resume: ResumeState,
    bytes_done: AtomicU64,
    /// Bytes that went ahead of the answer, and whether they count.
    ahead_bytes: AtomicU64,
    counts_ahead: AtomicBool,
    /// Those of them that the receiver had already.
    here_bytes: AtomicU64,
    bytes_total: AtomicU64,
    files_done: AtomicU32,
    files_total: AtomicU32,
    resent_bytes: AtomicU64,
    failed_here: AtomicBool,
    manifest: Arc<Manifest>,
    /// What of the offer is wanted, once it was accepted.
    selection: OnceLock<Arc<Selection>>,
    roots: Mutex<Roots>,
    speed: Mutex<Speed>,
    paused: Mutex<Paused>,
    stopped: OnceLock<TransferError>,
    /// Wakes whoever waits while it is paused.
    changed: Condvar,
}

/// What the files amount to. Of a hundred thousand no list is kept: only those
/// whose fate is open wait to be added to the digest.
#[derive(Debug, Clone, Default)]
struct Roots {
    /// Files that have come to their end, in the order of the manifest.
    open: VecDeque<(u32, Digest)>,
    failed: BTreeSet<u32>,
    listing: Listing,
    /// The last that was added, and how many were.
    last: Option<Digest>,
    files: u32,
}

impl Flight {
    pub(crate) fn new(
        id: TransferId,
        manifest: &Arc<Manifest>,
        known: DigestCache,
        owner: [u8; 32],
        resume: ResumeState,
    ) -> Self {
        Self {
            id,
            known,
            owner,
            resume,
            bytes_done: AtomicU64::new(0),
            ahead_bytes: AtomicU64::new(0),
            counts_ahead: AtomicBool::new(false),
            here_bytes: AtomicU64::new(0),
            bytes_total: AtomicU64::new(manifest.total_bytes()),
            files_done: AtomicU32::new(0),
            files_total: AtomicU32::new(manifest.files()),
            resent_bytes: AtomicU64::new(0),
            failed_here: AtomicBool::new(false),
            manifest: Arc::clone(manifest),
            selection: OnceLock::new(),
            roots: Mutex::default(),
            speed: Mutex::default(),
            paused: Mutex::default(),
            stopped: OnceLock::new(),
            changed: Condvar::new(),
        }
    }

    /// What of the offer is wanted, once that is known.
    pub(crate) fn selection(&self) -> Option<Arc<Selection>> {
        self.selection.get().cloned()
    }

    pub(crate) fn select(&self, selection: &Arc<Selection>) {
        let _ = self.selection.set(Arc::clone(selection));
        let (files, bytes) = (selection.files(), selection.total_bytes());
        self.files_total.store(files, Ordering::Relaxed);
        self.bytes_total.store(bytes, Ordering::Relaxed);
    }

    fn paused(&self) -> MutexGuard<'_, Paused> {
        self.paused.lock()
    }

    /// Notes that this party wants the sender to stop, or does not any more.
    /// Returns whether that is news.
    pub(crate) fn pause(&self, party: Party, is_paused: bool) -> bool {
        let mut paused = self.paused();
        let by = match party {
            Party::Us => &mut paused.by_us,
            Party::Peer => &mut paused.by_peer,
        };
        let is_news = std::mem::replace(by, is_paused) != is_paused;
        drop(paused);
        self.changed.notify_all();
        is_news
    }

    /// Whether anybody wants the sender to stop.
    pub(crate) fn is_paused(&self) -> bool {
        *self.paused() != Paused::default()
    }

    /// Returns when the sender may go on, or the transfer was stopped. Blocks.
    pub(crate) fn wait_while_paused(&self) {
        let mut paused = self.paused();
        while *paused != Paused::default() && self.stopped().is_none() {
            self.changed.wait(&mut paused);
        }
    }

    /// Ends the transfer early. Only the first reason counts.
    pub(crate) fn stop(&self, reason: TransferError) {
        let _ = self.stopped.set(reason);
        // Under the lock: whoever is about to wait has seen it or is woken.
        let _paused = self.paused();
        self.changed.notify_all();
    }

    /// Why the transfer ends early, if it does.
    pub(crate) fn stopped(&self) -> Option<&TransferError> {
        self.stopped.get()
    }

    /// Whether what is unfinished serves a later attempt: always, but when
    /// somebody wants it gone or the sender was caught lying.
    pub(crate) fn keeps_parts(&self) -> bool {
        !matches!(
            self.stopped(),
            Some(
                TransferError::Cancelled(_)
                    | TransferError::Verification(_)
                    | TransferError::Violation(_)
            )
        )
    }

    /// Why nothing that has come is of interest any more, if it is so. After a
    /// lost connection it is still worth keeping.
    pub(crate) fn dropped(&self) -> Option<&TransferError> {
        self.stopped().filter(|reason| {
            !matches!(
                reason,
                TransferError::ConnectionLost | TransferError::Interrupted(_)
            )
        })
    }

    fn roots(&self) -> MutexGuard<'_, Roots> {
        self.roots.lock()
    }

    /// A file has come to its end, the next in the order of the manifest.
    pub(crate) fn add_root(&self, entry: u32, root: Digest) {
        self.roots().open.push_back((entry, root));
    }

    /// A file did not make it after all.
    pub(crate) fn add_failed(&self, entry: u32) {
        self.roots().failed.insert(entry);
    }

    /// The first `entries` of the manifest need no more care. Returns those of their
    /// files that made it and were not settled before.
    pub(crate) fn settle(&self, entries: u32) -> Vec<(u32, Digest)> {
        self.roots()
            .settle(entries, &self.manifest, self.selection.get())
    }

    /// What all files amount to that have come to their end; `None` for no files.
    pub(crate) fn digest_of_sent(&self) -> Option<Digest> {
        let mut roots = self.roots().clone();
        roots.settle(u32::MAX, &self.manifest, self.selection.get());
        roots.digest()
    }

    /// What the files that made it amount to; `None` for no files.
    pub(crate) fn digest(&self) -> Option<Digest> {
        self.roots().digest()
    }

    /// Notes what the comparison of chunks has shown: so many bytes need not
    /// travel, and so many must although something was in their place.
    pub(crate) fn add_compared(&self, same_bytes: u64, differing_bytes: u64) {
        // First, so that what is compared never looks as if it had travelled.
        self.here_bytes.fetch_add(same_bytes, Ordering::Relaxed);
        self.add_bytes(same_bytes);
        self.resent_bytes
            .fetch_add(differing_bytes, Ordering::Relaxed);
    }

    pub(crate) fn here_bytes(&self) -> u64 {
        self.here_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn resent_bytes(&self) -> u64 {
        self.resent_bytes.load(Ordering::Relaxed)
    }

    /// Notes that this side's disk did not take a file.
    pub(crate) fn fail_here(&self) {
        self.failed_here.store(true, Ordering::Relaxed);
    }

    /// Whether this side's disk did not take some file.
    pub(crate) fn has_failed_here(&self) -> bool {
        self.failed_here.load(Ordering::Relaxed)
    }

    /// As many are done as are durable.
    pub(crate) fn set_bytes(&self, bytes: u64) {
        self.bytes_done.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes bytes that go ahead of the answer.
    pub(crate) fn add_ahead(&self, bytes: u64) {
        self.ahead_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The files go on behind those.
    pub(crate) fn count_ahead(&self) {
        self.counts_ahead.store(true, Ordering::Relaxed);
    }

    fn bytes_done(&self) -> u64 {
        let ahead_bytes = match self.counts_ahead.load(Ordering::Relaxed) {
            true => self.ahead_bytes.load(Ordering::Relaxed),
            false => 0,
        };
        self.bytes_done.load(Ordering::Relaxed) + ahead_bytes
    }

    pub(crate) fn set_files(&self, files: u32) {
        self.files_done.store(files, Ordering::Relaxed);
    }

    pub(crate) fn progress(&self, now: Instant) -> Progress {
        let bytes_done = self.bytes_done();
        let mut speed = self.speed.lock();
        let here_bytes = self.here_bytes();
        let bytes_per_second = speed.sample(now, bytes_done.saturating_sub(here_bytes));
        let bytes_total = self.bytes_total.load(Ordering::Relaxed);
        let bytes_left = bytes_total.saturating_sub(bytes_done);
        Progress {
            bytes_done,
            here_bytes,
            bytes_total,
            files_done: self.files_done.load(Ordering::Relaxed),
            files_total: self.files_total.load(Ordering::Relaxed),
            bytes_per_second,
            time_left: bytes_per_second.and_then(|speed| time_left(bytes_left, speed)),
            paused: *self.paused(),
        }
    }
}

impl Roots {
    fn settle(
        &mut self,
        entries: u32,
        manifest: &Manifest,
        selection: Option<&Arc<Selection>>,
    ) -> Vec<(u32, Digest)> {
        // Of what came along with the offer some may not have been wanted.
        let is_skipped = |entry: &u32| selection.is_some_and(|it| it.skipped().contains(entry));
        let mut settled = Vec::new();
        while let Some((entry, root)) = self.open.pop_front_if(|(entry, _)| *entry < entries) {
            if !self.failed.contains(&entry) && !is_skipped(&entry) {
                if let Some(file) = manifest.entry(entry) {
                    self.listing.push(root, file.path().as_str());
                }
                self.last = Some(root);
                self.files += 1;
                settled.push((entry, root));
            }
        }
        self.failed = self.failed.split_off(&entries);
        settled
    }

    fn digest(&self) -> Option<Digest> {
        match self.files {
            0 | 1 => self.last,
            _ => Some(self.listing.digest()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::manifest::ManifestBuilder;
    use crate::protocol::message::Side;

    #[test]
    fn only_what_travels_has_a_speed() {
        let manifest = Arc::new(ManifestBuilder::default().build());
        let flight = Flight::new(
            TransferId::first(Side::Initiator),
            &manifest,
            DigestCache::default(),
            [0; 32],
            ResumeState::default(),
        );
        let start = Instant::now();
        flight.progress(start);
        flight.add_compared(900_000_000, 0);
        flight.add_bytes(1_000);
        let progress = flight.progress(start + Duration::from_secs(1));
        assert_eq!(progress.bytes_done, 900_001_000);
        assert_eq!(progress.here_bytes, 900_000_000);
        assert_eq!(progress.bytes_per_second, Some(1_000));
    }
}
