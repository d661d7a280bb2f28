//! The decision on a peer's changed key.

use std::path::PathBuf;

use egui::{RichText, Ui};
use pinhole_client::{Command, PeerView};

use crate::action::Action;
use crate::{sheet, text, theme};

/// Draws the question over the window. `paths` are sent once the key is trusted.
pub(crate) fn show(ui: &Ui, peer: &PeerView, paths: &[PathBuf]) -> Vec<Action> {
    let name = peer.identity.name.as_str();
    let key = peer.identity.key;
    sheet::show(ui, "trust", |ui| {
        ui.label(
            RichText::new(text::is_this_still(name))
                .heading()
                .size(19.0),
        );
        ui.add_space(theme::GAP);
        ui.label(text::key_changed(name));
        ui.add_space(theme::GAP_LARGE);
        let now = (text::NEW_FINGERPRINT, Some(key.fingerprint()));
        let before = (text::OLD_FINGERPRINT, peer.changed_from);
        theme::warning_card(ui).show(ui, |ui| {
            ui.set_width(ui.available_width());
            for (words, fingerprint) in [now, before] {
                let Some(fingerprint) = fingerprint else {
                    continue;
                };
                ui.label(theme::muted(ui, words));
                let fingerprint = RichText::new(text::grouped(&fingerprint.to_string()));
                ui.add(egui::Label::new(fingerprint.monospace()).selectable(true));
            }
        });
        ui.add_space(theme::GAP_LARGE);
        let mut actions = Vec::new();
        ui.horizontal_wrapped(|ui| {
            if theme::primary_button(ui, text::DO_NOT_TRUST, true).clicked() {
                actions.push(Action::CloseSheet);
            }
            if theme::button(ui, text::TRUST).clicked() {
                actions.push(Action::Command(Command::TrustNewKey { peer: key }));
                if !paths.is_empty() {
                    let paths = paths.to_vec();
                    actions.push(Action::Command(Command::Send { peer: key, paths }));
                }
                actions.push(Action::CloseSheet);
            }
        });
        actions
    })
}
