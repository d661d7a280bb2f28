//! Pinhole's rendezvous server and relay.
//!
//! It introduces peers to each other and knows names and addresses; it never
//! sees a byte of a file in the clear. All decisions are those of
//! [`pinhole_proto::registry`]; this crate gives it sockets, a clock,
//! randomness and a disk.
//!
//! ```text
//!   listener ──► connection ──┬── control ───────┐
//!   (budgets)    (TLS, first  ├── observation ───┼──► registrar ◄──► name worker
//!                 message)    └── relay ─────────┘    (the Registry)  (SQLite or PostgreSQL)
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`listener`] | which addresses and ports are listened on |
//! | [`data_dir`] | the server's key, its names, the lock on both, their backup, and the way into a database |
//! | [`names`] | names and the keys they are bound to, in SQLite or PostgreSQL |
//! | [`limits`] | every timeout and budget |
//! | `admission` | which key may have a connection, and which counts apart from newcomers |
//! | `slots` | a budget whose slots are given back when they are dropped |
//! | `caps` | warnings about bounds that an operator can raise |
//! | `turns` | the share of the processors that handshakes take |
//! | `proxy_protocol` | the address of a client behind a proxy |
//! | `connection` | one connection, from TLS to its end |
//! | `context` | what all connections share, how they are written to, and how they end |
//! | `relay_pairing` | pairing two connections at the relay |
//! | `registrar` | the task that owns the registry |
//! | `inbox` | the registrar's inputs and answers |
//! | `backlog` | the memory that waiting frames take |
//! | `name_claims` | which claims of names wait, and which are granted |
//! | `nodes` | the links to the other nodes of the server |
//! | `probe` | connects back to clients that ask for it |
//! | `relay`, `quota` | passes bytes between two peers; limits them for each day |
//! | `metrics`, `admin` | what is counted; metrics and health over HTTP |
//! | `log` | limits the log lines that clients cause |

mod admin;
mod admission;
mod backlog;
mod caps;
mod connection;
mod context;
pub mod data_dir;
mod inbox;
pub mod limits;
pub mod listener;
mod log;
mod memory;
mod metrics;
mod name_claims;
pub mod names;
mod nodes;
mod probe;
mod proxy_protocol;
mod quota;
mod registrar;
mod relay;
mod relay_pairing;
mod server;
mod slots;
mod turns;

pub use data_dir::{DataDir, Missing};
pub use limits::{Limits, RelayLimits};
pub use log::LoggedAddresses;
pub use nodes::{JoinError, KnownNode, NodeConfig, Roster};
pub use server::{Control, ServeError, ServerConfig, run, serve};
