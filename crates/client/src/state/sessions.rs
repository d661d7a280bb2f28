//! Sessions with peers: which are up, which are being made, and which carry nothing
//! any more.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pinhole_budget::Ticket;
use pinhole_net::{
    HostSharing, PathKind, PathPolicy, PeerIdentity, PeerKey, Refusal, RefuseReason,
};
use pinhole_transfer::Side;
use tracing::{debug, info};

use super::State;
use super::admission::owner;
use super::effect::{ConnectPlan, Effect, SessionEffect};
use super::ids::{Epoch, SessionId};
use super::links::Shown;
use super::path_monitor::{StallDetector, Watch};
use super::transfers::Transfer;
use crate::consent::{Invited, Standing};
use crate::event::Event;
use crate::failure::Failure;
use crate::invitation::evidence::Evidence;
use crate::store::Acquaintance;

/// A session that carries nothing is kept this long: the next file to the same
/// peer then goes at once.
const IDLE_SESSION: Duration = Duration::from_secs(60);

/// How an attempt to connect has ended.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) epoch: Epoch,
    pub(crate) peer: PeerIdentity,
    /// Whether the server says that the key has this name.
    pub(crate) is_vouched: bool,
    pub(crate) side: Side,
    pub(crate) outcome: Result<NewSession, NoSession>,
}

/// Why there is no session.
#[derive(Debug)]
pub(crate) struct NoSession {
    pub(crate) failure: Failure,
    /// What the peer has answered to what it was shown.
    pub(crate) answer: Option<Evidence>,
}

impl From<Failure> for NoSession {
    fn from(failure: Failure) -> Self {
        let answer = None;
        Self { failure, answer }
    }
}

/// Somebody who wants to connect through the server.
#[derive(Debug)]
pub(crate) struct Introduced {
    pub(crate) peer: PeerIdentity,
    /// It is not the peer of a session that looks for a better path.
    pub(crate) is_new: bool,
    pub(crate) evidence: Option<Evidence>,
    /// The time, in seconds since 1970.
    pub(crate) at_s: u64,
}

/// A session that has come up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewSession {
    pub(crate) path: PathKind,
    pub(crate) local: SocketAddr,
    /// The relay server's, on a relayed path.
    pub(crate) remote: SocketAddr,
    pub(crate) elapsed: Duration,
    /// Whether this side chooses its path.
    pub(crate) is_controlling: bool,
}

/// A session that was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Admitted {
    pub(crate) session: SessionId,
    /// Whether its peer counts as known.
    pub(crate) is_known: bool,
}

/// What an invited peer, or one that connects nearby, is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// It may connect, as this peer.
    Yes {
        peer: PeerIdentity,
        epoch: Epoch,
        is_vouched: bool,
        sharing: HostSharing,
        policy: PathPolicy,
    },
    /// It may try again with what follows from this answer.
    Answer(Evidence),
    No(RefuseReason),
}

/// One session that is up.
#[derive(Debug)]
pub(super) struct PeerSession {
    pub(super) peer: PeerIdentity,
    /// The server that named the peer, if one did.
    pub(super) server: Option<PeerKey>,
    /// Its place among all sessions.
    pub(super) ticket: Ticket,
    pub(super) path: PathKind,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) is_controlling: bool,
    pub(super) idle_since: Option<Instant>,
    pub(super) watch: Watch,
}

/// All sessions, and what is about to be one.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    up: BTreeMap<SessionId, PeerSession>,
    connecting: HashSet<PeerKey>,
    epoch: Epoch,
    pub(super) stall_detector: StallDetector,
}

impl Sessions {
    pub(super) fn get(&self, id: SessionId) -> Option<&PeerSession> {
        self.up.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut PeerSession> {
        self.up.get_mut(&id)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (SessionId, &mut PeerSession)> {
        self.up.iter_mut().map(|(&id, session)| (id, session))
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = &PeerIdentity> {
        self.up.values().map(|session| &session.peer)
    }

    /// Those with this peer, oldest first.
    pub(super) fn with(&self, peer: PeerKey) -> impl Iterator<Item = SessionId> {
        let with_peer = self.up.iter().filter(move |(_, s)| s.peer.key == peer);
        with_peer.map(|(&id, _)| id)
    }

    pub(super) fn with_ticket(&self, ticket: Ticket) -> Option<SessionId> {
        let session = self.up.iter().find(|(_, s)| s.ticket == ticket);
        session.map(|(&id, _)| id)
    }

    pub(super) fn tickets_of(&self, peer: PeerKey) -> Vec<(SessionId, Ticket)> {
        let with_peer = self.up.iter().filter(|(_, s)| s.peer.key == peer);
        with_peer.map(|(&id, s)| (id, s.ticket)).collect()
    }

    /// The path of the session with this peer, if one is up.
    pub(super) fn path_to(&self, peer: &PeerIdentity) -> Option<PathKind> {
        let session = self.up.values().find(|s| s.peer == *peer);
        session.map(|session| session.path)
    }

    /// The session to this peer, if one is up: the newest, unless only an older one is
    /// heard.
    pub(super) fn to(&self, peer: PeerKey) -> Option<SessionId> {
        let with_peer = self.up.iter().filter(|(_, s)| s.peer.key == peer);
        let best = with_peer.max_by_key(|(id, s)| (!s.watch.is_silent(), **id));
        best.map(|(&id, _)| id)
    }

    pub(super) fn is_connecting(&self) -> bool {
        !self.connecting.is_empty()
    }

    pub(super) fn next_improvement(&self) -> Option<Instant> {
        let due = self.up.values().filter_map(|s| s.watch.improve_at());
        due.min()
    }

    pub(super) fn next_idle_end(&self) -> Option<Instant> {
        let since = self.up.values().filter_map(|s| s.idle_since).min();
        since.map(|since| since + IDLE_SESSION)
    }
}

impl State {
    /// Begins to connect unless a session is up or being made.
    pub(super) fn ensure_session(&mut self, peer: &PeerIdentity) -> Result<(), Failure> {
        match self.sessions.to(peer.key) {
            Some(_) => Ok(()),
            None => self.begin_connecting(peer),
        }
    }

    /// Begins to connect unless that is under way.
    pub(super) fn begin_connecting(&mut self, peer: &PeerIdentity) -> Result<(), Failure> {
        if self.sessions.connecting.contains(&peer.key) {
            return Ok(());
        }
        let is_nearby = self.presence.is_nearby(peer.key);
        if !is_nearby && !self.login.is_online() {
            return Err(self.nowhere(peer));
        }
        self.sessions.connecting.insert(peer.key);
        let evidence = self.evidence_for(peer);
        let plan = ConnectPlan {
            // Nobody is shown anything there.
            is_nearby: is_nearby && evidence.is_none(),
            name_to_prove: self.name_to_prove(peer),
            through_server: self.login.is_wanted(),
            is_vouched: self.presence.is_on_server(peer),
            sharing: self.host_sharing(peer),
            policy: self.in_force().path,
            evidence,
        };
        self.effect(Effect::Session(SessionEffect::Connect {
            peer: peer.clone(),
            epoch: self.sessions.epoch,
            plan,
        }));
        Ok(())
    }

    /// What is shown to a peer with the attempt to connect that begins now.
    fn evidence_for(&mut self, peer: &PeerIdentity) -> Option<Evidence> {
        if !self.login.is_online() {
            return None;
        }
        let words = self.words_for(peer.key);
        let is_on_server = self.presence.is_on_server(peer);
        let proof = || self.proof_for(peer.key).filter(|_| is_on_server);
        let evidence = words.or_else(proof)?;
        if let Evidence::Proof(_) = evidence {
            self.note_presented(peer.key);
        }
        Some(evidence)
    }

    /// Why nobody can be reached.
    fn nowhere(&self, peer: &PeerIdentity) -> Failure {
        if !self.login.is_wanted() {
            let peer = peer.name.to_string();
            return Failure::PeerOffline { peer };
        }
        let detail = "Not connected to the server at the moment. Try again when it is back.";
        Failure::NotPossible {
            detail: detail.to_owned(),
        }
    }

    /// Somebody wants to connect through the server.
    pub(crate) fn handle_invitation(&mut self, introduced: Introduced, now: Instant) -> Told {
        self.now = now;
        let Some(server) = self.login.server_key() else {
            return Told::No(RefuseReason::Unavailable);
        };
        let is_new = introduced.is_new;
        self.note_introduced(&introduced.peer);
        let is_let_in = match self.evidence_shown(server, &introduced) {
            Shown::Answer(answer) => return Told::Answer(answer),
            Shown::Refuse(reason) => return Told::No(reason),
            Shown::LetIn => true,
            Shown::Nothing => false,
        };
        let peer = introduced.peer;
        if is_new && !self.takes_from(peer.key) {
            return Told::No(RefuseReason::Unavailable);
        }
        let acquaintance = self.contacts.acquaintance(server, &peer);
        let standing = Standing::of(acquaintance, self.contacts.is_blocked(peer.key));
        let is_allowed = is_let_in || self.permissions.is_allowed(peer.key, now);
        let has_relay = self.login.has_relay();
        let policy = match self.consent().invitation(standing, has_relay, is_allowed) {
            Invited::Answer(policy) => policy,
            Invited::Refuse(reason) => {
                info!(peer = %peer.name, ?reason, "refused an invitation");
                self.tell_refused(peer, reason, acquaintance);
                return Told::No(reason);
            }
        };
        let owner = owner(peer.key, None, is_let_in || standing.is_chosen());
        if is_new && !self.has_room_for_session(owner) {
            self.forget_arriving(peer.key);
            return Told::No(RefuseReason::Busy);
        }
        Told::Yes {
            epoch: self.sessions.epoch,
            is_vouched: true,
            sharing: self.host_sharing(&peer),
            policy,
            peer,
        }
    }

    /// What follows from what somebody shows who wants to connect. Whoever is kept out is
    /// kept out with it, too.
    fn evidence_shown(&mut self, server: PeerKey, introduced: &Introduced) -> Shown {
        let Introduced {
            peer,
            is_new: true,
            evidence: Some(evidence),
            at_s,
        } = introduced
        else {
            return Shown::Nothing;
        };
        let acquaintance = self.contacts.acquaintance(server, peer);
        let standing = Standing::of(acquaintance, self.contacts.is_blocked(peer.key));
        match evidence {
            _ if standing.is_barred() => Shown::Nothing,
            // Whoever only sends lets nobody in; the inviter may be there another time.
            Evidence::Proof(_) if self.overrides.takes_nothing => Shown::Nothing,
            Evidence::Proof(_) => self.proof_shown(peer, *evidence, *at_s),
            _ => self.code_shown(peer, *evidence),
        }
    }

    /// Whether this run takes anything of this peer: one that only sends or asks takes
    /// something only of whom a code has brought.
    pub(super) fn takes_from(&self, peer: PeerKey) -> bool {
        !self.overrides.takes_nothing || self.codes.has_brought(peer)
    }

    /// What the user should know of an invitation that was refused.
    fn tell_refused(
        &mut self,
        peer: PeerIdentity,
        reason: RefuseReason,
        acquaintance: Acquaintance,
    ) {
        match (reason, acquaintance) {
            (RefuseReason::KeyMismatch, Acquaintance::KeyChanged { pinned }) => {
                self.tell_key_refused(peer, pinned);
            }
            (RefuseReason::NeedsPermission, _) => self.ask_for_permission(peer),
            _ => {}
        }
    }

    /// Somebody nearby has connected. It is let in unless its key is not the one known
    /// under the name.
    pub(crate) fn handle_visitor(&mut self, said: &PeerIdentity, now: Instant) -> Told {
        self.now = now;
        let named_by_server = self.presence.online().find(|peer| peer.key == said.key);
        let peer = named_by_server.unwrap_or_else(|| said.clone());
        let standing = self.standing(&peer);
        let owner = owner(peer.key, None, standing.is_chosen());
        let is_shut_out = matches!(standing, Standing::Blocked | Standing::Revoked);
        if is_shut_out || !self.has_room_for_session(owner) {
            info!(peer = %peer.name, ?standing, "refused somebody nearby");
            return Told::No(match standing {
                Standing::Blocked => RefuseReason::Unavailable,
                Standing::Revoked => RefuseReason::KeyMismatch,
                _ => RefuseReason::Busy,
            });
        }
        if let Acquaintance::KeyChanged { pinned } = self.acquaintance(&peer) {
            info!(peer = %peer.name, "refused somebody nearby: the key has changed");
            self.tell_key_refused(peer, pinned);
            return Told::No(RefuseReason::KeyMismatch);
        }
        Told::Yes {
            epoch: self.sessions.epoch,
            is_vouched: self.presence.is_on_server(&peer),
            sharing: self.host_sharing(&peer),
            policy: self.in_force().path,
            peer,
        }
    }

    /// Our own network's addresses are only for those we know.
    pub(super) fn host_sharing(&self, peer: &PeerIdentity) -> HostSharing {
        match self.acquaintance(peer) {
            Acquaintance::Known { contact: true } => HostSharing::Always,
            _ => HostSharing::SameNetwork,
        }
    }

    /// An attempt to connect has ended. A session that came of it is let in, or is to
    /// be dropped.
    pub(crate) fn handle_connected(
        &mut self,
        connected: Connected,
        now: Instant,
    ) -> Option<Admitted> {
        self.now = now;
        let Connected {
            epoch,
            peer,
            is_vouched,
            side,
            outcome,
        } = connected;
        if epoch != self.sessions.epoch {
            debug!("a connection attempt outlived its login");
            return None;
        }
        if side == Side::Initiator {
            self.sessions.connecting.remove(&peer.key);
        }
        match outcome {
            Ok(session) => {
                let server = self.login.server_key().filter(|_| is_vouched);
                let news = match side {
                    Side::Initiator => self.evidence_taken(&peer)?,
                    Side::Responder => self.let_in(&peer, server),
                };
                let key = peer.key;
                let admitted = self.add_session(peer, server, side, session);
                self.effects.extend(news.map(Effect::Emit));
                if side == Side::Initiator {
                    self.show_after_all(key);
                }
                admitted
            }
            Err(NoSession { failure, answer }) if side == Side::Initiator => {
                let is_settled = self.code_not_taken(&peer, &failure, answer)
                    || self.proof_not_taken(&peer, &failure);
                if !is_settled {
                    self.fail_waiting(peer.key, &failure);
                    self.show_after_all(peer.key);
                }
                None
            }
            // The inviter tells its user; ours has asked for nothing.
            Err(NoSession { failure, .. }) => {
                info!(peer = %peer.name, "invited, but not connected: {failure}");
                let news = self.not_let_in(&peer);
                self.effects.extend(news.map(Effect::Emit));
                None
            }
        }
    }

    /// We are connected to somebody who may have been shown something. Returns what is
    /// to be told of it; `None` if the session is not to be used.
    fn evidence_taken(&mut self, peer: &PeerIdentity) -> Option<Option<Event>> {
        let by_code = self.code_taken(peer).ok()?;
        let by_link = self.proof_taken(peer);
        Some(by_code.or(by_link))
    }

    /// Somebody who may have shown something is connected, under a name that this server
    /// gives them. Returns what is to be told of it.
    fn let_in(&mut self, peer: &PeerIdentity, server: Option<PeerKey>) -> Option<Event> {
        let server = server?;
        let by_code = self.arrived_by_code(peer);
        let by_link = self.arrived_by_link(server, peer);
        by_code.or(by_link)
    }

    /// Somebody who may have shown something could not connect.
    fn not_let_in(&mut self, peer: &PeerIdentity) -> Option<Event> {
        self.forget_arriving(peer.key);
        self.arrived_by_code(peer)
    }

    fn add_session(
        &mut self,
        peer: PeerIdentity,
        server: Option<PeerKey>,
        side: Side,
        new: NewSession,
    ) -> Option<Admitted> {
        let standing = self.standing(&peer);
        if side == Side::Responder && standing == Standing::Blocked {
            debug!(peer = %peer.name, "blocked while it was connecting");
            return None;
        }
        let is_known = side == Side::Initiator || standing.is_chosen();
        // Over a relay it is the relay's.
        let address = (new.path != PathKind::Relay).then(|| new.remote.ip());
        let Some(ticket) = self.admit_session(owner(peer.key, address, is_known)) else {
            let failure = Failure::NotPossible {
                detail: "Too many connections are open.".to_owned(),
            };
            self.fail_waiting(peer.key, &failure);
            return None;
        };
        let session = SessionId(self.next_id());
        let connected = Event::Connected {
            peer: peer.clone(),
            path: new.path,
            local: new.local,
            remote: new.remote,
            elapsed: new.elapsed,
        };
        let key = peer.key;
        let up = PeerSession {
            peer,
            server,
            ticket,
            path: new.path,
            local: new.local,
            remote: new.remote,
            is_controlling: new.is_controlling,
            idle_since: Some(self.now),
            watch: Watch::new(new.path, self.now),
        };
        self.sessions.up.insert(session, up);
        // That one is lost is told before that another is there.
        self.leave_silent_sessions(key, session);
        self.emit(connected);
        self.offer_waiting(key, session);
        Some(Admitted { session, is_known })
    }

    /// A session is over.
    pub(crate) fn handle_session_ended(&mut self, session: SessionId, now: Instant) {
        self.now = now;
        self.remove_session(session);
        self.fail_session(session, "the other side went away");
    }

    /// The server has ended the relay to this peer. What it carried does not go
    /// on by itself, for the next relay would end as well; only one that has
    /// lasted too long may begin again at once.
    pub(super) fn end_relay(&mut self, peer: PeerKey, reason: Refusal) {
        if reason == Refusal::RelayTime {
            return;
        }
        let sessions: Vec<_> = self.sessions.with(peer).collect();
        for session in sessions {
            let up = self.sessions.get(session);
            let Some(up) = up.filter(|up| up.path == PathKind::Relay) else {
                continue;
            };
            let failure = Failure::RelayEnded {
                peer: up.peer.name.clone(),
                reason: reason.to_string(),
            };
            for id in self.transfers.ids(|t| t.uses(session)) {
                self.finish(id, Err(failure.clone()));
            }
        }
    }

    /// Starts or stops the session's idle clock.
    pub(super) fn note_idleness(&mut self, id: SessionId) {
        let uses = |t: &Transfer| t.uses(id) || t.is_reoffered_on(id);
        let is_busy = self.transfers.values().any(uses);
        let now = self.now;
        if let Some(session) = self.sessions.get_mut(id) {
            session.idle_since = match is_busy {
                true => None,
                false => session.idle_since.or(Some(now)),
            };
        }
    }

    pub(super) fn close_idle_sessions(&mut self) {
        let now = self.now;
        let mut idle = Vec::new();
        for (id, session) in self.sessions.iter_mut() {
            if session
                .idle_since
                .is_some_and(|at| at + IDLE_SESSION <= now)
            {
                // The list of files of an offer may be long in coming.
                session.idle_since = Some(now);
                idle.push(id);
            }
        }
        for id in idle {
            self.effect(Effect::Session(SessionEffect::CloseIfUnused(id)));
        }
    }

    /// Nothing is open on an idle session.
    pub(crate) fn handle_unused(&mut self, session: SessionId) {
        self.remove_session(session);
    }

    /// Takes a session off the list, gives its place back, and has it closed.
    pub(super) fn remove_session(&mut self, id: SessionId) -> Option<PeerSession> {
        let session = self.sessions.up.remove(&id)?;
        self.admission.session_ended(session.ticket);
        self.effect(Effect::Session(SessionEffect::Close(id)));
        Some(session)
    }

    pub(super) fn end_all_sessions(&mut self) {
        self.interrupt_all();
        let all: Vec<_> = self.sessions.up.keys().copied().collect();
        for id in all {
            self.remove_session(id);
        }
        self.effect(Effect::Session(SessionEffect::AwaitClosed));
        self.sessions.connecting.clear();
        self.links.forget_attempts();
        self.sessions.epoch.0 += 1;
    }
}
