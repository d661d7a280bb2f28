//! Which transfers are open, and everything that changes it: the application's
//! wishes, and the peer's words.

mod ending;
mod incoming;
mod outgoing;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot};

pub(crate) use self::incoming::OpenIncoming;
pub(crate) use self::outgoing::OpenOutgoing;
use crate::connection::Connection;
use crate::event::{ExchangeError, TransferError};
use crate::protocol::file_error::FileErrorKind;
use crate::protocol::message::{Message, Side, TEXT_BYTES_MAX, TransferId};
use crate::protocol::violation::Violation;
use crate::transfer::Transfer;

/// Most transfers open at once in each direction.
pub const TRANSFERS_MAX: usize = 32;

/// What the tasks and handles of an exchange share.
pub(crate) struct TransferTable {
    side: Side,
    pub(crate) connection: Arc<Connection>,
    /// An accepted transfer has ended, or the application was told of an end.
    landed: Notify,
    open: Mutex<OpenTransfers>,
}

/// The transfers that are open, and what was said of others.
pub(crate) struct OpenTransfers {
    /// The exchange is over and opens nothing more.
    is_over: bool,
    /// The next id of this side; `None` when they are used up.
    next: Option<TransferId>,
    /// The last id the peer gave out.
    last_of_peer: Option<TransferId>,
    /// Words of either side that were not answered yet.
    texts: BTreeSet<TransferId>,
    pub(crate) outgoing: HashMap<TransferId, OpenOutgoing>,
    pub(crate) incoming: HashMap<TransferId, OpenIncoming>,
    /// Ends of transfers for which the application's queue had no room yet.
    untold: usize,
}

impl OpenTransfers {
    /// An id for something new of this side.
    fn new_id(&mut self) -> Result<TransferId, ExchangeError> {
        if self.is_over {
            return Err(ExchangeError::Closed);
        }
        let id = self.next.ok_or(ExchangeError::TooManyTransfers)?;
        if self.outgoing.len() + self.texts_of(id.side()) >= TRANSFERS_MAX {
            return Err(ExchangeError::TooManyTransfers);
        }
        self.next = id.next();
        Ok(id)
    }

    fn texts_of(&self, side: Side) -> usize {
        self.texts.iter().filter(|id| id.side() == side).count()
    }

    /// Notes a new id of the peer.
    pub(crate) fn announce(&mut self, side: Side, id: TransferId) -> Result<(), Violation> {
        if id.side() == side || self.last_of_peer.is_some_and(|last| id <= last) {
            return Err(Violation::Transfer(id));
        }
        self.last_of_peer = Some(id);
        Ok(())
    }

    /// What came for a transfer that is not open is late if it was once.
    pub(crate) fn check_was_open(&self, side: Side, id: TransferId) -> Result<(), Violation> {
        let was_open = if id.side() == side {
            self.next.is_none_or(|next| id < next)
        } else {
            self.last_of_peer.is_some_and(|last| id <= last)
        };
        if was_open {
            Ok(())
        } else {
            Err(Violation::Transfer(id))
        }
    }
}

impl TransferTable {
    pub(crate) fn new(side: Side, connection: Arc<Connection>) -> Self {
        Self {
            side,
            connection,
            landed: Notify::new(),
            open: Mutex::new(OpenTransfers {
                is_over: false,
                next: Some(TransferId::first(side)),
                last_of_peer: None,
                texts: BTreeSet::new(),
                outgoing: HashMap::new(),
                incoming: HashMap::new(),
                untold: 0,
            }),
        }
    }

    pub(crate) const fn side(&self) -> Side {
        self.side
    }

    pub(crate) fn open(&self) -> MutexGuard<'_, OpenTransfers> {
        self.open.lock()
    }

    /// Whether files are under way in either direction.
    pub(crate) fn is_moving(&self) -> bool {
        let open = self.open();
        let is_sent = |one: &OpenOutgoing| one.machine.is_accepted();
        let receiving = |one: &OpenIncoming| matches!(one, OpenIncoming::Receiving { .. });
        open.outgoing.values().any(is_sent) || open.incoming.values().any(receiving)
    }

    /// Whether nothing is open in either direction.
    pub(crate) fn is_idle(&self) -> bool {
        let open = self.open();
        open.outgoing.is_empty() && open.incoming.is_empty() && open.texts.is_empty()
    }

    /// Sends a few words.
    pub(crate) fn send_text(&self, text: String) -> Result<TransferId, ExchangeError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(ExchangeError::TextTooLong);
        }
        let mut open = self.open();
        let transfer = open.new_id()?;
        open.texts.insert(transfer);
        // Under the lock, as an offer.
        self.connection.say(Message::Text { transfer, text });
        Ok(transfer)
    }

    /// The peer answers these words of this side. Whether they were waiting for
    /// that.
    pub(crate) fn text_is_answered(&self, id: TransferId) -> bool {
        id.side() == self.side && self.open().texts.remove(&id)
    }

    /// Words of the peer wait for their answer, unless too many do.
    pub(crate) fn keep_text(&self, id: TransferId) -> bool {
        let mut open = self.open();
        let has_room = open.texts_of(id.side()) < TRANSFERS_MAX;
        has_room && open.texts.insert(id)
    }

    /// Answers words of the peer. Whether they were waiting for that.
    pub(crate) fn answer_text(&self, id: TransferId, answer: Message) -> bool {
        let mut open = self.open();
        let was_waiting = id.side() != self.side && open.texts.remove(&id);
        if was_waiting {
            self.connection.say(answer);
        }
        was_waiting
    }

    /// A transfer of either direction.
    pub(crate) fn transfer(&self, id: TransferId) -> Option<Arc<Transfer>> {
        let open = self.open();
        match (open.outgoing.get(&id), open.incoming.get(&id)) {
            (Some(outgoing), _) => Some(Arc::clone(&outgoing.transfer)),
            (_, Some(OpenIncoming::Receiving { transfer, .. })) => Some(Arc::clone(transfer)),
            _ => None,
        }
    }

    /// A transfer of either direction, once the offer was taken.
    pub(crate) fn accepted_transfer(&self, id: TransferId) -> Option<Arc<Transfer>> {
        let open = self.open();
        let outgoing = open.outgoing.get(&id);
        let is_accepted = outgoing.is_none_or(|it| it.machine.is_accepted());
        drop(open);
        self.transfer(id).filter(|_| is_accepted)
    }
}

/// Runs `work` on a thread of its own. `None` when there is none to be had.
async fn on_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name(name.to_owned());
    let spawned = thread.spawn(move || {
        // A failure means that no task waits any more.
        let _ = done.send(work());
    });
    spawned.ok()?;
    result.await.ok()
}

/// Why a transfer ends for which there is no thread.
fn thread_error() -> TransferError {
    TransferError::LocalFile {
        path: "a thread of its own".to_owned(),
        trouble: FileErrorKind::Io,
        detail: "the system gives none".to_owned(),
    }
}
