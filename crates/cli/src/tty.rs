//! The terminal that the process belongs to, and whether it may use it.

use std::fs::{File, OpenOptions};

/// Whether the shell has put this process behind others. Whoever reads the terminal
/// then is stopped, and everything else of the process with it.
#[cfg(unix)]
pub(crate) fn is_in_background() -> bool {
    let in_front = rustix::termios::tcgetpgrp(std::io::stdin());
    in_front.is_ok_and(|group| group != rustix::process::getpgrp())
}

/// There is no job control.
#[cfg(not(unix))]
pub(crate) fn is_in_background() -> bool {
    false
}

/// Forgets what has been typed and not been read.
#[cfg(unix)]
pub(crate) fn forget_typed() {
    if !is_in_background() {
        let input = rustix::termios::QueueSelector::IFlush;
        // There is nothing to forget where it is no terminal.
        let _ = rustix::termios::tcflush(std::io::stdin(), input);
    }
}

/// The system cannot do it; see `Prompt`, which throws such lines away.
#[cfg(not(unix))]
pub(crate) fn forget_typed() {}

/// Waits this long for something to read. Returns whether there is something.
#[cfg(unix)]
pub(crate) fn has_input(patience: std::time::Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdin = std::io::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
    let patience = Timespec::try_from(patience).ok();
    poll(&mut fds, patience.as_ref()).is_ok_and(|ready| ready > 0)
}

/// Reading waits by itself.
#[cfg(not(unix))]
pub(crate) fn has_input(_patience: std::time::Duration) -> bool {
    true
}

/// The terminal itself, wherever the standard streams go.
pub(crate) fn open() -> Option<File> {
    let path = if cfg!(windows) { "CONOUT$" } else { "/dev/tty" };
    OpenOptions::new().write(true).open(path).ok()
}
