//! The third stage: makes files durable under their names, as many at a time
//! as have come, and acknowledges them.

use std::sync::{Arc, mpsc};

use super::{Receiving, Stopped, Written};
use crate::disk::partial_file::Content;
use crate::disk::store::Store;
use crate::disk::system;
use crate::event::Summary;
use crate::protocol::index::EntryIndex;
use crate::protocol::manifest::Entry;

/// Most files made durable together. They are open files.
const TOGETHER: usize = if cfg!(target_os = "linux") { 192 } else { 32 };

impl Receiving {
    pub(super) fn commit(
        &self,
        store: &Store,
        written: &mpsc::Receiver<Written>,
    ) -> Result<Summary, Stopped> {
        let mut summary = Summary {
            folders: store.folders(),
            failed_files: self.refuse_folders(store),
            skipped_files: self.selection.skipped_files(),
            ..Summary::default()
        };
        // The first file that is neither durable nor failed.
        let mut next = self.selection.next_file(EntryIndex::FIRST);
        while let Ok(first) = written.recv() {
            let mut group = vec![first];
            group.extend(written.try_iter().take(TOGETHER - 1));
            self.check_stopped()?;
            if let Some((entry, content)) = take_last_unfinished(&mut group) {
                self.sync_some(entry, &content);
            }
            // Let go of only now that its disk has said what it says.
            group.retain(|written| !matches!(written, Written::Rest { .. }));
            for _ in &group {
                next = self.selection.next_file(next.next());
            }
            self.commit_group(store, group, &mut summary)?;
            self.transfer
                .progress
                .set_files(summary.files + summary.failed_files);
            self.transfer.resume.settle(self.transfer.settle(next));
            // The last acknowledgement waits for the folders.
            if next < self.manifest().end() {
                self.acknowledge(next.get());
            }
        }
        // The input also ends when a stage before gave up.
        self.check_stopped()?;
        if next == self.manifest().end() {
            Ok(summary)
        } else {
            Err(Stopped)
        }
    }

    /// Tells of the folders that could not be made. Returns how many.
    fn refuse_folders(&self, store: &Store) -> u32 {
        let failed = store.failed_folders();
        for (entry, error) in failed {
            self.refuse(*entry, error.clone());
        }
        u32::try_from(failed.len()).unwrap_or(u32::MAX)
    }

    /// Makes durable what has come of a file so far.
    fn sync_some(&self, entry: EntryIndex, content: &Content) {
        let fresh = content.chunks.take_fresh();
        match content.file.sync_data() {
            Ok(()) => {
                content.chunks.settle(fresh);
                system::forget(&content.file, self.size_bytes(entry), 0, 0);
            }
            Err(error) => content.spoil(error),
        }
    }

    fn size_bytes(&self, entry: EntryIndex) -> u64 {
        let entry = self.manifest().entry(entry);
        entry.and_then(Entry::file_size_bytes).unwrap_or_default()
    }

    fn commit_group(
        &self,
        store: &Store,
        group: Vec<Written>,
        summary: &mut Summary,
    ) -> Result<(), Stopped> {
        let mut parts = Vec::with_capacity(group.len());
        for written in group {
            match written {
                Written::PartialFile { entry, part } => parts.push((entry, part)),
                Written::Settled { entry } => {
                    summary.files += 1;
                    summary.bytes += self.size_bytes(entry);
                }
                Written::Failed => summary.failed_files += 1,
                Written::Some { .. } | Written::Rest { .. } => {}
            }
        }
        let synced = store.sync(parts.iter().map(|(_, part)| part));
        let mut folders: Vec<Arc<_>> = Vec::new();
        for ((entry, mut part), synced) in parts.into_iter().zip(synced) {
            if let Err(error) = part.check().and(synced) {
                part.discard();
                self.file_failed(store, entry, error)?;
                summary.failed_files += 1;
                continue;
            }
            part.chunks.settle(part.chunks.take_fresh());
            let size_bytes = match self.manifest().is_stream() {
                true => part.size_bytes(),
                false => self.size_bytes(entry),
            };
            let path = self.path(entry);
            match path.and_then(|path| store.publish(&mut part, entry, path)) {
                Ok(()) => {
                    summary.files += 1;
                    summary.bytes += size_bytes;
                    for dir in part.dirs() {
                        if !folders.iter().rev().any(|other| Arc::ptr_eq(other, dir)) {
                            folders.push(Arc::clone(dir));
                        }
                    }
                }
                Err(error) => {
                    self.file_failed(store, entry, error)?;
                    summary.failed_files += 1;
                }
            }
        }
        store.sync_folders(&folders).map_err(|error| {
            self.disk_failed(store, &error);
            Stopped
        })
    }
}

/// Takes out what is still being written. Made durable now, the last includes
/// those before; of an earlier file, it was made durable whole.
fn take_last_unfinished(group: &mut Vec<Written>) -> Option<(EntryIndex, Content)> {
    let mut last = None;
    group.retain(|written| match written {
        Written::Some { entry, content } => {
            last = Some((*entry, content.clone()));
            false
        }
        _ => true,
    });
    last
}
