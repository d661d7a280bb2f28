//! The folder that a user receives into.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use cap_std::{ambient_authority, fs::Dir};

use crate::{
    choices::Selection,
    disk::{self, Space},
    display::display_size,
    manifest::{Entry, Manifest},
    message::Trouble,
    path::SafePath,
};

/// What a file may cost beyond its bytes.
const ENTRY_BYTES: u64 = 4096;
/// Most bytes left free for others; less on a small disk.
const RESERVE_BYTES_MAX: u64 = 256 * 1024 * 1024;

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
    #[error("{} are needed and {} are free", display_size(*needed_bytes), display_size(*available_bytes))]
    NoSpace {
        /// What the offer needs, with a reserve for others.
        needed_bytes: u64,
        /// What this user may still use.
        available_bytes: u64,
    },
}

/// What is wrong with a folder.
fn folder_trouble(error: &io::Error) -> String {
    match Trouble::of(error) {
        Trouble::NotAFile | Trouble::NotAFolder => "not a folder".to_owned(),
        trouble => trouble.to_string(),
    }
}

impl DestinationError {
    /// Why, in short.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Folder { error, .. } => Trouble::of(error),
            Self::NoSpace { .. } => Trouble::DiskFull,
        }
    }
}

fn reserve_bytes(space: Space) -> u64 {
    (space.total_bytes / 100).min(RESERVE_BYTES_MAX)
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
        let space = disk::space(&self.dir).map_err(|error| self.error(error))?;
        let Some(space) = space else {
            return Ok(());
        };
        let reserve_bytes = reserve_bytes(space);
        let needed_bytes = selection
            .total_bytes()
            .saturating_sub(here_bytes)
            .saturating_add(u64::from(selection.manifest().count()) * ENTRY_BYTES)
            .saturating_add(reserve_bytes);
        if needed_bytes > space.available_bytes {
            return Err(DestinationError::NoSpace {
                needed_bytes,
                available_bytes: space.available_bytes,
            });
        }
        Ok(())
    }

    /// Others need room, too, also while files arrive, and beside `more_bytes`
    /// that are about to be taken.
    pub(crate) fn check_room(&self, more_bytes: u64) -> io::Result<()> {
        match disk::space(&self.dir)? {
            Some(space)
                if space.available_bytes < reserve_bytes(space).saturating_add(more_bytes) =>
            {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn error(&self, error: io::Error) -> DestinationError {
        DestinationError::Folder {
            path: self.path.clone(),
            error,
        }
    }
}
