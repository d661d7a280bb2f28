//! The one task that writes to the connection.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::sleep,
};

use crate::{
    frame,
    link::Bulk,
    message::Message,
    open::Shared,
    throttle::{SLICE_BYTES, Throttle},
};

/// While files are under way the peer hears something at least this often: the
/// more often, the sooner it notices that the way is broken.
const ALIVE_INTERVAL: Duration = Duration::from_millis(250);

/// Writes what carries files. Their bytes count as the connection takes them: on
/// a slow line a chunk takes seconds.
async fn write_bulk<W: AsyncWrite + Unpin>(
    stream: &mut W,
    bulk: &Bulk,
    limit: &Throttle,
) -> io::Result<()> {
    let mut rest = bulk.frame.bytes();
    let mut uncounted_bytes = bulk.file_bytes;
    while !rest.is_empty() {
        let is_limited = limit.is_set();
        let most = match is_limited {
            true => rest.len().min(SLICE_BYTES),
            false => rest.len(),
        };
        limit.pass(most).await;
        let (mut slice, behind) = rest.split_at(most);
        while !slice.is_empty() {
            let written = stream.write(slice).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let counted = uncounted_bytes.min(written as u64);
            match bulk.is_ahead {
                true => bulk.flight.add_ahead(counted),
                false => bulk.flight.add_bytes(counted),
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
/// at every frame.
pub(crate) async fn write<W: AsyncWrite + Unpin>(
    mut stream: W,
    shared: Arc<Shared>,
    mut bulk: mpsc::Receiver<Bulk>,
) -> io::Result<()> {
    let link = &shared.link;
    loop {
        let next = match bulk.try_recv() {
            Ok(next) => Some(next),
            Err(_) => {
                stream.flush().await?;
                tokio::select! {
                    () = link.outbox.filled.notified() => None,
                    next = bulk.recv() => next,
                    () = sleep(ALIVE_INTERVAL), if shared.is_moving() => {
                        link.say(Message::Alive);
                        None
                    }
                }
            }
        };
        // After the frame was taken: what was said before it goes before it.
        while let Some(message) = link.outbox.pop() {
            let encoded = frame::encode_message(&message).map_err(io::Error::other)?;
            stream.write_all(&encoded).await?;
            if matches!(message, Message::Close { .. }) {
                stream.flush().await?;
                return stream.shutdown().await;
            }
        }
        if let Some(next) = next
            && next.flight.stopped().is_none()
        {
            write_bulk(&mut stream, &next, &link.resources.send).await?;
        }
    }
}
