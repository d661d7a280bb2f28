//! A few words instead of files, and how fast anything may travel.

use std::collections::BTreeSet;
use std::fs;
use std::time::Instant;

use crate::liar::{MIB, pair as liar_and_peer};
use crate::support::{Peer, noise, pair};
use pinhole_transfer::exchange::TRANSFERS_MAX;
use pinhole_transfer::message::TEXT_BYTES_MAX;
use pinhole_transfer::{
    DeclineReason, ExchangeError, ExchangeEvent, Party, Resources, Side, Summary, TransferError,
    TransferId,
};
use tempfile::tempdir;

async fn text(peer: &mut Peer) -> (TransferId, String) {
    match peer.event().await {
        ExchangeEvent::Text { id, text } => (id, text),
        other => panic!("{other:?} instead of a text"),
    }
}

#[tokio::test]
async fn words_arrive_as_they_were_said() {
    let (mut alice, mut bob) = pair();
    for said in [
        "",
        "https://example.org/?a=b\nline two",
        &"\u{1}".repeat(TEXT_BYTES_MAX),
    ] {
        let id = alice.exchange.send_text(said.to_owned()).unwrap();
        assert_eq!(text(&mut bob).await, (id, said.to_owned()));
        bob.exchange.take_text(id).unwrap();
        assert_eq!(alice.finished(id).await, Ok(Summary::default()));
        let id = bob.exchange.send_text(said.to_owned()).unwrap();
        assert_eq!(text(&mut alice).await, (id, said.to_owned()));
        alice.exchange.take_text(id).unwrap();
        bob.finished(id).await.unwrap();
    }
    let too_long = alice.exchange.send_text("a".repeat(TEXT_BYTES_MAX + 1));
    assert_eq!(too_long, Err(ExchangeError::TextTooLong));
}

#[tokio::test]
async fn words_wait_for_an_answer() {
    let (mut alice, mut bob) = pair();
    let id = alice.exchange.send_text("hello".to_owned()).unwrap();
    assert_eq!(text(&mut bob).await.0, id);
    bob.exchange.decline(id, DeclineReason::Declined).unwrap();
    let declined = Err(TransferError::Declined(DeclineReason::Declined));
    assert_eq!(alice.finished(id).await, declined);
    let over = Err(ExchangeError::UnknownTransfer);
    assert_eq!(bob.exchange.take_text(id), over);
    assert_eq!(alice.exchange.take_text(id), over);

    let id = alice.exchange.send_text("taken back".to_owned()).unwrap();
    assert_eq!(text(&mut bob).await.0, id);
    alice.exchange.cancel(id).unwrap();
    let cancelled = Err(TransferError::Cancelled(Party::Peer));
    assert_eq!(bob.finished(id).await, cancelled);
}

#[tokio::test]
async fn of_words_that_nobody_answers_only_so_many_wait() {
    let (mut liar, mut bob) = liar_and_peer();
    for number in 0..=TRANSFERS_MAX {
        let id = number * 2;
        let said = format!(r#"{{"type":"text","transfer":{id},"text":"{number}"}}"#);
        liar.json(&said).await;
    }
    let declined = liar.hear().await;
    assert_eq!(declined["type"], "decline");
    assert_eq!(declined["transfer"], 2 * TRANSFERS_MAX);
    assert_eq!(declined["reason"], "busy");
    for number in 0..TRANSFERS_MAX {
        assert_eq!(text(&mut bob).await.1, number.to_string());
    }
    assert!(bob.events.is_empty());
}

#[tokio::test]
async fn words_that_nobody_took_are_not_delivered() {
    let (liar, mut bob) = liar_and_peer();
    let id = bob.exchange.send_text("hello".to_owned()).unwrap();
    drop(liar);
    assert_eq!(bob.finished(id).await, Err(TransferError::ConnectionLost));
}

#[tokio::test]
async fn a_liar_about_words_is_told_off() {
    let long = format!(
        r#"{{"type":"text","transfer":0,"text":"{}"}}"#,
        "a".repeat(TEXT_BYTES_MAX + 1)
    );
    for said in [
        long.as_str(),
        r#"{"type":"text","transfer":1,"text":"an id of ours"}"#,
        r#"{"type":"durable","transfer":1,"entries":0}"#,
        r#"{"type":"decline","transfer":0,"reason":"declined"}"#,
        r#"{"type":"pause","transfer":0,"paused":true}"#,
        r#"{"type":"skip","transfer":1,"entries":[[0,1]]}"#,
    ] {
        let (mut liar, mut bob) = liar_and_peer();
        liar.json(said).await;
        assert!(liar.hear_close().await["violation"].is_string(), "{said}");
        assert!(bob.closed().await.is_some());
    }
}

/// Sends a file of 3 MiB with these limits on either side, and returns how
/// long that takes in seconds.
async fn seconds(of_sender: Resources, of_receiver: Resources) -> f64 {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let content = noise(3 * MIB, 1);
    fs::write(from.path().join("a"), &content).unwrap();
    let (left, right) = tokio::io::duplex(64 * 1024);
    let mut alice = Peer::limited(left, Side::Initiator, of_sender);
    let mut bob = Peer::limited(right, Side::Responder, of_receiver);
    let start = Instant::now();
    let id = alice.send(&[from.path().join("a")]).await;
    bob.accept_next(into.path()).await;
    bob.finished(id).await.unwrap();
    alice.finished(id).await.unwrap();
    assert!(fs::read(into.path().join("a")).unwrap() == content);
    start.elapsed().as_secs_f64()
}

#[tokio::test]
async fn either_side_can_limit_the_speed() {
    let limit = 4 * MIB as u64;
    let resources = Resources::default();
    resources.send.set(Some(limit));
    let sending = seconds(resources, Resources::default()).await;
    let resources = Resources::default();
    resources.receive.set(Some(limit));
    let receiving = seconds(Resources::default(), resources).await;
    // Three quarters of a second at the limit, less what may be caught up.
    for seconds in [sending, receiving] {
        assert!(seconds >= 0.6, "{seconds} s");
    }
    // A limit in the other direction is none.
    let resources = Resources::default();
    resources.receive.set(Some(1024));
    seconds(resources, Resources::default()).await;
}

/// Until the list of files has come, nobody is asked.
#[tokio::test]
async fn an_offer_does_not_wait_for_the_limit() {
    let from = tempdir().unwrap();
    fs::write(from.path().join("a"), noise(40, 1)).unwrap();
    let (left, right) = tokio::io::duplex(64 * 1024);
    let resources = Resources::default();
    resources.send.set(Some(1));
    let alice = Peer::limited(left, Side::Initiator, resources);
    let mut bob = Peer::over(right, Side::Responder);
    assert!(alice.exchange.is_idle() && bob.exchange.is_idle());
    let begin = Instant::now();
    let id = alice.send(&[from.path().join("a")]).await;
    assert_eq!(bob.offered().await.0, id);
    // Forty bytes at one a second.
    assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
    assert!(!alice.exchange.is_idle() && !bob.exchange.is_idle());
}

/// On a slow line a chunk takes seconds, in which the bar must not stand still.
#[tokio::test]
async fn a_chunk_counts_as_it_comes() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    fs::write(from.path().join("a"), noise(MIB, 1)).unwrap();
    let (left, right) = tokio::io::duplex(64 * 1024);
    let resources = Resources::default();
    resources.send.set(Some(2 * MIB as u64));
    let mut alice = Peer::limited(left, Side::Initiator, resources);
    let mut bob = Peer::over(right, Side::Responder);
    let id = alice.send(&[from.path().join("a")]).await;
    bob.accept_next(into.path()).await;
    let mut seen = [const { BTreeSet::new() }; 2];
    while seen.iter().any(|seen| !seen.contains(&(MIB as u64))) {
        for (peer, seen) in [&alice, &bob].into_iter().zip(&mut seen) {
            let done = peer.exchange.progress(id).map(|it| it.bytes_done);
            seen.insert(done.unwrap_or(MIB as u64));
        }
        tokio::task::yield_now().await;
    }
    bob.finished(id).await.unwrap();
    alice.finished(id).await.unwrap();
    for seen in seen {
        assert!(seen.len() > 10, "{seen:?}");
    }
}
