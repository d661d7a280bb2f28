//! The controlling terminal, and whether the process may use it.

use std::fs::{File, OpenOptions};

/// Whether the process runs in the background. Reading the terminal then would stop the
/// whole process.
#[cfg(unix)]
pub(crate) fn is_in_background() -> bool {
    let in_front = rustix::termios::tcgetpgrp(std::io::stdin());
    in_front.is_ok_and(|group| group != rustix::process::getpgrp())
}

/// Windows has no job control.
#[cfg(not(unix))]
pub(crate) fn is_in_background() -> bool {
    false
}

/// Discards input that has not been read.
#[cfg(unix)]
pub(crate) fn forget_typed() {
    if !is_in_background() {
        let input = rustix::termios::QueueSelector::IFlush;
        // Without a terminal there is nothing to discard.
        let _ = rustix::termios::tcflush(std::io::stdin(), input);
    }
}

/// Windows has no way to do it. `Prompt` discards such lines itself.
#[cfg(not(unix))]
pub(crate) fn forget_typed() {}

/// Waits this long for input. Returns whether there is some.
#[cfg(unix)]
pub(crate) fn has_input(patience: std::time::Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdin = std::io::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
    let patience = Timespec::try_from(patience).ok();
    poll(&mut fds, patience.as_ref()).is_ok_and(|ready| ready > 0)
}

/// Reading blocks here.
#[cfg(not(unix))]
pub(crate) fn has_input(_patience: std::time::Duration) -> bool {
    true
}

/// Opens the terminal, even if the standard streams are redirected.
pub(crate) fn open() -> Option<File> {
    let path = if cfg!(windows) { "CONOUT$" } else { "/dev/tty" };
    OpenOptions::new().write(true).open(path).ok()
}
