//! The thread that reads: files in their order, each in the way that it travels, hashed
//! and framed.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use super::queue::Piece;
use super::{Outgoing, Stopped, Unread};
use crate::connection::Frame;
use crate::connection::buffer::{Buffer, DATA_BYTES};
use crate::disk::digest_cache::Chunks;
use crate::disk::system;
use crate::progress::Paused;
use crate::protocol::chunking::{ChunkPlace, Chunking};
use crate::protocol::digest::{Digest, Tree};
use crate::protocol::file_error::{FileError, FileErrorKind};
use crate::protocol::frame::{self, BATCH_ITEM_BYTES, BatchItem, ChunkHeader};
use crate::protocol::index::{ChunkIndex, EntryIndex};
use crate::send::source::SourceReader;

/// In one batch. Of the smallest files a frame would hold 26,000, and both sides
/// keep a list of those in each that is under way.
const BATCH_FILES_MAX: usize = 4096;
/// How much of a huge file is dropped from the cache at once.
const FORGET_BYTES: u64 = 64 * 1024 * 1024;

/// Where it is: the folder that is open, and small files that wait for others.
pub(super) struct Reading<'a> {
    pub(super) outgoing: &'a Outgoing,
    pub(super) reader: SourceReader,
    batch: Option<Batch>,
    /// Takes what was read, and waits for room.
    pub(super) put: &'a mut dyn FnMut(Piece) -> Result<(), Stopped>,
}

/// A file that travels in chunks.
pub(super) struct OpenFile {
    pub(super) entry: EntryIndex,
    pub(super) lengths: Chunking,
    pub(super) file: File,
    /// What its chunks are known to be.
    known: Arc<Chunks>,
}

/// Small files back to back, as on the wire but for their digests.
struct Batch {
    buffer: Buffer,
    used_bytes: usize,
    /// Each file's place and where its data lies.
    files: Vec<(EntryIndex, Range<usize>)>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(
        outgoing: &'a Outgoing,
        put: &'a mut dyn FnMut(Piece) -> Result<(), Stopped>,
    ) -> Self {
        Self {
            outgoing,
            reader: SourceReader::new(Arc::clone(&outgoing.source)),
            batch: None,
            put,
        }
    }

    /// Waits while anybody wants this side to stop. What was read before does
    /// not wait.
    pub(super) fn check_pause(&mut self) -> Result<(), Stopped> {
        let control = &self.outgoing.transfer.control;
        if control.paused() != Paused::default() {
            self.flush()?;
            control.wait_while_paused();
        }
        self.outgoing.check_stopped()
    }

    /// Reads a file that travels in a batch.
    pub(super) fn read_small(&mut self, entry: EntryIndex) -> Result<(), Stopped> {
        let offered = self.outgoing.source.manifest().entry(entry);
        let size = offered.and_then(|entry| usize::try_from(entry.file_size_bytes()?).ok());
        let size = size.ok_or(Stopped)?;
        if !self.batch.as_ref().is_none_or(|batch| batch.has_room(size)) {
            self.flush()?;
        }
        let mut batch = match self.batch.take() {
            Some(batch) => batch,
            None => Batch::new(self.outgoing.buffer()?),
        };
        let read = batch.read(&mut self.reader, entry, size);
        self.batch = Some(batch);
        match read {
            Ok(()) => Ok(()),
            Err(error) => {
                self.flush()?;
                (self.put)(Piece::Failed { entry, error })
            }
        }
    }

    /// Hands on the small files that were read.
    pub(super) fn flush(&mut self) -> Result<(), Stopped> {
        match self.batch.take().filter(|batch| !batch.files.is_empty()) {
            Some(batch) => {
                let piece = batch.framed(self.outgoing).ok_or(Stopped)?;
                (self.put)(piece)
            }
            None => Ok(()),
        }
    }

    /// All of a file was read that is to travel in chunks, or as much as could be.
    pub(super) fn end(
        &mut self,
        entry: EntryIndex,
        read: Result<Tree, Unread>,
    ) -> Result<(), Stopped> {
        match read {
            Ok(tree) => (self.put)(Piece::End { entry, tree }),
            Err(Unread::Failed(error)) => (self.put)(Piece::Failed { entry, error }),
            Err(Unread::Stopped) => Err(Stopped),
        }
    }

    /// From the chunk `first` on.
    pub(super) fn read_chunks(
        &mut self,
        entry: EntryIndex,
        first: ChunkIndex,
    ) -> Result<OpenFile, Unread> {
        let open = self.open(entry)?;
        for place in open.lengths.places_from(first) {
            self.check_wanted(entry)?;
            let buffer = self.fill(&open, place)?;
            let end_bytes = place.offset_bytes() + place.length_bytes() as u64;
            if end_bytes.is_multiple_of(FORGET_BYTES) {
                let (start_bytes, size_bytes) =
                    (end_bytes - FORGET_BYTES, open.lengths.size_bytes());
                system::forget(&open.file, size_bytes, start_bytes, FORGET_BYTES);
            }
            self.send_chunk(&open, place, buffer)?;
        }
        Ok(open)
    }

    pub(super) fn open(&mut self, entry: EntryIndex) -> Result<OpenFile, Unread> {
        let lengths = self.outgoing.source.manifest().lengths(entry);
        let file = self.reader.open(entry)?;
        Ok(OpenFile {
            entry,
            lengths: lengths.ok_or(Unread::Stopped)?,
            known: self.outgoing.connection.resources.known.recall(&file),
            file,
        })
    }

    /// Before each chunk of a file.
    pub(super) fn check_wanted(&mut self, entry: EntryIndex) -> Result<(), Unread> {
        self.check_pause()?;
        match self.outgoing.is_unwanted(entry) {
            true => Err(FileError::Peer(FileErrorKind::Io).into()),
            false => Ok(()),
        }
    }

    pub(super) fn fill(&self, open: &OpenFile, place: ChunkPlace) -> Result<Buffer, Unread> {
        let mut buffer = self.outgoing.buffer()?;
        let room = buffer.data_mut().get_mut(..place.length_bytes());
        let room = room.ok_or(Unread::Stopped)?;
        let offset_bytes = place.offset_bytes();
        self.reader
            .read(open.entry, &open.file, room, offset_bytes)?;
        Ok(buffer)
    }

    pub(super) fn check_read(&self, open: &OpenFile) -> Result<(), Unread> {
        Ok(self.reader.check_read(open.entry, &open.file)?)
    }

    pub(super) fn send_chunk(
        &mut self,
        open: &OpenFile,
        place: ChunkPlace,
        mut buffer: Buffer,
    ) -> Result<(), Stopped> {
        let data_bytes = place.length_bytes();
        let data = buffer.data().get(..data_bytes).ok_or(Stopped)?;
        let digest = Digest::of_chunk(place, data);
        open.known.set(place.index(), digest);
        let header = ChunkHeader {
            transfer: self.outgoing.transfer.id,
            entry: open.entry,
            index: place.index(),
            digest,
        };
        let header = header.encode(data_bytes).ok_or(Stopped)?;
        buffer.put_header(&header);
        (self.put)(Piece::Chunk {
            entry: open.entry,
            index: place.index(),
            digest,
            frame: Frame::Data {
                buffer,
                header_bytes: header.len(),
                data_bytes,
            },
        })
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
        entry: EntryIndex,
        size: usize,
    ) -> Result<(), FileError> {
        let file = reader.open(entry)?;
        let start = self.used_bytes + BATCH_ITEM_BYTES;
        let data = start..start + size;
        let room = self.buffer.data_mut().get_mut(data.clone());
        reader.read(entry, &file, room.unwrap_or_default(), 0)?;
        reader.check_read(entry, &file)?;
        self.used_bytes = data.end;
        self.files.push((entry, data));
        Ok(())
    }

    /// With the headers of all files and its own; `None` where they do not fit.
    fn framed(self, outgoing: &Outgoing) -> Option<Piece> {
        let Self {
            mut buffer,
            used_bytes,
            files,
        } = self;
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
        let header = frame::encode_batch_header(outgoing.transfer.id, used_bytes)?;
        buffer.put_header(&header);
        Some(Piece::Batch {
            files: roots,
            frame: Frame::Data {
                buffer,
                header_bytes: header.len(),
                data_bytes: used_bytes,
            },
            file_bytes,
        })
    }
}
