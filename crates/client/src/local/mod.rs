//! One profile, several faces: the process that holds the profile serves the others.
//!
//! A face that finds the profile held connects to a socket in the profile's folder (on
//! Windows to a named pipe) and works through the engine of the holder: it sends
//! [`crate::Command`]s, and takes [`crate::Event`]s and what has changed of the
//! [`crate::Snapshot`]. Each message is JSON behind its length.
//!
//! | module | what it holds |
//! |---|---|
//! | `socket` | reaching each other, and being the same user |
//! | `frame` | messages on a stream of bytes |
//! | `update` | what has changed from one snapshot to the next |
//! | `host` | the side of the holder |
//! | `attached` | the side of the other face |

mod attached;
mod frame;
mod host;
mod socket;
mod update;

use serde::{Deserialize, Serialize};

pub use self::attached::AttachError;
pub(crate) use self::attached::{Attached, Outlets};
pub(crate) use self::host::Host;
use self::update::Update;
use crate::event::Event;
use crate::model::FaceId;
use crate::store::Holder;

/// Of how these messages are meant. The messages themselves change with the program.
const PROTOCOL: u32 = 1;

/// What both sides have to agree on. Every version of Pinhole can read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Version {
    protocol: u32,
    program: String,
}

impl Version {
    fn own() -> Self {
        Self {
            protocol: PROTOCOL,
            program: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (local protocol {})", self.program, self.protocol)
    }
}

/// The first message of a face.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    #[serde(flatten)]
    version: Version,
    /// A [`crate::FaceKind`], once the version is right.
    face: serde_json::Value,
}

/// The answer to it.
#[derive(Debug, Serialize, Deserialize)]
struct Greeting {
    #[serde(flatten)]
    version: Version,
    holder: Holder,
    /// What the face is called there, or why it is not let in.
    admitted: Result<FaceId, String>,
}

/// What the holder says from then on.
#[derive(Debug, Serialize, Deserialize)]
enum HostMessage {
    Update(Box<Update>),
    Event(Event),
}
