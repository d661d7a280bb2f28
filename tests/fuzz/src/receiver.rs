//! The receiver's state machine against a record of everything it has let
//! through: each chunk once, in its place, and no file complete that is not.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use pinhole_transfer::{
    Manifest, Selection,
    chunking::{CHUNK_BYTES, ChunkPlace},
    manifest::Early,
    receiver::Receiver,
};

use super::{Choices, files, size_bytes};

/// What was let through of one file.
#[derive(Default)]
struct File {
    have: Option<u32>,
    came: BTreeSet<u32>,
    digests: u32,
    compared: u32,
    /// Chunks that must come after all, in this order.
    differing: VecDeque<u32>,
}

struct Record<'a> {
    manifest: &'a Manifest,
    files: BTreeMap<u32, File>,
    /// Up to where files have come to their end.
    ended: Option<u32>,
    last_digest: Option<(u32, u32)>,
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
    fn answer(&mut self, choices: &mut Choices<'_>) -> (BTreeSet<u32>, BTreeMap<u32, u32>) {
        let mut have = BTreeMap::new();
        let skipped = choices.byte();
        let is_skipped = |entry: &u32| skipped >> (entry % 8) & 1 == 1;
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

/// A manifest, and what the sender does when its files come along.
fn hold_along(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let manifest = choices.manifest();
    let all = files(&manifest).map(|entry| (entry, File::default()));
    let mut record = Record {
        files: all.collect(),
        ..Record::of(&manifest)
    };
    let mut receiver = Receiver::unanswered(manifest.clone(), Early::Everything);
    record.check_complete(&receiver);
    while choices.are_left() {
        record.step(&mut receiver, &mut choices);
        record.check_complete(&receiver);
        let is_whole = |file: &File| file.came.is_empty() && file.digests == 0;
        assert!(record.files.values().all(is_whole), "a piece of a file");
    }
}

/// What was let through ahead of the answer or late.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ahead {
    Chunk,
    Failure,
}

/// Tries something while only what goes ahead may come. Returns what was let
/// through, and whether it is wanted.
fn come_ahead(
    receiver: &mut Receiver,
    manifest: &Manifest,
    choices: &mut Choices<'_>,
) -> Option<(Ahead, bool)> {
    let first = files(manifest).next().expect("a file");
    let (what, entry, index) = (choices.byte(), choices.number(), choices.number());
    let place = manifest.lengths(first).and_then(|it| it.place(0));
    let bytes = match what & 0x40 {
        0 => place.map_or(0, ChunkPlace::length_bytes),
        _ => choices.byte() as usize,
    };
    let is_first = entry == first;
    match what % 5 {
        0 => {
            let came = receiver.chunk(entry, index, bytes).ok()?;
            assert!(is_first && index == 0);
            assert_eq!(Some(bytes), place.map(ChunkPlace::length_bytes));
            assert!(came.is_none() || came == place);
            Some((Ahead::Chunk, came.is_some()))
        }
        1 => {
            let matters = receiver.file_failed(entry).ok()?;
            assert!(is_first);
            Some((Ahead::Failure, matters))
        }
        2 => {
            assert!(receiver.digest(entry, index).is_err());
            None
        }
        3 => {
            assert!(receiver.small_file(entry, bytes).is_err());
            None
        }
        _ => {
            assert!(receiver.file_end(entry).is_err());
            None
        }
    }
}

/// A manifest, and what the sender does when its first chunk goes ahead of the
/// answer: before that, and after.
fn hold_ahead(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let manifest = choices.manifest();
    let Some(first) = files(&manifest)
        .next()
        .filter(|_| manifest.has_first_chunk())
    else {
        return;
    };
    let mut receiver = Receiver::unanswered(manifest.clone(), Early::FirstChunk);
    let mut came = None;
    for _ in 0..choices.below(4) {
        assert!(receiver.is_ahead() && !receiver.drops_next());
        if let Some((what, is_wanted)) = come_ahead(&mut receiver, &manifest, &mut choices) {
            assert!(came.is_none() && is_wanted, "more than one");
            came = Some(what);
        }
    }
    let mut record = Record::of(&manifest);
    let (skipped, have) = record.answer(&mut choices);
    let is_wanted = !skipped.contains(&first) && !have.contains_key(&first);
    let selection = Selection::without(manifest.clone(), skipped);
    let (mut receiver, counts) = receiver.accepted(Arc::new(selection), &have);
    assert_eq!(counts, is_wanted);
    while came.is_none() && choices.are_left() {
        assert_eq!(receiver.drops_next(), !is_wanted);
        record.check_complete(&receiver);
        let late = come_ahead(&mut receiver, &manifest, &mut choices);
        came = late.map(|(what, is_taken)| {
            assert_eq!(is_taken, is_wanted);
            what
        });
    }
    match came.filter(|_| is_wanted) {
        Some(Ahead::Chunk) => {
            record.file(first).came.insert(0);
        }
        Some(Ahead::Failure) => record.ended = Some(first),
        None => {}
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
    hold_along(bytes);
    hold_ahead(bytes);
    let mut choices = Choices(bytes);
    let manifest = choices.manifest();
    let mut record = Record::of(&manifest);
    let (skipped, have) = record.answer(&mut choices);
    let selection = Selection::without(manifest.clone(), skipped);
    let mut receiver = Receiver::new(Arc::new(selection), &have);
    record.check_complete(&receiver);
    while choices.are_left() {
        record.step(&mut receiver, &mut choices);
        record.check_complete(&receiver);
    }
}

impl Record<'_> {
    fn due(&self) -> Option<u32> {
        let is_left = |entry: &u32| self.ended.is_none_or(|ended| *entry > ended);
        self.files.keys().copied().find(is_left)
    }

    fn check_complete(&self, receiver: &Receiver) {
        assert_eq!(receiver.is_complete(), self.due().is_none());
    }

    fn file(&mut self, entry: u32) -> &mut File {
        self.files
            .get_mut(&entry)
            .expect("what was let through is a wanted file")
    }

    fn step(&mut self, receiver: &mut Receiver, choices: &mut Choices<'_>) {
        let what = choices.byte();
        // Mostly what is due, or nothing would ever get far.
        let entry = match (what & 0x80, self.due()) {
            (0, Some(due)) => due,
            _ => choices.number(),
        };
        match what % 6 {
            0 => self.chunk(receiver, entry, choices),
            1 => {
                let index = choices.number();
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

    fn chunk(&mut self, receiver: &mut Receiver, entry: u32, choices: &mut Choices<'_>) {
        let index = choices.number();
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
        let is_new = index >= file.have.unwrap_or_default();
        assert!(is_new || file.differing.pop_front() == Some(index));
        assert!(file.came.insert(index), "the same chunk twice");
    }

    fn digest(&mut self, entry: u32, index: u32) {
        assert!(self.last_digest < Some((entry, index)), "digests go back");
        self.last_digest = Some((entry, index));
        let file = self.file(entry);
        assert!(index == file.digests && Some(index) < file.have);
        file.digests += 1;
    }

    /// What this side itself says, and only after it has digests.
    fn compare(&mut self, receiver: &mut Receiver, entry: u32, choices: &mut Choices<'_>) {
        let Some(file) = self.files.get_mut(&entry) else {
            return;
        };
        if file.digests == file.compared {
            return;
        }
        let chunks = file.compared + 1 + choices.below(file.digests - file.compared);
        let differs = choices.byte();
        let newly = file.compared..chunks;
        let differing: Vec<u32> = newly
            .filter(|index| differs >> (index % 8) & 1 == 1)
            .collect();
        let runs: Vec<_> = differing.iter().map(|&index| (index, 1)).collect();
        receiver.compared(entry, chunks, &runs);
        file.compared = chunks;
        file.differing.extend(differing);
    }

    fn end(&mut self, entry: u32) {
        assert_eq!(self.due(), Some(entry));
        let chunks = self.manifest.lengths(entry).expect("a file").chunks();
        let file = self.file(entry);
        assert!(file.differing.is_empty(), "what differs has not come");
        for index in 0..chunks {
            let is_here = index < file.have.unwrap_or_default() && index < file.compared;
            assert!(
                is_here || file.came.contains(&index),
                "chunk {index} is missing"
            );
        }
        self.ended = Some(entry);
    }
}
