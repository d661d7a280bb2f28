//! What can happen to a laboratory while it stands.

use std::fs;
use std::process::Command;

use super::namespaces::{ip, run};
use super::plan::{Line, NatMapping, Router};
use super::{Host, Lab, RouterState, rules};

impl Lab {
    /// The outermost router of this host forgets all its mappings, as when it
    /// is switched off and on, and draws its random ports anew.
    ///
    /// # Panics
    /// When a step fails.
    pub fn reboot(&self, host: Host) {
        self.load_rules(&self.outermost(host));
    }

    /// The outermost router of this host gets another public address, as with
    /// a new lease, and forgets its mappings. Returns the address. IPv6 stays as
    /// it is.
    ///
    /// # Panics
    /// When a step fails, or nothing is translated there.
    pub fn renumber(&self, host: Host) -> String {
        let node = self.outermost(host);
        let namespace = self.namespace(&node);
        let RouterState {
            router,
            outside,
            upstream,
            ..
        } = self.routers()[&node].clone();
        assert_ne!(
            router.mapping,
            NatMapping::None,
            "the LAN would keep its addresses"
        );
        let (net, number) = outside.rsplit_once('.').expect("an IPv4 address");
        let number: u8 = number.parse().expect("a number");
        let other = format!("{net}.{}", number + 1);
        ip(&format!("-n {namespace} address del {outside}/24 dev wan0"));
        ip(&format!("-n {namespace} address add {other}/24 dev wan0"));
        ip(&format!(
            "-n {namespace} route replace default via {upstream}"
        ));
        if let Some(state) = self.routers().get_mut(&node) {
            state.outside.clone_from(&other);
        }
        self.load_rules(&node);
        other
    }

    /// From now on, the router next to this host behaves like that one. It
    /// forgets its mappings. Public addresses stay public, and private ones
    /// private.
    ///
    /// # Panics
    /// When a step fails.
    pub fn replace_router(&self, host: Host, router: Router) {
        let node = self.gateway(host);
        if let Some(state) = self.routers().get_mut(&node) {
            state.router = router;
        }
        self.load_rules(&node);
    }

    /// From now on, this host's site has such a line to the internet. A line
    /// that loses all frames is cut.
    ///
    /// # Panics
    /// When the WAN does not do it.
    pub fn set_line(&self, host: Host, line: Line) {
        let node = self.outermost(host);
        let name = self.routers()[&node].line.clone();
        let mut wan = self.wan.lock().expect("the WAN");
        wan.as_mut().expect("a WAN that runs").set(&name, line);
    }

    /// From now on, nothing comes from one site to another: all that both reach
    /// is the server.
    ///
    /// # Panics
    /// When a step fails.
    pub fn part(&self) {
        self.nft_on_the_internet(
            "add table inet parted; \
             add chain inet parted forward { type filter hook forward priority 0; }; \
             add rule inet parted forward iifname != s oifname != s drop",
        );
    }

    /// Ends what [`Lab::part`] has begun.
    ///
    /// # Panics
    /// When it fails.
    pub fn join(&self) {
        self.nft_on_the_internet("delete table inet parted");
    }

    fn nft_on_the_internet(&self, commands: &str) {
        run(self.command_at("W", "nft".as_ref()).arg(commands));
    }

    /// Pulls the host's network cable: it notices.
    ///
    /// # Panics
    /// When it fails.
    pub fn unplug(&self, host: Host) {
        self.cable(host, "down");
    }

    /// Plugs it in again.
    ///
    /// # Panics
    /// When it fails.
    pub fn replug(&self, host: Host) {
        self.cable(host, "up");
    }

    /// Gives A's line this rate in both directions, and a queue as long as
    /// what is under way at `rtt_ms`.
    ///
    /// # Panics
    /// When a step fails.
    pub fn limit(&self, mbit: u32, rtt_ms: u32) {
        let queue_bytes = mbit * 125 * rtt_ms;
        // Segments of 64 KiB, as offloading makes them, stay whole.
        let burst_bytes = 80 << 10;
        for (node, interface) in [(self.outermost(Host::A), "wan0"), ("W".to_owned(), "a")] {
            let namespace = self.namespace(&node);
            let words = format!(
                "-n {namespace} qdisc replace dev {interface} root \
                 tbf rate {mbit}mbit burst {burst_bytes} limit {queue_bytes}"
            );
            run(Command::new("tc").args(words.split_whitespace()));
        }
    }

    /// Takes back what [`Lab::limit`] has done.
    ///
    /// # Panics
    /// When it fails.
    pub fn unlimit(&self) {
        for (node, interface) in [(self.outermost(Host::A), "wan0"), ("W".to_owned(), "a")] {
            let namespace = self.namespace(&node);
            let words = format!("-n {namespace} qdisc delete dev {interface} root");
            run(Command::new("tc").args(words.split_whitespace()));
        }
    }

    /// The TCP connections that the router next to this host tracks, as
    /// `conntrack` lists them.
    ///
    /// # Panics
    /// When they cannot be listed.
    #[must_use]
    pub fn tracked(&self, host: Host) -> Vec<String> {
        let mut conntrack = self.command_at(&self.gateway(host), "conntrack".as_ref());
        let listed = run(conntrack.args(["-L", "-p", "tcp"]));
        listed.lines().map(str::to_owned).collect()
    }

    /// Loads a router's rules, and forgets what it tracked.
    pub(super) fn load_rules(&self, node: &str) {
        let state = self.routers()[node].clone();
        let file = self.folder.path().join(node);
        let text = rules::rules(&state.router, &state.outside);
        fs::write(&file, text).expect("writing the rules");
        run(self.command_at(node, "nft".as_ref()).arg("-f").arg(file));
        run(self.command_at(node, "conntrack".as_ref()).arg("-F"));
        if let Some(port_mapping) = state.router.port_mapping {
            self.start_port_mapping(node, port_mapping);
        }
    }

    /// The router next to this host.
    pub(super) fn gateway(&self, host: Host) -> String {
        let node = match host {
            Host::S => panic!("no router is next to the server"),
            Host::Crowd { site, .. } => format!("N{site}"),
            Host::A | Host::B => format!("N{}", host.node()),
        };
        // B may be on A's LAN.
        if self.routers().contains_key(&node) {
            node
        } else {
            "NA".to_owned()
        }
    }

    /// The router between this host and the internet.
    fn outermost(&self, host: Host) -> String {
        let gateway = self.gateway(host);
        let routers = self.routers();
        let line = &routers[&gateway].line;
        // Carriers come first by name.
        let found = routers.iter().find(|(_, router)| router.line == *line);
        found.map_or(gateway.clone(), |(node, _)| node.clone())
    }

    fn cable(&self, host: Host, state: &str) {
        let router = self.namespace(&self.gateway(host));
        let port = format!("p{}", host.node());
        ip(&format!("-n {router} link set dev {port} {state}"));
    }
}
