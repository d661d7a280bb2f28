//! What can be wrong with a file or a disk, in terms both systems know.

use serde::{Deserialize, Serialize};

/// What is wrong with a file or a disk, in terms both systems know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum FileErrorKind {
    /// It is not there (any more).
    #[error("not found")]
    NotFound,
    /// The system forbids it.
    #[error("permission denied")]
    PermissionDenied,
    /// It was changed while it was being sent.
    #[error("changed while it was being sent")]
    Changed,
    /// A connection, a device or the like stands where a file was.
    #[error("not a regular file")]
    NotAFile,
    /// More or less can be read of it than the system says it holds, as of what the
    /// kernel makes up while it is read.
    #[error("its size is not known before it is read")]
    UnknownSize,
    /// What had come of it, or the folder it goes into, is gone.
    #[error("removed while it was being received")]
    Removed,
    /// The folder that everything goes into is gone.
    #[error("the folder to receive into was removed or moved")]
    FolderGone,
    /// A file, a link or the like stands where a folder should be.
    #[error("not a folder")]
    NotAFolder,
    /// No room left.
    #[error("the disk is full")]
    DiskFull,
    /// This user may not use more of the disk.
    #[error("the quota on the disk is used up")]
    Quota,
    /// There may be room, but not for one more file: all inodes are in use.
    #[error("the disk can hold no more files")]
    TooManyFiles,
    /// The disk takes no writes.
    #[error("the disk is read-only")]
    ReadOnly,
    /// The file system cannot hold a file this large.
    #[error("too large for the file system")]
    TooLarge,
    /// The file system cannot hold a name this long.
    #[error("the name is too long for the file system")]
    NameTooLong,
    /// The program that read what is written has ended, or reads no more.
    #[error("the program that read it takes no more")]
    ReaderGone,
    /// Anything else the system reported.
    #[error("could not be read or written")]
    Io,
}

impl FileErrorKind {
    /// The system's error in these terms.
    #[must_use]
    pub fn of(error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let inner = error.get_ref();
        if let Some(error) = inner.and_then(|inner| inner.downcast_ref::<FileError>()) {
            return error.trouble();
        }
        match error.kind() {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::PermissionDenied => Self::PermissionDenied,
            ErrorKind::StorageFull => Self::DiskFull,
            ErrorKind::QuotaExceeded => Self::Quota,
            ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            ErrorKind::FileTooLarge => Self::TooLarge,
            ErrorKind::InvalidFilename => Self::NameTooLong,
            ErrorKind::IsADirectory => Self::NotAFile,
            ErrorKind::NotADirectory => Self::NotAFolder,
            ErrorKind::BrokenPipe => Self::ReaderGone,
            #[cfg(unix)]
            _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                Self::NotAFile
            }
            _ => Self::Io,
        }
    }

    /// What the system's error says beyond that. Nothing where it would only say
    /// the same again.
    pub(crate) fn detail_of(error: &std::io::Error) -> String {
        match Self::of(error) {
            Self::Io | Self::NotAFile | Self::TooLarge => error.to_string(),
            _ => String::new(),
        }
    }

    /// Whether no file of the transfer can fare better.
    #[must_use]
    pub const fn is_of_the_disk(self) -> bool {
        self.leaves_room_later() || matches!(self, Self::FolderGone)
    }

    /// Whether the transfer can go on from where it is once the user has seen to the
    /// disk.
    #[must_use]
    pub const fn leaves_room_later(self) -> bool {
        matches!(
            self,
            Self::DiskFull | Self::Quota | Self::TooManyFiles | Self::ReadOnly
        )
    }
}

/// Why one file did not make it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// This side could not read or write it.
    #[error("{trouble}{}", in_brackets(detail))]
    Local {
        /// Why, in short.
        trouble: FileErrorKind,
        /// What else is to be said of it, if anything.
        detail: String,
    },
    /// The peer could not read or write it.
    #[error("on the other side: {0}")]
    Peer(FileErrorKind),
}

impl FileError {
    /// Why, whoever had the trouble.
    #[must_use]
    pub const fn trouble(&self) -> FileErrorKind {
        match self {
            Self::Local { trouble, .. } | Self::Peer(trouble) => *trouble,
        }
    }
}

/// One that was put into an [`std::io::Error`] comes out as it was.
impl From<std::io::Error> for FileError {
    fn from(error: std::io::Error) -> Self {
        error.downcast().unwrap_or_else(|error| Self::Local {
            trouble: FileErrorKind::of(&error),
            detail: FileErrorKind::detail_of(&error),
        })
    }
}

/// What else is to be said, behind the short form.
pub(crate) fn in_brackets(detail: &str) -> String {
    match detail {
        "" => String::new(),
        detail => format!(" ({detail})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that takes no more is not the same as a user who may use no more of it.
    #[cfg(unix)]
    #[test]
    fn what_the_system_says_keeps_its_meaning() {
        use rustix::io::Errno;
        for (errno, trouble, is_of_the_disk, leaves_room_later) in [
            (Errno::NOSPC, FileErrorKind::DiskFull, true, true),
            (Errno::DQUOT, FileErrorKind::Quota, true, true),
            (Errno::ROFS, FileErrorKind::ReadOnly, true, true),
            (Errno::NOENT, FileErrorKind::NotFound, false, false),
            (Errno::IO, FileErrorKind::Io, false, false),
        ] {
            assert_eq!(FileErrorKind::of(&errno.into()), trouble);
            let of = (trouble.is_of_the_disk(), trouble.leaves_room_later());
            assert_eq!(of, (is_of_the_disk, leaves_room_later), "{trouble}");
        }
    }

    #[test]
    fn the_same_is_not_said_twice() {
        let said = |number| FileError::from(std::io::Error::from_raw_os_error(number)).to_string();
        assert_eq!(said(13), "permission denied");
        if cfg!(unix) {
            let said = said(5);
            assert!(said.starts_with("could not be read or written ("), "{said}");
        }
    }
}
