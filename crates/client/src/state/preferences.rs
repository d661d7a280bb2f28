//! What the user changes in the settings. A change counts for this run, too, whatever it
//! was started with.

use super::State;
use crate::command::Command;

impl State {
    pub(super) fn change_setting(&mut self, command: Command) {
        let (settings, overrides) = (&mut self.settings, &mut self.overrides);
        match command {
            Command::SetDownloadFolder { folder } => {
                settings.download_folder = Some(folder);
                overrides.download_folder = None;
            }
            Command::SetProxy { proxy } => {
                settings.proxy = proxy;
                overrides.proxy = None;
            }
            Command::SetAcceptPolicy { policy } => {
                settings.accept = policy;
                overrides.accept = None;
            }
            Command::SetStrangers { strangers } => {
                settings.strangers = strangers;
                overrides.strangers = None;
            }
            Command::SetUnaskedBytesMax { bytes } => {
                settings.unasked_bytes_max = bytes;
                overrides.unasked_bytes_max = None;
            }
            Command::SetExisting { existing } => {
                settings.existing = existing;
                overrides.existing = None;
            }
            Command::SetKeepsExecutable { keeps } => {
                settings.keeps_executable = keeps;
                overrides.keeps_executable = None;
            }
            Command::SetAutoLogIn { on } if settings.auto_log_in == on => return,
            Command::SetAutoLogIn { on } => settings.auto_log_in = on,
            Command::SetPortMapping { enabled } => {
                settings.port_mapping = enabled;
                overrides.port_mapping = None;
            }
            Command::SetLimits { send, receive } => {
                (settings.send_limit, settings.receive_limit) = (send, receive);
                (overrides.send_limit, overrides.receive_limit) = (None, None);
            }
            Command::SetNearby { on } => {
                settings.nearby = on;
                overrides.nearby = None;
                self.obey_nearby();
            }
            _ => return,
        }
        self.store_settings();
    }

    fn obey_nearby(&mut self) {
        if !self.in_force().allows_nearby() {
            self.leave_nearby();
        } else if let (true, Some(name)) = (self.login.is_wanted(), self.settings.name.clone()) {
            self.be_nearby(name, true);
        }
    }
}
