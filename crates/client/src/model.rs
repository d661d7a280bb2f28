//! What a transfer is called, which way it goes, and how far it is: the words that the
//! face, the state and the store share.

use std::path::PathBuf;
use std::time::Duration;

use pinhole_transfer::{Paused, Renamed};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::stored_path;

/// Names a transfer while the engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TransferId(pub u64);

/// Names a face while the engine runs.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct FaceId(pub(crate) u64);

impl FaceId {
    /// The face in the engine's own process.
    pub const OWN: Self = Self(0);
}

/// Which way the files go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From here.
    Sending,
    /// To here.
    Receiving,
}

/// How far a transfer is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Stage {
    /// Ours, waiting until the peer is online; kept across restarts.
    Queued,
    /// Reading the list of files to be sent, or making ready the folder that is
    /// received into.
    Preparing,
    /// Connecting to the peer.
    Connecting,
    /// Offered; the other side has not answered yet.
    AwaitingAnswer,
    /// Offered to us; the user has not answered yet.
    AwaitingDecision,
    /// Bytes move.
    Transferring,
    /// The connection was lost. It goes on by itself if there is a new one soon.
    Reconnecting,
    /// Everything is durable on the receiving side.
    Completed(Completion),
    /// It has ended otherwise. Nothing half-written stands under a final name.
    Failed(Failure),
}

impl Stage {
    /// Whether nothing more will happen.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Completed(_) | Self::Failed(_))
    }
}

/// What a completed transfer amounted to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    /// Files transferred.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The part of them that the receiver already had, so that it did not travel.
    pub here_bytes: u64,
    /// Bytes that travelled more than once.
    pub resent_bytes: u64,
    /// Files that failed one by one; the others are there.
    pub failed_files: u64,
    /// Files and folders that the sender could not read, or name, and so could not
    /// even offer.
    pub unread: u64,
    /// Files that the receiver did not want.
    pub skipped_files: u64,
    /// Received: the first of those whose names were taken, safe to show.
    pub skipped: Vec<String>,
    /// What was delivered, in short; equal on both sides. `None` for no files.
    pub digest: Option<String>,
    /// From acceptance to the durable acknowledgement.
    pub elapsed: Duration,
    /// Received: what to open: the folder that holds what arrived.
    #[serde(with = "stored_path::optional")]
    pub folder: Option<PathBuf>,
    /// Received: the top level as it is named on disk.
    #[serde(with = "stored_path::list")]
    pub paths: Vec<PathBuf>,
    /// Files and folders that got another name on their way, safe to show: of what
    /// was sent, the name here and the one offered; of what was received, the one
    /// offered and the one here.
    pub renamed: Renamed,
}

impl Completion {
    /// How many files and folders should be there and are not.
    #[must_use]
    pub const fn missing(&self) -> u64 {
        self.failed_files + self.unread
    }

    /// The bytes that travelled during this transfer.
    #[must_use]
    pub const fn travelled_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.here_bytes)
    }
}

/// How far the bytes are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Sent and acknowledged, or received and verified.
    pub bytes_done: u64,
    /// The part of them that the receiver already had. It does not count as speed.
    pub here_bytes: u64,
    /// The total; `None` for a stream, of which nobody knows.
    pub bytes_total: Option<u64>,
    /// Whole files so far.
    pub files_done: u64,
    /// The total.
    pub files_total: u64,
    /// Speed over the last seconds; `None` before it can be measured.
    pub bytes_per_second: Option<u64>,
    /// Time left at that speed; `None` while it is unknown, as in a stall.
    pub time_left: Option<Duration>,
    /// Which side has paused it.
    pub paused: Paused,
}

impl Progress {
    /// Whether no bytes move although neither side has paused it.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.bytes_per_second == Some(0)
            && self.paused == Paused::default()
            && self
                .bytes_total
                .is_some_and(|total| self.bytes_done < total)
    }
}
