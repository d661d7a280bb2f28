//! Where received files go. Everything is reached through a held handle of the
//! destination, name by name and without following links; a file is written
//! under a temporary name, made durable, and only then given its own, which
//! replaces nothing unless the user wants that. What an earlier attempt has left is
//! found first.

mod end;
mod folders;
mod moved;
mod preallocate;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cap_std::fs::Dir;

pub(crate) use self::folders::Folders;
use parking_lot::{Mutex, MutexGuard};

use crate::accept_options::{AcceptOptions, Existing, with_content};
use crate::disk::attempt::Attempt;
use crate::disk::destination::{Destination, DestinationError};
use crate::disk::digest_cache::DigestCache;
use crate::disk::journal::Journal;
use crate::disk::partial_file::{Content, NAMES_MAX, PartialFile, open_file, temporaries};
use crate::disk::system;
use crate::display::display_text;
use crate::event::{Party, Renamed, TransferError};
use crate::protocol::chunking::{CHUNK_BYTES, Chunking};
use crate::protocol::file_error::{FileError, FileErrorKind};
use crate::protocol::index::EntryIndex;
use crate::protocol::manifest::{Entry, Manifest};
use crate::protocol::path::SafePath;
use crate::protocol::selection::Selection;
use crate::resume::ResumeState;

/// Most parts of an earlier attempt that are taken up. They are open files,
/// and no attempt leaves more.
const PARTS_MAX: usize = 256;

/// The destination of one transfer, its folders made. Dropped before it was
/// [finished](Store::finish), it removes those of them that stayed empty.
#[derive(Debug)]
pub(crate) struct Store {
    destination: Destination,
    manifest: Arc<Manifest>,
    attempt: Arc<Attempt>,
    resume: ResumeState,
    /// This disk did not take some file.
    has_failed: AtomicBool,
    existing: Existing,
    keeps_executable: bool,
    /// Entries that stay out, folders among them.
    unwanted: BTreeSet<EntryIndex>,
    /// The first of those that are skipped because their names are taken.
    skipped: Vec<String>,
    /// What remains of the attempt.
    selection: Arc<Selection>,
    journal: Arc<Journal>,
    /// What each folder at the top level is named on disk.
    top_folders: HashMap<Box<str>, String>,
    /// Those of them that an earlier attempt has used.
    resumed: HashSet<Box<str>>,
    /// Those of them that were there before any attempt.
    merged: HashSet<Box<str>>,
    /// Folders that were there before, at any level.
    kept: BTreeSet<EntryIndex>,
    /// Folders that are not there, by their paths, and why.
    absent: HashMap<Box<str>, FileError>,
    /// Those of them that could not be made and nothing was to go into.
    failed_folders: Vec<(EntryIndex, FileError)>,
    /// The top level as it came to be named on disk.
    top_names: Mutex<Vec<String>>,
    /// What got another name than it was offered under, at any level.
    renamed: Mutex<Renamed>,
    /// How many chunks of which files an earlier attempt has left.
    have: BTreeMap<EntryIndex, u32>,
    /// Where they are.
    found: Mutex<HashMap<EntryIndex, Found>>,
    /// How many of those are parts.
    found_parts: usize,
    finished: bool,
}

/// What an earlier attempt has left of a file.
#[derive(Debug)]
enum Found {
    /// An attempt of this transfer has made it durable. Whatever has become of it, it
    /// is not looked at any more.
    Settled,
    /// A part, until it is written on, and its content, until it is compared.
    PartialFile(Option<PartialFile>, Content),
    /// The whole file under this name. It is not written to any more.
    Whole(String),
    /// The whole file at this place below the destination, from where it is to
    /// move, and which of the other journals tells of it. Not written to either.
    Elsewhere(String, usize),
}

impl Store {
    /// Checks that there is room and that the folder can be written to, makes
    /// the offer's folders and looks for what is there already. Blocks.
    pub(crate) fn prepare(
        destination: Destination,
        manifest: Arc<Manifest>,
        choices: &AcceptOptions,
        attempt: Attempt,
        resume: ResumeState,
    ) -> Result<Self, DestinationError> {
        // A folder that takes no files should say so before the offer is
        // accepted.
        let journal = Journal::open(&destination.dir, &manifest, &attempt.owner)
            .map_err(|error| destination.error(error))?;
        let unwanted = with_content(&manifest, &choices.unwanted);
        let mut store = Self {
            destination,
            selection: Arc::new(Selection::without(Arc::clone(&manifest), BTreeSet::new())),
            manifest,
            attempt: Arc::new(attempt),
            resume,
            has_failed: AtomicBool::new(false),
            existing: choices.existing,
            keeps_executable: choices.keeps_executable,
            unwanted,
            skipped: Vec::new(),
            journal: Arc::new(journal),
            top_folders: HashMap::new(),
            resumed: HashSet::new(),
            merged: HashSet::new(),
            kept: BTreeSet::new(),
            absent: HashMap::new(),
            failed_folders: Vec::new(),
            top_names: Mutex::default(),
            renamed: Mutex::default(),
            have: BTreeMap::new(),
            found: Mutex::default(),
            found_parts: 0,
            finished: false,
        };
        let made = store.make_folders().and_then(|()| store.find_all());
        made.map_err(|error| store.destination.error(error))?;
        let is_file = |index: &EntryIndex| store.manifest.entry(*index).is_some_and(Entry::is_file);
        let skipped = store.unwanted.iter().copied().filter(is_file).collect();
        store.selection = Arc::new(Selection::without(Arc::clone(&store.manifest), skipped));
        store
            .destination
            .check_space(&store.selection, store.here_bytes())?;
        Ok(store)
    }

    /// Looks for what an earlier attempt has left, where it can be any.
    fn find_all(&mut self) -> io::Result<()> {
        let manifest = Arc::clone(&self.manifest);
        if let [Entry::Stream { path }] = manifest.entries() {
            self.skip_existing(EntryIndex::FIRST, path);
            return Ok(());
        }
        let files: Vec<_> = manifest
            .indexed()
            .filter_map(|(index, entry)| match entry {
                Entry::File {
                    path, size_bytes, ..
                } if !self.unwanted.contains(&index)
                    && (path.parent().is_none() || self.has_earlier_content(path)) =>
                {
                    Some((index, path, *size_bytes))
                }
                _ => None,
            })
            .collect();
        self.find_by_name(&files)?;
        self.find_moved()?;
        self.find_by_size(&files)
    }

    fn find_by_name(&mut self, files: &[(EntryIndex, &SafePath, u64)]) -> io::Result<()> {
        let mut folders = Folders::default();
        for &(index, path, size_bytes) in files {
            if self.settle(index, path) {
                continue;
            }
            let dir = match folders.enter(self, path.parent()) {
                Ok(dir) => Arc::clone(dir),
                Err(error) if system::has_failed(&error) => return Err(error),
                // The file fails when it comes.
                Err(_) => continue,
            };
            let is_ours = match path.parent() {
                None => self.journal.earlier(path.name()).is_some(),
                Some(_) => !self.merged.contains(path.top()),
            };
            if self.existing == Existing::Skip
                && !is_ours
                && dir.symlink_metadata(path.name()).is_ok()
            {
                self.unwanted.insert(index);
                if self.skipped.len() < Renamed::NAMED_MAX {
                    self.skipped.push(display_text(path.as_str()));
                }
            } else if let Some((chunks, found)) = self.find(&dir, index, path, size_bytes) {
                self.add_found(index, chunks, found);
            }
        }
        Ok(())
    }

    /// Skips a file whose name is taken at the top level, if the user wants that.
    fn skip_existing(&mut self, entry: EntryIndex, path: &SafePath) {
        let is_taken = self.destination.dir.symlink_metadata(path.name()).is_ok();
        if is_taken && self.existing == Existing::Skip {
            self.unwanted.insert(entry);
            self.skipped.push(display_text(path.as_str()));
        }
    }

    /// Whether a file is settled; then it counts as it was received.
    fn settle(&mut self, entry: EntryIndex, path: &SafePath) -> bool {
        let chunks = self.manifest.lengths(entry).map(Chunking::chunks);
        let (Some(chunks), Some(_)) = (chunks, self.resume.settled(entry)) else {
            return false;
        };
        if path.parent().is_none()
            && let Some(named) = self.journal.earlier(path.name())
        {
            self.note_name(path, &named.name);
        }
        self.add_found(entry, chunks, Found::Settled);
        true
    }

    /// Of what is left then, some may be of files that have other names by now.
    fn find_by_size(&mut self, files: &[(EntryIndex, &SafePath, u64)]) -> io::Result<()> {
        let mut folders = Folders::default();
        // Folder by folder, so that each is looked into once.
        let mut files = files.to_vec();
        files.sort_by_key(|(_, path, _)| path.parent());
        // Those of the folder looked into last.
        let mut there: Option<(Arc<Dir>, Vec<String>)> = None;
        for (index, path, size_bytes) in files {
            if size_bytes <= u64::from(CHUNK_BYTES)
                || self.unwanted.contains(&index)
                || self.have.contains_key(&index)
            {
                continue;
            }
            let Ok(dir) = folders.enter(self, path.parent()) else {
                continue;
            };
            let is_same = |(looked_into, _): &&(Arc<Dir>, _)| Arc::ptr_eq(looked_into, dir);
            if there.as_ref().filter(is_same).is_none() {
                there = Some((Arc::clone(dir), temporaries(dir, NAMES_MAX)));
            }
            let Some((dir, temporaries)) = &there else {
                continue;
            };
            if self.found_parts < PARTS_MAX
                && let Some(part) =
                    PartialFile::find_renamed(dir, size_bytes, temporaries, &self.attempt)
            {
                let (chunks, found) = Found::part(part);
                self.add_found(index, chunks, found);
            }
        }
        Ok(())
    }

    fn add_found(&mut self, entry: EntryIndex, chunks: u32, found: Found) {
        self.have.insert(entry, chunks);
        self.found_parts += usize::from(matches!(found, Found::PartialFile(..)));
        self.found().insert(entry, found);
    }

    fn find(
        &self,
        dir: &Arc<Dir>,
        entry: EntryIndex,
        path: &SafePath,
        size_bytes: u64,
    ) -> Option<(u32, Found)> {
        if size_bytes > u64::from(CHUNK_BYTES)
            && self.found_parts < PARTS_MAX
            && let Ok(Some(part)) = PartialFile::find(dir, path.name(), size_bytes, &self.attempt)
        {
            return Some(Found::part(part));
        }
        let earlier = match path.parent() {
            None => self.journal.earlier(path.name()),
            Some(_) => None,
        };
        let name = match earlier {
            Some(named) => named.name.as_str(),
            // The file to be replaced may be the one that is sent.
            None if path.parent().is_some() || self.existing == Existing::Replace => path.name(),
            None => return None,
        };
        let length_bytes = open_file(dir, name).ok()?.metadata().ok()?.len();
        let lengths = self.manifest.lengths(entry)?;
        (length_bytes == size_bytes).then(|| (lengths.chunks(), Found::Whole(name.to_owned())))
    }

    fn found(&self) -> MutexGuard<'_, HashMap<EntryIndex, Found>> {
        self.found.lock()
    }

    /// Notes what a file, or a folder at the top level, is called on disk.
    fn note_name(&self, path: &SafePath, name: &str) {
        let is_top = path.parent().is_none();
        if is_top {
            self.top_names.lock().push(name.to_owned());
        }
        if name != path.name() {
            let top = self.top_folders.get(path.top()).filter(|_| !is_top);
            let folder = path.parent().unwrap_or_default();
            let below = folder.strip_prefix(path.top()).unwrap_or_default();
            let now = match top {
                Some(top) => format!("{top}{below}/{name}"),
                None => name.to_owned(),
            };
            self.lock_renamed().add(path.as_str(), &now);
        }
    }

    fn lock_renamed(&self) -> MutexGuard<'_, Renamed> {
        self.renamed.lock()
    }

    /// Files and folders that got another name than they were offered under.
    pub(crate) fn renamed(&self) -> Renamed {
        self.lock_renamed().clone()
    }

    pub(crate) fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// What is wrong with the disk, where something could not be written.
    pub(crate) fn trouble(&self, error: &io::Error) -> FileErrorKind {
        self.destination.trouble(error)
    }

    /// Notes that this disk did not take a file. The offer may come again.
    pub(crate) fn note_failed_file(&self) {
        self.has_failed.store(true, Ordering::Relaxed);
    }

    /// The same of one file, which may say so itself.
    pub(crate) fn file_error(&self, error: io::Error) -> FileError {
        let (said, known) = (FileErrorKind::of(&error), self.trouble(&error));
        match FileError::from(error) {
            FileError::Local { trouble, detail } if trouble == said => FileError::Local {
                trouble: known,
                detail,
            },
            other => other,
        }
    }

    /// The destination, fit to be shown.
    pub(crate) fn display_path(&self) -> String {
        display_text(&self.destination.path.to_string_lossy())
    }

    /// The top level as it is named on disk so far.
    fn top_names(&self) -> Vec<String> {
        self.top_names.lock().clone()
    }

    /// The files that are to come.
    pub(crate) const fn selection(&self) -> &Arc<Selection> {
        &self.selection
    }

    /// How many folders are wanted and there.
    pub(crate) fn folders(&self) -> u32 {
        let unwanted = self.unwanted.len() - self.selection.skipped().len();
        let stay_out = u32::try_from(unwanted + self.absent.len()).unwrap_or(u32::MAX);
        self.manifest.folders().saturating_sub(stay_out)
    }

    /// Folders that could not be made and that nothing was to go into, and why.
    pub(crate) fn failed_folders(&self) -> &[(EntryIndex, FileError)] {
        &self.failed_folders
    }

    /// Whether programs stay programs.
    pub(crate) const fn keeps_executable(&self) -> bool {
        self.keeps_executable
    }

    /// Whether an attempt of this transfer has made the file `entry` durable.
    pub(crate) fn is_settled(&self, entry: EntryIndex) -> bool {
        matches!(self.found().get(&entry), Some(Found::Settled))
    }

    /// How many chunks of which files an earlier attempt has left.
    pub(crate) const fn have(&self) -> &BTreeMap<EntryIndex, u32> {
        &self.have
    }

    /// What an earlier attempt has left of the file `entry`, to be compared,
    /// and whether it is whole and must stay as it is.
    pub(crate) fn left(
        &self,
        folders: &mut Folders,
        entry: EntryIndex,
        path: &SafePath,
    ) -> io::Result<(Content, bool)> {
        let file = match self.found().get(&entry) {
            Some(Found::PartialFile(_, content)) => return Ok((content.clone(), false)),
            Some(Found::Whole(name)) => open_file(folders.enter(self, path.parent())?, name)?,
            Some(Found::Elsewhere(place, _)) => {
                let (folder, name) = split(place);
                open_file(folders.enter_place(self, folder)?, name)?
            }
            Some(Found::Settled) | None => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok((Content::finished(file, &self.attempt.cache), true))
    }

    /// A temporary file for the file `entry`: what is left of one, or a new
    /// one.
    pub(crate) fn part(
        &self,
        folders: &mut Folders,
        entry: EntryIndex,
        path: &SafePath,
    ) -> io::Result<PartialFile> {
        if let Some(part) = self.take_part(entry) {
            return self.ready(part);
        }
        let offered = self.manifest.entry(entry);
        let size_bytes = offered.and_then(Entry::file_size_bytes);
        let dir = folders.enter(self, path.parent())?;
        let part = match size_bytes {
            Some(size_bytes) => PartialFile::create(dir, path.name(), size_bytes, &self.attempt)?,
            None => PartialFile::of_stream(dir, path.name(), &self.attempt)?,
        };
        self.ready(part)
    }

    /// The rest of a temporary file, if it was not taken before.
    pub(crate) fn take_part(&self, entry: EntryIndex) -> Option<PartialFile> {
        match self.found().get_mut(&entry) {
            Some(Found::PartialFile(part, _)) => part.take(),
            _ => None,
        }
    }

    /// The file `entry`, if an earlier attempt has left it whole.
    pub(crate) fn whole(
        &self,
        folders: &mut Folders,
        entry: EntryIndex,
        path: &SafePath,
    ) -> io::Result<Option<PartialFile>> {
        let name = match self.found().get(&entry) {
            Some(Found::Whole(name)) => name.clone(),
            Some(Found::Elsewhere(place, _)) => {
                let (folder, name) = split(place);
                let from = Arc::clone(folders.enter_place(self, folder)?);
                let file = open_file(&from, name)?;
                let dir = folders.enter(self, path.parent())?;
                let part = PartialFile::finished(dir, file, &self.attempt);
                return Ok(Some(part.elsewhere(&from, name)));
            }
            _ => return Ok(None),
        };
        let dir = folders.enter(self, path.parent())?;
        let file = open_file(dir, &name)?;
        self.note_name(path, &name);
        Ok(Some(PartialFile::finished(dir, file, &self.attempt)))
    }
}

impl Destination {
    /// Removes what attempts at an offer of this owner have left unfinished here, when
    /// none is under way. Blocks.
    ///
    /// # Errors
    /// The folder does not let itself be looked through.
    pub fn discard(
        self,
        offer: Arc<Manifest>,
        choices: &AcceptOptions,
        owner: [u8; 32],
    ) -> Result<(), DestinationError> {
        let attempt = Attempt {
            owner,
            cache: DigestCache::default(),
            control: Arc::default(),
        };
        let cancelled = TransferError::Cancelled(Party::Us);
        attempt.control.stop(cancelled);
        // What it finds goes with it.
        Store::prepare(self, offer, choices, attempt, ResumeState::default()).map(drop)
    }
}

impl Found {
    fn part(part: PartialFile) -> (u32, Self) {
        let content = part.content();
        (part.count_chunks(), Self::PartialFile(Some(part), content))
    }
}

/// The folder and the name of a place.
fn split(place: &str) -> (Option<&str>, &str) {
    match place.rsplit_once('/') {
        Some((folder, name)) => (Some(folder), name),
        None => (None, place),
    }
}
