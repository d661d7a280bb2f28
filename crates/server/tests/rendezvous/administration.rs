//! What operators do with the names and the configuration.
#![cfg(unix)]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use pinhole_proto::key::{PeerKey, Signature};
use pinhole_proto::recovery::Revocation;
use pinhole_proto::rendezvous::{ClientMessage, Refusal, ServerMessage};
use pinhole_server::names::{Names, SqliteNames};
use pinhole_server::{Control, Limits, ServerConfig, listener, serve};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::PATIENCE;
use super::binary::{ANY_PORT, Process};
use super::client::{Client, identity};

fn run(arguments: &[&str], data_dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinhole-server"));
    let command = command.args(arguments).arg("--data-dir").arg(data_dir);
    command.output().unwrap()
}

/// What a task prints, which must succeed.
fn said(arguments: &[&str], data_dir: &Path) -> String {
    let done = run(arguments, data_dir);
    assert!(done.status.success(), "{arguments:?}: {done:?}");
    String::from_utf8(done.stdout).unwrap()
}

/// What a task complains of, which must fail.
fn complaint(arguments: &[&str], data_dir: &Path) -> String {
    let done = run(arguments, data_dir);
    assert_eq!(done.status.code(), Some(1), "{arguments:?}: {done:?}");
    String::from_utf8(done.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_banned_a_released_and_a_transferred_name_end_their_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::spawn(dir.path(), &ANY_PORT);
    let (addresses, _) = server.listening();
    let (anna, berta, carla, other) = (identity(), identity(), identity(), identity());
    let mut kept = Client::log_in(addresses[0], &other, "dora").await;
    for (task, name, owner) in [
        (&["names", "ban", "anna"][..], "anna", &anna),
        (&["names", "release", "berta"], "berta", &berta),
        (
            &["names", "transfer", "carla", &other.key().to_string()],
            "carla",
            &carla,
        ),
    ] {
        let mut session = Client::log_in(addresses[0], owner, name).await;
        said(task, dir.path());
        let ended = session.hear().await;
        let reason = Refusal::NameTaken;
        assert_eq!(ended, ServerMessage::Refused { reason }, "{name}");
    }
    let mut banned = Client::asking(addresses[0], &anna, "anna").await;
    assert_eq!(banned.refusal().await, Refusal::NameTaken);
    let mut former = Client::asking(addresses[0], &carla, "carla").await;
    assert_eq!(former.refusal().await, Refusal::NameTaken);
    Client::log_in(addresses[0], &other, "berta").await;
    Client::log_in(addresses[0], &other, "carla").await;
    said(&["names", "unban", "anna"], dir.path());
    Client::log_in(addresses[0], &anna, "anna").await;
    kept.say(&ClientMessage::Ping { nonce: 7 }).await;
    let pong = kept.hear().await;
    assert_eq!(pong, ServerMessage::Pong { nonce: 7 });
}

/// A folder with the names anna, berta and carla.
fn with_names() -> (tempfile::TempDir, SqliteNames) {
    let dir = tempfile::tempdir().unwrap();
    drop(pinhole_server::DataDir::open(dir.path()).unwrap());
    let mut names = SqliteNames::open(&dir.path().join("names.sqlite")).unwrap();
    for (name, number) in [("anna", 1), ("berta", 2), ("carla", 3)] {
        let key = PeerKey::from_bytes([number; 32]);
        names.bind(&[(name.parse().unwrap(), key)]).unwrap();
    }
    (dir, names)
}

#[test]
fn names_are_listed_and_shown() {
    let (dir, _names) = with_names();
    said(&["names", "ban", "berta"], dir.path());
    let list = said(&["names", "list"], dir.path());
    let lines: Vec<_> = list.lines().collect();
    assert!(lines[0].starts_with("anna "), "{list}");
    assert!(
        lines[1].starts_with("berta ") && lines[1].contains("banned"),
        "{list}"
    );
    assert_eq!(lines.len(), 3, "{list}");
    let json = said(&["names", "list", "--json"], dir.path());
    let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    let key = PeerKey::from_bytes([1; 32]);
    assert_eq!(first["name"], "anna");
    assert_eq!(first["key"], key.to_string());
    assert_eq!(first["fingerprint"], key.fingerprint().to_string());
    assert!(first["registered_at"].as_str().unwrap().ends_with('Z'));
    assert!(first["banned_at"].is_null());
    let shown = said(&["names", "show", "anna"], dir.path());
    assert!(shown.contains(&key.to_string()), "{shown}");
    let fingerprint = PeerKey::from_bytes([3; 32]).fingerprint().to_string();
    said(&["names", "transfer", "anna", &fingerprint], dir.path());
    let shown = said(&["names", "show", "anna", "--json"], dir.path());
    assert!(shown.contains(&fingerprint), "{shown}");
}

#[tokio::test]
async fn what_has_become_of_a_name_is_shown() {
    let (dir, names) = with_names();
    let mut names = Names::Sqlite(names);
    let name = |text: &str| text.parse().unwrap();
    let day_s = 24 * 60 * 60;
    let now_s = 20_000 * day_s;
    names.note_uses(&[name("anna")], 19_999).await.unwrap();
    names.note_uses(&[name("berta")], 19_000).await.unwrap();
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    assert_eq!(names.sweep(now_s, Some(year)).await.unwrap(), 1);
    let revocation = Revocation {
        key: PeerKey::from_bytes([1; 32]),
        certificate: None,
        signature: Signature::from_bytes([7; 64]),
    };
    names.revoke(&revocation, now_s).await.unwrap();
    let list = said(&["names", "list"], dir.path());
    let lines: Vec<_> = list.lines().collect();
    let anna = "last used on 2024-10-03, its key revoked since 2024-10-04T00:00:00Z";
    assert!(lines[0].ends_with(anna), "{list}");
    assert_eq!(
        lines[1],
        "berta is not registered, last used on 2022-01-08, released from another key at \
         2024-10-04T00:00:00Z"
    );
    let shown = said(&["names", "show", "berta", "--json"], dir.path());
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert!(shown["key"].is_null() && shown["revoked_at"].is_null());
    assert_eq!(shown["used_on"], "2022-01-08");
    assert_eq!(shown["released_at"], "2024-10-04T00:00:00Z");
}

#[test]
fn what_cannot_be_done_is_said() {
    let (dir, _names) = with_names();
    for (task, word) in [
        (&["names", "show", "zoe"][..], "zoe is not registered"),
        (&["names", "release", "zoe"], "zoe is not registered"),
        (&["names", "unban", "anna"], "anna is not banned"),
        (&["names", "transfer", "anna", "xyz"], "no fingerprint"),
        (
            &[
                "names",
                "transfer",
                "zoe",
                &PeerKey::from_bytes([1; 32]).to_string(),
            ],
            "zoe is not registered",
        ),
    ] {
        let complaint = complaint(task, dir.path());
        assert!(complaint.contains(word), "{complaint}");
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let complaint = complaint(&["names", "list"], elsewhere.path());
    assert!(complaint.contains("no key of a server"), "{complaint}");
}

/// The arguments of a check that looks at no port that others may use.
fn check(dir: &Path) -> [String; 3] {
    let file = dir.join("any-port.toml");
    fs::write(&file, "listen = [\"127.0.0.1:0\"]\n").unwrap();
    ["check", "--config", file.to_str().unwrap()].map(str::to_owned)
}

#[test]
fn a_check_finds_what_is_wrong() {
    let (dir, names) = with_names();
    let folder = tempfile::tempdir().unwrap();
    let check = check(folder.path());
    let check = check.each_ref().map(String::as_str);
    let fine = said(&check, dir.path());
    assert!(
        fine.contains("3 names") && fine.contains("nothing is wrong"),
        "{fine}"
    );
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let open = complaint(&check, dir.path());
    assert!(open.contains("open to other users (mode 755)"), "{open}");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let file = dir.path().join("pinhole.toml");
    let config = ["check", "--config", file.to_str().unwrap()];
    fs::write(&file, "max-peeple = 5\n").unwrap();
    let unknown = complaint(&config, dir.path());
    assert!(
        unknown.contains("pinhole.toml, line 1") && unknown.contains("\"max-people\"?"),
        "{unknown}"
    );
    fs::write(
        &file,
        "listen = [\"no-such-host.invalid\"]\nmax-people = 99\nmax-connections = 98\n",
    )
    .unwrap();
    let listen = complaint(&config, dir.path());
    assert!(listen.contains("no-such-host.invalid"), "{listen}");
    assert!(listen.contains("--max-connections only 98"), "{listen}");
    assert!(listen.contains("2 things are wrong"), "{listen}");
    drop(names);
    let other = tempfile::tempdir().unwrap();
    drop(pinhole_server::DataDir::open(other.path()).unwrap());
    fs::copy(
        other.path().join("server.key"),
        dir.path().join("server.key"),
    )
    .unwrap();
    let mixed = complaint(&check, dir.path());
    assert!(mixed.contains("names of the server"), "{mixed}");
    fs::write(dir.path().join("names.sqlite"), [7; 8192]).unwrap();
    let broken = complaint(&check, dir.path());
    assert!(broken.contains("no database"), "{broken}");
    fs::remove_file(dir.path().join("names.sqlite")).unwrap();
    let missing = complaint(&check, dir.path());
    assert!(missing.contains("are missing"), "{missing}");
    let nothing = said(&check, &dir.path().join("new"));
    assert!(nothing.contains("no key yet"), "{nothing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_tries_the_ports_that_nobody_but_the_server_may_have() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::spawn(dir.path(), &ANY_PORT);
    let (addresses, _) = server.listening();
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("pinhole.toml");
    let check = ["check", "--config", file.to_str().unwrap()];
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    for (config, is_fine_here) in [
        (format!("listen = [\"{}\"]\n", addresses[0]), true),
        ("listen = [\"192.0.2.1:0\"]\n".to_owned(), false),
        (
            format!("listen = [\"127.0.0.1:0\"]\nadmin = \"{taken}\"\n"),
            true,
        ),
    ] {
        fs::write(&file, &config).unwrap();
        let words = complaint(&check, &elsewhere.path().join("data"));
        assert!(words.contains("cannot listen on"), "{config}: {words}");
        assert!(words.contains("1 thing is wrong"), "{config}: {words}");
        if is_fine_here {
            let fine = said(&check, dir.path());
            assert!(fine.contains("nothing is wrong"), "{config}: {fine}");
        } else {
            complaint(&check, dir.path());
        }
    }
}

#[test]
fn a_backup_is_whole_while_names_are_registered_all_the_time() {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    let (dir, mut names) = with_names();
    let folder = tempfile::tempdir().unwrap();
    let (is_done, written) = (AtomicBool::new(false), AtomicU64::new(0));
    /// Ends the writer also when the test fails.
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let _done = Done(&is_done);
        scope.spawn(|| {
            for number in 0_u64.. {
                if is_done.load(Ordering::Relaxed) {
                    break;
                }
                let mut key = [9; 32];
                key[..8].copy_from_slice(&number.to_be_bytes());
                let name = format!("name{number}").parse().unwrap();
                names.bind(&[(name, PeerKey::from_bytes(key))]).unwrap();
                written.store(number + 1, Ordering::Relaxed);
            }
        });
        for round in 0..5 {
            while written.load(Ordering::Relaxed) < 10 * (round + 1) {
                std::thread::yield_now();
            }
            let before = written.load(Ordering::Relaxed);
            let backup = folder.path().join(format!("backup{round}"));
            said(&["backup", backup.to_str().unwrap()], dir.path());
            let after = written.load(Ordering::Relaxed) + 1;
            let copy = SqliteNames::open(&backup.join("names.sqlite")).unwrap();
            // Names were registered one after the other, so a whole copy has no gaps.
            let copied = copy.count() - 3;
            assert!(
                (before..=after).contains(&copied),
                "{before} {copied} {after}"
            );
            for number in 0..copied {
                let name = format!("name{number}").parse().unwrap();
                assert!(copy.entry(&name).unwrap().is_some(), "{name} of {copied}");
            }
            let check = check(folder.path());
            let checked = said(&check.each_ref().map(String::as_str), &backup);
            assert!(checked.contains("nothing is wrong"), "{checked}");
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_file_is_read_and_the_command_line_wins() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pinhole.toml");
    let data = dir.path().join("data");
    let text = format!(
        "data-dir = \"{}\"\nlisten = [\"127.0.0.1:0\"]\nmax-names = 1\n",
        data.display()
    );
    fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinhole-server"));
    command.arg("--json").arg("--config").arg(&file);
    let mut server = Process::start(command);
    let (addresses, _) = server.listening();
    Client::log_in(addresses[0], &identity(), "anna").await;
    let mut berta = Client::asking(addresses[0], &identity(), "berta").await;
    assert_eq!(berta.refusal().await, Refusal::NoNewNames);
    let mut carla = Client::asking(addresses[0], &identity(), "carla").await;
    assert_eq!(carla.refusal().await, Refusal::NoNewNames);
    let log = server.log();
    assert_eq!(
        log.matches("as many names as --max-names allows").count(),
        1,
        "{log}"
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinhole-server"));
    command
        .args(["--json", "--max-names=2", "--config"])
        .arg(&file);
    let mut server = Process::start(command);
    let (addresses, _) = server.listening();
    Client::log_in(addresses[0], &identity(), "berta").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_reads_the_configuration_again_and_a_wrong_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pinhole.toml");
    let write =
        |rest: &str| fs::write(&file, format!("listen = [\"127.0.0.1:0\"]\n{rest}")).unwrap();
    write("max-names = 1\n");
    let config = ["--json", "--config", file.to_str().unwrap()];
    let mut server = Process::spawn(&dir.path().join("data"), &config);
    let (addresses, _) = server.listening();
    Client::log_in(addresses[0], &identity(), "anna").await;
    let try_new = async |name: &str| {
        let mut client = Client::asking(addresses[0], &identity(), name).await;
        match client.hear().await {
            ServerMessage::Refused { reason } => Some(reason),
            _ => None,
        }
    };
    assert_eq!(try_new("berta").await, Some(Refusal::NoNewNames));
    fs::write(
        &file,
        "listen = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\nmax-names = 2\n",
    )
    .unwrap();
    server.signal(Signal::HUP);
    // Until the signal has arrived the name is refused.
    while try_new("berta").await.is_some() {}
    assert_eq!(try_new("carla").await, Some(Refusal::NoNewNames));
    write("max-names = 3\nmax-nams = 4\n");
    server.signal(Signal::HUP);
    let log = server.log();
    assert!(
        log.contains("read again; changed: max-names; only a restart changes: listen"),
        "{log}"
    );
    assert!(log.contains("nothing has changed"), "{log}");
    assert!(log.contains("line 3") && log.contains("max-nams"), "{log}");
}

/// The status and the body that a path of the admin address has.
async fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect(&answer);
    let status = head.lines().next().unwrap().to_owned();
    (status, body.to_owned())
}

#[tokio::test]
async fn metrics_and_health_are_told_also_beside_silent_visitors() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = pinhole_server::DataDir::open(dir.path()).unwrap();
    let listeners = listener::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let server = listeners[0].local_addr().unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = admin.local_addr().unwrap();
    let mut limits = Limits::default();
    limits.logins_per_key.burst = 1;
    let config = ServerConfig {
        limits,
        admin: Some(admin),
        ..ServerConfig::default()
    };
    let (control, controls) = tokio::sync::mpsc::channel(1);
    let running = tokio::spawn(serve(listeners, data_dir, config, controls));
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let key = identity();
    let alice = Client::log_in(server, &key, "alice").await;
    let mut twice = Client::asking(server, &key, "alice").await;
    assert_eq!(twice.refusal().await, Refusal::Limited);
    let mut thief = Client::asking(server, &identity(), "alice").await;
    assert_eq!(thief.refusal().await, Refusal::NameTaken);
    let (status, body) = get(address, "/healthz").await;
    assert_eq!((&*status, &*body), ("HTTP/1.1 200 OK", "ok\n"));
    let (status, body) = get(address, "/metrics").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    for line in [
        "pinhole_handshakes 0",
        "pinhole_names 1",
        "pinhole_logins_total{outcome=\"ok\"} 1",
        "pinhole_logins_total{outcome=\"name_taken\"} 1",
        "pinhole_logins_total{outcome=\"limited\"} 1",
        "pinhole_nodes 0",
        "pinhole_waiting_handshakes 0",
        "pinhole_refused_total{reason=\"name_taken\"} 1",
        "pinhole_relayed_bytes_total 0",
        "pinhole_name_lookup_seconds_count 2",
    ] {
        assert!(body.lines().any(|it| it == line), "{line}: {body}");
    }
    assert!(!body.contains("alice"), "{body}");
    let mut observer = Client::begin(server, &key, &ClientMessage::Observe).await;
    assert!(matches!(
        observer.hear().await,
        ServerMessage::Observed { .. }
    ));
    // The thief's place is given back when its connection has ended.
    let alone = async {
        let wanted = [
            "pinhole_people 1",
            "pinhole_connections{kind=\"control\"} 1",
            "pinhole_connections{kind=\"observation\"} 1",
        ];
        let has_all = |body: &str| wanted.iter().all(|line| body.lines().any(|it| it == *line));
        while !has_all(&get(address, "/metrics").await.1) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, alone).await.expect("one person");
    let (status, _) = get(address, "/etc/passwd").await;
    assert_eq!(status, "HTTP/1.1 404 Not Found");
    control.send(Control::Stop).await.unwrap();
    running.await.unwrap().unwrap();
    drop((alice, observer, silent));
}
