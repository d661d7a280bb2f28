//! A client that does nothing by itself.

use std::net::SocketAddr;

use pinhole_proto::frame::{Decoder, FrameKind, encode};
use pinhole_proto::key::PeerKey;
use pinhole_proto::name::PeerName;
use pinhole_proto::rendezvous::{
    ClientMessage, HostSharing, IntroductionId, PROTOCOL_VERSION, PeerIdentity, Reachability,
    Refusal, ServerMessage,
};
use pinhole_proto::tls::{ALPN_RENDEZVOUS, Expect, Identity, client_config, server_name};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::PATIENCE;

pub(crate) fn identity() -> Identity {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    Identity::from_pkcs8(document.as_ref()).unwrap()
}

pub(crate) fn introduction(number: u8) -> IntroductionId {
    IntroductionId::from_random([number; 16])
}

pub(crate) fn relay_only() -> Reachability {
    Reachability {
        candidates: Vec::new(),
        share_host: HostSharing::SameNetwork,
        relay: true,
    }
}

pub(crate) fn log_in(name: &str) -> ClientMessage {
    ClientMessage::LogIn {
        version: PROTOCOL_VERSION,
        name: name.parse().unwrap(),
        watch: Vec::new(),
        recovery: None,
    }
}

/// A connection from an address of loopback that stands for a network of its own.
pub(crate) async fn socket_from(own: [u8; 4], server: SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.bind(SocketAddr::from((own, 0))).ok()?;
    socket.connect(server).await.ok()
}

pub(crate) struct Client {
    pub(crate) stream: TlsStream<TcpStream>,
    pub(crate) local: SocketAddr,
    pub(crate) key: PeerKey,
    decoder: Decoder,
}

impl Client {
    /// A connection on which nothing has been said yet.
    pub(crate) async fn connect(server: SocketAddr, identity: &Identity) -> Self {
        Self::over(TcpStream::connect(server).await.unwrap(), identity).await
    }

    /// The same on this connection.
    pub(crate) async fn over(tcp: TcpStream, identity: &Identity) -> Self {
        tcp.set_nodelay(true).unwrap();
        let local = tcp.local_addr().unwrap();
        let config = client_config(identity, Expect::AnyKey, ALPN_RENDEZVOUS).unwrap();
        let handshake = TlsConnector::from(config).connect(server_name(), tcp);
        let stream = timeout(PATIENCE, handshake).await.unwrap().unwrap();
        Self {
            stream,
            local,
            key: identity.key(),
            decoder: Decoder::new(FrameKind::Server),
        }
    }

    /// A connection after its first message.
    pub(crate) async fn begin(
        server: SocketAddr,
        identity: &Identity,
        first: &ClientMessage,
    ) -> Self {
        let mut client = Self::connect(server, identity).await;
        client.say(first).await;
        client
    }

    /// The same from an address of loopback that stands for a network of its own.
    pub(crate) async fn begin_from(
        own: [u8; 4],
        server: SocketAddr,
        identity: &Identity,
        first: &ClientMessage,
    ) -> Self {
        let tcp = socket_from(own, server).await.unwrap();
        let mut client = Self::over(tcp, identity).await;
        client.say(first).await;
        client
    }

    /// The same where the server may hang up at any time.
    pub(crate) async fn try_begin_from(
        own: [u8; 4],
        server: SocketAddr,
        identity: &Identity,
        first: &ClientMessage,
    ) -> Option<Self> {
        let tcp = socket_from(own, server).await?;
        let local = tcp.local_addr().ok()?;
        let config = client_config(identity, Expect::AnyKey, ALPN_RENDEZVOUS).unwrap();
        let connector = TlsConnector::from(config);
        let mut client = Self {
            stream: connector.connect(server_name(), tcp).await.ok()?,
            local,
            key: identity.key(),
            decoder: Decoder::new(FrameKind::Server),
        };
        client.try_say(first).await.then_some(client)
    }

    /// Whether it could be said.
    pub(crate) async fn try_say(&mut self, message: &ClientMessage) -> bool {
        let frame = encode(FrameKind::Client, message).unwrap();
        let said = self.stream.write_all(&frame).await;
        // A token is the last that is said in TLS.
        if matches!(message, ClientMessage::Relay { .. }) {
            self.stream.get_mut().1.send_close_notify();
        }
        said.is_ok() && self.stream.flush().await.is_ok()
    }

    /// A connection that asks for a name and has not read the answer.
    pub(crate) async fn asking(server: SocketAddr, identity: &Identity, name: &str) -> Self {
        Self::begin(server, identity, &log_in(name)).await
    }

    /// A session that has read everything up to its first ping, and answered it.
    pub(crate) async fn log_in(server: SocketAddr, identity: &Identity, name: &str) -> Self {
        let mut client = Self::asking(server, identity, name).await;
        client.welcome().await;
        client
    }

    /// Reads the answer to a login; returns who is online.
    pub(crate) async fn welcome(&mut self) -> Vec<PeerIdentity> {
        let mut online = Vec::new();
        loop {
            match self.next().await.expect("the connection has ended") {
                ServerMessage::LoggedIn { observed, .. } => assert_eq!(observed, self.local),
                ServerMessage::Presence { online: some, .. } => online.extend(some),
                ServerMessage::Ping { nonce } => {
                    self.say(&ClientMessage::Pong { nonce }).await;
                    return online;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) async fn say(&mut self, message: &ClientMessage) {
        assert!(self.try_say(message).await);
    }

    /// The connection to the peer that is met at the relay. What the peer sends before
    /// this returns may be lost, so both sides meet before either sends.
    pub(crate) async fn meet(mut self) -> TcpStream {
        assert_eq!(self.hear().await, ServerMessage::RelayPaired);
        assert_eq!(self.next().await, None, "TLS is over");
        self.stream.into_inner().0
    }

    /// The next message, past those about who comes and goes.
    pub(crate) async fn hear(&mut self) -> ServerMessage {
        self.hear_or_end().await.expect("the connection has ended")
    }

    /// What is told of others next: who is online now, and who is not any more.
    pub(crate) async fn hear_presence(&mut self) -> (Vec<PeerIdentity>, Vec<PeerName>) {
        let message = self.next().await;
        let Some(ServerMessage::Presence {
            online, offline, ..
        }) = message
        else {
            panic!("{message:?}");
        };
        (online, offline)
    }

    /// The next message, past those about who comes and goes, or `None` when the
    /// connection ends instead.
    pub(crate) async fn hear_or_end(&mut self) -> Option<ServerMessage> {
        loop {
            match self.next().await {
                Some(ServerMessage::Presence { .. }) => {}
                other => return other,
            }
        }
    }

    async fn next(&mut self) -> Option<ServerMessage> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(message) = self.decoder.next_message().unwrap() {
                return Some(message);
            }
            let read = timeout(PATIENCE, self.stream.read(&mut buffer)).await;
            match read.expect("the server says nothing") {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.decoder.feed(&buffer[..read]),
            }
        }
    }

    /// Why the connection ends, which must be the next thing to be heard.
    pub(crate) async fn refusal(&mut self) -> Refusal {
        let message = self.hear().await;
        let ServerMessage::Refused { reason } = message else {
            panic!("{message:?}");
        };
        assert_eq!(self.hear_or_end().await, None);
        reason
    }
}
