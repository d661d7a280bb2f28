//! TLS 1.3 for bytes in bulk, without I/O.
//!
//! rustls performs the handshake, checks the keys, and encrypts and decrypts. This crate
//! splits its unbuffered connections into two halves that a reader and a writer can own:
//! a [`Sealer`] encrypts into the buffer that is sent, and an [`Opener`] decrypts in
//! place.

#![forbid(unsafe_code)]

mod handshake;
mod records;
mod side;

pub use handshake::{Handshake, Step};
pub use records::{LONGEST_RECORD_BYTES, Opened, Opener, RecordError, SealError, Sealer};
