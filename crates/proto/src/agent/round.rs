//! One round: what it begins with, and how far it is.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::candidate::{Candidate, CandidateKind, is_global, same_network};

use super::Timing;
use super::checklist::Checklist;
use super::connection::Until;

/// What both sides learn from one introduction.
#[derive(Debug, Clone)]
pub struct Round {
    /// 1 for the first.
    pub number: u8,
    /// What the other side was told about this one. A remote candidate is only
    /// dialled when one of the same address family is among these.
    pub local: Vec<Candidate>,
    /// Where the other side may be reached, as the server passed it on; empty
    /// when it wants the relay only.
    pub remote: Vec<Candidate>,
    /// Whether the server offers a relay to both sides.
    pub relay: bool,
    /// When to dial. The server chose it so that both sides begin together.
    pub start_at: Instant,
    /// Whether loopback addresses are the real ones, see [`Candidate::admit`].
    pub server_on_loopback: bool,
}

impl Round {
    /// Whether the server sees both sides at one public address, or neither through a
    /// NAT.
    pub(super) fn is_near(&self) -> bool {
        let seen = |all: &[Candidate]| -> Vec<IpAddr> {
            let reflexive = |one: &&Candidate| one.kind == CandidateKind::ServerReflexive;
            let ips = all.iter().filter(reflexive);
            ips.map(|one| one.address.ip().to_canonical()).collect()
        };
        let (local, remote) = (seen(&self.local), seen(&self.remote));
        let is_near = |a, b| same_network(a, b) || !(is_global(a) || is_global(b));
        local.iter().any(|&a| remote.iter().any(|&b| is_near(a, b)))
    }
}

/// The round in progress.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) number: u8,
    pub(super) checklist: Checklist,
    /// Whether the two sides try to connect directly at all.
    pub(super) direct: bool,
    /// Whether they seem to be on one network.
    pub(super) is_near: bool,
    /// The relay was asked for, and has neither come nor failed.
    pub(super) relay_pending: bool,
    pub(super) direct_ends_at: Instant,
    pub(super) relay_ends_at: Instant,
    /// Until then strangers wait for the peer; set by the first valid pair.
    pub(super) strangers_at: Option<Instant>,
    /// The next round was asked for (or, on the controlled side, is expected)
    /// and must come by then.
    pub(super) next_round_by: Option<Instant>,
}

impl Current {
    /// How long an authenticated connection waits for a better one: what it took
    /// itself, for on a long way everything takes longer.
    pub(super) fn holds_until(&self, now: Instant, timing: &Timing) -> Until {
        let took = now.saturating_duration_since(self.direct_ends_at - timing.direct);
        let patience = took.clamp(timing.hold, timing.hold_max);
        let at_least = match self.is_near {
            true => timing.near_hold,
            false => Duration::ZERO,
        };
        Until {
            nothing_is_up: now + (patience / 3).max(at_least),
            better_is_begun: now + patience.max(at_least),
        }
    }

    /// When there is nothing more to hope for.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        match (self.relay_pending, self.direct) {
            (true, _) => Some(self.relay_ends_at),
            (false, true) => Some(self.direct_ends_at),
            (false, false) => None,
        }
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.ends_at().is_none_or(|ends_at| now >= ends_at)
    }
}
