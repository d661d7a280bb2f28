//! A socket in the profile's folder, for its owner alone.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use pinhole_storage::restrict_file;
use tokio::net::{UnixListener, UnixStream};

use crate::store::SOCKET_FILE;

/// The longest path that the address of a socket has room for on every Unix.
const ADDRESS_BYTES_MAX: usize = 103;

pub(in crate::local) type Stream = UnixStream;

/// The socket of the process that holds the profile. Its name goes when this is dropped.
#[derive(Debug)]
pub(in crate::local) struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Only for whoever holds the profile: takes the place of a socket that a process
    /// has left that was killed.
    pub(in crate::local) fn bind(folder: &Path) -> io::Result<Self> {
        let path = folder.join(SOCKET_FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&Address::of(folder)?.path)?;
        let listener = Self { listener, path };
        restrict_file(&listener.path)?;
        Ok(listener)
    }

    pub(in crate::local) async fn accept(&mut self) -> io::Result<Stream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The next one that is bound takes the place of one that stays.
        let _ = fs::remove_file(&self.path);
    }
}

/// Connects to whoever holds the profile.
pub(in crate::local) async fn connect(folder: &Path) -> io::Result<Stream> {
    let address = Address::of(folder)?;
    UnixStream::connect(&address.path).await
}

/// Whether the other end is a process of the same user. The administrator is another one:
/// who may do everything can also become this user.
pub(in crate::local) fn is_same_user(stream: &Stream) -> io::Result<bool> {
    Ok(stream.peer_cred()?.uid() == rustix::process::geteuid().as_raw())
}

/// A path to the socket that fits into an address.
struct Address {
    path: PathBuf,
    /// Open while the path leads through it.
    _folder: Option<File>,
}

impl Address {
    fn of(folder: &Path) -> io::Result<Self> {
        let path = folder.join(SOCKET_FILE);
        if path.as_os_str().len() <= ADDRESS_BYTES_MAX {
            return Ok(Self {
                path,
                _folder: None,
            });
        }
        Self::through(File::open(folder)?)
    }

    /// Linux has a short path to everything that is open.
    #[cfg(target_os = "linux")]
    fn through(folder: File) -> io::Result<Self> {
        use std::os::fd::AsRawFd as _;
        let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
        Ok(Self {
            path: Path::new(&path).join(SOCKET_FILE),
            _folder: Some(folder),
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn through(_folder: File) -> io::Result<Self> {
        Err(io::Error::new(
            io::ErrorKind::InvalidFilename,
            "the path of the profile is too long for a socket in it",
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn reaches(folder: &Path) {
        let mut listener = Listener::bind(folder).unwrap();
        let path = folder.join(SOCKET_FILE);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (one, other) = tokio::join!(connect(folder), listener.accept());
        let (mut one, mut other) = (one.unwrap(), other.unwrap());
        assert!(is_same_user(&one).unwrap() && is_same_user(&other).unwrap());
        one.write_all(b"x").await.unwrap();
        assert_eq!(other.read_u8().await.unwrap(), b'x');
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_is_private_and_goes_with_its_holder() {
        let folder = tempfile::tempdir().unwrap();
        reaches(folder.path()).await;
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_folder_may_be_deeper_than_an_address_is_long() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("deep ".repeat(40)).join("x".repeat(200));
        fs::create_dir_all(&deep).unwrap();
        reaches(&deep).await;
    }

    #[tokio::test]
    async fn a_socket_that_a_killed_process_has_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let left = std::os::unix::net::UnixListener::bind(folder.path().join(SOCKET_FILE));
        drop(left.unwrap());
        let refused = connect(folder.path()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        reaches(folder.path()).await;
    }
}
