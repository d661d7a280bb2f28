//! The thread that writes the profile, so that nothing else waits for a disk.
//!
//! What is to be written waits in memory: of each file only the newest content, of the
//! history the lines that came since. However slow the disk is, no more can wait than
//! one copy of the profile, and what piles up meanwhile is written at once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use pinhole_storage::{Durability, replace};
use serde::Serialize;
use tracing::warn;

use super::attempts::Attempt;
use super::contacts::Contacts;
use super::invitations::Invitations;
use super::profile::{
    ATTEMPTS_FILE, CONTACTS_FILE, HISTORY_FILE, INVITATIONS_FILE, Profile, ProfileError,
    QUEUE_FILE, RECOVERY_FILE, SETTINGS_FILE, append_lines, at,
};
use super::queue::Queued;
use super::recovery::Recovery;
use super::settings::Settings;

/// Most bytes of history that wait. More than a disk that works falls behind.
const HISTORY_WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Writes the files of one profile, in a thread of its own.
#[derive(Debug)]
pub(crate) struct ProfileWriter {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    files: BTreeMap<&'static str, Content>,
    history: Option<HistoryChange>,
    /// Nothing more will come.
    is_ending: bool,
    /// Everything has been written, or could not be.
    has_ended: bool,
}

#[derive(Debug)]
struct Content {
    bytes: Vec<u8>,
    durability: Durability,
}

/// What has changed of the history: lines that are added, or all of them.
#[derive(Debug)]
pub(crate) enum HistoryChange {
    Append(String),
    Replace(String),
}

/// What is written next.
enum Job {
    File(&'static str, Content),
    History(HistoryChange),
}

impl ProfileWriter {
    /// Starts what writes into a profile from now on. `report` hears of what could not
    /// be written, on another thread, and must not block.
    pub(crate) fn new(
        profile: &Profile,
        report: impl Fn(ProfileError) + Send + 'static,
    ) -> Result<Self, ProfileError> {
        let (folder, lock) = profile.held();
        Self::start(folder.clone(), lock, report).map_err(at(&folder))
    }

    /// Starts the thread. `report` hears of what could not be written, and must not
    /// block. The lock on the profile is held until the thread has ended.
    fn start(
        folder: PathBuf,
        lock: Arc<File>,
        report: impl Fn(ProfileError) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let of_thread = shared.clone();
        thread::Builder::new()
            .name("pinhole-profile".to_owned())
            .spawn(move || {
                while let Some(job) = of_thread.next_job() {
                    if let Err(error) = job.run(&folder) {
                        report(error);
                    }
                }
                drop(lock);
                of_thread.lock().has_ended = true;
                of_thread.changed.notify_all();
            })?;
        Ok(Self { shared })
    }

    /// Has a file of the profile replaced.
    fn replace(&self, file: &'static str, bytes: Vec<u8>, durability: Durability) {
        let content = Content { bytes, durability };
        self.change(|waiting| drop(waiting.files.insert(file, content)));
    }

    /// Has a change of the history written.
    pub(crate) fn change_history(&self, change: HistoryChange) {
        self.change(|waiting| match (&mut waiting.history, change) {
            (
                Some(HistoryChange::Append(lines) | HistoryChange::Replace(lines)),
                HistoryChange::Append(more),
            ) => {
                if lines.len() < HISTORY_WAITING_BYTES_MAX {
                    lines.push_str(&more);
                } else {
                    warn!("the disk is too slow: a line of the history is lost");
                }
            }
            (waiting, change) => *waiting = Some(change),
        });
    }

    /// Waits until everything is written, for no longer than `timeout`. Returns whether
    /// it is.
    pub(crate) fn finish(self, timeout: Duration) -> bool {
        let ending = self.shared.clone();
        drop(self);
        let mut waiting = ending.lock();
        ending
            .changed
            .wait_while_for(&mut waiting, |waiting| !waiting.has_ended, timeout);
        waiting.has_ended
    }

    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut self.shared.lock());
        self.shared.changed.notify_all();
    }
}

impl ProfileWriter {
    /// Has the settings stored.
    pub(crate) fn store_settings(&self, settings: &Settings) -> Result<(), ProfileError> {
        self.store(SETTINGS_FILE, settings, Durability::Durable)
    }

    /// Has the contacts stored.
    pub(crate) fn store_contacts(&self, contacts: &Contacts) -> Result<(), ProfileError> {
        self.store(CONTACTS_FILE, contacts, Durability::Durable)
    }

    /// Has stored what waits for its peer.
    pub(crate) fn store_queue(&self, queue: &[Queued]) -> Result<(), ProfileError> {
        self.store(QUEUE_FILE, queue, Durability::Durable)
    }

    /// Has stored what is known in public of the recovery key.
    pub(crate) fn store_recovery(&self, recovery: &Recovery) -> Result<(), ProfileError> {
        self.store(RECOVERY_FILE, recovery, Durability::Durable)
    }

    /// Has stored which invitations are open, and which we have used.
    pub(crate) fn store_invitations(&self, all: &Invitations) -> Result<(), ProfileError> {
        self.store(INVITATIONS_FILE, all, Durability::Durable)
    }

    /// Has the last attempts to connect stored. Not durably: what a power cut takes of
    /// them is no loss.
    pub(crate) fn store_attempts(&self, attempts: &[Attempt]) -> Result<(), ProfileError> {
        self.store(ATTEMPTS_FILE, attempts, Durability::Fast)
    }

    fn store<T: Serialize + ?Sized>(
        &self,
        file: &'static str,
        value: &T,
        durability: Durability,
    ) -> Result<(), ProfileError> {
        let text = serde_json::to_vec_pretty(value);
        let text = text.map_err(|e| at(Path::new(file))(io::Error::other(e)))?;
        self.replace(file, text, durability);
        Ok(())
    }
}

impl Drop for ProfileWriter {
    fn drop(&mut self) {
        self.change(|waiting| waiting.is_ending = true);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock()
    }

    /// What is to be written; `None` once there will be nothing more.
    fn next_job(&self) -> Option<Job> {
        let mut waiting = self.lock();
        loop {
            if let Some((file, content)) = waiting.files.pop_first() {
                return Some(Job::File(file, content));
            }
            if let Some(change) = waiting.history.take() {
                return Some(Job::History(change));
            }
            if waiting.is_ending {
                return None;
            }
            self.changed.wait(&mut waiting);
        }
    }
}

impl Job {
    fn run(self, folder: &Path) -> Result<(), ProfileError> {
        let path = folder.join(match &self {
            Self::File(file, _) => file,
            Self::History(_) => HISTORY_FILE,
        });
        let written = match self {
            Self::File(_, content) => replace(&path, &content.bytes, content.durability),
            Self::History(HistoryChange::Append(lines)) => append_lines(&path, &lines),
            Self::History(HistoryChange::Replace(lines)) => {
                replace(&path, lines.as_bytes(), Durability::Durable)
            }
        };
        written.map_err(at(&path))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn writer(folder: &Path) -> (ProfileWriter, mpsc::Receiver<ProfileError>) {
        let lock = Arc::new(File::create(folder.join("lock")).unwrap());
        let (failures, reported) = mpsc::channel();
        let report = move |error| failures.send(error).unwrap();
        let writer = ProfileWriter::start(folder.to_owned(), lock, report).unwrap();
        (writer, reported)
    }

    #[test]
    fn everything_is_written_before_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, reported) = writer(folder.path());
        for number in 0..100 {
            writer.replace(
                "settings.json",
                number.to_string().into_bytes(),
                Durability::Durable,
            );
            writer.change_history(HistoryChange::Append(format!("{number}\n")));
        }
        assert!(writer.finish(PATIENCE));
        let read = |file| fs::read_to_string(folder.path().join(file)).unwrap();
        assert_eq!(read("settings.json"), "99");
        assert_eq!(read("history.jsonl").lines().count(), 100);
        assert!(reported.try_recv().is_err());
    }

    #[test]
    fn what_cannot_be_written_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("history.jsonl")).unwrap();
        let (writer, reported) = writer(folder.path());
        writer.change_history(HistoryChange::Append("line\n".to_owned()));
        let error = reported.recv_timeout(PATIENCE).unwrap();
        assert!(error.to_string().contains("history.jsonl"), "{error}");
        assert!(writer.finish(PATIENCE), "and the rest goes on");
    }

    /// A pipe that nobody empties takes 64 KiB and then blocks its writer, as a
    /// hanging disk does.
    #[cfg(unix)]
    #[test]
    fn a_hanging_disk_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("history.jsonl");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let (writer, _reported) = writer(folder.path());
        let begun = Instant::now();
        writer.change_history(HistoryChange::Append(" ".repeat(1024 * 1024)));
        for _ in 0..10_000 {
            writer.change_history(HistoryChange::Append("line\n".to_owned()));
            writer.replace("settings.json", b"{}".to_vec(), Durability::Durable);
        }
        assert!(!writer.finish(Duration::from_millis(100)));
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}
