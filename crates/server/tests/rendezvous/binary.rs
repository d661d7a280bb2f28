//! The program itself: its first line, its signals, its memory.
#![cfg(unix)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pinhole_proto::key::Fingerprint;
use pinhole_proto::rendezvous::Refusal;
use rustix::process::{Pid, Signal, kill_process};

use super::client::{Client, identity};

/// Ended by force when a test fails.
pub(crate) struct Process {
    child: Child,
    /// All that it says on standard error, read as it comes: a full pipe would stop it.
    log: Option<JoinHandle<String>>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _: Result<(), _> = self.child.kill();
        let _: Result<ExitStatus, _> = self.child.wait();
    }
}

impl Process {
    pub(crate) fn spawn(data_dir: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pinhole-server"));
        command.arg("--data-dir").arg(data_dir).args(arguments);
        Self::start(command)
    }

    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = thread::spawn(move || {
            let mut said = String::new();
            stderr.read_to_string(&mut said).unwrap();
            said
        });
        let log = Some(log);
        Self { child, log }
    }

    /// What it has said on standard error, once it has ended with this code.
    pub(crate) fn stderr_to_end(mut self, code: Option<i32>) -> String {
        let said = self.log.take().unwrap().join().unwrap();
        assert_eq!(self.child.wait().unwrap().code(), code, "{said}");
        said
    }

    /// What it has said on standard error by the time a signal has ended it.
    pub(crate) fn log(self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.stderr_to_end(Some(0))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn first_line(&mut self) -> String {
        let stdout = self.child.stdout.as_mut().unwrap();
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        line
    }

    pub(crate) fn listening(&mut self) -> (Vec<SocketAddr>, Fingerprint) {
        let line = self.first_line();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["event"], "listening", "{line}");
        let addresses = serde_json::from_value(value["addresses"].clone()).unwrap();
        let fingerprint = serde_json::from_value(value["fingerprint"].clone()).unwrap();
        (addresses, fingerprint)
    }

    /// Sends the signal; returns how the process ended and how long it took.
    pub(crate) fn end(mut self, signal: Signal) -> (ExitStatus, Duration) {
        let begin = Instant::now();
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let status = self.child.wait().unwrap();
        (status, begin.elapsed())
    }
}

pub(crate) const ANY_PORT: [&str; 3] = ["--json", "--listen", "127.0.0.1:0"];

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_it_politely_and_names_and_key_survive() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::spawn(dir.path(), &ANY_PORT);
    let (addresses, fingerprint) = server.listening();
    assert_eq!(addresses.len(), 2);
    let owner = identity();
    let mut alice = Client::log_in(addresses[0], &owner, "alice").await;
    let told = tokio::spawn(async move { alice.refusal().await });
    let (status, took) = server.end(Signal::TERM);
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(told.await.unwrap(), Refusal::ShuttingDown);

    let mut server = Process::spawn(dir.path(), &ANY_PORT);
    let (addresses, again) = server.listening();
    assert_eq!(again, fingerprint);
    let mut thief = Client::asking(addresses[0], &identity(), "alice").await;
    assert_eq!(thief.refusal().await, Refusal::NameTaken);
    Client::log_in(addresses[0], &owner, "alice").await;
    let (status, _) = server.end(Signal::INT);
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_ends_the_server_unless_it_was_started_to_ignore_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::spawn(dir.path(), &ANY_PORT);
    let (addresses, _) = server.listening();
    let owner = identity();
    let mut alice = Client::log_in(addresses[0], &owner, "alice").await;
    let told = tokio::spawn(async move { alice.refusal().await });
    let (status, _) = server.end(Signal::HUP);
    assert_eq!(status.code(), Some(0));
    assert_eq!(told.await.unwrap(), Refusal::ShuttingDown);

    let mut nohup = Command::new("sh");
    nohup
        .args(["-c", "trap '' HUP; exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_pinhole-server"))
        .arg("--data-dir")
        .arg(dir.path())
        .args(ANY_PORT);
    let mut server = Process::start(nohup);
    let (addresses, _) = server.listening();
    kill_process(Pid::from_child(&server.child), Signal::HUP).unwrap();
    Client::log_in(addresses[0], &owner, "alice").await;
    assert_eq!(server.end(Signal::TERM).0.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_hang_up_does_not_hold_the_end_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::spawn(dir.path(), &ANY_PORT);
    let (addresses, _) = server.listening();
    let alice = Client::log_in(addresses[0], &identity(), "alice").await;
    let silent = tokio::net::TcpStream::connect(addresses[1]).await.unwrap();
    let (status, took) = server.end(Signal::TERM);
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
    drop((alice, silent));
}

#[test]
fn the_first_line_for_people_is_what_clients_take() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::spawn(dir.path(), &["--listen", "127.0.0.1:0"]);
    let line = server.first_line();
    let rest = line.strip_prefix("listening on ").expect(&line);
    let (address, rest) = rest.split_once('#').expect(&line);
    let (fingerprint, others) = rest.split_once(" (and ").expect(&line);
    address.parse::<SocketAddr>().expect(&line);
    fingerprint.parse::<Fingerprint>().expect(&line);
    let other = others.strip_suffix(")\n").expect(&line);
    other.parse::<SocketAddr>().expect(&line);
}

#[test]
fn a_data_dir_in_use_is_refused_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::spawn(dir.path(), &ANY_PORT);
    server.first_line();
    let stderr = Process::spawn(dir.path(), &ANY_PORT).stderr_to_end(Some(1));
    let named = dir.path().display().to_string();
    assert!(stderr.contains(&named), "{stderr}");
}

/// What it says on standard error until its end, which must be a failure.
fn failure(data_dir: &Path, arguments: &[&str]) -> String {
    let mut server = Process::spawn(data_dir, arguments);
    let mut said = String::new();
    let stdout = server.child.stdout.as_mut().unwrap();
    stdout.read_to_string(&mut said).unwrap();
    assert_eq!(said, "", "nobody is told that it listens");
    server.stderr_to_end(Some(1))
}

#[test]
fn an_unusable_address_is_refused_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let stderr = failure(dir.path(), &["--listen", "203.0.113.1:4747"]);
    assert!(stderr.contains("203.0.113.1:4747"), "{stderr}");
    assert_eq!(
        stderr.matches("os error").count(),
        1,
        "the cause once: {stderr}"
    );
}
