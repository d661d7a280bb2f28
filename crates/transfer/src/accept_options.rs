//! What a receiver wants of an offer, and what is left of the offer then.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::protocol::index::EntryIndex;
use crate::protocol::manifest::{Entry, Manifest};

/// What a receiver wants of an offer, and how. The default takes everything
/// and keeps what is there already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AcceptOptions {
    /// Entries that are not wanted; a folder stands for everything in it.
    pub unwanted: BTreeSet<EntryIndex>,
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

/// The unwanted entries, with everything in unwanted folders.
pub(crate) fn with_content(
    manifest: &Manifest,
    unwanted: &BTreeSet<EntryIndex>,
) -> BTreeSet<EntryIndex> {
    let mut all = unwanted.clone();
    let mut folders = BTreeSet::new();
    for (index, entry) in manifest.indexed() {
        let is_inside = entry.path().parent().is_some_and(|it| folders.contains(it));
        if (is_inside || all.contains(&index))
            && let Entry::Folder { path, .. } = entry
        {
            folders.insert(path.as_str());
        }
        if is_inside {
            all.insert(index);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::manifest::ManifestBuilder;

    /// 0: d, 1: d/1 (1 byte), 2: d/e, 3: d/e/2 (2 bytes), 4: f (4 bytes)
    fn manifest() -> Manifest {
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
        builder.build()
    }

    #[test]
    fn a_folder_stands_for_everything_in_it() {
        let content = |unwanted: &[u32]| {
            let unwanted = unwanted.iter().copied().map(EntryIndex::new).collect();
            let all = with_content(&manifest(), &unwanted).into_iter();
            Vec::from_iter(all.map(EntryIndex::get))
        };
        assert_eq!(content(&[0]), [0, 1, 2, 3]);
        assert_eq!(content(&[2]), [2, 3]);
        assert_eq!(content(&[1, 4]), [1, 4]);
    }
}
