//! The ends of pipes: what is read once, to be sent, and what is written once, as it is
//! received.

use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;

use parking_lot::Mutex;

/// Bytes that are sent as they are read, to their end.
pub type PipeInput = Pipe<dyn Read + Send>;
/// Where a single file is written as it is received.
pub type PipeOutput = Pipe<dyn Write + Send>;

/// One end of a pipe, which serves one transfer. Clones are the same.
pub struct Pipe<T: ?Sized> {
    name: Arc<str>,
    end: Arc<Mutex<Option<Box<T>>>>,
}

impl<T: ?Sized> Pipe<T> {
    /// The end of a pipe, and what it is called where it does not serve.
    #[must_use]
    pub fn new(name: &str, end: Box<T>) -> Self {
        Self {
            name: name.into(),
            end: Arc::new(Mutex::new(Some(end))),
        }
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a transfer has begun to use it.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.end.lock().is_none()
    }

    /// For the transfer that uses it; `None` when another does, or has.
    pub(crate) fn take(&self) -> Option<Box<T>> {
        self.end.lock().take()
    }
}

impl<T: ?Sized> Clone for Pipe<T> {
    fn clone(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            end: Arc::clone(&self.end),
        }
    }
}

impl<T: ?Sized> fmt::Debug for Pipe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pipe").field(&self.name).finish()
    }
}

/// Equal are clones.
impl<T: ?Sized> PartialEq for Pipe<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.end, &other.end)
    }
}

impl<T: ?Sized> Eq for Pipe<T> {}
