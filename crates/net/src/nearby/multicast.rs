//! Whether multicast DNS works on this machine, as far as the machine itself can tell.
//!
//! What is sent to the group comes back to whoever has joined it on the same machine,
//! through the same rules of its firewall as what others send. So a question that is
//! not heard again says that this machine is in its own way. What stands between the
//! machines (a firewall on the other one, an access point that keeps its clients
//! apart) does not show.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use if_addrs::Interface;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::networks::Scope;

const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// How often the question is asked.
const TRIES: u32 = 3;
/// How long it may take each time to come back.
const TRY: Duration = Duration::from_millis(200);
/// Who is there? (PTR of `_pinhole._tcp.local`, RFC 6763, 4.)
const QUESTION: &[u8] = b"\0\0\0\0\0\x01\0\0\0\0\0\0\x08_pinhole\x04_tcp\x05local\0\0\x0c\0\x01";

/// What becomes of what this machine says by multicast, by which peers nearby find
/// each other (UDP port 5353).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Multicast {
    /// It is heard here, at least.
    Heard,
    /// It is not even heard here: a firewall on this machine drops it.
    NotHeard,
    /// The system does not send it, as a firewall on this machine makes it do, or does
    /// not let us join.
    NotSent(String),
    /// There is no network on which to say anything.
    NoNetwork,
}

/// Says something by multicast and listens for it; takes 0.6 s when it is not heard.
pub async fn examine_multicast() -> Multicast {
    examine(Scope::LAN).await
}

pub(super) async fn examine(scope: Scope) -> Multicast {
    let is_wanted =
        |interface: &Interface| interface.is_oper_up() && interface.is_loopback() == scope.loopback;
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let mut examined = JoinSet::new();
    for interface in interfaces.into_iter().filter(is_wanted) {
        let (ip, index) = (interface.ip(), interface.index.unwrap_or_default());
        examined.spawn(async move { is_heard(ip, index, scope.mdns_port).await });
    }
    let mut worst = Multicast::NoNetwork;
    while let Some(Ok(heard)) = examined.join_next().await {
        match heard {
            Ok(true) => return Multicast::Heard,
            Ok(false) => worst = Multicast::NotHeard,
            Err(error) if worst == Multicast::NoNetwork => {
                worst = Multicast::NotSent(error.to_string());
            }
            Err(_) => {}
        }
    }
    worst
}

/// Whether what is said on the interface with this address comes back.
async fn is_heard(ip: IpAddr, index: u32, port: u16) -> io::Result<bool> {
    let (group, listener, speaker) = match ip {
        IpAddr::V4(v4) => {
            let group = SocketAddr::from((GROUP_V4, port));
            let listener = listener(Domain::IPV4, group)?;
            listener.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Address(v4))?;
            let speaker = socket(Domain::IPV4)?;
            speaker.set_multicast_if_v4(&v4)?;
            (group, listener, speaker)
        }
        IpAddr::V6(_) => {
            let group = SocketAddrV6::new(GROUP_V6, port, 0, index).into();
            let listener = listener(Domain::IPV6, group)?;
            listener.join_multicast_v6(&GROUP_V6, index)?;
            let speaker = socket(Domain::IPV6)?;
            speaker.set_multicast_if_v6(index)?;
            (group, listener, speaker)
        }
    };
    let unspecified: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    speaker.bind(&SocketAddr::new(unspecified, 0).into())?;
    let listener = UdpSocket::from_std(listener.into())?;
    let speaker = UdpSocket::from_std(speaker.into())?;
    let own_port = speaker.local_addr()?.port();
    for _ in 0..TRIES {
        speaker.send_to(QUESTION, group).await?;
        if let Ok(heard) = timeout(TRY, hear(&listener, own_port)).await {
            return heard.map(|()| true);
        }
    }
    Ok(false)
}

/// Returns when the question is heard that was asked from this port.
async fn hear(listener: &UdpSocket, own_port: u16) -> io::Result<()> {
    let mut bytes = [0; 1500];
    loop {
        let (count, from) = listener.recv_from(&mut bytes).await?;
        if from.port() == own_port && bytes.get(..count) == Some(QUESTION) {
            return Ok(());
        }
    }
}

fn socket(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Beside whoever else listens there. Where the system allows it, it is bound to the
/// group, so that it takes nothing that is sent to one of the others.
fn listener(domain: Domain, group: SocketAddr) -> io::Result<Socket> {
    let socket = socket(domain)?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    let at = match group {
        _ if cfg!(unix) => group,
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, group.port())),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, group.port())),
    };
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
    }
    socket.bind(&at.into())?;
    Ok(socket)
}
