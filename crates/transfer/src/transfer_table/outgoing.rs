//! What this side has offered, and what leaves of it when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::{OpenTransfers, TransferTable, on_thread, thread_error};
use crate::connection::{Bulk, Connection, Frame};
use crate::event::{ExchangeError, ExchangeEvent, Party, Summary, TransferError};
use crate::protocol::file_error::{FileError, FileErrorKind};
use crate::protocol::frame;
use crate::protocol::manifest::{Early, Entry, Manifest};
use crate::protocol::message::{CancelReason, Message, Offer, TransferId};
use crate::protocol::sender::{Accepted, Delivered, Sender};
use crate::protocol::violation::Violation;
use crate::resume;
use crate::resume::ResumeState;
use crate::send::source::Source;
use crate::send::{Ahead, Answer, EarlySend, First, Outgoing, SendJob, Sent};
use crate::transfer::Transfer;

/// A page of an offer, well below the largest frame.
const PAGE_BYTES: usize = 64 * 1024;
/// At most so many bytes of JSON come with each path.
const ENTRY_JSON_BYTES: usize = 100;

pub(crate) struct OpenOutgoing {
    pub(crate) transfer: Arc<Transfer>,
    pub(crate) source: Arc<Source>,
    pub(crate) machine: Sender,
    /// Files the receiver does not want, or gave up.
    pub(crate) unwanted: Arc<Mutex<BTreeSet<u32>>>,
    /// What the receiver misses of what it seemed to have; `None` until files
    /// are sent.
    pub(crate) answers: Option<mpsc::UnboundedSender<Answer>>,
    /// Tells what has gone ahead of the answer, once it has.
    ahead: Option<oneshot::Receiver<Ahead>>,
    /// Why nothing could, as long as nobody knows whether that matters.
    failed_ahead: Option<FileError>,
}

/// What leaves without waiting for the answer to an offer.
enum Leaving {
    Nothing,
    FirstChunk(EarlySend),
    Everything(SendJob),
}

impl OpenOutgoing {
    fn outgoing(&self, connection: &Arc<Connection>, have: BTreeMap<u32, u32>) -> Outgoing {
        Outgoing {
            transfer: Arc::clone(&self.transfer),
            source: Arc::clone(&self.source),
            connection: Arc::clone(connection),
            unwanted: Arc::clone(&self.unwanted),
            have,
            is_early: self.machine.is_early(),
            ahead: None,
        }
    }

    /// What sends its first chunk, now.
    fn forerun(&mut self, connection: &Arc<Connection>) -> EarlySend {
        let (gone, ahead) = oneshot::channel();
        self.ahead = Some(ahead);
        (self.outgoing(connection, BTreeMap::new()), gone)
    }

    /// What sends its files, from now on.
    pub(crate) fn depart(
        &mut self,
        connection: &Arc<Connection>,
        have: BTreeMap<u32, u32>,
    ) -> SendJob {
        let (answers, waiting) = mpsc::unbounded_channel();
        self.answers = Some(answers);
        let goes_on = self.machine.goes_on_behind().is_some();
        SendJob {
            outgoing: self.outgoing(connection, have),
            answers: waiting,
            ahead: self.ahead.take().map(|ahead| (ahead, goes_on)),
        }
    }

    /// The receiver takes the offer. Returns what it has, and what the
    /// application is to be told beside that.
    pub(crate) fn accepted(
        &mut self,
    ) -> Result<(BTreeMap<u32, u32>, Option<ExchangeEvent>), Violation> {
        let Accepted { selection, have } = self.machine.accepted()?;
        self.transfer.select(&selection);
        if !self.machine.is_early() {
            let mut unwanted = self.unwanted.lock();
            unwanted.clone_from(selection.skipped());
        }
        if self.machine.goes_on_behind().is_some() {
            self.transfer.progress.count_ahead();
        }
        let failed = self.failed_ahead.take();
        Ok((have, failed.and_then(|error| self.failed_ahead(error))))
    }

    /// The file whose first chunk should go ahead cannot be read. Returns what the
    /// application is to be told, if anything yet.
    pub(crate) fn failed_ahead(&mut self, error: FileError) -> Option<ExchangeEvent> {
        match self.machine.goes_on_behind() {
            Some(entry) => self.failed(entry, error),
            None => {
                self.failed_ahead = Some(error);
                None
            }
        }
    }

    /// This side cannot send a file. Returns what the application is to be told,
    /// if it is news.
    fn failed(&mut self, entry: u32, error: FileError) -> Option<ExchangeEvent> {
        self.transfer.digests.add_failed(entry);
        let is_news = self.machine.failed(entry);
        let path = self.source.manifest().entry(entry)?.path().clone();
        let id = self.transfer.id;
        is_news.then_some(ExchangeEvent::FileFailed { id, path, error })
    }

    /// What it comes to once `delivered` is on the other side.
    fn summary(&self, delivered: Delivered) -> Summary {
        let failed_folders = self.machine.failed_folders();
        Summary {
            files: delivered.files,
            folders: self.source.manifest().folders() - failed_folders,
            bytes: delivered.bytes,
            digest: self.transfer.digests.digest(),
            failed_files: self.machine.failed_files() + failed_folders,
            skipped_files: self.machine.skipped_files(),
            here_bytes: self.transfer.progress.here_bytes(),
            resent_bytes: self.transfer.progress.resent_bytes(),
            renamed: self.source.renamed(),
            ..Summary::default()
        }
    }

    /// It ends early. Notes for the next attempt that everything was sent, if it was:
    /// only the receiver's last word may be missing.
    pub(super) fn note_sent(&self) {
        if let Some(delivered) = self.machine.all_sent()
            && let Some(selection) = self.transfer.selection()
            && let Some(digest) = self.transfer.digests.digest_of_sent(selection)
        {
            let summary = Summary {
                digest: Some(digest),
                ..self.summary(delivered)
            };
            self.transfer.resume.note_sent(resume::Sent {
                manifest: Arc::clone(self.source.manifest()),
                digest,
                summary,
            });
        }
    }

    /// Hands the receiver's answer to the threads that send.
    pub(crate) fn answer(&self, answer: Answer) {
        if let Some(answers) = &self.answers {
            // They have ended when everything is sent.
            let _ = answers.send(answer);
        }
    }
}

impl OpenTransfers {
    /// What of an offer leaves before the answer.
    fn early(&self, manifest: &Manifest, may_go_ahead: bool) -> Early {
        let is_ahead = |other: &OpenOutgoing| other.machine.is_ahead();
        if manifest.fits_along() {
            Early::Everything
        } else if may_go_ahead
            && manifest.has_first_chunk()
            && !self.outgoing.values().any(is_ahead)
        {
            Early::FirstChunk
        } else {
            Early::Nothing
        }
    }
}

impl TransferTable {
    /// Offers files. Those that do not wait for the answer leave behind the offer.
    pub(crate) fn send(
        self: &Arc<Self>,
        source: Arc<Source>,
        resume: &ResumeState,
    ) -> Result<TransferId, ExchangeError> {
        let (transfer, leaving) = self.open_outgoing(&source, resume)?;
        let id = transfer.id;
        let table = Arc::clone(self);
        tokio::spawn(async move {
            send_pages(&table.connection, transfer, source).await;
            match leaving {
                Leaving::Nothing => {}
                Leaving::FirstChunk(forerun) => table.send_ahead(forerun).await,
                Leaving::Everything(departure) => table.deliver(departure).await,
            }
        });
        Ok(id)
    }

    /// Asks a transfer of this side. `None` when it has ended.
    pub(crate) fn with_outgoing<T>(
        &self,
        id: TransferId,
        ask: impl FnOnce(&mut OpenOutgoing) -> Result<T, Violation>,
    ) -> Result<Option<T>, Violation> {
        let mut open = self.open();
        match open.outgoing.get_mut(&id) {
            Some(outgoing) => ask(outgoing).map(Some),
            None if id.side() != self.side => Err(Violation::Transfer(id)),
            None => open.check_was_open(self.side, id).map(|()| None),
        }
    }

    /// Sends the files of an offer that was accepted, or with which they come
    /// along.
    pub(crate) async fn deliver(self: Arc<Self>, departure: SendJob) {
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
        let telling = Arc::clone(&self);
        let work = move || outgoing.run(answers, |sent| telling.sent(id, sent));
        if !matches!(on_thread("pinhole-send", work).await, Some(Ok(()))) {
            self.give_up(id);
        }
    }

    /// Sends what goes ahead of the answer to an offer, and tells those who send the
    /// rest.
    async fn send_ahead(self: Arc<Self>, (outgoing, gone): EarlySend) {
        let transfer = Arc::clone(&outgoing.transfer);
        let read = on_thread("pinhole-ahead", move || outgoing.read_ahead()).await;
        let Some(First {
            frame,
            file_bytes,
            outcome,
        }) = read.flatten()
        else {
            if !transfer.is_stopped() {
                self.give_up(transfer.id);
            }
            return;
        };
        let ahead = match outcome {
            Ok(digest) => Ahead::Chunk(digest),
            Err(error) => {
                // Before the receiver can hear of it.
                self.failed_ahead(transfer.id, error).await;
                Ahead::Failure
            }
        };
        let bulk = Bulk {
            transfer,
            frame,
            file_bytes,
            is_ahead: true,
        };
        if self.connection.bulk.send(bulk).await.is_ok() {
            // Nobody waits when the transfer is over.
            let _ = gone.send(ahead);
        }
    }

    fn give_up(self: &Arc<Self>, id: TransferId) {
        // It may have ended otherwise meanwhile.
        let reason = CancelReason::Disk(FileErrorKind::Io);
        let _ = self.cancel(id, thread_error(), reason);
    }

    /// Gives a source an id and announces it. Some of its files may leave at
    /// once: a first chunk while the receiver can hold no other, unless the transfer
    /// was under way before, when the receiver is likely to have it.
    fn open_outgoing(
        &self,
        source: &Arc<Source>,
        resume: &ResumeState,
    ) -> Result<(Arc<Transfer>, Leaving), ExchangeError> {
        let mut open = self.open();
        let id = open.new_id()?;
        let manifest = source.manifest();
        let transfer = Arc::new(Transfer::new(id, manifest, resume.clone()));
        let early = open.early(manifest, resume.begin());
        let sent = resume.sent(manifest).map(|sent| sent.digest);
        let machine = Sender::new(Arc::clone(manifest), early);
        let mut outgoing = OpenOutgoing {
            transfer: Arc::clone(&transfer),
            source: Arc::clone(source),
            machine: match sent {
                Some(_) => machine.sent_before(),
                None => machine,
            },
            unwanted: Arc::default(),
            answers: None,
            ahead: None,
            failed_ahead: None,
        };
        let leaving = match early {
            Early::Nothing => Leaving::Nothing,
            Early::FirstChunk => Leaving::FirstChunk(outgoing.forerun(&self.connection)),
            Early::Everything => {
                Leaving::Everything(outgoing.depart(&self.connection, BTreeMap::new()))
            }
        };
        open.outgoing.insert(id, outgoing);
        // Under the lock, so that ids reach the peer in rising order.
        self.connection.say(Message::Offer(Offer {
            transfer: id,
            entries: manifest.count(),
            total_bytes: manifest.total_bytes(),
            along: early == Early::Everything,
            ahead: early == Early::FirstChunk,
            unread: manifest.unread(),
            sent,
        }));
        Ok((transfer, leaving))
    }

    /// What has become of a file that is on its way out.
    pub(crate) fn sent(&self, id: TransferId, sent: Sent) {
        let mut open = self.open();
        let Some(outgoing) = open.outgoing.get_mut(&id) else {
            return;
        };
        match sent {
            Sent::File(entry) => outgoing.machine.sent(entry),
            Sent::Failed(entry, error) => {
                let event = outgoing.failed(entry, error);
                drop(open);
                if let Some(event) = event {
                    self.connection.emit_blocking(event);
                }
            }
        }
    }

    /// The file whose first chunk should go ahead of the answer cannot be read.
    pub(crate) async fn failed_ahead(&self, id: TransferId, error: FileError) {
        let event = {
            let mut open = self.open();
            let outgoing = open.outgoing.get_mut(&id);
            outgoing.and_then(|outgoing| outgoing.failed_ahead(error))
        };
        if let Some(event) = event {
            self.connection.emit(event).await;
        }
    }

    /// Takes a transfer of this side out, complete.
    pub(crate) fn complete_outgoing(&self, id: TransferId) -> Option<Summary> {
        let outgoing = self.open().outgoing.remove(&id)?;
        if !outgoing.machine.is_accepted() {
            let sent = outgoing.transfer.resume.sent(outgoing.source.manifest())?;
            // What comes along is on its way, in vain.
            outgoing
                .transfer
                .control
                .stop(TransferError::Cancelled(Party::Us));
            return Some(sent.summary);
        }
        Some(outgoing.summary(outgoing.machine.delivered()))
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
