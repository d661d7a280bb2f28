//! How names get into a database and out of it, and what a server says that does not start.

use std::fs;
use std::path::Path;
use std::process::Command;

use pinhole_server::DataDir;
use pinhole_server::names::SqliteNames;
use pinhole_tests::postgres::Postgres;
use pinhole_tests::process::{Process, binary};
use pinhole_tests::scene::SOON;

use super::{complaint, folder_with_names, log_in, node, person, refused, run, said, spawn, text};

#[tokio::test(flavor = "multi_thread")]
async fn names_are_carried_over_to_a_database_and_back() {
    let postgres = Postgres::start();
    let url = postgres.database("pinhole");
    let alice = person();
    let folder = folder_with_names(alice.key());
    let place = ["--data-dir", text(folder.path())];
    let migrated = said(&[&["migrate", "--database", &url], &place[..]].concat());
    assert!(
        migrated.contains("1 names") && migrated.contains("--database"),
        "{migrated}"
    );
    // No server gives out names from the file any more.
    let without = refused(folder.path(), "", &[]);
    assert!(without.contains("are missing"), "{without}");
    let node = node(folder.path(), &url);
    assert!(log_in(&node.address, &person(), "alice").await.is_err());
    log_in(&node.address, &alice, "alice").await.unwrap();
    log_in(&node.address, &person(), "bob").await.unwrap();
    assert!(log_in(&node.address, &person(), "eve").await.is_err());
    let again = complaint(&[&["migrate", "--database", &url], &place[..]].concat());
    assert!(again.contains("missing"), "{again}");

    let backups = tempfile::tempdir().unwrap();
    let backup = backups.path().join("backup");
    let arguments = ["backup", text(&backup), "--database", &url];
    let told = said(&[&arguments, &place[..]].concat());
    assert!(told.contains("2 names"), "{told}");
    let config = backups.path().join("pinhole.toml");
    fs::write(&config, "listen = [\"127.0.0.1:0\"]\n").unwrap();
    let config = ["--config", text(&config)];
    let checked = said(&[&["check", "--data-dir", text(&backup)], &config[..]].concat());
    assert!(checked.contains("nothing is wrong"), "{checked}");
    let names = SqliteNames::open(&backup.join("names.sqlite")).unwrap();
    let entry = names.entry(&"alice".parse().unwrap()).unwrap().unwrap();
    assert_eq!(entry.key, Some(alice.key()));
    let entry = names.entry(&"eve".parse().unwrap()).unwrap().unwrap();
    assert!(entry.banned_at_s.is_some());
    drop(names);
    let mut command = Command::new(binary("pinhole-server"));
    command.args([
        "--json",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        text(&backup),
    ]);
    let mut restored = Process::start("restored", command);
    let listening = restored.event("listening", SOON);
    let fingerprint = listening["fingerprint"].as_str().unwrap();
    assert_eq!(node.address.split_once('#').unwrap().1, fingerprint);
}

#[test]
fn a_migration_carries_everything_over_or_nothing() {
    let mut postgres = Postgres::start();
    let (url, full) = (postgres.database("pinhole"), postgres.database("full"));
    let folder = folder_with_names(person().key());
    let before = fs::read(folder.path().join("names.sqlite")).unwrap();
    let migrate = |url: &str| {
        let folder = text(folder.path());
        complaint(&["migrate", "--database", url, "--data-dir", folder])
    };
    let running = DataDir::open(folder.path()).unwrap();
    let words = migrate(&url);
    assert!(
        words.contains("in use by another pinhole-server"),
        "{words}"
    );
    drop(running);
    let other = folder_with_names(person().key());
    said(&[
        "migrate",
        "--database",
        &full,
        "--data-dir",
        text(other.path()),
    ]);
    let words = migrate(&full);
    assert!(words.contains("names of the server"), "another's: {words}");
    postgres.sql("full", "UPDATE pinhole.server SET fingerprint = NULL");
    let words = migrate(&full);
    assert!(words.contains("has names already"), "{words}");
    // The last page fails.
    drop(run(&[
        "check",
        "--database",
        &url,
        "--data-dir",
        text(folder.path()),
    ]));
    make_tables(&url);
    let spoil = "UPDATE pinhole.server SET fingerprint = NULL;
        ALTER TABLE pinhole.banned ADD CHECK (name <> 'eve')";
    postgres.sql("pinhole", spoil);
    let words = migrate(&url);
    assert!(words.contains("cannot be used"), "{words}");
    assert_eq!(
        postgres.query("pinhole", "SELECT count(*) FROM pinhole.names"),
        "0"
    );
    postgres.stop();
    let words = migrate(&url);
    assert!(words.contains("cannot be reached"), "{words}");
    assert_eq!(
        fs::read(folder.path().join("names.sqlite")).unwrap(),
        before
    );
    drop(DataDir::open(folder.path()).unwrap());
}

/// Has a server make the tables.
fn make_tables(url: &str) {
    let folder = tempfile::tempdir().unwrap();
    drop(node(folder.path(), url));
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let mut postgres = Postgres::start();
    let url = postgres.database("pinhole");
    let with_key = folder_with_names(person().key());
    let words = refused(with_key.path(), &url, &[]);
    assert!(words.contains("pinhole-server migrate"), "{words}");
    let first = tempfile::tempdir().unwrap();
    let check = |folder: &Path| {
        ["check", "--database", &url, "--data-dir", text(folder)].map(str::to_owned)
    };
    let check = |folder: &Path| {
        let arguments = check(folder);
        run(&arguments.each_ref().map(String::as_str))
    };
    let checked = check(first.path());
    assert!(
        checked.status.success(),
        "there is nothing yet: {checked:?}"
    );
    drop(node(first.path(), &url));
    let checked = check(first.path());
    assert!(checked.status.success(), "{checked:?}");
    let empty = tempfile::tempdir().unwrap();
    for (folder, reason) in [
        (&with_key, "names of the server"),
        (&empty, "Copy server.key"),
    ] {
        let words = refused(folder.path(), &url, &[]);
        assert!(words.contains(reason), "{words}");
        let words = String::from_utf8(check(folder.path()).stderr).unwrap();
        assert!(words.contains(reason), "{words}");
    }
    assert!(!empty.path().join("server.key").exists());
    postgres.sql("pinhole", "UPDATE pinhole.server SET version = 99");
    let words = refused(first.path(), &url, &[]);
    assert!(words.contains("format 99"), "{words}");
    postgres.sql("pinhole", "UPDATE pinhole.server SET version = 1");
    drop(node(first.path(), &url));
    postgres.stop();
    let words = refused(first.path(), &url, &[]);
    assert!(words.contains("cannot be reached"), "{words}");
    assert!(words.contains("--database"), "{words}");
    let secret = format!("{url}?password=hidden");
    let words = refused(first.path(), &secret, &[]);
    assert!(!words.contains("hidden"), "{words}");
    let words = refused(first.path(), "db.example.org", &[]);
    assert!(words.contains("postgres://"), "{words}");
}

#[test]
fn of_two_first_starts_at_once_one_is_the_server() {
    let postgres = Postgres::start();
    let url = postgres.database("pinhole");
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let nodes: Vec<_> = folders
        .iter()
        .map(|folder| spawn(folder.path(), &url))
        .collect();
    let mut started = 0;
    for (mut node, _) in nodes {
        match node.event_within("listening", SOON) {
            Some(_) => started += 1,
            None => {
                let ended = node.end(SOON);
                let is_known = ["names of the server", "Copy server.key"];
                let words = &ended.errors;
                assert!(is_known.iter().any(|it| words.contains(it)), "{words}");
            }
        }
    }
    assert_eq!(started, 1);
}

#[test]
fn tls_to_the_database_is_what_sslmode_says() {
    let mut postgres = Postgres::start();
    drop(postgres.database("pinhole"));
    let certificate = postgres.speak_tls();
    let (port, trusted) = (
        postgres.port(),
        format!("sslrootcert={}", text(&certificate)),
    );
    let url =
        |host, query: &str| format!("postgres://pinhole@{host}:{port}/pinhole?sslmode={query}");
    let folder = tempfile::tempdir().unwrap();
    let checked = |url: &str| {
        let done = run(&[
            "check",
            "--database",
            url,
            "--data-dir",
            text(folder.path()),
        ]);
        match done.status.code() {
            Some(0) => Ok(()),
            Some(1) => Err(String::from_utf8(done.stderr).unwrap()),
            _ => panic!("{done:?}"),
        }
    };
    for (host, query) in [
        ("localhost", "disable"),
        ("localhost", "require"),
        ("127.0.0.1", &format!("verify-ca&{trusted}")),
        ("localhost", &format!("verify-full&{trusted}")),
    ] {
        assert_eq!(checked(&url(host, query)), Ok(()), "{host} {query}");
    }
    for (host, query) in [
        ("localhost", "verify-ca"),
        ("127.0.0.1", &format!("verify-full&{trusted}")),
    ] {
        let words = checked(&url(host, query)).unwrap_err();
        assert!(words.contains("certificate"), "{words}");
    }
    let insecure = "SELECT count(*) FROM pg_stat_ssl WHERE NOT ssl AND pid <> pg_backend_pid()";
    let node = node(
        folder.path(),
        &url("localhost", &format!("verify-full&{trusted}")),
    );
    assert_eq!(postgres.query("pinhole", insecure), "0");
    drop(node);
}
