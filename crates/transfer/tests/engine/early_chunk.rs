//! The first chunk of a large offer, ahead of the answer to it: what the receiver
//! holds, and what becomes of it when the answer is known.

use std::fs;
use std::path::{Path, PathBuf};

use pinhole_transfer::{
    AcceptOptions, DeclineReason, Destination, FileError, FileErrorKind, Party, Source, Summary,
    TransferError, TransferId,
};
use tempfile::tempdir;

use crate::liar::{FAILED, Liar, MIB, chunk_digest, pair as with_liar};
use crate::support::{Peer, names, noise, pair, without};

pub(crate) const SIZES: &[usize] = &[MIB + 5, 3];

/// The first file of [`SIZES`], in chunks.
pub(crate) fn chunks() -> [Vec<u8>; 2] {
    [noise(MIB, 1), noise(5, 2)]
}

impl Liar {
    pub(crate) async fn first_chunk(&mut self) {
        let [first, _] = chunks();
        self.chunk(0, 0, &first, chunk_digest(0, &first)).await;
    }

    async fn rest_of_the_first_file(&mut self) {
        let [first, second] = chunks();
        self.chunk(0, 1, &second, chunk_digest(1, &second)).await;
        self.end(0, &[&first, &second]).await;
    }
}

/// Two files of noise, the first of two chunks.
pub(crate) fn two_files(folder: &Path) -> [PathBuf; 2] {
    let paths = ["a", "b"].map(|name| folder.join(name));
    fs::write(&paths[0], chunks().concat()).unwrap();
    fs::write(&paths[1], "abc").unwrap();
    paths
}

/// Offers [`SIZES`], and has bob answer before or behind what goes ahead.
async fn answered(
    (liar, bob): (&mut Liar, &mut Peer),
    (is_early, is_failure): (bool, bool),
    (into, unwanted): (&Path, &[u32]),
) -> TransferId {
    liar.offer_chunk(0, SIZES).await;
    let (id, _) = bob.offered().await;
    if !is_early {
        bob.accept_some(id, into, without(unwanted)).await;
    }
    match is_failure {
        true => liar.json(FAILED).await,
        false => liar.first_chunk().await,
    }
    if is_early {
        liar.caught_up(bob).await;
        bob.accept_some(id, into, without(unwanted)).await;
    }
    id
}

/// The answer comes before or behind what goes ahead of it, and sooner than the
/// sender may know what to say of it.
#[tokio::test]
async fn what_came_ahead_is_held_and_written_only_once_it_was_accepted() {
    for is_early in [true, false] {
        let into = tempdir().unwrap();
        let (mut liar, mut bob) = with_liar();
        liar.offer_chunk(0, SIZES).await;
        let (id, _) = bob.offered().await;
        if is_early {
            liar.first_chunk().await;
            liar.caught_up(&mut bob).await;
            assert_eq!(names(into.path()), Vec::<String>::new());
            assert!(bob.exchange.progress(id).is_none());
        }
        bob.accept(id, into.path()).await;
        let done = bob.exchange.progress(id).unwrap().bytes_done;
        assert_eq!(done, if is_early { MIB as u64 } else { 0 });
        if !is_early {
            liar.first_chunk().await;
        }
        liar.rest_of_the_first_file().await;
        liar.batch(&[(1, b"abc")]).await;
        let summary = bob.finished(id).await.unwrap();
        assert_eq!((summary.files, summary.bytes as usize), (2, MIB + 8));
        assert!(fs::read(into.path().join("0")).unwrap() == chunks().concat());
        assert_eq!(names(into.path()), ["0", "1"]);
    }
}

#[tokio::test]
async fn an_answer_in_the_midst_of_it_counts_what_has_come() {
    let into = tempdir().unwrap();
    for (unwanted, counted) in [(&[][..], MIB as u64 / 2), (&[0], 0)] {
        let (mut liar, mut bob) = with_liar();
        liar.offer_chunk(0, SIZES).await;
        let (id, _) = bob.offered().await;
        let [first, _] = chunks();
        liar.half_a_chunk(0, 0, &first).await;
        // Until bob has begun to wait for the rest, which is not there.
        while bob.exchange.silence() < std::time::Duration::from_millis(100) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        bob.accept_some(id, into.path(), without(unwanted)).await;
        let done = bob.exchange.progress(id).unwrap().bytes_done;
        assert_eq!(done, counted);
        liar.bytes(&first[MIB / 2..]).await;
        if counted > 0 {
            liar.rest_of_the_first_file().await;
        }
        liar.batch(&[(1, b"abc")]).await;
        let summary = bob.finished(id).await.unwrap();
        assert_eq!(summary.files, 2 - unwanted.len() as u32);
    }
    assert_eq!(names(into.path()), ["0", "1", "1 (1)"]);
}

#[tokio::test]
async fn what_came_ahead_and_is_skipped_is_dropped() {
    for is_early in [true, false] {
        for is_failure in [true, false] {
            let into = tempdir().unwrap();
            let (mut liar, mut bob) = with_liar();
            let when = (is_early, is_failure);
            let id = answered((&mut liar, &mut bob), when, (into.path(), &[0])).await;
            assert_eq!(bob.exchange.progress(id).unwrap().bytes_done, 0);
            liar.batch(&[(1, b"abc")]).await;
            let summary = bob.finished(id).await.unwrap();
            assert_eq!((summary.files, summary.bytes), (1, 3), "{is_early}");
            assert_eq!((summary.skipped_files, summary.failed_files), (1, 0));
            assert!(bob.failed.is_empty(), "{:?}", bob.failed);
            assert_eq!(names(into.path()), ["1"]);
        }
    }
}

#[tokio::test]
async fn a_failure_that_came_ahead_is_told_once() {
    for is_early in [true, false] {
        let into = tempdir().unwrap();
        let (mut liar, mut bob) = with_liar();
        let when = (is_early, true);
        let id = answered((&mut liar, &mut bob), when, (into.path(), &[])).await;
        liar.batch(&[(1, b"abc")]).await;
        let summary = bob.finished(id).await.unwrap();
        assert_eq!((summary.files, summary.failed_files), (1, 1));
        assert_eq!(bob.failed.len(), 1, "{:?}", bob.failed);
        assert_eq!(names(into.path()), ["1"]);
    }
}

#[tokio::test]
async fn what_came_ahead_and_is_here_is_dropped() {
    for is_early in [true, false] {
        for is_failure in [true, false] {
            let into = tempdir().unwrap();
            let (mut liar, mut bob) = with_liar();
            liar.offer_chunk(0, SIZES).await;
            let id = bob.accept_next(into.path()).await;
            liar.first_chunk().await;
            while bob.exchange.progress(id).unwrap().bytes_done < MIB as u64 {
                tokio::task::yield_now().await;
            }
            drop(liar);
            bob.finished(id).await.unwrap_err();
            assert_ne!(names(into.path()).len(), 0, "it is kept");

            let (mut liar, mut bob) = with_liar();
            let when = (is_early, is_failure);
            let id = answered((&mut liar, &mut bob), when, (into.path(), &[])).await;
            assert_eq!(liar.hear().await["files"], serde_json::json!([[0, 1]]));
            assert_eq!(liar.hear().await["type"], "accept");
            let [first, second] = chunks();
            liar.digests(&[(0, 0, chunk_digest(0, &first))]).await;
            assert_eq!(liar.hear().await["type"], "compared");
            assert_eq!(bob.exchange.progress(id).unwrap().bytes_done, MIB as u64);
            liar.chunk(0, 1, &second, chunk_digest(1, &second)).await;
            liar.end(0, &[&first, &second]).await;
            liar.batch(&[(1, b"abc")]).await;
            let summary = bob.finished(id).await.unwrap();
            assert_eq!((summary.files, summary.resent_bytes), (2, 0));
            assert!(bob.failed.is_empty(), "{:?}", bob.failed);
            assert!(fs::read(into.path().join("0")).unwrap() == chunks().concat());
        }
    }
}

/// Sends these files and returns what both sides say of it.
pub(crate) async fn both_agree(
    alice: &mut Peer,
    bob: &mut Peer,
    paths: &[PathBuf],
    into: &Path,
    unwanted: &[u32],
) -> Summary {
    let source = Source::scan(paths).unwrap();
    both_agree_about(alice, bob, source, into, unwanted).await
}

async fn both_agree_about(
    alice: &mut Peer,
    bob: &mut Peer,
    source: Source,
    into: &Path,
    unwanted: &[u32],
) -> Summary {
    let id = alice.exchange.send(source).unwrap();
    let (of, _) = bob.offered().await;
    assert_eq!(of, id);
    bob.accept_some(id, into, without(unwanted)).await;
    let received = bob.finished(id).await.unwrap();
    let sent = alice.finished(id).await.unwrap();
    assert_eq!(sent.digest, received.digest);
    let counted = |summary: &Summary| {
        let numbers = (summary.files, summary.skipped_files, summary.failed_files);
        (numbers, summary.bytes, summary.resent_bytes)
    };
    assert_eq!(counted(&sent), counted(&received));
    received
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_agree_about_what_went_ahead() {
    for what in [
        "wanted",
        "skipped",
        "gone",
        "gone and skipped",
        "all skipped",
    ] {
        for _ in 0..20 {
            let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
            let paths = two_files(from.path());
            let source = Source::scan(&paths).unwrap();
            if what.starts_with("gone") {
                fs::remove_file(&paths[0]).unwrap();
            }
            let unwanted = match what {
                "all skipped" => &[0, 1][..],
                "skipped" | "gone and skipped" => &[0],
                _ => &[],
            };
            let (mut alice, mut bob) = pair();
            let summary =
                both_agree_about(&mut alice, &mut bob, source, into.path(), unwanted).await;
            let counted = (summary.files, summary.skipped_files, summary.failed_files);
            let (expected, failures) = match what {
                "wanted" => ((2, 0, 0), 0),
                "gone" => ((1, 0, 1), 1),
                "all skipped" => ((0, 2, 0), 0),
                _ => ((1, 1, 0), 0),
            };
            assert_eq!(counted, expected, "{what}");
            for peer in [&alice, &bob] {
                assert_eq!(peer.failed.len(), failures, "{what}: {:?}", peer.failed);
            }
            // The exchange serves on.
            let paths = two_files(from.path());
            let summary = both_agree(&mut alice, &mut bob, &paths, into.path(), &[]).await;
            assert_eq!(summary.files, 2);
        }
    }
}

#[tokio::test]
async fn a_file_that_changed_before_the_answer_is_not_kept() {
    let into = tempdir().unwrap();
    let (mut liar, mut bob) = with_liar();
    liar.offer_chunk(0, SIZES).await;
    liar.first_chunk().await;
    let id = bob.accept_next(into.path()).await;
    liar.json(&FAILED.replace("not_found", "changed")).await;
    liar.batch(&[(1, b"abc")]).await;
    let summary = bob.finished(id).await.unwrap();
    assert_eq!((summary.files, summary.failed_files), (1, 1));
    let why: Vec<_> = bob.failed.iter().map(|(_, error)| error.clone()).collect();
    assert_eq!(why, [FileError::Peer(FileErrorKind::Changed)]);
    assert_eq!(names(into.path()), ["1"]);
}

/// What comes late for an offer that has ended is ignored, and the next one may
/// come with its first chunk.
#[tokio::test]
async fn an_offer_that_ends_unanswered_takes_its_chunk_with_it() {
    for is_held in [true, false] {
        for what in ["declined", "cancelled", "cancelled here", "lost"] {
            let into = tempdir().unwrap();
            let (mut liar, mut bob) = with_liar();
            liar.offer_chunk(0, SIZES).await;
            let (id, _) = bob.offered().await;
            if is_held {
                liar.first_chunk().await;
                liar.caught_up(&mut bob).await;
            }
            match what {
                "declined" => {
                    let why = DeclineReason::Declined;
                    bob.exchange.decline(id, why).unwrap();
                }
                "cancelled" => {
                    liar.json(r#"{"type":"cancel","transfer":0,"reason":"cancelled"}"#)
                        .await;
                    let error = bob.finished(id).await.unwrap_err();
                    assert_eq!(error, TransferError::Cancelled(Party::Peer));
                }
                "cancelled here" => {
                    bob.exchange.cancel(id).unwrap();
                    let error = bob.finished(id).await.unwrap_err();
                    assert_eq!(error, TransferError::Cancelled(Party::Us));
                }
                _ => {
                    drop(liar);
                    let error = bob.finished(id).await.unwrap_err();
                    assert_eq!(error, TransferError::ConnectionLost);
                    assert!(names(into.path()).is_empty());
                    continue;
                }
            }
            if !is_held {
                liar.first_chunk().await;
            }
            liar.offer_chunk(2000, SIZES).await;
            let next = bob.accept_next(into.path()).await;
            liar.chunk_of(2000, 0, 0, &chunks()[0]).await;
            let cancel = r#"{"type":"cancel","transfer":2000,"reason":"cancelled"}"#;
            liar.json(cancel).await;
            let error = bob.finished(next).await.unwrap_err();
            assert_eq!(error, TransferError::Cancelled(Party::Peer), "{what}");
            assert!(names(into.path()).is_empty());
        }
    }
}

#[tokio::test]
async fn a_folder_that_does_not_serve_costs_nothing_of_what_is_held() {
    let into = tempdir().unwrap();
    let (mut liar, mut bob) = with_liar();
    liar.offer_chunk(0, SIZES).await;
    let (id, _) = bob.offered().await;
    liar.first_chunk().await;
    liar.caught_up(&mut bob).await;
    let folder = tempdir().unwrap();
    let gone = Destination::open(folder.path()).unwrap();
    drop(folder);
    let accepted = bob
        .exchange
        .accept(id, gone, AcceptOptions::default())
        .await;
    assert!(accepted.is_err());
    bob.accept(id, into.path()).await;
    liar.rest_of_the_first_file().await;
    liar.batch(&[(1, b"abc")]).await;
    assert_eq!(bob.finished(id).await.unwrap().files, 2);
}

#[tokio::test]
async fn a_lost_connection_keeps_what_came_ahead_of_an_answer() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let (mut liar, mut bob) = with_liar();
    liar.offer_chunk(0, SIZES).await;
    let (id, _) = bob.offered().await;
    liar.first_chunk().await;
    liar.caught_up(&mut bob).await;
    bob.accept(id, into.path()).await;
    drop(liar);
    let error = bob.finished(id).await.unwrap_err();
    assert_eq!(error, TransferError::ConnectionLost);

    // The same offer of somebody honest finds it.
    for (path, name) in two_files(from.path()).iter().zip(["0", "1"]) {
        fs::rename(path, from.path().join(name)).unwrap();
    }
    let paths = ["0", "1"].map(|name| from.path().join(name));
    let (mut alice, mut bob) = pair();
    let summary = both_agree(&mut alice, &mut bob, &paths, into.path(), &[]).await;
    let counted = (summary.files, summary.here_bytes, summary.resent_bytes);
    assert_eq!(counted, (2, MIB as u64, 0));
    assert!(fs::read(into.path().join("0")).unwrap() == chunks().concat());
}

/// Between what is due and where it goes nobody else may come: here the answer to
/// the offer is given while its first chunk arrives.
#[tokio::test(flavor = "multi_thread")]
async fn what_goes_ahead_may_come_while_the_offer_is_accepted() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let paths = two_files(from.path());
    let (mut alice, mut bob) = pair();
    for number in 0..200 {
        let unwanted = if number % 3 == 0 { &[0][..] } else { &[] };
        both_agree(&mut alice, &mut bob, &paths, into.path(), unwanted).await;
        for name in names(into.path()) {
            fs::remove_file(into.path().join(name)).unwrap();
        }
    }
}
