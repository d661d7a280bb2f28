//! Sending a file of which the receiver has the first chunks. A thread beside
//! the pipeline runs ahead and sends their digests; the pipeline sends the rest
//! of the file at once, and then those chunks that the receiver asks for.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::sync::{Arc, mpsc};

use tokio::sync::mpsc::UnboundedReceiver;

use super::read::{OpenFile, Reading};
use super::{Outgoing, Stopped, Unread};
use crate::connection::Frame;
use crate::protocol::chunking::CHUNK_BYTES;
use crate::protocol::digest::{Digest, Tree};
use crate::protocol::file_error::{FileError, FileErrorKind};
use crate::protocol::frame;
use crate::protocol::frame::{DIGEST_ITEMS_MAX, DigestItem};
use crate::protocol::index::{ChunkIndex, EntryIndex};
use crate::send::source::SourceReader;

/// Digests do not wait longer than it takes to read so much.
const FLUSH_BYTES: u64 = 16 * 1024 * 1024;

/// What the receiver has compared of a file that it had.
pub(crate) struct Answer {
    pub(crate) entry: EntryIndex,
    /// How many chunks, from the first.
    pub(crate) chunks: u32,
    /// Chunks to be sent after all: the first of each run and how many.
    pub(crate) differing: Vec<(ChunkIndex, u32)>,
}

/// The digests of the chunks of one file that the receiver has.
pub(super) type Digested = (EntryIndex, Result<Vec<Digest>, FileError>);

/// What the pipeline waits for before it can end a file.
pub(super) struct Waiting {
    digested: mpsc::Receiver<Digested>,
    /// Closed when the first digests are on their way.
    begun: mpsc::Receiver<Infallible>,
    answers: UnboundedReceiver<Answer>,
    /// Answers about files that are not due.
    early: HashMap<EntryIndex, Answer>,
}

impl Waiting {
    pub(super) fn new(
        digested: mpsc::Receiver<Digested>,
        begun: mpsc::Receiver<Infallible>,
        answers: UnboundedReceiver<Answer>,
    ) -> Self {
        Self {
            digested,
            begun,
            answers,
            early: HashMap::new(),
        }
    }

    /// Returns when the first digests are on their way, or there are none: behind
    /// chunks, on a connection that has just begun, they would come late, and the
    /// receiver would not know for as long what it has.
    fn until_begun(&self) {
        // Nothing is ever said there.
        let _ = self.begun.recv();
    }

    fn digests(&self, entry: EntryIndex) -> Result<Vec<Digest>, Unread> {
        let mut digested = self.digested.iter();
        let digests = digested.find_map(|(of, digests)| (of == entry).then_some(digests));
        Ok(digests.ok_or(Stopped)??)
    }

    /// The chunks that differ, once all are compared.
    fn differing(
        &mut self,
        entry: EntryIndex,
        chunks: u32,
    ) -> Result<Vec<(ChunkIndex, u32)>, Stopped> {
        // An empty file has no digests.
        while chunks > 0 && self.early.get(&entry).is_none_or(|it| it.chunks < chunks) {
            let mut answer = self.answers.blocking_recv().ok_or(Stopped)?;
            match self.early.entry(answer.entry) {
                Entry::Occupied(mut before) => {
                    let before = before.get_mut();
                    before.differing.append(&mut answer.differing);
                    before.chunks = before.chunks.max(answer.chunks);
                }
                Entry::Vacant(early) => {
                    early.insert(answer);
                }
            }
        }
        let answer = self.early.remove(&entry);
        Ok(answer.map(|it| it.differing).unwrap_or_default())
    }
}

impl Outgoing {
    /// Hashes all chunks that the receiver has and sends their digests; drops
    /// `beginning` when the first are on their way.
    pub(super) fn digest(
        &self,
        digested: &mpsc::Sender<Digested>,
        beginning: mpsc::Sender<Infallible>,
    ) -> Result<(), Stopped> {
        let mut beginning = Some(beginning);
        let mut reader = SourceReader::new(Arc::clone(&self.source));
        let mut buffer = vec![0; CHUNK_BYTES as usize];
        let mut items = Vec::new();
        let mut read_bytes = 0;
        for (&entry, &chunks) in &self.have {
            let lengths = self.source.manifest().lengths(entry).ok_or(Stopped)?;
            let mut digests = Vec::new();
            let mut digest_all = || {
                let file = reader.open(entry)?;
                let known = self.connection.resources.known.recall(&file);
                for place in lengths.places_from(ChunkIndex::FIRST).take(chunks as usize) {
                    self.transfer.control.wait_while_paused();
                    if self.transfer.is_stopped() || self.is_unwanted(entry) {
                        return Err(FileError::Peer(FileErrorKind::Io));
                    }
                    let digest = if let Some(digest) = known.get(place.index()) {
                        digest
                    } else {
                        let room = buffer.get_mut(..place.length_bytes());
                        let room = room.unwrap_or_default();
                        reader.read(entry, &file, room, place.offset_bytes())?;
                        read_bytes += room.len() as u64;
                        let digest = Digest::of_chunk(place, room);
                        known.set(place.index(), digest);
                        digest
                    };
                    digests.push(digest);
                    items.push(DigestItem {
                        entry,
                        index: place.index(),
                        digest,
                    });
                    if items.len() == DIGEST_ITEMS_MAX || read_bytes >= FLUSH_BYTES {
                        // Should it take no more, the next to be sent ends this.
                        let _ = self.queue_digests(&mut items);
                        beginning = None;
                        read_bytes = 0;
                    }
                }
                reader.check_unchanged(entry, &file)
            };
            let outcome = digest_all();
            let outcome = outcome.map(|()| digests);
            digested.send((entry, outcome)).map_err(|_| Stopped)?;
        }
        let queued = self.queue_digests(&mut items);
        drop(beginning);
        queued
    }

    fn queue_digests(&self, items: &mut Vec<DigestItem>) -> Result<(), Stopped> {
        let encoded = frame::encode_digests(self.transfer.id, items).ok_or(Stopped)?;
        items.clear();
        self.queue(Frame::Message(encoded), 0, false)
    }
}

impl Reading<'_> {
    /// Reads what the receiver misses of a file of which it has `have` chunks.
    /// Returns the tree over those.
    pub(super) fn read_missing(
        &mut self,
        entry: EntryIndex,
        have: u32,
        waiting: &mut Waiting,
    ) -> Result<Tree, Unread> {
        waiting.until_begun();
        let open = self.read_chunks(entry, ChunkIndex::new(have))?;
        let digests = waiting.digests(entry)?;
        for (first, count) in waiting.differing(entry, have)? {
            let end = first.checked_add(count).ok_or(Stopped)?;
            for index in first.until(end) {
                let expected = digests.get(index.get() as usize).ok_or(Stopped)?;
                self.read_again(&open, index, *expected)?;
            }
        }
        // Given up meanwhile: the receiver may not have compared all of it.
        if self.outgoing.is_unwanted(entry) {
            return Err(FileError::Peer(FileErrorKind::Io).into());
        }
        self.check_read(&open)?;
        let mut tree = Tree::default();
        digests.into_iter().for_each(|digest| tree.push(digest));
        Ok(tree)
    }

    /// Reads a chunk whose digest was sent already, and must not have changed.
    fn read_again(
        &mut self,
        open: &OpenFile,
        index: ChunkIndex,
        expected: Digest,
    ) -> Result<(), Unread> {
        self.check_wanted(open.entry)?;
        let place = open.lengths.place(index).ok_or(Stopped)?;
        let buffer = self.fill(open, place)?;
        let data = buffer.data().get(..place.length_bytes());
        if Digest::of_chunk(place, data.unwrap_or_default()) != expected {
            let detail = "it changed after it was read".to_owned();
            let trouble = FileErrorKind::Changed;
            return Err(FileError::Local { trouble, detail }.into());
        }
        Ok(self.send_chunk(open, place, buffer)?)
    }
}
