//! How a file is cut into chunks. Only [`Chunking`] makes a [`ChunkPlace`], so
//! a number from the wire can never reach a seek or a slice unchecked.

use crate::protocol::index::ChunkIndex;

/// Bytes of every chunk of a file but its last, which may be shorter.
pub const CHUNK_BYTES: u32 = 1024 * 1024;
/// Most bytes of one file: every chunk has a `u32` index.
pub const FILE_BYTES_MAX: u64 = u32::MAX as u64 * CHUNK_BYTES as u64;

/// The chunks of a file of a known size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunking {
    size_bytes: u64,
    chunks: u32,
}

/// A chunk that is known to lie in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkPlace {
    index: ChunkIndex,
    offset_bytes: u64,
    length_bytes: u32,
    kind: ChunkKind,
}

/// What a chunk is known to be of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkKind {
    /// All of it.
    Whole,
    /// One of several.
    Part,
    /// One of a stream, of which nobody knows yet whether it is the last.
    OfStream,
}

impl Chunking {
    /// The chunks of a file of `size_bytes`; `None` above [`FILE_BYTES_MAX`].
    #[must_use]
    pub fn new(size_bytes: u64) -> Option<Self> {
        if size_bytes > FILE_BYTES_MAX {
            return None;
        }
        let chunks = u32::try_from(size_bytes.div_ceil(u64::from(CHUNK_BYTES))).ok()?;
        Some(Self { size_bytes, chunks })
    }

    /// How many chunks the file has; an empty file has none.
    #[must_use]
    pub const fn chunks(self) -> u32 {
        self.chunks
    }

    /// The place behind the last chunk.
    #[must_use]
    pub const fn end(self) -> ChunkIndex {
        ChunkIndex::new(self.chunks)
    }

    /// Where chunk `index` lies; `None` when the file has no such chunk.
    #[must_use]
    pub fn place(self, index: ChunkIndex) -> Option<ChunkPlace> {
        if index >= self.end() {
            return None;
        }
        let offset_bytes = u64::from(index.get()) * u64::from(CHUNK_BYTES);
        let left_bytes = u32::try_from(self.size_bytes - offset_bytes).unwrap_or(u32::MAX);
        Some(ChunkPlace {
            index,
            offset_bytes,
            length_bytes: left_bytes.min(CHUNK_BYTES),
            kind: match self.chunks {
                1 => ChunkKind::Whole,
                _ => ChunkKind::Part,
            },
        })
    }

    /// Every chunk from `first` to the last.
    pub fn places_from(self, first: ChunkIndex) -> impl Iterator<Item = ChunkPlace> {
        let places = first.until(self.end());
        places.filter_map(move |index| self.place(index))
    }

    /// How long the file is.
    #[must_use]
    pub const fn size_bytes(self) -> u64 {
        self.size_bytes
    }

    /// Bytes of so many chunks from `first`, those that the file has.
    #[must_use]
    pub fn run_bytes(self, first: ChunkIndex, count: u32) -> u64 {
        let offset_bytes = |chunk: u32| {
            let end = u64::from(chunk) * u64::from(CHUNK_BYTES);
            end.min(self.size_bytes)
        };
        let first = first.get();
        offset_bytes(first.saturating_add(count)) - offset_bytes(first)
    }
}

impl ChunkPlace {
    /// Where the chunk `index` of a stream lies, which has so many bytes; `None` when
    /// no stream has it.
    #[must_use]
    pub fn of_stream(index: ChunkIndex, length_bytes: usize) -> Option<Self> {
        let length_bytes = u32::try_from(length_bytes).ok()?;
        let is_one = (1..=CHUNK_BYTES).contains(&length_bytes) && index.get() < u32::MAX;
        is_one.then(|| Self {
            index,
            offset_bytes: u64::from(index.get()) * u64::from(CHUNK_BYTES),
            length_bytes,
            kind: ChunkKind::OfStream,
        })
    }

    /// The chunk's place in its file.
    #[must_use]
    pub const fn index(self) -> ChunkIndex {
        self.index
    }

    /// Where in the file it starts.
    #[must_use]
    pub const fn offset_bytes(self) -> u64 {
        self.offset_bytes
    }

    /// How long it is: [`CHUNK_BYTES`] but for the last.
    #[must_use]
    pub const fn length_bytes(self) -> usize {
        self.length_bytes as usize
    }

    /// Whether the file has no other.
    #[must_use]
    pub const fn is_whole_file(self) -> bool {
        matches!(self.kind, ChunkKind::Whole)
    }

    /// Whether it is the first of a stream, which may turn out to have no other.
    #[must_use]
    pub const fn begins_stream(self) -> bool {
        matches!(self.kind, ChunkKind::OfStream) && self.offset_bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::index::short::chunk;

    #[test]
    fn the_edges_of_a_chunk() {
        let chunk_bytes = u64::from(CHUNK_BYTES);
        for (size_bytes, chunks, last) in [
            (0, 0, None),
            (1, 1, Some(1)),
            (chunk_bytes, 1, Some(CHUNK_BYTES as usize)),
            (chunk_bytes + 1, 2, Some(1)),
            (FILE_BYTES_MAX, u32::MAX, Some(CHUNK_BYTES as usize)),
        ] {
            let lengths = Chunking::new(size_bytes).unwrap();
            assert_eq!(lengths.chunks(), chunks);
            let place = chunks
                .checked_sub(1)
                .and_then(|last| lengths.place(chunk(last)));
            assert_eq!(place.map(ChunkPlace::length_bytes), last);
            assert_eq!(lengths.place(lengths.end()), None);
        }
        assert_eq!(Chunking::new(FILE_BYTES_MAX + 1), None);
    }

    proptest! {
        #[test]
        fn chunks_cover_the_file_without_gap(size_bytes in 0..64 * u64::from(CHUNK_BYTES)) {
            let mut end = 0;
            for place in Chunking::new(size_bytes).unwrap().places_from(chunk(0)) {
                prop_assert_eq!(place.offset_bytes(), end);
                end += place.length_bytes() as u64;
            }
            prop_assert_eq!(end, size_bytes);
            prop_assert_eq!(Chunking::new(size_bytes).unwrap().run_bytes(chunk(0), u32::MAX), size_bytes);
        }
    }
}
