//! Writing past the page cache (`O_DIRECT`, open(2)). What is large is seldom
//! read at once; written like this it is not copied, pushes out nothing that
//! others use, and little is left to do when it is to be durable.

use std::{
    fs::File,
    io,
    time::{Duration, Instant},
};

/// Addresses, offsets and lengths are multiples of this. A file system that wants
/// more is written to as usual.
const ALIGN_BYTES: usize = 4096;

/// So much is written before a disk is judged.
const JUDGED_BYTES: usize = 64 * 1024 * 1024;
/// What takes longer for that (256 MB/s) gains more by what the page cache
/// gathers for it, an array that computes parity above all, than copying costs.
const SLOW: Duration = Duration::from_millis(262);

/// A second way to write to a file.
#[derive(Debug)]
pub(crate) struct Direct {
    file: File,
    pace: Pace,
}

/// How fast a disk has been of late.
#[derive(Debug, Default)]
struct Pace {
    written_bytes: usize,
    spent: Duration,
}

impl Pace {
    /// Counts a write. Whether the disk is slow.
    fn add(&mut self, written_bytes: usize, spent: Duration) -> bool {
        self.written_bytes += written_bytes;
        self.spent += spent;
        if self.written_bytes < JUDGED_BYTES {
            return false;
        }
        std::mem::take(self).spent > SLOW
    }
}

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
        Some(Self {
            file: opened.ok()?,
            pace: Pace::default(),
        })
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

    /// Writes all of `data` from `offset_bytes` on. `true` when the disk is one
    /// that is better written to as usual.
    ///
    /// # Errors
    /// Also `InvalidInput` and `Unsupported`, where the file system does not take
    /// it like this after all.
    pub(crate) fn write_at(&mut self, data: &[u8], offset_bytes: u64) -> io::Result<bool> {
        let begin = Instant::now();
        super::write_at(&self.file, data, offset_bytes)?;
        Ok(self.pace.add(data.len(), begin.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_judged_by_what_it_has_done_of_late() {
        let mut pace = Pace::default();
        let mut write = |count, each| (0..count).any(|_| pace.add(JUDGED_BYTES / 64, each));
        let (fast, slow) = (SLOW / 65, SLOW / 60);
        assert!(!write(6400, fast));
        // One long pause is borne, if what is around it is fast.
        assert!(!write(1, SLOW / 2) && !write(63, fast / 2));
        assert!(!write(63, slow));
        assert!(write(1, slow));
        assert!(!write(64, fast), "begins anew");
    }
}
