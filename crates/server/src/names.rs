//! Names and the keys they are bound to, in SQLite.

mod editing;
mod expiry;
mod recovery;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pinhole_proto::key::{Fingerprint, KeyTextError, PeerKey};
use pinhole_proto::name::PeerName;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, params};

pub use editing::NameEntry;
pub use expiry::{TOMBSTONE_LIFETIME, day_of, start_of};
pub use recovery::RECOVERY_DELAY;

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

/// Why the names cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// SQLite cannot read or write the file.
    #[error("{}: {}", path.display(), what(source))]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// SQLite's word.
        source: rusqlite::Error,
    },
    /// A stored key is damaged.
    #[error("{}: a stored key is damaged. {RESTORE}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with the key.
        source: KeyTextError,
    },
    /// The file was written by a later Pinhole.
    #[error(
        "{}: the names are in format {found}, and this server reads {SCHEMA_VERSION}. Use the newer \
         pinhole-server, or name another folder with --data-dir",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

const RESTORE: &str = "Put a backup in its place (pinhole-server backup makes them), or name \
                       another folder with --data-dir";

fn what(error: &rusqlite::Error) -> String {
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

/// The table of names. A name is bound permanently to the first key that claims it. The
/// binding is on disk before [`Names::claim`] returns.
///
/// Everything is in one file while nothing is being written, so a copy of that file is
/// complete. With a write-ahead log, most of it would be in another file.
#[derive(Debug)]
pub struct Names {
    connection: Connection,
    path: PathBuf,
    count: u64,
    /// The registration time up to which [`Names::new_regulars`] has returned keys.
    told_until_s: i64,
    /// What SQLite counted of the writes of other processes when they were last looked for.
    seen_version: Option<i64>,
}

impl Names {
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
            let path = path.to_owned();
            return Err(NamesError::Version { path, found });
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
        let count = Self::counted(&connection).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            count,
            told_until_s: i64::MIN,
            seen_version: None,
            connection,
        })
    }

    fn counted(connection: &Connection) -> rusqlite::Result<u64> {
        let count = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        let count = connection.query_row("SELECT count(*) FROM names", [], count)?;
        Ok(u64::try_from(count).unwrap_or(0))
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

    /// Binds `name` to `key` unless it is bound already; returns the key it is
    /// bound to.
    ///
    /// # Errors
    /// When the table cannot be read or written, or holds a damaged key.
    pub fn claim(&mut self, name: &PeerName, key: PeerKey) -> Result<PeerKey, NamesError> {
        if let Some(owner) = self.owner(name)? {
            return Ok(owner);
        }
        let inserted = self.connection.execute(
            "INSERT INTO names (name, key, registered_at_s) VALUES (?1, ?2, ?3)
             ON CONFLICT (name) DO NOTHING",
            params![name.as_str(), key.to_string(), now_s()],
        );
        self.count += inserted.map_err(|error| self.failed(error))? as u64;
        Ok(self.owner(name)?.unwrap_or(key))
    }

    /// How many names are bound to `key`.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn count_of(&self, key: PeerKey) -> Result<u32, NamesError> {
        let count = || {
            let mut statement = self
                .connection
                .prepare_cached("SELECT count(*) FROM names WHERE key = ?1")?;
            statement.query_row(params![key.to_string()], |row| row.get(0))
        };
        count().map_err(|error| self.failed(error))
    }

    /// The key to which `name` is bound, if it is.
    ///
    /// # Errors
    /// When the table cannot be read, or holds a damaged key.
    pub fn owner(&self, name: &PeerName) -> Result<Option<PeerKey>, NamesError> {
        let key = || {
            let mut statement = self
                .connection
                .prepare_cached("SELECT key FROM names WHERE name = ?1")?;
            let row = statement.query_row(params![name.as_str()], |row| row.get(0));
            row.optional()
        };
        let key: Option<String> = key().map_err(|error| self.failed(error))?;
        key.map(|text| self.parsed(&text)).transpose()
    }

    /// The keys whose names have been registered for this long, without those returned
    /// before.
    ///
    /// # Errors
    /// When the table cannot be read, or holds a damaged key.
    pub fn new_regulars(&mut self, after: Duration) -> Result<Vec<PeerKey>, NamesError> {
        let after_s = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
        let until_s = now_s().saturating_sub(after_s);
        let keys = || {
            let mut statement = self.connection.prepare_cached(
                "SELECT DISTINCT key FROM names
                 WHERE registered_at_s > ?1 AND registered_at_s <= ?2",
            )?;
            let rows = statement.query_map([self.told_until_s, until_s], |row| row.get(0))?;
            rows.collect::<Result<Vec<String>, _>>()
        };
        let texts = keys().map_err(|error| self.failed(error))?;
        let keys = texts.iter().map(|text| self.parsed(text)).collect();
        self.told_until_s = self.told_until_s.max(until_s);
        keys
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
        let note = || {
            let transaction = self.connection.unchecked_transaction()?;
            transaction.execute("DELETE FROM server", [])?;
            transaction.execute(
                "INSERT INTO server (fingerprint) VALUES (?1)",
                [server.to_string()],
            )?;
            transaction.commit()
        };
        note().map_err(|error| self.failed(error))
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
        text.parse().map_err(|source| NamesError::Key {
            path: self.path.clone(),
            source,
        })
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

pub(crate) fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Barrier;

    use super::*;

    fn key(number: u8) -> PeerKey {
        PeerKey::from_bytes([number; 32])
    }

    #[test]
    fn the_first_key_keeps_a_name_across_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names.sqlite");
        let alice = "alice".parse().unwrap();
        let mut names = Names::create(&path).unwrap();
        assert_eq!(names.claim(&alice, key(1)).unwrap(), key(1));
        assert_eq!(names.claim(&alice, key(2)).unwrap(), key(1));
        drop(names);
        let mut names = Names::open(&path).unwrap();
        assert_eq!(names.claim(&alice, key(2)).unwrap(), key(1));
        let bob = "bob".parse().unwrap();
        assert_eq!(names.claim(&bob, key(2)).unwrap(), key(2));
    }

    #[test]
    fn simultaneous_claims_agree_on_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names.sqlite");
        drop(Names::create(&path).unwrap());
        let barrier = Barrier::new(8);
        let owners: HashSet<PeerKey> = std::thread::scope(|scope| {
            let claims: Vec<_> = (1..=8)
                .map(|number| {
                    let (path, barrier) = (&path, &barrier);
                    scope.spawn(move || {
                        let mut names = Names::open(path).unwrap();
                        barrier.wait();
                        let alice = "alice".parse().unwrap();
                        names.claim(&alice, key(number)).unwrap()
                    })
                })
                .collect();
            claims.into_iter().map(|c| c.join().unwrap()).collect()
        });
        assert_eq!(owners.len(), 1);
    }

    #[test]
    fn a_file_of_a_later_version_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names.sqlite");
        let names = Names::create(&path).unwrap();
        let later = SCHEMA_VERSION + 1;
        names
            .connection
            .pragma_update(None, "user_version", later)
            .unwrap();
        drop(names);
        let refused = Names::open(&path);
        assert!(matches!(refused, Err(NamesError::Version { found, .. }) if found == later));
    }

    #[test]
    fn a_plain_copy_of_the_file_in_use_holds_every_name() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("names.sqlite"), dir.path().join("copy"));
        let mut names = Names::create(&path).unwrap();
        let alice = "alice".parse().unwrap();
        names.claim(&alice, key(1)).unwrap();
        std::fs::copy(&path, &copy).unwrap();
        let copy = Names::open(&copy).unwrap();
        assert_eq!(copy.owner(&alice).unwrap(), Some(key(1)));
        assert_eq!(copy.count(), 1);
    }

    #[test]
    fn registered_names_are_found_on_a_full_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names.sqlite");
        let mut names = Names::create(&path).unwrap();
        let alice: PeerName = "alice".parse().unwrap();
        names.claim(&alice, key(1)).unwrap();
        names
            .connection
            .pragma_update(None, "max_page_count", 1)
            .unwrap();
        let refused = (0..).find_map(|number| {
            let name = format!("name{number}").parse().unwrap();
            names.claim(&name, key(2)).err()
        });
        let words = refused.unwrap().to_string();
        assert!(
            words.contains("no room") && words.contains("names.sqlite"),
            "{words}"
        );
        assert_eq!(names.claim(&alice, key(3)).unwrap(), key(1));
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
        let mut names = Names::open(&path).unwrap();
        assert_eq!(
            names.owner(&"alice".parse().unwrap()).unwrap(),
            Some(key(1))
        );
        assert_eq!((names.count(), names.server().unwrap()), (1, None));
        names.belong_to(key(9).fingerprint()).unwrap();
        drop(names);
        assert!(!dir.path().join("names.sqlite-wal").exists());
        let names = Names::open(&path).unwrap();
        assert_eq!(names.server().unwrap(), Some(key(9).fingerprint()));
    }

    #[test]
    fn a_regular_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut names = Names::create(&dir.path().join("names.sqlite")).unwrap();
        for (name, number) in [("alice", 1), ("alice-phone", 1), ("bob", 2)] {
            names.claim(&name.parse().unwrap(), key(number)).unwrap();
        }
        assert_eq!(names.new_regulars(Duration::from_secs(60)).unwrap(), []);
        let mut told = names.new_regulars(Duration::ZERO).unwrap();
        told.sort_unstable();
        assert_eq!(told, [key(1), key(2)]);
        assert_eq!(names.new_regulars(Duration::ZERO).unwrap(), []);
    }
}
