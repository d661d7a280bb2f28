//! What the user has chosen, kept in `settings.json` of the profile.

use std::path::PathBuf;

use pinhole_net::{PathPolicy, PeerName, ProxyChoice, ServerAddress};
use pinhole_transfer::{Existing, PipeOutput};
use serde::{Deserialize, Serialize};

/// What the user has chosen. A missing field means the default, so that older
/// and newer versions can share a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The name used last.
    pub name: Option<PeerName>,
    /// The server used last.
    pub server: Option<ServerAddress>,
    /// A face that is used daily logs in with them by itself when it is started.
    pub auto_log_in: bool,
    /// Where accepted files go; `None` for the default of the profile.
    #[serde(with = "crate::stored_path::optional")]
    pub download_folder: Option<PathBuf>,
    /// Which paths to peers may be used.
    pub path: PathPolicy,
    /// Whether the server is reached through a proxy.
    pub proxy: ProxyChoice,
    /// Whose offers are taken without asking.
    pub accept: AcceptPolicy,
    /// The most bytes of an offer that is taken without asking; any other
    /// waits for the user. `None` for no such limit.
    pub unasked_bytes_max: Option<u64>,
    /// How the invitations of strangers are answered.
    pub strangers: Strangers,
    /// What happens where something of the same name is there already, unless
    /// the user says otherwise for one offer.
    pub existing: Existing,
    /// Received programs can be executed.
    pub keeps_executable: bool,
    /// How fast files may travel to all peers together, in bytes per second.
    pub send_limit: Option<u64>,
    /// How fast files may travel from all peers together, in bytes per second.
    pub receive_limit: Option<u64>,
    /// People on the same network find each other without a server. Off,
    /// nothing is announced and nothing asked there.
    pub nearby: bool,
    /// The router is asked to forward ports (PCP, NAT-PMP, `UPnP`).
    pub port_mapping: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: None,
            server: None,
            auto_log_in: true,
            download_folder: None,
            path: PathPolicy::default(),
            proxy: ProxyChoice::default(),
            accept: AcceptPolicy::default(),
            unasked_bytes_max: None,
            strangers: Strangers::default(),
            existing: Existing::default(),
            keeps_executable: false,
            send_limit: None,
            receive_limit: None,
            nearby: true,
            port_mapping: true,
        }
    }
}

/// What differs from the settings in one run, and is not stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// See [`Settings::path`].
    pub path: Option<PathPolicy>,
    /// See [`Settings::proxy`].
    pub proxy: Option<ProxyChoice>,
    /// See [`Settings::accept`].
    pub accept: Option<AcceptPolicy>,
    /// See [`Settings::unasked_bytes_max`].
    pub unasked_bytes_max: Option<u64>,
    /// See [`Settings::strangers`].
    pub strangers: Option<Strangers>,
    /// See [`Settings::download_folder`].
    pub download_folder: Option<PathBuf>,
    /// See [`Settings::existing`].
    pub existing: Option<Existing>,
    /// See [`Settings::keeps_executable`].
    pub keeps_executable: Option<bool>,
    /// See [`Settings::send_limit`].
    pub send_limit: Option<u64>,
    /// See [`Settings::receive_limit`].
    pub receive_limit: Option<u64>,
    /// See [`Settings::nearby`].
    pub nearby: Option<bool>,
    /// See [`Settings::port_mapping`].
    pub port_mapping: Option<bool>,
    /// This run only sends, or asks: whoever wants to send to it finds nobody there.
    pub takes_nothing: bool,
    /// What is accepted goes into this pipe: a single file, once.
    pub output: Option<PipeOutput>,
}

impl Overrides {
    /// The options of the command line for what this run would do otherwise than one that
    /// obeys these settings.
    pub(crate) fn differing(&self, settings: &Settings) -> Vec<&'static str> {
        let with = settings.with(self);
        let differs = [
            (with.path != settings.path, "--path"),
            (with.proxy != settings.proxy, "--proxy"),
            (with.accept != settings.accept, "--accept"),
            (
                with.unasked_bytes_max != settings.unasked_bytes_max,
                "--max-size",
            ),
            (with.strangers != settings.strangers, "--strangers"),
            (with.download_folder != settings.download_folder, "--into"),
            (with.existing != settings.existing, "--existing"),
            (
                with.keeps_executable != settings.keeps_executable,
                "--executable",
            ),
            (
                with.send_limit != settings.send_limit
                    || with.receive_limit != settings.receive_limit,
                "--limit",
            ),
            (with.nearby != settings.nearby, "--no-nearby"),
            (
                with.port_mapping != settings.port_mapping,
                "--no-port-mapping",
            ),
        ];
        let differs = differs.into_iter().filter(|(differs, _)| *differs);
        differs.map(|(_, option)| option).collect()
    }
}

impl Settings {
    /// Whether people nearby may be looked for: never where our address is to
    /// be hidden.
    #[must_use]
    pub fn allows_nearby(&self) -> bool {
        self.nearby && self.path != PathPolicy::RelayOnly
    }

    /// The settings as a run with these differences obeys them.
    #[must_use]
    pub(crate) fn with(&self, overrides: &Overrides) -> Self {
        let folder = overrides.download_folder.as_ref();
        Self {
            name: self.name.clone(),
            server: self.server.clone(),
            auto_log_in: self.auto_log_in,
            download_folder: folder.or(self.download_folder.as_ref()).cloned(),
            path: overrides.path.unwrap_or(self.path),
            proxy: overrides.proxy.as_ref().unwrap_or(&self.proxy).clone(),
            accept: overrides.accept.unwrap_or(self.accept),
            unasked_bytes_max: overrides.unasked_bytes_max.or(self.unasked_bytes_max),
            strangers: overrides.strangers.unwrap_or(self.strangers),
            existing: overrides.existing.unwrap_or(self.existing),
            keeps_executable: overrides.keeps_executable.unwrap_or(self.keeps_executable),
            send_limit: overrides.send_limit.or(self.send_limit),
            receive_limit: overrides.receive_limit.or(self.receive_limit),
            nearby: overrides.nearby.unwrap_or(self.nearby),
            port_mapping: overrides.port_mapping.unwrap_or(self.port_mapping),
        }
    }
}

/// Whose offers are taken without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcceptPolicy {
    /// Nobody's offers.
    #[default]
    Ask,
    /// Those of peers from whom an offer was accepted before.
    Contacts,
    /// Everybody's.
    All,
}

/// How the invitation of a key is answered that the user has not chosen yet, by
/// sending to it, accepting something of it, or trusting it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strangers {
    /// Over the relay alone, which hides our addresses; once the user accepts
    /// something, on the direct path. Where there is no relay, as with `Ask`.
    #[default]
    Relay,
    /// In the same way as that of a contact, so a stranger learns our addresses.
    Direct,
    /// Only after the user has allowed it ([`crate::Command::Allow`]).
    Ask,
}
