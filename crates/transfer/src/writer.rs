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

async fn write_frame<W: AsyncWrite + Unpin>(
    stream: &mut W,
    frame: &[u8],
    limit: &Throttle,
) -> io::Result<()> {
    if !limit.is_set() {
        return stream.write_all(frame).await;
    }
    for slice in frame.chunks(SLICE_BYTES) {
        limit.pass(slice.len()).await;
        stream.write_all(slice).await?;
        stream.flush().await?;
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
            write_frame(&mut stream, next.frame.bytes(), &link.resources.send).await?;
            next.flight.add_bytes(next.file_bytes);
        }
    }
}
