//! Looks at a data directory without changing it.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use pinhole_proto::key::Fingerprint;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use super::{DataDirError, KEY, LOCK, NAMES, check_server, load_identity};
use crate::names::{Database, NamesError, PostgresNames};

/// What is in a data directory.
#[derive(Debug, Default)]
pub struct Inspection {
    /// The server's key, if there is one.
    pub key: Option<Fingerprint>,
    /// How many names there are, if they can be read.
    pub names: Option<u64>,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
}

/// Looks at key and names, also while servers use them. A directory that is not there has
/// nothing wrong with it: the server makes it.
///
/// # Errors
/// When the key or the names cannot be read.
pub async fn inspect(
    data_dir: &Path,
    database: Option<Database>,
) -> Result<Inspection, DataDirError> {
    match database {
        Some(database) => inspect_database(data_dir, database).await,
        None => inspect_file(data_dir),
    }
}

/// Whether a server uses this directory at the moment.
#[must_use]
pub fn is_in_use(data_dir: &Path) -> bool {
    let lock = File::open(data_dir.join(LOCK));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

async fn inspect_database(data_dir: &Path, database: Database) -> Result<Inspection, DataDirError> {
    let key_path = data_dir.join(KEY);
    let identity = load_identity(&key_path)?;
    let mut found = Inspection {
        key: identity.map(|identity| identity.key().fingerprint()),
        ..Inspection::default()
    };
    let mut names = match PostgresNames::open(database).await {
        Err(NamesError::NoTables { .. }) if found.key.is_none() => return Ok(found),
        opened => opened?,
    };
    found.names = Some(names.count());
    match (found.key, names.server().await?) {
        (Some(ours), server) => check_server(&names, server, ours)?,
        (None, Some(theirs)) => {
            return Err(DataDirError::KeyElsewhere {
                path: key_path,
                theirs,
            });
        }
        (None, None) => return Ok(found),
    }
    for path in [data_dir, &key_path] {
        found.problems.extend(too_open(path));
    }
    Ok(found)
}

fn inspect_file(data_dir: &Path) -> Result<Inspection, DataDirError> {
    let mut found = Inspection::default();
    if !data_dir.exists() {
        return Ok(found);
    }
    let (key_path, names_path) = (data_dir.join(KEY), data_dir.join(NAMES));
    let identity = load_identity(&key_path)?;
    found.key = identity.map(|identity| identity.key().fingerprint());
    let has_names = fs::metadata(&names_path).is_ok_and(|file| file.len() > 0);
    match (found.key, has_names) {
        (Some(_), false) => return Err(DataDirError::NoNames { path: names_path }),
        (None, false) => return Ok(found),
        _ => {}
    }
    let (names, theirs, damage) = read(&names_path).map_err(|source| NamesError::Sqlite {
        path: names_path.clone(),
        source,
    })?;
    found.names = Some(names);
    found.problems.extend(damage);
    let theirs: Option<Fingerprint> = match theirs.map(|text| text.parse()).transpose() {
        Ok(theirs) => theirs,
        Err(source) => {
            let place = names_path.display().to_string();
            return Err(NamesError::Key { place, source }.into());
        }
    };
    match (found.key, theirs) {
        (None, _) if names > 0 => {
            return Err(DataDirError::NoKey {
                path: key_path,
                names,
            });
        }
        (Some(ours), Some(theirs)) if ours != theirs => {
            let place = names_path.display().to_string();
            return Err(DataDirError::OtherServer {
                place,
                theirs,
                ours,
            });
        }
        _ => {}
    }
    for path in [data_dir, &key_path, &names_path] {
        found.problems.extend(too_open(path));
    }
    Ok(found)
}

/// How many names there are, whose they are, and how the file is damaged.
fn read(path: &Path) -> rusqlite::Result<(u64, Option<String>, Option<String>)> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let damage: String =
        connection.pragma_query_value(None, "integrity_check", |row| row.get(0))?;
    let damage = (damage != "ok").then(|| {
        let path = path.display();
        format!("{path}: the file is damaged ({damage}). Put a backup in its place")
    });
    let count: i64 = connection.query_row("SELECT count(*) FROM names", [], |row| row.get(0))?;
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    // The first format noted no server.
    let server = match version {
        0 | 1 => None,
        _ => connection
            .query_row("SELECT fingerprint FROM server", [], |row| row.get(0))
            .optional()?,
    };
    Ok((u64::try_from(count).unwrap_or(0), server, damage))
}

#[cfg(unix)]
fn too_open(path: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let found = fs::metadata(path).ok()?;
    let mode = found.permissions().mode() & 0o777;
    let shown = path.display();
    (mode & 0o077 != 0).then(|| {
        format!("{shown} is open to other users (mode {mode:o}). Close it with chmod go= {shown}")
    })
}

#[cfg(not(unix))]
fn too_open(_path: &Path) -> Option<String> {
    None
}
