//! What the program claims of files is true: sizes, folders that go or cannot be
//! read, disks that are nearly full. Found with the real binaries, so held against
//! them; what one crate decides by itself is in `crates/transfer/tests`.
#![cfg(target_os = "linux")]
#![allow(clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use pinhole_tests::process::{EndedProcess, Process};
use pinhole_tests::scene::{Peer, SOON, Scene};
use pinhole_tests::tree;
use serde_json::Value;

const MIB: u64 = 1 << 20;
/// A user with no rights but those that everybody has.
const SOMEBODY: u32 = 12_345;
const KEPT: &str = "What has arrived is kept; sent again, it goes on from there.";

fn alice_and_bob(scene: &Scene) -> (Peer<'static>, Peer<'static>) {
    (scene.peer("alice"), scene.peer("bob"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Says aloud what is not tested here.
fn skip(what: &str) {
    // Past the capture of the test harness.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}

#[track_caller]
fn reason(ended: &EndedProcess) -> &str {
    assert_eq!(ended.code, Some(8), "{ended:#?}");
    ended.event("failed")["reason"].as_str().unwrap_or_default()
}

#[track_caller]
fn completed(ended: &EndedProcess, code: i32) -> &Value {
    assert_eq!(ended.code, Some(code), "{ended:#?}");
    ended.event("completed")
}

/// Sends slowly enough for something to happen meanwhile.
fn send_slowly(alice: &Peer<'_>, path: &Path) -> Process {
    alice.start(&["send", "--limit", "3M", "bob", text(path)])
}

fn large_file(scene: &Scene, bytes: u64) -> PathBuf {
    let path = scene.folder.path().join("large");
    tree::write_file(&path, bytes, 7).expect("a file");
    path
}

/// Both are told that the file failed, why, and that nothing arrived.
#[test]
fn a_size_that_is_not_known_is_not_believed() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    for path in ["/proc/cpuinfo", "/proc/self/mounts"] {
        let receiving = bob.receive(&["--once"]);
        // Whatever a link leads to is not sent.
        let path = fs::canonicalize(path).expect("a file of the kernel");
        let sent = alice.send("bob", &[&path]).end(SOON);
        let received = receiving.end(SOON);
        for ended in [&sent, &received] {
            assert_eq!(completed(ended, 8)["failed_files"], 1);
            let failed = ended.event("file_failed");
            let why = failed["reason"].as_str().expect("a reason");
            assert!(why.contains("its size is not known"), "{why}");
        }
        assert_eq!(fs::read_dir(&bob.inbox).expect("it").count(), 0);
    }
}

/// As `alice` or `bob` of a user who is not root.
fn as_somebody(scene: &Scene, peer: &Peer<'_>, arguments: &[&str]) -> Option<Process> {
    let inbox = fs::metadata(&peer.inbox).expect("an inbox");
    if inbox.uid() != 0 {
        skip("another user, which needs root");
        return None;
    }
    let open = Permissions::from_mode(0o755);
    fs::set_permissions(scene.folder.path(), open).expect("a folder for all");
    let profile = scene.folder.path().join(format!("{}-profile", peer.name));
    fs::create_dir_all(&profile).expect("a profile");
    chown(&profile, Some(SOMEBODY), Some(SOMEBODY)).expect("a profile of its own");
    let mut command = peer.command(arguments);
    command.uid(SOMEBODY).gid(SOMEBODY);
    Some(Process::start(&peer.name, command))
}

#[test]
fn a_folder_that_cannot_be_listed_takes_files() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let blind = Permissions::from_mode(0o333);
    fs::set_permissions(&bob.inbox, blind).expect("a folder to write to");
    let arguments = [
        "receive",
        "--once",
        "--accept",
        "all",
        "--into",
        text(&bob.inbox),
    ];
    let Some(mut receiving) = as_somebody(&scene, &bob, &arguments) else {
        return;
    };
    receiving.event("logged_in", SOON);
    let file = large_file(&scene, 3 * MIB);
    let sent = alice.send("bob", &[&file]).end(SOON);
    for ended in [&sent, &receiving.end(SOON)] {
        assert_eq!(completed(ended, 0)["files"], 1);
    }
    let arrived = fs::read(bob.inbox.join("large")).expect("the file");
    assert!(arrived == fs::read(file).expect("the file"));
}

#[test]
fn what_the_sender_cannot_read_is_no_file_and_both_hear_of_it() {
    let scene = Scene::on_loopback();
    let (alice, bob) = alice_and_bob(&scene);
    let top = scene.folder.path().join("top");
    for folder in ["secret", "listed"] {
        fs::create_dir_all(top.join(folder)).expect("a folder");
        fs::write(top.join(folder).join("inside"), "content").expect("a file");
    }
    fs::write(top.join("file"), "content").expect("a file");
    let modes = [("secret", 0o700), ("listed", 0o744)];
    for (folder, mode) in modes {
        let mode = Permissions::from_mode(mode);
        fs::set_permissions(top.join(folder), mode).expect("a folder that is closed");
    }
    let receiving = bob.receive(&["--once"]);
    let Some(sending) = as_somebody(&scene, &alice, &["send", "bob", text(&top)]) else {
        return;
    };
    let (sent, received) = (sending.end(SOON), receiving.end(SOON));
    for ended in [&sent, &received] {
        let completed = completed(ended, 8);
        assert_eq!(
            (&completed["files"], &completed["failed_files"]),
            (&1.into(), &0.into())
        );
        assert_eq!(completed["unread"], 2, "{ended:#?}");
    }
    assert_eq!(received.event("started")["files"], 1);
}

/// A file system of its own, unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount_or_skip(scene: &Scene, arguments: &[&str]) -> Option<Self> {
        let folder = scene.folder.path().join("disk");
        fs::create_dir(&folder).expect("a folder");
        let mut mount = Command::new("mount");
        let mounted = mount.args(arguments).arg(&folder).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(folder));
        }
        skip("mounting a file system, which needs root");
        None
    }

    /// Of that size, with so much left, in a file that takes no room.
    fn nearly_full_or_skip(scene: &Scene, size: &str, left_bytes: u64) -> Option<Self> {
        let image = scene.folder.path().join("image");
        let mut made = Command::new("mkfs.ext4");
        let made = made.args(["-q", "-m", "0", "-E", "lazy_itable_init=1,nodiscard"]);
        if !made
            .arg(&image)
            .arg(size)
            .status()
            .is_ok_and(|it| it.success())
        {
            skip("a disk that is nearly full, which needs mkfs.ext4");
            return None;
        }
        let disk = Self::mount_or_skip(scene, &["-o", "loop", text(&image)])?;
        let free = Command::new("stat")
            .args(["-f", "-c", "%a %S"])
            .arg(&disk.0)
            .output();
        let free = String::from_utf8(free.expect("stat").stdout).expect("numbers");
        let free: u64 = free
            .split_whitespace()
            .map(|it| it.parse::<u64>().expect("a number"))
            .product();
        let ballast = disk.0.join("ballast");
        let mut fallocate = Command::new("fallocate");
        let length = (free - left_bytes).to_string();
        let filled = fallocate.args(["-l", &length]).arg(ballast).status();
        assert!(filled.expect("fallocate").success());
        Some(disk)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn what_is_left_free_for_others_is_not_called_needed() {
    let scene = Scene::on_loopback();
    let Some(disk) = Disk::nearly_full_or_skip(&scene, "40G", 200 * MIB) else {
        return;
    };
    let (alice, bob) = alice_and_bob(&scene);
    let receiving = bob.receive_into(&disk.0, &["--once"]);
    let small = scene.file("small", b"6bytes");
    let sent = alice.send("bob", &[&small]).end(SOON);
    for ended in [&sent, &receiving.end(SOON)] {
        assert_eq!(completed(ended, 0)["bytes"], 6);
    }

    let receiving = bob.receive_into(&disk.0, &["--once"]);
    let large = large_file(&scene, 300 * MIB);
    assert!(reason(&alice.send("bob", &[&large]).end(SOON)).contains("free space"));
    let ended = receiving.end(SOON);
    let said = reason(&ended);
    assert!(said.contains("315 MB are needed"), "{said}");
}

/// While the file arrives. Returns what both say then.
fn meanwhile(scene: &Scene, into: &Path, happens: impl FnOnce()) -> [EndedProcess; 2] {
    let (alice, bob) = alice_and_bob(scene);
    let mut receiving = bob.receive_into(into, &["--once"]);
    let file = large_file(scene, 12 * MIB);
    let sending = send_slowly(&alice, &file);
    receiving.event("progress", SOON);
    happens();
    [sending.end(SOON), receiving.end(SOON)]
}

#[test]
fn a_folder_that_is_removed_meanwhile_is_named() {
    let scene = Scene::on_loopback();
    let into = scene.folder.path().join("in");
    fs::create_dir(&into).expect("a folder");
    let remove = || fs::remove_dir_all(&into).expect("removing it");
    let [sent, received] = meanwhile(&scene, &into, remove);
    let gone = "the folder to receive into was removed or moved";
    assert_eq!(reason(&received), format!("{}: {gone}.", into.display()));
    assert_eq!(reason(&sent), format!("bob reports: {gone}."));
    assert!(!into.exists());
}

/// Where the files are is where it says they are.
#[test]
fn a_folder_that_is_renamed_meanwhile_is_found() {
    let scene = Scene::on_loopback();
    let [into, renamed] = ["in", "renamed"].map(|it| scene.folder.path().join(it));
    fs::create_dir(&into).expect("a folder");
    let rename = || {
        fs::rename(&into, &renamed).expect("renaming it");
        // Somebody else's.
        fs::create_dir(&into).expect("another folder");
    };
    let [sent, received] = meanwhile(&scene, &into, rename);
    completed(&sent, 0);
    let told = completed(&received, 0);
    assert_eq!(told["folder"], text(&renamed));
    assert_eq!(told["paths"][0], text(&renamed.join("large")));
    assert_eq!(
        fs::metadata(renamed.join("large")).expect("it").len(),
        12 * MIB
    );
}

/// A disk with no more room, and one with no more names: each in its own words,
/// with the folder, and what has arrived.
#[test]
fn a_disk_that_fills_up_says_with_what() {
    for (options, happens, words) in [
        ("size=64m", Filled::WithBytes, "the disk is full"),
        (
            "nr_inodes=16",
            Filled::WithFiles,
            "the disk can hold no more files",
        ),
    ] {
        let scene = Scene::on_loopback();
        let mount = ["-t", "tmpfs", "-o", options, "tmpfs"];
        let Some(disk) = Disk::mount_or_skip(&scene, &mount) else {
            return;
        };
        let (alice, bob) = alice_and_bob(&scene);
        let mut receiving = bob.receive_into(&disk.0, &["--once"]);
        let top = scene.folder.path().join("top");
        fs::create_dir(&top).expect("a folder");
        for number in 0..3 {
            let path = top.join(format!("{number} file"));
            tree::write_file(&path, 6 * MIB, number).expect("a file");
        }
        let sending = send_slowly(&alice, &top);
        while receiving.event("progress", SOON)["bytes"].as_u64() < Some(3 * MIB) {}
        happens.fill(&disk.0);
        let (sent, received) = (sending.end(SOON), receiving.end(SOON));
        assert_eq!(reason(&sent), format!("bob reports: {words}. {KEPT}"));
        let folder = disk.0.display();
        assert_eq!(reason(&received), format!("{folder}: {words}. {KEPT}"));

        happens.empty(&disk.0);
        let receiving = bob.receive_into(&disk.0, &["--once"]);
        let sent = alice.send("bob", &[&top]).end(SOON);
        let here = &completed(&sent, 0)["here_bytes"];
        assert!(
            here.as_u64() >= Some(MIB),
            "it goes on from there: {sent:#?}"
        );
        completed(&receiving.end(SOON), 0);
    }
}

#[derive(Clone, Copy)]
enum Filled {
    WithBytes,
    WithFiles,
}

impl Filled {
    fn fill(self, disk: &Path) {
        for number in 0.. {
            let path = disk.join(format!("ballast {number}"));
            let written = match self {
                Self::WithBytes => fs::write(path, vec![1; 1 << 16]),
                Self::WithFiles => fs::write(path, ""),
            };
            if written.is_err() {
                break;
            }
        }
    }

    fn empty(self, disk: &Path) {
        for entry in fs::read_dir(disk).expect("the disk") {
            let path = entry.expect("an entry").path();
            if text(&path).contains("ballast") {
                fs::remove_file(path).expect("removing it");
            }
        }
    }
}
