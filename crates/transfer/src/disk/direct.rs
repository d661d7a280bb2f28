//! Writing past the page cache (`O_DIRECT`, open(2)). What is large is seldom
//! read at once; written like this it is not copied, pushes out nothing that
//! others use, and little is left to do when it is to be durable.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use crate::disk::system;

/// Addresses, offsets and lengths are multiples of this. A file system that wants
/// more is written to as usual.
const ALIGN_BYTES: usize = 4096;

/// How much is written before the speed of a disk is judged.
const JUDGED_BYTES: u64 = 64 * 1024 * 1024;
/// What takes longer for that (256 MB/s) gains more by what the page cache
/// gathers for it, an array that computes parity above all, than copying costs.
const SLOW: Duration = Duration::from_millis(262);
/// How much is written to a slow disk through the cache before the next try.
const SLOW_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// A second way to write to a file.
#[derive(Debug)]
pub(crate) struct Direct(File);

/// How fast the disk has been of late, over all files that are written past the
/// page cache.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    written_bytes: u64,
    spent: Duration,
    /// How many bytes are still to be written through the cache.
    usual_bytes: u64,
}

impl Pace {
    /// Whether the next so many bytes better go past the page cache.
    fn allows(&mut self, next_bytes: u64) -> bool {
        let is_fast = self.usual_bytes == 0;
        self.usual_bytes = self.usual_bytes.saturating_sub(next_bytes);
        is_fast
    }

    fn add(&mut self, written_bytes: u64, spent: Duration) {
        self.written_bytes += written_bytes;
        self.spent += spent;
        if self.written_bytes >= JUDGED_BYTES {
            if self.spent > SLOW {
                self.usual_bytes = SLOW_BYTES;
            }
            (self.written_bytes, self.spent) = (0, Duration::ZERO);
        }
    }
}

impl Direct {
    /// `None` where a file knows no such thing, or the system does not say what
    /// it wants: Linux does from 6.1 on.
    #[cfg(target_os = "linux")]
    pub(crate) fn open(file: &File) -> Option<Self> {
        use std::os::fd::AsRawFd;
        use std::os::unix::fs::OpenOptionsExt;

        use rustix::fs::{AtFlags, OFlags, StatxFlags, statx};

        let stat = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
        let mut wanted = [stat.stx_dio_mem_align, stat.stx_dio_offset_align].into_iter();
        // Of zero, which says that it cannot, nothing else is a multiple.
        let fits = wanted.all(|align| ALIGN_BYTES.is_multiple_of(align as usize));
        if stat.stx_mask & StatxFlags::DIOALIGN.bits() == 0 || !fits {
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

    /// Writes all of `data` from `offset_bytes` on. `false` where it is better,
    /// or can only be, written as usual.
    ///
    /// # Errors
    /// Also `InvalidInput` and `Unsupported`, where the file system does not take
    /// it like this after all.
    pub(crate) fn write_at(
        &self,
        data: &[u8],
        offset_bytes: u64,
        pace: &mut Pace,
    ) -> io::Result<bool> {
        let length_bytes = data.len() as u64;
        if !is_aligned(data, offset_bytes) || !pace.allows(length_bytes) {
            return Ok(false);
        }
        let begin = Instant::now();
        system::write_at(&self.0, data, offset_bytes)?;
        pace.add(length_bytes, begin.elapsed());
        Ok(true)
    }
}

fn is_aligned(data: &[u8], offset_bytes: u64) -> bool {
    let is_aligned = |number: usize| number.is_multiple_of(ALIGN_BYTES);
    is_aligned(data.as_ptr().addr())
        && is_aligned(data.len())
        && offset_bytes.is_multiple_of(ALIGN_BYTES as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn a_disk_is_judged_by_what_it_has_done_of_late() {
        let mut pace = Pace::default();
        let mut write = |mib: u64, each| {
            (0..mib).all(|_| {
                let is_allowed = pace.allows(MIB);
                if is_allowed {
                    pace.add(MIB, each);
                }
                is_allowed
            })
        };
        let (fast, slow) = (SLOW / 65, SLOW / 60);
        assert!(write(6400, fast));
        // One long pause is borne, if what is around it is fast.
        assert!(write(1, SLOW / 2) && write(63, fast / 2));
        assert!(write(64, slow), "not judged before");
        for _ in 0..SLOW_BYTES / MIB {
            assert!(!write(1, fast));
        }
        assert!(write(64, fast), "tried again");
    }
}
