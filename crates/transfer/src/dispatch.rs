//! What each frame of the peer does: it is checked against what is open before it is
//! read further.

use std::sync::Arc;

use tokio::io::AsyncRead;

use crate::connection::Ended;
use crate::connection::buffer::Buffer;
use crate::connection::reader::{FrameReader, Received};
use crate::display::display_text;
use crate::event::{ExchangeEvent, Party, Summary, TransferError};
use crate::protocol::digest::Digest;
use crate::protocol::early::{EARLY_BYTES_MAX, EARLY_FILES_MAX};
use crate::protocol::file_error::{FileError, FileErrorKind};
use crate::protocol::frame::{self, BATCH_ITEM_BYTES, ChunkHeader};
use crate::protocol::index::{ChunkIndex, EntryIndex};
use crate::protocol::message::{CancelReason, DeclineReason, Message, TEXT_BYTES_MAX, TransferId};
use crate::protocol::violation::Violation;
use crate::receive::{Batch, Chunk, Work};
use crate::send::Answer;
use crate::transfer_table::TransferTable;

/// No batch that comes before an answer, and is due, is longer.
const EARLY_ITEMS_BYTES: usize =
    EARLY_BYTES_MAX as usize + EARLY_FILES_MAX as usize * BATCH_ITEM_BYTES;

/// The one task that reads from the connection.
pub(crate) struct Dispatch<R> {
    reader: FrameReader<R>,
    table: Arc<TransferTable>,
}

impl<R: AsyncRead + Unpin> Dispatch<R> {
    pub(crate) const fn new(reader: FrameReader<R>, table: Arc<TransferTable>) -> Self {
        Self { reader, table }
    }

    /// Reads until there is nothing more to read, or nobody to read for.
    pub(crate) async fn run(&mut self) -> Ended {
        let table = Arc::clone(&self.table);
        tokio::select! {
            ended = self.frames() => ended,
            () = table.connection.events.closed() => Ended::Closed(Party::Us),
        }
    }

    async fn frames(&mut self) -> Ended {
        loop {
            if let Err(ended) = self.frame().await {
                return ended;
            }
        }
    }

    async fn frame(&mut self) -> Result<(), Ended> {
        match self.reader.next().await? {
            Received::Message(message) => self.message(message).await,
            Received::Chunk { header, data_bytes } => self.chunk(header, data_bytes).await,
            Received::Batch {
                transfer,
                items_bytes,
            } => self.batch(transfer, items_bytes).await,
            Received::Digests { transfer, items } => {
                if let Some(inlet) = self.table.inlet(transfer, "digests")? {
                    inlet.take_digests(items).await?;
                }
                Ok(())
            }
        }
    }

    async fn chunk(&mut self, header: ChunkHeader, data_bytes: usize) -> Result<(), Ended> {
        let inlet = self.table.inlet(header.transfer, "chunk")?;
        let due = match &inlet {
            Some(inlet) => inlet.check_chunk(&header, data_bytes)?,
            None => None,
        };
        let buffer = match &due {
            // It takes no buffer from others, as below.
            Some(due) if due.is_early => Buffer::alone(data_bytes),
            _ => self.reader.buffer().await?,
        };
        let count = |bytes| {
            if let Some(inlet) = &inlet {
                inlet.count(bytes);
            }
        };
        let buffer = self.reader.data(buffer, data_bytes, count).await?;
        // Nowhere: the transfer was stopped.
        let (Some(inlet), Some(due)) = (inlet, due) else {
            return Ok(());
        };
        let chunk = Work::Chunk(Chunk {
            entry: header.entry,
            place: due.place,
            digest: header.digest,
            buffer,
        });
        Ok(inlet.take(chunk).await?)
    }

    async fn batch(&mut self, transfer: TransferId, items_bytes: usize) -> Result<(), Ended> {
        // What may have to wait for an answer takes no buffer from others.
        let buffer = match items_bytes <= EARLY_ITEMS_BYTES {
            true => Buffer::alone(items_bytes),
            false => self.reader.buffer().await?,
        };
        let buffer = self.reader.data(buffer, items_bytes, |_| {}).await?;
        let items = frame::batch_items(buffer.data().get(..items_bytes).unwrap_or_default())?;
        let batch = Work::Batch(Batch { items, buffer });
        Ok(self.take(transfer, batch, "batch").await?)
    }

    async fn take(
        &mut self,
        id: TransferId,
        work: Work,
        what: &'static str,
    ) -> Result<(), Violation> {
        match self.table.inlet(id, what)? {
            Some(inlet) => inlet.take(work).await,
            None => Ok(()),
        }
    }

    async fn message(&mut self, message: Message) -> Result<(), Ended> {
        match message {
            Message::Offer(offer) => self.table.announced(&offer)?,
            Message::Entries { transfer, entries } => {
                if let Some(event) = self.table.add_entries(transfer, entries)? {
                    self.table.connection.emit(event).await;
                }
            }
            Message::Have { transfer, files } => {
                self.table
                    .with_outgoing(transfer, |open| open.machine.have(&files))?;
            }
            Message::Compared {
                transfer,
                entry,
                chunks,
                differing,
            } => {
                self.compared(transfer, entry, chunks, differing)?;
            }
            Message::Text { transfer, text } => self.text(transfer, text).await?,
            Message::Skip { transfer, entries } => {
                self.table
                    .with_outgoing(transfer, |open| open.machine.skip(&entries))?;
            }
            Message::Accept { transfer } => self.accepted(transfer).await?,
            Message::Decline { transfer, reason } => self.declined(transfer, reason).await?,
            Message::FileEnd {
                transfer,
                entry,
                root,
            } => self.file_end(transfer, entry, root).await?,
            Message::StreamEnd {
                transfer,
                size_bytes,
                root,
            } => self.stream_end(transfer, size_bytes, root).await?,
            Message::Arrived {
                transfer,
                size_bytes,
            } => self.arrived(transfer, size_bytes)?,
            Message::FileFailed {
                transfer,
                entry,
                trouble,
            } => {
                self.file_failed(transfer, entry, trouble).await?;
            }
            Message::Durable { transfer, entries } => self.durable(transfer, entries).await?,
            Message::Pause { transfer, paused } => self.paused(transfer, paused).await?,
            Message::Cancel { transfer, reason } => self.cancelled(transfer, reason)?,
            Message::Alive => {}
            Message::Close { violation: None } => return Err(Ended::Closed(Party::Peer)),
            Message::Close {
                violation: Some(words),
            } => {
                return Err(Ended::Reported(display_text(&words)));
            }
        }
        Ok(())
    }

    async fn file_end(
        &mut self,
        id: TransferId,
        entry: EntryIndex,
        root: Digest,
    ) -> Result<(), Violation> {
        let end = Work::End {
            entry,
            root,
            streamed_bytes: None,
        };
        self.take(id, end, "file_end").await
    }

    async fn stream_end(
        &mut self,
        id: TransferId,
        size_bytes: u64,
        root: Digest,
    ) -> Result<(), Violation> {
        let end = Work::End {
            entry: EntryIndex::FIRST,
            root,
            streamed_bytes: Some(size_bytes),
        };
        self.take(id, end, "stream_end").await
    }

    /// The receiver has written so much of a stream.
    fn arrived(&self, id: TransferId, size_bytes: u64) -> Result<(), Violation> {
        self.table.with_outgoing(id, |open| {
            let news_bytes = open.machine.arrived(size_bytes)?;
            open.transfer.progress.add_bytes(news_bytes);
            Ok(())
        })?;
        Ok(())
    }

    async fn declined(&mut self, id: TransferId, reason: DeclineReason) -> Result<(), Violation> {
        let error = TransferError::Declined(reason);
        if self.table.text_is_answered(id) {
            self.text_finished(id, Err(error)).await;
            return Ok(());
        }
        self.table
            .with_outgoing(id, |outgoing| outgoing.machine.declined())?;
        self.stop(id, error);
        Ok(())
    }

    fn cancelled(&self, id: TransferId, reason: CancelReason) -> Result<(), Violation> {
        self.table.open().check_was_open(self.table.side(), id)?;
        let reason = match reason {
            CancelReason::Cancelled => TransferError::Cancelled(Party::Peer),
            CancelReason::Interrupted => TransferError::Interrupted(Party::Peer),
            CancelReason::Left => TransferError::ConnectionLost,
            CancelReason::Verification => TransferError::Verification(Party::Peer),
            CancelReason::Disk(trouble) => TransferError::PeerFile(trouble),
        };
        self.stop(id, reason);
        Ok(())
    }

    /// One that has ended already needs no end.
    fn stop(&self, id: TransferId, reason: TransferError) {
        let _ = self.table.stop(id, reason);
    }

    async fn text(&mut self, id: TransferId, text: String) -> Result<(), Violation> {
        self.table.open().announce(self.table.side(), id)?;
        if text.len() > TEXT_BYTES_MAX {
            return Err(Violation::Text(text.len()));
        }
        if !self.table.keep_text(id) {
            return self.table.decline_busy(id);
        }
        let connection = &self.table.connection;
        connection.emit(ExchangeEvent::Text { id, text }).await;
        Ok(())
    }

    /// Words of this side were answered.
    async fn text_finished(&mut self, id: TransferId, outcome: Result<Summary, TransferError>) {
        let event = ExchangeEvent::Finished { id, outcome };
        self.table.connection.emit(event).await;
    }

    async fn accepted(&mut self, id: TransferId) -> Result<(), Violation> {
        let connection = &self.table.connection;
        let accepted = self
            .table
            .with_outgoing(id, |open| open.accepted(connection))?;
        if let Some((job, failures)) = accepted {
            connection.silence.restart();
            connection.emit(ExchangeEvent::Accepted { id }).await;
            for failure in failures {
                connection.emit(failure).await;
            }
            // The writer begins to count the seconds: files may be long in coming.
            connection.say(Message::Alive);
            if let Some(job) = job {
                tokio::spawn(Arc::clone(&self.table).deliver(job));
            }
        }
        Ok(())
    }

    /// The peer wants the sender to stop for a while, or to go on.
    async fn paused(&mut self, id: TransferId, paused: bool) -> Result<(), Violation> {
        let Some(transfer) = self.table.accepted_transfer(id) else {
            let open = self.table.open();
            return match open.incoming.contains_key(&id) || open.outgoing.contains_key(&id) {
                true => Err(Violation::State("pause")),
                false => open.check_was_open(self.table.side(), id),
            };
        };
        if transfer.control.pause(Party::Peer, paused) {
            let event = ExchangeEvent::Paused { id, paused };
            self.table.connection.emit(event).await;
        }
        Ok(())
    }

    fn compared(
        &self,
        id: TransferId,
        entry: EntryIndex,
        chunks: u32,
        differing: Vec<(ChunkIndex, u32)>,
    ) -> Result<(), Violation> {
        self.table.with_outgoing(id, |open| {
            let (same_bytes, differing_bytes) = open.machine.compared(entry, chunks, &differing)?;
            open.transfer
                .progress
                .add_compared(same_bytes, differing_bytes);
            open.answer(Answer {
                entry,
                chunks,
                differing,
            });
            Ok(())
        })?;
        Ok(())
    }

    async fn file_failed(
        &mut self,
        id: TransferId,
        entry: EntryIndex,
        trouble: FileErrorKind,
    ) -> Result<(), Violation> {
        if id.side() != self.table.side() {
            let failed = Work::Failed { entry, trouble };
            return self.take(id, failed, "file_failed").await;
        }
        let failed = self.table.with_outgoing(id, |open| {
            let is_news = open.machine.peer_failed(entry)?;
            open.transfer.digests.add_failed(entry);
            open.unwanted.lock().insert(entry);
            if is_news {
                // Nothing more needs to be said of it.
                open.answer(Answer {
                    entry,
                    chunks: u32::MAX,
                    differing: Vec::new(),
                });
            }
            let entry = open.source.manifest().entry(entry);
            Ok(entry.filter(|_| is_news).map(|entry| entry.path().clone()))
        })?;
        if let Some(path) = failed.flatten() {
            let error = FileError::Peer(trouble);
            self.table
                .connection
                .emit(ExchangeEvent::FileFailed { id, path, error })
                .await;
        }
        Ok(())
    }

    async fn durable(&mut self, id: TransferId, entries: u32) -> Result<(), Violation> {
        if entries == 0 && self.table.text_is_answered(id) {
            self.text_finished(id, Ok(Summary::default())).await;
            return Ok(());
        }
        let is_complete = self.table.with_outgoing(id, |open| {
            let early_bytes = open.machine.delivered_early_bytes();
            let is_complete = open.machine.durable(entries)?;
            open.transfer.settle(EntryIndex::new(entries));
            let files = open.machine.delivered().files + open.machine.failed_files();
            open.transfer.progress.set_files(files);
            let early_bytes = open.machine.delivered_early_bytes() - early_bytes;
            open.transfer.progress.add_bytes(early_bytes);
            Ok(is_complete)
        })?;
        if is_complete == Some(true)
            && let Some(summary) = self.table.complete_outgoing(id)
        {
            let outcome = Ok(summary);
            self.table
                .connection
                .emit(ExchangeEvent::Finished { id, outcome })
                .await;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::connection::Connection;
    use crate::connection::outbox::ANSWERS_WAITING_MAX;
    use crate::protocol::message::Side;
    use crate::send::SendJob;
    use crate::send::source::Source;

    fn dispatch() -> Dispatch<tokio::io::Empty> {
        let (connection, ..) = Connection::new(
            crate::Resources::default(),
            pinhole_budget::Owner::stranger([1; 32]),
        );
        let connection = Arc::new(connection);
        let table = Arc::new(TransferTable::new(Side::Initiator, Arc::clone(&connection)));
        Dispatch::new(FrameReader::new(tokio::io::empty(), connection), table)
    }

    /// An offer of one file that the peer has taken.
    fn accepted(table: &Arc<TransferTable>) -> (TransferId, SendJob) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(u64::from(EARLY_BYTES_MAX) + 1).unwrap();
        let source = Arc::new(Source::scan(&[path]).unwrap());
        let resume = crate::ResumeState::default();
        // As an offer that was under way before: nothing goes ahead.
        resume.begin();
        let id = table.send(source, &resume).unwrap();
        let departure = table.with_outgoing(id, |open| {
            let (job, _) = open.accepted(&table.connection)?;
            Ok(job.unwrap())
        });
        (id, departure.unwrap().unwrap())
    }

    #[tokio::test]
    async fn a_failure_said_over_and_over_takes_no_room() {
        let mut dispatch = dispatch();
        let (transfer, departure) = accepted(&dispatch.table);
        for _ in 0..1000 {
            let failed = Message::FileFailed {
                transfer,
                entry: EntryIndex::FIRST,
                trouble: FileErrorKind::Io,
            };
            assert!(dispatch.message(failed).await.is_ok());
        }
        assert_eq!(departure.answers.len(), 1);
    }

    #[test]
    fn what_this_side_has_to_say_is_no_flood() {
        let table = dispatch().table;
        let id = |id| TransferId::from_wire(id);
        for number in 0..10_000 {
            table.connection.say(Message::Compared {
                transfer: id(0),
                entry: EntryIndex::new(number),
                chunks: 1,
                differing: Vec::new(),
            });
        }
        for _ in 0..ANSWERS_WAITING_MAX {
            assert!(table.decline_busy(id(1)).is_ok());
        }
        assert!(matches!(table.decline_busy(id(1)), Err(Violation::Flood)));
        while table.connection.outbox.pop().is_some() {}
        assert!(table.decline_busy(id(1)).is_ok());
    }
}
