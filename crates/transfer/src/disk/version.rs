//! Whether a file is still what it was: the one answer for all that was offered,
//! read, sent ahead or remembered of it.
//!
//! A file is the same as long as its device, inode, size and times are. The time of
//! its last change (`ctime`) counts beside that of its last modification: any
//! program can set the latter back, and none the former. Windows does not tell it to
//! programs like this one; there the time of the last write has to do.

use std::fs::File;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use cap_fs_ext::MetadataExt;
use cap_std::fs::Metadata;

use crate::disk::system;

/// A file as it is at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileVersion {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified_ns: Option<i64>,
    changed_ns: Option<i64>,
}

impl FileVersion {
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        Ok(Self::of_metadata(&Metadata::from_file(file)?))
    }

    pub(crate) fn of_metadata(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.len(),
            modified_ns: modified_ns(metadata),
            changed_ns: changed_ns(metadata),
        }
    }

    pub(crate) const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Whether the open `file`, found at the path of one that had this version, is
    /// still that one, by what the system tells of it `now`.
    pub(crate) fn is_still(&self, file: &File, now: &Metadata) -> bool {
        let now = Self::of_metadata(now);
        let renumbered = Self {
            inode: self.inode,
            ..now
        };
        now == *self || (renumbered == *self && system::numbers_files_anew(file))
    }
}

/// When a file or folder was last modified, in nanoseconds since 1970, where an
/// `i64` can hold them.
pub(crate) fn modified_ns(metadata: &Metadata) -> Option<i64> {
    since_1970_ns(metadata.modified().ok()?.into_std())
}

#[cfg(unix)]
fn changed_ns(metadata: &Metadata) -> Option<i64> {
    use cap_std::fs::MetadataExt;
    let seconds_ns = metadata.ctime().checked_mul(1_000_000_000)?;
    seconds_ns.checked_add(metadata.ctime_nsec())
}

#[cfg(not(unix))]
const fn changed_ns(_: &Metadata) -> Option<i64> {
    None
}

fn since_1970_ns(time: SystemTime) -> Option<i64> {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).ok(),
        Err(before) => i64::try_from(before.duration().as_nanos())
            .ok()?
            .checked_neg(),
    }
}
