//! Early data: so many bytes of an offer's files travel before the answer to it, which
//! saves the round trip to the answer.
//!
//! An offer says how many, and both sides find out by [`EarlyData`] which ones these
//! are: the first files, as long as they fit, each whole and in a batch; or else the
//! first chunk of the first file.

use crate::protocol::index::{ChunkIndex, EntryIndex};
use crate::protocol::manifest::{Manifest, ManifestError};

/// Most bytes of whole files before the answer: the receiver holds them in memory until
/// it has decided. So much is a few packets more than the offer itself.
pub const EARLY_BYTES_MAX: u32 = 64 * 1024;
/// Most files before the answer.
pub const EARLY_FILES_MAX: u32 = 64;

/// What of an offer's files travels before the answer. The default is nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EarlyData {
    /// The first entry that does not travel whole.
    entry: EntryIndex,
    /// How many chunks of it travel.
    chunks: u32,
    bytes: u32,
}

impl EarlyData {
    /// As much as may travel of this offer.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Self {
        let whole = Self::whole_files(manifest, EARLY_BYTES_MAX);
        whole
            .or_else(|| Self::first_chunk(manifest))
            .unwrap_or_default()
    }

    /// So many bytes of this offer.
    ///
    /// # Errors
    /// They are none that may travel.
    pub fn promised(manifest: &Manifest, bytes: u32) -> Result<Self, ManifestError> {
        let early = match is_chunk(bytes) {
            true => Self::first_chunk(manifest),
            false => Self::whole_files(manifest, bytes),
        };
        let early = early.filter(|early| early.bytes == bytes);
        early.ok_or(ManifestError::Early)
    }

    /// The first files that fit into `bytes_max` together.
    fn whole_files(manifest: &Manifest, bytes_max: u32) -> Option<Self> {
        let (mut early, mut files) = (Self::default(), 0);
        let mut next = manifest.next_file(EntryIndex::FIRST);
        while let Some(lengths) = manifest.lengths(next)
            && files < EARLY_FILES_MAX
            && let Ok(size_bytes) = u32::try_from(lengths.size_bytes())
            && size_bytes <= bytes_max - early.bytes
        {
            early.bytes += size_bytes;
            early.entry = next.next();
            files += 1;
            next = manifest.next_file(next.next());
        }
        (files > 0).then_some(early)
    }

    fn first_chunk(manifest: &Manifest) -> Option<Self> {
        let entry = manifest.next_file(EntryIndex::FIRST);
        let place = manifest.lengths(entry)?.place(ChunkIndex::FIRST)?;
        Some(Self {
            entry,
            chunks: 1,
            bytes: u32::try_from(place.length_bytes()).ok()?,
        })
    }

    /// How many bytes travel; `None` when nothing does, not even empty files.
    #[must_use]
    pub fn bytes(self) -> Option<u32> {
        (self != Self::default()).then_some(self.bytes)
    }

    /// Whether these are all files of the offer.
    #[must_use]
    pub fn is_everything(self, manifest: &Manifest) -> bool {
        self.chunks == 0
            && self.entry > EntryIndex::FIRST
            && manifest.next_file(self.entry) == manifest.end()
    }

    /// Whether it is a chunk, of which a receiver holds one for each peer.
    #[must_use]
    pub const fn is_chunk(self) -> bool {
        is_chunk(self.bytes)
    }

    /// Whether this file travels whole.
    #[must_use]
    pub const fn holds(self, entry: EntryIndex) -> bool {
        entry.get() < self.entry.get()
    }

    /// The file of which the first chunk travels.
    #[must_use]
    pub fn begun(self) -> Option<EntryIndex> {
        (self.chunks > 0).then_some(self.entry)
    }

    /// The first entry that is not among those that travel whole.
    #[must_use]
    pub const fn end(self) -> EntryIndex {
        self.entry
    }

    /// Whether this chunk of this file is among it.
    pub(crate) fn reaches(self, entry: EntryIndex, chunk: ChunkIndex) -> bool {
        (entry, chunk) < (self.entry, ChunkIndex::new(self.chunks))
    }
}

/// Whether so many bytes can only be those of a chunk.
#[must_use]
pub const fn is_chunk(bytes: u32) -> bool {
    bytes > EARLY_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::manifest::ManifestBuilder;

    const KIB: u32 = 1024;

    fn manifest(sizes: &[u32]) -> Manifest {
        let mut builder = ManifestBuilder::default();
        for (name, size) in sizes.iter().enumerate() {
            let json = format!(r#"{{"file":{{"path":"{name}","size_bytes":{size}}}}}"#);
            builder.push(serde_json::from_str(&json).unwrap()).unwrap();
        }
        builder.build()
    }

    #[test]
    fn the_first_files_that_fit_travel_whole_or_else_the_first_chunk() {
        for (sizes, end, begun, bytes) in [
            (&[][..], 0, None, None),
            (&[0, 0], 2, None, Some(0)),
            (&[3, 0, 5], 3, None, Some(8)),
            (&[64 * KIB], 1, None, Some(64 * KIB)),
            (&[3, 64 * KIB, 1], 1, None, Some(3)),
            (&[3, 0, 64 * KIB], 2, None, Some(3)),
            (&[64 * KIB + 1, 3], 0, Some(0), Some(64 * KIB + 1)),
            (&[3 * KIB * KIB], 0, Some(0), Some(KIB * KIB)),
            (&[0, 3 * KIB * KIB], 1, None, Some(0)),
            (&[1; 100], 64, None, Some(64)),
        ] {
            let manifest = manifest(sizes);
            let early = EarlyData::of(&manifest);
            let found = (
                early.end().get(),
                early.begun().map(EntryIndex::get),
                early.bytes(),
            );
            assert_eq!(found, (end, begun, bytes), "{sizes:?}");
            if let Some(bytes) = bytes {
                assert_eq!(EarlyData::promised(&manifest, bytes), Ok(early));
            }
            let is_everything = end as usize == sizes.len() && end > 0;
            assert_eq!(early.is_everything(&manifest), is_everything, "{sizes:?}");
        }
    }

    #[test]
    fn nothing_else_can_be_promised() {
        for (sizes, bytes) in [
            (&[][..], 0),
            (&[3], 0),
            (&[3], 2),
            (&[3], 4),
            (&[3, 5], 5),
            (&[0, 64 * KIB + 1], 64 * KIB + 1),
            (&[3 * KIB * KIB], KIB * KIB - 1),
            (&[3 * KIB * KIB], u32::MAX),
            (&[1; 100], 65),
        ] {
            let promised = EarlyData::promised(&manifest(sizes), bytes);
            assert_eq!(promised, Err(ManifestError::Early), "{sizes:?} {bytes}");
        }
    }
}
