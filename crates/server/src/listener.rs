//! Which addresses and ports are listened on.
//!
//! Two ports of every address: a client that is seen on both learns whether
//! its NAT gives one local port the same public port towards everybody.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use pinhole_proto::rendezvous::DEFAULT_PORT;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tracing::warn;

const BACKLOG: i32 = 1024;

/// Why an address is not listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// The address asked for.
    pub address: SocketAddr,
    /// The system's word.
    pub source: io::Error,
}

/// Listens on the default port and the one after it, on every address of both
/// families; without IPv6 when the machine has none.
///
/// Must be called within a tokio runtime.
///
/// # Errors
/// When a port is in use.
pub fn bind_default() -> Result<Vec<TcpListener>, BindError> {
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT));
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, DEFAULT_PORT));
    match listen(v6) {
        Ok(probe) => {
            drop(probe);
            bind(&[v4, v6])
        }
        Err(error) if error.source.kind() == io::ErrorKind::AddrInUse => Err(error),
        Err(error) => {
            warn!("{error}; serving IPv4 only");
            bind(&[v4])
        }
    }
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
            Err(error) => warn!("{error}; taking any free port for observation instead"),
        }
    }
    let any = SocketAddr::new(address.ip(), 0);
    let listener = listen(any)?;
    let source = listener.local_addr();
    let address = source.map_err(|source| BindError {
        address: any,
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
    open().map_err(|source| BindError { address, source })
}

/// The listeners' addresses as clients on other machines may dial them: where
/// one listens on every address, the one this machine uses towards the
/// internet stands for all.
///
/// # Errors
/// When the system does not tell a listener's address.
pub fn dialable_addresses(listeners: &[TcpListener]) -> io::Result<Vec<SocketAddr>> {
    let dialable = |listener: &TcpListener| {
        let address = listener.local_addr()?;
        Ok(SocketAddr::new(dialable(address.ip()), address.port()))
    };
    listeners.iter().map(dialable).collect()
}

fn dialable(ip: IpAddr) -> IpAddr {
    if !ip.is_unspecified() {
        return ip;
    }
    // Connecting a UDP socket sends nothing: it only asks for the route.
    let (any, loopback, abroad): (IpAddr, IpAddr, IpAddr) = match ip {
        IpAddr::V4(_) => (
            ip,
            Ipv4Addr::LOCALHOST.into(),
            Ipv4Addr::new(192, 0, 2, 1).into(),
        ),
        IpAddr::V6(_) => (
            ip,
            Ipv6Addr::LOCALHOST.into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        ),
    };
    let route = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((abroad, 9))?;
        socket.local_addr()
    });
    route.map_or(loopback, |address| address.ip())
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

    #[tokio::test]
    async fn an_address_that_is_not_ours_is_named() {
        let error = bind(&["203.0.113.1:4747".parse().unwrap()]).unwrap_err();
        assert!(error.to_string().contains("203.0.113.1:4747"));
    }
}
