//! Pinhole's transfer engine: files and folders from one peer to another over
//! any stream that is authenticated and encrypted already.
//!
//! The way of a file, in the order of the code:
//!
//! 1. [`source`] finds it and makes an entry of the [`manifest`] of it, under
//!    a [`path::SafePath`];
//! 2. [`exchange`] offers the manifest as [`message`]s in [`frame`]s;
//! 3. once accepted, or at once where little comes along with its offer (and the
//!    first chunk of the first file in any case), `outgoing` reads it in the
//!    [`chunking`] of chunks, hashes them ([`digest`]) and queues them for `writer`;
//! 4. on the other side `reader` asks the [`receiver`] whether each is due and
//!    hands it to `incoming`, which verifies and writes it to a temporary of
//!    the `store`, makes it durable, gives it its name and says so;
//! 5. the [`sender`] believes the acknowledgement if it can be true, and the
//!    last one ends the transfer.
//!
//! [`sender`], [`receiver`] and everything they are made of do no I/O.

mod buffer;
mod connection;
mod digest_cache;
mod disk;
mod flight;
mod incoming;
mod journal;
mod liveness;
mod locked_file;
mod offers;
mod outgoing;
mod partial_file;
mod prepared;
mod reader;
mod resume;
mod store;
mod sync;
mod transfer_table;
mod writer;

pub mod accept_options;
pub mod chunking;
pub mod destination;
pub mod digest;
pub mod display;
pub mod event;
pub mod exchange;
pub mod frame;
pub mod manifest;
pub mod message;
pub mod path;
pub mod progress;
pub mod rate_limit;
pub mod receiver;
pub mod sender;
pub mod source;
mod version;
pub mod violation;

pub use accept_options::{AcceptOptions, Existing, Selection};
pub use buffer::BufferMemory;
pub use connection::{PeerOwner, Resources};
pub use destination::{Destination, DestinationError};
pub use digest_cache::DigestCache;
pub use event::{ExchangeError, ExchangeEvent, FileError, Party, Renamed, Summary, TransferError};
pub use exchange::{AcceptError, Exchange, start};
pub use manifest::{Entry, Manifest};
pub use message::{DeclineReason, FileErrorKind, Side, TransferId};
pub use offers::OfferBudget;
pub use path::SafePath;
pub use pinhole_budget::Owner;
pub use prepared::Prepared;
pub use progress::{Paused, Progress};
pub use rate_limit::RateLimit;
pub use resume::ResumeState;
pub use source::{SkipReason, Skipped, Source, SourceError};
