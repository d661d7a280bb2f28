//! What operators see and change of the names, also while a server uses them.

use pinhole_proto::key::{Fingerprint, PeerKey};
use pinhole_proto::name::PeerName;
use rusqlite::{OptionalExtension as _, Row, params};

use super::{Names, NamesError, now_s};

const ENTRIES: &str = "
    SELECT known.name AS name, names.key, registered_at_s, banned_at_s, revoked_at_s,
        coalesce(name_uses.used_on, tombstones.used_on), released_at_s
    FROM (SELECT name FROM names UNION SELECT name FROM banned
        UNION SELECT name FROM tombstones) AS known
    LEFT JOIN names ON names.name = known.name
    LEFT JOIN banned ON banned.name = known.name
    LEFT JOIN name_uses ON name_uses.name = known.name
    LEFT JOIN tombstones ON tombstones.name = known.name
    LEFT JOIN revocations ON revocations.key = names.key";

/// A name that is registered or banned, or was released because nobody used it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameEntry {
    /// The name.
    pub name: String,
    /// The key it is bound to, if it is registered.
    pub key: Option<PeerKey>,
    /// When it was bound, in seconds since 1970.
    pub registered_at_s: Option<i64>,
    /// When it was banned, in seconds since 1970.
    pub banned_at_s: Option<i64>,
    /// When its key was revoked, in seconds since 1970.
    pub revoked_at_s: Option<i64>,
    /// The day on which it was last used, counted from 1970-01-01.
    pub used_on: Option<i64>,
    /// When it was released from a former key, in seconds since 1970.
    pub released_at_s: Option<i64>,
}

/// An entry as it is stored, and its key.
type StoredEntry = (NameEntry, Option<String>);

fn stored(row: &Row<'_>) -> rusqlite::Result<StoredEntry> {
    let entry = NameEntry {
        name: row.get(0)?,
        key: None,
        registered_at_s: row.get(2)?,
        banned_at_s: row.get(3)?,
        revoked_at_s: row.get(4)?,
        used_on: row.get(5)?,
        released_at_s: row.get(6)?,
    };
    Ok((entry, row.get(1)?))
}

impl Names {
    /// Hands each entry to `each`, in the order of the names, until that returns false.
    ///
    /// # Errors
    /// When the table cannot be read, or holds a damaged key.
    pub fn for_each(&self, mut each: impl FnMut(NameEntry) -> bool) -> Result<(), NamesError> {
        let failed = |error| self.failed(error);
        let query = format!("{ENTRIES} ORDER BY name");
        let mut statement = self.connection.prepare(&query).map_err(failed)?;
        let rows = statement.query_map([], stored).map_err(failed)?;
        for row in rows {
            if !each(self.entry_of(row.map_err(failed)?)?) {
                break;
            }
        }
        Ok(())
    }

    /// What is known about `name`, if anything is.
    ///
    /// # Errors
    /// When the table cannot be read, or holds a damaged key.
    pub fn entry(&self, name: &PeerName) -> Result<Option<NameEntry>, NamesError> {
        let query = format!("SELECT * FROM ({ENTRIES}) WHERE name = ?1");
        let row = self.connection.query_row(&query, [name.as_str()], stored);
        let row = row.optional().map_err(|error| self.failed(error))?;
        row.map(|row| self.entry_of(row)).transpose()
    }

    fn entry_of(&self, (entry, key): StoredEntry) -> Result<NameEntry, NamesError> {
        let key = key.map(|text| self.parsed(&text)).transpose()?;
        Ok(NameEntry { key, ..entry })
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

    /// Whether nobody may log in by `name`.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn is_banned(&self, name: &PeerName) -> Result<bool, NamesError> {
        let banned = || {
            let mut statement = self
                .connection
                .prepare_cached("SELECT 1 FROM banned WHERE name = ?1")?;
            statement.exists([name.as_str()])
        };
        banned().map_err(|error| self.failed(error))
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

    /// The key of this fingerprint that has a name here.
    ///
    /// # Errors
    /// When the table cannot be read, or holds a damaged key.
    pub fn key_of(&self, fingerprint: Fingerprint) -> Result<Option<PeerKey>, NamesError> {
        let mut found = None;
        self.for_each(|entry| {
            found = entry.key.filter(|key| key.fingerprint() == fingerprint);
            found.is_none()
        })?;
        Ok(found)
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
        self.count = Self::counted(&self.connection).map_err(|error| self.failed(error))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> PeerKey {
        PeerKey::from_bytes([number; 32])
    }

    fn name(text: &str) -> PeerName {
        text.parse().unwrap()
    }

    /// Names of one file, as the server and an operator have them open.
    fn both() -> (Names, Names, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names.sqlite");
        let mut server = Names::create(&path).unwrap();
        server.claim(&name("bob"), key(2)).unwrap();
        server.claim(&name("alice"), key(1)).unwrap();
        (server, Names::open(&path).unwrap(), dir)
    }

    #[test]
    fn what_an_operator_changes_is_so_for_the_server_at_once() {
        let (mut server, mut operator, _dir) = both();
        assert_eq!(operator.release(&name("bob")).unwrap(), Some(key(2)));
        assert_eq!(operator.release(&name("bob")).unwrap(), None);
        assert_eq!(server.owner(&name("bob")).unwrap(), None);
        assert_eq!(operator.transfer(&name("bob"), key(3)).unwrap(), None);
        assert_eq!(server.owner(&name("bob")).unwrap(), None);
        let before = operator.transfer(&name("alice"), key(3)).unwrap();
        assert_eq!(before, Some(key(1)));
        assert_eq!(server.claim(&name("alice"), key(1)).unwrap(), key(3));
        assert!(operator.ban(&name("eve")).unwrap() && !operator.ban(&name("eve")).unwrap());
        assert!(server.is_banned(&name("eve")).unwrap());
        assert!(operator.unban(&name("eve")).unwrap() && !operator.unban(&name("eve")).unwrap());
        assert!(!server.is_banned(&name("eve")).unwrap());
    }

    #[test]
    fn entries_come_in_order_with_those_that_are_only_banned() {
        let (_server, mut operator, _dir) = both();
        operator.ban(&name("bob")).unwrap();
        operator.ban(&name("admin")).unwrap();
        let mut entries = Vec::new();
        operator
            .for_each(|entry| {
                entries.push((entry.name, entry.key, entry.banned_at_s.is_some()));
                true
            })
            .unwrap();
        let expected = [
            ("admin".to_owned(), None, true),
            ("alice".to_owned(), Some(key(1)), false),
            ("bob".to_owned(), Some(key(2)), true),
        ];
        assert_eq!(entries, expected);
        let bob = operator.entry(&name("bob")).unwrap().unwrap();
        assert_eq!((bob.key, bob.banned_at_s.is_some()), (Some(key(2)), true));
        assert_eq!(operator.entry(&name("nobody")).unwrap(), None);
        let found = operator.key_of(key(2).fingerprint()).unwrap();
        assert_eq!(found, Some(key(2)));
        assert_eq!(operator.key_of(key(9).fingerprint()).unwrap(), None);
    }

    #[test]
    fn only_the_changes_of_others_are_noticed() {
        let (mut server, mut operator, _dir) = both();
        server.has_changed_elsewhere().unwrap();
        server.claim(&name("carol"), key(3)).unwrap();
        assert!(!server.has_changed_elsewhere().unwrap());
        operator.release(&name("bob")).unwrap();
        assert!(server.has_changed_elsewhere().unwrap());
        assert_eq!(server.count(), 2);
        assert!(!server.has_changed_elsewhere().unwrap());
    }
}
