//! The server under load: a process, and what it takes of the machine.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result};
use pinhole_tests::process::binary;

/// Ports that are free on a machine that runs no other server. A restarted server has to
/// come back where its people look for it.
const FIRST_PORT: u16 = 24_747;

/// A running `pinhole-server`. Killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _: Result<(), _> = self.child.kill();
        let _: Result<ExitStatus, _> = self.child.wait();
    }
}

impl Server {
    /// Starts the server with these options on the data in `folder`.
    pub(crate) fn start(folder: &Path, options: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary("pinhole-server"));
        command
            .arg("--json")
            .args(["--listen", &format!("127.0.0.1:{FIRST_PORT}")])
            .arg("--data-dir")
            .arg(folder)
            // What is measured is the machine, and not these.
            .args(["--max-people", "1000000", "--max-connections", "2000000"])
            .args(options)
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().context("starting pinhole-server")?;
        let stdout = child.stdout.take().context("no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        anyhow::ensure!(line.contains("listening"), "the server says {line:?}");
        Ok(Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], FIRST_PORT)),
        })
    }

    /// The CPU time that it has used.
    pub(crate) fn cpu_s(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields = stat.rsplit(')').next().unwrap_or_default();
        // utime and stime are the 14th and 15th field; the name was the second.
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
        // Linux counts in hundredths of a second on every architecture.
        Ok(ticks as f64 / 100.0)
    }

    /// The memory that it holds now.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        self.status_bytes("VmRSS:")
    }

    /// The most memory that it has held.
    pub(crate) fn peak_bytes(&self) -> Result<u64> {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|it| it.split_whitespace().next());
        let kib: u64 = kib.context("no such field")?.parse()?;
        Ok(kib << 10)
    }
}
