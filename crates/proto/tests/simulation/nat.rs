//! NATs and stateful firewalls, in the words of RFC 4787 and RFC 5382.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use super::random::Random;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dependence {
    Independent,
    Address,
    AddressAndPort,
}

impl Dependence {
    pub(crate) const ALL: [Self; 3] = [Self::Independent, Self::Address, Self::AddressAndPort];

    fn same(self, a: SocketAddr, b: SocketAddr) -> bool {
        match self {
            Self::Independent => true,
            Self::Address => a.ip() == b.ip(),
            Self::AddressAndPort => a == b,
        }
    }
}

/// What a stranger's SYN is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsolicited {
    Silence,
    Rst,
    Icmp,
}

impl Unsolicited {
    pub(crate) const ALL: [Self; 3] = [Self::Silence, Self::Rst, Self::Icmp];
}

/// How the outside port is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ports {
    /// As inside, where that is free.
    Kept,
    Random,
    /// One after the other.
    Counted,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct NatKind {
    /// `None`: addresses stay as they are, as with a firewall.
    pub(crate) mapping: Option<Dependence>,
    pub(crate) ports: Ports,
    pub(crate) filtering: Dependence,
    pub(crate) unsolicited: Unsolicited,
}

impl NatKind {
    /// A host with a public address and nothing in front of it.
    pub(crate) const PUBLIC: Self = Self {
        mapping: None,
        ports: Ports::Kept,
        filtering: Dependence::Independent,
        unsolicited: Unsolicited::Silence,
    };
}

#[derive(Debug)]
struct Entry {
    internal: SocketAddr,
    towards: SocketAddr,
    external: SocketAddr,
    contacted: HashSet<SocketAddr>,
}

#[derive(Debug)]
pub(crate) struct Nat {
    pub(crate) kind: NatKind,
    pub(crate) public: IpAddr,
    entries: Vec<Entry>,
}

impl Nat {
    pub(crate) fn new(kind: NatKind, public: IpAddr) -> Self {
        Self {
            kind,
            public,
            entries: Vec::new(),
        }
    }

    /// The source address with which a segment leaves.
    pub(crate) fn outbound(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        random: &mut Random,
    ) -> SocketAddr {
        let mapping = self.kind.mapping.unwrap_or(Dependence::Independent);
        let known = |entry: &&mut Entry| entry.internal == from && mapping.same(entry.towards, to);
        if let Some(entry) = self.entries.iter_mut().find(known) {
            entry.contacted.insert(to);
            return entry.external;
        }
        let external = self.allocate(from, random);
        self.entries.push(Entry {
            internal: from,
            towards: to,
            external,
            contacted: HashSet::from([to]),
        });
        external
    }

    /// Another machine behind it makes so many connections from `from` on: each
    /// takes a port.
    pub(crate) fn serve_another(&mut self, from: SocketAddr, count: u16, random: &mut Random) {
        let elsewhere = "192.0.2.99:443".parse().unwrap();
        for port in (from.port()..).take(usize::from(count)) {
            self.outbound(SocketAddr::new(from.ip(), port), elsewhere, random);
        }
    }

    fn allocate(&self, from: SocketAddr, random: &mut Random) -> SocketAddr {
        if self.kind.mapping.is_none() {
            return from;
        }
        let mut port = match self.kind.ports {
            Ports::Kept => from.port(),
            Ports::Random => 0,
            Ports::Counted => {
                let last = self.entries.last();
                last.map_or(20_000, |last| last.external.port() + 1)
            }
        };
        let taken = |port| {
            self.entries
                .iter()
                .any(|entry| entry.external.port() == port)
        };
        while port == 0 || taken(port) {
            port = u16::try_from(random.between(1024, 65535)).unwrap();
        }
        SocketAddr::new(self.public, port)
    }

    /// The host address to which a segment from outside is passed, if it is.
    pub(crate) fn inbound(&self, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        let admitted = |entry: &&Entry| {
            let mut contacted = entry.contacted.iter();
            entry.external == to && contacted.any(|one| self.kind.filtering.same(*one, from))
        };
        if let Some(entry) = self.entries.iter().find(admitted) {
            return Some(entry.internal);
        }
        let open = self.kind.mapping.is_none() && self.kind.filtering == Dependence::Independent;
        open.then_some(to)
    }

    /// A RST from outside passed: connection tracking forgets this flow, and
    /// a mapping that nothing else holds.
    pub(crate) fn forget(&mut self, from: SocketAddr, to: SocketAddr) {
        for entry in &mut self.entries {
            if entry.external == to {
                entry.contacted.remove(&from);
            }
        }
        self.entries.retain(|entry| !entry.contacted.is_empty());
    }
}
