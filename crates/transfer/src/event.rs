//! What an exchange tells the application, and how things end.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::display::display_text;
use crate::protocol::digest::Digest;
use crate::protocol::file_error::{FileError, FileErrorKind, in_brackets};
use crate::protocol::manifest::Manifest;
use crate::protocol::message::{DeclineReason, TransferId};
use crate::protocol::path::SafePath;
use crate::protocol::violation::Violation;

/// Something the application should know of. Every transfer, in either
/// direction, ends with exactly one `Finished`, but for an offer that this side
/// declined; `Closed` is the last event.
#[derive(Debug, Clone)]
pub enum ExchangeEvent {
    /// The peer offers files.
    Offered {
        /// The new transfer.
        id: TransferId,
        /// Everything it would bring.
        offer: Arc<Manifest>,
        /// The peer has sent all of this before, and lacks the last word: the
        /// [digest](Summary::digest) of what it has sent. If this side has received
        /// just that, [`acknowledge`](crate::Exchange::acknowledge) says so.
        sent: Option<Digest>,
    },
    /// The peer has sent a few words. Nothing was done to make them fit to be
    /// shown. To be taken or declined; `Finished` follows only when the peer takes
    /// them back, or the exchange ends before that.
    Text {
        /// The transfer.
        id: TransferId,
        /// The words.
        text: String,
    },
    /// The peer took this side's offer; files are on their way. When it does
    /// not, `Finished` says so.
    Accepted {
        /// The transfer.
        id: TransferId,
    },
    /// The peer wants the transfer to stop for a while, or to go on.
    Paused {
        /// The transfer.
        id: TransferId,
        /// Whether it wants it to stop.
        paused: bool,
    },
    /// One file, or a folder that nothing was to go into, did not make it; the rest
    /// goes on.
    FileFailed {
        /// The transfer.
        id: TransferId,
        /// Which one.
        path: SafePath,
        /// Why.
        error: FileError,
    },
    /// The transfer is over. Of an offer that was acknowledged at once no
    /// `Accepted` came before.
    Finished {
        /// The transfer.
        id: TransferId,
        /// For the sender, `Ok` says that the receiver has all but the failed
        /// files safe on its disk.
        outcome: Result<Summary, TransferError>,
    },
    /// The exchange is over.
    Closed {
        /// `None` when either side closed it in good order.
        reason: Option<ExchangeError>,
    },
}

/// What a finished transfer brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files delivered.
    pub files: u32,
    /// Folders delivered.
    pub folders: u32,
    /// Bytes of the files delivered.
    pub bytes: u64,
    /// Those of them that the receiver had already, and that did not travel.
    pub here_bytes: u64,
    /// Bytes that travelled although the receiver had something in their
    /// place: it was not what is being sent.
    pub resent_bytes: u64,
    /// Files, and folders that nothing was to go into, that did not make it; a
    /// `FileFailed` told of each.
    pub failed_files: u32,
    /// Files that the receiver did not want.
    pub skipped_files: u32,
    /// On the receiving side, the first of those that it did not want because their
    /// names are taken, fit to be shown.
    pub skipped: Vec<String>,
    /// What was delivered, in short. Of one file its BLAKE3 hash, which `b3sum`
    /// prints; of several, the hash of what `b3sum` prints for them in the order of
    /// the manifest. Equal on both sides; `None` for no files.
    pub digest: Option<Digest>,
    /// On the receiving side, the folder that they are in, by the path that it has
    /// in the end.
    pub folder: Option<PathBuf>,
    /// On the receiving side, the top-level files and folders as they are
    /// named on disk.
    pub paths: Vec<PathBuf>,
    /// Of the sender, what is offered under another name than it has; of the
    /// receiver, what got another name than it was offered under.
    pub renamed: Renamed,
}

/// Files and folders that got another name on their way, by their paths, fit to be
/// shown. What is in a folder that got another is not among them for that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renamed {
    /// The first of them: the path before and the one that it got.
    pub first: Vec<(String, String)>,
    /// How many there are.
    pub count: u64,
}

impl Renamed {
    /// So many are named.
    pub const NAMED_MAX: usize = 100;

    pub(crate) fn add(&mut self, before: &str, now: &str) {
        self.count += 1;
        if self.first.len() < Self::NAMED_MAX {
            self.first.push((display_text(before), display_text(now)));
        }
    }
}

/// One of the two sides of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// This side.
    Us,
    /// The other side.
    Peer,
}

/// Why a transfer ended early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// The peer did not take the offer.
    #[error("{0}")]
    Declined(DeclineReason),
    /// This offer was declined without a question, because too much was offered at once.
    #[error("too much was offered at once")]
    GaveWay,
    /// One side ended it.
    #[error("cancelled by {}", match .0 { Party::Us => "this side", Party::Peer => "the other side" })]
    Cancelled(Party),
    /// One side went away, or put it off. What arrived is kept, and the same
    /// offer goes on from there.
    #[error("interrupted by {}", match .0 { Party::Us => "this side", Party::Peer => "the other side" })]
    Interrupted(Party),
    /// What arrived is not what was sent, as this party found. Nothing of that
    /// file was kept.
    #[error("verification failed")]
    Verification(Party),
    /// This side's disk or files do not serve.
    #[error("{path}: {trouble}{}", in_brackets(detail))]
    LocalFile {
        /// What this was about, fit to be shown.
        path: String,
        /// Why, in short.
        trouble: FileErrorKind,
        /// What else is to be said of it, if anything.
        detail: String,
    },
    /// The peer's disk or files do not serve.
    #[error("on the other side: {0}")]
    PeerFile(FileErrorKind),
    /// The connection broke.
    #[error("the connection was lost")]
    ConnectionLost,
    /// A stream, or a file that was written into a pipe, ended before its end. It cannot
    /// go on from there.
    #[error("after {arrived_bytes} bytes: {reason}")]
    Broken {
        /// How much was verified and written on the receiving side, as far as this side
        /// knows.
        arrived_bytes: u64,
        /// What has become of that.
        streamed: Streamed,
        /// Why it ended.
        reason: Box<TransferError>,
    },
    /// The connection ended because this party broke the protocol.
    #[error("{} broke the protocol", match .0 { Party::Us => "this side", Party::Peer => "the other side" })]
    Violation(Party),
}

/// What has become of what had arrived of a stream that broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streamed {
    /// It was sent to the other side.
    Sent,
    /// It was passed on into a pipe.
    PassedOn,
    /// It was removed.
    Removed,
}

/// Why an exchange does not go on, or does not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// The connection broke; what the system said.
    #[error("the connection was lost: {0}")]
    ConnectionLost(String),
    /// The peer did what no honest peer does.
    #[error("the other side violates the protocol: {0}")]
    Violation(#[from] Violation),
    /// The peer says that this side did; its words, fit to be shown.
    #[error("the other side reports a violation of the protocol: {0}")]
    Reported(String),
    /// The exchange is over.
    #[error("the connection is closed")]
    Closed,
    /// No transfer of this id is in the state that this needs.
    #[error("no such transfer")]
    UnknownTransfer,
    /// More than [`crate::protocol::message::TEXT_BYTES_MAX`].
    #[error("the text is too long; send it as a file")]
    TextTooLong,
    /// Too many transfers are open in this direction.
    #[error("too many transfers at once")]
    TooManyTransfers,
}
