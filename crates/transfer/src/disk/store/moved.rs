//! What attempts have left at an offer in which something was moved or renamed
//! since. Their journals say where it can be, so that no folder is looked
//! through.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use super::{Folders, Found, PARTS_MAX, Store, split};
use crate::disk::journal::{PriorOffer, PriorPlace};
use crate::disk::partial_file::{PartialFile, open_file};
use crate::disk::system;
use crate::protocol::chunking::{CHUNK_BYTES, Chunking};
use crate::protocol::index::EntryIndex;
use crate::protocol::manifest::{Entry, Manifest};
use crate::protocol::path::SafePath;

/// A file that an attempt may have left, as it was offered then.
struct Left<'a> {
    path: &'a SafePath,
    size_bytes: u64,
}

/// What a moved file may still have in common with what is left of it, from
/// the most to the least.
const IN_COMMON: &[fn(&SafePath) -> &str] = &[
    SafePath::as_str,
    |path| path.as_str().split_once('/').map_or("", |(_, below)| below),
    SafePath::name,
    |_| "",
];

impl Store {
    /// Looks for what is left of files that are not there by name. Each file of
    /// the offer stands for at most one of each offer before, and only the
    /// place of that is looked at. Files that have the same size may be taken
    /// for each other; then their digests show it.
    pub(super) fn find_moved(&mut self) -> io::Result<()> {
        let (manifest, journal) = (Arc::clone(&self.manifest), Arc::clone(&self.journal));
        let mut taken = self.places(|index| self.have.contains_key(&index));
        let mut folders = Folders::default();
        let mut files = files_of(&manifest);
        // The newest first: it is the closest, and tells by which path an older
        // one has a file.
        for (at, other) in journal.others().iter().enumerate().rev() {
            for (index, before) in pairs(&mut files, other) {
                let Some(path) = manifest.entry(index).map(Entry::path) else {
                    continue;
                };
                if self.unwanted.contains(&index) || self.have.contains_key(&index) {
                    continue;
                }
                if let Some(place) = other.place(before.path)
                    && taken.insert(place.path.clone())
                    && let Some((chunks, found)) =
                        self.left_at(&mut folders, path, &before, place, at)?
                {
                    if matches!(found, Found::PartialFile(..)) {
                        other.use_it();
                    }
                    self.add_found(index, chunks, found);
                }
            }
        }
        Ok(())
    }

    /// Looks at one place for the file that is now at `path`. A finished file
    /// counts only where it was made by an attempt. Returns how many chunks of it are
    /// there, too.
    fn left_at(
        &self,
        folders: &mut Folders,
        path: &SafePath,
        left: &Left<'_>,
        place: PriorPlace,
        journal: usize,
    ) -> io::Result<Option<(u32, Found)>> {
        let (folder, name) = split(&place.path);
        let dir = match folders.enter_place(self, folder) {
            Ok(dir) => Arc::clone(dir),
            // Its content would never be found again.
            Err(error) if system::has_failed(&error) => return Err(error),
            // It did not come so far.
            Err(_) => return Ok(None),
        };
        if left.size_bytes > u64::from(CHUNK_BYTES)
            && self.found_parts < PARTS_MAX
            && let Some(mut part) = PartialFile::find(&dir, name, left.size_bytes, &self.attempt)?
        {
            part.move_to(folders.enter(self, path.parent())?, path.name())?;
            return Ok(Some(Found::part(part)));
        }
        let file = open_file(&dir, name).and_then(|file| file.metadata());
        let is_whole = file.is_ok_and(|metadata| metadata.len() == left.size_bytes);
        let lengths = Chunking::new(left.size_bytes).filter(|_| is_whole && place.is_ours);
        Ok(lengths.map(|it| (it.chunks(), Found::Elsewhere(place.path, journal))))
    }

    /// Where these of the offer's files and folders are on disk, as far as that is
    /// known.
    fn places(&self, is_meant: impl Fn(EntryIndex) -> bool) -> HashSet<String> {
        if self.journal.others().is_empty() {
            return HashSet::new();
        }
        let entries = self
            .manifest
            .indexed()
            .filter(|(index, _)| is_meant(*index));
        let place = |path: &SafePath| {
            let top = match self.top_folders.get(path.top()) {
                Some(top) => top,
                None => &self.journal.earlier(path.top())?.name,
            };
            let below = path.as_str().strip_prefix(path.top())?;
            Some(format!("{top}{below}"))
        };
        entries
            .filter_map(|(_, entry)| place(entry.path()))
            .collect()
    }

    /// Whether a finished file of another offer is still where it was.
    fn is_left(&self, folders: &mut Folders, other: &PriorOffer, there: &HashSet<String>) -> bool {
        other.entries.iter().any(|(path, size_bytes)| {
            let Some(place) = other.own_place(path).filter(|_| size_bytes.is_some()) else {
                return false;
            };
            let (folder, name) = split(&place);
            let dir = folders.enter_place(self, folder);
            !there.contains(&place) && dir.is_ok_and(|dir| dir.symlink_metadata(name).is_ok())
        })
    }

    /// Removes the folders from which everything has moved on.
    pub(super) fn remove_left_folders(&self) {
        let there = self.places(|_| true);
        let mut folders = Folders::default();
        for other in self.journal.others() {
            if !other.is_used() && self.is_left(&mut folders, other, &there) {
                continue;
            }
            other.use_it();
            // Those inside others first.
            for (path, size_bytes) in other.entries.iter().rev() {
                let Some(place) = other.own_place(path) else {
                    continue;
                };
                if size_bytes.is_some() || there.contains(&place) {
                    continue;
                }
                let (folder, name) = split(&place);
                let dir = folders.enter_place(self, folder);
                // Fails for those that hold something, and is meant to.
                if let Err(error) = dir.and_then(|dir| dir.remove_dir(name)) {
                    tracing::debug!(%error, place, "folder left in place");
                }
            }
        }
    }
}

/// A file of the offer: its place in it, the path that it has or had, and its size.
type Offered<'a> = (EntryIndex, &'a SafePath, u64);

/// All but the empty ones.
fn files_of(manifest: &Manifest) -> Vec<Offered<'_>> {
    let files = manifest.indexed().filter_map(|(index, entry)| {
        let size_bytes = entry
            .file_size_bytes()
            .filter(|size_bytes| *size_bytes > 0)?;
        Some((index, entry.path(), size_bytes))
    });
    files.collect()
}

/// Which file of the offer, by its place, may have been which of another offer.
/// Those that have the most in common go first. The files take the paths that
/// they had there.
fn pairs<'a>(files: &mut [Offered<'a>], other: &'a PriorOffer) -> Vec<(EntryIndex, Left<'a>)> {
    let left = other.entries.iter().filter_map(|(path, size_bytes)| {
        let size_bytes = (*size_bytes)?;
        Some(Left { path, size_bytes })
    });
    let mut left: Vec<_> = left.collect();
    let mut pairs: Vec<(EntryIndex, Left<'a>)> = Vec::with_capacity(left.len());
    let mut alone: Vec<_> = files.iter_mut().collect();
    for in_common in IN_COMMON {
        let mut by_key: HashMap<_, Vec<_>> = HashMap::new();
        left.sort_by_key(|it| it.path.as_str());
        // The last is taken first.
        for it in left.drain(..).rev() {
            let key = (it.size_bytes, in_common(it.path));
            by_key.entry(key).or_default().push(it);
        }
        alone.retain_mut(|(index, path, size_bytes)| {
            let fitting = by_key.get_mut(&(*size_bytes, in_common(path)));
            match fitting.and_then(Vec::pop) {
                Some(before) => {
                    *path = before.path;
                    pairs.push((*index, before));
                    false
                }
                None => true,
            }
        });
        left = by_key.into_values().flatten().collect();
    }
    pairs
}
