//! The way to one rendezvous server: every connection to it starts here.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use pinhole_proto::key::PeerKey;
use pinhole_proto::tls::{self, ALPN_RENDEZVOUS, Expect, Identity};
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::server_address::ServerAddress;
use crate::session::READ_BUFFER_BYTES;
use crate::socket;

/// Most addresses of one host that are tried.
const MAX_ADDRESSES: usize = 8;
/// How long a host's name may take to resolve.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one address has to accept a connection.
const TCP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the server has for its TLS handshake.
const TLS_TIMEOUT: Duration = Duration::from_secs(5);
/// Head start of one address over the next (RFC 8305).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// An address of the server that did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreached {
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    pub reason: String,
}

impl std::fmt::Display for Unreached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.address, self.reason)
    }
}

/// Why there is no authenticated connection to the server.
#[derive(Debug, thiserror::Error)]
pub enum ServerConnectError {
    /// The host's name has no address.
    #[error("cannot find the server {server}: {reason}")]
    Unresolved {
        /// As it was asked for.
        server: ServerAddress,
        /// What the resolver said.
        reason: String,
    },
    /// No address accepted a connection.
    #[error("cannot reach the server {server} ({})", list(tried))]
    Unreachable {
        /// As it was asked for.
        server: ServerAddress,
        /// Every address tried, with what it answered.
        tried: Vec<Unreached>,
    },
    /// Somebody answered who does not hold the key expected.
    #[error("the server {server} has another key than expected: it may be somebody else")]
    WrongKey {
        /// As it was asked for.
        server: ServerAddress,
    },
    /// Somebody answered, but not as a rendezvous server does.
    #[error("the server {server} did not complete the secure connection: {reason}")]
    Handshake {
        /// As it was asked for.
        server: ServerAddress,
        /// What went wrong.
        reason: String,
    },
}

fn list(tried: &[Unreached]) -> String {
    let texts: Vec<String> = tried.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// A connection to the server beside the control connection.
pub(crate) type ServerStream = TlsStream<BufReader<TcpStream>>;

/// A server that is reached. Whatever is connected to it has to prove the key
/// expected.
#[derive(Clone)]
pub(crate) struct Server {
    /// The address that answered, for control and relay connections.
    address: SocketAddr,
    /// Every IP address of the host: at most one of each family, the one that
    /// answered among them.
    ips: Vec<IpAddr>,
    expect: Expect,
    connector: TlsConnector,
}

impl Server {
    /// Finds the server and connects to it.
    pub(crate) async fn reach(
        server: &ServerAddress,
        expect: Expect,
        identity: &Identity,
    ) -> Result<(Self, TcpStream), ServerConnectError> {
        let addresses = resolve(server).await?;
        let tcp = first_to_answer(&addresses).await;
        let (address, tcp) = tcp.map_err(|tried| ServerConnectError::Unreachable {
            server: server.clone(),
            tried,
        })?;
        let broken = |reason| ServerConnectError::Handshake {
            server: server.clone(),
            reason,
        };
        socket::tune(&tcp).map_err(|e| broken(e.to_string()))?;
        let expect = match (expect, server.fingerprint()) {
            (Expect::AnyKey, Some(fingerprint)) => Expect::Fingerprint(fingerprint),
            _ => expect,
        };
        let reached = Self {
            address,
            ips: one_of_each_family(address.ip(), &addresses),
            expect,
            connector: connector(identity, expect).map_err(|e| broken(e.to_string()))?,
        };
        Ok((reached, tcp))
    }

    /// Checks the key of the server against what is expected and against the
    /// fingerprint in its address. Returns it with the connection, and with the
    /// server that from now on has to have this very key.
    pub(crate) async fn prove(
        &self,
        server: &ServerAddress,
        identity: &Identity,
        tcp: TcpStream,
    ) -> Result<(Self, PeerKey, TlsStream<TcpStream>), ServerConnectError> {
        let broken = |reason: String| ServerConnectError::Handshake {
            server: server.clone(),
            reason,
        };
        let wrong_key = || ServerConnectError::WrongKey {
            server: server.clone(),
        };
        let stream = self.secure(tcp).await.map_err(|error| {
            if is_wrong_key(&error) {
                wrong_key()
            } else {
                broken(error.to_string())
            }
        })?;
        let key = tls::peer_key(stream.get_ref().1.peer_certificates());
        let key = key.ok_or_else(|| broken("it showed no key".into()))?;
        if server.fingerprint().is_some_and(|f| f != key.fingerprint()) {
            return Err(wrong_key());
        }
        let expect = Expect::Key(key);
        let proven = Self {
            expect,
            connector: connector(identity, expect).map_err(|e| broken(e.to_string()))?,
            ..self.clone()
        };
        Ok((proven, key, stream))
    }

    /// Both in one.
    #[cfg(test)]
    pub(crate) async fn connect(
        server: &ServerAddress,
        expect: Expect,
        identity: &Identity,
    ) -> Result<(Self, TlsStream<TcpStream>), ServerConnectError> {
        let (reached, tcp) = Self::reach(server, expect, identity).await?;
        let (proven, _, stream) = reached.prove(server, identity, tcp).await?;
        Ok((proven, stream))
    }

    /// Whether only one key will do.
    pub(crate) const fn is_pinned(&self) -> bool {
        !matches!(self.expect, Expect::AnyKey)
    }

    /// The port that answered.
    pub(crate) const fn port(&self) -> u16 {
        self.address.port()
    }

    /// Another TCP connection to the address that answered, from any local port.
    pub(crate) async fn dial(&self) -> io::Result<TcpStream> {
        let tcp = within(TCP_TIMEOUT, TcpStream::connect(self.address)).await?;
        socket::tune(&tcp)?;
        Ok(tcp)
    }

    /// Makes a TCP connection to the server a secure one.
    pub(crate) async fn secure<S>(&self, tcp: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        handshake(&self.connector, tcp).await
    }

    /// As [`Server::secure`], for a connection that may have to carry much.
    pub(crate) async fn secure_for_bulk(&self, tcp: TcpStream) -> io::Result<ServerStream> {
        let tcp = BufReader::with_capacity(READ_BUFFER_BYTES, tcp);
        self.secure(tcp).await
    }

    /// The server's IP address of one family, if it has one.
    pub(crate) fn ip(&self, is_ipv6: bool) -> Option<IpAddr> {
        self.ips.iter().copied().find(|ip| ip.is_ipv6() == is_ipv6)
    }

    pub(crate) fn is_on_loopback(&self) -> bool {
        self.address.ip().to_canonical().is_loopback()
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Server").field(&self.address).finish()
    }
}

fn connector(identity: &Identity, expect: Expect) -> Result<TlsConnector, rustls::Error> {
    tls::client_config(identity, expect, ALPN_RENDEZVOUS).map(TlsConnector::from)
}

async fn handshake<S>(connector: &TlsConnector, tcp: S) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    within(TLS_TIMEOUT, connector.connect(tls::server_name(), tcp)).await
}

/// The outcome of `operation`, which fails when it takes longer than `limit`.
async fn within<T>(
    limit: Duration,
    operation: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let silent = || io::Error::new(io::ErrorKind::TimedOut, "no answer");
    timeout(limit, operation)
        .await
        .unwrap_or_else(|_| Err(silent()))
}

/// Whether a TLS handshake ended because the other end holds another key than
/// the one expected.
pub(crate) fn is_wrong_key(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|e| e.downcast_ref());
    matches!(
        tls,
        Some(rustls::Error::InvalidCertificate(
            rustls::CertificateError::ApplicationVerificationFailure
        ))
    )
}

async fn resolve(server: &ServerAddress) -> Result<Vec<SocketAddr>, ServerConnectError> {
    let unresolved = |reason: String| ServerConnectError::Unresolved {
        server: server.clone(),
        reason,
    };
    let lookup = tokio::net::lookup_host((server.host(), server.port()));
    let addresses: Vec<SocketAddr> = match timeout(RESOLVE_TIMEOUT, lookup).await {
        Ok(Ok(addresses)) => addresses.take(MAX_ADDRESSES).collect(),
        Ok(Err(error)) => return Err(unresolved(error.to_string())),
        Err(_) => return Err(unresolved("the name server does not answer".into())),
    };
    if addresses.is_empty() {
        return Err(unresolved("the name has no address".into()));
    }
    Ok(addresses)
}

/// Dials the addresses one after the other, each with a short head start, and
/// takes the first that accepts.
async fn first_to_answer(
    addresses: &[SocketAddr],
) -> Result<(SocketAddr, TcpStream), Vec<Unreached>> {
    let mut waiting = addresses.iter().copied();
    let mut dials = JoinSet::new();
    let mut tried = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            dials.spawn(async move {
                (
                    address,
                    within(TCP_TIMEOUT, TcpStream::connect(address)).await,
                )
            });
        }
        let patience = if waiting.len() == 0 {
            TCP_TIMEOUT
        } else {
            NEXT_ADDRESS_AFTER
        };
        let reason = match timeout(patience, dials.join_next()).await {
            Ok(Some(Ok((address, Ok(stream))))) => return Ok((address, stream)),
            Ok(Some(Ok((address, Err(error))))) => Some((address, error.to_string())),
            Ok(None) => return Err(tried),
            Ok(Some(Err(_))) | Err(_) => None,
        };
        if let Some((address, reason)) = reason {
            tried.push(Unreached { address, reason });
        }
    }
}

fn one_of_each_family(first: IpAddr, addresses: &[SocketAddr]) -> Vec<IpAddr> {
    let other = addresses.iter().map(SocketAddr::ip);
    let other = other.filter(|ip| ip.is_ipv6() != first.is_ipv6()).take(1);
    std::iter::once(first).chain(other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::generate_identity;

    fn at(address: SocketAddr) -> ServerAddress {
        address.to_string().parse().unwrap()
    }

    async fn refused() -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    }

    async fn connect_error(server: &ServerAddress) -> ServerConnectError {
        let identity = generate_identity().unwrap().0;
        let connected = Server::connect(server, Expect::AnyKey, &identity).await;
        connected.err().unwrap()
    }

    #[tokio::test]
    async fn an_unreachable_server_is_told_with_its_addresses() {
        let address = refused().await;
        let error = connect_error(&at(address)).await;
        let ServerConnectError::Unreachable { tried, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(tried[0].address, address);
        assert!(error.to_string().contains("refused"), "{error}");
    }

    #[tokio::test]
    async fn an_unknown_host_is_told() {
        let server = "no-such-host.invalid:4747".parse().unwrap();
        let error = connect_error(&server).await;
        let unresolved = matches!(error, ServerConnectError::Unresolved { .. });
        assert!(unresolved, "{error}");
    }

    #[tokio::test]
    async fn something_that_is_no_rendezvous_server_is_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { listener.accept().await.map(drop) });
        let error = connect_error(&at(address)).await;
        let handshake = matches!(error, ServerConnectError::Handshake { .. });
        assert!(handshake, "{error}");
    }

    #[tokio::test]
    async fn the_second_address_serves_when_the_first_does_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let (address, _stream) = first_to_answer(&[refused().await, good]).await.unwrap();
        assert_eq!(address, good);
    }
}
