//! The server's directory: its key, its names, and a lock on both.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use pinhole_proto::tls::{Identity, IdentityError};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;

/// Why a directory cannot be the server's.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another server runs on it.
    #[error("{} is in use by another pinhole-server", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Reading or writing failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory concerned.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The key file is damaged.
    #[error("{}: {source}", path.display())]
    Identity {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        source: IdentityError,
    },
    /// The system has no randomness to make a key from.
    #[error("no key can be made: the system's random numbers are not available")]
    Random,
}

/// The server's directory, locked as long as this value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: Identity,
    _lock: File,
}

impl DataDir {
    /// Opens and locks the directory; makes it, and a key in it, at first use.
    ///
    /// # Errors
    /// Any [`DataDirError`].
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        make_private_dir(path).map_err(io_error(path))?;
        let lock = lock(path)?;
        let identity = load_or_make_identity(path)?;
        Ok(Self {
            path: path.to_owned(),
            identity,
            _lock: lock,
        })
    }

    /// The server's key pair.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where [`crate::storage::Names`] are kept.
    #[must_use]
    pub fn names_path(&self) -> PathBuf {
        self.path.join("names.sqlite")
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::Io { path, source }
}

fn make_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn lock(dir: &Path) -> Result<File, DataDirError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io_error(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DataDirError::InUse {
            path: dir.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(io_error(&path)(source)),
    }
}

fn load_or_make_identity(dir: &Path) -> Result<Identity, DataDirError> {
    let path = dir.join("server.key");
    let document = match fs::read(&path) {
        Ok(document) => document,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
                .map_err(|_| DataDirError::Random)?;
            write_secret(dir, &path, document.as_ref()).map_err(io_error(&path))?;
            document.as_ref().to_vec()
        }
        Err(error) => return Err(io_error(&path)(error)),
    };
    Identity::from_pkcs8(&document).map_err(|source| DataDirError::Identity { path, source })
}

/// A crash leaves either no key or a whole one: half a key would lock every
/// client that pinned it out.
fn write_secret(dir: &Path, path: &Path, secret: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("key.new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary)?;
    file.write_all(secret)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_dir(dir)
}

#[cfg(unix)]
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(not(unix))]
fn sync_dir(_dir: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
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
}
