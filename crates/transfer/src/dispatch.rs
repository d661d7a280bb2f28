//! The one task that reads from the connection. Whatever the peer sends is
//! checked against what is open before it is read further.

mod data;

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::connection::buffer::Pool;
use crate::connection::liveness::LivenessReader;
use crate::display::display_text;
use crate::event::{ExchangeEvent, Party, Summary, TransferError};
use crate::exchange;
use crate::offers::{Holder, OfferRoom};
use crate::protocol::digest::Digest;
use crate::protocol::file_error::{FileError, FileErrorKind};
use crate::protocol::frame;
use crate::protocol::frame::{
    BATCH_HEADER_BYTES, CHUNK_HEADER_BYTES, FRAME_HEADER_BYTES, FrameError, FrameHeader, FrameKind,
};
use crate::protocol::manifest::{
    ALONG_BYTES_MAX, ALONG_ENTRIES_MAX, ENTRIES_MAX, Early, Entry, ManifestBuilder, ManifestError,
};
use crate::protocol::message::{CancelReason, DeclineReason, Message, TEXT_BYTES_MAX, TransferId};
use crate::protocol::violation::Violation;
use crate::receive::Work;
use crate::send::Answer;
use crate::transfer_table::{Announced, OpenIncoming, OpenOutgoing, TransferTable};

/// Buffers for what arrives, shared by all transfers: 6 MiB.
const RECEIVE_BUFFERS: usize = 6;
/// Most bytes of paths in all offers of the peer that are open.
const OPEN_PATHS_BYTES_MAX: usize = 2 * crate::protocol::manifest::PATHS_BYTES_MAX;
/// Most entries in all of them: each takes memory however short its path.
const OPEN_ENTRIES_MAX: u32 = 2 * ENTRIES_MAX;
/// Most answers that wait while the peer asks for more. An honest one waits for
/// some, and takes them.
pub(crate) const ANSWERS_WAITING_MAX: usize = 4096;

/// Why reading has ended.
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

impl From<ManifestError> for Ended {
    fn from(error: ManifestError) -> Self {
        Self::Violation(error.into())
    }
}

pub(crate) struct Reader<R> {
    stream: LivenessReader<R>,
    shared: Arc<TransferTable>,
    buffers: Pool,
    control: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(crate) fn new(stream: R, shared: Arc<TransferTable>) -> Self {
        Self {
            stream: LivenessReader::new(stream, shared.connection.silence.clone()),
            buffers: Pool::arriving(RECEIVE_BUFFERS, shared.connection.resources.buffers.clone()),
            shared,
            control: Vec::new(),
        }
    }

    /// Reads until there is nothing more to read, or nobody to read for.
    pub(crate) async fn run(&mut self) -> Ended {
        let shared = Arc::clone(&self.shared);
        tokio::select! {
            ended = self.frames() => ended,
            () = shared.connection.events.closed() => Ended::Closed(Party::Us),
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
        let mut header = [0; FRAME_HEADER_BYTES];
        self.stream.read_exact(&mut header).await?;
        let FrameHeader {
            kind,
            payload_bytes,
        } = FrameHeader::decode(header)?;
        match kind {
            FrameKind::Control => {
                self.control.resize(payload_bytes, 0);
                self.stream.read_exact(&mut self.control).await?;
                let message = frame::decode_message(&self.control)?;
                self.message(message).await
            }
            FrameKind::Chunk => self.chunk(payload_bytes - CHUNK_HEADER_BYTES).await,
            FrameKind::Batch => self.batch(payload_bytes - BATCH_HEADER_BYTES).await,
            FrameKind::Digests => self.digests(payload_bytes - BATCH_HEADER_BYTES).await,
        }
    }

    async fn message(&mut self, message: Message) -> Result<(), Ended> {
        match message {
            Message::Offer {
                transfer,
                entries,
                total_bytes,
                along,
                ahead,
                unread,
                sent,
            } => {
                let early = Early::promised(along, ahead)?;
                let mut builder = ManifestBuilder::default();
                builder.leave_out(unread);
                let announced = (entries, total_bytes);
                self.announced(transfer, builder, announced, early, sent)?;
            }
            Message::Entries { transfer, entries } => self.entries(transfer, entries).await?,
            Message::Have { transfer, files } => {
                self.with_outgoing(transfer, |open| open.machine.have(&files))?;
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
                self.with_outgoing(transfer, |open| open.machine.skip(&entries))?;
            }
            Message::Accept { transfer } => self.accepted(transfer).await?,
            Message::Decline { transfer, reason } => self.declined(transfer, reason).await?,
            Message::FileEnd {
                transfer,
                entry,
                root,
            } => {
                let end = Work::End { entry, root };
                self.pass(transfer, "file_end", end).await?;
            }
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

    async fn declined(&mut self, id: TransferId, reason: DeclineReason) -> Result<(), Violation> {
        let error = TransferError::Declined(reason);
        if self.shared.text_is_answered(id) {
            self.text_finished(id, Err(error)).await;
            return Ok(());
        }
        self.with_outgoing(id, |outgoing| outgoing.machine.declined())?;
        self.stop(id, error);
        Ok(())
    }

    fn cancelled(&self, id: TransferId, reason: CancelReason) -> Result<(), Violation> {
        self.shared.open().check_was_open(self.shared.side(), id)?;
        let reason = match reason {
            CancelReason::Cancelled => TransferError::Cancelled(Party::Peer),
            CancelReason::Interrupted => TransferError::Interrupted(Party::Peer),
            CancelReason::Verification => TransferError::Verification(Party::Peer),
            CancelReason::Disk(trouble) => TransferError::PeerFile(trouble),
        };
        self.stop(id, reason);
        Ok(())
    }

    /// One that has ended already needs no end.
    fn stop(&self, id: TransferId, reason: TransferError) {
        let _ = self.shared.stop(id, reason);
    }

    fn announced(
        &self,
        id: TransferId,
        builder: ManifestBuilder,
        (entries, total_bytes): (u32, u64),
        early: Early,
        sent: Option<Digest>,
    ) -> Result<(), Violation> {
        let mut open = self.shared.open();
        open.announce(self.shared.side(), id)?;
        if entries == 0 {
            return Err(ManifestError::Sum.into());
        }
        if entries > ENTRIES_MAX {
            return Err(ManifestError::TooMany.into());
        }
        let is_large = entries > ALONG_ENTRIES_MAX || total_bytes > u64::from(ALONG_BYTES_MAX);
        if early == Early::Everything && is_large {
            return Err(ManifestError::Along.into());
        }
        // So that no more than one chunk waits for answers.
        if early == Early::FirstChunk && open.incoming.values().any(OpenIncoming::is_ahead) {
            return Err(Violation::State("chunk ahead of the answer"));
        }
        let open_entries: u32 = open.incoming.values().map(OpenIncoming::entries).sum();
        if open.incoming.len() >= exchange::TRANSFERS_MAX
            || open_entries + entries > OPEN_ENTRIES_MAX
        {
            return self.decline_busy(id);
        }
        let connection = &self.shared.connection;
        let holder = Holder {
            at: Arc::downgrade(&self.shared),
            id,
        };
        let mut room = OfferRoom::new(connection.resources.offers.clone(), holder);
        let Ok(displaced) = room.announce(connection.owner(), early, entries, total_bytes) else {
            return self.decline_busy(id);
        };
        let announced = Announced {
            builder,
            entries,
            total_bytes,
            early,
            sent,
            room,
        };
        open.incoming.insert(id, OpenIncoming::Announced(announced));
        drop(open);
        displace(displaced);
        Ok(())
    }

    async fn text(&mut self, id: TransferId, text: String) -> Result<(), Violation> {
        self.shared.open().announce(self.shared.side(), id)?;
        if text.len() > TEXT_BYTES_MAX {
            return Err(Violation::Text(text.len()));
        }
        if !self.shared.keep_text(id) {
            return self.decline_busy(id);
        }
        let connection = &self.shared.connection;
        connection.emit(ExchangeEvent::Text { id, text }).await;
        Ok(())
    }

    /// Words of this side were answered.
    async fn text_finished(&mut self, id: TransferId, outcome: Result<Summary, TransferError>) {
        let event = ExchangeEvent::Finished { id, outcome };
        self.shared.connection.emit(event).await;
    }

    fn decline_busy(&self, id: TransferId) -> Result<(), Violation> {
        let reason = DeclineReason::Busy;
        self.answer(Message::Decline {
            transfer: id,
            reason,
        })
    }

    /// Says what the peer has asked for, as often as it likes.
    fn answer(&self, message: Message) -> Result<(), Violation> {
        let outbox = &self.shared.connection.outbox;
        match outbox.push_answer(message, ANSWERS_WAITING_MAX) {
            true => Ok(()),
            false => Err(Violation::Flood),
        }
    }

    async fn entries(&mut self, id: TransferId, page: Vec<Entry>) -> Result<(), Violation> {
        let (displaced, event) = self.add_entries(id, page)?;
        displace(displaced);
        if let Some(event) = event {
            self.shared.connection.emit(event).await;
        }
        Ok(())
    }

    /// Adds a page to an offer. Returns which others have to give way, and what the
    /// application is to be told when that was the last.
    fn add_entries(
        &self,
        id: TransferId,
        page: Vec<Entry>,
    ) -> Result<(Vec<Holder>, Option<ExchangeEvent>), Violation> {
        let mut open = self.shared.open();
        let open_bytes: usize = open.incoming.values().map(OpenIncoming::paths_bytes).sum();
        let announced = match open.incoming.get_mut(&id) {
            Some(OpenIncoming::Announced(announced)) => announced,
            Some(_) => return Err(Violation::State("entries")),
            None => {
                open.check_was_open(self.shared.side(), id)?;
                return Ok((Vec::new(), None));
            }
        };
        let displaced = match announced.room.add(self.shared.connection.owner(), &page) {
            Ok(displaced) if open_bytes <= OPEN_PATHS_BYTES_MAX => displaced,
            _ => {
                open.incoming.remove(&id);
                self.decline_busy(id)?;
                return Ok((Vec::new(), None));
            }
        };
        if !announced.add(page)? {
            return Ok((displaced, None));
        }
        let mut event = None;
        if let Some(OpenIncoming::Announced(announced)) = open.incoming.remove(&id) {
            let sent = announced.sent;
            let (offer, offered) = announced.complete()?;
            open.incoming.insert(id, offered);
            event = Some(ExchangeEvent::Offered { id, offer, sent });
        }
        Ok((displaced, event))
    }

    /// Asks a transfer of this side. `None` when it has ended.
    fn with_outgoing<T>(
        &self,
        id: TransferId,
        ask: impl FnOnce(&mut OpenOutgoing) -> Result<T, Violation>,
    ) -> Result<Option<T>, Violation> {
        let mut open = self.shared.open();
        match open.outgoing.get_mut(&id) {
            Some(outgoing) => ask(outgoing).map(Some),
            None if id.side() != self.shared.side() => Err(Violation::Transfer(id)),
            None => open.check_was_open(self.shared.side(), id).map(|()| None),
        }
    }

    async fn accepted(&mut self, id: TransferId) -> Result<(), Violation> {
        let connection = &self.shared.connection;
        let departure = self.with_outgoing(id, |open| {
            let (have, event) = open.accepted()?;
            // What comes along has departed.
            let waits = !open.machine.is_early();
            Ok((waits.then(|| open.depart(connection, have)), event))
        })?;
        if let Some((departure, event)) = departure {
            connection.silence.restart();
            connection.emit(ExchangeEvent::Accepted { id }).await;
            if let Some(event) = event {
                connection.emit(event).await;
            }
            // The writer begins to count the seconds: files may be long in coming.
            connection.say(Message::Alive);
            if let Some(departure) = departure {
                let shared = Arc::clone(&self.shared);
                tokio::spawn(exchange::deliver(shared, departure));
            }
        }
        Ok(())
    }

    /// The peer wants the sender to stop for a while, or to go on.
    async fn paused(&mut self, id: TransferId, paused: bool) -> Result<(), Violation> {
        let Some(transfer) = self.shared.accepted_transfer(id) else {
            let open = self.shared.open();
            return match open.incoming.contains_key(&id) || open.outgoing.contains_key(&id) {
                true => Err(Violation::State("pause")),
                false => open.check_was_open(self.shared.side(), id),
            };
        };
        if transfer.control.pause(Party::Peer, paused) {
            let event = ExchangeEvent::Paused { id, paused };
            self.shared.connection.emit(event).await;
        }
        Ok(())
    }

    fn compared(
        &self,
        id: TransferId,
        entry: u32,
        chunks: u32,
        differing: Vec<(u32, u32)>,
    ) -> Result<(), Violation> {
        self.with_outgoing(id, |open| {
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
        entry: u32,
        trouble: FileErrorKind,
    ) -> Result<(), Violation> {
        if id.side() != self.shared.side() {
            let failed = Work::Failed { entry, trouble };
            return self.pass(id, "file_failed", failed).await;
        }
        let failed = self.with_outgoing(id, |open| {
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
            self.shared
                .connection
                .emit(ExchangeEvent::FileFailed { id, path, error })
                .await;
        }
        Ok(())
    }

    async fn durable(&mut self, id: TransferId, entries: u32) -> Result<(), Violation> {
        if entries == 0 && self.shared.text_is_answered(id) {
            self.text_finished(id, Ok(Summary::default())).await;
            return Ok(());
        }
        let is_complete = self.with_outgoing(id, |open| {
            let is_complete = open.machine.durable(entries)?;
            open.transfer.settle(entries);
            let delivered = open.machine.delivered();
            open.transfer
                .progress
                .set_files(delivered.files + open.machine.failed_files());
            if open.machine.is_early() {
                open.transfer.progress.set_bytes(delivered.bytes);
            }
            Ok(is_complete)
        })?;
        if is_complete == Some(true)
            && let Some(summary) = self.shared.complete_outgoing(id)
        {
            let outcome = Ok(summary);
            self.shared
                .connection
                .emit(ExchangeEvent::Finished { id, outcome })
                .await;
        }
        Ok(())
    }
}

/// Has these offers declined unasked. Nothing may be locked.
fn displace(offers: Vec<Holder>) {
    for Holder { at, id } in offers {
        if let Some(shared) = at.upgrade() {
            shared.give_way(id);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::connection::Connection;
    use crate::protocol::message::Side;
    use crate::send::SendJob;
    use crate::send::source::Source;
    use crate::transfer_table::Leaving;

    fn reader() -> Reader<tokio::io::Empty> {
        let (connection, ..) = Connection::new(
            crate::Resources::default(),
            pinhole_budget::Owner::stranger([1; 32]),
        );
        let shared = Arc::new(TransferTable::new(Side::Initiator, connection));
        Reader::new(tokio::io::empty(), shared)
    }

    /// An offer of one file that the peer has taken.
    fn accepted(reader: &Reader<tokio::io::Empty>) -> (TransferId, SendJob) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(u64::from(ALONG_BYTES_MAX) + 1).unwrap();
        let source = Arc::new(Source::scan(&[path]).unwrap());
        let resume = crate::ResumeState::default();
        // As an offer that was under way before: nothing goes ahead.
        resume.begin();
        let (transfer, leaving) = reader.shared.open_outgoing(&source, &resume).unwrap();
        assert!(matches!(leaving, Leaving::Nothing));
        let departure = reader.with_outgoing(transfer.id, |open| {
            let (have, _) = open.accepted()?;
            Ok(open.depart(&reader.shared.connection, have))
        });
        (transfer.id, departure.unwrap().unwrap())
    }

    #[tokio::test]
    async fn a_failure_said_over_and_over_takes_no_room() {
        let mut reader = reader();
        let (transfer, departure) = accepted(&reader);
        for _ in 0..1000 {
            let failed = Message::FileFailed {
                transfer,
                entry: 0,
                trouble: FileErrorKind::Io,
            };
            assert!(reader.message(failed).await.is_ok());
        }
        assert_eq!(departure.answers.len(), 1);
    }

    #[test]
    fn what_this_side_has_to_say_is_no_flood() {
        let reader = reader();
        let id = |id| TransferId::from_wire(id);
        for entry in 0..10_000 {
            reader.shared.connection.say(Message::Compared {
                transfer: id(0),
                entry,
                chunks: 1,
                differing: Vec::new(),
            });
        }
        for _ in 0..ANSWERS_WAITING_MAX {
            assert!(reader.decline_busy(id(1)).is_ok());
        }
        assert!(matches!(reader.decline_busy(id(1)), Err(Violation::Flood)));
        while reader.shared.connection.outbox.pop().is_some() {}
        assert!(reader.decline_busy(id(1)).is_ok());
    }
}
