//! What users see of the limits that an operator sets for the relay, with the
//! real binaries.

use std::fs;

use pinhole_tests::process::Process;
use pinhole_tests::scene::{Peer, SOON, Scene};

fn send(alice: &Peer<'_>, scene: &Scene, size: usize) -> Process {
    let file = scene.file("file", &vec![7; size]);
    let file = file.to_str().expect("a path in UTF-8");
    alice.start(&["--path", "relay", "send", "bob", file])
}

#[test]
fn a_day_s_worth_ends_a_transfer_with_words_and_does_not_begin_another() {
    let scene = Scene::with_server(&["--relay-bytes", "2M"]);
    let (alice, bob) = (scene.peer("alice"), scene.peer("bob"));
    let mut receiving = bob.receive(&[]);
    let sent = send(&alice, &scene, 5_000_000).end(SOON);
    assert_eq!(sent.code, Some(6), "{sent:#?}");
    let words = "all that its operator allows the two of you in a day";
    assert!(format!("{sent:?}").contains(words), "{sent:#?}");
    let failed = receiving.event("failed", SOON).to_string();
    assert!(failed.contains(words), "{failed}");
    // The next attempt is told, too, by whoever refuses it.
    let again = send(&alice, &scene, 5_000_000).end(SOON);
    assert_eq!(again.code, Some(6), "{again:#?}");
    assert!(format!("{again:?}").contains(words), "{again:#?}");
    assert!(!bob.inbox.join("file").exists());
}

#[test]
fn a_pair_is_carried_no_faster_than_the_operator_says() {
    let scene = Scene::with_server(&["--relay-rate", "2M"]);
    let (alice, bob) = (scene.peer("alice"), scene.peer("bob"));
    let receiving = bob.receive(&["--once"]);
    let sent = send(&alice, &scene, 4_000_000).end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    let elapsed_ms = sent.event("completed")["elapsed_ms"].as_u64();
    assert!(elapsed_ms.is_some_and(|ms| ms > 1_500), "{sent:#?}");
    assert_eq!(receiving.end(SOON).code, Some(0));
    let arrived = fs::read(bob.inbox.join("file")).expect("the file");
    assert_eq!(arrived.len(), 4_000_000);
}

#[test]
fn a_server_without_a_relay_is_told_as_the_reason() {
    let scene = Scene::with_server(&["--no-relay"]);
    let (alice, bob) = (scene.peer("alice"), scene.peer("bob"));
    let _receiving = bob.receive(&[]);
    let sent = send(&alice, &scene, 10).end(SOON);
    assert_eq!(sent.code, Some(6), "{sent:#?}");
    assert!(
        format!("{sent:?}").contains("the server offers none"),
        "{sent:#?}"
    );
}
