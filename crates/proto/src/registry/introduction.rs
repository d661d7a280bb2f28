//! Introductions: an invitation, its answer, and what each side then learns.

mod elsewhere;
mod failed;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use pinhole_budget::{Bounds, Owner, Rate, SubnetBounds, Ticket};

use crate::candidate::{Candidate, CandidateKind, LoopbackAddresses, is_global, same_network};
use crate::credential::Credential;
use crate::key::PeerKey;
use crate::name::PeerName;
use crate::node::NodeRelay;
use crate::rendezvous::{
    HostSharing, IntroductionFailure, IntroductionId, NodeId, PeerIdentity, Reachability,
    RefuseReason, RelayToken, Role, ServerMessage,
};

use super::observed::Observed;
use super::{Inviter, Registry, Session, SessionId, Timer};

pub(super) use elsewhere::Answered;
pub(super) use failed::Failed;

/// How long an invited peer may take to answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How many introductions one key may ask for.
pub const INTRODUCTIONS_OF_KEY: Rate = Rate {
    burst: 60,
    interval: Duration::from_secs(1),
};
/// How many all newcomers of one network may ask for.
pub const INTRODUCTIONS_OF_NETWORK: Rate = Rate {
    burst: 240,
    interval: Duration::from_millis(250),
};
/// Unanswered invitations of one peer: nobody can be drowned in them, and nobody can
/// drown those of others.
pub const PENDING_INVITATIONS: Bounds = Bounds {
    total: 128,
    reserved: 32,
    per_key: 8,
    // An office may send to one colleague at once.
    per_subnet: SubnetBounds::uniform(32),
};
/// Most rounds of one introduction.
pub const MAX_ROUNDS: u8 = 4;

/// So many global IPv6 addresses are believed of a side that has never come
/// over IPv6: enough for an honest one, of little use for aiming it.
const MAX_UNSEEN: usize = 2;

/// A round trip believed: one who pretends to be far away delays the other by
/// no more than half of this.
const MAX_RTT: Duration = Duration::from_secs(2);

/// An introduction whose invited side has not answered yet.
#[derive(Debug)]
pub(super) struct Introduction {
    round: u8,
    inviter: Inviting,
    invited: Invited,
    expires_at: Instant,
}

/// The inviting side.
#[derive(Debug)]
enum Inviting {
    Here(SessionId),
    /// Logged in to another node.
    Elsewhere(Box<InviterElsewhere>),
}

#[derive(Debug)]
struct InviterElsewhere {
    node: NodeId,
    party: Party,
    is_known: bool,
    /// The other node, if it can be used as a relay.
    relay: Option<NodeRelay>,
}

/// The invited side.
#[derive(Debug)]
enum Invited {
    Here {
        session: SessionId,
        /// Among those that it has not answered.
        ticket: Ticket,
        /// The inviter's.
        reachability: Reachability,
    },
    /// Logged in to another node.
    Elsewhere {
        node: NodeId,
        identity: PeerIdentity,
        /// Good for both sides at this node's relay, if they are willing.
        token: Option<RelayToken>,
    },
}

/// What is known of one side beside where it may be reached.
#[derive(Debug, Clone)]
struct Party {
    identity: PeerIdentity,
    observed: SocketAddr,
    rtt: Option<Duration>,
}

/// Where one side may be reached in one round.
#[derive(Debug)]
pub(super) struct RoundReachability {
    pub(super) round: u8,
    pub(super) reachability: Reachability,
}

/// What an inviter asks for.
#[derive(Debug)]
pub(super) struct InviteRequest {
    pub(super) round: u8,
    pub(super) reachability: Reachability,
    pub(super) credential: Option<Credential>,
}

/// Who is invited, and a token that was drawn for it.
#[derive(Clone, Copy)]
pub(super) struct Invitee<'a> {
    pub(super) name: &'a PeerName,
    pub(super) fresh_token: RelayToken,
}

impl Session {
    /// Against whom what it asks for counts.
    pub(super) const fn owner(&self) -> Owner<PeerKey> {
        Owner {
            key: Some(self.identity.key),
            address: Some(self.observed.ip()),
            is_known: self.is_known,
        }
    }

    fn party(&self) -> Party {
        Party {
            identity: self.identity.clone(),
            observed: self.observed,
            rtt: self.rtt,
        }
    }
}

impl InviterElsewhere {
    const fn owner(&self) -> Owner<PeerKey> {
        Owner {
            key: Some(self.party.identity.key),
            address: Some(self.party.observed.ip()),
            is_known: self.is_known,
        }
    }
}

impl Registry {
    pub(super) fn introduce(
        &mut self,
        now: Instant,
        inviter: SessionId,
        id: IntroductionId,
        invitee: Invitee<'_>,
        wanted: InviteRequest,
    ) {
        let Some(session) = self.sessions.get(&inviter) else {
            return;
        };
        if !(1..=MAX_ROUNDS).contains(&wanted.round) {
            return self.close(inviter, None);
        }
        let owner = session.owner();
        let wanted = InviteRequest {
            reachability: own(wanted.reachability, session, &self.observed),
            ..wanted
        };
        if !self.may_introduce(now, &owner) {
            return self.fail(inviter, id, IntroductionFailure::Limited);
        }
        match self.online.get(invitee.name).copied() {
            Some(invited) if invited == inviter => {
                self.fail(inviter, id, IntroductionFailure::Offline);
            }
            Some(invited) => {
                if self.is_in_use(id, inviter, Some(invited)) {
                    return self.close(inviter, None);
                }
                self.invite(now, id, Inviting::Here(inviter), invited, wanted);
            }
            None => {
                if self.is_in_use(id, inviter, None) {
                    return self.close(inviter, None);
                }
                self.invite_elsewhere(now, inviter, id, invitee, wanted);
            }
        }
    }

    /// Whether the id names an introduction of others. A new round takes the place of one
    /// still unanswered; ids are not shared otherwise.
    fn is_in_use(
        &self,
        id: IntroductionId,
        inviter: SessionId,
        invited_here: Option<SessionId>,
    ) -> bool {
        let Some(earlier) = self.introductions.get(&id) else {
            return false;
        };
        let is_inviter = matches!(earlier.inviter, Inviting::Here(it) if it == inviter);
        let is_invited = match earlier.invited {
            Invited::Here { session, .. } => invited_here == Some(session),
            Invited::Elsewhere { .. } => invited_here.is_none(),
        };
        !(is_inviter && is_invited)
    }

    /// Invites somebody who is logged in here.
    fn invite(
        &mut self,
        now: Instant,
        id: IntroductionId,
        inviter: Inviting,
        invited: SessionId,
        wanted: InviteRequest,
    ) {
        self.take_introduction(id);
        let from = match &inviter {
            Inviting::Here(session) => {
                let session = self.sessions.get(session);
                session.map(|it| (it.identity.clone(), it.owner()))
            }
            Inviting::Elsewhere(it) => Some((it.party.identity.clone(), it.owner())),
        };
        let (Some((from, owner)), Some(session)) = (from, self.sessions.get_mut(&invited)) else {
            return;
        };
        let Ok(taken) = session.pending_invitations.take(owner, 1) else {
            return self.fail_inviter(&inviter, id, IntroductionFailure::Limited);
        };
        for ticket in taken.evicted {
            self.give_way(invited, ticket);
        }
        let InviteRequest {
            round,
            reachability,
            credential,
        } = wanted;
        let introduction = Introduction {
            round,
            inviter,
            invited: Invited::Here {
                session: invited,
                ticket: taken.ticket,
                reachability,
            },
            expires_at: now + ANSWER_TIMEOUT,
        };
        self.await_answer(id, introduction);
        let invitation = ServerMessage::Invitation {
            introduction: id,
            round,
            from,
            credential,
        };
        self.send(invited, invitation);
    }

    fn await_answer(&mut self, id: IntroductionId, introduction: Introduction) {
        let timer = Timer::Introduction(id);
        self.timers.insert((introduction.expires_at, timer));
        self.introductions.insert(id, introduction);
    }

    fn may_introduce(&mut self, now: Instant, owner: &Owner<PeerKey>) -> bool {
        let (Some(key), Some(address)) = (owner.key, owner.address) else {
            return false;
        };
        self.introductions_of_keys.take(now, key)
            && (owner.is_known || self.introductions_of_networks.take(now, address))
    }

    /// An invitation that has lost its place; the invited may still answer it, in vain.
    fn give_way(&mut self, invited: SessionId, lost_ticket: Ticket) {
        let is_lost = |it: &Introduction| {
            matches!(it.invited, Invited::Here { session, ticket, .. }
                if session == invited && ticket == lost_ticket)
        };
        let lost = self.introductions.iter().find(|(_, it)| is_lost(it));
        if let Some((&id, _)) = lost
            && let Some(introduction) = self.take_introduction(id)
        {
            self.fail_inviter(&introduction.inviter, id, IntroductionFailure::Limited);
        }
    }

    pub(super) fn answer(
        &mut self,
        now: Instant,
        answering: SessionId,
        id: IntroductionId,
        answer: RoundReachability,
        fresh_token: RelayToken,
    ) {
        let Some(introduction) = self.introductions.get(&id) else {
            // Too late: the sender shall not wait for an introduction.
            return self.fail(answering, id, IntroductionFailure::TimedOut);
        };
        let is_invited =
            matches!(introduction.invited, Invited::Here { session, .. } if session == answering);
        if !is_invited || introduction.round != answer.round {
            return;
        }
        if let Some(introduction) = self.take_introduction(id) {
            self.complete(now, id, introduction, answer.reachability, fresh_token);
        }
    }

    /// Tells both sides of each other, as far as each may know.
    fn complete(
        &mut self,
        now: Instant,
        id: IntroductionId,
        introduction: Introduction,
        answered: Reachability,
        fresh_token: RelayToken,
    ) {
        let Introduction {
            round,
            inviter,
            invited,
            ..
        } = introduction;
        let Invited::Here {
            session: answering,
            reachability: theirs,
            ..
        } = invited
        else {
            return;
        };
        let (Some(a), Some(session)) = (self.party_of(&inviter), self.sessions.get(&answering))
        else {
            return;
        };
        let ours = own(answered, session, &self.observed);
        let b = session.party();
        let near = near(a.observed, &theirs, b.observed, &ours);
        let shares = |side: &Reachability| side.share_host == HostSharing::Always;
        let to_inviter = passed_on(&ours, near || shares(&ours));
        // Who was invited has not asked to be told addresses of its own network:
        // a stranger's word is not enough to aim it there.
        let to_invited = passed_on(&theirs, near || shares(&theirs) && shares(&ours));
        let (relay, relay_addresses) = match &inviter {
            _ if !(theirs.relay && ours.relay) => (None, Vec::new()),
            Inviting::Here(_) => {
                let token = (!self.has_no_relay).then_some(fresh_token);
                self.issue(now, token, &a, b.identity.key);
                (token, Vec::new())
            }
            Inviting::Elsewhere(it) => it.relay.clone().map_or_else(Default::default, |relay| {
                (Some(relay.token), relay.addresses)
            }),
        };
        let for_inviter = Answered {
            round,
            invited: b.identity.clone(),
            candidates: to_inviter,
            relay: relay.is_some(),
            start_in_ms: start_in_ms(a.rtt, b.rtt),
        };
        self.tell_inviter(&inviter, id, for_inviter, relay);
        let to_invited = ServerMessage::Introduced {
            introduction: id,
            round,
            peer: a.identity,
            role: Role::Controlled,
            candidates: to_invited,
            relay,
            relay_addresses,
            start_in_ms: start_in_ms(b.rtt, a.rtt),
        };
        self.send(answering, to_invited);
    }

    fn party_of(&self, inviter: &Inviting) -> Option<Party> {
        match inviter {
            Inviting::Here(session) => self.sessions.get(session).map(Session::party),
            Inviting::Elsewhere(it) => Some(it.party.clone()),
        }
    }

    fn issue(
        &mut self,
        now: Instant,
        token: Option<RelayToken>,
        inviter: &Party,
        invited: PeerKey,
    ) {
        if let Some(token) = token {
            let inviter = Inviter {
                key: inviter.identity.key,
                address: inviter.observed.ip(),
            };
            let expires_at = self.relay.issue(now, token, inviter, invited);
            self.timers.insert((expires_at, Timer::Token(token)));
        }
    }

    fn tell_inviter(
        &mut self,
        inviter: &Inviting,
        id: IntroductionId,
        answered: Answered,
        token: Option<RelayToken>,
    ) {
        match inviter {
            Inviting::Here(session) => self.send(*session, answered.for_inviter(id, token)),
            Inviting::Elsewhere(it) => self.send_to_node(it.node, answered.for_node(id)),
        }
    }

    pub(super) fn refuse(
        &mut self,
        invited: SessionId,
        id: IntroductionId,
        reason: RefuseReason,
        credential: Option<Credential>,
    ) {
        let introduction = self.introductions.get(&id);
        let is_invited = |it: &Introduction| matches!(it.invited, Invited::Here { session, .. } if session == invited);
        if introduction.is_some_and(is_invited)
            && let Some(introduction) = self.take_introduction(id)
        {
            let failed = Failed {
                reason: reason.into(),
                credential,
            };
            self.fail_inviter(&introduction.inviter, id, failed);
        }
    }

    pub(super) fn expire_introduction(&mut self, now: Instant, id: IntroductionId) {
        // A later round of the same introduction has a later deadline.
        let introduction = self.introductions.get(&id);
        if introduction.is_some_and(|it| it.expires_at <= now)
            && let Some(introduction) = self.take_introduction(id)
        {
            self.fail_inviter(&introduction.inviter, id, IntroductionFailure::TimedOut);
            self.fail_invited(&introduction.invited, id, IntroductionFailure::TimedOut);
        }
    }

    /// One side is gone; the other shall not wait for it.
    pub(super) fn fail_introductions_of(&mut self, gone: SessionId) {
        let is_inviter = |it: &Introduction| matches!(it.inviter, Inviting::Here(s) if s == gone);
        let is_invited = |it: &Introduction| matches!(it.invited, Invited::Here { session, .. } if session == gone);
        let concerned: Vec<_> = self
            .introductions
            .iter()
            .filter(|(_, it)| is_inviter(it) || is_invited(it))
            .map(|(&id, it)| (id, is_inviter(it)))
            .collect();
        for (id, is_inviter) in concerned {
            if let Some(it) = self.take_introduction(id) {
                match is_inviter {
                    true => self.fail_invited(&it.invited, id, IntroductionFailure::Offline),
                    false => self.fail_inviter(&it.inviter, id, IntroductionFailure::Offline),
                }
            }
        }
    }

    fn take_introduction(&mut self, id: IntroductionId) -> Option<Introduction> {
        let introduction = self.introductions.remove(&id)?;
        if let Invited::Here {
            session, ticket, ..
        } = introduction.invited
            && let Some(invited) = self.sessions.get_mut(&session)
        {
            invited.pending_invitations.give_back(ticket);
        }
        Some(introduction)
    }
}

/// What is believed of a side's word about itself: addresses that may be
/// dialled, and those of the whole internet only where the server has seen its
/// key, as far as it can.
fn own(mut claimed: Reachability, side: &Session, observed: &Observed) -> Reachability {
    let loopback = LoopbackAddresses::seen_at(side.observed.ip());
    let mut unseen = 0;
    let mut known = HashSet::new();
    let admitted = claimed
        .candidates
        .into_iter()
        .filter_map(|candidate| candidate.admit(loopback).ok());
    let believed = admitted.filter(|candidate| {
        let (key, ip) = (side.identity.key, candidate.address.ip());
        let is_seen = match candidate.kind.is_own() {
            false => observed.contains(key, ip),
            true if !is_global(ip) => true,
            true => observed.has_network(key, ip).unwrap_or_else(|| {
                unseen += 1;
                unseen <= MAX_UNSEEN
            }),
        };
        is_seen && known.insert(*candidate)
    });
    claimed.candidates = Candidate::within_limits(believed);
    claimed
}

/// The part of one side's candidates that the other side is told.
fn passed_on(reachability: &Reachability, share_host: bool) -> Vec<Candidate> {
    let passes = |candidate: &Candidate| {
        let ip = candidate.address.ip();
        // A global IPv6 address is as public as a server-reflexive one.
        candidate.kind != CandidateKind::Host || share_host || (ip.is_ipv6() && is_global(ip))
    };
    let candidates = reachability.candidates.iter();
    candidates.copied().filter(passes).collect()
}

/// Whether two sides are most likely on the same network.
fn near(
    a_observed: SocketAddr,
    a: &Reachability,
    b_observed: SocketAddr,
    b: &Reachability,
) -> bool {
    let a = public_addresses(a_observed, a);
    let b = public_addresses(b_observed, b);
    let are_near = |a, b| (same_network(a, b) && !is_shared(a, b)) || around_server(a, b);
    a.iter().any(|&a| b.iter().any(|&b| are_near(a, b)))
}

/// One address from which the server cannot see the internet: it may be that of a
/// proxy or a NAT in front of the server, which everybody seems to come from.
fn is_shared(a: IpAddr, b: IpAddr) -> bool {
    a == b && !is_global(a) && !a.is_loopback()
}

/// One side is on the server's own machine and the other reaches that machine
/// without passing a NAT.
fn around_server(a: IpAddr, b: IpAddr) -> bool {
    (a.is_loopback() && !is_global(b)) || (b.is_loopback() && !is_global(a))
}

fn public_addresses(observed: SocketAddr, reachability: &Reachability) -> Vec<IpAddr> {
    let reflexive = reachability
        .candidates
        .iter()
        .filter(|candidate| candidate.kind == CandidateKind::ServerReflexive)
        .map(|candidate| candidate.address.ip());
    std::iter::once(observed.ip()).chain(reflexive).collect()
}

/// How long the side with `own` round trip waits, so that both begin when the
/// farther one has got the message. Both begin at once while either is unknown.
fn start_in_ms(own: Option<Duration>, other: Option<Duration>) -> u32 {
    let (Some(own), Some(other)) = (own, other) else {
        return 0;
    };
    let (own, other) = (own.min(MAX_RTT), other.min(MAX_RTT));
    let wait = other.saturating_sub(own) / 2;
    u32::try_from(wait.as_millis()).unwrap_or(u32::MAX)
}
