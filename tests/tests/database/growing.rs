//! A database that grows while servers use it.

use std::time::Instant;

use pinhole_proto::key::PeerKey;
use pinhole_server::names::{Names, PostgresNames};
use pinhole_tests::postgres::Postgres;
use pinhole_tests::scene::SOON;

/// A plan that was made while there was nobody reads all names, so PostgreSQL must not keep
/// it.
#[tokio::test]
async fn a_lookup_costs_the_same_when_many_have_come_since_the_first() {
    const PEOPLE: u64 = 50_000;
    let postgres = Postgres::start();
    let url = postgres.database("pinhole");
    let names = PostgresNames::create(url.parse().unwrap()).await.unwrap();
    let mut names = Names::Postgres(names);
    // For one alone PostgreSQL makes a plan of its own.
    let crowd: Vec<_> = (0..30)
        .map(|it| format!("anna-{it}").parse().unwrap())
        .collect();
    let keys: Vec<_> = (0..30).map(|it| PeerKey::from_bytes([it; 32])).collect();
    for round in 0..40 {
        if round == 20 {
            let many = format!(
                "INSERT INTO pinhole.names
                 SELECT 'person-' || n, 'key-' || n, 0 FROM generate_series(1, {PEOPLE}) AS n"
            );
            postgres.sql("pinhole", &many);
        }
        names.look_up(&crowd).await.unwrap();
        names.counts_of(&keys).await.unwrap();
    }
    drop(names);
    // A connection says what it has read when it ends.
    let begin = Instant::now();
    let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pinhole-server'";
    while postgres.query("pinhole", open) != "0" {
        assert!(begin.elapsed() < SOON, "the connection stays");
    }
    let read = "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'names'";
    let read: u64 = postgres.query("pinhole", read).parse().unwrap();
    assert!(read < PEOPLE, "{read} names were read");
}
