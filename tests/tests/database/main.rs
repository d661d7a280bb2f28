//! Servers whose names are in a PostgreSQL database: the real programs, and a real
//! database that is stopped, frozen and started again.

#![cfg(target_os = "linux")]
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod growing;
mod starting;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use pinhole_net::{
    ConnectConfig, Connector, DisconnectReason, Expect, Identity, KnownKeys, LiveSessions, LogIn,
    LogInError, PathPolicy, PeerKey, ProxyChoice, Refusal, RendezvousEvent, Warmth,
    generate_identity,
};
use pinhole_proto::recovery::{
    LoginRecovery, RecoveryCertificate, RecoveryKey, RecoveryRequest, Revocation, Succession,
};
use pinhole_server::DataDir;
use pinhole_server::names::SqliteNames;
use pinhole_tests::postgres::Postgres;
use pinhole_tests::process::{Process, binary};
use pinhole_tests::scene::SOON;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;

/// How long clients wait for the answer to their login.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// A folder of a server, and the server that runs on it with a database.
struct Node {
    address: String,
    admin: SocketAddr,
    process: Process,
}

fn node(folder: &Path, url: &str) -> Node {
    let (mut process, admin) = spawn(folder, url);
    let listening = process.event("listening", SOON);
    let address = listening["addresses"][0].as_str().unwrap();
    let fingerprint = listening["fingerprint"].as_str().unwrap();
    Node {
        address: format!("{address}#{fingerprint}"),
        admin,
        process,
    }
}

fn spawn(folder: &Path, url: &str) -> (Process, SocketAddr) {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = free.local_addr().unwrap();
    drop(free);
    let mut command = Command::new(binary("pinhole-server"));
    command.args(["--json", "--listen", "127.0.0.1:0"]);
    command.arg("--admin").arg(admin.to_string());
    command.arg("--data-dir").arg(folder);
    command.env("PINHOLE_DATABASE", url);
    (Process::start("node", command), admin)
}

/// What a server says that does not start.
fn refused(folder: &Path, url: &str, more: &[&str]) -> String {
    let mut command = Command::new(binary("pinhole-server"));
    command
        .args(["--json", "--listen", "127.0.0.1:0"])
        .args(more);
    command.arg("--data-dir").arg(folder);
    if !url.is_empty() {
        command.arg("--database").arg(url);
    }
    let ended = Process::start("node", command).end(SOON);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    ended.errors
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("pinhole-server"));
    command.args(arguments).output().unwrap()
}

/// What a task prints, which must succeed.
fn said(arguments: &[&str]) -> String {
    let done = run(arguments);
    assert!(done.status.success(), "{arguments:?}: {done:?}");
    String::from_utf8(done.stdout).unwrap()
}

/// What a task complains of, which must fail.
fn complaint(arguments: &[&str]) -> String {
    let done = run(arguments);
    assert_eq!(done.status.code(), Some(1), "{arguments:?}: {done:?}");
    String::from_utf8(done.stderr).unwrap()
}

/// Somebody who is logged in.
struct Person {
    _connector: Connector,
    events: Receiver<RendezvousEvent>,
}

impl Person {
    /// Why the server ends the login.
    async fn end(&mut self) -> Refusal {
        loop {
            let event = tokio::time::timeout(SOON, self.events.recv()).await;
            if let RendezvousEvent::Disconnected(reason) = event.unwrap().unwrap() {
                match reason {
                    DisconnectReason::Refused(refusal) => return refusal,
                    DisconnectReason::Lost(error) => panic!("{error}"),
                }
            }
        }
    }

    fn is_logged_in(&mut self) -> bool {
        while let Ok(event) = self.events.try_recv() {
            if matches!(event, RendezvousEvent::Disconnected(_)) {
                return false;
            }
        }
        !self.events.is_closed()
    }
}

async fn log_in(address: &str, identity: &Identity, name: &str) -> Result<Person, LogInError> {
    log_in_with(address, identity, name, LoginRecovery::default()).await
}

async fn log_in_with(
    address: &str,
    identity: &Identity,
    name: &str,
    recovery: LoginRecovery,
) -> Result<Person, LogInError> {
    let log_in = LogIn {
        server: address.parse().unwrap(),
        expect: Expect::AnyKey,
        identity: identity.clone(),
        name: name.parse().unwrap(),
        known: KnownKeys::default(),
        proxy: ProxyChoice::Never,
        recovery,
    };
    let config = ConnectConfig {
        path: PathPolicy::RelayOnly,
        sessions: LiveSessions::default(),
        port_mapper: None,
        warmth: Warmth::Cold,
    };
    let (connector, _, events) = Connector::log_in(log_in, config).await?;
    Ok(Person {
        _connector: connector,
        events,
    })
}

fn person() -> Identity {
    generate_identity().unwrap().0
}

/// The status of `/healthz`.
fn health(admin: SocketAddr) -> u16 {
    let mut tcp = TcpStream::connect(admin).unwrap();
    write!(tcp, "GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// A second folder for the same server.
fn another(folder: &Path) -> tempfile::TempDir {
    let other = tempfile::tempdir().unwrap();
    let key = "server.key";
    fs::copy(folder.join(key), other.path().join(key)).unwrap();
    other
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A folder with a key, the name of this key, and a ban.
fn folder_with_names(owner: PeerKey) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    drop(DataDir::open(folder.path()).unwrap());
    let mut names = SqliteNames::open(&folder.path().join("names.sqlite")).unwrap();
    names.bind(&[("alice".parse().unwrap(), owner)]).unwrap();
    names.ban(&"eve".parse().unwrap()).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_are_one_server_and_give_a_name_to_one_key_only() {
    let postgres = Postgres::start();
    let url = postgres.database("pinhole");
    let first = tempfile::tempdir().unwrap();
    let one = node(first.path(), &url);
    let second = another(first.path());
    let other = node(second.path(), &url);
    let fingerprint = |node: &Node| node.address.split_once('#').unwrap().1.to_owned();
    assert_eq!(fingerprint(&one), fingerprint(&other));
    assert!(!first.path().join("names.sqlite").exists());
    let mut claims = JoinSet::new();
    for number in 0..20 {
        for (side, node) in [&one, &other].into_iter().enumerate() {
            let address = node.address.clone();
            claims.spawn(async move {
                let name = format!("name{number}");
                match log_in(&address, &person(), &name).await {
                    Ok(_) => Some((name, side)),
                    Err(LogInError::NameTaken { .. }) => None,
                    Err(error) => panic!("{name}: {error}"),
                }
            });
        }
    }
    let owners: Vec<_> = claims.join_all().await.into_iter().flatten().collect();
    let names: BTreeSet<_> = owners.iter().map(|(name, _)| name).collect();
    assert_eq!((owners.len(), names.len()), (20, 20), "{owners:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_changes_reaches_every_node() {
    let postgres = Postgres::start();
    let url = postgres.database("pinhole");
    let first = tempfile::tempdir().unwrap();
    let one = node(first.path(), &url);
    let second = another(first.path());
    let other = node(second.path(), &url);
    let (alice, bob, carol) = (person(), person(), person());
    let mut alice_there = log_in(&one.address, &alice, "alice").await.unwrap();
    let mut bob_there = log_in(&other.address, &bob, "bob").await.unwrap();
    let mut carol_there = log_in(&other.address, &carol, "carol").await.unwrap();
    // From a machine that has nothing of the server.
    said(&["names", "ban", "alice", "--database", &url]);
    assert_eq!(alice_there.end().await, Refusal::NameTaken);
    said(&["names", "release", "bob", "--database", &url]);
    assert_eq!(bob_there.end().await, Refusal::NameTaken);
    let dave = person();
    let key = dave.key().to_string();
    assert!(carol_there.is_logged_in());
    said(&["names", "transfer", "carol", &key, "--database", &url]);
    assert_eq!(carol_there.end().await, Refusal::NameTaken);
    log_in(&one.address, &dave, "carol").await.unwrap();
    let list = said(&["names", "list", "--database", &url]);
    assert!(list.contains("alice") && list.contains("banned"), "{list}");
    assert!(!list.contains("bob"), "{list}");
    let shown = said(&["names", "show", "carol", "--database", &url]);
    assert!(shown.contains(&key), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_one_node_hears_to_have_ended_has_ended_for_every_node() {
    let postgres = Postgres::start();
    let url = postgres.database("pinhole");
    let first = tempfile::tempdir().unwrap();
    let one = node(first.path(), &url);
    let second = another(first.path());
    let other = node(second.path(), &url);
    let words = RecoveryKey::from_entropy(&[7; RecoveryKey::ENTROPY_BYTES]).unwrap();
    let (bob, next) = (person(), person());
    let [by_bob, by_next] = [&bob, &next].map(|it| RecoveryCertificate::sign(it, words.key()));
    let with = |certificate, request| LoginRecovery {
        certificate: Some(certificate),
        request,
    };
    let bob_there = log_in_with(&other.address, &bob, "bob", with(by_bob, None));
    let mut bob_there = bob_there.await.unwrap();
    let succession = Succession::sign(&words, by_bob, next.key());
    let request = Some(RecoveryRequest::Succeed(succession));
    let here = log_in_with(&one.address, &next, "bob", with(by_next, request));
    drop(here.await.unwrap());
    assert_eq!(bob_there.end().await, Refusal::NameTaken);
    let refused = log_in(&other.address, &bob, "bob").await.err().unwrap();
    assert!(matches!(refused, LogInError::Refused(Refusal::KeyRevoked)));

    let mut next_there = log_in(&other.address, &next, "bob").await.unwrap();
    let revoke = RecoveryRequest::Revoke(Revocation::sign_with(&words, by_next));
    let stranger = person();
    let told = log_in_with(&one.address, &stranger, "bob", with(by_next, Some(revoke)));
    let refused = told.await.err().unwrap();
    assert!(matches!(refused, LogInError::Refused(Refusal::KeyRevoked)));
    assert_eq!(next_there.end().await, Refusal::KeyRevoked);
    let shown = said(&["names", "show", "bob", "--database", &url]);
    assert!(shown.contains("its key revoked"), "{shown}");
}

/// Nobody who is logged in feels that the database is away, logins are refused with the
/// reason in time, and all is well within two seconds after it is back.
async fn sit_out(postgres: &mut Postgres, begin: fn(&mut Postgres), end: fn(&mut Postgres)) {
    let url = postgres.database("pinhole");
    let folder = tempfile::tempdir().unwrap();
    let node = node(folder.path(), &url);
    let (alice, bob) = (person(), person());
    let mut alice_there = log_in(&node.address, &alice, "alice").await.unwrap();
    drop(log_in(&node.address, &bob, "bob").await.unwrap());
    assert_eq!(health(node.admin), 200);
    begin(postgres);
    let asked = Instant::now();
    for (identity, name) in [(&bob, "bob"), (&person(), "carol")] {
        match log_in(&node.address, identity, name).await {
            Err(LogInError::Refused(Refusal::Unavailable)) => {}
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("{name} is logged in"),
        }
    }
    let took = asked.elapsed();
    assert!(took > Duration::from_secs(6), "they wait: {took:?}");
    assert!(took < 2 * LOGIN_TIMEOUT, "not for long: {took:?}");
    assert_eq!(health(node.admin), 503);
    assert!(alice_there.is_logged_in());
    // One that comes now waits until the database is back.
    let address = node.address.clone();
    let waiting = tokio::spawn(async move { log_in(&address, &bob, "bob").await });
    end(postgres);
    let back = Instant::now();
    waiting.await.unwrap().unwrap();
    log_in(&node.address, &person(), "carol").await.unwrap();
    let took = back.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(health(node.admin), 200);
    assert!(alice_there.is_logged_in());
    node.process.signal("TERM");
    let ended = node.process.end(SOON);
    assert_eq!(ended.code, Some(0));
    let log = &ended.errors;
    // Once about logins, and once about the other nodes, if they were looked for meanwhile.
    assert_eq!(
        log.matches("Until then logins are refused").count(),
        1,
        "{log}"
    );
    assert!(log.matches("new nodes are not found").count() <= 1, "{log}");
    assert!(log.matches("cannot be reached").count() <= 2, "{log}");
    assert!(log.contains("can be reached again"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_stopped_and_started_is_sat_out() {
    sit_out(&mut Postgres::start(), Postgres::stop, Postgres::restart).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_answer_for_a_while_is_sat_out() {
    let (freeze, thaw) = (
        |it: &mut Postgres| it.freeze(),
        |it: &mut Postgres| it.thaw(),
    );
    sit_out(&mut Postgres::start(), freeze, thaw).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_stops_at_once_while_logins_wait_for_the_database() {
    let mut postgres = Postgres::start();
    let url = postgres.database("pinhole");
    let folder = tempfile::tempdir().unwrap();
    let node = node(folder.path(), &url);
    let mut alice_there = log_in(&node.address, &person(), "alice").await.unwrap();
    postgres.stop();
    let address = node.address.clone();
    let waiting = tokio::spawn(async move { log_in(&address, &person(), "bob").await });
    while health(node.admin) == 200 {}
    let begin = Instant::now();
    node.process.signal("TERM");
    assert_eq!(alice_there.end().await, Refusal::ShuttingDown);
    assert_eq!(node.process.end(SOON).code, Some(0));
    assert!(
        begin.elapsed() < Duration::from_secs(3),
        "{:?}",
        begin.elapsed()
    );
    assert!(waiting.await.unwrap().is_err());
}
