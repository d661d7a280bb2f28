//! The settings, and one's own fingerprint.

use egui::{Align, Layout, RichText, TextStyle, ThemePreference, Ui};
use pinhole_client::AcceptPolicy;
use pinhole_client::{Command, Snapshot};

use crate::action::{Action, Question};
use crate::{sheet, text, theme};

const RADIO_HEIGHT: f32 = 26.0;

/// Draws the settings over the window.
pub(crate) fn show(ui: &Ui, snapshot: &Snapshot) -> Vec<Action> {
    sheet::show(ui, "settings", |ui| {
        let mut actions = Vec::new();
        ui.label(RichText::new(text::SETTINGS).heading().size(19.0));
        ui.add_space(theme::GAP_LARGE);
        fingerprint(ui, snapshot, &mut actions);
        ui.add_space(theme::GAP_LARGE);
        downloads(ui, snapshot, &mut actions);
        ui.add_space(theme::GAP_LARGE);
        accept(ui, snapshot, &mut actions);
        ui.add_space(theme::GAP_LARGE);
        appearance(ui, &mut actions);
        ui.add_space(theme::GAP_SECTION);
        ui.horizontal(|ui| {
            if theme::primary_button(ui, text::CLOSE, true).clicked() {
                actions.push(Action::CloseSheet);
            }
            let log_out = theme::button(ui, text::LOG_OUT).on_hover_text(text::LOG_OUT_HELP);
            if log_out.clicked() {
                actions.push(Action::Command(Command::LogOut));
                actions.push(Action::CloseSheet);
            }
        });
        actions
    })
}

fn fingerprint(ui: &mut Ui, snapshot: &Snapshot, actions: &mut Vec<Action>) {
    let fingerprint = snapshot.fingerprint.to_string();
    if heading_with_button(ui, text::YOUR_FINGERPRINT, text::COPY) {
        actions.push(Action::Copy(fingerprint.clone()));
    }
    let grouped = RichText::new(text::grouped(&fingerprint)).monospace();
    ui.add(egui::Label::new(grouped).selectable(true).wrap());
    ui.add(egui::Label::new(theme::muted(ui, text::FINGERPRINT_HELP)).wrap());
}

fn downloads(ui: &mut Ui, snapshot: &Snapshot, actions: &mut Vec<Action>) {
    if heading_with_button(ui, text::DOWNLOADS, text::CHANGE) {
        actions.push(Action::Ask(Question::DownloadFolder));
    }
    let folder = snapshot.download_folder.display().to_string();
    let folder = theme::elided(ui, &folder, &TextStyle::Body, ui.available_width());
    ui.label(folder);
}

/// A heading with a button at the right end of its line: whether it was clicked.
fn heading_with_button(ui: &mut Ui, heading: &str, button: &str) -> bool {
    ui.horizontal(|ui| {
        theme::section_heading(ui, heading);
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            theme::button(ui, button).clicked()
        })
        .inner
    })
    .inner
}

fn accept(ui: &mut Ui, snapshot: &Snapshot, actions: &mut Vec<Action>) {
    theme::section_heading(ui, text::ACCEPT_FROM);
    ui.spacing_mut().interact_size.y = RADIO_HEIGHT;
    for (policy, words) in [
        (AcceptPolicy::Ask, text::ACCEPT_NOBODY),
        (AcceptPolicy::Contacts, text::ACCEPT_CONTACTS),
        (AcceptPolicy::All, text::ACCEPT_EVERYBODY),
    ] {
        if ui
            .radio(snapshot.settings.accept == policy, words)
            .clicked()
        {
            actions.push(Action::Command(Command::SetAcceptPolicy { policy }));
        }
    }
}

fn appearance(ui: &mut Ui, actions: &mut Vec<Action>) {
    theme::section_heading(ui, text::APPEARANCE);
    ui.spacing_mut().interact_size.y = RADIO_HEIGHT;
    let current = ui.ctx().options(|options| options.theme_preference);
    ui.horizontal(|ui| {
        for (preference, words) in [
            (ThemePreference::System, text::AS_SYSTEM),
            (ThemePreference::Light, text::LIGHT),
            (ThemePreference::Dark, text::DARK),
        ] {
            if ui.radio(current == preference, words).clicked() {
                actions.push(Action::SetTheme(preference));
            }
        }
    });
}
