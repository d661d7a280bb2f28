//! One yes is a yes to what was offered then: what was received under it stays the
//! user's, whatever comes on later connections, and nothing of it is looked at again.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use pinhole_transfer::digest::Digest;
use pinhole_transfer::{
    AcceptOptions, ExchangeEvent, Existing, FileErrorKind, Party, ResumeState, Summary,
    TransferError,
};
use tempfile::{TempDir, tempdir};

use crate::liar::{MIB, id as transfer_id, pair as with_liar};
use crate::resume::cut_after;
use crate::support::{Peer, noise};

/// Offered by alice, in this order; the last is cut off in its midst.
const FILES: &[(&str, usize)] = &[
    ("0 top", 2 * MIB),
    ("album/1 first", 3 * MIB),
    ("album/done/2 small", 10),
    ("album/done/3 empty", 0),
    ("album/z huge", 20 * MIB),
];

struct Scene {
    from: TempDir,
    into: TempDir,
    existing: Existing,
    /// Of alice and of bob.
    resume: [ResumeState; 2],
}

impl Scene {
    /// Alice's files, and an attempt at them that broke off.
    async fn broken_off(existing: Existing) -> Self {
        let scene = Self {
            from: tempdir().unwrap(),
            into: tempdir().unwrap(),
            existing,
            resume: Default::default(),
        };
        for (number, &(path, bytes)) in FILES.iter().enumerate() {
            let path = scene.from.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, noise(bytes, number as u64 + 1)).unwrap();
        }
        let (received, sent, _) = scene.attempt(12 * MIB as u64).await;
        assert_eq!(received.0, Err(TransferError::ConnectionLost));
        assert_eq!(sent.0, Err(TransferError::ConnectionLost));
        scene
    }

    /// How both sides end, which files failed, and how many bytes travelled.
    async fn attempt(&self, breaks_after: u64) -> (End, End, u64) {
        let (mut alice, mut bob, wire) = cut_after(breaks_after);
        let paths = ["0 top", "album"].map(|name| self.from.path().join(name));
        let [of_alice, of_bob] = &self.resume;
        let id = alice.send_resumable(&paths, of_alice).await;
        bob.offered().await;
        let choices = AcceptOptions {
            existing: self.existing,
            ..AcceptOptions::default()
        };
        bob.accept_again(id, self.into.path(), choices, of_bob)
            .await;
        let received = bob.finished(id).await;
        if breaks_after < u64::MAX {
            wire.task.await.unwrap();
        }
        let sent = alice.finished(id).await;
        let passed = wire.passed.load(Ordering::Relaxed);
        ((received, failed(&bob)), (sent, failed(&alice)), passed)
    }

    fn here(&self, path: &str) -> std::path::PathBuf {
        self.into.path().join(path)
    }
}

type End = (Result<Summary, TransferError>, Vec<(String, FileErrorKind)>);

fn failed(peer: &Peer) -> Vec<(String, FileErrorKind)> {
    let failed = peer.failed.iter();
    failed
        .map(|(path, error)| (path.as_str().to_owned(), error.trouble()))
        .collect()
}

fn is_huge_whole(into: &Path) -> bool {
    fs::read(into.join("album/z huge")).unwrap() == noise(20 * MIB, 5)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_received_is_neither_looked_at_nor_written_again() {
    for existing in [Existing::Rename, Existing::Skip, Existing::Replace] {
        let scene = Scene::broken_off(existing).await;
        fs::remove_file(scene.here("0 top")).unwrap();
        fs::write(scene.here("album/1 first"), "edited by the user").unwrap();
        fs::remove_dir_all(scene.here("album/done")).unwrap();

        let (received, sent, passed) = scene.attempt(u64::MAX).await;
        let (received, sent) = (received.0.unwrap(), sent.0.unwrap());
        assert_eq!(
            (received.files, received.failed_files),
            (5, 0),
            "{existing:?}"
        );
        assert_eq!((sent.files, sent.skipped_files), (5, 0), "{existing:?}");
        assert_eq!(received.digest, sent.digest);
        assert_eq!(received.resent_bytes, 0);
        // Of what alice has sent before only the end of the last is missing.
        assert!(passed < 16 * MIB as u64, "{passed} bytes");
        assert!(is_huge_whole(scene.into.path()));
        let edited = fs::read(scene.here("album/1 first")).unwrap();
        assert_eq!(edited, b"edited by the user", "{existing:?}");
        for gone in ["0 top", "album/done"] {
            assert!(
                !scene.here(gone).exists(),
                "{gone} is there again: {existing:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_content_for_what_was_received_fails_and_touches_nothing() {
    for existing in [Existing::Rename, Existing::Skip, Existing::Replace] {
        let scene = Scene::broken_off(existing).await;
        for path in ["0 top", "album/1 first", "album/done/2 small"] {
            let bytes = fs::metadata(scene.from.path().join(path)).unwrap().len();
            let other = noise(bytes as usize, 99);
            fs::write(scene.from.path().join(path), other).unwrap();
        }
        fs::remove_file(scene.here("0 top")).unwrap();

        let (received, sent, _) = scene.attempt(u64::MAX).await;
        let changed = ["0 top", "album/1 first", "album/done/2 small"];
        let changed = changed.map(|path| (path.to_owned(), FileErrorKind::Changed));
        assert_eq!(received.1, changed, "{existing:?}");
        assert_eq!(sent.1, changed, "{existing:?}");
        let counts = |end: &End| {
            let summary = end.0.as_ref().unwrap();
            (summary.files, summary.failed_files)
        };
        assert_eq!((counts(&received), counts(&sent)), ((2, 3), (2, 3)));
        assert!(!scene.here("0 top").exists());
        let first = fs::read(scene.here("album/1 first")).unwrap();
        assert!(first == noise(3 * MIB, 2), "{existing:?}");
        let small = fs::read(scene.here("album/done/2 small")).unwrap();
        assert_eq!(small, noise(10, 3));
        assert!(is_huge_whole(scene.into.path()));
    }
}

/// They come although nobody asked for them, and are held against what came first.
#[tokio::test]
async fn files_that_come_along_again_are_not_written_again() {
    for (second, failed) in [(*b"abcd", 0), (*b"ABCD", 1)] {
        let into = tempdir().unwrap();
        let resume = ResumeState::default();
        let (mut liar, mut bob) = with_liar();
        liar.offer_early(0, &[4, 3]).await;
        let (id, _) = bob.offered().await;
        let choices = AcceptOptions::default();
        bob.accept_again(id, into.path(), choices.clone(), &resume)
            .await;
        assert_eq!(liar.hear().await["type"], "accept");
        liar.batch(&[(0, b"abcd")]).await;
        loop {
            let said = liar.hear().await;
            if said["type"] == "durable" {
                assert_eq!(said["entries"], 1);
                break;
            }
        }
        drop(liar);
        assert_eq!(bob.finished(id).await, Err(TransferError::ConnectionLost));
        fs::remove_file(into.path().join("0")).unwrap();

        let (mut liar, mut bob) = with_liar();
        liar.offer_early(0, &[4, 3]).await;
        liar.batch(&[(0, &second), (1, b"xyz")]).await;
        let (id, _) = bob.offered().await;
        bob.accept_again(id, into.path(), choices, &resume).await;
        let summary = bob.finished(id).await.unwrap();
        assert_eq!((summary.files, summary.failed_files), (2 - failed, failed));
        assert!(!into.path().join("0").exists());
        assert_eq!(fs::read(into.path().join("1")).unwrap(), b"xyz");
    }
}

/// The digest of two files that are called so: the hash of what `b3sum` prints.
fn digest_of(files: [(&str, &[u8]); 2]) -> Digest {
    let line = |(name, data): (&str, &[u8])| format!("{}  {name}\n", Digest::of_file(data));
    Digest::of_file(files.map(line).concat().as_bytes())
}

#[tokio::test]
async fn an_offer_of_what_is_here_is_acknowledged_without_a_look() {
    let data = [noise(MIB, 1), noise(5, 2)];
    let sent = digest_of([("0", &data[0]), ("1", &data[1])]);
    let (mut liar, mut bob) = with_liar();
    liar.offer_as(0, &[MIB, 5], &format!(r#","sent":"{sent}""#))
        .await;
    let id = match bob.event().await {
        ExchangeEvent::Offered {
            id,
            sent: Some(said),
            ..
        } if said == sent => id,
        other => panic!("{other:?}"),
    };
    bob.exchange.acknowledge(id).unwrap();
    let said = liar.hear().await;
    let expected = serde_json::json!({"type": "durable", "transfer": 0, "entries": 2});
    assert_eq!(said, expected);
    assert!(bob.exchange.acknowledge(id).is_err(), "answered already");
    // What comes all the same comes to nothing.
    liar.chunk(0, 0, &data[0], Digest::of_file(&data[0])).await;
    liar.caught_up(&mut bob).await;
}

#[tokio::test]
async fn an_offer_without_these_words_has_no_digest() {
    let (mut liar, mut bob) = with_liar();
    liar.offer(&[MIB]).await;
    let event = bob.event().await;
    assert!(matches!(event, ExchangeEvent::Offered { sent: None, .. }));
}

/// The last acknowledgement is lost with the connection.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_sent_everything_says_so_and_is_content_with_the_word() {
    let from = tempdir().unwrap();
    let paths = ["a", "b", "c"].map(|name| from.path().join(name));
    for (path, seed) in paths.iter().zip(1..) {
        fs::write(path, noise(MIB, seed)).unwrap();
    }
    let resume = ResumeState::default();
    let (mut liar, mut bob) = with_liar();
    let id = bob.send_resumable(&paths, &resume).await;
    assert_eq!(liar.hear().await.get("sent"), None);
    liar.json(r#"{"type":"skip","transfer":1,"entries":[[1,1]]}"#)
        .await;
    liar.json(r#"{"type":"accept","transfer":1}"#).await;
    let mut ends = 0;
    while ends < 2 {
        if let Some(said) = liar.hear_any().await {
            ends += usize::from(said["type"] == "file_end");
        }
    }
    drop(liar);
    assert_eq!(bob.finished(id).await, Err(TransferError::ConnectionLost));

    let (mut liar, mut bob) = with_liar();
    let id = bob.send_resumable(&paths, &resume).await;
    let said = liar.hear().await;
    let sent = digest_of([("a", &noise(MIB, 1)), ("c", &noise(MIB, 3))]);
    assert_eq!(said["sent"], sent.to_string());
    assert_eq!(transfer_id(1), id);
    liar.json(r#"{"type":"durable","transfer":1,"entries":3}"#)
        .await;
    let summary = bob.finished(id).await.unwrap();
    assert_eq!((summary.files, summary.skipped_files), (2, 1));
    assert_eq!(
        (summary.bytes, summary.digest),
        (2 * MIB as u64, Some(sent))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_what_was_sent_is_an_offer_like_any() {
    let from = tempdir().unwrap();
    let path = from.path().join("a");
    fs::write(&path, noise(2 * MIB, 1)).unwrap();
    let paths = [path.clone()];
    for (what, is_all_sent) in [("changed since", true), ("not sent to its end", false)] {
        let resume = ResumeState::default();
        let (mut liar, mut bob) = with_liar();
        let id = bob.send_resumable(&paths, &resume).await;
        if is_all_sent {
            liar.json(r#"{"type":"accept","transfer":1}"#).await;
            while liar
                .hear_any()
                .await
                .is_none_or(|it| it["type"] != "file_end")
            {}
            fs::write(&path, noise(2 * MIB, 2)).unwrap();
        }
        drop(liar);
        assert_eq!(bob.finished(id).await, Err(TransferError::ConnectionLost));
        let (mut liar, mut bob) = with_liar();
        let id = bob.send_resumable(&paths, &resume).await;
        assert_eq!(liar.hear().await.get("sent"), None, "{what}");
        // And then the word is a lie.
        liar.json(r#"{"type":"durable","transfer":1,"entries":1}"#)
            .await;
        let ended = bob.finished(id).await;
        assert_eq!(ended, Err(TransferError::Violation(Party::Peer)), "{what}");
    }
}
