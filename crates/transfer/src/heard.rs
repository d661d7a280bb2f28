//! When the peer was last heard, as far as that is up to the peer.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, ReadBuf};

/// Since when a reader waits for the peer in vain; nothing while this side has
/// something to read, or does not want to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Silence(Arc<Mutex<Option<Instant>>>);

impl Silence {
    /// How long the peer has been waited for.
    pub(crate) fn lasts(&self) -> Duration {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The peer owes something from now on.
    pub(crate) fn restart(&self) {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *since = since.map(|_| Instant::now());
    }

    fn note(&self, is_silent: bool) {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *since = is_silent.then(|| since.unwrap_or_else(Instant::now));
    }
}

/// A stream that notes how long it is waited for.
pub(crate) struct Heard<R> {
    stream: R,
    silence: Silence,
}

impl<R> Heard<R> {
    pub(crate) const fn new(stream: R, silence: Silence) -> Self {
        Self { stream, silence }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Heard<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        this.silence.note(read.is_pending());
        read
    }
}
