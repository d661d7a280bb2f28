//! The sockets of one attempt to connect: everything the agent asks for is
//! begun here, and its outcome comes out here.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pinhole_proto::agent::{Action, CheckId, ConnectionId, PathPolicy};
use pinhole_proto::candidate::Candidate;
use pinhole_proto::hello::Hello;
use pinhole_proto::key::PeerKey;
use pinhole_proto::rendezvous::Role;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;
use tracing::{debug, warn};

use super::attempt::{LoginContext, Wanted};
use super::punch_port::PunchPort;
use super::warm_port::PortUse;
use crate::candidates::{gather, interface_addresses};
use crate::port_mapping::PortMapping;
use crate::relay::{self, Ahead, Approach, RelayError};
use crate::rendezvous::RelayOffer;
use crate::report::{Answer, MappingBehaviour, PathAttempt, Report};
use crate::session::{Authenticated, LiveSession, SessionPath, Transport, authenticate};

/// Pause after an error of `accept`.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What became of something that was begun.
pub(super) enum Outcome {
    Prepared(u8, io::Result<Prepared>),
    Dialled {
        check: CheckId,
        round: u8,
        remote: SocketAddr,
        result: io::Result<TcpStream>,
    },
    Accepted {
        round: u8,
        listener: TcpListener,
        stream: TcpStream,
        remote: SocketAddr,
    },
    Relay(u8, Result<TcpStream, RelayError>),
    /// On the controlled side with what the other one has said then.
    Handshake(ConnectionId, io::Result<(Authenticated, Option<Hello>)>),
    /// The session was to be moved there; with the mapping of the port that it
    /// uses now.
    Migrated(Box<SessionPath>, io::Result<Option<PortMapping>>),
}

/// A round's local side.
pub(super) struct Prepared {
    /// Absent when only the relay may be used.
    port: Option<PunchPort>,
    candidates: Vec<Candidate>,
}

/// What belongs to one round.
struct Round {
    prepared: Prepared,
    relay: Option<RelayOffer>,
    /// A connection for the relay, where no observation connection can become it.
    approach: Option<Approach>,
    listeners: Vec<AbortHandle>,
    dials: HashMap<CheckId, AbortHandle>,
    relay_dial: Option<AbortHandle>,
}

/// A connection that came up.
struct Connection {
    round: u8,
    way: PathAttempt,
    state: State,
}

enum State {
    Waiting(Transport),
    Handshaking(AbortHandle),
    Authenticated(Authenticated),
}

/// See the [module](self). Dropping it ends everything that was begun.
pub(super) struct Sockets {
    login: Arc<LoginContext>,
    role: Role,
    peer: PeerKey,
    policy: PathPolicy,
    /// Another attempt has not found a better path, so no round is the first.
    is_improving: bool,
    rounds: HashMap<u8, Round>,
    connections: HashMap<ConnectionId, Connection>,
    outcomes: JoinSet<Outcome>,
    pub(super) report: Report,
}

impl Sockets {
    pub(super) fn new(login: Arc<LoginContext>, wanted: &Wanted) -> Self {
        let introduction = &wanted.introduction;
        Self {
            login,
            role: introduction.role(),
            peer: introduction.peer().key,
            policy: wanted.policy,
            is_improving: wanted.improve.is_some(),
            rounds: HashMap::new(),
            connections: HashMap::new(),
            outcomes: JoinSet::new(),
            report: Report::default(),
        }
    }

    /// The outcome of something that was begun; `None` when there is nothing.
    pub(super) async fn next_outcome(&mut self) -> Option<Outcome> {
        loop {
            // An aborted dial has no outcome.
            if let Ok(outcome) = self.outcomes.join_next().await? {
                return Some(outcome);
            }
        }
    }

    /// Begins to prepare a fresh port: [`Outcome::Prepared`].
    pub(super) fn prepare(&mut self, round: u8) {
        let (login, policy) = (self.login.clone(), self.policy);
        let port_use = match round == 1 && !self.is_improving {
            true => PortUse::FirstRound,
            false => PortUse::LaterRound,
        };
        self.outcomes.spawn(async move {
            let prepared = prepare(&login, policy, port_use).await;
            Outcome::Prepared(round, prepared)
        });
    }

    /// Takes what was prepared into use. Returns where the other side may
    /// reach it.
    pub(super) fn add_round(&mut self, number: u8, prepared: Prepared) -> Vec<Candidate> {
        let candidates = prepared.candidates.clone();
        let round = Round {
            prepared,
            relay: None,
            approach: None,
            listeners: Vec::new(),
            dials: HashMap::new(),
            relay_dial: None,
        };
        self.rounds.insert(number, round);
        candidates
    }

    /// Begins to connect to the relay's server, so that nobody waits for that once there
    /// is a token. A port with connections to it needs no more.
    pub(super) fn approach_relay(&mut self, round: u8) {
        let Some(round) = self.rounds.get_mut(&round) else {
            return;
        };
        let port = round.prepared.port.as_ref();
        if port.is_some_and(PunchPort::is_shared_with_login) {
            round.approach = Some(Approach::begin(self.login.server.clone()));
        }
    }

    /// Keeps a round's relay. Returns the round's own candidates, or
    /// `None` when there is no such round.
    pub(super) fn set_relay(
        &mut self,
        round: u8,
        relay: Option<RelayOffer>,
    ) -> Option<&[Candidate]> {
        let round = self.rounds.get_mut(&round)?;
        round.relay = relay;
        // Now rather than when the port was taken: the second observation may
        // have come while the two sides were introduced.
        self.report.mapping = match &round.prepared.port {
            Some(port) => port.mapping(),
            None => MappingBehaviour::Unknown,
        };
        Some(&round.prepared.candidates)
    }

    /// Does what the agent asks for, except for what only the driver can do.
    pub(super) fn perform(&mut self, action: Action) {
        match action {
            Action::Listen { round } => self.listen(round),
            Action::Dial {
                check,
                round,
                remote,
            } => self.dial(check, round, remote),
            Action::OpenRelay { round } => self.open_relay(round),
            Action::Handshake { connection } => self.handshake(connection),
            Action::Close { connection } => self.close(connection),
            Action::CloseRound { round } => {
                if let Some(round) = self.rounds.remove(&round) {
                    round.abort();
                }
            }
            Action::RequestRound { round } => self.prepare(round),
            Action::Selected { .. } | Action::Finished | Action::Failed => {}
        }
    }

    fn listen(&mut self, number: u8) {
        let Some(round) = self.rounds.get_mut(&number) else {
            return;
        };
        for listener in round.prepared.port.iter().flat_map(PunchPort::listen) {
            match listener {
                Ok(listener) => {
                    let task = self.outcomes.spawn(accept(number, listener));
                    round.listeners.push(task);
                }
                Err(error) => warn!(%error, "cannot listen on the punch port"),
            }
        }
    }

    /// Goes on listening after a connection was accepted.
    pub(super) fn listen_on(&mut self, number: u8, listener: TcpListener) {
        if let Some(round) = self.rounds.get_mut(&number) {
            let task = self.outcomes.spawn(accept(number, listener));
            round.listeners.retain(|listener| !listener.is_finished());
            round.listeners.push(task);
        }
    }

    fn dial(&mut self, check: CheckId, number: u8, remote: SocketAddr) {
        if let Some(tried) = self.report.entry(number, PathAttempt::Dialled(remote)) {
            tried.dials += 1;
        }
        let Some(round) = self.rounds.get_mut(&number) else {
            return;
        };
        let port = round.prepared.port.as_ref();
        let port = port.and_then(|port| port.towards(remote));
        // Begun here and not in the task: tasks run in any order, and a NAT that
        // counts gives its next port to whichever dial comes first.
        let connecting = port.map(|port| port.connect(remote));
        let task = self.outcomes.spawn(async move {
            let result = match connecting {
                Some(connecting) => connecting.await,
                None => Err(io::ErrorKind::Unsupported.into()),
            };
            Outcome::Dialled {
                check,
                round: number,
                remote,
                result,
            }
        });
        round.dials.insert(check, task);
    }

    fn open_relay(&mut self, number: u8) {
        self.report.entry(number, PathAttempt::Relay);
        let Some(round) = self.rounds.get_mut(&number) else {
            return;
        };
        let Some(RelayOffer { token, addresses }) = round.relay.take() else {
            return;
        };
        let observer = round.prepared.port.as_mut();
        let observer = observer.and_then(PunchPort::take_observer);
        let approach = round.approach.take().map(Ahead::Approach);
        let ahead = observer
            .map(|it| Ahead::Observer(Box::new(it)))
            .or(approach);
        // What is connected ahead leads to the node that we are logged in to.
        let (server, ahead) = match self.login.server.at_other_node(&addresses) {
            Some(node) => (Arc::new(node), None),
            None => (self.login.server.clone(), ahead),
        };
        let task = self
            .outcomes
            .spawn(async move { Outcome::Relay(number, relay::meet(&server, ahead, token).await) });
        round.relay_dial = Some(task);
    }

    fn handshake(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        let State::Waiting(transport) = connection.state else {
            return;
        };
        let identity = self.login.identity.clone();
        let (role, peer) = (self.role, self.peer);
        let task = self.outcomes.spawn(async move {
            let shaken = async {
                let mut authenticated = authenticate(transport, role, &identity, peer).await?;
                let hello = match role {
                    Role::Controlling => None,
                    Role::Controlled => Some(authenticated.hear_hello().await?),
                };
                Ok((authenticated, hello))
            };
            Outcome::Handshake(id, shaken.await)
        });
        let state = State::Handshaking(task);
        self.connections.insert(
            id,
            Connection {
                state,
                ..connection
            },
        );
    }

    fn close(&mut self, id: ConnectionId) {
        if let Some(closed) = self.connections.remove(&id)
            && let State::Handshaking(task) = closed.state
        {
            task.abort();
            let silent = Answer::Lost("the other end did not prove its key in time".into());
            self.report.answered(closed.round, closed.way, silent);
        }
    }

    /// Keeps a connection that came up; without an id the agent has no use
    /// for it.
    pub(super) fn add_connection(
        &mut self,
        id: Option<ConnectionId>,
        round: u8,
        way: PathAttempt,
        transport: Transport,
    ) {
        self.report.answered(round, way, Answer::Connected);
        if let Some(id) = id {
            let state = State::Waiting(transport);
            self.connections
                .insert(id, Connection { round, way, state });
        }
    }

    /// The handshake succeeded.
    pub(super) fn authenticated(&mut self, id: ConnectionId, authenticated: Authenticated) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.state = State::Authenticated(authenticated);
        }
    }

    /// The handshake failed: forgets the connection, and keeps why.
    pub(super) fn forget(&mut self, id: ConnectionId, answer: Answer) {
        if let Some(connection) = self.connections.remove(&id) {
            self.report
                .answered(connection.round, connection.way, answer);
        }
    }

    /// The connection that the session is to use, with the mapping of its port.
    pub(super) fn select(
        &mut self,
        id: ConnectionId,
    ) -> Option<(Authenticated, Option<PortMapping>)> {
        let connection = self.connections.remove(&id)?;
        self.report.chosen(connection.round, connection.way);
        match connection.state {
            State::Authenticated(authenticated) => {
                let is_direct = connection.way != PathAttempt::Relay;
                let round = self.rounds.get_mut(&connection.round);
                let port = round
                    .filter(|_| is_direct)
                    .and_then(|r| r.prepared.port.as_mut());
                Some((authenticated, port.and_then(PunchPort::take_mapping)))
            }
            State::Waiting(_) | State::Handshaking(_) => {
                debug!(?id, "selected without being authenticated");
                None
            }
        }
    }

    /// Begins to move the session: [`Outcome::Migrated`].
    pub(super) fn migrate_session(
        &mut self,
        live: Arc<LiveSession>,
        (to, mapping): (Authenticated, Option<PortMapping>),
        hello: Hello,
        role: Role,
    ) {
        let path = Box::new(to.path(hello.path, Report::default()));
        self.outcomes.spawn(async move {
            let moved = match role {
                Role::Controlling => live.migrator.lead(to.stream, &hello).await,
                Role::Controlled => live.migrator.follow(to.stream).await,
            };
            Outcome::Migrated(path, moved.map(|()| mapping))
        });
    }
}

impl Round {
    fn abort(self) {
        let dials = self.dials.into_values();
        let tasks = self.listeners.into_iter().chain(dials);
        for task in tasks.chain(self.relay_dial) {
            task.abort();
        }
    }
}

async fn prepare(
    login: &LoginContext,
    policy: PathPolicy,
    port_use: PortUse,
) -> io::Result<Prepared> {
    let may_be_direct = policy != PathPolicy::RelayOnly;
    let Some(warm_port) = login.warm_port.as_ref().filter(|_| may_be_direct) else {
        return Ok(Prepared {
            port: None,
            candidates: Vec::new(),
        });
    };
    let port = warm_port.take(port_use).await?;
    let interfaces = interface_addresses().unwrap_or_else(|error| {
        warn!(%error, "the system does not tell its addresses");
        Vec::new()
    });
    let candidates = gather(&port.reachable(), &interfaces, login.server.loopback());
    Ok(Prepared {
        port: Some(port),
        candidates,
    })
}

async fn accept(round: u8, listener: TcpListener) -> Outcome {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                return Outcome::Accepted {
                    round,
                    listener,
                    stream,
                    remote,
                };
            }
            Err(error) => {
                debug!(%error, "accepting a connection failed");
                // It may be for want of file descriptors: that does not end at once.
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
