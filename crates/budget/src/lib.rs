//! Limits on what others can make a process hold and do.
//!
//! Everything that a peer or a client can cause counts against its key, its network, or
//! both. Three kinds of limits cover all of it. None has a clock, a lock or I/O of its
//! own:
//!
//! * [`Budget`] limits things that are *held* (connections, sessions, unanswered
//!   offers). It has a bound for the process, for a key and for a network, and a reserve
//!   for known keys. When it is full, the newcomer who holds most is evicted.
//! * [`RateLimiter`] limits how often something is *done* (logins, invitations, texts),
//!   for each key.
//! * [`ByteRate`] limits bytes a second.
//!
//! [`amount`] parses and formats such amounts. [`give_back_memory`] returns freed memory
//! to the system.
//!
//! `governor` covers only the second kind: it does not count things that are given back,
//! and has neither a reserve nor eviction.

pub mod amount;
mod bytes;
mod held;
mod memory;
mod rate;
mod subnet;

pub use bytes::ByteRate;
pub use held::{Bounds, Budget, Full, Owner, SubnetBounds, Taken, Ticket};
pub use memory::give_back_memory;
pub use rate::{Rate, RateLimiter, SubnetRateLimiter};
pub use subnet::{Subnet, subnets};
