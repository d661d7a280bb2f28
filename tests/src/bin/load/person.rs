//! One person: a key, a name, an address of loopback, and connections to the server.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use pinhole_proto::frame::{Decoder, FrameKind, encode};
use pinhole_proto::name::PeerName;
use pinhole_proto::rendezvous::{ClientMessage, PROTOCOL_VERSION, Refusal, ServerMessage};
use pinhole_proto::tls::{ALPN_RENDEZVOUS, Expect, Identity, client_config, server_name};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;

/// After this a client gives an attempt up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of frames that all people together have been sent.
pub(crate) static HEARD_BYTES: AtomicU64 = AtomicU64::new(0);

/// The address of somebody of a crowd. Each `block` of 16 holds 4,000 networks (/24), so
/// that neighbours in number are none on the network.
pub(crate) fn address(block: u8, number: usize) -> Ipv4Addr {
    let part = |value: usize| u8::try_from(value).unwrap_or(u8::MAX);
    let network = number % 4_000;
    let host = 1 + (number / 4_000) % 250;
    Ipv4Addr::new(
        127,
        block + part(network % 16),
        part(network / 16),
        part(host),
    )
}

/// Somebody who uses the server.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) name: PeerName,
    from: Ipv4Addr,
    config: Arc<ClientConfig>,
}

/// Why somebody is not logged in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NotIn {
    Refused(String),
    /// The connection ended early.
    Cut,
    /// Nothing came for a long time.
    Late,
}

impl fmt::Display for NotIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => write!(f, "refused ({reason})"),
            Self::Cut => f.write_str("cut off"),
            Self::Late => f.write_str("timed out"),
        }
    }
}

impl Person {
    pub(crate) fn new(name: &str, from: Ipv4Addr) -> Result<Self> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| anyhow!("no key can be made"))?;
        let identity = Identity::from_pkcs8(document.as_ref())?;
        Ok(Self {
            name: name.parse().context("a name")?,
            from,
            config: client_config(&identity, Expect::AnyKey, ALPN_RENDEZVOUS)?,
        })
    }

    /// The same person at another address.
    pub(crate) fn at(&self, from: Ipv4Addr) -> Self {
        Self {
            from,
            ..self.clone()
        }
    }

    /// What its handshakes begin with.
    pub(crate) fn tls(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    /// A connection with this first message.
    pub(crate) async fn connect(
        &self,
        server: SocketAddr,
        first: &ClientMessage,
    ) -> Result<Connection> {
        let tcp = connect_from(self.from, server).await?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(server_name(), tcp).await?;
        let decoder = Decoder::new(FrameKind::Server);
        let mut connection = Connection { stream, decoder };
        connection.say(first).await?;
        Ok(connection)
    }

    /// Logs in once.
    pub(crate) async fn log_in(&self, server: SocketAddr) -> Result<Connection, NotIn> {
        let first = ClientMessage::LogIn {
            version: PROTOCOL_VERSION,
            name: self.name.clone(),
            watch: Vec::new(),
            recovery: None,
        };
        let attempt = async {
            let connected = self.connect(server, &first).await;
            let mut connection = connected.map_err(|_| NotIn::Cut)?;
            loop {
                match connection.hear().await.map_err(|_| NotIn::Cut)? {
                    ServerMessage::LoggedIn { .. } => return Ok(connection),
                    ServerMessage::Refused { reason } => {
                        return Err(NotIn::Refused(word(reason)));
                    }
                    _ => {}
                }
            }
        };
        timeout(PATIENCE, attempt).await.unwrap_or(Err(NotIn::Late))
    }
}

/// A reason as the protocol calls it.
fn word(reason: Refusal) -> String {
    serde_json::to_value(reason)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// A connection from an address of loopback.
pub(crate) async fn connect_from(from: Ipv4Addr, server: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    let tcp = socket.connect(server).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// A connection after its first message.
pub(crate) struct Connection {
    pub(crate) stream: TlsStream<TcpStream>,
    decoder: Decoder,
}

impl Connection {
    pub(crate) async fn say(&mut self, message: &ClientMessage) -> Result<()> {
        let frame = encode(FrameKind::Client, message)?;
        self.stream.write_all(&frame).await?;
        // A token is the last that is said in TLS.
        if matches!(message, ClientMessage::Relay { .. }) {
            self.stream.get_mut().1.send_close_notify();
        }
        Ok(self.stream.flush().await?)
    }

    /// The connection to the peer that is met at the relay. What the peer sends before
    /// this returns may be lost, so both sides meet before either sends.
    pub(crate) async fn meet(mut self) -> Result<TcpStream> {
        let paired = self.hear().await?;
        anyhow::ensure!(paired == ServerMessage::RelayPaired, "{paired:?}");
        anyhow::ensure!(self.stream.read(&mut [0]).await? == 0, "TLS is not over");
        Ok(self.stream.into_inner().0)
    }

    /// The next message. The server's pings are answered by the way.
    pub(crate) async fn hear(&mut self) -> Result<ServerMessage> {
        let mut buffer = [0; 2_048];
        loop {
            if let Some(message) = self.decoder.next_message()? {
                let ServerMessage::Ping { nonce } = message else {
                    return Ok(message);
                };
                self.say(&ClientMessage::Pong { nonce }).await?;
                continue;
            }
            let read = self.stream.read(&mut buffer).await?;
            anyhow::ensure!(read > 0, "the server has hung up");
            HEARD_BYTES.fetch_add(read as u64, Ordering::Relaxed);
            self.decoder.feed(buffer.get(..read).unwrap_or_default());
        }
    }

    /// The first message that `wanted` picks.
    pub(crate) async fn hear_of<T>(
        &mut self,
        wanted: impl Fn(&ServerMessage) -> Option<T>,
    ) -> Result<T> {
        loop {
            if let Some(found) = wanted(&self.hear().await?) {
                return Ok(found);
            }
        }
    }

    /// Stays until the connection ends.
    pub(crate) async fn stay(&mut self) {
        while self.hear().await.is_ok() {}
    }

    /// The time from a ping to its answer.
    pub(crate) async fn ping(&mut self, nonce: u64) -> Result<Duration> {
        let begin = Instant::now();
        self.say(&ClientMessage::Ping { nonce }).await?;
        let answer = |message: &ServerMessage| match message {
            ServerMessage::Pong { nonce: answered } => (*answered == nonce).then_some(()),
            _ => None,
        };
        timeout(PATIENCE, self.hear_of(answer)).await??;
        Ok(begin.elapsed())
    }
}
