//! The end: what becomes of the folders when everything is there, or never will
//! be.

use std::{io, path::PathBuf};

use super::{Folders, Store};
use crate::{disk, manifest::Entry, part::at_ns_since_1970, path::SafePath};

impl Store {
    /// Gives the folders their times and makes all of them durable. The files
    /// must be.
    pub(crate) fn finish(mut self) -> io::Result<Vec<PathBuf>> {
        // What goes changes the time of the folder it is in.
        self.remove_left_folders();
        self.set_folder_times()?;
        self.sync_own_folders()?;
        // Where this disk did not take a file, the offer may come again.
        if !self.flight.has_failed_here() {
            self.journal.remove()?;
        }
        if self.manifest.folders() > 0 {
            disk::sync_folder(&self.destination.dir)?;
        }
        self.finished = true;
        Ok(self.top_names())
    }

    /// Those that were there before keep theirs.
    fn set_folder_times(&self) -> io::Result<()> {
        let mut folders = Folders::default();
        // Deepest first: what is made inside a folder changes its time.
        for (number, path, modified_ns) in self.folders_inside_out() {
            let modified = modified_ns.and_then(at_ns_since_1970);
            if let Some(modified) = modified.filter(|_| !self.kept.contains(&number))
                && let Err(error) =
                    disk::set_folder_time(folders.enter(self, Some(path.as_str()))?, modified)
            {
                // Everything is there all the same.
                tracing::debug!(%error, path = path.display_text(), "folder without its time");
            }
        }
        Ok(())
    }

    fn sync_own_folders(&self) -> io::Result<()> {
        let system = self.file_system();
        let count = self.wanted_folders() as usize;
        let are_durable = system.sync_many(count).is_some();
        // Only what was there before can be a mount point.
        if are_durable && self.merged.is_empty() {
            return Ok(());
        }
        let mut folders = Folders::default();
        for (_, path, _) in self.folders_inside_out() {
            let dir = folders.enter(self, Some(path.as_str()))?;
            if !are_durable || !system.holds(dir) {
                disk::sync_folder(dir)?;
            }
        }
        Ok(())
    }

    /// The folders that are wanted, with their times; those inside others first.
    fn folders_inside_out(&self) -> impl Iterator<Item = (u32, &SafePath, Option<i64>)> {
        let folder = |number| match self.manifest.entry(number)? {
            Entry::Folder { path, modified_ns } if !self.unwanted.contains(&number) => {
                Some((number, path, *modified_ns))
            }
            _ => None,
        };
        (0..self.manifest.count()).rev().filter_map(folder)
    }

    /// Removes the folders that stayed empty. Returns whether others did not.
    pub(super) fn remove_empty_folders(&self) -> bool {
        let mut folders = Folders::default();
        let mut are_left = !self.kept.is_empty();
        let were_made = |(number, ..): &(u32, _, _)| !self.kept.contains(number);
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
