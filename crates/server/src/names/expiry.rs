//! When names were last used, and what becomes of those that nobody uses.

use std::time::Duration;

use pinhole_proto::key::PeerKey;
use pinhole_proto::name::PeerName;
use rusqlite::{OptionalExtension as _, Transaction, params};

use super::{Names, NamesError};

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
    CREATE TABLE IF NOT EXISTS sweeps (day INTEGER NOT NULL) STRICT;";

/// How long is remembered whose a released name was.
pub const TOMBSTONE_LIFETIME: Duration = Duration::from_secs(365 * DAY_S as u64);
const DAY_S: i64 = 24 * 60 * 60;

/// The number of the day, counted from 1970-01-01.
#[must_use]
pub const fn day_of(at_s: i64) -> i64 {
    at_s.div_euclid(DAY_S)
}

/// The first second of a day.
#[must_use]
pub const fn start_of(day: i64) -> i64 {
    day.saturating_mul(DAY_S)
}

impl Names {
    /// The day on which `name` was last noted as used.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn used_on(&self, name: &PeerName) -> Result<Option<i64>, NamesError> {
        let day = || {
            let mut statement = self
                .connection
                .prepare_cached("SELECT used_on FROM name_uses WHERE name = ?1")?;
            let day = statement.query_row([name.as_str()], |row| row.get(0));
            day.optional()
        };
        day().map_err(|error| self.failed(error))
    }

    /// Notes that these names were used on a day, in one write.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub fn note_uses<'a>(
        &mut self,
        names: impl IntoIterator<Item = &'a PeerName>,
        day: i64,
    ) -> Result<(), NamesError> {
        let note = || {
            let transaction = self.connection.unchecked_transaction()?;
            {
                let mut statement = transaction.prepare_cached(
                    "INSERT INTO name_uses VALUES (?1, ?2)
                     ON CONFLICT (name) DO UPDATE SET used_on = excluded.used_on
                     WHERE name_uses.used_on < excluded.used_on",
                )?;
                for name in names {
                    statement.execute(params![name.as_str(), day])?;
                }
            }
            transaction.commit()
        };
        note().map_err(|error| self.failed(error))
    }

    /// Once a day: releases the names that were not used for longer than `expire`, and
    /// forgets what nobody needs any more. Returns how many names were released. Those who
    /// are online have to be noted before.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub fn sweep(&mut self, now_s: i64, expire: Option<Duration>) -> Result<u64, NamesError> {
        let swept = || {
            let transaction = self.connection.unchecked_transaction()?;
            let released = sweep(&transaction, now_s, expire)?;
            transaction.commit()?;
            Ok(released)
        };
        let released = swept().map_err(|error| self.failed(error))?;
        self.count = self.count.saturating_sub(released);
        Ok(released)
    }

    /// When `name` was taken from this key because nobody used it.
    pub(super) fn released_at_s(
        &self,
        name: &PeerName,
        key: PeerKey,
    ) -> Result<Option<i64>, NamesError> {
        let at = || {
            let mut statement = self.connection.prepare_cached(
                "SELECT released_at_s FROM tombstones WHERE name = ?1 AND key = ?2",
            )?;
            let at = statement.query_row([name.as_str(), &key.to_string()], |row| row.get(0));
            at.optional()
        };
        at().map_err(|error| self.failed(error))
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
    // Days on which no server ran do not count, nor do those that a wrong clock skips:
    // nobody could use a name then.
    let missed = last.map_or(0, |last| today.saturating_sub(last).saturating_sub(1));
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
    transaction.execute("DELETE FROM sweeps", [])?;
    transaction.execute("INSERT INTO sweeps VALUES (?1)", [today])?;
    Ok(released)
}

/// Frees the names that were not used for so long.
fn release(transaction: &Transaction<'_>, now_s: i64, expire: Duration) -> rusqlite::Result<u64> {
    let days = i64::try_from(expire.as_secs()).unwrap_or(i64::MAX) / DAY_S;
    let oldest = day_of(now_s).saturating_sub(days);
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
    let lifetime_s = i64::try_from(TOMBSTONE_LIFETIME.as_secs()).unwrap_or(i64::MAX);
    transaction.execute(
        "DELETE FROM tombstones WHERE released_at_s < ?1",
        [now_s.saturating_sub(lifetime_s)],
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

#[cfg(test)]
mod tests {
    use pinhole_proto::key::Signature;
    use pinhole_proto::recovery::{RecoveryCertificate, Revocation, Succession};

    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * DAY_S as u64);

    fn key(number: u8) -> PeerKey {
        PeerKey::from_bytes([number; 32])
    }

    fn name(text: &str) -> PeerName {
        text.parse().unwrap()
    }

    fn names() -> (Names, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let mut names = Names::create(&dir.path().join("names.sqlite")).unwrap();
        names.claim(&name("bob"), key(2)).unwrap();
        names.claim(&name("alice"), key(1)).unwrap();
        (names, dir)
    }

    /// Sweeps on each of these days; returns how many names were released in all.
    fn sweep(names: &mut Names, days: std::ops::RangeInclusive<i64>) -> u64 {
        let released = days.map(|day| names.sweep(start_of(day), Some(YEAR)).unwrap());
        released.sum()
    }

    #[test]
    fn a_name_that_nobody_uses_is_released_with_a_tombstone() {
        let (mut names, _dir) = names();
        assert_eq!(sweep(&mut names, 0..=300), 0);
        names.note_uses([&name("alice")], 300).unwrap();
        assert_eq!(names.used_on(&name("alice")).unwrap(), Some(300));
        assert_eq!(sweep(&mut names, 301..=365), 0);
        assert_eq!(sweep(&mut names, 366..=366), 1);
        assert_eq!(names.count(), 1);
        assert_eq!(names.owner(&name("bob")).unwrap(), None);
        let history = names.key_history(&name("bob"), key(2)).unwrap();
        assert_eq!(history.released_at_s, Some(start_of(366)));
        names.claim(&name("bob"), key(3)).unwrap();
        let other = names.key_history(&name("bob"), key(3)).unwrap();
        assert_eq!(other.released_at_s, None);
        names
            .note_uses([&name("bob"), &name("alice")], 500)
            .unwrap();
        sweep(&mut names, 367..=732);
        let history = names.key_history(&name("bob"), key(2)).unwrap();
        assert_eq!(history.released_at_s, None, "the tombstone is gone");
        assert_eq!(names.count(), 2);
    }

    #[test]
    fn nothing_is_released_unless_asked_for() {
        let (mut names, _dir) = names();
        for day in 0..1_000 {
            assert_eq!(names.sweep(start_of(day), None).unwrap(), 0);
        }
        assert_eq!(names.count(), 2);
    }

    #[test]
    fn days_without_a_server_do_not_count() {
        let (mut names, _dir) = names();
        sweep(&mut names, 0..=10);
        assert_eq!(sweep(&mut names, 1_000..=1_000), 0, "it was switched off");
        assert_eq!(sweep(&mut names, 1_001..=1_354), 0);
        assert_eq!(sweep(&mut names, 1_355..=1_355), 2);
    }

    #[test]
    fn a_clock_that_goes_wrong_releases_nothing() {
        let (mut names, _dir) = names();
        sweep(&mut names, 0..=10);
        assert_eq!(sweep(&mut names, 20_000..=20_000), 0);
        assert_eq!(sweep(&mut names, 11..=300), 0);
        let used_on = names.used_on(&name("bob")).unwrap();
        assert_eq!(used_on, Some(11), "not in the future");
        assert_eq!(sweep(&mut names, 301..=376), 0);
        assert_eq!(sweep(&mut names, 377..=377), 2);
    }

    #[test]
    fn what_is_about_nobody_is_forgotten() {
        let (mut names, _dir) = names();
        let signature = Signature::from_bytes([7; 64]);
        let certificate = |of| RecoveryCertificate {
            key: key(of),
            recovery_key: key(100),
            signature,
        };
        let succession = |former, successor| Succession {
            certificate: certificate(former),
            successor: key(successor),
            signature,
        };
        let revocation = Revocation {
            key: key(1),
            certificate: None,
            signature,
        };
        names.succeed(&succession(2, 3), 0).unwrap();
        names.succeed(&succession(3, 4), 0).unwrap();
        names.note_certificate(&certificate(4), 0).unwrap();
        names.revoke(&revocation, 0).unwrap();
        sweep(&mut names, 0..=1);
        assert!(names.has_ended(key(1)).unwrap() && names.has_ended(key(2)).unwrap());
        assert!(names.recovery_of(key(4), 0).unwrap().is_some());
        names.release(&name("bob")).unwrap();
        names.release(&name("alice")).unwrap();
        sweep(&mut names, 2..=3);
        assert!(!names.has_ended(key(1)).unwrap() && !names.has_ended(key(2)).unwrap());
        assert!(names.recovery_of(key(4), 0).unwrap().is_none());
        assert_eq!(names.used_on(&name("bob")).unwrap(), None);
    }
}
