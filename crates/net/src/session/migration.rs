//! The bytes of a session, which may move from one path to another.
//!
//! ```text
//! controlling          new connection               controlled
//!      │ hello{continue} ──────────────────────────────► │ its reader will go on there
//!      │ ◄───────────────────────────────────────── READY │
//!      │ its reader will go on there; writes there from now on, ends the old one
//!      │ the end of the old one ───────────────────────► │ writes there from now on
//! ```
//!
//! Each direction is read on the old path to its authenticated end, and then
//! goes on with the first byte behind hello or READY on the new one: nothing is
//! lost, repeated or reordered, and nobody waits for a round trip.
//!
//! The controlling side may give a move up (READY is late, the new connection
//! breaks) without the other one ever knowing. Therefore it begins the next only
//! when its reader has gone on, which proves that the other side's has, too: a
//! move that is agreed on but not made when the next hello comes is one that was
//! given up, and the newest is the only one that counts.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use pinhole_proto::hello::Hello;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Join, ReadBuf, join,
};
use tokio::sync::{OwnedMutexGuard, mpsc, oneshot};
use tokio::time::timeout;
use tracing::debug;

use super::tls_stream::{SealedReader, SealedStream, SealedWriter};

/// How long what was written to a path that is left may take to leave.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long the move before may take to be made, and then the other side to say
/// that it is ready for this one.
const READY_TIMEOUT: Duration = Duration::from_secs(5);
/// Moves that may be agreed on before anyone reads.
const MOVES: usize = 4;

/// The bytes of a [`Session`](super::Session): one stream each way, whatever
/// paths it takes. The two can be used at the same time; the connection lasts as
/// long as either.
pub type SessionStream = Box<Join<SessionReader, SessionWriter>>;

/// What the peer sends. Ends when the peer has said that nothing more follows;
/// a connection that merely ends is an error.
#[derive(Debug)]
pub struct SessionReader {
    current: SealedReader,
    moves: mpsc::Receiver<Agreed>,
    /// The newest of them.
    next: Option<Agreed>,
    /// Weak here and in the migrator: the connection ends with its user.
    writer: Weak<WriterSlot>,
}

/// What the peer is sent. Flush what must arrive; shut it down to end it.
#[derive(Debug)]
pub struct SessionWriter(Arc<WriterSlot>);

/// Where the session goes on, once that is certain. Dropped when it does not.
type Agreed = oneshot::Receiver<Next>;

/// The reader goes on there.
#[derive(Debug)]
struct Next {
    reader: SealedReader,
    rest: Rest,
}

/// What to do when the reader has moved on.
#[derive(Debug)]
enum Rest {
    /// Controlling side: the writer went first, and now another move may begin.
    Turn(OwnedMutexGuard<()>),
    /// Controlled side: the writer follows.
    Writer(Box<SealedWriter>),
}

/// The writer that is in use. Locked only while something is handed over,
/// never while somebody waits.
#[derive(Debug)]
struct WriterSlot(Mutex<Slot>);

#[derive(Debug)]
struct Slot {
    writer: SealedWriter,
    /// The task that waits for the writer's socket.
    waiting: Option<Waker>,
    /// Nothing more will be written.
    ended: bool,
}

/// Moves a session to another path.
#[derive(Debug)]
pub(crate) struct Migrator {
    moves: mpsc::Sender<Agreed>,
    /// Controlling side: held from hello until the reader has gone on.
    turn: Arc<tokio::sync::Mutex<()>>,
    writer: Weak<WriterSlot>,
}

/// A session that begins on this path.
pub(super) fn stream((reader, writer): (SealedReader, SealedWriter)) -> (SessionStream, Migrator) {
    let (sender, moves) = mpsc::channel(MOVES);
    let writer = Arc::new(WriterSlot(Mutex::new(Slot {
        writer,
        waiting: None,
        ended: false,
    })));
    let reader = SessionReader {
        current: reader,
        moves,
        next: None,
        writer: Arc::downgrade(&writer),
    };
    let migrator = Migrator {
        moves: sender,
        turn: Arc::default(),
        writer: Arc::downgrade(&writer),
    };
    (Box::new(join(reader, SessionWriter(writer))), migrator)
}

impl Migrator {
    /// Controlling side: says `hello` on the new path and moves there.
    pub(crate) async fn lead(&self, path: SealedStream, hello: &Hello) -> io::Result<()> {
        let turn = self.turn().await?;
        let (mut reader, mut writer) = path.into_inner();
        writer.write_all(&hello.encode()).await?;
        writer.flush().await?;
        let ready = timeout(READY_TIMEOUT, reader.read_u8()).await;
        if ready.map_err(|_| io::ErrorKind::TimedOut)?? != Hello::READY {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // The reader first: the other side ends the old path once this one has.
        // A side that does not read any more may still write.
        if let Ok(agree) = self.announce().await {
            let rest = Rest::Turn(turn);
            let _ = agree.send(Next { reader, rest });
        }
        replace(&self.writer, writer);
        Ok(())
    }

    /// Waits until the move before is made.
    pub(super) async fn turn(&self) -> io::Result<OwnedMutexGuard<()>> {
        let turn = timeout(READY_TIMEOUT, self.turn.clone().lock_owned()).await;
        turn.map_err(|_| io::ErrorKind::TimedOut.into())
    }

    /// Controlled side: agrees to move to a path on which the other side has
    /// said hello.
    pub(crate) async fn follow(&self, path: SealedStream) -> io::Result<()> {
        let (reader, mut writer) = path.into_inner();
        // Before READY, whereupon the old path may end.
        let agree = self.announce().await?;
        writer.write_all(&[Hello::READY]).await?;
        writer.flush().await?;
        let rest = Rest::Writer(Box::new(writer));
        let agreed = agree.send(Next { reader, rest });
        agreed.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Has the reader wait at the end of its path for what comes of this.
    async fn announce(&self) -> io::Result<oneshot::Sender<Next>> {
        let (agree, agreed) = oneshot::channel();
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.moves.send(agreed).await.map_err(gone)?;
        Ok(agree)
    }

    /// Returns when the session's reader is gone, and with it the session.
    pub(crate) async fn closed(&self) {
        self.moves.closed().await;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.moves.is_closed()
    }
}

impl WriterSlot {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.0.lock()
    }

    fn poll<T>(
        &self,
        context: &mut Context<'_>,
        operation: impl FnOnce(Pin<&mut SealedWriter>, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let mut slot = self.lock();
        let polled = operation(Pin::new(&mut slot.writer), context);
        slot.waiting = polled.is_pending().then(|| context.waker().clone());
        polled
    }
}

/// Has the session write to `writer` from now on, and ends the one before.
fn replace(slot: &Weak<WriterSlot>, writer: SealedWriter) {
    let slot = slot.upgrade();
    let mut left = match slot.as_ref().map(|slot| slot.lock()) {
        Some(mut slot) if !slot.ended => {
            if let Some(waiting) = slot.waiting.take() {
                waiting.wake();
            }
            std::mem::replace(&mut slot.writer, writer)
        }
        // A session that has ended ends on every path.
        _ => writer,
    };
    tokio::spawn(async move {
        let ended = timeout(LEAVE_TIMEOUT, left.shutdown()).await;
        debug!(?ended, "left a path");
    });
}

impl AsyncRead for SessionReader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let before = buffer.filled().len();
            let read = Pin::new(&mut this.current).poll_read(context, buffer);
            // After it: what is agreed on is announced before the path ends.
            while let Poll::Ready(Some(newest)) = this.moves.poll_recv(context) {
                this.next = Some(newest);
            }
            ready!(read)?;
            if buffer.filled().len() > before || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let Some(agreed) = &mut this.next else {
                return Poll::Ready(Ok(()));
            };
            let agreed = ready!(Pin::new(agreed).poll(context));
            this.next = None;
            if let Ok(next) = agreed {
                this.go_on(next);
            }
        }
    }
}

impl SessionReader {
    fn go_on(&mut self, next: Next) {
        self.current = next.reader;
        match next.rest {
            Rest::Turn(turn) => drop(turn),
            Rest::Writer(writer) => replace(&self.writer, *writer),
        }
    }
}

impl AsyncWrite for SessionWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = |writer: Pin<&mut SealedWriter>, context: &mut Context<'_>| {
            writer.poll_write(context, bytes)
        };
        self.0.poll(context, write)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll(context, SealedWriter::poll_flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().ended = true;
        self.0.poll(context, SealedWriter::poll_shutdown)
    }
}
