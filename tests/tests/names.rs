//! The names of a server, in a file of SQLite and in a PostgreSQL database: the same must
//! hold for both.

#![cfg(target_os = "linux")]
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

use std::collections::HashSet;
use std::path::PathBuf;

use pinhole_proto::key::PeerKey;
use pinhole_proto::name::PeerName;
use pinhole_server::names::{NameState, Names, PostgresNames, SqliteNames};
use pinhole_tests::postgres::Postgres;
use tokio::task::JoinSet;

/// A place for names that can be opened several times at once.
enum Store {
    File(tempfile::TempDir),
    Database(Postgres),
}

impl Store {
    fn file() -> Self {
        Self::File(tempfile::tempdir().unwrap())
    }

    fn database() -> Self {
        let postgres = Postgres::start();
        drop(postgres.database("people"));
        Self::Database(postgres)
    }

    async fn open(&self) -> Names {
        match self {
            Self::File(dir) => {
                let path: PathBuf = dir.path().join("names.sqlite");
                Names::Sqlite(SqliteNames::create(&path).unwrap())
            }
            Self::Database(postgres) => {
                let database = postgres.url("people").parse().unwrap();
                Names::Postgres(PostgresNames::create(database).await.unwrap())
            }
        }
    }
}

/// Makes a test of this name for each kind of store.
macro_rules! for_both {
    ($($name:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(&super::Store::file()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(&super::Store::database()).await;
            })*
        }
    };
}

for_both! {
    simultaneous_claims_agree_on_one_owner
    a_batch_binds_what_is_free_and_returns_what_each_name_is
    keys_are_counted_and_found_by_the_time_of_registration
    what_an_operator_changes_is_so_for_the_server_at_once
    entries_come_in_order_with_those_that_are_only_banned
    only_the_changes_of_operators_are_noticed
    names_outlive_those_who_opened_them
}

fn key(number: u8) -> PeerKey {
    PeerKey::from_bytes([number; 32])
}

fn name(text: &str) -> PeerName {
    text.parse().unwrap()
}

async fn state(names: &mut Names, text: &str) -> NameState {
    names.look_up(&[name(text)]).await.unwrap()[0]
}

async fn claim(names: &mut Names, text: &str, key: PeerKey) -> NameState {
    names.bind(&[(name(text), key)]).await.unwrap()[0]
}

/// The names as two servers, or a server and an operator, have them open: bob's and
/// alice's.
async fn opened_twice(store: &Store) -> (Names, Names) {
    let mut server = store.open().await;
    claim(&mut server, "bob", key(2)).await;
    claim(&mut server, "alice", key(1)).await;
    (server, store.open().await)
}

async fn names_outlive_those_who_opened_them(store: &Store) {
    let mut names = store.open().await;
    assert_eq!(
        claim(&mut names, "alice", key(1)).await,
        NameState::Bound(key(1))
    );
    drop(names);
    let mut names = store.open().await;
    assert_eq!(names.count(), 1);
    assert_eq!(
        claim(&mut names, "alice", key(2)).await,
        NameState::Bound(key(1))
    );
    assert_eq!(
        claim(&mut names, "bob", key(2)).await,
        NameState::Bound(key(2))
    );
    assert_eq!(names.count(), 2);
}

async fn simultaneous_claims_agree_on_one_owner(store: &Store) {
    drop(store.open().await);
    let mut claims = JoinSet::new();
    for number in 1..=8 {
        let mut names = store.open().await;
        claims.spawn(async move {
            // In another order each, so that they meet.
            let mut wanted: Vec<_> = (0..50)
                .map(|it| (name(&format!("name{it}")), key(number)))
                .collect();
            wanted.rotate_left(usize::from(number) * 6);
            let states = names.bind(&wanted).await.unwrap();
            let mut owners: Vec<_> = wanted
                .into_iter()
                .map(|(name, _)| name)
                .zip(states)
                .collect();
            owners.sort_unstable_by(|one, other| one.0.cmp(&other.0));
            owners
        });
    }
    let all: Vec<_> = claims.join_all().await;
    for owners in &all {
        assert_eq!(owners, &all[0]);
        assert!(
            owners
                .iter()
                .all(|(_, it)| matches!(it, NameState::Bound(_)))
        );
    }
    assert_eq!(store.open().await.count(), 50);
}

async fn a_batch_binds_what_is_free_and_returns_what_each_name_is(store: &Store) {
    let (mut names, mut operator) = opened_twice(store).await;
    operator.ban(&name("eve")).await.unwrap();
    operator.ban(&name("bob")).await.unwrap();
    let wanted = ["dave", "bob", "alice", "eve", "dave"].map(|it| (name(it), key(4)));
    let states = names.bind(&wanted).await.unwrap();
    let dave = NameState::Bound(key(4));
    let expected = [
        dave,
        NameState::Banned,
        NameState::Bound(key(1)),
        NameState::Banned,
        dave,
    ];
    assert_eq!(states, expected);
    assert_eq!(names.count(), 3);
    let looked_up = ["zoe", "dave", "zoe"].map(name);
    let states = names.look_up(&looked_up).await.unwrap();
    assert_eq!(states, [NameState::Free, dave, NameState::Free]);
    assert_eq!(names.look_up(&[]).await.unwrap(), []);
    operator.unban(&name("eve")).await.unwrap();
    assert_eq!(
        state(&mut names, "eve").await,
        NameState::Free,
        "it was not bound"
    );
}

async fn keys_are_counted_and_found_by_the_time_of_registration(store: &Store) {
    let mut names = store.open().await;
    let wanted = [("alice", 1), ("alice-phone", 1), ("bob", 2)];
    let wanted = wanted.map(|(text, number)| (name(text), key(number)));
    names.bind(&wanted).await.unwrap();
    let counts = names
        .counts_of(&[key(1), key(2), key(3), key(1)])
        .await
        .unwrap();
    assert_eq!(counts, [(key(1), 2), (key(2), 1)].into());
    let all = names.registered_within(i64::MIN, i64::MAX).await.unwrap();
    assert_eq!(
        HashSet::from_iter(all.iter().copied()),
        HashSet::from([key(1), key(2)])
    );
    assert_eq!(all.len(), 2, "each once");
    let entry = names.entry(&name("bob")).await.unwrap().unwrap();
    let at_s = entry.registered_at_s.unwrap();
    let mut within = async |after_s, until_s| {
        let keys = names.registered_within(after_s, until_s).await.unwrap();
        keys.contains(&key(2))
    };
    assert!(within(at_s - 1, at_s).await);
    assert!(!within(at_s, i64::MAX).await);
    assert!(!within(i64::MIN, at_s - 1).await);
}

async fn what_an_operator_changes_is_so_for_the_server_at_once(store: &Store) {
    let (mut server, mut operator) = opened_twice(store).await;
    let (alice, bob, eve) = (name("alice"), name("bob"), name("eve"));
    assert_eq!(operator.release(&bob).await.unwrap(), Some(key(2)));
    assert_eq!(operator.release(&bob).await.unwrap(), None);
    assert_eq!(state(&mut server, "bob").await, NameState::Free);
    assert_eq!(operator.transfer(&bob, key(3)).await.unwrap(), None);
    assert_eq!(state(&mut server, "bob").await, NameState::Free);
    let before = operator.transfer(&alice, key(3)).await.unwrap();
    assert_eq!(before, Some(key(1)));
    let after = claim(&mut server, "alice", key(1)).await;
    assert_eq!(after, NameState::Bound(key(3)));
    assert!(operator.ban(&eve).await.unwrap() && !operator.ban(&eve).await.unwrap());
    assert_eq!(state(&mut server, "eve").await, NameState::Banned);
    assert!(operator.unban(&eve).await.unwrap() && !operator.unban(&eve).await.unwrap());
    assert_eq!(state(&mut server, "eve").await, NameState::Free);
}

async fn entries_come_in_order_with_those_that_are_only_banned(store: &Store) {
    let (mut server, mut operator) = opened_twice(store).await;
    operator.ban(&name("bob")).await.unwrap();
    operator.ban(&name("admin")).await.unwrap();
    operator.ban(&name("a-z")).await.unwrap();
    let entries = operator.entries_after("").await.unwrap();
    let entries = entries
        .into_iter()
        .map(|entry| (entry.name, entry.key, entry.banned_at_s.is_some()));
    let expected = [
        ("a-z".to_owned(), None, true),
        ("admin".to_owned(), None, true),
        ("alice".to_owned(), Some(key(1)), false),
        ("bob".to_owned(), Some(key(2)), true),
    ];
    assert_eq!(entries.collect::<Vec<_>>(), expected);
    let last = operator.entries_after("alice").await.unwrap();
    assert_eq!((last.len(), &*last[0].name), (1, "bob"));
    assert_eq!(operator.entries_after("bob").await.unwrap(), []);
    let bob = operator.entry(&name("bob")).await.unwrap().unwrap();
    assert_eq!(bob, last[0]);
    let admin = operator.entry(&name("admin")).await.unwrap().unwrap();
    assert_eq!((admin.key, admin.banned_at_s.is_some()), (None, true));
    assert_eq!(operator.entry(&name("nobody")).await.unwrap(), None);
    let found = operator.key_of(key(2).fingerprint()).await.unwrap();
    assert_eq!(found, Some(key(2)));
    assert_eq!(operator.key_of(key(9).fingerprint()).await.unwrap(), None);
    let many = (0..2_500).map(|it| (name(&format!("name{it:04}")), key(7)));
    server.bind(&many.collect::<Vec<_>>()).await.unwrap();
    let mut listed: Vec<String> = Vec::new();
    loop {
        let after = listed.last().cloned().unwrap_or_default();
        let page = operator.entries_after(&after).await.unwrap();
        if page.is_empty() {
            break;
        }
        listed.extend(page.into_iter().map(|entry| entry.name));
    }
    assert!(listed.is_sorted());
    assert_eq!(listed.len(), 2_504);
}

async fn only_the_changes_of_operators_are_noticed(store: &Store) {
    let (mut server, mut operator) = opened_twice(store).await;
    server.has_changed_elsewhere().await.unwrap();
    claim(&mut server, "carol", key(3)).await;
    assert!(!server.has_changed_elsewhere().await.unwrap());
    for change in 0..4 {
        match change {
            0 => drop(operator.release(&name("bob")).await.unwrap()),
            1 => drop(operator.transfer(&name("alice"), key(5)).await.unwrap()),
            2 => drop(operator.ban(&name("carol")).await.unwrap()),
            _ => drop(operator.unban(&name("carol")).await.unwrap()),
        }
        assert!(server.has_changed_elsewhere().await.unwrap(), "{change}");
        assert!(!server.has_changed_elsewhere().await.unwrap(), "{change}");
    }
}
