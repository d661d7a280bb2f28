//! The first chunk of an offer, which goes ahead of the answer to it, and the
//! rest of its file once the answer is known.

use std::{fs::File, sync::Arc};

use tokio::sync::oneshot;

use super::{Framed, Outgoing, Piece, read_whole};
use crate::{
    event::FileError,
    known::Chunks,
    lanes::Entrance,
    lengths::ChunkPlace,
    link::Frame,
    merkle::{Digest, Tree},
    message::Message,
    source::SourceReader,
};

/// What sends it, and whom it tells.
pub(crate) type Forerun = (Outgoing, oneshot::Sender<Ahead>);

/// What has gone ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ahead {
    /// The first chunk, which has this digest.
    Chunk(Digest),
    /// That the file cannot be read.
    Failure,
}

impl Outgoing {
    /// What is to go ahead, as a frame and as what is remembered of it. `None`
    /// when there is nothing to be sent. Blocks.
    pub(crate) fn read_ahead(&self) -> Option<(Frame, Result<(Digest, u64), FileError>)> {
        let entry = self.source.manifest().next_file(0);
        let place = self.source.manifest().lengths(entry)?.place(0)?;
        let mut buffer = self.buffer()?;
        if self.flight.stopped().is_some() {
            return None;
        }
        let room = buffer.data_mut().get_mut(..place.length_bytes())?;
        match self.read_first(entry, place, room) {
            Ok((_file, known)) => match self.frame_chunk(entry, place, buffer, &known)? {
                Framed::Chunk {
                    frame,
                    digest,
                    file_bytes,
                    ..
                } => Some((frame, Ok((digest, file_bytes as u64)))),
                _ => None,
            },
            Err(error) => {
                let failed = Message::FileFailed {
                    transfer: self.flight.id,
                    entry,
                    trouble: error.trouble(),
                };
                let frame = Frame::Message(crate::frame::encode_message(&failed).ok()?);
                Some((frame, Err(error)))
            }
        }
    }

    fn read_first(
        &self,
        entry: u32,
        place: ChunkPlace,
        room: &mut [u8],
    ) -> Result<(File, Arc<Chunks>), FileError> {
        let file = SourceReader::new(Arc::clone(&self.source)).open(entry)?;
        read_whole(&file, room, place.offset_bytes())?;
        let known = self.link.resources.known.recall(&file);
        Ok((file, known))
    }

    /// Reads on behind what has gone ahead. Returns where the files go on. `None`
    /// when the transfer was stopped.
    pub(super) fn read_behind(
        &self,
        reader: &mut SourceReader,
        pieces: &Entrance<'_, Piece>,
    ) -> Option<u32> {
        let manifest = self.source.manifest();
        let entry = manifest.next_file(0);
        match self.ahead {
            None => return Some(entry),
            Some(Ahead::Failure) => {}
            Some(Ahead::Chunk(digest)) => {
                self.check_pause(pieces, &mut None)?;
                let lengths = manifest.lengths(entry)?;
                // A receiver that has given it up must hear of an end all the same.
                let read = self.read_chunks(reader, entry, lengths, 1, pieces)?;
                let mut tree = Tree::default();
                tree.push(digest);
                let piece = match read.and_then(|(file, _)| reader.check_unchanged(entry, &file)) {
                    Ok(()) => Piece::End { entry, tree },
                    Err(error) => Piece::Failed { entry, error },
                };
                pieces.send(piece)?;
            }
        }
        Some(manifest.next_file(entry + 1))
    }
}
