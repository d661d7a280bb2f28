//! The exchange of files between two peers over one connection: several
//! transfers at once, in both directions.
//!
//! [`start`] makes two tasks of a stream, one that reads (`dispatch`) and one that
//! writes (`connection::writer`), and a handle with which to offer, answer and cancel.
//! Which transfers are open stands in `transfer_table`.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::accept_options::AcceptOptions;
use crate::connection::reader::FrameReader;
use crate::connection::{Connection, Ended, Resources, writer};
use crate::disk::destination::{Destination, DestinationError};
use crate::disk::store::Store;
use crate::dispatch::Dispatch;
use crate::event::{ExchangeError, ExchangeEvent, Party, TransferError};
use crate::offers::PeerOwner;
use crate::pipe::PipeOutput;
use crate::prepared::Prepared;
use crate::progress::Progress;
use crate::protocol::manifest::Manifest;
use crate::protocol::message::{CancelReason, DeclineReason, Message, Side, TransferId};
use crate::protocol::selection::Selection;
use crate::receive::Place;
use crate::receive::pipe::Output;
use crate::resume::ResumeState;
use crate::send::source::Source;
use crate::transfer_table::TransferTable;

pub use crate::transfer_table::TRANSFERS_MAX;

/// How long each step of an orderly end may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

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
    table: Arc<TransferTable>,
}

/// Why an offer could not be accepted. It stays open, to be accepted into
/// another folder or declined.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The folder does not serve.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// Something else than a single file was to go into a pipe.
    #[error("only a single file can be passed on")]
    NotOneFile,
    /// The pipe serves another transfer.
    #[error("something else is passed on already")]
    PipeInUse,
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
    let connection = Arc::new(connection);
    let table = Arc::new(TransferTable::new(side, Arc::clone(&connection)));
    let moving = Arc::clone(&table);
    let is_moving = move || moving.is_moving();
    let writer = tokio::spawn(writer::write(
        stream.1,
        Arc::clone(&connection),
        bulk,
        is_moving,
    ));
    let reader = FrameReader::new(stream.0, connection);
    let reader = Dispatch::new(reader, Arc::clone(&table));
    tokio::spawn(supervise(Arc::clone(&table), reader, writer));
    (Exchange { table }, events)
}

/// Runs the exchange to its end and leaves nothing behind.
async fn supervise<R: AsyncRead + Send + Unpin + 'static>(
    table: Arc<TransferTable>,
    reader: Dispatch<R>,
    writer: JoinHandle<std::io::Result<()>>,
) {
    let writing = writer.abort_handle();
    // A task of its own: should it fail, the application hears of an end all the same.
    let conversation = tokio::spawn(converse(Arc::clone(&table), reader, writer));
    let ended = conversation.await.unwrap_or_else(|error| {
        tracing::error!(%error, "the exchange is lost");
        Ended::Lost("the reader ended".to_owned())
    });
    writing.abort();
    table.end_all(&ended).await;
    let reason = match ended {
        Ended::Closed(_) => None,
        Ended::Lost(detail) => Some(ExchangeError::ConnectionLost(detail)),
        Ended::Violation(violation) => Some(violation.into()),
        Ended::Reported(words) => Some(ExchangeError::Reported(words)),
    };
    table
        .connection
        .emit(ExchangeEvent::Closed { reason })
        .await;
    table.connection.ended.send_replace(true);
}

/// Reads and writes until either ends or the application wants an end, and says
/// goodbye; the writer may be at it still. When it returns the reader is gone, and with it the hold that one
/// in the midst of a frame has on a transfer's pipeline.
async fn converse<R: AsyncRead + Unpin>(
    table: Arc<TransferTable>,
    mut reader: Dispatch<R>,
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
        () = table.connection.closing.notified() => {
            is_closing = true;
            Ended::Closed(Party::Us)
        }
    };
    let violation = match &ended {
        Ended::Violation(violation) => Some(violation.to_string()),
        _ => None,
    };
    table.connection.say(Message::Close { violation });
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

fn all_of(manifest: &Arc<Manifest>) -> Arc<Selection> {
    Arc::new(Selection::without(Arc::clone(manifest), BTreeSet::new()))
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
        self.table.send(Arc::new(source), resume)
    }

    /// Sends a few words instead of files. `Finished` follows when the peer's
    /// application has taken or declined them.
    ///
    /// # Errors
    /// The words are too many, the exchange is over, or [`TRANSFERS_MAX`] are
    /// open.
    pub fn send_text(&self, text: String) -> Result<TransferId, ExchangeError> {
        self.table.send_text(text)
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
        match self.table.answer_text(id, taken) {
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
        let table = &self.table;
        let (manifest, transfer) = table.begin_preparing(id, resume)?;
        let all = all_of(&manifest);
        let (attempt, resume) = (table.connection.attempt(&transfer.control), resume.clone());
        let prepare = move || Store::prepare(destination, manifest, &choices, attempt, resume);
        let prepared = tokio::task::spawn_blocking(prepare).await;
        match prepared.map_err(|_| ExchangeError::Closed)? {
            Ok(store) => {
                let place = Place::Folder(Box::new(store));
                Ok(Prepared::new(Arc::clone(table), transfer, all, place))
            }
            Err(error) => {
                table.back_to_offered(id);
                Err(error.into())
            }
        }
    }

    /// As [`Exchange::prepare`], for an offer of a single file that is written into a
    /// pipe as it comes. A pipe serves one offer, be it that it is never begun.
    ///
    /// # Errors
    /// The offer is of something else, or over, or the pipe is in use. Except for the
    /// second it stays open.
    pub fn prepare_pipe(
        &self,
        id: TransferId,
        output: &PipeOutput,
    ) -> Result<Prepared, AcceptError> {
        let table = &self.table;
        let offer = table.offer(id)?;
        if (offer.files(), offer.folders()) != (1, 0) {
            return Err(AcceptError::NotOneFile);
        }
        let end = output.take().ok_or(AcceptError::PipeInUse)?;
        let (manifest, transfer) = table.begin_preparing(id, &ResumeState::default())?;
        let place = Place::Pipe(Output {
            name: output.name().to_owned(),
            end,
        });
        let all = all_of(&manifest);
        Ok(Prepared::new(Arc::clone(table), transfer, all, place))
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
        if !self.table.answer_text(id, declined.clone()) {
            self.table.remove_offer(id)?;
            self.table.connection.say(declined);
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
        let manifest = self.table.remove_offer(id)?;
        self.table.connection.say(Message::Durable {
            transfer: id,
            entries: manifest.count(),
        });
        Ok(())
    }

    /// The peer counts from now on as one that is known. What it has offered before stays
    /// counted as it was.
    pub fn set_known(&self) {
        self.table.connection.set_known();
    }

    /// Has the sender of a transfer of either direction stop for a while.
    ///
    /// # Errors
    /// There is no such transfer, or it is an offer that was not answered yet.
    pub fn pause(&self, id: TransferId) -> Result<(), ExchangeError> {
        self.set_paused(id, true)
    }

    /// As far as this side goes, a transfer that was paused goes on. It does when
    /// neither side wants it to stop.
    ///
    /// # Errors
    /// As for [`Exchange::pause`].
    pub fn unpause(&self, id: TransferId) -> Result<(), ExchangeError> {
        self.set_paused(id, false)
    }

    fn set_paused(&self, id: TransferId, paused: bool) -> Result<(), ExchangeError> {
        let transfer = self.table.accepted_transfer(id);
        let transfer = transfer.ok_or(ExchangeError::UnknownTransfer)?;
        if transfer.control.pause(Party::Us, paused) {
            let transfer = id;
            self.table
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
        self.table.cancel(id, error, CancelReason::Cancelled)
    }

    /// As [`Exchange::cancel`], but the receiver keeps what it has, and the
    /// same offer into the same folder goes on from there.
    ///
    /// # Errors
    /// As for [`Exchange::cancel`].
    pub fn interrupt(&self, id: TransferId) -> Result<(), ExchangeError> {
        let error = TransferError::Interrupted(Party::Us);
        self.table.cancel(id, error, CancelReason::Interrupted)
    }

    /// As [`Exchange::interrupt`], for a transfer that goes on over another connection:
    /// to the peer it ends as if this one had broken.
    ///
    /// # Errors
    /// As for [`Exchange::cancel`].
    pub fn leave(&self, id: TransferId) -> Result<(), ExchangeError> {
        let error = TransferError::ConnectionLost;
        self.table.cancel(id, error, CancelReason::Left)
    }

    /// What the receiver wants of a transfer under way; `None` before it has said so.
    #[must_use]
    pub fn selection(&self, id: TransferId) -> Option<Arc<Selection>> {
        self.table.transfer(id)?.selection().cloned()
    }

    /// How far a transfer is; `None` when there is no such transfer under way.
    #[must_use]
    pub fn progress(&self, id: TransferId) -> Option<Progress> {
        Some(self.table.transfer(id)?.progress_now())
    }

    /// Whether nothing is open in either direction: no transfer, no words, no offer of
    /// which the list of files is still coming.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.table.is_idle()
    }

    /// How long the peer has been waited for in vain. While files are under way
    /// it says something several times a second (older ones once), so much longer
    /// than [`Exchange::usual_silence`] means that the way to it is broken, or that
    /// it stands still.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.table.connection.silence.lasts()
    }

    /// The longest that the peer had to be waited for during the last seconds,
    /// before it was heard again. `None` while files have been under way for too
    /// short a time to tell.
    #[must_use]
    pub fn usual_silence(&self) -> Option<Duration> {
        self.table.connection.silence.usual()
    }

    /// Ends the exchange in good order: what was acknowledged reaches the peer.
    /// Transfers under way are interrupted. Returns when `Closed` was emitted, or
    /// when that takes too long.
    pub async fn close(&self) {
        self.table.connection.closing.notify_one();
        let mut ended = self.table.connection.ended.subscribe();
        let closed = ended.wait_for(|ended| *ended);
        if tokio::time::timeout(2 * CLOSE_TIMEOUT, closed)
            .await
            .is_err()
        {
            tracing::warn!("the exchange did not end in time");
        }
    }
}
