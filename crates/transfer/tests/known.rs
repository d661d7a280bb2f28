//! A process that goes on after its connection broke reads no file twice. Alone
//! in its process, because it counts what the process reads.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pinhole_transfer::{
    AcceptOptions, Destination, ExchangeEvent, Owner, Resources, Side, Source, Summary,
    TransferError, start,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

const MIB: u64 = 1024 * 1024;
/// The file, and how much of it passes before the connection breaks.
const FILE: u64 = 240 * MIB;
const PASSES: u64 = 200 * MIB;
/// A receiver makes a file durable so often; what the disk may not have is read
/// again.
const NOT_DURABLE: u64 = 64 * MIB + 2 * MIB;

/// What the process reads is counted for one test at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_is_not_read_again() {
    let _alone = ALONE.lock().await;
    let (_folder, file, into, resources) = broken_off().await;
    let before = read_by_this_process();
    let summary = send(&file, &into, &resources, u64::MAX).await.unwrap();
    let read = read_by_this_process() - before;
    assert_eq!(summary.resent_bytes, 0);
    assert!(fs::read(into.join("film")).unwrap() == fs::read(&file).unwrap());

    // The rest by the sender, and what the receiver is not sure of.
    let rest = FILE - PASSES + 8 * MIB;
    println!("{} MiB read to go on", read / MIB);
    assert!(read < rest + NOT_DURABLE, "{} MiB", read / MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_meanwhile_is_read_again() {
    let _alone = ALONE.lock().await;
    let (_folder, file, into, resources) = broken_off().await;
    let part = fs::read_dir(&into).unwrap();
    let part = part.map(|it| it.unwrap().path());
    let part = part.max_by_key(|it| it.metadata().unwrap().len()).unwrap();
    damage(&part, 3 * MIB);
    damage(&file, 5 * MIB);
    let summary = send(&file, &into, &resources, u64::MAX).await.unwrap();
    assert_eq!(summary.resent_bytes, 2 * MIB);
    assert!(fs::read(into.join("film")).unwrap() == fs::read(&file).unwrap());
}

/// A file, the folder that it goes to, and what both sides keep in mind when the
/// connection has broken.
async fn broken_off() -> (TempDir, PathBuf, PathBuf, [Resources; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let (file, into) = (folder.path().join("film"), folder.path().join("into"));
    fs::create_dir(&into).unwrap();
    write_content(&file);
    let resources = [Resources::default(), Resources::default()];
    let broken = send(&file, &into, &resources, PASSES).await;
    assert_eq!(broken, Err(TransferError::ConnectionLost));
    (folder, file, into, resources)
}

/// Other bytes in the same place, and the time of before.
fn damage(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = File::options().write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(b"other", at).unwrap();
    file.set_modified(modified).unwrap();
}

/// Offers a file over a connection that breaks after so many bytes. Returns how
/// the receiver fared.
async fn send(
    file: &Path,
    into: &Path,
    resources: &[Resources; 2],
    passes: u64,
) -> Result<Summary, TransferError> {
    let (left, left_end) = duplex(64 * 1024);
    let (right, right_end) = duplex(64 * 1024);
    let pumping = tokio::spawn(pump(left_end, right_end, passes));
    let [of_alice, of_bob] = resources.clone();
    let (alice, mut at_alice) = {
        let owner = Owner::stranger([2; 32]);
        start(tokio::io::split(left), Side::Initiator, owner, of_alice)
    };
    let (bob, mut at_bob) = {
        let owner = Owner::stranger([1; 32]);
        start(tokio::io::split(right), Side::Responder, owner, of_bob)
    };
    let source = Source::scan(&[PathBuf::from(file)]).unwrap();
    alice.send(source).unwrap();
    let id = loop {
        if let ExchangeEvent::Offered { id, .. } = next(&mut at_bob).await {
            break id;
        }
    };
    let destination = Destination::open(into).unwrap();
    bob.accept(id, destination, AcceptOptions::default())
        .await
        .unwrap();
    let outcome = finished(&mut at_bob).await;
    let sent = finished(&mut at_alice).await;
    assert_eq!(sent.is_ok(), outcome.is_ok());
    pumping.abort();
    outcome
}

async fn next(events: &mut mpsc::Receiver<ExchangeEvent>) -> ExchangeEvent {
    let event = timeout(Duration::from_secs(60), events.recv()).await;
    event.expect("an event in time").expect("an event")
}

async fn finished(events: &mut mpsc::Receiver<ExchangeEvent>) -> Result<Summary, TransferError> {
    loop {
        if let ExchangeEvent::Finished { outcome, .. } = next(events).await {
            return outcome;
        }
    }
}

async fn pump(left: DuplexStream, right: DuplexStream, passes: u64) {
    let (mut from_left, mut to_left) = tokio::io::split(left);
    let (from_right, mut to_right) = tokio::io::split(right);
    let mut forth = from_right;
    let back = tokio::io::copy(&mut forth, &mut to_left);
    let forth = async {
        let mut limited = (&mut from_left).take(passes);
        let _ = tokio::io::copy(&mut limited, &mut to_right).await;
        // What was passed arrives before the end does.
        let _ = to_right.shutdown().await;
    };
    tokio::select! {
        _ = back => {}
        () = forth => {}
    }
}

/// Numbers that are nowhere the same.
fn write_content(path: &Path) {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    for number in 0..FILE / 8 {
        let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        file.write_all(&number.to_le_bytes()).unwrap();
    }
    file.flush().unwrap();
}

/// Bytes, by calls of the system.
fn read_by_this_process() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.unwrap().parse().unwrap()
}
