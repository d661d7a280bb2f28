//! The real binaries behind real NATs.
#![cfg(target_os = "linux")]

use std::fs;
use std::time::Duration;

use pinhole_tests::lab::{self, Host, Lab, Plan, Router, Site, Stack, Unsolicited};
use pinhole_tests::scene::{SOON, Scene};

const RUNS: usize = 20;

/// Sends a small file `runs` times and tells the path of each run.
fn paths(lab: &Lab, runs: usize) -> Vec<String> {
    let scene = Scene::in_lab(lab);
    let bob = scene.peer_in(lab, Host::B, "bob");
    let alice = scene.peer_in(lab, Host::A, "alice");
    let _receiving = bob.receive(&[]);
    let mut paths = Vec::new();
    for run in 0..runs {
        let name = format!("run-{run}");
        let content = format!("content of {name}");
        let file = scene.file(&name, content.as_bytes());
        let sent = alice.send("bob", &[&file]).end(SOON);
        assert_eq!(sent.code, Some(0), "run {run}, after {paths:?}: {sent:#?}");
        let arrived = fs::read_to_string(bob.inbox.join(&name)).expect("the file has arrived");
        assert_eq!(arrived, content);
        paths.push(
            sent.event("connected")["path"]
                .as_str()
                .expect("a path")
                .to_owned(),
        );
    }
    paths
}

fn always_punched(unsolicited: Unsolicited) {
    let router = Router {
        unsolicited,
        ..Router::HOME
    };
    let Some(lab) = lab::build_or_skip(Plan::two_sites(router, router)) else {
        return;
    };
    assert_eq!(paths(&lab, RUNS), vec!["punched"; RUNS]);
}

#[test]
fn stable_nats_that_drop_strangers_are_punched() {
    always_punched(Unsolicited::Silence);
}

#[test]
fn stable_nats_that_reset_strangers_are_punched() {
    always_punched(Unsolicited::Reset);
}

#[test]
fn stable_nats_that_answer_strangers_with_icmp_are_punched() {
    always_punched(Unsolicited::Icmp);
}

#[test]
fn peers_on_one_lan_meet_there() {
    let Some(lab) = lab::build_or_skip(Plan::one_lan(Router::HOME)) else {
        return;
    };
    assert_eq!(paths(&lab, 3), ["lan"; 3]);
}

#[test]
fn ipv6_is_preferred_and_opens_stateful_firewalls() {
    let site = Site {
        stack: Stack::Dual,
        ..Router::HOME.into()
    };
    let plan = Plan::two_sites(site, site);
    let Some(lab) = lab::build_or_skip(plan) else {
        return;
    };
    assert_eq!(paths(&lab, 3), ["ipv6"; 3]);
}

fn two_symmetric() -> Plan {
    Plan::two_sites(Router::SYMMETRIC, Router::SYMMETRIC)
}

#[test]
fn two_symmetric_nats_need_the_relay() {
    let Some(lab) = lab::build_or_skip(two_symmetric()) else {
        return;
    };
    assert_eq!(paths(&lab, 2), ["relay"; 2]);
}

#[test]
fn without_the_relay_two_symmetric_nats_leave_no_path() {
    let Some(lab) = lab::build_or_skip(two_symmetric()) else {
        return;
    };
    let scene = Scene::in_lab(&lab);
    let bob = scene.peer_in(&lab, Host::B, "bob");
    let alice = scene.peer_in(&lab, Host::A, "alice");
    let _receiving = bob.receive(&[]);
    let file = scene.file("file", b"content");
    let file = file.to_str().expect("a path in UTF-8");
    let sent = alice
        .start(&["--path", "direct", "send", "bob", file])
        .end(SOON);
    assert_eq!(sent.code, Some(6), "{sent:#?}");
    assert_eq!(fs::read_dir(&bob.inbox).expect("the inbox").count(), 0);
}

#[test]
fn the_relay_carries_only_ciphertext() {
    const MARKER: &[u8] = b"a marker that nobody on the way may read";
    const CONTROL: &str = "a marker that everybody on the way may read";
    let Some(lab) = lab::build_or_skip(two_symmetric()) else {
        return;
    };
    let scene = Scene::in_lab(&lab);
    let bob = scene.peer_in(&lab, Host::B, "bob");
    let alice = scene.peer_in(&lab, Host::A, "alice");
    let _receiving = bob.receive(&[]);
    let content = MARKER.repeat(10_000);
    let file = scene.file("marked-file-name.txt", &content);
    let sent = alice.send("bob", &[&file]).end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    assert_eq!(sent.event("connected")["path"], "relay");
    let arrived = fs::read(bob.inbox.join("marked-file-name.txt")).expect("the file");
    assert!(arrived == content, "the file differs");

    // In clear over the same line: proves that the search finds what is there.
    let mut shout = lab.command(Host::A, "bash".as_ref());
    let script = format!("echo -n '{CONTROL}' >/dev/udp/{}/9", Lab::SERVER);
    assert!(
        shout
            .args(["-c", &script])
            .status()
            .expect("bash")
            .success()
    );
    let contains = |capture: &[u8], text: &[u8]| capture.windows(text.len()).any(|w| w == text);
    let capture = wait_until(|| {
        let capture = fs::read(lab.capture()).expect("the capture");
        contains(&capture, CONTROL.as_bytes()).then_some(capture)
    });
    assert!(
        capture.len() > 2 * content.len(),
        "the file crossed both lines"
    );
    assert!(!contains(&capture, MARKER));
    assert!(!contains(&capture, b"marked-file-name"));
}

/// Asks until there is an answer.
fn wait_until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + SOON;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(std::time::Instant::now() < deadline, "not within {SOON:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
