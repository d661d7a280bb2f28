//! The handle by which one login connects to peers.

use std::sync::Arc;

use pinhole_proto::agent::PathPolicy;
use pinhole_proto::credential::Credential;
use pinhole_proto::key::PeerKey;
use pinhole_proto::name::PeerName;
use pinhole_proto::rendezvous::{HostSharing, IntroductionFailure, PeerIdentity, RefuseReason};
use pinhole_proto::tls::Identity;
use tokio::sync::{mpsc, oneshot, watch};

use super::attempt::{Accepted, LoginContext, Wanted};
use super::driver::Driver;
use super::error::ConnectError;
use super::punch_port::Observing;
use super::warm_port::{WarmPort, Warmth};
use crate::port_mapping::PortMapper;
use crate::rendezvous::server::{Persistence, Server};
use crate::rendezvous::{
    Invitation, LogIn, LogInError, LoggedIn, ProvenServer, ReachedServer, Rendezvous,
    RendezvousEvent,
};
use crate::session::{LiveSessions, Session, SessionHandle};

/// How one login connects to peers.
#[derive(Debug, Clone)]
pub struct ConnectConfig {
    /// Which paths sessions may take.
    pub path: PathPolicy,
    /// Sessions that are up, of earlier logins, too.
    pub sessions: LiveSessions,
    /// Whom to ask for port mappings; `None` for nobody. Nobody is asked with
    /// [`PathPolicy::RelayOnly`] either.
    pub port_mapper: Option<PortMapper>,
    /// Whether a port is kept ready from the beginning; see [`Connector::set_warmth`].
    pub warmth: Warmth,
}

/// Connects to the peers that one login is introduced to. Clones share it; the
/// login ends with the last of them and of its [`Rendezvous`].
#[derive(Debug, Clone)]
pub struct Connector {
    rendezvous: Rendezvous,
    path: PathPolicy,
    pub(super) login: Arc<LoginContext>,
}

impl Connector {
    /// Connects to the server and takes the name. The events have to be
    /// received as long as the handle is used: never wait for
    /// [`Connector::connect`] in the place that receives them.
    ///
    /// # Errors
    /// Says exactly what stood in the way.
    pub async fn log_in(
        log_in: LogIn,
        config: ConnectConfig,
    ) -> Result<(Self, LoggedIn, mpsc::Receiver<RendezvousEvent>), LogInError> {
        Box::pin(Self::approach(log_in, config, Persistence::Once))
            .await?
            .log_in(&[])
            .await
    }

    /// Connects to the server without taking the name yet: whoever is logged in
    /// there already stays so.
    ///
    /// # Errors
    /// Says exactly what stood in the way.
    pub async fn approach(
        log_in: LogIn,
        config: ConnectConfig,
        persistence: Persistence,
    ) -> Result<PendingLogin, LogInError> {
        let identity = log_in.identity.clone();
        let reached = Box::pin(ReachedServer::reach(log_in, persistence)).await?;
        // The punch port is observed while the login is under way, so that the
        // first attempt to connect need not wait for it. Without a pinned key
        // it waits until the server has shown which one it has.
        let (tell_observing, observing) = watch::channel(None);
        let warm = |server: &Server| {
            (config.path != PathPolicy::RelayOnly).then(|| {
                server.seek_direct_way();
                let (server, observing) = (Arc::new(server.clone()), observing.clone());
                let mapper = config.port_mapper.clone();
                WarmPort::start(server, observing, mapper, config.warmth)
            })
        };
        let is_pinned = reached.server().is_pinned();
        let early = is_pinned.then(|| warm(reached.server())).flatten();
        let proven = reached.prove().await?;
        let warm_port = early.or_else(|| warm(proven.server()));
        Ok(PendingLogin {
            proven,
            identity,
            config,
            tell_observing,
            warm_port,
        })
    }

    /// The way to the server: what is asked there without connecting to anybody.
    #[must_use]
    pub const fn rendezvous(&self) -> &Rendezvous {
        &self.rendezvous
    }

    /// Keeps a port ready for the next attempt to connect from now on, or none. Both can
    /// be said at any time; an attempt under way keeps its port.
    pub fn set_warmth(&self, warmth: Warmth) {
        if let Some(warm_port) = &self.login.warm_port {
            warm_port.set(warmth);
        }
    }

    /// Connects to a peer. `expect` is the key it must have; `share_host`
    /// tells whether it may learn our addresses in the local network. It is shown
    /// `credential` before it decides whether to let us in. The session may move to a
    /// better path later, by itself.
    ///
    /// # Errors
    /// Says exactly what stood in the way; in [`ConnectError::NoPath`], all
    /// that was tried; in [`ConnectError::Introduction`], the peer's answer to the
    /// credential.
    pub async fn connect(
        &self,
        peer: PeerName,
        expect: PeerKey,
        share_host: HostSharing,
        credential: Option<Credential>,
    ) -> Result<Session, ConnectError> {
        let peer = PeerIdentity {
            name: peer,
            key: expect,
        };
        let wanted = Wanted {
            introduction: self.rendezvous.introduce(peer, credential)?,
            share_host,
            policy: self.path,
            improve: None,
        };
        match self.run(wanted).await? {
            Accepted::Session(session) => Ok(session),
            // Only sessions that the other side controls are moved by it.
            Accepted::Migrated => Err(ConnectError::Busy),
        }
    }

    /// Looks for a better path for a session that this side controls. Returns
    /// whether it has moved to one; not while another attempt looks for one.
    ///
    /// # Errors
    /// As [`Connector::connect`], when nothing better was found either.
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
            introduction: self.rendezvous.introduce(live.peer.clone(), None)?,
            share_host,
            policy: PathPolicy::DirectOnly,
            improve: Some((live, attempt)),
        };
        self.run(wanted).await.map(|_| true)
    }

    /// Whether a session is up that the inviting peer may want to move: one that it
    /// began. What it wants shows only when it is connected; then it may as well begin
    /// another.
    #[must_use]
    pub fn may_migrate_a_session(&self, invitation: &Invitation) -> bool {
        self.login.sessions.has_any_of(invitation.from().key)
    }

    /// Takes up an invitation, by the paths that both `policy` and the login allow.
    ///
    /// With [`PathPolicy::RelayOnly`] the other side does not learn where this one is:
    /// no address is named, nothing listens or dials, and no port is taken. A session
    /// that begins so can move to a direct path later: the other side looks for one
    /// ([`Connector::improve`]), and that invitation is taken up with another policy.
    ///
    /// # Errors
    /// As [`Connector::connect`]. When nothing is allowed, the invitation is turned
    /// down with [`RefuseReason::NeedsPermission`].
    pub async fn accept(
        &self,
        invitation: Invitation,
        share_host: HostSharing,
        policy: PathPolicy,
    ) -> Result<Accepted, ConnectError> {
        let Some(policy) = policy.and(self.path) else {
            let reason = RefuseReason::NeedsPermission;
            self.rendezvous.refuse(invitation, reason).await;
            return Err(IntroductionFailure::from(reason).into());
        };
        let accepted = match self.rendezvous.take_up(&invitation) {
            Ok(introduction) => {
                let wanted = Wanted {
                    introduction,
                    share_host,
                    policy,
                    improve: None,
                };
                self.run(wanted).await
            }
            Err(error) => Err(error.into()),
        };
        if let Err(ConnectError::Busy) = accepted {
            // The other side need not wait to find out.
            self.rendezvous.refuse(invitation, RefuseReason::Busy).await;
        }
        accepted
    }

    /// Connects, through as many rounds as it takes, and goes on looking for a
    /// better path when there is a session. Ends with the last of its callers and
    /// of the session.
    async fn run(&self, wanted: Wanted) -> Result<Accepted, ConnectError> {
        let (result, outcome) = oneshot::channel();
        let driver = Driver::new(self.login.clone(), wanted, result);
        tokio::spawn(driver.run());
        outcome.await.unwrap_or(Err(ConnectError::Disconnected))
    }
}

/// A server that has proven its key and is not asked for a name yet, and a punch port
/// that it observes already.
#[derive(Debug)]
pub struct PendingLogin {
    proven: ProvenServer,
    identity: Identity,
    config: ConnectConfig,
    tell_observing: watch::Sender<Option<Observing>>,
    warm_port: Option<WarmPort>,
}

impl PendingLogin {
    /// Takes the name: as [`Connector::log_in`] from here on. The server tells whether
    /// those in `watch` are online, at most [`WATCHED_NAMES`](crate::WATCHED_NAMES).
    ///
    /// # Errors
    /// Says exactly what stood in the way.
    pub async fn log_in(
        self,
        watch: &[PeerName],
    ) -> Result<(Connector, LoggedIn, mpsc::Receiver<RendezvousEvent>), LogInError> {
        let control_port = self.proven.port();
        let (rendezvous, logged_in, events) = self.proven.log_in(watch).await?;
        let server = rendezvous.server().clone();
        let mut ports = logged_in.observer_ports.iter().copied();
        self.tell_observing.send_replace(Some(Observing {
            control: logged_in.observed,
            control_port,
            other_port: ports.find(|port| *port != server.port()),
        }));
        let login = LoginContext {
            server,
            identity: self.identity,
            sessions: self.config.sessions,
            warm_port: self.warm_port,
        };
        let connector = Connector {
            rendezvous,
            path: self.config.path,
            login: Arc::new(login),
        };
        Ok((connector, logged_in, events))
    }
}
