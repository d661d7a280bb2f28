//! What is read from a pipe, and what is written into one.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

#[cfg(target_os = "linux")]
use crate::hostile::Mounted;
use crate::liar::{self, Liar, MIB, assert_refused, chunk_digest};
use crate::support::{Peer, names, noise, pair};
use parking_lot::Mutex;
use pinhole_transfer::digest::Digest;
use pinhole_transfer::{
    AcceptError, AcceptOptions, ExchangeError, Existing, FileErrorKind, Party, PipeInput,
    PipeOutput, SafePath, Source, Streamed, Summary, TransferError, TransferId,
};
use tempfile::tempdir;

/// What is sent as the file `s`.
fn stream(input: impl Read + Send + 'static) -> Source {
    let input = PipeInput::new("the input", Box::new(input));
    Source::stream(SafePath::parse("s").unwrap(), input).unwrap()
}

/// What was written into a pipe.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.lock().extend(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn pipe(&self) -> PipeOutput {
        PipeOutput::new("the output", Box::new(self.clone()))
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.lock().clone()
    }
}

/// Takes so many bytes, then fails like this.
struct Failing(usize, io::ErrorKind);

impl Write for Failing {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self.0.min(data.len()) {
            0 => Err(self.1.into()),
            taken => {
                self.0 -= taken;
                Ok(taken)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives what it is sent until it is told to end or to fail.
struct Fed(mpsc::Receiver<Option<Vec<u8>>>, Vec<u8>);

impl Fed {
    fn new() -> (mpsc::Sender<Option<Vec<u8>>>, Self) {
        let (feed, fed) = mpsc::channel();
        (feed, Self(fed, Vec::new()))
    }
}

impl Read for Fed {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if self.1.is_empty() {
            match self.0.recv() {
                Ok(Some(data)) => self.1 = data,
                Ok(None) => return Err(io::ErrorKind::PermissionDenied.into()),
                Err(_) => return Ok(0),
            }
        }
        let taken = self.1.len().min(room.len());
        room[..taken].copy_from_slice(&self.1[..taken]);
        self.1.drain(..taken);
        Ok(taken)
    }
}

async fn take_into(bob: &mut Peer, output: &PipeOutput) -> TransferId {
    let (id, _) = bob.offered().await;
    let prepared = bob.exchange.prepare_pipe(id, output).unwrap();
    prepared.begin().unwrap();
    id
}

fn broken<T: std::fmt::Debug>(outcome: Result<T, TransferError>) -> (u64, Streamed, TransferError) {
    match outcome {
        Err(TransferError::Broken {
            arrived_bytes,
            streamed,
            reason,
        }) => (arrived_bytes, streamed, *reason),
        other => panic!("{other:?}"),
    }
}

async fn both(alice: &mut Peer, bob: &mut Peer, id: TransferId) -> (Summary, Summary) {
    let received = bob.finished(id).await.unwrap();
    (alice.finished(id).await.unwrap(), received)
}

#[tokio::test]
async fn a_stream_of_any_length_becomes_a_file() {
    for bytes in [0, 1, 100_000, MIB - 1, MIB, MIB + 1, 2 * MIB, 5 * MIB + 7] {
        let into = tempdir().unwrap();
        let data = noise(bytes, 1);
        let (mut alice, mut bob) = pair();
        let source = stream(io::Cursor::new(data.clone()));
        let id = alice.exchange.send(source).unwrap();
        let (_, offer) = bob.offered().await;
        assert!(offer.is_stream() && offer.total_bytes() == 0);
        bob.accept(id, into.path()).await;
        let (sent, received) = both(&mut alice, &mut bob, id).await;
        assert_eq!(std::fs::read(into.path().join("s")).unwrap(), data);
        assert_eq!(names(into.path()), ["s"]);
        for summary in [sent, received] {
            assert_eq!((summary.files, summary.bytes), (1, bytes as u64));
            assert_eq!(summary.digest, Some(Digest::of_file(&data)), "{bytes}");
        }
    }
}

#[tokio::test]
async fn a_stream_of_any_length_goes_into_a_pipe() {
    for bytes in [0, 1, MIB, 3 * MIB + 7] {
        let data = noise(bytes, 2);
        let (mut alice, mut bob) = pair();
        let source = stream(io::Cursor::new(data.clone()));
        let id = alice.exchange.send(source).unwrap();
        let written = Written::default();
        take_into(&mut bob, &written.pipe()).await;
        let (sent, received) = both(&mut alice, &mut bob, id).await;
        assert!(written.bytes() == data, "{bytes}");
        assert_eq!((sent.bytes, received.bytes), (bytes as u64, bytes as u64));
        assert_eq!(sent.digest, received.digest);
    }
}

#[tokio::test]
async fn an_ordinary_file_goes_into_a_pipe() {
    for bytes in [0, 1, 60_000, 100_000, 200_000, MIB, 3 * MIB + 7] {
        let from = tempdir().unwrap();
        let data = noise(bytes, 3);
        let path = from.path().join("a");
        std::fs::write(&path, &data).unwrap();
        let (mut alice, mut bob) = pair();
        let id = alice.send(&[path]).await;
        let written = Written::default();
        take_into(&mut bob, &written.pipe()).await;
        let (sent, received) = both(&mut alice, &mut bob, id).await;
        assert!(written.bytes() == data, "{bytes}");
        assert_eq!(sent.digest, received.digest);
        assert_eq!((received.files, received.bytes), (1, bytes as u64));
    }
}

#[tokio::test]
async fn only_one_file_at_a_time_goes_into_a_pipe() {
    let from = tempdir().unwrap();
    let folder = from.path().join("d");
    std::fs::create_dir(&folder).unwrap();
    let files = ["a", "b"].map(|name| from.path().join(name));
    for file in &files {
        std::fs::write(file, "x").unwrap();
    }
    let (alice, mut bob) = pair();
    let written = Written::default();
    let output = written.pipe();
    for paths in [&files[..], &[folder]] {
        alice.send(paths).await;
        let (id, _) = bob.offered().await;
        let refused = bob.exchange.prepare_pipe(id, &output);
        assert!(matches!(refused, Err(AcceptError::NotOneFile)));
    }
    assert!(!output.is_taken());
    alice.send(&files[..1]).await;
    take_into(&mut bob, &output).await;
    alice.send(&files[1..]).await;
    let (id, _) = loop {
        if let pinhole_transfer::ExchangeEvent::Offered { id, offer, .. } = bob.event().await {
            break (id, offer);
        }
    };
    let refused = bob.exchange.prepare_pipe(id, &output);
    assert!(matches!(refused, Err(AcceptError::PipeInUse)));
}

#[tokio::test]
async fn a_name_that_is_taken_counts_as_for_any_file() {
    for (existing, expected) in [
        (
            Existing::Rename,
            [("s", "old"), ("s (1)", "new")].as_slice(),
        ),
        (Existing::Skip, &[("s", "old")]),
        (Existing::Replace, &[("s", "new")]),
    ] {
        let into = tempdir().unwrap();
        std::fs::write(into.path().join("s"), "old").unwrap();
        let (mut alice, mut bob) = pair();
        let id = alice.exchange.send(stream("new".as_bytes())).unwrap();
        bob.offered().await;
        let options = AcceptOptions {
            existing,
            ..AcceptOptions::default()
        };
        bob.accept_some(id, into.path(), options).await;
        let (sent, received) = both(&mut alice, &mut bob, id).await;
        assert_eq!(sent.skipped_files, received.skipped_files);
        assert_eq!(sent.skipped_files == 1, existing == Existing::Skip);
        let found = names(into.path());
        let found: Vec<_> = found
            .iter()
            .map(|name| {
                (
                    name.as_str(),
                    std::fs::read_to_string(into.path().join(name)),
                )
            })
            .map(|(name, content)| (name, content.unwrap()))
            .collect();
        let found: Vec<_> = found.iter().map(|(a, b)| (*a, b.as_str())).collect();
        assert_eq!(found, expected);
    }
}

/// A stream of which so much has come, and which would go on.
async fn under_way(into: &Path, bytes: usize) -> (Peer, Peer, TransferId, Feed) {
    let (feed, fed) = Fed::new();
    feed.send(Some(noise(bytes, 4))).unwrap();
    let (mut alice, mut bob) = pair();
    let id = alice.exchange.send(stream(fed)).unwrap();
    bob.accept_next(into).await;
    let whole = (bytes / MIB * MIB) as u64;
    // What has arrived is said four times a second, behind a chunk.
    let arrived = |alice: &Peer| alice.exchange.progress(id).map(|it| it.bytes_done);
    let mut more = 0;
    while arrived(&alice).unwrap() < whole {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        more += MIB;
        feed.send(Some(noise(MIB, 5))).unwrap();
    }
    let progress = alice.exchange.progress(id).unwrap();
    assert_eq!((progress.bytes_total, progress.time_left), (None, None));
    let begun = matches!(
        alice.event().await,
        pinhole_transfer::ExchangeEvent::Accepted { .. }
    );
    assert!(begun && more < 100 * MIB);
    (alice, bob, id, feed)
}

type Feed = mpsc::Sender<Option<Vec<u8>>>;

#[tokio::test]
async fn a_broken_stream_says_how_much_arrived_and_leaves_nothing() {
    let into = tempdir().unwrap();
    for who_ends in ["alice's key", "bob's key", "the connection", "the input"] {
        let (mut alice, mut bob, id, feed) = under_way(into.path(), 3 * MIB).await;
        let (expected_a, expected_b) = match who_ends {
            "alice's key" => {
                alice.exchange.cancel(id).unwrap();
                let us = TransferError::Cancelled(Party::Us);
                (us, TransferError::Cancelled(Party::Peer))
            }
            "bob's key" => {
                bob.exchange.interrupt(id).unwrap();
                let peer = TransferError::Interrupted(Party::Peer);
                (peer, TransferError::Interrupted(Party::Us))
            }
            "the connection" => {
                let (gone, _) = pair();
                let before = std::mem::replace(&mut alice, gone);
                drop(before);
                let lost = TransferError::ConnectionLost;
                (lost, TransferError::Interrupted(Party::Peer))
            }
            _ => {
                feed.send(None).unwrap();
                let trouble = FileErrorKind::PermissionDenied;
                let local = TransferError::LocalFile {
                    path: "the input".to_owned(),
                    trouble,
                    detail: String::new(),
                };
                (local, TransferError::PeerFile(trouble))
            }
        };
        let (arrived, streamed, reason) = broken(bob.finished(id).await);
        assert!(arrived >= 3 * MIB as u64, "{who_ends}");
        assert_eq!((streamed, reason), (Streamed::Removed, expected_b));
        assert!(names(into.path()).is_empty(), "{who_ends}");
        if who_ends != "the connection" {
            let (arrived, streamed, reason) = broken(alice.finished(id).await);
            assert!(arrived >= 3 * MIB as u64, "{who_ends}");
            assert_eq!((streamed, reason), (Streamed::Sent, expected_a));
        }
    }
}

#[tokio::test]
async fn a_pipe_that_takes_no_more_ends_the_stream_on_both_sides() {
    for (kind, trouble) in [
        (io::ErrorKind::BrokenPipe, FileErrorKind::ReaderGone),
        (io::ErrorKind::StorageFull, FileErrorKind::DiskFull),
    ] {
        for taken in [0, 1000, MIB, 2 * MIB + 10] {
            let (mut alice, mut bob) = pair();
            let id = alice.exchange.send(stream(io::repeat(7))).unwrap();
            let output = PipeOutput::new("the output", Box::new(Failing(taken, kind)));
            take_into(&mut bob, &output).await;
            let (arrived, streamed, reason) = broken(bob.finished(id).await);
            assert_eq!((arrived, streamed), (taken as u64, Streamed::PassedOn));
            let local =
                matches!(reason, TransferError::LocalFile { ref path, .. } if path == "the output");
            assert!(local, "{reason:?}");
            let (arrived, streamed, reason) = broken(alice.finished(id).await);
            assert_eq!((arrived, streamed), (taken as u64, Streamed::Sent));
            assert_eq!(reason, TransferError::PeerFile(trouble));
        }
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_longer_than_the_disk_has_room_for_leaves_nothing() {
    let Some(disk) = Mounted::new(&["-t", "tmpfs", "-o", "size=24m", "none"]) else {
        return;
    };
    let into = disk.0.path();
    let (mut alice, mut bob) = pair();
    let id = alice.exchange.send(stream(io::repeat(7))).unwrap();
    bob.accept_next(into).await;
    let (received, sent) = tokio::join!(bob.finished(id), alice.finished(id));
    let (arrived, streamed, reason) = broken(received);
    let full = FileErrorKind::DiskFull;
    let is_full = matches!(reason, TransferError::LocalFile { trouble, .. } if trouble == full);
    assert!(is_full && streamed == Streamed::Removed, "{reason:?}");
    assert!(arrived > 8 * MIB as u64 && arrived < 24 * MIB as u64);
    let sent = broken(sent);
    assert_eq!(
        sent,
        (arrived, Streamed::Sent, TransferError::PeerFile(full))
    );
    assert!(names(into).is_empty());
}

/// Counts what is read of it.
struct Counted(Arc<AtomicUsize>);

impl Read for Counted {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.fetch_add(room.len(), Ordering::Relaxed);
        Ok(room.len())
    }
}

/// Takes nothing until it may.
struct Held(mpsc::Receiver<()>);

impl Write for Held {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self.0.recv() {
            Ok(()) => Ok(data.len()),
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_up_the_sender() {
    let (mut alice, mut bob) = pair();
    let read = Arc::new(AtomicUsize::new(0));
    let id = alice
        .exchange
        .send(stream(Counted(Arc::clone(&read))))
        .unwrap();
    let (step, held) = mpsc::channel();
    let output = PipeOutput::new("the output", Box::new(Held(held)));
    take_into(&mut bob, &output).await;
    let mut last = 0;
    // Until nothing moves any more.
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let now = read.load(Ordering::Relaxed);
        if now > 0 && now == last {
            break;
        }
        last = now;
    }
    assert!(last < 64 * MIB, "{last}");
    assert!(alice.exchange.silence() < std::time::Duration::from_secs(1));
    for _ in 0..8 {
        step.send(()).unwrap();
    }
    while read.load(Ordering::Relaxed) < last + 8 * MIB {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    drop(step);
    assert_eq!(broken(bob.finished(id).await).0, 8 * MIB as u64);
    assert_eq!(broken(alice.finished(id).await).0, 8 * MIB as u64);
}

const OFFER: &str = r#"{"type":"offer","transfer":0,"entries":1,"total_bytes":0}"#;
const ENTRY: &str = r#"{"type":"entries","transfer":0,"entries":[{"stream":{"path":"s"}}]}"#;

fn end(size_bytes: usize, root: Digest) -> String {
    format!(r#"{{"type":"stream_end","transfer":0,"size_bytes":{size_bytes},"root":"{root}"}}"#)
}

async fn offered_by_liar(into: &Path) -> (Liar, Peer, TransferId) {
    let (mut liar, mut bob) = liar::pair();
    liar.json(OFFER).await;
    liar.json(ENTRY).await;
    let id = bob.accept_next(into).await;
    assert_eq!(liar.hear().await["type"], "accept");
    (liar, bob, id)
}

#[tokio::test]
async fn what_is_no_offer_of_a_stream_is_refused() {
    let stream = r#"{"stream":{"path":"s"}}"#;
    let file = r#"{"file":{"path":"f","size_bytes":0}}"#;
    let offer = |entries: usize, more: &str| {
        format!(r#"{{"type":"offer","transfer":0,"entries":{entries},"total_bytes":0{more}}}"#)
    };
    let sent = format!(r#","sent":"{}""#, Digest::of_file(&[]));
    for (more, entries) in [
        ("", vec![stream, file]),
        ("", vec![file, stream]),
        ("", vec![stream, r#"{"stream":{"path":"t"}}"#]),
        (
            "",
            vec![r#"{"folder":{"path":"d"}}"#, r#"{"stream":{"path":"d/s"}}"#],
        ),
        ("", vec![r#"{"stream":{"path":"d/s"}}"#]),
        ("", vec![r#"{"stream":{"path":"../s"}}"#]),
        ("", vec![r#"{"stream":{"path":"s","size_bytes":1}}"#]),
        (r#","early":0"#, vec![stream]),
        (r#","unread":1"#, vec![stream]),
        (&sent, vec![stream]),
    ] {
        let into = tempdir().unwrap();
        let (mut liar, bob) = liar::pair();
        liar.json(&offer(entries.len(), more)).await;
        let page = entries.join(",");
        let page = format!(r#"{{"type":"entries","transfer":0,"entries":[{page}]}}"#);
        liar.json(&page).await;
        assert_refused(liar, bob, into.path(), &format!("{more} {page}")).await;
    }
    let into = tempdir().unwrap();
    let (mut liar, bob) = liar::pair();
    liar.json(&OFFER.replace(r#"_bytes":0"#, r#"_bytes":1"#))
        .await;
    liar.json(ENTRY).await;
    assert_refused(liar, bob, into.path(), "a stream of a known size").await;
}

#[tokio::test]
async fn a_stream_that_lies_is_refused_and_leaves_nothing() {
    let (one, two) = (noise(MIB, 1), noise(5, 2));
    let all = [one.clone(), two.clone()].concat();
    let root = Digest::of_file(&all);
    for what in [
        "too short an end",
        "too long an end",
        "a chunk behind a short one",
        "a gap",
        "the end of a file",
        "a batch",
        "digests",
    ] {
        let into = tempdir().unwrap();
        let (mut liar, bob, _) = offered_by_liar(into.path()).await;
        liar.chunk(0, 0, &one, chunk_digest(0, &one)).await;
        let two_digest = chunk_digest(1, &two);
        match what {
            "too short an end" => liar.json(&end(1, root)).await,
            "too long an end" => liar.json(&end(all.len(), root)).await,
            "a chunk behind a short one" => {
                liar.chunk(0, 1, &two, two_digest).await;
                liar.chunk(0, 2, &two, chunk_digest(2, &two)).await;
            }
            "a gap" => liar.chunk(0, 2, &two, chunk_digest(2, &two)).await,
            "the end of a file" => liar.end(0, &[&one]).await,
            "a batch" => liar.batch(&[(0, &two)]).await,
            _ => liar.digests(&[(0, 0, root)]).await,
        }
        assert_refused(liar, bob, into.path(), what).await;
    }
}

#[tokio::test]
async fn a_stream_with_another_digest_is_not_kept() {
    let one = noise(100, 1);
    for wrong in ["chunk", "root", "root of the chunk"] {
        let into = tempdir().unwrap();
        let (mut liar, mut bob, id) = offered_by_liar(into.path()).await;
        let other = Digest::of_file(b"other");
        // The only chunk of a stream has the digest of one of several.
        let genuine = chunk_digest_of_first(&one);
        let digest = if wrong == "chunk" { other } else { genuine };
        liar.chunk(0, 0, &one, digest).await;
        let root = match wrong {
            "root" => other,
            "root of the chunk" => genuine,
            _ => Digest::of_file(&one),
        };
        liar.json(&end(one.len(), root)).await;
        let (_, streamed, reason) = broken(bob.finished(id).await);
        assert_eq!(reason, TransferError::Verification(Party::Us), "{wrong}");
        assert_eq!(streamed, Streamed::Removed);
        assert!(names(into.path()).is_empty(), "{wrong}");
    }
}

/// Of the first chunk of a stream, be it the only one.
fn chunk_digest_of_first(data: &[u8]) -> Digest {
    let first = pinhole_transfer::ChunkIndex::FIRST;
    let place = pinhole_transfer::chunking::ChunkPlace::of_stream(first, data.len());
    Digest::of_chunk(place.unwrap(), data)
}

#[tokio::test]
async fn an_honest_hand_written_stream_is_understood() {
    for sizes in [vec![], vec![100], vec![MIB], vec![MIB, 5]] {
        let into = tempdir().unwrap();
        let (mut liar, mut bob, id) = offered_by_liar(into.path()).await;
        let mut all = Vec::new();
        for (index, &size) in sizes.iter().enumerate() {
            let data = noise(size, index as u64);
            let digest = match index {
                0 => chunk_digest_of_first(&data),
                _ => chunk_digest(index as u32, &data),
            };
            liar.chunk(0, index as u32, &data, digest).await;
            all.extend(data);
        }
        liar.json(&end(all.len(), Digest::of_file(&all))).await;
        assert_eq!(bob.finished(id).await.unwrap().bytes, all.len() as u64);
        let said = loop {
            let said = liar.hear().await;
            match said["type"].as_str() {
                Some("arrived") => assert!(said["size_bytes"].as_u64() <= Some(all.len() as u64)),
                Some("alive") => {}
                _ => break said,
            }
        };
        assert_eq!(said["type"], "durable");
    }
}

#[tokio::test]
async fn what_no_receiver_of_a_stream_says_ends_the_connection() {
    let have = r#"{"type":"have","transfer":0,"files":[[0,0]]}"#;
    let have_one = r#"{"type":"have","transfer":0,"files":[[0,1]]}"#;
    let accept = r#"{"type":"accept","transfer":0}"#;
    let arrived = |bytes: u64| format!(r#"{{"type":"arrived","transfer":0,"size_bytes":{bytes}}}"#);
    let compared = r#"{"type":"compared","transfer":0,"entry":0,"chunks":1,"differing":[]}"#;
    let durable = r#"{"type":"durable","transfer":0,"entries":1}"#;
    for said in [
        vec![have.to_owned()],
        vec![have_one.to_owned()],
        vec![compared.to_owned()],
        vec![durable.to_owned()],
        vec![arrived(0), arrived(1)],
        vec![accept.to_owned(), compared.to_owned()],
        vec![accept.to_owned(), durable.to_owned()],
        vec![accept.to_owned(), arrived(1)],
        vec![accept.to_owned(), arrived(u64::MAX)],
        vec![accept.to_owned(), have.to_owned()],
    ] {
        let (left, right) = tokio::io::duplex(8 * MIB);
        let mut liar = Liar { stream: left };
        let mut alice = Peer::over(right, pinhole_transfer::Side::Initiator);
        let (_feed, fed) = Fed::new();
        alice.exchange.send(stream(fed)).unwrap();
        for message in &said {
            liar.json(message).await;
        }
        let reason = alice.closed().await;
        let is_violation = matches!(reason, Some(ExchangeError::Violation(_)));
        assert!(is_violation, "{said:?}: {reason:?}");
    }
}

#[tokio::test]
async fn an_input_is_read_once_and_only_when_it_is_wanted() {
    let input = PipeInput::new("the input", Box::new("abc".as_bytes()));
    let path = SafePath::parse("s").unwrap();
    let source = || Source::stream(path.clone(), input.clone()).unwrap();
    let (mut alice, mut bob) = pair();
    let id = alice.exchange.send(source()).unwrap();
    bob.offered().await;
    bob.exchange
        .decline(id, pinhole_transfer::DeclineReason::OnlyOneFile)
        .unwrap();
    let declined = alice.finished(id).await.unwrap_err();
    assert!(declined.to_string().contains("single file"), "{declined}");
    assert!(!input.is_taken());
    for is_first in [true, false] {
        let id = alice.exchange.send(source()).unwrap();
        let written = Written::default();
        take_into(&mut bob, &written.pipe()).await;
        assert_eq!(alice.finished(id).await.is_ok(), is_first);
        assert_eq!(bob.finished(id).await.is_ok(), is_first);
        assert!(input.is_taken());
    }
}
