//! The first chunk of a large offer, ahead of the answer to it: when it is sent, and
//! what is sent behind it.

use std::fs;
use std::path::PathBuf;

use pinhole_transfer::digest::Digest;
use pinhole_transfer::{ExchangeEvent, Party, Source, TransferError, TransferId};
use tempfile::tempdir;

use crate::early_chunk::{SIZES, both_agree, chunks, two_files};
use crate::liar::{Liar, MIB, pair as with_liar};
use crate::support::{Peer, pair};

const ACCEPT: &str = r#"{"type":"accept","transfer":1}"#;

/// Bob, who offers these files; the offer and its entries are heard.
async fn offered_by_bob(paths: &[PathBuf]) -> (Liar, Peer, TransferId) {
    let (mut liar, bob) = with_liar();
    let id = bob.send(paths).await;
    let said = liar.hear().await;
    assert!(said["early"].is_number(), "{said}");
    assert_eq!(liar.hear().await["type"], "entries");
    (liar, bob, id)
}

#[tokio::test]
async fn a_large_offer_sends_its_first_chunk_and_waits_for_the_answer() {
    let from = tempdir().unwrap();
    let (mut liar, mut bob, id) = offered_by_bob(&two_files(from.path())).await;
    let [first, second] = chunks();
    assert!(liar.hear_chunk().await == (0, 0, first.clone()));
    liar.caught_up(&mut bob).await;
    assert_eq!(bob.exchange.progress(id).unwrap().bytes_done, 0);
    liar.json(ACCEPT).await;
    assert_eq!(liar.hear().await["type"], "alive");
    assert!(bob.exchange.progress(id).unwrap().bytes_done >= MIB as u64);
    assert!(liar.hear_chunk().await == (0, 1, second.clone()));
    let end = liar.hear().await;
    let whole = Digest::of_file(&[first, second].concat());
    assert_eq!(end["root"], whole.to_string());
    assert_eq!(liar.hear_batch().await, [(1, b"abc".to_vec())]);
    let done = bob.exchange.progress(id).unwrap().bytes_done;
    assert_eq!(done as usize, SIZES.iter().sum::<usize>());
    liar.json(r#"{"type":"durable","transfer":1,"entries":2}"#)
        .await;
    let summary = bob.finished(id).await.unwrap();
    assert_eq!((summary.files, summary.bytes), (2, done));
}

#[tokio::test]
async fn small_first_files_go_ahead_whole() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let paths = ["a", "b", "c"].map(|name| from.path().join(name));
    fs::write(&paths[0], "abc").unwrap();
    fs::write(&paths[1], "").unwrap();
    fs::write(&paths[2], chunks().concat()).unwrap();
    let (mut liar, bob, id) = offered_by_bob(&paths).await;
    let early = [(0, b"abc".to_vec()), (1, Vec::new())];
    assert_eq!(liar.hear_batch().await, early);
    liar.json(r#"{"type":"skip","transfer":1,"entries":[[0,1]]}"#)
        .await;
    liar.json(ACCEPT).await;
    assert_eq!(liar.hear().await["type"], "alive");
    assert!(liar.hear_chunk().await == (2, 0, chunks()[0].clone()));
    let progress = bob.exchange.progress(id).unwrap();
    assert!(
        Some(progress.bytes_done) <= progress.bytes_total,
        "{progress:?}"
    );

    let (mut alice, mut bob) = pair();
    for unwanted in [&[0][..], &[1], &[2], &[]] {
        let summary = both_agree(&mut alice, &mut bob, &paths, into.path(), unwanted).await;
        assert_eq!(summary.files as usize, 3 - unwanted.len());
    }
    assert_eq!(fs::read(into.path().join("a (2)")).unwrap(), b"abc");
    assert!(fs::read(into.path().join("c (2)")).unwrap() == chunks().concat());
}

#[tokio::test]
async fn what_is_not_wanted_of_it_does_not_count() {
    let from = tempdir().unwrap();
    let paths = two_files(from.path());
    for (said, left) in [
        (r#"{"type":"skip","transfer":1,"entries":[[0,1]]}"#, 3),
        (
            r#"{"type":"have","transfer":1,"files":[[0,2]]}"#,
            SIZES[0] + 3,
        ),
    ] {
        let (mut liar, bob, id) = offered_by_bob(&paths).await;
        assert_eq!(liar.hear_chunk().await.1, 0);
        liar.json(said).await;
        liar.json(ACCEPT).await;
        assert_eq!(liar.hear().await["type"], "alive");
        let progress = bob.exchange.progress(id).unwrap();
        assert_eq!(progress.bytes_total, Some(left as u64));
        assert!(progress.bytes_done <= 3, "{progress:?}");
    }
}

/// Before the threads that send have begun, the receiver may have said all that
/// it has to say of what went ahead.
#[tokio::test(flavor = "multi_thread")]
async fn the_receiver_may_be_faster_than_who_sends_the_rest() {
    let from = tempdir().unwrap();
    let paths = two_files(from.path());
    for _ in 0..50 {
        let (mut liar, mut bob, id) = offered_by_bob(&paths).await;
        assert_eq!(liar.hear_chunk().await.1, 0);
        liar.json(ACCEPT).await;
        liar.json(r#"{"type":"file_failed","transfer":1,"entry":0,"trouble":"io"}"#)
            .await;
        liar.json(r#"{"type":"durable","transfer":1,"entries":1}"#)
            .await;
        // The file comes to an end, one or the other, and then the next.
        let last = liar.hear_until_batch().await;
        assert!(matches!(&*last, "file_failed" | "file_end"), "{last}");
        liar.json(r#"{"type":"durable","transfer":1,"entries":2}"#)
            .await;
        let summary = bob.finished(id).await.unwrap();
        assert_eq!((summary.files, summary.failed_files), (1, 1));
        assert_eq!(bob.failed.len(), 1);
    }
    let source = || Source::scan(&two_files(from.path())).unwrap();
    for _ in 0..50 {
        let (mut liar, mut bob) = with_liar();
        let gone = source();
        fs::remove_file(&paths[0]).unwrap();
        let id = bob.exchange.send(gone).unwrap();
        for said in ["offer", "entries", "file_failed"] {
            assert_eq!(liar.hear().await["type"], said);
        }
        liar.json(ACCEPT).await;
        liar.json(r#"{"type":"durable","transfer":1,"entries":1}"#)
            .await;
        assert_eq!(liar.hear().await["type"], "alive");
        only_the_second_arrives(&mut liar, &mut bob, id).await;
    }
}

/// What comes of two files of which the first has failed.
async fn only_the_second_arrives(liar: &mut Liar, bob: &mut Peer, id: TransferId) {
    assert_eq!(liar.hear_batch().await, [(1, b"abc".to_vec())]);
    liar.json(r#"{"type":"durable","transfer":1,"entries":2}"#)
        .await;
    let summary = bob.finished(id).await.unwrap();
    assert_eq!((summary.files, summary.failed_files), (1, 1));
    assert_eq!(bob.failed.len(), 1);
}

/// Hears what bob says up to this offer, and whether its chunk goes ahead.
async fn goes_ahead(liar: &mut Liar, id: TransferId) -> bool {
    let number = serde_json::to_value(id).unwrap();
    loop {
        if let Some(said) = liar.hear_any().await
            && said["type"] == "offer"
            && said["transfer"] == number
        {
            return said.get("early").is_some();
        }
    }
}

#[tokio::test]
async fn no_second_chunk_goes_ahead_until_the_first_is_answered() {
    let from = tempdir().unwrap();
    let paths = two_files(from.path());
    let (mut liar, mut bob) = with_liar();
    for what in ["accept", "decline", "cancel", "cancelled", "interrupted"] {
        let first = bob.send(&paths).await;
        assert!(goes_ahead(&mut liar, first).await, "{what}");
        let second = bob.send(&paths).await;
        assert!(!goes_ahead(&mut liar, second).await, "{what}");
        let number = serde_json::to_value(first).unwrap();
        match what {
            "cancelled" => bob.exchange.cancel(first).unwrap(),
            "interrupted" => bob.exchange.interrupt(first).unwrap(),
            _ => {
                let reason = match what {
                    "accept" => "",
                    "decline" => r#","reason":"declined""#,
                    _ => r#","reason":"cancelled""#,
                };
                liar.json(&format!(
                    r#"{{"type":"{what}","transfer":{number}{reason}}}"#
                ))
                .await;
            }
        }
        loop {
            match bob.event().await {
                ExchangeEvent::Accepted { id } | ExchangeEvent::Finished { id, .. }
                    if id == first =>
                {
                    break;
                }
                _ => {}
            }
        }
        if what == "accept" {
            bob.exchange.cancel(first).unwrap();
        }
    }
}

#[tokio::test]
async fn an_offer_made_again_sends_nothing_ahead() {
    let from = tempdir().unwrap();
    let (mut liar, bob) = with_liar();
    let id = bob.send_again(&two_files(from.path())).await;
    assert!(!goes_ahead(&mut liar, id).await);
}

/// Whatever the order in which one offer is taken back and another made, the
/// other side hears of the end first.
#[tokio::test(flavor = "multi_thread")]
async fn who_offers_may_think_better_of_it_at_any_time() {
    let from = tempdir().unwrap();
    let paths = two_files(from.path());
    let (mut alice, mut bob) = pair();
    let drain = tokio::spawn(async move { bob.closed().await });
    let mut last = alice.send(&paths).await;
    for _ in 0..300 {
        let exchange = alice.exchange.clone();
        let cancelling = tokio::spawn(async move { exchange.cancel(last).unwrap() });
        let next = alice.send(&paths).await;
        cancelling.await.unwrap();
        assert_eq!(
            alice.finished(last).await,
            Err(TransferError::Cancelled(Party::Us))
        );
        last = next;
    }
    alice.exchange.close().await;
    assert_eq!(drain.await.unwrap(), None);
}

#[tokio::test]
async fn a_file_that_changes_before_the_answer_fails() {
    let from = tempdir().unwrap();
    let paths = two_files(from.path());
    let (mut liar, mut bob, id) = offered_by_bob(&paths).await;
    assert_eq!(liar.hear_chunk().await.1, 0);
    fs::write(&paths[0], "something else").unwrap();
    liar.json(ACCEPT).await;
    assert_eq!(liar.hear().await["type"], "alive");
    let said = liar.hear().await;
    let failed = (&said["type"], &said["trouble"]);
    assert_eq!(failed, (&"file_failed".into(), &"changed".into()));
    only_the_second_arrives(&mut liar, &mut bob, id).await;
}
