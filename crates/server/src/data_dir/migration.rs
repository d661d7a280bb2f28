//! Carries the names of a directory over to a database.

use std::fs;
use std::path::Path;

use pinhole_proto::key::Fingerprint;
use pinhole_storage::sync_parent;

use super::{DataDirError, NAMES, check_server, io_error, lock, open_file};
use crate::names::{Database, PostgresNames};

/// What the file is called after its names were carried over, so that no server gives out
/// names from it any more.
const MIGRATED: &str = "names.sqlite.migrated";

/// Carries names, bans and the key's fingerprint over to an empty database, all or nothing.
/// No server may run on the directory. Returns the fingerprint and how many names there
/// are.
///
/// # Errors
/// Any [`DataDirError`].
pub async fn migrate(
    data_dir: &Path,
    database: Database,
) -> Result<(Fingerprint, u64), DataDirError> {
    let (ours, source) = open_file(data_dir)?;
    let _lock = lock(data_dir)?;
    let mut names = PostgresNames::create(database).await?;
    let server = names.server().await?;
    if server.is_some() {
        check_server(&names, server, ours)?;
    }
    names.take_over(&source, ours).await?;
    let count = source.count();
    drop(source);
    let (file, migrated) = (data_dir.join(NAMES), data_dir.join(MIGRATED));
    fs::rename(&file, &migrated).map_err(io_error(&file))?;
    sync_parent(&migrated).map_err(io_error(&migrated))?;
    Ok((ours, count))
}
