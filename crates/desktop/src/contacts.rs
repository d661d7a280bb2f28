//! The contacts and the blocked people.

use egui::{Align, Label, Layout, RichText, ScrollArea, Ui, Vec2};
use pinhole_client::{Command, PeerIdentity, PeerKey, Snapshot};

use crate::action::UiAction;
use crate::{sheet, text, theme};

const ROW_HEIGHT: f32 = 48.0;

/// Draws both lists over the window. `forgetting` is the contact whose removal was
/// clicked once. A second click counts once the sheet `is_ready`.
pub(crate) fn show(
    ui: &Ui,
    snapshot: &Snapshot,
    forgetting: &mut Option<PeerKey>,
    is_ready: bool,
) -> Vec<UiAction> {
    sheet::show(ui, "contacts", |ui| {
        let mut actions = Vec::new();
        let height = (ui.ctx().content_rect().height() - 180.0).max(120.0);
        ScrollArea::vertical()
            .max_height(height)
            .auto_shrink([false, true])
            .show(ui, |ui| {
                // The scroll bar is beside the buttons, not over them.
                ui.set_width(ui.available_width() - theme::GAP_LARGE);
                ui.label(RichText::new(text::CONTACTS).heading().size(19.0));
                ui.add(Label::new(theme::muted(ui, text::CONTACTS_HELP)).wrap());
                let contacts = snapshot.peers.iter().filter(|peer| peer.contact);
                let contacts: Vec<&PeerIdentity> = contacts.map(|peer| &peer.identity).collect();
                if contacts.is_empty() {
                    ui.label(theme::muted(ui, text::NO_CONTACTS));
                }
                for peer in contacts {
                    contact(ui, peer, forgetting, is_ready, &mut actions);
                }
                ui.add_space(theme::GAP_SECTION);
                ui.label(RichText::new(text::BLOCKED).heading().size(19.0));
                ui.add(Label::new(theme::muted(ui, text::BLOCK_HELP)).wrap());
                if snapshot.blocked.is_empty() {
                    ui.label(theme::muted(ui, text::NOBODY_BLOCKED));
                }
                for peer in &snapshot.blocked {
                    let name = text::unblock(peer.name.as_str());
                    row(ui, peer, |ui| {
                        let button = theme::button(ui, text::UNBLOCK).accessible_name(name);
                        if button.clicked() {
                            let peer = peer.key;
                            actions.push(UiAction::Command(Command::Unblock { peer }));
                        }
                    });
                }
            });
        ui.add_space(theme::GAP_LARGE);
        if theme::primary_button(ui, text::CLOSE).clicked() {
            actions.push(UiAction::CloseSheet);
        }
        actions
    })
}

fn contact(
    ui: &mut Ui,
    peer: &PeerIdentity,
    forgetting: &mut Option<PeerKey>,
    is_ready: bool,
    actions: &mut Vec<UiAction>,
) {
    let (name, key) = (peer.name.as_str(), peer.key);
    row(ui, peer, |ui| {
        let block = theme::quiet_button(ui, text::BLOCK).accessible_name(text::block(name));
        if block.clicked() {
            actions.push(UiAction::Command(Command::Block { peer: key }));
        }
        // The pinned key cannot be restored, so removal takes two clicks.
        let is_second = *forgetting == Some(key);
        let words = if is_second {
            text::REMOVE_FOR_GOOD
        } else {
            text::REMOVE
        };
        let remove = theme::quiet_button(ui, words).accessible_name(text::remove(name));
        if remove.clicked() && is_second && is_ready {
            *forgetting = None;
            actions.push(UiAction::Command(Command::Forget { peer: key }));
        } else if remove.clicked() {
            *forgetting = Some(key);
        }
    });
}

fn row(ui: &mut Ui, peer: &PeerIdentity, buttons: impl FnOnce(&mut Ui)) {
    let size = Vec2::new(ui.available_width(), ROW_HEIGHT);
    let layout = Layout::right_to_left(Align::Center);
    ui.push_id(peer.key.as_bytes(), |ui| {
        ui.allocate_ui_with_layout(size, layout, |ui| {
            buttons(ui);
            ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                let name = RichText::new(peer.name.as_str()).text_style(theme::title());
                let fingerprint = text::grouped(&peer.key.fingerprint().to_string());
                ui.add(Label::new(name).truncate())
                    .on_hover_text(fingerprint);
            });
        });
    });
}
