//! "Send to whom?": for files that came without a peer.

use std::path::PathBuf;

use egui::{RichText, TextStyle, Ui, Vec2};
use pinhole_client::{Command, Snapshot};

use crate::action::{Action, Sheet};
use crate::{sheet, text, theme};

/// Draws the question over the window.
pub(crate) fn show(ui: &Ui, snapshot: &Snapshot, paths: &[PathBuf]) -> Vec<Action> {
    sheet::show(ui, "send", |ui| {
        let mut actions = Vec::new();
        ui.label(RichText::new(text::SEND_TO_WHOM).heading().size(19.0));
        let title = text::paths_title(paths);
        let title = theme::elided(ui, &title, &TextStyle::Body, ui.available_width());
        ui.label(RichText::new(title).color(theme::palette(ui).muted));
        ui.add_space(theme::GAP_LARGE);
        if snapshot.peers.is_empty() {
            ui.label(text::NOBODY_TO_SEND_TO);
        }
        let height = (ui.ctx().content_rect().height() - 300.0).max(80.0);
        egui::ScrollArea::vertical()
            .max_height(height)
            .auto_shrink([false, true])
            .show(ui, |ui| {
                for peer in &snapshot.peers {
                    let key = peer.identity.key;
                    let wide = Vec2::new(ui.available_width(), 44.0);
                    let button = egui::Button::new(peer.identity.name.as_str()).min_size(wide);
                    if ui.add(button).clicked() {
                        actions.push(to_peer(key, peer.key_changed, paths));
                    }
                }
            });
        ui.add_space(theme::GAP_LARGE);
        if theme::button(ui, text::CANCEL).clicked() {
            actions.push(Action::CloseSheet);
        }
        actions
    })
}

/// What sending to a peer takes: the command, or first a decision on its key.
pub(crate) fn to_peer(
    peer: pinhole_client::PeerKey,
    key_changed: bool,
    paths: &[PathBuf],
) -> Action {
    let paths = paths.to_vec();
    if key_changed {
        Action::Open(Sheet::Trust { peer, paths })
    } else {
        Action::Command(Command::Send { peer, paths })
    }
}
