//! What attempts at an offer have made, beside it, until it is complete: what
//! they called its files and folders at the top level, where another may have
//! been found to be taken, and which paths it has. The next attempt at the same
//! offer goes on in the same places; one at an offer in which something was
//! moved or renamed since finds there where everything was.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use blake3::Hasher;
use cap_std::fs::Dir;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::disk::locked_file::{create_own, open_own};
use crate::disk::partial_file::{first_of, open_file, own_suffix};
use crate::disk::system;
use crate::protocol::manifest::{ENTRIES_MAX, Entry, Manifest};
use crate::protocol::path::SafePath;

/// Longer than any that this program writes is no journal.
const JOURNAL_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// How many journals of offers with the same sizes are told apart.
const JOURNALS_MAX: u32 = 8;
/// Longer than its first line.
const LISTING_BYTES_MAX: u64 = 128;
/// No line is longer: a path, of which each byte may have to be escaped.
const LINE_BYTES_MAX: u64 = 32 * 1024;
/// How much of a new journal is written at once.
const WRITE_BYTES: usize = 256 * 1024;

/// One line of it, as JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// The digest of the offer's paths and sizes. The first line.
    Listing(String),
    /// The journal of an offer that this one may have been before something in
    /// it moved.
    Before(String),
    /// A file of the offer.
    File { path: SafePath, size_bytes: u64 },
    /// A folder of the offer.
    Folder { path: SafePath },
    /// A file or folder at the top level, by its path in the offer. The last
    /// line on it counts.
    Named {
        offered: Box<str>,
        named: PlacedName,
    },
}

/// What something at the top level is called on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlacedName {
    /// Its name, or the one that it was about to get.
    pub(crate) name: String,
    /// It is a folder that was there before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) was_there: bool,
}

/// What an attempt notes on disk of an offer. Locked while it exists.
#[derive(Debug)]
pub(crate) struct Journal {
    dir: Arc<Dir>,
    /// None where no later attempt can find it.
    name: Option<String>,
    file: File,
    end_bytes: Mutex<u64>,
    is_dirty: AtomicBool,
    /// What the attempt before has left.
    earlier: HashMap<Box<str>, PlacedName>,
    others: Vec<PriorOffer>,
}

/// That of an offer whose files are as many and as large, but have other paths.
#[derive(Debug)]
pub(crate) struct PriorOffer {
    name: String,
    /// Locked, so that the attempt it is of does not go on meanwhile.
    _file: File,
    named: HashMap<Box<str>, PlacedName>,
    /// Every path, and the size where it is a file.
    pub(crate) entries: Vec<(SafePath, Option<u64>)>,
    /// Something that it tells of was taken up.
    is_used: AtomicBool,
}

/// A place below the destination.
#[derive(Debug)]
pub(crate) struct PriorPlace {
    pub(crate) path: String,
    /// The file under that name was made by an attempt, and not found there.
    pub(crate) is_ours: bool,
}

#[derive(Default)]
struct Contents {
    before: Vec<String>,
    named: HashMap<Box<str>, PlacedName>,
    entries: Vec<(SafePath, Option<u64>)>,
}

impl Journal {
    /// That of this offer: of these paths and sizes, by this owner. A new one when
    /// there is none, or when another transfer uses it. Nothing is looked for but
    /// under [`JOURNALS_MAX`] names, which nobody else's offers have, and nothing is
    /// left under others.
    pub(crate) fn open(dir: &Arc<Dir>, manifest: &Manifest, owner: &[u8; 32]) -> io::Result<Self> {
        let sizes = sizes_of(manifest, owner);
        let name_of = |number: u32| own_suffix(sizes.clone().update(&number.to_be_bytes()));
        let listing = listing_of(manifest);
        let mut own = None;
        let mut others = Vec::new();
        let most = match manifest.is_stream() {
            // Nothing goes on from it.
            true => 0,
            false => JOURNALS_MAX,
        };
        for name in (0..most).map(name_of) {
            match listing_in(dir, &name)? {
                Some(found) if found != listing => others.push(name),
                Some(_) if own.is_none() => own = open_left(dir, &name)?.map(|file| (name, file)),
                _ => {}
            }
        }
        let new = own.is_none();
        let (name, file, contents) = match own {
            Some((name, file)) => {
                let contents = Contents::read(&file, false)?;
                others.retain(|name| contents.before.contains(name));
                (Some(name), file, contents)
            }
            None => {
                let (name, file) = create_one(dir, name_of, most)?;
                (name, file, Contents::default())
            }
        };
        let others: Vec<_> = others
            .into_iter()
            .filter_map(|name| PriorOffer::open(dir, name))
            .collect();
        let journal = Self {
            dir: Arc::clone(dir),
            name,
            end_bytes: Mutex::new(file.metadata()?.len()),
            file,
            is_dirty: AtomicBool::new(false),
            earlier: contents.named,
            others,
        };
        if new && let Err(error) = journal.begin(listing, manifest) {
            // Nothing else would remove it.
            let _ = journal.remove();
            return Err(error);
        }
        Ok(journal)
    }

    fn begin(&self, listing: String, manifest: &Manifest) -> io::Result<()> {
        let before = self.others.iter().map(|it| Line::Before(it.name.clone()));
        let entries = manifest.entries().iter().map(|entry| match entry {
            Entry::File {
                path, size_bytes, ..
            } => Line::File {
                path: path.clone(),
                size_bytes: *size_bytes,
            },
            Entry::Folder { path, .. } | Entry::Stream { path } => {
                Line::Folder { path: path.clone() }
            }
        });
        let mut text = Vec::new();
        for line in std::iter::once(Line::Listing(listing))
            .chain(before)
            .chain(entries)
        {
            write_line(&mut text, &line)?;
            if text.len() >= WRITE_BYTES {
                self.append(&text)?;
                text.clear();
            }
        }
        self.append(&text)
    }

    fn append(&self, text: &[u8]) -> io::Result<()> {
        let mut end_bytes = self.end_bytes.lock();
        system::write_at(&self.file, text, *end_bytes)?;
        *end_bytes += text.len() as u64;
        self.is_dirty.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// What the attempts before called this path of the top level.
    pub(crate) fn earlier(&self, offered: &str) -> Option<&PlacedName> {
        let own = self.earlier.get(offered);
        own.or_else(|| {
            let mut others = self.others.iter();
            let (other, named) =
                others.find_map(|other| Some((other, other.named.get(offered)?)))?;
            other.use_it();
            Some(named)
        })
    }

    /// Whether it says already what this path of the top level is called.
    pub(crate) fn says(&self, offered: &str, named: &PlacedName) -> bool {
        self.earlier.get(offered) == Some(named)
    }

    /// Those of the offers that this one may have been before something in it
    /// moved.
    pub(crate) fn others(&self) -> &[PriorOffer] {
        &self.others
    }

    /// Notes what a path of the top level is called, or is about to be.
    pub(crate) fn note(&self, offered: &str, named: PlacedName) -> io::Result<()> {
        let mut line = Vec::new();
        let offered = offered.into();
        write_line(&mut line, &Line::Named { offered, named })?;
        self.append(&line)
    }

    /// A file on the destination's file system, open for as long as this is.
    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    /// Makes what was noted durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        if self.is_dirty.swap(false, Ordering::Relaxed) {
            self.file.sync_data()?;
        }
        Ok(())
    }

    /// Removes it, and those that something was taken from: nothing will go on
    /// from here.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for other in self.others.iter().filter(|other| other.is_used()) {
            self.dir.remove_file(&other.name)?;
        }
        match &self.name {
            Some(name) => self.dir.remove_file(name),
            None => Ok(()),
        }
    }
}

impl PriorOffer {
    /// `None` where it is not ours, in use, or cannot be read: it is only of
    /// use, and not needed.
    fn open(dir: &Dir, name: String) -> Option<Self> {
        let file = open_own(dir, &name).ok()?;
        let contents = Contents::read(&file, true).ok()?;
        Some(Self {
            name,
            _file: file,
            named: contents.named,
            entries: contents.entries,
            is_used: AtomicBool::new(false),
        })
    }

    /// Where a path of the offer is on disk.
    pub(crate) fn place(&self, path: &SafePath) -> Option<PriorPlace> {
        let PlacedName { name, was_there } = self.named.get(path.top())?;
        let below = path.as_str().strip_prefix(path.top())?;
        Some(PriorPlace {
            path: format!("{name}{below}"),
            is_ours: !was_there,
        })
    }

    /// Where it is, if an attempt has made it.
    pub(crate) fn own_place(&self, path: &SafePath) -> Option<String> {
        let place = self.place(path).filter(|place| place.is_ours);
        place.map(|place| place.path)
    }

    pub(crate) fn use_it(&self) {
        self.is_used.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Relaxed)
    }
}

impl Contents {
    fn read(file: &File, with_entries: bool) -> io::Result<Self> {
        let mut contents = Self::default();
        let mut reader = BufReader::new(file.take(JOURNAL_BYTES_MAX));
        let mut line = Vec::new();
        while read_line(&mut reader, &mut line)? {
            let parsed = serde_json::from_slice(&line);
            line.clear();
            let has_room = with_entries && contents.entries.len() < ENTRIES_MAX as usize;
            // One that was cut short tells nothing.
            match parsed {
                Ok(Line::File { path, size_bytes }) if has_room => {
                    contents.entries.push((path, Some(size_bytes)));
                }
                Ok(Line::Folder { path }) if has_room => contents.entries.push((path, None)),
                Ok(Line::Before(name)) => contents.before.push(name),
                Ok(Line::Named { offered, named }) if is_name(&offered) && is_name(&named.name) => {
                    contents.named.insert(offered, named);
                }
                _ => {}
            }
        }
        Ok(contents)
    }
}

/// Reads the next line, or as much of a longer one as any of a journal has. Returns
/// whether there is one.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    Ok(reader.take(LINE_BYTES_MAX).read_until(b'\n', line)? > 0)
}

/// Whether nothing but one name below the destination is meant.
fn is_name(text: &str) -> bool {
    SafePath::parse(text).is_ok_and(|path| path.parent().is_none())
}

/// With a break in front, because the line before may have been cut short.
fn write_line(text: &mut Vec<u8>, line: &Line) -> io::Result<()> {
    text.push(b'\n');
    Ok(serde_json::to_writer(text, line)?)
}

/// What stays as it is when something in an offer is moved or renamed: whose it is,
/// and the sizes of its files.
fn sizes_of(manifest: &Manifest, owner: &[u8; 32]) -> Hasher {
    let entries = manifest.entries().iter();
    let mut sizes: Vec<_> = entries.filter_map(Entry::file_size_bytes).collect();
    sizes.sort_unstable();
    let mut hash = Hasher::new();
    hash.update(b"journal").update(owner);
    for size_bytes in sizes {
        hash.update(&size_bytes.to_be_bytes());
    }
    hash
}

fn listing_of(manifest: &Manifest) -> String {
    manifest.listing().to_string()
}

/// Of which paths and sizes the journal under a name is; `None` when there is
/// none, or none that we may look at. Not locked, because it may be in use.
fn listing_in(dir: &Dir, name: &str) -> io::Result<Option<String>> {
    match open_file(dir, name).and_then(|file| read_listing(&file)) {
        Err(error)
            if system::is_in_use(&error)
                || matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
                ) =>
        {
            Ok(None)
        }
        other => other,
    }
}

fn read_listing(file: &File) -> io::Result<Option<String>> {
    let mut text = Vec::new();
    file.take(LISTING_BYTES_MAX).read_to_end(&mut text)?;
    let mut lines = text.split(|byte| *byte == b'\n');
    Ok(lines.find_map(|line| match serde_json::from_slice(line) {
        Ok(Line::Listing(listing)) => Some(listing),
        _ => None,
    }))
}

/// `None` where it is not ours, or in use.
fn open_left(dir: &Dir, name: &str) -> io::Result<Option<File>> {
    match open_own(dir, name) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(error),
    }
}

/// A new one, under the first name that is free. When none of those is that are
/// looked up, it has none: this attempt can use it, and no later one could find
/// it.
fn create_one(
    dir: &Dir,
    name_of: impl Fn(u32) -> String,
    most: u32,
) -> io::Result<(Option<String>, File)> {
    let (number, file) = first_of(|number| Ok((number, create(dir, &name_of(number))?)))?;
    let name = name_of(number);
    if number < most {
        return Ok((Some(name), file));
    }
    dir.remove_file(&name)?;
    Ok((None, file))
}

/// A new one, or what there is of one that was cut short before its first line.
fn create(dir: &Dir, name: &str) -> io::Result<File> {
    let file = create_own(dir, name)?.file;
    if read_listing(&file)?.is_some() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    file.set_len(0)?;
    Ok(file)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use cap_std::ambient_authority;

    use super::*;
    use crate::protocol::manifest::ManifestBuilder;

    fn offer(path: &str) -> Manifest {
        let mut builder = ManifestBuilder::default();
        let file = Entry::File {
            path: SafePath::parse(path).unwrap(),
            size_bytes: 5,
            modified_ns: None,
            executable: false,
        };
        builder.push(file).unwrap();
        builder.build()
    }

    #[test]
    fn no_more_are_left_than_are_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(folder.path(), ambient_authority()).unwrap();
        let dir = Arc::new(dir);
        let count = || std::fs::read_dir(folder.path()).unwrap().count();
        let open =
            |number: u32| Journal::open(&dir, &offer(&number.to_string()), &[1; 32]).unwrap();
        let all: Vec<_> = (0..JOURNALS_MAX + 3).map(open).collect();
        assert_eq!(count(), JOURNALS_MAX as usize);
        for journal in &all {
            let name = "a name".to_owned();
            let was_there = false;
            journal.note("a", PlacedName { name, was_there }).unwrap();
            journal.sync().unwrap();
        }
        drop(all);
        assert_eq!(count(), JOURNALS_MAX as usize);
        let found = open(JOURNALS_MAX - 1);
        assert!(found.earlier("a").is_some());
        open(JOURNALS_MAX).remove().unwrap();
        assert_eq!(count(), JOURNALS_MAX as usize);
        found.remove().unwrap();
        assert_eq!(count(), JOURNALS_MAX as usize - 1);
    }
}
