//! What is read from a pipe, and what is written into one.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

#[cfg(target_os = "linux")]
use crate::hostile::Mounted;
use crate::liar::MIB;
use crate::support::{Peer, names, noise, pair};
use parking_lot::Mutex;
use pinhole_transfer::digest::Digest;
use pinhole_transfer::{
    AcceptError, AcceptOptions, Existing, FileErrorKind, Party, PipeInput, PipeOutput, SafePath,
    Source, Streamed, Summary, TransferError, TransferId,
};
use tempfile::tempdir;

/// What is sent as the file `s`.
pub(super) fn stream(input: impl Read + Send + 'static) -> Source {
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
pub(super) struct Fed(mpsc::Receiver<Option<Vec<u8>>>, Vec<u8>);

impl Fed {
    pub(super) fn new() -> (mpsc::Sender<Option<Vec<u8>>>, Self) {
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

pub(super) fn broken<T: std::fmt::Debug>(
    outcome: Result<T, TransferError>,
) -> (u64, Streamed, TransferError) {
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
