//! The client of the rendezvous server: one logged-in control connection.

mod control;
mod invitations;
pub(crate) mod server;
pub(crate) mod wire;

use std::sync::Arc;
use std::time::{Duration, Instant};

use pinhole_proto::agent::PathPolicy;
use pinhole_proto::frame::Decoder;
use pinhole_proto::key::PeerKey;
use pinhole_proto::name::PeerName;
use pinhole_proto::rendezvous::{
    ClientMessage, HostSharing, IntroductionId, PROTOCOL_VERSION, PeerIdentity, Refusal,
    RefuseReason, Role, ServerMessage,
};
use pinhole_proto::tls::{Expect, Identity};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

pub(crate) use control::{AttemptMessage, Inbox};
pub use server::{Persistence, ServerConnectError};
pub use wire::WireError;

use crate::connect::{self, Accepted, ConnectError, Wanted};
use crate::connect::{Observing, WarmPort};
use crate::known::KnownKeys;
use crate::port_mapping::PortMapper;
use crate::proxy::ProxyChoice;
use crate::server_address::ServerAddress;
use crate::session::{LiveSessions, Session, SessionHandle};
use control::{Attempts, Reader};
use invitations::Invitations;
use server::Server;

/// How long the server may take to answer the login.
const LOG_IN_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that may wait to be sent.
const OUTGOING_MESSAGES: usize = 128;
/// Events that may wait for the caller; beyond it, reading from the server stops.
const EVENTS: usize = 256;

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
    /// Which paths sessions may take.
    pub path: PathPolicy,
    /// Sessions that are up, of earlier logins, too.
    pub sessions: LiveSessions,
    /// For whom something is kept free when strangers invite us all the time.
    pub known: KnownKeys,
    /// Whether the server is reached through a proxy.
    pub proxy: ProxyChoice,
    /// Whom to ask for port mappings; `None` for nobody. Nobody is asked with
    /// [`PathPolicy::RelayOnly`] either.
    pub port_mapper: Option<PortMapper>,
}

/// What a login brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedIn {
    /// The name, ours now.
    pub name: PeerName,
    /// The public address from which the server sees the control connection.
    pub observed: std::net::SocketAddr,
    /// The server's key, to be pinned.
    pub server_key: PeerKey,
    /// Whether the server offers a relay.
    pub relay: bool,
}

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
pub enum LogInError {
    /// No authenticated connection to the server.
    #[error(transparent)]
    Connect(#[from] ServerConnectError),
    /// The name is bound to another key.
    #[error("the name {0} belongs to somebody else; choose another")]
    NameTaken(PeerName),
    /// The server turned the login down for another reason.
    #[error("{0}")]
    Refused(Refusal),
    /// The connection broke, or the server did not keep to the protocol.
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl LogInError {
    /// Whether somebody answered who is not the server expected.
    #[must_use]
    pub const fn is_wrong_server_key(&self) -> bool {
        matches!(self, Self::Connect(ServerConnectError::WrongKey { .. }))
    }
}

/// What happens on the control connection.
#[derive(Debug)]
pub enum RendezvousEvent {
    /// Everybody who is online but ourselves; comes once, first.
    Roster(Vec<PeerIdentity>),
    /// A peer has logged in, or in again with another key.
    Online(PeerIdentity),
    /// A peer is gone.
    Offline(PeerName),
    /// A peer wants to connect. To be accepted or refused within seconds.
    Invitation(Invitation),
    /// The server ends the relay to this peer; sessions over it break off.
    RelayEnded {
        /// The other side.
        peer: PeerKey,
        /// The limit that was reached.
        reason: Refusal,
    },
    /// The end. Sessions live on; attempts to connect may.
    Disconnected(DisconnectReason),
}

/// Why the control connection ended.
#[derive(Debug, thiserror::Error)]
pub enum DisconnectReason {
    /// The server ended it.
    #[error("{0}")]
    Refused(Refusal),
    /// It broke.
    #[error(transparent)]
    Lost(#[from] WireError),
}

/// A peer's wish to connect.
#[derive(Debug, Clone)]
pub struct Invitation {
    introduction: IntroductionId,
    from: PeerIdentity,
    sessions: LiveSessions,
}

impl Invitation {
    /// Who asks, as the server knows it. The session proves the key.
    #[must_use]
    pub const fn from(&self) -> &PeerIdentity {
        &self.from
    }

    /// Whether a session is up that this peer may want to move: one that it began.
    /// What it wants shows only when it is connected; then it may as well begin
    /// another.
    #[must_use]
    pub fn may_move_a_session(&self) -> bool {
        self.sessions.has_any_of(self.from.key)
    }
}

/// One logged-in control connection. Clones share it; it ends with the last
/// of them, or with the receiver of its events.
#[derive(Debug, Clone)]
pub struct Rendezvous {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: Arc<Server>,
    identity: Identity,
    path: PathPolicy,
    sessions: LiveSessions,
    known: KnownKeys,
    outgoing: mpsc::Sender<ClientMessage>,
    attempts: Attempts,
    /// Absent when only the relay may be used: nothing then reveals an address.
    warm_port: Option<WarmPort>,
    reader: AbortHandle,
    /// How many messages the server has sent.
    heard: watch::Receiver<u64>,
    given_up: Arc<Notify>,
    /// Between the login and its answer.
    round_trip: Duration,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Rendezvous {
    /// Connects to the server and takes the name. The events have to be
    /// received as long as the handle is used: never wait for
    /// [`Rendezvous::connect`] in the place that receives them.
    ///
    /// # Errors
    /// Says exactly what stood in the way.
    pub async fn log_in(
        log_in: LogIn,
    ) -> Result<(Self, LoggedIn, mpsc::Receiver<RendezvousEvent>), LogInError> {
        Box::pin(Self::approach(log_in, Persistence::Once))
            .await?
            .log_in()
            .await
    }

    /// Connects to the server without taking the name yet: whoever is logged in
    /// there already stays so.
    ///
    /// # Errors
    /// Says exactly what stood in the way.
    pub async fn approach(log_in: LogIn, persistence: Persistence) -> Result<Approach, LogInError> {
        let wanted = (&log_in.server, &log_in.identity);
        let proxy = log_in.proxy.proxy_for(log_in.server.host());
        let reached = Server::reach(wanted.0, proxy, log_in.expect, wanted.1, persistence);
        let (reached, tcp) = Box::pin(reached).await?;
        // The punch port is observed while the login is under way, so that the
        // first attempt to connect need not wait for it. Without a pinned key
        // it waits until the server has shown which one it has.
        let (tell_observing, observing) = watch::channel(None);
        let warm = |server: &Server| {
            (log_in.path != PathPolicy::RelayOnly).then(|| {
                server.seek_direct_way();
                let (server, observing) = (Arc::new(server.clone()), observing.clone());
                WarmPort::start(server, observing, log_in.port_mapper.clone())
            })
        };
        let early = reached.is_pinned().then(|| warm(&reached)).flatten();
        let (server, server_key, stream) = Box::pin(reached.prove(wanted.0, wanted.1, tcp)).await?;
        let warm_port = early.or_else(|| warm(&server));
        Ok(Approach {
            log_in,
            server: Arc::new(server),
            server_key,
            stream: Box::new(stream),
            tell_observing,
            warm_port,
        })
    }

    /// Connects to a peer. `expect` is the key it must have; `share_host`
    /// tells whether it may learn our addresses in the local network. The
    /// session may move to a better path later, by itself.
    ///
    /// # Errors
    /// Says exactly what stood in the way; in [`ConnectError::NoPath`], all
    /// that was tried.
    pub async fn connect(
        &self,
        peer: PeerName,
        expect: PeerKey,
        share_host: HostSharing,
    ) -> Result<Session, ConnectError> {
        let wanted = Wanted {
            introduction: introduction_id()?,
            role: Role::Controlling,
            peer: PeerIdentity {
                name: peer,
                key: expect,
            },
            share_host,
            policy: self.path(),
            improve: None,
        };
        match connect::run(self, wanted).await? {
            Accepted::Session(session) => Ok(session),
            // Only sessions that the other side controls are moved by it.
            Accepted::Moved => Err(ConnectError::Busy),
        }
    }

    /// Looks for a better path for a session that this side controls. Returns
    /// whether it has moved to one; not while another attempt looks for one.
    ///
    /// # Errors
    /// As [`Rendezvous::connect`], when nothing better was found either.
    pub async fn improve(
        &self,
        session: &SessionHandle,
        share_host: HostSharing,
    ) -> Result<bool, ConnectError> {
        let live = session.0.clone();
        let attempt = live.begin_attempt().filter(|_| session.is_controlling());
        let Some(attempt) = attempt else {
            return Ok(false);
        };
        let wanted = Wanted {
            introduction: introduction_id()?,
            role: Role::Controlling,
            peer: live.peer.clone(),
            share_host,
            policy: PathPolicy::DirectOnly,
            improve: Some((live, attempt)),
        };
        connect::run(self, wanted).await.map(|_| true)
    }

    /// Takes up an invitation, by the paths that both `policy` and the login allow.
    ///
    /// With [`PathPolicy::RelayOnly`] the other side does not learn where this one is:
    /// no address is named, nothing listens or dials, and no port is taken. A session
    /// that begins so can move to a direct path later: the other side looks for one
    /// ([`Rendezvous::improve`]), and that invitation is taken up with another policy.
    ///
    /// # Errors
    /// As [`Rendezvous::connect`]. When nothing is allowed, the invitation is turned
    /// down with [`RefuseReason::NeedsPermission`].
    pub async fn accept(
        &self,
        invitation: Invitation,
        share_host: HostSharing,
        policy: PathPolicy,
    ) -> Result<Accepted, ConnectError> {
        let Some(policy) = policy.and(self.path()) else {
            let reason = RefuseReason::NeedsPermission;
            self.refuse(invitation, reason).await;
            return Err(ConnectError::Introduction(reason.into()));
        };
        let wanted = Wanted {
            introduction: invitation.introduction,
            role: Role::Controlled,
            peer: invitation.from.clone(),
            share_host,
            policy,
            improve: None,
        };
        let accepted = connect::run(self, wanted).await;
        if let Err(ConnectError::Busy) = accepted {
            // The other side need not wait to find out.
            self.refuse(invitation, RefuseReason::Busy).await;
        }
        accepted
    }

    /// Turns an invitation down. Nothing happens when the connection to the
    /// server is gone: then the invitation is, too.
    pub async fn refuse(&self, invitation: Invitation, reason: RefuseReason) {
        let introduction = invitation.introduction;
        let refuse = ClientMessage::Refuse {
            introduction,
            reason,
        };
        let _ = self.say(refuse).await;
    }

    /// Asks the server whether it is there, and returns when it says anything:
    /// true, or false when the connection is gone.
    pub async fn answers(&self) -> bool {
        let mut heard = self.shared.heard.clone();
        heard.mark_unchanged();
        let ping = ClientMessage::Ping { nonce: 0 };
        if self.shared.outgoing.try_send(ping).is_err() {
            return false;
        }
        heard.changed().await.is_ok()
    }

    /// How long the server took to answer the login: at least a round trip.
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        self.shared.round_trip
    }

    /// Ends the connection. Whoever waits for a word of the server is told that
    /// there will be none.
    pub fn give_up(&self) {
        self.shared.given_up.notify_one();
    }

    pub(crate) async fn say(&self, message: ClientMessage) -> Result<(), ConnectError> {
        let sent = self.shared.outgoing.send(message).await;
        sent.map_err(|_| ConnectError::Disconnected)
    }

    pub(crate) fn register(&self, wanted: &Wanted) -> Result<Inbox, ConnectError> {
        let peer = wanted.peer.key;
        let is_known = wanted.role == Role::Controlling || self.shared.known.contains(peer);
        let attempts = &self.shared.attempts;
        let inbox = attempts.register(wanted.introduction, peer, is_known);
        inbox.ok_or(ConnectError::Busy)
    }

    pub(crate) fn server(&self) -> &Arc<Server> {
        &self.shared.server
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    pub(crate) fn sessions(&self) -> &LiveSessions {
        &self.shared.sessions
    }

    pub(crate) fn path(&self) -> PathPolicy {
        self.shared.path
    }

    pub(crate) fn warm_port(&self) -> Option<&WarmPort> {
        self.shared.warm_port.as_ref()
    }
}

/// A server that has proven its key, and is not asked for a name yet.
#[derive(Debug)]
pub struct Approach {
    log_in: LogIn,
    server: Arc<Server>,
    server_key: PeerKey,
    stream: Box<TlsStream<TcpStream>>,
    tell_observing: watch::Sender<Option<Observing>>,
    warm_port: Option<WarmPort>,
}

impl Approach {
    /// Takes the name: as [`Rendezvous::log_in`] from here on.
    ///
    /// # Errors
    /// Says exactly what stood in the way.
    pub async fn log_in(
        mut self,
    ) -> Result<(Rendezvous, LoggedIn, mpsc::Receiver<RendezvousEvent>), LogInError> {
        let mut decoder = wire::server_decoder();
        let asked_at = Instant::now();
        let answer = ask_for_name(&mut self.stream, &mut decoder, &self.log_in.name);
        let Answer {
            observed,
            observer_ports,
            relay,
        } = timeout(LOG_IN_TIMEOUT, answer)
            .await
            .unwrap_or(Err(WireError::Silent.into()))?;
        let round_trip = asked_at.elapsed();
        let mut other_ports = observer_ports.into_iter();
        let other_port = other_ports.find(|p| *p != self.server.port());
        let observing = other_port.map(|other_port| Observing {
            control: observed,
            other_port,
        });
        self.tell_observing.send_replace(observing);
        let logged_in = LoggedIn {
            name: self.log_in.name.clone(),
            observed,
            server_key: self.server_key,
            relay,
        };
        let (rendezvous, events) = self.begin(decoder, round_trip);
        Ok((rendezvous, logged_in, events))
    }

    /// Begins to read and write.
    fn begin(
        self,
        decoder: Decoder,
        round_trip: Duration,
    ) -> (Rendezvous, mpsc::Receiver<RendezvousEvent>) {
        let (events, events_receiver) = mpsc::channel(EVENTS);
        let (outgoing, queue) = mpsc::channel(OUTGOING_MESSAGES);
        let (read_half, write_half) = tokio::io::split(*self.stream);
        let attempts = Attempts::new();
        let (heard_by_reader, heard) = watch::channel(0);
        let given_up = Arc::new(Notify::new());
        let reader = Reader {
            stream: read_half,
            decoder,
            outgoing: outgoing.downgrade(),
            events,
            attempts: attempts.clone(),
            writer: tokio::spawn(control::write_all(write_half, queue)).abort_handle(),
            heard: heard_by_reader,
            roster: Vec::new(),
            invitations: Invitations::new(),
            sessions: self.log_in.sessions.clone(),
            known: self.log_in.known.clone(),
            given_up: given_up.clone(),
        };
        let shared = Arc::new(Shared {
            server: self.server,
            identity: self.log_in.identity,
            path: self.log_in.path,
            sessions: self.log_in.sessions,
            known: self.log_in.known,
            outgoing,
            attempts,
            warm_port: self.warm_port,
            reader: tokio::spawn(reader.run()).abort_handle(),
            heard,
            given_up,
            round_trip,
        });
        (Rendezvous { shared }, events_receiver)
    }
}

fn introduction_id() -> Result<IntroductionId, ConnectError> {
    let mut id = [0; IntroductionId::BYTES];
    let filled = SystemRandom::new().fill(&mut id);
    filled.map_err(|_| ConnectError::Random)?;
    Ok(IntroductionId::from_random(id))
}

/// What the server says to a login.
struct Answer {
    /// Our public address.
    observed: std::net::SocketAddr,
    /// The ports on which the server observes.
    observer_ports: Vec<u16>,
    /// Whether it offers a relay.
    relay: bool,
}

/// Logs in on a fresh control connection.
async fn ask_for_name(
    stream: &mut TlsStream<TcpStream>,
    decoder: &mut Decoder,
    name: &PeerName,
) -> Result<Answer, LogInError> {
    let log_in = ClientMessage::LogIn {
        version: PROTOCOL_VERSION,
        name: name.clone(),
    };
    wire::write_message(stream, &log_in).await?;
    loop {
        match wire::read_message(stream, decoder).await? {
            ServerMessage::LoggedIn {
                observed,
                observer_ports,
                relay,
            } => {
                return Ok(Answer {
                    observed,
                    observer_ports,
                    relay,
                });
            }
            ServerMessage::Refused {
                reason: Refusal::NameTaken,
            } => return Err(LogInError::NameTaken(name.clone())),
            ServerMessage::Refused { reason } => return Err(LogInError::Refused(reason)),
            ServerMessage::Ping { nonce } => {
                wire::write_message(stream, &ClientMessage::Pong { nonce }).await?;
            }
            _ => return Err(WireError::Unexpected.into()),
        }
    }
}
