//! The files and folders to be sent: found once by [`Source::scan`], opened
//! again one by one when their turn comes.
//!
//! Everything is reached through a held handle of the folder that the user
//! named, without following links, so that nobody who can write below it makes
//! us send something else.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_fs_ext::{DirExt, FollowSymlinks, OpenOptionsFollowExt};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, Metadata, OpenOptions};

use crate::disk::system;
use crate::disk::version;
use crate::disk::version::FileVersion;
use crate::event::Renamed;
use crate::pipe::PipeInput;
use crate::protocol::file_error::{FileError, FileErrorKind};
use crate::protocol::index::EntryIndex;
use crate::protocol::manifest::{Entry, Manifest, ManifestBuilder, ManifestError};
use crate::protocol::path::{SafePath, fitting_name, is_part, numbered};

/// Why the given paths cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A path that was named cannot be read.
    #[error("{}: {}", path.display(), FileErrorKind::of(error))]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// More than an offer may hold.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Nothing was named.
    #[error("there is nothing to send")]
    Empty,
    /// Nothing of what was named can be sent.
    #[error("{}", nothing_of(.0))]
    Nothing(Vec<Skipped>),
}

/// Something found below the given paths that is not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// What.
    pub path: PathBuf,
    /// Why.
    pub reason: SkipReason,
}

/// Why something found is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SkipReason {
    /// A symbolic link.
    #[error("a link")]
    Link,
    /// A device, a socket, a pipe.
    #[error("not a regular file")]
    Special,
    /// A file that is still being received.
    #[error("not received completely yet")]
    Unfinished,
    /// Nested too deep, or its path is too long.
    #[error("its path is too long")]
    TooLong,
    /// The system does not let us read it.
    #[error("{0}")]
    Unreadable(FileErrorKind),
}

/// The first of them, and how many there are.
fn nothing_of(skipped: &[Skipped]) -> String {
    let Some((first, more)) = skipped.split_first() else {
        return SourceError::Empty.to_string();
    };
    let said = format!("{}: {}", first.path.display(), first.reason);
    match more.len() {
        0 => said,
        more => format!("{said}; {more} more cannot be sent either"),
    }
}

impl SkipReason {
    /// Whether it should have been sent, and could not.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        match self {
            Self::TooLong | Self::Unreadable(_) => true,
            Self::Link | Self::Special | Self::Unfinished => false,
        }
    }
}

/// What will be offered, and where it was found.
#[derive(Debug)]
pub struct Source {
    manifest: Arc<Manifest>,
    places: Vec<Place>,
    roots: Vec<Dir>,
    skipped: Vec<Skipped>,
    /// What is sent instead of something that was found.
    input: Option<PipeInput>,
}

/// Where an entry was found: in the folder of another entry or in a root.
#[derive(Debug)]
struct Place {
    folder: Folder,
    /// Its name here, where that is not the offered one.
    name: Option<Box<OsStr>>,
    /// What is offered of a file.
    version: Option<FileVersion>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Folder {
    Root(u32),
    Entry(EntryIndex),
}

impl Source {
    /// Looks up everything at and below `paths`. Blocks.
    ///
    /// # Errors
    /// A path named here cannot be read; what cannot be read below it is
    /// [`Source::skipped`].
    pub fn scan(paths: &[PathBuf]) -> Result<Self, SourceError> {
        let mut scan = Scan::default();
        for path in paths {
            scan.root(path)?;
        }
        if scan.builder.count() == 0 {
            return Err(match scan.skipped.is_empty() {
                true => SourceError::Empty,
                false => SourceError::Nothing(scan.skipped),
            });
        }
        scan.places.shrink_to_fit();
        let unread = scan.skipped.iter().filter(|it| it.reason.is_failure());
        let unread = u32::try_from(unread.count()).unwrap_or(u32::MAX);
        scan.builder.leave_out(unread);
        Ok(Self {
            manifest: Arc::new(scan.builder.build()),
            places: scan.places,
            roots: scan.roots,
            skipped: scan.skipped,
            input: None,
        })
    }

    /// What comes out of a pipe, as a file of this name whose size nobody knows before
    /// its end.
    ///
    /// # Errors
    /// The name is that of something in a folder.
    pub fn stream(path: SafePath, input: PipeInput) -> Result<Self, ManifestError> {
        let mut builder = ManifestBuilder::default();
        builder.push(Entry::Stream { path })?;
        Ok(Self {
            manifest: Arc::new(builder.build()),
            places: Vec::new(),
            roots: Vec::new(),
            skipped: Vec::new(),
            input: Some(input),
        })
    }

    /// What is to be read, once.
    pub(crate) fn take_input(&self) -> Result<Box<dyn Read + Send>, FileError> {
        let input = self.input.as_ref().and_then(PipeInput::take);
        input.ok_or_else(|| FileError::Local {
            trouble: FileErrorKind::Io,
            detail: "it was read already".to_owned(),
        })
    }

    /// What the input is called where it does not serve.
    pub(crate) fn input_name(&self) -> &str {
        self.input.as_ref().map_or("", PipeInput::name)
    }

    /// The offer.
    #[must_use]
    pub const fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// Every file and folder found.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        self.manifest.entries()
    }

    /// How many files were found.
    #[must_use]
    pub fn files(&self) -> u32 {
        self.manifest.files()
    }

    /// The bytes of all files.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.manifest.total_bytes()
    }

    /// The files and folders that were found and are not sent.
    #[must_use]
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }
}

#[derive(Default)]
struct Scan {
    builder: ManifestBuilder,
    places: Vec<Place>,
    roots: Vec<Dir>,
    skipped: Vec<Skipped>,
}

/// Where the scan is: an opened folder and its names here and there.
struct Position<'a> {
    dir: &'a Dir,
    folder: Folder,
    local: &'a Path,
    offered: Option<&'a SafePath>,
}

impl Scan {
    fn root(&mut self, path: &Path) -> Result<(), SourceError> {
        let unreadable = |error| SourceError::Unreadable {
            path: path.to_owned(),
            error,
        };
        // `.`, `..` and `/` do not end in a name.
        let full = match path.file_name() {
            Some(_) => path.to_owned(),
            None => path.canonicalize().map_err(unreadable)?,
        };
        let (Some(name), Some(parent)) = (full.file_name(), full.parent()) else {
            return Err(unreadable(io::ErrorKind::InvalidInput.into()));
        };
        let parent = if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        };
        let dir = Dir::open_ambient_dir(parent, ambient_authority()).map_err(unreadable)?;
        let metadata = dir.symlink_metadata(name).map_err(unreadable)?;
        if metadata.is_dir() {
            // Named by the user, so that an empty offer would mislead.
            dir.open_dir_nofollow(name)
                .and_then(|dir| dir.entries())
                .map_err(unreadable)?;
        }
        let position = Position {
            dir: &dir,
            folder: Folder::Root(u32::try_from(self.roots.len()).unwrap_or(u32::MAX)),
            local: parent,
            offered: None,
        };
        self.found(&position, name, &metadata)?;
        self.roots.push(dir);
        Ok(())
    }

    fn found(
        &mut self,
        at: &Position<'_>,
        name: &OsStr,
        metadata: &Metadata,
    ) -> Result<(), ManifestError> {
        let modified_ns = version::modified_ns(metadata);
        let reason = if metadata.is_symlink() {
            SkipReason::Link
        } else if !metadata.is_dir() && !metadata.is_file() {
            SkipReason::Special
        } else if is_part(&name.to_string_lossy()) {
            SkipReason::Unfinished
        } else if let Some(path) = self.free_path(at.offered, &name.to_string_lossy()) {
            let place = Place {
                folder: at.folder,
                name: (name != path.name()).then(|| name.into()),
                version: metadata
                    .is_file()
                    .then(|| FileVersion::of_metadata(metadata)),
            };
            if metadata.is_dir() {
                return self.folder(at, name, place, &path, modified_ns);
            }
            return self.push(
                place,
                Entry::File {
                    path,
                    size_bytes: metadata.len(),
                    modified_ns,
                    executable: system::is_executable(metadata),
                },
            );
        } else {
            SkipReason::TooLong
        };
        self.skip(at.local.join(name), reason);
        Ok(())
    }

    fn folder(
        &mut self,
        at: &Position<'_>,
        name: &OsStr,
        place: Place,
        path: &SafePath,
        modified_ns: Option<i64>,
    ) -> Result<(), ManifestError> {
        let local = at.local.join(name);
        let listed = at.dir.open_dir_nofollow(name).and_then(|dir| {
            let names = dir
                .entries()?
                .map(|entry| entry.map(|entry| entry.file_name()));
            let mut names = names.collect::<io::Result<Vec<_>>>()?;
            names.sort_unstable();
            Ok((dir, names))
        });
        let (dir, names) = match listed {
            Ok(listed) => listed,
            Err(error) => {
                self.skip(local, SkipReason::Unreadable(FileErrorKind::of(&error)));
                return Ok(());
            }
        };
        let index = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        self.push(
            place,
            Entry::Folder {
                path: path.clone(),
                modified_ns,
            },
        )?;
        let inside = Position {
            dir: &dir,
            folder: Folder::Entry(EntryIndex::new(index)),
            local: &local,
            offered: Some(path),
        };
        for name in names {
            match dir.symlink_metadata(&name) {
                Ok(metadata) => self.found(&inside, &name, &metadata)?,
                Err(error) => {
                    self.skip(
                        local.join(&name),
                        SkipReason::Unreadable(FileErrorKind::of(&error)),
                    );
                }
            }
        }
        Ok(())
    }

    /// The path that `name` is offered under: allowed everywhere, and told
    /// apart from its neighbours by every file system.
    fn free_path(&self, folder: Option<&SafePath>, name: &str) -> Option<SafePath> {
        const TRIES: u32 = 10_000;
        let name = fitting_name(name, folder.is_none());
        (0..TRIES).find_map(|number| {
            let name = if number == 0 {
                name.clone()
            } else {
                numbered(&name, number)
            };
            let path = match folder {
                Some(folder) => format!("{}/{name}", folder.as_str()),
                None => name,
            };
            match SafePath::parse(&path) {
                Ok(path) if self.builder.is_taken(&path) => None,
                other => Some(other.ok()),
            }
        })?
    }

    fn push(&mut self, place: Place, entry: Entry) -> Result<(), ManifestError> {
        self.builder.push(entry)?;
        self.places.push(place);
        Ok(())
    }

    fn skip(&mut self, path: PathBuf, reason: SkipReason) {
        self.skipped.push(Skipped { path, reason });
    }
}

/// Opens the files of a source in their order, holding the folders on the way
/// to the last one open.
pub(crate) struct SourceReader {
    source: Arc<Source>,
    open: Vec<(EntryIndex, Dir)>,
}

impl SourceReader {
    pub(crate) const fn new(source: Arc<Source>) -> Self {
        Self {
            source,
            open: Vec::new(),
        }
    }

    /// The file `entry`, if it is still the one that was offered.
    pub(crate) fn open(&mut self, entry: EntryIndex) -> Result<File, FileError> {
        let source = Arc::clone(&self.source);
        let dir = self.enter(source.place(entry)?.folder)?;
        let mut options = OpenOptions::new();
        options.read(true).follow(FollowSymlinks::No);
        // A pipe put in the file's place must not hold us up.
        #[cfg(unix)]
        {
            use cap_std::fs::OpenOptionsExt;
            let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
            options.custom_flags(flags.bits().cast_signed());
        }
        let file = dir.open_with(source.name(entry)?, &options)?.into_std();
        self.check_unchanged(entry, &file)?;
        Ok(file)
    }

    /// Fills `room` from `offset_bytes` on. A file that ends before has changed, or
    /// never had the size that the system told.
    pub(crate) fn read(
        &self,
        entry: EntryIndex,
        file: &File,
        room: &mut [u8],
        offset_bytes: u64,
    ) -> Result<(), FileError> {
        match system::read_at(file, room, offset_bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.check_unchanged(entry, file)?;
                Err(unknown_size())
            }
            other => Ok(other?),
        }
    }

    /// Whether all of `file` that was read is what was offered: it is still the same,
    /// and there is nothing behind the size that was offered.
    pub(crate) fn check_read(&self, entry: EntryIndex, file: &File) -> Result<(), FileError> {
        self.check_unchanged(entry, file)?;
        let offered = self.source.manifest.entry(entry);
        let size_bytes = offered.and_then(Entry::file_size_bytes).unwrap_or_default();
        match system::is_end(file, size_bytes)? {
            true => Ok(()),
            false => {
                self.check_unchanged(entry, file)?;
                Err(unknown_size())
            }
        }
    }

    /// Whether `file` is still the one that was offered.
    pub(crate) fn check_unchanged(&self, entry: EntryIndex, file: &File) -> Result<(), FileError> {
        let local = |trouble: FileErrorKind| FileError::Local {
            trouble,
            detail: "it is not what was offered any more".to_owned(),
        };
        let now = Metadata::from_file(file)?;
        if !now.is_file() {
            return Err(local(FileErrorKind::NotAFile));
        }
        match self.source.place(entry)?.version {
            Some(offered) if offered.is_still(file, &now) => Ok(()),
            _ => Err(local(FileErrorKind::Changed)),
        }
    }

    /// The opened folder, the ones on the way to it opened as needed.
    fn enter(&mut self, folder: Folder) -> io::Result<&Dir> {
        let mut way = Vec::new();
        let mut above = folder;
        let root = loop {
            match above {
                Folder::Root(root) => break root,
                Folder::Entry(entry) => {
                    way.push(entry);
                    above = self.source.place(entry)?.folder;
                }
            }
        };
        way.reverse();
        let same = self
            .open
            .iter()
            .zip(&way)
            .take_while(|((open, _), entry)| open == *entry);
        let same = same.count();
        self.open.truncate(same);
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let root = usize::try_from(root).ok();
        let root = root.and_then(|root| self.source.roots.get(root));
        let root = root.ok_or_else(gone)?;
        for entry in way.into_iter().skip(same) {
            let above = self.open.last().map_or(root, |(_, dir)| dir);
            let dir = above.open_dir_nofollow(self.source.name(entry)?)?;
            self.open.push((entry, dir));
        }
        Ok(self.open.last().map_or(root, |(_, dir)| dir))
    }
}

fn unknown_size() -> FileError {
    FileError::Local {
        trouble: FileErrorKind::UnknownSize,
        detail: String::new(),
    }
}

impl Source {
    /// The files and folders that are offered under another name than they have here.
    #[must_use]
    pub fn renamed(&self) -> Renamed {
        let mut renamed = Renamed::default();
        for (place, entry) in self.places.iter().zip(self.manifest.entries()) {
            if let Some(name) = &place.name {
                let (name, path) = (name.to_string_lossy(), entry.path());
                match path.parent() {
                    Some(folder) => renamed.add(&format!("{folder}/{name}"), path.as_str()),
                    None => renamed.add(&name, path.as_str()),
                }
            }
        }
        renamed
    }

    fn place(&self, entry: EntryIndex) -> io::Result<&Place> {
        let place = usize::try_from(entry.get())
            .ok()
            .and_then(|entry| self.places.get(entry));
        place.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// What an entry is called here.
    fn name(&self, entry: EntryIndex) -> io::Result<&OsStr> {
        if let Some(name) = &self.place(entry)?.name {
            return Ok(name);
        }
        let entry = self.manifest.entry(entry);
        let name = entry.map(|entry| entry.path().name().as_ref());
        name.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;

    use super::*;

    fn paths(source: &Source) -> Vec<&str> {
        source
            .entries()
            .iter()
            .map(|entry| entry.path().as_str())
            .collect()
    }

    #[test]
    fn finds_files_and_folders_empty_ones_too() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir_all(top.join("empty")).unwrap();
        fs::create_dir_all(top.join("full/deep")).unwrap();
        fs::write(top.join("full/deep/b.txt"), "bb").unwrap();
        fs::write(top.join("a.txt"), "").unwrap();
        let lone = dir.path().join("报告.txt");
        fs::write(&lone, "1").unwrap();
        let source = Source::scan(&[top, lone]).unwrap();
        assert_eq!(
            paths(&source),
            [
                "top",
                "top/a.txt",
                "top/empty",
                "top/full",
                "top/full/deep",
                "top/full/deep/b.txt",
                "报告.txt"
            ]
        );
        assert_eq!((source.files(), source.total_bytes()), (3, 3));
        assert_eq!(source.skipped(), []);
    }

    #[cfg(unix)]
    #[test]
    fn links_pipes_and_unfinished_files_are_named_but_not_sent() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir(&top).unwrap();
        fs::write(top.join("real"), "x").unwrap();
        std::os::unix::fs::symlink("real", top.join("link")).unwrap();
        std::os::unix::fs::symlink("/", top.join("slash")).unwrap();
        fs::write(top.join(".x.1.pinhole-part"), "x").unwrap();
        let socket = std::os::unix::net::UnixListener::bind(top.join("socket")).unwrap();
        let source = Source::scan(std::slice::from_ref(&top)).unwrap();
        drop(socket);
        assert_eq!(paths(&source), ["top", "top/real"]);
        let skipped: Vec<_> = source
            .skipped()
            .iter()
            .map(|skipped| skipped.reason)
            .collect();
        use SkipReason::{Link, Special, Unfinished};
        assert_eq!(skipped, [Unfinished, Link, Link, Special]);
        let link = Source::scan(&[top.join("link")]);
        assert!(matches!(link, Err(SourceError::Nothing(_))));
    }

    #[cfg(unix)]
    #[test]
    fn names_that_would_be_refused_or_collide_are_changed() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join(".top");
        fs::create_dir(&top).unwrap();
        for name in [
            &b"a"[..],
            b"A",
            b"what?",
            b"what_",
            b"NUL",
            b"\xff\xfe",
            b".git",
        ] {
            fs::write(top.join(OsStr::from_bytes(name)), name).unwrap();
        }
        let source = Source::scan(std::slice::from_ref(&top)).unwrap();
        assert_eq!(
            paths(&source),
            [
                "_top",
                "_top/.git",
                "_top/A",
                "_top/_NUL",
                "_top/a (1)",
                "_top/what_",
                "_top/what_ (1)",
                "_top/\u{fffd}\u{fffd}"
            ]
        );
        // Each is still read from where it was found.
        let mut reader = SourceReader::new(Arc::new(source));
        for (entry, content) in [(2, &b"A"[..]), (4, b"a"), (5, b"what?"), (7, b"\xff\xfe")] {
            let mut read = Vec::new();
            let mut file = reader.open(EntryIndex::new(entry)).unwrap();
            file.read_to_end(&mut read).unwrap();
            assert_eq!(read, content);
        }
    }

    #[test]
    fn a_missing_path_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none");
        let error = Source::scan(std::slice::from_ref(&path)).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: not found", path.display()));
        assert!(matches!(Source::scan(&[]), Err(SourceError::Empty)));
    }

    #[cfg(unix)]
    #[test]
    fn what_was_swapped_after_the_scan_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir_all(top.join("sub")).unwrap();
        for name in ["grown", "linked", "piped", "gone", "same", "sub/inner"] {
            fs::write(top.join(name), "x").unwrap();
        }
        let source = Source::scan(std::slice::from_ref(&top)).unwrap();
        let numbers: std::collections::HashMap<_, _> = (0..)
            .zip(paths(&source))
            .map(|(number, path)| (path.to_owned(), EntryIndex::new(number)))
            .collect();
        fs::write(top.join("grown"), "xy").unwrap();
        for name in ["linked", "piped", "gone"] {
            fs::remove_file(top.join(name)).unwrap();
        }
        std::os::unix::fs::symlink("same", top.join("linked")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            top.join("piped"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        fs::rename(top.join("sub"), top.join("moved")).unwrap();
        std::os::unix::fs::symlink("moved", top.join("sub")).unwrap();

        let mut reader = SourceReader::new(Arc::new(source));
        let mut trouble = |path: &str| {
            reader
                .open(numbers[path])
                .err()
                .map(|error| error.trouble())
        };
        assert_eq!(trouble("top/grown"), Some(FileErrorKind::Changed));
        assert_eq!(trouble("top/linked"), Some(FileErrorKind::NotAFile));
        assert_eq!(trouble("top/piped"), Some(FileErrorKind::NotAFile));
        assert_eq!(trouble("top/gone"), Some(FileErrorKind::NotFound));
        assert_eq!(trouble("top/sub/inner"), Some(FileErrorKind::NotAFolder));
        assert_eq!(trouble("top/same"), None);
    }
}
