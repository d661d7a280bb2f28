//! The third stage: makes files durable under their names, as many at a time
//! as have come, and acknowledges them.

use std::sync::{Arc, mpsc};

use super::{Incoming, Stopped, Written};
use crate::{event::Summary, manifest::Entry, store::Store};

/// Most files made durable together. They are open files.
const TOGETHER: usize = if cfg!(target_os = "linux") { 192 } else { 32 };

impl Incoming {
    pub(super) fn commit(
        &self,
        store: &Store,
        written: &mpsc::Receiver<Written>,
    ) -> Result<Summary, Stopped> {
        let mut summary = Summary {
            folders: self.manifest.folders(),
            ..Summary::default()
        };
        // The first file that is neither durable nor failed.
        let mut next = self.manifest.next_file(0);
        while let Ok(first) = written.recv() {
            let mut group = vec![first];
            group.extend(written.try_iter().take(TOGETHER - 1));
            self.check_stopped()?;
            for _ in &group {
                next = self.manifest.next_file(next + 1);
            }
            self.commit_group(store, group, &mut summary)?;
            self.flight.set_files(summary.files + summary.failed_files);
            // The last acknowledgement waits for the folders.
            if next < self.manifest.count() {
                self.acknowledge(next);
            }
        }
        // The input also ends when a stage before gave up.
        self.check_stopped()?;
        if next == self.manifest.count() {
            Ok(summary)
        } else {
            Err(Stopped)
        }
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
                Written::Part { entry, part } => parts.push((entry, part)),
                Written::Failed => summary.failed_files += 1,
            }
        }
        let synced = store.sync(parts.iter().map(|(_, part)| part));
        let mut folders = Vec::new();
        for ((entry, mut part), synced) in parts.into_iter().zip(synced) {
            let path = self.path(entry);
            let published = synced.and_then(|()| store.publish(&mut part, path?));
            match published {
                Ok(()) => {
                    let size_bytes = self.manifest.entry(entry).and_then(Entry::file_size_bytes);
                    summary.files += 1;
                    summary.bytes += size_bytes.unwrap_or_default();
                    folders.push(part.into_dir());
                }
                Err(error) => {
                    self.file_failed(entry, error)?;
                    summary.failed_files += 1;
                }
            }
        }
        folders.dedup_by(|left, right| Arc::ptr_eq(left, right));
        store.sync_folders(&folders).map_err(|error| {
            self.disk_failed(store.display_path(), &error);
            Stopped
        })
    }
}
