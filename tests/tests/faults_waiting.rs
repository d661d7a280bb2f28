//! Who waits with `send --wait`, for whom and until when, with the real binaries.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use pinhole_tests::scene::{SOON, Scene};
use pinhole_tests::tree;

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[test]
fn waiting_goes_on_while_the_other_does_something_else() {
    let scene = Scene::on_loopback();
    let (alice, bob) = (scene.peer("alice"), scene.peer("bob"));
    let file = scene.file("file", b"content");
    // He is online, but does not receive.
    let mut busy = bob.start(&["send", "--wait", "nobody", text(&file)]);
    busy.event("waiting", SOON);
    let refused = alice.send("bob", &[&file]).end(SOON);
    assert_eq!(refused.code, Some(4), "{refused:#?}");
    let failed = refused.event("failed");
    assert_eq!(failed["kind"], "peer_offline");
    let reason = failed["reason"].as_str().expect("a reason");
    assert!(reason.contains("does not receive"), "{reason}");
    let mut waiting = alice.start(&["send", "--wait", "bob", text(&file)]);
    while waiting.event("waiting", SOON)["until"] != "receiving" {}
    busy.interrupt();
    assert_eq!(busy.wait(SOON), Some(130));
    let start = Instant::now();
    let _receiving = bob.receive(&[]);
    let sent = waiting.end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "it is tried at once"
    );
}

#[test]
fn two_who_wait_for_each_other_go_on_waiting() {
    let scene = Scene::on_loopback();
    let (alice, bob) = (scene.peer("alice"), scene.peer("bob"));
    let file = scene.file("file", b"content");
    let mut first = alice.start(&["send", "--wait", "bob", text(&file)]);
    first.event("waiting", SOON);
    let mut second = bob.start(&["send", "--wait", "alice", text(&file)]);
    for process in [&mut first, &mut second] {
        while process.event("waiting", SOON)["until"] != "receiving" {}
    }
    second.interrupt();
    assert_eq!(second.wait(SOON), Some(130));
    let _receiving = bob.receive(&[]);
    assert_eq!(first.end(SOON).code, Some(0));
}

#[test]
fn waiting_goes_on_when_the_receiver_goes_away_in_the_middle() {
    let scene = Scene::on_loopback();
    let (alice, bob) = (scene.peer("alice"), scene.peer("bob"));
    let file = scene.folder.path().join("large");
    tree::write_file(&file, 12_000_000, 7).expect("a file");
    let mut waiting = alice.start(&["send", "--wait", "--limit", "4M", "bob", text(&file)]);
    waiting.event("waiting", SOON);
    for stop in ["INT", "TERM", "KILL"] {
        let mut receiving = bob.receive(&[]);
        while receiving.event("progress", SOON)["bytes"].as_u64() < Some(500_000) {}
        receiving.signal(stop);
        receiving.wait(SOON);
        waiting.event("waiting", SOON);
    }
    let mut receiving = bob.receive(&[]);
    receiving.event("completed", SOON);
    let sent = waiting.end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    let arrived = fs::read(bob.inbox.join("large")).expect("the file");
    assert!(
        arrived == fs::read(&file).expect("the original"),
        "they differ"
    );
}
