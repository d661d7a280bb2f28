//! The uses of names and their end, in SQLite.

use std::time::Duration;

use pinhole_proto::name::PeerName;
use rusqlite::{Transaction, params};

use super::SqliteNames;
use crate::names::NamesError;
use crate::names::expiry::{day_of, missed_days, oldest_tombstone_s, oldest_use};

/// `sweeps` has one row: on which day names were last released.
pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS name_uses (
        name TEXT PRIMARY KEY NOT NULL,
        used_on INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS name_uses_by_day ON name_uses (used_on);
    CREATE TABLE IF NOT EXISTS tombstones (
        name TEXT PRIMARY KEY NOT NULL,
        key TEXT NOT NULL,
        used_on INTEGER NOT NULL,
        released_at_s INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS sweeps (
        swept TEXT PRIMARY KEY NOT NULL,
        day INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;";

impl SqliteNames {
    pub(in crate::names) fn note_uses(
        &self,
        names: &[PeerName],
        day: i64,
    ) -> Result<(), NamesError> {
        self.write(|transaction| {
            let mut statement = transaction.prepare_cached(
                "INSERT INTO name_uses VALUES (?1, ?2)
                 ON CONFLICT (name) DO UPDATE SET used_on = excluded.used_on
                 WHERE name_uses.used_on < excluded.used_on",
            )?;
            for name in names {
                statement.execute(params![name.as_str(), day])?;
            }
            Ok(())
        })
    }

    pub(in crate::names) fn sweep(
        &mut self,
        now_s: i64,
        expire: Option<Duration>,
    ) -> Result<u64, NamesError> {
        let released = self.write(|transaction| sweep(transaction, now_s, expire))?;
        self.count = self.count.saturating_sub(released);
        Ok(released)
    }
}

fn sweep(
    transaction: &Transaction<'_>,
    now_s: i64,
    expire: Option<Duration>,
) -> rusqlite::Result<u64> {
    let today = day_of(now_s);
    let last = transaction.query_row("SELECT max(day) FROM sweeps", [], |row| row.get(0));
    let last: Option<i64> = last?;
    if last == Some(today) {
        return Ok(0);
    }
    let missed = missed_days(last, today);
    if missed > 0 {
        transaction.execute("UPDATE name_uses SET used_on = used_on + ?1", [missed])?;
    }
    transaction.execute(
        "UPDATE name_uses SET used_on = ?1 WHERE used_on > ?1",
        [today],
    )?;
    transaction.execute(
        "INSERT INTO name_uses SELECT name, ?1 FROM names
         WHERE name NOT IN (SELECT name FROM name_uses)",
        [today],
    )?;
    let released = match expire {
        Some(expire) => release(transaction, now_s, expire)?,
        None => 0,
    };
    forget(transaction, now_s)?;
    transaction.execute(
        "INSERT OR REPLACE INTO sweeps VALUES ('names', ?1)",
        [today],
    )?;
    Ok(released)
}

/// Frees the names that were not used for so long.
fn release(transaction: &Transaction<'_>, now_s: i64, expire: Duration) -> rusqlite::Result<u64> {
    let oldest = oldest_use(now_s, expire);
    transaction.execute(
        "INSERT INTO tombstones
         SELECT name, key, used_on, ?2 FROM names JOIN name_uses USING (name) WHERE used_on < ?1
         ON CONFLICT (name) DO UPDATE SET key = excluded.key, used_on = excluded.used_on,
            released_at_s = excluded.released_at_s",
        [oldest, now_s],
    )?;
    let released = transaction.execute(
        "DELETE FROM names WHERE name IN (SELECT name FROM name_uses WHERE used_on < ?1)",
        [oldest],
    )?;
    Ok(released as u64)
}

/// Forgets what is about names and keys that are no more.
fn forget(transaction: &Transaction<'_>, now_s: i64) -> rusqlite::Result<()> {
    transaction.execute(
        "DELETE FROM tombstones WHERE released_at_s < ?1",
        [oldest_tombstone_s(now_s)],
    )?;
    // The chain of changes of a key without a name is forgotten from its end, a link a day.
    for old in [
        "DELETE FROM name_uses WHERE name NOT IN (SELECT name FROM names)",
        "DELETE FROM recovery WHERE key NOT IN (SELECT key FROM names)",
        "DELETE FROM successions WHERE successor NOT IN (SELECT key FROM names)
            AND successor NOT IN (SELECT key FROM successions)",
        "DELETE FROM revocations WHERE key NOT IN (SELECT key FROM names)
            AND key NOT IN (SELECT key FROM tombstones)
            AND key NOT IN (SELECT key FROM successions)",
    ] {
        transaction.execute(old, [])?;
    }
    Ok(())
}
