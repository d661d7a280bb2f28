//! The state of the application as a face draws it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pinhole_net::diagnosis::Diagnosis;
use pinhole_net::{
    Directory, Fingerprint, PathKind, PeerIdentity, PeerKey, PeerName, ServerAddress,
};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::invitation::code::Code;
use crate::model::{Direction, FaceId, Progress, Stage, TransferId};
use crate::store::{Attempt, HistoryEntry, Outcome, Settings};
use crate::stored_path;

/// Everything that a face shows, at one moment. Each change replaces all of it.
///
/// What serde skips can be large; an attached face is told what has changed of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Snapshot {
    /// Whether we are logged in.
    pub login: LoginState,
    /// The name we go by nearby, while people there are looked for.
    pub nearby: Option<PeerName>,
    /// Our own key's fingerprint.
    pub fingerprint: Fingerprint,
    /// Our own public key.
    pub key: PeerKey,
    /// Whether the server lists everybody who is online; `None` until it has said so.
    pub directory: Option<Directory>,
    /// Who is online or nearby, and which contacts are not, ordered by name.
    /// Never ourselves. Nearby, several may claim one name. Where the server does not
    /// list everybody, these are the contacts, and whom we have looked up or met.
    #[serde(skip)]
    pub peers: Vec<PeerView>,
    /// The names that were looked up, the latest last: at most 64.
    pub looked_up: Vec<LookedUp>,
    /// The code of ours that is open.
    pub code: Option<Code>,
    /// Running and finished transfers, oldest first, until dismissed.
    #[serde(skip)]
    pub transfers: Vec<TransferView>,
    /// Strangers that were told they need permission to connect, oldest first, until
    /// they are allowed or declined: at most 64.
    pub asking: Vec<PeerIdentity>,
    /// The peers whose keys are pinned, on every server and nearby, ordered by name.
    #[serde(skip)]
    pub contacts: Arc<Vec<PeerIdentity>>,
    /// Keys that were blocked, ordered by the names they had then.
    pub blocked: Vec<PeerIdentity>,
    /// Every transfer that has ended, oldest first, also of earlier runs.
    #[serde(skip)]
    pub history: Arc<Vec<HistoryEntry>>,
    /// The last attempts to connect, oldest first, also of earlier runs.
    #[serde(skip)]
    pub attempts: Arc<Vec<Attempt>>,
    /// The profile was made by this start.
    pub is_first_run: bool,
    /// There are recovery words for our key ([`crate::Command::NewRecoveryKey`]).
    pub has_recovery_key: bool,
    /// A diagnosis is being made.
    pub is_diagnosing: bool,
    /// The last diagnosis of this run.
    pub diagnosis: Option<Arc<Diagnosis>>,
    /// Where accepted files go.
    #[serde(with = "stored_path::required")]
    pub download_folder: PathBuf,
    /// What the user has chosen, as this run obeys it.
    pub settings: Settings,
}

impl Snapshot {
    /// All transfers under way together; `None` when there is at most one.
    #[must_use]
    pub fn overall(&self) -> Option<Overall> {
        let is_moving = |transfer: &&TransferView| matches!(transfer.stage, Stage::Transferring);
        let mut overall = Overall::default();
        overall.progress.bytes_total = Some(0);
        for transfer in self.transfers.iter().filter(is_moving) {
            overall.transfers += 1;
            let sum = &mut overall.progress;
            let one = &transfer.progress;
            sum.bytes_done += one.bytes_done;
            sum.bytes_total = sum.bytes_total.zip(one.bytes_total).map(|(a, b)| a + b);
            sum.files_done += one.files_done;
            sum.files_total += one.files_total;
            if let Some(speed) = one.bytes_per_second {
                sum.bytes_per_second = Some(sum.bytes_per_second.unwrap_or_default() + speed);
            }
        }
        let sum = &mut overall.progress;
        let left_ms = sum
            .bytes_total
            .and_then(|total| total.saturating_sub(sum.bytes_done).checked_mul(1000));
        sum.time_left = sum
            .bytes_per_second
            .and_then(|speed| left_ms?.checked_div(speed))
            .map(Duration::from_millis);
        Some(overall).filter(|overall| overall.transfers > 1)
    }
}

/// A name that was looked up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookedUp {
    /// The name.
    pub name: PeerName,
    /// What is known of it.
    pub state: LookUpState,
}

/// What a look-up has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LookUpState {
    /// The server has not answered yet, or we are not logged in.
    Searching,
    /// It is online, and among the peers.
    Online,
    /// Nobody of that name is online, or there is no such name.
    NotOnline,
}

/// Several transfers together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overall {
    /// How many.
    pub transfers: u64,
    /// How far they are.
    pub progress: Progress,
}

/// Whether we are logged in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum LoginState {
    /// Not logged in, and not trying to.
    LoggedOut {
        /// Why the last login ended, when it was not the user who ended it.
        failure: Option<Failure>,
    },
    /// The first attempt is under way.
    LoggingIn {
        /// Our name.
        name: PeerName,
        /// The server.
        server: ServerAddress,
    },
    /// Logged in.
    LoggedIn {
        /// Our name.
        name: PeerName,
        /// The server, with the fingerprint of its key.
        server: ServerAddress,
    },
    /// The connection to the server is lost; sessions with peers go on.
    Reconnecting {
        /// Our name.
        name: PeerName,
        /// The server.
        server: ServerAddress,
        /// Why it was lost, or why the last attempt failed.
        failure: Failure,
        /// When the next attempt begins.
        #[serde(with = "from_now")]
        next_attempt: Instant,
    },
}

impl LoginState {
    /// The name and the server of the login, while there is one, be it interrupted.
    #[must_use]
    pub const fn wanted(&self) -> Option<(&PeerName, &ServerAddress)> {
        match self {
            Self::LoggedOut { .. } => None,
            Self::LoggingIn { name, server }
            | Self::LoggedIn { name, server }
            | Self::Reconnecting { name, server, .. } => Some((name, server)),
        }
    }
}

/// For `#[serde(with)]` on a moment: another process has another clock.
mod from_now {
    use std::time::{Duration, Instant};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(at: &Instant, serializer: S) -> Result<S::Ok, S::Error> {
        at.saturating_duration_since(Instant::now())
            .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Instant, D::Error> {
        let now = Instant::now();
        let left = Duration::deserialize(deserializer)?;
        Ok(now.checked_add(left).unwrap_or(now))
    }
}

/// A peer that is online, or a contact that is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    /// Name and key.
    pub identity: PeerIdentity,
    /// Whether files can be sent now; otherwise they wait until it is.
    pub online: bool,
    /// Found on the same network.
    pub nearby: bool,
    /// Its name is only what it says of itself: no server has vouched for it,
    /// and it is no contact.
    pub claimed: bool,
    /// An offer of this peer was accepted before, or it accepted one of ours.
    pub contact: bool,
    /// The fingerprint of the key pinned for this name, when it is another one;
    /// nothing is sent until the user decides ([`crate::Command::TrustNewKey`]).
    pub changed_from: Option<Fingerprint>,
    /// With `changed_from`: the server says that the name was not used for long and was
    /// released, so that this is somebody else.
    pub released: bool,
    /// The key was revoked: nothing is sent to it, and it is not let in.
    pub revoked: bool,
    /// The path of the session that is up, if one is.
    pub path: Option<PathKind>,
}

/// One transfer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TransferView {
    /// Names it.
    pub id: TransferId,
    /// The face that asked for it, and with which it ends. What comes in, and what waits
    /// for its peer in the profile, is the engine's own.
    pub face: FaceId,
    /// The other side.
    pub peer: PeerIdentity,
    /// See [`PeerView::claimed`]; as it was when the offer came.
    pub claimed: bool,
    /// Receiving: the user has not chosen this key before, by sending to it,
    /// accepting something of it, or trusting it; as it was when the offer came.
    pub stranger: bool,
    /// Which way.
    pub direction: Direction,
    /// What is offered: in full until it has ended, then without its entries.
    /// Sending, empty while [`Stage::Preparing`].
    #[serde(skip)]
    pub offer: Arc<OfferView>,
    /// How far it is.
    pub stage: Stage,
    /// The path in use, once connected.
    pub path: Option<PathKind>,
    /// Bytes and files so far.
    pub progress: Progress,
    /// A few words instead of files.
    pub is_text: bool,
    /// Those words as they came: not fit to be shown without
    /// [`crate::display_lines`]. Absent while they wait for
    /// [`crate::Command::Accept`].
    pub text: Option<Arc<str>>,
}

/// An offer as people see it: every text is safe to show.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferView {
    /// A short title: the one file's name, or "3 files", "photos and 2 more".
    pub title: String,
    /// Receiving: every file and folder, in order.
    pub entries: Vec<EntryView>,
    /// Receiving: what stands at the top level, in order.
    pub top_level: Vec<TopView>,
    /// How many of them are files.
    pub files: u64,
    /// How many of them are folders.
    pub folders: u64,
    /// Bytes in all; none of a stream.
    pub bytes: u64,
    /// It is one file whose size nobody knows before its end.
    pub stream: bool,
    /// Receiving: how many names at the top level are taken in the download
    /// folder. Known from [`crate::Event::Offered`] on.
    pub existing: u32,
    /// The first few of these names.
    pub existing_names: Vec<String>,
    /// Sending: what was found and left out.
    pub left_out: Vec<LeftOut>,
    /// How many files and folders should be in it, but could not be read or named by
    /// the sender.
    pub unread: u64,
}

/// Something that was found where files were to be sent, and is not sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Where, safe to show.
    pub path: String,
    /// Why, in a few words.
    pub reason: String,
    /// It should have been sent, and could not; links and special files should
    /// not.
    pub failed: bool,
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.path, self.reason)
    }
}

/// A file or folder at the top level of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopView {
    /// Its place in [`OfferView::entries`].
    pub entry: u32,
    /// How many files are in it; a file counts itself.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// One line of an offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryView {
    /// Relative path with `/`, control and bidirectional characters escaped.
    pub path: String,
    /// `None` for a folder, and for a stream.
    pub size_bytes: Option<u64>,
    /// A file whose size nobody knows before its end.
    pub stream: bool,
    /// The place of the folder that it is in, always before its own; `None` at
    /// the top level.
    pub folder: Option<u32>,
}

impl TransferView {
    /// The entry in the history of one in its final stage, `None` in any other.
    pub(crate) fn history_entry(&self, ended_at: SystemTime) -> Option<HistoryEntry> {
        let (files, bytes, elapsed, digest, outcome, folder) = match &self.stage {
            Stage::Completed(done) => {
                let outcome = match (done.files, done.failed_files) {
                    (0, failed @ 1..) => Outcome::Failed {
                        reason: format!("None of {failed} files arrived."),
                    },
                    _ => Outcome::Completed {
                        failed_files: done.missing(),
                    },
                };
                (
                    done.files,
                    done.bytes,
                    Some(done.elapsed),
                    done.digest.clone(),
                    outcome,
                    done.folder.clone(),
                )
            }
            Stage::Failed(failure) => {
                let outcome = Outcome::Failed {
                    reason: failure.to_string(),
                };
                (
                    self.offer.files,
                    self.offer.bytes,
                    None,
                    None,
                    outcome,
                    None,
                )
            }
            _ => return None,
        };
        let since_1970 = ended_at
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Some(HistoryEntry {
            ended_at_s: since_1970.as_secs(),
            peer: self.peer.clone(),
            direction: self.direction,
            title: self.offer.title.clone(),
            files,
            bytes,
            here_bytes: match &self.stage {
                Stage::Completed(done) => done.here_bytes,
                _ => 0,
            },
            path: self.path,
            elapsed_ms: elapsed.map(|e| u64::try_from(e.as_millis()).unwrap_or(u64::MAX)),
            digest,
            outcome,
            folder,
        })
    }
}
