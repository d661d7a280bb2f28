//! The sending pipeline of one transfer: a thread that reads and hashes (`read`), one
//! that queues frames (`queue`), and the connection's writer behind them. None waits for
//! another but through a full queue.

mod early;
mod queue;
mod read;
mod resume;
pub(crate) mod source;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, mpsc};
use std::thread::Builder;

use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

pub(crate) use self::early::{Begun, EarlyJob};
use self::queue::Queue;
use self::read::Reading;
pub(crate) use self::resume::Answer;
use self::resume::Waiting;
use crate::connection::buffer::Buffer;
use crate::connection::{Bulk, Connection, Frame};
use crate::protocol::digest::Tree;
use crate::protocol::early::EarlyData;
use crate::protocol::file_error::FileError;
use crate::protocol::index::{ChunkIndex, EntryIndex};
use crate::send::source::Source;
use crate::transfer::Transfer;

/// Frames that wait to be queued.
const FRAMES: usize = 2;
/// Files up to this size travel in batches.
const SMALL_FILE_BYTES: u64 = 128 * 1024;

/// What becomes of files on their way, as the queueing thread tells it.
pub(crate) enum Sent {
    /// Everything of this file is in the queue.
    File(EntryIndex),
    /// This file could not be read.
    Failed(EntryIndex, FileError),
    /// As `Failed`, of what travels before the answer.
    FailedEarly(EntryIndex, FileError),
    /// So much more of a stream is about to be queued.
    Streamed(u64),
    /// The stream could not be read to its end.
    Broken(FileError),
}

/// Nothing more is sent: the transfer was stopped, or the connection takes no more.
/// The first to stop it has said why.
#[derive(Debug)]
struct Stopped;

/// Why a file is not read to its end.
#[derive(Debug)]
enum Unread {
    Stopped,
    /// Only this file is not sent.
    Failed(FileError),
}

impl From<Stopped> for Unread {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<FileError> for Unread {
    fn from(error: FileError) -> Self {
        Self::Failed(error)
    }
}

/// What all threads know.
pub(crate) struct Outgoing {
    pub(crate) transfer: Arc<Transfer>,
    pub(crate) source: Arc<Source>,
    pub(crate) connection: Arc<Connection>,
    /// Files the receiver does not want, or gave up.
    pub(crate) unwanted: Arc<Mutex<BTreeSet<EntryIndex>>>,
    /// How many chunks, from the first, the receiver has of which files.
    pub(crate) have: BTreeMap<EntryIndex, u32>,
    /// What of them travels before the answer.
    pub(crate) early: EarlyData,
    /// The file that goes on behind its first chunk, which travels before the answer.
    pub(crate) goes_on_behind: Option<EntryIndex>,
}

/// What sends the files of an offer that was accepted, and how it hears of what the
/// receiver has compared.
pub(crate) struct SendJob {
    pub(crate) outgoing: Outgoing,
    pub(crate) answers: UnboundedReceiver<Answer>,
    /// Tells that the early data is sent, where there is any.
    pub(crate) early: Option<oneshot::Receiver<Begun>>,
}

impl Outgoing {
    /// Sends every wanted file and returns when all is queued or the transfer
    /// was stopped. Blocks. `tell` hears of each file before the receiver can.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn run(
        &self,
        begun: Begun,
        answers: UnboundedReceiver<Answer>,
        tell: impl FnMut(Sent) + Send,
    ) -> io::Result<()> {
        let (digested, digests) = mpsc::channel();
        let (beginning, has_begun) = mpsc::channel();
        let waiting = Waiting::new(digests, has_begun, answers);
        std::thread::scope(|scope| {
            let reading = Builder::new().name("pinhole-read".to_owned());
            // All end early when another does.
            if !self.have.is_empty() {
                let digesting = Builder::new().name("pinhole-digest".to_owned());
                digesting.spawn_scoped(scope, move || self.digest(&digested, beginning))?;
            } else {
                drop(beginning);
            }
            let (to_queue, pieces) = mpsc::sync_channel(FRAMES);
            reading.spawn_scoped(scope, move || {
                let mut put = |piece| to_queue.send(piece).map_err(|_| Stopped);
                Reading::new(self, &mut put).read(begun, waiting)
            })?;
            let mut queue = Queue::new(self, tell);
            // Also ends when the connection takes no more.
            let _ = pieces.iter().try_for_each(|piece| queue.put(piece));
            Ok(())
        })
    }

    fn is_unwanted(&self, entry: EntryIndex) -> bool {
        self.unwanted.lock().contains(&entry)
    }

    fn check_stopped(&self) -> Result<(), Stopped> {
        match self.transfer.is_stopped() {
            true => Err(Stopped),
            false => Ok(()),
        }
    }

    fn buffer(&self) -> Result<Buffer, Stopped> {
        let buffer = self.connection.send_buffers.lock().take_blocking();
        buffer.ok_or(Stopped)
    }

    /// Waits for the connection.
    fn queue(&self, frame: Frame, file_bytes: usize, is_early: bool) -> Result<(), Stopped> {
        let bulk = Bulk {
            transfer: Arc::clone(&self.transfer),
            frame,
            file_bytes: file_bytes as u64,
            is_early,
        };
        let queued = self.connection.bulk.blocking_send(bulk);
        queued.map_err(|_| Stopped)
    }
}

impl Reading<'_> {
    /// Reads every wanted file but for the early data.
    fn read(&mut self, begun: Begun, mut waiting: Waiting) -> Result<(), Stopped> {
        let manifest = self.outgoing.source.manifest();
        if manifest.is_stream() {
            return self.read_stream();
        }
        let mut entry = self.read_behind(begun)?;
        while let Some(lengths) = manifest.lengths(entry) {
            self.check_pause()?;
            let have = self.outgoing.have.get(&entry);
            if self.outgoing.is_unwanted(entry) {
                // Neither read nor mentioned.
            } else if let Some(&have) = have {
                self.flush()?;
                let read = self.read_missing(entry, have, &mut waiting);
                self.end(entry, read)?;
            } else if lengths.size_bytes() <= SMALL_FILE_BYTES {
                self.read_small(entry)?;
            } else {
                self.flush()?;
                let read = self.read_chunks(entry, ChunkIndex::FIRST);
                let read = read.and_then(|open| self.check_read(&open));
                self.end(entry, read.map(|()| Tree::default()))?;
            }
            entry = manifest.next_file(entry.next());
        }
        self.flush()
    }
}
