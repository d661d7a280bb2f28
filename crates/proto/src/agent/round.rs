//! What a round begins with.

use std::net::IpAddr;
use std::time::Instant;

use crate::candidate::{Candidate, CandidateKind, LoopbackAddresses, is_global, same_network};

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
    /// Whether loopback addresses are the real ones.
    pub loopback: LoopbackAddresses,
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
