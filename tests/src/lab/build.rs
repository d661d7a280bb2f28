//! How a laboratory is put together.

use super::namespaces::{ip, run};
use super::plan::{NatMapping, Plan, Router, Site, Stack, Topology};
use super::{Host, Lab, RouterState, wan};
use crate::process::binary;

/// A router's way to the internet or to its carrier.
struct Access {
    outside: String,
    upstream: String,
    line: String,
}

impl Access {
    /// `.10` in that net, over that line.
    fn of(net: &str, line: &str) -> Self {
        Self {
            outside: format!("{net}.10"),
            upstream: format!("{net}.254"),
            line: line.to_owned(),
        }
    }
}

impl Lab {
    pub(super) fn stand(&mut self, plan: Plan) {
        self.internet();
        match plan.topology {
            Topology::TwoSites(a, b) => {
                self.site('A', &a, lan('A', &a.router, "10.1.0"));
                self.site('B', &b, lan('B', &b.router, "10.2.0"));
                self.plug("A", "NA", 10, a.stack);
                self.plug("B", "NB", 10, b.stack);
            }
            Topology::EqualSubnets(a, b) => {
                self.site('A', &a, "10.1.0");
                self.site('B', &b, "10.1.0");
                self.plug("A", "NA", 10, a.stack);
                self.plug("B", "NB", 20, b.stack);
            }
            Topology::OneLan(site) => {
                self.site('A', &site, lan('A', &site.router, "10.1.0"));
                self.plug("A", "NA", 10, site.stack);
                self.plug("B", "NA", 20, site.stack);
            }
            Topology::SharedCarrier { carrier, routers } => {
                self.add_router("CA");
                self.line("CA", "a");
                self.connect(
                    "CA",
                    carrier,
                    Access::of(net('A', &carrier), "a"),
                    "100.64.0",
                );
                let [a, b] = routers;
                for (host, node, number, router, lan) in
                    [("A", "NA", 10, a, "10.1.0"), ("B", "NB", 11, b, "10.2.0")]
                {
                    self.add_router(node);
                    self.plug_router(node, "CA", number, router, lan);
                    self.plug(host, node, 10, Stack::V4);
                }
            }
            Topology::Crowd {
                router,
                sites,
                hosts,
            } => {
                for site in 1..=sites {
                    self.crowd_site(router, site, hosts);
                }
            }
        }
        self.start_wan(&plan);
        self.greet_ipv6(plan.topology);
    }

    /// The internet with the server on it, and the node for the long lines.
    fn internet(&mut self) {
        for node in ["W", "X", "S"] {
            self.add_node(node);
        }
        self.route_between("W");
        self.link(("S", "wan0"), ("W", "s"));
        let addresses = ["203.0.113.1/24", "203.0.113.2/24", "2001:db8:5::1/64"];
        self.address("S", "wan0", &addresses);
        self.address("W", "s", &["203.0.113.254/24", "2001:db8:5::fe/64"]);
        self.default_route("S", "203.0.113.254");
        self.default_route("S", "2001:db8:5::fe");
        // Private addresses lead nowhere on the internet, and nobody says so.
        for net in ["10.0.0.0/8", "100.64.0.0/10"] {
            ip(&format!(
                "-n {} route add blackhole {net}",
                self.namespace("W")
            ));
        }
    }

    /// A router with its LAN, and its line to the internet.
    fn site(&mut self, letter: char, site: &Site, lan: &str) {
        let node = format!("N{letter}");
        let line = letter.to_ascii_lowercase().to_string();
        self.add_router(&node);
        if let Some(carrier) = site.carrier {
            let carrier_node = format!("C{letter}");
            let carrier_lan = if letter == 'A' {
                "100.64.0"
            } else {
                "100.64.1"
            };
            self.add_router(&carrier_node);
            self.line(&carrier_node, &line);
            let access = Access::of(net(letter, &carrier), &line);
            self.connect(&carrier_node, carrier, access, carrier_lan);
            self.plug_router(&node, &carrier_node, 10, site.router, lan);
        } else {
            self.line(&node, &line);
            let net = net(letter, &site.router);
            if site.stack != Stack::V6 {
                self.connect(&node, site.router, Access::of(net, &line), lan);
            }
            if site.stack != Stack::V4 {
                self.connect_ipv6(&node, &line);
            }
            if site.stack == Stack::V6 {
                self.guard(&node, site.router, Access::of(net, &line), lan);
            }
        }
        if site.mtu_bytes != 1500 {
            let mtu = site.mtu_bytes;
            let far = if site.carrier.is_some() {
                (format!("C{letter}"), format!("p{node}"))
            } else {
                ("W".to_owned(), line)
            };
            for (node, interface) in [(node, "wan0".to_owned()), far] {
                let namespace = self.namespace(&node);
                ip(&format!(
                    "-n {namespace} link set dev {interface} mtu {mtu}"
                ));
            }
        }
    }

    fn crowd_site(&mut self, router: Router, site: u8, hosts: u8) {
        let (node, line) = (format!("N{site}"), format!("c{site}"));
        self.add_router(&node);
        self.line(&node, &line);
        let net = format!("11.1.{site}");
        self.connect(
            &node,
            router,
            Access::of(&net, &line),
            &format!("10.{site}.0"),
        );
        for number in 1..=hosts {
            let host = Host::Crowd { site, number }.node();
            self.plug(&host, &node, 9 + number, Stack::V4);
        }
    }

    /// A line between this router and the internet, by way of the WAN node.
    fn line(&self, node: &str, line: &str) {
        let (near, far) = (format!("{line}0"), format!("{line}1"));
        self.link((node, "wan0"), ("X", &near));
        self.link(("X", &far), ("W", line));
    }

    /// IPv4 for a router on a line, and for its LAN.
    fn connect(&self, node: &str, router: Router, access: Access, lan: &str) {
        let Access {
            outside, upstream, ..
        } = &access;
        self.address(node, "wan0", &[&format!("{outside}/24")]);
        self.address("W", &access.line, &[&format!("{upstream}/24")]);
        self.default_route(node, upstream);
        self.address(node, "lan0", &[&format!("{lan}.1/24")]);
        if router.mapping == NatMapping::None {
            let internet = self.namespace("W");
            ip(&format!("-n {internet} route add {lan}.0/24 via {outside}"));
        }
        self.guard(node, router, access, lan);
    }

    fn connect_ipv6(&self, node: &str, line: &str) {
        let (outer, inner) = (format!("2001:db8:f{line}"), format!("2001:db8:{line}"));
        self.address(node, "wan0", &[&format!("{outer}::10/64")]);
        self.address(node, "lan0", &[&format!("{inner}::1/64")]);
        self.address("W", line, &[&format!("{outer}::fe/64")]);
        self.default_route(node, &format!("{outer}::fe"));
        let internet = self.namespace("W");
        ip(&format!(
            "-n {internet} route add {inner}::/64 via {outer}::10"
        ));
    }

    /// Plugs a router into a carrier's network, under this number there.
    fn plug_router(&self, node: &str, carrier: &str, number: u8, router: Router, lan: &str) {
        assert_ne!(
            router.mapping,
            NatMapping::None,
            "carriers have no addresses to give"
        );
        let carrier_standing = self.routers()[carrier].clone();
        let net = carrier_standing.lan;
        self.plug_cable((node, "wan0"), carrier);
        let access = Access {
            outside: format!("{net}.{number}"),
            upstream: format!("{net}.1"),
            line: carrier_standing.line,
        };
        self.address(node, "wan0", &[&format!("{}/24", access.outside)]);
        self.default_route(node, &access.upstream);
        self.address(node, "lan0", &[&format!("{lan}.1/24")]);
        self.guard(node, router, access, lan);
    }

    /// Plugs a host into a router's LAN.
    fn plug(&mut self, host: &str, router: &str, number: u8, stack: Stack) {
        self.add_node(host);
        self.plug_cable((host, "eth0"), router);
        let state = self.routers()[router].clone();
        if stack != Stack::V6 {
            self.address(host, "eth0", &[&format!("{}.{number}/24", state.lan)]);
            self.default_route(host, &format!("{}.1", state.lan));
        }
        if stack != Stack::V4 {
            let net = format!("2001:db8:{}", state.line);
            self.address(host, "eth0", &[&format!("{net}::{number}/64")]);
            self.default_route(host, &format!("{net}::1"));
        }
    }

    fn plug_cable(&self, (node, interface): (&str, &str), router: &str) {
        let port = format!("p{node}");
        self.link((node, interface), (router, &port));
        ip(&format!(
            "-n {} link set dev {port} master lan0",
            self.namespace(router)
        ));
    }

    fn guard(&self, node: &str, router: Router, access: Access, lan: &str) {
        let state = RouterState {
            router,
            outside: access.outside,
            upstream: access.upstream,
            lan: lan.to_owned(),
            line: access.line,
        };
        self.routers().insert(node.to_owned(), state);
        self.load_rules(node);
    }

    fn add_router(&mut self, node: &str) {
        self.add_node(node);
        self.route_between(node);
        let namespace = self.namespace(node);
        ip(&format!("-n {namespace} link add lan0 type bridge"));
        ip(&format!("-n {namespace} link set dev lan0 up"));
    }

    fn add_node(&mut self, node: &str) {
        let namespace = self.namespace(node);
        ip(&format!("netns add {namespace}"));
        self.namespaces.push(namespace);
        let settings = [
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
            // Else a router answers only some of the strangers with ICMP.
            ("net/ipv4/icmp_ratelimit", "0"),
            ("net/ipv6/icmp/ratelimit", "0"),
            ("net/ipv6/conf/default/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_ra", "0"),
        ];
        self.configure(node, &settings);
        ip(&format!("-n {} link set dev lo up", self.namespace(node)));
    }

    fn route_between(&self, router: &str) {
        let settings = [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            // Else what is bridged between two hosts of a LAN is translated too.
            ("net/bridge/bridge-nf-call-iptables", "0"),
            ("net/bridge/bridge-nf-call-ip6tables", "0"),
        ];
        self.configure(router, &settings);
    }

    fn configure(&self, node: &str, settings: &[(&str, &str)]) {
        // What this kernel has not got needs no setting.
        let writes = settings.iter().map(|(key, value)| {
            let file = format!("/proc/sys/{key}");
            format!("[ ! -e {file} ] || echo {value} >{file} || exit 1")
        });
        let script = writes.collect::<Vec<_>>().join("; ");
        run(self.command_at(node, "sh".as_ref()).args(["-c", &script]));
    }

    fn link(&self, (node, interface): (&str, &str), (peer, peer_interface): (&str, &str)) {
        let (node, peer) = (self.namespace(node), self.namespace(peer));
        ip(&format!(
            "link add {interface} netns {node} type veth peer name {peer_interface} netns {peer}"
        ));
        ip(&format!("-n {node} link set dev {interface} up"));
        ip(&format!("-n {peer} link set dev {peer_interface} up"));
    }

    fn address(&self, node: &str, interface: &str, addresses: &[&str]) {
        let namespace = self.namespace(node);
        for address in addresses {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            ip(&format!(
                "-n {namespace} address add {address} dev {interface} {nodad}"
            ));
        }
    }

    fn default_route(&self, node: &str, gateway: &str) {
        let namespace = self.namespace(node);
        ip(&format!("-n {namespace} route add default via {gateway}"));
    }

    /// Lets the hosts say something on IPv6, as any computer that has been on
    /// for a minute has: else the very first packet waits for the neighbours on
    /// its way to be found, and IPv4 wins for that alone.
    fn greet_ipv6(&self, topology: Topology) {
        let stacks = match topology {
            Topology::TwoSites(a, b) | Topology::EqualSubnets(a, b) => [a.stack, b.stack],
            Topology::OneLan(site) => [site.stack, site.stack],
            Topology::SharedCarrier { .. } | Topology::Crowd { .. } => return,
        };
        for (host, stack) in [Host::A, Host::B].into_iter().zip(stacks) {
            if stack != Stack::V4 {
                let mut greet = self.command(host, "bash".as_ref());
                let script = format!("echo hello >/dev/udp/{}/9", Self::SERVER_V6);
                run(greet.args(["-c", &script]));
            }
        }
    }

    fn start_wan(&mut self, plan: &Plan) {
        let mut lines: Vec<String> = self.routers().values().map(|r| r.line.clone()).collect();
        lines.sort();
        lines.dedup();
        // Before everything else that runs: else, on a busy machine, frames far
        // apart would come out at once.
        let mut command = self.command_at("X", "nice".as_ref());
        command.args(["-n", "-20"]).arg(binary("wan"));
        command.arg(self.capture()).args(&lines);
        let mut wan = wan::Wan::start(command);
        for line in &lines {
            wan.set(line, plan.line);
        }
        *self.wan.lock().expect("the WAN") = Some(wan);
    }
}

/// The first three numbers of a site's public addresses.
fn net(letter: char, router: &Router) -> &'static str {
    match (letter, router.port_mapping) {
        ('A', None) => "198.51.100",
        ('A', Some(_)) => "11.0.1",
        (_, None) => "192.0.2",
        (_, Some(_)) => "11.0.2",
    }
}

/// The first three numbers of a site's LAN.
fn lan(letter: char, router: &Router, private: &'static str) -> &'static str {
    match (router.mapping, letter) {
        (NatMapping::None, 'A') => "198.51.101",
        (NatMapping::None, _) => "198.51.102",
        _ => private,
    }
}
