//! The second stage: writes what is verified to temporaries.

use std::io;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::arrival::Arrival;
use super::{Batch, Chunk, Receiving, Stopped, Verified, Written};
use crate::disk::direct::Pace;
use crate::disk::partial_file::PartialFile;
use crate::disk::store::{Folders, Store};
use crate::disk::system;
use crate::protocol::chunking::CHUNK_BYTES;
use crate::protocol::digest::Digest;
use crate::protocol::file_error::{FileError, FileErrorKind};
use crate::protocol::frame::BatchItem;
use crate::protocol::index::{ChunkIndex, EntryIndex};
use crate::protocol::manifest::Entry;

/// So much, or so long, of a file is written before it is made durable for the
/// first time; a power cut costs no more.
const SYNC_BYTES: u64 = 64 * 1024 * 1024;
const SYNC_TIME: Duration = Duration::from_secs(2);
/// How much is written between two looks at the room that is left.
const ROOM_BYTES: u64 = 16 * 1024 * 1024;

pub(super) struct WriteStage<'a> {
    receiving: &'a Receiving,
    store: &'a Store,
    written: mpsc::SyncSender<Written>,
    folders: Folders,
    /// The file whose chunks are arriving.
    open: Option<PartialFile>,
    /// A file that failed here, while the rest of it still arrives.
    given_up: Option<EntryIndex>,
    pace: Pace,
    unchecked_bytes: u64,
    unsynced_bytes: u64,
    synced_at: Instant,
    arrival: Arrival<'a>,
}

impl<'a> WriteStage<'a> {
    pub(super) fn new(
        receiving: &'a Receiving,
        store: &'a Store,
        written: mpsc::SyncSender<Written>,
    ) -> Self {
        Self {
            receiving,
            store,
            written,
            folders: Folders::default(),
            open: None,
            given_up: None,
            pace: Pace::default(),
            unchecked_bytes: 0,
            unsynced_bytes: 0,
            synced_at: Instant::now(),
            arrival: Arrival::new(receiving),
        }
    }

    pub(super) fn run(mut self, verified: impl Iterator<Item = Verified>) -> Result<(), Stopped> {
        let outcome = self.write_all(verified);
        // Whether it is of use shows only when the next stage has made durable what
        // it has of it.
        if let Some(part) = self.open.take() {
            self.hand_on(Written::Rest { _part: part })?;
        }
        outcome
    }

    fn write_all(&mut self, verified: impl Iterator<Item = Verified>) -> Result<(), Stopped> {
        for piece in verified {
            self.receiving.check_stopped()?;
            match piece {
                Verified::Chunk(Chunk {
                    entry,
                    place,
                    digest,
                    buffer,
                }) => {
                    let data = buffer.data().get(..place.length_bytes());
                    self.chunk(entry, data.unwrap_or_default(), place.index(), digest)?;
                    self.arrival.add(place.length_bytes());
                    self.sync_some(entry, data.map_or(0, <[u8]>::len));
                }
                Verified::Batch(Batch { items, buffer }) => {
                    for item in items {
                        if self.store.is_settled(item.entry) {
                            self.settled_again(&item)?;
                            continue;
                        }
                        let data = buffer.data().get(item.data).unwrap_or_default();
                        if !self.is_here(item.entry, data) {
                            self.chunk(item.entry, data, ChunkIndex::FIRST, item.digest)?;
                        }
                        self.receiving
                            .transfer
                            .progress
                            .add_bytes(data.len() as u64);
                        self.end(item.entry)?;
                    }
                }
                Verified::End { entry } => self.end(entry)?,
                Verified::Changed { entry } => self.changed(entry)?,
                Verified::Failed { entry, error } => {
                    // The file under this name is another one now.
                    let part = self.open.take();
                    if let Some(part) = part.or_else(|| self.store.take_part(entry)) {
                        part.discard();
                    }
                    if self.given_up != Some(entry) {
                        self.receiving.tell_failed(entry, error);
                        self.hand_on(Written::Failed)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A file that was made durable by an earlier attempt has come along again.
    fn settled_again(&self, item: &BatchItem) -> Result<(), Stopped> {
        let transfer = &self.receiving.transfer;
        let (manifest, entry) = (self.receiving.manifest(), item.entry);
        if transfer.resume.differs(manifest, entry, item.digest) {
            return self.changed(entry);
        }
        transfer.progress.add_compared(item.data.len() as u64, 0);
        self.hand_on(Written::Settled { entry })
    }

    /// A file is not what an earlier attempt has made durable, and stays as it was.
    fn changed(&self, entry: EntryIndex) -> Result<(), Stopped> {
        let error = FileError::Local {
            trouble: FileErrorKind::Changed,
            detail: "it was received before, and was something else then".to_owned(),
        };
        self.receiving.refuse(entry, error);
        self.hand_on(Written::Failed)
    }

    /// Whether an earlier attempt has left just this file, whole. It was not
    /// asked about because it came along with the offer.
    fn is_here(&mut self, entry: EntryIndex, data: &[u8]) -> bool {
        if !self.store.have().contains_key(&entry) {
            return false;
        }
        let mut read = || {
            let path = self.receiving.path(entry)?;
            let (content, _) = self.store.left(&mut self.folders, entry, path)?;
            let mut left = vec![0; data.len()];
            system::read_at(&content.file, &mut left, 0)?;
            io::Result::Ok(left)
        };
        read().is_ok_and(|left| left == data)
    }

    fn chunk(
        &mut self,
        entry: EntryIndex,
        data: &[u8],
        index: ChunkIndex,
        digest: Digest,
    ) -> Result<(), Stopped> {
        if self.given_up == Some(entry) {
            return Ok(());
        }
        match self.put(entry, data, index, digest) {
            Ok(()) => Ok(()),
            Err(error) => self.give_up(entry, error),
        }
    }

    fn put(
        &mut self,
        entry: EntryIndex,
        data: &[u8],
        index: ChunkIndex,
        digest: Digest,
    ) -> io::Result<()> {
        self.unchecked_bytes += data.len() as u64;
        if self.unchecked_bytes >= ROOM_BYTES {
            self.unchecked_bytes = 0;
            self.store.check_reserve()?;
        }
        let mut part = self.part(entry)?;
        part.chunks.forget(index);
        let offset_bytes = u64::from(index.get()) * u64::from(CHUNK_BYTES);
        part.write_at(data, offset_bytes, &mut self.pace)?;
        part.chunks.wrote(index, digest);
        self.open = Some(part);
        Ok(())
    }

    /// Has what was written made durable from time to time, if that stage is
    /// not busy anyway.
    fn sync_some(&mut self, entry: EntryIndex, written_bytes: usize) {
        let Some(part) = &self.open else {
            return;
        };
        self.unsynced_bytes += written_bytes as u64;
        if self.unsynced_bytes >= SYNC_BYTES || self.synced_at.elapsed() >= SYNC_TIME {
            let content = part.content();
            let some = Written::Some { entry, content };
            if self.written.try_send(some).is_ok() {
                self.unsynced_bytes = 0;
                self.synced_at = Instant::now();
            }
        }
    }

    fn end(&mut self, entry: EntryIndex) -> Result<(), Stopped> {
        if self.given_up == Some(entry) {
            return Ok(());
        }
        if self.store.is_settled(entry) {
            return self.hand_on(Written::Settled { entry });
        }
        self.arrival.say();
        match self.complete(entry) {
            Ok(part) => self.hand_on(Written::PartialFile { entry, part }),
            Err(error) => self.give_up(entry, error),
        }
    }

    fn complete(&mut self, entry: EntryIndex) -> io::Result<PartialFile> {
        let part = match self
            .store
            .whole(&mut self.folders, entry, self.receiving.path(entry)?)?
        {
            Some(whole) if self.open.is_none() => whole,
            _ => self.part(entry)?,
        };
        part.cut()?;
        part.mark_received();
        let offered = self.receiving.manifest().entry(entry);
        if offered.is_some_and(Entry::is_executable) && self.store.keeps_executable() {
            part.set_executable();
        }
        part.set_time(offered.and_then(Entry::modified_ns));
        Ok(part)
    }

    /// The file that is open; what an earlier attempt left of it, or a new one,
    /// where nothing of it has come.
    fn part(&mut self, entry: EntryIndex) -> io::Result<PartialFile> {
        match self.open.take() {
            Some(part) => Ok(part),
            None => {
                let path = self.receiving.path(entry)?;
                self.store.part(&mut self.folders, entry, path)
            }
        }
    }

    fn give_up(&mut self, entry: EntryIndex, error: io::Error) -> Result<(), Stopped> {
        self.given_up = Some(entry);
        self.receiving.file_failed(self.store, entry, error)?;
        self.hand_on(Written::Failed)
    }

    fn hand_on(&self, written: Written) -> Result<(), Stopped> {
        self.written.send(written).map_err(|_| Stopped)
    }
}
