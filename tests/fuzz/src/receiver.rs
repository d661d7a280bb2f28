//! The receiver's state machine against a record of everything it has let
//! through: each chunk once, in its place, and no file complete that is not.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use pinhole_transfer::{
    ChunkIndex, EntryIndex, Manifest, Selection,
    chunking::{CHUNK_BYTES, ChunkPlace},
    early::EarlyData,
    receiver::Receiver,
};

use super::{Choices, files, size_bytes, streams};

/// What was let through of one file.
#[derive(Default)]
struct File {
    have: Option<u32>,
    came: BTreeSet<ChunkIndex>,
    digests: u32,
    compared: u32,
    /// Chunks that must come after all, in this order.
    differing: VecDeque<ChunkIndex>,
}

struct Record<'a> {
    manifest: &'a Manifest,
    files: BTreeMap<EntryIndex, File>,
    /// Up to where files have come to their end.
    ended: Option<EntryIndex>,
    last_digest: Option<(EntryIndex, ChunkIndex)>,
}

impl<'a> Record<'a> {
    fn of(manifest: &'a Manifest) -> Self {
        Self {
            manifest,
            files: BTreeMap::new(),
            ended: None,
            last_digest: None,
        }
    }

    /// Says what is wanted and what is here of it.
    fn answer(
        &mut self,
        choices: &mut Choices<'_>,
    ) -> (BTreeSet<EntryIndex>, BTreeMap<EntryIndex, u32>) {
        let mut have = BTreeMap::new();
        let skipped = choices.byte();
        let is_skipped = |entry: &EntryIndex| skipped >> (entry.get() % 8) & 1 == 1;
        for entry in files(self.manifest).filter(|entry| !is_skipped(entry)) {
            let chunks = self.manifest.lengths(entry).expect("a file").chunks();
            let here = choices.below(chunks + 2).checked_sub(1);
            let here = here.filter(|&here| here > 0 || chunks == 0);
            have.extend(here.map(|here| (entry, here)));
            let file = File {
                have: here,
                ..File::default()
            };
            self.files.insert(entry, file);
        }
        (files(self.manifest).filter(is_skipped).collect(), have)
    }
}

/// What is let through before the answer, or late.
struct Early<'a> {
    manifest: &'a Manifest,
    /// Files that come whole, and one that begins.
    due: VecDeque<EntryIndex>,
    begun: Option<EntryIndex>,
    /// Its chunk was let through.
    has_begun: bool,
}

impl<'a> Early<'a> {
    fn of(manifest: &'a Manifest, early: EarlyData) -> Self {
        let whole = files(manifest).filter(|&entry| early.holds(entry));
        Self {
            manifest,
            due: whole.chain(early.begun()).collect(),
            begun: early.begun(),
            has_begun: false,
        }
    }

    /// Tries something while only early data may come. Tells whether something was let
    /// through and is wanted.
    fn step(&mut self, receiver: &mut Receiver, choices: &mut Choices<'_>) -> Option<bool> {
        let what = choices.byte();
        let due = self.due.front().copied();
        // Mostly what is due, or nothing would ever get far.
        let entry = match (what & 0x80, due) {
            (0, Some(due)) => due,
            _ => choices.entry(),
        };
        let index = choices.chunk();
        let place = self
            .manifest
            .lengths(entry)
            .and_then(|it| it.place(ChunkIndex::FIRST));
        let right = place.map_or(0, ChunkPlace::length_bytes);
        let bytes = match what & 0x40 {
            0 => right,
            _ => choices.byte() as usize,
        };
        let is_begun = due.is_some() && due == self.begun;
        let is_wanted = match what % 5 {
            0 => {
                let came = receiver.chunk(entry, index, bytes).ok()?;
                assert!(is_begun && index == ChunkIndex::FIRST && bytes == right);
                assert!(came.is_none() || came == place);
                self.has_begun = true;
                came.is_some()
            }
            1 => receiver.file_failed(entry).ok()?,
            2 => {
                receiver.small_file(entry, bytes).ok()?;
                assert!(!is_begun && bytes == right);
                true
            }
            3 => {
                assert!(receiver.digest(entry, index).is_err());
                return None;
            }
            _ => {
                assert!(receiver.file_end(entry).is_err());
                return None;
            }
        };
        assert_eq!(self.due.pop_front(), Some(entry));
        Some(is_wanted)
    }
}

/// A manifest, and what the sender does when some of its files come before the answer:
/// before that, and after.
fn hold_early(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let manifest = choices.manifest();
    let data = EarlyData::of(&manifest);
    let mut early = Early::of(&manifest, data);
    let mut receiver = Receiver::new(manifest.clone(), data);
    for _ in 0..choices.below(4) {
        assert!(!receiver.is_answered() && !receiver.drops_next() && !receiver.is_complete());
        let came = early.step(&mut receiver, &mut choices);
        assert_ne!(came, Some(false), "nobody has said so");
    }
    let mut record = Record::of(&manifest);
    let (skipped, have) = record.answer(&mut choices);
    let is_wanted = |entry: &EntryIndex| !skipped.contains(entry) && !have.contains_key(entry);
    let keeps_begun = data.begun().is_some_and(|begun| is_wanted(&begun));
    let selection = Selection::without(manifest.clone(), skipped);
    receiver.accept(Arc::new(selection), &have);
    assert_eq!(receiver.keeps_begun(), keeps_begun);
    // These are not asked for.
    record.files.retain(|&entry, _| !data.holds(entry));
    while !early.due.is_empty() && choices.are_left() {
        let is_begun = early.due.front().copied() == data.begun();
        assert_eq!(receiver.drops_next(), is_begun && !keeps_begun);
        if is_begun {
            record.check_complete(&receiver);
        }
        if let Some(came) = early.step(&mut receiver, &mut choices) {
            assert_eq!(came, !is_begun || keeps_begun);
        }
    }
    if !early.due.is_empty() {
        return;
    }
    if let Some(begun) = data.begun().filter(|_| keeps_begun) {
        match early.has_begun {
            true => assert!(record.file(begun).came.insert(ChunkIndex::FIRST)),
            false => record.ended = Some(begun),
        }
    }
    while choices.are_left() {
        record.check_complete(&receiver);
        record.step(&mut receiver, &mut choices);
    }
    record.check_complete(&receiver);
}

/// A manifest, what is wanted and what is here of it, and what the sender does
/// then.
pub fn hold(bytes: &[u8]) {
    hold_early(bytes);
    streams::receive(bytes);
    let mut choices = Choices(bytes);
    let manifest = choices.manifest();
    let mut record = Record::of(&manifest);
    let (skipped, have) = record.answer(&mut choices);
    let selection = Selection::without(manifest.clone(), skipped);
    let mut receiver = Receiver::new(manifest.clone(), EarlyData::default());
    receiver.accept(Arc::new(selection), &have);
    record.check_complete(&receiver);
    while choices.are_left() {
        record.step(&mut receiver, &mut choices);
        record.check_complete(&receiver);
    }
}

impl Record<'_> {
    fn due(&self) -> Option<EntryIndex> {
        let is_left = |entry: &EntryIndex| self.ended.is_none_or(|ended| *entry > ended);
        self.files.keys().copied().find(is_left)
    }

    fn check_complete(&self, receiver: &Receiver) {
        assert_eq!(receiver.is_complete(), self.due().is_none());
    }

    fn file(&mut self, entry: EntryIndex) -> &mut File {
        self.files
            .get_mut(&entry)
            .expect("what was let through is a wanted file")
    }

    fn step(&mut self, receiver: &mut Receiver, choices: &mut Choices<'_>) {
        let what = choices.byte();
        // Mostly what is due, or nothing would ever get far.
        let entry = match (what & 0x80, self.due()) {
            (0, Some(due)) => due,
            _ => choices.entry(),
        };
        match what % 6 {
            0 => self.chunk(receiver, entry, choices),
            1 => {
                let index = choices.chunk();
                if receiver.digest(entry, index).is_ok() {
                    self.digest(entry, index);
                }
            }
            2 => self.compare(receiver, entry, choices),
            3 => {
                let size = size_bytes(self.manifest, entry);
                let right = size.unwrap_or_default() as usize;
                let bytes = right.wrapping_add_signed(choices.byte() as usize as isize % 3 - 1);
                if receiver.small_file(entry, bytes).is_ok() {
                    assert_eq!((Some(entry), bytes), (self.due(), right));
                    assert!(bytes <= CHUNK_BYTES as usize);
                    let file = self.file(entry);
                    assert!(file.have.is_none() && file.came.is_empty());
                    self.ended = Some(entry);
                }
            }
            4 => {
                if receiver.file_end(entry).is_ok() {
                    self.end(entry);
                }
            }
            _ => {
                if let Ok(matters) = receiver.file_failed(entry) {
                    assert!(matters);
                    assert_eq!(self.due(), Some(entry));
                    self.ended = Some(entry);
                }
            }
        }
    }

    fn chunk(&mut self, receiver: &mut Receiver, entry: EntryIndex, choices: &mut Choices<'_>) {
        let index = choices.chunk();
        let lengths = self.manifest.lengths(entry);
        let place = lengths.and_then(|lengths| lengths.place(index));
        let right = place.map_or(1, ChunkPlace::length_bytes);
        let bytes = match choices.byte() {
            byte @ ..8 => byte as usize,
            _ => right,
        };
        let Ok(given) = receiver.chunk(entry, index, bytes) else {
            return;
        };
        let given = given.expect("what is due is wanted");
        assert_eq!((self.due(), Some(given)), (Some(entry), place));
        assert_eq!((given.length_bytes(), given.index()), (bytes, index));
        let end = given.offset_bytes() + bytes as u64;
        let size = size_bytes(self.manifest, entry);
        assert!(Some(end) <= size, "written beyond the declared size");
        let file = self.file(entry);
        let is_new = index.get() >= file.have.unwrap_or_default();
        assert!(is_new || file.differing.pop_front() == Some(index));
        assert!(file.came.insert(index), "the same chunk twice");
    }

    fn digest(&mut self, entry: EntryIndex, index: ChunkIndex) {
        assert!(self.last_digest < Some((entry, index)), "digests go back");
        self.last_digest = Some((entry, index));
        let file = self.file(entry);
        assert!(index.get() == file.digests && Some(index.get()) < file.have);
        file.digests += 1;
    }

    /// What this side itself says, and only after it has digests.
    fn compare(&mut self, receiver: &mut Receiver, entry: EntryIndex, choices: &mut Choices<'_>) {
        let Some(file) = self.files.get_mut(&entry) else {
            return;
        };
        if file.digests == file.compared {
            return;
        }
        let chunks = file.compared + 1 + choices.below(file.digests - file.compared);
        let differs = choices.byte();
        let newly = ChunkIndex::new(file.compared).until(ChunkIndex::new(chunks));
        let differing: Vec<_> = newly
            .filter(|index| differs >> (index.get() % 8) & 1 == 1)
            .collect();
        let runs: Vec<_> = differing.iter().map(|&index| (index, 1)).collect();
        receiver.compared(entry, chunks, &runs);
        file.compared = chunks;
        file.differing.extend(differing);
    }

    fn end(&mut self, entry: EntryIndex) {
        assert_eq!(self.due(), Some(entry));
        let end = self.manifest.lengths(entry).expect("a file").end();
        let file = self.file(entry);
        assert!(file.differing.is_empty(), "what differs has not come");
        for index in ChunkIndex::FIRST.until(end) {
            let is_here =
                index.get() < file.have.unwrap_or_default() && index.get() < file.compared;
            assert!(
                is_here || file.came.contains(&index),
                "chunk {index} is missing"
            );
        }
        self.ended = Some(entry);
    }
}
