//! Sessions with peers: connecting, answering invitations, and what comes
//! through the exchange that each session carries.

use std::time::Duration;

use pinhole_net::{
    ConnectError, HostSharing, Invitation, PathKind, PeerIdentity, PeerKey, PortMapping, Session,
};
use pinhole_transfer::{Exchange, ExchangeEvent, Side};
use tokio::time::Instant;
use tracing::{debug, info};

use super::login::LoginId;
use super::{Engine, Input, explain};
use crate::contacts::Acquaintance;
use crate::event::Event;
use crate::failure::Failure;

/// A session that carries nothing is kept this long: the next file to the same
/// peer then goes at once.
const IDLE_SESSION: Duration = Duration::from_secs(60);
/// Sessions that ask to be closed get this long to say goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Names a session while the engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(u64);

/// What the tasks around sessions report.
#[derive(Debug)]
pub(crate) enum SessionInput {
    /// A connection attempt has ended.
    Connected {
        login: Option<LoginId>,
        peer: PeerIdentity,
        side: Side,
        outcome: Result<Session, ConnectError>,
    },
    /// Something came through a session.
    Exchange {
        session: SessionId,
        event: ExchangeEvent,
    },
    /// A session is over.
    Ended { session: SessionId },
}

/// One session that is up.
pub(crate) struct PeerSession {
    peer: PeerIdentity,
    path: PathKind,
    exchange: Exchange,
    idle_since: Option<Instant>,
    /// Released with the session.
    _mapping: Option<PortMapping>,
}

impl PeerSession {
    pub(crate) const fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    pub(crate) const fn path(&self) -> PathKind {
        self.path
    }

    pub(crate) const fn exchange(&self) -> &Exchange {
        &self.exchange
    }
}

impl Engine {
    /// The session to this peer, if one is up.
    pub(super) fn session_with(&self, peer: PeerKey) -> Option<SessionId> {
        let mut ids = self
            .sessions
            .iter()
            .filter(|(_, s)| s.peer.key == peer)
            .map(|(id, _)| *id);
        ids.next()
    }

    /// Begins to connect unless a session is up or being made.
    pub(super) fn ensure_session(&mut self, peer: &PeerIdentity) -> Result<(), Failure> {
        if self.session_with(peer.key).is_some() || self.connecting.contains(&peer.key) {
            return Ok(());
        }
        let Some(rendezvous) = self.login.rendezvous().cloned() else {
            let detail = "Not connected to the server at the moment. Try again when it is back.";
            return Err(Failure::NotPossible {
                detail: detail.to_owned(),
            });
        };
        self.connecting.insert(peer.key);
        let (inputs, peer) = (self.inputs.clone(), peer.clone());
        let (login, sharing) = (self.login.id(), self.host_sharing(&peer));
        tokio::spawn(async move {
            let outcome = rendezvous
                .connect(peer.name.clone(), peer.key, sharing)
                .await;
            let input = SessionInput::Connected {
                login,
                peer,
                side: Side::Initiator,
                outcome,
            };
            let _ = inputs.send(Input::Session(input)).await;
        });
        Ok(())
    }

    /// Answers an invitation, unless the key is not the one known.
    pub(super) async fn take_invitation(&mut self, invitation: Invitation) {
        let Some(rendezvous) = self.login.rendezvous().cloned() else {
            return;
        };
        let peer = invitation.from().clone();
        if let Acquaintance::KeyChanged { .. } = self.acquaintance(&peer) {
            info!(peer = %peer.name, "refused an invitation: the key has changed");
            rendezvous.refuse(invitation).await;
            return;
        }
        let inputs = self.inputs.clone();
        let (login, sharing) = (self.login.id(), self.host_sharing(&peer));
        tokio::spawn(async move {
            let outcome = rendezvous.accept(invitation, sharing).await;
            let input = SessionInput::Connected {
                login,
                peer,
                side: Side::Responder,
                outcome,
            };
            let _ = inputs.send(Input::Session(input)).await;
        });
    }

    /// Our own network's addresses are only for those we know.
    fn host_sharing(&self, peer: &PeerIdentity) -> HostSharing {
        match self.acquaintance(peer) {
            Acquaintance::Known { contact: true } => HostSharing::Always,
            _ => HostSharing::SameNetwork,
        }
    }

    pub(super) async fn handle_session(&mut self, input: SessionInput) {
        match input {
            SessionInput::Connected { login, .. } if login != self.login.id() => {
                debug!("a connection attempt outlived its login");
            }
            SessionInput::Connected {
                peer,
                side,
                outcome,
                ..
            } => {
                if side == Side::Initiator {
                    self.connecting.remove(&peer.key);
                }
                self.remember_attempt(&peer, side == Side::Responder, &outcome);
                match outcome {
                    Ok(session) => self.add_session(peer, side, session).await,
                    Err(e) if side == Side::Initiator => {
                        let failure = explain::connect(&peer, self.path_policy(), &e);
                        self.fail_waiting(peer.key, &failure).await;
                    }
                    // The inviter tells its user; ours has asked for nothing.
                    Err(e) => info!(peer = %peer.name, "invited, but not connected: {e}"),
                }
            }
            SessionInput::Exchange { session, event } => {
                self.handle_exchange(session, event).await;
                self.note_idleness(session);
            }
            SessionInput::Ended { session } => {
                self.sessions.remove(&session);
                self.fail_session(session, "the other side went away").await;
            }
        }
    }

    async fn add_session(&mut self, peer: PeerIdentity, side: Side, session: Session) {
        let id = SessionId(self.next_id());
        if let Some(server) = self.login.server_key()
            && self.contacts.meet(server, &peer)
        {
            self.store_contacts().await;
        }
        self.emit(Event::Connected {
            peer: peer.clone(),
            path: session.path,
            local: session.local,
            remote: session.remote,
            elapsed: session.elapsed,
        })
        .await;
        let (path, mapping) = (session.path, session.mapping);
        let limits = self.limits.clone();
        let (exchange, mut events) =
            pinhole_transfer::start(session.stream.into_split(), side, limits);
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let input = SessionInput::Exchange { session: id, event };
                if inputs.send(Input::Session(input)).await.is_err() {
                    return;
                }
            }
            let _ = inputs
                .send(Input::Session(SessionInput::Ended { session: id }))
                .await;
        });
        let key = peer.key;
        let idle_since = Some(Instant::now());
        self.sessions.insert(
            id,
            PeerSession {
                peer,
                path,
                exchange,
                idle_since,
                _mapping: mapping,
            },
        );
        self.offer_waiting(key, id).await;
        self.note_idleness(id);
    }

    /// Starts or stops the session's idle clock.
    pub(super) fn note_idleness(&mut self, id: SessionId) {
        let busy = self.transfers.values().any(|t| t.uses(id));
        if let Some(session) = self.sessions.get_mut(&id) {
            session.idle_since = match (busy, session.idle_since) {
                (true, _) => None,
                (false, since) => since.or_else(|| Some(Instant::now())),
            };
        }
    }

    pub(super) fn next_idle_end(&self) -> Option<Instant> {
        self.sessions
            .values()
            .filter_map(|s| s.idle_since)
            .min()
            .map(|since| since + IDLE_SESSION)
    }

    pub(super) fn close_idle_sessions(&mut self) {
        let now = Instant::now();
        let idle = self.sessions.extract_if(|_, session| {
            session
                .idle_since
                .is_some_and(|since| since + IDLE_SESSION <= now)
        });
        for (_, session) in idle {
            tokio::spawn(close(session.exchange));
        }
    }

    pub(super) async fn end_all_sessions(&mut self) {
        self.interrupt_all().await;
        let closing: Vec<_> = self
            .sessions
            .drain()
            .map(|(_, s)| tokio::spawn(close(s.exchange)))
            .collect();
        for task in closing {
            let _ = task.await;
        }
    }
}

async fn close(exchange: Exchange) {
    if tokio::time::timeout(CLOSE_TIMEOUT, exchange.close())
        .await
        .is_err()
    {
        debug!("the other side did not say goodbye in time");
    }
}
