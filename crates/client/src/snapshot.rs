//! The state of the application as a face draws it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pinhole_net::{Fingerprint, PathKind, PeerIdentity, PeerKey, PeerName, ServerAddress};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::history::HistoryEntry;
use crate::settings::AcceptPolicy;

/// Everything a face shows, at one moment. Replaced as a whole on each change.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Whether we are logged in.
    pub login: LoginState,
    /// Our own key's fingerprint.
    pub fingerprint: Fingerprint,
    /// Our own public key.
    pub key: PeerKey,
    /// Who is online, and which contacts are not, ordered by name. Never
    /// ourselves.
    pub peers: Vec<PeerView>,
    /// Running and finished transfers, oldest first, until dismissed.
    pub transfers: Vec<TransferView>,
    /// Every transfer that has ended, oldest first, also of earlier runs.
    pub history: Arc<Vec<HistoryEntry>>,
    /// Where accepted files go.
    pub download_folder: PathBuf,
    /// Whose offers are taken without asking.
    pub accept: AcceptPolicy,
    /// The name used last, to be offered at login.
    pub last_name: Option<PeerName>,
    /// The server used last, to be offered at login.
    pub last_server: Option<ServerAddress>,
}

/// Whether we are logged in.
#[derive(Debug, Clone)]
pub enum LoginState {
    /// Not, and not trying. The failure of the last attempt, if there was one.
    LoggedOut {
        /// Why the last login ended, when it was not the user who ended it.
        failure: Option<Failure>,
    },
    /// The first attempt is under way.
    LoggingIn {
        /// As whom.
        name: PeerName,
        /// Where.
        server: ServerAddress,
    },
    /// Logged in.
    LoggedIn {
        /// As whom.
        name: PeerName,
        /// Where, with the fingerprint of the server's key.
        server: ServerAddress,
    },
    /// The connection to the server is lost; sessions with peers go on.
    Reconnecting {
        /// As whom.
        name: PeerName,
        /// Where.
        server: ServerAddress,
        /// Why it was lost, or why the last attempt failed.
        failure: Failure,
        /// When the next attempt begins.
        next_attempt: Instant,
    },
}

/// A peer that is online, or a contact that is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerView {
    /// Name and key.
    pub identity: PeerIdentity,
    /// Whether files can be sent now; otherwise they wait until it is.
    pub online: bool,
    /// An offer of this peer was accepted before, or it accepted one of ours.
    pub contact: bool,
    /// The fingerprint of the key pinned for this name, when it is another one;
    /// nothing is sent until the user decides ([`crate::Command::TrustNewKey`]).
    pub changed_from: Option<Fingerprint>,
    /// The path of the session that is up, if one is.
    pub path: Option<PathKind>,
}

/// Names a transfer while the engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId(pub u64);

/// Which way the files go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From here.
    Sending,
    /// To here.
    Receiving,
}

/// One transfer.
#[derive(Debug, Clone)]
pub struct TransferView {
    /// Names it.
    pub id: TransferId,
    /// The other side.
    pub peer: PeerIdentity,
    /// Which way.
    pub direction: Direction,
    /// What is offered, in full. Empty while [`Stage::Preparing`].
    pub offer: Arc<OfferView>,
    /// How far it is.
    pub stage: Stage,
    /// The path in use, once connected.
    pub path: Option<PathKind>,
    /// Bytes and files so far.
    pub progress: Progress,
}

/// How far a transfer is.
#[derive(Debug, Clone)]
pub enum Stage {
    /// Ours, waiting until the peer is online; kept across restarts.
    Queued,
    /// Reading the list of files to be sent.
    Preparing,
    /// Connecting to the peer.
    Connecting,
    /// Offered; the other side has not answered yet.
    AwaitingAnswer,
    /// Offered to us; the user has not answered yet.
    AwaitingDecision,
    /// Bytes move.
    Transferring,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// Files transferred.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that travelled more than once.
    pub resent_bytes: u64,
    /// Files that were offered and failed one by one; the others are there.
    pub failed_files: u64,
    /// From acceptance to the durable acknowledgement.
    pub elapsed: Duration,
    /// Received: what to open: the folder that holds what arrived.
    pub folder: Option<PathBuf>,
}

/// How far the bytes are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Sent and acknowledged, or received and verified.
    pub bytes_done: u64,
    /// Of how many.
    pub bytes_total: u64,
    /// Whole files so far.
    pub files_done: u64,
    /// Of how many.
    pub files_total: u64,
    /// Over the last seconds; `None` before there is anything to measure.
    pub bytes_per_second: Option<u64>,
    /// At that speed; `None` while it cannot be told, as in a stall.
    pub time_left: Option<Duration>,
}

/// An offer as people see it: every text is safe to show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OfferView {
    /// A short title: the one file's name, or "3 files", "photos and 2 more".
    pub title: String,
    /// Every file and folder, in order.
    pub entries: Vec<EntryView>,
    /// How many of them are files.
    pub files: u64,
    /// How many of them are folders.
    pub folders: u64,
    /// Bytes in all.
    pub bytes: u64,
    /// Sending: what was left out and why (links, special files), one line each.
    pub skipped: Vec<String>,
}

/// One line of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryView {
    /// Relative path with `/`, control and bidirectional characters escaped.
    pub path: String,
    /// `None` for a folder.
    pub size_bytes: Option<u64>,
}
