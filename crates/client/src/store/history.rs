//! What was sent and received, kept in `history.jsonl` of the profile: one
//! JSON object a line, oldest first.

use std::path::PathBuf;
use std::sync::Arc;

use pinhole_net::{PathKind, PeerIdentity, PeerKey};
use serde::{Deserialize, Serialize};

use super::writer::HistoryChange;
use crate::model::Direction;
use crate::stored_path;

/// At twice this many entries, the older half goes.
const KEPT_ENTRIES: usize = 5_000;

/// One transfer that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// When it ended, in seconds since 1970 UTC.
    pub ended_at_s: u64,
    /// The other side.
    pub peer: PeerIdentity,
    /// Which way.
    pub direction: Direction,
    /// The title of the offer: the one name, or the first and how many more.
    pub title: String,
    /// Files transferred, or offered when it failed.
    pub files: u64,
    /// Bytes transferred, or offered when it failed.
    pub bytes: u64,
    /// Those of them that were there before, and did not travel.
    #[serde(default)]
    pub here_bytes: u64,
    /// Which way the bytes went, if there was a connection.
    pub path: Option<PathKind>,
    /// From acceptance to the end; absent when it was never accepted.
    pub elapsed_ms: Option<u64>,
    /// What was delivered, in short: the same line on both sides means the same
    /// files. Absent when there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// Received: the folder that holds what arrived.
    #[serde(default, with = "stored_path::optional")]
    pub folder: Option<PathBuf>,
}

/// How a transfer ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything is durable on the receiving side, but for this many files.
    Completed {
        /// Files and folders that should be there and are not.
        failed_files: u64,
    },
    /// Not, for this reason.
    Failed {
        /// A sentence for people.
        reason: String,
    },
}

/// The history as the engine holds it.
#[derive(Debug)]
pub(crate) struct History {
    entries: Arc<Vec<HistoryEntry>>,
}

impl History {
    /// The stored history. Lines that cannot be read, as one that a crash cut
    /// off, are left out.
    pub(crate) fn parse(lines: &str) -> Self {
        let entries = lines
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        Self {
            entries: Arc::new(entries.collect()),
        }
    }

    /// Oldest first.
    pub(crate) fn entries(&self) -> Arc<Vec<HistoryEntry>> {
        self.entries.clone()
    }

    /// Whom this key was when it was met last.
    pub(crate) fn find(&self, key: PeerKey) -> Option<PeerIdentity> {
        let mut entries = self.entries.iter().rev();
        let entry = entries.find(|entry| entry.peer.key == key)?;
        Some(entry.peer.clone())
    }

    /// Adds an entry. What has changed is to be written.
    pub(crate) fn add(&mut self, entry: HistoryEntry) -> HistoryChange {
        let line = line(&entry);
        let entries = Arc::make_mut(&mut self.entries);
        entries.push(entry);
        if entries.len() < 2 * KEPT_ENTRIES {
            return HistoryChange::Append(line);
        }
        entries.drain(..KEPT_ENTRIES);
        HistoryChange::Replace(entries.iter().map(self::line).collect())
    }

    /// Removes all entries. What has changed is to be written.
    pub(crate) fn clear(&mut self) -> HistoryChange {
        self.entries = Arc::default();
        HistoryChange::Replace(String::new())
    }
}

fn line(entry: &HistoryEntry) -> String {
    // Only maps with keys that are no strings fail, and there are none.
    serde_json::to_string(entry)
        .map(|json| json + "\n")
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::{Profile, ProfileWriter};

    fn entry(number: u64) -> HistoryEntry {
        HistoryEntry {
            ended_at_s: number,
            peer: PeerIdentity {
                name: "bob".parse().unwrap(),
                key: PeerKey::from_bytes([1; 32]),
            },
            direction: Direction::Sending,
            title: "film\n.mp4".to_owned(),
            files: 1,
            bytes: number,
            here_bytes: 0,
            path: Some(PathKind::Punched),
            elapsed_ms: Some(1),
            digest: None,
            outcome: Outcome::Completed { failed_files: 0 },
            folder: None,
        }
    }

    /// The history after `changes`, as it is read anew.
    fn stored(
        profile: &Profile,
        changes: impl IntoIterator<Item = HistoryChange>,
    ) -> Arc<Vec<HistoryEntry>> {
        let writer = ProfileWriter::new(profile, |error| panic!("{error}")).unwrap();
        for change in changes {
            writer.change_history(change);
        }
        assert!(writer.finish(Duration::from_secs(30)));
        History::parse(&profile.load_history().unwrap()).entries()
    }

    #[test]
    fn entries_survive_a_restart_and_lines_cut_off_by_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let profile = Profile::open(Some(folder.path())).unwrap();
        let mut history = History::parse("");
        let added = [1, 2].map(|number| history.add(entry(number)));
        let after = stored(&profile, added);
        assert_eq!(*after, [entry(1), entry(2)]);
        let cut_off = HistoryChange::Append("{\"ended_at_s\":3,\"pe".to_owned());
        let torn = stored(&profile, [cut_off]);
        assert_eq!(*torn, [entry(1), entry(2)]);
        let next = stored(&profile, [history.add(entry(4))]);
        assert_eq!(
            *next,
            [entry(1), entry(2), entry(4)],
            "the torn line is alone"
        );
        assert!(stored(&profile, [history.clear()]).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn what_went_into_a_folder_whose_name_is_no_text_is_kept() {
        use std::os::unix::ffi::OsStringExt as _;
        let folder = tempfile::tempdir().unwrap();
        let profile = Profile::open(Some(folder.path())).unwrap();
        let into = std::ffi::OsString::from_vec(b"/in\xff".to_vec());
        let entry = HistoryEntry {
            folder: Some(into.into()),
            ..entry(1)
        };
        let added = History::parse("").add(entry.clone());
        assert_eq!(*stored(&profile, [added]), [entry]);
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let profile = Profile::open(Some(folder.path())).unwrap();
        let many = u64::try_from(2 * KEPT_ENTRIES - 1).unwrap();
        let lines: String = (0..many).map(|n| line(&entry(n))).collect();
        let mut history = History::parse(&lines);
        let before = stored(&profile, [HistoryChange::Replace(lines)]);
        assert_eq!(before.len(), 2 * KEPT_ENTRIES - 1);
        let stored = stored(&profile, [history.add(entry(many))]);
        assert_eq!(stored, history.entries());
        assert_eq!(stored.len(), KEPT_ENTRIES);
        assert_eq!(stored.last(), Some(&entry(many)));
    }
}
