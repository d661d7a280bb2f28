//! Reused buffers of one chunk each. Their number bounds what a transfer holds
//! in memory, and waiting for one is what slows a fast stage down.

use std::ops::Range;

use tokio::sync::mpsc;

use crate::lengths::CHUNK_BYTES;

/// Data starts on a page boundary: a copy between addresses that differ by 8 to
/// 31 bytes within their pages runs about three times slower.
const PAGE_BYTES: usize = 4096;
/// Room for data.
pub(crate) const DATA_BYTES: usize = CHUNK_BYTES as usize;

/// A fixed number of buffers, allocated when first taken.
pub(crate) struct Pool {
    free: mpsc::Receiver<Vec<u8>>,
    back: mpsc::Sender<Vec<u8>>,
}

impl Pool {
    pub(crate) fn new(count: usize) -> Self {
        let (back, free) = mpsc::channel(count);
        for _ in 0..count {
            // There is room for all of them.
            let _ = back.try_send(Vec::new());
        }
        Self { free, back }
    }

    /// Waits for a buffer. `None` never happens while the pool exists.
    pub(crate) async fn take(&mut self) -> Option<Buffer> {
        let bytes = self.free.recv().await?;
        Some(Buffer::new(bytes, self.back.clone()))
    }

    /// As [`Pool::take`], on a thread of its own.
    pub(crate) fn take_blocking(&mut self) -> Option<Buffer> {
        let bytes = self.free.blocking_recv()?;
        Some(Buffer::new(bytes, self.back.clone()))
    }
}

/// Page-aligned room for [`DATA_BYTES`], with a page before it for the header
/// of a frame. Goes back to its pool when dropped.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    data_start: usize,
    /// `None` for one that no pool counts.
    back: Option<mpsc::Sender<Vec<u8>>>,
}

impl Buffer {
    fn new(mut bytes: Vec<u8>, back: mpsc::Sender<Vec<u8>>) -> Self {
        if bytes.is_empty() {
            // Not written: nothing takes memory before it holds data.
            bytes = vec![0; 2 * PAGE_BYTES + DATA_BYTES];
        }
        let past_page = bytes.as_ptr().addr() % PAGE_BYTES;
        Self {
            bytes,
            data_start: 2 * PAGE_BYTES - past_page,
            back: Some(back),
        }
    }

    /// Room for so much and no more, of which whoever takes it bounds the
    /// number: it keeps nothing from others, however long it is held.
    pub(crate) fn alone(data_bytes: usize) -> Self {
        Self {
            bytes: vec![0; data_bytes],
            data_start: 0,
            back: None,
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
        if let Some(back) = &self.back {
            // Fails only when the pool is gone, and then nobody needs it.
            let _ = back.try_send(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_bounded_and_come_back() {
        let mut pool = Pool::new(2);
        let first = pool.take_blocking().unwrap();
        let mut second = pool.take_blocking().unwrap();
        for buffer in [&first, &second] {
            assert_eq!(buffer.data().as_ptr().addr() % PAGE_BYTES, 0);
            assert_eq!(buffer.data().len(), DATA_BYTES);
        }
        assert!(pool.free.try_recv().is_err(), "no third");
        second.data_mut()[0] = 7;
        second.put_header(&[1, 2, 3]);
        assert_eq!(second.frame(3, 1), [1, 2, 3, 7]);
        let mut alone = Buffer::alone(1);
        assert_eq!(alone.data_mut().len(), 1);
        drop(alone);
        assert!(pool.free.try_recv().is_err(), "no third");
        drop(first);
        assert!(pool.take_blocking().is_some());
    }
}
