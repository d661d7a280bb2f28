//! TLS 1.3 for bytes in bulk, without I/O.
//!
//! rustls shakes hands, checks the keys and derives those of the connection
//! ([`Handshake`]). Its own record layer copies each byte twice to seal it and once
//! to open it. The one here leaves the bytes to the cipher, which copies them once
//! at most: a [`Sealer`] seals into the buffer that is sent, and an [`Opener`] opens
//! the records where they lie.
//!
//! With the feature `rustls-records`, rustls seals and opens behind the same two
//! types. It is there for the benchmark to compare the two.

#![forbid(unsafe_code)]

pub mod aead;
#[cfg(feature = "rustls-records")]
mod by_rustls;
mod handshake;
#[cfg_attr(feature = "rustls-records", allow(dead_code))]
mod records;

#[cfg(feature = "rustls-records")]
pub use by_rustls::{Opener, Sealer};
pub use handshake::{Handshake, Step};
pub use records::{LONGEST_RECORD_BYTES, Opened, RecordError, SealError};
#[cfg(not(feature = "rustls-records"))]
pub use records::{Opener, Sealer};
