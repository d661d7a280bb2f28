//! BLAKE3 of files, chunk by chunk. BLAKE3 is a tree: a chunk of a file is one of
//! its subtrees, and the root over all chunks is the file's hash, which `b3sum`
//! prints.

use std::fmt;

use blake3::Hasher;
use blake3::hazmat::{
    ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root,
};
use serde::{Deserialize, Serialize};

use crate::protocol::chunking::ChunkPlace;
use crate::protocol::index::ChunkIndex;

/// Bytes of a [`Digest`].
pub const DIGEST_BYTES: usize = 32;

/// A BLAKE3 hash, or the chaining value of one of its subtrees; in JSON and for
/// people, 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; DIGEST_BYTES]);

impl Digest {
    /// The digest of a chunk's bytes, which depends on where in the file it lies:
    /// its chaining value, or the file's hash if it is the only one.
    #[must_use]
    pub fn of_chunk(place: ChunkPlace, bytes: &[u8]) -> Self {
        if place.is_whole_file() {
            return Self::of_file(bytes);
        }
        let mut hasher = Hasher::new();
        hasher.set_input_offset(place.offset_bytes()).update(bytes);
        Self(hasher.finalize_non_root())
    }

    /// The hash of a file that is here as a whole.
    #[must_use]
    pub fn of_file(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }

    /// As it came from the wire.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; DIGEST_BYTES]) -> Self {
        Self(bytes)
    }

    /// As it goes onto the wire.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; DIGEST_BYTES] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Digest({self})")
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// Text that is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is 64 hexadecimal digits")]
pub struct DigestError;

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, DigestError> {
        let hash = blake3::Hash::from_hex(text);
        hash.map(|hash| Self(hash.into())).map_err(|_| DigestError)
    }
}

/// The tree over a file's chunk digests, or over those from some chunk on,
/// growing by one chunk at a time and holding about two digests a level.
///
/// ```
/// use pinhole_transfer::ChunkIndex;
/// use pinhole_transfer::chunking::Chunking;
/// use pinhole_transfer::digest::{Digest, Tree};
///
/// let file = vec![7; 3_000_000];
/// let lengths = Chunking::new(file.len() as u64).unwrap();
/// let mut tree = Tree::default();
/// let places = lengths.places_from(ChunkIndex::FIRST);
/// for (place, chunk) in places.zip(file.chunks(1 << 20)) {
///     tree.push(Digest::of_chunk(place, chunk));
/// }
/// assert_eq!(tree.root(), Digest::of_file(&file));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// The number of the chunk that is added next.
    next: u64,
    /// Subtrees with their heights. Two siblings are merged when something follows
    /// them: only then is it known that they are not the root's.
    subtrees: Vec<(u32, ChainingValue)>,
    /// The root if the first chunk stays the only one.
    only: Option<Digest>,
}

impl Tree {
    /// The part of a tree that starts at this chunk.
    #[must_use]
    pub fn starting_at(chunk: ChunkIndex) -> Self {
        Self {
            next: u64::from(chunk.get()),
            subtrees: Vec::new(),
            only: None,
        }
    }

    /// The first chunk, which may be the only one, has this hash as a whole file.
    pub const fn set_only(&mut self, hash: Digest) {
        self.only = Some(hash);
    }

    /// Adds the next chunk's digest.
    pub fn push(&mut self, chunk: Digest) {
        self.push_subtree(0, chunk.0);
    }

    /// Adds a part that starts at this tree's next chunk.
    pub fn append(&mut self, part: Self) {
        self.only = self.only.or(part.only);
        for (height, subtree) in part.subtrees {
            self.push_subtree(height, subtree);
        }
    }

    fn push_subtree(&mut self, height: u32, subtree: ChainingValue) {
        self.merge();
        self.next += 1 << height;
        self.subtrees.push((height, subtree));
    }

    /// Merges the last subtree with its sibling, and their parent with its own, as
    /// long as there is one.
    fn merge(&mut self) {
        while let [.., (left_height, left), (height, right)] = *self.subtrees {
            let place = (self.next >> height) - 1;
            // The sibling of one in an even place is yet to come; that of one in an
            // odd place may be in another part.
            if left_height != height || place.is_multiple_of(2) {
                return;
            }
            let parent = merge_subtrees_non_root(&left, &right, Mode::Hash);
            self.subtrees.truncate(self.subtrees.len() - 2);
            self.subtrees.push((height + 1, parent));
        }
    }

    /// The root over all chunks pushed: the hash of the file that they make.
    #[must_use]
    pub fn root(&self) -> Digest {
        let Some(((_, right), rest)) = self.subtrees.split_last() else {
            return Digest::of_file(&[]);
        };
        if let Some(only) = self.only.filter(|_| self.next == 1) {
            return only;
        }
        let Some(((_, first), between)) = rest.split_first() else {
            return Digest(*right);
        };
        let right = between.iter().rev().fold(*right, |right, (_, left)| {
            merge_subtrees_non_root(left, &right, Mode::Hash)
        });
        Digest(merge_subtrees_root(first, &right, Mode::Hash).into())
    }
}

/// The digest of several files: the hash of what `b3sum` prints for them.
#[derive(Debug, Clone, Default)]
pub struct Listing(Hasher);

impl Listing {
    /// Adds the line of the next file.
    pub fn push(&mut self, hash: Digest, path: &str) {
        self.0.update(format!("{hash}  {path}\n").as_bytes());
    }

    /// The hash over all lines.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::chunking::{CHUNK_BYTES, Chunking};

    /// The input of the test vectors that BLAKE3 publishes.
    fn input(length: usize) -> Vec<u8> {
        (0..=250).cycle().take(length).collect()
    }

    fn chunks(file: &[u8]) -> Vec<Digest> {
        let lengths = Chunking::new(file.len() as u64).unwrap();
        let places = lengths.places_from(ChunkIndex::FIRST);
        let bytes = file.chunks(CHUNK_BYTES as usize);
        places
            .zip(bytes)
            .map(|(place, bytes)| Digest::of_chunk(place, bytes))
            .collect()
    }

    fn tree(chunks: &[Digest]) -> Tree {
        let mut tree = Tree::default();
        chunks.iter().for_each(|chunk| tree.push(*chunk));
        tree
    }

    /// From `test_vectors.json` of BLAKE3, by its reference implementation.
    #[test]
    fn published_hashes() {
        const PUBLISHED: [(usize, &str); 4] = [
            (
                0,
                "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
            ),
            (
                1,
                "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
            ),
            (
                1024,
                "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
            ),
            (
                102_400,
                "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085",
            ),
        ];
        for (length, hash) in PUBLISHED {
            let file = input(length);
            assert_eq!(Digest::of_file(&file).to_string(), hash);
            assert_eq!(tree(&chunks(&file)).root().to_string(), hash);
        }
    }

    #[test]
    fn the_root_over_chunks_is_the_hash_of_the_file() {
        let file = input(9 * CHUNK_BYTES as usize);
        for whole in 0..=8 {
            for more in [0, 1, CHUNK_BYTES as usize - 1] {
                let file = &file[..whole * CHUNK_BYTES as usize + more];
                assert_eq!(tree(&chunks(file)).root(), Digest::of_file(file));
            }
        }
    }

    #[test]
    fn the_same_chunk_elsewhere_has_another_digest() {
        let chunks = chunks(&vec![7; 3 * CHUNK_BYTES as usize]);
        assert_ne!(chunks[0], chunks[1]);
        let alone = Digest::of_file(&vec![7; CHUNK_BYTES as usize]);
        assert_ne!(chunks[0], alone);
    }

    #[test]
    fn a_tree_in_two_parts_is_the_same_tree() {
        let chunks: Vec<_> = (0u32..70)
            .map(|number| Digest::of_file(&number.to_be_bytes()))
            .collect();
        for count in 0..=chunks.len() {
            let whole = tree(&chunks[..count]);
            for cut in 0..=count {
                let mut part = Tree::starting_at(ChunkIndex::new(u32::try_from(cut).unwrap()));
                chunks[cut..count].iter().for_each(|it| part.push(*it));
                let mut parted = tree(&chunks[..cut]);
                parted.append(part);
                assert_eq!(parted.root(), whole.root(), "{cut} of {count}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_listing_is_what_b3sum_prints(names in prop::collection::vec("[a-z/]{1,9}", 0..9)) {
            let (mut listing, mut printed) = (Listing::default(), String::new());
            for name in &names {
                let hash = blake3::hash(name.as_bytes());
                listing.push(Digest::of_file(name.as_bytes()), name);
                printed += &format!("{hash}  {name}\n");
            }
            prop_assert_eq!(listing.digest(), Digest::of_file(printed.as_bytes()));
        }
    }

    #[test]
    fn a_digest_reads_back_from_its_text() {
        let digest = Digest::of_file(b"x");
        assert_eq!(Digest::try_from(digest.to_string()), Ok(digest));
        for text in ["", "00", &"g".repeat(64), &"0".repeat(66), "é"] {
            assert_eq!(Digest::try_from(text.to_owned()), Err(DigestError));
        }
    }
}
