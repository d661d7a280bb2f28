//! Pinhole's rendezvous server and relay.
//!
//! It introduces peers to each other and knows names and addresses; it never
//! sees a byte of a file in the clear. All decisions are those of
//! [`pinhole_proto::registry`]; this crate gives it sockets, a clock,
//! randomness and a disk.
//!
//! ```text
//!   listener ──► connection ──┬── control ───────┐
//!   (caps)       (TLS, first  ├── observation ───┼──► registrar ◄──► storage
//!                 message)    └── relay ─────────┘    (the Registry)  (names)
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`listener`] | which addresses and ports are listened on |
//! | [`data_dir`] | the server's key and the lock on its directory |
//! | [`storage`] | names and the keys they are bound to, in SQLite |
//! | [`limits`] | every timeout and cap |
//! | `admission` | counts connections by address and by key |
//! | `connection` | one connection, from TLS to its end |
//! | `registrar` | the task that owns the registry |
//! | `claims` | which claims of names wait, and which are granted |
//! | `probe` | connects back to clients that ask for it |
//! | `relay` | passes bytes between two peers, within its limits |
//! | `quota`, `throttle` | bytes a day for each two keys; bytes a second |
//! | `pace` | how often something may happen |

mod admission;
mod claims;
mod connection;
pub mod data_dir;
pub mod limits;
pub mod listener;
mod pace;
mod probe;
mod quota;
mod registrar;
mod relay;
mod server;
pub mod storage;
mod throttle;

pub use data_dir::DataDir;
pub use limits::{Limits, Rate, RelayLimits};
pub use server::{ServeError, run};
