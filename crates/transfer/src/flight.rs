//! One transfer under way: what its threads, the connection and whoever watches
//! share. How far it is, and whether it should stop.

use std::{
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

use crate::{
    event::TransferError,
    manifest::Manifest,
    message::TransferId,
    progress::{Progress, Speed, time_left},
};

pub(crate) struct Flight {
    pub(crate) id: TransferId,
    bytes_done: AtomicU64,
    bytes_total: u64,
    files_done: AtomicU32,
    files_total: u32,
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
