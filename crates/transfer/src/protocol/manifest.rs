//! What a transfer consists of: every file and folder, offered before the
//! first byte is sent and checked as a whole before anybody is asked.

use std::collections::{HashMap, hash_map};
use std::hash::{BuildHasher, RandomState};

use blake3::Hasher;
use serde::{Deserialize, Serialize};

use crate::protocol::chunking::Chunking;
use crate::protocol::digest::Digest;
use crate::protocol::index::EntryIndex;
use crate::protocol::path::SafePath;

/// Most files and folders in one offer.
pub const ENTRIES_MAX: u32 = 250_000;
/// Most bytes that all paths of one offer have together.
pub const PATHS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One file or folder of an offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Entry {
    /// A regular file.
    File {
        /// Where it goes below the destination.
        path: SafePath,
        /// How long it is; never more is written.
        size_bytes: u64,
        /// When it was last modified, in nanoseconds since 1970 UTC.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        modified_ns: Option<i64>,
        /// Its owner may execute it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        executable: bool,
    },
    /// A folder. Every folder is an entry and stands before what is in it.
    Folder {
        /// Where it goes below the destination.
        path: SafePath,
        /// When it was last modified, in nanoseconds since 1970 UTC.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        modified_ns: Option<i64>,
    },
    /// A file whose size nobody knows before its end. It is the only entry of its
    /// offer.
    Stream {
        /// What it is called at the top level of the destination.
        path: SafePath,
    },
}

impl Entry {
    /// Where it goes below the destination.
    #[must_use]
    pub const fn path(&self) -> &SafePath {
        match self {
            Self::File { path, .. } | Self::Folder { path, .. } | Self::Stream { path } => path,
        }
    }

    /// When it was last modified, in nanoseconds since 1970 UTC.
    #[must_use]
    pub const fn modified_ns(&self) -> Option<i64> {
        match self {
            Self::File { modified_ns, .. } | Self::Folder { modified_ns, .. } => *modified_ns,
            Self::Stream { .. } => None,
        }
    }

    /// Whether it is a file that its owner may execute.
    #[must_use]
    pub const fn is_executable(&self) -> bool {
        matches!(
            self,
            Self::File {
                executable: true,
                ..
            }
        )
    }

    /// How long the file is; `None` for a folder and for a stream.
    #[must_use]
    pub const fn file_size_bytes(&self) -> Option<u64> {
        match self {
            Self::File { size_bytes, .. } => Some(*size_bytes),
            Self::Folder { .. } | Self::Stream { .. } => None,
        }
    }

    /// Whether it becomes a file, be its size known or not.
    #[must_use]
    pub const fn is_file(&self) -> bool {
        matches!(self, Self::File { .. } | Self::Stream { .. })
    }
}

/// Why a list of entries is no offer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// More than [`ENTRIES_MAX`] entries or [`PATHS_BYTES_MAX`] of paths.
    #[error("more than {ENTRIES_MAX} files and folders, or too long paths, in one offer")]
    TooMany,
    /// A file above [`crate::protocol::chunking::FILE_BYTES_MAX`], or a sum beyond `u64`.
    #[error("{} is too large", .0.display_text())]
    TooLarge(SafePath),
    /// The folder of this entry does not stand before it.
    #[error("{} stands before its folder", .0.display_text())]
    NoFolder(SafePath),
    /// Some file system takes this path and an earlier one for the same.
    #[error("{} is named twice", .0.display_text())]
    Twice(SafePath),
    /// The early data that is announced is not allowed.
    #[error("the offer sends ahead of the answer what may not travel before it")]
    Early,
    /// A stream that is not the only entry, is in a folder, or is said to be of a known
    /// size, to travel ahead of the answer or to have been sent before.
    #[error("the offer of a stream offers something else as well")]
    Stream,
    /// The entries are not as many, or not as large, as was announced.
    #[error("the offer does not add up")]
    Sum,
}

/// A checked list of entries. Each is known by its place in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    entries: Vec<Entry>,
    files: u32,
    total_bytes: u64,
    paths_bytes: usize,
    unread: u32,
}

impl Manifest {
    /// Every file and folder, folders before what is in them.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// As [`Manifest::entries`], each with its place.
    pub fn indexed(&self) -> impl Iterator<Item = (EntryIndex, &Entry)> {
        EntryIndex::FIRST.until(self.end()).zip(&self.entries)
    }

    /// The entry at this place.
    #[must_use]
    pub fn entry(&self, index: EntryIndex) -> Option<&Entry> {
        self.entries.get(usize::try_from(index.get()).ok()?)
    }

    /// Whether this is the offer of a stream.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        matches!(*self.entries, [Entry::Stream { .. }])
    }

    /// The chunks of the file at this place; `None` for a folder and for a stream.
    #[must_use]
    pub fn lengths(&self, index: EntryIndex) -> Option<Chunking> {
        Chunking::new(self.entry(index)?.file_size_bytes()?)
    }

    /// The place behind the last entry.
    #[must_use]
    pub fn end(&self) -> EntryIndex {
        EntryIndex::new(self.count())
    }

    /// How many entries there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    /// How many of them are files.
    #[must_use]
    pub const fn files(&self) -> u32 {
        self.files
    }

    /// How many of them are folders.
    #[must_use]
    pub fn folders(&self) -> u32 {
        self.count() - self.files
    }

    /// The bytes of all files together.
    #[must_use]
    pub const fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// How many files and folders belong to it by the sender's will and are not in
    /// it, because they could not be read or named.
    #[must_use]
    pub const fn unread(&self) -> u32 {
        self.unread
    }

    /// The bytes of all paths together, which tell what it costs in memory.
    #[must_use]
    pub const fn paths_bytes(&self) -> usize {
        self.paths_bytes
    }

    /// A digest of the paths and sizes: two offers of the same one are of the same
    /// files and folders, as far as their names and sizes tell.
    #[must_use]
    pub fn listing(&self) -> Digest {
        let mut listing = Hasher::new();
        for entry in &self.entries {
            listing.update(entry.path().as_str().as_bytes());
            // No path holds these bytes.
            match entry.file_size_bytes() {
                Some(size_bytes) => listing.update(format!("\0{size_bytes}\n").as_bytes()),
                None if entry.is_file() => listing.update(b"\0\n"),
                None => listing.update(b"\n"),
            };
        }
        Digest::from_bytes(listing.finalize().into())
    }

    /// The place of the first file at or behind `index`; the end when there is none.
    #[must_use]
    pub fn next_file(&self, index: EntryIndex) -> EntryIndex {
        index
            .until(self.end())
            .find(|&other| self.entry(other).is_some_and(Entry::is_file))
            .unwrap_or_else(|| self.end())
    }
}

/// Checks entries as they come and makes a [`Manifest`] of them.
#[derive(Debug, Default)]
pub struct ManifestBuilder {
    entries: Vec<Entry>,
    files: u32,
    total_bytes: u64,
    paths_bytes: usize,
    unread: u32,
    /// Where each path stands, by the hash of what a file system that folds
    /// names takes it for. The key of the hash is drawn for each manifest, so
    /// that nobody makes two paths meet, and chance does in one of a billion
    /// offers as large as may be.
    seen: HashMap<u64, EntryIndex>,
    hasher: RandomState,
}

impl ManifestBuilder {
    /// Adds the next entry.
    ///
    /// # Errors
    /// Any [`ManifestError`] but `Sum`. The offer is then of no further use.
    pub fn push(&mut self, entry: Entry) -> Result<(), ManifestError> {
        self.paths_bytes += entry.path().as_str().len();
        if self.entries.len() >= ENTRIES_MAX as usize || self.paths_bytes > PATHS_BYTES_MAX {
            return Err(ManifestError::TooMany);
        }
        self.check_folder(entry.path())?;
        self.check_alone(&entry)?;
        self.files += u32::from(entry.is_file());
        if let Some(size_bytes) = entry.file_size_bytes() {
            let total_bytes = self.total_bytes.checked_add(size_bytes);
            let (Some(_), Some(total_bytes)) = (Chunking::new(size_bytes), total_bytes) else {
                return Err(ManifestError::TooLarge(entry.path().clone()));
            };
            self.total_bytes = total_bytes;
        }
        let place = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        match self.seen.entry(self.hasher.hash_one(entry.path().folded())) {
            hash_map::Entry::Occupied(_) => return Err(ManifestError::Twice(entry.path().clone())),
            hash_map::Entry::Vacant(free) => free.insert(EntryIndex::new(place)),
        };
        self.entries.push(entry);
        Ok(())
    }

    /// A stream stands beside nothing.
    fn check_alone(&self, entry: &Entry) -> Result<(), ManifestError> {
        let is_stream = |entry: &Entry| matches!(entry, Entry::Stream { .. });
        match self.entries.first() {
            Some(first) if is_stream(first) || is_stream(entry) => Err(ManifestError::Stream),
            _ => Ok(()),
        }
    }

    /// The folder must be there in the same spelling: a disk that tells `A`
    /// from `a` has only the one that was made.
    fn check_folder(&self, path: &SafePath) -> Result<(), ManifestError> {
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        let folded = self.hasher.hash_one(crate::protocol::path::folded(parent));
        let found = self.seen.get(&folded);
        match found.and_then(|&place| self.entries.get(usize::try_from(place.get()).ok()?)) {
            Some(Entry::Folder { path: folder, .. }) if folder.as_str() == parent => Ok(()),
            _ => Err(ManifestError::NoFolder(path.clone())),
        }
    }

    /// Whether an entry of this path would be refused as named twice.
    #[must_use]
    pub fn is_taken(&self, path: &SafePath) -> bool {
        let folded = self.hasher.hash_one(path.folded());
        self.seen.contains_key(&folded)
    }

    /// How many entries were added.
    #[must_use]
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// The bytes of all files added.
    #[must_use]
    pub const fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// The bytes of all paths added.
    #[must_use]
    pub const fn paths_bytes(&self) -> usize {
        self.paths_bytes
    }

    /// So many files and folders should be in it, and cannot.
    pub const fn leave_out(&mut self, unread: u32) {
        self.unread = unread;
    }

    /// The finished list.
    #[must_use]
    pub fn build(mut self) -> Manifest {
        self.entries.shrink_to_fit();
        Manifest {
            entries: self.entries,
            files: self.files,
            total_bytes: self.total_bytes,
            paths_bytes: self.paths_bytes,
            unread: self.unread,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::chunking::FILE_BYTES_MAX;
    use crate::protocol::index::short::entry;

    fn path(text: &str) -> SafePath {
        SafePath::parse(text).unwrap()
    }

    fn file(text: &str, size_bytes: u64) -> Entry {
        Entry::File {
            path: path(text),
            size_bytes,
            modified_ns: None,
            executable: false,
        }
    }

    fn folder(text: &str) -> Entry {
        Entry::Folder {
            path: path(text),
            modified_ns: None,
        }
    }

    fn build(entries: &[Entry]) -> Result<Manifest, ManifestError> {
        let mut builder = ManifestBuilder::default();
        for entry in entries {
            builder.push(entry.clone())?;
        }
        Ok(builder.build())
    }

    #[test]
    fn counts_files_folders_and_bytes() {
        let manifest = build(&[folder("a"), file("a/x", 3), folder("a/b"), file("y", 4)]).unwrap();
        assert_eq!((manifest.files(), manifest.folders()), (2, 2));
        assert_eq!(manifest.total_bytes(), 7);
        assert_eq!(manifest.next_file(entry(0)), entry(1));
        assert_eq!(manifest.next_file(entry(2)), entry(3));
        assert_eq!(manifest.next_file(entry(4)), manifest.end());
        assert_eq!(manifest.indexed().count(), 4);
        assert!(
            manifest
                .indexed()
                .all(|(index, entry)| manifest.entry(index) == Some(entry))
        );
    }

    #[test]
    fn what_two_systems_would_store_differently_is_refused() {
        let twice = |text| ManifestError::Twice(path(text));
        let orphan = |text| ManifestError::NoFolder(path(text));
        for (entries, error) in [
            (vec![file("a", 1), file("a", 1)], twice("a")),
            (vec![file("a", 1), file("A", 1)], twice("A")),
            (
                vec![file("\u{e9}", 1), file("e\u{301}", 1)],
                twice("e\u{301}"),
            ),
            (vec![file("ß", 1), file("SS", 1)], twice("SS")),
            (vec![file("a", 1), folder("a")], twice("a")),
            (vec![folder("a"), folder("A")], twice("A")),
            (vec![file("a/b", 1)], orphan("a/b")),
            (vec![file("a", 1), file("a/b", 1)], orphan("a/b")),
            (vec![folder("a"), file("A/b", 1)], orphan("A/b")),
            (vec![file("a/b", 1), folder("a")], orphan("a/b")),
        ] {
            assert_eq!(build(&entries), Err(error));
        }
    }

    #[test]
    fn a_stream_stands_alone() {
        let stream = |text| Entry::Stream { path: path(text) };
        let manifest = build(&[stream("a")]).unwrap();
        assert!(manifest.is_stream() && manifest.files() == 1);
        assert_eq!((manifest.folders(), manifest.total_bytes()), (0, 0));
        assert_eq!(manifest.next_file(entry(0)), entry(0));
        assert_eq!(manifest.lengths(entry(0)), None);
        let empty = build(&[file("a", 0)]).unwrap();
        assert_ne!(manifest.listing(), empty.listing());
        for entries in [
            vec![stream("a"), file("b", 1)],
            vec![file("b", 1), stream("a")],
            vec![stream("a"), stream("b")],
            vec![folder("d"), stream("d/a")],
        ] {
            assert_eq!(build(&entries), Err(ManifestError::Stream));
        }
        let orphan = ManifestError::NoFolder(path("d/a"));
        assert_eq!(build(&[stream("d/a")]), Err(orphan));
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        let error = build(&[file("a", FILE_BYTES_MAX + 1)]).unwrap_err();
        assert_eq!(error, ManifestError::TooLarge(path("a")));
        // Enough of the largest files overflow the sum.
        let many: Vec<_> = (0..5000)
            .map(|n| file(&format!("f{n}"), FILE_BYTES_MAX))
            .collect();
        assert!(matches!(build(&many), Err(ManifestError::TooLarge(_))));
    }

    #[test]
    fn an_endless_list_is_cut_off() {
        let mut builder = ManifestBuilder::default();
        for number in 0..ENTRIES_MAX {
            builder.push(file(&number.to_string(), 0)).unwrap();
        }
        assert_eq!(builder.push(file("more", 0)), Err(ManifestError::TooMany));
    }
}
