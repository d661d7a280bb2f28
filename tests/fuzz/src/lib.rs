//! What must hold whatever bytes a peer sends. Each target takes bytes and
//! panics when it does not hold; the fuzzer looks for such bytes, and an
//! ordinary test replays the corpus.

pub mod frames;
pub mod manifest;
pub mod receiver;
pub mod rendezvous;
pub mod sender;
mod streams;

use std::sync::Arc;

use pinhole_transfer::{
    ChunkIndex, Entry, EntryIndex, Manifest, SafePath, chunking::CHUNK_BYTES,
    manifest::ManifestBuilder,
};

/// A target takes bytes and panics when something does not hold.
pub type Target = fn(&[u8]);

/// Every target, by the name of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("frames", frames::hold),
    ("manifest", manifest::hold),
    ("receiver", receiver::hold),
    ("rendezvous", rendezvous::hold),
    ("sender", sender::hold),
];

/// Bytes as a source of decisions; zeroes when they are used up.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    const fn are_left(&self) -> bool {
        !self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let (&byte, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        byte
    }

    fn below(&mut self, limit: u32) -> u32 {
        u32::from(self.byte()) % limit.max(1)
    }

    /// Mostly a small number, of which there are more that matter.
    fn number(&mut self) -> u32 {
        match self.byte() {
            255 => u32::MAX - self.below(4),
            254 => u32::from_be_bytes([self.byte(), self.byte(), self.byte(), self.byte()]),
            small => u32::from(small % 16),
        }
    }

    fn entry(&mut self) -> EntryIndex {
        EntryIndex::new(self.number())
    }

    fn chunk(&mut self) -> ChunkIndex {
        ChunkIndex::new(self.number())
    }

    /// Up to three runs: where each begins, and how long it is.
    fn runs<I>(&mut self, index: fn(u32) -> I) -> Vec<(I, u32)> {
        (0..self.below(4))
            .map(|_| (index(self.number()), self.number()))
            .collect()
    }

    /// Up to eight files and folders, the files as long as it gets interesting.
    fn manifest(&mut self) -> Arc<Manifest> {
        let chunk = u64::from(CHUNK_BYTES);
        let sizes = [
            0,
            1,
            7,
            chunk - 1,
            chunk,
            chunk + 1,
            2 * chunk,
            4 * chunk + 5,
        ];
        let mut builder = ManifestBuilder::default();
        for number in 0..=self.below(8) {
            let path = SafePath::parse(&number.to_string()).expect("a number");
            let modified_ns = None;
            let entry = match sizes.get(self.below(10) as usize) {
                Some(&size_bytes) => Entry::File {
                    path,
                    size_bytes,
                    modified_ns,
                    executable: false,
                },
                None => Entry::Folder { path, modified_ns },
            };
            builder.push(entry).expect("a sound entry");
        }
        Arc::new(builder.build())
    }
}

/// The places of the files of a manifest.
fn files(manifest: &Manifest) -> impl Iterator<Item = EntryIndex> {
    let all = EntryIndex::FIRST.until(manifest.end());
    all.filter(|&entry| manifest.lengths(entry).is_some())
}

/// Of a file.
fn size_bytes(manifest: &Manifest, entry: EntryIndex) -> Option<u64> {
    manifest.entry(entry).and_then(Entry::file_size_bytes)
}
