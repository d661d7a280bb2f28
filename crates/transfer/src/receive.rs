//! The receiving pipeline of one transfer: a thread that hashes what comes, a thread
//! that writes, a thread that makes durable. None waits for another but through a full
//! queue, and nothing is written before it is verified. Beside them a thread compares what an earlier attempt has left.

mod arrival;
mod commit;
mod compare;
pub(crate) mod inlet;
pub(crate) mod pipe;
mod write;

use std::io;
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread::Builder;

use tokio::sync::mpsc;

use self::compare::Comparisons;
use self::inlet::Inlet;
use self::pipe::Output;
use self::write::WriteStage;
use crate::connection::Connection;
use crate::connection::buffer::Buffer;
use crate::disk::partial_file::{Content, PartialFile};
use crate::disk::store::Store;
use crate::event::{ExchangeEvent, Party, Streamed, Summary, TransferError};
use crate::protocol::chunking::ChunkPlace;
use crate::protocol::digest::{Digest, Tree};
use crate::protocol::file_error::{FileError, FileErrorKind};
use crate::protocol::frame::{BatchItem, DigestItem};
use crate::protocol::index::EntryIndex;
use crate::protocol::manifest::{Entry, Manifest};
use crate::protocol::message::{CancelReason, Message};
use crate::protocol::path::SafePath;
use crate::protocol::selection::Selection;
use crate::transfer::Transfer;

/// Pieces that are hashed and wait to be written.
const HASHED: usize = 2;
/// Written files that wait to be made durable. They are open files.
const WRITTEN: usize = if cfg!(target_os = "linux") { 64 } else { 16 };

/// One chunk of a large file.
pub(crate) struct Chunk {
    pub(crate) entry: EntryIndex,
    pub(crate) place: ChunkPlace,
    pub(crate) digest: Digest,
    pub(crate) buffer: Buffer,
}

/// Small files that came in one frame.
pub(crate) struct Batch {
    pub(crate) items: Vec<BatchItem>,
    pub(crate) buffer: Buffer,
}

/// What the connection brings, its place checked but not its content.
pub(crate) enum Work {
    Chunk(Chunk),
    Batch(Batch),
    End {
        entry: EntryIndex,
        root: Digest,
        /// How long a stream was.
        streamed_bytes: Option<u64>,
    },
    Failed {
        entry: EntryIndex,
        trouble: FileErrorKind,
    },
}

/// A piece, and whether its content is what its digests say.
type Hashed = (Work, bool);

enum Verified {
    Chunk(Chunk),
    Batch(Batch),
    End {
        entry: EntryIndex,
    },
    /// The peer cannot send it.
    Failed {
        entry: EntryIndex,
        error: FileError,
    },
    /// It is not what an earlier attempt has received.
    Changed {
        entry: EntryIndex,
    },
}

enum Written {
    /// A file that needs no more bytes.
    PartialFile {
        entry: EntryIndex,
        part: PartialFile,
    },
    /// One that was made durable by an earlier attempt.
    Settled { entry: EntryIndex },
    /// A file that will get none.
    Failed,
    /// A large part of a file that is still being written.
    Some { entry: EntryIndex, content: Content },
    /// The rest of a file, of which no more will come.
    Rest { _part: PartialFile },
}

/// What the connection brings to an accepted transfer.
pub(crate) struct Feeds {
    /// What came along with the offer, before it was accepted.
    pub(crate) held: Vec<Work>,
    pub(crate) work: mpsc::Receiver<Work>,
    pub(crate) digests: mpsc::Receiver<Vec<DigestItem>>,
}

/// Where an offer goes.
pub(crate) enum Place {
    Folder(Box<Store>),
    /// A single file goes into a pipe.
    Pipe(Output),
}

/// What all threads know.
pub(crate) struct Receiving {
    pub(crate) transfer: Arc<Transfer>,
    pub(crate) selection: Arc<Selection>,
    pub(crate) inlet: Arc<Inlet>,
    pub(crate) connection: Arc<Connection>,
}

/// Why a stage ends before its input does. What is to be known stands in the
/// transfer.
struct Stopped;

impl Receiving {
    /// Receives everything and returns when all is durable, or passed on, or when the
    /// transfer was stopped and has left nothing behind but what a later attempt can use.
    /// Blocks.
    pub(crate) fn run(&self, place: Place, feeds: Feeds) -> Result<Summary, TransferError> {
        match place {
            Place::Folder(store) => {
                let outcome = self.run_in(*store, feeds);
                outcome.map_err(|error| match self.manifest().is_stream() {
                    true => self.broken(Streamed::Removed, error),
                    false => error,
                })
            }
            Place::Pipe(output) => {
                let outcome = self.run_into(output, feeds);
                outcome.map_err(|error| self.broken(Streamed::PassedOn, error))
            }
        }
    }

    /// What a transfer ends with that cannot go on from where it was.
    fn broken(&self, streamed: Streamed, reason: TransferError) -> TransferError {
        TransferError::Broken {
            arrived_bytes: self.transfer.arrived_bytes(),
            streamed,
            reason: Box::new(reason),
        }
    }

    fn run_in(&self, mut store: Store, feeds: Feeds) -> Result<Summary, TransferError> {
        let received = self.receive(&store, feeds);
        if let Some(reason) = self.transfer.control.stopped() {
            return Err(reason.clone());
        }
        let Ok(summary) = received else {
            return Err(TransferError::ConnectionLost);
        };
        let renamed = store.renamed();
        let skipped = store.skipped().to_vec();
        match store.finish() {
            Ok((folder, paths)) => {
                self.acknowledge(self.manifest().count());
                Ok(Summary {
                    digest: self.transfer.digests.digest(),
                    folder: Some(folder),
                    paths,
                    renamed,
                    skipped,
                    here_bytes: self.transfer.progress.here_bytes(),
                    resent_bytes: self.transfer.progress.resent_bytes(),
                    ..summary
                })
            }
            Err(error) => Err(self.disk_failed(&store, &error)),
        }
    }

    fn receive(&self, store: &Store, feeds: Feeds) -> Result<Summary, Stopped> {
        let Feeds {
            held,
            work,
            digests,
        } = feeds;
        let comparisons = &Comparisons::default();
        let (written, to_commit) = std_mpsc::sync_channel(WRITTEN);
        std::thread::scope(|scope| {
            let thread = |name: &str| Builder::new().name(format!("pinhole-{name}"));
            let (to_verify, hashed) = std_mpsc::sync_channel(HASHED);
            let hashing =
                thread("hash").spawn_scoped(scope, move || self.hash(held, work, &to_verify));
            let piping = hashing.and_then(|_| {
                let verified = self.verify(hashed.into_iter(), comparisons);
                let writing = WriteStage::new(self, store, written);
                thread("write").spawn_scoped(scope, move || writing.run(verified))
            });
            let comparing = thread("compare")
                .spawn_scoped(scope, move || self.compare(store, digests, comparisons));
            if let Err(error) = piping.and(comparing) {
                self.disk_failed(store, &error);
            }
            // Moved in here, so that a writing stage that waits for room ends
            // with it.
            let to_commit = to_commit;
            self.commit(store, &to_commit)
        })
    }

    fn manifest(&self) -> &Manifest {
        self.selection.manifest()
    }

    fn check_stopped(&self) -> Result<(), Stopped> {
        match self.transfer.control.drops_data() {
            true => Err(Stopped),
            false => Ok(()),
        }
    }

    fn hash(
        &self,
        held: Vec<Work>,
        mut work: mpsc::Receiver<Work>,
        hashed: &std_mpsc::SyncSender<Hashed>,
    ) -> Option<()> {
        let coming = std::iter::from_fn(|| work.blocking_recv());
        for work in held.into_iter().chain(coming) {
            self.check_stopped().ok()?;
            if let Some(work) = self.wanted(work) {
                hashed.send(hash(work)).ok()?;
            }
        }
        Some(())
    }

    /// Without what came along although it is not wanted.
    fn wanted(&self, mut work: Work) -> Option<Work> {
        let skipped = self.selection.skipped();
        match &mut work {
            Work::Batch(batch) => batch.items.retain(|item| !skipped.contains(&item.entry)),
            Work::Failed { entry, .. } if skipped.contains(entry) => return None,
            Work::Chunk(_) | Work::End { .. } | Work::Failed { .. } => {}
        }
        Some(work)
    }

    /// What may be written, in its order. Ends where something may not.
    fn verify(
        &self,
        mut hashed: impl Iterator<Item = Hashed>,
        comparisons: &Comparisons,
    ) -> impl Iterator<Item = Verified> {
        // Over the chunks that were not here.
        let mut tree: Option<Tree> = None;
        std::iter::from_fn(move || {
            let hashed = hashed.next()?;
            self.check_stopped().ok()?;
            self.verify_piece(hashed, &mut tree, comparisons).ok()
        })
    }

    fn verify_piece(
        &self,
        (work, is_genuine): Hashed,
        tree: &mut Option<Tree>,
        comparisons: &Comparisons,
    ) -> Result<Verified, Stopped> {
        if !is_genuine {
            return Err(self.not_genuine());
        }
        Ok(match work {
            Work::Chunk(chunk) => {
                let index = chunk.place.index();
                match comparisons.expected(chunk.entry, index) {
                    Some(expected) if expected == chunk.digest => {}
                    Some(_) => return Err(self.not_genuine()),
                    None => {
                        let tree = tree.get_or_insert_with(|| Tree::starting_at(index));
                        tree.push(chunk.digest);
                        if chunk.place.begins_stream() {
                            let data = chunk.buffer.data().get(..chunk.place.length_bytes());
                            tree.set_only(Digest::of_file(data.unwrap_or_default()));
                        }
                    }
                }
                Verified::Chunk(chunk)
            }
            Work::Batch(batch) => {
                for item in &batch.items {
                    self.transfer.digests.add_root(item.entry, item.digest);
                }
                Verified::Batch(batch)
            }
            Work::End { entry, root, .. } => {
                let mut whole = comparisons.take(entry);
                whole.append(tree.take().unwrap_or_default());
                if whole.root() != root {
                    return Err(self.not_genuine());
                }
                self.transfer.digests.add_root(entry, root);
                match self.transfer.resume.differs(self.manifest(), entry, root) {
                    true => Verified::Changed { entry },
                    false => Verified::End { entry },
                }
            }
            Work::Failed { entry, trouble } => {
                *tree = None;
                comparisons.take(entry);
                let error = FileError::Peer(trouble);
                Verified::Failed { entry, error }
            }
        })
    }

    fn not_genuine(&self) -> Stopped {
        let reason = TransferError::Verification(Party::Us);
        self.inlet.stop(reason);
        self.cancel(CancelReason::Verification);
        Stopped
    }

    fn path(&self, entry: EntryIndex) -> io::Result<&SafePath> {
        let entry = self.manifest().entry(entry);
        entry
            .map(Entry::path)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// This disk does not take the file: the file fails, or all do.
    fn file_failed(
        &self,
        store: &Store,
        entry: EntryIndex,
        error: io::Error,
    ) -> Result<(), Stopped> {
        store.note_failed_file();
        if store.trouble(&error).is_of_the_disk() || self.manifest().is_stream() {
            self.disk_failed(store, &error);
            return Err(Stopped);
        }
        self.refuse(entry, store.file_error(error));
        Ok(())
    }

    /// This side does not take a file. The rest goes on.
    fn refuse(&self, entry: EntryIndex, error: FileError) {
        self.connection.say(Message::FileFailed {
            transfer: self.transfer.id,
            entry,
            trouble: error.trouble(),
        });
        self.tell_failed(entry, error);
    }

    fn tell_failed(&self, entry: EntryIndex, error: FileError) {
        self.transfer.digests.add_failed(entry);
        if let Ok(path) = self.path(entry) {
            let event = ExchangeEvent::FileFailed {
                id: self.transfer.id,
                path: path.clone(),
                error,
            };
            self.connection.emit_blocking(event);
        }
    }

    /// Nothing more can be received. Returns what the transfer ends with.
    fn disk_failed(&self, store: &Store, error: &io::Error) -> TransferError {
        let trouble = store.trouble(error);
        let reason = TransferError::LocalFile {
            path: store.display_path(),
            trouble,
            detail: FileErrorKind::detail_of(error),
        };
        self.place_failed(reason.clone());
        reason
    }

    /// What comes cannot be put where it should go.
    fn place_failed(&self, reason: TransferError) {
        if let TransferError::LocalFile { trouble, .. } = reason {
            self.inlet.stop(reason);
            self.say_arrived();
            self.cancel(CancelReason::Disk(trouble));
        }
    }

    /// Tells the sender of a stream how much of it has arrived.
    fn say_arrived(&self) {
        if self.manifest().is_stream() {
            self.connection.say(Message::Arrived {
                transfer: self.transfer.id,
                size_bytes: self.transfer.arrived_bytes(),
            });
        }
    }

    fn cancel(&self, reason: CancelReason) {
        let transfer = self.transfer.id;
        self.connection.say(Message::Cancel { transfer, reason });
    }

    fn acknowledge(&self, entries: u32) {
        let transfer = self.transfer.id;
        self.connection.say(Message::Durable { transfer, entries });
    }
}

fn hash(work: Work) -> Hashed {
    let is_genuine = match &work {
        Work::Chunk(Chunk {
            place,
            digest,
            buffer,
            ..
        }) => {
            let data = buffer.data().get(..place.length_bytes());
            data.is_some_and(|data| Digest::of_chunk(*place, data) == *digest)
        }
        Work::Batch(Batch { items, buffer }) => items.iter().all(|item| {
            let data = buffer.data().get(item.data.clone());
            data.is_some_and(|data| Digest::of_file(data) == item.digest)
        }),
        Work::End { .. } | Work::Failed { .. } => true,
    };
    (work, is_genuine)
}
