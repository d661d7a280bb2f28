//! The receiving pipeline of one transfer: a thread that verifies, a thread
//! that writes, a thread that makes durable. None waits for another but
//! through a full queue, and nothing is written before it is verified.

use std::{
    io::{self, Write as _},
    sync::{Arc, mpsc as std_mpsc},
    thread::Builder,
};

use tokio::sync::mpsc;

use crate::{
    buffer::Buffer,
    event::{ExchangeEvent, FileError, Party, Summary, TransferError},
    flight::Flight,
    frame::BatchItem,
    manifest::{Entry, Manifest},
    merkle::{Digest, Tree},
    message::{CancelReason, Message, Trouble},
    open::Shared,
    path::SafePath,
    store::{Folders, Part, Store},
};

/// Pieces from the connection that wait for verification; their number is
/// bounded by the buffers anyway, but for ends of files.
pub(crate) const WORK: usize = 16;
/// Verified pieces that wait to be written.
const VERIFIED: usize = 2;
/// Written files that wait to be made durable. They are open files.
const WRITTEN: usize = if cfg!(target_os = "linux") { 64 } else { 16 };
/// Most files made durable together. They are open files.
const TOGETHER: usize = if cfg!(target_os = "linux") { 192 } else { 32 };

/// What the connection brings, its place checked but not its content.
pub(crate) enum Work {
    Chunk {
        entry: u32,
        digest: Digest,
        buffer: Buffer,
        data_bytes: usize,
    },
    Batch {
        items: Vec<BatchItem>,
        buffer: Buffer,
    },
    End {
        entry: u32,
        root: Digest,
    },
    Failed {
        entry: u32,
        trouble: Trouble,
    },
}

enum Verified {
    Chunk {
        entry: u32,
        buffer: Buffer,
        data_bytes: usize,
    },
    Batch {
        items: Vec<BatchItem>,
        buffer: Buffer,
    },
    End {
        entry: u32,
    },
    Failed {
        entry: u32,
        error: FileError,
    },
}

/// A file that needs no more bytes.
enum Written {
    Part { entry: u32, part: Part },
    Failed,
}

/// What all three threads know.
pub(crate) struct Incoming {
    pub(crate) flight: Arc<Flight>,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) shared: Arc<Shared>,
}

/// Why a stage ends before its input does. What is to be known stands in the
/// flight.
struct Stopped;

impl Incoming {
    /// Receives everything into `store` and returns when all is durable, or
    /// when the transfer was stopped and has left nothing unfinished behind.
    /// Blocks.
    pub(crate) fn run(
        &self,
        store: Store,
        work: mpsc::Receiver<Work>,
    ) -> Result<Summary, TransferError> {
        let (verified, to_write) = std_mpsc::sync_channel(VERIFIED);
        let (written, to_commit) = std_mpsc::sync_channel(WRITTEN);
        let summary = std::thread::scope(|scope| {
            let store = &store;
            let verifying = Builder::new().name("pinhole-verify".to_owned());
            let verifying = verifying.spawn_scoped(scope, move || self.verify(work, &verified));
            let writing = Builder::new().name("pinhole-write".to_owned());
            let writing =
                writing.spawn_scoped(scope, move || self.write(store, &to_write, &written));
            if let Err(error) = verifying.and(writing) {
                self.disk_failed("", &error.into());
            }
            // Moved in here, so that a writing thread that waits for room ends
            // with it.
            let to_commit = to_commit;
            self.commit(store, &to_commit)
        });
        if let Some(reason) = self.flight.stopped() {
            return Err(reason.clone());
        }
        let Ok(summary) = summary else {
            return Err(TransferError::ConnectionLost);
        };
        match store.finish() {
            Ok(paths) => {
                self.acknowledge(self.manifest.count());
                Ok(Summary { paths, ..summary })
            }
            Err(error) => {
                self.disk_failed("", &error.into());
                Err(self
                    .flight
                    .stopped()
                    .cloned()
                    .unwrap_or(TransferError::ConnectionLost))
            }
        }
    }

    fn check_stopped(&self) -> Result<(), Stopped> {
        self.flight.stopped().map_or(Ok(()), |_| Err(Stopped))
    }

    fn verify(
        &self,
        mut work: mpsc::Receiver<Work>,
        verified: &std_mpsc::SyncSender<Verified>,
    ) -> Result<(), Stopped> {
        let mut tree = Tree::default();
        while let Some(work) = work.blocking_recv() {
            self.check_stopped()?;
            let piece = match work {
                Work::Chunk {
                    entry,
                    digest,
                    buffer,
                    data_bytes,
                } => {
                    self.check_digest(digest, buffer.data().get(..data_bytes))?;
                    tree.push(digest);
                    Verified::Chunk {
                        entry,
                        buffer,
                        data_bytes,
                    }
                }
                Work::Batch { items, buffer } => {
                    for item in &items {
                        self.check_digest(item.digest, buffer.data().get(item.data.clone()))?;
                    }
                    Verified::Batch { items, buffer }
                }
                Work::End { entry, root } => {
                    if std::mem::take(&mut tree).root() != root {
                        return Err(self.not_genuine());
                    }
                    Verified::End { entry }
                }
                Work::Failed { entry, trouble } => {
                    tree = Tree::default();
                    let error = FileError::Peer(trouble);
                    Verified::Failed { entry, error }
                }
            };
            verified.send(piece).map_err(|_| Stopped)?;
        }
        Ok(())
    }

    fn check_digest(&self, digest: Digest, data: Option<&[u8]>) -> Result<(), Stopped> {
        match data {
            Some(data) if Digest::of_chunk(data) == digest => Ok(()),
            _ => Err(self.not_genuine()),
        }
    }

    fn not_genuine(&self) -> Stopped {
        let reason = TransferError::Verification(Party::Us);
        self.shared.stop_receiving(self.flight.id, reason);
        self.cancel(CancelReason::Verification);
        Stopped
    }

    fn write(
        &self,
        store: &Store,
        verified: &std_mpsc::Receiver<Verified>,
        written: &std_mpsc::SyncSender<Written>,
    ) -> Result<(), Stopped> {
        let mut folders = Folders::default();
        let mut open: Option<Part> = None;
        // A file that failed here, while the rest of it still arrives.
        let mut given_up = None;
        for piece in verified {
            self.check_stopped()?;
            match piece {
                Verified::Chunk {
                    entry,
                    buffer,
                    data_bytes,
                } if given_up != Some(entry) => {
                    let data = buffer.data().get(..data_bytes).unwrap_or_default();
                    let result = self.append(store, &mut folders, &mut open, entry, data);
                    if let Err(error) = result {
                        open = None;
                        given_up = Some(entry);
                        self.give_up(entry, error.into(), written)?;
                    }
                }
                Verified::Chunk { .. } => {}
                Verified::Batch { items, buffer } => {
                    for item in items {
                        let data = buffer.data().get(item.data).unwrap_or_default();
                        let mut small = None;
                        let result = self.append(store, &mut folders, &mut small, item.entry, data);
                        let result = result.and_then(|()| self.complete(item.entry, small));
                        self.hand_on(item.entry, result, written)?;
                    }
                }
                Verified::End { entry } if given_up != Some(entry) => {
                    if open.is_none() {
                        // A file without chunks.
                        let result = self.append(store, &mut folders, &mut open, entry, &[]);
                        if let Err(error) = result {
                            self.give_up(entry, error.into(), written)?;
                            continue;
                        }
                    }
                    let result = self.complete(entry, open.take());
                    self.hand_on(entry, result, written)?;
                }
                Verified::End { .. } => {}
                Verified::Failed { entry, error } => {
                    open = None;
                    if given_up != Some(entry) {
                        self.tell_failed(entry, error);
                        written.send(Written::Failed).map_err(|_| Stopped)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn append(
        &self,
        store: &Store,
        folders: &mut Folders,
        open: &mut Option<Part>,
        entry: u32,
        data: &[u8],
    ) -> io::Result<()> {
        let part = match open {
            Some(part) => part,
            None => open.insert(store.create(folders, self.path(entry)?)?),
        };
        part.file.write_all(data)?;
        self.flight.add_bytes(data.len() as u64);
        Ok(())
    }

    fn complete(&self, entry: u32, part: Option<Part>) -> io::Result<Part> {
        let part = part.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        part.set_time(self.manifest.entry(entry).and_then(Entry::modified_ns))?;
        Ok(part)
    }

    fn hand_on(
        &self,
        entry: u32,
        result: io::Result<Part>,
        written: &std_mpsc::SyncSender<Written>,
    ) -> Result<(), Stopped> {
        match result {
            Ok(part) => written
                .send(Written::Part { entry, part })
                .map_err(|_| Stopped),
            Err(error) => self.give_up(entry, error.into(), written),
        }
    }

    fn path(&self, entry: u32) -> io::Result<&SafePath> {
        let entry = self.manifest.entry(entry);
        entry
            .map(Entry::path)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// This disk does not take the file: the file fails, or all do.
    fn give_up(
        &self,
        entry: u32,
        error: FileError,
        written: &std_mpsc::SyncSender<Written>,
    ) -> Result<(), Stopped> {
        self.file_failed(entry, error)?;
        written.send(Written::Failed).map_err(|_| Stopped)
    }

    fn file_failed(&self, entry: u32, error: FileError) -> Result<(), Stopped> {
        let trouble = error.trouble();
        if trouble.is_of_the_disk() {
            let path = self
                .path(entry)
                .map(SafePath::display_text)
                .unwrap_or_default();
            self.disk_failed(&path, &error);
            return Err(Stopped);
        }
        let transfer = self.flight.id;
        self.shared.link.say(Message::FileFailed {
            transfer,
            entry,
            trouble,
        });
        self.tell_failed(entry, error);
        Ok(())
    }

    fn tell_failed(&self, entry: u32, error: FileError) {
        if let Ok(path) = self.path(entry) {
            let event = ExchangeEvent::FileFailed {
                id: self.flight.id,
                path: path.clone(),
                error,
            };
            self.shared.link.emit_blocking(event);
        }
    }

    fn disk_failed(&self, path: &str, error: &FileError) {
        let trouble = error.trouble();
        let reason = TransferError::LocalFile {
            path: path.to_owned(),
            trouble,
            detail: error.to_string(),
        };
        self.shared.stop_receiving(self.flight.id, reason);
        self.cancel(CancelReason::Disk(trouble));
    }

    fn cancel(&self, reason: CancelReason) {
        let transfer = self.flight.id;
        self.shared.link.say(Message::Cancel { transfer, reason });
    }

    fn acknowledge(&self, entries: u32) {
        let transfer = self.flight.id;
        self.shared.link.say(Message::Durable { transfer, entries });
    }

    fn commit(
        &self,
        store: &Store,
        written: &std_mpsc::Receiver<Written>,
    ) -> Result<Summary, Stopped> {
        let mut summary = Summary {
            folders: self.manifest.folders(),
            ..Summary::default()
        };
        // The first file that is neither durable nor failed.
        let mut next = self.manifest.next_file(0);
        while let Ok(first) = written.recv() {
            let mut group = vec![first];
            group.extend(written.try_iter().take(TOGETHER - 1));
            self.check_stopped()?;
            for _ in &group {
                next = self.manifest.next_file(next + 1);
            }
            self.commit_group(store, group, &mut summary)?;
            self.flight.set_files(summary.files + summary.failed_files);
            // The last acknowledgement waits for the folders.
            if next < self.manifest.count() {
                self.acknowledge(next);
            }
        }
        // The input also ends when a stage before gave up.
        self.check_stopped()?;
        if next == self.manifest.count() {
            Ok(summary)
        } else {
            Err(Stopped)
        }
    }

    fn commit_group(
        &self,
        store: &Store,
        group: Vec<Written>,
        summary: &mut Summary,
    ) -> Result<(), Stopped> {
        let mut parts = Vec::with_capacity(group.len());
        for written in group {
            match written {
                Written::Part { entry, part } => parts.push((entry, part)),
                Written::Failed => summary.failed_files += 1,
            }
        }
        let synced = store.sync(parts.iter().map(|(_, part)| part));
        let mut folders = Vec::new();
        for ((entry, mut part), synced) in parts.into_iter().zip(synced) {
            let path = self.path(entry);
            let published = synced.and_then(|()| store.publish(&mut part, path?));
            match published {
                Ok(()) => {
                    let size_bytes = self.manifest.entry(entry).and_then(Entry::file_size_bytes);
                    summary.files += 1;
                    summary.bytes += size_bytes.unwrap_or_default();
                    folders.push(part.into_dir());
                }
                Err(error) => {
                    self.file_failed(entry, error.into())?;
                    summary.failed_files += 1;
                }
            }
        }
        folders.dedup_by(|left, right| Arc::ptr_eq(left, right));
        store.sync_folders(&folders).map_err(|error| {
            self.disk_failed("", &error.into());
            Stopped
        })
    }
}
