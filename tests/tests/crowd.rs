//! Many people at once.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use pinhole_tests::lab::{self, Host, Lab, NatFiltering, NatMapping, Plan, Port, Router, Topology};
use pinhole_tests::process::Process;
use pinhole_tests::scene::{Peer, Scene};

const SITES: u8 = 20;
const HOSTS: u8 = 10;

/// Connections of one host that may be half open at once: home routers have
/// small tables.
const HALF_OPEN_MAX: usize = 16;

/// Two hundred processes share what processors there are.
const PATIENCE: Duration = Duration::from_secs(180);

fn start_receiving(peer: &Peer<'_>) -> Process {
    let inbox = peer.inbox.to_str().expect("a folder in UTF-8");
    peer.start(&["receive", "--into", inbox, "--accept", "all"])
}

/// How many connections each host behind this router has half open.
fn half_open(lab: &Lab, site: u8) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in lab.tracked(Host::Crowd { site, number: 1 }) {
        let source = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("src="));
        let half = ["SYN_SENT", "SYN_RECV"]
            .iter()
            .any(|state| line.contains(state));
        if let (Some(source), true) = (source, half) {
            *counts.entry(source.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// The most that any host has half open, looked at again and again until told
/// to end.
fn watch(lab: &Lab, ended: &AtomicBool) -> usize {
    let mut most = 0;
    while !ended.load(Ordering::Relaxed) {
        for site in 1..=SITES {
            let inside = format!("10.{site}.0.");
            let counts = half_open(lab, site);
            let own = counts
                .iter()
                .filter(|(source, _)| source.starts_with(&inside));
            most = own.map(|(_, count)| *count).fold(most, usize::max);
        }
    }
    most
}

#[test]
#[ignore = "two hundred processes"]
fn two_hundred_people_behind_twenty_routers_connect_at_once() {
    let router = Router::of(
        NatMapping::EndpointIndependent(Port::Preserved),
        NatFiltering::AddressAndPortDependent,
    );
    let plan = Plan::of(Topology::Crowd {
        router,
        sites: SITES,
        hosts: HOSTS,
    });
    let Some(lab) = lab::build_or_skip(plan) else {
        return;
    };
    let scene = Scene::in_lab(&lab);
    // Each with somebody ten sites away.
    let pairs: Vec<[Peer; 2]> = (1..=SITES / 2)
        .flat_map(|site| (1..=HOSTS).map(move |number| (site, number)))
        .map(|(site, number)| {
            [("from", site), ("to", site + SITES / 2)].map(|(role, site)| {
                let host = Host::Crowd { site, number };
                scene.peer_in(&lab, host, &format!("{role}-{site}-{number}"))
            })
        })
        .collect();
    let file = scene.file("hello", b"hello");
    let mut receiving: Vec<Process> = pairs.iter().map(|[_, to]| start_receiving(to)).collect();
    for process in &mut receiving {
        process.event("logged_in", PATIENCE);
    }

    let ended = AtomicBool::new(false);
    let (paths, most) = thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&lab, &ended));
        let sending: Vec<Process> = pairs
            .iter()
            .map(|[from, to]| from.send(&to.name, &[&file]))
            .collect();
        let mut paths = BTreeMap::<String, usize>::new();
        for process in sending {
            let sent = process.end(PATIENCE);
            let path = match sent.code {
                Some(0) => sent.event("connected")["path"].to_string(),
                _ => format!("failed: {sent:?}"),
            };
            *paths.entry(path).or_default() += 1;
        }
        ended.store(true, Ordering::Relaxed);
        (paths, watching.join().expect("watching"))
    });
    println!("{paths:?}; at most {most} connections of one host half open");
    for [_, to] in &pairs {
        let arrived = fs::read(to.inbox.join("hello")).expect("the file has arrived");
        assert_eq!(arrived, b"hello");
    }
    let failed = paths.keys().any(|path| path.starts_with("failed"));
    assert!(!failed, "{paths:#?}");
    assert!((1..=HALF_OPEN_MAX).contains(&most), "{most} half open");
}
