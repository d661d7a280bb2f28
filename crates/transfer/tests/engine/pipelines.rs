//! The pipelines of both sides with large and small files between each other, and
//! whatever interferes with them.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use pinhole_transfer::digest::Digest;
use pinhole_transfer::{FileErrorKind, Party, RateLimit, Resources, Side, TransferError};
use tempfile::tempdir;

use crate::extremes::until;
use crate::support::{Peer, names, noise, pair, transfer, tree};

const MIB: usize = 1024 * 1024;

/// Alice, bob, and how fast alice may send.
fn limited_pair() -> (Peer, Peer, Arc<RateLimit>) {
    let (left, right) = tokio::io::duplex(256 * 1024);
    let resources = Resources::default();
    let send = Arc::clone(&resources.send);
    (
        Peer::limited(left, Side::Initiator, resources),
        Peer::limited(right, Side::Responder, Resources::default()),
        send,
    )
}

/// Large files that end within a chunk, behind one, and many small ones between
/// them.
fn mix(top: &Path) {
    fs::create_dir(top).unwrap();
    for (number, bytes) in [MIB + 1, 7 * MIB, 12 * MIB + 17].into_iter().enumerate() {
        let large = noise(bytes, number as u64 + 1);
        fs::write(top.join(format!("{number} large")), large).unwrap();
        for small in 0..300 {
            let content = noise(small * 37, small as u64 + 100);
            fs::write(top.join(format!("{number} small {small}")), content).unwrap();
        }
    }
}

/// As `b3sum` prints it for the files in the order of the manifest.
fn listing(top: &Path, folder: &str) -> String {
    let mut names = names(top);
    names.sort();
    let line = |name: &String| {
        let hash = Digest::of_file(&fs::read(top.join(name)).unwrap());
        format!("{hash}  {folder}/{name}\n")
    };
    names.iter().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_digest_of_several_files_is_that_of_what_b3sum_prints() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let top = from.path().join("top");
    mix(&top);
    let (mut alice, mut bob) = pair();
    let paths = std::slice::from_ref(&top);
    let (sent, received) = transfer(&mut alice, &mut bob, paths, into.path()).await;
    assert!(tree(into.path()) == tree(from.path()));
    assert_eq!(sent.files, 903);
    let digest = Digest::of_file(listing(&top, "top").as_bytes());
    assert_eq!(sent.digest, Some(digest));
    assert_eq!(received.digest, Some(digest));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_digest_of_one_file_is_its_hash() {
    let from = tempdir().unwrap();
    for bytes in [0, 1, 200_000, MIB, 4 * MIB, 21 * MIB + 5] {
        let into = tempdir().unwrap();
        let data = noise(bytes, 7);
        let path = from.path().join(bytes.to_string());
        fs::write(&path, &data).unwrap();
        let (mut alice, mut bob) = pair();
        let paths = std::slice::from_ref(&path);
        let (sent, received) = transfer(&mut alice, &mut bob, paths, into.path()).await;
        assert_eq!(sent.digest, Some(Digest::of_file(&data)), "{bytes} bytes");
        assert_eq!(received.digest, sent.digest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_or_is_cut_short_in_the_middle_fails_alone() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let top = from.path().join("top");
    fs::create_dir(&top).unwrap();
    let [changes, shrinks] = ["1 changes", "2 shrinks"].map(|name| {
        let file = fs::File::create(top.join(name)).unwrap();
        file.set_len(24 * MIB as u64).unwrap();
        file
    });
    fs::write(top.join("3 stays"), noise(3 * MIB, 1)).unwrap();
    let (mut alice, mut bob, limit) = limited_pair();
    // Slow enough for what follows to happen before the file is read.
    limit.set(Some(24 * MIB as u64));
    let id = alice.send(&[top]).await;
    bob.accept_next(into.path()).await;
    until(&bob, id, 4 * MIB as u64).await;
    changes.write_all_at(b"other", 23 * MIB as u64).unwrap();
    until(&bob, id, 28 * MIB as u64).await;
    shrinks.set_len(MIB as u64).unwrap();
    let (received, sent) = tokio::join!(bob.finished(id), alice.finished(id));
    for summary in [received.unwrap(), sent.unwrap()] {
        assert_eq!((summary.files, summary.failed_files), (1, 2));
    }
    for peer in [&alice, &bob] {
        let failed: Vec<_> = peer.failed.iter().map(|(_, it)| it.trouble()).collect();
        assert_eq!(failed, [FileErrorKind::Changed; 2]);
    }
    assert_eq!(names(into.path()), ["top", "top/3 stays"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_paused_goes_on_and_what_is_cancelled_ends() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let path = from.path().join("huge");
    let huge = fs::File::create(&path).unwrap();
    huge.set_len(8192 * MIB as u64).unwrap();
    let (mut alice, mut bob) = pair();
    let id = alice.send(&[path]).await;
    bob.accept_next(into.path()).await;
    until(&bob, id, 4 * MIB as u64).await;
    bob.exchange.pause(id).unwrap();
    alice.exchange.pause(id).unwrap();
    alice.exchange.unpause(id).unwrap();
    bob.exchange.unpause(id).unwrap();
    // More than all that can have been on its way.
    until(&bob, id, 64 * MIB as u64).await;
    // The queues are full and nothing moves.
    alice.exchange.pause(id).unwrap();
    bob.exchange.cancel(id).unwrap();
    let cancelled = |party| Err(TransferError::Cancelled(party));
    assert_eq!(bob.finished(id).await, cancelled(Party::Us));
    assert_eq!(alice.finished(id).await, cancelled(Party::Peer));
    assert_eq!(names(into.path()), Vec::<String>::new());
    tokio::join!(alice.exchange.close(), bob.exchange.close());
}
