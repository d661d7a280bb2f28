//! The settings, and the user's own fingerprint.

mod form;

use egui::{Align, Layout, RichText, ScrollArea, TextEdit, TextStyle, ThemePreference, Ui, Vec2};
use pinhole_client::{
    AcceptPolicy, Command, Existing, LoginState, ProxyChoice, Snapshot, Strangers,
};

use crate::action::{DialogRequest, LeaveRequest, Sheet, UiAction};
use crate::selection::Tick;
use crate::{connection, sheet, text, theme};
use form::{FormField, bytes};

pub(crate) use form::SettingsForm;

const RADIO_HEIGHT: f32 = 26.0;

/// Draws the settings over the window.
pub(crate) fn show(ui: &Ui, snapshot: &Snapshot, form: &mut SettingsForm) -> Vec<UiAction> {
    sheet::show(ui, "settings", |ui| {
        let mut actions = Vec::new();
        ui.label(RichText::new(text::SETTINGS).heading().size(19.0));
        ui.add_space(theme::GAP);
        let height = (ui.ctx().content_rect().height() - 200.0).max(120.0);
        ScrollArea::vertical()
            .max_height(height)
            .min_scrolled_height(height)
            .auto_shrink([false, true])
            .show(ui, |ui| {
                // The scroll bar is beside the buttons, not over them.
                ui.set_width(ui.available_width() - theme::GAP_LARGE);
                fingerprint(ui, snapshot, &mut actions);
                ui.add_space(theme::GAP_LARGE);
                recovery_words(ui, snapshot, &mut actions);
                ui.add_space(theme::GAP_LARGE);
                downloads(ui, snapshot, &mut actions);
                ui.add_space(theme::GAP_LARGE);
                accept(ui, snapshot, form, &mut actions);
                ui.add_space(theme::GAP_LARGE);
                existing(ui, snapshot, &mut actions);
                ui.add_space(theme::GAP_LARGE);
                limits(ui, snapshot, form, &mut actions);
                ui.add_space(theme::GAP_LARGE);
                proxy(ui, &mut form.proxy, &mut actions);
                ui.add_space(theme::GAP_LARGE);
                nearby(ui, snapshot, &mut actions);
                ui.add_space(theme::GAP_LARGE);
                strangers(ui, snapshot, &mut actions);
                ui.add_space(theme::GAP_LARGE);
                connection::show(ui, snapshot, &mut actions);
                ui.add_space(theme::GAP_LARGE);
                appearance(ui, &mut actions);
            });
        ui.add_space(theme::GAP_LARGE);
        ui.horizontal(|ui| {
            if theme::primary_button(ui, text::CLOSE).clicked() {
                actions.push(UiAction::CloseSheet);
            }
            if is_on_first_screen(snapshot) {
                return;
            }
            let log_out = theme::button(ui, text::LOG_OUT).on_hover_text(text::LOG_OUT_HELP);
            if log_out.clicked() {
                actions.push(UiAction::CloseSheet);
                actions.push(UiAction::Leave(LeaveRequest::LogOut));
            }
        });
        actions
    })
}

/// Whether the user is logged out and not nearby either.
fn is_on_first_screen(snapshot: &Snapshot) -> bool {
    matches!(snapshot.login, LoginState::LoggedOut { .. }) && snapshot.nearby.is_none()
}

fn fingerprint(ui: &mut Ui, snapshot: &Snapshot, actions: &mut Vec<UiAction>) {
    let fingerprint = snapshot.fingerprint.to_string();
    if heading_with_button(ui, text::YOUR_FINGERPRINT, text::COPY) {
        actions.push(UiAction::Copy(fingerprint.clone()));
    }
    let grouped = RichText::new(text::grouped(&fingerprint)).monospace();
    ui.add(egui::Label::new(grouped).selectable(true).wrap());
    ui.add(egui::Label::new(theme::muted(ui, text::FINGERPRINT_HELP)).wrap());
}

fn recovery_words(ui: &mut Ui, snapshot: &Snapshot, actions: &mut Vec<UiAction>) {
    if heading_with_button(ui, text::RECOVERY, text::NEW_WORDS) {
        actions.push(UiAction::Command(Command::NewRecoveryKey));
    }
    let words = match snapshot.has_recovery_key {
        true => text::HAS_WORDS,
        false => text::HAS_NO_WORDS,
    };
    ui.add(egui::Label::new(theme::muted(ui, words)).wrap());
}

fn downloads(ui: &mut Ui, snapshot: &Snapshot, actions: &mut Vec<UiAction>) {
    if heading_with_button(ui, text::DOWNLOADS, text::CHANGE) {
        actions.push(UiAction::Ask(DialogRequest::DownloadFolder));
    }
    let folder = snapshot.download_folder.display().to_string();
    let folder = theme::elided(ui, &folder, &TextStyle::Body, ui.available_width());
    ui.label(folder);
}

/// A heading with a button at the right end of its line. Returns whether it was clicked.
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

fn accept(ui: &mut Ui, snapshot: &Snapshot, form: &mut SettingsForm, actions: &mut Vec<UiAction>) {
    theme::section_heading(ui, text::ACCEPT_FROM);
    ui.spacing_mut().interact_size.y = RADIO_HEIGHT;
    let policy_now = snapshot.settings.accept;
    for (policy, words) in [
        (AcceptPolicy::Ask, text::ACCEPT_NOBODY),
        (AcceptPolicy::Contacts, text::ACCEPT_CONTACTS),
        (AcceptPolicy::All, text::ACCEPT_EVERYBODY),
    ] {
        if theme::radio(ui, policy_now == policy, words).clicked() {
            actions.push(UiAction::Command(Command::SetAcceptPolicy { policy }));
        }
    }
    if policy_now != AcceptPolicy::Ask
        && let Some(bytes) = amount(ui, text::UNASKED_MAX, &mut form.unasked_max)
    {
        actions.push(UiAction::Command(Command::SetUnaskedBytesMax { bytes }));
    }
}

/// How strangers may reach the user, and the lists of contacts and blocked people.
fn strangers(ui: &mut Ui, snapshot: &Snapshot, actions: &mut Vec<UiAction>) {
    if heading_with_button(ui, text::PEOPLE_UNKNOWN, text::CONTACTS_AND_BLOCKED) {
        actions.push(UiAction::Open(Sheet::Contacts { forgetting: None }));
    }
    ui.spacing_mut().interact_size.y = RADIO_HEIGHT;
    let now = snapshot.settings.strangers;
    for (strangers, words) in [
        (Strangers::Relay, text::STRANGERS_RELAY),
        (Strangers::Direct, text::STRANGERS_DIRECT),
        (Strangers::Ask, text::STRANGERS_ASK),
    ] {
        if theme::radio(ui, now == strangers, words).clicked() {
            actions.push(UiAction::Command(Command::SetStrangers { strangers }));
        }
    }
}

fn existing(ui: &mut Ui, snapshot: &Snapshot, actions: &mut Vec<UiAction>) {
    theme::section_heading(ui, text::EXISTING);
    ui.spacing_mut().interact_size.y = RADIO_HEIGHT;
    if let Some(existing) = existing_choice(ui, snapshot.settings.existing) {
        actions.push(UiAction::Command(Command::SetExisting { existing }));
    }
    let keeps_now = snapshot.settings.keeps_executable;
    let keeps = theme::tick_box(
        ui,
        Tick::from(keeps_now),
        RichText::new(text::KEEPS_EXECUTABLE),
    );
    if keeps.clicked() {
        let keeps = !keeps_now;
        actions.push(UiAction::Command(Command::SetKeepsExecutable { keeps }));
    }
}

/// The three choices, with the present one marked. Returns another one if it was chosen.
pub(crate) fn existing_choice(ui: &mut Ui, now: Existing) -> Option<Existing> {
    let ways = [
        (Existing::Rename, text::KEEP_BOTH),
        (Existing::Skip, text::SKIP),
        (Existing::Replace, text::REPLACE),
    ];
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing.x = theme::GAP_LARGE;
        let chosen =
            |&(way, words): &(Existing, &str)| theme::radio(ui, now == way, words).clicked();
        ways.into_iter().find(chosen).map(|(way, _)| way)
    })
    .inner
}

fn limits(ui: &mut Ui, snapshot: &Snapshot, form: &mut SettingsForm, actions: &mut Vec<UiAction>) {
    theme::section_heading(ui, text::LIMITS);
    let settings = &snapshot.settings;
    let (send, receive) = (settings.send_limit, settings.receive_limit);
    if let Some(send) = amount(ui, text::SEND_LIMIT, &mut form.send_limit) {
        actions.push(UiAction::Command(Command::SetLimits { send, receive }));
    }
    if let Some(receive) = amount(ui, text::RECEIVE_LIMIT, &mut form.receive_limit) {
        actions.push(UiAction::Command(Command::SetLimits { send, receive }));
    }
}

fn nearby(ui: &mut Ui, snapshot: &Snapshot, actions: &mut Vec<UiAction>) {
    theme::section_heading(ui, text::PEOPLE_NEARBY);
    let now = snapshot.settings.nearby;
    let tick = theme::tick_box(ui, Tick::from(now), RichText::new(text::FIND_NEARBY));
    if tick.clicked() {
        // Without a server, this ends everything and leads to the first screen.
        let is_all = matches!(snapshot.login, LoginState::LoggedOut { .. });
        actions.push(if now && is_all && snapshot.nearby.is_some() {
            UiAction::Leave(LeaveRequest::Nearby)
        } else {
            UiAction::Command(Command::SetNearby { on: !now })
        });
    }
    ui.add(egui::Label::new(theme::muted(ui, text::FIND_NEARBY_HELP)).wrap());
}

/// A field for megabytes, empty for no limit. Returns the new value once the keyboard has
/// left it.
#[allow(clippy::option_option, reason = "no change, or to no limit")]
fn amount(ui: &mut Ui, words: &str, field: &mut FormField) -> Option<Option<u64>> {
    const LONGEST_CHARS: usize = 20;
    const WORDS_WIDTH: f32 = 90.0;
    let response = ui.horizontal(|ui| {
        let size = Vec2::new(WORDS_WIDTH, theme::BUTTON_HEIGHT);
        let layout = Layout::left_to_right(Align::Center);
        let words = ui.allocate_ui_with_layout(size, layout, |ui| {
            ui.set_min_width(WORDS_WIDTH);
            ui.label(words)
        });
        let edit = TextEdit::singleline(&mut field.typed)
            .hint_text(text::NO_LIMIT)
            .char_limit(LONGEST_CHARS)
            .margin(egui::Margin::symmetric(10, 6))
            .desired_width(120.0);
        ui.add(edit).labelled_by(words.inner.id)
    });
    field.is_edited |= response.inner.changed();
    match bytes(&field.typed) {
        Ok(bytes) if field.is_edited && response.inner.lost_focus() => {
            field.is_edited = false;
            Some(bytes)
        }
        Ok(_) => None,
        Err(reason) => {
            let color = theme::palette(ui).danger;
            ui.label(theme::muted(ui, reason).color(color));
            None
        }
    }
}

/// The URL stays as typed, because its content is for the user to see.
fn proxy(ui: &mut Ui, field: &mut FormField, actions: &mut Vec<UiAction>) {
    const LONGEST_CHARS: usize = 500;
    let label = theme::section_heading(ui, text::PROXY);
    let edit = TextEdit::singleline(&mut field.typed)
        .hint_text(text::PROXY_HINT)
        .char_limit(LONGEST_CHARS)
        .margin(egui::Margin::symmetric(10, 6))
        .desired_width(f32::INFINITY);
    let response = ui.add(edit).labelled_by(label.id);
    field.is_edited |= response.changed();
    match field.typed.parse::<ProxyChoice>() {
        Ok(proxy) => {
            ui.add(egui::Label::new(theme::muted(ui, text::PROXY_HELP)).wrap());
            if field.is_edited && response.lost_focus() {
                field.is_edited = false;
                actions.push(UiAction::Command(Command::SetProxy { proxy }));
            }
        }
        Err(error) => {
            let color = theme::palette(ui).danger;
            let words = theme::muted(ui, error.to_string()).color(color);
            ui.add(egui::Label::new(words).wrap());
        }
    }
}

fn appearance(ui: &mut Ui, actions: &mut Vec<UiAction>) {
    theme::section_heading(ui, text::APPEARANCE);
    ui.spacing_mut().interact_size.y = RADIO_HEIGHT;
    let current = ui.ctx().options(|options| options.theme_preference);
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = theme::GAP_LARGE;
        for (preference, words) in [
            (ThemePreference::System, text::AS_SYSTEM),
            (ThemePreference::Light, text::LIGHT),
            (ThemePreference::Dark, text::DARK),
        ] {
            if theme::radio(ui, current == preference, words).clicked() {
                actions.push(UiAction::SetTheme(preference));
            }
        }
    });
}
