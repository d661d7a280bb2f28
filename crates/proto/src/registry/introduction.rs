//! Introductions: an invitation, its answer, and what each side then learns.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use pinhole_budget::{Bounds, Owner, Rate, SubnetBounds, Ticket};

use crate::candidate::{Candidate, CandidateKind, LoopbackAddresses, is_global, same_network};
use crate::key::PeerKey;
use crate::name::PeerName;
use crate::rendezvous::{
    HostSharing, IntroductionFailure, IntroductionId, Reachability, RefuseReason, RelayToken, Role,
    ServerMessage,
};

use super::observed::Observed;
use super::{Inviter, Registry, Session, SessionId, Timer};

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

/// An invitation that has not been answered yet.
#[derive(Debug)]
pub(super) struct Introduction {
    round: u8,
    inviter: SessionId,
    invited: SessionId,
    /// The inviter's.
    reachability: Reachability,
    expires_at: Instant,
    /// Among those that the invited has not answered.
    ticket: Ticket,
}

/// Where one side may be reached in one round.
#[derive(Debug)]
pub(super) struct RoundReachability {
    pub(super) round: u8,
    pub(super) reachability: Reachability,
}

impl Registry {
    pub(super) fn introduce(
        &mut self,
        now: Instant,
        inviter: SessionId,
        id: IntroductionId,
        peer: &PeerName,
        RoundReachability {
            round,
            reachability,
        }: RoundReachability,
    ) {
        let Some(session) = self.sessions.get(&inviter) else {
            return;
        };
        if !(1..=MAX_ROUNDS).contains(&round) {
            return self.close(inviter, None);
        }
        let from = session.identity.clone();
        let owner = Owner {
            key: Some(from.key),
            address: Some(session.observed.ip()),
            is_known: session.is_known,
        };
        let reachability = own(reachability, session, &self.observed);
        if !self.may_introduce(now, &owner) {
            return self.fail(inviter, id, IntroductionFailure::Limited);
        }
        let invited = self.online.get(peer).copied();
        let Some(invited) = invited.filter(|&invited| invited != inviter) else {
            return self.fail(inviter, id, IntroductionFailure::Offline);
        };
        // A new round takes the place of one still unanswered; ids are not
        // shared otherwise.
        if let Some(earlier) = self.introductions.get(&id) {
            if (earlier.inviter, earlier.invited) != (inviter, invited) {
                return self.close(inviter, None);
            }
            self.take_introduction(id);
        }
        let Some(session) = self.sessions.get_mut(&invited) else {
            return;
        };
        let Ok(taken) = session.pending_invitations.take(owner, 1) else {
            return self.fail(inviter, id, IntroductionFailure::Limited);
        };
        for ticket in taken.evicted {
            self.give_way(invited, ticket);
        }
        let expires_at = now + ANSWER_TIMEOUT;
        self.timers.insert((expires_at, Timer::Introduction(id)));
        self.introductions.insert(
            id,
            Introduction {
                round,
                inviter,
                invited,
                reachability,
                expires_at,
                ticket: taken.ticket,
            },
        );
        let invitation = ServerMessage::Invitation {
            introduction: id,
            round,
            from,
        };
        self.send(invited, invitation);
    }

    fn may_introduce(&mut self, now: Instant, owner: &Owner<PeerKey>) -> bool {
        let (Some(key), Some(address)) = (owner.key, owner.address) else {
            return false;
        };
        self.introductions_of_keys.take(now, key)
            && (owner.is_known || self.introductions_of_networks.take(now, address))
    }

    /// An invitation that has lost its place; the invited may still answer it, in vain.
    fn give_way(&mut self, invited: SessionId, ticket: Ticket) {
        let mut all = self.introductions.iter();
        let lost = all.find(|(_, it)| it.invited == invited && it.ticket == ticket);
        if let Some((&id, _)) = lost
            && let Some(introduction) = self.take_introduction(id)
        {
            self.fail(introduction.inviter, id, IntroductionFailure::Limited);
        }
    }

    pub(super) fn answer(
        &mut self,
        now: Instant,
        invited: SessionId,
        id: IntroductionId,
        RoundReachability {
            round,
            reachability,
        }: RoundReachability,
        fresh_token: RelayToken,
    ) {
        let Some(introduction) = self.introductions.get(&id) else {
            // Too late: the sender shall not wait for an introduction.
            return self.fail(invited, id, IntroductionFailure::TimedOut);
        };
        if (introduction.invited, introduction.round) != (invited, round) {
            return;
        }
        let Some(introduction) = self.take_introduction(id) else {
            return;
        };
        let inviter = introduction.inviter;
        let (Some(a), Some(b)) = (self.sessions.get(&inviter), self.sessions.get(&invited)) else {
            return;
        };
        let (theirs, ours) = (
            introduction.reachability,
            own(reachability, b, &self.observed),
        );
        let relays = theirs.relay && ours.relay && !self.has_no_relay;
        let relay = relays.then_some(fresh_token);
        let near = near(a.observed, &theirs, b.observed, &ours);
        let introduced =
            |session: &Session, other: &Session, role, candidates| ServerMessage::Introduced {
                introduction: id,
                round,
                peer: other.identity.clone(),
                role,
                candidates,
                relay,
                start_in_ms: start_in_ms(session.rtt, other.rtt),
            };
        let shares = |side: &Reachability| side.share_host == HostSharing::Always;
        let to_inviter = passed_on(&ours, near || shares(&ours));
        // Who was invited has not asked to be told addresses of its own network:
        // a stranger's word is not enough to aim it there.
        let to_invited = passed_on(&theirs, near || shares(&theirs) && shares(&ours));
        let to_inviter = introduced(a, b, Role::Controlling, to_inviter);
        let to_invited = introduced(b, a, Role::Controlled, to_invited);
        let inviting = Inviter {
            key: a.identity.key,
            address: a.observed.ip(),
        };
        let invited_key = b.identity.key;
        if let Some(token) = relay {
            let expires_at = self.relay.issue(now, token, inviting, invited_key);
            self.timers.insert((expires_at, Timer::Token(token)));
        }
        self.send(inviter, to_inviter);
        self.send(invited, to_invited);
    }

    pub(super) fn refuse(&mut self, invited: SessionId, id: IntroductionId, reason: RefuseReason) {
        let introduction = self.introductions.get(&id);
        if introduction.is_some_and(|it| it.invited == invited)
            && let Some(introduction) = self.take_introduction(id)
        {
            self.fail(introduction.inviter, id, reason.into());
        }
    }

    pub(super) fn expire_introduction(&mut self, now: Instant, id: IntroductionId) {
        // A later round of the same introduction has a later deadline.
        let introduction = self.introductions.get(&id);
        if introduction.is_some_and(|it| it.expires_at <= now)
            && let Some(introduction) = self.take_introduction(id)
        {
            for session in [introduction.inviter, introduction.invited] {
                self.fail(session, id, IntroductionFailure::TimedOut);
            }
        }
    }

    /// One side is gone; the other shall not wait for it.
    pub(super) fn fail_introductions_of(&mut self, gone: SessionId) {
        let concerned: Vec<_> = self
            .introductions
            .iter()
            .filter(|(_, it)| it.inviter == gone || it.invited == gone)
            .map(|(&id, _)| id)
            .collect();
        for id in concerned {
            if let Some(it) = self.take_introduction(id) {
                let left = if it.inviter == gone {
                    it.invited
                } else {
                    it.inviter
                };
                self.fail(left, id, IntroductionFailure::Offline);
            }
        }
    }

    fn take_introduction(&mut self, id: IntroductionId) -> Option<Introduction> {
        let introduction = self.introductions.remove(&id)?;
        if let Some(invited) = self.sessions.get_mut(&introduction.invited) {
            invited.pending_invitations.give_back(introduction.ticket);
        }
        Some(introduction)
    }

    fn fail(&mut self, session: SessionId, id: IntroductionId, reason: IntroductionFailure) {
        let failed = ServerMessage::IntroductionFailed {
            introduction: id,
            reason,
        };
        self.send(session, failed);
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
