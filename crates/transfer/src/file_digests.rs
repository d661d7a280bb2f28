//! What the files of a transfer amount to: one digest over all that made it.

use std::collections::{BTreeSet, VecDeque};

use parking_lot::Mutex;

use crate::protocol::digest::{Digest, Listing};
use crate::protocol::index::EntryIndex;
use crate::protocol::selection::Selection;

/// The roots of files that have come to their end. Of a hundred thousand no list is
/// kept: only those whose fate is open wait to be added to the digest.
#[derive(Debug, Default)]
pub(crate) struct FileDigests(Mutex<Roots>);

#[derive(Debug, Clone, Default)]
struct Roots {
    /// In the order of the manifest.
    open: VecDeque<(EntryIndex, Digest)>,
    failed: BTreeSet<EntryIndex>,
    listing: Listing,
    /// The last that was added, and how many were.
    last: Option<Digest>,
    files: u32,
}

impl FileDigests {
    /// A file has come to its end, the next in the order of the manifest.
    pub(crate) fn add_root(&self, entry: EntryIndex, root: Digest) {
        self.0.lock().open.push_back((entry, root));
    }

    /// A file did not make it after all.
    pub(crate) fn add_failed(&self, entry: EntryIndex) {
        self.0.lock().failed.insert(entry);
    }

    /// The entries before `end` need no more care. Returns those of them that are
    /// files, made it and were not settled before.
    pub(crate) fn settle(
        &self,
        end: EntryIndex,
        selection: &Selection,
    ) -> Vec<(EntryIndex, Digest)> {
        self.0.lock().settle(end, selection)
    }

    /// What the files that made it amount to; `None` for no files.
    pub(crate) fn digest(&self) -> Option<Digest> {
        self.0.lock().digest()
    }

    /// What all files amount to that have come to their end; `None` for no files.
    pub(crate) fn digest_of_sent(&self, selection: &Selection) -> Option<Digest> {
        let mut roots = self.0.lock().clone();
        roots.settle(selection.manifest().end(), selection);
        roots.digest()
    }
}

impl Roots {
    fn settle(&mut self, end: EntryIndex, selection: &Selection) -> Vec<(EntryIndex, Digest)> {
        // Some of the early data may not have been wanted.
        let is_wanted = |entry: &EntryIndex| !selection.skipped().contains(entry);
        let mut settled = Vec::new();
        while let Some((entry, root)) = self.open.pop_front_if(|(entry, _)| *entry < end) {
            if !self.failed.contains(&entry) && is_wanted(&entry) {
                if let Some(file) = selection.manifest().entry(entry) {
                    self.listing.push(root, file.path().as_str());
                }
                self.last = Some(root);
                self.files += 1;
                settled.push((entry, root));
            }
        }
        self.failed = self.failed.split_off(&end);
        settled
    }

    fn digest(&self) -> Option<Digest> {
        match self.files {
            0 | 1 => self.last,
            _ => Some(self.listing.digest()),
        }
    }
}
