//! What a server knows about keys and released names goes with the names: into a database,
//! and back into a folder.

#![cfg(target_os = "linux")]
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

use std::path::Path;
use std::slice;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pinhole_proto::key::{PeerKey, Signature};
use pinhole_proto::recovery::{KeyHistory, RecoveryCertificate, Revocation, Succession};
use pinhole_server::DataDir;
use pinhole_server::data_dir::{back_up, migrate};
use pinhole_server::names::{NameEntry, Names, NotedRecovery, PostgresNames, SqliteNames, day_of};
use pinhole_tests::postgres::Postgres;

/// What a store knows about two keys of carla's, of which the first has ended, and about a
/// name that was released.
type History = (KeyHistory, KeyHistory, Option<NotedRecovery>, NameEntry);

const CARLA: [PeerKey; 2] = [PeerKey::from_bytes([6; 32]), PeerKey::from_bytes([7; 32])];

async fn history(names: &mut Names) -> History {
    let name = "carla".parse().unwrap();
    let claim = [("carla".parse().unwrap(), CARLA[1])];
    let known = names.look_up_claimed(&claim).await.unwrap();
    let recovery = *known[0].recovery.as_ref().unwrap();
    let tombstone = names.entry(&"zoe".parse().unwrap()).await.unwrap();
    (
        names.key_history(&name, CARLA[0]).await.unwrap(),
        names.key_history(&name, CARLA[1]).await.unwrap(),
        recovery,
        tombstone.unwrap(),
    )
}

/// Carla's second key has succeeded the first, has a recovery key and another one that is
/// to take its place, and is revoked. The name zoe was released.
async fn make_history(names: &mut Names) -> History {
    let wanted = ["carla", "zoe"].map(|it| (it.parse().unwrap(), CARLA[0]));
    names.bind(&wanted).await.unwrap();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now_s = i64::try_from(since.as_secs()).unwrap();
    let long_ago = day_of(now_s) - 400;
    let zoe = slice::from_ref(&wanted[1].0);
    names.note_uses(zoe, long_ago).await.unwrap();
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    assert_eq!(names.sweep(now_s, Some(year)).await.unwrap(), 1);
    let signature = Signature::from_bytes([7; 64]);
    let certificate = |key, recovery| RecoveryCertificate {
        key,
        recovery_key: PeerKey::from_bytes([recovery; 32]),
        signature,
    };
    let succession = Succession {
        certificate: certificate(CARLA[0], 8),
        successor: CARLA[1],
        signature,
    };
    assert!(names.succeed(&succession, now_s).await.unwrap());
    let recovery = NotedRecovery::first(certificate(CARLA[1], 8));
    let recovery = recovery.with(certificate(CARLA[1], 9), now_s);
    names.note_recoveries(&[recovery]).await.unwrap();
    let revocation = Revocation {
        key: CARLA[1],
        certificate: Some(certificate(CARLA[1], 8)),
        signature,
    };
    names.revoke(&revocation, now_s).await.unwrap();
    let history = history(names).await;
    assert_eq!(history.0.successions, [succession]);
    assert_eq!(history.1.revocation, Some(revocation));
    history
}

fn names_in(folder: &Path) -> Names {
    let file = folder.join("names.sqlite");
    Names::Sqlite(SqliteNames::open(&file).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_become_of_keys_is_carried_over_to_a_database_and_back() {
    let postgres = Postgres::start();
    let url = postgres.database("pinhole");
    let folder = tempfile::tempdir().unwrap();
    drop(DataDir::open(folder.path()).unwrap());
    let made = make_history(&mut names_in(folder.path())).await;
    migrate(folder.path(), url.parse().unwrap()).await.unwrap();
    let names = PostgresNames::open(url.parse().unwrap()).await.unwrap();
    let mut names = Names::Postgres(names);
    assert_eq!(history(&mut names).await, made);
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    let released_at_s = made.3.released_at_s.unwrap();
    let again = names.sweep(released_at_s, Some(year)).await.unwrap();
    assert_eq!(again, 0, "this day was seen to");
    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("copy");
    back_up(folder.path(), Some(url.parse().unwrap()), &copy)
        .await
        .unwrap();
    assert_eq!(history(&mut names_in(&copy)).await, made);
}
