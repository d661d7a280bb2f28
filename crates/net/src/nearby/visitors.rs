//! Those who dial us.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use pinhole_budget::{Bounds, Budget, Full, Owner, SubnetBounds, Taken, Ticket};
use pinhole_proto::credential::Credential;
use pinhole_proto::key::PeerKey;
use pinhole_proto::name::PeerName;
use pinhole_proto::rendezvous::{PeerIdentity, RefuseReason, Role};
use pinhole_proto::tls::{Expect, Identity};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::NearbyEvent;
use super::dial::session;
use super::hello::{self, Introduction};
use super::networks::{Networks, Scope};
use crate::known::KnownKeys;
use crate::report::{Answer, PathAttempt, Report};
use crate::session::{Authenticated, Session, Transport, authenticate_expecting};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;
/// Connections whose key is not proven yet, by address: all machines of a network
/// share one prefix.
const HANDSHAKES: Bounds = Bounds {
    total: 64,
    reserved: 0,
    per_key: 8,
    per_subnet: SubnetBounds::UNBOUNDED,
};
/// Visitors who have proven a key, until they are let in or turned away. As many
/// events may wait.
const VISITORS: Bounds = Bounds {
    total: 48,
    reserved: 16,
    per_key: 4,
    per_subnet: SubnetBounds::UNBOUNDED,
};
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
    credential: Option<Credential>,
    up: Authenticated,
    since: Instant,
    _place: Place,
}

impl Visitor {
    /// The key is proven. The name is what its holder says.
    #[must_use]
    pub const fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    /// What it shows, to be let in.
    #[must_use]
    pub const fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }

    /// Lets it in, under `peer`'s name for it, and tells it ours.
    ///
    /// # Errors
    /// When the connection has broken meanwhile.
    pub async fn admit(mut self, name: &PeerName, peer: PeerIdentity) -> io::Result<Session> {
        let answer = hello::say(&mut self.up.stream, name);
        timeout(ANSWER_TIMEOUT, answer).await??;
        let mut report = Report::default();
        report.answered(1, PathAttempt::Accepted(self.up.remote), Answer::Selected);
        Ok(session(peer, Role::Controlled, self.up, self.since, report))
    }

    /// Turns it away, and tells it why.
    pub async fn refuse(mut self, reason: RefuseReason) {
        refuse(&mut self.up, reason).await;
    }
}

async fn refuse(up: &mut Authenticated, reason: RefuseReason) {
    let answer = async {
        hello::refuse(&mut up.stream, reason).await?;
        up.stream.shutdown().await
    };
    // It is told by the end of the connection at least.
    let _ = timeout(ANSWER_TIMEOUT, answer).await;
}

/// Counts the visitors.
#[derive(Debug, Clone)]
struct Places(Arc<Mutex<Budget<PeerKey>>>);

/// The place of one visitor, until this is dropped.
#[derive(Debug)]
struct Place {
    places: Places,
    ticket: Ticket,
}

impl Places {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Budget::new(VISITORS))))
    }

    fn take(&self, ip: IpAddr, key: PeerKey, is_known: bool) -> Result<Place, Full> {
        let owner = Owner {
            key: Some(key),
            address: Some(ip),
            is_known,
        };
        // The caller has the evicted visitor already and is about to decide.
        let Taken { ticket, .. } = self.lock().take(owner, 1)?;
        Ok(Place {
            places: self.clone(),
            ticket,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Budget<PeerKey>> {
        self.0.lock()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().give_back(self.ticket);
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

/// Where visitors come in.
pub(super) struct VisitorListener {
    pub(super) listener: TcpListener,
    pub(super) identity: Identity,
    pub(super) known: KnownKeys,
    pub(super) scope: Scope,
    pub(super) events: mpsc::Sender<NearbyEvent>,
}

/// The handshakes under way.
struct Handshakes {
    budget: Budget<IpAddr>,
    tasks: JoinSet<Ticket>,
    /// The oldest first.
    under_way: BTreeMap<Ticket, AbortHandle>,
}

impl Handshakes {
    fn new() -> Self {
        Self {
            budget: Budget::new(HANDSHAKES),
            tasks: JoinSet::new(),
            under_way: BTreeMap::new(),
        }
    }

    /// Begins another one with somebody from there. When there are too many, the address
    /// with most of them gives way; where all have one, the oldest does: an honest one
    /// is done in a moment.
    fn begin(&mut self, ip: IpAddr, handshake: impl Future<Output = ()> + Send + 'static) {
        let owner = Owner {
            key: Some(ip),
            address: None,
            is_known: false,
        };
        let mut taken = self.budget.take(owner, 1);
        if taken == Err(Full::Total)
            && self.budget.used_by_key(ip) == 0
            && let Some(oldest) = self.under_way.keys().next().copied()
        {
            self.end(oldest);
            taken = self.budget.take(owner, 1);
        }
        match taken {
            Ok(Taken { ticket, evicted }) => {
                evicted.into_iter().for_each(|ticket| self.end(ticket));
                let task = self.tasks.spawn(async move {
                    handshake.await;
                    ticket
                });
                self.under_way.insert(ticket, task);
            }
            Err(full) => debug!(%ip, "not listened to: {full}"),
        }
    }

    fn end(&mut self, ticket: Ticket) {
        self.budget.give_back(ticket);
        if let Some(task) = self.under_way.remove(&ticket) {
            task.abort();
        }
    }

    /// Returns when one has ended; `None` while there is none.
    async fn next_end(&mut self) -> Option<()> {
        // One that was aborted has been counted already.
        if let Ok(ticket) = self.tasks.join_next().await? {
            self.end(ticket);
        }
        Some(())
    }
}

impl VisitorListener {
    /// Accepts, shakes hands and passes visitors on, until the caller is gone.
    pub(super) async fn receive(self) {
        let places = Places::new();
        let mut handshakes = Handshakes::new();
        loop {
            tokio::select! {
                Some(()) = handshakes.next_end() => {}
                () = self.events.closed() => return,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, remote)) => {
                        let networks = Networks::now(self.scope);
                        let Some(remote) = networks.ok().and_then(|n| n.admit(remote)) else {
                            debug!(%remote, "not from a network of ours");
                            continue;
                        };
                        let visit = self.visit(stream, remote.ip(), places.clone());
                        handshakes.begin(remote.ip(), visit);
                    }
                    Err(error) => {
                        debug!(%error, "accepting a connection failed");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    /// Finds out who it is, and passes it on.
    fn visit(
        &self,
        stream: TcpStream,
        ip: IpAddr,
        places: Places,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (identity, known) = (self.identity.clone(), self.known.clone());
        let events = self.events.clone();
        async move {
            let since = Instant::now();
            let greeted = match timeout(HANDSHAKE_TIMEOUT, greet(stream, &identity)).await {
                Ok(Ok(greeted)) => greeted,
                Ok(Err(error)) => return debug!(%ip, %error, "no visitor"),
                Err(_) => return debug!(%ip, "too slow for a visitor"),
            };
            let (key, Introduction { name, credential }, mut up) = greeted;
            let peer = PeerIdentity { name, key };
            let place = match places.take(ip, peer.key, known.contains(peer.key)) {
                Ok(place) => place,
                Err(full) => {
                    debug!(%ip, "turned away: {full}");
                    return refuse(&mut up, RefuseReason::Busy).await;
                }
            };
            let visitor = Visitor {
                peer,
                credential,
                up,
                since,
                _place: place,
            };
            let passed_on = events.try_send(NearbyEvent::Visitor(visitor));
            if let Err(TrySendError::Full(NearbyEvent::Visitor(visitor))) = passed_on {
                debug!(%ip, "turned away: too many wait");
                visitor.refuse(RefuseReason::Busy).await;
            }
        }
    }
}

async fn greet(
    stream: TcpStream,
    identity: &Identity,
) -> io::Result<(PeerKey, Introduction, Authenticated)> {
    let transport = Transport::direct(stream)?;
    let proven = authenticate_expecting(transport, Role::Controlled, identity, Expect::AnyKey);
    let (key, mut up) = proven.await?;
    let introduction = Introduction::hear(&mut up.stream).await?;
    Ok((key, introduction, up))
}
