//! What a receiver finds on its disk: parts that others have touched or that belong to
//! others, names that are taken by what is no folder, file systems below the folder.
//! With the real binaries, as the faults were found.

#![cfg(unix)]
#![allow(clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use pinhole_tests::process::EndedProcess;
use pinhole_tests::scene::{Peer, SOON, Scene};
use pinhole_tests::tree;

const MIB: u64 = 1024 * 1024;

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Sends slowly, and stops with Ctrl-C once the receiver has a few chunks. Returns the
/// part that is left.
fn broken_off(sender: &Peer<'_>, receiver: &Peer<'_>, file: &Path) -> PathBuf {
    let mut receiving = receiver.receive(&[]);
    let sending = sender.start(&["send", "--limit", "2M", "bob", text(file)]);
    loop {
        let progress = receiving.event("progress", SOON);
        if progress["bytes"].as_u64() >= Some(MIB + MIB / 2) {
            break;
        }
    }
    sending.interrupt();
    assert_eq!(sending.end(SOON).code, Some(130));
    receiving.event("failed", SOON);
    receiving.interrupt();
    assert_eq!(receiving.end(SOON).code, Some(130));
    let name = file.file_name().expect("a name").to_string_lossy();
    let prefix = format!(".{name}.");
    let mut parts = parts(&receiver.inbox);
    parts.retain(|part| text(part).contains(&prefix));
    assert_eq!(parts.len(), 1, "{parts:?}");
    parts.remove(0)
}

/// Everything that is left unfinished in a folder.
fn parts(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut parts: Vec<_> = paths
        .filter(|path| text(path).ends_with(".pinhole-part"))
        .collect();
    parts.sort();
    parts
}

fn completes(
    sender: &Peer<'_>,
    receiver: &Peer<'_>,
    more: &[&str],
    paths: &[&Path],
) -> [EndedProcess; 2] {
    let receiving = receiver.receive(&[&["--once"], more].concat());
    let sent = sender.send("bob", paths).end(SOON);
    [sent, receiving.end(SOON)]
}

#[test]
fn a_part_longer_than_its_file_is_published_without_the_excess() {
    let scene = Scene::on_loopback();
    let (alice, bob) = (scene.peer("alice"), scene.peer("bob"));
    let file = scene.folder.path().join("f3");
    tree::write_file(&file, 3 * MIB, 1).expect("a file");
    let part = broken_off(&alice, &bob, &file);
    let longer = File::options().write(true).open(part).expect("the part");
    longer.set_len(5 * MIB).expect("making it longer");
    drop(longer);
    let [sent, received] = completes(&alice, &bob, &[], &[&file]);
    assert_eq!((sent.code, received.code), (Some(0), Some(0)), "{sent:#?}");
    let arrived = fs::read(bob.inbox.join("f3")).expect("the file");
    assert_eq!(arrived.len() as u64, 3 * MIB);
    assert!(arrived == fs::read(&file).expect("the file"));
    assert_eq!(parts(&bob.inbox), Vec::<PathBuf>::new());
}

/// Mallory's offers, under the same name and size, find nothing of alice's, and take
/// nothing away when they are cancelled.
#[test]
fn a_part_is_found_by_its_own_sender_alone() {
    let scene = Scene::on_loopback();
    let (alice, bob, mallory) = (
        scene.peer("alice"),
        scene.peer("bob"),
        scene.peer("mallory"),
    );
    let file = scene.folder.path().join("film");
    tree::write_file(&file, 6 * MIB, 1).expect("a file");
    let elsewhere = scene.folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).expect("a folder");
    let other = elsewhere.join("film");
    tree::write_file(&other, 6 * MIB, 2).expect("a file");
    broken_off(&alice, &bob, &file);
    let before = tree::read(&bob.inbox).expect("the inbox");

    let mut receiving = bob.receive(&[]);
    let mut sending = mallory.start(&["send", "--limit", "2M", "bob", text(&other)]);
    let started = receiving.event("progress", SOON);
    assert_eq!(started["total"], 6 * MIB);
    receiving.interrupt();
    assert_eq!(receiving.end(SOON).code, Some(130));
    sending.wait(SOON);
    let mallorys = tree::read(&bob.inbox).expect("the inbox");
    for (path, node) in &before {
        assert_eq!(mallorys.get(path), Some(node), "{path:?}");
    }

    let [sent, _] = completes(&alice, &bob, &[], &[&file]);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    assert!(
        sent.event("completed")["here_bytes"].as_u64() >= Some(MIB),
        "{sent:#?}"
    );
    let arrived = fs::read(bob.inbox.join("film")).expect("the file");
    assert!(arrived == fs::read(&file).expect("the file"));
}

/// `w/a`, `w/sub/x` and `w/z` for bob, who has something at `w/sub`.
fn obstructed(scene: &Scene, bob: &Peer<'_>, put: impl FnOnce(&Path)) -> PathBuf {
    let offered = scene.folder.path().join("w");
    fs::create_dir_all(offered.join("sub")).expect("folders");
    for name in ["a", "sub/x", "z"] {
        fs::write(offered.join(name), name).expect("a file");
    }
    fs::create_dir(bob.inbox.join("w")).expect("a folder");
    put(&bob.inbox.join("w/sub"));
    offered
}

fn made(command: &str, arguments: &[&str], at: &Path) -> bool {
    let mut command = Command::new(command);
    let status = command.args(arguments).arg(at).status();
    status.is_ok_and(|status| status.success())
}

#[test]
fn one_name_that_is_no_folder_fails_what_was_to_go_into_it() {
    type Put = fn(&Path);
    let obstacles: [(&str, Put); 3] = [
        ("a file", |at| fs::write(at, "mine").expect("a file")),
        ("a link", |at| symlink("/tmp", at).expect("a link")),
        ("a pipe", |at| assert!(made("mkfifo", &[], at))),
    ];
    for existing in ["skip", "replace"] {
        for (what, put) in obstacles {
            let scene = Scene::on_loopback();
            let (alice, bob) = (scene.peer("alice"), scene.peer("bob"));
            let offered = obstructed(&scene, &bob, put);
            let ended = completes(&alice, &bob, &["--existing", existing], &[&offered]);
            for side in &ended {
                assert_eq!(side.code, Some(8), "{what}: {side:#?}");
                let failed = side.event("file_failed");
                assert_eq!(failed["path"], "w/sub/x", "{what}");
                let reason = failed["reason"].as_str().expect("a reason");
                assert!(reason.contains("not a folder"), "{what}: {reason}");
            }
            for name in ["a", "z"] {
                let arrived = fs::read_to_string(bob.inbox.join("w").join(name));
                assert_eq!(arrived.expect(what), name);
            }
        }
    }
}

/// Another file system, mounted below the folder.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        made("umount", &[], &self.0);
    }
}

#[test]
fn a_file_system_below_the_folder_is_written_to_as_any_folder() {
    let scene = Scene::on_loopback();
    let (alice, bob) = (scene.peer("alice"), scene.peer("bob"));
    let mut mounted = None;
    let offered = obstructed(&scene, &bob, |at| {
        fs::create_dir(at).expect("a folder");
        if made("mount", &["-t", "tmpfs", "-o", "size=16m", "tmpfs"], at) {
            mounted = Some(Mounted(at.to_owned()));
        }
    });
    if mounted.is_none() {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: mounting a file system needs root on Linux"
        );
        return;
    }
    for existing in ["replace", "skip"] {
        let ended = completes(&alice, &bob, &["--existing", existing], &[&offered]);
        for side in &ended {
            assert_eq!(side.code, Some(0), "{existing}: {side:#?}");
        }
        for name in ["a", "sub/x", "z"] {
            let arrived = fs::read_to_string(bob.inbox.join("w").join(name));
            assert_eq!(arrived.expect("a file"), name, "{existing}");
        }
    }
}
