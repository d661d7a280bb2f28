//! The sheet for a message to a peer.

mod draft;

use egui::{Key, Modifiers, RichText, ScrollArea, TextEdit, Ui};
use pinhole_client::{Snapshot, TEXT_BYTES_MAX};

use crate::action::UiAction;
use crate::{sheet, text, theme};
use draft::LONGEST_CHARS;

pub(crate) use draft::Draft;

/// Draws the field over the window.
pub(crate) fn show(ui: &Ui, snapshot: &Snapshot, draft: &mut Draft) -> Vec<UiAction> {
    sheet::show(ui, "message", |ui| {
        let name = draft.peer.name.as_str();
        let heading = RichText::new(text::message_to(name)).heading().size(19.0);
        let heading = ui.add(egui::Label::new(heading).wrap());
        ui.add_space(theme::GAP_LARGE);
        // Before the field takes it for a new line.
        let by_keyboard = ui.input_mut(|i| i.consume_key(Modifiers::COMMAND, Key::Enter));
        let height = (ui.ctx().content_rect().height() - 320.0).max(80.0);
        let edit = TextEdit::multiline(&mut draft.text)
            .char_limit(LONGEST_CHARS)
            .margin(egui::Margin::symmetric(10, 8))
            .desired_rows(6)
            .desired_width(f32::INFINITY);
        let field = ScrollArea::vertical()
            .max_height(height)
            .min_scrolled_height(height)
            .show(ui, |ui| ui.add(edit).labelled_by(heading.id))
            .inner;
        if !draft.focused {
            draft.focused = true;
            field.request_focus();
        }
        ui.add_space(theme::GAP_SMALL);
        let peer = |p: &&pinhole_client::PeerView| p.identity.key == draft.peer.key;
        let is_online = snapshot.peers.iter().find(peer).is_some_and(|p| p.online);
        let bytes = draft.text.len();
        match text::message_trouble(name, is_online, bytes) {
            Some(trouble) => {
                let trouble = theme::muted(ui, trouble).color(theme::palette(ui).danger);
                ui.add(egui::Label::new(trouble).wrap());
            }
            None => {
                ui.label(theme::muted(ui, text::MESSAGE_HELP));
            }
        }
        ui.add_space(theme::GAP_LARGE);
        let can_be_sent = is_online && bytes <= TEXT_BYTES_MAX && !draft.text.trim().is_empty();
        let mut actions = Vec::new();
        ui.horizontal(|ui| {
            let send = |ui: &mut Ui| theme::primary_button(ui, text::SEND);
            let send = ui.add_enabled_ui(can_be_sent, send).inner;
            if send.clicked() || by_keyboard && can_be_sent {
                actions.push(UiAction::Say {
                    peer: draft.peer.key,
                    text: draft.text.clone(),
                });
            }
            let words = if draft.is_blank() {
                text::CANCEL
            } else {
                text::DISCARD
            };
            if theme::button(ui, words).clicked() {
                actions.push(UiAction::DiscardSheet);
            }
        });
        actions
    })
}
