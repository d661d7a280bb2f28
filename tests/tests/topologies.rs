//! Where two people may be beside behind two ordinary routers: each time the
//! best class of path that there is.
#![cfg(target_os = "linux")]

use std::time::Duration;

use pinhole_tests::lab::{
    self, Lab, Line, Outbound, Plan, Router, Site, Stack, Topology, Unsolicited,
};
use pinhole_tests::pair::Pair;

/// Runs of each.
const RUNS: usize = 3;

fn home() -> Site {
    Router::HOME.into()
}

fn behind_carrier() -> Site {
    Site {
        carrier: Some(Router::CARRIER),
        ..home()
    }
}

fn with_ipv6(unsolicited: Unsolicited) -> Site {
    let router = Router {
        unsolicited,
        ..Router::HOME
    };
    Site {
        stack: Stack::Dual,
        ..router.into()
    }
}

/// Asserts the class of every run, and prints how long they took.
fn always(plan: Plan, class: &str) {
    let Some(lab) = lab::build_or_skip(plan) else {
        return;
    };
    let mut pair = Pair::in_lab(&lab);
    let connections: Vec<_> = (0..RUNS).map(|_| pair.send()).collect();
    println!("{connections:?}");
    assert!(
        connections
            .iter()
            .all(|connection| connection.path == class),
        "{connections:?}"
    );
}

#[test]
fn peers_on_one_lan_meet_there() {
    always(Plan::one_lan(Router::HOME), "lan");
}

#[test]
fn peers_on_one_lan_meet_there_with_hairpinning_too() {
    let router = Router {
        hairpin: true,
        ..Router::HOME
    };
    always(Plan::one_lan(router), "lan");
}

#[test]
fn two_lans_with_equal_addresses_are_told_apart() {
    always(Plan::of(Topology::EqualSubnets(home(), home())), "punched");
}

#[test]
fn a_carrier_on_one_side_is_punched() {
    always(Plan::two_sites(behind_carrier(), home()), "punched");
}

#[test]
fn a_carrier_on_the_other_side_is_punched() {
    always(Plan::two_sites(home(), behind_carrier()), "punched");
}

#[test]
fn carriers_on_both_sides_are_punched() {
    always(
        Plan::two_sites(behind_carrier(), behind_carrier()),
        "punched",
    );
}

#[test]
fn two_homes_of_one_carrier_meet_by_its_hairpinning() {
    let topology = Topology::SharedCarrier {
        carrier: Router::CARRIER,
        routers: [Router::HOME; 2],
    };
    always(Plan::of(topology), "punched");
}

#[test]
fn a_large_file_fits_through_pppoe() {
    let pppoe = Site {
        mtu_bytes: 1492,
        ..home()
    };
    let Some(lab) = lab::build_or_skip(Plan::two_sites(pppoe, pppoe)) else {
        return;
    };
    let connection = Pair::in_lab(&lab).send();
    println!("{connection:?}");
    assert_eq!(connection.path, "punched");
}

#[test]
fn ipv6_is_preferred_and_opens_firewalls_that_drop() {
    let site = with_ipv6(Unsolicited::Silence);
    always(Plan::two_sites(site, site), "ipv6");
}

#[test]
fn ipv6_opens_firewalls_that_reset() {
    let site = with_ipv6(Unsolicited::Reset);
    always(Plan::two_sites(site, site), "ipv6");
}

#[test]
fn ipv6_opens_firewalls_that_answer_with_icmp() {
    let site = with_ipv6(Unsolicited::Icmp);
    always(Plan::two_sites(site, site), "ipv6");
}

#[test]
fn ipv6_at_one_side_only_is_passed_over() {
    let dual = with_ipv6(Unsolicited::Silence);
    always(Plan::two_sites(dual, home()), "punched");
}

#[test]
fn a_site_with_ipv6_only_meets_one_with_both() {
    let only = Site {
        stack: Stack::V6,
        ..home()
    };
    let dual = with_ipv6(Unsolicited::Silence);
    let Some(lab) = lab::build_or_skip(Plan::two_sites(only, dual)) else {
        return;
    };
    let mut pair = Pair::in_lab(&lab);
    let v6 = format!("[{}]", Lab::SERVER_V6);
    pair.alice.server_address = pair.alice.server_address.replace(Lab::SERVER, &v6);
    let connections: Vec<_> = (0..RUNS).map(|_| pair.send()).collect();
    println!("{connections:?}");
    assert!(
        connections.iter().all(|c| c.path == "ipv6"),
        "{connections:?}"
    );
}

#[test]
fn blocked_udp_is_nobodys_concern() {
    let router = Router {
        outbound: Outbound::NoUdp,
        ..Router::HOME
    };
    always(Plan::two_sites(router, router), "punched");
}

/// Five of a hundred frames lost on each line, and 300 ms there and back
/// between the peers. What the kernel's congestion control makes of that is
/// not the question, so the files are small.
fn a_bad_line(runs: usize) {
    let line = Line {
        loss_percent: 5,
        ..Line::delayed(Duration::from_millis(75))
    };
    let plan = Plan {
        line,
        ..Plan::two_sites(Router::HOME, Router::HOME)
    };
    let Some(lab) = lab::build_or_skip(plan) else {
        return;
    };
    let mut pair = Pair::in_lab(&lab);
    let direct = (0..runs)
        .filter(|_| pair.send_bytes(64 << 10).path == "punched")
        .count();
    println!("{runs} of {runs} connected, {direct} of them directly");
}

#[test]
fn a_bad_line_connects() {
    a_bad_line(3);
}

#[test]
#[ignore = "takes minutes"]
fn a_bad_line_connects_twenty_times_of_twenty() {
    a_bad_line(20);
}
