//! The database that tests start for themselves.

#![cfg(target_os = "linux")]

use pinhole_tests::postgres::Postgres;

#[test]
fn it_keeps_its_data_and_its_port_when_it_is_stopped_and_started() {
    let mut postgres = Postgres::start();
    let (url, port) = (postgres.database("people"), postgres.port());
    postgres.sql("people", "CREATE TABLE t (n int); INSERT INTO t VALUES (7)");
    postgres.stop();
    postgres.restart();
    assert_eq!((postgres.port(), postgres.url("people")), (port, url));
    postgres.freeze();
    postgres.thaw();
    assert_eq!(postgres.query("people", "SELECT n, n + 1 FROM t"), "7|8");
    postgres.freeze();
}
