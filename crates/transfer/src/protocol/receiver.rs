//! The receiving side of one transfer as a state machine without I/O. Files
//! come in the order of the manifest, each from its first chunk to its last,
//! so one cursor says of everything that arrives whether it is due. It is
//! asked before a byte of the data is read.
//!
//! What comes before the answer ([`EarlyData`]) is due whatever the receiver will
//! choose, and comes first even when the answer was given before it came. Nothing
//! else is due before the answer. A file that has only begun then starts anew if it
//! is not wanted, or is here in part.
//!
//! Of a file that the receiver has in part, the first chunks stay out; their
//! digests come under a cursor of their own, ahead of the data or beside it.
//! Those that turn out to differ come last.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use crate::protocol::chunking::{CHUNK_BYTES, ChunkPlace, Chunking};
use crate::protocol::early::EarlyData;
use crate::protocol::index::{ChunkIndex, EntryIndex};
use crate::protocol::manifest::{Entry, Manifest};
use crate::protocol::selection::Selection;
use crate::protocol::violation::Violation;

/// The receiver's side of one transfer.
#[derive(Debug)]
pub struct Receiver {
    selection: Arc<Selection>,
    early: EarlyData,
    is_answered: bool,
    /// The file that is due; the end of the manifest when none is.
    entry: EntryIndex,
    /// The chunk of it that is due, unless only differing ones are left.
    chunk: ChunkIndex,
    had: BTreeMap<EntryIndex, Had>,
    /// The file and the chunk whose digest is due.
    digest: (EntryIndex, ChunkIndex),
    /// How much of a stream has come.
    streamed_bytes: u64,
}

/// A file of which the first chunks are here.
#[derive(Debug)]
struct Had {
    chunks: u32,
    /// How many of them were compared.
    compared: u32,
    /// Those that must come after all.
    differing: VecDeque<Range<ChunkIndex>>,
}

impl Receiver {
    /// An offer that waits for its answer, and of which something comes before.
    #[must_use]
    pub fn new(manifest: Arc<Manifest>, early: EarlyData) -> Self {
        Self {
            entry: manifest.next_file(EntryIndex::FIRST),
            selection: Arc::new(Selection::without(manifest, BTreeSet::new())),
            early,
            is_answered: false,
            chunk: ChunkIndex::FIRST,
            had: BTreeMap::new(),
            digest: (EntryIndex::FIRST, ChunkIndex::FIRST),
            streamed_bytes: 0,
        }
    }

    /// These files are accepted. `have` says of which of them how many chunks are here;
    /// what came before the answer is compared by itself.
    pub fn accept(&mut self, selection: Arc<Selection>, have: &BTreeMap<EntryIndex, u32>) {
        let had = |chunks| Had {
            chunks,
            compared: 0,
            differing: VecDeque::new(),
        };
        let asked = have.range(self.early.end()..);
        self.had = asked.map(|(&e, &chunks)| (e, had(chunks))).collect();
        self.selection = selection;
        self.is_answered = true;
        if !self.is_early() {
            self.go_on_behind_early();
        }
    }

    /// Of which files the first chunks stay out, and how many.
    pub fn have(&self) -> impl Iterator<Item = (EntryIndex, u32)> {
        self.had.iter().map(|(&entry, had)| (entry, had.chunks))
    }

    /// Whether the offer was accepted.
    #[must_use]
    pub const fn is_answered(&self) -> bool {
        self.is_answered
    }

    /// Whether what comes, or has come, of this file before the answer is dropped.
    #[must_use]
    pub fn drops_early(&self, entry: EntryIndex) -> bool {
        let is_here = self.had.contains_key(&entry);
        self.early.begun() == Some(entry) && (is_here || self.selection.skipped().contains(&entry))
    }

    /// Whether the file goes on of which the first chunk comes before the answer.
    #[must_use]
    pub fn keeps_begun(&self) -> bool {
        let begun = self.early.begun();
        begun.is_some_and(|begun| !self.drops_early(begun))
    }

    /// Whether the chunk that comes next is dropped.
    #[must_use]
    pub fn drops_next(&self) -> bool {
        self.is_early() && self.drops_early(self.entry)
    }

    /// Whether every file has come to its end.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let is_left = match self.drops_next() {
            // That may come still.
            true => self.selection.next_file(self.entry) < self.selection.manifest().end(),
            false => self.entry < self.selection.manifest().end(),
        };
        self.is_answered && !is_left
    }

    /// A chunk of `data_bytes` is about to come. Returns where it belongs.
    ///
    /// # Errors
    /// It is not the one that is due, or not as long as it must be.
    pub fn check_chunk(
        &self,
        entry: EntryIndex,
        index: ChunkIndex,
        data_bytes: usize,
    ) -> Result<ChunkPlace, Violation> {
        self.check_due(entry)?;
        let not_due = Violation::Chunk { entry, index };
        if self.is_stream() {
            // Only the last is shorter.
            let may_follow = self.streamed_bytes.is_multiple_of(u64::from(CHUNK_BYTES));
            let place = ChunkPlace::of_stream(index, data_bytes);
            let place = place.filter(|_| index == self.chunk && may_follow);
            return place.ok_or(not_due);
        }
        let lengths = self.selection.manifest().lengths(entry);
        let lengths = lengths.ok_or(not_due.clone())?;
        let due = match self.had.get(&entry) {
            _ if self.is_early() => self.early.begun().map(|_| self.chunk),
            Some(had) if self.chunk == lengths.end() => had.differing.front().map(|run| run.start),
            _ => Some(self.chunk),
        };
        let place = lengths.place(index).ok_or(not_due.clone())?;
        if due != Some(index) || place.length_bytes() != data_bytes {
            return Err(not_due);
        }
        Ok(place)
    }

    /// That chunk has come. Returns where it goes; `None` when it is not wanted.
    ///
    /// # Errors
    /// As for [`Receiver::check_chunk`].
    pub fn chunk(
        &mut self,
        entry: EntryIndex,
        index: ChunkIndex,
        data_bytes: usize,
    ) -> Result<Option<ChunkPlace>, Violation> {
        let place = self.check_chunk(entry, index, data_bytes)?;
        if self.is_stream() {
            self.streamed_bytes += place.length_bytes() as u64;
        }
        let (was_early, is_dropped) = (self.is_early(), self.drops_next());
        if index == self.chunk {
            self.chunk = index.next();
        } else if let Some(Had { differing, .. }) = self.had.get_mut(&entry) {
            if let Some(run) = differing.front_mut() {
                run.start = run.start.next();
            }
            differing.pop_front_if(|run| Range::is_empty(run));
        }
        if was_early {
            self.moved_early();
        }
        Ok((!is_dropped).then_some(place))
    }

    /// The digest of a chunk that is here has come.
    ///
    /// # Errors
    /// It is not due, or the chunk is not here.
    pub fn digest(&mut self, entry: EntryIndex, index: ChunkIndex) -> Result<(), Violation> {
        // A file that the sender cannot read is left in the middle.
        let is_next =
            (entry, index) == self.digest || (entry > self.digest.0 && index == ChunkIndex::FIRST);
        let is_here = self
            .had
            .get(&entry)
            .is_some_and(|had| index.get() < had.chunks);
        if self.is_early() || !is_next || !is_here {
            return Err(Violation::Chunk { entry, index });
        }
        self.digest = (entry, index.next());
        Ok(())
    }

    /// This side has compared the first `chunks` of a file, and misses these
    /// of the newly compared.
    pub fn compared(&mut self, entry: EntryIndex, chunks: u32, differing: &[(ChunkIndex, u32)]) {
        if let Some(had) = self.had.get_mut(&entry) {
            had.compared = chunks;
            let run = |&(first, count): &(ChunkIndex, u32)| Some(first..first.checked_add(count)?);
            had.differing.extend(differing.iter().filter_map(run));
        }
    }

    /// A whole small file of `data_bytes` has come in a batch.
    ///
    /// # Errors
    /// It is not the one that is due, or not as long as it must be.
    pub fn small_file(&mut self, entry: EntryIndex, data_bytes: usize) -> Result<(), Violation> {
        self.check_due(entry)?;
        let declared = self.selection.manifest().entry(entry);
        let declared = declared.and_then(Entry::file_size_bytes);
        let fits = declared == u64::try_from(data_bytes).ok() && data_bytes <= CHUNK_BYTES as usize;
        let is_begun = self.is_early() && self.early.begun() == Some(entry);
        let index = ChunkIndex::FIRST;
        if self.chunk != index || is_begun || !fits || self.had.contains_key(&entry) {
            return Err(Violation::Chunk { entry, index });
        }
        self.end(entry);
        Ok(())
    }

    /// The sender says that all chunks of a file were sent.
    ///
    /// # Errors
    /// The file is not due or misses chunks.
    pub fn file_end(&mut self, entry: EntryIndex) -> Result<(), Violation> {
        self.check_due(entry)?;
        let lengths = self.selection.manifest().lengths(entry);
        let is_compared = |had: &Had| had.compared == had.chunks && had.differing.is_empty();
        if self.is_early()
            || lengths.map(Chunking::end) != Some(self.chunk)
            || !self.had.get(&entry).is_none_or(is_compared)
        {
            return Err(Violation::Chunk {
                entry,
                index: self.chunk,
            });
        }
        self.end(entry);
        Ok(())
    }

    /// The sender says that all of a stream was sent.
    ///
    /// # Errors
    /// It is none or not due, or it has another length than what has come.
    pub fn stream_end(&mut self, entry: EntryIndex, size_bytes: u64) -> Result<(), Violation> {
        self.check_due(entry)?;
        if !self.is_stream() || size_bytes != self.streamed_bytes {
            return Err(Violation::StreamSize(size_bytes));
        }
        self.end(entry);
        Ok(())
    }

    fn is_stream(&self) -> bool {
        self.selection.manifest().is_stream()
    }

    /// The sender gives up a file, begun or not. Returns whether that matters.
    ///
    /// # Errors
    /// The file is not due.
    pub fn file_failed(&mut self, entry: EntryIndex) -> Result<bool, Violation> {
        self.check_due(entry)?;
        let matters = !self.drops_next();
        self.end(entry);
        Ok(matters)
    }

    fn check_due(&self, entry: EntryIndex) -> Result<(), Violation> {
        let is_due = entry == self.entry
            && entry < self.selection.manifest().end()
            && (self.is_answered || self.is_early());
        is_due.then_some(()).ok_or(Violation::Entry(entry))
    }

    /// Whether what is due travels without waiting for the answer.
    fn is_early(&self) -> bool {
        self.early.reaches(self.entry, self.chunk)
    }

    /// The file that is due has come to its end.
    fn end(&mut self, entry: EntryIndex) {
        if self.is_early() || !self.is_answered {
            // Also what is not wanted comes.
            self.entry = self.selection.manifest().next_file(entry.next());
            self.chunk = ChunkIndex::FIRST;
            self.moved_early();
        } else {
            self.move_on(entry.next());
        }
    }

    fn moved_early(&mut self) {
        if self.is_answered && !self.is_early() {
            self.go_on_behind_early();
        }
    }

    /// All that travels before the answer is here, and so is the answer.
    fn go_on_behind_early(&mut self) {
        match self.early.begun() {
            Some(begun) if self.drops_early(begun) => self.move_on(begun),
            Some(begun) if self.entry == begun => {}
            _ => self.move_on(self.entry),
        }
    }

    /// To the first file at or behind `entry`.
    fn move_on(&mut self, entry: EntryIndex) {
        self.entry = self.selection.next_file(entry);
        let had = self.had.get(&self.entry);
        self.chunk = had.map_or(ChunkIndex::FIRST, |had| ChunkIndex::new(had.chunks));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::index::short::{chunk, entry};
    use crate::protocol::manifest::ManifestBuilder;

    const MIB: usize = CHUNK_BYTES as usize;

    /// 0: a folder, 1: a file of 2 MiB + 5, 2: a file of 7 bytes, 3: an empty
    /// file.
    fn manifest() -> Arc<Manifest> {
        let mut builder = ManifestBuilder::default();
        for entry in [
            r#"{"folder":{"path":"d"}}"#,
            r#"{"file":{"path":"d/1","size_bytes":2097157}}"#,
            r#"{"file":{"path":"d/2","size_bytes":7}}"#,
            r#"{"file":{"path":"d/3","size_bytes":0}}"#,
        ] {
            builder.push(serde_json::from_str(entry).unwrap()).unwrap();
        }
        Arc::new(builder.build())
    }

    const fn not_due(of: u32, index: u32) -> Violation {
        let (entry, index) = (entry(of), chunk(index));
        Violation::Chunk { entry, index }
    }

    const fn at<T>(of: u32, index: u32) -> Result<T, Violation> {
        Err(not_due(of, index))
    }

    fn selection_without(skipped: &[u32]) -> Arc<Selection> {
        let skipped = skipped.iter().copied().map(entry).collect();
        Arc::new(Selection::without(manifest(), skipped))
    }

    fn receiver_of(skipped: &[u32], have: &BTreeMap<EntryIndex, u32>) -> Receiver {
        let mut receiver = Receiver::new(manifest(), EarlyData::default());
        receiver.accept(selection_without(skipped), have);
        receiver
    }

    fn receiver_with(have: &BTreeMap<EntryIndex, u32>) -> Receiver {
        receiver_of(&[], have)
    }

    fn receiver() -> Receiver {
        receiver_with(&BTreeMap::new())
    }

    #[test]
    fn what_is_here_stays_out_but_for_what_differs() {
        let mut receiver = receiver_with(&BTreeMap::from([(entry(1), 2), (entry(2), 1)]));
        // The last chunk and the digests come as they like.
        receiver.digest(entry(1), chunk(0)).unwrap();
        receiver.chunk(entry(1), chunk(2), 5).unwrap();
        receiver.digest(entry(1), chunk(1)).unwrap();
        receiver.digest(entry(2), chunk(0)).unwrap();
        receiver.compared(entry(2), 1, &[]);
        receiver.compared(entry(1), 1, &[]);
        let unfinished = at(1, 3);
        assert_eq!(receiver.file_end(entry(1)), unfinished, "not all compared");
        receiver.compared(entry(1), 2, &[(chunk(1), 1)]);
        assert_eq!(receiver.file_end(entry(1)), unfinished, "one differs");
        let wrong = not_due(1, 0);
        assert_eq!(
            receiver.chunk(entry(1), chunk(0), MIB),
            Err(wrong),
            "this does not"
        );
        receiver.chunk(entry(1), chunk(1), MIB).unwrap();
        let twice = not_due(1, 1);
        assert_eq!(receiver.chunk(entry(1), chunk(1), MIB), Err(twice));
        receiver.file_end(entry(1)).unwrap();
        assert!(receiver.small_file(entry(2), 7).is_err(), "it is here");
        receiver.file_end(entry(2)).unwrap();
        receiver.small_file(entry(3), 0).unwrap();
        assert!(receiver.is_complete());
    }

    #[test]
    fn digests_come_in_order_and_of_what_is_here() {
        let have = BTreeMap::from([(entry(1), 2), (entry(2), 1)]);
        for (first, then) in [
            ((1, 1), None),
            ((1, 0), Some((1, 0))),
            ((1, 0), Some((1, 2))),
            ((2, 0), Some((1, 0))),
            ((2, 0), Some((2, 1))),
            ((3, 0), None),
            ((0, 0), None),
            ((u32::MAX, u32::MAX), None),
        ] {
            let mut receiver = receiver_with(&have);
            let first = receiver.digest(entry(first.0), chunk(first.1));
            match then {
                Some((of, index)) => {
                    first.unwrap();
                    let then = receiver.digest(entry(of), chunk(index));
                    assert!(then.is_err(), "{of} {index}");
                }
                None => assert!(first.is_err()),
            }
        }
        // A file that could not be read to its end.
        let mut receiver = receiver_with(&have);
        receiver.digest(entry(1), chunk(0)).unwrap();
        receiver.digest(entry(2), chunk(0)).unwrap();
    }

    #[test]
    fn everything_in_order_completes() {
        let mut receiver = receiver();
        for (index, data_bytes) in [(0, MIB), (1, MIB), (2, 5)] {
            let place = receiver
                .chunk(entry(1), chunk(index), data_bytes)
                .unwrap()
                .unwrap();
            assert_eq!(place.offset_bytes(), u64::from(index) * MIB as u64);
        }
        receiver.file_end(entry(1)).unwrap();
        receiver.small_file(entry(2), 7).unwrap();
        assert!(!receiver.is_complete());
        receiver.file_end(entry(3)).unwrap();
        assert!(receiver.is_complete());
        assert_eq!(receiver.file_end(entry(4)), Err(Violation::Entry(entry(4))));
    }

    #[test]
    fn what_is_skipped_is_not_due() {
        let mut receiver = receiver_of(&[0, 1, 3], &BTreeMap::new());
        assert_eq!(
            receiver.chunk(entry(1), chunk(0), MIB),
            Err(Violation::Entry(entry(1)))
        );
        receiver.small_file(entry(2), 7).unwrap();
        assert!(receiver.is_complete());
        assert!(receiver_of(&[1, 2, 3], &BTreeMap::new()).is_complete());
    }

    #[test]
    fn a_file_may_be_given_up_at_any_point() {
        let mut receiver = receiver();
        receiver.chunk(entry(1), chunk(0), MIB).unwrap();
        receiver.file_failed(entry(1)).unwrap();
        receiver.file_failed(entry(2)).unwrap();
        receiver.small_file(entry(3), 0).unwrap();
        assert!(receiver.is_complete());
    }

    /// A folder, and files of 2, 7 and no bytes, which travel before the answer.
    fn whole_files() -> (Arc<Manifest>, Receiver) {
        let mut builder = ManifestBuilder::default();
        for entry in [
            r#"{"folder":{"path":"d"}}"#,
            r#"{"file":{"path":"d/1","size_bytes":2}}"#,
            r#"{"file":{"path":"d/2","size_bytes":7}}"#,
            r#"{"file":{"path":"d/3","size_bytes":0}}"#,
        ] {
            builder.push(serde_json::from_str(entry).unwrap()).unwrap();
        }
        let manifest = Arc::new(builder.build());
        let early = EarlyData::promised(&manifest, 9).unwrap();
        (Arc::clone(&manifest), Receiver::new(manifest, early))
    }

    #[test]
    fn whole_files_come_before_the_answer_in_order_and_once() {
        let (manifest, mut receiver) = whole_files();
        let no_chunk = at(1, 0);
        assert_eq!(receiver.chunk(entry(1), chunk(0), 2), no_chunk);
        receiver.file_failed(entry(1)).unwrap();
        // Also when the answer has come, and what is not wanted or here.
        let selection = Selection::without(manifest, BTreeSet::from([entry(2)]));
        receiver.accept(Arc::new(selection), &BTreeMap::from([(entry(3), 0)]));
        assert_eq!(receiver.have().count(), 0, "it is compared by itself");
        receiver.small_file(entry(2), 7).unwrap();
        assert_eq!(
            receiver.small_file(entry(2), 7),
            Err(Violation::Entry(entry(2)))
        );
        let no_end = at(3, 0);
        assert_eq!(receiver.file_end(entry(3)), no_end);
        assert_eq!(receiver.digest(entry(3), chunk(0)), no_end);
        assert!(!receiver.is_complete());
        receiver.small_file(entry(3), 0).unwrap();
        assert!(receiver.is_complete());
        assert_eq!(
            receiver.small_file(entry(3), 0),
            Err(Violation::Entry(entry(3)))
        );
    }

    #[test]
    fn nothing_is_due_before_the_answer_but_early_data() {
        let mut receiver = Receiver::new(manifest(), EarlyData::default());
        assert_eq!(
            receiver.chunk(entry(1), chunk(0), MIB),
            Err(Violation::Entry(entry(1)))
        );
        assert_eq!(
            receiver.file_failed(entry(1)),
            Err(Violation::Entry(entry(1)))
        );
        let (_, mut receiver) = whole_files();
        for (of, bytes) in [(1, 2), (2, 7), (3, 0)] {
            receiver.small_file(entry(of), bytes).unwrap();
        }
        assert!(!receiver.is_complete());
        assert_eq!(
            receiver.file_failed(entry(4)),
            Err(Violation::Entry(entry(4)))
        );
    }

    fn with_chunk_ahead() -> Receiver {
        let early = EarlyData::of(&manifest());
        assert_eq!(early.begun(), Some(entry(1)));
        Receiver::new(manifest(), early)
    }

    #[test]
    fn it_goes_on_behind_what_came_ahead() {
        let none = BTreeMap::new();
        for comes_first in [true, false] {
            let mut receiver = with_chunk_ahead();
            if comes_first {
                assert!(receiver.chunk(entry(1), chunk(0), MIB).unwrap().is_some());
            }
            receiver.accept(selection_without(&[]), &none);
            assert!(receiver.keeps_begun() && !receiver.drops_next());
            if !comes_first {
                assert!(receiver.chunk(entry(1), chunk(0), MIB).unwrap().is_some());
            }
            assert!(receiver.chunk(entry(1), chunk(0), MIB).is_err(), "twice");
            receiver.chunk(entry(1), chunk(1), MIB).unwrap();
            receiver.chunk(entry(1), chunk(2), 5).unwrap();
            receiver.file_end(entry(1)).unwrap();
            receiver.small_file(entry(2), 7).unwrap();

            let mut receiver = with_chunk_ahead();
            if comes_first {
                assert_eq!(receiver.file_failed(entry(1)), Ok(true));
            }
            receiver.accept(selection_without(&[2]), &none);
            if !comes_first {
                assert_eq!(receiver.file_failed(entry(1)), Ok(true));
            }
            receiver.small_file(entry(3), 0).unwrap();
            assert!(receiver.is_complete());
        }
    }

    #[test]
    fn what_came_ahead_of_another_answer_is_as_if_it_had_not_come() {
        let none = BTreeMap::new();
        let have = BTreeMap::from([(entry(1), 2)]);
        let come = |receiver: &mut Receiver, is_failure: bool| match is_failure {
            true => receiver.file_failed(entry(1)).unwrap(),
            false => receiver.chunk(entry(1), chunk(0), MIB).unwrap().is_some(),
        };
        for is_failure in [true, false] {
            for comes_first in [true, false] {
                for (skipped, have) in [(&[1][..], &none), (&[], &have)] {
                    let mut receiver = with_chunk_ahead();
                    if comes_first {
                        assert!(come(&mut receiver, is_failure));
                    }
                    receiver.accept(selection_without(skipped), have);
                    assert!(!receiver.keeps_begun());
                    if !comes_first {
                        assert!(receiver.drops_next());
                        assert!(
                            receiver.digest(entry(1), chunk(0)).is_err(),
                            "not behind it"
                        );
                        assert!(receiver.small_file(entry(2), 7).is_err(), "nor this");
                        assert!(!come(&mut receiver, is_failure));
                    }
                    assert!(!receiver.drops_next());
                    assert!(
                        receiver.chunk(entry(1), chunk(0), MIB).is_err(),
                        "no second time"
                    );
                    if !have.is_empty() {
                        receiver.digest(entry(1), chunk(0)).unwrap();
                        receiver.chunk(entry(1), chunk(2), 5).unwrap();
                        receiver.compared(entry(1), 2, &[(chunk(0), 1)]);
                        assert!(
                            receiver.chunk(entry(1), chunk(0), MIB).unwrap().is_some(),
                            "it differs"
                        );
                        receiver.file_end(entry(1)).unwrap();
                    }
                    receiver.small_file(entry(2), 7).unwrap();
                }
            }
        }
    }

    #[test]
    fn what_nobody_wants_may_come_after_all_else_is_done() {
        let skipped = selection_without(&[1, 2, 3]);
        let mut receiver = with_chunk_ahead();
        receiver.accept(skipped, &BTreeMap::new());
        assert!(receiver.is_complete());
        assert_eq!(receiver.chunk(entry(1), chunk(0), MIB), Ok(None));
        assert!(receiver.is_complete());
    }

    #[test]
    fn nothing_but_one_piece_of_the_first_file_comes_ahead() {
        let is_refused = |receiver: &mut Receiver, what: &str| {
            let refused = match what {
                "another chunk" => receiver.chunk(entry(1), chunk(1), MIB).is_err(),
                "another length" => receiver.chunk(entry(1), chunk(0), MIB - 1).is_err(),
                "another file" => receiver.chunk(entry(2), chunk(0), 7).is_err(),
                "a folder" => receiver.chunk(entry(0), chunk(0), MIB).is_err(),
                "another failure" => receiver.file_failed(entry(2)).is_err(),
                "a batch" => receiver.small_file(entry(1), MIB).is_err(),
                "an end" => receiver.file_end(entry(1)).is_err(),
                _ => receiver.digest(entry(1), chunk(0)).is_err(),
            };
            assert!(refused, "{what}");
        };
        for what in [
            "another chunk",
            "another length",
            "another file",
            "a folder",
            "another failure",
            "a batch",
            "an end",
            "a digest",
        ] {
            is_refused(&mut with_chunk_ahead(), what);
            let mut here = with_chunk_ahead();
            here.chunk(entry(1), chunk(0), MIB).unwrap();
            assert!(
                here.chunk(entry(1), chunk(0), MIB).is_err() && here.file_failed(entry(1)).is_err()
            );
            is_refused(&mut here, what);
            let mut failed = with_chunk_ahead();
            failed.file_failed(entry(1)).unwrap();
            is_refused(&mut failed, what);
            assert!(!failed.is_complete());
        }
    }

    #[test]
    fn a_file_that_begins_with_its_only_chunk_ends_as_one_in_chunks() {
        let mut builder = ManifestBuilder::default();
        let file = r#"{"file":{"path":"a","size_bytes":100000}}"#;
        builder.push(serde_json::from_str(file).unwrap()).unwrap();
        let manifest = Arc::new(builder.build());
        let mut receiver = Receiver::new(Arc::clone(&manifest), EarlyData::of(&manifest));
        let all = Selection::without(manifest, BTreeSet::new());
        receiver.accept(Arc::new(all), &BTreeMap::new());
        assert!(receiver.small_file(entry(0), 100_000).is_err());
        receiver.chunk(entry(0), chunk(0), 100_000).unwrap();
        assert!(receiver.small_file(entry(0), 100_000).is_err());
        receiver.file_end(entry(0)).unwrap();
        assert!(receiver.is_complete());
    }

    fn stream() -> Receiver {
        let mut builder = ManifestBuilder::default();
        let entry = serde_json::from_str(r#"{"stream":{"path":"s"}}"#);
        builder.push(entry.unwrap()).unwrap();
        let manifest = Arc::new(builder.build());
        let mut receiver = Receiver::new(Arc::clone(&manifest), EarlyData::default());
        let not_yet = Err(Violation::Entry(entry_0()));
        assert_eq!(receiver.chunk(entry_0(), chunk(0), 1), not_yet);
        assert_eq!(
            receiver.stream_end(entry_0(), 0),
            Err(Violation::Entry(entry_0()))
        );
        let all = Selection::without(manifest, BTreeSet::new());
        receiver.accept(Arc::new(all), &BTreeMap::new());
        receiver
    }

    const fn entry_0() -> EntryIndex {
        entry(0)
    }

    #[test]
    fn a_stream_comes_chunk_by_chunk_and_says_how_long_it_was() {
        for sizes in [&[][..], &[1], &[MIB], &[MIB, 1], &[MIB, MIB, MIB - 1]] {
            let mut receiver = stream();
            for (index, &size) in sizes.iter().enumerate() {
                let index = u32::try_from(index).unwrap();
                let place = receiver.chunk(entry(0), chunk(index), size).unwrap();
                let offset_bytes = u64::from(index) * u64::from(CHUNK_BYTES);
                assert_eq!(place.map(ChunkPlace::offset_bytes), Some(offset_bytes));
            }
            assert!(!receiver.is_complete());
            let size_bytes = sizes.iter().sum::<usize>() as u64;
            receiver.stream_end(entry(0), size_bytes).unwrap();
            assert!(receiver.is_complete());
            let behind = Err(Violation::Entry(entry(0)));
            assert_eq!(receiver.stream_end(entry(0), size_bytes), behind);
            let next = u32::try_from(sizes.len()).unwrap();
            let behind = Err(Violation::Entry(entry(0)));
            assert_eq!(receiver.chunk(entry(0), chunk(next), 1), behind);
        }
    }

    /// Does something that is to be refused.
    type Wrong = fn(&mut Receiver) -> bool;

    #[test]
    fn what_no_stream_does_is_refused() {
        let wrong: [(&str, Wrong); 13] = [
            ("a gap", |it| it.chunk(entry(0), chunk(2), 1).is_err()),
            ("a chunk again", |it| {
                it.chunk(entry(0), chunk(0), MIB).is_err()
            }),
            ("an empty chunk", |it| {
                it.chunk(entry(0), chunk(1), 0).is_err()
            }),
            ("a long chunk", |it| {
                it.chunk(entry(0), chunk(1), MIB + 1).is_err()
            }),
            ("the last place", |it| {
                it.chunk(entry(0), chunk(u32::MAX), 1).is_err()
            }),
            ("another entry", |it| {
                it.chunk(entry(1), chunk(1), 1).is_err()
            }),
            ("too short an end", |it| it.stream_end(entry(0), 0).is_err()),
            ("too long an end", |it| {
                it.stream_end(entry(0), MIB as u64 + 1).is_err()
            }),
            ("an end of another entry", |it| {
                it.stream_end(entry(1), MIB as u64).is_err()
            }),
            ("the end of a file", |it| it.file_end(entry(0)).is_err()),
            ("a batch", |it| it.small_file(entry(0), 0).is_err()),
            ("a digest", |it| it.digest(entry(0), chunk(0)).is_err()),
            ("more behind the last", |it| {
                it.chunk(entry(0), chunk(1), 1).unwrap();
                it.chunk(entry(0), chunk(2), 1).is_err()
            }),
        ];
        for (what, is_refused) in wrong {
            let mut receiver = stream();
            receiver.chunk(entry(0), chunk(0), MIB).unwrap();
            assert!(is_refused(&mut receiver), "{what}");
        }
        let mut files = receiver();
        assert_eq!(files.stream_end(entry(1), 0), Err(Violation::StreamSize(0)));
    }

    #[test]
    fn a_lying_sender_is_caught_before_its_data_is_read() {
        // What is sent first, what is sent then, and the answer.
        assert_eq!(receiver().chunk(entry(1), chunk(1), MIB), at(1, 1), "a gap");
        assert_eq!(
            receiver().chunk(entry(1), chunk(0), 5),
            at(1, 0),
            "too short"
        );
        assert_eq!(
            receiver().chunk(entry(1), chunk(0), MIB + 1),
            at(1, 0),
            "too long"
        );
        assert_eq!(
            receiver().chunk(entry(1), chunk(3), 1),
            at(1, 3),
            "beyond the end"
        );
        assert_eq!(
            receiver().chunk(entry(1), chunk(u32::MAX), MIB),
            at(1, u32::MAX),
            "far beyond"
        );
        assert_eq!(
            receiver().chunk(entry(2), chunk(0), 7),
            Err(Violation::Entry(entry(2))),
            "not due"
        );
        assert_eq!(
            receiver().chunk(entry(0), chunk(0), 1),
            Err(Violation::Entry(entry(0))),
            "a folder"
        );
        assert_eq!(
            receiver().chunk(entry(99), chunk(0), 1),
            Err(Violation::Entry(entry(99))),
            "unknown"
        );
        assert_eq!(receiver().small_file(entry(1), 7), at(1, 0), "wrong size");
        assert_eq!(receiver().file_end(entry(1)), at(1, 0), "no chunks");
        assert_eq!(
            receiver().file_failed(entry(2)),
            Err(Violation::Entry(entry(2))),
            "not due"
        );

        let mut receiver = receiver();
        receiver.chunk(entry(1), chunk(0), MIB).unwrap();
        assert_eq!(receiver.chunk(entry(1), chunk(0), MIB), at(1, 0), "twice");
        assert_eq!(
            receiver.small_file(entry(1), 2_097_157),
            at(1, 0),
            "begun as chunks"
        );
    }
}
