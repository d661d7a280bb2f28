//! Digests of chunks and the Merkle root that closes a file: SHA-256 in the
//! tree of RFC 9162 section 2.1, whose leaves and nodes hash differently, so
//! that a node can never pass for a leaf.
//!
//! Leaves are much shorter than chunks: those of one chunk are hashed side by
//! side, which one long message cannot be. A chunk's digest is the tree over its
//! leaves, and a file's the tree over its chunks.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

const LEAF: [u8; 1] = [0];
const NODE: [u8; 1] = [1];

/// Bytes of a leaf of a chunk, but for its last. Of whole 32 KiB, those that are
/// read side by side would meet in one set of a core's cache, and hashing take a
/// tenth longer, or more.
pub const LEAF_BYTES: usize = 32 * 1024 - 64;
/// Leaves that are hashed side by side: as many as the widest processors do.
const SIDE_BY_SIDE: usize = 32;

/// Bytes of a [`Digest`].
pub const DIGEST_BYTES: usize = 32;

/// A SHA-256 digest; in JSON and for people, 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; DIGEST_BYTES]);

impl Digest {
    /// The digest of a chunk's bytes; one without any is an empty leaf.
    #[must_use]
    pub fn of_chunk(bytes: &[u8]) -> Self {
        let mut leaves = [&[][..]; SIDE_BY_SIDE];
        let mut digests = [[0; DIGEST_BYTES]; SIDE_BY_SIDE];
        let mut tree = Tree::default();
        let mut rest = bytes;
        loop {
            let mut count = 0;
            for leaf in &mut leaves {
                (*leaf, rest) = rest.split_at(rest.len().min(LEAF_BYTES));
                count += 1;
                if rest.is_empty() {
                    break;
                }
            }
            let leaves = leaves.get(..count).unwrap_or_default();
            let digests = digests.get_mut(..count).unwrap_or_default();
            tape_sha256::hash_many_prefixed(&LEAF, leaves, digests);
            digests.iter().for_each(|digest| tree.push(Self(*digest)));
            if rest.is_empty() {
                return tree.root();
            }
        }
    }

    fn of_node(left: Self, right: Self) -> Self {
        let hasher = Sha256::new().chain_update(NODE);
        Self(
            hasher
                .chain_update(left.0)
                .chain_update(right.0)
                .finalize()
                .into(),
        )
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
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
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
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut bytes = [0; DIGEST_BYTES];
        if pairs.len() != bytes.len() || !rest.is_empty() {
            return Err(DigestError);
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(DigestError);
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = u8::try_from(digit(*high)? * 16 + digit(*low)?).map_err(|_| DigestError)?;
        }
        Ok(Self(bytes))
    }
}

/// The tree over a file's chunk digests, or over those from some chunk on,
/// growing by one chunk at a time and holding no more than two digests a level.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// The number of the chunk that is added next.
    next: u64,
    /// Roots of complete subtrees with their heights, which strictly fall in a
    /// tree that starts at the first chunk.
    complete: Vec<(u32, Digest)>,
}

impl Tree {
    /// The part of a tree that starts at this chunk.
    #[must_use]
    pub fn starting_at(chunk: u32) -> Self {
        Self {
            next: u64::from(chunk),
            complete: Vec::new(),
        }
    }

    /// Adds the next chunk's digest.
    pub fn push(&mut self, chunk: Digest) {
        self.push_subtree(0, chunk);
    }

    /// Adds a part that starts at this tree's next chunk.
    pub fn append(&mut self, part: Self) {
        for (height, root) in part.complete {
            self.push_subtree(height, root);
        }
    }

    fn push_subtree(&mut self, mut height: u32, mut root: Digest) {
        let mut place = self.next >> height;
        self.next += 1 << height;
        // A right sibling, and the left one is not in another part.
        while place % 2 == 1
            && let Some((_, left)) = self.complete.pop_if(|(other, _)| *other == height)
        {
            root = Digest::of_node(left, root);
            height += 1;
            place /= 2;
        }
        self.complete.push((height, root));
    }

    /// The root over all chunks pushed. That of an empty file is the SHA-256
    /// of nothing.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.complete
            .iter()
            .rev()
            .map(|(_, root)| *root)
            .reduce(|right, left| Digest::of_node(left, right))
            .unwrap_or_else(|| Digest(Sha256::digest([]).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A leaf of RFC 9162, by another implementation of SHA-256.
    fn leaf(bytes: &[u8]) -> Digest {
        let hash = Sha256::new_with_prefix(LEAF).chain_update(bytes);
        Digest(hash.finalize().into())
    }

    #[test]
    fn a_chunk_is_the_tree_over_its_leaves() {
        const LENGTHS: [usize; 15] = [
            0, 1, 55, 56, 63, 64, 32_703, 32_704, 32_705, 65_408, 196_609, 1_046_528, 1_046_529,
            1_048_575, 1_048_576,
        ];
        let bytes: Vec<u8> = (0..1_048_576u32).map(|n| (n % 251) as u8).collect();
        for length in LENGTHS {
            let leaves = bytes[..length].chunks(LEAF_BYTES).map(leaf);
            let mut leaves: Vec<_> = leaves.collect();
            if leaves.is_empty() {
                leaves.push(leaf(&[]));
            }
            let chunk = Digest::of_chunk(&bytes[..length]);
            assert_eq!(chunk, reference(&leaves), "{length} bytes");
        }
    }

    /// The recursive definition of RFC 9162, to hold the tree against.
    fn reference(chunks: &[Digest]) -> Digest {
        match chunks {
            [] => Digest(Sha256::digest([]).into()),
            [only] => *only,
            _ => {
                let (left, right) = chunks.split_at(chunks.len().next_power_of_two() / 2);
                Digest::of_node(reference(left), reference(right))
            }
        }
    }

    #[test]
    fn the_root_is_that_of_the_rfc() {
        let chunks: Vec<_> = (0u32..70)
            .map(|n| Digest::of_chunk(&n.to_be_bytes()))
            .collect();
        let mut tree = Tree::default();
        for count in 0..chunks.len() {
            assert_eq!(tree.root(), reference(&chunks[..count]), "{count} chunks");
            tree.push(chunks[count]);
        }
    }

    #[test]
    fn a_tree_in_two_parts_is_the_same_tree() {
        let chunks: Vec<_> = (0u32..70)
            .map(|n| Digest::of_chunk(&n.to_be_bytes()))
            .collect();
        for count in 0..=chunks.len() {
            for cut in 0..=count {
                let (mut tree, mut part) = (
                    Tree::default(),
                    Tree::starting_at(u32::try_from(cut).unwrap()),
                );
                chunks[..cut].iter().for_each(|chunk| tree.push(*chunk));
                chunks[cut..count]
                    .iter()
                    .for_each(|chunk| part.push(*chunk));
                tree.append(part);
                assert_eq!(tree.root(), reference(&chunks[..count]), "{cut} of {count}");
            }
        }
    }

    #[test]
    fn known_digests() {
        // RFC 9162's test leaf is the empty string; its value is well known
        // from Certificate Transparency logs.
        let leaf = Digest::of_chunk(b"");
        let known = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
        assert_eq!(leaf.to_string(), known);
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Tree::default().root().to_string(), empty);
    }

    #[test]
    fn a_digest_reads_back_from_its_text() {
        let digest = Digest::of_chunk(b"x");
        assert_eq!(Digest::try_from(digest.to_string()), Ok(digest));
        for text in ["", "00", &"g".repeat(64), &"0".repeat(66), "é"] {
            assert_eq!(Digest::try_from(text.to_owned()), Err(DigestError));
        }
    }
}
