//! A sender that lies about what the receiver has of a file already.

use std::path::Path;

use pinhole_transfer::digest::{Digest, Tree};
use pinhole_transfer::frame::encode_digests;
use pinhole_transfer::{ExchangeError, Party, TransferError, TransferId};
use tempfile::tempdir;

use crate::liar::{Liar, MIB, accepted, assert_refused, chunk_digest, digest_item, id, pair};
use crate::support::{Peer, names, noise};

const SIZES: &[usize] = &[3 * MIB, 10];

fn chunk(index: u64) -> Vec<u8> {
    noise(MIB, index + 1)
}

fn digest(index: u64) -> Digest {
    chunk_digest(u32::try_from(index).unwrap(), &chunk(index))
}

/// An offer of which two chunks of the first file are here from an attempt that
/// broke off, and accepted.
async fn resumed(into: &Path) -> (Liar, Peer, TransferId) {
    broken_off(into).await;
    let (mut liar, mut bob) = pair();
    liar.offer(SIZES).await;
    let id = bob.accept_next(into).await;
    let said = liar.hear().await;
    assert_eq!(said["files"], serde_json::json!([[0, 2]]));
    assert_eq!(liar.hear().await["type"], "accept");
    (liar, bob, id)
}

async fn broken_off(into: &Path) {
    let (mut liar, mut bob, id) = accepted(SIZES, into).await;
    for index in 0..2 {
        liar.chunk(0, index, &chunk(u64::from(index)), digest(u64::from(index)))
            .await;
    }
    drop(liar);
    assert_eq!(bob.finished(id).await, Err(TransferError::ConnectionLost));
}

#[tokio::test]
async fn what_is_not_due_ends_the_connection() {
    let small = b"0123456789";
    for what in [
        "digests not from the first",
        "a digest of what is not here",
        "a digest of another file",
        "a digest twice",
        "a digest of no file",
        "digests of a transfer that never was",
        "the chunk that is here",
        "the end before all was compared",
        "the file in a batch",
        "the next file before this has ended",
    ] {
        let into = tempdir().unwrap();
        let (mut liar, bob, _) = resumed(into.path()).await;
        match what {
            "digests not from the first" => liar.digests(&[(0, 1, digest(1))]).await,
            "a digest of what is not here" => {
                let all = [0, 1, 2].map(|index| (0, index, digest(u64::from(index))));
                liar.digests(&all).await;
            }
            "a digest of another file" => liar.digests(&[(1, 0, digest(0))]).await,
            "a digest twice" => {
                liar.digests(&[(0, 0, digest(0))]).await;
                liar.digests(&[(0, 0, digest(0))]).await;
            }
            "a digest of no file" => liar.digests(&[(u32::MAX, u32::MAX, digest(0))]).await,
            "digests of a transfer that never was" => {
                let item = digest_item(0, 0, digest(0));
                liar.bytes(&encode_digests(id(8), &[item]).unwrap()).await;
            }
            "the chunk that is here" => liar.chunk(0, 0, &chunk(0), digest(0)).await,
            "the end before all was compared" => {
                liar.chunk(0, 2, &chunk(2), digest(2)).await;
                liar.end(0, &[&chunk(0), &chunk(1), &chunk(2)]).await;
            }
            "the file in a batch" => liar.batch(&[(0, small)]).await,
            _ => liar.batch(&[(1, small)]).await,
        }
        assert_refused(liar, bob, into.path(), what).await;
    }
}

#[tokio::test]
async fn digests_before_the_answer_end_the_connection() {
    let into = tempdir().unwrap();
    broken_off(into.path()).await;
    let left = names(into.path());
    let (mut liar, mut bob) = pair();
    liar.offer(SIZES).await;
    bob.offered().await;
    liar.digests(&[(0, 0, digest(0))]).await;
    assert!(liar.hear_close().await["violation"].is_string());
    let reason = bob.closed().await;
    assert!(
        matches!(reason, Some(ExchangeError::Violation(_))),
        "{reason:?}"
    );
    assert_eq!(names(into.path()), left, "nobody has touched the part");
}

/// Digests that are not those of the file are found out at the latest by its
/// root, and nothing of it is kept.
#[tokio::test]
async fn what_the_digests_do_not_bear_out_is_never_kept() {
    let wrong = Digest::of_file(b"another");
    for what in ["a chunk of another digest", "a root of other digests"] {
        let into = tempdir().unwrap();
        let (mut liar, mut bob, id) = resumed(into.path()).await;
        let first = match what {
            "a chunk of another digest" => wrong,
            _ => digest(0),
        };
        liar.digests(&[(0, 0, first), (0, 1, digest(1))]).await;
        liar.chunk(0, 2, &chunk(2), digest(2)).await;
        let said = liar.hear().await;
        assert_eq!(said["type"], "compared");
        if what == "a chunk of another digest" {
            assert_eq!(said["differing"], serde_json::json!([[0, 1]]));
            // What was said to differ, and is what is here.
            liar.chunk(0, 0, &chunk(0), digest(0)).await;
        } else {
            assert_eq!(said["differing"], serde_json::json!([]));
            let mut tree = Tree::default();
            [wrong, digest(1), digest(2)]
                .into_iter()
                .for_each(|digest| tree.push(digest));
            let root = tree.root();
            liar.json(&format!(
                r#"{{"type":"file_end","transfer":0,"entry":0,"root":"{root}"}}"#
            ))
            .await;
        }
        let outcome = bob.finished(id).await;
        let lied = Err(TransferError::Verification(Party::Us));
        assert_eq!(outcome, lied, "{what}");
        assert_eq!(names(into.path()), Vec::<String>::new(), "{what}");
    }
}

#[tokio::test]
async fn a_list_of_digests_that_breaks_off_costs_nothing() {
    let into = tempdir().unwrap();
    let (mut liar, mut bob, id) = resumed(into.path()).await;
    let items = [0, 1].map(|index| digest_item(0, index, digest(u64::from(index))));
    let frame = encode_digests(self::id(0), &items).unwrap();
    liar.bytes(&frame[..frame.len() - 1]).await;
    drop(liar);
    assert_eq!(bob.finished(id).await, Err(TransferError::ConnectionLost));
    let parts = names(into.path());
    let is_part = |name: &String| name.ends_with(".pinhole-part");
    assert!(!parts.is_empty() && parts.iter().all(is_part), "{parts:?}");
    resumed_again(into.path()).await;
}

/// What was here is still here.
async fn resumed_again(into: &Path) {
    let (mut liar, mut bob) = pair();
    liar.offer(SIZES).await;
    bob.accept_next(into).await;
    assert_eq!(liar.hear().await["files"], serde_json::json!([[0, 2]]));
}
