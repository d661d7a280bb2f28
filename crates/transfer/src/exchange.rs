//! The exchange of files between two peers over one connection: several
//! transfers at once, in both directions.
//!
//! [`start`] makes two tasks of a stream, one that reads (`reader`)
//! and one that writes (`writer`), and a handle with which to offer,
//! answer and cancel. Which transfers are open stands in `open`.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::accept_options::AcceptOptions;
use crate::connection::writer;
use crate::connection::{Bulk, Connection, Frame, PeerOwner, Resources};
use crate::disk::destination::{Destination, DestinationError};
use crate::disk::store::Store;
use crate::dispatch::{Ended, Reader};
use crate::event::{ExchangeError, ExchangeEvent, Party, TransferError};
use crate::prepared::Prepared;
use crate::progress::Progress;
use crate::protocol::file_error::FileErrorKind;
use crate::protocol::frame;
use crate::protocol::manifest::Entry;
use crate::protocol::message::{CancelReason, DeclineReason, Message, Side, TransferId};
use crate::protocol::selection::Selection;
use crate::receive::{Feeds, Incoming};
use crate::resume::ResumeState;
use crate::send::source::Source;
use crate::send::{Ahead, EarlySend, First, SendJob};
use crate::transfer::Transfer;
use crate::transfer_table::{Leaving, TransferTable};

/// Most transfers open at once in each direction.
pub const TRANSFERS_MAX: usize = 32;
/// How long each step of an orderly end may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// A page of an offer, well below the largest frame.
const PAGE_BYTES: usize = 64 * 1024;
/// At most so many bytes of JSON come with each path.
const ENTRY_JSON_BYTES: usize = 100;

/// A handle to the exchange; clones are the same exchange. It ends with
/// [`Exchange::close`], when the peer closes, when the connection breaks, or
/// when the receiver of its events is dropped.
///
/// ```
/// use pinhole_transfer::{
///     AcceptOptions, Destination, ExchangeEvent, Owner, Resources, Side, Source, start,
/// };
/// use tokio::io::{duplex, split};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (from, into) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// # let film = from.path().join("film.mp4");
/// # std::fs::write(&film, "moving pictures")?;
/// // A stream in memory takes the place of a session between two peers.
/// let (left, right) = duplex(64 * 1024);
/// let (alices_key, bobs_key) = (Owner::stranger([1; 32]), Owner::stranger([2; 32]));
/// let (alice, mut at_alice) =
///     start(split(left), Side::Initiator, bobs_key, Resources::default());
/// let (bob, mut at_bob) =
///     start(split(right), Side::Responder, alices_key, Resources::default());
///
/// alice.send(Source::scan(&[film])?)?;
/// while let Some(event) = at_bob.recv().await {
///     if let ExchangeEvent::Offered { id, .. } = event {
///         let folder = Destination::open(into.path())?;
///         bob.accept(id, folder, AcceptOptions::default()).await?;
///         break;
///     }
/// }
/// while let Some(event) = at_alice.recv().await {
///     if let ExchangeEvent::Finished { outcome, .. } = event {
///         assert_eq!(outcome?.files, 1);
///         break;
///     }
/// }
/// assert!(into.path().join("film.mp4").exists());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Exchange {
    shared: Arc<TransferTable>,
}

/// Why an offer could not be accepted. It stays open, to be accepted into
/// another folder or declined.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The folder does not serve.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// The exchange or the offer is over.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
}

/// Starts the exchange over the two halves of an authenticated and encrypted
/// stream, within a tokio runtime. The peers must not be on the same side. `owner`
/// is the peer: what it leaves unfinished is named after its key, and nobody else's
/// offers find it.
pub fn start<R, W>(
    stream: (R, W),
    side: Side,
    owner: PeerOwner,
    resources: Resources,
) -> (Exchange, mpsc::Receiver<ExchangeEvent>)
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let (connection, bulk, events) = Connection::new(resources, owner);
    let shared = Arc::new(TransferTable::new(side, connection));
    let writer = tokio::spawn(writer::write(stream.1, Arc::clone(&shared), bulk));
    let reader = Reader::new(stream.0, Arc::clone(&shared));
    tokio::spawn(supervise(Arc::clone(&shared), reader, writer));
    (Exchange { shared }, events)
}

/// Runs the exchange to its end and leaves nothing behind.
async fn supervise<R: AsyncRead + Send + Unpin + 'static>(
    shared: Arc<TransferTable>,
    reader: Reader<R>,
    writer: JoinHandle<std::io::Result<()>>,
) {
    let writing = writer.abort_handle();
    // A task of its own: should it fail, the application hears of an end all the same.
    let conversation = tokio::spawn(converse(Arc::clone(&shared), reader, writer));
    let ended = conversation.await.unwrap_or_else(|error| {
        tracing::error!(%error, "the exchange is lost");
        Ended::Lost("the reader ended".to_owned())
    });
    writing.abort();
    shared.end_all(&ended).await;
    let reason = match ended {
        Ended::Closed(_) => None,
        Ended::Lost(detail) => Some(ExchangeError::ConnectionLost(detail)),
        Ended::Violation(violation) => Some(violation.into()),
        Ended::Reported(words) => Some(ExchangeError::Reported(words)),
    };
    shared
        .connection
        .emit(ExchangeEvent::Closed { reason })
        .await;
    shared.connection.ended.send_replace(true);
}

/// Reads and writes until either ends or the application wants an end, and says
/// goodbye; the writer may be at it still. When it returns the reader is gone, and with it the hold that one
/// in the midst of a frame has on a transfer's pipeline.
async fn converse<R: AsyncRead + Unpin>(
    shared: Arc<TransferTable>,
    mut reader: Reader<R>,
    mut writer: JoinHandle<std::io::Result<()>>,
) -> Ended {
    let mut reading = pin!(reader.run());
    let mut is_closing = false;
    let ended = tokio::select! {
        ended = &mut reading => ended,
        written = &mut writer => Ended::Lost(match written {
            Ok(Err(error)) => error.to_string(),
            _ => "the writer ended".to_owned(),
        }),
        () = shared.connection.closing.notified() => {
            is_closing = true;
            Ended::Closed(Party::Us)
        }
    };
    let violation = match &ended {
        Ended::Violation(violation) => Some(violation.to_string()),
        _ => None,
    };
    shared.connection.say(Message::Close { violation });
    let goodbye = async {
        if !writer.is_finished() {
            // An error here says what is known: the connection is over.
            let _ = (&mut writer).await;
        }
        if is_closing {
            // A connection closed with bytes unread may lose bytes sent.
            reading.await;
        }
    };
    if tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await.is_err() {
        tracing::debug!("the peer did not end in time");
    }
    ended
}

impl Exchange {
    /// Offers files. Returns at once; what becomes of it is told by events.
    ///
    /// # Errors
    /// The exchange is over, or [`TRANSFERS_MAX`] are open.
    pub fn send(&self, source: Source) -> Result<TransferId, ExchangeError> {
        self.send_resumable(source, &ResumeState::default())
    }

    /// As [`Exchange::send`], for a transfer that is to go on after its connection
    /// broke: each attempt gets the same `resume`. If all of the offer was sent before
    /// and only the last word of the receiver is missing, the offer says so.
    ///
    /// # Errors
    /// As for [`Exchange::send`].
    pub fn send_resumable(
        &self,
        source: Source,
        resume: &ResumeState,
    ) -> Result<TransferId, ExchangeError> {
        let source = Arc::new(source);
        let (transfer, leaving) = self.shared.open_outgoing(&source, resume)?;
        let id = transfer.id;
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            send_pages(&shared.connection, transfer, source).await;
            match leaving {
                Leaving::Nothing => {}
                Leaving::FirstChunk(forerun) => send_ahead(shared, forerun).await,
                Leaving::Everything(departure) => deliver(shared, departure).await,
            }
        });
        Ok(id)
    }

    /// Sends a few words instead of files. `Finished` follows when the peer's
    /// application has taken or declined them.
    ///
    /// # Errors
    /// The words are too many, the exchange is over, or [`TRANSFERS_MAX`] are
    /// open.
    pub fn send_text(&self, text: String) -> Result<TransferId, ExchangeError> {
        self.shared.send_text(text)
    }

    /// Tells the peer that its words have been taken. No event follows.
    ///
    /// # Errors
    /// There are no such words, or they were answered.
    pub fn take_text(&self, id: TransferId) -> Result<(), ExchangeError> {
        let taken = Message::Durable {
            transfer: id,
            entries: 0,
        };
        match self.shared.answer_text(id, taken) {
            true => Ok(()),
            false => Err(ExchangeError::UnknownTransfer),
        }
    }

    /// Takes an offer, or the part of it that is wanted. Returns when the folder
    /// is ready and the peer is told.
    ///
    /// # Errors
    /// The folder does not serve; then the offer stays open. Or the offer is
    /// over.
    pub async fn accept(
        &self,
        id: TransferId,
        destination: Destination,
        choices: AcceptOptions,
    ) -> Result<(), AcceptError> {
        let resume = ResumeState::default();
        let prepared = self.prepare(id, destination, choices, &resume).await?;
        if let Err(over) = prepared.begin() {
            // What it goes with is the disk's.
            let _ = tokio::task::spawn_blocking(move || drop(over)).await;
            return Err(ExchangeError::UnknownTransfer.into());
        }
        Ok(())
    }

    /// The first half of [`Exchange::accept`], which may take as long as the disk
    /// likes. Until it is [begun](Prepared::begin) the peer hears nothing of it.
    /// Each attempt at an offer that was accepted once gets the same `resume`: what
    /// was received under it is neither looked at nor written again.
    ///
    /// # Errors
    /// As for [`Exchange::accept`].
    pub async fn prepare(
        &self,
        id: TransferId,
        destination: Destination,
        choices: AcceptOptions,
        resume: &ResumeState,
    ) -> Result<Prepared, AcceptError> {
        let shared = &self.shared;
        let (manifest, transfer) = shared.begin_preparing(id, resume)?;
        let (attempt, resume) = (shared.connection.attempt(&transfer.control), resume.clone());
        let prepare = move || Store::prepare(destination, manifest, &choices, attempt, resume);
        let prepared = tokio::task::spawn_blocking(prepare).await;
        match prepared.map_err(|_| ExchangeError::Closed)? {
            Ok(store) => Ok(Prepared::new(Arc::clone(shared), transfer, store)),
            Err(error) => {
                shared.back_to_offered(id);
                Err(error.into())
            }
        }
    }

    /// Does not take an offer, or words. No event follows.
    ///
    /// # Errors
    /// There is no such offer and no such words, or they were answered.
    pub fn decline(&self, id: TransferId, reason: DeclineReason) -> Result<(), ExchangeError> {
        let declined = Message::Decline {
            transfer: id,
            reason,
        };
        if !self.shared.answer_text(id, declined.clone()) {
            self.shared.remove_offer(id)?;
            self.shared.connection.say(declined);
        }
        Ok(())
    }

    /// Answers an offer whose `sent` is what this side has received from this peer
    /// already: nothing of it is looked at, and the peer has it delivered. No event
    /// follows.
    ///
    /// # Errors
    /// There is no such offer, or it was answered.
    pub fn acknowledge(&self, id: TransferId) -> Result<(), ExchangeError> {
        let manifest = self.shared.remove_offer(id)?;
        self.shared.connection.say(Message::Durable {
            transfer: id,
            entries: manifest.count(),
        });
        Ok(())
    }

    /// Whether the peer counts from now on as one that is known. What it has offered
    /// before stays counted as it was.
    pub fn set_known(&self, is_known: bool) {
        self.shared.connection.set_known(is_known);
    }

    /// Has the sender of a transfer of either direction stop for a while, or go
    /// on. It goes on when neither side wants it to stop.
    ///
    /// # Errors
    /// There is no such transfer, or it is an offer that was not answered yet.
    pub fn pause(&self, id: TransferId, paused: bool) -> Result<(), ExchangeError> {
        let transfer = self.shared.accepted_transfer(id);
        let transfer = transfer.ok_or(ExchangeError::UnknownTransfer)?;
        if transfer.control.pause(Party::Us, paused) {
            let transfer = id;
            self.shared
                .connection
                .say(Message::Pause { transfer, paused });
        }
        Ok(())
    }

    /// Ends a transfer of either direction and removes what is unfinished.
    /// `Finished` follows. Never waits for whoever takes the events.
    ///
    /// # Errors
    /// There is no such transfer, or it is an offer that was not answered yet.
    pub fn cancel(&self, id: TransferId) -> Result<(), ExchangeError> {
        let error = TransferError::Cancelled(Party::Us);
        self.shared.cancel(id, error, CancelReason::Cancelled)
    }

    /// As [`Exchange::cancel`], but the receiver keeps what it has, and the
    /// same offer into the same folder goes on from there.
    ///
    /// # Errors
    /// As for [`Exchange::cancel`].
    pub fn interrupt(&self, id: TransferId) -> Result<(), ExchangeError> {
        let error = TransferError::Interrupted(Party::Us);
        self.shared.cancel(id, error, CancelReason::Interrupted)
    }

    /// What the receiver wants of a transfer under way; `None` before it has said so.
    #[must_use]
    pub fn selection(&self, id: TransferId) -> Option<Arc<Selection>> {
        self.shared.transfer(id)?.selection().cloned()
    }

    /// How far a transfer is; `None` when there is no such transfer under way.
    #[must_use]
    pub fn progress(&self, id: TransferId) -> Option<Progress> {
        Some(self.shared.transfer(id)?.progress_now())
    }

    /// Whether nothing is open in either direction: no transfer, no words, no offer of
    /// which the list of files is still coming.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.shared.is_idle()
    }

    /// How long the peer has been waited for in vain. While files are under way
    /// it says something several times a second (older ones once), so much longer
    /// than [`Exchange::usual_silence`] means that the way to it is broken, or that
    /// it stands still.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.shared.connection.silence.lasts()
    }

    /// The longest that the peer had to be waited for during the last seconds,
    /// before it was heard again. `None` while files have been under way for too
    /// short a time to tell.
    #[must_use]
    pub fn usual_silence(&self) -> Option<Duration> {
        self.shared.connection.silence.usual()
    }

    /// Ends the exchange in good order: what was acknowledged reaches the peer.
    /// Transfers under way are interrupted. Returns when `Closed` was emitted, or
    /// when that takes too long.
    pub async fn close(&self) {
        self.shared.connection.closing.notify_one();
        let mut ended = self.shared.connection.ended.subscribe();
        let closed = ended.wait_for(|ended| *ended);
        if tokio::time::timeout(2 * CLOSE_TIMEOUT, closed)
            .await
            .is_err()
        {
            tracing::warn!("the exchange did not end in time");
        }
    }
}

/// Sends the entries of an offer, page by page.
async fn send_pages(connection: &Connection, transfer: Arc<Transfer>, source: Arc<Source>) {
    let id = transfer.id;
    let mut rest = source.entries();
    while !rest.is_empty() && !transfer.is_stopped() {
        let mut page_bytes = 0;
        let fits = |entry: &&Entry| {
            page_bytes += entry.path().as_str().len() + ENTRY_JSON_BYTES;
            page_bytes <= PAGE_BYTES
        };
        let (page, behind) = rest.split_at(rest.iter().take_while(fits).count());
        rest = behind;
        let page = Message::Entries {
            transfer: id,
            entries: page.to_vec(),
        };
        let encoded = match frame::encode_message(&page) {
            Ok(encoded) => encoded,
            Err(error) => {
                tracing::error!(%error, "a page of an offer does not fit into a frame");
                return;
            }
        };
        let bulk = Bulk {
            transfer: Arc::clone(&transfer),
            frame: Frame::Message(encoded),
            file_bytes: 0,
            is_ahead: false,
        };
        if connection.bulk.send(bulk).await.is_err() {
            // The exchange is over, and ends all transfers.
            return;
        }
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
        // Nobody waits any more when this fails.
        let _ = done.send(work());
    });
    spawned.ok()?;
    result.await.ok()
}

/// Sees an accepted offer of the peer to its end.
pub(crate) async fn receive(
    shared: Arc<TransferTable>,
    incoming: Incoming,
    store: Store,
    feeds: Feeds,
) {
    let id = incoming.transfer.id;
    let outcome = on_thread("pinhole-receive", move || incoming.run(store, feeds)).await;
    let outcome = outcome.unwrap_or_else(|| {
        let reason = CancelReason::Disk(FileErrorKind::Io);
        shared.connection.say(Message::Cancel {
            transfer: id,
            reason,
        });
        Err(no_thread())
    });
    shared
        .connection
        .emit(ExchangeEvent::Finished { id, outcome })
        .await;
    shared.remove_received(id);
}

/// Sends the files of an offer that was accepted, or with which they come
/// along.
pub(crate) async fn deliver(shared: Arc<TransferTable>, departure: SendJob) {
    let SendJob {
        mut outgoing,
        answers,
        ahead,
    } = departure;
    let id = outgoing.transfer.id;
    if let Some((ahead, goes_on)) = ahead {
        let Ok(ahead) = ahead.await else {
            // The transfer is over.
            return;
        };
        outgoing.ahead = Some(ahead).filter(|_| goes_on);
    }
    let telling = Arc::clone(&shared);
    let work = move || outgoing.run(answers, |sent| telling.sent(id, sent));
    if !matches!(on_thread("pinhole-send", work).await, Some(Ok(()))) {
        give_up(&shared, id);
    }
}

/// Sends what goes ahead of the answer to an offer, and tells those who send the
/// rest.
async fn send_ahead(shared: Arc<TransferTable>, (outgoing, gone): EarlySend) {
    let transfer = Arc::clone(&outgoing.transfer);
    let read = on_thread("pinhole-ahead", move || outgoing.read_ahead()).await;
    let Some(First {
        frame,
        file_bytes,
        outcome,
    }) = read.flatten()
    else {
        if !transfer.is_stopped() {
            give_up(&shared, transfer.id);
        }
        return;
    };
    let ahead = match outcome {
        Ok(digest) => Ahead::Chunk(digest),
        Err(error) => {
            // Before the receiver can hear of it.
            shared.failed_ahead(transfer.id, error).await;
            Ahead::Failure
        }
    };
    let bulk = Bulk {
        transfer,
        frame,
        file_bytes,
        is_ahead: true,
    };
    if shared.connection.bulk.send(bulk).await.is_ok() {
        // Nobody waits when the transfer is over.
        let _ = gone.send(ahead);
    }
}

fn give_up(shared: &Arc<TransferTable>, id: TransferId) {
    // It may have ended otherwise meanwhile.
    let _ = shared.cancel(id, no_thread(), CancelReason::Disk(FileErrorKind::Io));
}

fn no_thread() -> TransferError {
    TransferError::LocalFile {
        path: "a thread of its own".to_owned(),
        trouble: FileErrorKind::Io,
        detail: "the system gives none".to_owned(),
    }
}
