//! The networks that an address counts against.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address with only its first bits kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    address: IpAddr,
    prefix_bits: u8,
}

impl Subnet {
    fn new(address: IpAddr, prefix_bits: u8) -> Self {
        let address = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.unbounded_shl(32 - u32::from(prefix_bits));
                Ipv4Addr::from(u32::from(v4) & mask).into()
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.unbounded_shl(128 - u32::from(prefix_bits));
                Ipv6Addr::from(u128::from(v6) & mask).into()
            }
        };
        Self {
            address,
            prefix_bits,
        }
    }

    /// How many bits are kept.
    #[must_use]
    pub const fn prefix_bits(self) -> u8 {
        self.prefix_bits
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

/// The networks of an address, the narrowest first: of IPv4 the address itself and
/// its /24, of IPv6 what a subscriber may have, the /64, the /56 and the /48
/// (RFC 6177). IPv4-mapped IPv6 addresses count as IPv4.
#[must_use]
pub fn subnets(address: IpAddr) -> Vec<Subnet> {
    let address = address.to_canonical();
    let prefixes: &[u8] = match address {
        IpAddr::V4(_) => &[32, 24],
        IpAddr::V6(_) => &[64, 56, 48],
    };
    let all = prefixes.iter().map(|&bits| Subnet::new(address, bits));
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_counts_against_what_one_subscriber_may_have() {
        let shown = |address: &str| {
            let all = subnets(address.parse().unwrap());
            Vec::from_iter(all.iter().map(ToString::to_string))
        };
        let home = ["198.51.100.7/32", "198.51.100.0/24"];
        assert_eq!(shown("198.51.100.7"), home);
        assert_eq!(shown("::ffff:198.51.100.7"), home);
        let v6 = [
            "2001:db8:1:23ff::/64",
            "2001:db8:1:2300::/56",
            "2001:db8:1::/48",
        ];
        assert_eq!(shown("2001:db8:1:23ff::7"), v6);
    }
}
