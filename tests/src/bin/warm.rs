//! Memory that is there when it is asked for. The host of a virtual machine may
//! take back what its guest leaves free for some seconds (free page reporting);
//! who writes there next waits for it, page by page: 4 GiB took up to six times as
//! long. In a race the contender that comes after a pause would pay.
//!
//! ```text
//! warm FOLDER BYTES    # says "warm", and ends with its input
//! ```
//!
//! Holds memory for so much to be written into the file system of the folder, which
//! is one in memory or goes through it, and gives it back a little ahead of that. A
//! process of its own, because a child's peak of memory is never less than its parent's.

#[cfg(target_os = "linux")]
mod linux {
    use std::env;
    use std::ffi::CString;
    use std::io::{self, Read};
    use std::os::unix::ffi::OsStringExt;
    use std::sync::mpsc::{self, RecvTimeoutError};
    use std::thread;
    use std::time::Duration;

    use anyhow::{Context, Result};

    const BLOCK_BYTES: usize = 64 << 20;
    const PAGE_BYTES: usize = 4096;
    /// At most so much is free before it is written to: more than is written until
    /// the next look.
    const AHEAD_BYTES: u64 = 1 << 30;
    /// The host takes nothing back as soon as this.
    const LOOK: Duration = Duration::from_millis(50);

    pub(crate) fn run() -> Result<()> {
        let mut arguments = env::args_os().skip(1);
        let folder = CString::new(arguments.next().context("no folder")?.into_vec())?;
        let bytes = arguments.next().context("no bytes")?;
        let bytes: u64 = bytes.to_str().context("no number")?.parse()?;
        let begun_bytes = used_bytes(&folder)?;
        let mut held = blocks(bytes);
        drop(blocks(AHEAD_BYTES.min(bytes)));
        println!("warm");
        let ended = ended();
        let mut given_bytes = 0;
        while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            let written_bytes = used_bytes(&folder)?.saturating_sub(begun_bytes);
            while given_bytes < written_bytes && held.pop().is_some() {
                given_bytes += BLOCK_BYTES as u64;
            }
        }
        Ok(())
    }

    /// Closed with the input.
    fn ended() -> mpsc::Receiver<()> {
        let (open, ended) = mpsc::channel();
        thread::spawn(move || {
            let _ = io::stdin().read_to_end(&mut Vec::new());
            drop(open);
        });
        ended
    }

    fn blocks(bytes: u64) -> Vec<Vec<u8>> {
        (0..bytes.div_ceil(BLOCK_BYTES as u64))
            .map(|_| block())
            .collect()
    }

    fn block() -> Vec<u8> {
        let mut block = vec![0; BLOCK_BYTES];
        for page in block.chunks_mut(PAGE_BYTES) {
            if let Some(first) = page.first_mut() {
                *first = 1;
            }
        }
        block
    }

    #[allow(unsafe_code)]
    fn used_bytes(folder: &CString) -> Result<u64> {
        // SAFETY: zeros are a valid `statvfs`.
        let mut room: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: the path ends with a zero, and the variable is of the type asked for.
        let outcome = unsafe { libc::statvfs(folder.as_ptr(), &raw mut room) };
        if outcome != 0 {
            return Err(io::Error::last_os_error()).context("statvfs");
        }
        Ok((room.f_blocks - room.f_bfree) * room.f_frsize)
    }
}

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    linux::run()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("this needs Linux");
}
