//! The choice of recipients for files that came without one.

use std::collections::BTreeSet;
use std::path::PathBuf;

use egui::{AtomExt as _, IntoAtoms as _, RichText, ScrollArea, Stroke, TextStyle, Ui, Vec2};
use pinhole_client::{Command, PeerKey, PeerView, Snapshot};

use crate::action::{Sheet, UiAction};
use crate::icon::Icon;
use crate::{icon, invite, sheet, text, theme};

const ROW_HEIGHT: f32 = 56.0;

/// Draws the question over the window. `chosen` are the recipients so far.
pub(crate) fn show(
    ui: &Ui,
    snapshot: &Snapshot,
    paths: &[PathBuf],
    chosen: &mut BTreeSet<PeerKey>,
) -> Vec<UiAction> {
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
        ScrollArea::vertical()
            .max_height(height)
            .min_scrolled_height(height)
            .auto_shrink([false, true])
            .show(ui, |ui| {
                for peer in &snapshot.peers {
                    actions.extend(choice(ui, peer, paths, chosen));
                }
            });
        if invite::can_open_code(snapshot) && theme::quiet_button(ui, text::BY_CODE).clicked() {
            actions.push(UiAction::Command(Command::OpenCode));
            actions.push(UiAction::CloseSheet);
            actions.push(UiAction::Open(Sheet::Code(paths.to_vec())));
        }
        ui.add_space(theme::GAP_LARGE);
        let chosen: Vec<PeerKey> = can_be_chosen(snapshot)
            .filter(|key| chosen.contains(key))
            .collect();
        ui.horizontal(|ui| {
            let words = text::send_to(chosen.len());
            let send = |ui: &mut Ui| theme::primary_button(ui, &words);
            let send = ui.add_enabled_ui(!chosen.is_empty(), send).inner;
            if send.clicked() {
                actions.extend(chosen.into_iter().map(|peer| {
                    let paths = paths.to_vec();
                    UiAction::Command(Command::Send { peer, paths })
                }));
                actions.push(UiAction::CloseSheet);
            }
            if theme::button(ui, text::CANCEL).clicked() {
                actions.push(UiAction::CloseSheet);
            }
        });
        actions
    })
}

/// The question about these files. If only one person can be chosen, that one is.
pub(crate) fn question(snapshot: &Snapshot, paths: Vec<PathBuf>) -> Sheet {
    let mut all = can_be_chosen(snapshot);
    let only = all.next().filter(|_| all.next().is_none());
    let chosen = only.into_iter().collect();
    Sheet::Send { paths, chosen }
}

fn can_be_chosen(snapshot: &Snapshot) -> impl Iterator<Item = PeerKey> {
    let peers = snapshot.peers.iter();
    peers
        .filter(|peer| peer.changed_from.is_none())
        .map(|peer| peer.identity.key)
}

/// A person to choose, or whose key has to be decided on first.
fn choice(
    ui: &mut Ui,
    peer: &PeerView,
    paths: &[PathBuf],
    chosen: &mut BTreeSet<PeerKey>,
) -> Option<UiAction> {
    let (name, key) = (peer.identity.name.as_str(), peer.identity.key);
    let space_for_monogram = egui::Atom::default().atom_size(Vec2::new(44.0, 40.0));
    let name_shown = RichText::new(name).text_style(theme::title());
    let is_chosen = chosen.contains(&key);
    let mut content = (space_for_monogram, name_shown).into_atoms();
    if peer.changed_from.is_some() {
        content.push_right(theme::muted(ui, text::KEY_CHANGED));
    } else if !peer.online {
        content.push_right(theme::muted(ui, text::OFFLINE));
    }
    let button = egui::Button::new(content)
        .selected(is_chosen)
        .min_size(Vec2::new(ui.available_width(), ROW_HEIGHT));
    let response = ui.add(button).accessible_name(name);
    let center = response.rect.left_center() + Vec2::new(ROW_HEIGHT / 2.0 + 4.0, 0.0);
    icon::monogram(ui, center, name, is_chosen);
    if is_chosen {
        let center = response.rect.right_center() - Vec2::new(ROW_HEIGHT / 2.0, 0.0);
        let stroke = Stroke::new(2.0, theme::palette(ui).accent);
        icon::draw(ui.painter(), center, Icon::Check, stroke);
    }
    if !response.clicked() {
        return None;
    }
    if peer.changed_from.is_some() {
        return Some(to_peer(peer, paths));
    }
    if !chosen.remove(&key) {
        chosen.insert(key);
    }
    None
}
/// The command that sends to a peer, or first the decision on its key.
pub(crate) fn to_peer(peer: &PeerView, paths: &[PathBuf]) -> UiAction {
    let (peer, key_changed, paths) = (
        peer.identity.key,
        peer.changed_from.is_some(),
        paths.to_vec(),
    );
    if key_changed {
        UiAction::Open(Sheet::Trust { peer, paths })
    } else {
        UiAction::Command(Command::Send { peer, paths })
    }
}
