//! Paths: which may be used, and which one it is.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::candidate::{Candidate, CandidateKind, is_global, same_network};

/// Which paths the user allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum PathPolicy {
    /// A direct path, and the relay while there is none.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// Direct paths only.
    #[serde(rename = "direct")]
    DirectOnly,
    /// The relay only: the other side does not learn our address.
    #[serde(rename = "relay")]
    RelayOnly,
}

impl PathPolicy {
    /// What both of them allow; `None` when that is nothing.
    #[must_use]
    pub fn and(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Auto, policy) | (policy, Self::Auto) => Some(policy),
            (one, other) => (one == other).then_some(one),
        }
    }
}

/// How a connection reaches the other side, the best class first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathKind {
    /// Within one network: the remote address is not a global one, or belongs
    /// to the same network as one of our own interfaces.
    Lan,
    /// Over global IPv6 addresses.
    Ipv6,
    /// To a port that the other side's NAT has opened on request.
    Mapped,
    /// Over global IPv4 addresses, through whatever NATs there are.
    Punched,
    /// Through the relay.
    Relay,
}

impl PathKind {
    /// Whether a session on `current` is to be moved to this path: from the
    /// relay to any direct one, and from any other to the same network.
    /// Between two ways through the internet there is little to choose.
    #[must_use]
    pub const fn is_worth_a_move_from(self, current: Self) -> bool {
        match current {
            Self::Lan => false,
            Self::Ipv6 | Self::Mapped | Self::Punched => matches!(self, Self::Lan),
            Self::Relay => !matches!(self, Self::Relay),
        }
    }

    /// The class of a connection dialled to this candidate (canonical).
    pub(super) fn dialled(local: &[Candidate], remote: Candidate) -> Self {
        match Self::direct(local, remote.address.ip()) {
            Self::Punched if remote.kind == CandidateKind::PortMapped => Self::Mapped,
            path => path,
        }
    }

    /// The class of a connection accepted from `remote` (canonical). Where the
    /// router has opened the port, that is how it came in: what meets our own
    /// dial in a hole it punched completes the dial.
    pub(super) fn accepted(local: &[Candidate], remote: IpAddr) -> Self {
        let is_mapped = |own: &Candidate| own.kind == CandidateKind::PortMapped;
        match Self::direct(local, remote) {
            Self::Punched if local.iter().any(is_mapped) => Self::Mapped,
            path => path,
        }
    }

    /// The class of a direct connection with `remote` (canonical), for a machine
    /// with these candidates of its own.
    pub(super) fn direct(local: &[Candidate], remote: IpAddr) -> Self {
        let shares_network =
            |own: &Candidate| own.kind.is_own() && same_network(own.address.ip(), remote);
        if !is_global(remote) || local.iter().any(shares_network) {
            Self::Lan
        } else if remote.is_ipv6() {
            Self::Ipv6
        } else {
            Self::Punched
        }
    }
}

/// What an agent is still after: any path, or one that is worth leaving the
/// selected one for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Goal {
    pub(super) selected: Option<PathKind>,
}

impl Goal {
    pub(super) fn wants(self, path: PathKind) -> bool {
        self.selected
            .is_none_or(|selected| path.is_worth_a_move_from(selected))
    }
}

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lan => "lan",
            Self::Ipv6 => "ipv6",
            Self::Mapped => "mapped",
            Self::Punched => "punched",
            Self::Relay => "relay",
        })
    }
}
