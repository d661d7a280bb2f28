//! What travels of an offer once it is known what the receiver wants.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::protocol::index::EntryIndex;
use crate::protocol::manifest::Manifest;

/// The files of an offer that are to travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    manifest: Arc<Manifest>,
    skipped: BTreeSet<EntryIndex>,
    files: u32,
    total_bytes: u64,
}

impl Selection {
    /// All files but those in `skipped`.
    #[must_use]
    pub fn without(manifest: Arc<Manifest>, skipped: BTreeSet<EntryIndex>) -> Self {
        let size_of = |index: &EntryIndex| {
            let file = manifest.entry(*index).filter(|entry| entry.is_file())?;
            Some(file.file_size_bytes().unwrap_or_default())
        };
        let sizes = skipped.iter().filter_map(size_of);
        let (files, bytes) = sizes.fold((0, 0), |(files, bytes), size_bytes| {
            (files + 1, bytes + size_bytes)
        });
        Self {
            files: manifest.files() - files,
            total_bytes: manifest.total_bytes() - bytes,
            manifest,
            skipped,
        }
    }

    /// The offer they are of.
    #[must_use]
    pub const fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// The files that stay out.
    #[must_use]
    pub const fn skipped(&self) -> &BTreeSet<EntryIndex> {
        &self.skipped
    }

    /// How many files travel.
    #[must_use]
    pub const fn files(&self) -> u32 {
        self.files
    }

    /// The bytes of those files.
    #[must_use]
    pub const fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// How many files stay out.
    #[must_use]
    pub fn skipped_files(&self) -> u32 {
        self.manifest.files() - self.files
    }

    /// The place of the first file at or behind `index` that travels; the end of the
    /// manifest when there is none.
    #[must_use]
    pub fn next_file(&self, index: EntryIndex) -> EntryIndex {
        let mut next = self.manifest.next_file(index);
        while self.skipped.contains(&next) {
            next = self.manifest.next_file(next.next());
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::index::short::entry;
    use crate::protocol::manifest::ManifestBuilder;

    /// 0: d, 1: d/1 (1 byte), 2: d/e, 3: d/e/2 (2 bytes), 4: f (4 bytes)
    fn manifest() -> Arc<Manifest> {
        let mut builder = ManifestBuilder::default();
        for entry in [
            r#"{"folder":{"path":"d"}}"#,
            r#"{"file":{"path":"d/1","size_bytes":1}}"#,
            r#"{"folder":{"path":"d/e"}}"#,
            r#"{"file":{"path":"d/e/2","size_bytes":2}}"#,
            r#"{"file":{"path":"f","size_bytes":4}}"#,
        ] {
            builder.push(serde_json::from_str(entry).unwrap()).unwrap();
        }
        Arc::new(builder.build())
    }

    #[test]
    fn what_is_left_is_counted() {
        let left = Selection::without(manifest(), BTreeSet::from([0, 1, 2].map(entry)));
        assert_eq!((left.files(), left.total_bytes()), (2, 6));
        assert_eq!(left.skipped_files(), 1);
        assert_eq!(left.next_file(entry(0)), entry(3));
        assert_eq!(left.next_file(entry(4)), entry(4));
        let none = Selection::without(manifest(), BTreeSet::from([1, 3, 4].map(entry)));
        assert_eq!((none.files(), none.next_file(entry(0))), (0, entry(5)));
    }
}
