//! Temporaries: where a file is written before it has its name, and what is
//! left of it when the transfer breaks off.
//!
//! A temporary is named after the file, its size and whose it is, so that a later
//! attempt finds it, even if the file has another name by then, and nobody else's
//! does; and locked while it is in use, so that two attempts never share one. What is
//! in it needs no record: before a chunk of it counts, it is held against the sender's
//! digest. What is behind the end of the file is cut off before.

use std::fs::File;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use blake3::Hasher;
use cap_fs_ext::{FollowSymlinks, OpenOptionsFollowExt};
use cap_std::fs::{Dir, Metadata, OpenOptions};

use crate::disk::attempt::Attempt;
use crate::disk::digest_cache::{Chunks, DigestCache};
use crate::disk::direct::{Direct, Pace};
use crate::disk::locked_file::{OwnFile, create_own, has_name, open_own};
use crate::disk::system;
use crate::protocol::chunking::CHUNK_BYTES;
use crate::protocol::file_error::{FileError, FileErrorKind};
use crate::protocol::path::{PART_SUFFIX, numbered, numbered_within, shortened};

/// How often another name is tried where one is taken.
const NUMBER_MAX: u32 = 10_000;
/// How many attempts at the same file are told apart when looking for one that
/// was left.
const FOUND_MAX: u32 = 4;
/// Most temporaries of one folder that are looked through for those of renamed
/// files.
const TEMPORARIES_MAX: usize = 1024;
/// So many names of a folder are looked through for temporaries of renamed files.
/// It may be the user's, and hold millions.
pub(crate) const NAMES_MAX: usize = 4096;

/// The name of a temporary is no longer than so much, or than the file's own: where
/// a file system takes the one it takes the other.
const NAME_BYTES: usize = 64;

/// For a file of more bytes than so many chunks room is set aside. A smaller one
/// is soon written.
const RESERVED_BYTES: u64 = 64 * CHUNK_BYTES as u64;

/// A file under its temporary name. When it is dropped without having been
/// given its own, it stays if it is of use to a later attempt.
#[derive(Debug)]
pub(crate) struct PartialFile {
    dir: Arc<Dir>,
    /// `None` once it has its own.
    temporary: Option<String>,
    pub(crate) file: Arc<File>,
    /// Past the page cache, where that is possible.
    direct: Option<Direct>,
    /// What its chunks are known to be.
    pub(crate) chunks: Arc<Chunks>,
    /// Why what is in it cannot be relied on.
    spoilt: Arc<OnceLock<io::Error>>,
    size_bytes: u64,
    /// Nobody knows how long it gets: so far it is as long as what was written.
    is_stream: bool,
    attempt: Arc<Attempt>,
    is_unwanted: bool,
    /// It is finished, and under this name in another folder.
    elsewhere: Option<(Arc<Dir>, String)>,
}

/// The content of a file, and the known digests of its chunks.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) file: Arc<File>,
    pub(crate) chunks: Arc<Chunks>,
    spoilt: Arc<OnceLock<io::Error>>,
}

impl Content {
    /// A finished file.
    pub(crate) fn finished(file: File, known: &DigestCache) -> Self {
        Self {
            chunks: known.recall(&file),
            file: Arc::new(file),
            spoilt: Arc::default(),
        }
    }

    /// Its disk has once failed to take what was written, and what is on it now
    /// cannot be told any more, whatever a later attempt says.
    pub(crate) fn spoil(&self, error: io::Error) {
        // The first error tells more.
        let _ = self.spoilt.set(error);
    }
}

impl PartialFile {
    /// A new one, empty, for the file `name`.
    pub(crate) fn create(
        dir: &Arc<Dir>,
        name: &str,
        size_bytes: u64,
        attempt: &Arc<Attempt>,
    ) -> io::Result<Self> {
        let (temporary, own) = first_of(|number| {
            let temporary = temporary_name(name, &suffix(&attempt.owner, size_bytes, number));
            create_own(dir, &temporary).map(|own| (temporary, own))
        })?;
        let OwnFile { file, is_new } = own;
        let part = Self::new(dir, Some(temporary), file, size_bytes, attempt);
        // Of many small files this would cost time, and all of each is written.
        if !is_new || part.takes_long() {
            part.file.set_len(0)?;
        }
        Ok(part)
    }

    /// A new one for a stream, which is of no use to a later attempt.
    pub(crate) fn of_stream(
        dir: &Arc<Dir>,
        name: &str,
        attempt: &Arc<Attempt>,
    ) -> io::Result<Self> {
        let mut part = Self::create(dir, name, 0, attempt)?;
        (part.is_stream, part.is_unwanted) = (true, true);
        Ok(part)
    }

    /// How long its file is.
    pub(crate) const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// What an earlier attempt at the file `name` has left.
    ///
    /// # Errors
    /// The disk does not say.
    pub(crate) fn find(
        dir: &Arc<Dir>,
        name: &str,
        size_bytes: u64,
        attempt: &Arc<Attempt>,
    ) -> io::Result<Option<Self>> {
        for number in 0..FOUND_MAX {
            let temporary = temporary_name(name, &suffix(&attempt.owner, size_bytes, number));
            let found = Self::take_up(dir, temporary, size_bytes, attempt)
                .and_then(|part| Ok((part.try_count_chunks()?, part)));
            match found {
                Ok((1.., part)) => return Ok(Some(part)),
                Err(error) if system::has_failed(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(None)
    }

    /// What an earlier attempt of the same owner at a file of this size, whatever its
    /// name, has left among the `temporaries`.
    pub(crate) fn find_renamed(
        dir: &Arc<Dir>,
        size_bytes: u64,
        temporaries: &[String],
        attempt: &Arc<Attempt>,
    ) -> Option<Self> {
        (0..FOUND_MAX).find_map(|number| {
            let suffix = suffix(&attempt.owner, size_bytes, number);
            let mut fitting = temporaries.iter().filter(|name| name.ends_with(&suffix));
            fitting.find_map(|name| {
                let part = Self::take_up(dir, name.clone(), size_bytes, attempt).ok();
                part.filter(|part| part.count_chunks() > 0)
            })
        })
    }

    fn take_up(
        dir: &Arc<Dir>,
        temporary: String,
        size_bytes: u64,
        attempt: &Arc<Attempt>,
    ) -> io::Result<Self> {
        let file = open_own(dir, &temporary)?;
        cut(&file, size_bytes)?;
        Ok(Self::new(dir, Some(temporary), file, size_bytes, attempt).recalled())
    }

    /// A file that has its name already.
    pub(crate) fn finished(dir: &Arc<Dir>, file: File, attempt: &Arc<Attempt>) -> Self {
        Self::new(dir, None, file, 0, attempt).recalled()
    }

    /// A finished file that has its name in another folder, or another name.
    pub(crate) fn elsewhere(mut self, dir: &Arc<Dir>, name: &str) -> Self {
        self.elsewhere = Some((Arc::clone(dir), name.to_owned()));
        self
    }

    fn new(
        dir: &Arc<Dir>,
        temporary: Option<String>,
        file: File,
        size_bytes: u64,
        attempt: &Arc<Attempt>,
    ) -> Self {
        Self {
            dir: Arc::clone(dir),
            temporary,
            chunks: Arc::default(),
            file: Arc::new(file),
            direct: None,
            spoilt: Arc::default(),
            size_bytes,
            is_stream: false,
            attempt: Arc::clone(attempt),
            is_unwanted: false,
            elsewhere: None,
        }
    }

    /// With what is known of its chunks.
    fn recalled(mut self) -> Self {
        self.chunks = self.attempt.cache.recall(&self.file);
        self
    }

    /// Whether it is still to move here.
    pub(crate) const fn is_elsewhere(&self) -> bool {
        self.elsewhere.is_some()
    }

    /// Puts it where the file `name` of `dir` has its temporary.
    pub(crate) fn move_to(&mut self, dir: &Arc<Dir>, name: &str) -> io::Result<()> {
        let Some(old) = &self.temporary else {
            return Ok(());
        };
        let temporary = first_of(|number| {
            let suffix = suffix(&self.attempt.owner, self.size_bytes, number);
            let temporary = temporary_name(name, &suffix);
            system::rename_new((&self.dir, old), (dir, &temporary)).map(|()| temporary)
        })?;
        self.temporary = Some(temporary);
        self.dir = Arc::clone(dir);
        Ok(())
    }

    pub(crate) fn content(&self) -> Content {
        Content {
            file: Arc::clone(&self.file),
            chunks: Arc::clone(&self.chunks),
            spoilt: Arc::clone(&self.spoilt),
        }
    }

    /// Fails with what has [spoilt](Content::spoil) it.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self.spoilt.get() {
            Some(error) => Err(match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => error.kind().into(),
            }),
            None => Ok(()),
        }
    }

    /// How many chunks from the first may be in it; none when the disk does not
    /// say.
    pub(crate) fn count_chunks(&self) -> u32 {
        self.try_count_chunks().unwrap_or(0)
    }

    fn try_count_chunks(&self) -> io::Result<u32> {
        let length_bytes = self.file.metadata()?.len();
        let chunk_bytes = u64::from(CHUNK_BYTES);
        let chunks = if length_bytes == self.size_bytes {
            length_bytes.div_ceil(chunk_bytes)
        } else {
            length_bytes.min(self.size_bytes) / chunk_bytes
        };
        Ok(u32::try_from(chunks).unwrap_or(u32::MAX))
    }

    /// Whether room is set aside for it before it is written.
    pub(crate) const fn is_reserved(&self) -> bool {
        self.size_bytes > RESERVED_BYTES
    }

    /// How much of the room that its file needs it has already, written or set
    /// aside.
    pub(crate) fn room_bytes(&self) -> u64 {
        let room_bytes = system::room_bytes(&self.file).unwrap_or_default();
        room_bytes.min(self.size_bytes)
    }

    /// How much it lacks.
    pub(crate) fn missing_bytes(&self) -> u64 {
        self.size_bytes - self.room_bytes()
    }

    /// Sets aside the room that is missing.
    pub(crate) fn reserve(&self) -> io::Result<()> {
        system::reserve(&self.file, self.size_bytes)
    }

    /// Opens the way past the page cache for whole chunks, if there are several
    /// and the disk lets them.
    pub(crate) fn open_direct(&mut self) {
        if self.takes_long() {
            self.direct = Direct::open(&self.file);
        }
    }

    /// Writes all of `data` from `offset_bytes` on, at the `pace` of its disk.
    pub(crate) fn write_at(
        &mut self,
        data: &[u8],
        offset_bytes: u64,
        pace: &mut Pace,
    ) -> io::Result<()> {
        use io::ErrorKind::{InvalidInput, Unsupported};
        if self.is_stream {
            self.size_bytes = self.size_bytes.max(offset_bytes + data.len() as u64);
        }
        let direct = self.direct.as_ref();
        match direct.map(|direct| direct.write_at(data, offset_bytes, pace)) {
            Some(Ok(true)) => return Ok(()),
            Some(Err(error)) if !matches!(error.kind(), InvalidInput | Unsupported) => {
                return Err(error);
            }
            Some(Err(_)) => self.direct = None,
            Some(Ok(false)) | None => {}
        }
        system::write_at(&self.file, data, offset_bytes)
    }

    /// Whether it has more than one chunk, so that others find the time to touch it.
    const fn takes_long(&self) -> bool {
        self.is_stream || self.size_bytes > CHUNK_BYTES as u64
    }

    /// Takes away what others have put behind the end of the file.
    pub(crate) fn cut(&self) -> io::Result<()> {
        match self.temporary {
            Some(_) if self.takes_long() => cut(&self.file, self.size_bytes),
            _ => Ok(()),
        }
    }

    /// Fails where others have made it longer or shorter than its file, or have put
    /// something else in its place.
    fn check_whole(&self, temporary: &str) -> io::Result<()> {
        let is_whole = self.file.metadata()?.len() == self.size_bytes;
        // One that was begun a moment ago is not looked for: of many small files it
        // would cost time.
        if is_whole && (!self.takes_long() || has_name(&self.dir, temporary, &self.file)?) {
            return Ok(());
        }
        Err(io::Error::other(FileError::Local {
            trouble: FileErrorKind::Io,
            detail: "another program has changed it meanwhile".to_owned(),
        }))
    }

    /// Removes it.
    pub(crate) fn discard(mut self) {
        self.is_unwanted = true;
    }

    /// The folder it is in, and the one it was in before.
    pub(crate) fn dirs(&self) -> impl Iterator<Item = &Arc<Dir>> {
        let before = self.elsewhere.as_ref().map(|(dir, _)| dir);
        std::iter::once(&self.dir).chain(before)
    }

    /// Marks the file as one that came from elsewhere, where a system asks.
    pub(crate) fn mark_received(&self) {
        if let Some(temporary) = &self.temporary
            && let Err(error) = system::mark_received(&self.dir, temporary, &self.file)
        {
            // A file system without room for marks.
            tracing::debug!(%error, "not marked as received");
        }
    }

    /// Gives the file the time it had on the other side, where the file system lets
    /// it have one.
    pub(crate) fn set_time(&self, modified_ns: Option<i64>) {
        if let Some(modified) = modified_ns.and_then(at_ns_since_1970)
            && self.temporary.is_some()
            && let Err(error) = system::set_modified(&self.file, modified)
        {
            tracing::debug!(%error, "file without its time");
        }
    }

    /// Makes a program of it, where the file system knows such a thing.
    pub(crate) fn set_executable(&self) {
        if let Err(error) = system::set_executable(&self.file) {
            tracing::debug!(%error, "not executable");
        }
    }

    /// Gives the file its name, or the first numbered one that is free; with
    /// `replaces`, where a file has it, in its place. `intend` hears of each
    /// that is tried. `None` when it has its name.
    pub(crate) fn publish(
        &mut self,
        name: &str,
        replaces: bool,
        intend: impl Fn(&str) -> io::Result<()>,
    ) -> io::Result<Option<String>> {
        let (dir, old) = match (&self.temporary, &self.elsewhere) {
            (Some(temporary), _) => {
                self.check_whole(temporary)?;
                (&self.dir, temporary)
            }
            (None, Some((dir, name))) => (dir, name),
            (None, None) => return Ok(None),
        };
        let name = if replaces && let Some(replaced) = file_there(&self.dir, name)? {
            intend(name)?;
            if let Err(error) = system::keep_mode(&self.file, &replaced) {
                tracing::debug!(%error, "a file that is replaced loses its mode");
            }
            dir.rename(old, &self.dir, name)?;
            name.to_owned()
        } else {
            first_free(name, |name| {
                intend(name)?;
                system::rename_new((dir, old), (&self.dir, name))
            })?
        };
        if self.temporary.take().is_none() || self.takes_long() {
            self.attempt.cache.remember(&self.file, &self.chunks);
        }
        Ok(Some(name))
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        let Some(temporary) = self.temporary.take() else {
            return;
        };
        let is_of_use = self.takes_long() && self.count_chunks() > 0;
        let is_good = self.spoilt.get().is_none() && !self.is_unwanted;
        if is_of_use && is_good && self.attempt.control.keeps_parts() {
            if self.is_reserved()
                && let Err(error) = system::give_back(&self.file)
            {
                tracing::debug!(%error, temporary, "room stays set aside");
            }
            self.attempt.cache.remember(&self.file, &self.chunks);
            return;
        }
        // What others have put in its place is theirs.
        if !has_name(&self.dir, &temporary, &self.file).unwrap_or(true) {
            return;
        }
        if let Err(error) = self.dir.remove_file(&temporary) {
            tracing::warn!(%error, temporary, "temporary file left behind");
        }
    }
}

/// The names of temporaries among the first `most` of a folder; none of one that
/// cannot be listed.
pub(crate) fn temporaries(dir: &Dir, most: usize) -> Vec<String> {
    let entries = dir.entries().into_iter().flatten().take(most).flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| name.ends_with(PART_SUFFIX))
        .take(TEMPORARIES_MAX)
        .collect()
}

/// A file to be read, in a folder that others may write to.
pub(crate) fn open_file(dir: &Dir, name: &str) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).follow(FollowSymlinks::No);
    if !dir.symlink_metadata(name)?.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    // A pipe put in the file's place must not hold us up.
    #[cfg(unix)]
    {
        use cap_std::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        options.custom_flags(flags.bits().cast_signed());
    }
    Ok(dir.open_with(name, &options)?.into_std())
}

/// Takes away what is behind the end of a file of this size.
fn cut(file: &File, size_bytes: u64) -> io::Result<()> {
    match file.metadata()?.len() > size_bytes {
        true => file.set_len(size_bytes),
        false => Ok(()),
    }
}

/// What the names of this owner's temporaries for files of this size end in.
fn suffix(owner: &[u8; 32], size_bytes: u64, number: u32) -> String {
    let mut hash = Hasher::new();
    hash.update(b"part").update(owner);
    hash.update(&size_bytes.to_be_bytes());
    own_suffix(hash.update(&number.to_be_bytes()))
}

/// `.<name>.<digest>.pinhole-part`
fn temporary_name(name: &str, suffix: &str) -> String {
    let room = name.len().max(NAME_BYTES) - suffix.len() - 1;
    format!(".{}{suffix}", shortened(name, room))
}

/// `.<digest>.pinhole-part`
pub(crate) fn own_suffix(hash: &Hasher) -> String {
    let hash = hash.finalize().to_hex();
    format!(".{hash:.16}{PART_SUFFIX}")
}

fn file_there(dir: &Dir, name: &str) -> io::Result<Option<Metadata>> {
    match dir.symlink_metadata(name) {
        Ok(metadata) => Ok(Some(metadata).filter(Metadata::is_file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Runs `make` with `name`, or with the first numbered one that is free.
pub(crate) fn first_free(name: &str, make: impl Fn(&str) -> io::Result<()>) -> io::Result<String> {
    first_of(|number| {
        if number == 0 {
            return make(name).map(|()| name.to_owned());
        }
        let longer = numbered(name, number);
        match make(&longer) {
            // Where the name itself fits, the number takes the place of its end.
            Err(error) if error.kind() == io::ErrorKind::InvalidFilename => {
                let as_long = numbered_within(name, number, name.len());
                make(&as_long).map(|()| as_long)
            }
            made => made.map(|()| longer),
        }
    })
}

/// Runs `make` with numbers from zero until the name it makes is free.
pub(crate) fn first_of<T>(make: impl Fn(u32) -> io::Result<T>) -> io::Result<T> {
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

pub(crate) fn at_ns_since_1970(ns: i64) -> Option<SystemTime> {
    let distance = Duration::from_nanos(ns.unsigned_abs());
    if ns < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    }
}
