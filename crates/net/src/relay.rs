//! The relay: a connection to the server that, once both sides are there,
//! carries the bytes of the session between them. TLS with the server ends then, and the
//! session's own takes its place, so the relay sees only ciphertext.

use std::sync::Arc;

use pinhole_proto::frame::{Decoder, FrameKind, encode};
use pinhole_proto::rendezvous::{ClientMessage, Refusal, RelayToken, ServerMessage};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
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

/// Waits at the relay for the other side, as long as it takes or the server allows, and
/// returns the connection, on which the peer's bytes come from then on. What is there
/// `ahead` saves the way.
pub(crate) async fn meet(
    server: &Server,
    ahead: Option<Ahead>,
    token: RelayToken,
) -> Result<TcpStream, RelayError> {
    let met = match ahead {
        Some(Ahead::Observer(observer)) => meet_on(*observer, token).await,
        Some(Ahead::Approach(approach)) => meet_after(approach, token).await,
        None => return meet_on(server.redial().await?, token).await,
    };
    match met {
        // It has died unnoticed, and the token is as good as before.
        Err(RelayError::Wire(error)) => {
            debug!(%error, "an observer was gone");
            meet_on(server.redial().await?, token).await
        }
        met => met,
    }
}

async fn meet_on(mut stream: ServerStream, token: RelayToken) -> Result<TcpStream, RelayError> {
    show(&mut stream, token).await?;
    paired(stream, wire::server_decoder()).await
}

/// The same, on a connection that has not read yet from where it comes.
async fn meet_after(approach: Approach, token: RelayToken) -> Result<TcpStream, RelayError> {
    let mut stream = approach.connected().await?;
    show(&mut stream, token).await?;
    let mut decoder = wire::server_decoder();
    match wire::read_message(&mut stream, &mut decoder).await? {
        ServerMessage::Observed { .. } => paired(stream, decoder).await,
        ServerMessage::Refused { reason } => Err(reason.into()),
        _ => Err(WireError::Unexpected.into()),
    }
}

/// Shows the token, which is the last that is said to the server in TLS.
async fn show(stream: &mut ServerStream, token: RelayToken) -> Result<(), WireError> {
    let message = encode(FrameKind::Client, &ClientMessage::Relay { token })?;
    stream.write_all(&message).await?;
    stream.get_mut().1.send_close_notify();
    Ok(stream.flush().await?)
}

async fn paired(mut stream: ServerStream, mut decoder: Decoder) -> Result<TcpStream, RelayError> {
    match wire::read_message(&mut stream, &mut decoder).await? {
        ServerMessage::RelayPaired => {}
        ServerMessage::Refused { reason } => return Err(reason.into()),
        _ => return Err(WireError::Unexpected.into()),
    }
    // The server ends TLS as well. The peers have their own, end to end.
    let is_over = decoder.into_rest().is_empty()
        && stream.read(&mut [0]).await.map_err(WireError::from)? == 0;
    if !is_over {
        return Err(WireError::Unexpected.into());
    }
    Ok(stream.into_inner().0.into_tcp())
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

    /// A server that answers every connection's first message with these bytes, and ends TLS
    /// and then the connection with those.
    async fn answering(bytes: Vec<u8>, after_tls: &'static [u8]) -> Server {
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
                stream.get_mut().1.send_close_notify();
                stream.flush().await.unwrap();
                let mut tcp = stream.into_inner().0;
                tcp.write_all(after_tls).await.unwrap();
                tcp.shutdown().await.unwrap();
            }
        });
        let ours = generate_identity().unwrap().0;
        let connected = Server::connect(&address.parse().unwrap(), Expect::AnyKey, &ours).await;
        connected.unwrap().0
    }

    #[tokio::test]
    async fn the_peer_s_first_bytes_may_come_with_the_server_s_last_message() {
        let bytes = encode(FrameKind::Server, &ServerMessage::RelayPaired).unwrap();
        let server = answering(bytes, b"and the peer speaks").await;
        let token = RelayToken::from_random([1; 32]);
        let mut stream = meet(&server, None, token).await.unwrap();
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
        let server = Arc::new(answering(bytes, b"and the peer speaks").await);
        let approach = Approach::begin(server.clone());
        let token = RelayToken::from_random([1; 32]);
        let opened = meet(&server, Some(Ahead::Approach(approach)), token).await;
        let mut heard = Vec::new();
        opened.unwrap().read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"and the peer speaks");
    }

    #[tokio::test]
    async fn a_refused_token_is_told_as_such() {
        let reason = Refusal::Token;
        let bytes = encode(FrameKind::Server, &ServerMessage::Refused { reason }).unwrap();
        let server = answering(bytes, b"").await;
        let opened = meet(&server, None, RelayToken::from_random([1; 32])).await;
        let refused = matches!(opened, Err(RelayError::Refused(Refusal::Token)));
        assert!(refused, "{opened:?}");
    }
}
