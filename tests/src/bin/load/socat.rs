//! `socat` in the place of the relay, to compare with.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use crate::usage::cpu_s;

/// The size of its buffer.
const BUFFER: &str = "-b65536";
const START_TIMEOUT: Duration = Duration::from_secs(5);
const START_PAUSE: Duration = Duration::from_millis(20);

/// A process that passes on the bytes of one pair. Killed when it is dropped.
pub(crate) struct Socat(Child);

impl Drop for Socat {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _: Result<(), _> = self.0.kill();
        let _: Result<ExitStatus, _> = self.0.wait();
    }
}

impl Socat {
    /// Starts one, and returns the two ends of what it carries.
    pub(crate) async fn start() -> Result<(Self, [TcpStream; 2])> {
        let ours = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let near = free.local_addr()?;
        drop(free);
        let mut command = Command::new("socat");
        command.arg(BUFFER);
        command.arg(format!("TCP-LISTEN:{},bind=127.0.0.1", near.port()));
        command.arg(format!("TCP:{}", ours.local_addr()?));
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn();
        let socat = Self(child.context("starting socat")?);
        let from = timeout(START_TIMEOUT, connect(near)).await?;
        let (to, _) = timeout(START_TIMEOUT, ours.accept()).await??;
        Ok((socat, [from, to]))
    }

    /// The CPU time that it has used.
    pub(crate) fn cpu_s(&self) -> Result<f64> {
        cpu_s(self.0.id())
    }
}

/// Returns once it listens.
async fn connect(to: SocketAddr) -> TcpStream {
    loop {
        match TcpStream::connect(to).await {
            Ok(connected) => return connected,
            Err(_) => sleep(START_PAUSE).await,
        }
    }
}
