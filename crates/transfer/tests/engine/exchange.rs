//! Two exchanges over a stream in memory or over loopback: what arrives, what
//! is said about it, and what is left behind when it does not.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::support::{Peer, names, noise, pair, transfer, tree};
use pinhole_transfer::{
    AcceptError, AcceptOptions, DeclineReason, Destination, DestinationError, ExchangeError,
    ExchangeEvent, FileErrorKind, Party, Side, Source, TransferError, TransferId,
};
use tempfile::tempdir;
use tokio::io::AsyncWriteExt;

const MIB: usize = 1024 * 1024;
/// Sparse, and far from sent when a test interferes.
const HUGE_BYTES: u64 = 8 * 1024 * MIB as u64;

fn put(path: impl Into<PathBuf>, content: impl AsRef<[u8]>) -> PathBuf {
    let path = path.into();
    fs::write(&path, content).unwrap();
    path
}

#[tokio::test]
async fn a_tree_arrives_equal_with_its_times() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let top = from.path().join("album");
    for folder in ["", "empty", "文件夹", "مجلد/عميق"] {
        fs::create_dir_all(top.join(folder)).unwrap();
    }
    put(top.join("nothing"), "");
    put(top.join("文件夹/报告.txt"), "你好");
    put(top.join("مجلد/عميق/تقرير.pdf"), noise(3 * MIB + 17, 1));
    put(top.join("👩‍👩‍👧 🎉.png"), noise(MIB, 2));
    put(top.join("medium"), noise(300_000, 3));
    put(top.join("exactly two"), noise(2 * MIB, 4));
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    let before_1970 = SystemTime::UNIX_EPOCH - Duration::from_secs(1000);
    fs::File::open(top.join("medium"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    fs::File::open(top.join("nothing"))
        .unwrap()
        .set_modified(before_1970)
        .unwrap();
    fs::File::open(top.join("empty"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    fs::File::open(&top).unwrap().set_modified(old).unwrap();

    let (mut alice, mut bob) = pair();
    let (sent, received) = transfer(&mut alice, &mut bob, &[top], into.path()).await;
    assert_eq!(tree(into.path()), tree(from.path()));
    assert_eq!((received.files, received.folders), (6, 5));
    assert_eq!(
        (sent.files, sent.folders, sent.bytes),
        (6, 5, received.bytes)
    );
    assert_eq!(
        received.bytes as usize,
        6 + 3 * MIB + 17 + MIB + 300_000 + 2 * MIB
    );
    assert_eq!(received.paths, [into.path().join("album")]);
    assert_eq!((sent.failed_files, sent.resent_bytes), (0, 0));
}

#[tokio::test]
async fn one_empty_file_and_one_empty_folder_each_make_a_transfer() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let (mut alice, mut bob) = pair();
    let empty = put(from.path().join("empty.txt"), "");
    let (sent, _) = transfer(&mut alice, &mut bob, &[empty], into.path()).await;
    assert_eq!((sent.files, sent.bytes), (1, 0));
    let folder = from.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let (sent, _) = transfer(&mut alice, &mut bob, &[folder], into.path()).await;
    assert_eq!((sent.files, sent.folders), (0, 1));
    assert_eq!(names(into.path()), ["empty.txt", "folder"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_mebibytes_over_loopback() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let content = noise(200 * MIB + 1, 5);
    let path = put(from.path().join("large"), &content);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let dialled = tokio::net::TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let mut alice = Peer::over(dialled, Side::Initiator);
    let mut bob = Peer::over(accepted, Side::Responder);
    let (sent, _) = transfer(&mut alice, &mut bob, &[path], into.path()).await;
    assert_eq!(sent.bytes as usize, content.len());
    assert!(fs::read(into.path().join("large")).unwrap() == content);
    tokio::join!(alice.exchange.close(), bob.exchange.close());
    assert_eq!((alice.closed().await, bob.closed().await), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_small_files_in_a_tree() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    for number in 0..2000_usize {
        let folder = from
            .path()
            .join(format!("top/{}/{}", number % 7, number % 5));
        fs::create_dir_all(&folder).unwrap();
        put(
            folder.join(number.to_string()),
            noise(number * 3, number as u64),
        );
    }
    let (mut alice, mut bob) = pair();
    let paths = [from.path().join("top")];
    let (sent, received) = transfer(&mut alice, &mut bob, &paths, into.path()).await;
    assert_eq!((sent.files, received.files), (2000, 2000));
    assert_eq!(tree(into.path()), tree(from.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_at_once_in_both_directions() {
    let (from, to_bob, to_alice) = (tempdir().unwrap(), tempdir().unwrap(), tempdir().unwrap());
    let (mut alice, mut bob) = pair();
    let mut ids = Vec::new();
    for number in 0..8 {
        let path = put(
            from.path().join(format!("file {number}")),
            noise(4 * MIB + number, 9),
        );
        let sender = if number % 2 == 0 { &alice } else { &bob };
        ids.push(sender.send(&[path]).await);
    }
    let mut left = 16;
    while left > 0 {
        let (event, peer, into) = tokio::select! {
            event = alice.event() => (event, &alice, &to_alice),
            event = bob.event() => (event, &bob, &to_bob),
        };
        match event {
            ExchangeEvent::Offered { id, .. } => peer.accept(id, into.path()).await,
            ExchangeEvent::Accepted { id } => assert!(ids.contains(&id)),
            ExchangeEvent::Finished { outcome, .. } => {
                assert_eq!(outcome.unwrap().files, 1);
                left -= 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        names(to_bob.path()),
        ["file 0", "file 2", "file 4", "file 6"]
    );
    assert_eq!(
        names(to_alice.path()),
        ["file 1", "file 3", "file 5", "file 7"]
    );
}

/// Both sides have more to send than the stream holds, so that each must read
/// while it cannot write.
#[tokio::test(flavor = "multi_thread")]
async fn two_floods_through_a_narrow_stream_do_not_lock() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    for number in 0..400 {
        put(from.path().join(number.to_string()), noise(4096, number));
    }
    let (left, right) = tokio::io::duplex(64);
    let mut alice = Peer::over(left, Side::Initiator);
    let mut bob = Peer::over(right, Side::Responder);
    let paths = [from.path().to_owned()];
    let (to_bob, to_alice) = (alice.send(&paths).await, bob.send(&paths).await);
    let sides = [(&mut alice, to_alice, to_bob), (&mut bob, to_bob, to_alice)];
    let ends = sides.map(|(peer, incoming, outgoing)| {
        let into = into.path();
        async move {
            let mut left = vec![incoming, outgoing];
            while !left.is_empty() {
                match peer.event().await {
                    ExchangeEvent::Offered { id, .. } => peer.accept(id, into).await,
                    ExchangeEvent::Finished { id, outcome } => {
                        assert_eq!(outcome.unwrap().files, 400);
                        left.retain(|other| *other != id);
                    }
                    _ => {}
                }
            }
        }
    });
    let [one, two] = ends;
    tokio::join!(one, two);
    assert_eq!(tree(into.path()).len(), 2 * 401);
}

#[tokio::test]
async fn a_path_two_hundred_levels_deep_arrives() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let deep: PathBuf = std::iter::repeat_n("d", 200).collect();
    fs::create_dir_all(from.path().join(&deep)).unwrap();
    put(from.path().join(&deep).join("file"), "deep");
    let (mut alice, mut bob) = pair();
    let (sent, _) = transfer(&mut alice, &mut bob, &[from.path().join("d")], into.path()).await;
    assert_eq!((sent.files, sent.folders), (1, 200));
    assert_eq!(tree(into.path()), tree(from.path()));
}

#[tokio::test]
async fn what_exists_is_kept_and_the_new_gets_a_number() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let file = put(from.path().join("report.pdf"), "new");
    let folder = from.path().join("photos");
    fs::create_dir(&folder).unwrap();
    put(folder.join("1.jpg"), "new");
    put(into.path().join("report.pdf"), "old");
    fs::create_dir(into.path().join("photos")).unwrap();
    put(into.path().join("photos/1.jpg"), "old");

    let (mut alice, mut bob) = pair();
    let paths = [file, folder];
    let (_, first) = transfer(&mut alice, &mut bob, &paths, into.path()).await;
    assert_eq!(
        first.paths,
        ["photos (1)", "report (1).pdf"].map(|name| into.path().join(name))
    );
    transfer(&mut alice, &mut bob, &paths, into.path()).await;
    for (name, content) in [
        ("report.pdf", "old"),
        ("report (1).pdf", "new"),
        ("report (2).pdf", "new"),
        ("photos/1.jpg", "old"),
        ("photos (1)/1.jpg", "new"),
        ("photos (2)/1.jpg", "new"),
    ] {
        assert_eq!(
            fs::read_to_string(into.path().join(name)).unwrap(),
            content,
            "{name}"
        );
    }
}

#[cfg(unix)]
#[tokio::test]
async fn nothing_received_is_executable() {
    use std::os::unix::fs::PermissionsExt;
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let path = put(from.path().join("run.sh"), "#!/bin/sh");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6777)).unwrap();
    let (mut alice, mut bob) = pair();
    transfer(&mut alice, &mut bob, &[path], into.path()).await;
    let mode = fs::metadata(into.path().join("run.sh"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7133, 0, "{mode:o}");
}

#[tokio::test]
async fn an_offer_can_be_declined_and_answered_only_once() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let path = put(from.path().join("a"), "x");
    let (mut alice, mut bob) = pair();
    let id = alice.send(&[path]).await;
    let (offered, offer) = bob.offered().await;
    assert_eq!((offered, offer.files(), offer.total_bytes()), (id, 1, 1));
    bob.exchange.decline(id, DeclineReason::Declined).unwrap();
    let declined = TransferError::Declined(DeclineReason::Declined);
    assert_eq!(alice.finished(id).await, Err(declined));
    let again = bob.exchange.decline(id, DeclineReason::Declined);
    assert_eq!(again, Err(ExchangeError::UnknownTransfer));
    let destination = Destination::open(into.path()).unwrap();
    let late = bob
        .exchange
        .accept(id, destination, AcceptOptions::default())
        .await;
    assert!(matches!(
        late,
        Err(AcceptError::Exchange(ExchangeError::UnknownTransfer))
    ));
    assert!(names(into.path()).is_empty());
}

#[tokio::test]
async fn an_offer_withdrawn_before_the_answer_ends_on_both_sides() {
    let from = tempdir().unwrap();
    let path = put(from.path().join("a"), "x");
    let (mut alice, mut bob) = pair();
    let id = alice.send(&[path]).await;
    bob.offered().await;
    alice.exchange.cancel(id).unwrap();
    assert_eq!(
        alice.finished(id).await,
        Err(TransferError::Cancelled(Party::Us))
    );
    assert_eq!(
        bob.finished(id).await,
        Err(TransferError::Cancelled(Party::Peer))
    );
}

/// Accepts the offer of a huge file and returns when some of it has arrived.
async fn under_way(alice: &mut Peer, bob: &mut Peer, into: &std::path::Path) -> TransferId {
    let id = bob.accept_next(into).await;
    loop {
        let done = bob
            .exchange
            .progress(id)
            .map_or(0, |progress| progress.bytes_done);
        if done > 2 * MIB as u64 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(alice.exchange.progress(id).is_some());
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_cancels_and_nothing_is_left_behind() {
    let from = tempdir().unwrap();
    let top = from.path().join("top");
    fs::create_dir_all(top.join("sub")).unwrap();
    let file = fs::File::create(top.join("sub/huge")).unwrap();
    file.set_len(HUGE_BYTES).unwrap();
    for is_sender in [true, false] {
        // Not tmpfs: the sparse file must not fill memory before the cancel.
        let into = tempdir().unwrap();
        let (mut alice, mut bob) = pair();
        alice.send(std::slice::from_ref(&top)).await;
        let Ok(id) = tokio::time::timeout(
            Duration::from_secs(30),
            under_way(&mut alice, &mut bob, into.path()),
        )
        .await
        else {
            panic!("never under way");
        };
        let canceller = if is_sender { &alice } else { &bob };
        canceller.exchange.cancel(id).unwrap();
        let by = |us| TransferError::Cancelled(if us { Party::Us } else { Party::Peer });
        assert_eq!(alice.finished(id).await, Err(by(is_sender)));
        assert_eq!(bob.finished(id).await, Err(by(!is_sender)));
        assert!(names(into.path()).is_empty(), "{:?}", names(into.path()));
        // The exchange serves on.
        let small = put(from.path().join("small"), "x");
        transfer(&mut alice, &mut bob, &[small], into.path()).await;
        assert_eq!(names(into.path()), ["small"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_leaves_only_whole_files() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let top = from.path().join("top");
    fs::create_dir(&top).unwrap();
    put(top.join("1 whole"), noise(MIB, 1));
    fs::File::create(top.join("2 huge"))
        .unwrap()
        .set_len(HUGE_BYTES)
        .unwrap();
    // A stream between the two that can be cut.
    let (left, mut left_end) = tokio::io::duplex(64 * 1024);
    let (right, mut right_end) = tokio::io::duplex(64 * 1024);
    let wire = tokio::spawn(async move {
        let _ = tokio::io::copy_bidirectional(&mut left_end, &mut right_end).await;
    });
    let mut alice = Peer::over(left, Side::Initiator);
    let mut bob = Peer::over(right, Side::Responder);
    alice.send(&[top]).await;
    let id = under_way(&mut alice, &mut bob, into.path()).await;
    wire.abort();
    let lost = Err(TransferError::ConnectionLost);
    assert_eq!(
        (alice.finished(id).await, bob.finished(id).await),
        (lost.clone(), lost)
    );
    assert!(matches!(
        alice.closed().await,
        Some(ExchangeError::ConnectionLost(_))
    ));
    assert!(matches!(
        bob.closed().await,
        Some(ExchangeError::ConnectionLost(_))
    ));
    let left = tree(into.path());
    for (path, (content, _)) in left {
        match path.to_str().unwrap() {
            "top" => {}
            "top/1 whole" => assert!(content == Some(noise(MIB, 1))),
            part if part.ends_with(".pinhole-part") => {}
            other => panic!("{other} was left behind"),
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_changes_or_vanishes_fails_alone() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let top = from.path().join("top");
    fs::create_dir(&top).unwrap();
    for name in ["a", "grown", "lost", "shrunk", "small gone", "z"] {
        put(
            top.join(name),
            noise(if name == "small gone" { 10 } else { 2 * MIB }, 1),
        );
    }
    let (mut alice, mut bob) = pair();
    let id = alice.send(std::slice::from_ref(&top)).await;
    let (_, _) = bob.offered().await;
    fs::remove_file(top.join("small gone")).unwrap();
    fs::remove_file(top.join("lost")).unwrap();
    let open = |name| {
        fs::OpenOptions::new()
            .write(true)
            .open(top.join(name))
            .unwrap()
    };
    open("shrunk").set_len(MIB as u64).unwrap();
    open("grown").set_len(3 * MIB as u64).unwrap();
    bob.accept(id, into.path()).await;
    let received = bob.finished(id).await.unwrap();
    let sent = alice.finished(id).await.unwrap();
    assert_eq!((sent.files, sent.failed_files), (2, 4));
    assert_eq!((received.files, received.failed_files), (2, 4));
    assert_eq!(names(into.path()), ["top", "top/a", "top/z"]);
    for peer in [&alice, &bob] {
        let failed: Vec<_> = peer
            .failed
            .iter()
            .map(|(path, error)| (path.as_str(), error.trouble()))
            .collect();
        assert_eq!(
            failed,
            [
                ("top/grown", FileErrorKind::Changed),
                ("top/lost", FileErrorKind::NotFound),
                ("top/shrunk", FileErrorKind::Changed),
                ("top/small gone", FileErrorKind::NotFound),
            ]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_cut_short_while_it_is_sent_fails() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let path = from.path().join("huge");
    let file = fs::File::create(&path).unwrap();
    file.set_len(HUGE_BYTES).unwrap();
    let (mut alice, mut bob) = pair();
    alice.send(&[path]).await;
    let id = under_way(&mut alice, &mut bob, into.path()).await;
    file.set_len(0).unwrap();
    let sent = alice.finished(id).await.unwrap();
    assert_eq!((sent.files, sent.failed_files), (0, 1));
    assert_eq!(alice.failed[0].1.trouble(), FileErrorKind::Changed);
    assert_eq!(bob.finished(id).await.unwrap().failed_files, 1);
    assert!(names(into.path()).is_empty());
}

#[tokio::test]
async fn a_folder_that_cannot_serve_leaves_the_offer_open() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let path = from.path().join("huge");
    fs::File::create(&path).unwrap().set_len(1 << 43).unwrap();
    let small = put(from.path().join("small"), "x");
    let (mut alice, mut bob) = pair();
    let id = alice.send(&[path, small]).await;
    bob.offered().await;
    let missing = Destination::open(&into.path().join("missing")).unwrap_err();
    assert_eq!(missing.trouble(), FileErrorKind::NotFound);
    let destination = Destination::open(into.path()).unwrap();
    let full = bob
        .exchange
        .accept(id, destination, AcceptOptions::default())
        .await
        .unwrap_err();
    assert!(
        matches!(full, AcceptError::Destination(DestinationError::NoSpace { needed_bytes, .. })
            if needed_bytes > 1 << 43)
    );
    bob.exchange.decline(id, DeclineReason::NoSpace).unwrap();
    let declined = TransferError::Declined(DeclineReason::NoSpace);
    assert_eq!(alice.finished(id).await, Err(declined));
    assert!(names(into.path()).is_empty());
}

#[tokio::test]
async fn closing_in_good_order_ends_what_is_open() {
    let from = tempdir().unwrap();
    let path = put(from.path().join("a"), "x");
    let (mut alice, mut bob) = pair();
    let id = alice.send(std::slice::from_ref(&path)).await;
    bob.offered().await;
    alice.exchange.close().await;
    assert_eq!(
        alice.finished(id).await,
        Err(TransferError::Interrupted(Party::Us))
    );
    assert_eq!(
        bob.finished(id).await,
        Err(TransferError::Interrupted(Party::Peer))
    );
    assert_eq!((alice.closed().await, bob.closed().await), (None, None));
    let late = bob.exchange.send(Source::scan(&[path]).unwrap());
    assert_eq!(late, Err(ExchangeError::Closed));
}

#[tokio::test]
async fn nobody_listening_ends_the_exchange() {
    let (mut alice, bob) = pair();
    drop(bob.events);
    assert_eq!(alice.closed().await, None);
    let (left, mut right) = tokio::io::duplex(64);
    let mut lone = Peer::over(left, Side::Initiator);
    right.shutdown().await.unwrap();
    drop(right);
    assert!(matches!(
        lone.closed().await,
        Some(ExchangeError::ConnectionLost(_))
    ));
}
