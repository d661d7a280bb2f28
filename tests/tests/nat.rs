//! The real binaries behind real NATs.
#![cfg(target_os = "linux")]

use std::fs;
use std::time::Duration;

use pinhole_tests::lab::{
    self, Host, Lab, NatFiltering, NatMapping, Order, Plan, Router, Unsolicited,
};
use pinhole_tests::pair::paths;
use pinhole_tests::scene::{SOON, Scene};

/// Twenty of each at night, in the matrix.
const RUNS: usize = 5;

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

/// The n-th dial of one side has to meet the n-th of the other.
#[test]
fn two_nats_that_count_are_punched_where_both_sides_foresee() {
    let router = Router::of(
        NatMapping::AddressAndPortDependent(Order::Sequential),
        NatFiltering::AddressAndPortDependent,
    );
    let Some(lab) = lab::build_or_skip(Plan::two_sites(router, router)) else {
        return;
    };
    assert_eq!(paths(&lab, RUNS), vec!["punched"; RUNS]);
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
