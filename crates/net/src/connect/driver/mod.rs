//! Runs the agent of one attempt to connect over real sockets.
//!
//! One loop: do what the agent asks for, wait for whatever comes first (the
//! outcome of something begun, a word from the server, the agent's timer), tell
//! the agent, repeat. Every decision is the agent's.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pinhole_proto::agent::{
    Action, Agent, ConnectionId, DialFailure, PathKind, PathPolicy, Round, Timing,
};
use pinhole_proto::candidate::Candidate;
use pinhole_proto::hello::{Hello, Purpose};
use pinhole_proto::key::PeerKey;
use pinhole_proto::rendezvous::{PeerIdentity, Reachability, Role};
use pinhole_proto::tls::wrong_key;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::debug;

use super::attempt::{Accepted, LoginContext, Wanted};
use super::error::ConnectError;
use super::sockets::{Outcome, Prepared, Sockets};
use crate::port_mapping::PortMapping;
use crate::proxy::{Proxy, ProxyError};
use crate::relay::RelayError;
use crate::rendezvous::server::RedialError;
use crate::rendezvous::{IntroductionMessage, RelayOffer};
use crate::report::{Answer, PathAttempt};
use crate::session::{Authenticated, LiveSession, SessionPath, Transport};
use crate::socket::is_pair_in_use;

/// How long the first introduction may take: the other side has 10 s to answer.
const INTRODUCTION_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a move may take that the agent has finished with.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(90);
/// Longest start delay that is believed.
const MAX_START_IN: Duration = Duration::from_secs(5);

pub(super) struct Driver {
    login: Arc<LoginContext>,
    wanted: Wanted,
    agent: Agent,
    sockets: Sockets,
    /// The newest round that was prepared for.
    newest_round: u8,
    introduced: bool,
    /// No further round will come. Nothing more is heard of the server.
    rounds_over: bool,
    started_at: Instant,
    /// The caller that waits for the outcome, until it is known.
    result: Option<oneshot::Sender<Result<Accepted, ConnectError>>>,
    /// The session, once there is one.
    live: Option<Arc<LiveSession>>,
    /// It did not lead to the relay, and is not asked again.
    stalled_proxy: Option<(Proxy, ProxyError)>,
    /// Keeps others from looking for a better path at the same time.
    attempt: Option<OwnedSemaphorePermit>,
    /// What the other side has said of connections that are authenticated.
    hellos: HashMap<ConnectionId, Hello>,
    /// Moves that are not finished.
    migrations: usize,
    finished: bool,
}

impl Driver {
    pub(super) fn new(
        login: Arc<LoginContext>,
        mut wanted: Wanted,
        result: oneshot::Sender<Result<Accepted, ConnectError>>,
    ) -> Self {
        let timing = Timing::default();
        let sockets = Sockets::new(login.clone(), &wanted);
        let (live, attempt) = wanted.improve.take().unzip();
        let agent = match &live {
            Some(live) => Agent::improving(live.kind(), timing),
            None => Agent::new(wanted.introduction.role(), wanted.policy, timing),
        };
        Self {
            agent,
            sockets,
            login,
            live,
            stalled_proxy: None,
            attempt,
            wanted,
            newest_round: 1,
            introduced: false,
            rounds_over: false,
            started_at: Instant::now(),
            result: Some(result),
            hellos: HashMap::new(),
            migrations: 0,
            finished: false,
        }
    }

    pub(super) async fn run(mut self) {
        let ended = Box::pin(self.drive()).await;
        if let Some(live) = &self.live {
            live.tell(&self.sockets.report);
        }
        let outcome = match ended {
            Err(ConnectError::Introduction { reason, .. }) if self.introduced => {
                debug!(%reason, "no further round");
                self.no_path()
            }
            Err(error) => error,
            Ok(()) => self.no_path(),
        };
        debug!(%outcome, known = self.result.is_none(), "the attempt is over");
        self.deliver(Err(outcome));
    }

    /// Tells the caller, who may have left.
    fn deliver(&mut self, outcome: Result<Accepted, ConnectError>) {
        if let Some(result) = self.result.take() {
            drop(result.send(outcome));
        }
    }

    async fn drive(&mut self) -> Result<(), ConnectError> {
        self.sockets.prepare(1);
        loop {
            while let Some(action) = self.agent.poll_action() {
                debug!(?action);
                match action {
                    Action::Selected { connection, path } => {
                        self.selected(connection, path).await?;
                    }
                    Action::Finished => self.finished = true,
                    Action::Failed => return Err(self.no_path()),
                    action => self.sockets.perform(action),
                }
            }
            if self.finished && self.migrations == 0 {
                return Ok(());
            }
            let introduced_by = self.started_at + INTRODUCTION_TIMEOUT;
            let wake_at = match self.agent.poll_timeout() {
                None if self.finished => self.started_at + ATTEMPT_TIMEOUT,
                wake_at => wake_at.unwrap_or(introduced_by),
            };
            tokio::select! {
                Some(outcome) = self.sockets.next_outcome() => {
                    self.handle_outcome(outcome).await?;
                }
                message = self.wanted.introduction.next(), if !self.rounds_over => {
                    self.handle_message(message)?;
                }
                () = abandoned(&mut self.result, self.live.as_deref()), if self.migrations == 0 => {
                    return Ok(());
                }
                () = tokio::time::sleep_until(wake_at.into()) => {
                    if !self.introduced {
                        return Err(ConnectError::ServerSilent);
                    }
                    if self.finished {
                        return Ok(());
                    }
                    self.agent.handle_timeout(Instant::now());
                }
            }
        }
    }

    async fn handle_outcome(&mut self, outcome: Outcome) -> Result<(), ConnectError> {
        let now = Instant::now();
        match outcome {
            Outcome::Prepared(round, prepared) => {
                let asked = match prepared {
                    Ok(prepared) => self.ask(round, prepared).await,
                    Err(error) => Err(ConnectError::LocalPort(error)),
                };
                return self.tolerate_if_live(asked);
            }
            Outcome::Dialled {
                check,
                round,
                remote,
                result,
            } => {
                let way = PathAttempt::Dialled(remote);
                match result.and_then(Transport::direct) {
                    Ok(transport) => {
                        let id = self.agent.handle_connected(now, check);
                        self.sockets.add_connection(id, round, way, transport);
                    }
                    Err(error) => {
                        let failure = dial_failure(&error);
                        // The connection that is in the way has its own entry.
                        if failure == DialFailure::Other {
                            let answer = Answer::Error(error.to_string());
                            self.sockets.report.answered(round, way, answer);
                        }
                        self.agent.handle_dial_failed(now, check, failure);
                    }
                }
            }
            Outcome::Accepted {
                round,
                listener,
                stream,
                remote,
            } => {
                self.sockets.listen_on(round, listener);
                match Transport::direct(stream) {
                    Ok(transport) => {
                        let id = self.agent.handle_accepted(now, round, remote);
                        let way = PathAttempt::Accepted(remote);
                        self.sockets.add_connection(id, round, way, transport);
                    }
                    Err(error) => debug!(%error, %remote, "accepted, but gone already"),
                }
            }
            Outcome::Relay(round, Ok(stream)) => {
                let id = self.agent.handle_relay_connected(now, round);
                let transport = Transport::Relayed(stream);
                self.sockets
                    .add_connection(id, round, PathAttempt::Relay, transport);
            }
            Outcome::Relay(round, Err(error)) => return self.relay_failed(now, round, error),
            Outcome::Handshake(id, result) => self.handshake_ended(now, id, result),
            Outcome::Migrated(path, result) => self.migrated(&path, result),
        }
        Ok(())
    }

    fn relay_failed(
        &mut self,
        now: Instant,
        round: u8,
        error: RelayError,
    ) -> Result<(), ConnectError> {
        let answer = Answer::Error(error.to_string());
        self.sockets
            .report
            .answered(round, PathAttempt::Relay, answer);
        if let RelayError::Redial(RedialError::Proxy { proxy, error }) = error {
            self.stalled_proxy = Some((proxy, error));
            if self.wanted.policy == PathPolicy::RelayOnly {
                return Err(self.no_path());
            }
        }
        self.agent.handle_relay_failed(now, round);
        Ok(())
    }

    fn handshake_ended(
        &mut self,
        now: Instant,
        id: ConnectionId,
        result: io::Result<(Authenticated, Option<Hello>)>,
    ) {
        match result {
            Ok((_, Some(hello))) if !self.admits(&hello) => {
                let answer = Answer::Lost("for a session that is not up".into());
                self.sockets.forget(id, answer);
                self.agent.handle_handshake_failed(now, id);
            }
            Ok((authenticated, hello)) => {
                self.sockets.authenticated(id, authenticated);
                self.hellos.extend(hello.map(|hello| (id, hello)));
                self.agent.handle_authenticated(now, id);
            }
            Err(error) if wrong_key(&error).is_some() => {
                self.sockets.forget(id, Answer::Stranger);
                self.agent.handle_handshake_failed(now, id);
            }
            Err(error) => {
                let reason = match error.kind() {
                    io::ErrorKind::UnexpectedEof => "closed by the other end".into(),
                    _ => error.to_string(),
                };
                self.sockets.forget(id, Answer::Lost(reason));
                // TLS errors come as this kind: the other end is not the peer.
                if error.kind() == io::ErrorKind::InvalidData {
                    self.agent.handle_handshake_failed(now, id);
                } else {
                    self.agent.handle_connection_lost(now, id);
                }
            }
        }
    }

    fn handle_message(&mut self, message: Option<IntroductionMessage>) -> Result<(), ConnectError> {
        let result = self.on_message(message);
        self.tolerate_if_live(result)
    }

    /// What keeps a round from coming is not the end where there is a session: it
    /// may be moving, and the round before may still bring something.
    fn tolerate_if_live(&mut self, result: Result<(), ConnectError>) -> Result<(), ConnectError> {
        match result {
            Err(error) if self.introduced && self.live.is_some() => {
                debug!(%error, "no further round");
                self.rounds_over = true;
                Ok(())
            }
            result => result,
        }
    }

    fn on_message(&mut self, message: Option<IntroductionMessage>) -> Result<(), ConnectError> {
        match message {
            Some(IntroductionMessage::Invited { round }) => {
                let is_next = round == self.newest_round + 1 && round <= Agent::MAX_ROUNDS;
                if is_next && self.wanted.introduction.role() == Role::Controlled {
                    self.newest_round = round;
                    self.sockets.prepare(round);
                }
            }
            Some(IntroductionMessage::Introduced {
                round,
                peer,
                candidates,
                relay,
                start_in,
            }) => return self.introduced(round, &peer, candidates, relay, start_in),
            Some(IntroductionMessage::Failed { reason, credential }) => {
                return Err(ConnectError::Introduction { reason, credential });
            }
            None if !self.introduced => return Err(ConnectError::Disconnected),
            None => self.rounds_over = true,
        }
        Ok(())
    }

    /// Tells the server where this side may be reached in this round.
    async fn ask(&mut self, round: u8, prepared: Prepared) -> Result<(), ConnectError> {
        let candidates = self.sockets.add_round(round, prepared);
        let relay = self.wanted.policy != PathPolicy::DirectOnly
            && self.live.is_none()
            && self.stalled_proxy.is_none();
        if relay {
            self.sockets.approach_relay(round);
        }
        let reachability = Reachability {
            candidates,
            share_host: self.wanted.share_host,
            relay,
        };
        Ok(self.wanted.introduction.ask(round, reachability).await?)
    }

    fn introduced(
        &mut self,
        round: u8,
        peer: &PeerIdentity,
        remote: Vec<Candidate>,
        relay: Option<RelayOffer>,
        start_in: Duration,
    ) -> Result<(), ConnectError> {
        if peer.key != self.wanted.introduction.peer().key {
            return Err(self.wrong_peer_key(Some(peer.key)));
        }
        let is_relayed = relay.is_some();
        let Some(local) = self.sockets.set_relay(round, relay) else {
            debug!(round, "introduced for a round that was not asked for");
            return Ok(());
        };
        debug!(round, ?local, ?remote, relay = is_relayed, "introduced");
        let now = Instant::now();
        let round = Round {
            number: round,
            local: local.to_vec(),
            remote,
            relay: is_relayed,
            start_at: now + start_in.min(MAX_START_IN),
            loopback: self.login.server.loopback(),
        };
        self.introduced = true;
        self.agent.handle_round(now, &round);
        Ok(())
    }

    /// Controlled side: whether a connection may be for this. A session begins
    /// once, under the name of its introduction; one that goes on must be up, and the
    /// other side's to move.
    fn admits(&mut self, hello: &Hello) -> bool {
        match hello.purpose {
            Purpose::Begin => self.live.is_none() && hello.session == self.wanted.introduction.id(),
            Purpose::Continue => {
                let peer = self.wanted.introduction.peer().key;
                let found = self.login.sessions.find(hello.session, peer);
                let same = |live: &Arc<LiveSession>| match &self.live {
                    Some(own) => Arc::ptr_eq(own, live),
                    None => true,
                };
                let found = found.filter(same);
                let is_up = found.is_some();
                self.live = found.or_else(|| self.live.take());
                is_up
            }
        }
    }

    /// The agent has chosen: a session begins, or moves.
    async fn selected(&mut self, id: ConnectionId, path: PathKind) -> Result<(), ConnectError> {
        let heard = self.hellos.remove(&id);
        let path = heard.map_or(path, |hello| path_between(path, hello.path));
        let heard = heard.map(|hello| Hello { path, ..hello });
        let Some((authenticated, mapping)) = self.sockets.select(id) else {
            return Ok(());
        };
        let Some(live) = self.live.clone() else {
            let hello = heard.unwrap_or(Hello {
                purpose: Purpose::Begin,
                path,
                session: self.wanted.introduction.id(),
            });
            return self.begin(authenticated, mapping, &hello).await;
        };
        let hello = heard.unwrap_or(Hello {
            purpose: Purpose::Continue,
            path,
            session: live.id,
        });
        self.migrations += 1;
        let to = (authenticated, mapping);
        self.sockets
            .migrate_session(live, to, hello, self.wanted.introduction.role());
        Ok(())
    }

    async fn begin(
        &mut self,
        mut authenticated: Authenticated,
        mapping: Option<PortMapping>,
        hello: &Hello,
    ) -> Result<(), ConnectError> {
        if self.wanted.introduction.role() == Role::Controlling
            && let Err(error) = authenticated.say_hello(hello).await
        {
            debug!(%error, "the connection broke when it was selected");
            return Err(self.no_path());
        }
        let path = authenticated.path(hello.path, self.sockets.report.clone());
        let introduction = &self.wanted.introduction;
        let (role, peer) = (introduction.role(), introduction.peer().clone());
        let elapsed = self.started_at.elapsed();
        let session = authenticated.into_session(hello.session, role, peer, path, elapsed);
        let live = session.handle.0.clone();
        live.keep(mapping);
        self.login.sessions.add(&live);
        self.attempt = live.begin_attempt();
        self.live = Some(live);
        self.deliver(Ok(Accepted::Session(session)));
        Ok(())
    }

    fn migrated(&mut self, path: &SessionPath, result: io::Result<Option<PortMapping>>) {
        self.migrations -= 1;
        let Some(live) = &self.live else { return };
        match result {
            Ok(mapping) => {
                debug!(kind = %path.kind, "the session has moved");
                live.keep(mapping);
                live.migrated(SessionPath {
                    report: self.sockets.report.clone(),
                    ..path.clone()
                });
                self.deliver(Ok(Accepted::Migrated));
            }
            Err(error) => debug!(%error, kind = %path.kind, "the session could not be moved"),
        }
    }

    fn no_path(&mut self) -> ConnectError {
        if self.sockets.report.met_stranger() {
            return self.wrong_peer_key(None);
        }
        if let Some((proxy, error)) = self.stalled_proxy.take() {
            return ConnectError::Proxy { proxy, error };
        }
        ConnectError::NoPath {
            peer: self.wanted.introduction.peer().name.clone(),
            report: std::mem::take(&mut self.sockets.report),
        }
    }

    fn wrong_peer_key(&self, found: Option<PeerKey>) -> ConnectError {
        ConnectError::WrongPeerKey {
            peer: self.wanted.introduction.peer().name.clone(),
            expected: self.wanted.introduction.peer().key,
            found,
        }
    }
}

/// What a path is called of which this side knows the one thing and the other side says
/// the other. Its word counts only between two that look alike from here.
const fn path_between(seen: PathKind, said: PathKind) -> PathKind {
    match (seen, said) {
        (PathKind::Mapped | PathKind::Punched, PathKind::Mapped | PathKind::Punched) => said,
        _ => seen,
    }
}

fn dial_failure(error: &io::Error) -> DialFailure {
    match is_pair_in_use(error) {
        true => DialFailure::AddressInUse,
        false => DialFailure::Other,
    }
}

/// Returns when nobody needs the outcome any more: the caller has left, or the
/// session has ended.
async fn abandoned(
    result: &mut Option<oneshot::Sender<Result<Accepted, ConnectError>>>,
    live: Option<&LiveSession>,
) {
    let caller = async {
        match result {
            Some(result) => result.closed().await,
            None => pending().await,
        }
    };
    let session = async {
        match live {
            Some(live) => live.migrator.closed().await,
            None => pending().await,
        }
    };
    tokio::select! {
        () = caller => {}
        () = session => {}
    }
}
