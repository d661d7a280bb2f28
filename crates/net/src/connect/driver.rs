//! Runs the agent of one attempt to connect over real sockets.
//!
//! One loop: do what the agent asks for, wait for whatever comes first (the
//! outcome of something begun, a word from the server, the agent's timer), tell
//! the agent, repeat. Every decision is the agent's.

use std::io;
use std::time::{Duration, Instant};

use pinhole_proto::agent::{
    Action, Agent, ConnectionId, DialFailure, PathKind, PathPolicy, Round, Timing,
};
use pinhole_proto::candidate::Candidate;
use pinhole_proto::key::PeerKey;
use pinhole_proto::rendezvous::{
    ClientMessage, IntroductionFailure, PeerIdentity, Reachability, RelayToken, Role,
};
use tracing::debug;

use super::sockets::{Outcome, Prepared, Sockets};
use super::{Answer, ConnectError, Wanted, Way};
use crate::rendezvous::{AttemptMessage, Inbox, Rendezvous};
use crate::server::is_wrong_key;
use crate::session::{Authenticated, Session, Transport};

/// How long the first introduction may take: the other side has 10 s to answer.
const INTRODUCTION_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest start delay that is believed.
const MAX_START_IN: Duration = Duration::from_secs(5);

pub(super) struct Driver {
    rendezvous: Rendezvous,
    wanted: Wanted,
    inbox: Inbox,
    agent: Agent,
    sockets: Sockets,
    /// The newest round that was prepared for.
    newest_round: u8,
    introduced: bool,
    server_gone: bool,
    started_at: Instant,
}

impl Driver {
    pub(super) fn new(rendezvous: Rendezvous, wanted: Wanted, inbox: Inbox) -> Self {
        Self {
            agent: Agent::new(wanted.role, rendezvous.path(), Timing::default()),
            sockets: Sockets::new(rendezvous.clone(), wanted.role, wanted.peer.key),
            rendezvous,
            wanted,
            inbox,
            newest_round: 1,
            introduced: false,
            server_gone: false,
            started_at: Instant::now(),
        }
    }

    pub(super) async fn run(mut self) -> Result<Session, ConnectError> {
        self.sockets.prepare(1);
        loop {
            while let Some(action) = self.agent.poll_action() {
                debug!(?action);
                match action {
                    Action::Selected { connection, path } => return self.session(connection, path),
                    Action::Failed => return Err(self.no_path()),
                    action => self.sockets.perform(action),
                }
            }
            let introduced_by = self.started_at + INTRODUCTION_TIMEOUT;
            let wake_at = self.agent.poll_timeout().unwrap_or(introduced_by);
            tokio::select! {
                Some(outcome) = self.sockets.next_outcome() => {
                    self.handle_outcome(outcome).await?;
                }
                message = self.inbox.next(), if !self.server_gone => {
                    self.handle_message(message)?;
                }
                () = tokio::time::sleep_until(wake_at.into()) => {
                    if !self.introduced {
                        return Err(ConnectError::ServerSilent);
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
                let prepared = prepared.map_err(ConnectError::LocalPort)?;
                return self.ask(round, prepared).await;
            }
            Outcome::Dialled {
                check,
                round,
                remote,
                result,
            } => {
                let way = Way::Dialled(remote);
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
                        let way = Way::Accepted(remote);
                        self.sockets.add_connection(id, round, way, transport);
                    }
                    Err(error) => debug!(%error, %remote, "accepted, but gone already"),
                }
            }
            Outcome::Relay(round, Ok(stream)) => {
                let id = self.agent.handle_relay_connected(now, round);
                let transport = Transport::Relayed(stream);
                self.sockets
                    .add_connection(id, round, Way::Relay, transport);
            }
            Outcome::Relay(round, Err(error)) => {
                let answer = Answer::Error(error.to_string());
                self.sockets.report.answered(round, Way::Relay, answer);
                self.agent.handle_relay_failed(now, round);
            }
            Outcome::Handshake(id, result) => self.handshake_ended(now, id, result),
        }
        Ok(())
    }

    fn handshake_ended(
        &mut self,
        now: Instant,
        id: ConnectionId,
        result: io::Result<Authenticated>,
    ) {
        match result {
            Ok(authenticated) => {
                self.sockets.authenticated(id, authenticated);
                self.agent.handle_authenticated(now, id);
            }
            Err(error) if is_wrong_key(&error) => {
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

    fn handle_message(&mut self, message: Option<AttemptMessage>) -> Result<(), ConnectError> {
        match message {
            Some(AttemptMessage::Invited { round }) => {
                let is_next = round == self.newest_round + 1 && round <= Agent::MAX_ROUNDS;
                if is_next && self.wanted.role == Role::Controlled {
                    self.newest_round = round;
                    self.sockets.prepare(round);
                }
            }
            Some(AttemptMessage::Introduced {
                round,
                peer,
                candidates,
                relay,
                start_in,
            }) => return self.introduced(round, &peer, candidates, relay, start_in),
            Some(AttemptMessage::Failed(reason)) => return Err(self.not_introduced(reason)),
            None if !self.introduced => return Err(ConnectError::Disconnected),
            None => self.server_gone = true,
        }
        Ok(())
    }

    /// Tells the server where this side may be reached in this round.
    async fn ask(&mut self, round: u8, prepared: Prepared) -> Result<(), ConnectError> {
        let reachability = Reachability {
            candidates: self.sockets.add_round(round, prepared),
            share_host: self.wanted.share_host,
            relay: self.rendezvous.path() != PathPolicy::DirectOnly,
        };
        let introduction = self.wanted.introduction;
        let message = match self.wanted.role {
            Role::Controlling => ClientMessage::Introduce {
                introduction,
                round,
                peer: self.wanted.peer.name.clone(),
                reachability,
            },
            Role::Controlled => ClientMessage::Answer {
                introduction,
                round,
                reachability,
            },
        };
        self.rendezvous.say(message).await
    }

    fn introduced(
        &mut self,
        round: u8,
        peer: &PeerIdentity,
        remote: Vec<Candidate>,
        relay: Option<RelayToken>,
        start_in: Duration,
    ) -> Result<(), ConnectError> {
        if peer.key != self.wanted.peer.key {
            return Err(self.wrong_peer_key(Some(peer.key)));
        }
        let Some(local) = self.sockets.set_relay(round, relay) else {
            debug!(round, "introduced for a round that was not asked for");
            return Ok(());
        };
        debug!(
            round,
            ?local,
            ?remote,
            relay = relay.is_some(),
            "introduced"
        );
        let now = Instant::now();
        let round = Round {
            number: round,
            local: local.to_vec(),
            remote,
            relay: relay.is_some(),
            start_at: now + start_in.min(MAX_START_IN),
            server_on_loopback: self.rendezvous.server().is_on_loopback(),
        };
        self.introduced = true;
        self.agent.handle_round(now, &round);
        Ok(())
    }

    fn session(mut self, id: ConnectionId, path: PathKind) -> Result<Session, ConnectError> {
        let Some((authenticated, mapping)) = self.sockets.select(id) else {
            return Err(self.no_path());
        };
        Ok(Session {
            stream: authenticated.stream,
            peer: self.wanted.peer,
            path,
            local: authenticated.local,
            remote: authenticated.remote,
            elapsed: self.started_at.elapsed(),
            report: self.sockets.report,
            mapping,
        })
    }

    fn not_introduced(&mut self, reason: IntroductionFailure) -> ConnectError {
        if self.introduced {
            debug!(%reason, "no further round");
            return self.no_path();
        }
        ConnectError::Introduction(reason)
    }

    fn no_path(&mut self) -> ConnectError {
        if self.sockets.report.met_stranger() {
            return self.wrong_peer_key(None);
        }
        ConnectError::NoPath {
            peer: self.wanted.peer.name.clone(),
            report: std::mem::take(&mut self.sockets.report),
        }
    }

    fn wrong_peer_key(&self, found: Option<PeerKey>) -> ConnectError {
        ConnectError::WrongPeerKey {
            peer: self.wanted.peer.name.clone(),
            expected: self.wanted.peer.key,
            found,
        }
    }
}

fn dial_failure(error: &io::Error) -> DialFailure {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => DialFailure::AddressInUse,
        io::ErrorKind::AddrInUse if cfg!(windows) => DialFailure::AddressInUse,
        _ => DialFailure::Other,
    }
}
