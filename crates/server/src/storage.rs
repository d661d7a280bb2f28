//! Names and the keys they are bound to, in SQLite.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pinhole_proto::key::{KeyTextError, PeerKey};
use pinhole_proto::name::PeerName;
use rusqlite::{Connection, params};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS names (
        name TEXT PRIMARY KEY NOT NULL,
        key TEXT NOT NULL,
        registered_at_s INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS names_by_key ON names (key);
";
/// SQLite's own note of the schema's version.
const SCHEMA_VERSION: u32 = 1;

/// Why the names cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// SQLite's word: disk full, file damaged, no permission.
    #[error("the names cannot be stored: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A stored key that is none.
    #[error("a stored key is damaged: {0}")]
    Key(#[from] KeyTextError),
    /// The file was written by a later Pinhole.
    #[error("the names are in format {found}, this server reads {SCHEMA_VERSION}")]
    Version {
        /// The file's format.
        found: u32,
    },
}

/// The table of names. A name is bound to the first key that claims it, for
/// good; the binding is on disk before [`Names::claim`] returns.
#[derive(Debug)]
pub struct Names(Connection);

impl Names {
    /// Opens the table, made when it is not there yet.
    ///
    /// # Errors
    /// Any [`StorageError`] but a damaged key.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if found > SCHEMA_VERSION {
            return Err(StorageError::Version { found });
        }
        connection.execute_batch(SCHEMA)?;
        connection.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        Ok(Self(connection))
    }

    /// Binds `name` to `key` unless it is bound already; returns the key it is
    /// bound to.
    ///
    /// # Errors
    /// When the table cannot be read or written, or holds a damaged key.
    pub fn claim(&mut self, name: &PeerName, key: PeerKey) -> Result<PeerKey, StorageError> {
        if let Some(owner) = self.owner(name)? {
            return Ok(owner);
        }
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_s = now_s.map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        });
        self.0.execute(
            "INSERT INTO names (name, key, registered_at_s) VALUES (?1, ?2, ?3)
             ON CONFLICT (name) DO NOTHING",
            params![name.as_str(), key.to_string(), now_s],
        )?;
        Ok(self.owner(name)?.unwrap_or(key))
    }

    /// How many names are bound to `key`.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn count_of(&self, key: PeerKey) -> Result<u32, StorageError> {
        let mut statement = self
            .0
            .prepare_cached("SELECT count(*) FROM names WHERE key = ?1")?;
        Ok(statement.query_row(params![key.to_string()], |row| row.get(0))?)
    }

    /// The key to which `name` is bound, if it is.
    ///
    /// # Errors
    /// When the table cannot be read, or holds a damaged key.
    pub fn owner(&self, name: &PeerName) -> Result<Option<PeerKey>, StorageError> {
        let mut statement = self
            .0
            .prepare_cached("SELECT key FROM names WHERE name = ?1")?;
        let mut rows = statement.query(params![name.as_str()])?;
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        let key: String = row.get(0)?;
        Ok(Some(key.parse()?))
    }
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
        let mut names = Names::open(&path).unwrap();
        assert_eq!(names.claim(&alice, key(1)).unwrap(), key(1));
        assert_eq!(names.claim(&alice, key(2)).unwrap(), key(1));
        drop(names);
        let mut names = Names::open(&path).unwrap();
        assert_eq!(names.claim(&alice, key(2)).unwrap(), key(1));
        let bob = "bob".parse().unwrap();
        assert_eq!(names.claim(&bob, key(2)).unwrap(), key(2));
    }

    #[test]
    fn many_claims_at_one_moment_agree_on_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names.sqlite");
        drop(Names::open(&path).unwrap());
        let barrier = Barrier::new(8);
        let owners: HashSet<PeerKey> = std::thread::scope(|scope| {
            let claims: Vec<_> = (0..8)
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
        let names = Names::open(&path).unwrap();
        names.0.pragma_update(None, "user_version", 2).unwrap();
        drop(names);
        let refused = Names::open(&path);
        assert!(matches!(refused, Err(StorageError::Version { found: 2 })));
    }
}
