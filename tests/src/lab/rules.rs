//! A router's behaviour as nftables rules.

use std::hash::{BuildHasher, RandomState};

use super::plan::{
    NatFiltering, NatMapping, Order, Outbound, Port, Router, RouterPortMapping, Unsolicited,
};

/// Where sequential ports begin, and how many there are before they begin again.
const FIRST_PORT: u64 = 32_768;
const PORTS: u64 = 2048;

/// The whole rule set of a router with this public address. Every call draws
/// other random ports.
pub(super) fn rules(router: &Router, outside: &str) -> String {
    let mut rules = "flush ruleset\n".to_owned();
    if router.mapping != NatMapping::None {
        let translate = include_str!("../../nat/translate.nft")
            .replace("@MAPPING@", &mapping(router.mapping, outside))
            .replace("@ADMITTED@", admitted(router.filtering))
            .replace("@HAIRPIN@", if router.hairpin { HAIRPIN } else { "" })
            .replace("@OUTSIDE@", outside);
        rules.push_str(&translate);
    }
    // Without any rules nothing is tracked, and so nothing can seem invalid.
    if (router.mapping, router.filtering) != (NatMapping::None, NatFiltering::EndpointIndependent) {
        let firewall = include_str!("../../nat/firewall.nft");
        rules.push_str(&firewall.replace("@UNSOLICITED@", kept_out(router.unsolicited)));
    }
    rules.push_str(&outbound(router.outbound));
    if let Some(port_mapping) = router.port_mapping {
        let file = include_str!("../../nat/port-mapping.nft");
        rules.push_str(&file.replace("@SILENT@", silent(port_mapping)));
    }
    rules
}

/// A sum over what the mapping depends on, in place of a table: two packets at
/// once could both miss that.
fn mapping(mapping: NatMapping, outside: &str) -> String {
    let seed = RandomState::new().hash_one(0);
    // Ports that systems choose by themselves, from 32768 on, stay there.
    let sum = |key: u64| format!("th sport ^ {:#x}", 0x4000 | (seed ^ key) & 0x3fff);
    let all = "meta l4proto { tcp, udp }";
    match mapping {
        // The kernel's own way, and the last line of the file.
        NatMapping::None | NatMapping::EndpointIndependent(Port::Preserved) => String::new(),
        NatMapping::EndpointIndependent(Port::Random) => {
            format!("{all} snat to {outside} : {}", sum(0))
        }
        // By the last four bits of the address: no two here have the same.
        NatMapping::AddressDependent => (0..16)
            .map(|bits| {
                let sum = sum(bits << 10);
                format!("{all} ip daddr & 0.0.0.15 == 0.0.0.{bits} snat to {outside} : {sum}; ")
            })
            .collect(),
        NatMapping::AddressAndPortDependent(Order::Random) => {
            format!("{all} snat to {outside} random,fully-random")
        }
        NatMapping::AddressAndPortDependent(Order::Sequential) => {
            let first = FIRST_PORT + seed % 16_384;
            let ports: Vec<String> = (0..PORTS)
                .map(|turn| format!("{turn} : {outside} . {}", first + turn))
                .collect();
            let ports = ports.join(", ");
            format!("{all} snat ip addr . port to numgen inc mod {PORTS} map {{ {ports} }}")
        }
    }
}

fn admitted(filtering: NatFiltering) -> &'static str {
    match filtering {
        NatFiltering::EndpointIndependent => {
            "iifname wan0 ip daddr @OUTSIDE@ dnat ip addr . port to meta l4proto . th dport map @hosts"
        }
        NatFiltering::AddressDependent => {
            "iifname wan0 ip daddr @OUTSIDE@ meta l4proto . th dport . ip saddr @contacted \
             dnat ip addr . port to meta l4proto . th dport map @hosts"
        }
        NatFiltering::AddressAndPortDependent => "",
    }
}

const HAIRPIN: &str =
    "iifname lan0 ip daddr @OUTSIDE@ dnat ip addr . port to meta l4proto . th dport map @hosts";

fn kept_out(unsolicited: Unsolicited) -> &'static str {
    match unsolicited {
        Unsolicited::Silence => "drop",
        Unsolicited::Reset => "meta l4proto tcp reject with tcp reset",
        Unsolicited::Icmp => "reject with icmpx type port-unreachable",
    }
}

fn outbound(outbound: Outbound) -> String {
    let rules = match outbound {
        Outbound::Anything => return String::new(),
        Outbound::NoUdp => "meta l4proto udp drop",
        // The first segment with data decides, for the whole connection.
        Outbound::TlsOn443 => {
            "meta l4proto != { tcp, icmp, ipv6-icmp } drop
             tcp dport != 443 drop
             ct mark 2 reject with tcp reset
             ct state established ct mark 0 tcp flags & psh == psh @ih,0,16 != 0x1603 \
                 ct mark set 2 reject with tcp reset
             ct state established ct mark 0 tcp flags & psh == psh ct mark set 1"
        }
        Outbound::Nothing => "drop",
    };
    format!(
        "table inet outbound {{
           chain forward {{
             type filter hook forward priority filter - 1; policy accept;
             iifname lan0 oifname wan0 jump leaving
             iifname wan0 oifname lan0 ct mark 2 reject with tcp reset
           }}
           chain leaving {{
             {rules}
           }}
         }}\n"
    )
}

/// Requests by NAT-PMP and PCP reach the same port; the first byte is the
/// version.
fn silent(port_mapping: RouterPortMapping) -> &'static str {
    match port_mapping {
        RouterPortMapping::Upnp => "udp dport 5351 drop",
        RouterPortMapping::NatPmp => "udp dport 5351 @th,64,8 != 0 drop",
        RouterPortMapping::Pcp => "udp dport 5351 @th,64,8 != 2 drop",
        RouterPortMapping::All => "",
    }
}
