//! Looking people up by name, where the server does not list everybody.

use egui::{Key, TextEdit, Ui};
use pinhole_client::{Command, Directory, LookUpState, PeerName, PeerNameError, Snapshot};

use crate::action::UiAction;
use crate::{text, theme};

/// The field for a name.
#[derive(Debug, Default)]
pub(crate) struct SearchField {
    typed: String,
    complaint: Option<String>,
}

impl SearchField {
    /// Draws the field, and what the last search has brought, if the server does not list
    /// everybody.
    pub(crate) fn show(&mut self, ui: &mut Ui, snapshot: &Snapshot) -> Vec<UiAction> {
        if snapshot.directory != Some(Directory::Closed) {
            return Vec::new();
        }
        let mut actions = Vec::new();
        ui.horizontal(|ui| {
            let button = theme::width_of(ui, text::SEARCH, &egui::TextStyle::Button)
                + 2.0 * ui.spacing().button_padding.x
                + ui.spacing().item_spacing.x;
            let edit = TextEdit::singleline(&mut self.typed)
                .hint_text(text::SEARCH_FOR_A_NAME)
                .char_limit(PeerName::MAX_CHARS)
                .margin(egui::Margin::symmetric(10, 8))
                .desired_width(ui.available_width() - button);
            let field = ui.add(edit).accessible_name(text::SEARCH_FOR_A_NAME);
            let is_entered = field.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter));
            if theme::button(ui, text::SEARCH).clicked() || is_entered {
                actions.extend(self.search());
            }
        });
        match (&self.complaint, snapshot.looked_up.last()) {
            (Some(complaint), _) => ui.label(theme::muted(ui, complaint)),
            (None, None) => ui.label(theme::muted(ui, text::SEARCH_HELP)),
            (None, Some(last)) => match last.state {
                LookUpState::Searching => ui.label(theme::muted(ui, text::SEARCHING)),
                LookUpState::NotOnline => {
                    ui.label(theme::muted(ui, text::not_found(last.name.as_str())))
                }
                LookUpState::Online => ui.label(theme::muted(ui, text::SEARCH_HELP)),
            },
        };
        ui.add_space(theme::GAP_SMALL);
        actions
    }

    fn search(&mut self) -> Option<UiAction> {
        let typed = self.typed.trim().to_lowercase();
        self.complaint = None;
        let name: Result<PeerName, PeerNameError> = typed.parse();
        match name {
            Ok(name) => {
                self.typed.clear();
                Some(UiAction::Command(Command::LookUp { name }))
            }
            Err(_) if typed.is_empty() => None,
            Err(problem) => {
                self.complaint = Some(problem.to_string());
                None
            }
        }
    }
}
