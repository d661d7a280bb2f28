//! Recovery words: shown once, and typed to take a name back.

mod form;

use egui::{RichText, TextEdit, Ui};
use pinhole_client::RecoveryWords;

use crate::action::UiAction;
use crate::{sheet, text, theme};

pub(crate) use form::RecoverForm;

/// Shows new words. Only the button closes the sheet, because they are not shown again.
pub(crate) fn show_words(ui: &Ui, words: &RecoveryWords) -> Vec<UiAction> {
    let actions = sheet::show(ui, "words", |ui| {
        ui.label(RichText::new(text::YOUR_WORDS).heading().size(19.0));
        ui.add_space(theme::GAP);
        ui.add(egui::Label::new(text::WORDS_HELP).wrap());
        ui.add_space(theme::GAP_LARGE);
        theme::warning_card(ui).show(ui, |ui| {
            ui.set_width(ui.available_width());
            let shown = RichText::new(words.as_str()).monospace();
            ui.add(egui::Label::new(shown).selectable(true).wrap());
        });
        ui.add_space(theme::GAP_LARGE);
        match theme::primary_button(ui, text::WRITTEN_DOWN).clicked() {
            true => vec![UiAction::DiscardSheet],
            false => Vec::new(),
        }
    });
    let closes = |action: &UiAction| *action == UiAction::CloseSheet;
    actions.into_iter().filter(|it| !closes(it)).collect()
}

/// Asks for a name and its words.
pub(crate) fn show_form(ui: &Ui, form: &mut RecoverForm) -> Vec<UiAction> {
    sheet::show(ui, "recover", |ui| {
        ui.label(RichText::new(text::RECOVER).heading().size(19.0));
        ui.add_space(theme::GAP);
        ui.add(egui::Label::new(text::RECOVER_HELP).wrap());
        for (label, value) in [
            (text::NAME_FIELD.label, &mut form.name),
            (text::SERVER_FIELD.label, &mut form.server),
        ] {
            field(ui, label, TextEdit::singleline(value));
        }
        field(
            ui,
            text::WORDS_FIELD,
            TextEdit::multiline(&mut form.words).desired_rows(3),
        );
        if let Some(complaint) = &form.complaint {
            let color = theme::palette(ui).danger;
            ui.add(egui::Label::new(RichText::new(complaint).color(color)).wrap());
        }
        ui.add_space(theme::GAP_LARGE);
        let mut actions = Vec::new();
        ui.horizontal_wrapped(|ui| {
            if theme::primary_button(ui, text::TAKE_NAME_BACK).clicked()
                && let Some(command) = form.submit()
            {
                actions.push(UiAction::Command(command));
                actions.push(UiAction::DiscardSheet);
            }
            if theme::button(ui, text::CANCEL).clicked() {
                actions.push(UiAction::DiscardSheet);
            }
        });
        actions
    })
}

fn field(ui: &mut Ui, label: &str, edit: TextEdit<'_>) {
    const LONGEST_CHARS: usize = 300;
    ui.add_space(theme::GAP);
    let label = theme::section_heading(ui, label);
    let edit = edit
        .char_limit(LONGEST_CHARS)
        .margin(egui::Margin::symmetric(10, 8))
        .desired_width(f32::INFINITY);
    ui.add(edit).labelled_by(label.id);
}
