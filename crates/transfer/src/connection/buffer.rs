//! Reused buffers of one chunk each. Their number bounds what a transfer holds
//! in memory, and waiting for one is what slows a fast stage down.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::protocol::chunking::CHUNK_BYTES;

/// Data starts on a page boundary: a copy between addresses that differ by 8 to
/// 31 bytes within their pages runs about three times slower.
const PAGE_BYTES: usize = 4096;
/// Room for data.
pub(crate) const DATA_BYTES: usize = CHUNK_BYTES as usize;
/// Buffers for what arrives, of all peers together, beside one for each peer: 48 MiB.
const SHARED_BUFFERS: usize = 48;
/// Unused buffers that keep their memory: as many as one fast transfer goes round with.
const SPARE_BUFFERS: usize = 12;

/// What the pools of all exchanges share. Clones are the same.
#[derive(Debug, Clone)]
pub struct BufferMemory {
    spare: Arc<Mutex<Vec<Vec<u8>>>>,
    /// One for each buffer that a peer's pool may have beyond its first.
    arriving: Arc<Semaphore>,
}

impl Default for BufferMemory {
    fn default() -> Self {
        Self {
            spare: Arc::default(),
            arriving: Arc::new(Semaphore::new(SHARED_BUFFERS)),
        }
    }
}

impl BufferMemory {
    fn spare(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.spare.lock()
    }

    fn take(&self) -> Vec<u8> {
        let spare = self.spare().pop();
        // Not written: nothing takes memory before it holds data.
        spare.unwrap_or_else(|| vec![0; 2 * PAGE_BYTES + DATA_BYTES])
    }

    fn give_back(&self, bytes: Vec<u8>) {
        let mut spare = self.spare();
        if spare.len() < SPARE_BUFFERS {
            spare.push(bytes);
        }
    }

    /// Frees what no buffer uses.
    pub fn free_spare(&self) {
        self.spare().clear();
    }
}

/// One of the buffers that a pool may have.
#[derive(Debug)]
struct Turn;

/// A fixed number of buffers, whose memory is taken when they are.
pub(crate) struct Pool {
    turns: mpsc::Receiver<Turn>,
    back: mpsc::Sender<Turn>,
    memory: BufferMemory,
    /// For what arrives: the first buffer is the pool's own, so that no other peer can
    /// keep this one from going on.
    first: Option<Arc<Semaphore>>,
}

impl Pool {
    /// For what this side sends.
    pub(crate) fn new(count: usize, memory: BufferMemory) -> Self {
        let (back, turns) = mpsc::channel(count);
        for _ in 0..count {
            // There is room for all of them.
            let _ = back.try_send(Turn);
        }
        Self {
            turns,
            back,
            memory,
            first: None,
        }
    }

    /// For what arrives, of which all peers together have a bound.
    pub(crate) fn arriving(count: usize, memory: BufferMemory) -> Self {
        Self {
            first: Some(Arc::new(Semaphore::new(1))),
            ..Self::new(count, memory)
        }
    }

    /// Waits for a buffer. `None` never happens while the pool exists.
    pub(crate) async fn take(&mut self) -> Option<Buffer> {
        self.turns.recv().await?;
        // Its turn comes back although this may be given up.
        let mut home = self.home();
        if let Some(first) = &self.first {
            let shared = Arc::clone(&self.memory.arriving);
            // Neither is ever closed.
            home.permit = tokio::select! {
                biased;
                own = Arc::clone(first).acquire_owned() => own.ok(),
                shared = shared.acquire_owned() => shared.ok(),
            };
        }
        Some(Buffer::of(home))
    }

    /// As [`Pool::take`], on a thread of its own, for what this side sends.
    pub(crate) fn take_blocking(&mut self) -> Option<Buffer> {
        self.turns.blocking_recv()?;
        Some(Buffer::of(self.home()))
    }

    fn home(&self) -> Home {
        Home {
            back: self.back.clone(),
            memory: self.memory.clone(),
            permit: None,
        }
    }
}

/// Where a buffer comes from, and its turn goes back to.
struct Home {
    back: mpsc::Sender<Turn>,
    memory: BufferMemory,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Home {
    fn drop(&mut self) {
        // Others may go on before this pool does.
        drop(self.permit.take());
        // Fails only when the pool is gone, and then nobody needs it.
        let _ = self.back.try_send(Turn);
    }
}

/// Page-aligned room for [`DATA_BYTES`], with a page before it for the header
/// of a frame. Goes back to its pool when dropped.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    data_start: usize,
    /// `None` for one that no pool counts.
    home: Option<Home>,
}

impl Buffer {
    fn of(home: Home) -> Self {
        let bytes = home.memory.take();
        let past_page = bytes.as_ptr().addr() % PAGE_BYTES;
        Self {
            bytes,
            data_start: 2 * PAGE_BYTES - past_page,
            home: Some(home),
        }
    }

    /// Room for so much and no more, of which whoever takes it bounds the
    /// number: it keeps nothing from others, however long it is held.
    pub(crate) fn alone(data_bytes: usize) -> Self {
        Self {
            bytes: vec![0; data_bytes],
            data_start: 0,
            home: None,
        }
    }

    fn room(&self) -> Range<usize> {
        let end = self.data_start + DATA_BYTES;
        self.data_start..end.min(self.bytes.len())
    }

    /// The room for data.
    pub(crate) fn data(&self) -> &[u8] {
        self.bytes.get(self.room()).unwrap_or_default()
    }

    /// The room for data.
    pub(crate) fn data_mut(&mut self) -> &mut [u8] {
        let room = self.room();
        self.bytes.get_mut(room).unwrap_or_default()
    }

    /// Puts `header` right before the data. Must be shorter than a page.
    pub(crate) fn put_header(&mut self, header: &[u8]) {
        let start = self.data_start.saturating_sub(header.len());
        if let Some(room) = self.bytes.get_mut(start..self.data_start) {
            room.copy_from_slice(header);
        }
    }

    /// The last `header_bytes` before the data and the first `data_bytes` of
    /// it, in one piece.
    pub(crate) fn frame(&self, header_bytes: usize, data_bytes: usize) -> &[u8] {
        let start = self.data_start.saturating_sub(header_bytes);
        self.bytes
            .get(start..self.data_start + data_bytes)
            .unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            home.memory.give_back(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn buffers_are_aligned_bounded_and_come_back() {
        let mut pool = Pool::new(2, BufferMemory::default());
        let first = pool.take_blocking().unwrap();
        let mut second = pool.take_blocking().unwrap();
        for buffer in [&first, &second] {
            assert_eq!(buffer.data().as_ptr().addr() % PAGE_BYTES, 0);
            assert_eq!(buffer.data().len(), DATA_BYTES);
        }
        assert!(pool.turns.try_recv().is_err(), "no third");
        second.data_mut()[0] = 7;
        second.put_header(&[1, 2, 3]);
        assert_eq!(second.frame(3, 1), [1, 2, 3, 7]);
        let mut alone = Buffer::alone(1);
        assert_eq!(alone.data_mut().len(), 1);
        drop(alone);
        assert!(pool.turns.try_recv().is_err(), "no third");
        drop(first);
        assert!(pool.take_blocking().is_some());
    }

    #[test]
    fn unused_buffers_keep_memory_for_one_transfer_at_most() {
        let memory = BufferMemory::default();
        let mut pool = Pool::new(2 * SPARE_BUFFERS, memory.clone());
        let all: Vec<_> = (0..2 * SPARE_BUFFERS)
            .map(|_| pool.take_blocking())
            .collect();
        drop(all);
        assert_eq!(memory.spare().len(), SPARE_BUFFERS);
        memory.free_spare();
        assert!(memory.spare().is_empty());
    }

    /// What it gives without waiting.
    fn at_once<T>(waiting: impl Future<Output = T>) -> Option<T> {
        match pin!(waiting).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(given) => Some(given),
            Poll::Pending => None,
        }
    }

    #[test]
    fn whoever_arrives_has_one_buffer_whatever_the_others_hold() {
        let memory = BufferMemory::default();
        let mut greedy = Pool::arriving(SHARED_BUFFERS + 8, memory.clone());
        let mut held = Vec::new();
        while let Some(buffer) = at_once(greedy.take()) {
            held.push(buffer.unwrap());
        }
        assert_eq!(held.len(), SHARED_BUFFERS + 1);
        let mut other = Pool::arriving(6, memory.clone());
        let first = at_once(other.take()).unwrap();
        assert!(at_once(other.take()).is_none(), "a second");
        assert_eq!(other.turns.len(), 5, "what was given up has cost nothing");
        drop(first);
        let first = at_once(other.take()).expect("its own again");
        held.pop();
        assert!(at_once(other.take()).is_some());
        drop(first);
    }
}
