//! Pinhole's transfer engine: files and folders from one peer to another over
//! any stream that is authenticated and encrypted already.
//!
//! A file walks through the modules once, from top to bottom:
//!
//! 1. [`Source`] finds it and makes an entry of the [`manifest`] of it, under
//!    a [`path::SafePath`];
//! 2. [`exchange`] offers the manifest as [`message`]s in [`frame`]s;
//! 3. `send` reads it in the [`chunking`] of chunks, hashes them ([`digest`]) and
//!    queues them for `connection`: some of it at once, the rest when the offer was
//!    accepted;
//! 4. on the other side `dispatch` asks the [`receiver`] whether each is due and
//!    hands it to `receive`, which verifies it and has `disk` write it to a part,
//!    make it durable, and give it its name;
//! 5. the [`sender`] believes the acknowledgement if it can be true, and the
//!    last one ends the transfer.
//!
//! `protocol` does no I/O.

mod connection;
mod control;
mod disk;
mod dispatch;
mod file_digests;
mod offers;
mod pipe;
mod prepared;
mod protocol;
mod receive;
mod resume;
mod send;
mod transfer;
mod transfer_table;

pub mod accept_options;
pub mod display;
pub mod event;
pub mod exchange;
pub mod progress;
pub mod rate_limit;

pub use accept_options::{AcceptOptions, Existing};
pub use connection::Resources;
pub use connection::buffer::BufferMemory;
pub use disk::destination::{Destination, DestinationError};
pub use disk::digest_cache::DigestCache;
pub use event::{ExchangeError, ExchangeEvent, Party, Renamed, Streamed, Summary, TransferError};
pub use exchange::{AcceptError, Exchange, start};
pub use offers::{OfferBudget, PeerOwner};
pub use pinhole_budget::Owner;
pub use pipe::{Pipe, PipeInput, PipeOutput};
pub use prepared::Prepared;
pub use progress::{Paused, Progress};
pub use protocol::file_error::{FileError, FileErrorKind};
pub use protocol::index::{ChunkIndex, EntryIndex};
pub use protocol::manifest::{Entry, Manifest};
pub use protocol::message::{DeclineReason, Side, TransferId};
pub use protocol::path::SafePath;
pub use protocol::selection::Selection;
pub use protocol::{
    chunking, digest, early, frame, manifest, message, path, receiver, sender, violation,
};
pub use rate_limit::RateLimit;
pub use resume::ResumeState;
pub use send::source::{SkipReason, Skipped, Source, SourceError};
