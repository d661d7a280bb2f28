//! What a killed receiver has left set aside on a disk that is nearly full.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use pinhole_transfer::{Party, Resources, Side, TransferError};
use rustix::fs::{FallocateFlags, fallocate};
use tempfile::tempdir;

use crate::extremes::until;
use crate::hostile::Mounted;
use crate::support::{Peer, noise};

const MIB: u64 = 1024 * 1024;
/// Room is set aside for it, and the disk does not hold it twice.
const BYTES: u64 = 70 * MIB;
const DISK_BYTES: u64 = 100 * MIB;

#[tokio::test(flavor = "multi_thread")]
async fn room_that_is_set_aside_is_not_counted_as_missing() {
    let from = tempdir().unwrap();
    let image = from.path().join("image");
    let file = fs::File::create(&image).unwrap();
    file.set_len(DISK_BYTES).unwrap();
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-m", "0"])
        .arg(&image)
        .status();
    if !made.is_ok_and(|status| status.success()) {
        use std::io::Write;
        // Past the capture of the test harness.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: a nearly full disk, which needs mkfs.ext4"
        );
        return;
    }
    let Some(disk) = Mounted::new(&["-o", "loop", image.to_str().unwrap()]) else {
        return;
    };
    let into = disk.0.path();
    let path = from.path().join("large");
    fs::write(&path, noise(BYTES as usize, 1)).unwrap();

    // Neither with some of the file nor with nothing of it.
    for left_bytes in [4 * MIB, 0] {
        let (alice, mut bob, resources) = limited_pair();
        resources.send.set(Some(24 * MIB));
        let id = alice.send(std::slice::from_ref(&path)).await;
        bob.accept_next(into).await;
        until(&bob, id, 6 * MIB).await;
        bob.exchange.interrupt(id).unwrap();
        let interrupted = Err(TransferError::Interrupted(Party::Us));
        assert_eq!(bob.finished(id).await, interrupted);

        let part = fs::OpenOptions::new().write(true).open(part(into)).unwrap();
        assert!(part.metadata().unwrap().blocks() * 512 < BYTES / 2);
        part.set_len(left_bytes).unwrap();
        fallocate(&part, FallocateFlags::KEEP_SIZE, 0, BYTES).unwrap();
        let left = rustix::fs::fstatvfs(&part).unwrap();
        assert!(left.f_bavail * left.f_frsize < BYTES / 2);
        drop(part);

        let (mut alice, mut bob, _) = limited_pair();
        let id = alice.send(std::slice::from_ref(&path)).await;
        bob.accept_next(into).await;
        let (received, sent) = tokio::join!(bob.finished(id), alice.finished(id));
        assert_eq!(received.unwrap().resent_bytes, 0);
        assert_eq!(sent.unwrap().files, 1);
        assert!(fs::read(into.join("large")).unwrap() == fs::read(&path).unwrap());
        fs::remove_file(into.join("large")).unwrap();
    }
}

/// Alice, bob, and the limits of alice.
fn limited_pair() -> (Peer, Peer, Resources) {
    let (left, right) = tokio::io::duplex(256 * 1024);
    let resources = Resources::default();
    let alice = Peer::limited(left, Side::Initiator, resources.clone());
    (alice, Peer::over(right, Side::Responder), resources)
}

fn part(into: &std::path::Path) -> PathBuf {
    let paths = fs::read_dir(into).unwrap().map(|it| it.unwrap().path());
    let mut parts = paths.filter(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(".large.")
    });
    parts.next().unwrap()
}
