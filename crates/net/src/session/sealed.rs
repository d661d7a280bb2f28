//! One connection to the peer, once both ends are authenticated: two halves that
//! share nothing but the keys, so that neither waits for the other's socket.

use std::fmt;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::READ_BUFFER_BYTES;
use super::tls::{LONGEST_RECORD_BYTES, Outgoing, Step, Tls};
use super::transport::{TransportReader, TransportWriter};

/// Plaintext that is sealed and handed to the kernel at once: a chunk of a
/// file, with what stands before it.
const WRITE_BYTES: usize = 1024 * 1024 + 4096;

/// Locked only to seal or to open, never over a system call.
#[derive(Clone)]
struct SharedTls(Arc<Mutex<Tls>>);

impl SharedTls {
    fn lock(&self) -> MutexGuard<'_, Tls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// TLS 1.3 over one path.
#[derive(Debug)]
pub(crate) struct SealedStream(Box<(SealedReader, SealedWriter)>);

/// What the peer sends. Ends when the peer has said that nothing more follows;
/// a connection that merely ends is an error.
pub(crate) struct SealedReader {
    tls: SharedTls,
    transport: TransportReader,
    ciphertext: Ciphertext,
    /// Opened, but more than was asked for.
    plaintext: Vec<u8>,
    taken_bytes: usize,
    failed: Option<io::Error>,
}

/// What the peer is sent. Flush what must arrive; shut it down to end it.
pub(crate) struct SealedWriter {
    tls: SharedTls,
    transport: TransportWriter,
    ciphertext: Ciphertext,
    shut_down: bool,
}

/// Ciphertext on its way from or to the kernel.
#[derive(Debug, Default)]
pub(super) struct Ciphertext {
    bytes: Vec<u8>,
    /// Where it lies.
    filled: Range<usize>,
}

impl Ciphertext {
    pub(super) fn for_reading() -> Self {
        Self {
            bytes: vec![0; READ_BUFFER_BYTES],
            filled: 0..0,
        }
    }

    pub(super) fn filled(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.filled.clone()).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filled.is_empty()
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.filled.start += count;
    }

    /// Room behind what is there for one record at least. What is there, which
    /// is less than a record, moves to the front.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.bytes.len() - self.filled.end < LONGEST_RECORD_BYTES {
            self.bytes.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
        }
        if self.is_empty() {
            self.filled = 0..0;
        }
        self.bytes.get_mut(self.filled.end..).unwrap_or_default()
    }

    pub(super) fn add(&mut self, count: usize) {
        self.filled.end += count;
    }

    /// Seals behind what is queued, when nothing is there.
    fn seal(&mut self, tls: &mut Tls, outgoing: Outgoing<'_>) -> io::Result<()> {
        let room_bytes = outgoing.sealed_bytes();
        if self.bytes.len() < room_bytes {
            self.bytes.resize(room_bytes, 0);
        }
        let sealed = tls.seal(outgoing, &mut self.bytes);
        self.filled = 0..*sealed.as_ref().unwrap_or(&0);
        let queued = tls.take_queued();
        if !queued.is_empty() {
            let sealed = self.filled().to_vec();
            self.bytes = [queued, sealed].concat();
            self.filled = 0..self.bytes.len();
        }
        sealed.map(drop)
    }
}

impl SealedStream {
    pub(super) fn new(
        tls: Tls,
        transport: (TransportReader, TransportWriter),
        ciphertext: Ciphertext,
        plaintext: Vec<u8>,
    ) -> Self {
        let tls = SharedTls(Arc::new(Mutex::new(tls)));
        let reader = SealedReader {
            tls: tls.clone(),
            transport: transport.0,
            ciphertext,
            plaintext,
            taken_bytes: 0,
            failed: None,
        };
        let writer = SealedWriter {
            tls,
            transport: transport.1,
            ciphertext: Ciphertext::default(),
            shut_down: false,
        };
        Self(Box::new((reader, writer)))
    }

    /// Two halves that can be used at the same time. The connection lasts as
    /// long as either.
    pub(crate) fn into_split(self) -> (SealedReader, SealedWriter) {
        *self.0
    }

    #[cfg(test)]
    pub(super) fn refresh_keys(&mut self) {
        self.0.1.tls.lock().refresh_keys();
    }
}

impl SealedReader {
    /// Hands out what was opened before; `false` when nothing was.
    fn take_opened(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let opened = self.plaintext.get(self.taken_bytes..).unwrap_or_default();
        let count = opened.len().min(buffer.remaining());
        buffer.put_slice(opened.get(..count).unwrap_or_default());
        self.taken_bytes += count;
        if self.taken_bytes == self.plaintext.len() {
            self.plaintext.clear();
            self.taken_bytes = 0;
        }
        count > 0
    }

    /// Opens what has arrived until the buffer is full. Returns whether
    /// anything can come after what is in the buffer now.
    fn open(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<bool> {
        let (ciphertext, plaintext) = (&mut self.ciphertext, &mut self.plaintext);
        let mut tls = self.tls.lock();
        while buffer.remaining() > 0 && !tls.peer_closed {
            let (done_bytes, step) = tls.step(ciphertext.filled(), |opened| {
                let fits = opened.len().min(buffer.remaining());
                let (now, later) = opened.split_at(fits);
                buffer.put_slice(now);
                plaintext.extend_from_slice(later);
            });
            ciphertext.consume(done_bytes);
            match step? {
                Step::Again => {}
                Step::Blocked | Step::Ready | Step::Closed => break,
            }
        }
        Ok(!tls.peer_closed)
    }

    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = ReadBuf::new(self.ciphertext.room());
        ready!(Pin::new(&mut self.transport).poll_read(context, &mut room))?;
        let count = room.filled().len();
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.ciphertext.add(count);
        Poll::Ready(Ok(()))
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
        loop {
            if this.take_opened(buffer) {
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = this.failed.take() {
                return Poll::Ready(Err(error));
            }
            let before = buffer.filled().len();
            let goes_on = this.open(buffer);
            if buffer.filled().len() > before {
                // What came before an error is still good.
                this.failed = goes_on.err();
                return Poll::Ready(Ok(()));
            }
            if !goes_on? {
                return this.transport.poll_ended(context).map(Ok);
            }
            ready!(this.poll_fill(context))?;
        }
    }
}

impl SealedWriter {
    /// Hands all ciphertext to the kernel.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.ciphertext.is_empty() {
            let transport = Pin::new(&mut self.transport);
            let count = ready!(transport.poll_write(context, self.ciphertext.filled()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.ciphertext.consume(count);
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
        let outgoing = Outgoing::Plaintext(bytes);
        this.ciphertext.seal(&mut this.tls.lock(), outgoing)?;
        // Whatever the kernel does not take now goes with the next call.
        match this.poll_send(context) {
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
            let sealed = this
                .ciphertext
                .seal(&mut this.tls.lock(), Outgoing::CloseNotify);
            if let Err(error) = sealed {
                // The reader has told why; the alert that says so is queued.
                tracing::debug!(%error, "ends without a close_notify");
            }
            ready!(this.poll_send(context))?;
        }
        Pin::new(&mut this.transport).poll_shutdown(context)
    }
}

impl AsyncRead for SealedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for SealedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0.1).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0.1).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0.1).poll_shutdown(context)
    }
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
