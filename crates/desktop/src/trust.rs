//! The decision on a peer's changed key.

use std::path::PathBuf;

use egui::{RichText, Ui};
use pinhole_client::{Command, Fingerprint, PeerView, ServerAddress};

use crate::action::UiAction;
use crate::{sheet, text, theme};

/// Draws the question over the window. `paths` are sent once the key is trusted.
/// A click before the question `is_ready` was meant for something else.
pub(crate) fn show(ui: &Ui, peer: &PeerView, paths: &[PathBuf], is_ready: bool) -> Vec<UiAction> {
    let name = peer.identity.name.as_str();
    let key = peer.identity.key;
    sheet::show(ui, "trust", |ui| {
        ui.label(
            RichText::new(text::is_this_still(name))
                .heading()
                .size(19.0),
        );
        ui.add_space(theme::GAP);
        ui.label(match peer.released {
            true => text::name_released(name),
            false => text::key_changed(name),
        });
        ui.add_space(theme::GAP_LARGE);
        let now = (text::NEW_FINGERPRINT, Some(key.fingerprint()));
        let before = (text::OLD_FINGERPRINT, peer.changed_from);
        theme::warning_card(ui).show(ui, |ui| {
            ui.set_width(ui.available_width());
            fingerprints(ui, [now, before]);
        });
        ui.add_space(theme::GAP_LARGE);
        let mut actions = Vec::new();
        ui.horizontal_wrapped(|ui| {
            if theme::primary_button(ui, text::DO_NOT_TRUST).clicked() {
                actions.push(UiAction::CloseSheet);
            }
            let trust = ui.add_enabled_ui(is_ready, |ui| theme::button(ui, text::TRUST));
            if trust.inner.clicked() {
                actions.push(UiAction::Command(Command::TrustNewKey { peer: key }));
                if !paths.is_empty() {
                    let paths = paths.to_vec();
                    actions.push(UiAction::Command(Command::Send { peer: key, paths }));
                }
                actions.push(UiAction::CloseSheet);
            }
        });
        actions
    })
}

/// A server's key is another one: the known and the new fingerprint beside each
/// other, and what to do.
pub(crate) fn server(
    ui: &mut Ui,
    server: &ServerAddress,
    known: Option<Fingerprint>,
    shown: Option<Fingerprint>,
) -> Option<UiAction> {
    let now = (text::NEW_FINGERPRINT, shown);
    let before = (text::OLD_FINGERPRINT, known);
    fingerprints(ui, [now, before]);
    ui.add_space(theme::GAP_SMALL);
    ui.add(egui::Label::new(theme::muted(ui, text::SERVER_KEY_HELP)).wrap());
    ui.add_space(theme::GAP_SMALL);
    let trusted = server.with_fingerprint(shown?);
    let clicked = theme::button(ui, text::TRUST_SERVER).clicked();
    clicked.then_some(UiAction::TrustServer(trusted))
}

fn fingerprints(ui: &mut Ui, shown: [(&str, Option<Fingerprint>); 2]) {
    for (words, fingerprint) in shown {
        let Some(fingerprint) = fingerprint else {
            continue;
        };
        ui.label(theme::muted(ui, words));
        let fingerprint = RichText::new(text::grouped(&fingerprint.to_string()));
        ui.add(
            egui::Label::new(fingerprint.monospace())
                .selectable(true)
                .wrap(),
        );
    }
}
