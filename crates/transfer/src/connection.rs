//! The one connection, as everything that has something to send sees it.
//!
//! Two ways lead to the writer. What carries files goes through a bounded
//! queue, so that threads that read wait for the connection. Control messages
//! go through the [`Outbox`], past the files and without waiting: a receiver
//! that had to wait to acknowledge would stop reading, and two peers that send
//! to each other could wait for ever.

pub(crate) mod buffer;
pub(crate) mod liveness;
pub(crate) mod writer;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};
use pinhole_budget::Owner;
use tokio::sync::{Notify, mpsc, watch};

use crate::connection::buffer::{Buffer, BufferMemory, Pool};
use crate::connection::liveness::IdleTimer;
use crate::control::Control;
use crate::disk::attempt::Attempt;
use crate::disk::digest_cache::DigestCache;
use crate::event::ExchangeEvent;
use crate::offers::OfferBudget;
use crate::protocol::message::Message;
use crate::rate_limit::RateLimit;
use crate::transfer::Transfer;

/// Buffers for reading files, shared by all transfers: 6 MiB.
const SEND_BUFFERS: usize = 6;
/// Frames waiting for the connection.
const BULK_FRAMES: usize = 3;
/// Events the application has not taken yet.
const EVENTS: usize = 256;

/// Whose exchange it is: what the peer is counted by, and after whom what it leaves
/// unfinished is named. Nothing here looks into it.
pub type PeerOwner = Owner<[u8; 32]>;

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
}

impl Connection {
    pub(crate) fn owner(&self) -> PeerOwner {
        Owner {
            is_known: self.is_known.load(Ordering::Relaxed),
            ..self.owner
        }
    }

    pub(crate) fn set_known(&self, is_known: bool) {
        self.is_known.store(is_known, Ordering::Relaxed);
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
    /// Nobody has said yet whether those are wanted.
    pub(crate) is_ahead: bool,
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

/// Control messages waiting for the connection. Of what this side has to say it
/// never holds more than a few messages a transfer and one for each file that
/// failed or is compared: acknowledgements are cumulative, so that a newer one
/// takes the place of an older. What the peer has asked for is counted.
#[derive(Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    pub(crate) filled: Notify,
}

#[derive(Default)]
struct Waiting {
    /// Each with whether it is an answer.
    messages: VecDeque<(Message, bool)>,
    answers: usize,
}

impl Outbox {
    pub(crate) fn push(&self, message: Message) {
        let mut waiting = self.waiting();
        if let Message::Durable { transfer, .. } = message {
            // It goes to the end: whoever hears it must have heard before of
            // every failure that it covers.
            waiting.messages.retain(|(other, is_answer)| {
                *is_answer
                    || !matches!(other, Message::Durable { transfer: of, .. } if *of == transfer)
            });
        }
        waiting.messages.push_back((message, false));
        drop(waiting);
        self.filled.notify_one();
    }

    /// As [`Outbox::push`], for what the peer has asked for. `false`, and it is
    /// not said, when `most` of those wait already.
    pub(crate) fn push_answer(&self, message: Message, most: usize) -> bool {
        let mut waiting = self.waiting();
        if waiting.answers >= most {
            return false;
        }
        waiting.messages.push_back((message, true));
        waiting.answers += 1;
        drop(waiting);
        self.filled.notify_one();
        true
    }

    pub(crate) fn pop(&self) -> Option<Message> {
        let mut waiting = self.waiting();
        let (message, is_answer) = waiting.messages.pop_front()?;
        waiting.answers -= usize::from(is_answer);
        Some(message)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::file_error::FileErrorKind;
    use crate::protocol::message::TransferId;

    #[test]
    fn acknowledgements_do_not_pile_up() {
        let outbox = Outbox::default();
        let durable = |id, entries| Message::Durable {
            transfer: TransferId::from_wire(id),
            entries,
        };
        for entries in 0..1000 {
            outbox.push(durable(0, entries));
            outbox.push(durable(1, entries + 1));
        }
        assert_eq!(outbox.pop(), Some(durable(0, 999)));
        assert_eq!(outbox.pop(), Some(durable(1, 1000)));
        assert_eq!(outbox.pop(), None);
    }

    #[test]
    fn a_failure_is_never_overtaken_by_its_acknowledgement() {
        let outbox = Outbox::default();
        let transfer = TransferId::from_wire(0);
        let failed = Message::FileFailed {
            transfer,
            entry: 3,
            trouble: FileErrorKind::Io,
        };
        outbox.push(Message::Durable {
            transfer,
            entries: 3,
        });
        outbox.push(failed.clone());
        outbox.push(Message::Durable {
            transfer,
            entries: 5,
        });
        assert_eq!(outbox.pop(), Some(failed));
        assert_eq!(
            outbox.pop(),
            Some(Message::Durable {
                transfer,
                entries: 5
            })
        );
    }
}
