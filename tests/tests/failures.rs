//! What goes wrong is said, with the exit code that scripts rely on, and
//! leaves nothing half-written under a final name.
#![cfg(unix)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pinhole_tests::process::{EndedProcess, Process};
use pinhole_tests::scene::{Peer, SOON, Scene};
use pinhole_tests::tree;
use serde_json::Value;

const LONG: Duration = Duration::from_secs(120);

/// The exit code and a word of the reason given.
#[track_caller]
fn assert_failed(ended: &EndedProcess, code: i32, word: &str) {
    assert_eq!(ended.code, Some(code), "{ended:#?}");
    let reason = ended.event("failed")["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(word), "{word:?} is not in {reason:?}");
}

/// Nothing in the folder but what is plainly a part of something.
#[track_caller]
fn assert_nothing_final(folder: &Path) {
    for entry in fs::read_dir(folder).expect("the folder") {
        let name = entry
            .expect("an entry")
            .file_name()
            .into_string()
            .expect("a name");
        assert!(
            name.ends_with(".pinhole-part"),
            "{name} stands under a final name"
        );
    }
}

/// A file of that size that takes no time to make and no space to keep.
fn sparse_file(scene: &Scene, name: &str, size_bytes: u64) -> PathBuf {
    let path = scene.folder.path().join(name);
    File::create(&path)
        .and_then(|file| file.set_len(size_bytes))
        .expect("a sparse file");
    path
}

fn alice_and_bob(scene: &Scene) -> (Peer<'static>, Peer<'static>) {
    (scene.peer("alice"), scene.peer("bob"))
}

#[test]
fn a_taken_name() {
    let scene = Scene::on_loopback();
    let rightful = scene.peer("alice").receive(&[]);
    drop(rightful);
    let mut other = scene.peer("somebody-else");
    "alice".clone_into(&mut other.name);
    let ended = other.start(&["peers"]).end(SOON);
    assert_failed(&ended, 3, "belongs to somebody else");
}

#[test]
fn an_unknown_peer() {
    let scene = Scene::on_loopback();
    let file = scene.file("file", b"content");
    let ended = scene.peer("alice").send("nobody", &[&file]).end(SOON);
    assert_failed(&ended, 4, "nobody");
}

#[test]
fn a_misspelt_command() {
    let scene = Scene::on_loopback();
    assert_eq!(
        scene.peer("alice").start(&["send", "bob"]).end(SOON).code,
        Some(2)
    );
}

#[test]
fn a_missing_source() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let _receiving = bob.receive(&[]);
    let missing = scene.folder.path().join("not there");
    assert_failed(&alice.send("bob", &[&missing]).end(SOON), 8, "not there");
    let file = scene.file("file", b"content");
    let inside = file.join("inside");
    assert_failed(&alice.send("bob", &[&inside]).end(SOON), 8, "no folder");
}

#[test]
fn a_source_that_is_never_sent() {
    let scene = Scene::on_loopback();
    let alice = scene.peer("alice");
    let link = scene.folder.path().join("lnk");
    std::os::unix::fs::symlink("/etc", &link).expect("a link");
    for path in [link.clone(), link.join("")] {
        let ended = alice.send("bob", &[&path]).end(SOON);
        assert_failed(&ended, 8, "links are not sent");
        assert_eq!(ended.events.len(), 1, "nobody was asked: {ended:#?}");
    }
    let special = alice.send("bob", &[Path::new("/dev/null")]).end(SOON);
    assert_failed(&special, 8, "not a regular file");
}

#[test]
fn a_destination_that_is_no_folder() {
    let scene = Scene::on_loopback();
    let file = scene.file("file", b"content");
    let into = file.to_str().expect("UTF-8");
    let ended = scene
        .peer("bob")
        .start(&["receive", "--into", into])
        .end(SOON);
    assert_failed(
        &ended,
        8,
        &format!("Cannot receive into {into}: not a folder."),
    );
    assert_eq!(ended.events.len(), 1, "nobody was asked: {ended:#?}");
}

#[test]
fn ourselves() {
    let scene = Scene::on_loopback();
    let file = scene.file("file", b"content");
    let ended = scene.peer("alice").send("alice", &[&file]).end(SOON);
    assert_failed(&ended, 1, "you yourself");
}

#[test]
fn a_declined_offer() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let inbox = bob.inbox.to_str().expect("a folder in UTF-8");
    // With nobody at the keyboard, the answer is no.
    let mut receiving = bob.start(&["receive", "--into", inbox, "--accept", "ask"]);
    receiving.event("logged_in", SOON);
    let file = scene.file("file", b"content");
    assert_failed(&alice.send("bob", &[&file]).end(SOON), 5, "declined");
    assert_nothing_final(&bob.inbox);
}

#[test]
fn a_peer_whose_key_has_changed() {
    let mut scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let file = scene.file("file", b"content");
    let receiving = bob.receive(&["--once"]);
    assert_eq!(alice.send("bob", &[&file]).end(SOON).code, Some(0));
    assert_eq!(receiving.end(SOON).code, Some(0));

    // Only a server that has lost its names lets another key be bob.
    scene.forget_names();
    let mut impostor = scene.peer("impostor");
    "bob".clone_into(&mut impostor.name);
    let waiting = impostor.receive(&[]);
    let refused = alice.send("bob", &[&file]).end(SOON);
    assert_failed(&refused, 7, "key has changed");
    assert_nothing_final(&impostor.inbox);

    // The other way round it is said, too.
    let (known, now) = (fingerprint(&bob), fingerprint_of(waiting, &impostor));
    let advice = format!("pinhole trust bob {}", now.as_str().expect("text"));
    assert_failed(&refused, 7, &advice);
    let mut receiving = alice.receive(&[]);
    let sent = impostor.send("alice", &[&file]).end(SOON);
    assert_failed(&sent, 7, "another key under your name");
    let told = receiving.event("key_refused", SOON);
    assert_eq!(told["peer"], "bob");
    assert_eq!((&told["known"], &told["fingerprint"]), (&known, &now));
    receiving.interrupt();
    receiving.wait(SOON);

    let trust = |fingerprint: &Value| {
        let fingerprint = fingerprint.as_str().expect("text");
        alice.start(&["trust", "bob", fingerprint]).end(SOON)
    };
    assert_failed(&trust(&now), 4, "bob");
    let receiving = impostor.receive(&["--once"]);
    assert_failed(&trust(&known), 7, "Nothing was changed");
    assert_failed(&alice.send("bob", &[&file]).end(SOON), 7, "key has changed");
    assert_eq!(trust(&now).event("trusted")["fingerprint"], now);
    assert_eq!(alice.send("bob", &[&file]).end(SOON).code, Some(0));
    assert_eq!(receiving.end(SOON).code, Some(0));
}

fn fingerprint(peer: &Peer<'_>) -> Value {
    peer.start(&["id"]).end(SOON).event("id")["fingerprint"].clone()
}

/// The same of one that is running, which ends.
fn fingerprint_of(running: Process, peer: &Peer<'_>) -> Value {
    running.interrupt();
    let _ = running.end(SOON);
    fingerprint(peer)
}

#[test]
fn a_server_with_another_key_than_the_address_says() {
    let (scene, other) = (Scene::on_loopback(), Scene::on_loopback());
    let (address, _) = scene.server_address.split_once('#').expect("a fingerprint");
    let (_, fingerprint) = other.server_address.split_once('#').expect("a fingerprint");
    let mut alice = scene.peer("alice");
    alice.server_address = format!("{address}#{fingerprint}");
    let ended = alice.start(&["peers"]).end(SOON);
    assert_failed(&ended, 7, "another key than");
    assert_eq!(ended.event("failed")["kind"], "server_key_changed");
}

#[test]
fn a_receiver_that_is_killed() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let mut receiving = bob.receive(&[]);
    let file = sparse_file(&scene, "large", 2 << 30);
    let sending = alice.send("bob", &[&file]);
    receiving.event("progress", SOON);
    receiving.kill();
    assert_failed(&sending.end(SOON), 6, "bob was lost");
    assert_nothing_final(&bob.inbox);
}

#[test]
fn a_sender_that_is_killed() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let mut receiving = bob.receive(&["--once"]);
    let file = sparse_file(&scene, "large", 2 << 30);
    let mut sending = alice.send("bob", &[&file]);
    receiving.event("progress", SOON);
    sending.kill();
    assert_failed(&receiving.end(SOON), 6, "alice was lost");
    assert_nothing_final(&bob.inbox);
}

#[test]
fn a_source_that_shrinks_meanwhile() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let mut receiving = bob.receive(&[]);
    let file = sparse_file(&scene, "shrinking", 2 << 30);
    let sending = alice.send("bob", &[&file]);
    receiving.event("progress", SOON);
    File::options()
        .write(true)
        .open(&file)
        .and_then(|f| f.set_len(1))
        .expect("cutting it short");
    let ended = sending.end(SOON);
    assert_eq!(ended.code, Some(8), "{ended:#?}");
    assert!(
        ended.event("file_failed")["path"]
            .as_str()
            .expect("a path")
            .contains("shrinking")
    );
    assert_nothing_final(&bob.inbox);
}

#[test]
fn a_source_that_vanishes_meanwhile() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let top = scene.folder.path().join("source");
    fs::create_dir(&top).expect("a folder");
    tree::write_file(&top.join("1 stays"), 512 << 20, 1).expect("a large file");
    let vanishing = top.join("2 vanishes");
    tree::write_file(&vanishing, 2 << 20, 2).expect("a file");
    let mut receiving = bob.receive(&[]);
    let sending = alice.send("bob", &[&top]);
    receiving.event("progress", SOON);
    fs::remove_file(&vanishing).expect("removing it");
    let ended = sending.end(LONG);
    assert_eq!(ended.code, Some(8), "{ended:#?}");
    assert!(
        ended.event("file_failed")["path"]
            .as_str()
            .expect("a path")
            .contains("2 vanishes")
    );
    let expected = tree::read(&top).expect("what is left");
    let arrived = tree::read(&bob.inbox.join("source")).expect("what arrived");
    assert_eq!(arrived, expected, "the other file arrives all the same");
}

#[test]
fn what_is_left_out_is_said_and_what_could_not_be_read_is_counted() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let top = scene.folder.path().join("top");
    // Deeper than an offer may be.
    let deep = (0..260).fold(top.clone(), |path, _| path.join("d"));
    fs::create_dir_all(&deep).expect("folders");
    fs::write(top.join("file"), "content").expect("a file");
    std::os::unix::fs::symlink("file", top.join("link")).expect("a link");
    let receiving = bob.receive(&["--once"]);
    let ended = alice.send("bob", &[&top]).end(SOON);
    assert_eq!(ended.code, Some(8), "{ended:#?}");
    assert_eq!(ended.event("completed")["unread"], 1);
    // The receiver hears of it, too.
    let received = receiving.end(SOON);
    assert_eq!(received.code, Some(8), "{received:#?}");
    assert_eq!(received.event("completed")["unread"], 1);
    let left_out: Vec<_> = ended
        .events
        .iter()
        .filter(|event| event["event"] == "left_out")
        .map(|event| event["reason"].as_str().expect("a reason"))
        .collect();
    assert_eq!(left_out, ["its path is too long", "a link"]);
}

/// A small file system of its own in memory, unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    /// Says aloud why the test is skipped where it cannot be mounted.
    fn mount_or_skip(scene: &Scene, options: &str) -> Option<Self> {
        let folder = scene.folder.path().join("disk");
        fs::create_dir(&folder).expect("a folder");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&folder);
        if mount.output().is_ok_and(|output| output.status.success()) {
            return Some(Self(folder));
        }
        use std::io::Write;
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: mounting a file system needs root on Linux"
        );
        None
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_read_only_destination() {
    let scene = Scene::on_loopback();
    let Some(disk) = Disk::mount_or_skip(&scene, "ro") else {
        return;
    };
    let (alice, bob) = alice_and_bob(&scene);
    let receiving = bob.receive_into(&disk.0, &["--once"]);
    let file = scene.file("file", b"content");
    assert_failed(&alice.send("bob", &[&file]).end(SOON), 8, "cannot write");
    assert_failed(&receiving.end(SOON), 8, "ead-only");
}

#[test]
fn a_disk_that_is_too_small() {
    let scene = Scene::on_loopback();
    let Some(disk) = Disk::mount_or_skip(&scene, "size=64m") else {
        return;
    };
    let (alice, bob) = alice_and_bob(&scene);
    let receiving = bob.receive_into(&disk.0, &["--once"]);
    let file = sparse_file(&scene, "large", 1 << 30);
    assert_failed(&alice.send("bob", &[&file]).end(SOON), 8, "free space");
    assert_failed(&receiving.end(SOON), 8, "GB are needed and 6");
    assert_eq!(fs::read_dir(&disk.0).expect("the disk").count(), 0);
}

#[test]
fn a_disk_that_fills_up_meanwhile() {
    let scene = Scene::on_loopback();
    let Some(disk) = Disk::mount_or_skip(&scene, "size=2g") else {
        return;
    };
    let (alice, bob) = alice_and_bob(&scene);
    let mut receiving = bob.receive_into(&disk.0, &["--once"]);
    let file = sparse_file(&scene, "large", 1500 << 20);
    let sending = alice.send("bob", &[&file]);
    receiving.event("progress", SOON);
    let mut ballast = Command::new("fallocate");
    let ballast = ballast
        .args(["-l", "1200M"])
        .arg(disk.0.join("ballast"))
        .status();
    assert!(ballast.expect("fallocate").success());
    assert_failed(&sending.end(LONG), 8, "disk is full");
    assert_failed(&receiving.end(SOON), 8, "full");
    fs::remove_file(disk.0.join("ballast")).expect("the ballast");
    assert_nothing_final(&disk.0);
}

#[test]
fn a_server_that_is_away_at_first_is_waited_for_by_who_waits() {
    let mut scene = Scene::on_loopback();
    scene.stop_server();
    let (alice, bob) = alice_and_bob(&scene);
    let file = scene.file("file", b"content");
    assert_failed(&alice.send("bob", &[&file]).end(SOON), 6, "Cannot reach");
    assert_failed(&alice.start(&["peers"]).end(SOON), 6, "Cannot reach");

    let inbox = bob.inbox.to_str().expect("a folder in UTF-8");
    let arguments = ["receive", "--into", inbox, "--accept", "all", "--once"];
    let mut receiving = bob.start(&arguments);
    let mut sending = alice.start(&["send", "--wait", "bob", file.to_str().expect("UTF-8")]);
    for waiting in [&mut receiving, &mut sending] {
        let away = waiting.event("disconnected", SOON);
        let reason = away["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("Cannot reach"), "{away}");
    }
    assert_eq!(sending.event("waiting", SOON)["until"], "online");
    scene.start_server();
    assert_eq!(sending.end(SOON).code, Some(0));
    assert_eq!(receiving.end(SOON).code, Some(0));
    assert_eq!(fs::read(bob.inbox.join("file")).expect("it"), b"content");
}
