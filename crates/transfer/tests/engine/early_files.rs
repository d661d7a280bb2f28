//! Files that come along with their offer: what is held, what becomes of it when
//! the answer is known, and what nobody may send so early.

use std::fs;
use std::time::Duration;

use pinhole_transfer::digest::Digest;
use pinhole_transfer::frame::{BatchItem, encode_batch_header};
use pinhole_transfer::{
    AcceptOptions, DeclineReason, Destination, EntryIndex, ExchangeEvent, Party, Source,
    TransferError,
};
use tempfile::tempdir;

use crate::liar::{FAILED, Liar, MIB, assert_refused, chunk_digest, id, pair as with_liar};
use crate::support::{names, noise, pair, transfer, without};

#[tokio::test]
async fn a_small_offer_does_not_wait_for_the_answer() {
    let from = tempdir().unwrap();
    let paths = ["a", "b"].map(|name| from.path().join(name));
    fs::write(&paths[0], "12345").unwrap();
    fs::write(&paths[1], "").unwrap();
    let (mut liar, mut bob) = with_liar();
    let id = bob.send(&paths).await;
    let said = liar.hear().await;
    assert_eq!(
        (&said["type"], &said["early"]),
        (&"offer".into(), &5.into())
    );
    assert_eq!(liar.hear().await["type"], "entries");
    let sent = liar.hear_batch().await;
    assert_eq!(sent, [(0, b"12345".to_vec()), (1, Vec::new())]);
    // Files are not under way before the answer, however long it takes.
    let alive = tokio::time::timeout(Duration::from_millis(1500), liar.hear()).await;
    assert!(alive.is_err(), "{alive:?}");
    liar.json(r#"{"type":"accept","transfer":1}"#).await;
    assert_eq!(liar.hear().await["type"], "alive");
    let progress = bob.exchange.progress(id).unwrap();
    assert_eq!((progress.bytes_done, progress.files_done), (0, 0));
    liar.json(r#"{"type":"durable","transfer":1,"entries":1}"#)
        .await;
    while bob.exchange.progress(id).unwrap().files_done < 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bob.exchange.progress(id).unwrap().bytes_done, 5);
    liar.json(r#"{"type":"durable","transfer":1,"entries":2}"#)
        .await;
    let summary = bob.finished(id).await.unwrap();
    assert_eq!((summary.files, summary.bytes), (2, 5));
}

#[tokio::test]
async fn of_an_offer_that_is_not_small_the_rest_waits() {
    let from = tempdir().unwrap();
    for (what, count, size, early) in [
        ("one large", 1, 64 * 1024 + 1, 64 * 1024 + 1),
        ("two that do not fit together", 2, 40_000, 40_000),
        ("many", 65, 1, 64),
    ] {
        let folder = from.path().join(what);
        fs::create_dir(&folder).unwrap();
        for number in 0..count {
            fs::write(folder.join(number.to_string()), noise(size, 1)).unwrap();
        }
        let (mut liar, bob) = with_liar();
        bob.send(&[folder]).await;
        let said = liar.hear().await;
        assert_eq!(said["early"], early, "{what}");
        assert_eq!(liar.hear().await["type"], "entries");
        match early == size && count == 1 {
            true => assert_eq!(liar.hear_chunk().await.1, 0, "{what}"),
            false => assert_eq!(liar.hear_batch().await.len(), early / size, "{what}"),
        }
        // The next thing is the answer to the acceptance.
        let more = tokio::time::timeout(Duration::from_millis(200), liar.hear()).await;
        assert!(more.is_err(), "{what}: {more:?}");
        liar.json(r#"{"type":"accept","transfer":1}"#).await;
        assert_eq!(liar.hear().await["type"], "alive", "{what}");
        match count {
            1 => assert_eq!(liar.hear().await["type"], "file_end", "{what}"),
            _ => assert_eq!(liar.hear_batch().await.len(), 1, "{what}"),
        }
    }
}

#[tokio::test]
async fn what_came_along_is_held_and_written_only_once_it_was_accepted() {
    for is_early in [true, false] {
        let into = tempdir().unwrap();
        let (mut liar, mut bob) = with_liar();
        liar.offer_early(0, &[4, 3, 0, 5]).await;
        let (id, _) = bob.offered().await;
        if !is_early {
            bob.accept_some(id, into.path(), without(&[0, 2])).await;
        }
        liar.json(FAILED).await;
        liar.batch(&[(1, b"abc"), (2, b"")]).await;
        liar.batch(&[(3, b"abcde")]).await;
        if is_early {
            liar.caught_up(&mut bob).await;
            assert_eq!(names(into.path()), Vec::<String>::new());
            bob.accept_some(id, into.path(), without(&[0, 2])).await;
        }
        let summary = bob.finished(id).await.unwrap();
        assert_eq!((summary.files, summary.bytes), (2, 8), "{is_early}");
        // That it could not be read is of no interest: it is not wanted.
        assert_eq!((summary.skipped_files, summary.failed_files), (2, 0));
        assert!(bob.failed.is_empty(), "{:?}", bob.failed);
        assert_eq!(names(into.path()), ["1", "3"]);
        let skip = liar.hear().await;
        assert_eq!(skip["entries"], serde_json::json!([[0, 1], [2, 1]]));
        assert_eq!(liar.hear().await["type"], "accept");
        while liar.hear().await["entries"] != 4 {}
    }
}

#[tokio::test]
async fn all_that_came_along_can_be_unwanted() {
    let into = tempdir().unwrap();
    let (mut liar, mut bob) = with_liar();
    liar.offer_early(0, &[4, 3]).await;
    let (id, _) = bob.offered().await;
    bob.accept_some(id, into.path(), without(&[0, 1])).await;
    liar.batch(&[(0, b"abcd"), (1, b"abc")]).await;
    let summary = bob.finished(id).await.unwrap();
    assert_eq!((summary.files, summary.skipped_files), (0, 2));
    assert!(names(into.path()).is_empty());
}

#[tokio::test]
async fn both_sides_agree_about_what_was_skipped_or_could_not_be_read() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let paths = ["a", "b", "c", "d", "e"].map(|name| from.path().join(name));
    for path in &paths {
        fs::write(path, path.as_os_str().as_encoded_bytes()).unwrap();
    }
    let source = Source::scan(&paths).unwrap();
    for gone in [1, 3] {
        fs::remove_file(&paths[gone]).unwrap();
    }
    let (mut alice, mut bob) = pair();
    let id = alice.exchange.send(source).unwrap();
    bob.offered().await;
    bob.accept_some(id, into.path(), without(&[0, 1])).await;
    let received = bob.finished(id).await.unwrap();
    let sent = alice.finished(id).await.unwrap();
    assert_eq!(names(into.path()), ["c", "e"]);
    assert!(sent.digest.is_some());
    assert_eq!(sent.digest, received.digest);
    for summary in [sent, received] {
        let counted = (summary.files, summary.skipped_files, summary.failed_files);
        assert_eq!(counted, (2, 2, 1), "{summary:?}");
    }
}

#[tokio::test]
async fn several_at_once_are_answered_in_any_order() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let (mut alice, mut bob) = pair();
    let mut ids = Vec::new();
    for number in 0..12_u64 {
        let path = from.path().join(format!("{number:02}"));
        fs::write(&path, noise(60_000, number)).unwrap();
        ids.push(alice.send(&[path]).await);
        bob.offered().await;
    }
    for (number, id) in ids.iter().enumerate().rev() {
        if number % 3 == 0 {
            let why = DeclineReason::Declined;
            bob.exchange.decline(*id, why).unwrap();
            let declined = Err(TransferError::Declined(why));
            assert_eq!(alice.finished(*id).await, declined);
        } else {
            bob.accept(*id, into.path()).await;
            bob.finished(*id).await.unwrap();
            alice.finished(*id).await.unwrap();
        }
    }
    assert_eq!(names(into.path()).len(), 8);
    for name in names(into.path()) {
        let sent = fs::read(from.path().join(&name)).unwrap();
        assert!(fs::read(into.path().join(&name)).unwrap() == sent, "{name}");
    }
}

/// What comes late for an offer that has ended is ignored.
#[tokio::test]
async fn an_offer_that_ends_unanswered_takes_its_files_with_it() {
    for what in ["declined", "cancelled", "no folder", "lost"] {
        let into = tempdir().unwrap();
        let (mut liar, mut bob) = with_liar();
        liar.offer_early(0, &[4, 3]).await;
        let (id, _) = bob.offered().await;
        liar.batch(&[(0, b"abcd")]).await;
        liar.caught_up(&mut bob).await;
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
            "no folder" => {
                let folder = tempdir().unwrap();
                let gone = Destination::open(folder.path()).unwrap();
                drop(folder);
                let accepted = bob
                    .exchange
                    .accept(id, gone, AcceptOptions::default())
                    .await;
                assert!(accepted.is_err());
                // It is still there for a better folder, and so are its files.
                bob.accept(id, into.path()).await;
                liar.batch(&[(1, b"abc")]).await;
                assert_eq!(bob.finished(id).await.unwrap().files, 2);
                continue;
            }
            _ => {
                drop(liar);
                let error = bob.finished(id).await.unwrap_err();
                assert_eq!(error, TransferError::ConnectionLost);
                assert!(names(into.path()).is_empty());
                continue;
            }
        }
        liar.batch(&[(1, b"abc")]).await;
        // Not a violation, and the next one is taken.
        liar.offer_early(2000, &[1]).await;
        liar.batch_of(2000, &[(0, b"a")]).await;
        let id = bob.accept_next(into.path()).await;
        bob.finished(id).await.unwrap();
        assert_eq!(names(into.path()), ["0"], "{what}");
    }
}

#[tokio::test]
async fn who_offers_may_think_better_of_it() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let path = from.path().join("a");
    fs::write(&path, noise(60_000, 1)).unwrap();
    let (mut alice, mut bob) = pair();
    for _ in 0..20 {
        let id = alice.send(std::slice::from_ref(&path)).await;
        alice.exchange.cancel(id).unwrap();
        let error = alice.finished(id).await.unwrap_err();
        assert_eq!(error, TransferError::Cancelled(Party::Us));
    }
    let other = from.path().join("b");
    fs::write(&other, "b").unwrap();
    let last = alice.send(&[other]).await;
    loop {
        match bob.event().await {
            ExchangeEvent::Offered { id, .. } if id == last => break,
            ExchangeEvent::Offered { .. } | ExchangeEvent::Finished { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    bob.accept(last, into.path()).await;
    bob.finished(last).await.unwrap();
    assert_eq!(names(into.path()), ["b"]);
}

/// An attempt that broke off has left the first of these files whole.
#[tokio::test]
async fn what_an_earlier_attempt_left_is_compared_with_what_came_along() {
    for (first, left) in [
        (&b"abcd"[..], &["0", "1"][..]),
        (b"else", &["0", "0 (1)", "1"]),
    ] {
        let into = tempdir().unwrap();
        let (mut liar, mut bob) = with_liar();
        liar.offer_early(0, &[4, 3]).await;
        let id = bob.accept_next(into.path()).await;
        liar.batch(&[(0, b"abcd")]).await;
        while liar.hear().await["type"] != "durable" {}
        drop(liar);
        bob.finished(id).await.unwrap_err();
        assert!(names(into.path()).contains(&"0".to_owned()));

        let (mut liar, mut bob) = with_liar();
        liar.offer_early(0, &[4, 3]).await;
        liar.batch(&[(0, first), (1, b"abc")]).await;
        let id = bob.accept_next(into.path()).await;
        assert_eq!(liar.hear().await["type"], "accept", "nothing else is said");
        let summary = bob.finished(id).await.unwrap();
        assert_eq!((summary.files, summary.bytes), (2, 7));
        assert_eq!(names(into.path()), left);
        assert_eq!(fs::read(into.path().join("0")).unwrap(), b"abcd");
        let last = left[left.len() - 2];
        assert_eq!(fs::read(into.path().join(last)).unwrap(), first);
    }
}

#[tokio::test]
async fn too_much_never_comes_before_an_answer() {
    for (what, total, early) in [
        ("more than all", 7, 8),
        ("more than a chunk", 2 * MIB, MIB + 1),
        ("more than one can say", 2 * MIB, u32::MAX as usize),
    ] {
        let into = tempdir().unwrap();
        let (mut liar, bob) = with_liar();
        liar.json(&format!(
            r#"{{"type":"offer","transfer":0,"entries":1,"total_bytes":{total},"early":{early}}}"#
        ))
        .await;
        assert_refused(liar, bob, into.path(), what).await;
    }
    let many = &[1; 65][..];
    for (what, sizes, early) in [
        ("more files than may", many, 65),
        ("half a file", &[4, 3], 6),
        ("less than a file", &[4, 3], 3),
        ("half a chunk", &[MIB, 3], MIB - 1),
        ("the second file", &[MIB, 3], 3),
    ] {
        let into = tempdir().unwrap();
        let (mut liar, bob) = with_liar();
        liar.offer_as(0, sizes, &format!(r#","early":{early}"#))
            .await;
        assert_refused(liar, bob, into.path(), what).await;
    }
}

#[tokio::test]
async fn what_may_not_come_along_ends_the_connection() {
    for is_accepted in [false, true] {
        for what in [
            "a chunk",
            "the end of a file",
            "a digest",
            "a file twice",
            "failed and then sent",
            "another file",
            "no file",
            "a file of another size",
            "more than one chunk",
            "a failure twice",
            "more than all",
            "half an item",
        ] {
            let into = tempdir().unwrap();
            let (mut liar, mut bob) = with_liar();
            liar.offer_early(0, &[4, 3]).await;
            let (id, _) = bob.offered().await;
            if is_accepted {
                bob.accept(id, into.path()).await;
            }
            say_wrong(&mut liar, what).await;
            assert_refused(liar, bob, into.path(), what).await;
        }
    }
}

async fn say_wrong(liar: &mut Liar, what: &str) {
    let digest = Digest::of_file(b"abcd");
    match what {
        "a chunk" => liar.chunk(0, 0, b"abcd", digest).await,
        "the end of a file" => liar.end(0, &[]).await,
        "a digest" => liar.digests(&[(0, 0, digest)]).await,
        "a file twice" => liar.batch(&[(0, b"abcd"), (0, b"abcd")]).await,
        "failed and then sent" => {
            liar.json(FAILED).await;
            liar.batch(&[(0, b"abcd")]).await;
        }
        "another file" => liar.batch(&[(1, b"abc")]).await,
        "no file" => liar.batch(&[(2, b"")]).await,
        "a file of another size" => liar.batch(&[(0, b"abcde")]).await,
        "more than one chunk" => liar.batch(&[(0, &noise(MIB - 40, 1))]).await,
        "a failure twice" => {
            liar.json(FAILED).await;
            liar.json(FAILED).await;
        }
        "more than all" => {
            liar.json(FAILED).await;
            liar.json(&FAILED.replace(r#""entry":0"#, r#""entry":1"#))
                .await;
            liar.json(&FAILED.replace(r#""entry":0"#, r#""entry":2"#))
                .await;
        }
        _ => {
            liar.bytes(&encode_batch_header(id(0), 41).unwrap()).await;
            let item = BatchItem::encode_header(EntryIndex::FIRST, 4, digest);
            liar.bytes(&item).await;
            liar.bytes(b"a").await;
        }
    }
}

#[tokio::test]
async fn nothing_comes_along_before_the_offer_is_complete_or_without_its_word() {
    let into = tempdir().unwrap();
    let (mut liar, bob) = with_liar();
    liar.json(r#"{"type":"offer","transfer":0,"entries":2,"total_bytes":7,"early":7}"#)
        .await;
    liar.batch(&[(0, b"abcd")]).await;
    assert_refused(liar, bob, into.path(), "before the entries").await;

    let (mut liar, bob) = with_liar();
    liar.batch(&[(0, b"abcd")]).await;
    assert_refused(liar, bob, into.path(), "before the offer").await;
}

#[tokio::test]
async fn what_came_along_and_is_not_genuine_is_never_kept() {
    let into = tempdir().unwrap();
    let (mut liar, mut bob) = with_liar();
    liar.offer_early(0, &[4]).await;
    let header = BatchItem::encode_header(EntryIndex::FIRST, 4, Digest::of_file(b"some"));
    let mut items = header.to_vec();
    items.extend(b"else");
    liar.bytes(&encode_batch_header(id(0), items.len()).unwrap())
        .await;
    liar.bytes(&items).await;
    let (id, _) = bob.offered().await;
    liar.caught_up(&mut bob).await;
    bob.accept(id, into.path()).await;
    let outcome = bob.finished(id).await;
    assert_eq!(outcome, Err(TransferError::Verification(Party::Us)));
    assert!(names(into.path()).is_empty());
    assert_eq!(liar.hear().await["type"], "accept");
    assert_eq!(liar.hear().await["reason"], "verification");
}

/// As many offers as may be open, each with as much as may come along, and
/// nobody decides: what is held takes no buffer from others.
#[tokio::test]
async fn a_flood_of_undecided_offers_is_bounded_and_holds_nobody_up() {
    let into = tempdir().unwrap();
    let (mut liar, mut bob) = with_liar();
    let data = noise(64 * 1024, 1);
    for number in 0..40 {
        // The first is an ordinary one.
        if number == 0 {
            liar.offer(&[9 * MIB]).await;
        } else {
            liar.offer_early(number * 2, &[data.len()]).await;
            liar.batch_of(number * 2, &[(0, &data)]).await;
        }
    }
    for _ in 0..32 {
        bob.offered().await;
    }
    for number in 32..40 {
        let said = liar.hear().await;
        let busy = (&said["transfer"], &said["reason"]);
        assert_eq!(busy, (&(number * 2).into(), &"busy".into()));
    }
    bob.accept(id(0), into.path()).await;
    let chunk = noise(MIB, 2);
    for index in 0..9 {
        liar.chunk(0, index, &chunk, chunk_digest(index, &chunk))
            .await;
    }
    liar.end(0, &[&chunk[..]; 9]).await;
    assert_eq!(bob.finished(id(0)).await.unwrap().files, 1);
    // And what was held is still there.
    bob.accept(id(62), into.path()).await;
    bob.finished(id(62)).await.unwrap();
    assert!(fs::read(into.path().join("0 (1)")).unwrap() == data);
}

#[tokio::test]
async fn folders_alone_and_empty_files_come_along_too() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    fs::create_dir_all(from.path().join("folder/inside")).unwrap();
    fs::write(from.path().join("empty"), "").unwrap();
    let (mut alice, mut bob) = pair();
    for name in ["folder", "empty"] {
        let path = from.path().join(name);
        transfer(&mut alice, &mut bob, &[path], into.path()).await;
    }
    assert_eq!(names(into.path()), ["empty", "folder", "folder/inside"]);
}

/// Between what is due and where it goes nobody else may come: here the answer
/// to the offer is given while its file arrives.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_along_may_come_while_the_offer_is_accepted() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let file = from.path().join("a");
    fs::write(&file, "x").unwrap();
    let (mut alice, mut bob) = pair();
    for _ in 0..1000 {
        transfer(
            &mut alice,
            &mut bob,
            std::slice::from_ref(&file),
            into.path(),
        )
        .await;
        fs::remove_file(into.path().join("a")).unwrap();
    }
}
