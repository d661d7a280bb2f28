//! The relay: a connection to the server that, once both sides are there,
//! carries the bytes of the session between them. The session's own TLS runs
//! inside, so the relay sees only ciphertext.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pinhole_proto::frame::Decoder;
use pinhole_proto::rendezvous::{ClientMessage, Refusal, RelayToken, ServerMessage};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinSet;
use tracing::debug;

use crate::rendezvous::server::{RedialError, Server, ServerStream};
use crate::rendezvous::wire::{self, WireError};

/// Why the other side was not met at the relay.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Redial(#[from] RedialError),
}

/// A raw byte stream to the peer, through the server.
#[derive(Debug)]
pub(crate) struct RelayStream {
    /// Bytes of the peer that came together with the server's last message.
    ahead: io::Cursor<Vec<u8>>,
    stream: ServerStream,
    local: SocketAddr,
    remote: SocketAddr,
}

/// A connection to the server that saves the way to the relay.
#[derive(Debug)]
pub(crate) enum Ahead {
    /// It observes a port.
    Observer(Box<ServerStream>),
    /// It is being made.
    Approach(Approach),
}

/// A connection to the server that is made while the two sides are introduced.
///
/// It begins as an observation connection, because the server waits only a moment for the
/// first message of any other. The answer is read together with that of the relay.
#[derive(Debug)]
pub(crate) struct Approach(JoinSet<Result<ServerStream, RelayError>>);

impl Approach {
    /// Begins to connect. Ends with the value.
    pub(crate) fn begin(server: Arc<Server>) -> Self {
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut stream = server.redial().await?;
            wire::write_message(&mut stream, &ClientMessage::Observe).await?;
            Ok(stream)
        });
        Self(task)
    }

    async fn connected(mut self) -> Result<ServerStream, RelayError> {
        // A task that panicked is as good as a connection that was closed.
        let ended = self.0.join_next().await.and_then(Result::ok);
        ended.unwrap_or(Err(WireError::Closed.into()))
    }
}

impl RelayStream {
    /// Waits at the relay for the other side, as long as it takes or the server
    /// allows. What is there `ahead` saves the way.
    pub(crate) async fn open(
        server: &Server,
        ahead: Option<Ahead>,
        token: RelayToken,
    ) -> Result<Self, RelayError> {
        let met = match ahead {
            Some(Ahead::Observer(observer)) => Self::meet(*observer, token).await,
            Some(Ahead::Approach(approach)) => Self::meet_after(approach, token).await,
            None => return Self::meet(server.redial().await?, token).await,
        };
        match met {
            // It has died unnoticed, and the token is as good as before.
            Err(RelayError::Wire(error)) => {
                debug!(%error, "an observer was gone");
                Self::meet(server.redial().await?, token).await
            }
            met => met,
        }
    }

    async fn meet(mut stream: ServerStream, token: RelayToken) -> Result<Self, RelayError> {
        wire::write_message(&mut stream, &ClientMessage::Relay { token }).await?;
        Self::paired(stream, wire::server_decoder()).await
    }

    /// The same, on a connection that has not read yet from where it comes.
    async fn meet_after(approach: Approach, token: RelayToken) -> Result<Self, RelayError> {
        let mut stream = approach.connected().await?;
        wire::write_message(&mut stream, &ClientMessage::Relay { token }).await?;
        let mut decoder = wire::server_decoder();
        match wire::read_message(&mut stream, &mut decoder).await? {
            ServerMessage::Observed { .. } => Self::paired(stream, decoder).await,
            ServerMessage::Refused { reason } => Err(reason.into()),
            _ => Err(WireError::Unexpected.into()),
        }
    }

    async fn paired(mut stream: ServerStream, mut decoder: Decoder) -> Result<Self, RelayError> {
        let tcp = stream.get_ref().0.get_ref();
        let addresses = (tcp.local_addr(), tcp.peer_addr());
        match wire::read_message(&mut stream, &mut decoder).await? {
            ServerMessage::RelayPaired => {}
            ServerMessage::Refused { reason } => return Err(reason.into()),
            _ => return Err(WireError::Unexpected.into()),
        }
        Ok(Self {
            ahead: io::Cursor::new(decoder.into_rest()),
            local: addresses.0.map_err(WireError::from)?,
            remote: addresses.1.map_err(WireError::from)?,
            stream,
        })
    }

    /// Our end of the connection to the relay.
    pub(crate) const fn local(&self) -> SocketAddr {
        self.local
    }

    /// The relay's address.
    pub(crate) const fn remote(&self) -> SocketAddr {
        self.remote
    }
}

impl AsyncRead for RelayStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let ahead = Pin::new(&mut self.ahead).poll_read(context, buffer);
        if ahead.is_pending() || buffer.filled().len() > before {
            return ahead;
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for RelayStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use pinhole_proto::frame::{FrameKind, encode};
    use pinhole_proto::tls::{ALPN_RENDEZVOUS, Expect, server_config};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::identity::generate_identity;

    /// A server that answers every connection's first message with these bytes
    /// and, once it has read that message, ends it.
    async fn answering(bytes: Vec<u8>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let identity = generate_identity().unwrap().0;
        let config = server_config(&identity, Expect::AnyKey, ALPN_RENDEZVOUS).unwrap();
        let acceptor = TlsAcceptor::from(config);
        tokio::spawn(async move {
            loop {
                let tcp = listener.accept().await.unwrap().0;
                let Ok(mut stream) = acceptor.accept(tcp).await else {
                    continue;
                };
                if !matches!(stream.read(&mut [0; 1024]).await, Ok(1..)) {
                    continue;
                }
                stream.write_all(&bytes).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        let ours = generate_identity().unwrap().0;
        let connected = Server::connect(&address.parse().unwrap(), Expect::AnyKey, &ours).await;
        connected.unwrap().0
    }

    #[tokio::test]
    async fn the_peer_s_first_bytes_may_come_with_the_server_s_last_message() {
        let mut bytes = encode(FrameKind::Server, &ServerMessage::RelayPaired).unwrap();
        bytes.extend(b"and the peer speaks");
        let server = answering(bytes).await;
        let token = RelayToken::from_random([1; 32]);
        let mut stream = RelayStream::open(&server, None, token).await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"and the peer speaks");
    }

    #[tokio::test]
    async fn a_connection_made_ahead_hears_both_answers_in_any_pieces() {
        let observed = ServerMessage::Observed {
            address: ([192, 0, 2, 1], 4747).into(),
            other_address: None,
            observer_ports: Vec::new(),
        };
        let mut bytes = encode(FrameKind::Server, &observed).unwrap();
        bytes.extend(encode(FrameKind::Server, &ServerMessage::RelayPaired).unwrap());
        bytes.extend(b"and the peer speaks");
        let server = Arc::new(answering(bytes).await);
        let approach = Approach::begin(server.clone());
        let token = RelayToken::from_random([1; 32]);
        let opened = RelayStream::open(&server, Some(Ahead::Approach(approach)), token).await;
        let mut heard = Vec::new();
        opened.unwrap().read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"and the peer speaks");
    }

    #[tokio::test]
    async fn a_refused_token_is_told_as_such() {
        let reason = Refusal::Token;
        let bytes = encode(FrameKind::Server, &ServerMessage::Refused { reason }).unwrap();
        let server = answering(bytes).await;
        let opened = RelayStream::open(&server, None, RelayToken::from_random([1; 32])).await;
        let refused = matches!(opened, Err(RelayError::Refused(Refusal::Token)));
        assert!(refused, "{opened:?}");
    }
}
