//! What travels of an offer before the answer to it, and the rest of a file that began
//! so once the answer is known.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Batch, Outgoing, Piece, Pieces, Queue, Sent};
use crate::protocol::digest::Tree;
use crate::protocol::file_error::FileError;
use crate::send::source::SourceReader;

/// Sends the early data of an offer, and tells those who send the rest.
pub(crate) struct EarlyJob {
    pub(crate) outgoing: Outgoing,
    pub(crate) done: oneshot::Sender<Begun>,
}

/// The tree over the first chunk of a file that has only begun; `None` when it could not
/// be read, or there is none.
pub(crate) type Begun = Option<Tree>;

impl EarlyJob {
    /// Returns when all is queued, or the transfer was stopped. Blocks. `tell` hears of
    /// each file before the receiver can.
    pub(crate) fn run(self, tell: impl FnMut(Sent)) {
        let Self { outgoing, done } = self;
        let mut queue = Queue::new(&outgoing, true, tell);
        let mut put = |framed| queue.put(framed);
        let mut pieces = Pieces {
            outgoing: &outgoing,
            put: &mut put,
        };
        if outgoing.read_early(&mut pieces).is_some() {
            // Nobody waits when the transfer is over.
            let _ = done.send(queue.tree.take());
        }
    }
}

impl Outgoing {
    /// `None` when the transfer was stopped.
    fn read_early(&self, pieces: &mut Pieces<'_>) -> Option<()> {
        let manifest = self.source.manifest();
        let mut reader = SourceReader::new(Arc::clone(&self.source));
        let mut batch: Option<Batch> = None;
        let mut entry = manifest.next_file(0);
        while self.early.holds(entry) {
            self.read_small(&mut reader, entry, &mut batch, pieces)?;
            entry = manifest.next_file(entry + 1);
        }
        self.hand_on(pieces, batch)?;
        let Some(begun) = self.early.begun() else {
            return Some(());
        };
        match self.read_first(&mut reader, begun)? {
            Ok(piece) => pieces.send(piece),
            Err(error) => pieces.send(Piece::Failed {
                entry: begun,
                error,
            }),
        }
    }

    fn read_first(
        &self,
        reader: &mut SourceReader,
        entry: u32,
    ) -> Option<Result<Piece, FileError>> {
        let place = self.source.manifest().lengths(entry)?.place(0)?;
        let mut buffer = self.buffer()?;
        let room = buffer.data_mut().get_mut(..place.length_bytes())?;
        let read = reader.open(entry).and_then(|file| {
            reader.read(entry, &file, room, place.offset_bytes())?;
            Ok(self.connection.resources.known.recall(&file))
        });
        Some(read.map(|known| Piece::Chunk {
            entry,
            place,
            buffer,
            known,
        }))
    }

    /// Reads on behind the early data. Returns where the files go on. `None` when the
    /// transfer was stopped.
    pub(super) fn read_behind(
        &self,
        begun: Begun,
        reader: &mut SourceReader,
        pieces: &mut Pieces<'_>,
    ) -> Option<u32> {
        let manifest = self.source.manifest();
        let Some(entry) = self.goes_on_behind else {
            return Some(manifest.next_file(self.early.end()));
        };
        if let Some(tree) = begun {
            self.check_pause(pieces, &mut None)?;
            let lengths = manifest.lengths(entry)?;
            // A receiver that has given it up must hear of an end all the same.
            let read = self.read_chunks(reader, entry, lengths, 1, pieces)?;
            pieces.send(self.ended(reader, entry, tree, read))?;
        }
        Some(manifest.next_file(entry + 1))
    }
}
