//! With one lane that hashes and with several the same arrives, and whatever
//! interferes with a transfer interferes in the same way.

use std::{fs, os::unix::fs::FileExt, path::Path, sync::Arc};

use pinhole_transfer::{Party, Resources, Side, Summary, Throttle, TransferError, Trouble, digest};
use tempfile::tempdir;

use crate::{
    extremes::until,
    support::{Peer, names, noise, transfer, tree},
};

const MIB: usize = 1024 * 1024;
const LANES: [usize; 3] = [1, 2, 4];

fn pair(lanes: usize) -> (Peer, Peer) {
    let (alice, bob, _) = limited_pair(lanes);
    (alice, bob)
}

/// Alice, bob, and how fast alice may send.
fn limited_pair(lanes: usize) -> (Peer, Peer, Arc<Throttle>) {
    let (left, right) = tokio::io::duplex(256 * 1024);
    let resources = Resources {
        lanes,
        ..Resources::default()
    };
    let of_bob = Resources {
        send: Arc::default(),
        ..resources.clone()
    };
    let send = Arc::clone(&resources.send);
    (
        Peer::limited(left, Side::Initiator, resources),
        Peer::limited(right, Side::Responder, of_bob),
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

#[tokio::test(flavor = "multi_thread")]
async fn the_same_arrives_with_any_number_of_lanes() {
    let from = tempdir().unwrap();
    let top = from.path().join("top");
    mix(&top);
    let mut summaries: Vec<(Summary, Summary)> = Vec::new();
    for lanes in LANES {
        let into = tempdir().unwrap();
        let (mut alice, mut bob) = pair(lanes);
        let paths = std::slice::from_ref(&top);
        let (sent, mut received) = transfer(&mut alice, &mut bob, paths, into.path()).await;
        assert!(
            tree(into.path()) == tree(from.path()),
            "{lanes} lanes change what arrives"
        );
        received.paths.clear();
        received.folder = None;
        summaries.push((sent, received));
    }
    assert_eq!(summaries[0].0.files, 903);
    assert!(
        summaries.iter().all(|it| *it == summaries[0]),
        "{summaries:?}"
    );
}

/// The root of one file is that of its chunks one behind another.
#[tokio::test(flavor = "multi_thread")]
async fn the_root_is_that_of_the_chunks_in_their_order() {
    let from = tempdir().unwrap();
    let data = noise(21 * MIB + 5, 7);
    let path = from.path().join("large");
    fs::write(&path, &data).unwrap();
    let mut chunks = digest::Tree::default();
    data.chunks(MIB)
        .for_each(|chunk| chunks.push(digest::Digest::of_chunk(chunk)));
    // The digest of a transfer is the tree over the roots of its files.
    let mut files = digest::Tree::default();
    files.push(chunks.root());
    for lanes in LANES {
        let into = tempdir().unwrap();
        let (mut alice, mut bob) = pair(lanes);
        let paths = std::slice::from_ref(&path);
        let (sent, _) = transfer(&mut alice, &mut bob, paths, into.path()).await;
        assert_eq!(sent.digest, Some(files.root()), "{lanes} lanes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_or_is_cut_short_in_the_middle_fails_alone() {
    for lanes in LANES {
        let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
        let top = from.path().join("top");
        fs::create_dir(&top).unwrap();
        let [changes, shrinks] = ["1 changes", "2 shrinks"].map(|name| {
            let file = fs::File::create(top.join(name)).unwrap();
            file.set_len(24 * MIB as u64).unwrap();
            file
        });
        fs::write(top.join("3 stays"), noise(3 * MIB, 1)).unwrap();
        let (mut alice, mut bob, limit) = limited_pair(lanes);
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
            assert_eq!((summary.files, summary.failed_files), (1, 2), "{lanes}");
        }
        for peer in [&alice, &bob] {
            let failed: Vec<_> = peer.failed.iter().map(|(_, it)| it.trouble()).collect();
            assert_eq!(failed, [Trouble::Changed; 2], "{lanes} lanes");
        }
        assert_eq!(names(into.path()), ["top", "top/3 stays"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_paused_goes_on_and_what_is_cancelled_ends() {
    for lanes in LANES {
        let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
        let path = from.path().join("huge");
        let huge = fs::File::create(&path).unwrap();
        huge.set_len(8192 * MIB as u64).unwrap();
        let (mut alice, mut bob) = pair(lanes);
        let id = alice.send(&[path]).await;
        bob.accept_next(into.path()).await;
        until(&bob, id, 4 * MIB as u64).await;
        bob.exchange.pause(id, true).unwrap();
        alice.exchange.pause(id, true).unwrap();
        alice.exchange.pause(id, false).unwrap();
        bob.exchange.pause(id, false).unwrap();
        // More than all that can have been on its way.
        until(&bob, id, 64 * MIB as u64).await;
        // The lanes are full and nothing moves.
        alice.exchange.pause(id, true).unwrap();
        bob.exchange.cancel(id).await.unwrap();
        let cancelled = |party| Err(TransferError::Cancelled(party));
        assert_eq!(bob.finished(id).await, cancelled(Party::Us));
        assert_eq!(alice.finished(id).await, cancelled(Party::Peer));
        assert_eq!(names(into.path()), Vec::<String>::new());
        tokio::join!(alice.exchange.close(), bob.exchange.close());
    }
}
