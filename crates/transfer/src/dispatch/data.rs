//! What carries files: each frame is read only after the transfer has said that
//! it is due, or at least as what it says it is, and goes to the transfer's
//! pipeline.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;

use super::{Ended, Reader};
use crate::connection::buffer::Buffer;
use crate::event::Party;
use crate::protocol::frame;
use crate::protocol::frame::{
    BATCH_HEADER_BYTES, BATCH_ITEM_BYTES, CHUNK_HEADER_BYTES, ChunkHeader, DigestItem,
};
use crate::protocol::manifest::{ALONG_BYTES_MAX, ALONG_ENTRIES_MAX};
use crate::protocol::message::TransferId;
use crate::protocol::receiver::Receiver;
use crate::protocol::violation::Violation;
use crate::rate_limit::SLICE_BYTES;
use crate::receive::Work;
use crate::transfer_table::{EarlyData, OpenIncoming, OpenTransfers};

/// No batch that came along with an offer and was admitted is longer.
const ALONG_ITEMS_BYTES: usize =
    ALONG_BYTES_MAX as usize + ALONG_ENTRIES_MAX as usize * BATCH_ITEM_BYTES;

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) async fn chunk(&mut self, data_bytes: usize) -> Result<(), Ended> {
        let mut header = [0; CHUNK_HEADER_BYTES];
        self.stream.read_exact(&mut header).await?;
        let ChunkHeader {
            transfer,
            entry,
            index,
            digest,
        } = ChunkHeader::decode(&header);
        let (mut place, mut is_accepted) = (None, true);
        self.admit(transfer, "chunk", |machine| {
            place = Some(machine.check_chunk(entry, index, data_bytes)?);
            is_accepted = !machine.is_ahead();
            Ok(())
        })?;
        // As for what comes along.
        let buffer = match is_accepted {
            true => self.buffer().await?,
            false => Buffer::alone(data_bytes),
        };
        let buffer = self.data(buffer, data_bytes, Some(transfer)).await?;
        // Nowhere: the transfer was stopped.
        let Some(place) = place else {
            return Ok(());
        };
        let chunk = Work::Chunk {
            entry,
            place,
            digest,
            buffer,
        };
        // Asked for only now: while this is held the pipeline does not end, and
        // the rest of a chunk may never come.
        Ok(self.pass(transfer, "chunk", chunk).await?)
    }

    pub(super) async fn digests(&mut self, items_bytes: usize) -> Result<(), Ended> {
        let mut transfer = [0; BATCH_HEADER_BYTES];
        self.stream.read_exact(&mut transfer).await?;
        let transfer = TransferId::from_wire(u32::from_be_bytes(transfer));
        self.control.resize(items_bytes, 0);
        self.stream.read_exact(&mut self.control).await?;
        let items = frame::digest_items(&self.control)?;
        self.admit(transfer, "digests", |machine| {
            let mut items = items.iter();
            items.try_for_each(|item| machine.digest(item.entry, item.index))
        })?;
        let digests = match self.shared.open().incoming.get(&transfer) {
            Some(OpenIncoming::Receiving { digests, .. }) => digests.clone(),
            _ => None,
        };
        hand_on(digests, items).await;
        Ok(())
    }

    pub(super) async fn batch(&mut self, items_bytes: usize) -> Result<(), Ended> {
        let mut transfer = [0; BATCH_HEADER_BYTES];
        self.stream.read_exact(&mut transfer).await?;
        let transfer = TransferId::from_wire(u32::from_be_bytes(transfer));
        // What may have to wait for an answer takes no buffer from others.
        let buffer = match items_bytes <= ALONG_ITEMS_BYTES {
            true => Buffer::alone(items_bytes),
            false => self.buffer().await?,
        };
        let buffer = self.data(buffer, items_bytes, None).await?;
        let items = frame::batch_items(buffer.data().get(..items_bytes).unwrap_or_default())?;
        let batch = Work::Batch { items, buffer };
        Ok(self.pass(transfer, "batch", batch).await?)
    }

    async fn buffer(&mut self) -> Result<Buffer, Ended> {
        let buffer = self.buffers.take().await;
        buffer.ok_or(Ended::Closed(Party::Us))
    }

    /// Reads what a frame carries. Of a chunk it counts as it comes: on a slow line
    /// that takes seconds.
    async fn data(
        &mut self,
        mut buffer: Buffer,
        bytes: usize,
        chunk_of: Option<TransferId>,
    ) -> Result<Buffer, Ended> {
        let mut rest = buffer.data_mut().get_mut(..bytes).unwrap_or_default();
        let transfer = chunk_of.and_then(|id| self.shared.counting(id));
        let limit = &self.shared.connection.resources.receive;
        while !rest.is_empty() {
            let most = match limit.is_set() {
                true => rest.len().min(SLICE_BYTES),
                false => rest.len(),
            };
            limit.pass(most).await;
            let (mut slice, behind) = rest.split_at_mut(most);
            while !slice.is_empty() {
                let read = self.stream.read(slice).await?;
                if read == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                match (&transfer, chunk_of) {
                    (Some(transfer), _) => transfer.progress.add_bytes(read as u64),
                    (None, Some(id)) => self.shared.came_ahead(id, read as u64),
                    (None, None) => {}
                }
                slice = slice.split_at_mut(read).1;
            }
            rest = behind;
        }
        Ok(buffer)
    }

    /// Asks the transfer whether something of a file is due. One that was
    /// stopped is not asked.
    fn admit(
        &self,
        id: TransferId,
        what: &'static str,
        ask: impl FnOnce(&mut Receiver) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        let mut open = self.shared.open();
        match self.takes(&mut open, id, what)? {
            Some(Takes::EarlyData(held)) => ask(&mut held.machine),
            Some(Takes::Pipeline { machine, .. }) => ask(machine),
            None => Ok(()),
        }
    }

    /// Passes on what has come if it is due: into the transfer's pipeline, or to
    /// where it waits for the answer to the offer. One that was stopped takes
    /// nothing more.
    pub(super) async fn pass(
        &mut self,
        id: TransferId,
        what: &'static str,
        work: Work,
    ) -> Result<(), Violation> {
        let pipeline = {
            // Under one lock, so that the answer comes before both or behind both.
            let mut open = self.shared.open();
            match self.takes(&mut open, id, what)? {
                Some(Takes::EarlyData(held)) => {
                    if take(&mut held.machine, &work)? {
                        held.work.push(work);
                    }
                    return Ok(());
                }
                Some(Takes::Pipeline {
                    machine,
                    pipeline,
                    digests,
                }) => {
                    if !take(machine, &work)? {
                        return Ok(());
                    }
                    if machine.is_complete() {
                        // For the last time.
                        *digests = None;
                        pipeline.take()
                    } else {
                        pipeline.clone()
                    }
                }
                None => None,
            }
        };
        hand_on(pipeline, work).await;
        Ok(())
    }

    /// What takes the files of this transfer. `None` when it was stopped or
    /// has ended.
    fn takes<'a>(
        &self,
        open: &'a mut OpenTransfers,
        id: TransferId,
        what: &'static str,
    ) -> Result<Option<Takes<'a>>, Violation> {
        if id.side() == self.shared.side() {
            return Err(Violation::Transfer(id));
        }
        open.check_was_open(self.shared.side(), id)?;
        match open.incoming.get_mut(&id) {
            None => Ok(None),
            Some(OpenIncoming::Receiving {
                transfer,
                machine,
                work,
                digests,
                ..
            }) => Ok(transfer
                .control
                .stopped()
                .is_none()
                .then_some(Takes::Pipeline {
                    machine,
                    pipeline: work,
                    digests,
                })),
            Some(OpenIncoming::Offered {
                held: Some(held), ..
            }) => Ok(Some(Takes::EarlyData(held))),
            Some(_) => Err(Violation::State(what)),
        }
    }
}

/// What takes the files of a transfer.
enum Takes<'a> {
    /// Nobody has answered the offer yet, of which something comes before.
    EarlyData(&'a mut EarlyData),
    /// It was accepted.
    Pipeline {
        machine: &'a mut Receiver,
        pipeline: &'a mut Option<mpsc::Sender<Work>>,
        digests: &'a mut Option<mpsc::Sender<Vec<DigestItem>>>,
    },
}

/// Whether what is due is wanted, too.
fn take(machine: &mut Receiver, work: &Work) -> Result<bool, Violation> {
    match work {
        Work::Chunk { entry, place, .. } => {
            // Once more, since the answer to the offer may have come meanwhile.
            let taken = machine.chunk(*entry, place.index(), place.length_bytes())?;
            Ok(taken.is_some())
        }
        Work::Batch { items, .. } => {
            let mut items = items.iter();
            items.try_for_each(|item| machine.small_file(item.entry, item.data.len()))?;
            Ok(true)
        }
        Work::End { entry, .. } => machine.file_end(*entry).map(|()| true),
        Work::Failed { entry, .. } => machine.file_failed(*entry),
    }
}

async fn hand_on<T>(to: Option<mpsc::Sender<T>>, what: T) {
    if let Some(to) = to {
        // Fails when the transfer was stopped.
        let _ = to.send(what).await;
    }
}
