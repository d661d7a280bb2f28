//! Files that belong to one user and one process: private folders, locks, and files
//! that are replaced as a whole.
//!
//! A client's profile and a server's data directory are such folders.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Whether a replaced file has to survive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A crash leaves the old content or the new one.
    Durable,
    /// A power cut may leave an empty file.
    Fast,
}

/// Why a file cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds the lock. Its file may say more.
    #[error("another process holds the lock")]
    InUse(File),
    /// The file cannot be opened or locked.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Creates a folder that only its owner can enter, with the folders above it. A folder
/// that exists stays as it is.
///
/// # Errors
/// Any I/O error.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, DIR_MODE);
    builder.create(path)
}

/// Closes an existing folder to other users, unless it holds files that are not ours:
/// others may have to reach those, as in `/tmp`. Returns whether the folder is closed.
///
/// # Errors
/// Any I/O error.
pub fn restrict_dir(path: &Path, is_ours: impl Fn(&OsStr) -> bool) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        if !is_ours(&entry?.file_name()) {
            return Ok(false);
        }
    }
    restrict(path, DIR_MODE)?;
    Ok(true)
}

/// Closes a file to other users.
///
/// # Errors
/// Any I/O error.
pub fn restrict_file(path: &Path) -> io::Result<()> {
    restrict(path, FILE_MODE)
}

/// Takes away all rights beyond `mode`. A file without such rights is not touched.
#[cfg(unix)]
fn restrict(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let found = fs::metadata(path)?.permissions().mode() & 0o7777;
    if found & !mode == 0 {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(found & mode))
}

/// Windows keeps a user's folder from other users.
#[cfg(not(unix))]
fn restrict(_path: &Path, _mode: u32) -> io::Result<()> {
    Ok(())
}

/// Options that read and write a file, and create it for its owner only.
#[must_use]
pub fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, FILE_MODE);
    options
}

/// Creates and locks a file. The lock lasts as long as the returned file is open.
///
/// # Errors
/// Any [`LockError`].
pub fn lock(path: &Path) -> Result<File, LockError> {
    let file = match private_file().create(true).open(path) {
        // A folder that cannot be written may hold the file already.
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => File::open(path),
        file => file,
    }?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LockError::InUse(file)),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Where the new content of a file is written first.
#[must_use]
pub fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Replaces a file as a whole, by one that only its owner can read.
///
/// # Errors
/// Any I/O error. The old content then remains.
pub fn replace(path: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
    let temporary = temporary(path);
    // A file that others have left there could be open to them.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = private_file().create_new(true).open(&temporary)?;
    file.write_all(content)?;
    if durability == Durability::Durable {
        file.sync_all()?;
    }
    fs::rename(&temporary, path)?;
    match durability {
        Durability::Durable => sync_parent(path),
        Durability::Fast => Ok(()),
    }
}

/// Makes the name of a file or folder survive a power cut.
///
/// # Errors
/// Any I/O error.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    // Windows has no way to sync a folder.
    if cfg!(unix) {
        let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(temporary(&path), "of an earlier crash").unwrap();
        for (content, durability) in [("1", Durability::Durable), ("2", Durability::Fast)] {
            replace(&path, content.as_bytes(), durability).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_lock_is_held_until_its_file_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = lock(&path).unwrap();
        assert!(matches!(lock(&path), Err(LockError::InUse(_))));
        drop(held);
        lock(&path).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_is_closed_unless_it_holds_something_else() {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let open = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b");
        create_private_dir(&dir).unwrap();
        assert_eq!(mode(&dir), 0o700);
        let file = dir.join("ours");
        replace(&file, b"", Durability::Fast).unwrap();
        assert_eq!(mode(&file), 0o600);
        open(&dir, 0o755);
        open(&file, 0o444);
        restrict_file(&file).unwrap();
        assert_eq!(mode(&file), 0o400, "only takes rights away");
        let is_ours = |name: &OsStr| name == "ours";
        assert!(restrict_dir(&dir, is_ours).unwrap());
        assert_eq!(mode(&dir), 0o700);
        fs::write(dir.join("other"), "").unwrap();
        open(&dir, 0o755);
        assert!(!restrict_dir(&dir, is_ours).unwrap());
        assert_eq!(mode(&dir), 0o755);
    }
}
