//! What a receiver can want of an offer, and when.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::liar::MIB;
use crate::support::{Peer, names, noise, pair, tree};
use pinhole_transfer::{
    AcceptOptions, EntryIndex, ExchangeError, ExchangeEvent, Existing, Party, Paused, Summary,
    TransferError, TransferId,
};
use tempfile::{TempDir, tempdir};

fn write(root: &Path, files: &[(&str, &str)]) {
    for (path, content) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap()
}

/// Sends the entries of `from` with `choices` and returns both summaries.
async fn transfer(from: &Path, into: &Path, choices: AcceptOptions) -> (Summary, Summary) {
    let (mut alice, mut bob) = pair();
    let mut paths: Vec<_> = fs::read_dir(from)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let id = alice.send(&paths).await;
    bob.offered().await;
    bob.accept_some(id, into, choices).await;
    let received = bob.finished(id).await.unwrap();
    let sent = alice.finished(id).await.unwrap();
    assert_eq!(sent.digest, received.digest);
    assert_eq!(sent.digest.is_some(), sent.files > 0);
    (sent, received)
}

fn existing(existing: Existing) -> AcceptOptions {
    AcceptOptions {
        existing,
        ..AcceptOptions::default()
    }
}

/// What is sent, and where some of it is there already.
fn some_there() -> (TempDir, TempDir) {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let sent = [
        ("a", "new"),
        ("d/e/y", "new y"),
        ("d/x", "new x"),
        ("f", "f"),
    ];
    write(from.path(), &sent);
    write(
        into.path(),
        &[("a", "old"), ("d/e/y", "old y"), ("d/z", "z")],
    );
    (from, into)
}

#[tokio::test]
async fn by_default_both_stay() {
    let (from, into) = some_there();
    let (sent, _) = transfer(from.path(), into.path(), AcceptOptions::default()).await;
    assert_eq!((sent.files, sent.skipped_files), (4, 0));
    assert_eq!(read(into.path(), "a"), "old");
    assert_eq!(read(into.path(), "a (1)"), "new");
    assert_eq!(read(into.path(), "d (1)/e/y"), "new y");
    assert_eq!(read(into.path(), "d/e/y"), "old y");
}

#[tokio::test]
async fn what_is_there_can_be_skipped() {
    let (from, into) = some_there();
    let (sent, received) = transfer(from.path(), into.path(), existing(Existing::Skip)).await;
    for summary in [&sent, &received] {
        let counted = (summary.files, summary.bytes, summary.skipped_files);
        assert_eq!(counted, (2, 6, 2), "{summary:?}");
    }
    let (a, y) = received.skipped.split_first().expect("names");
    assert!(a.ends_with('a') && y.len() == 1 && y[0].ends_with("d/e/y"));
    assert_eq!(
        names(into.path()),
        ["a", "d", "d/e", "d/e/y", "d/x", "d/z", "f"]
    );
    assert_eq!(read(into.path(), "a"), "old");
    assert_eq!(read(into.path(), "d/e/y"), "old y");
    assert_eq!(read(into.path(), "d/x"), "new x");
    // And again: nothing is left to send.
    let (sent, _) = transfer(from.path(), into.path(), existing(Existing::Skip)).await;
    assert_eq!((sent.files, sent.skipped_files), (0, 4));
}

#[tokio::test]
async fn what_is_there_can_be_replaced() {
    let (from, into) = some_there();
    let (sent, received) = transfer(from.path(), into.path(), existing(Existing::Replace)).await;
    assert_eq!((sent.files, received.files), (4, 4));
    assert_eq!(
        names(into.path()),
        ["a", "d", "d/e", "d/e/y", "d/x", "d/z", "f"]
    );
    assert_eq!(read(into.path(), "a"), "new");
    assert_eq!(read(into.path(), "d/e/y"), "new y");
    assert_eq!(read(into.path(), "d/z"), "z");
    let times = |root: &Path| {
        let tree = tree(root);
        let of = |path: &str| tree[Path::new(path)].1;
        (of("a"), of("d/e/y"))
    };
    assert_eq!(times(into.path()), times(from.path()));
}

#[tokio::test]
async fn a_folder_that_was_there_keeps_its_time() {
    for choice in [Existing::Replace, Existing::Skip] {
        let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
        write(from.path(), &[("d/e/y", "new"), ("d/new/z", "new")]);
        write(into.path(), &[("d/e/x", "old")]);
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for folder in ["d/e", "d/new", "d"] {
            let folder = fs::File::open(from.path().join(folder)).unwrap();
            folder.set_modified(long_ago).unwrap();
        }
        transfer(from.path(), into.path(), existing(choice)).await;
        let time = |path: &str| tree(into.path())[Path::new(path)].1;
        assert!(time("d/e") > long_ago && time("d") > long_ago);
        assert_eq!(time("d/new"), long_ago);
    }
}

#[tokio::test]
async fn what_is_equal_does_not_travel_to_be_replaced() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let content = noise(3 * MIB, 1);
    fs::write(from.path().join("a"), &content).unwrap();
    fs::write(into.path().join("a"), &content).unwrap();
    let (mut alice, mut bob) = pair();
    let id = alice.send(&[from.path().join("a")]).await;
    bob.offered().await;
    let choices = existing(Existing::Replace);
    bob.accept_some(id, into.path(), choices).await;
    let received = bob.finished(id).await.unwrap();
    assert_eq!((received.files, received.resent_bytes), (1, 0));
    alice.finished(id).await.unwrap();
    assert_eq!(names(into.path()), ["a"]);
}

#[tokio::test]
async fn nothing_is_replaced_before_the_new_file_is_complete() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    fs::write(from.path().join("a"), noise(64 * MIB, 1)).unwrap();
    fs::write(into.path().join("a"), "old").unwrap();
    let (alice, mut bob) = pair();
    let id = alice.send(&[from.path().join("a")]).await;
    bob.offered().await;
    let choices = existing(Existing::Replace);
    bob.accept_some(id, into.path(), choices).await;
    alice.exchange.cancel(id).unwrap();
    let error = bob.finished(id).await.unwrap_err();
    assert_eq!(error, TransferError::Cancelled(Party::Peer));
    assert_eq!(names(into.path()), ["a"]);
    assert_eq!(read(into.path(), "a"), "old");
}

#[cfg(unix)]
#[tokio::test]
async fn a_folder_or_a_link_is_never_replaced_by_a_file() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    write(from.path(), &[("a", "new"), ("b", "new"), ("c/x", "new")]);
    write(
        into.path(),
        &[("a/inside", "old"), ("target", "old"), ("c", "old")],
    );
    std::os::unix::fs::symlink("target", into.path().join("b")).unwrap();
    transfer(from.path(), into.path(), existing(Existing::Replace)).await;
    assert_eq!(
        names(into.path()),
        [
            "a", "a/inside", "a (1)", "b", "b (1)", "c", "c (1)", "c (1)/x", "target"
        ]
    );
    assert_eq!(read(into.path(), "target"), "old");
    assert_eq!(read(into.path(), "c"), "old");
}

#[tokio::test]
async fn a_folder_that_was_there_stays_when_nothing_comes_into_it() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    fs::create_dir_all(from.path().join("d/e/new")).unwrap();
    fs::write(from.path().join("d/large"), noise(64 * MIB, 1)).unwrap();
    fs::create_dir_all(into.path().join("d/e")).unwrap();
    let (alice, mut bob) = pair();
    let id = alice.send(&[from.path().join("d")]).await;
    bob.offered().await;
    let choices = existing(Existing::Skip);
    bob.accept_some(id, into.path(), choices).await;
    alice.exchange.cancel(id).unwrap();
    bob.finished(id).await.unwrap_err();
    assert_eq!(names(into.path()), ["d", "d/e"]);
}

#[tokio::test]
async fn a_part_of_an_offer_can_be_taken() {
    let (from, into) = some_there();
    let choices = AcceptOptions {
        // d/e with everything in it, and f: the entries are a, d, d/e, d/e/y,
        // d/x, f.
        unwanted: BTreeSet::from([2, 5].map(EntryIndex::new)),
        ..AcceptOptions::default()
    };
    let into_new = into.path().join("new");
    fs::create_dir(&into_new).unwrap();
    let (sent, received) = transfer(from.path(), &into_new, choices).await;
    for summary in [&sent, &received] {
        let counted = (summary.files, summary.bytes, summary.skipped_files);
        assert_eq!(counted, (2, 8, 2), "{summary:?}");
    }
    assert_eq!(received.folders, 1);
    assert_eq!(names(&into_new), ["a", "d", "d/x"]);
}

#[tokio::test]
async fn all_of_an_offer_can_be_unwanted() {
    let (from, into) = some_there();
    let choices = AcceptOptions {
        unwanted: (0..6).map(EntryIndex::new).collect(),
        ..AcceptOptions::default()
    };
    let into_new = into.path().join("new");
    fs::create_dir(&into_new).unwrap();
    let (sent, received) = transfer(from.path(), &into_new, choices).await;
    assert_eq!((sent.files, received.files), (0, 0));
    assert!(names(&into_new).is_empty());
}

#[cfg(unix)]
#[tokio::test]
async fn programs_stay_programs_only_by_choice() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let from = tempdir().unwrap();
    write(from.path(), &[("data", "1"), ("tool", "2")]);
    fs::set_permissions(from.path().join("tool"), fs::Permissions::from_mode(0o6755)).unwrap();
    for keeps_executable in [false, true] {
        let into = tempdir().unwrap();
        let choices = AcceptOptions {
            keeps_executable,
            ..AcceptOptions::default()
        };
        transfer(from.path(), into.path(), choices).await;
        let plain = mode(&into.path().join("data"));
        assert_eq!(plain & !0o644, 0, "{plain:o}");
        let expected = if keeps_executable {
            plain | (plain & 0o444) >> 2
        } else {
            plain
        };
        assert_eq!(mode(&into.path().join("tool")), expected);
    }
}

async fn hear_pause(peer: &mut Peer, of: TransferId, expected: bool) {
    loop {
        if let ExchangeEvent::Paused { id, paused } = peer.event().await {
            assert_eq!((id, paused), (of, expected));
            return;
        }
    }
}

#[tokio::test]
async fn either_side_can_pause_and_both_must_want_to_go_on() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let content = noise(80 * MIB, 1);
    let (path, other) = (from.path().join("a"), from.path().join("b"));
    fs::write(&path, &content).unwrap();
    fs::write(&other, "b").unwrap();
    let (mut alice, mut bob) = pair();
    let id = alice.send(std::slice::from_ref(&path)).await;
    bob.offered().await;
    for peer in [&alice, &bob] {
        let unanswered = peer.exchange.pause(id);
        assert_eq!(unanswered, Err(ExchangeError::UnknownTransfer));
    }
    bob.accept(id, into.path()).await;
    bob.exchange.pause(id).unwrap();
    hear_pause(&mut alice, id, true).await;
    alice.exchange.pause(id).unwrap();
    hear_pause(&mut bob, id, true).await;
    // Others go on meanwhile.
    let small = alice.send(std::slice::from_ref(&other)).await;
    bob.accept_next(into.path()).await;
    bob.finished(small).await.unwrap();
    alice.finished(small).await.unwrap();

    alice.exchange.unpause(id).unwrap();
    let progress = alice.exchange.progress(id).unwrap();
    let by_bob = Paused {
        by_us: false,
        by_peer: true,
    };
    assert_eq!(progress.paused, by_bob);
    assert!(Some(progress.bytes_done) < progress.bytes_total);
    bob.exchange.unpause(id).unwrap();
    bob.finished(id).await.unwrap();
    alice.finished(id).await.unwrap();
    assert!(fs::read(into.path().join("a")).unwrap() == content);
}

#[tokio::test]
async fn what_is_paused_can_be_cancelled_and_the_exchange_closed() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let path = from.path().join("a");
    fs::write(&path, noise(8 * MIB, 1)).unwrap();
    let (mut alice, mut bob) = pair();
    for is_close in [false, true] {
        let id = alice.send(std::slice::from_ref(&path)).await;
        bob.offered().await;
        bob.accept(id, into.path()).await;
        bob.exchange.pause(id).unwrap();
        hear_pause(&mut alice, id, true).await;
        if is_close {
            alice.exchange.close().await;
            assert_eq!(alice.closed().await, None);
        } else {
            alice.exchange.cancel(id).unwrap();
            alice.finished(id).await.unwrap_err();
            bob.finished(id).await.unwrap_err();
        }
    }
    assert_eq!(bob.closed().await, None);
}

#[tokio::test]
async fn what_is_paused_holds_nobody_up() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let path = from.path().join("a");
    fs::write(&path, noise(64 * MIB, 1)).unwrap();
    let (mut alice, mut bob) = pair();
    for _ in 0..16 {
        let id = alice.send(std::slice::from_ref(&path)).await;
        bob.accept_next(into.path()).await;
        bob.exchange.pause(id).unwrap();
        hear_pause(&mut alice, id, true).await;
    }
    let other = from.path().join("b");
    fs::write(&other, noise(2 * MIB, 2)).unwrap();
    let id = alice.send(std::slice::from_ref(&other)).await;
    bob.accept_next(into.path()).await;
    alice.finished(id).await.unwrap();
    bob.finished(id).await.unwrap();
}

#[tokio::test]
async fn several_at_once_get_equal_shares() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let path = from.path().join("a");
    fs::write(&path, noise(32 * MIB, 1)).unwrap();
    let (mut alice, mut bob) = pair();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = alice.send(std::slice::from_ref(&path)).await;
        bob.accept_next(into.path()).await;
        bob.exchange.pause(id).unwrap();
        hear_pause(&mut alice, id, true).await;
        ids.push(id);
    }
    for id in &ids {
        bob.exchange.unpause(*id).unwrap();
    }
    loop {
        if let ExchangeEvent::Finished { id, .. } = bob.event().await {
            ids.retain(|other| *other != id);
            break;
        }
    }
    for id in &ids {
        let Some(progress) = bob.exchange.progress(*id) else {
            continue;
        };
        assert!(progress.bytes_done > 16 * MIB as u64, "{progress:?}");
    }
}
