//! A NAT laboratory: hosts, real routers and the internet between them, each in
//! a network namespace of its own, with a delay on the lines.
//!
//! [`Topology::TwoSites`], and [`Topology::EqualSubnets`] with 10.1.0.20 for B:
//!
//! ```text
//!  A ── NA ──┐ (wan)            10.1.0.10 · NA 198.51.100.10
//!            W ── S             S 203.0.113.1, 203.0.113.2, 2001:db8:5::1
//!  B ── NB ──┘ (wan)            10.2.0.10 · NB 192.0.2.10
//! ```
//!
//! A site may be behind a carrier-grade NAT; then that has the public address:
//!
//! ```text
//!  A ── NA ── CA ──┐ (wan)      NA 100.64.0.10 · CA 198.51.100.10
//!                  W ── S
//!  B ── NB ────────┘ (wan)
//! ```
//!
//! [`Topology::OneLan`] and [`Topology::SharedCarrier`]:
//!
//! ```text
//!  A ──┐                        A ── NA ──┐
//!      NA ──(wan)── W ── S                CA ──(wan)── W ── S
//!  B ──┘                        B ── NB ──┘
//! ```
//!
//! [`Topology::Crowd`]: hosts 10.SITE.0.10 and on, at sites from 1, each with a
//! line of its own, and 11.1.SITE.10 outside.
//!
//! The LAN of a router without a mapping has public addresses, 198.51.101.0/24
//! or 198.51.102.0/24. A router that opens ports has a public address out of
//! 11.0.0.0/8: `miniupnpd` refuses to work behind an address that is reserved
//! for documentation. On IPv6, sites have 2001:db8:a::/64 and 2001:db8:b::/64.
//!
//! Namespaces carry the test's process id, so that laboratories stand side by
//! side and what a killed test left behind can be told and removed.
//!
//! What it cannot imitate: mappings that are sequential but not symmetric; NAT64;
//! the six seconds for which RFC 5382 has a router hold an unexpected SYN back.

mod build;
pub mod measure;
mod namespaces;
mod operations;
mod plan;
mod rules;
mod services;
mod types;
mod wan;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

pub use plan::{
    Line, NatFiltering, NatMapping, Order, Outbound, Plan, Port, Router, RouterPortMapping, Site,
    Stack, Topology, Unsolicited,
};
pub use types::TYPES;

/// Where a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// At the first site.
    A,
    /// At the second site, or on A's LAN.
    B,
    /// The public server.
    S,
    /// One of [`Topology::Crowd`].
    Crowd {
        /// From 1.
        site: u8,
        /// On its LAN, from 1.
        number: u8,
    },
}

impl Host {
    fn node(self) -> String {
        match self {
            Self::A => "A".to_owned(),
            Self::B => "B".to_owned(),
            Self::S => "S".to_owned(),
            Self::Crowd { site, number } => format!("H{site}.{number}"),
        }
    }
}

/// A laboratory that stands; removed when dropped.
pub struct Lab {
    prefix: String,
    folder: tempfile::TempDir,
    namespaces: Vec<String>,
    /// By the names of their nodes.
    routers: Mutex<BTreeMap<String, RouterState>>,
    wan: Mutex<Option<wan::Wan>>,
    /// What runs on routers, by its name.
    services: Mutex<BTreeMap<String, Child>>,
}

/// A router that stands.
#[derive(Clone)]
struct RouterState {
    router: Router,
    /// Its address on `wan0`.
    outside: String,
    /// Of that.
    upstream: String,
    /// The first three numbers of its LAN's addresses.
    lan: String,
    /// Its way to the internet.
    line: String,
}

/// Why no laboratory can be built here, or nothing if one can.
#[must_use]
pub fn unavailable() -> Option<String> {
    let id = Command::new("id").arg("-u").output().ok()?;
    if id.stdout.trim_ascii() != b"0" {
        return Some("network namespaces need root".to_owned());
    }
    let tools = ["ip", "nft", "conntrack"];
    let missing = tools
        .iter()
        .find(|tool| Command::new(tool).arg("-V").output().is_err());
    missing.map(|tool| format!("{tool} is not installed"))
}

/// Whether a test has to be skipped; it says so aloud.
#[must_use]
pub fn skipped() -> bool {
    let reason = unavailable();
    if let Some(reason) = &reason {
        // Past the capture of the test harness: nobody should take this for a pass.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
    }
    reason.is_some()
}

/// Builds the laboratory, unless the test is [`skipped`].
///
/// # Panics
/// When building fails although everything needed is there.
#[must_use]
pub fn build_or_skip(plan: Plan) -> Option<Lab> {
    (!skipped()).then(|| Lab::build(plan))
}

impl Lab {
    /// The server's IPv4 address.
    pub const SERVER: &str = "203.0.113.1";
    /// Another IPv4 address of the server.
    pub const SERVER_2: &str = "203.0.113.2";
    /// The server's IPv6 address.
    pub const SERVER_V6: &str = "2001:db8:5::1";

    /// Builds a laboratory. Needs root and the tools that [`unavailable`] checks.
    ///
    /// # Panics
    /// When a step fails.
    #[must_use]
    pub fn build(plan: Plan) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        namespaces::remove_orphans();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut lab = Self {
            prefix: format!("pinhole-{}-{count}-", process::id()),
            folder: tempfile::tempdir().expect("a temporary folder"),
            namespaces: Vec::new(),
            routers: Mutex::default(),
            wan: Mutex::default(),
            services: Mutex::default(),
        };
        lab.stand(plan);
        lab
    }

    /// The command, to be run on that host.
    #[must_use]
    pub fn command(&self, host: Host, program: &Path) -> Command {
        self.command_at(&host.node(), program)
    }

    /// Does something on that host, on a thread of its own. Sockets made there
    /// stay there, wherever they are used.
    pub fn inside<T: Send>(&self, host: Host, act: impl FnOnce() -> T + Send) -> T {
        namespaces::inside(&self.namespace(&host.node()), act)
    }

    /// What crossed the lines between the sites and the internet, as much of
    /// it as one test can look through.
    #[must_use]
    pub fn capture(&self) -> PathBuf {
        self.folder.path().join("capture")
    }

    fn command_at(&self, node: &str, program: &Path) -> Command {
        let mut command = Command::new("ip");
        // `ip` becomes the program, so the process id is the program's own.
        command
            .args(["netns", "exec", &self.namespace(node)])
            .arg(program);
        command
    }

    fn namespace(&self, node: &str) -> String {
        format!("{}{node}", self.prefix)
    }

    fn routers(&self) -> MutexGuard<'_, BTreeMap<String, RouterState>> {
        self.routers.lock().expect("the routers")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let services = std::mem::take(&mut *self.services.lock().expect("the services"));
        for (_, mut service) in services {
            let _ = service.kill();
            let _ = service.wait();
        }
        drop(self.wan.lock().expect("the WAN").take());
        for namespace in &self.namespaces {
            namespaces::remove(namespace);
        }
    }
}
