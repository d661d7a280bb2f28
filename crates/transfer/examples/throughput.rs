//! How fast the engine alone is: one large file and ten thousand small ones
//! from one folder to another, over loopback TCP and without encryption.
//!
//! `cargo run --release -p pinhole-transfer --example throughput [FOLDER]`
//!
//! The folder decides what is measured: on a tmpfs the pipeline, on a disk the
//! disk.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pinhole_transfer::{
    AcceptOptions, Destination, ExchangeEvent, Owner, Resources, Side, Source, start,
};
use tokio::net::{TcpListener, TcpStream};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const ROUNDS: u32 = 5;
const LARGE_BYTES: usize = 1 << 30;
const SMALL_FILES: usize = 10_000;
const SMALL_BYTES: usize = 4096;

#[tokio::main]
async fn main() -> Outcome<()> {
    let folder = std::env::args_os().nth(1);
    let folder = folder.map_or_else(|| PathBuf::from("/dev/shm"), PathBuf::from);
    let scratch = tempfile::tempdir_in(folder)?;
    let large = scratch.path().join("large");
    let small = scratch.path().join("small");
    make_large(&large)?;
    make_small(&small)?;
    for round in 1..=ROUNDS {
        let seconds = send(&large, scratch.path()).await?.as_secs_f64();
        let rate = 1073.7 / seconds;
        println!("round {round}: 1 GiB in {seconds:.2} s, {rate:.0} MB/s");
        let seconds = send(&small, scratch.path()).await?.as_secs_f64();
        println!("round {round}: {SMALL_FILES} x {SMALL_BYTES} bytes in {seconds:.2} s");
    }
    Ok(())
}

fn make_large(path: &Path) -> Outcome<()> {
    let mut file = fs::File::create(path)?;
    let piece: Vec<u8> = (0..1_000_003_u32).flat_map(u32::to_le_bytes).collect();
    let mut left = LARGE_BYTES;
    while left > 0 {
        let part = piece.get(..left.min(piece.len())).unwrap_or_default();
        file.write_all(part)?;
        left -= part.len();
    }
    Ok(())
}

fn make_small(path: &Path) -> Outcome<()> {
    for number in 0..SMALL_FILES {
        let folder = path.join(format!("{}", number / 100));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(number.to_string()), [7; SMALL_BYTES])?;
    }
    Ok(())
}

/// Sends `path` into a new folder below `scratch`; from the scan to the
/// durable acknowledgement.
async fn send(path: &Path, scratch: &Path) -> Outcome<Duration> {
    let into = tempfile::tempdir_in(scratch)?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let dialled = TcpStream::connect(listener.local_addr()?).await?;
    let (accepted, _) = listener.accept().await?;
    dialled.set_nodelay(true)?;
    accepted.set_nodelay(true)?;
    let (alice, mut at_alice) = {
        let owner = Owner::stranger([2; 32]);
        start(
            dialled.into_split(),
            Side::Initiator,
            owner,
            Resources::default(),
        )
    };
    let (bob, mut at_bob) = {
        let owner = Owner::stranger([1; 32]);
        start(
            accepted.into_split(),
            Side::Responder,
            owner,
            Resources::default(),
        )
    };

    let started = Instant::now();
    let source = Source::scan(&[path.to_owned()])?;
    alice.send(source)?;
    while let Some(event) = at_bob.recv().await {
        if let ExchangeEvent::Offered { id, .. } = event {
            bob.accept(
                id,
                Destination::open(into.path())?,
                AcceptOptions::default(),
            )
            .await?;
            break;
        }
    }
    while let Some(event) = at_alice.recv().await {
        if let ExchangeEvent::Finished { outcome, .. } = event {
            outcome?;
            break;
        }
    }
    let elapsed = started.elapsed();
    tokio::join!(alice.close(), bob.close());
    Ok(elapsed)
}
