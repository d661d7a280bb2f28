//! A stream: read once, from its beginning to its end, however long that is.

use std::io::{self, Read};

use super::queue::Piece;
use super::read::Reading;
use super::{Stopped, Unread};
use crate::connection::Frame;
use crate::connection::buffer::{Buffer, DATA_BYTES};
use crate::protocol::chunking::ChunkPlace;
use crate::protocol::digest::Digest;
use crate::protocol::file_error::{FileError, FileErrorKind};
use crate::protocol::frame::ChunkHeader;
use crate::protocol::index::{ChunkIndex, EntryIndex};

/// A stream is the only entry of its offer.
const ENTRY: EntryIndex = EntryIndex::FIRST;

impl Reading<'_> {
    /// Reads and sends all of it, unless the receiver does not want it.
    pub(super) fn read_stream(&mut self) -> Result<(), Stopped> {
        if self.outgoing.is_unwanted(ENTRY) {
            return Ok(());
        }
        match self.stream_chunks() {
            Ok(size_bytes) => (self.put)(Piece::StreamEnd {
                entry: ENTRY,
                size_bytes,
            }),
            Err(Unread::Failed(error)) => (self.put)(Piece::Broken(error)),
            Err(Unread::Stopped) => Err(Stopped),
        }
    }

    /// Returns how long it was.
    fn stream_chunks(&mut self) -> Result<u64, Unread> {
        let mut input = self.outgoing.source.take_input()?;
        let (mut index, mut size_bytes) = (ChunkIndex::FIRST, 0);
        loop {
            self.check_pause()?;
            let mut buffer = self.outgoing.buffer()?;
            let length = fill(&mut *input, buffer.data_mut()).map_err(FileError::from)?;
            if length > 0 {
                let place = ChunkPlace::of_stream(index, length).ok_or_else(too_long)?;
                self.send_streamed(place, buffer)?;
            }
            size_bytes += length as u64;
            if length < DATA_BYTES {
                return Ok(size_bytes);
            }
            index = index.next();
        }
    }

    fn send_streamed(&mut self, place: ChunkPlace, mut buffer: Buffer) -> Result<(), Stopped> {
        let data_bytes = place.length_bytes();
        let data = buffer.data().get(..data_bytes).ok_or(Stopped)?;
        let digest = Digest::of_chunk(place, data);
        let only = place.begins_stream().then(|| Digest::of_file(data));
        let header = ChunkHeader {
            transfer: self.outgoing.transfer.id,
            entry: ENTRY,
            index: place.index(),
            digest,
        };
        let header = header.encode(data_bytes).ok_or(Stopped)?;
        buffer.put_header(&header);
        (self.put)(Piece::Streamed {
            digest,
            only,
            frame: Frame::Data {
                buffer,
                header_bytes: header.len(),
                data_bytes,
            },
        })
    }
}

/// Reads until `room` is full or nothing more comes. Returns how much has come.
fn fill(input: &mut dyn Read, room: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = room.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn too_long() -> FileError {
    FileError::Local {
        trouble: FileErrorKind::TooLarge,
        detail: "no file has so many chunks".to_owned(),
    }
}
