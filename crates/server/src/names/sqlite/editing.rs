//! What operators see and change of the names, also while a server uses them.

use pinhole_proto::key::PeerKey;
use pinhole_proto::name::PeerName;
use rusqlite::{OptionalExtension as _, params};

use super::{SqliteNames, count};
use crate::names::{NameEntry, NamesError, PAGE, now_s};

const FIELDS: &str = "
    SELECT known.name, names.key, registered_at_s, banned_at_s, revoked_at_s,
        coalesce(name_uses.used_on, tombstones.used_on), released_at_s";
const JOINED: &str = "
    LEFT JOIN names ON names.name = known.name
    LEFT JOIN banned ON banned.name = known.name
    LEFT JOIN name_uses ON name_uses.name = known.name
    LEFT JOIN tombstones ON tombstones.name = known.name
    LEFT JOIN revocations ON revocations.key = names.key";

impl SqliteNames {
    /// The entries that come after this name in their order, a bounded number of them.
    /// Nothing comes before "".
    ///
    /// # Errors
    /// When the table cannot be read, or holds a damaged key.
    pub fn entries_after(&self, name: &str) -> Result<Vec<NameEntry>, NamesError> {
        let rows = || {
            let page = |table| {
                format!(
                    "SELECT * FROM
                     (SELECT name FROM {table} WHERE name > ?1 ORDER BY name LIMIT {PAGE})"
                )
            };
            let pages = ["names", "banned", "tombstones"].map(page).join(" UNION ");
            let known = format!("SELECT name FROM ({pages}) ORDER BY name LIMIT {PAGE}");
            let query = format!("{FIELDS} FROM ({known}) AS known {JOINED} ORDER BY known.name");
            let mut statement = self.connection.prepare_cached(&query)?;
            let rows = statement.query_map([name], |row| row.try_into())?;
            rows.collect::<Result<Vec<_>, _>>()
        };
        let rows = rows().map_err(|error| self.failed(error))?;
        let place = self.path.display();
        rows.into_iter()
            .map(|row| NameEntry::of(row, &place))
            .collect()
    }

    /// Adds entries whose names are neither registered nor banned.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub(in crate::names) fn insert(&mut self, entries: &[NameEntry]) -> Result<(), NamesError> {
        self.count += self.write(|transaction| {
            let mut named = transaction.prepare_cached(
                "INSERT INTO names (name, key, registered_at_s) VALUES (?1, ?2, ?3)",
            )?;
            let mut banned = transaction
                .prepare_cached("INSERT INTO banned (name, banned_at_s) VALUES (?1, ?2)")?;
            let mut inserted = 0;
            for entry in entries {
                if let (Some(key), Some(at_s)) = (entry.key, entry.registered_at_s) {
                    inserted += named.execute(params![entry.name, key.to_string(), at_s])?;
                }
                if let Some(at_s) = entry.banned_at_s {
                    banned.execute(params![entry.name, at_s])?;
                }
            }
            Ok(inserted as u64)
        })?;
        Ok(())
    }

    /// What is known about `name`, if anything is.
    ///
    /// # Errors
    /// When the table cannot be read, or holds a damaged key.
    pub fn entry(&self, name: &PeerName) -> Result<Option<NameEntry>, NamesError> {
        let is_known = "names.name IS NOT NULL OR banned.name IS NOT NULL
            OR tombstones.name IS NOT NULL";
        let query = format!("{FIELDS} FROM (SELECT ?1 AS name) AS known {JOINED} WHERE {is_known}");
        let row = self
            .connection
            .query_row(&query, [name.as_str()], |row| row.try_into());
        let row = row.optional().map_err(|error| self.failed(error))?;
        row.map(|row| NameEntry::of(row, self.path.display()))
            .transpose()
    }

    /// Frees `name` for whoever claims it first. Returns the key that it was bound to.
    ///
    /// # Errors
    /// When the table cannot be read or written.
    pub fn release(&mut self, name: &PeerName) -> Result<Option<PeerKey>, NamesError> {
        let owner = self.owner(name)?;
        let deleted = self.change("DELETE FROM names WHERE name = ?1", params![name.as_str()])?;
        self.count = self.count.saturating_sub(deleted);
        Ok(owner)
    }

    /// Lets nobody log in by `name`. Returns false if that is so already.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub fn ban(&mut self, name: &PeerName) -> Result<bool, NamesError> {
        let sql = "INSERT INTO banned (name, banned_at_s) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        Ok(self.change(sql, params![name.as_str(), now_s()])? > 0)
    }

    /// Lifts a ban. Returns false if there is none.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub fn unban(&mut self, name: &PeerName) -> Result<bool, NamesError> {
        let sql = "DELETE FROM banned WHERE name = ?1";
        Ok(self.change(sql, params![name.as_str()])? > 0)
    }

    /// Binds a registered name to another key, as of now. Returns the key that it was
    /// bound to; `None` if it is not registered, and then stays so.
    ///
    /// # Errors
    /// When the table cannot be read or written.
    pub fn transfer(
        &mut self,
        name: &PeerName,
        key: PeerKey,
    ) -> Result<Option<PeerKey>, NamesError> {
        let owner = self.owner(name)?;
        let sql = "UPDATE names SET key = ?2, registered_at_s = ?3 WHERE name = ?1";
        self.change(sql, params![name.as_str(), key.to_string(), now_s()])?;
        Ok(owner)
    }

    /// The key to which `name` is bound, banned or not.
    fn owner(&self, name: &PeerName) -> Result<Option<PeerKey>, NamesError> {
        let entry = self.entry(name)?;
        Ok(entry.and_then(|entry| entry.key))
    }

    /// Reads a little of the table.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn check_readable(&self) -> Result<(), NamesError> {
        let read = self
            .connection
            .prepare_cached("SELECT 1 FROM names LIMIT 1");
        let read = read.and_then(|mut statement| statement.exists([]));
        read.map(drop).map_err(|error| self.failed(error))
    }

    /// Whether another process has written since the last call. Counts anew if it has.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub(crate) fn has_changed_elsewhere(&mut self) -> Result<bool, NamesError> {
        let version = || {
            self.connection
                .pragma_query_value(None, "data_version", |row| row.get(0))
        };
        let version: i64 = version().map_err(|error| self.failed(error))?;
        if self.seen_version.replace(version) == Some(version) {
            return Ok(false);
        }
        self.count = count(&self.connection).map_err(|error| self.failed(error))?;
        Ok(true)
    }

    pub(super) fn change(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
    ) -> Result<u64, NamesError> {
        let changed = self.connection.execute(sql, values);
        changed
            .map(|rows| rows as u64)
            .map_err(|error| self.failed(error))
    }
}
