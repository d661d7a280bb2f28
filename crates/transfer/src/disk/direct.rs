//! Writing past the page cache (`O_DIRECT`, open(2)). What is large is seldom
//! read at once; written like this it is not copied, pushes out nothing that
//! others use, and little is left to do when it is to be durable.

use std::{fs::File, io};

/// Addresses, offsets and lengths are multiples of this. A file system that wants
/// more is written to as usual.
const ALIGN_BYTES: usize = 4096;

/// A second way to write to a file.
#[derive(Debug)]
pub(crate) struct Direct(File);

impl Direct {
    /// `None` where a file knows no such thing, or the system does not say what
    /// it wants: Linux does from 6.1 on.
    #[cfg(target_os = "linux")]
    pub(crate) fn open(file: &File) -> Option<Self> {
        use std::os::{fd::AsRawFd, unix::fs::OpenOptionsExt};

        use rustix::fs::{AtFlags, OFlags, StatxFlags, statx};

        let stat = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
        let wants = [stat.stx_dio_mem_align, stat.stx_dio_offset_align];
        // Zero for a file that cannot.
        let fits = |wants| ALIGN_BYTES.is_multiple_of(wants as usize) && wants > 0;
        if stat.stx_mask & StatxFlags::DIOALIGN.bits() == 0 || !wants.into_iter().all(fits) {
            return None;
        }
        // Its name may be another's by now; the open file is not.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = OFlags::DIRECT.bits().cast_signed();
        let opened = File::options().write(true).custom_flags(flags).open(path);
        opened.map(Self).ok()
    }

    /// `None`: on no other system.
    #[cfg(not(target_os = "linux"))]
    pub(crate) const fn open(_: &File) -> Option<Self> {
        None
    }

    /// Whether `data` at this offset can be written like this.
    pub(crate) fn takes(data: &[u8], offset_bytes: u64) -> bool {
        let is_aligned = |number: usize| number.is_multiple_of(ALIGN_BYTES);
        is_aligned(data.as_ptr().addr())
            && is_aligned(data.len())
            && offset_bytes.is_multiple_of(ALIGN_BYTES as u64)
    }

    /// Writes all of `data` from `offset_bytes` on. Fails with `InvalidInput`
    /// where the file system does not take it after all.
    pub(crate) fn write_at(&self, data: &[u8], offset_bytes: u64) -> io::Result<()> {
        super::write_at(&self.0, data, offset_bytes)
    }
}
