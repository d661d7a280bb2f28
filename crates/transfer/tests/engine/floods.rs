//! A peer that floods, one that says nothing, and one that breaks off in the
//! middle of a frame, in every state.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pinhole_transfer::frame::ChunkHeader;
use pinhole_transfer::{
    ChunkIndex, EntryIndex, ExchangeError, ExchangeEvent, Party, Side, TransferError,
};
use tempfile::tempdir;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::liar::{Liar, MIB, accepted, chunk_digest, id, pair};
use crate::support::{Peer, names, noise};

/// Says so much without listening, and must be thrown out.
async fn is_thrown_out(flood: impl Fn(u32) -> String + Send + 'static) {
    // So that few answers get through.
    let (left, right) = tokio::io::duplex(4096);
    let (_unheard, mut writing) = tokio::io::split(left);
    let mut bob = Peer::over(right, Side::Responder);
    let flooding = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        for number in 0..200_000 {
            let said = flood(number);
            let length = u32::try_from(said.len() + 1).unwrap();
            let frame = [&length.to_be_bytes()[..], &[1], said.as_bytes()].concat();
            if writing.write_all(&frame).await.is_err() {
                return;
            }
        }
    });
    loop {
        match bob.event().await {
            ExchangeEvent::Closed { reason } => {
                assert!(
                    matches!(reason, Some(ExchangeError::Violation(_))),
                    "{reason:?}"
                );
                break;
            }
            ExchangeEvent::Offered { .. }
            | ExchangeEvent::Text { .. }
            | ExchangeEvent::Finished { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    flooding.abort();
}

#[tokio::test]
async fn offers_whose_answers_are_not_heard_end_the_connection() {
    is_thrown_out(|number| {
        let id = number * 2;
        format!(r#"{{"type":"offer","transfer":{id},"entries":1,"total_bytes":1}}"#)
    })
    .await;
}

#[tokio::test]
async fn words_whose_acknowledgements_are_not_heard_end_the_connection() {
    is_thrown_out(|number| {
        let id = number * 2;
        format!(r#"{{"type":"text","transfer":{id},"text":""}}"#)
    })
    .await;
}

/// Whoever ends a transfer may be the one who would have to take the events that
/// the queue is full of.
#[tokio::test]
async fn a_transfer_is_ended_although_nobody_takes_events() {
    const PAUSES: u32 = 1000;
    let from = tempdir().unwrap();
    let path = from.path().join("a");
    std::fs::write(&path, "a").unwrap();
    let (mut liar, mut bob) = pair();
    let cancelled = bob.send(std::slice::from_ref(&path)).await;
    let interrupted = bob.send(std::slice::from_ref(&path)).await;
    let taken = bob.send(&[path]).await;
    liar.json(r#"{"type":"accept","transfer":5}"#).await;
    for number in 0..PAUSES {
        let paused = number % 2 == 0;
        let said = format!(r#"{{"type":"pause","transfer":5,"paused":{paused}}}"#);
        liar.json(&said).await;
    }
    while bob.events.len() < bob.events.max_capacity() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let ended = async {
        bob.exchange.cancel(cancelled).unwrap();
        bob.exchange.interrupt(interrupted).unwrap();
    };
    let in_time = tokio::time::timeout(Duration::from_secs(10), ended).await;
    in_time.expect("an end without anybody who takes events");
    liar.json(r#"{"type":"close"}"#).await;

    let (mut pauses, mut outcomes) = (0, Vec::new());
    loop {
        match bob.event().await {
            ExchangeEvent::Accepted { id } => assert_eq!(id, taken),
            ExchangeEvent::Paused { .. } => pauses += 1,
            ExchangeEvent::Finished { id, outcome } => outcomes.push((id, outcome)),
            ExchangeEvent::Closed { reason } => break assert_eq!(reason, None),
            other => panic!("{other:?}"),
        }
    }
    let expected = [
        (cancelled, Err(TransferError::Cancelled(Party::Us))),
        (interrupted, Err(TransferError::Interrupted(Party::Us))),
        (taken, Err(TransferError::Interrupted(Party::Peer))),
    ];
    assert_eq!(outcomes, expected);
    assert_eq!(pauses, PAUSES);
    assert!(bob.events.is_empty(), "the end is the last");
}

/// However short their paths are, entries take memory.
#[tokio::test]
async fn offers_of_very_many_entries_at_once_are_declined() {
    let (mut liar, _bob) = pair();
    for number in 0..3 {
        let id = number * 2;
        liar.json(&format!(
            r#"{{"type":"offer","transfer":{id},"entries":250000,"total_bytes":0}}"#
        ))
        .await;
    }
    let said = liar.hear().await;
    assert_eq!(
        (&said["type"], &said["transfer"]),
        (&"decline".into(), &2.into())
    );
    assert_eq!(said["reason"], "busy");
}

#[tokio::test]
async fn a_manifest_without_end_ends_the_connection() {
    let (mut liar, mut bob) = pair();
    let flooding = tokio::spawn(async move {
        liar.json(r#"{"type":"offer","transfer":0,"entries":250000,"total_bytes":0}"#)
            .await;
        let name = "n".repeat(200);
        for page in 0..250 {
            let folder =
                |number: u32| format!(r#"{{"folder":{{"path":"{page} {number} {name}"}}}}"#);
            let entries: Vec<_> = (0..1000).map(folder).collect();
            let entries = entries.join(",");
            liar.json(&format!(
                r#"{{"type":"entries","transfer":0,"entries":[{entries}]}}"#
            ))
            .await;
        }
        liar
    });
    let reason = bob.closed().await;
    assert!(
        matches!(reason, Some(ExchangeError::Violation(_))),
        "{reason:?}"
    );
    drop(flooding.await.unwrap());
}

/// Where a connection can stand when the peer falls silent.
const STATES: &[&str] = &[
    "nothing said",
    "announced",
    "offered",
    "accepted",
    "in a chunk",
    "in a batch",
    "in a file",
    "sending",
    "sending to one who accepted",
];

/// Brings a connection into that state.
async fn brought(state: &str, from: &Path, into: &Path) -> (Liar, Peer) {
    let data = noise(MIB, 1);
    let digest = chunk_digest(0, &data);
    let announce = r#"{"type":"offer","transfer":0,"entries":1,"total_bytes":1}"#;
    match state {
        "nothing said" => pair(),
        "announced" => {
            let (mut liar, bob) = pair();
            liar.json(announce).await;
            (liar, bob)
        }
        "offered" => {
            let (mut liar, mut bob) = pair();
            liar.offer(&[2 * MIB]).await;
            bob.offered().await;
            (liar, bob)
        }
        "accepted" | "in a chunk" | "in a batch" | "in a file" => {
            let (mut liar, bob, _) = accepted(&[2 * MIB, 3], into).await;
            let header = ChunkHeader {
                transfer: id(0),
                entry: EntryIndex::FIRST,
                index: ChunkIndex::FIRST,
                digest,
            };
            match state {
                "in a chunk" => {
                    liar.bytes(&header.encode(MIB).unwrap()).await;
                    liar.bytes(&data[..MIB / 2]).await;
                }
                "in a batch" => liar.bytes(&[0, 0, 0, 200, 3, 0, 0]).await,
                "in a file" => liar.chunk(0, 0, &data, digest).await,
                _ => {}
            }
            (liar, bob)
        }
        _ => {
            let path = from.join("a");
            std::fs::write(&path, &data).unwrap();
            let (mut liar, mut bob) = pair();
            bob.send(&[path]).await;
            assert_eq!(liar.hear().await["type"], "offer");
            if state == "sending to one who accepted" {
                liar.json(r#"{"type":"accept","transfer":1}"#).await;
                while !matches!(bob.event().await, ExchangeEvent::Accepted { .. }) {}
            }
            (liar, bob)
        }
    }
}

/// Nothing under a final name, and none of its folders.
fn assert_only_parts(into: &Path, state: &str) {
    let left = names(into);
    let is_part = |name: &String| name.ends_with(".pinhole-part");
    assert!(left.iter().all(is_part), "{state}: {left:?}");
}

#[tokio::test]
async fn half_a_frame_in_any_state_is_a_lost_connection() {
    for state in STATES {
        let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
        let (mut liar, mut bob) = brought(state, from.path(), into.path()).await;
        if !matches!(*state, "in a chunk" | "in a batch") {
            liar.bytes(&[0, 0, 1, 0, 1, b'{']).await;
        }
        drop(liar);
        let reason = bob.closed().await;
        assert!(
            matches!(reason, Some(ExchangeError::ConnectionLost(_))),
            "{state}: {reason:?}"
        );
        assert_only_parts(into.path(), state);
    }
}

#[tokio::test]
async fn rubbish_in_any_state_ends_the_connection() {
    for state in STATES {
        if matches!(*state, "in a chunk" | "in a batch") {
            // There it is data, and found out by its digest.
            continue;
        }
        let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
        let (mut liar, mut bob) = brought(state, from.path(), into.path()).await;
        liar.json(r#"{"type":"durable","transfer":77,"entries":1}"#)
            .await;
        let reason = bob.closed().await;
        assert!(
            matches!(reason, Some(ExchangeError::Violation(_))),
            "{state}: {reason:?}"
        );
        assert_eq!(names(into.path()), Vec::<String>::new(), "{state}");
    }
}

/// Silence is no violation: a disk may be slow, a person away. But it holds
/// nobody up who wants to go.
#[tokio::test]
async fn silence_in_any_state_holds_nobody_up() {
    let ends = STATES.iter().map(|state| {
        tokio::spawn(async move {
            let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
            let (liar, mut bob) = brought(state, from.path(), into.path()).await;
            let closing = tokio::time::timeout(Duration::from_secs(20), bob.exchange.close());
            closing.await.expect("an end in time");
            loop {
                match bob.event().await {
                    ExchangeEvent::Closed { reason } => break assert_eq!(reason, None, "{state}"),
                    ExchangeEvent::Finished { outcome, .. } => {
                        let gone = Err(TransferError::Interrupted(Party::Us));
                        assert_eq!(outcome, gone, "{state}");
                    }
                    _ => {}
                }
            }
            assert_only_parts(into.path(), state);
            drop(liar);
        })
    });
    for end in ends.collect::<Vec<_>>() {
        end.await.unwrap();
    }
}

/// A stream that has a fault of its own.
struct Faulty(tokio::io::DuplexStream);

impl AsyncRead for Faulty {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        panic!("a fault of the stream");
    }
}

impl AsyncWrite for Faulty {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[tokio::test]
async fn a_reader_that_is_lost_ends_the_exchange_on_both_sides() {
    let (left, right) = tokio::io::duplex(4096);
    let mut alice = Peer::over(Faulty(left), Side::Initiator);
    let mut bob = Peer::over(right, Side::Responder);
    for peer in [&mut alice, &mut bob] {
        let reason = peer.closed().await;
        assert!(
            matches!(reason, Some(ExchangeError::ConnectionLost(_))),
            "{reason:?}"
        );
    }
}
