//! Where the connection hands in what arrives of an offer: what comes before the
//! answer is held, and what comes after it goes to the pipeline.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{Chunk, Feeds, Work};
use crate::event::TransferError;
use crate::protocol::chunking::ChunkPlace;
use crate::protocol::early::EarlyData;
use crate::protocol::frame::{ChunkHeader, DigestItem};
use crate::protocol::index::{ChunkIndex, EntryIndex};
use crate::protocol::manifest::Manifest;
use crate::protocol::receiver::Receiver;
use crate::protocol::selection::Selection;
use crate::protocol::violation::Violation;
use crate::transfer::Transfer;

/// Pieces from the connection that wait for verification; their number is
/// bounded by the buffers anyway, but for ends of files.
const WORK: usize = 16;
/// Lists of digests that wait for the comparison. They are small and let the
/// sender be far ahead of it.
const DIGESTS: usize = 64;

/// The receiving side of an offer, as the connection and the pipeline share it.
pub(crate) struct Inlet(Mutex<State>);

struct State {
    machine: Receiver,
    sink: Sink,
}

/// Where it goes.
enum Sink {
    /// The offer was not answered: what is held counts against the budget.
    Held {
        work: Vec<Work>,
        /// Bytes of a chunk, be it that the rest of it is still coming.
        chunk_bytes: u64,
    },
    /// It was accepted. There are no queues once everything has come.
    Pipeline {
        transfer: Arc<Transfer>,
        queues: Option<Queues>,
    },
    /// It was stopped, and takes nothing more.
    Stopped,
}

#[derive(Clone)]
struct Queues {
    work: mpsc::Sender<Work>,
    digests: mpsc::Sender<Vec<DigestItem>>,
}

/// How a chunk that is due is to be read.
pub(crate) struct DueChunk {
    pub(crate) place: ChunkPlace,
    /// How long it will be held is unknown.
    pub(crate) is_early: bool,
}

impl Inlet {
    /// For an offer that waits for its answer.
    pub(crate) fn new(manifest: &Arc<Manifest>, early: EarlyData) -> Self {
        Self(Mutex::new(State {
            machine: Receiver::new(Arc::clone(manifest), early),
            sink: Sink::Held {
                work: Vec::new(),
                chunk_bytes: 0,
            },
        }))
    }

    /// The offer is taken. Returns what feeds its pipeline, and what the peer is to be
    /// told to be here.
    pub(crate) fn accept(
        &self,
        transfer: &Arc<Transfer>,
        selection: &Arc<Selection>,
        have: &BTreeMap<EntryIndex, u32>,
    ) -> (Feeds, Vec<(EntryIndex, u32)>) {
        let State { machine, sink } = &mut *self.0.lock();
        machine.accept(Arc::clone(selection), have);
        let (work, waiting_work) = mpsc::channel(WORK);
        let (digests, waiting_digests) = mpsc::channel(DIGESTS);
        let queues = Queues { work, digests };
        let pipeline = Sink::Pipeline {
            transfer: Arc::clone(transfer),
            queues: Some(queues).filter(|_| !machine.is_complete()),
        };
        let mut held = Vec::new();
        if let Sink::Held { work, chunk_bytes } = std::mem::replace(sink, pipeline) {
            held = work;
            if machine.keeps_begun() {
                transfer.progress.add_bytes(chunk_bytes);
            }
        }
        held.retain(|work| !work.entry().is_some_and(|entry| machine.drops_early(entry)));
        let feeds = Feeds {
            held,
            work: waiting_work,
            digests: waiting_digests,
        };
        (feeds, machine.have().collect())
    }

    /// The transfer ends early: its pipeline gets no more, and ends.
    pub(crate) fn stop(&self, reason: TransferError) {
        let mut state = self.0.lock();
        if let Sink::Pipeline { transfer, .. } = &state.sink {
            transfer.control.stop(reason);
        }
        state.sink = Sink::Stopped;
    }

    /// Whether a chunk is due, before it is read. `None` when it is not wanted any more.
    pub(crate) fn check_chunk(
        &self,
        header: &ChunkHeader,
        data_bytes: usize,
    ) -> Result<Option<DueChunk>, Violation> {
        let mut state = self.0.lock();
        let Some(machine) = state.asked() else {
            return Ok(None);
        };
        let place = machine.check_chunk(header.entry, header.index, data_bytes)?;
        let is_early = !machine.is_answered();
        Ok(Some(DueChunk { place, is_early }))
    }

    /// So many bytes of the next chunk have come.
    pub(crate) fn count(&self, bytes: u64) {
        let State { machine, sink } = &mut *self.0.lock();
        match sink {
            Sink::Held { chunk_bytes, .. } => *chunk_bytes += bytes,
            Sink::Pipeline { transfer, .. } if !machine.drops_next() => {
                transfer.progress.add_bytes(bytes);
            }
            Sink::Pipeline { .. } | Sink::Stopped => {}
        }
    }

    /// Hands on what has come if it is due, and waits while the pipeline has no room.
    pub(crate) async fn take(&self, work: Work) -> Result<(), Violation> {
        let Some((queue, work)) = self.take_now(work)? else {
            return Ok(());
        };
        // Fails when the transfer was stopped.
        let _ = queue.send(work).await;
        Ok(())
    }

    /// Keeps what has come, or says where it goes.
    fn take_now(&self, work: Work) -> Result<Option<(mpsc::Sender<Work>, Work)>, Violation> {
        let mut state = self.0.lock();
        let Some(machine) = state.asked() else {
            return Ok(None);
        };
        if !work.is_taken(machine)? {
            return Ok(None);
        }
        let is_complete = machine.is_complete();
        Ok(match &mut state.sink {
            Sink::Held { work: held, .. } => {
                held.push(work);
                None
            }
            Sink::Pipeline { queues, .. } => {
                let queue = queues.as_ref().map(|queues| queues.work.clone());
                if is_complete {
                    // That was the last.
                    *queues = None;
                }
                queue.map(|queue| (queue, work))
            }
            Sink::Stopped => None,
        })
    }

    /// Hands on the digests of chunks that are here, as [`Inlet::take`].
    pub(crate) async fn take_digests(&self, items: Vec<DigestItem>) -> Result<(), Violation> {
        let queue = {
            let mut state = self.0.lock();
            if let Some(machine) = state.asked() {
                let mut items = items.iter();
                items.try_for_each(|item| machine.digest(item.entry, item.index))?;
            }
            match &state.sink {
                Sink::Pipeline { queues, .. } => queues.as_ref().map(|it| it.digests.clone()),
                Sink::Held { .. } | Sink::Stopped => None,
            }
        };
        if let Some(queue) = queue {
            let _ = queue.send(items).await;
        }
        Ok(())
    }

    /// The comparison of what an earlier attempt has left goes on.
    pub(crate) fn compared(&self, entry: EntryIndex, chunks: u32, differing: &[(ChunkIndex, u32)]) {
        self.0.lock().machine.compared(entry, chunks, differing);
    }
}

impl State {
    /// Says whether something is due; `None` when nothing is to be checked.
    fn asked(&mut self) -> Option<&mut Receiver> {
        match self.sink {
            Sink::Held { .. } | Sink::Pipeline { .. } => Some(&mut self.machine),
            Sink::Stopped => None,
        }
    }
}

impl Work {
    /// The file that it belongs to, where it is one.
    const fn entry(&self) -> Option<EntryIndex> {
        match self {
            Self::Chunk(chunk) => Some(chunk.entry),
            Self::End { entry, .. } | Self::Failed { entry, .. } => Some(*entry),
            Self::Batch(_) => None,
        }
    }

    /// Whether it is wanted, if it is due.
    fn is_taken(&self, machine: &mut Receiver) -> Result<bool, Violation> {
        match self {
            Self::Chunk(Chunk { entry, place, .. }) => {
                // Once more, since the answer to the offer may have come meanwhile.
                let taken = machine.chunk(*entry, place.index(), place.length_bytes())?;
                Ok(taken.is_some())
            }
            Self::Batch(batch) => {
                let mut items = batch.items.iter();
                items.try_for_each(|item| machine.small_file(item.entry, item.data.len()))?;
                Ok(true)
            }
            Self::End {
                entry,
                streamed_bytes: None,
                ..
            } => machine.file_end(*entry).map(|()| true),
            Self::End {
                entry,
                streamed_bytes: Some(bytes),
                ..
            } => machine.stream_end(*entry, *bytes).map(|()| true),
            Self::Failed { entry, .. } => machine.file_failed(*entry),
        }
    }
}
