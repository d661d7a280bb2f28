//! Names in a file of SQLite.

mod carry;
mod editing;
mod expiry;
mod recovery;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use pinhole_proto::key::{Fingerprint, KeyTextError, PeerKey};
use pinhole_proto::name::PeerName;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Transaction, params};

use super::{NameState, NamesError, RESTORE, now_s, parsed};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS names (
        name TEXT PRIMARY KEY NOT NULL,
        key TEXT NOT NULL,
        registered_at_s INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS names_by_key ON names (key);
    CREATE INDEX IF NOT EXISTS names_by_time ON names (registered_at_s);
    CREATE TABLE IF NOT EXISTS banned (
        name TEXT PRIMARY KEY NOT NULL,
        banned_at_s INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS server (fingerprint TEXT NOT NULL) STRICT;
";
/// The pause before the file is tried again while another process has locked it.
const LOCK_PAUSE: Duration = Duration::from_millis(1);
const LOCK_TRIES: i32 = 5_000;
/// The version of the schema, in SQLite's own field.
const SCHEMA_VERSION: u32 = 4;

/// SQLite's word for people.
pub(super) fn what(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            format!("it is no database of names, or a damaged one. {RESTORE}")
        }
        Some(ErrorCode::DiskFull) => "there is no room on its disk. Names that are registered \
             already work, new ones do not"
            .to_owned(),
        _ => "the names cannot be read or written. Check who owns the folder and whether its disk \
             works, or name another folder with --data-dir"
            .to_owned(),
    }
}

/// The names of a file. A binding is on disk before [`SqliteNames::bind`] returns.
///
/// Everything is in one file while nothing is being written, so a copy of that file is
/// complete. With a write-ahead log, most of it would be in another file.
#[derive(Debug)]
pub struct SqliteNames {
    connection: Connection,
    path: PathBuf,
    count: u64,
    /// What SQLite counted of the writes of other processes when they were last looked for.
    seen_version: Option<i64>,
}

impl SqliteNames {
    /// Creates an empty table if there is no file or an empty one.
    ///
    /// # Errors
    /// When the file cannot be written, or is no database.
    pub fn create(path: &Path) -> Result<Self, NamesError> {
        Self::with(path, OpenFlags::SQLITE_OPEN_CREATE)
    }

    /// Opens the table. Nothing is written if it is in the present format, so a full disk
    /// locks out nobody who has a name.
    ///
    /// # Errors
    /// When the file is not there, cannot be read, or is no database.
    pub fn open(path: &Path) -> Result<Self, NamesError> {
        Self::with(path, OpenFlags::empty())
    }

    fn with(path: &Path, extra: OpenFlags) -> Result<Self, NamesError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || {
            let mut connection = Connection::open_with_flags(path, flags | extra)?;
            connection.busy_handler(Some(wait_for_lock))?;
            connection.pragma_update(None, "journal_mode", "TRUNCATE")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            Ok((connection, version))
        };
        let failed = |source| NamesError::Sqlite {
            path: path.to_owned(),
            source,
        };
        let (connection, found): (_, u32) = open().map_err(failed)?;
        if found > SCHEMA_VERSION {
            return Err(NamesError::Version {
                place: path.display().to_string(),
                found,
                known: SCHEMA_VERSION,
            });
        }
        if found < SCHEMA_VERSION {
            let make = || {
                for tables in [SCHEMA, recovery::TABLES, expiry::TABLES] {
                    connection.execute_batch(tables)?;
                }
                connection.pragma_update(None, "user_version", SCHEMA_VERSION)
            };
            make().map_err(failed)?;
        }
        Ok(Self {
            path: path.to_owned(),
            count: count(&connection).map_err(failed)?,
            seen_version: None,
            connection,
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many names there are.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// What each of these names is.
    ///
    /// # Errors
    /// When the table cannot be read, or holds a damaged key.
    pub fn look_up(&self, names: &[PeerName]) -> Result<Vec<NameState>, NamesError> {
        names.iter().map(|name| self.state(name)).collect()
    }

    fn state(&self, name: &PeerName) -> Result<NameState, NamesError> {
        let row = || {
            let mut statement = self.connection.prepare_cached(
                "SELECT (SELECT key FROM names WHERE name = ?1),
                    EXISTS (SELECT 1 FROM banned WHERE name = ?1)",
            )?;
            statement.query_row([name.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        };
        let (key, is_banned) = row().map_err(|error| self.failed(error))?;
        Ok(NameState::of(key, is_banned))
    }

    /// Binds those names that are free, all in one write. Returns what each is then.
    ///
    /// # Errors
    /// When the table cannot be read or written, or holds a damaged key. Then none of them
    /// is bound.
    pub fn bind(&mut self, wanted: &[(PeerName, PeerKey)]) -> Result<Vec<NameState>, NamesError> {
        let now_s = now_s();
        let bound = self.write(|transaction| {
            let mut statement = transaction.prepare_cached(
                "INSERT INTO names (name, key, registered_at_s) SELECT ?1, ?2, ?3
                 WHERE NOT EXISTS (SELECT 1 FROM banned WHERE name = ?1)
                 ON CONFLICT (name) DO NOTHING",
            )?;
            let mut bound = 0;
            for (name, key) in wanted {
                bound += statement.execute(params![name.as_str(), key.to_string(), now_s])?;
            }
            Ok(bound as u64)
        })?;
        self.count += bound;
        wanted.iter().map(|(name, _)| self.state(name)).collect()
    }

    /// Writes all of it or nothing.
    fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, NamesError> {
        let written = || {
            // SQLite may roll back by itself. Otherwise the drop does.
            let transaction = Transaction::new_unchecked(
                &self.connection,
                rusqlite::TransactionBehavior::Immediate,
            )?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        };
        written().map_err(|error| self.failed(error))
    }

    /// How many names are bound to each of these keys, without those that have none.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn counts_of(&self, keys: &[PeerKey]) -> Result<HashMap<PeerKey, u32>, NamesError> {
        let count = |key: &PeerKey| {
            let mut statement = self
                .connection
                .prepare_cached("SELECT count(*) FROM names WHERE key = ?1")?;
            let count = statement.query_row([key.to_string()], |row| row.get(0))?;
            Ok((*key, count))
        };
        let counts: rusqlite::Result<HashMap<_, _>> = keys.iter().map(count).collect();
        let mut counts = counts.map_err(|error| self.failed(error))?;
        counts.retain(|_, count| *count > 0);
        Ok(counts)
    }

    /// The keys with names that were registered after the first of these times and not
    /// after the second, in seconds since 1970.
    ///
    /// # Errors
    /// When the table cannot be read, or holds a damaged key.
    pub fn registered_within(
        &self,
        after_s: i64,
        until_s: i64,
    ) -> Result<Vec<PeerKey>, NamesError> {
        let keys = || {
            let mut statement = self.connection.prepare_cached(
                "SELECT DISTINCT key FROM names
                 WHERE registered_at_s > ?1 AND registered_at_s <= ?2",
            )?;
            let rows = statement.query_map([after_s, until_s], |row| row.get(0))?;
            rows.collect::<Result<Vec<String>, _>>()
        };
        let texts = keys().map_err(|error| self.failed(error))?;
        texts.iter().map(|text| self.parsed(text)).collect()
    }

    /// The key of the server that these names belong to; `None` if the file is new, or
    /// was used by earlier versions only.
    ///
    /// # Errors
    /// When the file cannot be read, or the note is damaged.
    pub fn server(&self) -> Result<Option<Fingerprint>, NamesError> {
        let row = || {
            let row = self
                .connection
                .query_row("SELECT fingerprint FROM server", [], |row| row.get(0));
            row.optional()
        };
        let text: Option<String> = row().map_err(|error| self.failed(error))?;
        text.map(|text| self.parsed(&text)).transpose()
    }

    /// Notes which server these names belong to, unless that is noted already.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn belong_to(&mut self, server: Fingerprint) -> Result<(), NamesError> {
        if self.server()? == Some(server) {
            return Ok(());
        }
        self.write(|transaction| {
            transaction.execute("DELETE FROM server", [])?;
            transaction.execute(
                "INSERT INTO server (fingerprint) VALUES (?1)",
                [server.to_string()],
            )?;
            Ok(())
        })
    }

    /// Writes a copy to a new file, even while a server uses the names.
    ///
    /// # Errors
    /// When the names cannot be read or the copy cannot be written.
    pub fn copy_to(&self, copy: &Path) -> Result<(), NamesError> {
        let written = || {
            let invalid = || rusqlite::Error::InvalidPath(copy.to_owned());
            let text = copy.to_str().ok_or_else(invalid)?;
            self.connection.execute("VACUUM INTO ?1", [text])
        };
        written().map(|_| ()).map_err(|source| NamesError::Sqlite {
            path: copy.to_owned(),
            source,
        })
    }

    fn parsed<K: FromStr<Err = KeyTextError>>(&self, text: &str) -> Result<K, NamesError> {
        parsed(text, self.path.display())
    }

    fn failed(&self, source: rusqlite::Error) -> NamesError {
        NamesError::Sqlite {
            path: self.path.clone(),
            source,
        }
    }
}

/// Waits for another process that uses the file, for about five seconds in all. SQLite's
/// own waiting pauses for longer and longer, and never meets the moment between two writes
/// while names are being registered all the time.
fn wait_for_lock(tries: i32) -> bool {
    std::thread::sleep(LOCK_PAUSE);
    tries < LOCK_TRIES
}

fn count(connection: &Connection) -> rusqlite::Result<u64> {
    let count = connection.query_row("SELECT count(*) FROM names", [], |row| row.get(0));
    count.map(|count: i64| u64::try_from(count).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> PeerKey {
        PeerKey::from_bytes([number; 32])
    }

    /// The key that `name` is bound to after `key` has claimed it.
    fn claim(names: &mut SqliteNames, name: &str, key: PeerKey) -> PeerKey {
        let states = names.bind(&[(name.parse().unwrap(), key)]).unwrap();
        match states[..] {
            [NameState::Bound(owner)] => owner,
            _ => panic!("{states:?}"),
        }
    }

    fn state(names: &SqliteNames, name: &str) -> NameState {
        names.look_up(&[name.parse().unwrap()]).unwrap()[0]
    }

    #[test]
    fn the_first_key_keeps_a_name_across_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names.sqlite");
        let mut names = SqliteNames::create(&path).unwrap();
        assert_eq!(claim(&mut names, "alice", key(1)), key(1));
        assert_eq!(claim(&mut names, "alice", key(2)), key(1));
        drop(names);
        let mut names = SqliteNames::open(&path).unwrap();
        assert_eq!(claim(&mut names, "alice", key(2)), key(1));
        assert_eq!(claim(&mut names, "bob", key(2)), key(2));
    }

    #[test]
    fn a_file_of_a_later_version_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names.sqlite");
        let names = SqliteNames::create(&path).unwrap();
        let later = SCHEMA_VERSION + 1;
        names
            .connection
            .pragma_update(None, "user_version", later)
            .unwrap();
        drop(names);
        let refused = SqliteNames::open(&path);
        assert!(matches!(refused, Err(NamesError::Version { found, .. }) if found == later));
    }

    #[test]
    fn a_plain_copy_of_the_file_in_use_holds_every_name() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("names.sqlite"), dir.path().join("copy"));
        let mut names = SqliteNames::create(&path).unwrap();
        claim(&mut names, "alice", key(1));
        std::fs::copy(&path, &copy).unwrap();
        let copy = SqliteNames::open(&copy).unwrap();
        assert_eq!(state(&copy, "alice"), NameState::Bound(key(1)));
        assert_eq!(copy.count(), 1);
    }

    #[test]
    fn registered_names_are_found_on_a_full_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names.sqlite");
        let mut names = SqliteNames::create(&path).unwrap();
        claim(&mut names, "alice", key(1));
        names
            .connection
            .pragma_update(None, "max_page_count", 1)
            .unwrap();
        let refused = (0..).find_map(|number| {
            let name = format!("name{number}").parse().unwrap();
            names.bind(&[(name, key(2))]).err()
        });
        let words = refused.unwrap().to_string();
        assert!(
            words.contains("no room") && words.contains("names.sqlite"),
            "{words}"
        );
        assert_eq!(claim(&mut names, "alice", key(3)), key(1));
    }

    #[test]
    fn names_of_one_write_are_all_bound_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names.sqlite");
        let mut names = SqliteNames::create(&path).unwrap();
        let refuse = "CREATE TRIGGER t BEFORE INSERT ON names WHEN new.name = 'carol'
            BEGIN SELECT RAISE(FAIL, 'no'); END";
        names.connection.execute_batch(refuse).unwrap();
        let wanted = ["bob", "carol"].map(|name| (name.parse().unwrap(), key(2)));
        names.bind(&wanted).unwrap_err();
        assert_eq!((state(&names, "bob"), names.count()), (NameState::Free, 0));
        assert_eq!(claim(&mut names, "bob", key(1)), key(1));
        let other = SqliteNames::open(&path).unwrap();
        assert_eq!(state(&other, "bob"), NameState::Bound(key(1)));
    }

    #[test]
    fn a_damaged_key_spoils_no_other_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut names = SqliteNames::create(&dir.path().join("names.sqlite")).unwrap();
        claim(&mut names, "alice", key(1));
        claim(&mut names, "bob", key(2));
        let spoil = "UPDATE names SET key = 'half a k' WHERE name = 'alice'";
        names.connection.execute_batch(spoil).unwrap();
        let both = ["alice", "bob"].map(|name| name.parse().unwrap());
        let states = names.look_up(&both).unwrap();
        assert_eq!(states, [NameState::Damaged, NameState::Bound(key(2))]);
    }

    #[test]
    fn a_file_of_an_earlier_version_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names.sqlite");
        let earlier = Connection::open(&path).unwrap();
        earlier.pragma_update(None, "journal_mode", "WAL").unwrap();
        let table = "CREATE TABLE names (name TEXT PRIMARY KEY NOT NULL, key TEXT NOT NULL,
            registered_at_s INTEGER NOT NULL) STRICT, WITHOUT ROWID; PRAGMA user_version = 1;";
        earlier.execute_batch(table).unwrap();
        let row = params!["alice", key(1).to_string()];
        earlier
            .execute("INSERT INTO names VALUES (?1, ?2, 7)", row)
            .unwrap();
        drop(earlier);
        let mut names = SqliteNames::open(&path).unwrap();
        assert_eq!(state(&names, "alice"), NameState::Bound(key(1)));
        assert_eq!((names.count(), names.server().unwrap()), (1, None));
        names.belong_to(key(9).fingerprint()).unwrap();
        drop(names);
        assert!(!dir.path().join("names.sqlite-wal").exists());
        let names = SqliteNames::open(&path).unwrap();
        assert_eq!(names.server().unwrap(), Some(key(9).fingerprint()));
    }
}
