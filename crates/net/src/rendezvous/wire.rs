//! Messages of the rendezvous protocol over any byte stream.

use std::io;
use std::time::Duration;

use pinhole_proto::frame::{Decoder, FrameError, FrameKind, encode};
use pinhole_proto::rendezvous::{ClientMessage, ServerMessage};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// Bytes asked for in one read.
const READ_BYTES: usize = 4096;

/// Why no message could be read or written. The connection is then of no use.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other end closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The connection broke.
    #[error("the connection to the server broke: {0}")]
    Io(#[from] io::Error),
    /// What arrived is not a message.
    #[error("the server sent something that is not a message: {0}")]
    Frame(#[from] FrameError),
    /// A message that has no place here.
    #[error("the server sent an unexpected message")]
    Unexpected,
    /// Nothing arrived for longer than the server is ever silent.
    #[error("the server is silent")]
    Silent,
}

/// The next message from the server. Dropping the future loses nothing: what
/// was read is in the decoder.
pub(crate) async fn read_message(
    stream: &mut (impl AsyncRead + Unpin),
    decoder: &mut Decoder,
) -> Result<ServerMessage, WireError> {
    loop {
        if let Some(message) = decoder.next_message()? {
            return Ok(message);
        }
        let mut bytes = [0; READ_BYTES];
        let count = match stream.read(&mut bytes).await {
            Ok(0) => return Err(WireError::Closed),
            // A server that was killed does not say goodbye in TLS.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(WireError::Closed);
            }
            read => read?,
        };
        decoder.feed(bytes.get(..count).unwrap_or_default());
    }
}

/// As [`read_message`], but a server that says nothing for `limit` is gone.
pub(crate) async fn read_message_within(
    limit: Duration,
    stream: &mut (impl AsyncRead + Unpin),
    decoder: &mut Decoder,
) -> Result<ServerMessage, WireError> {
    let message = timeout(limit, read_message(stream, decoder)).await;
    message.unwrap_or(Err(WireError::Silent))
}

/// Sends one message.
pub(crate) async fn write_message(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &ClientMessage,
) -> Result<(), WireError> {
    stream
        .write_all(&encode(FrameKind::Client, message)?)
        .await?;
    stream.flush().await?;
    Ok(())
}

/// A decoder for what a server sends.
pub(crate) const fn server_decoder() -> Decoder {
    Decoder::new(FrameKind::Server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_survive_any_cut_and_the_end_is_told() {
        let ping = |nonce| ServerMessage::Ping { nonce };
        let mut bytes = encode(FrameKind::Server, &ping(1)).unwrap();
        bytes.extend(encode(FrameKind::Server, &ping(2)).unwrap());
        let (mut ours, mut theirs) = tokio::io::duplex(3);
        let writer = tokio::spawn(async move { theirs.write_all(&bytes).await });
        let mut decoder = server_decoder();
        for nonce in [1, 2] {
            let message = read_message(&mut ours, &mut decoder).await.unwrap();
            assert_eq!(message, ping(nonce));
        }
        writer.await.unwrap().unwrap();
        let end = read_message(&mut ours, &mut decoder).await;
        assert!(matches!(end, Err(WireError::Closed)), "{end:?}");
    }

    #[tokio::test]
    async fn silence_is_an_error_and_loses_nothing() {
        let limit = Duration::from_millis(10);
        let ping = ServerMessage::Ping { nonce: 7 };
        let bytes = encode(FrameKind::Server, &ping).unwrap();
        let (begin, rest) = bytes.split_at(6);
        let (mut ours, mut theirs) = tokio::io::duplex(64);
        let mut decoder = server_decoder();
        theirs.write_all(begin).await.unwrap();
        let silent = read_message_within(limit, &mut ours, &mut decoder).await;
        assert!(matches!(silent, Err(WireError::Silent)), "{silent:?}");
        theirs.write_all(rest).await.unwrap();
        let message = read_message(&mut ours, &mut decoder).await.unwrap();
        assert_eq!(message, ping);
    }

    #[tokio::test]
    async fn garbage_is_an_error() {
        let (mut ours, mut theirs) = tokio::io::duplex(64);
        theirs.write_all(&[0, 0, 0, 2, 0x7f, 0]).await.unwrap();
        let end = read_message(&mut ours, &mut server_decoder()).await;
        assert!(matches!(end, Err(WireError::Frame(_))), "{end:?}");
    }
}
