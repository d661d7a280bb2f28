//! A TCP port that listens and connects at the same time.
//!
//! Ordinary sockets own their local port: a program may listen on it or
//! connect from it, once. Crossing NATs needs both, and more than once: the
//! connection that shows a server the port's public address, the attempts to
//! reach a peer, and the listener that the peer may reach all have to leave
//! from, or arrive at, *one* local port, so that one NAT mapping serves them
//! all.
//!
//! [`LocalPort`] is that port. It knows nothing of Pinhole and can be used on
//! its own, inside any tokio runtime:
//!
//! ```
//! # async fn example() -> std::io::Result<()> {
//! use pinhole_net::socket::{AddressReuse, LocalPort};
//!
//! let port = LocalPort::bind("127.0.0.1:0".parse().unwrap(), AddressReuse::On)?;
//! let listener = port.listen()?;
//! let other = LocalPort::bind("127.0.0.1:0".parse().unwrap(), AddressReuse::On)?;
//! let outgoing = other.connect(port.address()).await?;
//! let (incoming, from) = listener.accept().await?;
//! assert_eq!(from, other.address());
//! # drop((outgoing, incoming));
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
//! #     .block_on(example()).unwrap();
//! ```
//!
//! `examples/punch.rs` is the whole idea in one page: two peers, one
//! introducer, one punched connection.
//!
//! # What the systems ask for
//!
//! * Unix: `SO_REUSEADDR` **and** `SO_REUSEPORT` on *every* socket of the port,
//!   before it is bound. With `SO_REUSEADDR` alone a bind after a listener
//!   fails with `EADDRINUSE`.
//! * Windows: `SO_REUSEADDR` only, never the exclusive option, and one
//!   listener per port.
//! * Every system: a pair of addresses can carry one connection. While it
//!   exists, or is being established, a second `connect` to the same remote
//!   address fails, on Linux with `AddrNotAvailable`, elsewhere with `AddrInUse`
//!   ([`is_pair_in_use`]): wait for the first.
//!
//! # How to punch
//!
//! Let a server observe the port's public address over a connection that stays
//! open, exchange addresses through it, then on both sides at the same moment
//! [`listen`](LocalPort::listen) and [`connect`](LocalPort::connect). Hold a
//! pending `connect` rather than restarting it (the kernel retransmits), redial
//! at once when it fails, and take whichever connection comes up first. Both
//! `connect` calls may return the same connection (TCP's simultaneous open)
//! while `accept` never does: who speaks first must come from the protocol.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;
/// How long a connection may be silent before the kernel probes it: short
/// enough for NATs that forget an idle connection after a minute or two.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(25);
/// Time between two probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Whether several sockets may share one local port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressReuse {
    /// Any number of connections and a listener share the port.
    On,
    /// The port serves a single listener or a single connection, as ordinary
    /// sockets do; the next use fails with `AddrInUse`.
    Off,
}

/// One local TCP port, held for as long as this value lives.
///
/// Dropping it closes neither its listeners nor its connections.
#[derive(Debug)]
pub struct LocalPort {
    address: SocketAddr,
    reuse: AddressReuse,
    /// Bound but idle. With reuse it keeps the port from being given to
    /// somebody else; without, it is the one socket the port has to give.
    reservation: Mutex<Option<Socket>>,
}

impl LocalPort {
    /// Takes a local port. Port 0 asks the system for a free one; an
    /// unspecified IP address (`0.0.0.0`, `[::]`) stands for every interface.
    /// IPv6 sockets are IPv6 only.
    ///
    /// # Errors
    /// As `bind(2)`: the address is in use, not ours, or of a family that this
    /// machine does not have.
    pub fn bind(address: SocketAddr, reuse: AddressReuse) -> io::Result<Self> {
        let socket = bound_socket(address, reuse)?;
        let address = socket
            .local_addr()?
            .as_socket()
            .ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
        Ok(Self {
            address,
            reuse,
            reservation: Mutex::new(Some(socket)),
        })
    }

    /// Takes a free port of one family on every interface, with reuse.
    pub(crate) fn bind_any(is_ipv6: bool) -> io::Result<Self> {
        let any: IpAddr = match is_ipv6 {
            true => Ipv6Addr::UNSPECIFIED.into(),
            false => Ipv4Addr::UNSPECIFIED.into(),
        };
        Self::bind(SocketAddr::new(any, 0), AddressReuse::On)
    }

    /// The address bound, with the real port.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens on this port.
    ///
    /// # Errors
    /// As `listen(2)`; `AddrInUse` without reuse when the port has been used.
    pub fn listen(&self) -> io::Result<TcpListener> {
        let socket = self.socket()?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    }

    /// Connects from this port. The attempt begins at once, so that several leave
    /// in the order in which they are asked for, whoever awaits them: a NAT may
    /// count. It lasts until the kernel gives up (about two minutes) and ends when
    /// the future is dropped. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// As `connect(2)`. Where [`is_pair_in_use`], a connection with these two
    /// addresses exists or is being established already. `AddrInUse` without
    /// reuse means that the port has been used.
    pub fn connect(
        &self,
        remote: SocketAddr,
    ) -> impl Future<Output = io::Result<TcpStream>> + Send + use<> {
        let socket = self.socket();
        let mut connecting = Box::pin(async move {
            let socket = TcpSocket::from_std_stream(socket?.into());
            socket.connect(remote).await
        });
        // The first poll makes the system call. Whoever is to be woken tells the next.
        let first = connecting
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        async move {
            match first {
                Poll::Ready(connected) => connected,
                Poll::Pending => connecting.await,
            }
        }
    }

    fn socket(&self) -> io::Result<Socket> {
        match self.reuse {
            AddressReuse::On => bound_socket(self.address, self.reuse),
            AddressReuse::Off => self
                .reservation
                .lock()
                .take()
                .ok_or_else(|| io::Error::from(io::ErrorKind::AddrInUse)),
        }
    }
}

/// Whether this error of [`LocalPort::connect`], on a port with reuse, says that a
/// connection between the two addresses exists or is being established already.
#[must_use]
pub fn is_pair_in_use(error: &io::Error) -> bool {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => true,
        // Windows, the BSDs and macOS; on the last two this was never tried.
        io::ErrorKind::AddrInUse => !cfg!(any(target_os = "linux", target_os = "android")),
        _ => false,
    }
}

fn bound_socket(address: SocketAddr, reuse: AddressReuse) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if reuse == AddressReuse::On {
        socket.set_reuse_address(true)?;
        #[cfg(unix)]
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Sets what every connection of this crate wants: no delay for small writes,
/// and probes that keep NATs from forgetting it and notice a dead other end.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL);
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    retransmit_evenly(&socket)?;
    socket.set_tcp_keepalive(&keepalive)
}

/// Has the kernel retransmit at least every second, where it can (Linux 6.15 and
/// later): by itself it waits twice as long each time, and after a break of 20 s
/// goes on up to 13 s late. That would end a connection after 15 attempts, so it
/// gets a time instead.
#[cfg(target_os = "linux")]
fn retransmit_evenly(socket: &SockRef<'_>) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;

    /// `TCP_RTO_MAX_MS` of `linux/tcp.h`.
    const TCP_RTO_MAX_MS: libc::c_int = 44;
    const RTO_MAX_MS: libc::c_int = 1000;
    const RTO_MAX_BYTES: libc::socklen_t = 4;
    const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(120);
    #[allow(unsafe_code, reason = "no crate has this option yet")]
    // SAFETY: the descriptor is open, and the kernel reads as many bytes of the
    // constant as it is told that there are.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            TCP_RTO_MAX_MS,
            std::ptr::from_ref(&RTO_MAX_MS).cast(),
            RTO_MAX_BYTES,
        )
    };
    match set {
        0 => socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX)),
        // An older kernel.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::timeout;

    use super::*;

    fn port(reuse: AddressReuse) -> LocalPort {
        LocalPort::bind((Ipv4Addr::LOCALHOST, 0).into(), reuse).unwrap()
    }

    #[tokio::test]
    async fn one_port_listens_and_connects_to_several_at_once() {
        let port = port(AddressReuse::On);
        let servers = [self::port(AddressReuse::On), self::port(AddressReuse::On)];
        let listeners = servers.each_ref().map(|s| s.listen().unwrap());
        let own_listener = port.listen().unwrap();
        let mut outgoing = Vec::new();
        for (server, listener) in servers.iter().zip(&listeners) {
            outgoing.push(port.connect(server.address()).await.unwrap());
            let (_stream, from) = listener.accept().await.unwrap();
            assert_eq!(from, port.address());
        }
        let stranger = TcpStream::connect(port.address()).await.unwrap();
        let (_accepted, from) = own_listener.accept().await.unwrap();
        assert_eq!(from, stranger.local_addr().unwrap());
    }

    /// Else tasks that run side by side would dial in any order.
    #[tokio::test]
    async fn a_connection_is_begun_before_anyone_awaits_it() {
        let (port, server) = (port(AddressReuse::On), port(AddressReuse::On));
        let listener = server.listen().unwrap();
        let connecting = port.connect(server.address());
        let accepted = timeout(Duration::from_secs(20), listener.accept()).await;
        let (_accepted, from) = accepted.expect("nobody came").unwrap();
        assert_eq!(from, port.address());
        assert_eq!(
            connecting.await.unwrap().peer_addr().unwrap(),
            server.address()
        );
    }

    #[tokio::test]
    async fn a_second_connection_between_the_same_addresses_is_refused_as_such() {
        let (a, b) = (port(AddressReuse::On), port(AddressReuse::On));
        let _listeners = (a.listen().unwrap(), b.listen().unwrap());
        let _stream = a.connect(b.address()).await.unwrap();
        for (from, to) in [(&a, &b), (&b, &a)] {
            let error = from.connect(to.address()).await.unwrap_err();
            assert!(is_pair_in_use(&error), "{error}");
        }
    }

    #[tokio::test]
    async fn without_reuse_the_port_serves_once() {
        let port = port(AddressReuse::Off);
        let _listener = port.listen().unwrap();
        assert_eq!(port.listen().unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let elsewhere = self::port(AddressReuse::On);
        let _other = elsewhere.listen().unwrap();
        let error = port.connect(elsewhere.address()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn the_port_stays_ours_while_it_is_held() {
        let port = port(AddressReuse::On);
        let stranger = LocalPort::bind(port.address(), AddressReuse::Off);
        assert_eq!(stranger.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn speaks_ipv6() {
        let address = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
        let Ok(a) = LocalPort::bind(address, AddressReuse::On) else {
            eprintln!("SKIPPED: this machine has no IPv6 loopback");
            return;
        };
        let b = LocalPort::bind(address, AddressReuse::On).unwrap();
        let listener = b.listen().unwrap();
        let _stream = a.connect(b.address()).await.unwrap();
        assert_eq!(listener.accept().await.unwrap().1, a.address());
    }

    /// Neither side listens, so only TCP's simultaneous open can connect them:
    /// each SYN that finds nobody dialling is answered by a RST and redialled
    /// at once. On loopback the window is a few microseconds wide, so both
    /// sides dial in tight loops on threads of their own.
    #[test]
    fn two_dialling_ports_meet_in_a_simultaneous_open() {
        const ATTEMPTS: u32 = 1_000_000;
        fn dial(from: &LocalPort, to: SocketAddr, attempts: u32) -> Option<TcpStream> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                for _ in 0..attempts {
                    if let Ok(stream) = from.connect(to).await {
                        return Some(stream);
                    }
                }
                None
            })
        }
        let (a, b) = (port(AddressReuse::On), port(AddressReuse::On));
        let (to_a, to_b) = (a.address(), b.address());
        let (one, other) = std::thread::scope(|scope| {
            let other = scope.spawn(|| dial(&b, to_a, ATTEMPTS));
            (dial(&a, to_b, ATTEMPTS), other.join().unwrap())
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let one = one.expect("no simultaneous open").into_std().unwrap();
            let other = other.expect("one side only").into_std().unwrap();
            let mut one = TcpStream::from_std(one).unwrap();
            let mut other = TcpStream::from_std(other).unwrap();
            one.write_all(b"through").await.unwrap();
            let mut heard = [0; 7];
            other.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"through");
        });
    }
}
