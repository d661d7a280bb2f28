//! What a receiver wants of an offer, and what is left of the offer then.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::protocol::manifest::{Entry, Manifest};

/// What a receiver wants of an offer, and how. The default takes everything
/// and keeps what is there already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AcceptOptions {
    /// Numbers of entries that are not wanted; that of a folder stands for
    /// everything in it.
    pub unwanted: BTreeSet<u32>,
    /// What happens where something of the same name is there already.
    pub existing: Existing,
    /// Programs stay programs: files that the sender may execute can be
    /// executed here.
    pub keeps_executable: bool,
}

/// What happens where something of the same name is there already. A folder is
/// never replaced by a file, nor a file by a folder; the new one gets a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Existing {
    /// Both stay: the new one gets a number.
    #[default]
    Rename,
    /// The file that is there stays and the new one is not sent. What is new in
    /// a folder that is there goes into it.
    Skip,
    /// The new file takes the place of the old one once it is complete. What
    /// is new in a folder that is there goes into it.
    Replace,
}

/// The files of an offer that are to travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    manifest: Arc<Manifest>,
    skipped: BTreeSet<u32>,
    files: u32,
    total_bytes: u64,
}

impl Selection {
    /// All files but those with a number in `skipped`.
    #[must_use]
    pub fn without(manifest: Arc<Manifest>, skipped: BTreeSet<u32>) -> Self {
        let size_of = |number: &u32| manifest.entry(*number)?.file_size_bytes();
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
    pub const fn skipped(&self) -> &BTreeSet<u32> {
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

    /// The number of the first file at or behind `number` that travels; the
    /// count of entries when there is none.
    #[must_use]
    pub fn next_file(&self, number: u32) -> u32 {
        let mut next = self.manifest.next_file(number);
        while self.skipped.contains(&next) {
            next = self.manifest.next_file(next + 1);
        }
        next
    }
}

/// What is unwanted, with everything in it.
pub(crate) fn with_content(manifest: &Manifest, unwanted: &BTreeSet<u32>) -> BTreeSet<u32> {
    let mut all = unwanted.clone();
    let mut folders = BTreeSet::new();
    for (entry, number) in manifest.entries().iter().zip(0..) {
        let is_inside = entry.path().parent().is_some_and(|it| folders.contains(it));
        if (is_inside || all.contains(&number))
            && let Entry::Folder { path, .. } = entry
        {
            folders.insert(path.as_str());
        }
        if is_inside {
            all.insert(number);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn a_folder_stands_for_everything_in_it() {
        let content = |unwanted: &[u32]| {
            let unwanted = unwanted.iter().copied().collect();
            Vec::from_iter(with_content(&manifest(), &unwanted))
        };
        assert_eq!(content(&[0]), [0, 1, 2, 3]);
        assert_eq!(content(&[2]), [2, 3]);
        assert_eq!(content(&[1, 4]), [1, 4]);
    }

    #[test]
    fn what_is_left_is_counted() {
        let left = Selection::without(manifest(), BTreeSet::from([0, 1, 2]));
        assert_eq!((left.files(), left.total_bytes()), (2, 6));
        assert_eq!(left.skipped_files(), 1);
        assert_eq!((left.next_file(0), left.next_file(4)), (3, 4));
        let none = Selection::without(manifest(), BTreeSet::from([1, 3, 4]));
        assert_eq!((none.files(), none.next_file(0)), (0, 5));
    }
}
