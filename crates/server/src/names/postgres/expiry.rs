//! The uses of names and their end, in PostgreSQL.

use std::time::Duration;

use pinhole_proto::name::PeerName;
use sqlx::{Connection as _, PgConnection};

use super::{BULK_TIMEOUT, PostgresNames, STATEMENT_TIMEOUT};
use crate::names::NamesError;
use crate::names::expiry::{day_of, missed_days, oldest_tombstone_s, oldest_use};

/// `sweeps` has one row: on which day names were last released.
pub(super) const TABLES: &str = "
    CREATE TABLE pinhole.name_uses (
        name text COLLATE \"C\" PRIMARY KEY,
        used_on bigint NOT NULL
    );
    CREATE INDEX name_uses_by_day ON pinhole.name_uses (used_on);
    CREATE TABLE pinhole.tombstones (
        name text COLLATE \"C\" PRIMARY KEY,
        key text COLLATE \"C\" NOT NULL,
        used_on bigint NOT NULL,
        released_at_s bigint NOT NULL
    );
    CREATE TABLE pinhole.sweeps (
        swept text COLLATE \"C\" PRIMARY KEY,
        day bigint NOT NULL
    );
";

/// In one order, so that servers that note the same names do not wait for each other.
const NOTE_USES: &str = "
    INSERT INTO pinhole.name_uses AS noted
    SELECT DISTINCT name COLLATE \"C\", $2 FROM unnest($1::text[]) AS used (name) ORDER BY 1
    ON CONFLICT (name) DO UPDATE SET used_on = excluded.used_on
    WHERE noted.used_on < excluded.used_on";
/// One server at a time.
const LOCK_SWEEPS: &str = "LOCK TABLE pinhole.sweeps IN EXCLUSIVE MODE";
const LAST_SWEEP: &str = "SELECT max(day) FROM pinhole.sweeps";
const SKIP_DAYS: &str = "
    UPDATE pinhole.name_uses SET used_on = least(used_on + $1, $2)
    WHERE $1 > 0 OR used_on > $2";
const BEGIN_USES: &str = "
    INSERT INTO pinhole.name_uses
    SELECT name, $1 FROM pinhole.names
    WHERE NOT EXISTS (SELECT FROM pinhole.name_uses WHERE name_uses.name = names.name)
    ON CONFLICT DO NOTHING";
/// Frees the names that were not used for so long. Servers on which somebody is online by
/// one of them all the same look again.
const RELEASE: &str = "
    WITH released AS (
            DELETE FROM pinhole.names USING pinhole.name_uses
            WHERE name_uses.name = names.name AND used_on < $1
            RETURNING names.name, key, used_on),
        counted AS (
            UPDATE pinhole.server SET changes = changes + 1
            WHERE EXISTS (SELECT FROM released))
    INSERT INTO pinhole.tombstones SELECT name, key, used_on, $2 FROM released
    ON CONFLICT (name) DO UPDATE SET key = excluded.key, used_on = excluded.used_on,
        released_at_s = excluded.released_at_s";
const FORGET_TOMBSTONES: &str = "DELETE FROM pinhole.tombstones WHERE released_at_s < $1";
/// What is about names and keys that are no more. The chain of changes of a key without a
/// name is forgotten from its end, a link a day.
const FORGET: &[&str] = &[
    "DELETE FROM pinhole.name_uses WHERE NOT EXISTS (
        SELECT FROM pinhole.names WHERE names.name = name_uses.name)",
    "DELETE FROM pinhole.recovery WHERE NOT EXISTS (
        SELECT FROM pinhole.names WHERE names.key = recovery.key)",
    "DELETE FROM pinhole.successions AS old WHERE NOT EXISTS (
        SELECT FROM pinhole.names WHERE names.key = old.successor)
        AND NOT EXISTS (
            SELECT FROM pinhole.successions AS later WHERE later.key = old.successor)",
    "DELETE FROM pinhole.revocations AS old WHERE NOT EXISTS (
        SELECT FROM pinhole.names WHERE names.key = old.key)
        AND NOT EXISTS (SELECT FROM pinhole.tombstones WHERE tombstones.key = old.key)
        AND NOT EXISTS (SELECT FROM pinhole.successions WHERE successions.key = old.key)",
];
const NOTE_SWEEP: &str = "
    INSERT INTO pinhole.sweeps VALUES ('names', $1)
    ON CONFLICT (swept) DO UPDATE SET day = excluded.day";

impl PostgresNames {
    pub(in crate::names) async fn note_uses(
        &mut self,
        names: &[PeerName],
        day: i64,
    ) -> Result<(), NamesError> {
        let names: Vec<&str> = names.iter().map(PeerName::as_str).collect();
        let mut connection = self.take().await?;
        let noted = sqlx::query(NOTE_USES).bind(names).bind(day);
        let noted = self.bounded(STATEMENT_TIMEOUT, noted.execute(&mut connection));
        noted.await?;
        self.connection = Some(connection);
        Ok(())
    }

    pub(in crate::names) async fn sweep(
        &mut self,
        now_s: i64,
        expire: Option<Duration>,
    ) -> Result<u64, NamesError> {
        let mut connection = self.take().await?;
        let swept = sweep(&mut connection, now_s, expire);
        let released = self.bounded(BULK_TIMEOUT, swept).await?;
        self.connection = Some(connection);
        self.count = self.count.saturating_sub(released);
        Ok(released)
    }
}

async fn sweep(
    connection: &mut PgConnection,
    now_s: i64,
    expire: Option<Duration>,
) -> sqlx::Result<u64> {
    let today = day_of(now_s);
    let mut transaction = connection.begin().await?;
    sqlx::query(LOCK_SWEEPS).execute(&mut *transaction).await?;
    let last = sqlx::query_scalar(LAST_SWEEP);
    let last: Option<i64> = last.fetch_one(&mut *transaction).await?;
    if last == Some(today) {
        transaction.rollback().await?;
        return Ok(0);
    }
    let skip = sqlx::query(SKIP_DAYS)
        .bind(missed_days(last, today))
        .bind(today);
    skip.execute(&mut *transaction).await?;
    let begin = sqlx::query(BEGIN_USES).bind(today);
    begin.execute(&mut *transaction).await?;
    let released = match expire {
        Some(expire) => {
            let release = sqlx::query(RELEASE)
                .bind(oldest_use(now_s, expire))
                .bind(now_s);
            release.execute(&mut *transaction).await?.rows_affected()
        }
        None => 0,
    };
    let forget = sqlx::query(FORGET_TOMBSTONES).bind(oldest_tombstone_s(now_s));
    forget.execute(&mut *transaction).await?;
    for &old in FORGET {
        sqlx::query(old).execute(&mut *transaction).await?;
    }
    let note = sqlx::query(NOTE_SWEEP).bind(today);
    note.execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(released)
}
