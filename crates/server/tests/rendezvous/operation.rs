//! What operators see and do: starting, the log, backups.
#![cfg(unix)]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use pinhole_proto::frame::{FrameKind, encode};
use pinhole_proto::rendezvous::{ClientMessage, Refusal};
use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;

use super::binary::{ANY_PORT, Process};
use super::client::{Client, identity};

/// A directory in which anna has a name.
async fn used(owner: &pinhole_proto::tls::Identity) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::spawn(dir.path(), &ANY_PORT);
    let (addresses, _) = server.listening();
    Client::log_in(addresses[0], owner, "anna").await;
    assert_eq!(server.end(Signal::TERM).0.code(), Some(0));
    dir
}

/// How a start on this directory fails; nobody may be told that it listens.
fn failure(dir: &Path) -> String {
    let mut server = Process::spawn(dir, &ANY_PORT);
    assert_eq!(server.first_line(), "");
    server.stderr_to_end(Some(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_names_are_reported_and_given_to_nobody() {
    let owner = identity();
    let dir = used(&owner).await;
    let names = dir.path().join("names.sqlite");
    let whole = fs::read(&names).unwrap();
    for spoil in [
        (|path: &Path| fs::remove_file(path).unwrap()) as fn(&Path),
        |path| fs::write(path, b"").unwrap(),
    ] {
        spoil(&names);
        let said = failure(dir.path());
        for word in ["names.sqlite", "backup", "--start-afresh", "missing"] {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
    fs::write(&names, whole).unwrap();
    let mut server = Process::spawn(dir.path(), &ANY_PORT);
    let (addresses, _) = server.listening();
    let mut mallory = Client::asking(addresses[0], &identity(), "anna").await;
    assert_eq!(mallory.refusal().await, Refusal::NameTaken);
    drop(server);
    fs::remove_file(&names).unwrap();
    let mut server = Process::spawn(dir.path(), &[&ANY_PORT[..], &["--start-afresh"]].concat());
    let (addresses, _) = server.listening();
    Client::log_in(addresses[0], &identity(), "anna").await;
    assert!(server.log().contains("without any names"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_key_is_reported() {
    let dir = used(&identity()).await;
    fs::remove_file(dir.path().join("server.key")).unwrap();
    let said = failure(dir.path());
    for word in ["server.key", "1 names", "backup", "--start-afresh"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let mut server = Process::spawn(dir.path(), &[&ANY_PORT[..], &["--start-afresh"]].concat());
    server.listening();
    let log = server.log();
    assert!(log.contains("another server"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_database_is_reported_before_the_server_listens() {
    let dir = used(&identity()).await;
    fs::write(dir.path().join("names.sqlite"), [7; 8192]).unwrap();
    let said = failure(dir.path());
    for word in ["names.sqlite", "no database", "backup", "--data-dir"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert_eq!(said.matches("file is not a database").count(), 1, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_running_server_is_the_server() {
    let owner = identity();
    let dir = used(&owner).await;
    let mut server = Process::spawn(dir.path(), &ANY_PORT);
    let (addresses, fingerprint) = server.listening();
    Client::log_in(addresses[0], &identity(), "berta").await;
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinhole-server"));
    command.arg("backup").arg(&backup);
    let done = command.arg("--data-dir").arg(dir.path()).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let told = String::from_utf8(done.stdout).unwrap();
    assert!(
        told.contains("2 names") && told.contains(&fingerprint.to_string()),
        "{told}"
    );
    drop(server);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&backup), 0o700);
    assert_eq!(mode(&backup.join("server.key")), 0o600);
    assert_eq!(mode(&backup.join("names.sqlite")), 0o600);
    let mut restored = Process::spawn(&backup, &ANY_PORT);
    let (addresses, again) = restored.listening();
    assert_eq!(again, fingerprint);
    let mut thief = Client::asking(addresses[0], &owner, "berta").await;
    assert_eq!(thief.refusal().await, Refusal::NameTaken);
    Client::log_in(addresses[0], &owner, "anna").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_folder_is_closed() {
    let dir = used(&identity()).await;
    let names = dir.path().join("names.sqlite");
    for (path, mode) in [(dir.path(), 0o755), (&names, 0o644)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut server = Process::spawn(dir.path(), &ANY_PORT);
    server.listening();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(dir.path()), mode(&names)), (0o700, 0o600));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_login_refusal_and_end_has_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::spawn(dir.path(), &ANY_PORT);
    let (addresses, _) = server.listening();
    let alice = Client::log_in(addresses[0], &identity(), "alice").await;
    let mut thief = Client::asking(addresses[0], &identity(), "alice").await;
    assert_eq!(thief.refusal().await, Refusal::NameTaken);
    drop(alice);
    // Whoever is told that alice is gone comes after the line about it.
    let mut bob = Client::asking(addresses[0], &identity(), "bob").await;
    while !bob.welcome().await.is_empty() {
        bob = Client::asking(addresses[0], &identity(), "bob2").await;
    }
    let log = server.log();
    let lines = |word: &str| log.lines().filter(|line| line.contains(word)).count();
    assert_eq!(lines("logged in name=alice"), 1, "{log}");
    let refused = "login refused: that name belongs to somebody else name=alice";
    assert_eq!(lines(refused), 1, "{log}");
    assert_eq!(lines("gone name=alice"), 1, "{log}");
    assert_eq!(
        lines("logged out: the server is shutting down name=bob"),
        1,
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_floods_the_log_or_writes_lines_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinhole-server"));
    command.arg("--data-dir").arg(dir.path()).args(ANY_PORT);
    command.env("RUST_LOG", "debug");
    let mut server = Process::start(command);
    let (addresses, _) = server.listening();
    let alice = identity();
    Client::log_in(addresses[0], &alice, "alice").await;
    let forged = "eat\n2026-01-01T00:00:00Z  INFO pinhole_server: logged in name=root\u{1b}[2J";
    let message = serde_json::json!({"type": forged, "nonce": 1});
    let mut client = Client::connect(addresses[0], &identity()).await;
    let frame = encode(FrameKind::Client, &message).unwrap();
    client.stream.write_all(&frame).await.unwrap();
    client.stream.flush().await.unwrap();
    assert_eq!(client.hear_or_end().await, None);
    for _ in 0..200 {
        let mut thief = Client::asking(addresses[0], &identity(), "alice").await;
        thief.refusal().await;
    }
    let log = server.log();
    assert!(log.contains("eat\\n2026"), "{log}");
    let begins = |line: &str| line.starts_with("2026-01-01") || line.contains('\u{1b}');
    assert!(!log.lines().any(begins), "{log}");
    let about_alice = log.lines().filter(|line| line.contains("login refused"));
    assert!(about_alice.count() < 100, "{log}");
}

/// What clients are told to come to.
fn offered(arguments: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::spawn(dir.path(), arguments);
    let line = server.first_line();
    assert!(line.starts_with("listening on "), "{arguments:?}: {line}");
    line
}

#[test]
fn addresses_and_amounts_are_taken_as_they_are_written() {
    let line = offered(&["--listen", "localhost:0", "--relay-bytes", "1.5M"]);
    assert!(line.starts_with("listening on 127.0.0.1:"), "{line}");
    let line = offered(&[
        "--listen",
        ":0",
        "--relay-rate",
        "2MiB",
        "--relay-time",
        "none",
    ]);
    let first = line
        .strip_prefix("listening on ")
        .and_then(|it| it.split_once('#'));
    let first: SocketAddr = first.expect(&line).0.parse().unwrap();
    assert!(!first.ip().is_unspecified(), "{line}");
    assert!(
        !line.contains("[::1]") || first.ip().is_loopback(),
        "{line}"
    );
    offered(&[
        "--listen",
        "127.0.0.1:0",
        "--relay-bytes",
        "none",
        "--relay-rate",
        "2M/s",
    ]);
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_descriptors_says_so_once_a_minute() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::spawn(dir.path(), &ANY_PORT);
    let (addresses, _) = server.listening();
    let id = server.id();
    let in_use = fs::read_dir(format!("/proc/{id}/fd")).unwrap().count() as u64;
    let limit = Rlimit {
        current: Some(in_use + 1),
        maximum: Some(in_use + 1),
    };
    let pid = Pid::from_raw(id.try_into().unwrap());
    prlimit(pid, Resource::Nofile, limit).unwrap();
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(tokio::net::TcpStream::connect(addresses[0]).await.unwrap());
    }
    // Longer than ten failures take.
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    let log = server.log();
    let lines = log
        .lines()
        .filter(|line| line.contains("cannot accept connections"));
    assert_eq!(lines.count(), 1, "{log}");
    assert!(log.contains("ulimit -n"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn registered_names_log_in_on_a_full_disk() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED registered_names_log_in_on_a_full_disk: needs root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mount = |arguments: &[&str]| {
        let status = Command::new(arguments[0]).args(&arguments[1..]).status();
        status.is_ok_and(|status| status.success())
    };
    let disk = folder.path().to_str().unwrap().to_owned();
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", &disk]) {
        eprintln!("SKIPPED registered_names_log_in_on_a_full_disk: cannot mount");
        return;
    }
    let owner = identity();
    let data = folder.path().join("data");
    let mut server = Process::spawn(&data, &ANY_PORT);
    let (addresses, _) = server.listening();
    Client::log_in(addresses[0], &owner, "anna").await;
    assert_eq!(server.end(Signal::TERM).0.code(), Some(0));
    let filled = fs::write(folder.path().join("filling"), vec![0; 1 << 20]);
    let mut server = Process::spawn(&data, &ANY_PORT);
    let (addresses, _) = server.listening();
    let known = Client::log_in(addresses[0], &owner, "anna").await;
    let mut new = Client::asking(addresses[0], &identity(), "berta").await;
    let refused = new.refusal().await;
    let log = server.log();
    drop(known);
    assert!(mount(&["umount", &disk]));
    assert!(filled.is_err(), "the disk was not full");
    assert_eq!(refused, Refusal::NoNewNames);
    assert!(log.contains("no room on its disk"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exceeded_limit_is_a_log_line_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::spawn(dir.path(), &ANY_PORT);
    let (addresses, _) = server.listening();
    let alice = identity();
    let mut held = Vec::new();
    let refused = loop {
        let mut observer = Client::begin(addresses[0], &alice, &ClientMessage::Observe).await;
        if let pinhole_proto::rendezvous::ServerMessage::Refused { reason } = observer.hear().await
        {
            break reason;
        }
        held.push(observer);
    };
    assert_eq!((refused, held.len()), (Refusal::Limited, 32));
    let log = server.log();
    assert!(
        log.contains("connection refused: this key holds as much"),
        "{log}"
    );
}

/// What a server with these options logs of a login, a refusal and the end.
async fn log_of_a_day(options: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::spawn(dir.path(), &[&ANY_PORT[..], options].concat());
    let (addresses, _) = server.listening();
    let alice = Client::log_in(addresses[0], &identity(), "alice").await;
    let mut thief = Client::asking(addresses[0], &identity(), "alice").await;
    assert_eq!(thief.refusal().await, Refusal::NameTaken);
    let log = server.log();
    drop(alice);
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_people_are_logged_only_if_asked() {
    for options in [&["--log-level=debug"][..], &["--log-format=json"]] {
        let log = log_of_a_day(options).await;
        assert!(log.contains("logged in"), "{log}");
        // The server's own address is no secret.
        let mut of_people = log.lines().filter(|line| !line.contains("observing on"));
        assert!(of_people.all(|line| !line.contains("127.0.0.1")), "{log}");
    }
    let log = log_of_a_day(&["--log-addresses"]).await;
    let line = log.lines().find(|it| it.contains("logged in")).unwrap();
    assert!(
        line.contains("name=alice") && line.contains("observed=127.0.0.1:"),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_json_have_the_same_fields() {
    let log = log_of_a_day(&["--log-format=json", "--log-addresses"]).await;
    let lines = log.lines().map(serde_json::from_str::<serde_json::Value>);
    let lines: Vec<_> = lines.collect::<Result<_, _>>().expect(&log);
    let line = |message: &str| {
        let found = lines
            .iter()
            .find(|it| it["message"].as_str().unwrap().starts_with(message));
        found.expect(&log)
    };
    let login = line("logged in");
    assert_eq!(
        (&login["level"], &login["name"]),
        (&"INFO".into(), &"alice".into())
    );
    assert!(
        login["observed"]
            .as_str()
            .unwrap()
            .starts_with("127.0.0.1:")
    );
    assert_eq!(line("login refused")["name"], "alice");
    let quiet = log_of_a_day(&["--log-level=warn"]).await;
    assert!(!quiet.contains("logged in"), "{quiet}");
}
