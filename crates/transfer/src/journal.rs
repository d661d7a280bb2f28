//! What an attempt at an offer called its files and folders at the top level,
//! where another may have been found to be taken: beside them, until it is
//! complete. The next attempt at the same offer goes on in the same places.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use cap_std::fs::Dir;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    disk,
    manifest::{Entry, Manifest},
    part::{first_of, open_own, own_suffix},
    path::SafePath,
};

/// Longer than any that this program writes is no journal.
const JOURNAL_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// One line of it, as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// The number in the manifest.
    entry: u32,
    /// Its name on disk, or the one that it was about to get. The last counts.
    name: String,
    /// It is a folder that was there before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    was_there: bool,
}

/// See the module. Locked while it exists.
#[derive(Debug)]
pub(crate) struct Journal {
    dir: Arc<Dir>,
    name: String,
    file: File,
    end_bytes: Mutex<u64>,
    is_dirty: AtomicBool,
    /// What the attempt before has left.
    earlier: HashMap<u32, Record>,
}

impl Journal {
    /// That of this offer: of these paths and sizes. A new one when there is
    /// none, or when another transfer uses it.
    pub(crate) fn open(dir: &Arc<Dir>, manifest: &Manifest) -> io::Result<Self> {
        let mut listing = Sha256::new();
        for entry in manifest.entries() {
            listing.update(entry.path().as_str());
            // No path holds these bytes.
            match entry.file_size_bytes() {
                Some(size_bytes) => listing.update(format!("\0{size_bytes}\n")),
                None => listing.update("\n"),
            }
        }
        let (name, file) = first_of(|number| {
            let hash = listing.clone().chain_update(number.to_be_bytes());
            let name = own_suffix(hash);
            open_own(dir, &name, true).map(|file| (name, file))
        })?;
        let end_bytes = file.metadata()?.len();
        let mut text = Vec::new();
        (&file).take(JOURNAL_BYTES_MAX).read_to_end(&mut text)?;
        let lines = text.split(|byte| *byte == b'\n');
        let records = lines.filter_map(|line| serde_json::from_slice::<Record>(line).ok());
        let is_sound = |record: &Record| {
            let offered = manifest.entry(record.entry).map(Entry::path);
            let name = SafePath::parse(&record.name);
            offered.is_some_and(|path| path.parent().is_none())
                && name.is_ok_and(|name| name.parent().is_none())
        };
        let earlier = records.filter(is_sound);
        let earlier = earlier.map(|record| (record.entry, record)).collect();
        Ok(Self {
            dir: Arc::clone(dir),
            name,
            file,
            end_bytes: Mutex::new(end_bytes),
            is_dirty: AtomicBool::new(false),
            earlier,
        })
    }

    /// What the attempt before called this entry.
    pub(crate) fn earlier(&self, entry: u32) -> Option<&str> {
        self.earlier.get(&entry).map(|record| record.name.as_str())
    }

    /// Whether the attempt before found this folder in its place.
    pub(crate) fn was_there(&self, entry: u32) -> bool {
        self.earlier.get(&entry).is_some_and(|it| it.was_there)
    }

    /// Notes what an entry is called, or is about to be, and whether it is a
    /// folder that was there before.
    pub(crate) fn note(&self, entry: u32, name: &str, was_there: bool) -> io::Result<()> {
        let record = Record {
            entry,
            name: name.to_owned(),
            was_there,
        };
        // In front, because the line before may have been cut short.
        let mut line = b"\n".to_vec();
        serde_json::to_writer(&mut line, &record)?;
        let mut end_bytes = self
            .end_bytes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        disk::write_at(&self.file, &line, *end_bytes)?;
        *end_bytes += line.len() as u64;
        self.is_dirty.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Makes what was noted durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        if self.is_dirty.swap(false, Ordering::Relaxed) {
            self.file.sync_data()?;
        }
        Ok(())
    }

    /// Removes it: nothing will go on from here.
    pub(crate) fn remove(&self) -> io::Result<()> {
        self.dir.remove_file(&self.name)
    }
}
