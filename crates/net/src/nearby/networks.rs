//! The networks to which this machine is directly connected.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use if_addrs::IfAddr;
use pinhole_proto::candidate::Candidate;

/// Where clouds keep their metadata, on a network that may well be ours.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// Where peers are looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope {
    /// On this machine alone, as tests do; never together with others.
    pub(super) loopback: bool,
    /// The UDP port of multicast DNS.
    pub(super) mdns_port: u16,
}

impl Scope {
    /// Every directly connected network, and never this machine's loopback.
    pub(super) const LAN: Self = Self {
        loopback: false,
        mdns_port: 5353,
    };
}

/// The networks of every interface that is up, at one moment.
#[derive(Debug)]
pub(super) struct Networks {
    scope: Scope,
    own: Vec<(IpAddr, u8)>,
}

impl Networks {
    /// # Errors
    /// When the system does not tell.
    pub(super) fn now(scope: Scope) -> io::Result<Self> {
        let up = |interface: &if_addrs::Interface| interface.is_oper_up();
        let interfaces = if_addrs::get_if_addrs()?.into_iter().filter(up);
        let network = |interface: if_addrs::Interface| match interface.addr {
            IfAddr::V4(v4) => (IpAddr::V4(v4.ip), v4.prefixlen),
            IfAddr::V6(v6) => (IpAddr::V6(v6.ip), v6.prefixlen),
        };
        Ok(Self {
            scope,
            own: interfaces.map(network).collect(),
        })
    }

    /// The address in canonical form, if it is on one of these networks.
    pub(super) fn admit(&self, address: SocketAddr) -> Option<SocketAddr> {
        let ip = address.ip().to_canonical();
        if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(METADATA) {
            return None;
        }
        if ip.is_loopback() != self.scope.loopback {
            return None;
        }
        // Without a scope it would name a machine on any of the networks.
        if let (IpAddr::V6(v6), SocketAddr::V6(scoped)) = (ip, address)
            && v6.is_unicast_link_local()
            && scoped.scope_id() == 0
        {
            return None;
        }
        let is_near = self.own.iter().any(|&(own, length)| same(own, ip, length));
        is_near.then_some(match address {
            SocketAddr::V6(v6) if ip.is_ipv6() => SocketAddr::V6(v6),
            _ => SocketAddr::new(ip, address.port()),
        })
    }

    /// As `admit`, for an address to be dialled: no peer may aim us at a
    /// well-known service.
    pub(super) fn admit_to_dial(&self, address: SocketAddr) -> Option<SocketAddr> {
        let is_free = address.port() >= Candidate::MIN_PORT;
        self.admit(address).filter(|_| is_free)
    }
}

/// Whether two addresses agree in their first bits.
fn same(a: IpAddr, b: IpAddr, length: u8) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let differing = a.to_bits() ^ b.to_bits();
            (1..=32).contains(&length) && differing.leading_zeros() >= length.into()
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let differing = a.to_bits() ^ b.to_bits();
            (1..=128).contains(&length) && differing.leading_zeros() >= length.into()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(scope: Scope) -> Networks {
        let own = [
            ("127.0.0.1", 8),
            ("::1", 128),
            ("192.168.1.5", 24),
            ("169.254.7.7", 16),
            ("2001:db8:1::5", 64),
            ("fd00:1::5", 64),
            ("fe80::5", 64),
            ("10.8.0.2", 32),
            ("203.0.113.5", 0),
        ];
        let own = own.map(|(ip, length)| (ip.parse().unwrap(), length));
        Networks {
            scope,
            own: own.to_vec(),
        }
    }

    #[test]
    fn only_directly_connected_networks_are_near() {
        let networks = networks(Scope::LAN);
        for (address, near) in [
            ("192.168.1.9:5000", true),
            ("192.168.1.5:5000", true),
            ("[::ffff:192.168.1.9]:5000", true),
            ("192.168.2.9:5000", false),
            ("10.8.0.3:5000", false),
            ("198.51.100.1:5000", false),
            ("127.0.0.1:5000", false),
            ("[::ffff:127.0.0.1]:5000", false),
            ("[::1]:5000", false),
            ("0.0.0.0:5000", false),
            ("[::]:5000", false),
            ("224.0.0.251:5353", false),
            ("[ff02::fb]:5353", false),
            ("169.254.1.1:5000", true),
            ("169.254.169.254:5000", false),
            ("[::ffff:169.254.169.254]:5000", false),
            ("[2001:db8:1::9]:5000", true),
            ("[2001:db8:2::9]:5000", false),
            ("[fd00:1::9]:5000", true),
            ("[fd00:2::9]:5000", false),
            ("[fe80::9]:5000", false),
            ("[fe80::9%2]:5000", true),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(networks.admit(address).is_some(), near, "{address}");
        }
        let mapped = networks.admit("[::ffff:192.168.1.9]:5000".parse().unwrap());
        assert_eq!(mapped, Some("192.168.1.9:5000".parse().unwrap()));
    }

    #[test]
    fn well_known_ports_are_not_dialled() {
        let networks = networks(Scope::LAN);
        for (port, dialled) in [(0, false), (22, false), (1023, false), (1024, true)] {
            let address = SocketAddr::from(([192, 168, 1, 9], port));
            assert_eq!(networks.admit_to_dial(address).is_some(), dialled, "{port}");
        }
    }

    #[test]
    fn a_test_on_loopback_stays_there() {
        let networks = networks(Scope {
            loopback: true,
            ..Scope::LAN
        });
        let admit = |address: &str| networks.admit(address.parse().unwrap()).is_some();
        assert!(admit("127.0.0.1:5000"));
        assert!(!admit("192.168.1.9:5000"));
    }
}
