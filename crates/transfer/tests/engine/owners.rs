//! What somebody has left unfinished is found by nobody else.

use std::fs;

use pinhole_transfer::{AcceptOptions, Destination, Existing, Party, Resources, TransferError};
use tempfile::tempdir;

use crate::liar::{MIB, pair_of};
use crate::resume::{broken_off, completed, parts};
use crate::support::{names, noise, tree};

const MALLORY: [u8; 32] = [66; 32];

/// Mallory offers a file of the same size, or the very same, under the same name or
/// another, and cancels, or breaks off.
#[tokio::test(flavor = "multi_thread")]
async fn another_peers_part_is_not_found_measured_taken_or_removed() {
    for existing in [Existing::Rename, Existing::Skip, Existing::Replace] {
        for cancels in [true, false] {
            let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
            let path = from.path().join("0");
            fs::write(&path, noise(8 * MIB, 1)).unwrap();
            broken_off(std::slice::from_ref(&path), into.path(), 5 * MIB).await;
            let before = tree(into.path());
            assert_eq!(parts(into.path()).len(), 1, "a part");

            let (mut mallory, mut bob) = pair_of(MALLORY, Resources::default());
            mallory.offer(&[8 * MIB]).await;
            let (id, offer) = bob.offered().await;
            let choices = AcceptOptions {
                existing,
                ..AcceptOptions::default()
            };
            bob.accept_some(id, into.path(), choices.clone()).await;
            assert_eq!(mallory.hear().await["type"], "accept", "nothing is here");
            mallory.chunk_of(0, 0, 0, &noise(MIB, 9)).await;
            if cancels {
                mallory
                    .json(r#"{"type":"cancel","transfer":0,"reason":"cancelled"}"#)
                    .await;
                let cancelled = Err(TransferError::Cancelled(Party::Peer));
                assert_eq!(bob.finished(id).await, cancelled);
            } else {
                drop(mallory);
                assert_eq!(bob.finished(id).await, Err(TransferError::ConnectionLost));
                let folder = Destination::open(into.path()).unwrap();
                folder.discard(offer, &choices, MALLORY).unwrap();
            }
            assert!(tree(into.path()) == before, "{existing:?}");

            let (_, _, passed) = completed(std::slice::from_ref(&path), into.path()).await;
            assert!(passed < 5 * MIB, "alice goes on: {passed}");
            assert_eq!(names(into.path()), ["0"]);
        }
    }
}

/// Her finished file, of which the journal still tells, is not renamed either.
#[tokio::test(flavor = "multi_thread")]
async fn another_peers_finished_file_is_not_moved() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let paths = ["0", "1"].map(|name| from.path().join(name));
    fs::write(&paths[0], noise(2 * MIB, 1)).unwrap();
    fs::write(&paths[1], noise(9 * MIB, 2)).unwrap();
    broken_off(&paths, into.path(), 6 * MIB).await;
    assert!(into.path().join("0").is_file());
    let before = tree(into.path());

    let (mut mallory, mut bob) = pair_of(MALLORY, Resources::default());
    // The same sizes under other names: what a moved offer is found by.
    let entries = r#"{"type":"entries","transfer":0,"entries":[
        {"file":{"path":"x","size_bytes":2097152}},
        {"file":{"path":"y","size_bytes":9437184}}]}"#;
    mallory
        .json(r#"{"type":"offer","transfer":0,"entries":2,"total_bytes":11534336}"#)
        .await;
    mallory.json(entries).await;
    let id = bob.accept_next(into.path()).await;
    assert_eq!(mallory.hear().await["type"], "accept", "nothing is here");
    mallory
        .json(r#"{"type":"cancel","transfer":0,"reason":"cancelled"}"#)
        .await;
    assert!(bob.finished(id).await.is_err());
    assert!(tree(into.path()) == before);
}
