//! Candidates: addresses at which a peer may be reached (RFC 8445).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Where an address comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CandidateKind {
    /// An address of one of the machine's own interfaces.
    Host,
    /// The address the rendezvous server saw: the outside of the NAT.
    ServerReflexive,
}

/// One address at which a peer may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Candidate {
    /// Where the address comes from.
    pub kind: CandidateKind,
    /// The address itself, never a mapped IPv6 one after [`Candidate::admit`].
    pub address: SocketAddr,
}

/// Why an address from the other side is not dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Inadmissible {
    /// Loopback, while the rendezvous server is elsewhere.
    #[error("loopback address")]
    Loopback,
    /// `0.0.0.0`, `::` and the rest of `0.0.0.0/8`.
    #[error("unspecified address")]
    Unspecified,
    /// Multicast or broadcast.
    #[error("multicast or broadcast address")]
    Multicast,
    /// Link-local: meaningless without a scope, and home of metadata services.
    #[error("link-local address")]
    LinkLocal,
    /// A port below [`Candidate::MIN_PORT`].
    #[error("port under 1024")]
    Port,
}

impl Candidate {
    /// Most candidates of one side; further ones are ignored.
    pub const MAX_PER_SIDE: usize = 8;
    /// Lowest port that is dialled: no peer may aim us at a well-known service.
    pub const MIN_PORT: u16 = 1024;

    /// This candidate with its address in canonical form, if it may be dialled.
    ///
    /// `server_on_loopback` lifts the ban on loopback addresses: with a server
    /// on this very machine they are the real addresses of the peers.
    ///
    /// # Errors
    /// Says why the address is refused.
    pub fn admit(self, server_on_loopback: bool) -> Result<Self, Inadmissible> {
        let ip = self.address.ip().to_canonical();
        let address = SocketAddr::new(ip, self.address.port());
        if address.port() < Self::MIN_PORT {
            return Err(Inadmissible::Port);
        }
        match ip {
            IpAddr::V4(v4) => admit_v4(v4)?,
            IpAddr::V6(v6) => admit_v6(v6)?,
        }
        if ip.is_loopback() && !server_on_loopback {
            return Err(Inadmissible::Loopback);
        }
        Ok(Self {
            kind: self.kind,
            address,
        })
    }
}

fn admit_v4(ip: Ipv4Addr) -> Result<(), Inadmissible> {
    if ip.octets()[0] == 0 {
        return Err(Inadmissible::Unspecified);
    }
    // 240.0.0.0/4 is reserved, its last address is the broadcast.
    if ip.is_multicast() || ip.octets()[0] >= 240 {
        return Err(Inadmissible::Multicast);
    }
    if ip.is_link_local() {
        return Err(Inadmissible::LinkLocal);
    }
    Ok(())
}

fn admit_v6(ip: Ipv6Addr) -> Result<(), Inadmissible> {
    // The deprecated IPv4-compatible form hides an IPv4 address.
    if ip.is_unspecified() || (ip.to_ipv4().is_some() && !ip.is_loopback()) {
        return Err(Inadmissible::Unspecified);
    }
    if ip.is_multicast() {
        return Err(Inadmissible::Multicast);
    }
    if ip.is_unicast_link_local() {
        return Err(Inadmissible::LinkLocal);
    }
    Ok(())
}

/// Whether an address is reachable from the whole internet as far as its
/// number tells: not private, shared (RFC 6598), loopback, or link-local.
/// Documentation ranges count as global: laboratories use them.
#[must_use]
pub fn is_global(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let shared = a == 100 && (b & 0xc0) == 64;
            !(v4.is_private() || shared) && admit_v4(v4).is_ok() && !v4.is_loopback()
        }
        IpAddr::V6(v6) => !v6.is_unique_local() && admit_v6(v6).is_ok() && !v6.is_loopback(),
    }
}

/// Whether two public addresses most likely belong to one network: the same
/// IPv4 address, or the same IPv6 /64.
#[must_use]
pub fn same_network(a: IpAddr, b: IpAddr) -> bool {
    match (a.to_canonical(), b.to_canonical()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => a == b,
        (IpAddr::V6(a), IpAddr::V6(b)) => a.segments()[..4] == b.segments()[..4],
        _ => false,
    }
}
