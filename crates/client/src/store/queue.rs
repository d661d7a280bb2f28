//! What waits until its peer is online, kept in `queue.json` of the profile.

use std::path::PathBuf;

use pinhole_net::{PeerIdentity, PeerKey};
use serde::{Deserialize, Serialize};

use crate::stored_path;

/// Files for a peer that was not online when they were to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Queued {
    /// The server on which the peer has its name.
    pub(crate) server: PeerKey,
    pub(crate) peer: PeerIdentity,
    #[serde(with = "stored_path::list")]
    pub(crate) paths: Vec<PathBuf>,
}
