//! Connecting to one peer: the agent decides, the driver does.
//!
//! | module | what it holds |
//! |---|---|
//! | `connector` | the handle: connecting, accepting, looking for better paths |
//! | `attempt` | what one attempt is given, and what comes of it |
//! | `driver` | running the agent of one attempt |
//! | `sockets` | its sockets |
//! | `punch_port` | a local port whose public address is known beforehand |
//! | `warm_port` | keeping one of them ready |

mod attempt;
mod connector;
mod driver;
mod error;
mod punch_port;
mod sockets;
mod warm_port;

pub use attempt::Accepted;
pub use connector::{ConnectConfig, Connector, PendingLogin};
pub use error::ConnectError;
pub use warm_port::Warmth;
