//! Logging in: reaching the server, checking its key, taking a name.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pinhole_proto::frame::Decoder;
use pinhole_proto::key::PeerKey;
use pinhole_proto::name::PeerName;
use pinhole_proto::recovery::{LoginRecovery, RecoveryCertificate};
use pinhole_proto::registry::WATCH_PAGE_NAMES;
use pinhole_proto::rendezvous::{ClientMessage, PROTOCOL_VERSION, Refusal, ServerMessage};
use pinhole_proto::tls::{Expect, Identity};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::server::{Persistence, Reached, Server, ServerConnectError};
use super::wire::{self, WireError};
use super::{Rendezvous, RendezvousEvent};
use crate::known::KnownKeys;
use crate::proxy::ProxyChoice;
use crate::server_address::ServerAddress;
use crate::socket::LocalPort;

/// How long the server may take to answer the login.
const LOG_IN_TIMEOUT: Duration = Duration::from_secs(10);

/// What a login needs.
#[derive(Debug, Clone)]
pub struct LogIn {
    /// Where the server is. A fingerprint in it is checked in any case.
    pub server: ServerAddress,
    /// The server's key as pinned before, or [`Expect::AnyKey`].
    pub expect: Expect,
    /// Our key pair.
    pub identity: Identity,
    /// The name wanted.
    pub name: PeerName,
    /// For whom something is kept free when strangers invite us all the time.
    pub known: KnownKeys,
    /// Whether the server is reached through a proxy.
    pub proxy: ProxyChoice,
    /// How the name outlives our key.
    pub recovery: LoginRecovery,
}

/// What a login brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedIn {
    /// The name, ours now.
    pub name: PeerName,
    /// The public address from which the server sees the control connection.
    pub observed: SocketAddr,
    /// The server's key, to be pinned.
    pub server_key: PeerKey,
    /// The ports on which the server observes.
    pub observer_ports: Vec<u16>,
    /// Whether the server offers a relay.
    pub relay: bool,
    /// Whether the server knows codes ([`Rendezvous::open_code`]). Older ones do not.
    pub codes: bool,
}

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
pub enum LogInError {
    /// No authenticated connection to the server.
    #[error(transparent)]
    Connect(#[from] ServerConnectError),
    /// The name is bound to another key.
    #[error("the name {name} belongs to somebody else; choose another")]
    NameTaken {
        /// The name wanted.
        name: PeerName,
        /// The certificate that was looked for, if it was found. It is not checked.
        certificate: Option<Box<RecoveryCertificate>>,
    },
    /// The server turned the login down for another reason.
    #[error("{0}")]
    Refused(Refusal),
    /// The connection broke, or the server did not keep to the protocol.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// A server that has accepted a connection, and has not proven its key yet.
pub(crate) struct ReachedServer {
    log_in: LogIn,
    reached: Reached,
}

impl ReachedServer {
    pub(crate) async fn reach(log_in: LogIn, persistence: Persistence) -> Result<Self, LogInError> {
        let proxy = log_in.proxy.proxy_for(log_in.server.host());
        let (address, identity) = (&log_in.server, &log_in.identity);
        let reached = Server::reach(address, proxy, log_in.expect, identity, persistence);
        let reached = Box::pin(reached).await?;
        Ok(Self { log_in, reached })
    }

    /// The server. Unless its key is pinned, anybody could be it.
    pub(crate) const fn server(&self) -> &Server {
        &self.reached.server
    }

    /// Has the server prove its key.
    pub(crate) async fn prove(self) -> Result<ProvenServer, LogInError> {
        let Reached { server, tcp, port } = self.reached;
        let proven = server.prove(&self.log_in.server, &self.log_in.identity, tcp);
        let (server, key, stream) = Box::pin(proven).await?;
        Ok(ProvenServer {
            log_in: self.log_in,
            server: Arc::new(server),
            key,
            stream: Box::new(stream),
            port,
        })
    }
}

/// A server that has proven its key, and is not asked for a name yet.
#[derive(Debug)]
pub(crate) struct ProvenServer {
    log_in: LogIn,
    server: Arc<Server>,
    key: PeerKey,
    stream: Box<TlsStream<TcpStream>>,
    port: Option<Arc<LocalPort>>,
}

impl ProvenServer {
    pub(crate) const fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// The local port of the connection, which others can share.
    pub(crate) fn port(&self) -> Option<Arc<LocalPort>> {
        self.port.clone()
    }

    /// Takes the name, and asks to be told of those in `watch`. The events have to be
    /// received as long as the handle is used.
    pub(crate) async fn log_in(
        mut self,
        watch: &[PeerName],
    ) -> Result<(Rendezvous, LoggedIn, mpsc::Receiver<RendezvousEvent>), LogInError> {
        let mut decoder = wire::server_decoder();
        let (first, later) = watch.split_at(watch.len().min(WATCH_PAGE_NAMES));
        let asked_at = Instant::now();
        let answer = timeout(LOG_IN_TIMEOUT, self.ask_for_name(&mut decoder, first)).await;
        let logged_in = answer.unwrap_or(Err(WireError::Silent.into()))?;
        let round_trip = asked_at.elapsed();
        let known = self.log_in.known;
        let (rendezvous, events) =
            Rendezvous::begin(self.server, self.stream, decoder, known, round_trip);
        rendezvous.watch(later);
        Ok((rendezvous, logged_in, events))
    }

    async fn ask_for_name(
        &mut self,
        decoder: &mut Decoder,
        watch: &[PeerName],
    ) -> Result<LoggedIn, LogInError> {
        let (stream, name) = (&mut self.stream, &self.log_in.name);
        let recovery = &self.log_in.recovery;
        let mut found = None;
        let log_in = ClientMessage::LogIn {
            version: PROTOCOL_VERSION,
            name: name.clone(),
            watch: watch.to_vec(),
            recovery: (*recovery != LoginRecovery::default()).then(|| Box::new(recovery.clone())),
        };
        wire::write_message(stream, &log_in).await?;
        loop {
            match wire::read_message(stream, decoder).await? {
                ServerMessage::LoggedIn {
                    observed,
                    observer_ports,
                    relay,
                    codes,
                } => {
                    return Ok(LoggedIn {
                        name: name.clone(),
                        observed,
                        server_key: self.key,
                        observer_ports,
                        relay,
                        codes,
                    });
                }
                ServerMessage::Refused {
                    reason: Refusal::NameTaken,
                } => {
                    return Err(LogInError::NameTaken {
                        name: name.clone(),
                        certificate: found,
                    });
                }
                ServerMessage::RecoveryCertificate(certificate) => {
                    found = Some(Box::new(certificate));
                }
                ServerMessage::Refused { reason } => return Err(LogInError::Refused(reason)),
                ServerMessage::Ping { nonce } => {
                    wire::write_message(stream, &ClientMessage::Pong { nonce }).await?;
                }
                _ => return Err(WireError::Unexpected.into()),
            }
        }
    }
}
