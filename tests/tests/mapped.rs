//! A router that opens ports when asked, with the real `miniupnpd`: whoever is
//! behind it is reached directly by everybody.
#![cfg(target_os = "linux")]

use std::process::Command;

use pinhole_tests::lab::{self, Lab, Plan, Router, RouterPortMapping, TYPES};
use pinhole_tests::pair::Pair;

const RUNS: usize = 3;

/// One that is hopeless without a mapping.
fn opens_ports_by(protocol: RouterPortMapping) -> Router {
    Router {
        port_mapping: Some(protocol),
        ..Router::SYMMETRIC
    }
}

fn skipped() -> bool {
    let is_there = Command::new("/usr/sbin/miniupnpd").arg("-h").output();
    lab::skipped() || {
        let missing = is_there.is_err();
        if missing {
            eprintln!("SKIPPED: miniupnpd is not installed");
        }
        missing
    }
}

/// The runs that ended on a direct path, of [`RUNS`].
fn direct(a: Router, b: Router, name: &str) -> usize {
    let lab = Lab::build(Plan::two_sites(a, b));
    let mut pair = Pair::in_lab(&lab);
    let connections: Vec<_> = (0..RUNS).map(|_| pair.send()).collect();
    let direct = connections.iter().filter(|c| c.path != "relay").count();
    let told = connections.iter().map(|c| {
        let moved = c.moved_after.map(|after| after.as_millis());
        (&*c.began, &*c.path, c.elapsed_ms, moved)
    });
    println!("{name}: {direct} of {RUNS}, {:?}", told.collect::<Vec<_>>());
    direct
}

fn is_reached_and_reaches(protocol: RouterPortMapping) {
    if skipped() {
        return;
    }
    let (open, closed) = (opens_ports_by(protocol), Router::SYMMETRIC);
    for (a, b, name) in [(open, closed, "sender"), (closed, open, "receiver")] {
        let name = format!("{protocol:?} at the {name}'s");
        assert_eq!(direct(a, b, &name), RUNS, "{name}");
    }
}

#[test]
fn upnp_alone_makes_two_symmetric_nats_direct() {
    is_reached_and_reaches(RouterPortMapping::Upnp);
}

#[test]
fn nat_pmp_alone_makes_two_symmetric_nats_direct() {
    is_reached_and_reaches(RouterPortMapping::NatPmp);
}

#[test]
fn pcp_alone_makes_two_symmetric_nats_direct() {
    is_reached_and_reaches(RouterPortMapping::Pcp);
}

#[test]
#[ignore = "takes ten minutes"]
fn every_pair_with_a_router_that_opens_ports_is_direct() {
    if skipped() {
        return;
    }
    let mut relayed = Vec::new();
    for protocol in [
        RouterPortMapping::Upnp,
        RouterPortMapping::NatPmp,
        RouterPortMapping::Pcp,
    ] {
        for (kind, other) in TYPES {
            let name = format!("{protocol:?} × {kind}");
            if direct(opens_ports_by(protocol), other, &name) < RUNS {
                relayed.push(name);
            }
        }
    }
    assert!(relayed.is_empty(), "{relayed:#?}");
}
