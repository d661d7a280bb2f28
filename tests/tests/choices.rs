//! What people can choose on the command line, with the real binaries.

use std::fs;
use std::path::{Path, PathBuf};

use pinhole_tests::process::Ended;
use pinhole_tests::scene::{Peer, SOON, Scene};
use pinhole_tests::tree;
use serde_json::Value;

fn alice_and_bob(scene: &Scene) -> (Peer<'static>, Peer<'static>) {
    (scene.peer("alice"), scene.peer("bob"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// A file of that size whose chunks all differ.
fn large_file(scene: &Scene, name: &str, size_bytes: u64) -> PathBuf {
    let path = scene.folder.path().join(name);
    tree::write_file(&path, size_bytes, 7).expect("a file");
    path
}

#[track_caller]
fn completed(ended: &Ended) -> &Value {
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    ended.event("completed")
}

/// Sends two files, of which bob has one name already, and returns what both
/// sides say of the end.
fn send_beside_existing(scene: &Scene, existing: &str) -> (Peer<'static>, Ended, Ended) {
    let (alice, bob) = alice_and_bob(scene);
    let files = [
        scene.file("report.pdf", b"the new one"),
        scene.file("notes.txt", b"new"),
    ];
    fs::write(bob.inbox.join("report.pdf"), "the old one").expect("a file");
    let receiving = bob.receive(&["--once", "--existing", existing]);
    let sent = alice.send("bob", &[&files[0], &files[1]]).end(SOON);
    (bob, sent, receiving.end(SOON))
}

#[track_caller]
fn assert_inbox(bob: &Peer<'_>, expected: &[(&str, &str)]) {
    let mut found: Vec<(String, String)> = fs::read_dir(&bob.inbox)
        .expect("the inbox")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let content = fs::read_to_string(&path).expect("a file");
            let name = path.file_name().expect("a name").to_string_lossy();
            (name.into_owned(), content)
        })
        .collect();
    found.sort();
    let found: Vec<_> = found.iter().map(|(n, c)| (&**n, &**c)).collect();
    assert_eq!(found, expected);
}

#[test]
fn what_is_there_gets_a_neighbour_with_a_number() {
    let scene = Scene::on_loopback();
    let (bob, sent, received) = send_beside_existing(&scene, "rename");
    assert_eq!(completed(&sent)["skipped_files"], 0);
    assert_eq!(completed(&received)["files"], 2);
    let expected = [
        ("notes.txt", "new"),
        ("report (1).pdf", "the new one"),
        ("report.pdf", "the old one"),
    ];
    assert_inbox(&bob, &expected);
}

#[test]
fn what_is_there_can_be_skipped() {
    let scene = Scene::on_loopback();
    let (bob, sent, received) = send_beside_existing(&scene, "skip");
    for side in [&sent, &received] {
        let completed = completed(side);
        assert_eq!(completed["skipped_files"], 1, "{completed}");
        assert_eq!(completed["files"], 1, "{completed}");
        assert_eq!(completed["bytes"], 3, "{completed}");
    }
    assert_inbox(&bob, &[("notes.txt", "new"), ("report.pdf", "the old one")]);
}

#[test]
fn what_is_there_can_be_replaced() {
    let scene = Scene::on_loopback();
    let (bob, sent, received) = send_beside_existing(&scene, "replace");
    assert_eq!(completed(&sent)["skipped_files"], 0);
    assert_eq!(completed(&received)["files"], 2);
    assert_inbox(&bob, &[("notes.txt", "new"), ("report.pdf", "the new one")]);
}

#[test]
fn only_so_much_is_taken_without_asking() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let mut receiving = bob.receive(&["--max-size", "1k"]);
    let (small, large) = (
        scene.file("small", &[1; 1000]),
        scene.file("large", &[1; 1001]),
    );
    let declined = alice.send("bob", &[&large]).end(SOON);
    assert_eq!(declined.code, Some(5), "{declined:#?}");
    let told = receiving.event("failed", SOON);
    let reason = told["reason"].as_str().expect("a reason");
    assert!(reason.contains("more than 1.00 kB"), "{reason}");
    completed(&alice.send("bob", &[&small]).end(SOON));
    receiving.event("completed", SOON);
    assert!(bob.inbox.join("small").exists());
    assert!(!bob.inbox.join("large").exists());
}

#[test]
#[cfg(unix)]
fn programs_stay_programs_when_asked_for() {
    use std::os::unix::fs::PermissionsExt as _;
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let program = scene.file("program", b"#!/bin/sh\n");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("permissions");
    let is_program = |name| {
        let metadata = fs::metadata(bob.inbox.join(name)).expect("what arrived");
        metadata.permissions().mode() & 0o111 != 0
    };
    for (name, choice) in [("program", None), ("program (1)", Some("--executable"))] {
        let more: Vec<_> = ["--once"].into_iter().chain(choice).collect();
        let receiving = bob.receive(&more);
        completed(&alice.send("bob", &[&program]).end(SOON));
        completed(&receiving.end(SOON));
        assert_eq!(is_program(name), choice.is_some(), "{name}");
    }
}

/// 4 MB at 2 MB a second, within 15 %.
#[track_caller]
fn assert_took_two_seconds(ended: &Ended) {
    let elapsed_ms = completed(ended)["elapsed_ms"].as_u64().expect("a time");
    assert!((1_700..=2_300).contains(&elapsed_ms), "{elapsed_ms} ms");
}

#[test]
fn a_limit_on_sending_is_kept() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let file = large_file(&scene, "file", 4_000_000);
    let receiving = bob.receive(&["--once"]);
    let sending = alice.start(&["send", "--limit", "2M", "bob", text(&file)]);
    assert_took_two_seconds(&sending.end(SOON));
    assert_took_two_seconds(&receiving.end(SOON));
}

#[test]
fn a_limit_on_receiving_is_kept() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let file = large_file(&scene, "file", 4_000_000);
    let receiving = bob.receive(&["--once", "--limit", "2MB/s"]);
    let sending = alice.send("bob", &[&file]);
    assert_took_two_seconds(&sending.end(SOON));
    assert_took_two_seconds(&receiving.end(SOON));
}

#[test]
#[cfg(target_os = "linux")]
fn a_part_of_an_offer_is_chosen_by_numbers() {
    use pinhole_tests::process::Process;
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let album = scene.folder.path().join("album");
    fs::create_dir(&album).expect("a folder");
    fs::write(album.join("one.jpg"), "1").expect("a file");
    let files = ["a", "b", "c"].map(|name| scene.file(name, name.as_bytes()));
    let inbox = text(&bob.inbox).to_owned();
    let arguments = ["receive", "--into", &inbox, "--accept", "ask", "--once"];
    let mut receiving = Process::on_terminal("bob", &bob.command(&arguments));
    receiving.event("logged_in", SOON);
    let sending = alice.send("bob", &[&files[0], &album, &files[1], &files[2]]);
    receiving.event("offered", SOON);
    receiving.type_line("all of it");
    receiving.type_line("2-3");
    let sent = sending.end(SOON);
    assert_eq!(completed(&sent)["skipped_files"], 2);
    assert_eq!(receiving.wait(SOON), Some(0));
    let arrived = tree::read(&bob.inbox).expect("what arrived");
    let names: Vec<_> = arrived.keys().collect();
    assert_eq!(names, ["album", "album/one.jpg", "b"]);
}
