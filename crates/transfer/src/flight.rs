//! One transfer under way: what its threads, the connection and whoever watches
//! share. How far it is, and whether it should stop.

use std::{
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

use crate::{
    event::TransferError,
    manifest::Manifest,
    message::TransferId,
    progress::{Progress, Speed, time_left},
};

#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) id: TransferId,
    bytes_done: AtomicU64,
    bytes_total: u64,
    files_done: AtomicU32,
    files_total: u32,
    resent_bytes: AtomicU64,
    failed_here: AtomicBool,
    speed: Mutex<Speed>,
    stopped: OnceLock<TransferError>,
}

impl Flight {
    pub(crate) fn new(id: TransferId, manifest: &Manifest) -> Self {
        Self {
            id,
            bytes_done: AtomicU64::new(0),
            bytes_total: manifest.total_bytes(),
            files_done: AtomicU32::new(0),
            files_total: manifest.files(),
            resent_bytes: AtomicU64::new(0),
            failed_here: AtomicBool::new(false),
            speed: Mutex::default(),
            stopped: OnceLock::new(),
        }
    }

    /// Ends the transfer early. Only the first reason counts.
    pub(crate) fn stop(&self, reason: TransferError) {
        let _ = self.stopped.set(reason);
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

    /// Notes what the comparison of chunks has shown: so many bytes need not
    /// travel, and so many must although something was in their place.
    pub(crate) fn add_compared(&self, same_bytes: u64, differing_bytes: u64) {
        self.add_bytes(same_bytes);
        self.resent_bytes
            .fetch_add(differing_bytes, Ordering::Relaxed);
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

    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_files(&self, files: u32) {
        self.files_done.store(files, Ordering::Relaxed);
    }

    pub(crate) fn progress(&self, now: Instant) -> Progress {
        let bytes_done = self.bytes_done.load(Ordering::Relaxed);
        let mut speed = self.speed.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes_per_second = speed.sample(now, bytes_done);
        let bytes_left = self.bytes_total.saturating_sub(bytes_done);
        Progress {
            bytes_done,
            bytes_total: self.bytes_total,
            files_done: self.files_done.load(Ordering::Relaxed),
            files_total: self.files_total,
            bytes_per_second,
            time_left: bytes_per_second.and_then(|speed| time_left(bytes_left, speed)),
        }
    }
}
