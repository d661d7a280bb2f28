//! Meeting somebody for the first time: making a link, joining, and saying a code.

mod form;
mod qr;

use std::path::PathBuf;

use egui::{Key, RichText, ScrollArea, TextEdit, TextStyle, Ui};
use pinhole_client::{Command, LoginState, Snapshot, Uses};

pub(crate) use self::form::{InviteForm, JoinForm};
use self::form::{Lasts, MadeLink};
use crate::action::UiAction;
use crate::{sheet, text, theme};

/// Draws the sheet that makes a link, and then shows it.
pub(crate) fn show_invite(ui: &Ui, form: &mut InviteForm) -> Vec<UiAction> {
    sheet::show(ui, "invite", |ui| {
        ui.label(RichText::new(text::INVITE_TITLE).heading().size(19.0));
        ui.add_space(theme::GAP);
        match &form.made {
            Some(made) => show_link(ui, made),
            None => choose(ui, form),
        }
    })
}

fn choose(ui: &mut Ui, form: &mut InviteForm) -> Vec<UiAction> {
    ui.add(egui::Label::new(text::INVITE_HELP).wrap());
    ui.add_space(theme::GAP);
    theme::section_heading(ui, text::GOOD);
    for uses in [Uses::Once, Uses::Many] {
        if theme::radio(ui, form.uses == uses, text::lets_in(uses)).clicked() {
            form.uses = uses;
        }
    }
    ui.add_space(theme::GAP);
    theme::section_heading(ui, text::LASTS);
    for (lasts, words) in [
        (Lasts::Hour, text::AN_HOUR),
        (Lasts::Day, text::A_DAY),
        (Lasts::Week, text::A_WEEK),
    ] {
        if theme::radio(ui, form.lasts == lasts, words).clicked() {
            form.lasts = lasts;
        }
    }
    ui.add_space(theme::GAP_LARGE);
    let mut actions = Vec::new();
    ui.horizontal_wrapped(|ui| {
        if theme::primary_button(ui, text::MAKE_LINK).clicked() {
            actions.push(UiAction::Command(form.command()));
        }
        if theme::button(ui, text::CANCEL).clicked() {
            actions.push(UiAction::DiscardSheet);
        }
    });
    actions
}

fn show_link(ui: &mut Ui, made: &MadeLink) -> Vec<UiAction> {
    let mut actions = Vec::new();
    let height = (ui.ctx().content_rect().height() - 220.0).max(160.0);
    ScrollArea::vertical().max_height(height).show(ui, |ui| {
        if let Some(code) = &made.code {
            ui.vertical_centered(|ui| qr::show(ui, code));
            ui.add_space(theme::GAP);
        }
        let link = RichText::new(&made.text).monospace().size(11.5);
        ui.add(egui::Label::new(link).selectable(true).wrap());
        if !made.has_server {
            ui.add_space(theme::GAP);
            ui.add(egui::Label::new(theme::muted(ui, text::NEARBY_LINK)).wrap());
        }
    });
    ui.add_space(theme::GAP_LARGE);
    ui.horizontal_wrapped(|ui| {
        if theme::primary_button(ui, text::COPY_LINK).clicked() {
            actions.push(UiAction::Copy(made.text.clone()));
        }
        if theme::button(ui, text::DONE).clicked() {
            actions.push(UiAction::DiscardSheet);
        }
    });
    actions
}

/// Draws the sheet into which a link or a code is pasted.
pub(crate) fn show_join(ui: &Ui, snapshot: &Snapshot, form: &mut JoinForm) -> Vec<UiAction> {
    sheet::show(ui, "join", |ui| {
        const LONGEST_CHARS: usize = 600;
        ui.label(RichText::new(text::JOIN_TITLE).heading().size(19.0));
        ui.add_space(theme::GAP);
        let label = theme::section_heading(ui, text::JOIN_FIELD);
        let edit = TextEdit::singleline(&mut form.text)
            .hint_text(text::JOIN_HINT)
            .char_limit(LONGEST_CHARS)
            .margin(egui::Margin::symmetric(10, 8))
            .desired_width(f32::INFINITY);
        let edit = ui.add(edit).labelled_by(label.id);
        if std::mem::take(&mut form.takes_focus) {
            edit.request_focus();
        }
        if let Some(complaint) = &form.complaint {
            let color = theme::palette(ui).danger;
            ui.add(egui::Label::new(RichText::new(complaint).color(color)).wrap());
        }
        ui.add_space(theme::GAP_LARGE);
        let enter = edit.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter));
        let mut actions = Vec::new();
        ui.horizontal_wrapped(|ui| {
            if theme::primary_button(ui, text::JOIN_NOW).clicked() || enter {
                let commands = form.submit(snapshot);
                if !commands.is_empty() {
                    actions.extend(commands.into_iter().map(UiAction::Command));
                    actions.push(UiAction::DiscardSheet);
                }
            }
            if theme::button(ui, text::CANCEL).clicked() {
                actions.push(UiAction::DiscardSheet);
            }
        });
        actions
    })
}

/// Draws the code of those files, to be said to somebody. However the sheet is closed, the
/// code is closed with it.
pub(crate) fn show_code(ui: &Ui, snapshot: &Snapshot, paths: &[PathBuf]) -> Vec<UiAction> {
    let actions = sheet::show(ui, "code", |ui| {
        ui.label(RichText::new(text::CODE_TITLE).heading().size(19.0));
        let title = text::paths_title(paths);
        let title = theme::elided(ui, &title, &TextStyle::Body, ui.available_width());
        ui.label(RichText::new(title).color(theme::palette(ui).muted));
        ui.add_space(theme::GAP_LARGE);
        let code = snapshot.code.map(|code| code.to_string());
        ui.vertical_centered(|ui| match &code {
            Some(code) => {
                let shown = RichText::new(code).monospace().size(22.0);
                ui.add(egui::Label::new(shown).selectable(true))
            }
            None => ui.label(theme::muted(ui, text::CODE_WAITS)),
        });
        ui.add_space(theme::GAP_LARGE);
        ui.add(egui::Label::new(text::CODE_HELP).wrap());
        ui.add_space(theme::GAP_LARGE);
        let mut actions = Vec::new();
        ui.horizontal_wrapped(|ui| {
            if let Some(code) = code
                && theme::primary_button(ui, text::COPY).clicked()
            {
                actions.push(UiAction::Copy(code));
            }
            if theme::button(ui, text::CANCEL).clicked() {
                actions.push(UiAction::CloseSheet);
            }
        });
        actions
    });
    let closes = |action: UiAction| match action {
        UiAction::CloseSheet => vec![
            UiAction::Command(Command::CloseCode),
            UiAction::DiscardSheet,
        ],
        other => vec![other],
    };
    actions.into_iter().flat_map(closes).collect()
}

/// Whether somebody can find us by a code.
pub(crate) const fn can_open_code(snapshot: &Snapshot) -> bool {
    matches!(snapshot.login, LoginState::LoggedIn { .. })
}
