//! What this side has offered, and what leaves of it when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::{OpenTransfers, TransferTable, on_thread, thread_error};
use crate::connection::{Bulk, Connection, Frame};
use crate::event::{ExchangeError, ExchangeEvent, Party, Streamed, Summary, TransferError};
use crate::protocol::early::EarlyData;
use crate::protocol::file_error::{FileError, FileErrorKind};
use crate::protocol::frame;
use crate::protocol::index::EntryIndex;
use crate::protocol::manifest::{Entry, Manifest};
use crate::protocol::message::{CancelReason, Message, Offer, TransferId};
use crate::protocol::sender::{Accepted, Delivered, Sender};
use crate::protocol::violation::Violation;
use crate::resume;
use crate::resume::ResumeState;
use crate::send::source::Source;
use crate::send::{Answer, Begun, EarlyJob, Outgoing, SendJob, Sent};
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
    pub(crate) unwanted: Arc<Mutex<BTreeSet<EntryIndex>>>,
    /// What the receiver misses of what it seemed to have; `None` until files
    /// are sent.
    pub(crate) answers: Option<mpsc::UnboundedSender<Answer>>,
    /// Tells that the early data is sent, once it is.
    early: Option<oneshot::Receiver<Begun>>,
    /// What of it could not be read, as long as nobody knows whether that matters.
    failed_early: Vec<(EntryIndex, FileError)>,
}

impl OpenOutgoing {
    fn outgoing(&self, connection: &Arc<Connection>, have: BTreeMap<EntryIndex, u32>) -> Outgoing {
        Outgoing {
            transfer: Arc::clone(&self.transfer),
            source: Arc::clone(&self.source),
            connection: Arc::clone(connection),
            unwanted: Arc::clone(&self.unwanted),
            have,
            early: self.machine.early(),
            goes_on_behind: self.machine.goes_on_behind(),
        }
    }

    /// What sends the early data, now.
    fn start_early(&mut self, connection: &Arc<Connection>) -> EarlyJob {
        let (done, early) = oneshot::channel();
        self.early = Some(early);
        EarlyJob {
            outgoing: self.outgoing(connection, BTreeMap::new()),
            done,
        }
    }

    /// The receiver takes the offer. Returns what sends the files, unless all of them
    /// are early data, and which of that failed, as the application is to be told.
    pub(crate) fn accepted(
        &mut self,
        connection: &Arc<Connection>,
    ) -> Result<(Option<SendJob>, Vec<ExchangeEvent>), Violation> {
        let Accepted { selection, have } = self.machine.accepted()?;
        self.transfer.select(&selection);
        self.unwanted.lock().clone_from(selection.skipped());
        if self.machine.goes_on_behind().is_some() {
            self.transfer.progress.count_early();
        }
        let failed = std::mem::take(&mut self.failed_early).into_iter();
        let failed = failed.filter_map(|(entry, error)| self.failed_early(entry, error));
        let failed = failed.collect();
        if self.machine.early().is_everything(self.source.manifest()) {
            return Ok((None, failed));
        }
        let (answers, waiting) = mpsc::unbounded_channel();
        self.answers = Some(answers);
        let job = SendJob {
            outgoing: self.outgoing(connection, have),
            answers: waiting,
            early: self.early.take(),
        };
        Ok((Some(job), failed))
    }

    /// What should travel before the answer cannot be read. Returns what the
    /// application is to be told, if anything yet.
    fn failed_early(&mut self, entry: EntryIndex, error: FileError) -> Option<ExchangeEvent> {
        if !self.machine.is_accepted() {
            self.failed_early.push((entry, error));
            return None;
        }
        match self.machine.counts_early(entry) {
            true => self.failed(entry, error),
            false => None,
        }
    }

    /// This side cannot send a file. Returns what the application is to be told,
    /// if it is news.
    fn failed(&mut self, entry: EntryIndex, error: FileError) -> Option<ExchangeEvent> {
        self.transfer.digests.add_failed(entry);
        let is_news = self.machine.failed(entry);
        let path = self.source.manifest().entry(entry)?.path().clone();
        let id = self.transfer.id;
        is_news.then_some(ExchangeEvent::FileFailed { id, path, error })
    }

    /// What a transfer of this side ends with that ends early. A stream that has begun
    /// does not go on from where it was.
    pub(super) fn broken(&self, reason: TransferError) -> TransferError {
        if !self.machine.is_accepted() || !self.source.manifest().is_stream() {
            return reason;
        }
        TransferError::Broken {
            arrived_bytes: self.machine.arrived_bytes(),
            streamed: Streamed::Sent,
            reason: Box::new(reason),
        }
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
    /// What of an offer travels before the answer: a chunk only while the receiver can
    /// hold no other. Of an offer that was under way before the receiver is likely to
    /// have what it would be, unless all of it is little.
    fn early(&self, manifest: &Manifest, is_first_attempt: bool) -> EarlyData {
        let early = EarlyData::of(manifest);
        let holds_chunk = |other: &OpenOutgoing| other.machine.holds_chunk();
        let is_one_too_many = early.is_chunk() && self.outgoing.values().any(holds_chunk);
        let may_go = is_first_attempt && !is_one_too_many;
        match may_go || early.is_everything(manifest) {
            true => early,
            false => EarlyData::default(),
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
        let (transfer, early) = self.open_outgoing(&source, resume)?;
        let id = transfer.id;
        let table = Arc::clone(self);
        tokio::spawn(async move {
            send_pages(&table.connection, transfer, source).await;
            if let Some(job) = early {
                let telling = Arc::clone(&table);
                let work = move || job.run(|sent| telling.sent(id, sent));
                if on_thread("pinhole-early", work).await.is_none() {
                    table.give_up(id);
                }
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

    /// Sends the files of an offer that was accepted.
    pub(crate) async fn deliver(self: Arc<Self>, job: SendJob) {
        let SendJob {
            outgoing,
            answers,
            early,
        } = job;
        let id = outgoing.transfer.id;
        let begun = match early {
            Some(early) => match early.await {
                Ok(begun) => begun,
                // The transfer is over.
                Err(_) => return,
            },
            None => None,
        };
        let telling = Arc::clone(&self);
        let work = move || outgoing.run(begun, answers, |sent| telling.sent(id, sent));
        if !matches!(on_thread("pinhole-send", work).await, Some(Ok(()))) {
            self.give_up(id);
        }
    }

    fn give_up(self: &Arc<Self>, id: TransferId) {
        // It may have ended otherwise meanwhile.
        let reason = CancelReason::Disk(FileErrorKind::Io);
        let _ = self.cancel(id, thread_error(), reason);
    }

    /// Gives a source an id and announces it. Returns what sends its early data.
    fn open_outgoing(
        &self,
        source: &Arc<Source>,
        resume: &ResumeState,
    ) -> Result<(Arc<Transfer>, Option<EarlyJob>), ExchangeError> {
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
            early: None,
            failed_early: Vec::new(),
        };
        let job = early
            .bytes()
            .map(|_| outgoing.start_early(&self.connection));
        open.outgoing.insert(id, outgoing);
        // Under the lock, so that ids reach the peer in rising order.
        self.connection.say(Message::Offer(Offer {
            transfer: id,
            entries: manifest.count(),
            total_bytes: manifest.total_bytes(),
            early: early.bytes(),
            unread: manifest.unread(),
            sent,
        }));
        Ok((transfer, job))
    }

    /// What has become of a file that is on its way out.
    fn sent(self: &Arc<Self>, id: TransferId, sent: Sent) {
        if let Sent::Broken(error) = sent {
            return self.input_failed(id, error);
        }
        let mut open = self.open();
        let Some(outgoing) = open.outgoing.get_mut(&id) else {
            return;
        };
        let event = match sent {
            Sent::File(entry) => {
                outgoing.machine.sent(entry);
                None
            }
            Sent::Streamed(bytes) => {
                outgoing.machine.streamed(bytes);
                None
            }
            Sent::Broken(_) => None,
            Sent::Failed(entry, error) => outgoing.failed(entry, error),
            Sent::FailedEarly(entry, error) => outgoing.failed_early(entry, error),
        };
        drop(open);
        if let Some(event) = event {
            self.connection.emit_blocking(event);
        }
    }

    /// A stream of this side cannot be read any further.
    fn input_failed(self: &Arc<Self>, id: TransferId, error: FileError) {
        let outgoing = self.open();
        let source = outgoing.outgoing.get(&id).map(|it| Arc::clone(&it.source));
        drop(outgoing);
        let (Some(source), trouble) = (source, error.trouble()) else {
            return;
        };
        let error = TransferError::LocalFile {
            path: source.input_name().to_owned(),
            trouble,
            detail: match error {
                FileError::Local { detail, .. } => detail,
                FileError::Peer(_) => String::new(),
            },
        };
        // It may have ended otherwise meanwhile.
        let _ = self.cancel(id, error, CancelReason::Disk(trouble));
    }

    /// Takes a transfer of this side out, complete.
    pub(crate) fn complete_outgoing(&self, id: TransferId) -> Option<Summary> {
        let outgoing = self.open().outgoing.remove(&id)?;
        if !outgoing.machine.is_accepted() {
            let sent = outgoing.transfer.resume.sent(outgoing.source.manifest())?;
            // Its early data is on its way, in vain.
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
            is_early: false,
        };
        if connection.bulk.send(bulk).await.is_err() {
            // The exchange is over, and ends all transfers.
            return;
        }
    }
}
