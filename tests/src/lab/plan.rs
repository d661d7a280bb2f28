//! What a laboratory is to be: routers by their behaviour in the words of RFC
//! 4787 and RFC 5382, sites made of them, and where the hosts are.

use std::time::Duration;

/// How a router chooses the outside address and port of a host's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatMapping {
    /// It does not: its LAN has public addresses.
    None,
    /// One port for every destination.
    EndpointIndependent(Port),
    /// Another port, drawn at random, for every destination address.
    AddressDependent,
    /// Another port for every destination address and port ("symmetric").
    AddressAndPortDependent(Order),
}

/// Which outside port a host's port gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// The same number, if it is free ("port preservation").
    Preserved,
    /// A random one.
    Random,
}

/// How the ports of a symmetric NAT follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Each is the one after the last.
    Sequential,
    /// In no order.
    Random,
}

/// Who may send to a host from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatFiltering {
    /// Everyone who knows the address.
    EndpointIndependent,
    /// Addresses to which the host has sent from this port. Only where there is
    /// a mapping.
    AddressDependent,
    /// Addresses and ports to which the host has sent from this port.
    AddressAndPortDependent,
}

/// What a router answers to a packet that its filtering keeps out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsolicited {
    /// Nothing.
    Silence,
    /// A TCP reset.
    Reset,
    /// ICMP "port unreachable".
    Icmp,
}

/// What a router lets its hosts send to the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outbound {
    /// Everything.
    Anything,
    /// No UDP.
    NoUdp,
    /// TCP to port 443, cut off when it does not begin with a TLS handshake.
    TlsOn443,
    /// Nothing; a proxy on the router may be all there is ([`super::Lab::start_proxy`]).
    Nothing,
}

/// The protocol by which a router opens ports on demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouterPortMapping {
    /// UPnP-IGD.
    Upnp,
    /// NAT-PMP (RFC 6886).
    NatPmp,
    /// PCP (RFC 6887).
    Pcp,
    /// All three.
    All,
}

/// One router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Router {
    /// Of the addresses and ports inside.
    pub mapping: NatMapping,
    /// Of what comes in.
    pub filtering: NatFiltering,
    /// Towards what is kept out.
    pub unsolicited: Unsolicited,
    /// Whether a host reaches another host of the LAN by its mapped address.
    pub hairpin: bool,
    /// Of what goes out.
    pub outbound: Outbound,
    /// How hosts may open ports.
    pub port_mapping: Option<RouterPortMapping>,
}

impl Router {
    /// Translates nothing and keeps nothing out.
    pub const PUBLIC: Self = Self::of(NatMapping::None, NatFiltering::EndpointIndependent);
    /// Public addresses behind a stateful firewall.
    pub const FIREWALL: Self = Self::of(NatMapping::None, NatFiltering::AddressAndPortDependent);
    /// As most home routers: stable mapping, strict filtering.
    pub const HOME: Self = Self::of(
        NatMapping::EndpointIndependent(Port::Random),
        NatFiltering::AddressAndPortDependent,
    );
    /// A new random port for every destination, strict filtering.
    pub const SYMMETRIC: Self = Self::of(
        NatMapping::AddressAndPortDependent(Order::Random),
        NatFiltering::AddressAndPortDependent,
    );
    /// What RFC 6888 asks of a carrier-grade NAT.
    pub const CARRIER: Self = Self {
        hairpin: true,
        ..Self::of(
            NatMapping::EndpointIndependent(Port::Random),
            NatFiltering::EndpointIndependent,
        )
    };

    /// One that answers strangers with silence and does nothing special.
    #[must_use]
    pub const fn of(mapping: NatMapping, filtering: NatFiltering) -> Self {
        Self {
            mapping,
            filtering,
            unsolicited: Unsolicited::Silence,
            hairpin: false,
            outbound: Outbound::Anything,
            port_mapping: None,
        }
    }
}

/// Which internet a site has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stack {
    /// IPv4 only.
    V4,
    /// IPv6 only, guarded but not translated.
    V6,
    /// Both.
    Dual,
}

/// A router with its LAN and its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// Towards the internet, or towards the carrier.
    pub router: Router,
    /// A carrier-grade NAT between the router and the internet. IPv4 only.
    pub carrier: Option<Router>,
    /// Of the hosts and the line.
    pub stack: Stack,
    /// Of the line: 1500, with PPPoE 1492.
    pub mtu_bytes: u16,
}

impl From<Router> for Site {
    fn from(router: Router) -> Self {
        Self {
            router,
            carrier: None,
            stack: Stack::V4,
            mtu_bytes: 1500,
        }
    }
}

/// Where the hosts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// A at the first, B at the second site.
    TwoSites(Site, Site),
    /// The same, with equal addresses on both LANs.
    EqualSubnets(Site, Site),
    /// Both at this site, on one LAN.
    OneLan(Site),
    /// A and B each behind a router of their own (first A's), and both routers
    /// behind one carrier-grade NAT. IPv4 only.
    SharedCarrier {
        /// Between both routers and the internet.
        carrier: Router,
        /// Of A and of B.
        routers: [Router; 2],
    },
    /// Many hosts ([`super::Host::Crowd`]) at many sites. IPv4 only. Of the
    /// routers that translate, only those that preserve ports, or are symmetric
    /// at random, keep so many hosts' mappings apart.
    Crowd {
        /// The same at every site.
        router: Router,
        /// At most 30.
        sites: u8,
        /// At each site.
        hosts: u8,
    },
}

/// How a line carries frames, in each direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// At least this long.
    pub delay: Duration,
    /// Up to this much longer, at random, without changing the order.
    pub jitter: Duration,
    /// Up to this much longer, at random, for what comes from the server: the
    /// two sides of an introduction hear of it that far apart.
    pub server_skew: Duration,
    /// That many of a hundred frames are lost.
    pub loss_percent: u8,
}

impl Line {
    /// Does nothing but take this long.
    #[must_use]
    pub const fn delayed(delay: Duration) -> Self {
        Self {
            delay,
            jitter: Duration::ZERO,
            server_skew: Duration::ZERO,
            loss_percent: 0,
        }
    }
}

/// What to build.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Where the hosts are.
    pub topology: Topology,
    /// Between each site and the internet; between two sites it is passed twice.
    pub line: Line,
}

impl Plan {
    /// A at the first, B at the second site, 100 ms there and back between them.
    #[must_use]
    pub fn two_sites(a: impl Into<Site>, b: impl Into<Site>) -> Self {
        Self::of(Topology::TwoSites(a.into(), b.into()))
    }

    /// Both on one LAN, 50 ms there and back to the server.
    #[must_use]
    pub fn one_lan(site: impl Into<Site>) -> Self {
        Self::of(Topology::OneLan(site.into()))
    }

    /// Such a topology, 25 ms away from the internet.
    #[must_use]
    pub const fn of(topology: Topology) -> Self {
        Self {
            topology,
            line: Line::delayed(Duration::from_millis(25)),
        }
    }

    /// The same, that far away from the internet.
    #[must_use]
    pub const fn delayed(mut self, delay: Duration) -> Self {
        self.line = Line::delayed(delay);
        self
    }
}
