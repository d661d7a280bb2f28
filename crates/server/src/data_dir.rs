//! The server's directory: its key, its names, and a lock on both.
//!
//! Key and names belong together. Without its names a server would give every name away
//! again, and without its key it is another server to all clients. So the names note the
//! key's fingerprint, and when one of the two is missing, the server reports it instead
//! of starting afresh.
//!
//! Several servers with one key can share names in a PostgreSQL database. Then the
//! directory of each holds the key and the lock.

mod inspection;
mod migration;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use pinhole_proto::key::Fingerprint;
use pinhole_proto::tls::{Identity, IdentityError};
use pinhole_storage::{
    Durability, LockError, create_private_dir, private_file, replace, restrict_dir, restrict_file,
    sync_parent, temporary,
};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use tracing::warn;

use crate::names::{Database, Names, NamesError, PostgresNames, SqliteNames};

pub use inspection::{Inspection, inspect, is_in_use};
pub use migration::migrate;

const KEY: &str = "server.key";
const NAMES: &str = "names.sqlite";
const LOCK: &str = "lock";

/// Why a directory cannot be the server's.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another server runs on it.
    #[error(
        "{} is in use by another pinhole-server. Stop that one, or name another folder with \
         --data-dir",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Reading or writing failed.
    #[error(
        "{}: it cannot be read or written. Check who owns it and whether its disk works and has \
         room, or name another folder with --data-dir",
        path.display()
    )]
    Io {
        /// The file or directory concerned.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The key file is damaged.
    #[error(
        "{}: this is no key, or a damaged one. Put a backup in its place (pinhole-server backup \
         makes them), or name another folder with --data-dir",
        path.display()
    )]
    Identity {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        source: IdentityError,
    },
    /// The names cannot be read or written.
    #[error(transparent)]
    Names(#[from] NamesError),
    /// There is a key, but nothing of the names that belong to it.
    #[error(
        "{}: the names of this server are missing, though its key is there. Without them, anybody \
         could take any name. Put a backup in their place (pinhole-server backup makes them). To \
         begin without any names, start once with --start-afresh",
        path.display()
    )]
    NoNames {
        /// Where they should be.
        path: PathBuf,
    },
    /// There are names, but not the key of their server.
    #[error(
        "{}: the key of this server is missing, though there are {names} names. With another key \
         it is another server to everybody who knows it. Put a backup in its place \
         (pinhole-server backup makes them). To keep the names under a new key, start once with \
         --start-afresh",
        path.display()
    )]
    NoKey {
        /// Where it should be.
        path: PathBuf,
        /// How many.
        names: u64,
    },
    /// There is a key, but the database has no names that belong to it.
    #[error(
        "{database} has no names of this server, though its key is here. To carry the names of a \
         folder over, run pinhole-server migrate. To begin without any names, start once with \
         --start-afresh"
    )]
    NoNamesInDatabase {
        /// The database.
        database: Database,
    },
    /// The database has the names of a server, but its key is not here.
    #[error(
        "{}: the key of this server is missing. The names in the database belong to the server \
         {theirs}. Copy server.key from the data folder of another of its nodes, or from a backup. \
         To keep the names under a new key, start once with --start-afresh",
        path.display()
    )]
    KeyElsewhere {
        /// Where the key should be.
        path: PathBuf,
        /// Whose the names are.
        theirs: Fingerprint,
    },
    /// The names are those of another server.
    #[error(
        "{place}: these are the names of the server {theirs}, and the key is that of {ours}. Use \
         the two that belong together: name another folder with --data-dir, or another database \
         with --database. To take these names over, start once with --start-afresh"
    )]
    OtherServer {
        /// The names.
        place: String,
        /// Whose they are.
        theirs: Fingerprint,
        /// Whose the key is.
        ours: Fingerprint,
    },
    /// The system has no randomness to make a key from.
    #[error("no key can be made: the system's random numbers are not available")]
    Random,
    /// A backup is written to a new folder only.
    #[error("{} is there already. Name a new folder for the backup", path.display())]
    BackupExists {
        /// The folder.
        path: PathBuf,
    },
    /// There is nothing to make a backup of.
    #[error(
        "{}: there is no key of a server. Name the folder of the server with --data-dir",
        path.display()
    )]
    NothingThere {
        /// The folder.
        path: PathBuf,
    },
}

/// What to do when the key or the names are missing while the other is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Say so.
    Refuse,
    /// Make it anew.
    StartAfresh,
}

/// The server's directory, locked as long as this value lives.
#[derive(Debug)]
pub struct DataDir {
    identity: Identity,
    names: Names,
    lock: File,
}

impl DataDir {
    /// Opens and locks the directory. Creates it, with a key and an empty table of names,
    /// at first use.
    ///
    /// # Errors
    /// Any [`DataDirError`].
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        Self::open_with(path, Missing::Refuse)
    }

    /// The same, with a choice of what to do when a part is missing.
    ///
    /// # Errors
    /// Any [`DataDirError`].
    pub fn open_with(path: &Path, missing: Missing) -> Result<Self, DataDirError> {
        open_private_dir(path).map_err(io_error(path))?;
        let lock = lock(path)?;
        let (key_path, names_path) = (path.join(KEY), path.join(NAMES));
        let key = load_identity(&key_path)?;
        let is_empty = fs::metadata(&names_path).map_or(0, |file| file.len()) == 0;
        if is_empty && key.is_some() && missing == Missing::Refuse {
            return Err(DataDirError::NoNames { path: names_path });
        }
        let mut names = match is_empty {
            true => {
                let file = private_file().create(true).open(&names_path);
                file.map_err(io_error(&names_path))?;
                SqliteNames::create(&names_path)?
            }
            false => SqliteNames::open(&names_path)?,
        };
        let identity = match key {
            Some(identity) => {
                if is_empty {
                    warn!("beginning without any names, as --start-afresh says");
                }
                let ours = identity.key().fingerprint();
                check(&names, ours, missing)?;
                names.belong_to(ours)?;
                identity
            }
            None => {
                if names.count() > 0 && missing == Missing::Refuse {
                    let names = names.count();
                    return Err(DataDirError::NoKey {
                        path: key_path,
                        names,
                    });
                }
                let key = new_key(&key_path, names.server()?)?;
                // The names note it first, so a crash in between leaves names without a
                // key, of which there are none yet.
                names.belong_to(key.identity.key().fingerprint())?;
                write_key(&key_path, &key.document)?;
                key.identity
            }
        };
        for file in [&key_path, &names_path] {
            restrict_file(file).map_err(io_error(file))?;
        }
        Ok(Self {
            identity,
            names: Names::Sqlite(names),
            lock,
        })
    }

    /// Opens and locks the directory of a server whose names are in a database. Creates
    /// it, with a key and empty tables, at the first use of both.
    ///
    /// # Errors
    /// Any [`DataDirError`].
    pub async fn open_with_database(
        path: &Path,
        database: Database,
        missing: Missing,
    ) -> Result<Self, DataDirError> {
        open_private_dir(path).map_err(io_error(path))?;
        let lock = lock(path)?;
        let key_path = path.join(KEY);
        let key = load_identity(&key_path)?;
        let mut names = PostgresNames::create(database).await?;
        let identity = match (key, names.server().await?) {
            (Some(identity), server) => {
                let ours = identity.key().fingerprint();
                if missing == Missing::StartAfresh {
                    names.be_taken_over(ours).await?;
                } else {
                    check_server(&names, server, ours)?;
                }
                identity
            }
            (None, Some(theirs)) if missing == Missing::Refuse => {
                return Err(DataDirError::KeyElsewhere {
                    path: key_path,
                    theirs,
                });
            }
            (None, server) => {
                let key = new_key(&key_path, server)?;
                let ours = key.identity.key().fingerprint();
                match missing {
                    Missing::StartAfresh => names.be_taken_over(ours).await?,
                    // Another node may have been the first meanwhile.
                    Missing::Refuse => {
                        let server = names.belong_to(ours).await?;
                        check_server(&names, server, ours)?;
                    }
                }
                write_key(&key_path, &key.document)?;
                key.identity
            }
        };
        restrict_file(&key_path).map_err(io_error(&key_path))?;
        Ok(Self {
            identity,
            names: Names::Postgres(names),
            lock,
        })
    }

    /// The server's key pair.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The names, and the lock that has to be kept while they are used.
    pub(crate) fn into_names(self) -> (Names, File) {
        (self.names, self.lock)
    }
}

/// Checks that the names belong to the key `ours`.
fn check(names: &SqliteNames, ours: Fingerprint, missing: Missing) -> Result<(), DataDirError> {
    match names.server()? {
        _ if missing == Missing::StartAfresh => Ok(()),
        Some(theirs) if theirs != ours => Err(DataDirError::OtherServer {
            place: names.path().display().to_string(),
            theirs,
            ours,
        }),
        // Earlier versions noted nothing. What they left may also be a copy that was
        // made without its write-ahead log, in which nothing is left.
        None if names.count() == 0 => Err(DataDirError::NoNames {
            path: names.path().to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Checks that the names in a database belong to the key `ours`.
fn check_server(
    names: &PostgresNames,
    server: Option<Fingerprint>,
    ours: Fingerprint,
) -> Result<(), DataDirError> {
    match server {
        Some(theirs) if theirs == ours => Ok(()),
        Some(theirs) => Err(DataDirError::OtherServer {
            place: names.database().to_string(),
            theirs,
            ours,
        }),
        None => Err(DataDirError::NoNamesInDatabase {
            database: names.database().clone(),
        }),
    }
}

/// The key in the directory of a server.
fn existing_key(data_dir: &Path) -> Result<Fingerprint, DataDirError> {
    let identity = load_identity(&data_dir.join(KEY))?;
    let identity = identity.ok_or_else(|| DataDirError::NothingThere {
        path: data_dir.to_owned(),
    })?;
    Ok(identity.key().fingerprint())
}

/// The names in the directory of a server, which may be using them, and its key.
fn open_file(data_dir: &Path) -> Result<(Fingerprint, SqliteNames), DataDirError> {
    let ours = existing_key(data_dir)?;
    let names_path = data_dir.join(NAMES);
    if !names_path.exists() {
        return Err(DataDirError::NoNames { path: names_path });
    }
    let names = SqliteNames::open(&names_path)?;
    check(&names, ours, Missing::Refuse)?;
    Ok((ours, names))
}

/// Opens the names for an operator, while servers use them or not. They notice what
/// changes within seconds. With a database, the directory need not be there.
///
/// # Errors
/// Any [`DataDirError`].
pub async fn open_names(
    data_dir: &Path,
    database: Option<Database>,
) -> Result<Names, DataDirError> {
    match database {
        Some(database) => Ok(Names::Postgres(PostgresNames::open(database).await?)),
        None => open_file(data_dir).map(|(_, names)| Names::Sqlite(names)),
    }
}

/// The names of the server whose directory this is, which may be using them, and its key.
async fn open_shared(
    data_dir: &Path,
    database: Option<Database>,
) -> Result<(Fingerprint, Names), DataDirError> {
    let Some(database) = database else {
        return open_file(data_dir).map(|(ours, names)| (ours, Names::Sqlite(names)));
    };
    let ours = existing_key(data_dir)?;
    let mut names = PostgresNames::open(database).await?;
    let server = names.server().await?;
    check_server(&names, server, ours)?;
    Ok((ours, Names::Postgres(names)))
}

/// Writes the key and the names to a new directory, which is then a complete data
/// directory with the names in a file. Servers may be using them.
///
/// # Errors
/// Any [`DataDirError`].
pub async fn back_up(
    data_dir: &Path,
    database: Option<Database>,
    backup: &Path,
) -> Result<(Fingerprint, u64), DataDirError> {
    let (ours, mut names) = open_shared(data_dir, database).await?;
    if backup.exists() {
        return Err(DataDirError::BackupExists {
            path: backup.to_owned(),
        });
    }
    // A crash leaves a whole backup under this name, or none.
    let in_writing = temporary(backup);
    if in_writing.exists() {
        fs::remove_dir_all(&in_writing).map_err(io_error(&in_writing))?;
    }
    create_private_dir(&in_writing).map_err(io_error(&in_writing))?;
    let copy = in_writing.join(NAMES);
    names.copy_to(&copy).await?;
    restrict_file(&copy).map_err(io_error(&copy))?;
    let synced = File::open(&copy).and_then(|file| file.sync_all());
    synced.map_err(io_error(&copy))?;
    let key = fs::read(data_dir.join(KEY)).map_err(io_error(data_dir))?;
    write_key(&in_writing.join(KEY), &key)?;
    fs::rename(&in_writing, backup).map_err(io_error(backup))?;
    sync_parent(backup).map_err(io_error(backup))?;
    Ok((ours, names.count()))
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::Io { path, source }
}

/// Creates the directory, or closes an existing one to others.
fn open_private_dir(path: &Path) -> io::Result<()> {
    if !path.is_dir() {
        return create_private_dir(path);
    }
    let is_ours = |name: &std::ffi::OsStr| {
        let name = name.to_string_lossy();
        let is_key = matches!(name.strip_prefix(KEY), Some("" | ".new"));
        name == LOCK || is_key || name.starts_with(NAMES)
    };
    if !restrict_dir(path, is_ours)? {
        warn!(
            "{} holds other things, too; it stays as open as it is. A folder of its own is safer",
            path.display()
        );
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, DataDirError> {
    let path = dir.join(LOCK);
    pinhole_storage::lock(&path).map_err(|error| match error {
        LockError::InUse(_) => DataDirError::InUse {
            path: dir.to_owned(),
        },
        LockError::Io(source) => io_error(&path)(source),
    })
}

fn load_identity(path: &Path) -> Result<Option<Identity>, DataDirError> {
    let document = match fs::read(path) {
        Ok(document) => document,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(path)(error)),
    };
    let identity = Identity::from_pkcs8(&document);
    let path = path.to_owned();
    identity
        .map(Some)
        .map_err(|source| DataDirError::Identity { path, source })
}

/// A key that is not written yet.
struct NewKey {
    identity: Identity,
    document: Vec<u8>,
}

/// Makes a key for names that belong to the server `old`, if to any.
fn new_key(path: &Path, old: Option<Fingerprint>) -> Result<NewKey, DataDirError> {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
    let document = document.map_err(|_| DataDirError::Random)?;
    let identity = Identity::from_pkcs8(document.as_ref()).map_err(|source| {
        let path = path.to_owned();
        DataDirError::Identity { path, source }
    })?;
    let new = identity.key().fingerprint();
    match old {
        None => tracing::info!("a new key was made: {new}"),
        Some(old) => warn!(
            "the key {old} is missing; a new one was made: {new}. To everybody who knows the old \
             one, this is another server"
        ),
    }
    let document = document.as_ref().to_owned();
    Ok(NewKey { identity, document })
}

/// Half a key would lock out every client that has pinned it, so a crash leaves either no
/// key or a whole one.
fn write_key(path: &Path, key: &[u8]) -> Result<(), DataDirError> {
    replace(path, key, Durability::Durable).map_err(io_error(path))
}

#[cfg(test)]
mod tests {
    use pinhole_proto::key::PeerKey;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_the_owner_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a").join("b");
        let key = DataDir::open(&path).unwrap().identity().key();
        assert_eq!(DataDir::open(&path).unwrap().identity().key(), key);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(path.join("server.key")).unwrap();
            assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_directory_in_use_is_refused_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDir::open(dir.path()).unwrap();
        let refused = DataDir::open(dir.path()).unwrap_err();
        assert!(matches!(refused, DataDirError::InUse { .. }));
        let named = dir.path().display().to_string();
        assert!(refused.to_string().contains(&named));
        drop(held);
        DataDir::open(dir.path()).unwrap();
    }

    #[test]
    fn a_damaged_key_is_not_replaced_by_another() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("server.key"), b"half a k").unwrap();
        let refused = DataDir::open(dir.path()).unwrap_err();
        assert!(matches!(refused, DataDirError::Identity { .. }));
        let kept = fs::read(dir.path().join("server.key")).unwrap();
        assert_eq!(kept, b"half a k");
    }

    /// A directory with a key and two names.
    fn used() -> (tempfile::TempDir, Fingerprint) {
        let dir = tempfile::tempdir().unwrap();
        let opened = DataDir::open(dir.path()).unwrap();
        let fingerprint = opened.identity().key().fingerprint();
        drop(opened);
        let mut names = SqliteNames::open(&dir.path().join(NAMES)).unwrap();
        let wanted = [("alice", 1), ("bob", 2)].map(|(name, number)| {
            let key = PeerKey::from_bytes([number; 32]);
            (name.parse().unwrap(), key)
        });
        names.bind(&wanted).unwrap();
        (dir, fingerprint)
    }

    fn owner(dir: &Path, name: &str) -> Option<PeerKey> {
        let names = SqliteNames::open(&dir.join(NAMES)).unwrap();
        let entry = names.entry(&name.parse().unwrap()).unwrap();
        entry.and_then(|entry| entry.key)
    }

    #[test]
    fn missing_names_are_not_recreated_unasked() {
        for spoil in [
            (|path| fs::remove_file(path).unwrap()) as fn(&Path),
            |path| fs::write(path, b"").unwrap(),
            |path| {
                // What earlier versions left without its write-ahead log.
                fs::remove_file(path).unwrap();
                let empty = rusqlite::Connection::open(path).unwrap();
                empty.pragma_update(None, "user_version", 1).unwrap();
            },
        ] {
            let (dir, fingerprint) = used();
            spoil(&dir.path().join(NAMES));
            let refused = DataDir::open(dir.path()).unwrap_err();
            assert!(matches!(refused, DataDirError::NoNames { .. }), "{refused}");
            let refused = DataDir::open(dir.path()).unwrap_err();
            assert!(
                matches!(refused, DataDirError::NoNames { .. }),
                "still: {refused}"
            );
            let afresh = DataDir::open_with(dir.path(), Missing::StartAfresh).unwrap();
            assert_eq!(afresh.identity().key().fingerprint(), fingerprint);
            drop(afresh);
            DataDir::open(dir.path()).unwrap();
        }
    }

    #[test]
    fn a_missing_key_is_not_recreated_unasked() {
        let (dir, fingerprint) = used();
        fs::remove_file(dir.path().join(KEY)).unwrap();
        let refused = DataDir::open(dir.path()).unwrap_err();
        assert!(
            matches!(refused, DataDirError::NoKey { names: 2, .. }),
            "{refused}"
        );
        assert!(!dir.path().join(KEY).exists());
        let afresh = DataDir::open_with(dir.path(), Missing::StartAfresh).unwrap();
        assert_ne!(afresh.identity().key().fingerprint(), fingerprint);
        drop(afresh);
        assert!(owner(dir.path(), "alice").is_some());
        DataDir::open(dir.path()).unwrap();
    }

    #[test]
    fn the_names_of_another_server_are_refused() {
        let (dir, _) = used();
        let (other, _) = used();
        fs::copy(other.path().join(NAMES), dir.path().join(NAMES)).unwrap();
        let refused = DataDir::open(dir.path()).unwrap_err();
        assert!(
            matches!(refused, DataDirError::OtherServer { .. }),
            "{refused}"
        );
    }

    #[test]
    fn a_first_start_that_was_cut_short_can_be_repeated() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path()).unwrap());
        fs::remove_file(dir.path().join(KEY)).unwrap();
        drop(DataDir::open(dir.path()).unwrap());
        DataDir::open(dir.path()).unwrap();
    }

    #[tokio::test]
    async fn a_backup_is_whole_while_the_names_are_in_use() {
        let (dir, fingerprint) = used();
        let running = DataDir::open(dir.path()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let backup = folder.path().join("backup");
        assert_eq!(
            back_up(dir.path(), None, &backup).await.unwrap(),
            (fingerprint, 2)
        );
        let again = back_up(dir.path(), None, &backup).await.unwrap_err();
        assert!(matches!(again, DataDirError::BackupExists { .. }));
        drop(running);
        let restored = DataDir::open(&backup).unwrap();
        assert_eq!(restored.identity().key().fingerprint(), fingerprint);
        drop(restored);
        assert_eq!(owner(&backup, "bob"), owner(dir.path(), "bob"));
        let nothing = back_up(folder.path(), None, &backup.join("other")).await;
        let nothing = nothing.unwrap_err();
        assert!(matches!(nothing, DataDirError::NothingThere { .. }));
    }

    #[cfg(unix)]
    #[test]
    fn an_existing_data_dir_is_closed_to_others() {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let open = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let (dir, _) = used();
        let files = [KEY, NAMES].map(|name| dir.path().join(name));
        assert!(files.iter().all(|file| mode(file) == 0o600), "made so");
        open(dir.path(), 0o755);
        files.iter().for_each(|file| open(file, 0o644));
        drop(DataDir::open(dir.path()).unwrap());
        assert_eq!(mode(dir.path()), 0o700);
        assert!(files.iter().all(|file| mode(file) == 0o600));
        fs::write(dir.path().join("mine"), b"").unwrap();
        open(dir.path(), 0o755);
        drop(DataDir::open(dir.path()).unwrap());
        assert_eq!(mode(dir.path()), 0o755, "others have something there");
    }
}
