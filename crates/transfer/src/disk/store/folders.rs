//! The folders of an offer: making them, and the way to one, held open.
//!
//! One that cannot be made, because something else has its name or its name is too
//! long, takes with it what was to go into it, and nothing else.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use cap_fs_ext::DirExt;
use cap_std::fs::Dir;

use super::Store;
use crate::accept_options::Existing;
use crate::disk::journal::PlacedName;
use crate::disk::partial_file::first_free;
use crate::disk::system;
use crate::protocol::file_error::{FileError, FileErrorKind};
use crate::protocol::index::EntryIndex;
use crate::protocol::manifest::Entry;
use crate::protocol::path::SafePath;

impl Store {
    pub(super) fn make_folders(&mut self) -> io::Result<()> {
        let mut folders = Folders::default();
        let manifest = Arc::clone(&self.manifest);
        let received = self.received_folders();
        for (index, entry) in manifest.indexed() {
            let Entry::Folder { path, .. } = entry else {
                continue;
            };
            if self.unwanted.contains(&index) {
                continue;
            }
            let makes = !received.contains(path.as_str());
            let made = match path.parent() {
                None => self.top_folder(index, path, makes),
                Some(_) => self.inner_folder(&mut folders, index, path, makes),
            };
            if let Err(error) = made {
                if system::has_failed(&error) || FileErrorKind::of(&error).is_of_the_disk() {
                    return Err(error);
                }
                self.do_without(index, path, error, makes);
            }
        }
        Ok(())
    }

    /// Folders of which everything was received by the attempts before. One that is
    /// not there any more was taken away since.
    fn received_folders(&self) -> HashSet<Box<str>> {
        let mut received = HashSet::new();
        let mut awaited = HashSet::new();
        if !self.resume.has_settled() {
            return received;
        }
        for (index, entry) in self.manifest.indexed() {
            if self.unwanted.contains(&index) || entry.file_size_bytes().is_none() {
                continue;
            }
            let of = match self.resume.settled(index) {
                Some(_) => &mut received,
                None => &mut awaited,
            };
            let mut above = entry.path().parent();
            while let Some(folder) = above
                && of.insert(Box::from(folder))
            {
                above = folder.rsplit_once('/').map(|(parent, _)| parent);
            }
        }
        received.retain(|folder| !awaited.contains(folder));
        received
    }

    /// Whether there can be anything in the folders of this path.
    pub(super) fn has_earlier_content(&self, path: &SafePath) -> bool {
        self.resumed.contains(path.top()) || self.merged.contains(path.top())
    }

    fn top_folder(&mut self, entry: EntryIndex, path: &SafePath, makes: bool) -> io::Result<()> {
        let offered = path.name();
        let dir = &self.destination.dir;
        let earlier = match self.journal.earlier(offered) {
            Some(named) => folder_there(dir, &named.name)?.then_some(named),
            None => None,
        };
        let named = if let Some(named) = earlier {
            self.resumed.insert(offered.into());
            named.clone()
        } else if !makes {
            return Err(io::ErrorKind::NotFound.into());
        } else {
            let goes_into = self.existing != Existing::Rename;
            let was_there = goes_into && folder_there(dir, offered)?;
            let name = match was_there {
                true => offered.to_owned(),
                false => first_free(offered, |name| system::create_folder(dir, name))?,
            };
            PlacedName { name, was_there }
        };
        if !self.journal.says(offered, &named) {
            self.journal.note(offered, named.clone())?;
        }
        let PlacedName { name, was_there } = named;
        if was_there {
            self.merged.insert(offered.into());
            self.kept.insert(entry);
        }
        self.note_name(path, &name);
        self.top_folders.insert(offered.into(), name);
        Ok(())
    }

    fn inner_folder(
        &mut self,
        folders: &mut Folders,
        entry: EntryIndex,
        path: &SafePath,
        makes: bool,
    ) -> io::Result<()> {
        let dir = folders.enter(self, path.parent())?;
        let made = match makes {
            true => system::create_folder(dir, path.name()),
            false => Err(io::ErrorKind::AlreadyExists.into()),
        };
        match made {
            Err(error)
                if error.kind() == io::ErrorKind::AlreadyExists
                    && self.has_earlier_content(path) =>
            {
                // It may be no folder.
                dir.open_dir_nofollow(path.name())?;
                if self.merged.contains(path.top()) {
                    self.kept.insert(entry);
                }
                Ok(())
            }
            other => other,
        }
    }

    /// Notes why a folder is not there. If nothing is to go into it, nobody else would
    /// tell of it.
    fn do_without(
        &mut self,
        entry: EntryIndex,
        path: &SafePath,
        error: io::Error,
        is_failure: bool,
    ) {
        let error = match error.downcast::<FileError>() {
            // That of the folder it is in.
            Ok(error) => error,
            Err(error) => FileError::Local {
                trouble: match FileErrorKind::of(&error) {
                    FileErrorKind::NotAFile => FileErrorKind::NotAFolder,
                    trouble => trouble,
                },
                detail: path.display_text(),
            },
        };
        let is_inside = |other: &Entry| other.path().parent() == Some(path.as_str());
        if is_failure && !self.manifest.entries().iter().any(is_inside) {
            self.failed_folders.push((entry, error.clone()));
        }
        self.absent.insert(path.as_str().into(), error);
    }
}

/// Whether there is a folder of this name. One that cannot be entered is an
/// error: what an earlier attempt has left in it would be left for good.
fn folder_there(dir: &Dir, name: &str) -> io::Result<bool> {
    match dir.symlink_metadata(name) {
        Ok(metadata) if metadata.is_dir() => dir.open_dir_nofollow(name).map(|_| true),
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The way from the destination to the last folder used, held open.
#[derive(Debug, Default)]
pub(crate) struct Folders {
    /// By their names on disk.
    open: Vec<(String, Arc<Dir>)>,
}

impl Folders {
    /// The folder of this path, as it was offered; the destination for none.
    pub(super) fn enter<'a>(
        &'a mut self,
        store: &'a Store,
        folder: Option<&str>,
    ) -> io::Result<&'a Arc<Dir>> {
        if let Some(error) = folder.and_then(|folder| store.absent.get(folder)) {
            return Err(io::Error::other(error.clone()));
        }
        let mut names = folder.into_iter().flat_map(|path| path.split('/'));
        let top = match names.next() {
            Some(top) => {
                let top = store.top_folders.get(top);
                Some(top.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?)
            }
            None => None,
        };
        let top = top.map(String::as_str);
        self.walk(store, top.into_iter().chain(names))
    }

    /// The folder of this path, as it is on disk; the destination for none.
    pub(super) fn enter_place<'a>(
        &'a mut self,
        store: &'a Store,
        folder: Option<&str>,
    ) -> io::Result<&'a Arc<Dir>> {
        self.walk(store, folder.into_iter().flat_map(|path| path.split('/')))
    }

    fn walk<'a, 'n>(
        &'a mut self,
        store: &'a Store,
        names: impl Iterator<Item = &'n str> + Clone,
    ) -> io::Result<&'a Arc<Dir>> {
        let root = &store.destination.dir;
        let same = self
            .open
            .iter()
            .zip(names.clone())
            .take_while(|((open, _), name)| open == name);
        let same = same.count();
        self.open.truncate(same);
        for name in names.skip(same) {
            let above = self.open.last().map_or(root, |(_, dir)| dir);
            let dir = above.open_dir_nofollow(name)?;
            self.open.push((name.to_owned(), Arc::new(dir)));
        }
        Ok(self.open.last().map_or(root, |(_, dir)| dir))
    }
}
