//! The receiving side of one transfer as a state machine without I/O. Files
//! come in the order of the manifest, each from its first chunk to its last,
//! so one cursor says of everything that arrives whether it is due. It is
//! asked before a byte of the data is read.
//!
//! Files that come along with their offer are all due, whatever the receiver
//! will choose, and each whole.
//!
//! Of a file that the receiver has in part, the first chunks stay out; their
//! digests come under a cursor of their own, ahead of the data or beside it.
//! Those that turn out to differ come last.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
    sync::Arc,
};

use crate::{
    choices::Selection,
    lengths::{CHUNK_BYTES, ChunkPlace},
    manifest::{Entry, Manifest},
    violation::Violation,
};

/// See the module.
#[derive(Debug)]
pub struct Receiver {
    selection: Arc<Selection>,
    /// Every file comes whole.
    comes_along: bool,
    /// The file that is due; the count of entries when none is.
    entry: u32,
    /// The chunk of it that is due, unless only differing ones are left.
    chunk: u32,
    had: BTreeMap<u32, Had>,
    /// The file and the chunk whose digest is due.
    digest: (u32, u32),
}

/// A file of which the first chunks are here.
#[derive(Debug)]
struct Had {
    chunks: u32,
    /// How many of them were compared.
    compared: u32,
    /// Those that must come after all.
    differing: VecDeque<Range<u32>>,
}

impl Receiver {
    /// A transfer of which these files were accepted. `have` says of which of
    /// them how many chunks are here.
    #[must_use]
    pub fn new(selection: Arc<Selection>, have: &BTreeMap<u32, u32>) -> Self {
        let had = |chunks| Had {
            chunks,
            compared: 0,
            differing: VecDeque::new(),
        };
        let mut receiver = Self {
            selection,
            comes_along: false,
            entry: 0,
            chunk: 0,
            had: have.iter().map(|(&e, &chunks)| (e, had(chunks))).collect(),
            digest: (0, 0),
        };
        receiver.move_on(0);
        receiver
    }

    /// An offer whose files come along, before anybody was asked.
    #[must_use]
    pub fn along(manifest: Arc<Manifest>) -> Self {
        let all = Selection::without(manifest, BTreeSet::new());
        Self {
            comes_along: true,
            ..Self::new(Arc::new(all), &BTreeMap::new())
        }
    }

    /// Whether every file has come to its end.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.entry == self.selection.manifest().count()
    }

    /// A chunk of `data_bytes` is about to come. Returns where it goes.
    ///
    /// # Errors
    /// It is not the one that is due, or not as long as it must be.
    pub fn chunk(
        &mut self,
        entry: u32,
        index: u32,
        data_bytes: usize,
    ) -> Result<ChunkPlace, Violation> {
        self.check_due(entry)?;
        let not_due = Violation::Chunk { entry, index };
        let lengths = self
            .selection
            .manifest()
            .lengths(entry)
            .ok_or(not_due.clone())?;
        let is_new = self.chunk < lengths.chunks();
        if self.comes_along {
            return Err(not_due);
        }
        let differing = self.had.get_mut(&entry).map(|had| &mut had.differing);
        let mut next_differing = differing.filter(|_| !is_new);
        let due = match &next_differing {
            Some(differing) => differing.front().map(|run| run.start),
            None => Some(self.chunk),
        };
        let place = lengths.place(index).ok_or(not_due.clone())?;
        if due != Some(index) || place.length_bytes() != data_bytes {
            return Err(not_due);
        }
        match &mut next_differing {
            Some(differing) => {
                if let Some(run) = differing.front_mut() {
                    run.start += 1;
                }
                differing.pop_front_if(|run| Range::is_empty(run));
            }
            None => self.chunk += 1,
        }
        Ok(place)
    }

    /// The digest of a chunk that is here has come.
    ///
    /// # Errors
    /// It is not due, or the chunk is not here.
    pub fn digest(&mut self, entry: u32, index: u32) -> Result<(), Violation> {
        // A file that the sender cannot read is left in the middle.
        let is_next = (entry, index) == self.digest || (entry > self.digest.0 && index == 0);
        if !is_next || self.had.get(&entry).is_none_or(|had| index >= had.chunks) {
            return Err(Violation::Chunk { entry, index });
        }
        self.digest = (entry, index + 1);
        Ok(())
    }

    /// This side has compared the first `chunks` of a file, and misses these
    /// of the newly compared.
    pub fn compared(&mut self, entry: u32, chunks: u32, differing: &[(u32, u32)]) {
        if let Some(had) = self.had.get_mut(&entry) {
            had.compared = chunks;
            let runs = differing.iter().map(|(first, count)| *first..first + count);
            had.differing.extend(runs);
        }
    }

    /// A whole small file of `data_bytes` has come in a batch.
    ///
    /// # Errors
    /// It is not the one that is due, or not as long as it must be.
    pub fn small_file(&mut self, entry: u32, data_bytes: usize) -> Result<(), Violation> {
        self.check_due(entry)?;
        let declared = self
            .selection
            .manifest()
            .entry(entry)
            .and_then(Entry::file_size_bytes);
        let fits = declared == u64::try_from(data_bytes).ok() && data_bytes <= CHUNK_BYTES as usize;
        if self.chunk != 0 || !fits || self.had.contains_key(&entry) {
            return Err(Violation::Chunk { entry, index: 0 });
        }
        self.move_on(entry + 1);
        Ok(())
    }

    /// The sender says that all chunks of a file were sent.
    ///
    /// # Errors
    /// The file is not due or misses chunks.
    pub fn file_end(&mut self, entry: u32) -> Result<(), Violation> {
        self.check_due(entry)?;
        let chunks = self
            .selection
            .manifest()
            .lengths(entry)
            .map(crate::lengths::Lengths::chunks);
        let is_compared = |had: &Had| had.compared == had.chunks && had.differing.is_empty();
        if self.comes_along
            || chunks != Some(self.chunk)
            || !self.had.get(&entry).is_none_or(is_compared)
        {
            return Err(Violation::Chunk {
                entry,
                index: self.chunk,
            });
        }
        self.move_on(entry + 1);
        Ok(())
    }

    /// The sender gives up a file, begun or not.
    ///
    /// # Errors
    /// The file is not due.
    pub fn file_failed(&mut self, entry: u32) -> Result<(), Violation> {
        self.check_due(entry)?;
        self.move_on(entry + 1);
        Ok(())
    }

    fn check_due(&self, entry: u32) -> Result<(), Violation> {
        if entry != self.entry || self.is_complete() {
            return Err(Violation::Entry(entry));
        }
        Ok(())
    }

    /// To the first file at or behind `entry`.
    fn move_on(&mut self, entry: u32) {
        self.entry = self.selection.next_file(entry);
        self.chunk = self.had.get(&self.entry).map_or(0, |had| had.chunks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::ManifestBuilder;

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

    fn receiver_of(skipped: &[u32], have: &BTreeMap<u32, u32>) -> Receiver {
        let skipped = skipped.iter().copied().collect();
        let selection = Selection::without(manifest(), skipped);
        Receiver::new(Arc::new(selection), have)
    }

    fn receiver_with(have: &BTreeMap<u32, u32>) -> Receiver {
        receiver_of(&[], have)
    }

    fn receiver() -> Receiver {
        receiver_with(&BTreeMap::new())
    }

    #[test]
    fn what_is_here_stays_out_but_for_what_differs() {
        let mut receiver = receiver_with(&BTreeMap::from([(1, 2), (2, 1)]));
        // The last chunk and the digests come as they like.
        receiver.digest(1, 0).unwrap();
        receiver.chunk(1, 2, 5).unwrap();
        receiver.digest(1, 1).unwrap();
        receiver.digest(2, 0).unwrap();
        receiver.compared(2, 1, &[]);
        receiver.compared(1, 1, &[]);
        let unfinished = Err(Violation::Chunk { entry: 1, index: 3 });
        assert_eq!(receiver.file_end(1), unfinished, "not all compared");
        receiver.compared(1, 2, &[(1, 1)]);
        assert_eq!(receiver.file_end(1), unfinished, "one differs");
        let wrong = Violation::Chunk { entry: 1, index: 0 };
        assert_eq!(receiver.chunk(1, 0, MIB), Err(wrong), "this does not");
        receiver.chunk(1, 1, MIB).unwrap();
        let twice = Violation::Chunk { entry: 1, index: 1 };
        assert_eq!(receiver.chunk(1, 1, MIB), Err(twice));
        receiver.file_end(1).unwrap();
        assert!(receiver.small_file(2, 7).is_err(), "it is here");
        receiver.file_end(2).unwrap();
        receiver.small_file(3, 0).unwrap();
        assert!(receiver.is_complete());
    }

    #[test]
    fn digests_come_in_order_and_of_what_is_here() {
        let have = BTreeMap::from([(1, 2), (2, 1)]);
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
            let first = receiver.digest(first.0, first.1);
            match then {
                Some((entry, index)) => {
                    first.unwrap();
                    assert!(receiver.digest(entry, index).is_err(), "{entry} {index}");
                }
                None => assert!(first.is_err()),
            }
        }
        // A file that could not be read to its end.
        let mut receiver = receiver_with(&have);
        receiver.digest(1, 0).unwrap();
        receiver.digest(2, 0).unwrap();
    }

    #[test]
    fn everything_in_order_completes() {
        let mut receiver = receiver();
        for (index, data_bytes) in [(0, MIB), (1, MIB), (2, 5)] {
            let place = receiver.chunk(1, index, data_bytes).unwrap();
            assert_eq!(place.offset_bytes(), u64::from(index) * MIB as u64);
        }
        receiver.file_end(1).unwrap();
        receiver.small_file(2, 7).unwrap();
        assert!(!receiver.is_complete());
        receiver.file_end(3).unwrap();
        assert!(receiver.is_complete());
        assert_eq!(receiver.file_end(4), Err(Violation::Entry(4)));
    }

    #[test]
    fn what_is_skipped_is_not_due() {
        let mut receiver = receiver_of(&[0, 1, 3], &BTreeMap::new());
        assert_eq!(receiver.chunk(1, 0, MIB), Err(Violation::Entry(1)));
        receiver.small_file(2, 7).unwrap();
        assert!(receiver.is_complete());
        assert!(receiver_of(&[1, 2, 3], &BTreeMap::new()).is_complete());
    }

    #[test]
    fn a_file_may_be_given_up_at_any_point() {
        let mut receiver = receiver();
        receiver.chunk(1, 0, MIB).unwrap();
        receiver.file_failed(1).unwrap();
        receiver.file_failed(2).unwrap();
        receiver.small_file(3, 0).unwrap();
        assert!(receiver.is_complete());
    }

    #[test]
    fn what_comes_along_comes_whole_and_once() {
        let mut receiver = Receiver::along(manifest());
        let no_chunk = Err(Violation::Chunk { entry: 1, index: 0 });
        assert_eq!(receiver.chunk(1, 0, MIB), no_chunk);
        receiver.file_failed(1).unwrap();
        receiver.small_file(2, 7).unwrap();
        assert_eq!(receiver.small_file(2, 7), Err(Violation::Entry(2)));
        let no_end = Err(Violation::Chunk { entry: 3, index: 0 });
        assert_eq!(receiver.file_end(3), no_end);
        assert_eq!(receiver.digest(3, 0), no_end);
        receiver.small_file(3, 0).unwrap();
        assert!(receiver.is_complete());
        assert_eq!(receiver.small_file(3, 0), Err(Violation::Entry(3)));
    }

    #[test]
    fn a_lying_sender_is_caught_before_its_data_is_read() {
        fn at<T>(entry: u32, index: u32) -> Result<T, Violation> {
            Err(Violation::Chunk { entry, index })
        }
        // What is sent first, what is sent then, and the answer.
        assert_eq!(receiver().chunk(1, 1, MIB), at(1, 1), "a gap");
        assert_eq!(receiver().chunk(1, 0, 5), at(1, 0), "too short");
        assert_eq!(receiver().chunk(1, 0, MIB + 1), at(1, 0), "too long");
        assert_eq!(receiver().chunk(1, 3, 1), at(1, 3), "beyond the end");
        assert_eq!(
            receiver().chunk(1, u32::MAX, MIB),
            at(1, u32::MAX),
            "far beyond"
        );
        assert_eq!(
            receiver().chunk(2, 0, 7),
            Err(Violation::Entry(2)),
            "not due"
        );
        assert_eq!(
            receiver().chunk(0, 0, 1),
            Err(Violation::Entry(0)),
            "a folder"
        );
        assert_eq!(
            receiver().chunk(99, 0, 1),
            Err(Violation::Entry(99)),
            "unknown"
        );
        assert_eq!(receiver().small_file(1, 7), at(1, 0), "wrong size");
        assert_eq!(receiver().file_end(1), at(1, 0), "no chunks");
        assert_eq!(
            receiver().file_failed(2),
            Err(Violation::Entry(2)),
            "not due"
        );

        let mut receiver = receiver();
        receiver.chunk(1, 0, MIB).unwrap();
        assert_eq!(receiver.chunk(1, 0, MIB), at(1, 0), "twice");
        assert_eq!(
            receiver.small_file(1, 2_097_157),
            at(1, 0),
            "begun as chunks"
        );
    }
}
