//! "Send to whom?": for files that came without a peer.

use std::path::PathBuf;

use egui::{AtomExt as _, RichText, TextStyle, Ui, Vec2};
use pinhole_client::{Command, PeerView, Snapshot};

use crate::action::{Action, Sheet};
use crate::{icon, sheet, text, theme};

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
                    if choice(ui, peer.identity.name.as_str()) {
                        actions.push(to_peer(peer, paths));
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

/// A person to choose: whether they were chosen.
fn choice(ui: &mut Ui, name: &str) -> bool {
    const HEIGHT: f32 = 56.0;
    let space_for_monogram = egui::Atom::default().atom_size(Vec2::new(44.0, 40.0));
    let name_shown = RichText::new(name).text_style(theme::title());
    let button = egui::Button::new((space_for_monogram, name_shown))
        .min_size(Vec2::new(ui.available_width(), HEIGHT));
    let response = ui.add(button);
    let center = response.rect.left_center() + Vec2::new(HEIGHT / 2.0 + 4.0, 0.0);
    icon::monogram(ui, center, name, false);
    response.clicked()
}

/// What sending to a peer takes: the command, or first a decision on its key.
pub(crate) fn to_peer(peer: &PeerView, paths: &[PathBuf]) -> Action {
    let (peer, key_changed, paths) = (
        peer.identity.key,
        peer.changed_from.is_some(),
        paths.to_vec(),
    );
    if key_changed {
        Action::Open(Sheet::Trust { peer, paths })
    } else {
        Action::Command(Command::Send { peer, paths })
    }
}
