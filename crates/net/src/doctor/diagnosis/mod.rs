//! What a network does to connections, and what that means for its user.
//!
//! [`Measurements`] are what was seen, [`Diagnosis::of`] makes of them what can
//! be said. What was not measured is not claimed: with one address of the
//! server, a mapping that depends on the address looks stable, and filtering by
//! the address looks like none.

mod findings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use pinhole_proto::candidate::is_global;
use serde::{Deserialize, Serialize};

pub use crate::port_mapping::{Grant, MappingProtocol, RouterOutside};

/// Steps between two ports beyond this are no sequence.
const MAX_STEP: u16 = 8;

/// The observations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measurements {
    /// The server, as it was asked for.
    pub server: String,
    /// Why its name has no address, if it has none.
    pub unresolved: Option<String>,
    /// Each address and port of the server that was tried.
    #[serde(rename = "knocks")]
    pub server_probes: Vec<ServerProbe>,
    /// Fresh local ports, each seen from several of the server's.
    pub observations: Vec<Observation>,
    /// Which connections of the server came in, on IPv4; `None` when it was not
    /// reached, or does not know how.
    pub probes: Option<Probes>,
    /// The addresses of this machine, but for loopback and link-local ones.
    pub own: Vec<IpAddr>,
    /// What the router made of the wish for a mapping.
    pub port_mapping: PortMappingAnswer,
    /// What the router says of its own outside.
    pub router_outside: RouterOutside,
    /// The HTTP proxy on the way to the server, without its password, if there
    /// is one.
    pub proxy: Option<String>,
}

/// One address of the server, tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerProbe {
    /// Where.
    pub address: SocketAddr,
    /// What came of it.
    pub answer: ProbeAnswer,
}

/// What came of trying one address of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeAnswer {
    /// It is the server, and took this long for the TCP connection.
    Reached {
        /// In milliseconds.
        connect_ms: u64,
    },
    /// Somebody answered who is not the server expected.
    NotTheServer {
        /// What went wrong.
        reason: String,
    },
    /// Nothing listens there.
    Refused,
    /// Nothing came back.
    Silent,
    /// This computer did not let the connection out.
    Forbidden,
    /// Anything else.
    Failed {
        /// As the system says it.
        reason: String,
    },
}

/// What one port of the server saw of one local port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Where the connection began.
    pub local: SocketAddr,
    /// Which address and port of the server it went to.
    pub server: SocketAddr,
    /// From where it came there.
    pub seen: SocketAddr,
}

/// Connections of the server to a local port from which only one connection had
/// gone out, to the server: whether each came in. `None` is one that the server
/// has not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probes {
    /// From another port of the address that the port had connected to.
    pub other_port: Option<bool>,
    /// From another address of the server.
    pub other_address: Option<bool>,
}

/// What the router made of the wish for a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortMappingAnswer {
    /// The user has switched it off.
    SwitchedOff,
    /// There is no point: the server is on this machine, or was not reached.
    NotAsked,
    /// No router granted one.
    NotGranted,
    /// One did.
    Granted(Grant),
}

/// What the NAT does with local ports (RFC 4787, section 4.1), on IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mapping {
    /// There is none: the server sees the addresses of this machine.
    NoNat,
    /// The same public port, whichever port of the server it is.
    Stable {
        /// The public port is the local one.
        preserves_port: bool,
        /// Also whichever address of the server it is: endpoint-independent.
        addresses_compared: bool,
    },
    /// Another public port for another address.
    AddressDependent,
    /// Another public port for another port: address- and port-dependent,
    /// "symmetric".
    PortDependent {
        /// The ports are given out in order, so far apart.
        step: Option<u16>,
    },
    /// Not seen from two sides.
    Unknown,
}

/// Whom the NAT, or a firewall, lets in to a port that has connected to somebody
/// (RFC 4787, section 5, and RFC 5382, section 4.3), on IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filtering {
    /// Everybody.
    EndpointIndependent,
    /// All ports of the addresses that the port has connected to.
    AddressDependent,
    /// One of these two: the server has one address.
    AtMostAddressDependent,
    /// The addresses and ports that the port has connected to.
    AddressAndPortDependent,
    /// Not measured.
    Unknown,
}

/// How many NATs there are on the way, on IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NatLayers {
    /// None.
    None,
    /// The router's alone: its outside is what the server sees.
    One,
    /// At least one; nothing tells whether there are more.
    AtLeastOne,
    /// The router's own outside is not a public address: another NAT, or the
    /// provider's, follows.
    AtLeastTwo,
    /// The server was not reached.
    Unknown,
}

/// What IPv6 is good for here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ipv6 {
    /// The server was reached by it.
    Works,
    /// There is an address, but the server has none to try it with.
    NotTried,
    /// There is an address, but the server was not reached by it.
    Broken,
    /// This machine has no public IPv6 address.
    Absent,
}

/// With whom connections will be direct.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// With practically everybody: others can reach this machine.
    Everybody,
    /// With all but those whose ports change.
    Most,
    /// With those whose ports are stable, by foreseeing ours.
    Some,
    /// With those who can be reached by everybody.
    Few,
    /// Cannot be told.
    Unknown,
    /// There is no server, so there are no connections.
    Nobody,
}

/// How good a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tone {
    /// As it should be.
    Good,
    /// To be known.
    Neutral,
    /// In the way of something.
    Trouble,
}

/// One thing that can be said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How good it is.
    pub tone: Tone,
    /// A word or two: what it is about.
    pub topic: String,
    /// In sentences for people.
    pub text: String,
    /// What the person can do about it.
    pub advice: Option<String>,
}

/// What the measurements mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// With whom connections will be direct.
    pub reach: Reach,
    /// What the NAT does with local ports.
    pub mapping: Mapping,
    /// Whom the NAT, or a firewall, lets in.
    pub filtering: Filtering,
    /// How many NATs there are.
    pub layers: NatLayers,
    /// What IPv6 is good for.
    pub ipv6: Ipv6,
    /// The public addresses at which the server sees this machine.
    pub public: Vec<IpAddr>,
    /// All of it in words, what matters most first.
    pub findings: Vec<Finding>,
    /// From which it was concluded.
    pub measurements: Measurements,
}

impl Diagnosis {
    /// Concludes what can be concluded.
    #[must_use]
    pub fn of(measurements: Measurements) -> Self {
        let mut diagnosis = Self {
            reach: Reach::Unknown,
            mapping: mapping(&measurements),
            filtering: filtering(&measurements),
            layers: layers(&measurements),
            ipv6: ipv6(&measurements),
            public: public(&measurements),
            findings: Vec::new(),
            measurements,
        };
        diagnosis.reach = diagnosis.reach();
        diagnosis.findings = findings::findings(&diagnosis);
        diagnosis
    }

    fn reach(&self) -> Reach {
        if !self.measurements.is_server_reached() {
            return Reach::Nobody;
        }
        if self.measurements.is_server_here() {
            return Reach::Unknown;
        }
        if self.has_useful_mapping() {
            return Reach::Everybody;
        }
        let is_strict = self.filtering == Filtering::AddressAndPortDependent;
        match self.mapping {
            // Also where the NAT takes other ports: the one that the server saw
            // lets everybody in.
            _ if self.filtering == Filtering::EndpointIndependent => Reach::Everybody,
            Mapping::NoNat if is_strict => Reach::Most,
            Mapping::NoNat => Reach::Everybody,
            // This side has dialled their address, so any port of it may answer.
            Mapping::Stable { .. } if self.admits_other_ports() => Reach::Everybody,
            Mapping::Stable { .. } => Reach::Most,
            Mapping::PortDependent { step: Some(_) } => Reach::Some,
            Mapping::AddressDependent | Mapping::PortDependent { step: None } => Reach::Few,
            Mapping::Unknown => Reach::Unknown,
        }
    }

    /// Whether whoever was connected to may come back from another port.
    fn admits_other_ports(&self) -> bool {
        use Filtering::{AddressDependent, AtMostAddressDependent, EndpointIndependent};
        matches!(
            self.filtering,
            EndpointIndependent | AddressDependent | AtMostAddressDependent
        )
    }

    /// Whether the router has opened a port where the server sees us.
    fn has_useful_mapping(&self) -> bool {
        match self.measurements.port_mapping {
            PortMappingAnswer::Granted(grant) => self.public.contains(&grant.external.ip()),
            _ => false,
        }
    }
}

impl Measurements {
    fn is_server_reached(&self) -> bool {
        self.server_probes.iter().any(ServerProbe::is_reached)
    }

    /// Whether all that was reached is this very machine.
    fn is_server_here(&self) -> bool {
        let mut reached = self.server_probes.iter().filter(|probe| probe.is_reached());
        self.is_server_reached() && reached.all(|probe| probe.address.ip().is_loopback())
    }

    fn v4(&self) -> impl Iterator<Item = &Observation> {
        self.observations.iter().filter(|o| o.seen.is_ipv4())
    }
}

impl ServerProbe {
    fn is_reached(&self) -> bool {
        matches!(self.answer, ProbeAnswer::Reached { .. })
    }

    /// Whether anything came back from there.
    fn is_answered(&self) -> bool {
        use ProbeAnswer::{NotTheServer, Reached, Refused};
        matches!(self.answer, Reached { .. } | NotTheServer { .. } | Refused)
    }
}

impl Observation {
    fn is_behind_nat(&self) -> bool {
        self.local != self.seen
    }
}

fn public(measurements: &Measurements) -> Vec<IpAddr> {
    let mut public: Vec<IpAddr> = Vec::new();
    for observation in &measurements.observations {
        if !public.contains(&observation.seen.ip()) {
            public.push(observation.seen.ip());
        }
    }
    public
}

fn mapping(measurements: &Measurements) -> Mapping {
    let mut of_port: BTreeMap<u16, Vec<&Observation>> = BTreeMap::new();
    for observation in measurements.v4() {
        let port = observation.local.port();
        of_port.entry(port).or_default().push(observation);
    }
    if !of_port.is_empty() && !measurements.v4().any(Observation::is_behind_nat) {
        return Mapping::NoNat;
    }
    let (mut ports_compared, mut addresses_compared) = (false, false);
    let (mut port_dependent, mut address_dependent) = (false, false);
    for seen in of_port.values() {
        for (n, one) in seen.iter().enumerate() {
            for other in seen.iter().skip(n + 1) {
                let differs = one.seen.port() != other.seen.port();
                if one.server.ip() == other.server.ip() {
                    ports_compared = true;
                    port_dependent |= differs;
                } else {
                    addresses_compared = true;
                    address_dependent |= differs;
                }
            }
        }
    }
    if port_dependent {
        let step = step(measurements.v4().map(|o| o.seen.port()).collect());
        Mapping::PortDependent { step }
    } else if address_dependent {
        Mapping::AddressDependent
    } else if ports_compared || addresses_compared {
        Mapping::Stable {
            preserves_port: measurements.v4().all(|o| o.local.port() == o.seen.port()),
            addresses_compared,
        }
    } else {
        Mapping::Unknown
    }
}

fn filtering(measurements: &Measurements) -> Filtering {
    let came = |probes: Probes| (probes.other_port, probes.other_address);
    match measurements.probes.map(came) {
        Some((_, Some(true))) => Filtering::EndpointIndependent,
        Some((Some(true), Some(false))) => Filtering::AddressDependent,
        Some((Some(true), None)) => Filtering::AtMostAddressDependent,
        Some((Some(false), _)) => Filtering::AddressAndPortDependent,
        Some((None, _)) | None => Filtering::Unknown,
    }
}

/// The usual distance between ports that were given out together, if they were
/// given out in order. Others take ports meanwhile, so that the middle one of
/// the distances counts.
fn step(mut ports: Vec<u16>) -> Option<u16> {
    ports.sort_unstable();
    ports.dedup();
    let next = ports.iter().skip(1);
    let mut gaps: Vec<u16> = ports.iter().zip(next).map(|(a, b)| b - a).collect();
    gaps.sort_unstable();
    let middle = gaps.get(gaps.len() / 2).copied();
    // Of one gap alone nothing can be said.
    middle.filter(|&gap| gaps.len() >= 3 && gap <= MAX_STEP)
}

fn layers(measurements: &Measurements) -> NatLayers {
    if measurements.v4().next().is_none() {
        return NatLayers::Unknown;
    }
    if !measurements.v4().any(Observation::is_behind_nat) {
        return NatLayers::None;
    }
    match measurements.router_outside {
        RouterOutside::Unusable => NatLayers::AtLeastTwo,
        RouterOutside::Address(outside) if !is_global(outside) => NatLayers::AtLeastTwo,
        RouterOutside::Address(outside) if measurements.v4().all(|o| o.seen.ip() == outside) => {
            NatLayers::One
        }
        RouterOutside::Address(_) | RouterOutside::Unsaid => NatLayers::AtLeastOne,
    }
}

fn ipv6(measurements: &Measurements) -> Ipv6 {
    let mut server_probes = measurements
        .server_probes
        .iter()
        .filter(|k| k.address.is_ipv6());
    if server_probes.clone().any(ServerProbe::is_reached) {
        return Ipv6::Works;
    }
    let has_address = |ip: &&IpAddr| ip.is_ipv6() && is_global(**ip);
    if !measurements.own.iter().any(|ip| has_address(&ip)) {
        Ipv6::Absent
    } else if server_probes.next().is_none() {
        Ipv6::NotTried
    } else {
        Ipv6::Broken
    }
}
