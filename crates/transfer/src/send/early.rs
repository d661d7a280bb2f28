//! What travels of an offer before the answer to it, and the rest of a file that began
//! so once the answer is known.

use tokio::sync::oneshot;

use super::queue::Queue;
use super::read::Reading;
use super::{Outgoing, Sent, Stopped, Unread};
use crate::protocol::digest::Tree;
use crate::protocol::index::{ChunkIndex, EntryIndex};

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
        let mut queue = Queue::early(&outgoing, tell);
        let mut put = |piece| queue.put(piece);
        let read = Reading::new(&outgoing, &mut put).read_early();
        if read.is_ok() {
            // A failure means that the transfer is over.
            let _ = done.send(queue.tree.take());
        }
    }
}

impl Reading<'_> {
    fn read_early(&mut self) -> Result<(), Stopped> {
        let (manifest, early) = (self.outgoing.source.manifest(), self.outgoing.early);
        let mut entry = manifest.next_file(EntryIndex::FIRST);
        while early.holds(entry) {
            self.read_small(entry)?;
            entry = manifest.next_file(entry.next());
        }
        self.flush()?;
        let Some(begun) = early.begun() else {
            return Ok(());
        };
        match self.read_first(begun) {
            Err(Unread::Failed(error)) => self.end(begun, Err(error.into())),
            Err(Unread::Stopped) => Err(Stopped),
            Ok(()) => Ok(()),
        }
    }

    fn read_first(&mut self, entry: EntryIndex) -> Result<(), Unread> {
        let open = self.open(entry)?;
        let place = open
            .lengths
            .place(ChunkIndex::FIRST)
            .ok_or(Unread::Stopped)?;
        let buffer = self.fill(&open, place)?;
        Ok(self.send_chunk(&open, place, buffer)?)
    }

    /// Reads on behind the early data. Returns where the files go on.
    pub(super) fn read_behind(&mut self, begun: Begun) -> Result<EntryIndex, Stopped> {
        let manifest = self.outgoing.source.manifest();
        let Some(entry) = self.outgoing.goes_on_behind else {
            return Ok(manifest.next_file(self.outgoing.early.end()));
        };
        if let Some(tree) = begun {
            self.check_pause()?;
            // A receiver that has given it up must hear of an end all the same.
            let read = self.read_chunks(entry, ChunkIndex::FIRST.next());
            let read = read.and_then(|open| self.check_read(&open));
            self.end(entry, read.map(|()| tree))?;
        }
        Ok(manifest.next_file(entry.next()))
    }
}
