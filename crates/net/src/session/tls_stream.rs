//! One connection to the peer, once both ends are authenticated, in two halves.

use std::fmt;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pinhole_tls::{LONGEST_RECORD_BYTES, Opener, SealError, Sealer};
use tokio::io::{AsyncRead, AsyncWrite, Join, ReadBuf};

use super::transport::{TransportReader, TransportWriter};

/// Plaintext that is sealed and handed to the kernel at once: a chunk of a
/// file, with what stands before it.
const WRITE_BYTES: usize = 1024 * 1024 + 4096;
/// A reader that asks for so much has its bytes opened in its own buffer.
const IN_PLACE_BYTES: usize = 64 * 1024;
/// Room for what has come from the kernel. Every session has one; bytes in bulk are
/// read in place.
const ARRIVED_BYTES: usize = 64 * 1024;
/// Bytes asked of the kernel between two reads in place: what they would have
/// taken has to be copied.
const BETWEEN_BYTES: usize = 32 * 1024;

/// TLS 1.3 over one path: two halves that can be used at the same time. The
/// connection lasts as long as either.
pub(crate) type SealedStream = Box<Join<SealedReader, SealedWriter>>;

/// What the peer sends. Ends when the peer has said that nothing more follows;
/// a connection that merely ends is an error.
pub(crate) struct SealedReader {
    opener: Opener,
    transport: TransportReader,
    arrived: Arrived,
    failed: Option<io::Error>,
}

/// What the peer is sent. Flush what must arrive; shut it down to end it.
pub(crate) struct SealedWriter {
    sealer: Sealer,
    transport: TransportWriter,
    shut_down: bool,
}

/// What came from the kernel and has not been handed out.
#[derive(Debug)]
pub(super) struct Arrived {
    bytes: Vec<u8>,
    /// Where plaintext lies.
    opened: Range<usize>,
    /// Where ciphertext lies, behind it.
    sealed: Range<usize>,
    /// How much is asked for next.
    ask_bytes: usize,
}

impl Default for Arrived {
    fn default() -> Self {
        Self {
            bytes: vec![0; ARRIVED_BYTES],
            opened: 0..0,
            sealed: 0..0,
            ask_bytes: ARRIVED_BYTES,
        }
    }
}

impl Arrived {
    pub(super) fn sealed(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.sealed.clone()).unwrap_or_default()
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.sealed.start += count;
    }

    /// Room behind what is there for one record at least, when nothing is
    /// opened. What is there, which is less than a record, moves to the front.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.sealed.is_empty() {
            self.sealed = 0..0;
        }
        if self.bytes.len() - self.sealed.end < LONGEST_RECORD_BYTES {
            self.bytes.copy_within(self.sealed.clone(), 0);
            self.sealed = 0..self.sealed.len();
        }
        let room = self.bytes.get_mut(self.sealed.end..).unwrap_or_default();
        let asked = room.len().min(self.ask_bytes.max(LONGEST_RECORD_BYTES));
        room.get_mut(..asked).unwrap_or_default()
    }

    /// How many bytes have come into the buffer.
    pub(super) fn add(&mut self, count: usize) {
        self.sealed.end += count;
        self.ask_bytes = (self.ask_bytes * 2).min(ARRIVED_BYTES);
    }

    /// Keeps the beginning of a record that came into another buffer.
    fn keep(&mut self, begun: &[u8]) {
        let kept = self.bytes.get_mut(..begun.len()).unwrap_or_default();
        kept.copy_from_slice(begun);
        self.sealed = 0..begun.len();
        self.ask_bytes = BETWEEN_BYTES;
    }

    /// Hands out what is opened, as far as it fits.
    fn hand_out(&mut self, buffer: &mut ReadBuf<'_>) {
        let opened = self.bytes.get(self.opened.clone()).unwrap_or_default();
        let count = opened.len().min(buffer.remaining());
        buffer.put_slice(opened.get(..count).unwrap_or_default());
        self.opened.start += count;
    }

    /// Opens the first record, when nothing else is opened. `false` when it is
    /// not there as a whole.
    fn open(&mut self, opener: &mut Opener) -> io::Result<bool> {
        let Some(record) = opener.open(self.sealed(), 0).map_err(super::invalid)? else {
            return Ok(false);
        };
        let start = self.sealed.start;
        self.opened = start..start + record.data_bytes;
        self.sealed.start += record.record_bytes;
        Ok(true)
    }
}

/// What follows a handshake over `transport`.
pub(super) fn stream(
    (opener, sealer): (Opener, Sealer),
    transport: (TransportReader, TransportWriter),
    arrived: Arrived,
) -> SealedStream {
    let reader = SealedReader {
        opener,
        transport: transport.0,
        arrived,
        failed: None,
    };
    let writer = SealedWriter {
        sealer,
        transport: transport.1,
        shut_down: false,
    };
    Box::new(tokio::io::join(reader, writer))
}

impl SealedReader {
    /// Hands out what has arrived until the buffer is full.
    fn take(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        self.arrived.hand_out(buffer);
        while buffer.remaining() > 0
            && !self.opener.peer_closed()
            && self.arrived.open(&mut self.opener)?
        {
            self.arrived.hand_out(buffer);
        }
        Ok(())
    }

    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = ReadBuf::new(self.arrived.room());
        let count = ready!(self.transport.poll_some(context, &mut room))?;
        self.arrived.add(count);
        Poll::Ready(Ok(()))
    }

    /// Has the kernel write into the buffer, and opens there what has come, each
    /// record behind the plaintext of the one before.
    fn poll_in_place(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.initialize_unfilled();
        let begun = self.arrived.sealed();
        let (front, behind) = room.split_at_mut(begun.len());
        let mut behind = ReadBuf::new(behind);
        let count = ready!(self.transport.poll_some(context, &mut behind))?;
        front.copy_from_slice(begun);
        let end = begun.len() + count;
        let opened_bytes = self.open_in_place(room.get_mut(..end).unwrap_or_default());
        buffer.advance(opened_bytes);
        Poll::Ready(Ok(()))
    }

    /// Opens the records in `room`, and has their plaintext at its start. Returns
    /// how much that is.
    pub(super) fn open_in_place(&mut self, room: &mut [u8]) -> usize {
        let (mut start, mut opened) = (0, 0);
        let begun = loop {
            // Nothing counts behind an end, however much there is.
            if self.opener.peer_closed() {
                break &[][..];
            }
            let behind = room.get_mut(opened..).unwrap_or_default();
            match self.opener.open(behind, start - opened) {
                Ok(Some(record)) => {
                    start += record.record_bytes;
                    opened += record.data_bytes;
                }
                Ok(None) => break room.get(start..).unwrap_or_default(),
                Err(error) => {
                    self.failed = Some(super::invalid(error));
                    break &[];
                }
            }
        };
        self.arrived.keep(begun);
        opened
    }
}

impl AsyncRead for SealedReader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        loop {
            if this.failed.is_none() {
                this.failed = this.take(buffer).err();
            }
            if buffer.filled().len() > before {
                // What came before an error is still good.
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = &mut this.failed {
                let again = io::ErrorKind::NotConnected.into();
                return Poll::Ready(Err(std::mem::replace(error, again)));
            }
            if this.opener.peer_closed() {
                return this.transport.poll_ended(context).map(Ok);
            }
            if buffer.remaining() < IN_PLACE_BYTES {
                ready!(this.poll_fill(context))?;
            } else {
                ready!(this.poll_in_place(context, buffer))?;
            }
        }
    }
}

impl SealedWriter {
    /// Hands all that is sealed to the kernel.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.sealer.sealed().is_empty() {
            let transport = Pin::new(&mut self.transport);
            let count = ready!(transport.poll_write(context, self.sealer.sealed()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sealer.sent(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SealedWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        let bytes = bytes.get(..WRITE_BYTES).unwrap_or(bytes);
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if this.shut_down {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let sealed = this.sealer.seal(bytes).map_err(not_sealed);
        // The next call writes what the kernel does not take now.
        let sent = this.poll_send(context);
        sealed?;
        match sent {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(bytes.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.transport).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        if !this.shut_down {
            this.shut_down = true;
            this.sealer.close().map_err(not_sealed)?;
            ready!(this.poll_send(context))?;
        }
        Pin::new(&mut this.transport).poll_shutdown(context)
    }
}

fn not_sealed(error: SealError) -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, error)
}

impl fmt::Debug for SealedReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SealedReader")
            .field(&self.transport)
            .finish()
    }
}

impl fmt::Debug for SealedWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SealedWriter")
            .field(&self.transport)
            .finish()
    }
}
