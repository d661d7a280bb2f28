//! A few words to somebody.

use egui::{Key, Modifiers, RichText, ScrollArea, TextEdit, Ui};
use pinhole_client::{PeerIdentity, Snapshot, TEXT_BYTES_MAX};

use crate::action::Action;
use crate::{sheet, text, theme};

/// More than can be sent is taken, so that it can be shortened, but not much.
const LONGEST_CHARS: usize = 2 * TEXT_BYTES_MAX;

/// What is written to somebody and not sent yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Draft {
    peer: PeerIdentity,
    text: String,
    /// The keyboard has been put into the field.
    focused: bool,
}

impl Draft {
    /// Begins with this text.
    pub(crate) fn to(peer: PeerIdentity, text: &str) -> Self {
        Self {
            peer,
            text: text.chars().take(LONGEST_CHARS).collect(),
            focused: false,
        }
    }

    /// To whom it is.
    pub(crate) const fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    /// Whether there is nothing to lose.
    pub(crate) fn is_blank(&self) -> bool {
        self.text.trim().is_empty()
    }

    /// Follows what was written before.
    pub(crate) fn go_on_from(&mut self, before: Self) {
        let begun = std::mem::replace(&mut self.text, before.text);
        if !begun.is_empty() {
            self.text.push('\n');
            let room = LONGEST_CHARS.saturating_sub(self.text.chars().count());
            self.text.extend(begun.chars().take(room));
        }
    }

    /// Something lies over it; typing goes on when it is gone.
    pub(crate) const fn lose_focus(&mut self) {
        self.focused = false;
    }
}

/// Draws the field over the window.
pub(crate) fn show(ui: &Ui, snapshot: &Snapshot, draft: &mut Draft) -> Vec<Action> {
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
            let send = theme::primary_button(ui, text::SEND, can_be_sent);
            if send.clicked() || by_keyboard && can_be_sent {
                actions.push(Action::Say {
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
                actions.push(Action::DiscardSheet);
            }
        });
        actions
    })
}
