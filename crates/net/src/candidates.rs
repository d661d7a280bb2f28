//! Gathering: the addresses at which this side may be reached.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use pinhole_proto::candidate::{Candidate, CandidateKind, LoopbackAddresses, is_global};

/// What of one local port a peer may be told.
#[derive(Debug, Clone)]
pub(crate) struct ReachablePort {
    /// The local port number.
    pub(crate) port: u16,
    /// Whether it is a port of IPv6 or of IPv4.
    pub(crate) is_ipv6: bool,
    /// The address at which the rendezvous server sees it.
    pub(crate) observed: Option<SocketAddr>,
    /// Where the NAT will most likely put the next connections from it.
    pub(crate) predicted: Vec<SocketAddr>,
    /// Where the router says that it forwards connections from.
    pub(crate) mapped: Option<SocketAddr>,
}

/// One address of one network interface of this machine.
#[derive(Debug, Clone)]
pub(crate) struct InterfaceAddress {
    name: String,
    ip: IpAddr,
}

impl InterfaceAddress {
    pub(crate) const fn ip(&self) -> IpAddr {
        self.ip
    }
}

/// The addresses of every interface that is up.
///
/// # Errors
/// When the system does not tell.
pub(crate) fn interface_addresses() -> io::Result<Vec<InterfaceAddress>> {
    let interfaces = if_addrs::get_if_addrs()?;
    Ok(interfaces
        .into_iter()
        .filter(if_addrs::Interface::is_oper_up)
        .map(|interface| InterfaceAddress {
            ip: interface.ip(),
            name: interface.name,
        })
        .collect())
}

/// The candidates of these ports: what the router has opened, what the server
/// saw, then the host addresses, those of real interfaces before virtual ones,
/// then what is predicted; no more than one side may have.
///
/// A router that names another public address than the one the server sees is
/// not the last one on the way, or wrong: its word is left out.
///
/// Loopback addresses are named only when the server is on this machine
/// itself: then they are how it and the peers on it reach each other.
pub(crate) fn gather(
    ports: &[ReachablePort],
    interfaces: &[InterfaceAddress],
    loopback: LoopbackAddresses,
) -> Vec<Candidate> {
    let mut hosts: Vec<&InterfaceAddress> = interfaces.iter().collect();
    hosts.sort_by_key(|host| (is_virtual(&host.name), !is_global(host.ip)));
    let host_candidates = hosts.into_iter().flat_map(|host| {
        let ports = ports.iter().filter(|p| p.is_ipv6 == host.ip.is_ipv6());
        ports.map(|p| Candidate {
            kind: CandidateKind::Host,
            address: SocketAddr::new(host.ip, p.port),
        })
    });
    let reflexive = ports.iter().filter_map(|port| {
        Some(Candidate {
            kind: CandidateKind::ServerReflexive,
            address: port.observed?,
        })
    });
    let mapped = ports.iter().filter_map(|port| {
        let address = port.mapped?;
        let is_credible = port.observed.is_none_or(|seen| seen.ip() == address.ip());
        is_credible.then_some(Candidate {
            kind: CandidateKind::PortMapped,
            address,
        })
    });
    let predicted = ports.iter().flat_map(|port| &port.predicted);
    let predicted = predicted.map(|&address| Candidate {
        kind: CandidateKind::Predicted,
        address,
    });
    let mut known = HashSet::new();
    let candidates = mapped
        .chain(reflexive)
        .chain(host_candidates)
        .chain(predicted)
        // The rule for what may be dialled is the rule for what is worth telling.
        .filter_map(|candidate| candidate.admit(loopback).ok())
        .filter(|candidate| known.insert(candidate.address));
    Candidate::within_limits(candidates)
}

/// Whether an interface most likely leads only to containers, virtual machines
/// or a tunnel on this machine.
fn is_virtual(name: &str) -> bool {
    const PREFIXES: [&str; 18] = [
        "br-",
        "cali",
        "cni",
        "docker",
        "flannel",
        "lxc",
        "lxd",
        "podman",
        "tailscale",
        "tap",
        "tun",
        "utun",
        "vboxnet",
        "veth",
        "virbr",
        "vmnet",
        "wg",
        "zt",
    ];
    name.starts_with("vEthernet") || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, ip: &str) -> InterfaceAddress {
        InterfaceAddress {
            name: name.into(),
            ip: ip.parse().unwrap(),
        }
    }

    fn ports(v4_observed: Option<&str>, v6_observed: Option<&str>) -> [ReachablePort; 2] {
        [(4000, v4_observed), (6000, v6_observed)].map(|(port, observed)| ReachablePort {
            port,
            is_ipv6: port == 6000,
            observed: observed.map(|o| o.parse().unwrap()),
            predicted: Vec::new(),
            mapped: None,
        })
    }

    fn texts(candidates: &[Candidate]) -> Vec<String> {
        let text = |c: &Candidate| match c.kind {
            CandidateKind::Host => format!("host {}", c.address),
            CandidateKind::ServerReflexive => format!("seen {}", c.address),
            CandidateKind::PortMapped => format!("mapped {}", c.address),
            CandidateKind::Predicted => format!("predicted {}", c.address),
        };
        candidates.iter().map(text).collect()
    }

    #[test]
    fn names_what_the_server_saw_then_real_then_virtual_interfaces() {
        let interfaces = [
            interface("lo", "127.0.0.1"),
            interface("docker0", "172.17.0.1"),
            interface("eth0", "192.168.1.5"),
            interface("eth0", "fe80::1"),
            interface("eth0", "fd00::5"),
            interface("eth0", "2001:db8::5"),
            interface("tun0", "10.8.0.2"),
        ];
        let found = gather(
            &ports(Some("203.0.113.9:5555"), None),
            &interfaces,
            LoopbackAddresses::Refused,
        );
        assert_eq!(
            texts(&found),
            [
                "seen 203.0.113.9:5555",
                "host [2001:db8::5]:6000",
                "host 192.168.1.5:4000",
                "host [fd00::5]:6000",
                "host 172.17.0.1:4000",
                "host 10.8.0.2:4000",
            ]
        );
    }

    #[test]
    fn a_mapped_port_goes_first_where_the_server_sees_us_or_not_at_all() {
        let told = |observed, mapped: &str| {
            let mut ports = ports(observed, None);
            ports[0].mapped = Some(mapped.parse().unwrap());
            texts(&gather(&ports, &[], LoopbackAddresses::Refused))
        };
        let seen = Some("203.0.113.9:5555");
        assert_eq!(
            told(seen, "203.0.113.9:4000"),
            ["mapped 203.0.113.9:4000", "seen 203.0.113.9:5555"]
        );
        // A NAT that keeps port numbers: one address, the better of its names.
        assert_eq!(told(seen, "203.0.113.9:5555"), ["mapped 203.0.113.9:5555"]);
        assert_eq!(told(None, "203.0.113.9:4000"), ["mapped 203.0.113.9:4000"]);
        for wrong in ["203.0.113.10:4000", "100.64.0.7:4000", "203.0.113.9:80"] {
            assert_eq!(told(seen, wrong), ["seen 203.0.113.9:5555"], "{wrong}");
        }
    }

    #[test]
    fn an_address_is_named_once_and_loopback_only_to_a_server_on_it() {
        let interfaces = [interface("lo", "127.0.0.1"), interface("eth0", "10.0.0.2")];
        let ports = ports(Some("127.0.0.1:4000"), None);
        assert_eq!(
            texts(&gather(&ports, &interfaces, LoopbackAddresses::Refused)),
            ["host 10.0.0.2:4000"]
        );
        assert_eq!(
            texts(&gather(&ports, &interfaces, LoopbackAddresses::Admitted)),
            ["seen 127.0.0.1:4000", "host 10.0.0.2:4000"]
        );
    }

    #[test]
    fn never_more_than_eight() {
        let interfaces: Vec<_> = (1..=20)
            .map(|i| interface("eth0", &format!("10.0.0.{i}")))
            .collect();
        let found = gather(
            &ports(Some("203.0.113.9:5555"), None),
            &interfaces,
            LoopbackAddresses::Refused,
        );
        assert_eq!(found.len(), Candidate::MAX_PER_SIDE);
        assert_eq!(texts(&found)[0], "seen 203.0.113.9:5555");
    }
}
