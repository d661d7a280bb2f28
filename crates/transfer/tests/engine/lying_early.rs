//! A sender that lies about what goes ahead of the answer to its offer.

use pinhole_transfer::digest::Digest;
use pinhole_transfer::{Party, TransferError};
use tempfile::tempdir;

use crate::early_chunk::{SIZES, chunks};
use crate::liar::{FAILED, Liar, MIB, assert_refused, chunk_digest, pair};
use crate::support::names;

#[tokio::test]
async fn what_may_not_come_ahead_ends_the_connection() {
    for is_accepted in [false, true] {
        for what in [
            "another chunk",
            "another file",
            "another length",
            "a batch",
            "the end of the file",
            "a digest",
            "a failure of another file",
            "a failure twice",
            "failed and then sent",
            "the chunk twice",
        ] {
            let into = tempdir().unwrap();
            let (mut liar, mut bob) = pair();
            liar.offer_chunk(0, SIZES).await;
            let (id, _) = bob.offered().await;
            if is_accepted {
                bob.accept(id, into.path()).await;
            }
            say_wrong(&mut liar, what).await;
            assert_refused(liar, bob, into.path(), what).await;
        }
    }
    for what in ["the next chunk", "the next file", "a failure of the rest"] {
        let into = tempdir().unwrap();
        let (mut liar, mut bob) = pair();
        liar.offer_chunk(0, SIZES).await;
        bob.offered().await;
        let [_, second] = chunks();
        match what {
            "the next chunk" => {
                liar.first_chunk().await;
                liar.chunk(0, 1, &second, chunk_digest(1, &second)).await;
            }
            "the next file" => {
                liar.json(FAILED).await;
                liar.batch(&[(1, b"abc")]).await;
            }
            _ => {
                liar.first_chunk().await;
                liar.json(FAILED).await;
            }
        }
        assert_refused(liar, bob, into.path(), what).await;
    }
}

async fn say_wrong(liar: &mut Liar, what: &str) {
    let [first, second] = chunks();
    let digest = chunk_digest(0, &first);
    match what {
        "another chunk" => liar.chunk(0, 1, &second, digest).await,
        "another file" => liar.chunk(1, 0, b"abc", digest).await,
        "another length" => liar.chunk(0, 0, &first[1..], digest).await,
        "a batch" => liar.batch(&[(1, b"abc")]).await,
        "the end of the file" => liar.end(0, &[]).await,
        "a digest" => liar.digests(&[(0, 0, digest)]).await,
        "a failure of another file" => {
            liar.json(&FAILED.replace(r#""entry":0"#, r#""entry":1"#))
                .await;
        }
        "a failure twice" => {
            liar.json(FAILED).await;
            liar.json(FAILED).await;
        }
        "failed and then sent" => {
            liar.json(FAILED).await;
            liar.first_chunk().await;
        }
        _ => {
            liar.first_chunk().await;
            liar.first_chunk().await;
        }
    }
}

#[tokio::test]
async fn an_offer_that_has_no_first_chunk_or_one_too_many_is_none() {
    let offer = |transfer: u32, entries: u32, bytes: usize, words: &str| {
        format!(
            r#"{{"type":"offer","transfer":{transfer},"entries":{entries},"total_bytes":{bytes}{words}}}"#
        )
    };
    let folder = r#"{"type":"entries","transfer":0,"entries":[{"folder":{"path":"a"}}]}"#;
    let ahead = format!(r#","early":{MIB}"#);
    let ahead = ahead.as_str();
    for what in [
        "an empty first file",
        "no file",
        "a second before the entries",
        "a second before the chunk",
        "a second while one is held",
        "the chunk before the entries",
        "said to be false, and sent",
    ] {
        let into = tempdir().unwrap();
        let (mut liar, mut bob) = pair();
        match what {
            "an empty first file" => liar.offer_as(0, &[0, MIB], ahead).await,
            "no file" => {
                liar.json(&offer(0, 1, 0, r#","early":0"#)).await;
                liar.json(folder).await;
            }
            "a second before the entries" => {
                liar.json(&offer(0, 1, MIB, ahead)).await;
                liar.json(&offer(2, 1, MIB, ahead)).await;
            }
            "a second before the chunk" => {
                liar.offer_chunk(0, SIZES).await;
                bob.offered().await;
                liar.offer_chunk(2, SIZES).await;
            }
            "a second while one is held" => {
                liar.offer_chunk(0, SIZES).await;
                bob.offered().await;
                liar.first_chunk().await;
                liar.offer_chunk(2, SIZES).await;
            }
            "the chunk before the entries" => {
                liar.json(&offer(0, 2, MIB + 8, ahead)).await;
                liar.first_chunk().await;
            }
            _ => {
                liar.offer(SIZES).await;
                bob.offered().await;
                liar.first_chunk().await;
            }
        }
        assert_refused(liar, bob, into.path(), what).await;
    }
}

#[tokio::test]
async fn what_came_ahead_and_is_not_genuine_is_never_kept() {
    for is_early in [true, false] {
        let into = tempdir().unwrap();
        let (mut liar, mut bob) = pair();
        liar.offer_chunk(0, SIZES).await;
        let (id, _) = bob.offered().await;
        if !is_early {
            bob.accept(id, into.path()).await;
        }
        let [first, _] = chunks();
        liar.chunk(0, 0, &first, Digest::of_file(b"another")).await;
        if is_early {
            liar.caught_up(&mut bob).await;
            bob.accept(id, into.path()).await;
        }
        let outcome = bob.finished(id).await;
        assert_eq!(outcome, Err(TransferError::Verification(Party::Us)));
        assert!(names(into.path()).is_empty());
    }
}
