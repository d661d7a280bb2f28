//! The tables in PostgreSQL, and their version.

use sqlx::{Connection as _, PgConnection};

use super::{expiry, recovery};

/// The version of the tables.
pub(super) const VERSION: i32 = 1;
/// What servers that make the tables at the same time wait for: "pinhole" in ASCII.
const LOCK: i64 = 0x0070_696e_686f_6c65;

/// Names and keys compare byte by byte, as in SQLite. The one row of `server` has the
/// version, the server's key, and how often operators have changed names or keys have
/// ended.
const SCHEMA: &str = "
    CREATE SCHEMA pinhole;
    CREATE TABLE pinhole.names (
        name text COLLATE \"C\" PRIMARY KEY,
        key text COLLATE \"C\" NOT NULL,
        registered_at_s bigint NOT NULL
    );
    CREATE INDEX names_by_key ON pinhole.names (key);
    CREATE INDEX names_by_time ON pinhole.names (registered_at_s);
    CREATE TABLE pinhole.banned (
        name text COLLATE \"C\" PRIMARY KEY,
        banned_at_s bigint NOT NULL
    );
    CREATE TABLE pinhole.nodes (
        id text COLLATE \"C\" PRIMARY KEY,
        address text NOT NULL,
        seen_at timestamptz NOT NULL
    );
    CREATE TABLE pinhole.server (
        only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
        version integer NOT NULL,
        fingerprint text,
        changes bigint NOT NULL DEFAULT 0
    );
    INSERT INTO pinhole.server (version) VALUES (1);
";

/// The version of the tables that are there.
pub(super) async fn version(connection: &mut PgConnection) -> sqlx::Result<Option<i32>> {
    let there = sqlx::query_scalar("SELECT to_regclass('pinhole.server') IS NOT NULL");
    match there.fetch_one(&mut *connection).await? {
        false => Ok(None),
        true => {
            let version = sqlx::query_scalar("SELECT version FROM pinhole.server");
            version.fetch_optional(connection).await
        }
    }
}

/// Makes the tables unless they are there. Returns their version.
pub(super) async fn create(connection: &mut PgConnection) -> sqlx::Result<i32> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(&mut *transaction)
        .await?;
    let version = match version(&mut transaction).await? {
        Some(version) => version,
        None => {
            for tables in [SCHEMA, recovery::TABLES, expiry::TABLES] {
                sqlx::raw_sql(tables).execute(&mut *transaction).await?;
            }
            VERSION
        }
    };
    transaction.commit().await?;
    Ok(version)
}
