//! Room on the disk: for what is to come, and for others.

use std::io;

use super::{Found, Store};
use crate::disk::partial_file::PartialFile;
use crate::protocol::index::ChunkIndex;

impl Store {
    /// Of the room that the files to come need, what they have already. A killed
    /// receiver has left it set aside beyond what it has written.
    pub(super) fn here_bytes(&self) -> u64 {
        let found = self.found();
        let here_bytes = self.have.iter().filter_map(|(entry, &chunks)| {
            Some(match found.get(entry)? {
                Found::PartialFile(Some(part), _) => part.room_bytes(),
                _ => self
                    .manifest
                    .lengths(*entry)?
                    .run_bytes(ChunkIndex::FIRST, chunks),
            })
        });
        here_bytes.sum()
    }

    /// The part, ready to be written. Room is set aside for all of it, if it is
    /// large: a disk that is too full says so before.
    pub(super) fn ready(&self, mut part: PartialFile) -> io::Result<PartialFile> {
        if part.is_reserved() {
            self.destination.check_room(part.missing_bytes())?;
            part.reserve()?;
        }
        part.open_direct();
        Ok(part)
    }

    /// Whether there is still room for others.
    pub(crate) fn check_reserve(&self) -> io::Result<()> {
        self.destination.check_room(0)
    }
}
