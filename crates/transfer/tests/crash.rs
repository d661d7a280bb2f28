//! Two processes over loopback TCP, one of which is killed at a random moment,
//! again and again, until everything has arrived. Between them stands this
//! test, which counts what travels and looks at the disk after each kill.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pinhole_transfer::{
    AcceptOptions, Destination, Exchange, ExchangeEvent, Owner, Resources, Side, Source, Summary,
    start,
};
use tokio::sync::mpsc;

const CHUNK: usize = 1024 * 1024;
/// The role of a child process, the port it dials, and its folder.
const ROLE: &str = "PINHOLE_CRASH_ROLE";
const PORT: &str = "PINHOLE_CRASH_PORT";
const FOLDER: &str = "PINHOLE_CRASH_FOLDER";
/// What a child says of itself when it ends.
const BROKEN_OFF: i32 = 3;
const SENT_AGAIN: i32 = 4;

/// Framing, digests, and the offer, which are far less than a chunk, and the chunk
/// that goes ahead: a new process does not know that the receiver may have it.
const OVERHEAD: u64 = 200_000 + CHUNK as u64;

#[test]
fn a_hundred_kills_lose_nothing() {
    kill_often(100);
}

#[test]
#[ignore = "takes minutes; the nightly profile runs it"]
fn a_thousand_kills_lose_nothing() {
    kill_often(1000);
}

/// One of the two processes; run by the tests above with its role set.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "no test by itself: the processes that are killed"]
async fn child() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
    let port: u16 = std::env::var(PORT).unwrap().parse().unwrap();
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
    let is_sender = role == "sender";
    let side = if is_sender {
        Side::Initiator
    } else {
        Side::Responder
    };
    let (exchange, events) = start(
        stream.unwrap().into_split(),
        side,
        Owner::stranger([1; 32]),
        Resources::default(),
    );
    if is_sender {
        let mut paths: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        paths.sort_by_key(fs::DirEntry::file_name);
        let paths: Vec<_> = paths.iter().map(fs::DirEntry::path).collect();
        let source = Source::scan(&paths).unwrap();
        if exchange.send(source).is_err() {
            std::process::exit(BROKEN_OFF);
        }
    }
    std::process::exit(match finished(&exchange, events, &folder).await {
        Some(summary) if summary.resent_bytes > 0 || summary.failed_files > 0 => SENT_AGAIN,
        Some(_) => 0,
        None => BROKEN_OFF,
    });
}

/// `None` when it broke off.
async fn finished(
    exchange: &Exchange,
    mut events: mpsc::Receiver<ExchangeEvent>,
    folder: &Path,
) -> Option<Summary> {
    loop {
        match events.recv().await? {
            ExchangeEvent::Offered { id, .. } => {
                let destination = Destination::open(folder).unwrap();
                exchange
                    .accept(id, destination, AcceptOptions::default())
                    .await
                    .ok()?;
            }
            ExchangeEvent::Finished { outcome, .. } => {
                let summary = outcome.ok()?;
                // The acknowledgement reaches the other side.
                exchange.close().await;
                return Some(summary);
            }
            ExchangeEvent::Closed { .. } => return None,
            _ => {}
        }
    }
}

fn spawn(role: &str, port: u16, folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(ROLE, role)
        .env(PORT, port.to_string())
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Numbers that are random enough, and the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }

    fn noise(&mut self, bytes: usize) -> Vec<u8> {
        (0..bytes.div_ceil(8))
            .flat_map(|_| {
                self.below(u64::MAX);
                self.0.to_le_bytes()
            })
            .take(bytes)
            .collect()
    }
}

type Content = BTreeMap<PathBuf, Vec<u8>>;

/// Large, medium, small and empty files, in folders and beside them.
fn make(from: &Path, random: &mut Random) -> Content {
    let mut content = Content::new();
    for (path, bytes) in [
        ("alone.bin", 5 * CHUNK + 77),
        ("set/a large", 13 * CHUNK + 1),
        ("set/deep/er/empty", 0),
        ("set/deep/er/medium", CHUNK + CHUNK / 2),
        ("set/z large", 9 * CHUNK),
        ("z.txt", 11),
    ] {
        content.insert(path.into(), random.noise(bytes));
    }
    for number in 0..60 {
        let bytes = random.below(90_000) as usize;
        content.insert(format!("set/many/{number}").into(), random.noise(bytes));
    }
    for (path, data) in &content {
        let path = from.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, data).unwrap();
    }
    content
}

/// What is on the disk.
struct There {
    /// In whole files, and in chunks of parts that are right.
    bytes: u64,
    is_complete: bool,
}

/// Checks that under final names stands nothing but whole files.
fn look(into: &Path, content: &Content) -> There {
    let mut bytes = 0;
    let mut whole = 0;
    let mut are_parts = false;
    let mut folders = vec![into.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let data = fs::read(&path).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap();
            if let Some(part) = name.strip_suffix(".pinhole-part") {
                are_parts = true;
                let name = part.rsplit_once('.').unwrap().0.trim_start_matches('.');
                let offered = folder.strip_prefix(into).unwrap().join(name);
                if let Some(full) = content.get(&offered).filter(|full| full.len() > CHUNK) {
                    let pairs = full.chunks(CHUNK).zip(data.chunks(CHUNK));
                    let right = pairs.take_while(|(one, other)| one == other);
                    bytes += right.map(|(chunk, _)| chunk.len() as u64).sum::<u64>();
                }
            } else {
                let relative = path.strip_prefix(into).unwrap();
                let full = content.get(relative);
                assert!(full == Some(&data), "{relative:?} is not what was sent");
                bytes += data.len() as u64;
                whole += 1;
            }
        }
    }
    There {
        bytes,
        is_complete: whole == content.len() && !are_parts,
    }
}

/// Passes on what comes until it ends, and counts it.
fn pass(mut from: TcpStream, mut to: TcpStream, passed: &AtomicU64) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
        passed.fetch_add(read as u64, Ordering::Relaxed);
    }
    // A side that is gone is told by nobody else.
    let _ = to.shutdown(std::net::Shutdown::Write);
}

struct Attempt {
    sender: ExitStatus,
    receiver: ExitStatus,
    passed: u64,
    is_killed: bool,
}

/// One attempt, in which one side, or both, are killed when so many bytes have
/// passed and some time more.
fn attempt(from: &Path, into: &Path, random: &mut Random, kill_after: u64) -> Attempt {
    let to_sender = TcpListener::bind("127.0.0.1:0").unwrap();
    let to_receiver = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let sender = Arc::new(Mutex::new(spawn("sender", port(&to_sender), from)));
    let receiver = Arc::new(Mutex::new(spawn("receiver", port(&to_receiver), into)));
    let (from_sender, _) = to_sender.accept().unwrap();
    let (from_receiver, _) = to_receiver.accept().unwrap();
    let forth = (
        from_sender.try_clone().unwrap(),
        from_receiver.try_clone().unwrap(),
    );
    let victims = match random.below(5) {
        0 | 1 => vec![Arc::clone(&sender)],
        2 | 3 => vec![Arc::clone(&receiver)],
        _ => vec![Arc::clone(&sender), Arc::clone(&receiver)],
    };
    let delay = Duration::from_micros(random.below(6000));
    let (passed, back_passed) = (AtomicU64::new(0), AtomicU64::new(0));
    let has_ended = AtomicBool::new(false);
    let is_killed = std::thread::scope(|scope| {
        let killing = scope.spawn(|| {
            while passed.load(Ordering::Relaxed) < kill_after {
                if has_ended.load(Ordering::Relaxed) {
                    return false;
                }
                std::thread::sleep(Duration::from_micros(100));
            }
            std::thread::sleep(delay);
            let mut is_killed = false;
            for victim in victims {
                let mut victim = victim.lock().unwrap();
                is_killed |= victim.try_wait().unwrap().is_none();
                victim.kill().unwrap();
            }
            is_killed
        });
        let back = scope.spawn(|| pass(from_receiver, from_sender, &back_passed));
        pass(forth.0, forth.1, &passed);
        back.join().unwrap();
        has_ended.store(true, Ordering::Relaxed);
        killing.join().unwrap()
    });
    let end = |child: Arc<Mutex<Child>>| child.lock().unwrap().wait().unwrap();
    Attempt {
        sender: end(sender),
        receiver: end(receiver),
        passed: passed.into_inner(),
        is_killed,
    }
}

fn kill_often(times: u32) {
    let seed = std::env::var("PINHOLE_SEED").map_or_else(
        |_| u64::from(std::process::id()) << 32 | 1,
        |seed| seed.parse().unwrap(),
    );
    println!("PINHOLE_SEED={seed}");
    let mut random = Random(seed);
    let (mut kills, mut rounds) = (0, 0);
    while kills < times {
        let (from, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let content = make(from.path(), &mut random);
        let all: u64 = content.values().map(|data| data.len() as u64).sum();
        rounds += 1;
        loop {
            let before = look(into.path(), &content);
            if before.is_complete {
                break;
            }
            let missing = all - before.bytes;
            // Often near the end, when files get their names.
            let kill_after = match random.below(8) {
                0 => missing,
                1 => missing.saturating_sub(random.below(CHUNK as u64)),
                // To the end.
                2 => u64::MAX,
                _ => random.below(missing / 3),
            };
            let run = attempt(from.path(), into.path(), &mut random, kill_after);
            kills += u32::from(run.is_killed);
            let limit = missing + OVERHEAD;
            assert!(
                run.passed <= limit,
                "{} bytes travelled and {missing} were missing",
                run.passed
            );
            let there = look(into.path(), &content);
            assert!(there.bytes >= before.bytes, "what was there is gone");
            for status in [run.sender, run.receiver] {
                // None is that of the killed.
                let is_sound = matches!(status.code(), None | Some(0 | BROKEN_OFF));
                assert!(is_sound, "a side ended with {status}");
            }
            if run.sender.success() {
                assert!(there.is_complete, "delivered, but not there");
            } else {
                assert!(run.is_killed || there.is_complete, "broke off by itself");
            }
        }
    }
    println!("{kills} kills in {rounds} rounds");
}
