//! A NAT laboratory: hosts, real NATs and the internet between them, each in a
//! network namespace of its own, with a delay on the line.
//!
//! ```text
//!  A ── NA ──┐ (wan)            10.1.0.10 · NA 198.51.100.10
//!            W ── S             S 203.0.113.1, 2001:db8:5::1
//!  B ── NB ──┘ (wan)            10.2.0.10 · NB 192.0.2.10
//! ```
//!
//! With [`Topology::OneLan`] B hangs on NA beside A. Namespaces carry the test's
//! process id, so that laboratories stand side by side and what a killed test
//! left behind can be told and removed.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::process::binary;

/// Where a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// Behind the first NAT.
    A,
    /// Behind the second NAT, or on A's LAN.
    B,
    /// The public server.
    S,
}

/// How a NAT chooses the outside port (RFC 4787).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// Endpoint-independent: one port whatever the destination.
    Stable,
    /// Address-and-port-dependent, at random.
    Symmetric,
}

/// What a NAT answers to a packet nobody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsolicited {
    /// Nothing.
    Silence,
    /// A TCP reset.
    Reset,
    /// ICMP "port unreachable".
    Icmp,
}

/// One NAT. Its filtering is always address-and-port-dependent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nat {
    /// Of ports.
    pub mapping: Mapping,
    /// Towards strangers.
    pub unsolicited: Unsolicited,
}

/// Where the two hosts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// A behind the first, B behind the second NAT.
    TwoSites(Nat, Nat),
    /// Both behind this NAT, on one LAN.
    OneLan(Nat),
}

/// What to build.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Where the hosts are.
    pub topology: Topology,
    /// Whether the hosts also have global IPv6, guarded but not translated.
    pub ipv6: bool,
    /// One way between each site and the internet; twice that between sites.
    pub delay: Duration,
}

/// A laboratory that stands; removed when dropped.
pub struct Lab {
    prefix: String,
    folder: tempfile::TempDir,
    namespaces: Vec<String>,
    wan: Option<Child>,
}

/// Why no laboratory can be built here, or nothing if one can.
#[must_use]
pub fn unavailable() -> Option<String> {
    let id = Command::new("id").arg("-u").output().ok()?;
    if id.stdout.trim_ascii() != b"0" {
        return Some("network namespaces need root".to_owned());
    }
    let tools = ["ip", "nft"];
    let missing = tools
        .iter()
        .find(|tool| Command::new(tool).arg("-V").output().is_err());
    missing.map(|tool| format!("{tool} is not installed"))
}

/// Builds the laboratory, or says aloud why the test is skipped.
///
/// # Panics
/// When building fails although everything needed is there.
#[must_use]
pub fn build_or_skip(plan: Plan) -> Option<Lab> {
    if let Some(reason) = unavailable() {
        // Past the capture of the test harness: nobody should take this for a pass.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
        return None;
    }
    Some(Lab::build(plan))
}

impl Lab {
    /// The server's IPv4 address.
    pub const SERVER: &str = "203.0.113.1";
    /// The server's IPv6 address.
    pub const SERVER_V6: &str = "2001:db8:5::1";

    /// Builds a laboratory. Needs root and the tools that [`unavailable`] checks.
    ///
    /// # Panics
    /// When a step fails.
    #[must_use]
    pub fn build(plan: Plan) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        remove_orphans();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut lab = Self {
            prefix: format!("pinhole-{}-{count}-", process::id()),
            folder: tempfile::tempdir().expect("a temporary folder"),
            namespaces: Vec::new(),
            wan: None,
        };
        for node in ["W", "X", "S", "NA", "A", "B"] {
            lab.add_node(node);
        }
        lab.route_between(&["W", "NA"]);
        lab.link(("S", "wan0"), ("W", "s"));
        lab.address(
            "S",
            "wan0",
            &["203.0.113.1/24", "203.0.113.2/24", "2001:db8:5::1/64"],
        );
        lab.address("W", "s", &["203.0.113.254/24", "2001:db8:5::fe/64"]);
        lab.default_route("S", &["203.0.113.254", "2001:db8:5::fe"]);
        // Private addresses lead nowhere on the internet, and nobody says so.
        ip(&format!(
            "-n {} route add blackhole 10.0.0.0/8",
            lab.namespace("W")
        ));
        lab.site('a', "198.51.100", plan.ipv6);
        let mut lines = vec!["a0", "a1"];
        match plan.topology {
            Topology::OneLan(nat) => {
                lab.guard("NA", "198.51.100.10", nat);
                lab.plug("A", "NA", "10.1.0", 10, plan.ipv6.then_some('a'));
                lab.plug("B", "NA", "10.1.0", 20, plan.ipv6.then_some('a'));
            }
            Topology::TwoSites(nat_a, nat_b) => {
                lab.add_node("NB");
                lab.route_between(&["NB"]);
                lab.site('b', "192.0.2", plan.ipv6);
                lines.extend(["b0", "b1"]);
                lab.guard("NA", "198.51.100.10", nat_a);
                lab.guard("NB", "192.0.2.10", nat_b);
                lab.plug("A", "NA", "10.1.0", 10, plan.ipv6.then_some('a'));
                lab.plug("B", "NB", "10.2.0", 10, plan.ipv6.then_some('b'));
            }
        }
        lab.start_wan(plan.delay, &lines);
        if plan.ipv6 {
            lab.greet_ipv6();
        }
        lab
    }

    /// The command, to be run on that host.
    #[must_use]
    pub fn command(&self, host: Host, program: &Path) -> Command {
        let node = match host {
            Host::A => "A",
            Host::B => "B",
            Host::S => "S",
        };
        let mut command = Command::new("ip");
        // `ip` becomes the program, so the process id is the program's own.
        command
            .args(["netns", "exec", &self.namespace(node)])
            .arg(program);
        command
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
        for (node, interface) in [("NA", "wan0"), ("W", "a")] {
            let namespace = self.namespace(node);
            let words = format!(
                "-n {namespace} qdisc replace dev {interface} root \
                 tbf rate {mbit}mbit burst {burst_bytes} limit {queue_bytes}"
            );
            run(Command::new("tc").args(words.split_whitespace()));
        }
    }

    /// What crossed the lines between the sites and the internet, as much of
    /// it as one test can look through.
    #[must_use]
    pub fn capture(&self) -> PathBuf {
        self.folder.path().join("capture")
    }

    fn namespace(&self, node: &str) -> String {
        format!("{}{node}", self.prefix)
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
            ("net/ipv6/conf/default/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_ra", "0"),
        ];
        self.configure(node, &settings);
        ip(&format!("-n {} link set dev lo up", self.namespace(node)));
    }

    fn route_between(&self, routers: &[&str]) {
        for router in routers {
            let settings = [
                ("net/ipv4/ip_forward", "1"),
                ("net/ipv6/conf/all/forwarding", "1"),
                // Else what is bridged between two hosts of a LAN is translated too.
                ("net/bridge/bridge-nf-call-iptables", "0"),
                ("net/bridge/bridge-nf-call-ip6tables", "0"),
            ];
            self.configure(router, &settings);
        }
    }

    fn configure(&self, node: &str, settings: &[(&str, &str)]) {
        // What this kernel has not got needs no setting.
        let writes = settings.iter().map(|(key, value)| {
            let file = format!("/proc/sys/{key}");
            format!("[ ! -e {file} ] || echo {value} >{file} || exit 1")
        });
        let script = writes.collect::<Vec<_>>().join("; ");
        run(Command::new("ip").args(["netns", "exec", &self.namespace(node), "sh", "-c", &script]));
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

    fn default_route(&self, node: &str, gateways: &[&str]) {
        for gateway in gateways {
            ip(&format!(
                "-n {} route add default via {gateway}",
                self.namespace(node)
            ));
        }
    }

    /// A NAT with its LAN, and its line to the internet through the WAN node.
    fn site(&self, site: char, net: &str, ipv6: bool) {
        let nat = if site == 'a' { "NA" } else { "NB" };
        let lan = if site == 'a' {
            "10.1.0.1/24"
        } else {
            "10.2.0.1/24"
        };
        let (near, far) = (format!("{site}0"), format!("{site}1"));
        self.link((nat, "wan0"), ("X", &near));
        self.link(("X", &far), ("W", &site.to_string()));
        self.address(nat, "wan0", &[&format!("{net}.10/24")]);
        self.address("W", &site.to_string(), &[&format!("{net}.254/24")]);
        self.default_route(nat, &[&format!("{net}.254")]);
        let namespace = self.namespace(nat);
        ip(&format!("-n {namespace} link add lan0 type bridge"));
        ip(&format!("-n {namespace} link set dev lan0 up"));
        self.address(nat, "lan0", &[lan]);
        if ipv6 {
            let (outer, inner) = (format!("2001:db8:f{site}"), format!("2001:db8:{site}"));
            self.address(nat, "wan0", &[&format!("{outer}::10/64")]);
            self.address(nat, "lan0", &[&format!("{inner}::1/64")]);
            self.address("W", &site.to_string(), &[&format!("{outer}::fe/64")]);
            self.default_route(nat, &[&format!("{outer}::fe")]);
            let internet = self.namespace("W");
            ip(&format!(
                "-n {internet} route add {inner}::/64 via {outer}::10"
            ));
        }
    }

    /// Plugs a host into a NAT's LAN.
    fn plug(&self, host: &str, nat: &str, net: &str, number: u8, ipv6_site: Option<char>) {
        let port = format!("p{host}");
        self.link((host, "eth0"), (nat, &port));
        ip(&format!(
            "-n {} link set dev {port} master lan0",
            self.namespace(nat)
        ));
        self.address(host, "eth0", &[&format!("{net}.{number}/24")]);
        self.default_route(host, &[&format!("{net}.1")]);
        if let Some(site) = ipv6_site {
            self.address(host, "eth0", &[&format!("2001:db8:{site}::{number}/64")]);
            self.default_route(host, &[&format!("2001:db8:{site}::1")]);
        }
    }

    /// Loads a router's rules, from the files that the demo uses too.
    fn guard(&self, node: &str, outside: &str, nat: Nat) {
        outside.parse::<IpAddr>().expect("an address");
        let unsolicited = match nat.unsolicited {
            Unsolicited::Silence => "drop",
            Unsolicited::Reset => "meta l4proto tcp reject with tcp reset",
            Unsolicited::Icmp => "reject with icmpx type port-unreachable",
        };
        let mapping = match nat.mapping {
            Mapping::Stable => include_str!("../nat/stable.nft"),
            Mapping::Symmetric => include_str!("../nat/symmetric.nft"),
        };
        let rules = format!("{mapping}{}", include_str!("../nat/firewall.nft"));
        let rules = rules
            .replace("@OUTSIDE@", outside)
            .replace("@UNSOLICITED@", unsolicited);
        let file = self.folder.path().join(node);
        fs::write(&file, rules).expect("writing the rules");
        let namespace = self.namespace(node);
        run(Command::new("ip")
            .args(["netns", "exec", &namespace, "nft", "-f"])
            .arg(file));
    }

    /// Lets the hosts say something on IPv6, as any computer that has been on
    /// for a minute has: else the very first packet waits for the neighbours on
    /// its way to be found, and IPv4 wins for that alone.
    fn greet_ipv6(&self) {
        for host in [Host::A, Host::B] {
            let mut greet = self.command(host, "bash".as_ref());
            let script = format!("echo hello >/dev/udp/{}/9", Self::SERVER_V6);
            run(greet.args(["-c", &script]));
        }
    }

    fn start_wan(&mut self, delay: Duration, interfaces: &[&str]) {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace("X")])
            .arg(binary("wan"));
        command
            .arg(delay.as_millis().to_string())
            .arg(self.capture())
            .args(interfaces);
        // It ends when this pipe closes, be it by the death of this process.
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("starting the WAN");
        let mut ready = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout)
            .read_line(&mut ready)
            .expect("reading from the WAN");
        self.wan = Some(child);
        assert_eq!(ready, "ready\n", "the WAN did not start");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut wan) = self.wan.take() {
            let _ = wan.kill();
            let _ = wan.wait();
        }
        for namespace in &self.namespaces {
            remove(namespace);
        }
    }
}

/// Removes the laboratories of tests that were killed.
fn remove_orphans() {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix("pinhole-")
            .and_then(|rest| rest.split('-').next());
        let Some(owner) = owner.and_then(|pid| pid.parse::<u32>().ok()) else {
            continue;
        };
        if !Path::new(&format!("/proc/{owner}")).exists() {
            remove(&name);
        }
    }
}

/// Removes a namespace and what still runs in it. Failures leave nothing to
/// do: another test may have removed the same orphan.
fn remove(namespace: &str) {
    let pids = Command::new("ip")
        .args(["netns", "pids", namespace])
        .output();
    for pid in pids
        .iter()
        .flat_map(|out| out.stdout.split(|byte| *byte == b'\n'))
    {
        if let Ok(pid) = str::from_utf8(pid).unwrap_or_default().parse::<u32>() {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).output();
        }
    }
    let _ = Command::new("ip")
        .args(["netns", "del", namespace])
        .output();
}

fn ip(arguments: &str) {
    run(Command::new("ip").args(arguments.split_whitespace()));
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
}
