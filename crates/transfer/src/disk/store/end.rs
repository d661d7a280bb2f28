//! The end of a transfer: files get their names, folders their times, all of it
//! is made durable, and what is of no use to a later attempt goes.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cap_std::fs::Dir;

use super::{Folders, Found, Store};
use crate::accept_options::Existing;
use crate::disk::journal::PlacedName;
use crate::disk::partial_file::{PartialFile, at_ns_since_1970};
use crate::disk::sync::FileSystem;
use crate::disk::system;
use crate::protocol::index::EntryIndex;
use crate::protocol::manifest::Entry;
use crate::protocol::path::SafePath;

impl Store {
    /// Gives a durable file its name; another one if it is taken and may not be
    /// replaced.
    pub(crate) fn publish(
        &self,
        part: &mut PartialFile,
        entry: EntryIndex,
        path: &SafePath,
    ) -> io::Result<()> {
        let is_top = path.parent().is_none();
        let intend = |name: &str| match is_top {
            true => {
                let name = name.to_owned();
                let was_there = false;
                self.journal
                    .note(path.name(), PlacedName { name, was_there })
            }
            false => Ok(()),
        };
        let replaces = self.existing == Existing::Replace;
        if part.is_elsewhere()
            && let Some(Found::Elsewhere(_, journal)) = self.found().get(&entry)
            && let Some(journal) = self.journal.others().get(*journal)
        {
            journal.use_it();
        }
        if let Some(name) = part.publish(path.name(), replaces, intend)? {
            self.note_name(path, &name);
        }
        Ok(())
    }

    /// Makes the content of files durable, and tells of each.
    pub(crate) fn sync<'a>(
        &self,
        parts: impl ExactSizeIterator<Item = &'a PartialFile>,
    ) -> Vec<io::Result<()>> {
        self.file_system().sync_files(parts.map(|part| &*part.file))
    }

    /// Makes the names in `folders` durable.
    pub(crate) fn sync_folders(&self, folders: &[Arc<Dir>]) -> io::Result<()> {
        self.journal.sync()?;
        self.file_system().sync_folders(folders)
    }

    fn file_system(&self) -> FileSystem<'_> {
        FileSystem {
            held: self.journal.file(),
            dir: &self.destination.dir,
        }
    }

    /// Gives the folders their times and makes all of them durable. The files
    /// must be.
    /// Returns the folder by the path that it has now, and the top level in it.
    pub(crate) fn finish(&mut self) -> io::Result<(PathBuf, Vec<PathBuf>)> {
        // Removing something changes the time of its folder.
        self.remove_left_folders();
        self.set_folder_times()?;
        self.sync_own_folders()?;
        // Where this disk did not take a file, the offer may come again.
        if !self.has_failed.load(Ordering::Relaxed) {
            self.journal.remove()?;
        }
        if self.manifest.folders() > 0 {
            self.file_system().sync_folder(&self.destination.dir)?;
        }
        let folder = self.destination.current_path()?;
        self.finished = true;
        let paths = self
            .top_names()
            .iter()
            .map(|name| folder.join(name))
            .collect();
        Ok((folder, paths))
    }

    /// Those that were there before keep theirs.
    fn set_folder_times(&self) -> io::Result<()> {
        let mut folders = Folders::default();
        // Deepest first: what is made inside a folder changes its time.
        for (index, path, modified_ns) in self.folders_inside_out() {
            let modified = modified_ns.and_then(at_ns_since_1970);
            if let Some(modified) = modified.filter(|_| !self.kept.contains(&index))
                && let Err(error) =
                    system::set_folder_time(folders.enter(self, Some(path.as_str()))?, modified)
            {
                // Everything is there all the same.
                tracing::debug!(%error, path = path.display_text(), "folder without its time");
            }
        }
        Ok(())
    }

    fn sync_own_folders(&self) -> io::Result<()> {
        let system = self.file_system();
        let count = self.folders() as usize;
        let are_durable = system.sync_many(count).is_some();
        // Only a folder that was there before can be a mount point.
        if are_durable && self.merged.is_empty() {
            return Ok(());
        }
        let mut folders = Folders::default();
        for (_, path, _) in self.folders_inside_out() {
            let dir = folders.enter(self, Some(path.as_str()))?;
            if !are_durable || !system.holds(dir) {
                system.sync_folder(dir)?;
            }
        }
        Ok(())
    }

    /// The folders that are wanted and there, with their times; those inside others first.
    fn folders_inside_out(&self) -> impl Iterator<Item = (EntryIndex, &SafePath, Option<i64>)> {
        let folder = |index| match self.manifest.entry(index)? {
            Entry::Folder { path, modified_ns }
                if !self.unwanted.contains(&index) && !self.absent.contains_key(path.as_str()) =>
            {
                Some((index, path, *modified_ns))
            }
            _ => None,
        };
        let all = EntryIndex::FIRST.until(self.manifest.end());
        all.rev().filter_map(folder)
    }

    /// Removes the folders that stayed empty. Returns whether others did not.
    fn remove_empty_folders(&self) -> bool {
        let mut folders = Folders::default();
        let mut are_left = !self.kept.is_empty();
        let were_made = |(index, ..): &(EntryIndex, _, _)| !self.kept.contains(index);
        for (_, path, _) in self.folders_inside_out().filter(were_made) {
            // Fails for those that hold files, and is meant to.
            let removed = if path.parent().is_some() {
                folders
                    .enter(self, path.parent())
                    .and_then(|dir| dir.remove_dir(path.name()))
            } else if let Some(name) = self.top_folders.get(path.name()) {
                self.destination.dir.remove_dir(name)
            } else {
                Ok(())
            };
            if let Err(error) = removed {
                are_left = true;
                tracing::debug!(%error, path = path.display_text(), "folder left in place");
            }
        }
        are_left
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Parts that were not taken go, or stay, before their folders.
        self.found().clear();
        if self.finished {
            return;
        }
        let are_left = self.remove_empty_folders();
        if !self.attempt.control.keeps_parts() {
            self.remove_left_folders();
        }
        let are_files = self.top_names().len() > self.top_folders.len() || !self.have.is_empty();
        if (are_left || are_files) && self.attempt.control.keeps_parts() {
            return;
        }
        if let Err(error) = self.journal.remove() {
            tracing::warn!(%error, "journal left behind");
        }
    }
}
