//! Pinhole's rendezvous server and relay.
//!
//! It introduces peers to each other and knows names and addresses; it never
//! sees a byte of a file in the clear. All decisions are those of
//! [`pinhole_proto::registry`]; this crate gives it sockets, a clock,
//! randomness and a disk.
//!
//! ```text
//!   listener ──► connection ──┬── control ───────┐
//!   (budgets)    (TLS, first  ├── observation ───┼──► registrar ◄──► storage
//!                 message)    └── relay ─────────┘    (the Registry)  (names)
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`listener`] | which addresses and ports are listened on |
//! | [`data_dir`] | the server's key, its names, the lock on both, and their backup |
//! | [`storage`] | names and the keys they are bound to, in SQLite |
//! | [`limits`] | every timeout and budget |
//! | `admission` | who may have a connection, and who has the reserve |
//! | `slots` | a budget whose places are given back when dropped |
//! | `proxy` | whose connection it is that a proxy passes on |
//! | `connection` | one connection, from TLS to its end |
//! | `context` | what all connections share, how they are written to, and how they end |
//! | `meeting` | two connections that meet at the relay |
//! | `registrar` | the task that owns the registry |
//! | `inbox` | what it is told, and what it answers |
//! | `backlog` | the memory that waiting frames take |
//! | `claims` | which claims of names wait, and which are granted |
//! | `probe` | connects back to clients that ask for it |
//! | `relay`, `quota` | passes bytes between two peers; how many in a day |
//! | `log` | which lines about clients go into the log |

mod admission;
mod backlog;
mod connection;
mod context;
pub mod data_dir;
mod inbox;
pub mod limits;
pub mod listener;
mod log;
mod meeting;
mod memory;
mod name_claims;
mod probe;
mod proxy;
mod quota;
mod registrar;
mod relay;
mod server;
mod slots;
pub mod storage;

pub use data_dir::{DataDir, Missing};
pub use limits::{Limits, RelayLimits};
pub use server::{ServeError, run, run_behind};
