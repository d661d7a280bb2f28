//! Files of our own under names that anybody can tell, in folders that others
//! may write to.
//!
//! Who could put a file there before could keep it open, and change what we have
//! verified; or let it be another file of the user's, under one more name.

use std::fs::{File, TryLockError};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use cap_fs_ext::{FollowSymlinks, MetadataExt, OpenOptionsFollowExt};
use cap_std::fs::{Dir, Metadata, OpenOptions};

use crate::disk::system;
use crate::protocol::path::PART_SUFFIX;

/// A file of our own, open for reading and writing and locked.
#[derive(Debug)]
pub(crate) struct OwnFile {
    pub(crate) file: File,
    /// Nothing has had its name before, so that it is empty.
    pub(crate) is_new: bool,
}

/// Opens a file of our own for reading and writing and locks it. Fails with
/// `AlreadyExists` where it is somebody else's, or in use.
pub(crate) fn open_own(dir: &Dir, name: &str) -> io::Result<File> {
    let file = dir.open_with(name, &options())?;
    lock_found(dir, name, file.into_std())
}

/// As [`open_own`], and makes it where there is none.
pub(crate) fn create_own(dir: &Dir, name: &str) -> io::Result<OwnFile> {
    let (file, is_new) = match create_new(dir, name) {
        Ok(file) => (lock_new(dir, name, file)?, true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let file = dir.open_with(name, &options()).map_err(|_| taken())?;
            (lock_found(dir, name, file.into_std())?, false)
        }
        Err(error) => return Err(error),
    };
    Ok(OwnFile { file, is_new })
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).follow(FollowSymlinks::No);
    #[cfg(unix)]
    {
        use cap_std::fs::OpenOptionsExt;
        // It is not executable, and the user's mask removes more rights.
        options.mode(0o644);
    }
    options
}

fn create_new(dir: &Dir, name: &str) -> io::Result<File> {
    let file = dir.open_with(name, options().create_new(true))?;
    Ok(file.into_std())
}

fn taken() -> io::Error {
    io::ErrorKind::AlreadyExists.into()
}

/// Nobody else can have made it, whatever the file system says of its owner. But
/// another attempt may have found it before it was locked.
fn lock_new(dir: &Dir, name: &str, file: File) -> io::Result<File> {
    match file.try_lock() {
        Ok(()) => {}
        // A file system without locks; what is new is in no other hands.
        Err(TryLockError::Error(_)) => return Ok(file),
        Err(TryLockError::WouldBlock) => return Err(taken()),
    }
    match has_name(dir, name, &file) {
        Ok(true) => Ok(file),
        // Put away by that attempt, which leaves nothing behind.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(taken()),
        // Trying other names could leave a file under each.
        Ok(false) => Err(io::Error::other("a new file has lost its name to another")),
        Err(error) => {
            // Nothing is in it yet, and nobody else would put it away.
            let _ = dir.remove_file(name);
            Err(error)
        }
    }
}

fn lock_found(dir: &Dir, name: &str, file: File) -> io::Result<File> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(error)) if system::has_failed(&error) => return Err(error),
        Err(_) => return Err(taken()),
    }
    match is_own(dir, name, &file) {
        Ok(true) => Ok(file),
        Err(error) if system::has_failed(&error) => Err(error),
        _ => Err(taken()),
    }
}

/// Whether a locked file still has its name, and neither another name nor
/// another owner.
fn is_own(dir: &Dir, name: &str, file: &File) -> io::Result<bool> {
    let metadata = Metadata::from_file(file)?;
    // Some file systems do not count the names, and say none.
    let is_alone = metadata.is_file() && metadata.nlink() <= 1;
    Ok(is_alone
        && has_name(dir, name, file)?
        && (system::is_ours(file)? || is_as_good_as_ours(dir, file)?))
}

/// Whether the file is still under this name: another could rename it or put it
/// away.
pub(crate) fn has_name(dir: &Dir, name: &str, file: &File) -> io::Result<bool> {
    let metadata = Metadata::from_file(file)?;
    let named = dir.symlink_metadata(name)?;
    Ok((named.dev(), named.ino()) == (metadata.dev(), metadata.ino()))
}

/// Whether what we make in this folder gets the owner that `file` has: on a file
/// system that keeps no owners, or that knows us under another number. Whoever
/// could have put `file` there then could change as well what we make.
fn is_as_good_as_ours(dir: &Dir, file: &File) -> io::Result<bool> {
    static TRIALS: AtomicU32 = AtomicU32::new(0);
    let (process, trial) = (std::process::id(), TRIALS.fetch_add(1, Ordering::Relaxed));
    let name = format!(".{process}-{trial}{PART_SUFFIX}");
    let new = create_new(dir, &name)?;
    let is_same = system::have_same_owner(&new, file);
    dir.remove_file(&name)?;
    is_same
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used, unsafe_code)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use cap_std::ambient_authority;
    use tempfile::{TempDir, tempdir};

    use super::*;

    const SOMEBODY: u32 = 12_345;

    fn folder() -> (TempDir, Dir) {
        let folder = tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let dir = Dir::open_ambient_dir(folder.path(), ambient_authority()).unwrap();
        (folder, dir)
    }

    /// As on a file system that gives what we make to somebody else. `None`, said
    /// aloud, without the right to that.
    fn as_somebody<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
        if !rustix::process::geteuid().is_root() {
            use std::io::Write;
            // Past the capture of the test harness.
            let _ = writeln!(io::stderr(), "SKIPPED: files of others, which needs root");
            return None;
        }
        // The number is that of a thread.
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // SAFETY: it takes a number and touches no memory.
                unsafe { libc::setfsuid(SOMEBODY) };
                work()
            });
            Some(thread.join().unwrap())
        })
    }

    fn names(folder: &TempDir) -> Vec<String> {
        let names = fs::read_dir(folder.path()).unwrap();
        names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn what_we_make_is_ours_whoever_is_said_to_own_it() {
        let (folder, dir) = folder();
        let opened = as_somebody(|| create_own(&dir, "a"));
        let Some(opened) = opened else {
            return;
        };
        drop(opened.unwrap());
        let found = as_somebody(|| open_own(&dir, "a")).unwrap();
        drop(found.unwrap());
        let found = as_somebody(|| create_own(&dir, "a")).unwrap();
        drop(found.unwrap());
        assert_eq!(names(&folder), ["a"]);
    }

    #[test]
    fn what_somebody_else_has_put_there_is_not_ours() {
        let (folder, dir) = folder();
        if as_somebody(|| fs::write(folder.path().join("a"), "").unwrap()).is_none() {
            return;
        }
        let all = fs::Permissions::from_mode(0o666);
        fs::set_permissions(folder.path().join("a"), all).unwrap();
        let errors = [open_own(&dir, "a").err(), create_own(&dir, "a").err()];
        for error in errors {
            assert_eq!(error.unwrap().kind(), io::ErrorKind::AlreadyExists);
        }
        assert_eq!(names(&folder), ["a"]);
    }

    #[test]
    fn what_has_another_name_or_is_in_use_is_not_ours() {
        let (folder, dir) = folder();
        fs::write(folder.path().join("victim"), "").unwrap();
        fs::hard_link(folder.path().join("victim"), folder.path().join("a")).unwrap();
        let error = create_own(&dir, "a").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        let used = create_own(&dir, "b").unwrap();
        let error = create_own(&dir, "b").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        drop(used);
        assert!(create_own(&dir, "b").is_ok());
    }
}
