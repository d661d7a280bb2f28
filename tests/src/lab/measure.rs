//! What a router does, measured from inside and outside with plain sockets and
//! with nothing of Pinhole.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::plan::{NatFiltering, NatMapping, Order, Port, Unsolicited};
use super::{Host, Lab};

/// Longer than any answer takes on a line without a delay, on a busy machine.
const PATIENCE: Duration = Duration::from_millis(600);

/// A TCP socket on that port of all addresses, or of this one, which other
/// sockets may share.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn socket(ip: Option<IpAddr>, port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("sharing its address");
    socket.set_reuse_port(true).expect("sharing its port");
    let address = SocketAddr::new(ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), port);
    socket.bind(&address.into()).expect("a free port");
    socket
}

/// A connection from that port of a host, and how the server sees it. Both of
/// its ends stay open with what is returned.
///
/// # Panics
/// When it does not come up.
#[must_use]
pub fn observe(lab: &Lab, host: Host, port: u16, server: SocketAddr) -> ObservedNat {
    let listener = lab.inside(Host::S, || {
        let listener = socket(Some(server.ip()), server.port());
        listener.listen(8).expect("listening");
        TcpListener::from(listener)
    });
    let client = lab.inside(host, || dial(socket(None, port), server));
    let client = client.unwrap_or_else(|e| panic!("{host:?} to {server}: {e}"));
    let (accepted, address) = listener.accept().expect("a connection");
    ObservedNat {
        address,
        _ends: (client, accepted),
    }
}

/// A connection that the server sees.
pub struct ObservedNat {
    /// As the server sees it.
    pub address: SocketAddr,
    _ends: (TcpStream, TcpStream),
}

/// Connects the socket.
///
/// # Errors
/// What the kernel says, or `TimedOut`.
pub fn dial(socket: Socket, to: SocketAddr) -> io::Result<TcpStream> {
    socket.connect_timeout(&to.into(), PATIENCE)?;
    Ok(socket.into())
}

/// How the router of this host maps, seen by two ports of one and one of
/// another address of the server.
#[must_use]
pub fn mapping(lab: &Lab, host: Host) -> NatMapping {
    const PORT: u16 = 40_000;
    let servers = [
        (Lab::SERVER, 5000),
        (Lab::SERVER, 5001),
        (Lab::SERVER_2, 5000),
    ];
    let seen = servers.map(|(ip, port)| observe(lab, host, PORT, address(ip, port)));
    let [first, other_port, other_address] = seen.each_ref().map(|seen| seen.address);
    let own = lab.inside(host, || {
        let route = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        route.connect(address(Lab::SERVER, 9)).expect("a route");
        route.local_addr().expect("an address").ip()
    });
    if [first, other_port, other_address] == [SocketAddr::new(own, PORT); 3] {
        NatMapping::None
    } else if first == other_port && first == other_address {
        NatMapping::EndpointIndependent(if first.port() == PORT {
            Port::Preserved
        } else {
            Port::Random
        })
    } else if first == other_port {
        NatMapping::AddressDependent
    } else if first.port() + 1 == other_port.port() && first.port() + 2 == other_address.port() {
        NatMapping::AddressAndPortDependent(Order::Sequential)
    } else {
        NatMapping::AddressAndPortDependent(Order::Random)
    }
}

/// Who reaches a port of this host that has sent to one port of one address.
#[must_use]
pub fn filtering(lab: &Lab, host: Host) -> NatFiltering {
    const PORT: u16 = 40_001;
    let _listening = lab.inside(host, || {
        let listener = socket(None, PORT);
        listener.listen(8).expect("listening");
        listener
    });
    let seen = observe(lab, host, PORT, address(Lab::SERVER, 5002));
    let reached_from = |ip: &str| {
        let ip = ip.parse().expect("an address");
        let dialled = lab.inside(Host::S, || dial(socket(Some(ip), 5003), seen.address));
        dialled.is_ok()
    };
    match [Lab::SERVER_2, Lab::SERVER].map(reached_from) {
        [true, _] => NatFiltering::EndpointIndependent,
        [false, true] => NatFiltering::AddressDependent,
        [false, false] => NatFiltering::AddressAndPortDependent,
    }
}

/// What the server gets that knocks where nothing is mapped.
///
/// # Panics
/// When it is let in.
#[must_use]
pub fn unsolicited(lab: &Lab, host: Host) -> Unsolicited {
    let outside = observe(lab, host, 40_002, address(Lab::SERVER, 5004)).address;
    let nowhere = SocketAddr::new(outside.ip(), 1100);
    let by_tcp = lab.inside(Host::S, || dial(socket(None, 0), nowhere));
    let error = by_tcp.expect_err("nobody listens there");
    if error.kind() != io::ErrorKind::ConnectionRefused {
        return Unsolicited::Silence;
    }
    // Both refuse a connection; only ICMP also refuses a datagram.
    let by_udp = lab.inside(Host::S, || -> io::Result<usize> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(nowhere)?;
        socket.send(b"hello")?;
        socket.recv(&mut [0; 8])
    });
    match by_udp.map_err(|error| error.kind()) {
        Err(io::ErrorKind::ConnectionRefused) => Unsolicited::Icmp,
        _ => Unsolicited::Reset,
    }
}

/// An address of the server.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an IP address"), port)
}
