//! What is kept when a transfer breaks off, and how the next one goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pinhole_transfer::frame::FrameKind;
use pinhole_transfer::{
    AcceptOptions, Destination, ExchangeError, Party, Side, Summary, TransferError, TransferId,
};
use tempfile::tempdir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use crate::liar;
use crate::support::{ALICE, Peer, names, noise, pair, transfer, transfer_again, tree};

const MIB: usize = 1024 * 1024;

/// A connection that passes so many bytes of alice's and then breaks.
pub(crate) struct Wire {
    pub(crate) passed: Arc<AtomicU64>,
    pub(crate) task: JoinHandle<()>,
}

pub(crate) fn cut_after(bytes: u64) -> (Peer, Peer, Wire) {
    let (left, left_end) = tokio::io::duplex(64 * 1024);
    let (right, right_end) = tokio::io::duplex(64 * 1024);
    let passed = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&passed);
    let task = tokio::spawn(async move {
        let (mut from_alice, mut to_alice) = tokio::io::split(left_end);
        let (mut from_bob, mut to_bob) = tokio::io::split(right_end);
        let back = async move {
            let _ = tokio::io::copy(&mut from_bob, &mut to_alice).await;
            std::future::pending::<()>().await;
        };
        let forth = async move {
            let mut buffer = vec![0; 64 * 1024];
            while counter.load(Ordering::Relaxed) < bytes {
                let read = from_alice.read(&mut buffer).await.unwrap_or(0);
                if read == 0 || to_bob.write_all(&buffer[..read]).await.is_err() {
                    break;
                }
                counter.fetch_add(read as u64, Ordering::Relaxed);
            }
            // What was passed reaches bob before the end does.
            let _ = to_bob.shutdown().await;
        };
        tokio::select! {
            () = back => {}
            () = forth => {}
        }
    });
    let alice = Peer::over(left, Side::Initiator);
    let bob = Peer::over(right, Side::Responder);
    (alice, bob, Wire { passed, task })
}

/// Sends until the connection breaks after so many bytes. None of them goes ahead
/// of the answer: it breaks later.
pub(crate) async fn broken_off(paths: &[PathBuf], into: &Path, bytes: usize) {
    let (mut alice, mut bob, wire) = cut_after(bytes as u64);
    let id = alice.send_again(paths).await;
    bob.accept_next(into).await;
    let lost = Err(TransferError::ConnectionLost);
    assert_eq!(bob.finished(id).await, lost);
    wire.task.await.unwrap();
    assert_eq!(alice.finished(id).await, lost);
    assert!(matches!(
        bob.closed().await,
        Some(ExchangeError::ConnectionLost(_))
    ));
}

/// Sends to the end. Returns both summaries and how many bytes travelled.
pub(crate) async fn completed(paths: &[PathBuf], into: &Path) -> (Summary, Summary, usize) {
    let (mut alice, mut bob, wire) = cut_after(u64::MAX);
    let (sent, received) = transfer_again(&mut alice, &mut bob, paths, into).await;
    assert_eq!(
        (sent.files, sent.bytes, sent.resent_bytes),
        (received.files, received.bytes, received.resent_bytes)
    );
    let passed = wire.passed.load(Ordering::Relaxed);
    (sent, received, usize::try_from(passed).unwrap())
}

pub(crate) fn parts(root: &Path) -> Vec<String> {
    let mut names = names(root);
    names.retain(|name| name.ends_with(".pinhole-part"));
    names
}

/// The one part below a folder.
fn part(root: &Path) -> PathBuf {
    let parts = parts(root);
    let found = parts
        .iter()
        .find(|name| fs::metadata(root.join(name)).unwrap().len() >= MIB as u64);
    root.join(found.unwrap_or_else(|| panic!("no part in {parts:?}")))
}

fn large(folder: &Path, bytes: usize) -> PathBuf {
    let path = folder.join("large.bin");
    fs::write(&path, noise(bytes, 7)).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_costs_only_what_was_under_way() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let bytes = 40 * MIB + 12_345;
    let path = large(from.path(), bytes);
    broken_off(std::slice::from_ref(&path), into.path(), 25 * MIB).await;
    assert_eq!(parts(into.path()), names(into.path()), "no final name yet");
    let there = fs::metadata(part(into.path())).unwrap().len() as usize;
    assert!(there >= 24 * MIB, "{there} of 25 MiB kept");

    let (sent, received, passed) = completed(&[path], into.path()).await;
    assert_eq!(
        (sent.files, sent.bytes, sent.resent_bytes),
        (1, bytes as u64, 0)
    );
    assert_eq!(received.paths, [into.path().join("large.bin")]);
    assert!(passed < bytes - there + 2 * MIB, "{passed} bytes sent");
    assert_eq!(names(into.path()), ["large.bin"]);
    assert!(fs::read(into.path().join("large.bin")).unwrap() == noise(bytes, 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_differs_travels_again() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let path = large(from.path(), 20 * MIB);
    broken_off(std::slice::from_ref(&path), into.path(), 16 * MIB).await;
    // Changed on the sending side, in another place on its disk, and at
    // another time; damaged on the receiving one.
    let mut content = noise(20 * MIB, 7);
    content[3 * MIB + 5] ^= 1;
    content[4 * MIB] ^= 1;
    let moved = from.path().join("elsewhere");
    fs::create_dir(&moved).unwrap();
    let path = moved.join("large.bin");
    fs::write(&path, &content).unwrap();
    let part = part(into.path());
    let mut left = fs::read(&part).unwrap();
    left[9 * MIB + 100] ^= 0x80;
    let there = left.len();
    fs::write(&part, left).unwrap();

    let (sent, _, passed) = completed(&[path], into.path()).await;
    assert_eq!(sent.resent_bytes, 3 * MIB as u64);
    assert!(passed < 20 * MIB - there + 5 * MIB, "{passed} bytes sent");
    assert_eq!(names(into.path()), ["large.bin"]);
    assert!(fs::read(into.path().join("large.bin")).unwrap() == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_with_nothing_right_in_it_is_no_harm() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let path = large(from.path(), 6 * MIB);
    broken_off(std::slice::from_ref(&path), into.path(), 4 * MIB).await;
    let part = part(into.path());
    // As long as the whole, and wrong throughout; as after a power cut.
    fs::write(&part, vec![0; 6 * MIB]).unwrap();
    let (sent, ..) = completed(&[path], into.path()).await;
    assert_eq!(sent.resent_bytes, 6 * MIB as u64);
    assert_eq!(names(into.path()), ["large.bin"]);
    assert!(fs::read(into.path().join("large.bin")).unwrap() == noise(6 * MIB, 7));
}

/// Large and small files and empty ones, in folders and beside them, some
/// names taken.
fn mixed(from: &Path, into: &Path) -> Vec<PathBuf> {
    let top = from.join("album");
    for folder in ["1 first", "empty", "3 last/deep"] {
        fs::create_dir_all(top.join(folder)).unwrap();
    }
    fs::write(top.join("1 first/nothing"), "").unwrap();
    for number in 0..40 {
        let name = format!("1 first/small {number}");
        fs::write(top.join(name), noise(5000 + number, number as u64)).unwrap();
    }
    fs::write(top.join("2 large"), noise(9 * MIB + 1, 100)).unwrap();
    fs::write(top.join("3 last/deep/file"), noise(2 * MIB, 101)).unwrap();
    fs::write(from.join("a.bin"), noise(3 * MIB, 102)).unwrap();
    fs::write(from.join("z.txt"), "the end").unwrap();
    fs::create_dir(into.join("album")).unwrap();
    fs::write(into.join("album/mine"), "mine").unwrap();
    fs::write(into.join("a.bin"), noise(3 * MIB, 103)).unwrap();
    ["a.bin", "album", "z.txt"]
        .map(|name| from.join(name))
        .into()
}

fn check_mixed(from: &Path, into: &Path) {
    let got = tree(into);
    let mut expected = tree(from);
    let album = PathBuf::from("album");
    let renamed: Vec<_> = expected
        .keys()
        .filter(|path| path.starts_with(&album))
        .cloned()
        .collect();
    for path in renamed {
        let content = expected.remove(&path).unwrap();
        let inside = path.strip_prefix(&album).unwrap();
        let renamed: PathBuf = match inside.as_os_str().is_empty() {
            true => "album (1)".into(),
            false => Path::new("album (1)").join(inside),
        };
        expected.insert(renamed, content);
    }
    let sent = expected.remove(Path::new("a.bin")).unwrap();
    expected.insert("a (1).bin".into(), sent);
    for (path, content) in &expected {
        assert!(got.get(path) == Some(content), "{path:?} is not as sent");
    }
    let mut others: Vec<_> = got
        .keys()
        .filter(|path| !expected.contains_key(*path))
        .collect();
    others.sort();
    assert_eq!(others, ["a.bin", "album", "album/mine"].map(Path::new));
    assert!(fs::read(into.join("a.bin")).unwrap() == noise(3 * MIB, 103));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mixed_offer_goes_on_wherever_it_broke_off() {
    for cut in (0..=14).map(|mib| mib * MIB + 70_000) {
        let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
        let paths = mixed(from.path(), into.path());
        broken_off(&paths, into.path(), cut).await;
        let there = tree(into.path());
        let there = there.iter().filter(|(path, _)| {
            let old = ["a.bin", "album/mine"].map(Path::new);
            !old.contains(&path.as_path())
        });
        let there: usize = there
            .filter_map(|(_, (content, _))| Some(content.as_ref()?.len()))
            .sum();
        let (sent, received, passed) = completed(&paths, into.path()).await;
        assert_eq!(
            (sent.files, sent.folders, sent.failed_files),
            (45, 5, 0),
            "{cut}"
        );
        assert_eq!(sent.resent_bytes, 0, "{cut}");
        assert_eq!(
            received
                .paths
                .iter()
                .collect::<std::collections::BTreeSet<_>>(),
            ["a (1).bin", "album (1)", "z.txt"]
                .map(|name| into.path().join(name))
                .iter()
                .collect()
        );
        check_mixed(from.path(), into.path());
        // A chunk that was cut, the small files' batch, and what goes with it.
        let limit = (sent.bytes as usize).saturating_sub(there) + MIB + 400_000;
        assert!(
            passed < limit,
            "cut at {cut}: {passed} sent, {limit} expected"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_file_that_differs_stays_and_the_new_one_comes_beside_it() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let first = from.path().join("1.bin");
    fs::write(&first, noise(3 * MIB, 1)).unwrap();
    let second = from.path().join("2.bin");
    fs::write(&second, noise(8 * MIB, 2)).unwrap();
    let paths = [first.clone(), second];
    broken_off(&paths, into.path(), 6 * MIB).await;
    // Its owner has written into it meanwhile.
    let mut changed = noise(3 * MIB, 1);
    changed[MIB] ^= 1;
    fs::write(into.path().join("1.bin"), &changed).unwrap();
    let (sent, ..) = completed(&paths, into.path()).await;
    assert_eq!(sent.resent_bytes, 3 * MIB as u64);
    assert_eq!(names(into.path()), ["1 (1).bin", "1.bin", "2.bin"]);
    assert!(fs::read(into.path().join("1.bin")).unwrap() == changed);
    assert!(fs::read(into.path().join("1 (1).bin")).unwrap() == noise(3 * MIB, 1));
    assert!(fs::read(into.path().join("2.bin")).unwrap() == noise(8 * MIB, 2));
}

/// Accepts the next offer and returns when some of it is on the disk.
pub(crate) async fn under_way(bob: &mut Peer, into: &Path) -> TransferId {
    let id = bob.accept_next(into).await;
    while bob.exchange.progress(id).unwrap().bytes_done < 3 * MIB as u64 {
        tokio::task::yield_now().await;
    }
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_puts_it_off_and_goes_on() {
    let from = tempdir().unwrap();
    let path = from.path().join("huge");
    fs::File::create(&path)
        .unwrap()
        .set_len(300 * MIB as u64)
        .unwrap();
    let paths = [path];
    let by = TransferError::Interrupted;
    let lost = TransferError::ConnectionLost;
    type EndEarly = fn(&Peer, &Peer, TransferId);
    let ends: [(EndEarly, _, _); 3] = [
        (
            |alice, _, id| alice.exchange.interrupt(id).unwrap(),
            by(Party::Us),
            by(Party::Peer),
        ),
        (
            |_, bob, id| bob.exchange.interrupt(id).unwrap(),
            by(Party::Peer),
            by(Party::Us),
        ),
        // It goes on over another connection.
        (
            |alice, _, id| alice.exchange.leave(id).unwrap(),
            lost.clone(),
            lost,
        ),
    ];
    for (end_early, at_alice, at_bob) in ends {
        let into = tempdir().unwrap();
        let (mut alice, mut bob) = pair();
        alice.send(&paths).await;
        let id = under_way(&mut bob, into.path()).await;
        // What has come counts at once, and is on the disk a moment later.
        let largest = || {
            let entries = fs::read_dir(into.path()).unwrap();
            let sizes = entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
            sizes.max().unwrap_or(0)
        };
        while largest() < 3 * MIB as u64 {
            tokio::task::yield_now().await;
        }
        end_early(&alice, &bob, id);
        assert_eq!(alice.finished(id).await, Err(at_alice));
        assert_eq!(bob.finished(id).await, Err(at_bob));
        let there = fs::metadata(part(into.path())).unwrap().len();
        let (sent, received) = transfer(&mut alice, &mut bob, &paths, into.path()).await;
        assert_eq!((sent.resent_bytes, received.resent_bytes), (0, 0));
        assert!(there >= 3 * MIB as u64);
        assert_eq!(names(into.path()), ["huge"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_transfer_that_is_cancelled_leaves_nothing() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let top = from.path().join("top");
    fs::create_dir(&top).unwrap();
    // Sparse, and far from sent when it is cancelled.
    let huge = fs::File::create(top.join("huge")).unwrap();
    huge.set_len(4096 * MIB as u64).unwrap();
    let paths = [top];
    broken_off(&paths, into.path(), 10 * MIB).await;
    assert_eq!(parts(into.path()).len(), 2, "a part and a journal");
    let (alice, mut bob) = pair();
    let id = alice.send(&paths).await;
    under_way(&mut bob, into.path()).await;
    bob.exchange.cancel(id).unwrap();
    assert_eq!(
        bob.finished(id).await,
        Err(TransferError::Cancelled(Party::Us))
    );
    assert_eq!(names(into.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_do_not_share_a_part() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let path = large(from.path(), 20 * MIB);
    let paths = [path];
    broken_off(&paths, into.path(), 12 * MIB).await;
    let first = completed(&paths, into.path());
    let second = completed(&paths, into.path());
    let ((one, ..), (two, ..)) = tokio::join!(first, second);
    assert_eq!((one.files, two.files), (1, 1));
    assert_eq!(names(into.path()), ["large (1).bin", "large.bin"]);
    for name in names(into.path()) {
        assert!(
            fs::read(into.path().join(&name)).unwrap() == noise(20 * MIB, 7),
            "{name}"
        );
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_a_parts_place_is_not_followed() {
    use std::os::unix::fs::symlink;
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let path = large(from.path(), 8 * MIB);
    let paths = [path];
    broken_off(&paths, into.path(), 4 * MIB).await;
    let part = part(into.path());
    let victim = into.path().join("victim");
    fs::rename(&part, &victim).unwrap();
    let before = fs::read(&victim).unwrap();
    for link in [true, false] {
        if link {
            symlink(&victim, &part).unwrap();
        } else {
            fs::remove_file(&part).unwrap();
            fs::hard_link(&victim, &part).unwrap();
        }
        completed(&paths, into.path()).await;
        assert!(fs::read(&victim).unwrap() == before);
        assert!(fs::symlink_metadata(&part).is_ok(), "not ours to remove");
    }
}

#[tokio::test]
async fn a_renamed_file_goes_on_and_takes_nothing_from_its_neighbours() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let content = noise(8 * MIB, 1);
    let (old, new) = (from.path().join("old"), from.path().join("new"));
    fs::write(&old, &content).unwrap();
    broken_off(std::slice::from_ref(&old), into.path(), 5 * MIB).await;
    let left = parts(into.path());
    assert_eq!(left.len(), 1);

    // As large, without anything of it there, and before the renamed one.
    let neighbour = from.path().join("a neighbour");
    fs::write(&neighbour, noise(8 * MIB, 2)).unwrap();
    let paths = [neighbour.clone(), old.clone()];
    let (_, received, passed) = completed(&paths, into.path()).await;
    assert_eq!((received.files, received.resent_bytes), (2, 0));
    assert!(passed < 13 * MIB, "{passed} bytes travelled");

    fs::remove_file(into.path().join("old")).unwrap();
    broken_off(std::slice::from_ref(&old), into.path(), 5 * MIB).await;
    fs::rename(&old, &new).unwrap();
    let (_, received, passed) = completed(std::slice::from_ref(&new), into.path()).await;
    assert_eq!((received.files, received.resent_bytes), (1, 0));
    assert!(passed < 5 * MIB, "{passed} bytes travelled");
    assert!(fs::read(into.path().join("new")).unwrap() == content);
    assert!(parts(into.path()).is_empty());
}

/// Else the receiver would not know for seconds on a slow line what it has.
#[tokio::test]
async fn what_is_here_is_compared_before_the_rest_is_sent() {
    let from = tempdir().unwrap();
    let file = from.path().join("film");
    fs::write(&file, noise(16 * MIB, 1)).unwrap();
    let (mut liar, bob) = liar::pair();
    bob.send(&[file]).await;
    assert_eq!(liar.hear().await["type"], "offer");
    assert_eq!(liar.hear().await["type"], "entries");
    assert_eq!(liar.hear_kind().await, FrameKind::Chunk, "ahead");
    liar.json(r#"{"type":"have","transfer":1,"files":[[0,12]]}"#)
        .await;
    liar.json(r#"{"type":"accept","transfer":1}"#).await;
    let mut kinds = Vec::new();
    while kinds.last() != Some(&FrameKind::Chunk) {
        kinds.push(liar.hear_kind().await);
    }
    assert!(kinds.contains(&FrameKind::Digests), "{kinds:?}");
}

#[tokio::test]
async fn what_an_attempt_has_left_can_be_removed() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let file = from.path().join("f");
    fs::write(&file, noise(8 * MIB, 1)).unwrap();
    let (alice, mut bob, _wire) = cut_after(4 * MIB as u64);
    alice.send(&[file]).await;
    let (id, offer) = bob.offered().await;
    bob.accept(id, into.path()).await;
    assert_eq!(bob.finished(id).await, Err(TransferError::ConnectionLost));
    assert_ne!(names(into.path()).len(), 0);
    let folder = Destination::open(into.path()).unwrap();
    folder
        .discard(offer, &AcceptOptions::default(), ALICE)
        .unwrap();
    assert_eq!(names(into.path()).len(), 0);
}
