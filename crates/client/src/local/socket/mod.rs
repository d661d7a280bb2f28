//! How faces of one user reach each other on one machine.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(super) use self::unix::{Listener, Stream, connect, is_same_user};
#[cfg(windows)]
pub(super) use self::windows::{Listener, Stream, connect, is_same_user};
