//! Those who dial us.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use pinhole_proto::name::PeerName;
use pinhole_proto::rendezvous::{PeerIdentity, Role};
use pinhole_proto::tls::{Expect, Identity};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::NearbyEvent;
use super::dial::session;
use super::hello;
use super::networks::{Networks, Scope};
use crate::connect::{Answer, Report, Way};
use crate::session::{Authenticated, Session, Transport, authenticate_expecting};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 16;
/// Handshakes under way at a time, of all and of one address.
const HANDSHAKES: usize = 32;
const HANDSHAKES_OF_ONE: usize = 8;
/// How long a handshake may take, the name included.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take to leave.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// After an error of the listener, which may be for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Somebody who has dialled us and proven a key. Dropping it refuses, too.
#[derive(Debug)]
pub struct Visitor {
    peer: PeerIdentity,
    up: Authenticated,
    since: Instant,
}

impl Visitor {
    /// The key is proven. The name is what its holder says.
    #[must_use]
    pub const fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    /// Lets it in, under `peer`'s name for it, and tells it ours.
    ///
    /// # Errors
    /// When the connection has broken meanwhile.
    pub async fn admit(mut self, name: &PeerName, peer: PeerIdentity) -> io::Result<Session> {
        let answer = hello::say(&mut self.up.stream, name);
        timeout(ANSWER_TIMEOUT, answer).await??;
        let mut report = Report::default();
        report.answered(1, Way::Accepted(self.up.remote), Answer::Selected);
        Ok(session(peer, Role::Controlled, self.up, self.since, report))
    }

    /// Turns it away.
    pub async fn refuse(mut self) {
        // It is told by the end of the connection, with or without a goodbye.
        let _ = timeout(ANSWER_TIMEOUT, self.up.stream.shutdown()).await;
    }
}

/// A port of every interface, of both families where there are both.
pub(super) fn listen() -> io::Result<TcpListener> {
    let dual = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_only_v6(false)?;
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into())?;
        Ok(socket)
    };
    let v4_only = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
        Ok(socket)
    };
    let socket = dual().or_else(|_| v4_only())?;
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts, shakes hands and passes visitors on, until the caller is gone.
pub(super) async fn receive(
    listener: TcpListener,
    identity: Identity,
    scope: Scope,
    events: mpsc::Sender<NearbyEvent>,
) {
    let mut handshakes: JoinSet<IpAddr> = JoinSet::new();
    let mut under_way: Vec<IpAddr> = Vec::new();
    loop {
        let has_room = under_way.len() < HANDSHAKES;
        tokio::select! {
            Some(ended) = handshakes.join_next() => {
                let Ok(ip) = ended else { return };
                if let Some(place) = under_way.iter().position(|&other| other == ip) {
                    under_way.swap_remove(place);
                }
            }
            accepted = listener.accept(), if has_room => {
                let (stream, remote) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        debug!(%error, "accepting a connection failed");
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                let networks = Networks::now(scope);
                let Some(remote) = networks.ok().and_then(|n| n.admit(remote)) else {
                    debug!(%remote, "not from a network of ours");
                    continue;
                };
                let ip = remote.ip();
                if under_way.iter().filter(|&&other| other == ip).count() >= HANDSHAKES_OF_ONE {
                    continue;
                }
                under_way.push(ip);
                let (identity, events) = (identity.clone(), events.clone());
                handshakes.spawn(async move {
                    let greeting = timeout(HANDSHAKE_TIMEOUT, greet(stream, &identity)).await;
                    match greeting {
                        Ok(Ok(visitor)) => {
                            // The queue closes when nobody is at home any more.
                            let _ = events.send(NearbyEvent::Visitor(visitor)).await;
                        }
                        Ok(Err(error)) => debug!(%remote, %error, "no visitor"),
                        Err(_) => debug!(%remote, "too slow for a visitor"),
                    }
                    ip
                });
            }
        }
    }
}

async fn greet(stream: TcpStream, identity: &Identity) -> io::Result<Visitor> {
    let since = Instant::now();
    let transport = Transport::direct(stream)?;
    let proven = authenticate_expecting(transport, Role::Controlled, identity, Expect::AnyKey);
    let (key, mut up) = proven.await?;
    let name = hello::hear(&mut up.stream).await?;
    Ok(Visitor {
        peer: PeerIdentity { name, key },
        up,
        since,
    })
}
