//! TCP hole punching and nothing else: two peers, one introducer, one
//! connection. No encryption, no names; Pinhole itself adds those.
//!
//! ```sh
//! cargo run -p pinhole-net --example punch   # all three, over loopback
//! punch introduce 0.0.0.0:4000               # or: where all can reach PUBLIC:4000,
//! punch peer PUBLIC:4000                     # and on two computers behind NATs
//! ```
//!
//! Each peer reaches the introducer from the local port on which it will be
//! reached itself, so the address that the introducer observes is the one the
//! NAT has opened for that port. The introducer tells each peer the other's
//! address; both then listen and connect at once.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use pinhole_net::socket::{AddressReuse, LocalPort};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(30);
const BETWEEN_DIALS: Duration = Duration::from_millis(20);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let server = listener.local_addr()?;
            tokio::try_join!(introduce(listener), peer(server), peer(server)).map(|_| ())
        }
        ["introduce", address] => introduce(TcpListener::bind(address).await?).await,
        ["peer", server] => peer(server.parse()?).await,
        _ => anyhow::bail!("usage: punch [introduce ADDR:PORT | peer ADDR:PORT]"),
    }
}

/// Waits for two peers and tells each the address at which it sees the other.
async fn introduce(listener: TcpListener) -> Result<()> {
    let (mut one, one_address) = listener.accept().await?;
    let (mut other, other_address) = listener.accept().await?;
    one.write_all(format!("{other_address}\n").as_bytes())
        .await?;
    other
        .write_all(format!("{one_address}\n").as_bytes())
        .await?;
    // The mappings live as long as these connections: the peers end them.
    one.read(&mut [0]).await.map(drop)?;
    Ok(())
}

/// Meets the other peer and exchanges one line with it.
async fn peer(server: SocketAddr) -> Result<()> {
    let any = if server.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let port = LocalPort::bind(any.parse()?, AddressReuse::On)?;
    let mut introducer = BufReader::new(port.connect(server).await?);
    let mut line = String::new();
    introducer.read_line(&mut line).await?;
    let remote: SocketAddr = line.trim().parse().context("the introducer left")?;

    let stream = timeout(PATIENCE, punch(&port, remote)).await??;
    println!("{} reached {remote}", stream.local_addr()?);
    let mut stream = BufReader::new(stream);
    stream
        .write_all(format!("hello from {}\n", port.address()).as_bytes())
        .await?;
    let mut greeting = String::new();
    stream.read_line(&mut greeting).await?;
    println!("{} heard: {}", port.address(), greeting.trim());
    Ok(())
}

/// Listens and dials from one port; whichever succeeds is the connection.
async fn punch(port: &LocalPort, remote: SocketAddr) -> Result<TcpStream> {
    let listener = port.listen()?;
    let dial = async {
        loop {
            match port.connect(remote).await {
                Ok(stream) => return stream,
                Err(error) => eprintln!("dialling {remote}: {error}"),
            }
            sleep(BETWEEN_DIALS).await;
        }
    };
    tokio::select! {
        stream = dial => Ok(stream),
        accepted = listener.accept() => Ok(accepted?.0),
    }
}
