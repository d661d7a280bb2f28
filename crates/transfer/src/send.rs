//! The sending pipeline of one transfer: a thread that reads and hashes, one that
//! queues frames, and the connection's writer behind them. None waits for another but
//! through a full queue.

mod early;
mod resume;
pub(crate) mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Arc, mpsc};
use std::thread::Builder;

pub(crate) use self::early::{Begun, EarlyJob};
pub(crate) use self::resume::Answer;
use self::resume::Waiting;
use crate::connection::buffer::{Buffer, DATA_BYTES};
use crate::connection::{Bulk, Connection, Frame};
use crate::disk::digest_cache::Chunks;
use crate::disk::system;
use crate::progress::Paused;
use crate::protocol::chunking::{ChunkPlace, Chunking};
use crate::protocol::digest::{Digest, Tree};
use crate::protocol::early::EarlyData;
use crate::protocol::file_error::{FileError, FileErrorKind};
use crate::protocol::frame;
use crate::protocol::frame::{BATCH_ITEM_BYTES, BatchItem, ChunkHeader};
use crate::protocol::message::Message;
use crate::send::source::{Source, SourceReader};
use crate::transfer::Transfer;
use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

/// In one batch. Of the smallest files a frame would hold 26,000, and both sides
/// keep a list of those in each that is under way.
const BATCH_FILES_MAX: usize = 4096;
/// Files up to this size travel in batches.
const SMALL_FILE_BYTES: u64 = 128 * 1024;
/// Frames that wait to be queued.
const FRAMES: usize = 2;
/// Of a huge file so much is forgotten at once.
const FORGET_BYTES: u64 = 64 * 1024 * 1024;

/// What the reading thread hands on.
enum Piece {
    Chunk {
        entry: u32,
        place: ChunkPlace,
        buffer: Buffer,
        known: Arc<Chunks>,
    },
    Batch(Batch),
    End {
        entry: u32,
        /// Over the chunks that the receiver had.
        tree: Tree,
    },
    Failed {
        entry: u32,
        error: FileError,
    },
}

/// Small files back to back, as on the wire but for their digests.
struct Batch {
    buffer: Buffer,
    used_bytes: usize,
    /// Each file's number and where its data lies.
    files: Vec<(u32, Range<usize>)>,
}

/// A [`Piece`], hashed.
enum Framed {
    Chunk {
        entry: u32,
        index: u32,
        digest: Digest,
        frame: Frame,
        file_bytes: usize,
    },
    Batch {
        /// Each file's number and root.
        files: Vec<(u32, Digest)>,
        frame: Frame,
        file_bytes: usize,
    },
    End {
        entry: u32,
        tree: Tree,
    },
    Failed {
        entry: u32,
        error: FileError,
    },
}

/// What becomes of files on their way, as the queueing thread tells it.
pub(crate) enum Sent {
    /// Everything of this file is in the queue.
    File(u32),
    /// This file could not be read.
    Failed(u32, FileError),
    /// As `Failed`, of what travels before the answer.
    FailedEarly(u32, FileError),
}

/// What all threads know.
pub(crate) struct Outgoing {
    pub(crate) transfer: Arc<Transfer>,
    pub(crate) source: Arc<Source>,
    pub(crate) connection: Arc<Connection>,
    /// Files the receiver does not want, or gave up.
    pub(crate) unwanted: Arc<Mutex<BTreeSet<u32>>>,
    /// How many chunks, from the first, the receiver has of which files.
    pub(crate) have: BTreeMap<u32, u32>,
    /// What of them travels before the answer.
    pub(crate) early: EarlyData,
    /// The file that goes on behind its first chunk, which travels before the answer.
    pub(crate) goes_on_behind: Option<u32>,
}

/// What sends the files of an offer that was accepted, and how it hears of what the
/// receiver has compared.
pub(crate) struct SendJob {
    pub(crate) outgoing: Outgoing,
    pub(crate) answers: UnboundedReceiver<Answer>,
    /// Tells that the early data is sent, where there is any.
    pub(crate) early: Option<oneshot::Receiver<Begun>>,
}

/// Where what was read goes to be hashed and framed, on the thread that has read it.
struct Pieces<'a> {
    outgoing: &'a Outgoing,
    put: &'a mut dyn FnMut(Framed) -> Option<()>,
}

impl Pieces<'_> {
    /// Waits for room. `None` when nothing more is queued.
    fn send(&mut self, piece: Piece) -> Option<()> {
        (self.put)(self.outgoing.frame(piece)?)
    }
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
            // All end early when another does, and whoever was first has said
            // why.
            if !self.have.is_empty() {
                let digesting = Builder::new().name("pinhole-digest".to_owned());
                digesting.spawn_scoped(scope, move || self.digest(&digested, beginning))?;
            } else {
                drop(beginning);
            }
            let (to_queue, framed) = mpsc::sync_channel(FRAMES);
            reading.spawn_scoped(scope, move || {
                let mut put = |framed| to_queue.send(framed).ok();
                let mut pieces = Pieces {
                    outgoing: self,
                    put: &mut put,
                };
                self.read(begun, &mut pieces, waiting)
            })?;
            let mut queue = Queue::new(self, false, tell);
            // Ends when everything is queued, or the connection takes no more.
            let _ = framed.iter().try_for_each(|framed| queue.put(framed));
            Ok(())
        })
    }

    fn is_unwanted(&self, entry: u32) -> bool {
        self.unwanted.lock().contains(&entry)
    }

    fn read(&self, begun: Begun, pieces: &mut Pieces<'_>, mut waiting: Waiting) -> Option<()> {
        let manifest = self.source.manifest();
        let mut reader = SourceReader::new(Arc::clone(&self.source));
        let mut batch: Option<Batch> = None;
        let mut entry = self.read_behind(begun, &mut reader, pieces)?;
        while let Some(lengths) = manifest.lengths(entry) {
            self.check_pause(pieces, &mut batch)?;
            let size_bytes = manifest.entry(entry)?.file_size_bytes()?;
            if self.is_unwanted(entry) {
                // Neither read nor mentioned.
            } else if let Some(&have) = self.have.get(&entry) {
                self.hand_on(pieces, batch.take())?;
                let piece =
                    match self.read_missing(&mut reader, entry, have, &mut waiting, pieces)? {
                        Ok(tree) => Piece::End { entry, tree },
                        Err(error) => Piece::Failed { entry, error },
                    };
                pieces.send(piece)?;
            } else if size_bytes <= SMALL_FILE_BYTES {
                self.read_small(&mut reader, entry, &mut batch, pieces)?;
            } else {
                self.hand_on(pieces, batch.take())?;
                let read = self.read_chunks(&mut reader, entry, lengths, 0, pieces)?;
                pieces.send(self.ended(&reader, entry, Tree::default(), read))?;
            }
            entry = manifest.next_file(entry + 1);
        }
        self.hand_on(pieces, batch)
    }

    /// Reads a file that travels in a batch.
    fn read_small(
        &self,
        reader: &mut SourceReader,
        entry: u32,
        batch: &mut Option<Batch>,
        pieces: &mut Pieces<'_>,
    ) -> Option<()> {
        let size_bytes = self.source.manifest().entry(entry)?.file_size_bytes()?;
        let size = usize::try_from(size_bytes).ok()?;
        if let Some(full) = batch.take_if(|batch| !batch.has_room(size)) {
            pieces.send(Piece::Batch(full))?;
        }
        if batch.is_none() {
            *batch = Some(Batch::new(self.buffer()?));
        }
        if let Err(error) = batch.as_mut()?.read(reader, entry, size) {
            self.hand_on(pieces, batch.take())?;
            pieces.send(Piece::Failed { entry, error })?;
        }
        Some(())
    }

    /// All of a file was read that is to travel in chunks, or as much as could be.
    fn ended(
        &self,
        reader: &SourceReader,
        entry: u32,
        tree: Tree,
        read: Result<(File, Arc<Chunks>), FileError>,
    ) -> Piece {
        match read.and_then(|(file, _)| reader.check_read(entry, &file)) {
            Ok(()) => Piece::End { entry, tree },
            Err(error) => Piece::Failed { entry, error },
        }
    }

    /// Waits while anybody wants this side to stop. What was read before does
    /// not wait. `None` when the transfer was stopped.
    fn check_pause(&self, pieces: &mut Pieces<'_>, batch: &mut Option<Batch>) -> Option<()> {
        if self.transfer.control.paused() != Paused::default() {
            self.hand_on(pieces, batch.take())?;
            self.transfer.control.wait_while_paused();
        }
        (!self.transfer.is_stopped()).then_some(())
    }

    fn hand_on(&self, pieces: &mut Pieces<'_>, batch: Option<Batch>) -> Option<()> {
        match batch.filter(|batch| !batch.files.is_empty()) {
            Some(batch) => pieces.send(Piece::Batch(batch)),
            None => Some(()),
        }
    }

    /// From the chunk `first` on. Returns the file, and what is known of it. `None`
    /// when the transfer was stopped.
    fn read_chunks(
        &self,
        reader: &mut SourceReader,
        entry: u32,
        lengths: Chunking,
        first: u32,
        pieces: &mut Pieces<'_>,
    ) -> Option<Result<(File, Arc<Chunks>), FileError>> {
        let file = match reader.open(entry) {
            Ok(file) => file,
            Err(error) => return Some(Err(error)),
        };
        let known = self.connection.resources.known.recall(&file);
        for place in lengths.places_from(first) {
            self.check_pause(pieces, &mut None)?;
            if self.is_unwanted(entry) {
                return Some(Err(FileError::Peer(FileErrorKind::Io)));
            }
            let mut buffer = self.buffer()?;
            let room = buffer.data_mut().get_mut(..place.length_bytes())?;
            if let Err(error) = reader.read(entry, &file, room, place.offset_bytes()) {
                return Some(Err(error));
            }
            let end_bytes = place.offset_bytes() + place.length_bytes() as u64;
            if end_bytes.is_multiple_of(FORGET_BYTES) {
                let start_bytes = end_bytes - FORGET_BYTES;
                system::forget(&file, lengths.size_bytes(), start_bytes, FORGET_BYTES);
            }
            pieces.send(Piece::Chunk {
                entry,
                place,
                buffer,
                known: Arc::clone(&known),
            })?;
        }
        Some(Ok((file, known)))
    }

    fn buffer(&self) -> Option<Buffer> {
        self.connection.send_buffers.lock().take_blocking()
    }

    /// Hashes and frames.
    fn frame(&self, piece: Piece) -> Option<Framed> {
        match piece {
            Piece::Chunk {
                entry,
                place,
                buffer,
                known,
            } => self.frame_chunk(entry, place, buffer, &known),
            Piece::Batch(batch) => self.frame_batch(batch),
            Piece::End { entry, tree } => Some(Framed::End { entry, tree }),
            Piece::Failed { entry, error } => Some(Framed::Failed { entry, error }),
        }
    }

    fn frame_chunk(
        &self,
        entry: u32,
        place: ChunkPlace,
        mut buffer: Buffer,
        known: &Chunks,
    ) -> Option<Framed> {
        let data_bytes = place.length_bytes();
        let digest = Digest::of_chunk(place, buffer.data().get(..data_bytes)?);
        known.set(place.index(), digest);
        let header = ChunkHeader {
            transfer: self.transfer.id,
            entry,
            index: place.index(),
            digest,
        };
        let header = header.encode(data_bytes)?;
        buffer.put_header(&header);
        Some(Framed::Chunk {
            entry,
            index: place.index(),
            digest,
            frame: Frame::Data {
                buffer,
                header_bytes: header.len(),
                data_bytes,
            },
            file_bytes: data_bytes,
        })
    }

    fn frame_batch(&self, batch: Batch) -> Option<Framed> {
        let Batch {
            mut buffer,
            used_bytes,
            files,
        } = batch;
        let mut roots = Vec::with_capacity(files.len());
        let mut file_bytes = 0;
        for (entry, data) in files {
            let length = data.len();
            let digest = Digest::of_file(buffer.data().get(data.clone())?);
            let header = BatchItem::encode_header(entry, u32::try_from(length).ok()?, digest);
            let room = data.start.checked_sub(BATCH_ITEM_BYTES)?..data.start;
            buffer.data_mut().get_mut(room)?.copy_from_slice(&header);
            file_bytes += length;
            roots.push((entry, digest));
        }
        let header = frame::encode_batch_header(self.transfer.id, used_bytes)?;
        buffer.put_header(&header);
        Some(Framed::Batch {
            files: roots,
            frame: Frame::Data {
                buffer,
                header_bytes: header.len(),
                data_bytes: used_bytes,
            },
            file_bytes,
        })
    }

    /// Waits for the connection. `None` when it takes no more.
    fn queue(&self, frame: Frame, file_bytes: usize, is_early: bool) -> Option<()> {
        let bulk = Bulk {
            transfer: Arc::clone(&self.transfer),
            frame,
            file_bytes: file_bytes as u64,
            is_early,
        };
        self.connection.bulk.blocking_send(bulk).ok()
    }
}

/// Queues frames for the connection, and keeps account of them.
struct Queue<'a, T> {
    outgoing: &'a Outgoing,
    is_early: bool,
    /// Hears of each file before the receiver can.
    tell: T,
    /// Over the chunks of the open file that the receiver did not have.
    tree: Option<Tree>,
}

impl<'a, T: FnMut(Sent)> Queue<'a, T> {
    const fn new(outgoing: &'a Outgoing, is_early: bool, tell: T) -> Self {
        Self {
            outgoing,
            is_early,
            tell,
            tree: None,
        }
    }

    /// `None` when the transfer was stopped, or the connection takes no more.
    fn put(&mut self, framed: Framed) -> Option<()> {
        let Outgoing { transfer, have, .. } = self.outgoing;
        if transfer.is_stopped() {
            return None;
        }
        match framed {
            Framed::Chunk {
                entry,
                index,
                digest,
                frame,
                file_bytes,
            } => {
                if have.get(&entry).is_none_or(|have| index >= *have) {
                    let tree = self.tree.get_or_insert_with(|| Tree::starting_at(index));
                    tree.push(digest);
                }
                self.queue(frame, file_bytes)
            }
            Framed::Batch {
                files,
                frame,
                file_bytes,
            } => {
                for (entry, root) in files {
                    transfer.digests.add_root(entry, root);
                    (self.tell)(Sent::File(entry));
                }
                // What travels whole before the answer counts once it is durable.
                let file_bytes = if self.is_early { 0 } else { file_bytes };
                self.queue(frame, file_bytes)
            }
            Framed::End {
                entry,
                tree: mut whole,
            } => {
                whole.append(self.tree.take().unwrap_or_default());
                let root = whole.root();
                transfer.digests.add_root(entry, root);
                (self.tell)(Sent::File(entry));
                self.say(&Message::FileEnd {
                    transfer: transfer.id,
                    entry,
                    root,
                })
            }
            Framed::Failed { entry, error } => {
                self.tree = None;
                let trouble = error.trouble();
                (self.tell)(match self.is_early {
                    true => Sent::FailedEarly(entry, error),
                    false => Sent::Failed(entry, error),
                });
                self.say(&Message::FileFailed {
                    transfer: transfer.id,
                    entry,
                    trouble,
                })
            }
        }
    }

    fn say(&self, message: &Message) -> Option<()> {
        self.queue(Frame::Message(frame::encode_message(message).ok()?), 0)
    }

    fn queue(&self, frame: Frame, file_bytes: usize) -> Option<()> {
        self.outgoing.queue(frame, file_bytes, self.is_early)
    }
}

impl Batch {
    const fn new(buffer: Buffer) -> Self {
        Self {
            buffer,
            used_bytes: 0,
            files: Vec::new(),
        }
    }

    const fn has_room(&self, size: usize) -> bool {
        self.files.len() < BATCH_FILES_MAX
            && self.used_bytes + BATCH_ITEM_BYTES + size <= DATA_BYTES
    }

    /// Adds a file of `size` bytes, for which there is room.
    fn read(
        &mut self,
        reader: &mut SourceReader,
        entry: u32,
        size: usize,
    ) -> Result<(), FileError> {
        let file = reader.open(entry)?;
        let start = self.used_bytes + BATCH_ITEM_BYTES;
        let data = start..start + size;
        let room = self
            .buffer
            .data_mut()
            .get_mut(data.clone())
            .unwrap_or_default();
        reader.read(entry, &file, room, 0)?;
        reader.check_read(entry, &file)?;
        self.used_bytes = data.end;
        self.files.push((entry, data));
        Ok(())
    }
}
