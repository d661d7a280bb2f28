//! The first chunk of an offer, which goes ahead of the answer to it, and the
//! rest of its file once the answer is known.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Framed, Outgoing, Piece, Pieces};
use crate::connection::Frame;
use crate::disk::digest_cache::Chunks;
use crate::protocol::chunking::ChunkPlace;
use crate::protocol::digest::{Digest, Tree};
use crate::protocol::file_error::FileError;
use crate::protocol::frame;
use crate::protocol::message::Message;
use crate::send::source::SourceReader;

/// What sends it, and whom it tells.
pub(crate) type EarlySend = (Outgoing, oneshot::Sender<Ahead>);

/// What has gone ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ahead {
    /// The first chunk, which has this digest.
    Chunk(Digest),
    /// That the file cannot be read.
    Failure,
}

/// What is about to go ahead.
pub(crate) struct First {
    pub(crate) frame: Frame,
    pub(crate) file_bytes: u64,
    pub(crate) outcome: Result<Digest, FileError>,
}

impl Outgoing {
    /// Reads the first chunk, or finds that it cannot. `None` when nothing is to be
    /// sent. Blocks.
    pub(crate) fn read_ahead(&self) -> Option<First> {
        let entry = self.source.manifest().next_file(0);
        let place = self.source.manifest().lengths(entry)?.place(0)?;
        let mut buffer = self.buffer()?;
        if self.transfer.is_stopped() {
            return None;
        }
        let room = buffer.data_mut().get_mut(..place.length_bytes())?;
        let known = match self.read_first(entry, place, room) {
            Ok(known) => known,
            Err(error) => {
                let failed = Message::FileFailed {
                    transfer: self.transfer.id,
                    entry,
                    trouble: error.trouble(),
                };
                return Some(First {
                    frame: Frame::Message(frame::encode_message(&failed).ok()?),
                    file_bytes: 0,
                    outcome: Err(error),
                });
            }
        };
        let Framed::Chunk { frame, digest, .. } = self.frame_chunk(entry, place, buffer, &known)?
        else {
            return None;
        };
        Some(First {
            frame,
            file_bytes: place.length_bytes() as u64,
            outcome: Ok(digest),
        })
    }

    fn read_first(
        &self,
        entry: u32,
        place: ChunkPlace,
        room: &mut [u8],
    ) -> Result<Arc<Chunks>, FileError> {
        let mut reader = SourceReader::new(Arc::clone(&self.source));
        let file = reader.open(entry)?;
        let known = self.connection.resources.known.recall(&file);
        reader.read(entry, &file, room, place.offset_bytes())?;
        Ok(known)
    }

    /// Reads on behind what has gone ahead. Returns where the files go on. `None`
    /// when the transfer was stopped.
    pub(super) fn read_behind(
        &self,
        reader: &mut SourceReader,
        pieces: &Pieces<'_>,
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
                let piece = match read.and_then(|(file, _)| reader.check_read(entry, &file)) {
                    Ok(()) => Piece::End { entry, tree },
                    Err(error) => Piece::Failed { entry, error },
                };
                pieces.send(piece)?;
            }
        }
        Some(manifest.next_file(entry + 1))
    }
}
