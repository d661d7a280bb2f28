//! The first screen: a name and a server.

use egui::{Align, Key, Layout, RichText, TextEdit, TextStyle, Ui, Vec2};
use pinhole_client::{
    Command, Failure, LoginState, PathPolicy, PeerName, ServerAddress, Settings, Snapshot,
};

use crate::action::{LeaveRequest, Sheet, UiAction};
use crate::icon::aperture;
use crate::invite::JoinForm;
use crate::recovery::RecoverForm;
use crate::{header, settings, sheet, text, theme};

const COLUMN_WIDTH: f32 = 340.0;

/// What is typed on the first screen.
#[derive(Debug, Default)]
pub(crate) struct LoginForm {
    /// The name wanted, as typed.
    name: String,
    /// The server's address, as typed.
    server: String,
    /// The error in them, after an attempt to log in.
    complaint: Option<Complaint>,
    /// The keyboard focus was set once.
    focused: bool,
}

/// How long a login is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    OneAttempt,
    UntilLoggedIn,
}

#[derive(Debug)]
enum Complaint {
    Name(String),
    Server(String),
}

impl LoginForm {
    /// A form with these values.
    pub(crate) fn new(name: String, server: String) -> Self {
        Self {
            name,
            server,
            ..Self::default()
        }
    }

    /// Whether it holds what was used last.
    pub(crate) fn is_as_remembered(&self, settings: &Settings) -> bool {
        let name = self.name.trim().parse::<PeerName>().ok();
        let server = self.server.trim().parse::<ServerAddress>().ok();
        name.is_some() && name == settings.name && server.is_some() && server == settings.server
    }

    /// A form that joins by this text, with what is typed here.
    pub(crate) fn join(&self, text: String) -> JoinForm {
        JoinForm::new(text, self.name.clone(), self.server.clone())
    }

    /// Takes a link out of a field that it was pasted into.
    fn take_link(&mut self) -> Option<JoinForm> {
        let field = [&mut self.server, &mut self.name];
        let field = field.into_iter().find(|it| it.contains("://"))?;
        let link = std::mem::take(field);
        Some(self.join(link))
    }

    /// Replaces the server, after its key was checked.
    pub(crate) fn trust(&mut self, server: &ServerAddress) {
        self.server = server.to_string();
    }

    /// The command that logs in with what is typed, or a complaint.
    pub(crate) fn submit(&mut self, patience: Patience) -> Option<Command> {
        let patient = patience == Patience::UntilLoggedIn;
        let name = self.name.trim().parse::<PeerName>();
        let server = self.server.trim().parse::<ServerAddress>();
        match (name, server) {
            (Ok(name), Ok(server)) => {
                self.complaint = None;
                Some(Command::LogIn {
                    name,
                    server,
                    patient,
                })
            }
            (Err(error), _) => {
                self.complaint = Some(Complaint::Name(error.to_string()));
                None
            }
            (_, Err(error)) => {
                self.complaint = Some(Complaint::Server(error.to_string()));
                None
            }
        }
    }

    /// The commands for use without a server, or a complaint.
    fn submit_nearby(&mut self, is_switched_on: bool) -> Vec<Command> {
        match self.name.trim().parse::<PeerName>() {
            Ok(name) => {
                self.complaint = None;
                let switch = (!is_switched_on).then_some(Command::SetNearby { on: true });
                let go = Command::GoNearby {
                    name,
                    announces: true,
                    alone: true,
                };
                let stays_out = Command::SetAutoLogIn { on: false };
                switch.into_iter().chain([stays_out, go]).collect()
            }
            Err(error) => {
                self.complaint = Some(Complaint::Name(error.to_string()));
                Vec::new()
            }
        }
    }
}

/// Draws the screen. `waiting` is the title of files that were dropped before the login.
pub(crate) fn show(
    ui: &mut Ui,
    form: &mut LoginForm,
    snapshot: &Snapshot,
    waiting: Option<&str>,
) -> Vec<UiAction> {
    egui::ScrollArea::vertical()
        .auto_shrink(false)
        .show(ui, |ui| {
            let spare = (ui.available_height() - 684.0).max(0.0) / 2.0;
            ui.add_space(spare + theme::GAP_LARGE);
            ui.vertical_centered(|ui| {
                let width = COLUMN_WIDTH.min(ui.available_width());
                ui.allocate_ui_with_layout(
                    Vec2::new(width, 0.0),
                    Layout::top_down(Align::Center),
                    |ui| column(ui, form, snapshot, waiting),
                )
                .inner
            })
            .inner
        })
        .inner
}

fn column(
    ui: &mut Ui,
    form: &mut LoginForm,
    snapshot: &Snapshot,
    waiting: Option<&str>,
) -> Vec<UiAction> {
    // The decision about the server's key is visible without scrolling.
    let mut actions = key_changed(ui, snapshot);
    if actions.is_none() {
        aperture(ui, 48.0);
        ui.add_space(theme::GAP_LARGE);
        ui.heading(text::APP);
        ui.add_space(theme::GAP_SMALL);
        ui.label(RichText::new(text::TAGLINE).color(theme::palette(ui).muted));
    }
    ui.add_space(theme::GAP_SECTION);
    let asked = ui
        .with_layout(Layout::top_down(Align::Min), |ui| match &snapshot.login {
            LoginState::LoggingIn { name, server } => logging_in(ui, name, server),
            LoginState::LoggedOut { .. } => {
                let mut actions = fields(ui, form, snapshot, waiting);
                actions.extend(settings_button(ui, snapshot));
                actions.extend(join_button(ui, form));
                actions.extend(recover_button(ui, form));
                if snapshot.settings.path != PathPolicy::RelayOnly {
                    actions.extend(without_server(ui, form, snapshot.settings.nearby));
                }
                actions
            }
            LoginState::LoggedIn { .. } | LoginState::Reconnecting { .. } => Vec::new(),
        })
        .inner;
    ui.add_space(theme::GAP_SECTION);
    let fingerprint = text::grouped(&snapshot.fingerprint.to_string());
    ui.label(theme::muted(ui, text::YOUR_FINGERPRINT));
    ui.label(
        RichText::new(fingerprint)
            .monospace()
            .size(11.5)
            .color(theme::palette(ui).muted),
    )
    .on_hover_text(text::FINGERPRINT_HELP);
    actions.get_or_insert_default().extend(asked);
    actions.unwrap_or_default()
}

/// The question about a server's changed key; `None` where there is none.
fn key_changed(ui: &mut Ui, snapshot: &Snapshot) -> Option<Vec<UiAction>> {
    let LoginState::LoggedOut {
        failure: Some(failure @ Failure::ServerKeyChanged { .. }),
    } = &snapshot.login
    else {
        return None;
    };
    let card = theme::warning_card(ui).show(ui, |ui| {
        ui.set_width(ui.available_width());
        ui.with_layout(Layout::top_down(Align::Min), |ui| {
            ui.add(egui::Label::new(failure.to_string()).wrap());
            header::trust_server(ui, snapshot)
        })
        .inner
    });
    Some(card.inner.into_iter().collect())
}

/// Draws the same fields as a sheet over the people nearby.
pub(crate) fn show_sheet(ui: &Ui, form: &mut LoginForm, snapshot: &Snapshot) -> Vec<UiAction> {
    sheet::show(ui, "log in", |ui| {
        ui.label(RichText::new(text::LOG_IN_TO_SERVER).heading().size(19.0));
        ui.add_space(theme::GAP_LARGE);
        if let LoginState::LoggingIn { name, server } = &snapshot.login {
            return logging_in(ui, name, server);
        }
        let mut actions = key_changed(ui, snapshot).unwrap_or_default();
        ui.add_space(theme::GAP);
        actions.extend(fields(ui, form, snapshot, None));
        ui.vertical_centered(|ui| {
            if theme::button(ui, text::CANCEL).clicked() {
                actions.push(UiAction::CloseSheet);
            }
        });
        actions
    })
}

fn logging_in(ui: &mut Ui, name: &PeerName, server: &ServerAddress) -> Vec<UiAction> {
    ui.vertical_centered(|ui| {
        ui.label(text::logging_in_as(name.as_str(), &server.host_port()));
        ui.add_space(theme::GAP_LARGE);
        if theme::button(ui, text::CANCEL).clicked() {
            return vec![UiAction::Leave(LeaveRequest::GiveUp)];
        }
        Vec::new()
    })
    .inner
}

fn settings_button(ui: &mut Ui, snapshot: &Snapshot) -> Vec<UiAction> {
    let settings = ui
        .vertical_centered(|ui| theme::button(ui, text::SETTINGS).clicked())
        .inner;
    let form = || settings::SettingsForm::of(&snapshot.settings);
    let settings = settings.then(|| UiAction::Open(Sheet::Settings(form())));
    settings.into_iter().collect()
}

fn join_button(ui: &mut Ui, form: &LoginForm) -> Option<UiAction> {
    let join = ui.vertical_centered(|ui| theme::button(ui, text::JOIN_BY).clicked());
    let join = join.inner;
    join.then(|| UiAction::Open(Sheet::Join(form.join(String::new()))))
}

fn recover_button(ui: &mut Ui, form: &LoginForm) -> Option<UiAction> {
    let recover = ui.vertical_centered(|ui| theme::quiet_button(ui, text::RECOVER).clicked());
    let typed = || RecoverForm::new(form.name.clone(), form.server.clone());
    let recover = recover.inner;
    recover.then(|| UiAction::Open(Sheet::Recover(typed())))
}

fn fields(
    ui: &mut Ui,
    form: &mut LoginForm,
    snapshot: &Snapshot,
    waiting: Option<&str>,
) -> Vec<UiAction> {
    let (bad_name, bad_server) = match &form.complaint {
        Some(Complaint::Name(reason)) => (Some(reason.clone()), None),
        Some(Complaint::Server(reason)) => (None, Some(reason.clone())),
        None => (None, None),
    };
    let name = field(ui, &mut form.name, &text::NAME_FIELD, bad_name.as_deref());
    ui.add_space(theme::GAP);
    let server = field(
        ui,
        &mut form.server,
        &text::SERVER_FIELD,
        bad_server.as_deref(),
    );
    if let Some(join) = form.take_link() {
        return vec![UiAction::Open(Sheet::Join(join))];
    }
    ui.add_space(theme::GAP_LARGE);
    let wide = Vec2::new(ui.available_width(), 40.0);
    let button = ui
        .vertical_centered_justified(|ui| theme::primary_button_sized(ui, text::LOG_IN, wide))
        .inner;
    if !form.focused {
        form.focused = true;
        match (form.name.is_empty(), form.server.is_empty()) {
            (true, _) => name.request_focus(),
            (_, true) => server.request_focus(),
            _ => button.request_focus(),
        }
    }
    ui.add_space(theme::GAP_SMALL);
    let failure = match &snapshot.login {
        // Shown above.
        LoginState::LoggedOut {
            failure: Some(Failure::ServerKeyChanged { .. }),
        } => None,
        LoginState::LoggedOut { failure } => failure.as_ref().map(ToString::to_string),
        _ => None,
    };
    let mut actions = Vec::new();
    for (shown, color) in [
        (failure, theme::palette(ui).danger),
        (
            waiting.map(text::waiting_to_be_sent),
            theme::palette(ui).accent,
        ),
    ] {
        if let Some(shown) = shown {
            ui.add_space(theme::GAP);
            ui.label(RichText::new(shown).color(color));
        }
    }
    ui.add_space(theme::GAP_SMALL);
    let enter = ui.input(|input| input.key_pressed(Key::Enter));
    if button.clicked() || enter && (name.lost_focus() || server.lost_focus()) {
        match form.submit(Patience::OneAttempt) {
            Some(command) => {
                let is_new = !snapshot.settings.auto_log_in;
                let at_start = is_new.then_some(Command::SetAutoLogIn { on: true });
                let commands = at_start.into_iter().chain([command]);
                actions.extend(commands.map(UiAction::Command));
            }
            None if form.name.trim().parse::<PeerName>().is_err() => name.request_focus(),
            None => server.request_focus(),
        }
    }
    actions
}

fn without_server(ui: &mut Ui, form: &mut LoginForm, is_switched_on: bool) -> Vec<UiAction> {
    ui.add_space(theme::GAP_LARGE);
    let clicked = ui
        .vertical_centered(|ui| {
            let button = theme::button(ui, text::WITHOUT_SERVER);
            ui.label(theme::muted(ui, text::WITHOUT_SERVER_HELP));
            button.clicked()
        })
        .inner;
    if !clicked {
        return Vec::new();
    }
    let commands = form.submit_nearby(is_switched_on);
    commands.into_iter().map(UiAction::Command).collect()
}

fn field(
    ui: &mut Ui,
    value: &mut String,
    words: &text::FieldWords,
    complaint: Option<&str>,
) -> egui::Response {
    // A name has at most 32 characters, a host 253, a fingerprint 32.
    const LONGEST_CHARS: usize = 300;
    let label = ui.label(RichText::new(words.label).text_style(theme::section()));
    let edit = TextEdit::singleline(value)
        .hint_text(words.hint)
        .char_limit(LONGEST_CHARS)
        .margin(egui::Margin::symmetric(10, 8))
        .font(TextStyle::Body)
        .desired_width(f32::INFINITY);
    let response = ui.add(edit).labelled_by(label.id);
    match complaint {
        Some(reason) => ui.label(
            RichText::new(reason)
                .text_style(TextStyle::Small)
                .color(theme::palette(ui).danger),
        ),
        None => ui.label(theme::muted(ui, words.help)),
    };
    response
}
