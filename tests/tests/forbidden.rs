//! Networks that forbid, and what they and a peer must not learn, with the real
//! binaries in a laboratory.
#![cfg(target_os = "linux")]

use std::fs;
use std::time::{Duration, Instant};

use pinhole_tests::lab::{self, Host, Lab, Outbound, Plan, Router, Site, Stack};
use pinhole_tests::process::{EndedProcess, Process};
use pinhole_tests::scene::{Peer, SOON, Scene};

/// Both ports at which clients look when an address names none.
const USUAL: [&str; 4] = [
    "203.0.113.1:4747",
    "203.0.113.1:443",
    "[2001:db8:5::1]:4747",
    "[2001:db8:5::1]:443",
];

/// An observation that nobody answers takes 3 s: whoever waits for one is late.
const NO_WAIT: Duration = Duration::from_millis(2_500);

fn letting_out(outbound: Outbound) -> Router {
    Router {
        outbound,
        ..Router::HOME
    }
}

/// A server at both usual ports, and two peers that know its address without a
/// port.
struct Office<'a> {
    scene: Scene,
    alice: Peer<'a>,
    bob: Peer<'a>,
}

impl Office<'_> {
    /// Sends a file from A to B; returns what alice said.
    fn send(&self, environment: &[(&str, &str)]) -> EndedProcess {
        let receiving = self.bob.receive(&["--once"]);
        let file = self.scene.file("file", &vec![7; 300_000]);
        let file = file.to_str().expect("a path in UTF-8");
        let mut command = self.alice.command(&["send", "bob", file]);
        command.envs(environment.iter().copied());
        let begin = Instant::now();
        let mut sending = Process::start("alice", command);
        sending.event("logged_in", SOON);
        let logged_in_after = begin.elapsed();
        let sent = sending.end(SOON);
        assert_eq!(sent.code, Some(0), "{sent:#?}");
        assert_eq!(receiving.end(SOON).code, Some(0));
        assert_eq!(
            fs::read(self.bob.inbox.join("file"))
                .expect("the file")
                .len(),
            300_000
        );
        fs::remove_file(self.bob.inbox.join("file")).expect("removing it");
        let connected = sent.event("connected");
        println!(
            "logged in after {logged_in_after:?}; {} after {} ms more",
            connected["path"], connected["elapsed_ms"]
        );
        assert!(logged_in_after < NO_WAIT, "{logged_in_after:?}");
        sent
    }
}

fn office<'a>(lab: &'a Lab, servers: [&str; 2]) -> Office<'a> {
    let scene = Scene::in_lab_at(lab, &USUAL);
    let (_, fingerprint) = scene.server_address.split_once('#').expect("a fingerprint");
    let peer = |host, name, server| {
        let mut peer = scene.peer_in(lab, host, name);
        peer.server_address = format!("{server}#{fingerprint}");
        peer
    };
    let alice = peer(Host::A, "alice", servers[0]);
    let bob = peer(Host::B, "bob", servers[1]);
    Office { alice, bob, scene }
}

#[test]
fn where_only_tls_on_port_443_gets_out_the_relay_serves_at_once() {
    let plan = Plan::two_sites(letting_out(Outbound::TlsOn443), Router::HOME);
    let Some(lab) = lab::build_or_skip(plan) else {
        return;
    };
    let office = office(&lab, [Lab::SERVER; 2]);
    let connected = office.send(&[]);
    assert_eq!(connected.event("connected")["path"], "relay");
    let remote = connected.event("connected")["remote"].to_string();
    assert!(remote.contains(":443"), "{remote}");
}

#[test]
fn where_only_a_proxy_gets_out_it_leads_to_the_relay() {
    let plan = Plan::two_sites(letting_out(Outbound::Nothing), Router::HOME);
    let Some(lab) = lab::build_or_skip(plan) else {
        return;
    };
    let proxy = lab.start_proxy(Host::A, Some("alice:open sesame"));
    let office = office(&lab, [Lab::SERVER; 2]);
    let url = format!("http://alice:open%20sesame@{proxy}");
    let connected = office.send(&[("https_proxy", &url)]);
    let remote = connected.event("connected")["remote"].clone();
    assert_eq!(connected.event("connected")["path"], "relay");
    assert_eq!(remote, proxy.to_string());

    // Another password, and none: the answer says what is wrong, and shows none.
    for (url, words) in [
        (
            format!("http://alice:guess@{proxy}"),
            "does not accept the user name",
        ),
        (
            format!("http://{proxy}"),
            "asks for a user name and a password",
        ),
    ] {
        let mut command = office.alice.command(&["peers"]);
        command.env("PINHOLE_PROXY", url);
        let ended = Process::start("alice", command).end(SOON);
        assert_eq!(ended.code, Some(6), "{ended:#?}");
        let said = format!("{ended:?}");
        assert!(said.contains(words), "{said}");
        assert!(
            !said.contains("guess") && !said.contains("sesame"),
            "{said}"
        );
    }
}

#[test]
fn beside_a_proxy_the_direct_way_is_found_where_it_is_open() {
    let Some(lab) = lab::build_or_skip(Plan::two_sites(Router::HOME, Router::HOME)) else {
        return;
    };
    let proxy = lab.start_proxy(Host::B, None);
    let office = office(&lab, [Lab::SERVER; 2]);
    let inbox = office.bob.inbox.to_str().expect("a path in UTF-8");
    let mut command = office
        .bob
        .command(&["receive", "--accept", "all", "--into", inbox]);
    command.env("https_proxy", format!("http://{proxy}"));
    let mut receiving = Process::start("bob", command);
    receiving.event("logged_in", SOON);
    // The first ports are ready before the direct way is known.
    let deadline = Instant::now() + SOON;
    let mut number = 0;
    loop {
        number += 1;
        let file = office.scene.file(&format!("file-{number}"), b"content");
        let sent = office.alice.send("bob", &[&file]).end(SOON);
        assert_eq!(sent.code, Some(0), "{sent:#?}");
        match sent.event("connected")["path"].as_str() {
            Some("punched") => return,
            Some("relay") => assert!(Instant::now() < deadline, "still the relay"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn hosts_of_different_families_meet_at_the_relay_and_of_one_directly() {
    let of = |stack| Site {
        stack,
        ..Router::HOME.into()
    };
    let v6 = format!("[{}]", Lab::SERVER_V6);
    for (b, server_of_b, path) in [
        (Stack::V4, Lab::SERVER, "relay"),
        (Stack::Dual, Lab::SERVER, "ipv6"),
        (Stack::V6, &v6, "ipv6"),
    ] {
        let Some(lab) = lab::build_or_skip(Plan::two_sites(of(Stack::V6), of(b))) else {
            return;
        };
        let office = office(&lab, [&v6, server_of_b]);
        assert_eq!(office.send(&[]).event("connected")["path"], path, "{b:?}");
    }
}

/// Whether any packet in the capture goes between these two addresses.
fn goes_between(capture: &[u8], a: [u8; 4], b: [u8; 4]) -> bool {
    let pairs = [[a, b].concat(), [b, a].concat()];
    let mut places = capture.windows(8);
    places.any(|bytes| pairs.iter().any(|pair| pair == bytes))
}

#[test]
fn over_the_relay_alone_no_packet_and_no_word_tells_the_peer_an_address() {
    // Inside and outside.
    const OF_A: [[u8; 4]; 2] = [[10, 1, 0, 10], [198, 51, 100, 10]];
    const OF_B: [[u8; 4]; 2] = [[10, 2, 0, 10], [192, 0, 2, 10]];
    for (path_of_alice, is_hidden) in [("relay", true), ("auto", false)] {
        let plan = Plan::two_sites(Router::HOME, Router::HOME);
        let Some(lab) = lab::build_or_skip(plan) else {
            return;
        };
        let office = office(&lab, [Lab::SERVER; 2]);
        let mut receiving = office.bob.start(&[
            "receive",
            "--accept",
            "all",
            "--once",
            "--into",
            office.bob.inbox.to_str().expect("a path in UTF-8"),
        ]);
        receiving.event("logged_in", SOON);
        let file = office.scene.file("file", b"content");
        let file = file.to_str().expect("a path in UTF-8");
        let arguments = ["--path", path_of_alice, "send", "bob", file];
        let sent = office.alice.start(&arguments).end(SOON);
        assert_eq!(sent.code, Some(0), "{sent:#?}");
        let received = receiving.end(SOON);
        let capture = fs::read(lab.capture()).expect("the capture");
        let direct = OF_A
            .iter()
            .any(|&a| OF_B.iter().any(|&b| goes_between(&capture, a, b)));
        let told = OF_A.iter().any(|a| {
            let [a, b, c, d] = a;
            format!("{received:?}").contains(&format!("{a}.{b}.{c}.{d}"))
        });
        // The open path shows that the search finds what is there.
        assert_eq!(
            (direct, told),
            (!is_hidden, !is_hidden),
            "{path_of_alice}: {received:?}"
        );
    }
}
