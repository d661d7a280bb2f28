//! The user's own name and the state of the login.

use std::time::{Duration, Instant};

use egui::{Align, Color32, Layout, RichText, Ui};
use pinhole_client::{Failure, LoginState, PeerName, Snapshot};

use crate::action::{LeaveRequest, Sheet, UiAction};
use crate::settings::SettingsForm;
use crate::{icon, text, theme, trust};

const HEIGHT: f32 = 48.0;

/// Draws the user's own name, the server, and the button for the settings.
pub(crate) fn show(ui: &mut Ui, snapshot: &Snapshot) -> Vec<UiAction> {
    let palette = theme::palette(ui);
    let Some(HeaderStatus {
        name,
        status,
        color,
        trouble,
    }) = standing(ui, snapshot)
    else {
        return Vec::new();
    };
    let wide = egui::Vec2::new(ui.available_width(), HEIGHT);
    let mut actions = ui
        .allocate_ui_with_layout(wide, Layout::right_to_left(Align::Center), |ui| {
            let settings = theme::button(ui, text::SETTINGS).clicked();
            let way = way_on(ui, snapshot);
            ui.with_layout(Layout::top_down(Align::Min), |ui| {
                ui.add(egui::Label::new(RichText::new(name.as_str()).heading()).truncate());
                ui.horizontal(|ui| {
                    ui.spacing_mut().interact_size.y = 0.0;
                    icon::dot(ui, color);
                    ui.add(egui::Label::new(theme::muted(ui, status)).truncate());
                });
            });
            let settings = settings
                .then(|| UiAction::Open(Sheet::Settings(SettingsForm::of(&snapshot.settings))));
            settings.into_iter().chain(way).collect::<Vec<_>>()
        })
        .inner;
    if let Some((when, why)) = trouble {
        ui.add_space(theme::GAP);
        theme::warning_card(ui).show(ui, |ui| {
            ui.set_width(ui.available_width());
            ui.label(
                RichText::new(when)
                    .text_style(theme::title())
                    .color(palette.warning),
            );
            ui.add(egui::Label::new(theme::muted(ui, why)).wrap());
            actions.extend(trust_server(ui, snapshot));
        });
    }
    actions
}

/// A button that logs in, or cancels a login without an answer.
fn way_on(ui: &mut Ui, snapshot: &Snapshot) -> Option<UiAction> {
    let (words, action) = match snapshot.login {
        LoginState::LoggedOut { .. } => (text::LOG_IN, UiAction::Open(Sheet::LogIn)),
        LoginState::LoggingIn { .. } => (text::CANCEL, UiAction::Leave(LeaveRequest::GiveUp)),
        LoginState::LoggedIn { .. } | LoginState::Reconnecting { .. } => return None,
    };
    theme::button(ui, words).clicked().then_some(action)
}

/// Shows both keys of a server whose key has changed, and what to do.
pub(crate) fn trust_server(ui: &mut Ui, snapshot: &Snapshot) -> Option<UiAction> {
    let LoginState::LoggedOut {
        failure:
            Some(Failure::ServerKeyChanged {
                server,
                known,
                shown,
            }),
    } = &snapshot.login
    else {
        return None;
    };
    ui.add_space(theme::GAP_SMALL);
    trust::server(ui, server, *known, *shown)
}

/// The user's own name and the state of the login.
struct HeaderStatus<'a> {
    name: &'a PeerName,
    status: String,
    color: Color32,
    /// A problem, and its reason.
    trouble: Option<(String, String)>,
}

fn standing<'a>(ui: &Ui, snapshot: &'a Snapshot) -> Option<HeaderStatus<'a>> {
    let palette = theme::palette(ui);
    let host = |server: &pinhole_client::ServerAddress| {
        server
            .to_string()
            .split('#')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let (name, status, color, trouble) = match &snapshot.login {
        LoginState::LoggedIn { name, server } => {
            (name, text::online_at(&host(server)), palette.accent, None)
        }
        LoginState::Reconnecting {
            name,
            server,
            failure,
            next_attempt,
        } => {
            let wait = next_attempt.saturating_duration_since(Instant::now());
            ui.ctx().request_repaint_after(Duration::from_secs(1));
            let trouble = (text::next_attempt(wait), failure.to_string());
            (
                name,
                text::reconnecting(&host(server)),
                palette.warning,
                Some(trouble),
            )
        }
        LoginState::LoggedOut { failure } => {
            let Some(name) = &snapshot.nearby else {
                return None;
            };
            let trouble = failure.as_ref();
            let trouble = trouble.map(|why| (text::LOGGED_OUT.to_owned(), why.to_string()));
            (name, text::NEARBY_ONLY.to_owned(), palette.accent, trouble)
        }
        LoginState::LoggingIn { name, server } => {
            (name, text::logging_in(&host(server)), palette.warning, None)
        }
    };
    Some(HeaderStatus {
        name,
        status,
        color,
        trouble,
    })
}
