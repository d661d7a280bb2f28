//! Names and the keys they are bound to: in a file of SQLite, or in a PostgreSQL database
//! that several servers share.

mod carry;
mod expiry;
mod postgres;
mod recovery;
mod sqlite;

use std::collections::HashMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use pinhole_proto::key::{Fingerprint, KeyTextError, PeerKey};
use pinhole_proto::name::PeerName;

pub use expiry::{TOMBSTONE_LIFETIME, day_of, start_of};
pub use postgres::{Database, DatabaseError, PostgresNames};
pub use recovery::{ClaimedName, NotedRecovery, RECOVERY_DELAY};
pub use sqlite::SqliteNames;

/// The most entries that are read or written together.
const PAGE: usize = 1_024;
const RESTORE: &str = "Put a backup in its place (pinhole-server backup makes them), or name \
                       another folder with --data-dir";

/// Why the names cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// SQLite cannot read or write the file.
    #[error("{}: {}", path.display(), sqlite::what(source))]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// SQLite's word.
        source: rusqlite::Error,
    },
    /// PostgreSQL does not answer, or takes nothing at the moment. It may later.
    #[error(
        "{database} cannot be reached ({}). Check that PostgreSQL runs, that it lets this server \
         in, and that --database is right",
        postgres::what(reason)
    )]
    Unreachable {
        /// The database.
        database: Database,
        /// What happened.
        reason: sqlx::Error,
    },
    /// PostgreSQL refuses what is asked of it.
    #[error(
        "{database} cannot be used ({}). Check what its user may do there, and whether its disk \
         has room",
        postgres::what(reason)
    )]
    Refused {
        /// The database.
        database: Database,
        /// PostgreSQL's word.
        reason: sqlx::Error,
    },
    /// The database has no tables of Pinhole.
    #[error(
        "{database} has no names of a Pinhole server yet. The server makes the tables when it \
         starts, and so does pinhole-server migrate"
    )]
    NoTables {
        /// The database.
        database: Database,
    },
    /// The database has names already, which are kept.
    #[error("{database} has names already. Name an empty database with --database")]
    NotEmpty {
        /// The database.
        database: Database,
    },
    /// A stored key is damaged.
    #[error("{place}: a stored key is damaged. {RESTORE}")]
    Key {
        /// The file or the database.
        place: String,
        /// What is wrong with the key.
        source: KeyTextError,
    },
    /// The names were written by a later Pinhole.
    #[error(
        "{place}: the names are in format {found}, and this server reads {known}. Use the newer \
         pinhole-server, or name another place with --data-dir or --database"
    )]
    Version {
        /// The file or the database.
        place: String,
        /// Its format.
        found: u32,
        /// The latest one that this server reads.
        known: u32,
    },
}

impl NamesError {
    /// Whether the same may work soon.
    pub(crate) const fn is_outage(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// What a name is to somebody who wants to log in by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameState {
    /// Whoever claims it first has it.
    Free,
    /// It belongs to this key.
    Bound(PeerKey),
    /// Nobody may log in by it, whoever it belongs to.
    Banned,
    /// Its stored key cannot be read.
    Damaged,
}

impl NameState {
    /// What a name is by its stored key, if it has one.
    fn of(key: Option<String>, is_banned: bool) -> Self {
        match (is_banned, key) {
            (true, _) => Self::Banned,
            (false, Some(key)) => key.parse().map_or(Self::Damaged, Self::Bound),
            (false, None) => Self::Free,
        }
    }
}

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

/// An entry as it is stored: the name, its key and the fields of [`NameEntry`].
type StoredEntry = (
    String,
    Option<String>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
);

impl NameEntry {
    fn of(stored: StoredEntry, place: impl Display) -> Result<Self, NamesError> {
        let (name, key, registered_at_s, banned_at_s, revoked_at_s, used_on, released_at_s) =
            stored;
        Ok(Self {
            name,
            key: key.map(|text| parsed(&text, place)).transpose()?,
            registered_at_s,
            banned_at_s,
            revoked_at_s,
            used_on,
            released_at_s,
        })
    }
}

/// The names of a server. A name is bound permanently to the first key that claims it, and
/// is stored before anybody is told.
///
/// Functions fail with any [`NamesError`] when the names cannot be read or written.
#[derive(Debug)]
pub enum Names {
    /// In a file.
    Sqlite(SqliteNames),
    /// In a database that several servers share.
    Postgres(PostgresNames),
}

impl Names {
    /// How many names there are. Where several servers share them, it is a few seconds old.
    #[must_use]
    pub const fn count(&self) -> u64 {
        match self {
            Self::Sqlite(names) => names.count(),
            Self::Postgres(names) => names.count(),
        }
    }

    /// What each of these names is.
    ///
    /// # Errors
    /// See the type.
    pub async fn look_up(&mut self, names: &[PeerName]) -> Result<Vec<NameState>, NamesError> {
        match self {
            Self::Sqlite(it) => it.look_up(names),
            Self::Postgres(it) => it.look_up(names).await,
        }
    }

    /// Binds those names that are free, all in one write. Returns what each is then.
    ///
    /// # Errors
    /// See the type. Then none of them is bound, unless it was PostgreSQL's answer that
    /// got lost.
    pub async fn bind(
        &mut self,
        wanted: &[(PeerName, PeerKey)],
    ) -> Result<Vec<NameState>, NamesError> {
        match self {
            Self::Sqlite(it) => it.bind(wanted),
            Self::Postgres(it) => it.bind(wanted).await,
        }
    }

    /// How many names are bound to each of these keys, without those that have none.
    ///
    /// # Errors
    /// See the type.
    pub async fn counts_of(
        &mut self,
        keys: &[PeerKey],
    ) -> Result<HashMap<PeerKey, u32>, NamesError> {
        match self {
            Self::Sqlite(it) => it.counts_of(keys),
            Self::Postgres(it) => it.counts_of(keys).await,
        }
    }

    /// The keys with names that were registered after the first of these times and not
    /// after the second, in seconds since 1970.
    ///
    /// # Errors
    /// See the type.
    pub async fn registered_within(
        &mut self,
        after_s: i64,
        until_s: i64,
    ) -> Result<Vec<PeerKey>, NamesError> {
        match self {
            Self::Sqlite(it) => it.registered_within(after_s, until_s),
            Self::Postgres(it) => it.registered_within(after_s, until_s).await,
        }
    }

    /// The key of the server that these names belong to; `None` if they are new, or were
    /// used by earlier versions only.
    ///
    /// # Errors
    /// See the type.
    pub async fn server(&mut self) -> Result<Option<Fingerprint>, NamesError> {
        match self {
            Self::Sqlite(it) => it.server(),
            Self::Postgres(it) => it.server().await,
        }
    }

    /// The entries that come after this name in their order, a bounded number of them.
    /// Nothing comes before "".
    ///
    /// # Errors
    /// See the type.
    pub async fn entries_after(&mut self, name: &str) -> Result<Vec<NameEntry>, NamesError> {
        match self {
            Self::Sqlite(it) => it.entries_after(name),
            Self::Postgres(it) => it.entries_after(name).await,
        }
    }

    /// What is known about `name`, if anything is.
    ///
    /// # Errors
    /// See the type.
    pub async fn entry(&mut self, name: &PeerName) -> Result<Option<NameEntry>, NamesError> {
        match self {
            Self::Sqlite(it) => it.entry(name),
            Self::Postgres(it) => it.entry(name).await,
        }
    }

    /// The key of this fingerprint that has a name here.
    ///
    /// # Errors
    /// See the type.
    pub async fn key_of(
        &mut self,
        fingerprint: Fingerprint,
    ) -> Result<Option<PeerKey>, NamesError> {
        let mut after = String::new();
        loop {
            let entries = self.entries_after(&after).await?;
            let mut keys = entries.iter().filter_map(|entry| entry.key);
            if let Some(key) = keys.find(|key| key.fingerprint() == fingerprint) {
                return Ok(Some(key));
            }
            match entries.into_iter().last() {
                Some(last) => after = last.name,
                None => return Ok(None),
            }
        }
    }

    /// Frees `name` for whoever claims it first. Returns the key that it was bound to.
    ///
    /// # Errors
    /// See the type.
    pub async fn release(&mut self, name: &PeerName) -> Result<Option<PeerKey>, NamesError> {
        match self {
            Self::Sqlite(it) => it.release(name),
            Self::Postgres(it) => it.release(name).await,
        }
    }

    /// Lets nobody log in by `name`. Returns false if that is so already.
    ///
    /// # Errors
    /// See the type.
    pub async fn ban(&mut self, name: &PeerName) -> Result<bool, NamesError> {
        match self {
            Self::Sqlite(it) => it.ban(name),
            Self::Postgres(it) => it.ban(name).await,
        }
    }

    /// Lifts a ban. Returns false if there is none.
    ///
    /// # Errors
    /// See the type.
    pub async fn unban(&mut self, name: &PeerName) -> Result<bool, NamesError> {
        match self {
            Self::Sqlite(it) => it.unban(name),
            Self::Postgres(it) => it.unban(name).await,
        }
    }

    /// Binds a registered name to another key, as of now. Returns the key that it was
    /// bound to; `None` if it is not registered, and then stays so.
    ///
    /// # Errors
    /// See the type.
    pub async fn transfer(
        &mut self,
        name: &PeerName,
        key: PeerKey,
    ) -> Result<Option<PeerKey>, NamesError> {
        match self {
            Self::Sqlite(it) => it.transfer(name, key),
            Self::Postgres(it) => it.transfer(name, key).await,
        }
    }

    /// Writes a copy to a new file of SQLite, even while servers use the names.
    ///
    /// # Errors
    /// See the type, or when the copy cannot be written.
    pub(crate) async fn copy_to(&mut self, copy: &Path) -> Result<(), NamesError> {
        match self {
            Self::Sqlite(it) => it.copy_to(copy),
            Self::Postgres(it) => it.copy_to(copy).await,
        }
    }

    /// Reads a little of them.
    ///
    /// # Errors
    /// See the type.
    pub(crate) async fn check_readable(&mut self) -> Result<(), NamesError> {
        match self {
            Self::Sqlite(it) => it.check_readable(),
            Self::Postgres(it) => it.check_readable().await,
        }
    }

    /// Whether an operator has changed names since the last call, or another server has
    /// ended keys or released names. Counts anew, too, if that is due.
    ///
    /// # Errors
    /// See the type.
    pub async fn has_changed_elsewhere(&mut self) -> Result<bool, NamesError> {
        match self {
            Self::Sqlite(it) => it.has_changed_elsewhere(),
            Self::Postgres(it) => it.has_changed_elsewhere().await,
        }
    }
}

/// A key as it is stored.
fn parsed<K: FromStr<Err = KeyTextError>>(
    text: &str,
    place: impl Display,
) -> Result<K, NamesError> {
    text.parse().map_err(|source| NamesError::Key {
        place: place.to_string(),
        source,
    })
}

/// Now, in seconds since 1970.
pub(crate) fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}
