//! What others may make a process hold and do.
//!
//! Everything that a peer or a client can cause counts against somebody: its key,
//! its network, or both. Three bounds cover all of it, none with a clock, a lock or
//! I/O of its own:
//!
//! * [`Budget`]: things that are *held* (connections, sessions, unanswered offers).
//!   Each has a bound for the process, for a key and for a network, and a reserve for
//!   those who are known. When it is full, the heaviest newcomer gives way.
//! * [`RateLimiter`]: things that are *done* (logins, invitations, texts), so often
//!   for each key.
//! * [`ByteRate`]: bytes a second.
//!
//! [`amount`] parses and formats such amounts, and [`give_back_memory`] is for
//! when much that was held is not held any more.
//!
//! `governor` covers the second alone: it counts no things that are given back, and
//! knows no reserve and no eviction.

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
