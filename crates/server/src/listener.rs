//! The addresses and ports that are listened on.
//!
//! Two ports of every address: a client that is seen on both learns whether its NAT maps
//! one local port to the same public port for every destination.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::str::FromStr;

use pinhole_proto::rendezvous::DEFAULT_PORT;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tracing::warn;

const BACKLOG: i32 = 1024;

/// Why an address is not listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    /// The address asked for.
    pub address: String,
    /// The system's word.
    pub source: io::Error,
}

/// An address to listen on, as operators write it: with or without a port, a number
/// or a name, or a port alone for every address of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    /// `None` for every address.
    host: Option<ListenHost>,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum ListenHost {
    Ip(IpAddr),
    Name(String),
}

/// Why a text is no [`ListenAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write it like 203.0.113.1, [2001:db8::1]:4747, example.org:4747 or :4747")]
pub struct ListenAddressError;

impl FromStr for ListenAddress {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<Self, ListenAddressError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let in_brackets = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        if let Ok(ip) = in_brackets.unwrap_or(text).parse() {
            return Ok(Self {
                host: Some(ListenHost::Ip(ip)),
                port: DEFAULT_PORT,
            });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| ListenAddressError)?),
            None => (text, DEFAULT_PORT),
        };
        let is_in_name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
        match host {
            "" if text.is_empty() => Err(ListenAddressError),
            "" | "*" => Ok(Self { host: None, port }),
            name if name.chars().all(is_in_name) => Ok(Self {
                host: Some(ListenHost::Name(name.to_owned())),
                port,
            }),
            _ => Err(ListenAddressError),
        }
    }
}

/// Every address, and the default port.
impl Default for ListenAddress {
    fn default() -> Self {
        Self {
            host: None,
            port: DEFAULT_PORT,
        }
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: Some(ListenHost::Ip(address.ip())),
            port: address.port(),
        }
    }
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.host {
            None => write!(f, ":{}", self.port),
            Some(ListenHost::Ip(ip)) => SocketAddr::new(*ip, self.port).fmt(f),
            Some(ListenHost::Name(name)) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl ListenAddress {
    /// Listens there for a moment, to see whether it is possible.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When it is not.
    pub fn try_listen(&self) -> Result<(), BindError> {
        let addresses = self.addresses()?;
        addresses
            .into_iter()
            .try_for_each(|it| listen(it).map(drop))
    }

    fn addresses(&self) -> Result<Vec<SocketAddr>, BindError> {
        let port = self.port;
        match &self.host {
            None => everywhere(port),
            Some(ListenHost::Ip(ip)) => Ok(vec![SocketAddr::new(*ip, port)]),
            Some(ListenHost::Name(name)) => {
                let found = (name.as_str(), port).to_socket_addrs();
                let found = found.map_err(|source| BindError {
                    address: self.to_string(),
                    source,
                })?;
                // IPv4 first: a client is more likely to reach it.
                let (v6, v4): (Vec<_>, Vec<_>) = found.partition(SocketAddr::is_ipv6);
                let mut all = [v4, v6].concat();
                all.dedup();
                Ok(all)
            }
        }
    }
}

/// This port on every address of both families; without IPv6 when the machine has none.
fn everywhere(port: u16) -> Result<Vec<SocketAddr>, BindError> {
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    match listen(v6) {
        Ok(probe) => {
            drop(probe);
            Ok(vec![v4, v6])
        }
        Err(error) if error.source.kind() == io::ErrorKind::AddrInUse => Err(error),
        Err(error) => {
            warn!("{error}: {}; serving IPv4 only", error.source);
            Ok(vec![v4])
        }
    }
}

/// These addresses, or every address and the default port if there are none.
#[must_use]
pub fn or_everywhere(asked: &[ListenAddress]) -> Cow<'_, [ListenAddress]> {
    match asked {
        [] => vec![ListenAddress::default()].into(),
        asked => asked.into(),
    }
}

/// Listens on all of these, or on every address and the default port if there are
/// none; on two ports of each, see [`bind`].
///
/// Must be called within a tokio runtime.
///
/// # Errors
/// When one of them cannot be listened on.
pub fn bind_all(asked: &[ListenAddress]) -> Result<Vec<TcpListener>, BindError> {
    let mut addresses = Vec::new();
    for address in or_everywhere(asked).iter() {
        addresses.extend(address.addresses()?);
    }
    bind(&addresses)
}

/// Listens on these addresses, in this order, and on a second port of each
/// when all of them share one: the port above, or a free one.
///
/// Must be called within a tokio runtime.
///
/// # Errors
/// When one of `addresses` cannot be listened on.
pub fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, BindError> {
    let mut listeners = Vec::new();
    for &address in addresses {
        listeners.push(listen(address)?);
    }
    let ports: BTreeSet<u16> = addresses.iter().map(SocketAddr::port).collect();
    if ports.len() == 1 {
        for &address in addresses {
            listeners.push(listen_beside(address)?);
        }
    }
    Ok(listeners)
}

fn listen_beside(address: SocketAddr) -> Result<TcpListener, BindError> {
    let above = match address.port() {
        0 => None,
        port => port.checked_add(1),
    };
    if let Some(port) = above {
        match listen(SocketAddr::new(address.ip(), port)) {
            Ok(listener) => return Ok(listener),
            Err(error) => warn!(
                "{error}: {}; taking any free port for observation instead",
                error.source
            ),
        }
    }
    let any = SocketAddr::new(address.ip(), 0);
    let listener = listen(any)?;
    let source = listener.local_addr();
    let address = source.map_err(|source| BindError {
        address: any.to_string(),
        source,
    })?;
    warn!("observing on the free port {address}; a firewall has to let it through too");
    Ok(listener)
}

fn listen(address: SocketAddr) -> Result<TcpListener, BindError> {
    let open = || {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // On Windows the option would let another program take the port over.
        #[cfg(not(windows))]
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|source| BindError {
        address: address.to_string(),
        source,
    })
}

/// The listeners' addresses as clients on other machines can dial them, the most useful
/// first. A listener on every address is represented by the one that this machine uses
/// towards the internet. It is left out if the machine has none of that family.
///
/// # Errors
/// When the system does not tell a listener's address.
pub fn dialable_addresses(listeners: &[TcpListener]) -> io::Result<Vec<SocketAddr>> {
    let bound = listeners.iter().map(TcpListener::local_addr);
    let bound = bound.collect::<io::Result<Vec<_>>>()?;
    let dialable = |address: &SocketAddr| {
        let ip = dialable(address.ip())?;
        Some(SocketAddr::new(ip, address.port()))
    };
    let mut addresses: Vec<_> = bound.iter().filter_map(dialable).collect();
    if addresses.is_empty() {
        // Without a network, there are clients on this very machine only.
        addresses = bound.iter().map(|it| on_loopback(*it)).collect();
    }
    addresses.sort_by_key(|address| address.ip().is_loopback());
    Ok(addresses)
}

fn on_loopback(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

fn dialable(ip: IpAddr) -> Option<IpAddr> {
    if !ip.is_unspecified() {
        return Some(ip);
    }
    // Connecting a UDP socket sends nothing: it only asks for the route.
    let abroad: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    };
    let route = UdpSocket::bind((ip, 0)).and_then(|socket| {
        socket.connect((abroad, 9))?;
        socket.local_addr()
    });
    let own = route.ok()?.ip();
    (!own.is_loopback() && !own.is_unspecified()).then_some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(listeners: &[TcpListener]) -> Vec<u16> {
        listeners
            .iter()
            .map(|l| l.local_addr().unwrap().port())
            .collect()
    }

    #[tokio::test]
    async fn one_port_gets_a_second_and_two_do_not() {
        let one = bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let [first, second] = ports(&one)[..] else {
            panic!("{one:?}");
        };
        assert_ne!(first, second);
        drop(one);
        let two = [first, second].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(ports(&bind(&two).unwrap()), [first, second]);
    }

    #[tokio::test]
    async fn the_second_port_is_the_one_above_unless_it_is_taken() {
        // Any free pair of ports will do; others may be looking for one too.
        for _ in 0..100 {
            let probe = listen("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = probe.local_addr().unwrap();
            let Some(above) = address.port().checked_add(1) else {
                continue;
            };
            let Ok(blocker) = listen(SocketAddr::new(address.ip(), above)) else {
                continue;
            };
            drop(probe);
            let Ok(pair) = bind(&[address]) else {
                continue;
            };
            assert_ne!(ports(&pair)[1], above);
            drop((blocker, pair));
            let Ok(pair) = bind(&[address]) else {
                continue;
            };
            assert_eq!(ports(&pair), [address.port(), above]);
            return;
        }
        panic!("no two neighbouring ports are free");
    }

    #[tokio::test]
    async fn both_families_can_have_one_port() {
        if let Err(error) = listen("[::]:0".parse().unwrap()) {
            eprintln!("SKIPPED both_families_can_have_one_port: no IPv6 here: {error}");
            return;
        }
        for _ in 0..100 {
            let v6 = listen("[::]:0".parse().unwrap()).unwrap();
            let port = v6.local_addr().unwrap().port();
            let Ok(v4) = listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))) else {
                continue;
            };
            for address in dialable_addresses(&[v4, v6]).unwrap() {
                assert!(!address.ip().is_unspecified());
                assert_eq!(address.port(), port);
            }
            return;
        }
        panic!("IPv6 listeners take the IPv4 port too");
    }

    #[test]
    fn addresses_are_read_as_operators_write_them() {
        let shown = |text: &str| text.parse().map(|it: ListenAddress| it.to_string());
        for (text, expected) in [
            ("127.0.0.1", "127.0.0.1:4747"),
            ("127.0.0.1:7001", "127.0.0.1:7001"),
            (":7001", ":7001"),
            ("*:7001", ":7001"),
            ("localhost", "localhost:4747"),
            ("localhost:7001", "localhost:7001"),
            ("::1", "[::1]:4747"),
            ("[::1]", "[::1]:4747"),
            ("[::1]:7001", "[::1]:7001"),
            ("0.0.0.0:0", "0.0.0.0:0"),
        ] {
            assert_eq!(shown(text), Ok(expected.to_owned()), "{text}");
        }
        for text in [
            "",
            ":",
            "127.0.0.1:",
            "127.0.0.1:70000",
            "a b:1",
            "[::1",
            "http://a:1",
        ] {
            assert_eq!(shown(text), Err(ListenAddressError), "{text}");
        }
    }

    #[tokio::test]
    async fn names_and_ports_alone_can_be_listened_on() {
        let local = bind_all(&["localhost:0".parse().unwrap()]).unwrap();
        let addresses = dialable_addresses(&local).unwrap();
        assert_eq!(addresses[0].ip(), IpAddr::from([127, 0, 0, 1]));
        let all = bind_all(&[":0".parse().unwrap()]).unwrap();
        let bound = all[0].local_addr().unwrap();
        assert!(bound.ip().is_unspecified() && bound.is_ipv4());
        let offered = dialable_addresses(&all).unwrap();
        let by_use: Vec<_> = offered.iter().map(|it| it.ip().is_loopback()).collect();
        assert!(by_use.is_sorted(), "{offered:?}");
    }

    #[tokio::test]
    async fn an_address_that_is_not_ours_is_named() {
        let error = bind(&["203.0.113.1:4747".parse().unwrap()]).unwrap_err();
        assert!(error.to_string().contains("203.0.113.1:4747"));
    }
}
