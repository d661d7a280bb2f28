//! Where received files go. Everything is reached through a held handle of the
//! destination, name by name and without following links; a file is written
//! under a temporary name, made durable, and only then given its own, which
//! never replaces anything.

use std::{
    collections::HashMap,
    fs::{File, FileTimes},
    hash::{BuildHasher, RandomState},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cap_fs_ext::{DirExt, FollowSymlinks, OpenOptionsFollowExt};
use cap_std::{
    ambient_authority,
    fs::{Dir, OpenOptions},
};

use crate::{
    disk,
    display::display_text,
    manifest::{Entry, Manifest},
    message::Trouble,
    path::{NAME_BYTES_MAX, PART_SUFFIX, SafePath, numbered, shortened},
};

/// How often another name is tried where one is taken.
const NUMBER_MAX: u32 = 10_000;
/// What a file may cost beyond its bytes.
const ENTRY_BYTES: u64 = 4096;
/// Most bytes left free for others; less on a small disk.
const RESERVE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A folder to receive into.
#[derive(Debug)]
pub struct Destination {
    dir: Arc<Dir>,
    path: PathBuf,
}

/// Why a folder cannot be received into.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// It cannot be opened, or something in it cannot be made.
    #[error("{}: {}", path.display(), Trouble::of(error))]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The offer does not fit.
    #[error("{needed_bytes} bytes are needed and {available_bytes} are free")]
    NoSpace {
        /// What the offer needs, with a reserve for others.
        needed_bytes: u64,
        /// What this user may still use.
        available_bytes: u64,
    },
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

    fn check_space(&self, manifest: &Manifest) -> Result<(), DestinationError> {
        let space = disk::space(&self.dir).map_err(|error| self.error(error))?;
        let Some(space) = space else {
            return Ok(());
        };
        let reserve_bytes = (space.total_bytes / 100).min(RESERVE_BYTES_MAX);
        let needed_bytes = manifest
            .total_bytes()
            .saturating_add(u64::from(manifest.count()) * ENTRY_BYTES)
            .saturating_add(reserve_bytes);
        if needed_bytes > space.available_bytes {
            return Err(DestinationError::NoSpace {
                needed_bytes,
                available_bytes: space.available_bytes,
            });
        }
        Ok(())
    }

    fn error(&self, error: io::Error) -> DestinationError {
        DestinationError::Folder {
            path: self.path.clone(),
            error,
        }
    }
}

/// The destination of one transfer, its folders made. Dropped before it was
/// [finished](Store::finish), it removes those of them that stayed empty.
#[derive(Debug)]
pub(crate) struct Store {
    destination: Destination,
    manifest: Arc<Manifest>,
    /// What each folder at the top level is named on disk.
    top_folders: HashMap<Box<str>, String>,
    /// The top level as it came to be named on disk.
    top_names: Mutex<Vec<PathBuf>>,
    finished: bool,
}

impl Store {
    /// Checks that there is room and that the folder can be written to, and
    /// makes the offer's folders. Blocks.
    pub(crate) fn prepare(
        destination: Destination,
        manifest: Arc<Manifest>,
    ) -> Result<Self, DestinationError> {
        destination.check_space(&manifest)?;
        let mut store = Self {
            destination,
            manifest,
            top_folders: HashMap::new(),
            top_names: Mutex::default(),
            finished: false,
        };
        let made = store.probe().and_then(|()| store.make_folders());
        made.map_err(|error| store.destination.error(error))?;
        Ok(store)
    }

    /// A folder that takes no files should say so before the offer is
    /// accepted.
    fn probe(&self) -> io::Result<()> {
        create_part(&self.destination.dir, "").map(drop)
    }

    fn make_folders(&mut self) -> io::Result<()> {
        let mut folders = Folders::default();
        let manifest = Arc::clone(&self.manifest);
        for entry in manifest.entries() {
            let Entry::Folder { path, .. } = entry else {
                continue;
            };
            if path.parent().is_some() {
                folders
                    .enter(self, path.parent())?
                    .create_dir(path.name())?;
            } else {
                let dir = &self.destination.dir;
                let name = first_free(path.name(), |name| dir.create_dir(name))?;
                self.note_top(&name);
                self.top_folders.insert(path.name().into(), name);
            }
        }
        Ok(())
    }

    fn note_top(&self, name: &str) {
        let path = self.destination.path.join(name);
        self.top_names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(path);
    }

    /// The destination, fit to be shown.
    pub(crate) fn display_path(&self) -> String {
        display_text(&self.destination.path.to_string_lossy())
    }

    /// The top level as it is named on disk so far.
    pub(crate) fn top_names(&self) -> Vec<PathBuf> {
        self.top_names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A temporary file for the file `path`.
    pub(crate) fn create(&self, folders: &mut Folders, path: &SafePath) -> io::Result<Part> {
        create_part(folders.enter(self, path.parent())?, path.name())
    }

    /// Gives a durable file its name; another one if it is taken.
    pub(crate) fn publish(&self, part: &mut Part, path: &SafePath) -> io::Result<()> {
        let name = part.publish(path.name())?;
        if path.parent().is_none() {
            self.note_top(&name);
        }
        Ok(())
    }

    /// Makes the content of files durable, and tells of each.
    pub(crate) fn sync<'a>(
        &self,
        parts: impl ExactSizeIterator<Item = &'a Part>,
    ) -> Vec<io::Result<()>> {
        disk::sync_files(&self.destination.dir, parts.map(|part| &part.file))
    }

    /// Makes the names in `folders` durable.
    pub(crate) fn sync_folders(&self, folders: &[Arc<Dir>]) -> io::Result<()> {
        disk::sync_folders(&self.destination.dir, folders)
    }

    /// Gives the folders their times and makes all of them durable. The files
    /// must be.
    pub(crate) fn finish(mut self) -> io::Result<Vec<PathBuf>> {
        let mut folders = Folders::default();
        let together = self.manifest.folders() > disk::FEW && disk::SYNCS_TOGETHER;
        // Deepest first: what is made inside a folder changes its time.
        for entry in self.manifest.entries().iter().rev() {
            let Entry::Folder { path, modified_ns } = entry else {
                continue;
            };
            let dir = folders.enter(&self, Some(path.as_str()))?;
            if let Some(modified) = modified_ns.and_then(at_ns_since_1970) {
                disk::set_folder_time(dir, modified)?;
            }
            if !together {
                disk::sync_folder(dir)?;
            }
        }
        if together {
            disk::sync_file_system(&self.destination.dir)?;
        } else if self.manifest.folders() > 0 {
            disk::sync_folder(&self.destination.dir)?;
        }
        self.finished = true;
        Ok(self.top_names())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let mut folders = Folders::default();
        for entry in self.manifest.entries().iter().rev() {
            let Entry::Folder { path, .. } = entry else {
                continue;
            };
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
                tracing::debug!(%error, path = path.display_text(), "folder left in place");
            }
        }
    }
}

/// The way from the destination to the last folder used, held open.
#[derive(Debug, Default)]
pub(crate) struct Folders {
    open: Vec<(String, Arc<Dir>)>,
}

impl Folders {
    /// The folder of this path, as it was offered; the destination for none.
    fn enter<'a>(&'a mut self, store: &'a Store, folder: Option<&str>) -> io::Result<&'a Arc<Dir>> {
        let names = || folder.into_iter().flat_map(|path| path.split('/'));
        let same = self
            .open
            .iter()
            .zip(names())
            .take_while(|((open, _), name)| open == name);
        let same = same.count();
        self.open.truncate(same);
        for name in names().skip(same) {
            let (above, on_disk) = match self.open.last() {
                Some((_, above)) => (above, name),
                None => {
                    let top = store.top_folders.get(name);
                    let top = top.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
                    (&store.destination.dir, top.as_str())
                }
            };
            let dir = above.open_dir_nofollow(on_disk)?;
            self.open.push((name.to_owned(), Arc::new(dir)));
        }
        Ok(self
            .open
            .last()
            .map_or(&store.destination.dir, |(_, dir)| dir))
    }
}

/// A file under its temporary name, which goes away with it.
#[derive(Debug)]
pub(crate) struct Part {
    dir: Arc<Dir>,
    /// `None` once it has its own.
    temporary: Option<String>,
    pub(crate) file: File,
}

impl Part {
    /// The folder it is in.
    pub(crate) fn into_dir(self) -> Arc<Dir> {
        Arc::clone(&self.dir)
    }

    /// Gives the file the time it had on the other side.
    pub(crate) fn set_time(&self, modified_ns: Option<i64>) -> io::Result<()> {
        match modified_ns.and_then(at_ns_since_1970) {
            Some(modified) => self.file.set_times(FileTimes::new().set_modified(modified)),
            None => Ok(()),
        }
    }

    fn publish(&mut self, name: &str) -> io::Result<String> {
        let Some(temporary) = &self.temporary else {
            return Err(io::ErrorKind::AlreadyExists.into());
        };
        let name = first_free(name, |name| disk::rename_new(&self.dir, temporary, name))?;
        self.temporary = None;
        Ok(name)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take()
            && let Err(error) = self.dir.remove_file(&temporary)
        {
            tracing::warn!(%error, temporary, "temporary file left behind");
        }
    }
}

/// `.<name>.<random>.pinhole-part`, new in `dir`.
fn create_part(dir: &Arc<Dir>, name: &str) -> io::Result<Part> {
    const RANDOM_BYTES: usize = 16;
    let room = NAME_BYTES_MAX - PART_SUFFIX.len() - RANDOM_BYTES - 2;
    let name = shortened(name, room);
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create_new(true)
        .follow(FollowSymlinks::No);
    #[cfg(unix)]
    {
        use cap_std::fs::OpenOptionsExt;
        // Never executable; the user's mask takes away more.
        options.mode(0o644);
    }
    let random = RandomState::new();
    let (temporary, file) = first_of(|number| {
        let temporary = format!(".{name}.{:016x}{PART_SUFFIX}", random.hash_one(number));
        let file = dir.open_with(&temporary, &options)?;
        Ok((temporary, file))
    })?;
    Ok(Part {
        dir: Arc::clone(dir),
        temporary: Some(temporary),
        file: file.into_std(),
    })
}

/// Runs `make` with `name`, or with the first numbered one that is free.
fn first_free(name: &str, make: impl Fn(&str) -> io::Result<()>) -> io::Result<String> {
    first_of(|number| {
        let name = if number == 0 {
            name.to_owned()
        } else {
            numbered(name, number)
        };
        make(&name).map(|()| name)
    })
}

fn first_of<T>(make: impl Fn(u32) -> io::Result<T>) -> io::Result<T> {
    let mut number = 0;
    loop {
        match make(number) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < NUMBER_MAX => {
                number += 1;
            }
            other => return other,
        }
    }
}

fn at_ns_since_1970(ns: i64) -> Option<SystemTime> {
    let distance = Duration::from_nanos(ns.unsigned_abs());
    if ns < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    }
}
