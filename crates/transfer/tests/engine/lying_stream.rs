//! Streams of somebody who does not keep to the protocol.

use std::path::Path;

use pinhole_transfer::digest::Digest;
use pinhole_transfer::{ExchangeError, Party, Streamed, TransferError, TransferId};
use tempfile::tempdir;

use crate::liar::{self, Liar, MIB, assert_refused, chunk_digest};
use crate::streams::{Fed, broken, stream};
use crate::support::{Peer, names, noise};

const OFFER: &str = r#"{"type":"offer","transfer":0,"entries":1,"total_bytes":0}"#;
const ENTRY: &str = r#"{"type":"entries","transfer":0,"entries":[{"stream":{"path":"s"}}]}"#;

fn end(size_bytes: usize, root: Digest) -> String {
    format!(r#"{{"type":"stream_end","transfer":0,"size_bytes":{size_bytes},"root":"{root}"}}"#)
}

async fn offered_by_liar(into: &Path) -> (Liar, Peer, TransferId) {
    let (mut liar, mut bob) = liar::pair();
    liar.json(OFFER).await;
    liar.json(ENTRY).await;
    let id = bob.accept_next(into).await;
    assert_eq!(liar.hear().await["type"], "accept");
    (liar, bob, id)
}

#[tokio::test]
async fn what_is_no_offer_of_a_stream_is_refused() {
    let stream = r#"{"stream":{"path":"s"}}"#;
    let file = r#"{"file":{"path":"f","size_bytes":0}}"#;
    let offer = |entries: usize, more: &str| {
        format!(r#"{{"type":"offer","transfer":0,"entries":{entries},"total_bytes":0{more}}}"#)
    };
    let sent = format!(r#","sent":"{}""#, Digest::of_file(&[]));
    for (more, entries) in [
        ("", vec![stream, file]),
        ("", vec![file, stream]),
        ("", vec![stream, r#"{"stream":{"path":"t"}}"#]),
        (
            "",
            vec![r#"{"folder":{"path":"d"}}"#, r#"{"stream":{"path":"d/s"}}"#],
        ),
        ("", vec![r#"{"stream":{"path":"d/s"}}"#]),
        ("", vec![r#"{"stream":{"path":"../s"}}"#]),
        ("", vec![r#"{"stream":{"path":"s","size_bytes":1}}"#]),
        (r#","early":0"#, vec![stream]),
        (r#","unread":1"#, vec![stream]),
        (&sent, vec![stream]),
    ] {
        let into = tempdir().unwrap();
        let (mut liar, bob) = liar::pair();
        liar.json(&offer(entries.len(), more)).await;
        let page = entries.join(",");
        let page = format!(r#"{{"type":"entries","transfer":0,"entries":[{page}]}}"#);
        liar.json(&page).await;
        assert_refused(liar, bob, into.path(), &format!("{more} {page}")).await;
    }
    let into = tempdir().unwrap();
    let (mut liar, bob) = liar::pair();
    liar.json(&OFFER.replace(r#"_bytes":0"#, r#"_bytes":1"#))
        .await;
    liar.json(ENTRY).await;
    assert_refused(liar, bob, into.path(), "a stream of a known size").await;
}

#[tokio::test]
async fn a_stream_that_lies_is_refused_and_leaves_nothing() {
    let (one, two) = (noise(MIB, 1), noise(5, 2));
    let all = [one.clone(), two.clone()].concat();
    let root = Digest::of_file(&all);
    for what in [
        "too short an end",
        "too long an end",
        "a chunk behind a short one",
        "a gap",
        "the end of a file",
        "a batch",
        "digests",
    ] {
        let into = tempdir().unwrap();
        let (mut liar, bob, _) = offered_by_liar(into.path()).await;
        liar.chunk(0, 0, &one, chunk_digest(0, &one)).await;
        let two_digest = chunk_digest(1, &two);
        match what {
            "too short an end" => liar.json(&end(1, root)).await,
            "too long an end" => liar.json(&end(all.len(), root)).await,
            "a chunk behind a short one" => {
                liar.chunk(0, 1, &two, two_digest).await;
                liar.chunk(0, 2, &two, chunk_digest(2, &two)).await;
            }
            "a gap" => liar.chunk(0, 2, &two, chunk_digest(2, &two)).await,
            "the end of a file" => liar.end(0, &[&one]).await,
            "a batch" => liar.batch(&[(0, &two)]).await,
            _ => liar.digests(&[(0, 0, root)]).await,
        }
        assert_refused(liar, bob, into.path(), what).await;
    }
}

#[tokio::test]
async fn a_stream_with_another_digest_is_not_kept() {
    let one = noise(100, 1);
    for wrong in ["chunk", "root", "root of the chunk"] {
        let into = tempdir().unwrap();
        let (mut liar, mut bob, id) = offered_by_liar(into.path()).await;
        let other = Digest::of_file(b"other");
        // The only chunk of a stream has the digest of one of several.
        let genuine = chunk_digest_of_first(&one);
        let digest = if wrong == "chunk" { other } else { genuine };
        liar.chunk(0, 0, &one, digest).await;
        let root = match wrong {
            "root" => other,
            "root of the chunk" => genuine,
            _ => Digest::of_file(&one),
        };
        liar.json(&end(one.len(), root)).await;
        let (_, streamed, reason) = broken(bob.finished(id).await);
        assert_eq!(reason, TransferError::Verification(Party::Us), "{wrong}");
        assert_eq!(streamed, Streamed::Removed);
        assert!(names(into.path()).is_empty(), "{wrong}");
    }
}

/// Of the first chunk of a stream, be it the only one.
fn chunk_digest_of_first(data: &[u8]) -> Digest {
    let first = pinhole_transfer::ChunkIndex::FIRST;
    let place = pinhole_transfer::chunking::ChunkPlace::of_stream(first, data.len());
    Digest::of_chunk(place.unwrap(), data)
}

#[tokio::test]
async fn an_honest_hand_written_stream_is_understood() {
    for sizes in [vec![], vec![100], vec![MIB], vec![MIB, 5]] {
        let into = tempdir().unwrap();
        let (mut liar, mut bob, id) = offered_by_liar(into.path()).await;
        let mut all = Vec::new();
        for (index, &size) in sizes.iter().enumerate() {
            let data = noise(size, index as u64);
            let digest = match index {
                0 => chunk_digest_of_first(&data),
                _ => chunk_digest(index as u32, &data),
            };
            liar.chunk(0, index as u32, &data, digest).await;
            all.extend(data);
        }
        liar.json(&end(all.len(), Digest::of_file(&all))).await;
        assert_eq!(bob.finished(id).await.unwrap().bytes, all.len() as u64);
        let said = loop {
            let said = liar.hear().await;
            match said["type"].as_str() {
                Some("arrived") => assert!(said["size_bytes"].as_u64() <= Some(all.len() as u64)),
                Some("alive") => {}
                _ => break said,
            }
        };
        assert_eq!(said["type"], "durable");
    }
}

#[tokio::test]
async fn what_no_receiver_of_a_stream_says_ends_the_connection() {
    let have = r#"{"type":"have","transfer":0,"files":[[0,0]]}"#;
    let have_one = r#"{"type":"have","transfer":0,"files":[[0,1]]}"#;
    let accept = r#"{"type":"accept","transfer":0}"#;
    let arrived = |bytes: u64| format!(r#"{{"type":"arrived","transfer":0,"size_bytes":{bytes}}}"#);
    let compared = r#"{"type":"compared","transfer":0,"entry":0,"chunks":1,"differing":[]}"#;
    let durable = r#"{"type":"durable","transfer":0,"entries":1}"#;
    for said in [
        vec![have.to_owned()],
        vec![have_one.to_owned()],
        vec![compared.to_owned()],
        vec![durable.to_owned()],
        vec![arrived(0), arrived(1)],
        vec![accept.to_owned(), compared.to_owned()],
        vec![accept.to_owned(), durable.to_owned()],
        vec![accept.to_owned(), arrived(1)],
        vec![accept.to_owned(), arrived(u64::MAX)],
        vec![accept.to_owned(), have.to_owned()],
    ] {
        let (left, right) = tokio::io::duplex(8 * MIB);
        let mut liar = Liar { stream: left };
        let mut alice = Peer::over(right, pinhole_transfer::Side::Initiator);
        let (_feed, fed) = Fed::new();
        alice.exchange.send(stream(fed)).unwrap();
        for message in &said {
            liar.json(message).await;
        }
        let reason = alice.closed().await;
        let is_violation = matches!(reason, Some(ExchangeError::Violation(_)));
        assert!(is_violation, "{said:?}: {reason:?}");
    }
}
