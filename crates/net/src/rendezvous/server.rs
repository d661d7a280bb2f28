//! The way to one rendezvous server: every connection to it starts here.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pinhole_proto::candidate::LoopbackAddresses;
use pinhole_proto::key::{Fingerprint, PeerKey};
use pinhole_proto::registry::RELAY_ADDRESSES;
use pinhole_proto::tls::{self, ALPN_RENDEZVOUS, Expect, Identity};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::debug;

use crate::dial::{self, Unreached, first_to_succeed, list, within};
use crate::proxy::{Proxy, ProxyError};
use crate::rendezvous::record_stream::RecordStream;
use crate::server_address::ServerAddress;
use crate::socket::{self, LocalPort};

/// How long the server has for its TLS handshake.
const TLS_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a proxy has for another tunnel, having made one.
const TUNNEL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no further connection to the server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RedialError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the proxy {proxy}: {error}")]
    Proxy { proxy: Proxy, error: ProxyError },
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
    /// The proxy does not lead there.
    #[error("cannot reach the server {server} through the proxy {proxy}: {error}")]
    Proxy {
        /// As it was asked for.
        server: ServerAddress,
        /// The way that had to be taken.
        proxy: Proxy,
        /// What stood in it.
        error: ProxyError,
    },
    /// Somebody answered who does not hold the key expected.
    #[error("the server {server} has another key than expected: it may be somebody else")]
    WrongKey {
        /// As it was asked for.
        server: ServerAddress,
        /// The fingerprint of the expected key.
        known: Option<Fingerprint>,
        /// The fingerprint of the key that it shows, which is not proven.
        shown: Option<Fingerprint>,
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

/// How a server is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Persistence {
    /// Each of its addresses once; the kernel repeats it ever more rarely.
    #[default]
    Once,
    /// Anew twice a second: it was there a moment ago, and is to be found as soon as
    /// it is there again.
    Persistent,
}

/// A connection to the server beside the control connection.
pub(crate) type ServerStream = TlsStream<RecordStream>;

/// A server that is reached. Whatever is connected to it has to prove the key
/// expected.
#[derive(Clone)]
pub(crate) struct Server {
    route: Route,
    /// Every IP address at which it is reached without a proxy: at most one of
    /// each family. Empty as long as none is known.
    ips: Arc<OnceLock<Vec<IpAddr>>>,
    expect: Expect,
    connector: TlsConnector,
}

/// A connection to a server that is reached.
pub(crate) struct Reached {
    pub(crate) server: Server,
    pub(crate) tcp: TcpStream,
    /// The local port of the connection, which others can share. A connection through a
    /// proxy has none: the server sees the proxy's.
    pub(crate) port: Option<Arc<LocalPort>>,
}

/// The way on which a server was reached, and the connection.
struct Found {
    route: Route,
    ips: OnceLock<Vec<IpAddr>>,
    tcp: TcpStream,
    port: Option<LocalPort>,
}

/// How control and relay connections get there.
#[derive(Debug, Clone)]
enum Route {
    /// To the address that answered.
    Direct(SocketAddr),
    /// To the port that answered.
    Proxied {
        proxy: Proxy,
        host: String,
        port: u16,
    },
}

impl Server {
    /// Finds the server and connects to it, through the proxy if there is one.
    pub(crate) async fn reach(
        server: &ServerAddress,
        proxy: Option<Proxy>,
        expect: Expect,
        identity: &Identity,
        persistence: Persistence,
    ) -> Result<Reached, ServerConnectError> {
        let found = match proxy {
            None if persistence == Persistence::Persistent => {
                let reach = || {
                    let server = server.clone();
                    async move { reach_directly(&server).await }
                };
                dial::persistently(reach).await?
            }
            None => reach_directly(server).await?,
            Some(proxy) => reach_through(server, proxy).await?,
        };
        let broken = |reason| ServerConnectError::Handshake {
            server: server.clone(),
            reason,
        };
        let Found {
            route,
            ips,
            tcp,
            port,
        } = found;
        socket::tune(&tcp).map_err(|e| broken(e.to_string()))?;
        let expect = match (expect, server.fingerprint()) {
            (Expect::AnyKey, Some(fingerprint)) => Expect::Fingerprint(fingerprint),
            _ => expect,
        };
        let reached = Self {
            route,
            ips: Arc::new(ips),
            expect,
            connector: connector(identity, expect).map_err(|e| broken(e.to_string()))?,
        };
        Ok(Reached {
            server: reached,
            tcp,
            port: port.map(Arc::new),
        })
    }

    /// Behind a proxy: finds out, beside everything else, whether the server
    /// can be reached without it, too. If so, it can observe punch ports.
    pub(crate) fn seek_direct_way(&self) {
        let Route::Proxied { host, port, .. } = &self.route else {
            return;
        };
        let (host, port, ips) = (host.clone(), *port, Arc::clone(&self.ips));
        tokio::spawn(async move {
            let Ok(addresses) = dial::resolve(&host, &[port]).await else {
                return debug!("without the proxy the server's name is not known");
            };
            match dial::tcp(&addresses).await {
                // Set before by a clone of this server: then it says the same.
                Ok((address, _)) => drop(ips.set(one_of_each_family(address.ip(), &addresses))),
                Err(tried) => debug!(?tried, "no way to the server but the proxy"),
            }
        });
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
        let broken = |reason: String| match &self.route {
            Route::Direct(_) => ServerConnectError::Handshake {
                server: server.clone(),
                reason,
            },
            Route::Proxied { proxy, .. } => ServerConnectError::Proxy {
                server: server.clone(),
                proxy: proxy.clone(),
                error: ProxyError::Tunnel(reason),
            },
        };
        let known = match self.expect {
            Expect::AnyKey => server.fingerprint(),
            Expect::Key(key) => Some(key.fingerprint()),
            Expect::Fingerprint(fingerprint) => Some(fingerprint),
        };
        let wrong_key = |shown: PeerKey| ServerConnectError::WrongKey {
            server: server.clone(),
            known,
            shown: Some(shown.fingerprint()),
        };
        let stream = self.secure(tcp).await.map_err(|error| {
            let wrong = tls::wrong_key(&error).map(wrong_key);
            wrong.unwrap_or_else(|| broken(error.to_string()))
        })?;
        let key = tls::proven_key(stream.get_ref().1, ALPN_RENDEZVOUS);
        let key = key.map_err(|error| broken(error.to_string()))?;
        if server.fingerprint().is_some_and(|f| f != key.fingerprint()) {
            return Err(wrong_key(key));
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
        let Reached {
            server: reached,
            tcp,
            ..
        } = Self::reach(server, None, expect, identity, Persistence::Once).await?;
        let (proven, _, stream) = reached.prove(server, identity, tcp).await?;
        Ok((proven, stream))
    }

    /// Whether only one key will do.
    pub(crate) const fn is_pinned(&self) -> bool {
        !matches!(self.expect, Expect::AnyKey)
    }

    /// The port that answered.
    pub(crate) const fn port(&self) -> u16 {
        match self.route {
            Route::Direct(address) => address.port(),
            Route::Proxied { port, .. } => port,
        }
    }

    /// Another connection on the way that answered, from any local port, which may become
    /// one to the relay.
    pub(crate) async fn redial(&self) -> Result<ServerStream, RedialError> {
        match &self.route {
            Route::Direct(address) => {
                let dialled = dial::tcp(&[*address]).await;
                let tcp = dialled.map_err(|tried| io::Error::other(list(&tried)))?.1;
                socket::tune(&tcp)?;
                Ok(self.secure_for_relay(tcp).await?)
            }
            Route::Proxied { proxy, host, port } => {
                let stalled = |error| RedialError::Proxy {
                    proxy: proxy.clone(),
                    error,
                };
                let tunnel = timeout(TUNNEL_TIMEOUT, proxy.connect(host, *port)).await;
                let silent = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer").into());
                let tcp = tunnel.unwrap_or_else(silent).map_err(stalled)?;
                socket::tune(&tcp)?;
                let secured = self.secure_for_relay(tcp).await;
                secured.map_err(|error| stalled(ProxyError::Tunnel(error.to_string())))
            }
        }
    }

    /// The same server at another of its nodes, at one of these addresses; `None` if there
    /// is none that may be dialled. It has to have the same key.
    pub(crate) fn at_other_node(&self, addresses: &[SocketAddr]) -> Option<Self> {
        let is_admitted = |it: &&SocketAddr| {
            !it.ip().is_loopback() || self.loopback() == LoopbackAddresses::Admitted
        };
        let mut admitted = addresses.iter().take(RELAY_ADDRESSES).filter(is_admitted);
        let route = match &self.route {
            Route::Direct(own) => {
                let is_alike = |it: &&SocketAddr| it.is_ipv6() == own.is_ipv6();
                let alike = admitted.clone().find(is_alike);
                Route::Direct(*alike.or_else(|| admitted.next())?)
            }
            Route::Proxied { proxy, .. } => {
                let address = admitted.next()?;
                Route::Proxied {
                    proxy: proxy.clone(),
                    host: address.ip().to_string(),
                    port: address.port(),
                }
            }
        };
        Some(Self {
            route,
            ..self.clone()
        })
    }

    /// Makes a TCP connection to the server a secure one.
    pub(crate) async fn secure<S>(&self, tcp: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        handshake(&self.connector, tcp).await
    }

    /// As [`Server::secure`], for a connection that may go on without TLS.
    pub(crate) async fn secure_for_relay(&self, tcp: TcpStream) -> io::Result<ServerStream> {
        self.secure(RecordStream::new(tcp)).await
    }

    /// The server's IP address of one family, if it can be reached there
    /// without a proxy.
    pub(crate) fn ip(&self, is_ipv6: bool) -> Option<IpAddr> {
        let mut ips = self.ips.get().into_iter().flatten().copied();
        ips.find(|ip| ip.is_ipv6() == is_ipv6)
    }

    /// Whether peers may be reached by loopback addresses.
    pub(crate) fn loopback(&self) -> LoopbackAddresses {
        match self.route {
            Route::Direct(address) => LoopbackAddresses::seen_at(address.ip().to_canonical()),
            Route::Proxied { .. } => LoopbackAddresses::Refused,
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Server").field(&self.route).finish()
    }
}

fn connector(identity: &Identity, expect: Expect) -> Result<TlsConnector, rustls::Error> {
    tls::client_config(identity, expect, ALPN_RENDEZVOUS).map(TlsConnector::from)
}

/// Makes a TCP connection to a server a secure one that speaks our protocol.
pub(crate) async fn handshake<S>(connector: &TlsConnector, tcp: S) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = within(TLS_TIMEOUT, connector.connect(tls::server_name(), tcp)).await?;
    let proven = tls::proven_key(stream.get_ref().1, ALPN_RENDEZVOUS);
    proven.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(stream)
}

async fn reach_directly(server: &ServerAddress) -> Result<Found, ServerConnectError> {
    let addresses = dial::resolve(server.host(), &server.ports()).await;
    let addresses = addresses.map_err(|reason| ServerConnectError::Unresolved {
        server: server.clone(),
        reason,
    })?;
    let reached = dial::tcp_from_own_port(&addresses).await;
    let (address, (port, tcp)) = reached.map_err(|tried| ServerConnectError::Unreachable {
        server: server.clone(),
        tried,
    })?;
    let ips = one_of_each_family(address.ip(), &addresses);
    Ok(Found {
        route: Route::Direct(address),
        ips: ips.into(),
        tcp,
        port: Some(port),
    })
}

async fn reach_through(server: &ServerAddress, proxy: Proxy) -> Result<Found, ServerConnectError> {
    let attempts = server.ports().into_iter().map(|port| {
        let (proxy, host) = (proxy.clone(), server.host().to_owned());
        async move { proxy.connect(&host, port).await.map(|tcp| (port, tcp)) }
    });
    let reached = first_to_succeed(attempts.collect::<Vec<_>>()).await;
    let (port, tcp) = reached.map_err(|errors| ServerConnectError::Proxy {
        server: server.clone(),
        proxy: proxy.clone(),
        // The last is of the port that proxies allow, if any.
        error: errors
            .into_iter()
            .next_back()
            .unwrap_or(ProxyError::NotHttp),
    })?;
    let host = server.host().to_owned();
    Ok(Found {
        route: Route::Proxied { proxy, host, port },
        ips: OnceLock::new(),
        tcp,
        port: None,
    })
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
}
