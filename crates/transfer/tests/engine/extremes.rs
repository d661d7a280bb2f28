//! Files that are huge, that change under way, and folders as deep as paths go.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use pinhole_transfer::{FileErrorKind, Party, TransferError, TransferId};
use tempfile::tempdir;

use crate::support::{Peer, names, noise, pair, transfer};

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

/// Returns when so many bytes of a transfer are done.
pub(crate) async fn until(peer: &Peer, id: TransferId, bytes: u64) {
    let reached = async {
        loop {
            let progress = peer.exchange.progress(id);
            if progress.is_none_or(|progress| progress.bytes_done >= bytes) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let reached = tokio::time::timeout(Duration::from_secs(60), reached).await;
    reached.expect("progress in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_grow_and_shrink_under_way_fail_alone() {
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let top = from.path().join("top");
    fs::create_dir(&top).unwrap();
    let (grown_bytes, sparse_bytes) = (48 * MIB, 8 * GIB);
    let grows = fs::File::create(top.join("1 grows")).unwrap();
    grows.set_len(grown_bytes).unwrap();
    let shrinks = fs::File::create(top.join("2 shrinks")).unwrap();
    shrinks.set_len(sparse_bytes).unwrap();
    let rest = noise(300_000, 1);
    fs::write(top.join("3 stays"), &rest).unwrap();

    let (mut alice, mut bob) = pair();
    let id = alice.send(&[top]).await;
    bob.accept_next(into.path()).await;
    until(&bob, id, 4 * MIB).await;
    grows.write_all_at(b"one line more", grown_bytes).unwrap();
    until(&bob, id, grown_bytes + 4 * MIB).await;
    shrinks.set_len(MIB).unwrap();
    let (received, sent) = tokio::join!(bob.finished(id), alice.finished(id));
    let (received, sent) = (received.unwrap(), sent.unwrap());
    assert_eq!((sent.files, sent.failed_files), (1, 2));
    assert_eq!((received.files, received.failed_files), (1, 2));
    for peer in [&alice, &bob] {
        let failed: Vec<_> = peer
            .failed
            .iter()
            .map(|(path, error)| (path.as_str(), error.trouble()))
            .collect();
        let changed = |path| (path, FileErrorKind::Changed);
        assert_eq!(failed, [changed("top/1 grows"), changed("top/2 shrinks")]);
    }
    assert_eq!(names(into.path()), ["top", "top/3 stays"]);
    assert!(fs::read(into.path().join("top/3 stays")).unwrap() == rest);
}

/// The longest path there may be, in a folder that makes it longer than the
/// system takes in one piece.
#[tokio::test]
async fn two_hundred_levels_of_long_names_arrive() {
    const LEVELS: usize = 200;
    let name = "nineteen bytes long".to_owned();
    let (from, into) = (tempdir().unwrap(), tempdir().unwrap());
    let below: PathBuf = std::iter::repeat_n(&name, LEVELS).collect();
    fs::create_dir_all(from.path().join(&below)).unwrap();
    fs::write(from.path().join(&below).join("f"), "deep").unwrap();
    let inbox = into.path().join("i".repeat(250));
    fs::create_dir(&inbox).unwrap();

    let (mut alice, mut bob) = pair();
    let (sent, _) = transfer(&mut alice, &mut bob, &[from.path().join(&name)], &inbox).await;
    assert_eq!((sent.files, sent.folders), (1, LEVELS as u32));
    let too_long = fs::metadata(inbox.join(&below)).unwrap_err();
    assert_eq!(too_long.kind(), std::io::ErrorKind::InvalidFilename);
    let mut dir = Dir::open_ambient_dir(&inbox, ambient_authority()).unwrap();
    for _ in 0..LEVELS {
        dir = dir.open_dir(&name).unwrap();
    }
    assert_eq!(dir.read_to_string("f").unwrap(), "deep");
}

/// The names in a folder; nothing is read.
#[cfg(target_os = "linux")]
fn there(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let names = entries.map(|entry| name(entry).into_string().unwrap());
    names.collect()
}

/// All chunks of 64 GiB are compared, one in the middle is sent again. On a
/// disk that says it has the room; what is a hole takes none.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "hashes 64 GiB twice; the nightly profile runs it"]
async fn one_chunk_of_sixty_four_gibibytes_is_sent_again() {
    const BYTES: u64 = 64 * GIB + 5;
    let room = ["-t", "tmpfs", "-o", "size=80g", "tmpfs"];
    let Some(disk) = crate::hostile::Mounted::new(&room) else {
        return;
    };
    let (from, into) = (
        tempfile::tempdir_in(disk.0.path()).unwrap(),
        tempfile::tempdir_in(disk.0.path()).unwrap(),
    );
    let path = from.path().join("huge");
    let source = fs::File::create(&path).unwrap();
    source.set_len(BYTES).unwrap();
    let word = b"the only bytes in it";
    source.write_all_at(word, 40 * GIB + 3).unwrap();
    source.write_all_at(b"end", BYTES - 3).unwrap();

    let (mut alice, mut bob) = pair();
    let id = alice.send(std::slice::from_ref(&path)).await;
    let (_, offer) = bob.offered().await;
    assert_eq!(offer.total_bytes(), BYTES);
    bob.accept(id, into.path()).await;
    until(&bob, id, 3 * MIB).await;
    bob.exchange.interrupt(id).unwrap();
    let interrupted = |party| Err(TransferError::Interrupted(party));
    assert_eq!(bob.finished(id).await, interrupted(Party::Us));
    assert_eq!(alice.finished(id).await, interrupted(Party::Peer));

    // What is there becomes what would be there shortly before the end, but
    // for the bytes in the middle. It stays a hole.
    let is_part = |name: &String| name.starts_with(".huge.");
    let part = there(into.path()).into_iter().find(is_part).unwrap();
    let part = fs::OpenOptions::new()
        .write(true)
        .open(into.path().join(part))
        .unwrap();
    part.set_len(64 * GIB).unwrap();

    let id = alice.send(&[path]).await;
    bob.accept_next(into.path()).await;
    let patience = Duration::from_secs(600);
    let both = async {
        tokio::join!(
            bob.finished_in(id, patience),
            alice.finished_in(id, patience)
        )
    };
    let (received, sent) = both.await;
    let (received, sent) = (received.unwrap(), sent.unwrap());
    assert_eq!((received.bytes, sent.bytes), (BYTES, BYTES));
    assert_eq!((received.resent_bytes, sent.resent_bytes), (MIB, MIB));

    assert_eq!(there(into.path()), ["huge"]);
    let arrived = fs::File::open(into.path().join("huge")).unwrap();
    let metadata = arrived.metadata().unwrap();
    assert_eq!(metadata.len(), BYTES);
    assert!(metadata.blocks() * 512 < 64 * MIB, "{metadata:?}");
    let mut found = [0; 20];
    arrived.read_exact_at(&mut found, 40 * GIB + 3).unwrap();
    assert_eq!(&found, word);
    let mut found = [0; 3];
    arrived.read_exact_at(&mut found, BYTES - 3).unwrap();
    assert_eq!(&found, b"end");
}
