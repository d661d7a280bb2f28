//! The names of a server, in a file of SQLite and in a PostgreSQL database: the same must
//! hold for both.

#![cfg(target_os = "linux")]
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::slice;
use std::time::Duration;

use pinhole_proto::key::{PeerKey, Signature};
use pinhole_proto::name::PeerName;
use pinhole_proto::recovery::{KeyHistory, RecoveryCertificate, Revocation, Succession};
use pinhole_server::names::{
    ClaimedName, NameState, Names, NotedRecovery, PostgresNames, SqliteNames, start_of,
};
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
    another_recovery_key_counts_after_a_delay
    a_recovery_key_that_counts_is_not_overwritten
    a_successor_has_every_name_of_the_former_key_and_only_once
    a_history_leads_from_the_known_key_to_the_present_one_within_bounds
    a_revoked_key_keeps_its_names_and_is_found_with_them
    a_name_that_nobody_uses_is_released_with_a_tombstone
    nothing_is_released_unless_asked_for
    days_without_a_server_do_not_count
    a_clock_that_goes_wrong_releases_nothing
    what_is_about_nobody_is_forgotten
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
    for change in 0..6 {
        match change {
            0 => drop(operator.release(&name("bob")).await.unwrap()),
            1 => drop(operator.transfer(&name("alice"), key(5)).await.unwrap()),
            2 => drop(operator.ban(&name("carol")).await.unwrap()),
            3 => assert!(operator.succeed(&succession(3, 4), 7).await.unwrap()),
            4 => operator.revoke(&own_revocation(4), 8).await.unwrap(),
            _ => drop(operator.unban(&name("carol")).await.unwrap()),
        }
        assert!(server.has_changed_elsewhere().await.unwrap(), "{change}");
        assert!(!server.has_changed_elsewhere().await.unwrap(), "{change}");
    }
}

/// What is stored is not checked, so that any signature will do.
fn certificate(of: u8, recovery: u8) -> RecoveryCertificate {
    RecoveryCertificate {
        key: key(of),
        recovery_key: key(recovery),
        signature: Signature::from_bytes([of; 64]),
    }
}

fn succession(former: u8, successor: u8) -> Succession {
    Succession {
        certificate: certificate(former, 100),
        successor: key(successor),
        signature: Signature::from_bytes([successor; 64]),
    }
}

fn own_revocation(of: u8) -> Revocation {
    Revocation {
        key: key(of),
        certificate: None,
        signature: Signature::from_bytes([9; 64]),
    }
}

async fn claimed(names: &mut Names, text: &str, number: u8) -> ClaimedName {
    let claim = [(name(text), key(number))];
    let known = names.look_up_claimed(&claim).await.unwrap();
    known.into_iter().next().unwrap()
}

async fn noted(names: &mut Names, number: u8) -> Option<NotedRecovery> {
    claimed(names, "nobody", number).await.recovery.unwrap()
}

async fn has_ended(names: &mut Names, number: u8) -> bool {
    claimed(names, "nobody", number).await.has_ended
}

/// The key of bob's names that shows a certificate on a day.
async fn shows(names: &mut Names, certificate: RecoveryCertificate, day: i64) {
    let wanted = match noted(names, 2).await {
        Some(noted) => noted.with(certificate, start_of(day)),
        None => NotedRecovery::first(certificate),
    };
    names.note_recoveries(&[wanted]).await.unwrap();
}

async fn another_recovery_key_counts_after_a_delay(store: &Store) {
    let (mut names, _) = opened_twice(store).await;
    assert_eq!(noted(&mut names, 2).await, None);
    shows(&mut names, certificate(2, 100), 0).await;
    for day in [1, 29] {
        shows(&mut names, certificate(2, 101), day).await;
    }
    let in_force = async |names: &mut Names, day| {
        let known = claimed(names, "bob", 7).await.recovery.unwrap();
        known.unwrap().in_force(start_of(day)).recovery_key
    };
    assert_eq!(in_force(&mut names, 30).await, key(100));
    assert_eq!(in_force(&mut names, 31).await, key(101));
    // Its owner logs in before that.
    shows(&mut names, certificate(2, 100), 20).await;
    assert_eq!(in_force(&mut names, 31).await, key(100));
    for (recovery, day) in [(101, 40), (101, 70), (102, 71)] {
        shows(&mut names, certificate(2, recovery), day).await;
    }
    assert_eq!(in_force(&mut names, 72).await, key(101));
    assert_eq!(in_force(&mut names, 101).await, key(102));
}

async fn a_recovery_key_that_counts_is_not_overwritten(store: &Store) {
    let (mut names, mut other) = opened_twice(store).await;
    let [first, second] = [100, 101].map(|it| NotedRecovery::first(certificate(2, it)));
    // Two servers hear different ones at the same time.
    names.note_recoveries(&[first]).await.unwrap();
    other.note_recoveries(&[second]).await.unwrap();
    assert_eq!(noted(&mut names, 2).await, Some(first));
}

async fn a_successor_has_every_name_of_the_former_key_and_only_once(store: &Store) {
    let (mut names, mut other) = opened_twice(store).await;
    claim(&mut names, "bob-phone", key(2)).await;
    shows(&mut names, certificate(2, 100), 0).await;
    assert!(names.succeed(&succession(2, 3), 7).await.unwrap());
    for text in ["bob", "bob-phone"] {
        assert_eq!(state(&mut other, text).await, NameState::Bound(key(3)));
    }
    assert!(has_ended(&mut other, 2).await && !has_ended(&mut other, 3).await);
    assert_eq!(noted(&mut other, 2).await, None);
    assert!(!other.succeed(&succession(2, 4), 8).await.unwrap());
    assert_eq!(state(&mut names, "bob").await, NameState::Bound(key(3)));
    assert_eq!(state(&mut names, "alice").await, NameState::Bound(key(1)));
}

async fn a_history_leads_from_the_known_key_to_the_present_one_within_bounds(store: &Store) {
    let (mut names, _) = opened_twice(store).await;
    for number in 2..20 {
        let next = succession(number, number + 1);
        assert!(names.succeed(&next, 7).await.unwrap());
    }
    let mut history = async |number| names.key_history(&name("bob"), key(number)).await.unwrap();
    let successors = |history: KeyHistory| {
        let successors = history.successions.iter().map(|it| it.successor);
        successors.collect::<Vec<_>>()
    };
    assert_eq!(
        successors(history(2).await),
        Vec::from_iter((3..11).map(key))
    );
    let last = history(18).await;
    assert_eq!(last.successions[0], succession(18, 19));
    assert_eq!(successors(last), [key(19), key(20)]);
    let present = KeyHistory::unknown(name("bob"), key(20));
    assert_eq!(history(20).await, present);
}

async fn a_revoked_key_keeps_its_names_and_is_found_with_them(store: &Store) {
    let (mut names, mut other) = opened_twice(store).await;
    claim(&mut names, "bob-phone", key(2)).await;
    let own = own_revocation(2);
    names.revoke(&own, 7).await.unwrap();
    assert!(has_ended(&mut other, 2).await);
    assert_eq!(state(&mut other, "bob").await, NameState::Bound(key(2)));
    let mut found = other.revocations_since(7).await.unwrap();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert_eq!(found, [(name("bob"), own), (name("bob-phone"), own)]);
    assert_eq!(other.revocations_since(8).await.unwrap(), []);
    let by_words = |of| Revocation {
        certificate: Some(certificate(of, 100)),
        ..own_revocation(of)
    };
    names.revoke(&by_words(2), 8).await.unwrap();
    names.revoke(&by_words(1), 8).await.unwrap();
    let mut revocation = async |text, number| {
        let history = names.key_history(&name(text), key(number)).await.unwrap();
        history.revocation
    };
    assert_eq!(revocation("bob", 2).await, Some(own), "once is enough");
    assert_eq!(revocation("alice", 1).await, Some(by_words(1)));
    let entry = other.entry(&name("bob")).await.unwrap().unwrap();
    assert_eq!(entry.revoked_at_s, Some(7));
}

/// Sweeps on each of these days; returns how many names were released in all.
async fn sweep(names: &mut Names, days: RangeInclusive<i64>) -> u64 {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    let mut released = 0;
    for day in days {
        released += names.sweep(start_of(day), Some(YEAR)).await.unwrap();
    }
    released
}

async fn a_name_that_nobody_uses_is_released_with_a_tombstone(store: &Store) {
    let (mut names, mut other) = opened_twice(store).await;
    other.has_changed_elsewhere().await.unwrap();
    let [alice, bob] = ["alice", "bob"].map(name);
    assert_eq!(sweep(&mut names, 0..=300).await, 0);
    names.note_uses(slice::from_ref(&alice), 300).await.unwrap();
    assert_eq!(claimed(&mut names, "alice", 1).await.used_on, Some(300));
    assert_eq!(sweep(&mut names, 301..=365).await, 0);
    assert_eq!(sweep(&mut names, 366..=366).await, 1);
    assert_eq!(sweep(&mut other, 366..=366).await, 0, "once a day");
    assert!(other.has_changed_elsewhere().await.unwrap());
    assert_eq!(names.count(), 1);
    assert_eq!(state(&mut names, "bob").await, NameState::Free);
    let tombstone = names.entry(&bob).await.unwrap().unwrap();
    assert_eq!((tombstone.key, tombstone.used_on), (None, Some(0)));
    assert_eq!(names.entries_after("alice").await.unwrap(), [tombstone]);
    let history = names.key_history(&bob, key(2)).await.unwrap();
    assert_eq!(history.released_at_s, Some(start_of(366)));
    claim(&mut names, "bob", key(3)).await;
    let history = names.key_history(&bob, key(3)).await.unwrap();
    assert_eq!(history.released_at_s, None);
    names.note_uses(&[bob.clone(), alice], 500).await.unwrap();
    sweep(&mut names, 367..=732).await;
    let history = names.key_history(&bob, key(2)).await.unwrap();
    assert_eq!(history.released_at_s, None, "the tombstone is gone");
    assert_eq!(names.count(), 2);
}

async fn nothing_is_released_unless_asked_for(store: &Store) {
    let (mut names, _) = opened_twice(store).await;
    for day in 0..500 {
        assert_eq!(names.sweep(start_of(day), None).await.unwrap(), 0);
    }
    assert_eq!(names.count(), 2);
}

async fn days_without_a_server_do_not_count(store: &Store) {
    let (mut names, _) = opened_twice(store).await;
    sweep(&mut names, 0..=10).await;
    let first = sweep(&mut names, 1_000..=1_000).await;
    assert_eq!(first, 0, "it was switched off");
    assert_eq!(sweep(&mut names, 1_001..=1_354).await, 0);
    assert_eq!(sweep(&mut names, 1_355..=1_355).await, 2);
}

async fn a_clock_that_goes_wrong_releases_nothing(store: &Store) {
    let (mut names, _) = opened_twice(store).await;
    sweep(&mut names, 0..=10).await;
    assert_eq!(sweep(&mut names, 20_000..=20_000).await, 0);
    assert_eq!(sweep(&mut names, 11..=300).await, 0);
    let used_on = claimed(&mut names, "bob", 2).await.used_on;
    assert_eq!(used_on, Some(11), "not in the future");
    assert_eq!(sweep(&mut names, 301..=376).await, 0);
    assert_eq!(sweep(&mut names, 377..=377).await, 2);
}

async fn what_is_about_nobody_is_forgotten(store: &Store) {
    let (mut names, _) = opened_twice(store).await;
    names.succeed(&succession(2, 3), 0).await.unwrap();
    names.succeed(&succession(3, 4), 0).await.unwrap();
    let recovery = NotedRecovery::first(certificate(4, 100));
    names.note_recoveries(&[recovery]).await.unwrap();
    names.revoke(&own_revocation(1), 0).await.unwrap();
    sweep(&mut names, 0..=1).await;
    assert!(has_ended(&mut names, 1).await && has_ended(&mut names, 2).await);
    assert_eq!(noted(&mut names, 4).await, Some(recovery));
    names.release(&name("bob")).await.unwrap();
    names.release(&name("alice")).await.unwrap();
    sweep(&mut names, 2..=3).await;
    assert!(!has_ended(&mut names, 1).await && !has_ended(&mut names, 2).await);
    assert_eq!(noted(&mut names, 4).await, None);
    assert_eq!(claimed(&mut names, "bob", 2).await.used_on, None);
}
