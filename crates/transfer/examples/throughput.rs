//! How fast the engine alone is: one large file and ten thousand small ones
//! from one folder to another, over loopback TCP and without encryption.
//!
//! `cargo run --release -p pinhole-transfer --example throughput [FOLDER] [--lanes N]`
//!
//! The folder decides what is measured: on a tmpfs the pipeline, on a disk the
//! disk. With lanes each round sends with one, and with so many.

use std::{
    error::Error,
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use pinhole_transfer::{
    Choices, Destination, ExchangeEvent, Owner, Resources, Side, Source, start,
};
use tokio::net::{TcpListener, TcpStream};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const ROUNDS: u32 = 5;
const LARGE_BYTES: usize = 1 << 30;
const SMALL_FILES: usize = 10_000;
const SMALL_BYTES: usize = 4096;

#[tokio::main]
async fn main() -> Outcome<()> {
    let (folder, lanes) = arguments()?;
    let scratch = tempfile::tempdir_in(folder)?;
    let large = scratch.path().join("large");
    let small = scratch.path().join("small");
    make_large(&large)?;
    make_small(&small)?;
    for round in 1..=ROUNDS {
        for lanes in &lanes {
            let seconds = send(&large, scratch.path(), *lanes).await?.as_secs_f64();
            let rate = 1073.7 / seconds;
            println!("round {round}, lanes {lanes}: 1 GiB in {seconds:.2} s, {rate:.0} MB/s");
            let seconds = send(&small, scratch.path(), *lanes).await?.as_secs_f64();
            println!(
                "round {round}, lanes {lanes}: {SMALL_FILES} x {SMALL_BYTES} bytes in {seconds:.2} s"
            );
        }
    }
    Ok(())
}

/// The folder, and with how many lanes to send in turn.
fn arguments() -> Outcome<(PathBuf, Vec<usize>)> {
    let mut folder = PathBuf::from("/dev/shm");
    let mut lanes = vec![Resources::default().lanes];
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--lanes" {
            let count = arguments.next().ok_or("--lanes takes a number")?;
            lanes = vec![1, count.to_string_lossy().parse()?];
        } else {
            folder = argument.into();
        }
    }
    Ok((folder, lanes))
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
async fn send(path: &Path, scratch: &Path, lanes: usize) -> Outcome<Duration> {
    let into = tempfile::tempdir_in(scratch)?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let dialled = TcpStream::connect(listener.local_addr()?).await?;
    let (accepted, _) = listener.accept().await?;
    dialled.set_nodelay(true)?;
    accepted.set_nodelay(true)?;
    let resources = || Resources {
        lanes,
        ..Resources::default()
    };
    let (alice, mut at_alice) = {
        let owner = Owner::stranger([2; 32]);
        start(dialled.into_split(), Side::Initiator, owner, resources())
    };
    let (bob, mut at_bob) = {
        let owner = Owner::stranger([1; 32]);
        start(accepted.into_split(), Side::Responder, owner, resources())
    };

    let started = Instant::now();
    let source = Source::scan(&[path.to_owned()])?;
    alice.send(source).await?;
    while let Some(event) = at_bob.recv().await {
        if let ExchangeEvent::Offered { id, .. } = event {
            bob.accept(id, Destination::open(into.path())?, Choices::default())
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
