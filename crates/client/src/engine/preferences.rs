//! What the user changes in the settings. A change counts for this run, too, whatever it
//! was started with.

use std::path::PathBuf;

use pinhole_net::ProxyChoice;
use pinhole_transfer::Existing;

use super::Engine;
use crate::settings::AcceptPolicy;

impl Engine {
    pub(super) async fn set_download_folder(&mut self, folder: PathBuf) {
        self.settings.download_folder = Some(folder);
        self.overrides.download_folder = None;
        self.store_settings().await;
    }

    pub(super) async fn set_accept_policy(&mut self, policy: AcceptPolicy) {
        self.settings.accept = policy;
        self.overrides.accept = None;
        self.store_settings().await;
    }

    pub(super) async fn set_unasked_bytes_max(&mut self, bytes: Option<u64>) {
        self.settings.unasked_bytes_max = bytes;
        self.overrides.unasked_bytes_max = None;
        self.store_settings().await;
    }

    pub(super) async fn set_existing(&mut self, existing: Existing) {
        self.settings.existing = existing;
        self.overrides.existing = None;
        self.store_settings().await;
    }

    pub(super) async fn set_keeps_executable(&mut self, keeps: bool) {
        self.settings.keeps_executable = keeps;
        self.overrides.keeps_executable = None;
        self.store_settings().await;
    }

    pub(super) async fn set_auto_log_in(&mut self, on: bool) {
        if self.settings.auto_log_in != on {
            self.settings.auto_log_in = on;
            self.store_settings().await;
        }
    }

    pub(super) async fn set_port_mapping(&mut self, enabled: bool) {
        self.settings.port_mapping = enabled;
        self.overrides.port_mapping = None;
        self.obey_port_mapping();
        self.store_settings().await;
    }

    pub(super) async fn set_proxy(&mut self, proxy: ProxyChoice) {
        self.settings.proxy = proxy;
        self.overrides.proxy = None;
        self.proxy.send_replace(self.in_force().proxy);
        self.store_settings().await;
    }

    pub(super) async fn set_limits(&mut self, send: Option<u64>, receive: Option<u64>) {
        self.settings.send_limit = send;
        self.settings.receive_limit = receive;
        self.overrides.send_limit = None;
        self.overrides.receive_limit = None;
        self.apply_limits();
        self.store_settings().await;
    }

    pub(super) fn apply_limits(&self) {
        let settings = self.in_force();
        self.resources.send.set(settings.send_limit);
        self.resources.receive.set(settings.receive_limit);
    }

    pub(super) fn obey_port_mapping(&self) {
        match self.in_force().port_mapping {
            true => self.port_mapper.switch_on(),
            false => self.port_mapper.switch_off(),
        }
    }
}
