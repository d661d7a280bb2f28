//! Sessions with peers: connecting, answering invitations, and what comes
//! through the exchange that each session carries.

use std::time::Duration;

use pinhole_budget::Ticket;
use pinhole_net::{
    Accepted, ConnectError, Connector, HostSharing, Invitation, Nearby, PathKind, PathPolicy,
    PeerIdentity, PeerKey, PeerName, Refusal, RefuseReason, Report, Session, SessionHandle,
    SessionPath,
};
use pinhole_transfer::{Exchange, ExchangeEvent, Owner, Side};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tracing::{debug, info};

use super::admission::owner;
use super::path_monitor::Watch;
use super::transfers::Transfer;
use super::{Engine, Input, explain};
use crate::consent::{Invited, Standing};
use crate::contacts::Acquaintance;
use crate::event::Event;
use crate::failure::Failure;

/// A session that carries nothing is kept this long: the next file to the same
/// peer then goes at once.
const IDLE_SESSION: Duration = Duration::from_secs(60);
/// How long a login that is under way is waited for.
const LOG_IN_WAIT: Duration = Duration::from_secs(10);
/// Of what is announced nearby over the server.
const HEAD_START: Duration = Duration::from_millis(250);
/// Sessions that ask to be closed get this long to say goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Names a session while the engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(pub(super) u64);

/// Ends when the user logs out, and with it every attempt to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LoginEpoch(u64);

impl LoginEpoch {
    pub(super) const fn end(&mut self) {
        self.0 += 1;
    }
}

/// What the tasks around sessions report.
#[derive(Debug)]
pub(crate) enum SessionInput {
    /// A connection attempt has ended.
    Connected {
        era: LoginEpoch,
        peer: PeerIdentity,
        /// Whether the server says that the key has this name.
        vouched: bool,
        side: Side,
        outcome: Result<Session, NotConnected>,
    },
    /// A session goes another way, or there is more to tell about its way.
    Moved {
        session: SessionId,
        path: Box<SessionPath>,
    },
    /// Something came through a session.
    Exchange {
        session: SessionId,
        event: ExchangeEvent,
    },
    /// A session is over.
    Ended { session: SessionId },
}

/// Why there is no session.
#[derive(Debug)]
pub(crate) struct NotConnected {
    pub(super) failure: Failure,
    /// What was tried, if anything was.
    pub(super) report: Option<Report>,
}

impl From<Failure> for NotConnected {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            report: None,
        }
    }
}

impl NotConnected {
    fn of(peer: &PeerIdentity, policy: PathPolicy, error: ConnectError) -> Self {
        let failure = explain::connect(peer, policy, &error);
        let report = match error {
            ConnectError::NoPath { report, .. } => Some(report),
            _ => None,
        };
        Self { failure, report }
    }
}

/// One session that is up.
pub(crate) struct PeerSession {
    pub(super) peer: PeerIdentity,
    /// The server that named the peer, if one did.
    pub(super) server: Option<PeerKey>,
    /// Its place among all sessions.
    pub(super) ticket: Ticket,
    pub(super) path: PathKind,
    pub(super) exchange: Exchange,
    pub(super) handle: SessionHandle,
    pub(super) idle_since: Option<Instant>,
    pub(super) watch: Watch,
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
    /// The session to this peer, if one is up: the newest, unless only an older
    /// one is heard.
    pub(super) fn session_with(&self, peer: PeerKey) -> Option<SessionId> {
        let with_peer = self.sessions.iter().filter(|(_, s)| s.peer.key == peer);
        let best = with_peer.max_by_key(|(id, s)| (!s.watch.is_silent(), **id));
        best.map(|(id, _)| *id)
    }

    /// Begins to connect unless a session is up or being made.
    pub(super) fn ensure_session(&mut self, peer: &PeerIdentity) -> Result<(), Failure> {
        if self.session_with(peer.key).is_some() {
            return Ok(());
        }
        self.begin_connecting(peer)
    }

    /// Begins to connect unless that is under way.
    pub(super) fn begin_connecting(&mut self, peer: &PeerIdentity) -> Result<(), Failure> {
        if self.connecting.contains(&peer.key) {
            return Ok(());
        }
        let nearby = self.nearby.to(peer.key);
        if nearby.is_none() && self.login.rendezvous().is_none() {
            return Err(self.nowhere(peer));
        }
        self.connecting.insert(peer.key);
        let way = ConnectPlan {
            nearby,
            name: self.name_to_prove(peer),
            rendezvous: self.login.coming_rendezvous(),
            sharing: self.host_sharing(peer),
            policy: self.path_policy(),
        };
        let (inputs, peer) = (self.inputs.clone(), peer.clone());
        let (era, vouched) = (self.era, self.is_on_server(&peer));
        tokio::spawn(async move {
            let outcome = way.connect(&peer).await;
            let input = SessionInput::Connected {
                era,
                peer,
                vouched,
                side: Side::Initiator,
                outcome,
            };
            let _ = inputs.send(Input::Session(input)).await;
        });
        Ok(())
    }

    /// Why nobody can be reached.
    fn nowhere(&self, peer: &PeerIdentity) -> Failure {
        if self.login.id().is_none() {
            let peer = peer.name.to_string();
            return Failure::PeerOffline { peer };
        }
        let detail = "Not connected to the server at the moment. Try again when it is back.";
        Failure::NotPossible {
            detail: detail.to_owned(),
        }
    }

    /// Answers an invitation, on the paths that the user agrees to.
    pub(super) async fn take_invitation(&mut self, invitation: Invitation) {
        let Some((rendezvous, server)) = self.login.rendezvous().zip(self.login.server_key())
        else {
            return;
        };
        let peer = invitation.from().clone();
        let is_new = !rendezvous.may_migrate_a_session(&invitation);
        if is_new && self.overrides.takes_nothing {
            let unavailable = RefuseReason::Unavailable;
            return rendezvous
                .rendezvous()
                .refuse(invitation, unavailable)
                .await;
        }
        let acquaintance = self.contacts.acquaintance(server, &peer);
        let standing = Standing::of(acquaintance, self.contacts.is_blocked(peer.key));
        let is_allowed = self.permissions.is_allowed(peer.key, Instant::now());
        let consent = self.consent();
        let has_relay = self.login.has_relay();
        let policy = match consent.invitation(standing, has_relay, is_allowed) {
            Invited::Answer(policy) => policy,
            Invited::Refuse(reason) => {
                info!(peer = %peer.name, ?reason, "refused an invitation");
                rendezvous.rendezvous().refuse(invitation, reason).await;
                return self.tell_refused(peer, reason, acquaintance).await;
            }
        };
        let owner = owner(peer.key, None, standing.is_chosen());
        if is_new && !self.has_room_for_session(owner) {
            return rendezvous
                .rendezvous()
                .refuse(invitation, RefuseReason::Busy)
                .await;
        }
        let inputs = self.inputs.clone();
        let (era, sharing) = (self.era, self.host_sharing(&peer));
        tokio::spawn(async move {
            let outcome = match rendezvous.accept(invitation, sharing, policy).await {
                Ok(Accepted::Session(session)) => Ok(session),
                // Whoever watches the session knows.
                Ok(Accepted::Migrated) => return,
                Err(error) => Err(error),
            };
            let input = SessionInput::Connected {
                era,
                vouched: true,
                side: Side::Responder,
                outcome: outcome.map_err(|e| NotConnected::of(&peer, policy, e)),
                peer,
            };
            let _ = inputs.send(Input::Session(input)).await;
        });
    }

    /// What the user should know of an invitation that was refused.
    async fn tell_refused(
        &mut self,
        peer: PeerIdentity,
        reason: RefuseReason,
        acquaintance: Acquaintance,
    ) {
        match (reason, acquaintance) {
            (RefuseReason::KeyMismatch, Acquaintance::KeyChanged { pinned }) => {
                let known = pinned.fingerprint();
                self.emit(Event::KeyRefused { peer, known }).await;
            }
            (RefuseReason::NeedsPermission, _) => self.ask_for_permission(peer).await,
            _ => {}
        }
    }

    /// Our own network's addresses are only for those we know.
    pub(super) fn host_sharing(&self, peer: &PeerIdentity) -> HostSharing {
        match self.acquaintance(peer) {
            Acquaintance::Known { contact: true } => HostSharing::Always,
            _ => HostSharing::SameNetwork,
        }
    }

    pub(super) async fn handle_session(&mut self, input: SessionInput) {
        match input {
            SessionInput::Connected { era, .. } if era != self.era => {
                debug!("a connection attempt outlived its login");
            }
            SessionInput::Connected {
                peer,
                vouched,
                side,
                outcome,
                ..
            } => {
                if side == Side::Initiator {
                    self.connecting.remove(&peer.key);
                }
                self.remember_attempt(&peer, side == Side::Responder, &outcome);
                match outcome {
                    Ok(session) => self.add_session(peer, vouched, side, session).await,
                    Err(NotConnected { failure, .. }) if side == Side::Initiator => {
                        self.fail_waiting(peer.key, &failure).await;
                    }
                    // The inviter tells its user; ours has asked for nothing.
                    Err(NotConnected { failure, .. }) => {
                        info!(peer = %peer.name, "invited, but not connected: {failure}");
                    }
                }
            }
            SessionInput::Moved { session, path } => self.moved(session, &path).await,
            SessionInput::Exchange { session, event } => {
                self.handle_exchange(session, event).await;
                self.note_idleness(session);
            }
            SessionInput::Ended { session } => {
                self.remove_session(session);
                self.fail_session(session, "the other side went away").await;
            }
        }
    }

    async fn add_session(
        &mut self,
        peer: PeerIdentity,
        vouched: bool,
        side: Side,
        session: Session,
    ) {
        let server = self.login.server_key().filter(|_| vouched);
        let standing = self.standing(&peer);
        if side == Side::Responder && standing == Standing::Blocked {
            debug!(peer = %peer.name, "blocked while it was connecting");
            return;
        }
        let is_chosen = side == Side::Initiator || standing.is_chosen();
        // Over a relay it is the relay's.
        let address = (session.path != PathKind::Relay).then(|| session.remote.ip());
        let owner = owner(peer.key, address, is_chosen);
        let Some(ticket) = self.admit_session(owner).await else {
            let failure = Failure::NotPossible {
                detail: "Too many connections are open.".to_owned(),
            };
            return self.fail_waiting(peer.key, &failure).await;
        };
        let id = SessionId(self.next_id());
        let path = session.path;
        let connected = Event::Connected {
            peer: peer.clone(),
            path,
            local: session.local,
            remote: session.remote,
            elapsed: session.elapsed,
        };
        let resources = self.resources.clone();
        let owner = Owner {
            key: Some(*peer.key.as_bytes()),
            address,
            is_known: is_chosen,
        };
        let (exchange, events) =
            pinhole_transfer::start(session.stream.into_inner(), side, owner, resources);
        self.watch_path(id, &session.handle);
        self.pass_on(id, events);
        let key = peer.key;
        let idle_since = Some(Instant::now());
        self.sessions.insert(
            id,
            PeerSession {
                peer,
                server,
                ticket,
                path,
                exchange,
                handle: session.handle,
                idle_since,
                watch: Watch::new(path),
            },
        );
        // That one is lost is told before that another is there.
        self.leave_silent_sessions(key, id).await;
        self.emit(connected).await;
        self.offer_waiting(key, id).await;
    }

    /// Has whatever comes through a session come in.
    fn pass_on(&self, session: SessionId, mut events: mpsc::Receiver<ExchangeEvent>) {
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let input = SessionInput::Exchange { session, event };
                if inputs.send(Input::Session(input)).await.is_err() {
                    return;
                }
            }
            let ended = SessionInput::Ended { session };
            let _ = inputs.send(Input::Session(ended)).await;
        });
    }

    /// The server has ended the relay to this peer. What it carried does not go
    /// on by itself, for the next relay would end as well; only one that has
    /// lasted too long may begin again at once.
    pub(super) async fn end_relay(&mut self, peer: PeerKey, reason: Refusal) {
        if reason == Refusal::RelayTime {
            return;
        }
        let relayed = |s: &PeerSession| s.peer.key == peer && s.path == PathKind::Relay;
        let sessions = self.sessions.iter().filter(|(_, s)| relayed(s));
        let sessions: Vec<_> = sessions.map(|(id, s)| (*id, s.peer.name.clone())).collect();
        for (session, peer) in sessions {
            let reason = reason.to_string();
            let failure = Failure::RelayEnded { peer, reason };
            let carried = self.transfers.iter().filter(|(_, t)| t.uses(session));
            let carried: Vec<_> = carried.map(|(id, _)| *id).collect();
            for id in carried {
                self.finish(id, Err(failure.clone())).await;
            }
        }
    }

    /// Starts or stops the session's idle clock.
    pub(super) fn note_idleness(&mut self, id: SessionId) {
        let uses = |t: &Transfer| t.uses(id) || t.is_reoffered_on(id);
        let busy = self.transfers.values().any(uses);
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
        let is_idle = |s: &PeerSession| s.idle_since.is_some_and(|at| at + IDLE_SESSION <= now);
        let idle = self.sessions.iter().filter(|(_, session)| is_idle(session));
        let idle: Vec<_> = idle.map(|(id, _)| *id).collect();
        for id in idle {
            // The list of files of an offer may be long in coming.
            match self.sessions.get_mut(&id) {
                Some(session) if !session.exchange.is_idle() => session.idle_since = Some(now),
                _ => {
                    if let Some(session) = self.remove_session(id) {
                        tokio::spawn(close(session.exchange));
                    }
                }
            }
        }
    }

    /// Takes a session off the list, and gives its place back.
    pub(super) fn remove_session(&mut self, id: SessionId) -> Option<PeerSession> {
        let session = self.sessions.remove(&id)?;
        self.freed.note();
        self.admission.session_ended(session.ticket);
        Some(session)
    }

    pub(super) async fn end_all_sessions(&mut self) {
        self.interrupt_all().await;
        let all: Vec<_> = self.sessions.keys().copied().collect();
        let all = all.into_iter().filter_map(|id| self.remove_session(id));
        let closing: Vec<_> = all.map(|s| tokio::spawn(close(s.exchange))).collect();
        for task in closing {
            let _ = task.await;
        }
    }
}

/// How to reach a peer: nearby if it is there, and a moment later through the
/// server, too, for what is announced nearby may be wrong.
struct ConnectPlan {
    nearby: Option<Nearby>,
    /// What the peer has to call itself nearby.
    name: Option<PeerName>,
    /// It may come while it is needed.
    rendezvous: Option<watch::Receiver<Option<Connector>>>,
    sharing: HostSharing,
    policy: PathPolicy,
}

impl ConnectPlan {
    async fn connect(self, peer: &PeerIdentity) -> Result<Session, NotConnected> {
        let Some(nearby) = self.nearby.clone() else {
            return self.through_server(peer).await;
        };
        let name = self.name.clone();
        let mut near = Box::pin(async move {
            let connected = nearby.connect(peer.clone(), name).await;
            connected.map_err(|error| {
                info!(peer = %peer.name, "not reached nearby: {error}");
                explain::nearby(peer, &error).into()
            })
        });
        if self.rendezvous.is_none() {
            return near.await;
        }
        let early = timeout(HEAD_START, &mut near).await;
        if let Ok(Ok(session)) = early {
            return Ok(session);
        }
        let mut far = Box::pin(self.through_server(peer));
        let (nearby, server) = match early {
            Ok(nearby) => (nearby, far.await),
            Err(_) => tokio::select! {
                nearby = &mut near => match nearby {
                    Ok(session) => return Ok(session),
                    failed => (failed, far.await),
                },
                server = &mut far => match server {
                    Ok(session) => return Ok(session),
                    failed => (near.await, failed),
                },
            },
        };
        match (nearby, server) {
            (Ok(session), _) | (_, Ok(session)) => Ok(session),
            // That it is not there either says less than why it failed here.
            (Err(nearby), Err(server)) if matches!(server.failure, Failure::PeerOffline { .. }) => {
                Err(nearby)
            }
            (_, Err(failure)) => Err(failure),
        }
    }

    async fn through_server(self, peer: &PeerIdentity) -> Result<Session, NotConnected> {
        let offline = || {
            NotConnected::from(Failure::PeerOffline {
                peer: peer.name.to_string(),
            })
        };
        let mut coming = self.rendezvous.ok_or_else(offline)?;
        let come = timeout(LOG_IN_WAIT, coming.wait_for(Option::is_some)).await;
        let rendezvous = come.ok().and_then(|come| come.ok()?.clone());
        let rendezvous = rendezvous.ok_or_else(offline)?;
        let name = peer.name.clone();
        let connected = rendezvous.connect(name, peer.key, self.sharing).await;
        connected.map_err(|error| NotConnected::of(peer, self.policy, error))
    }
}

pub(super) async fn close(exchange: Exchange) {
    if timeout(CLOSE_TIMEOUT, exchange.close()).await.is_err() {
        debug!("the other side did not say goodbye in time");
    }
}
