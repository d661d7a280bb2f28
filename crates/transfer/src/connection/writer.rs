//! The one task that writes to the connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::connection::{Bulk, Connection};
use crate::protocol::frame;
use crate::protocol::message::Message;
use crate::rate_limit::{RateLimit, SLICE_BYTES};

/// While files are under way the peer hears something at least this often: the
/// more often, the sooner it notices that the way is broken.
const ALIVE_INTERVAL: Duration = Duration::from_millis(250);

/// So much of what goes ahead of an answer is written, and with that sealed, for
/// itself: nothing of a record can be read before all of it has come, and a new
/// connection does not send a whole one, of 16 KiB, without waiting.
const FIRST_BYTES: usize = 4 * 1024;

/// Writes what carries files. Their bytes count as the connection takes them: on
/// a slow line a chunk takes seconds.
async fn write_bulk<W: AsyncWrite + Unpin>(
    stream: &mut W,
    bulk: &Bulk,
    limit: &RateLimit,
) -> io::Result<()> {
    let mut rest = bulk.frame.bytes();
    let mut uncounted_bytes = bulk.file_bytes;
    let mut is_first = bulk.is_early;
    while !rest.is_empty() {
        // A list of files is none of their bytes: until it has come, nobody is asked.
        let is_limited = limit.is_set() && bulk.frame.carries_files();
        let most = match (std::mem::take(&mut is_first), is_limited) {
            (true, _) => FIRST_BYTES,
            (false, true) => SLICE_BYTES,
            (false, false) => rest.len(),
        };
        let most = rest.len().min(most);
        if is_limited {
            limit.pass(most).await;
        }
        let (mut slice, behind) = rest.split_at(most);
        while !slice.is_empty() {
            let written = stream.write(slice).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let counted = uncounted_bytes.min(written as u64);
            match bulk.is_early {
                true => bulk.transfer.progress.add_early(counted),
                false => bulk.transfer.progress.add_bytes(counted),
            }
            uncounted_bytes -= counted;
            slice = slice.split_at(written).1;
        }
        if is_limited {
            stream.flush().await?;
        }
        rest = behind;
    }
    Ok(())
}

/// Writes until a [`Message::Close`] has gone out. Control messages pass files
/// at every frame. While files are under way, as `is_moving` tells, the peer hears
/// something all the time.
pub(crate) async fn write<W: AsyncWrite + Unpin>(
    mut stream: W,
    connection: Arc<Connection>,
    mut bulk: mpsc::Receiver<Bulk>,
    is_moving: impl Fn() -> bool,
) -> io::Result<()> {
    loop {
        let next = match bulk.try_recv() {
            Ok(next) => Some(next),
            Err(_) => {
                stream.flush().await?;
                tokio::select! {
                    () = connection.outbox.filled.notified() => None,
                    next = bulk.recv() => next,
                    () = sleep(ALIVE_INTERVAL), if is_moving() => {
                        connection.say(Message::Alive);
                        None
                    }
                }
            }
        };
        // After the frame was taken: what was said before it goes before it.
        while let Some(message) = connection.outbox.pop() {
            let encoded = frame::encode_message(&message).map_err(io::Error::other)?;
            stream.write_all(&encoded).await?;
            if matches!(message, Message::Close { .. }) {
                stream.flush().await?;
                return stream.shutdown().await;
            }
        }
        if let Some(next) = next
            && !next.transfer.is_stopped()
        {
            write_bulk(&mut stream, &next, &connection.resources.send).await?;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use super::*;
    use crate::connection::Frame;
    use crate::protocol::manifest::ManifestBuilder;
    use crate::protocol::message::{Side, TransferId};
    use crate::transfer::Transfer;

    /// Takes everything, and keeps how much each time.
    struct Writes(Vec<usize>);

    impl AsyncWrite for Writes {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.push(bytes.len());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn the_first_bytes_ahead_of_an_answer_can_be_read_without_the_rest() {
        const BYTES: usize = 100_000;
        let manifest = Arc::new(ManifestBuilder::default().build());
        let id = TransferId::first(Side::Initiator);
        for (is_early, expected) in [
            (true, &[FIRST_BYTES, BYTES - FIRST_BYTES][..]),
            (false, &[BYTES]),
        ] {
            let bulk = Bulk {
                transfer: Arc::new(Transfer::new(id, &manifest, crate::ResumeState::default())),
                frame: Frame::Message(vec![0; BYTES]),
                file_bytes: BYTES as u64,
                is_early,
            };
            let mut writes = Writes(Vec::new());
            let limit = RateLimit::default();
            write_bulk(&mut writes, &bulk, &limit).await.unwrap();
            assert_eq!(writes.0, expected);
            let done = || bulk.transfer.progress_now().bytes_done;
            assert_eq!(done(), if is_early { 0 } else { BYTES as u64 });
            bulk.transfer.progress.count_early();
            assert_eq!(done(), BYTES as u64);
        }
    }
}
