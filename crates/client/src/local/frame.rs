//! Messages on a stream of bytes: JSON behind its length.
//!
//! ```text
//! | length: u32, big endian | JSON |
//! ```

use std::io;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use zeroize::Zeroizing;

/// The most bytes of a message. A large offer, with 250,000 long paths, is the largest.
const MESSAGE_BYTES_MAX: u32 = 64 * 1024 * 1024;
/// A small message fits in, so that nothing of it is left behind when the buffer grows.
const USUAL_BYTES: usize = 4 * 1024;
/// How long the other side may take no bytes.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

const LENGTH_BYTES: usize = 4;

/// Writes a message. What it was is wiped from memory, because it may be recovery words.
pub(super) async fn write<W: AsyncWrite + Unpin>(
    stream: &mut W,
    message: &impl Serialize,
) -> io::Result<()> {
    let mut frame = Zeroizing::new(Vec::with_capacity(USUAL_BYTES));
    frame.extend_from_slice(&[0; LENGTH_BYTES]);
    serde_json::to_writer(&mut *frame, message)?;
    let length = u32::try_from(frame.len() - LENGTH_BYTES).unwrap_or(u32::MAX);
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::other("a message is too long"));
    }
    let (prefix, _) = frame.split_at_mut(LENGTH_BYTES);
    prefix.copy_from_slice(&length.to_be_bytes());
    let mut rest = frame.as_slice();
    while !rest.is_empty() {
        let written = timeout(WRITE_TIMEOUT, stream.write(rest)).await??;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// Reads the next message; `None` at the end of the stream.
pub(super) async fn read<R: AsyncRead + Unpin, M: DeserializeOwned>(
    stream: &mut R,
) -> io::Result<Option<M>> {
    let length = match stream.read_u32().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::other("a message is too long"));
    }
    // It grows with what comes, not with what was announced.
    let mut message = Zeroizing::new(Vec::with_capacity(USUAL_BYTES));
    let mut bytes = stream.take(u64::from(length));
    bytes.read_to_end(&mut message).await?;
    if message.len() as u64 != u64::from(length) {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&message)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_arrive_whole_and_in_order() {
        let (mut one, mut other) = tokio::io::duplex(7);
        let long = "x".repeat(10_000);
        let sent = [long.clone(), String::new(), "end".to_owned()];
        let writing = async {
            for message in &sent {
                write(&mut one, message).await.unwrap();
            }
            drop(one);
        };
        let reading = async {
            let mut received = Vec::new();
            while let Some(message) = read::<_, String>(&mut other).await.unwrap() {
                received.push(message);
            }
            received
        };
        let ((), received) = tokio::join!(writing, reading);
        assert_eq!(received, sent);
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused() {
        let too_long = (MESSAGE_BYTES_MAX + 1).to_be_bytes();
        for (bytes, is_end) in [
            (&too_long[..], false),
            (&[0, 0, 0, 2, b'}', b'{'], false),
            (&[0, 0, 0, 2, b'1'], true),
            (&[0, 0], true),
            (&[], true),
        ] {
            let read = read::<_, u8>(&mut &*bytes).await;
            assert_eq!(matches!(read, Ok(None)), is_end, "{bytes:?}");
            assert_eq!(read.is_err(), !is_end, "{bytes:?}");
        }
    }
}
