//! The folder that a user receives into.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use pinhole_budget::amount;

use crate::disk::system;
use crate::disk::system::Space;
use crate::protocol::file_error::FileErrorKind;
use crate::protocol::manifest::{Entry, Manifest};
use crate::protocol::path::SafePath;
use crate::protocol::selection::Selection;

/// What a file may cost beyond its bytes.
const ENTRY_BYTES: u64 = 4096;
/// Most bytes left free for others, so that they can still write what they must;
/// less on a small disk.
const RESERVE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A folder to receive into.
#[derive(Debug)]
pub struct Destination {
    pub(crate) dir: Arc<Dir>,
    pub(crate) path: PathBuf,
}

/// Why a folder cannot be received into.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// It cannot be opened, or something in it cannot be made.
    #[error("{}: {}", path.display(), folder_trouble(error))]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The offer does not fit.
    #[error(
        "{} are needed and {} are free, of which {} stay free for others",
        amount::display(*needed_bytes),
        amount::display(*available_bytes),
        amount::display(*reserve_bytes)
    )]
    NoSpace {
        /// What the offer needs.
        needed_bytes: u64,
        /// What this user may still use.
        available_bytes: u64,
        /// What of it is not used for offers.
        reserve_bytes: u64,
    },
}

/// Why a folder cannot be received into.
fn folder_trouble(error: &io::Error) -> String {
    match FileErrorKind::of(error) {
        FileErrorKind::NotAFile | FileErrorKind::NotAFolder => "not a folder".to_owned(),
        trouble => trouble.to_string(),
    }
}

impl DestinationError {
    /// Why, in short.
    #[must_use]
    pub fn trouble(&self) -> FileErrorKind {
        match self {
            Self::Folder { error, .. } => FileErrorKind::of(error),
            Self::NoSpace { .. } => FileErrorKind::DiskFull,
        }
    }
}

impl Space {
    fn reserve_bytes(self) -> u64 {
        (self.total_bytes / 100).min(RESERVE_BYTES_MAX)
    }

    /// Whether there is room for so much, beside what stays free.
    fn holds(self, needed_bytes: u64) -> bool {
        needed_bytes.saturating_add(self.reserve_bytes()) <= self.available_bytes
    }
}

impl Destination {
    /// The existing folder at `path`. Blocks.
    ///
    /// # Errors
    /// It is not there, not a folder, or may not be opened.
    pub fn open(path: &Path) -> Result<Self, DestinationError> {
        match Dir::open_ambient_dir(path, ambient_authority()) {
            Ok(dir) => Ok(Self {
                dir: Arc::new(dir),
                path: path.to_owned(),
            }),
            Err(error) => Err(DestinationError::Folder {
                path: path.to_owned(),
                error,
            }),
        }
    }

    /// The path it was opened with.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The offer's files and folders at the top level whose names are taken here.
    /// Blocks.
    #[must_use]
    pub fn existing<'a>(&self, offer: &'a Manifest) -> Vec<&'a SafePath> {
        let entries = offer.entries().iter().map(Entry::path);
        let top_names = entries.filter(|path| path.parent().is_none());
        let is_taken = |path: &&SafePath| self.dir.symlink_metadata(path.name()).is_ok();
        top_names.filter(is_taken).collect()
    }

    /// `here_bytes` of the offer are on the disk already.
    pub(crate) fn check_space(
        &self,
        selection: &Selection,
        here_bytes: u64,
    ) -> Result<(), DestinationError> {
        let space = system::space(&self.dir).map_err(|error| self.error(error))?;
        let Some(space) = space else {
            return Ok(());
        };
        let needed_bytes = selection
            .total_bytes()
            .saturating_sub(here_bytes)
            .saturating_add(u64::from(selection.manifest().count()) * ENTRY_BYTES);
        match space.holds(needed_bytes) {
            true => Ok(()),
            false => Err(DestinationError::NoSpace {
                needed_bytes,
                available_bytes: space.available_bytes,
                reserve_bytes: space.reserve_bytes(),
            }),
        }
    }

    /// Others need room, too, also while files arrive, and beside `more_bytes`
    /// that are about to be taken.
    pub(crate) fn check_room(&self, more_bytes: u64) -> io::Result<()> {
        match system::space(&self.dir)? {
            Some(space) if !space.holds(more_bytes) => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    /// What is wrong here, where something could not be written: a disk may be full
    /// of files, and what is not found may have lost the folder around it.
    pub(crate) fn trouble(&self, error: &io::Error) -> FileErrorKind {
        let is_gone = || system::current_path(&self.dir, &self.path).is_none();
        let space = || system::space(&self.dir).ok().flatten();
        match FileErrorKind::of(error) {
            FileErrorKind::NotFound if is_gone() => FileErrorKind::FolderGone,
            FileErrorKind::NotFound => FileErrorKind::Removed,
            FileErrorKind::DiskFull if space().is_some_and(|it| it.is_out_of_files) => {
                FileErrorKind::TooManyFiles
            }
            other => other,
        }
    }

    /// Where it is by now. Fails with `NotFound` when nobody can say.
    pub(crate) fn current_path(&self) -> io::Result<PathBuf> {
        let path = system::current_path(&self.dir, &self.path);
        path.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(crate) fn error(&self, error: io::Error) -> DestinationError {
        DestinationError::Folder {
            path: self.path.clone(),
            error,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const MB: u64 = 1_000_000;

    #[test]
    fn what_stays_free_does_not_pass_for_what_is_needed() {
        for (total_bytes, available_bytes, needed_bytes, fits) in [
            (40_000 * MB, 200 * MB, 6, true),
            (40_000 * MB, 200 * MB, 180 * MB, true),
            (40_000 * MB, 200 * MB, 190 * MB, false),
            (40_000 * MB, 16 * MB, 6, false),
            (64 * MB, MB, 6, true),
            (64 * MB, MB / 2, 6, false),
        ] {
            let space = Space {
                total_bytes,
                available_bytes,
                is_out_of_files: false,
            };
            assert_eq!(space.holds(needed_bytes), fits, "{space:?}");
        }
        let error = DestinationError::NoSpace {
            needed_bytes: 300 * MB,
            available_bytes: 200 * MB,
            reserve_bytes: 10 * MB,
        };
        assert_eq!(
            error.to_string(),
            "300 MB are needed and 200 MB are free, of which 10.0 MB stay free for others"
        );
    }

    /// A folder on its disk, opened by the path it has now.
    fn folder() -> (tempfile::TempDir, Destination) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("in")).unwrap();
        let destination = Destination::open(&folder.path().join("in")).unwrap();
        (folder, destination)
    }

    #[test]
    fn a_folder_is_found_again_while_it_is_somewhere() {
        let not_found = io::Error::from(io::ErrorKind::NotFound);
        let (folder, destination) = folder();
        let (before, after) = (folder.path().join("in"), folder.path().join("out"));
        assert_eq!(destination.current_path().unwrap(), before);
        assert_eq!(destination.trouble(&not_found), FileErrorKind::Removed);
        fs::rename(&before, &after).unwrap();
        fs::create_dir(&before).unwrap();
        if cfg!(any(target_os = "linux", target_vendor = "apple")) {
            assert_eq!(destination.current_path().unwrap(), after);
        }
        fs::remove_dir(&after).unwrap();
        assert!(destination.current_path().is_err());
        assert_eq!(destination.trouble(&not_found), FileErrorKind::FolderGone);
    }
}
