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
    /// A port that the NAT has opened on request (PCP, NAT-PMP, `UPnP`).
    PortMapped,
    /// Where a NAT with a new port for each destination will most likely put
    /// the next connection.
    Predicted,
}

impl CandidateKind {
    /// Whether the address is one of the machine itself rather than of the NAT
    /// in front of it.
    #[must_use]
    pub const fn is_own(self) -> bool {
        matches!(self, Self::Host)
    }
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
    /// Site-local, which is as meaningless.
    #[error("link-local or site-local address")]
    LinkLocal,
    /// Where a cloud tells its machines their secrets.
    #[error("address of a cloud's metadata service")]
    Metadata,
    /// An IPv6 address that stands for an IPv4 address, be it a forbidden one.
    #[error("translated or tunnelled address")]
    Translated,
    /// Set aside for protocols: no peer is there.
    #[error("reserved address")]
    Reserved,
    /// A port below [`Candidate::MIN_PORT`].
    #[error("port under 1024")]
    Port,
}

impl Candidate {
    /// Most candidates of one side that are not predicted; further ones are ignored.
    pub const MAX_PER_SIDE: usize = 8;
    /// Most predicted candidates of one side; further ones are ignored.
    pub const MAX_PREDICTED: usize = 32;
    /// Lowest port that is dialled: no peer may aim us at a well-known service.
    pub const MIN_PORT: u16 = 1024;

    /// The first of these candidates, no more than one side may have.
    #[must_use]
    pub fn within_limits(candidates: impl Iterator<Item = Self>) -> Vec<Self> {
        let (mut predicted, mut others) = (0, 0);
        let fits = |one: &Self| {
            let (count, max) = match one.kind {
                CandidateKind::Predicted => (&mut predicted, Self::MAX_PREDICTED),
                _ => (&mut others, Self::MAX_PER_SIDE),
            };
            *count += 1;
            *count <= max
        };
        candidates.filter(fits).collect()
    }

    /// This candidate with its address in canonical form, if it may be dialled.
    ///
    /// # Errors
    /// Says why the address is refused.
    pub fn admit(self, loopback: LoopbackAddresses) -> Result<Self, Inadmissible> {
        let ip = self.address.ip().to_canonical();
        let address = SocketAddr::new(ip, self.address.port());
        if address.port() < Self::MIN_PORT {
            return Err(Inadmissible::Port);
        }
        match ip {
            IpAddr::V4(v4) => admit_v4(v4)?,
            IpAddr::V6(v6) => admit_v6(v6)?,
        }
        if ip.is_loopback() && loopback == LoopbackAddresses::Refused {
            return Err(Inadmissible::Loopback);
        }
        Ok(Self {
            kind: self.kind,
            address,
        })
    }
}

/// Whether loopback addresses may be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoopbackAddresses {
    /// The server is on this very machine: they are the real addresses of the peers.
    Admitted,
    /// They would lead everybody to itself.
    Refused,
}

impl LoopbackAddresses {
    /// Between a server and a client that see each other at this address.
    #[must_use]
    pub const fn seen_at(ip: IpAddr) -> Self {
        match ip.is_loopback() {
            true => Self::Admitted,
            false => Self::Refused,
        }
    }
}

/// Metadata services at addresses that would pass otherwise: Azure, Alibaba.
const METADATA_V4: [Ipv4Addr; 2] = [
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(100, 100, 100, 200),
];
/// The same: Amazon, Google, Scaleway.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

/// By IANA's registry of special IPv4 addresses. Private and shared ones are
/// those of peers; ranges for documentation and benchmarks, those of
/// laboratories.
fn admit_v4(ip: Ipv4Addr) -> Result<(), Inadmissible> {
    if METADATA_V4.contains(&ip) {
        return Err(Inadmissible::Metadata);
    }
    match ip.octets() {
        [0, ..] => Err(Inadmissible::Unspecified),
        // 240.0.0.0/4 is reserved, its last address is the broadcast.
        [224..=255, ..] => Err(Inadmissible::Multicast),
        [169, 254, ..] => Err(Inadmissible::LinkLocal),
        // Protocol assignments, such as a host's own end of a translator, and
        // Oracle's metadata; the former anycast of 6to4 relays.
        [192, 0, 0, _] | [192, 88, 99, _] => Err(Inadmissible::Reserved),
        _ => Ok(()),
    }
}

/// The same for IPv6.
fn admit_v6(ip: Ipv6Addr) -> Result<(), Inadmissible> {
    // The deprecated IPv4-compatible form hides an IPv4 address.
    if ip.is_unspecified() || (ip.to_ipv4().is_some() && !ip.is_loopback()) {
        return Err(Inadmissible::Unspecified);
    }
    if METADATA_V6.contains(&ip) {
        return Err(Inadmissible::Metadata);
    }
    match ip.segments() {
        [0xff00..=0xffff, ..] => Err(Inadmissible::Multicast),
        [0xfe80..=0xfeff, ..] => Err(Inadmissible::LinkLocal),
        // NAT64 of everybody and of one network; Teredo; 6to4.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] | [0x2001, 0, ..] | [0x2002, ..] => {
            Err(Inadmissible::Translated)
        }
        // Discarded; protocol assignments (2001::/23); segment routing.
        [0x100, 0, 0, 0..=1, ..] | [0x2001, 1..=0x1ff, ..] | [0x5f00, ..] => {
            Err(Inadmissible::Reserved)
        }
        _ => Ok(()),
    }
}

/// Where a NAT that gives each destination another port will put the next
/// connections of this machine, as far as two observations of one local port
/// tell, made at the same moment. Empty when the mapping does not depend on the
/// destination, or the ports are drawn at random.
#[must_use]
pub fn predict(one: SocketAddr, other: SocketAddr) -> Vec<SocketAddr> {
    /// Ports farther apart than this were not counted up.
    const MAX_STEP: u16 = 64;
    let (first, last) = (one.port().min(other.port()), one.port().max(other.port()));
    let count = match last - first {
        _ if one.ip() != other.ip() => 0,
        1 => 8,
        // Others connect through the NAT, too, or it counts in larger steps.
        2..=MAX_STEP => 32,
        _ => 0,
    };
    let ports = (1..=count).map_while(|step| last.checked_add(step));
    ports.map(|port| SocketAddr::new(one.ip(), port)).collect()
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
            let benchmark = a == 198 && (b & 0xfe) == 18;
            !(v4.is_private() || shared || benchmark) && admit_v4(v4).is_ok() && !v4.is_loopback()
        }
        IpAddr::V6(v6) => !v6.is_unique_local() && admit_v6(v6).is_ok() && !v6.is_loopback(),
    }
}

/// Whether a server at the first address may have the second beside it, for its
/// clients to be compared with: of the same family, and as public. What else it is
/// on its own network is nothing to them, and it must not aim them at theirs.
#[must_use]
pub fn is_other_address(own: IpAddr, other: IpAddr) -> bool {
    let both = |is: fn(IpAddr) -> bool| is(own) && is(other);
    own != other
        && own.is_ipv6() == other.is_ipv6()
        && (both(is_global) || both(|ip| ip.is_loopback()))
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

#[cfg(test)]
mod tests {
    use super::LoopbackAddresses::{Admitted, Refused};
    use super::*;

    fn admit(address: &str, loopback: LoopbackAddresses) -> Result<SocketAddr, Inadmissible> {
        let candidate = Candidate {
            kind: CandidateKind::Host,
            address: address.parse().unwrap(),
        };
        let admitted = candidate.admit(loopback)?;
        assert_eq!(admitted.kind, candidate.kind);
        Ok(admitted.address)
    }

    /// IANA's registries of special addresses, first and last of each range,
    /// and what else a client must not be aimed at.
    #[test]
    fn special_addresses_are_refused_in_every_form() {
        use Inadmissible::{LinkLocal, Loopback, Metadata, Multicast, Reserved, Unspecified};
        for (ip, reason) in [
            ("0.0.0.0", Unspecified),
            ("0.255.255.255", Unspecified),
            ("127.0.0.1", Loopback),
            ("127.255.255.254", Loopback),
            ("169.254.0.0", LinkLocal),
            ("169.254.169.254", LinkLocal),
            ("169.254.255.255", LinkLocal),
            ("168.63.129.16", Metadata),
            ("100.100.100.200", Metadata),
            ("192.0.0.0", Reserved),
            ("192.0.0.170", Reserved),
            ("192.0.0.192", Reserved),
            ("192.0.0.255", Reserved),
            ("192.88.99.0", Reserved),
            ("192.88.99.255", Reserved),
            ("224.0.0.0", Multicast),
            ("239.255.255.250", Multicast),
            ("240.0.0.0", Multicast),
            ("255.255.255.255", Multicast),
        ] {
            assert_eq!(admit(&format!("{ip}:5000"), Refused), Err(reason), "{ip}");
            let mapped = format!("[::ffff:{ip}]:5000");
            assert_eq!(admit(&mapped, Refused), Err(reason), "{mapped}");
            let [a, b, c, d] = ip.parse::<Ipv4Addr>().unwrap().octets();
            let hex = format!(
                "{:x}:{:x}",
                u16::from(a) << 8 | u16::from(b),
                u16::from(c) << 8 | u16::from(d)
            );
            for hidden in [
                format!("[::{ip}]:5000"),
                format!("[64:ff9b::{ip}]:5000"),
                format!("[64:ff9b:1::{ip}]:5000"),
                format!("[2002:{hex}::1]:5000"),
                format!("[2001:0:{hex}::1]:5000"),
            ] {
                assert!(admit(&hidden, Refused).is_err(), "{hidden}");
                assert!(admit(&hidden, Admitted).is_err(), "{hidden}");
            }
        }
        for (ip, reason) in [
            ("::", Unspecified),
            ("::1", Loopback),
            ("::2", Unspecified),
            // IPv4-compatible, RFC 4291 2.5.5.1: deprecated.
            ("::192.0.2.1", Unspecified),
            ("fe80::1", LinkLocal),
            ("febf:ffff::1", LinkLocal),
            // Site-local, RFC 3879: deprecated.
            ("fec0::1", LinkLocal),
            ("feff:ffff::1", LinkLocal),
            ("ff00::1", Multicast),
            ("ff02::1", Multicast),
            ("ffff::1", Multicast),
            ("fd00:ec2::254", Metadata),
            ("fd20:ce::254", Metadata),
            ("fd00:42::42", Metadata),
            ("100::1", Reserved),
            ("100:0:0:1::1", Reserved),
            ("2001:1::1", Reserved),
            ("2001:2::1", Reserved),
            ("2001:20::1", Reserved),
            ("2001:1ff:ffff::1", Reserved),
            ("5f00::1", Reserved),
            ("5f00:ffff::1", Reserved),
        ] {
            assert_eq!(admit(&format!("[{ip}]:5000"), Refused), Err(reason), "{ip}");
        }
    }

    /// What stands for an IPv4 address, even a harmless one: what becomes of a
    /// packet there is the business of a box that we do not know.
    #[test]
    fn no_translator_and_no_tunnel_is_a_way_round() {
        for ip in [
            "64:ff9b::198.51.100.1",
            "64:ff9b:1::198.51.100.1",
            "64:ff9b:1:ffff::1",
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2002::1",
            "2002:c633:6401::1",
            "2002:ffff:ffff::1",
        ] {
            let refused = admit(&format!("[{ip}]:5000"), Admitted);
            assert_eq!(refused, Err(Inadmissible::Translated), "{ip}");
        }
    }

    #[test]
    fn ordinary_addresses_are_admitted_in_canonical_form() {
        for (ip, admitted) in [
            ("192.168.1.1", "192.168.1.1:5000"),
            ("10.0.0.1", "10.0.0.1:5000"),
            ("172.16.0.1", "172.16.0.1:5000"),
            ("100.64.0.1", "100.64.0.1:5000"),
            ("1.0.0.1", "1.0.0.1:5000"),
            ("223.255.255.254", "223.255.255.254:5000"),
            ("169.253.255.255", "169.253.255.255:5000"),
            ("192.0.1.1", "192.0.1.1:5000"),
            ("192.0.2.1", "192.0.2.1:5000"),
            ("198.18.0.1", "198.18.0.1:5000"),
            ("[::ffff:192.168.1.1]", "192.168.1.1:5000"),
            ("[fd00::1]", "[fd00::1]:5000"),
            ("[2001:200::1]", "[2001:200::1]:5000"),
            ("[2001:db8::1]", "[2001:db8::1]:5000"),
            ("[2003::1]", "[2003::1]:5000"),
            ("[3fff::1]", "[3fff::1]:5000"),
            ("[64:ff9c::1]", "[64:ff9c::1]:5000"),
        ] {
            let admitted: SocketAddr = admitted.parse().unwrap();
            assert_eq!(admit(&format!("{ip}:5000"), Refused), Ok(admitted), "{ip}");
        }
    }

    #[test]
    fn loopback_is_admitted_only_beside_the_server() {
        for address in ["127.0.0.1:5000", "[::ffff:127.0.0.1]:5000", "[::1]:5000"] {
            assert_eq!(admit(address, Refused), Err(Inadmissible::Loopback));
            assert!(admit(address, Admitted).is_ok(), "{address}");
        }
        for address in [
            "0.0.0.0:5000",
            "[::]:5000",
            "169.254.169.254:5000",
            "[fe80::1]:5000",
        ] {
            assert!(admit(address, Admitted).is_err(), "{address}");
        }
    }

    #[test]
    fn well_known_ports_are_refused() {
        for ip in [
            "198.51.100.1",
            "[2001:db8::1]",
            "[::ffff:198.51.100.1]",
            "127.0.0.1",
        ] {
            for port in [0, 22, 1023] {
                let refused = admit(&format!("{ip}:{port}"), Admitted);
                assert_eq!(refused, Err(Inadmissible::Port), "{ip}:{port}");
            }
            assert!(admit(&format!("{ip}:1024"), Admitted).is_ok(), "{ip}");
        }
    }

    #[test]
    fn ports_that_are_counted_up_are_predicted() {
        let predicted = |one: &str, other: &str| -> Vec<u16> {
            let predicted = predict(one.parse().unwrap(), other.parse().unwrap());
            predicted.iter().map(SocketAddr::port).collect()
        };
        let at = |port: u16| format!("203.0.113.9:{port}");
        for (one, other) in [(5000, 5001), (5001, 5000)] {
            let next: Vec<u16> = (5002..5010).collect();
            assert_eq!(predicted(&at(one), &at(other)), next);
        }
        for step in [2, 64] {
            let next: Vec<u16> = (5000 + step + 1..=5000 + step + 32).collect();
            assert_eq!(predicted(&at(5000), &at(5000 + step)), next);
        }
        for far in [5000, 5065, 40_000] {
            assert!(predicted(&at(5000), &at(far)).is_empty());
        }
        assert_eq!(predicted(&at(65533), &at(65534)), [65535]);
        assert!(predicted(&at(5000), "203.0.113.10:5001").is_empty());
    }

    #[test]
    fn only_addresses_of_the_whole_internet_are_global() {
        for (ip, global) in [
            ("198.51.100.1", true),
            ("::ffff:198.51.100.1", true),
            ("2001:db8::1", true),
            ("100.63.255.255", true),
            ("100.64.0.0", false),
            ("100.127.255.255", false),
            ("100.128.0.0", true),
            ("10.0.0.1", false),
            ("172.31.255.255", false),
            ("172.32.0.0", true),
            ("192.168.0.1", false),
            ("::ffff:192.168.0.1", false),
            ("127.0.0.1", false),
            ("169.254.1.1", false),
            ("224.0.0.1", false),
            ("0.0.0.0", false),
            ("fd00::1", false),
            ("fe80::1", false),
            ("::1", false),
        ] {
            assert_eq!(is_global(ip.parse().unwrap()), global, "{ip}");
        }
    }

    #[test]
    fn a_network_is_one_ipv4_address_or_one_ipv6_64() {
        for (a, b, same) in [
            ("198.51.100.1", "198.51.100.1", true),
            ("198.51.100.1", "::ffff:198.51.100.1", true),
            ("198.51.100.1", "198.51.100.2", false),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("198.51.100.1", "2001:db8::1", false),
        ] {
            let answer = same_network(a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(answer, same, "{a} {b}");
        }
    }
}
