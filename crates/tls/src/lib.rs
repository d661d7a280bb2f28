//! TLS 1.3 for bytes in bulk, without I/O.
//!
//! rustls shakes hands, checks the keys, seals and opens. Here its unbuffered
//! connections become two halves that a reader and a writer can have on their own:
//! a [`Sealer`] seals into the buffer that is sent, and an [`Opener`] leaves the
//! plaintext where the records lay.

#![forbid(unsafe_code)]

mod handshake;
mod records;
mod side;

pub use handshake::{Handshake, Step};
pub use records::{LONGEST_RECORD_BYTES, Opened, Opener, RecordError, SealError, Sealer};
