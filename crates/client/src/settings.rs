//! What the user has chosen, kept in `settings.json` of the profile.

use std::path::PathBuf;

use pinhole_net::{PathPolicy, PeerName, ServerAddress};
use serde::{Deserialize, Serialize};

/// What the user has chosen. A missing field means the default, so that older
/// and newer versions can share a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The name used last.
    pub name: Option<PeerName>,
    /// The server used last.
    pub server: Option<ServerAddress>,
    /// Where accepted files go; `None` for the default of the profile.
    pub download_folder: Option<PathBuf>,
    /// Which paths to peers may be used.
    pub path: PathPolicy,
    /// Whose offers are taken without asking.
    pub accept: AcceptPolicy,
}

/// Whose offers are taken without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcceptPolicy {
    /// Nobody's.
    #[default]
    Ask,
    /// Those of peers from whom an offer was accepted before.
    Contacts,
    /// Everybody's.
    All,
}
