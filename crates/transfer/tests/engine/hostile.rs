//! A peer that lies, written by hand frame by frame. Whatever it does, nothing
//! unverified is written, nothing is left behind, and it is told off.

use std::io::Write;

use crate::liar::{Liar, MIB, accepted, assert_refused, chunk_digest, id, pair};
use crate::support::{Peer, names, noise};
use pinhole_transfer::digest::Digest;
use pinhole_transfer::frame::{BatchItem, ChunkHeader, encode_batch_header};
use pinhole_transfer::{
    AcceptError, AcceptOptions, ChunkIndex, DeclineReason, Destination, DestinationError,
    EntryIndex, ExchangeError, FileErrorKind, Party, Side, TransferError,
};
use tempfile::tempdir;

#[tokio::test]
async fn an_honest_hand_written_peer_is_understood() {
    let into = tempdir().unwrap();
    let (one, two) = (noise(MIB, 1), noise(5, 2));
    let (mut liar, mut bob, id) = accepted(&[MIB + 5, 3, 0, 0], into.path()).await;
    liar.chunk(0, 0, &one, chunk_digest(0, &one)).await;
    liar.chunk(0, 1, &two, chunk_digest(1, &two)).await;
    liar.end(0, &[&one, &two]).await;
    liar.batch(&[(1, b"abc"), (2, b"")]).await;
    liar.end(3, &[]).await;
    assert_eq!(bob.finished(id).await.unwrap().files, 4);
    let durable = loop {
        let said = liar.hear().await;
        assert_eq!(said["type"], "durable");
        if said["entries"] == 4 {
            break said;
        }
    };
    assert_eq!(durable["transfer"], 0);
    assert_eq!(
        std::fs::read(into.path().join("0")).unwrap(),
        [one, two].concat()
    );
    assert_eq!(std::fs::read(into.path().join("1")).unwrap(), b"abc");
}

/// What is wrong, and how it is said.
fn no_offers() -> Vec<(&'static str, Vec<String>)> {
    let entry = |path: &str| format!(r#"{{"file":{{"path":"{path}","size_bytes":1}}}}"#);
    let page =
        |entries: &str| format!(r#"{{"type":"entries","transfer":0,"entries":[{entries}]}}"#);
    let offer = |entries: u32, total: u64| {
        format!(r#"{{"type":"offer","transfer":0,"entries":{entries},"total_bytes":{total}}}"#)
    };
    vec![
        (
            "path out of the folder",
            vec![offer(1, 1), page(&entry("../x"))],
        ),
        ("absolute path", vec![offer(1, 1), page(&entry("/x"))]),
        ("device", vec![offer(1, 1), page(&entry("NUL"))]),
        (
            "file without its folder",
            vec![offer(1, 1), page(&entry("a/b"))],
        ),
        (
            "named twice",
            vec![offer(2, 2), page(&format!("{},{}", entry("a"), entry("A")))],
        ),
        ("wrong total", vec![offer(1, 2), page(&entry("a"))]),
        (
            "more entries than said",
            vec![offer(1, 2), page(&format!("{},{}", entry("a"), entry("b")))],
        ),
        ("no entries", vec![offer(0, 0)]),
        ("too many entries", vec![offer(u32::MAX, 1)]),
        ("entries for nothing", vec![page(&entry("a"))]),
        ("offered twice", vec![offer(2, 2), offer(2, 2)]),
        (
            "an id of the other side",
            vec![offer(1, 1).replace(":0,", ":1,")],
        ),
        (
            "a link",
            vec![offer(1, 1), page(r#"{"link":{"path":"a","to":"b"}}"#)],
        ),
        (
            "negative size",
            vec![offer(1, 1), page(&entry("a").replace(":1}", ":-1}"))],
        ),
        ("no JSON", vec!["nonsense".to_owned()]),
        (
            "unknown message",
            vec![r#"{"type":"delete","path":"x"}"#.to_owned()],
        ),
        (
            "accepting what was not offered",
            vec![r#"{"type":"accept","transfer":1}"#.to_owned()],
        ),
        (
            "accepting its own offer",
            vec![offer(1, 1), r#"{"type":"accept","transfer":0}"#.to_owned()],
        ),
        (
            "cancelling what never was",
            vec![r#"{"type":"cancel","transfer":8,"reason":"cancelled"}"#.to_owned()],
        ),
        (
            "acknowledging nothing",
            vec![r#"{"type":"durable","transfer":1,"entries":1}"#.to_owned()],
        ),
    ]
}

#[tokio::test]
async fn offers_that_are_none_end_the_connection() {
    for (what, said) in no_offers() {
        let into = tempdir().unwrap();
        let (mut liar, bob) = pair();
        for message in said {
            liar.json(&message).await;
        }
        assert_refused(liar, bob, into.path(), what).await;
    }
}

#[tokio::test]
async fn frames_that_are_none_end_the_connection() {
    for (what, bytes) in [
        ("empty", vec![0, 0, 0, 0, 1]),
        ("endless", vec![0xff, 0xff, 0xff, 0xff, 1]),
        ("endless chunk", vec![0xff, 0xff, 0xff, 0xff, 2]),
        ("chunk one byte too long", vec![0, 0x10, 0, 46, 2]),
        ("chunk without data", vec![0, 0, 0, 45, 2]),
        ("unknown kind", vec![0, 0, 0, 9, 9]),
        ("not ours", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        (
            "batch item beyond its frame",
            [&[0, 0, 0, 45, 3][..], &[0; 8], &[0xff; 4], &[0; 32]].concat(),
        ),
    ] {
        let into = tempdir().unwrap();
        let (mut liar, bob) = pair();
        liar.bytes(&bytes).await;
        assert_refused(liar, bob, into.path(), what).await;
    }
}

#[tokio::test]
async fn data_before_the_answer_ends_the_connection() {
    let into = tempdir().unwrap();
    let (mut liar, mut bob) = pair();
    liar.offer(&[3]).await;
    bob.offered().await;
    liar.batch(&[(0, b"abc")]).await;
    assert_refused(liar, bob, into.path(), "data before the answer").await;
}

#[tokio::test]
async fn data_that_is_not_due_ends_the_connection() {
    let data = noise(MIB, 3);
    let right = chunk_digest(0, &data);
    for what in [
        "a gap",
        "twice",
        "beyond the size",
        "too short",
        "unknown file",
        "not due file",
        "end without chunks",
        "end of another file",
        "batch of the wrong size",
        "batch file twice",
        "failed and then sent",
    ] {
        let into = tempdir().unwrap();
        let (mut liar, bob, _) = accepted(&[2 * MIB, 10], into.path()).await;
        match what {
            "a gap" => liar.chunk(0, 1, &data, right).await,
            "twice" => {
                liar.chunk(0, 0, &data, right).await;
                liar.chunk(0, 0, &data, right).await;
            }
            "beyond the size" => {
                for index in 0..3 {
                    liar.chunk(0, index, &data, right).await;
                }
            }
            "too short" => {
                let short = &data[1..];
                liar.chunk(0, 0, short, chunk_digest(0, short)).await;
            }
            "unknown file" => liar.chunk(7, 0, &data, right).await,
            "not due file" => liar.batch(&[(1, &data[..10])]).await,
            "end without chunks" => liar.end(0, &[]).await,
            "end of another file" => {
                liar.chunk(0, 0, &data, right).await;
                liar.chunk(0, 1, &data, right).await;
                liar.end(1, &[]).await;
            }
            "batch of the wrong size" => liar.batch(&[(0, b"short")]).await,
            "batch file twice" => {
                liar.json(r#"{"type":"file_failed","transfer":0,"entry":0,"trouble":"io"}"#)
                    .await;
                liar.batch(&[(1, &data[..9]), (1, &data[..10])]).await;
            }
            _ => {
                liar.json(r#"{"type":"file_failed","transfer":0,"entry":0,"trouble":"io"}"#)
                    .await;
                liar.chunk(0, 0, &data, right).await;
            }
        }
        assert_refused(liar, bob, into.path(), what).await;
    }
}

#[tokio::test]
async fn what_does_not_match_its_digest_is_never_kept() {
    let data = noise(MIB, 4);
    let right = chunk_digest(0, &data);
    for what in ["a chunk", "a later chunk", "a batch", "a root"] {
        let into = tempdir().unwrap();
        let size = if what == "a batch" { 4 } else { 2 * MIB };
        let (mut liar, mut bob, id) = accepted(&[size], into.path()).await;
        match what {
            "a chunk" => liar.chunk(0, 0, &data, Digest::of_file(b"other")).await,
            "a later chunk" => {
                liar.chunk(0, 0, &data, right).await;
                liar.chunk(0, 1, &data, Digest::of_file(b"other")).await;
            }
            "a batch" => {
                let header =
                    BatchItem::encode_header(EntryIndex::FIRST, 4, Digest::of_file(b"some"));
                let mut items = header.to_vec();
                items.extend(b"else");
                liar.bytes(&encode_batch_header(self::id(0), items.len()).unwrap())
                    .await;
                liar.bytes(&items).await;
            }
            _ => {
                liar.chunk(0, 0, &data, right).await;
                liar.chunk(0, 1, &data, right).await;
                liar.end(0, &[&data]).await;
            }
        }
        let outcome = bob.finished(id).await;
        assert_eq!(
            outcome,
            Err(TransferError::Verification(Party::Us)),
            "{what}"
        );
        let said = liar.hear().await;
        assert_eq!(
            (&said["type"], &said["reason"]),
            (&"cancel".into(), &"verification".into())
        );
        assert!(
            names(into.path()).is_empty(),
            "{what}: {:?}",
            names(into.path())
        );
    }
}

/// Too large for a whole file to travel before the answer.
const LARGE: usize = 70_000;

#[tokio::test]
async fn skipped_files_are_not_sent() {
    let from = tempdir().unwrap();
    let paths = ["a", "b"].map(|name| from.path().join(name));
    for path in &paths {
        std::fs::write(path, noise(LARGE, 1)).unwrap();
    }
    let (mut liar, mut bob) = pair();
    let id = bob.send(&paths).await;
    assert_eq!(liar.hear().await["type"], "offer");
    assert_eq!(liar.hear().await["type"], "entries");
    // Ahead of the answer.
    assert_eq!(liar.hear_chunk().await.0, 0);
    liar.json(r#"{"type":"skip","transfer":1,"entries":[[0,1]]}"#)
        .await;
    liar.json(r#"{"type":"accept","transfer":1}"#).await;
    assert_eq!(liar.hear().await["type"], "alive");
    let sent = liar.hear_batch().await;
    let entries: Vec<_> = sent.iter().map(|(entry, _)| *entry).collect();
    assert_eq!(entries, [1], "the second file and nothing else");
    liar.json(r#"{"type":"durable","transfer":1,"entries":2}"#)
        .await;
    let summary = bob.finished(id).await.unwrap();
    assert_eq!(
        (summary.files, summary.bytes, summary.failed_files),
        (1, LARGE as u64, 0)
    );
    assert_eq!(summary.skipped_files, 1);
}

#[tokio::test]
async fn offers_without_end_are_declined() {
    let (mut liar, mut bob) = pair();
    for number in 0..40 {
        let id = number * 2;
        liar.json(&format!(
            r#"{{"type":"offer","transfer":{id},"entries":1,"total_bytes":1}}"#
        ))
        .await;
        liar.json(&format!(
            r#"{{"type":"entries","transfer":{id},"entries":[{{"file":{{"path":"x","size_bytes":1}}}}]}}"#
        ))
        .await;
    }
    for _ in 0..32 {
        bob.offered().await;
    }
    for number in 32..40 {
        let said = liar.hear().await;
        assert_eq!(said["type"], "decline");
        assert_eq!(
            (&said["transfer"], &said["reason"]),
            (&(number * 2).into(), &"busy".into())
        );
    }
}

#[tokio::test]
async fn what_the_peer_says_of_us_is_shown_safely() {
    let (mut liar, mut bob) = pair();
    liar.json(r#"{"type":"close","violation":"\u001b[2J"}"#)
        .await;
    let reason = bob.closed().await;
    assert_eq!(
        reason,
        Some(ExchangeError::Reported("\\u{1b}[2J".to_owned()))
    );
}

/// A file system of its own, mounted until dropped.
#[cfg(target_os = "linux")]
pub(crate) struct Mounted(pub(crate) tempfile::TempDir);

#[cfg(target_os = "linux")]
impl Mounted {
    /// `None`, said aloud, where this user may not mount.
    pub(crate) fn new(options: &[&str]) -> Option<Self> {
        let dir = tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(options)
            .arg(dir.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(dir)),
            other => {
                // Past the capture of the test harness.
                let _ = writeln!(
                    std::io::stderr(),
                    "SKIPPED: a disk of its own, which needs root: {other:?}"
                );
                None
            }
        }
    }
}

#[cfg(target_os = "linux")]
impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount")
            .arg(self.0.path())
            .status();
        if !unmounted.is_ok_and(|status| status.success()) {
            let _ = writeln!(
                std::io::stderr(),
                "{} stays mounted",
                self.0.path().display()
            );
        }
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_disk_that_fills_up_on_the_way_ends_the_transfer() {
    let Some(disk) = Mounted::new(&["-t", "tmpfs", "-o", "size=8m", "tmpfs"]) else {
        return;
    };
    let into = disk.0.path();
    let (mut liar, mut bob, id) = accepted(&[4 * MIB], into).await;
    std::fs::write(into.join("somebody else's"), noise(6 * MIB, 6)).unwrap();
    let data = noise(MIB, 7);
    for index in 0..4 {
        liar.chunk(0, index, &data, chunk_digest(index, &data))
            .await;
    }
    let outcome = bob.finished(id).await;
    assert!(
        matches!(outcome, Err(TransferError::LocalFile { ref path, trouble: FileErrorKind::DiskFull, .. }) if *path == into.display().to_string()),
        "{outcome:?}"
    );
    let mut said = liar.hear().await;
    // On a machine that is busy it comes later than a sign of life.
    while said["type"] == "alive" {
        said = liar.hear().await;
    }
    assert_eq!(said["reason"], serde_json::json!({"disk": "disk_full"}));
    // What fitted is kept for when there is room.
    let left = names(into);
    assert!(
        matches!(&left[..], [part, other]
            if part.ends_with(".pinhole-part") && other == "somebody else's"),
        "{left:?}"
    );
}

#[cfg(target_os = "linux")]
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_disk_that_others_fill_meanwhile_keeps_its_reserve() {
    let Some(disk) = Mounted::new(&["-t", "tmpfs", "-o", "size=64m", "tmpfs"]) else {
        return;
    };
    let into = disk.0.path();
    let (mut liar, mut bob, id) = accepted(&[40 * MIB], into).await;
    // Room for fifteen chunks and a third of one; the reserve is larger.
    std::fs::write(into.join("filler"), vec![1; 48 * MIB + 2 * MIB / 3]).unwrap();
    let chunk = noise(MIB, 1);
    for index in 0..16 {
        liar.chunk(0, index, &chunk, chunk_digest(index, &chunk))
            .await;
    }
    let error = bob.finished(id).await.unwrap_err();
    let is_full = |error: &TransferError| {
        matches!(
            error,
            TransferError::LocalFile {
                trouble: FileErrorKind::DiskFull,
                ..
            }
        )
    };
    assert!(is_full(&error), "{error:?}");
    let left = names(into)
        .into_iter()
        .find(|name| name != "filler")
        .unwrap();
    let part = std::fs::metadata(into.join(&left)).unwrap().len();
    assert_eq!(part, 15 * MIB as u64, "{left}");
}

#[tokio::test]
async fn a_disk_that_is_full_or_read_only_is_known_before_accepting() {
    let Some(small) = Mounted::new(&["-t", "tmpfs", "-o", "size=2m", "tmpfs"]) else {
        return;
    };
    let Some(fixed) = Mounted::new(&["-t", "tmpfs", "-o", "ro", "tmpfs"]) else {
        return;
    };
    let (mut liar, mut bob) = pair();
    liar.offer(&[4 * MIB]).await;
    let (id, _) = bob.offered().await;
    let full = bob
        .exchange
        .accept(
            id,
            Destination::open(small.0.path()).unwrap(),
            AcceptOptions::default(),
        )
        .await;
    let Err(AcceptError::Destination(error)) = full else {
        panic!("{full:?}");
    };
    assert!(
        matches!(error, DestinationError::NoSpace { .. }),
        "{error:?}"
    );
    let fixed = Destination::open(fixed.0.path()).unwrap();
    let fixed = bob
        .exchange
        .accept(id, fixed, AcceptOptions::default())
        .await;
    let Err(AcceptError::Destination(error)) = fixed else {
        panic!("{fixed:?}");
    };
    assert_eq!(error.trouble(), FileErrorKind::ReadOnly);
    // The offer is still there for a better folder.
    let into = tempdir().unwrap();
    bob.accept(id, into.path()).await;
    assert_eq!(liar.hear().await["type"], "accept");
}

#[tokio::test]
async fn half_a_chunk_on_a_connection_that_takes_no_answer_holds_nobody_up() {
    let (into, kept) = (tempdir().unwrap(), noise(MIB, 1));
    // So small that all but the end of what is sent was read.
    let (left, right) = tokio::io::duplex(64 * 1024);
    let (said, heard) = tokio::io::duplex(MIB);
    let mut liar = Liar { stream: left };
    let mut bob = Peer::over(tokio::io::join(right, said), Side::Responder);
    liar.offer(&[MIB]).await;
    bob.accept_next(into.path()).await;
    liar.json(r#"{"type":"offer","transfer":2,"entries":1,"total_bytes":0}"#)
        .await;
    liar.json(
        r#"{"type":"entries","transfer":2,"entries":[{"file":{"path":"a","size_bytes":0}}]}"#,
    )
    .await;
    let (second, _) = bob.offered().await;
    let header = ChunkHeader {
        transfer: id(0),
        entry: EntryIndex::FIRST,
        index: ChunkIndex::FIRST,
        digest: chunk_digest(0, &kept),
    };
    liar.bytes(&header.encode(MIB).unwrap()).await;
    liar.bytes(&kept[..MIB / 2]).await;

    drop(heard);
    bob.exchange
        .decline(second, DeclineReason::Declined)
        .unwrap();
    let reason = bob.closed().await;
    assert!(
        matches!(reason, Some(ExchangeError::ConnectionLost(_))),
        "{reason:?}"
    );
    assert_eq!(names(into.path()), Vec::<String>::new());
}
