//! Pipes through which Linux moves bytes between connections without copying them.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The pipes of a server: each takes two open files.
#[derive(Debug)]
pub(super) struct Pipes(Arc<Semaphore>);

impl Pipes {
    /// At most so many at once.
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))))
    }

    /// A pipe, if one can be had.
    pub(super) fn open(&self) -> Option<Pipe> {
        let permit = Arc::clone(&self.0).try_acquire_owned().ok()?;
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        Some(Pipe {
            reader,
            writer,
            held: 0,
            _permit: permit,
        })
    }

    /// Gives out no more pipes.
    pub(super) fn close(&self) {
        self.0.close();
    }
}

/// A pipe, with the bytes that are on their way through it.
#[derive(Debug)]
pub(super) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    held: usize,
    _permit: OwnedSemaphorePermit,
}

impl Pipe {
    /// Takes in at most so many bytes that have arrived, and waits for them if need be.
    /// Returns how many: 0 at the end.
    ///
    /// The pipe has to be empty, because a full one would look like a connection on which
    /// nothing has arrived.
    pub(super) async fn fill(&mut self, from: &TcpStream, most: usize) -> io::Result<usize> {
        let step = || Ok(splice(from, None, &self.writer, None, most, flags())?);
        self.held = from.async_io(Interest::READABLE, step).await?;
        Ok(self.held)
    }

    /// Passes on all that it holds.
    pub(super) async fn drain(&mut self, to: &TcpStream) -> io::Result<()> {
        while self.held > 0 {
            let held = self.held;
            let step = || Ok(splice(&self.reader, None, to, None, held, flags())?);
            match to.async_io(Interest::WRITABLE, step).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                passed_on => self.held -= passed_on,
            }
        }
        Ok(())
    }
}

/// A pipe waits by itself unless it is told not to.
const fn flags() -> SpliceFlags {
    SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK)
}
