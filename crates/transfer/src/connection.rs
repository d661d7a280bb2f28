//! The one connection, as everything that has something to send sees it.
//!
//! Two ways lead to the writer. What carries files goes through a bounded
//! queue, so that threads that read wait for the connection. Control messages
//! go through the [`Outbox`], past the files and without waiting: a receiver
//! that had to wait to acknowledge would stop reading, and two peers that send
//! to each other could wait for ever.

pub(crate) mod buffer;
pub(crate) mod liveness;
pub(crate) mod outbox;
pub(crate) mod reader;
pub(crate) mod writer;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pinhole_budget::Owner;
use tokio::sync::{Notify, mpsc, watch};

use crate::connection::buffer::{Buffer, BufferMemory, Pool};
use crate::connection::liveness::IdleTimer;
use crate::connection::outbox::Outbox;
use crate::control::Control;
use crate::disk::attempt::Attempt;
use crate::disk::digest_cache::DigestCache;
use crate::event::{ExchangeEvent, Party};
use crate::offers::{OfferBudget, PeerOwner};
use crate::protocol::frame::FrameError;
use crate::protocol::message::Message;
use crate::protocol::violation::Violation;
use crate::rate_limit::RateLimit;
use crate::transfer::Transfer;

/// Buffers for reading files, shared by all transfers: 6 MiB.
const SEND_BUFFERS: usize = 6;
/// Frames waiting for the connection.
const BULK_FRAMES: usize = 3;
/// Events the application has not taken yet.
const EVENTS: usize = 256;

/// What several exchanges share. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Resources {
    /// How fast files may travel from this side to peers.
    pub send: Arc<RateLimit>,
    /// And from peers to this side.
    pub receive: Arc<RateLimit>,
    /// What the chunks of files were found to be.
    pub known: DigestCache,
    /// What the offers that wait for an answer take.
    pub offers: OfferBudget,
    /// The memory of chunks under way.
    pub buffers: BufferMemory,
}

/// What the tasks and threads of one exchange share.
pub(crate) struct Connection {
    pub(crate) outbox: Outbox,
    pub(crate) bulk: mpsc::Sender<Bulk>,
    pub(crate) events: mpsc::Sender<ExchangeEvent>,
    pub(crate) send_buffers: Mutex<Pool>,
    pub(crate) resources: Resources,
    owner: PeerOwner,
    is_known: AtomicBool,
    /// How long the peer has been waited for.
    pub(crate) silence: IdleTimer,
    /// The application wants an end.
    pub(crate) closing: Notify,
    /// Turns true when nothing more can be sent or received.
    pub(crate) ended: watch::Sender<bool>,
}

impl Connection {
    pub(crate) fn new(
        resources: Resources,
        owner: PeerOwner,
    ) -> (Self, mpsc::Receiver<Bulk>, mpsc::Receiver<ExchangeEvent>) {
        let (bulk, bulk_frames) = mpsc::channel(BULK_FRAMES);
        let (events, taken) = mpsc::channel(EVENTS);
        let connection = Self {
            outbox: Outbox::default(),
            bulk,
            events,
            send_buffers: Mutex::new(Pool::new(SEND_BUFFERS, resources.buffers.clone())),
            resources,
            owner,
            is_known: AtomicBool::new(owner.is_known),
            silence: IdleTimer::default(),
            closing: Notify::new(),
            ended: watch::Sender::new(false),
        };
        (connection, bulk_frames, taken)
    }

    pub(crate) fn owner(&self) -> PeerOwner {
        Owner {
            is_known: self.is_known.load(Ordering::Relaxed),
            ..self.owner
        }
    }

    pub(crate) fn set_known(&self) {
        self.is_known.store(true, Ordering::Relaxed);
    }

    /// A new attempt at a transfer from this peer.
    pub(crate) fn attempt(&self, control: &Arc<Control>) -> Attempt {
        Attempt {
            owner: self.owner.key.unwrap_or_default(),
            cache: self.resources.known.clone(),
            control: Arc::clone(control),
        }
    }

    /// Tells the application. When it has dropped its end, the exchange is
    /// about to end and nobody wants to know.
    pub(crate) async fn emit(&self, event: ExchangeEvent) {
        let _ = self.events.send(event).await;
    }

    /// Says something to the peer, past all files. Never waits.
    pub(crate) fn say(&self, message: Message) {
        self.outbox.push(message);
    }

    /// As [`Connection::emit`], on a thread of its own.
    pub(crate) fn emit_blocking(&self, event: ExchangeEvent) {
        let _ = self.events.blocking_send(event);
    }
}

/// A frame on its way that belongs to a transfer's files.
pub(crate) struct Bulk {
    /// Once this is stopped the frame is dropped.
    pub(crate) transfer: Arc<Transfer>,
    pub(crate) frame: Frame,
    /// Bytes of files in it.
    pub(crate) file_bytes: u64,
    /// It goes ahead of the answer to the offer.
    pub(crate) is_early: bool,
}

pub(crate) enum Frame {
    /// A message, encoded.
    Message(Vec<u8>),
    /// Data with its headers before it.
    Data {
        buffer: Buffer,
        header_bytes: usize,
        data_bytes: usize,
    },
}

impl Frame {
    pub(crate) const fn carries_files(&self) -> bool {
        matches!(self, Self::Data { .. })
    }

    /// How long the data in it is.
    pub(crate) const fn data_bytes(&self) -> usize {
        match self {
            Self::Message(_) => 0,
            Self::Data { data_bytes, .. } => *data_bytes,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Message(bytes) => bytes,
            Self::Data {
                buffer,
                header_bytes,
                data_bytes,
            } => buffer.frame(*header_bytes, *data_bytes),
        }
    }
}

/// Why a connection has ended.
pub(crate) enum Ended {
    /// In good order, by this party.
    Closed(Party),
    /// The connection broke.
    Lost(String),
    /// The peer did what no honest peer does.
    Violation(Violation),
    /// The peer says that this side did.
    Reported(String),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Lost(error.to_string())
    }
}

impl From<Violation> for Ended {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl From<FrameError> for Ended {
    fn from(error: FrameError) -> Self {
        Self::Violation(error.into())
    }
}
