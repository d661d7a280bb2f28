//! The application: draws the latest snapshot and applies what the views ask for.

mod drops;
mod meeting;
mod questions;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use egui::{Align, CentralPanel, Frame, Layout, Margin, Panel, ScrollArea, Ui};
use egui::{UserAttentionType, ViewportCommand};
use pinhole_client::{Command, Event, LoginState, PeerKey, Snapshot, TransferId};

use crate::action::{LeaveRequest, Sheet, UiAction};
use crate::attention::Attention;
use crate::bridge::Bridge;
use crate::dialogs::{DialogAnswer, Dialogs};
use crate::hover::Hover;
use crate::leave;
use crate::search::SearchField;
use crate::selection::OfferSelection;
use crate::sheet_stack::SheetStack;
use crate::strangers::Postponed;
use crate::transfers::FileFailures;
use crate::{header, login, peers, text, theme, transfers};
use drops::PendingDrop;
use questions::QuestionTimer;

/// The most failed files of one transfer that are remembered.
const MOST_FILE_FAILURES: usize = 1_000;
/// The most events that are handled before a frame is drawn.
const MOST_EVENTS: usize = 1_000;

/// The application.
pub(crate) struct App {
    bridge: Bridge,
    snapshot: Arc<Snapshot>,
    form: login::LoginForm,
    search: SearchField,
    dialogs: Dialogs,
    hover: Hover,
    attention: Attention,
    sheets: SheetStack,
    asked: QuestionTimer,
    /// The user wants to quit, even if something is under way.
    is_quitting: bool,
    has_asked_for_words: bool,
    put_off: Postponed,
    /// The stranger's offer that the user wants to see alone.
    looked_at: Option<TransferId>,
    /// The rows of the question about strangers, and how often they have moved.
    rows: Vec<PeerKey>,
    rows_asked: QuestionTimer,
    rows_moved: u64,
    choices: HashMap<TransferId, OfferSelection>,
    failures: FileFailures,
    notice: Option<String>,
    drop: Option<PendingDrop>,
    title: String,
    font_asked_for: bool,
}

/// What the first screen is filled with.
#[derive(Debug, Default)]
pub(crate) struct LoginPrefill {
    /// The name, instead of the one used last.
    pub(crate) name: Option<String>,
    /// The server, instead of the one used last.
    pub(crate) server: Option<String>,
    /// An invitation that was opened.
    pub(crate) link: Option<String>,
    /// Both were given expressly, so log in without a click.
    pub(crate) log_in: bool,
    /// Files and folders that wait for somebody to be chosen.
    pub(crate) paths: Vec<PathBuf>,
}

impl App {
    /// Creates the application in a new window, for an engine in this state.
    pub(crate) fn new(
        cc: &eframe::CreationContext<'_>,
        bridge: Bridge,
        snapshot: Arc<Snapshot>,
        prefill: LoginPrefill,
    ) -> Self {
        theme::install(&cc.egui_ctx);
        let last_name = snapshot.settings.name.as_ref().map(ToString::to_string);
        let last_server = snapshot.settings.server.as_ref().map(ToString::to_string);
        let mut app = Self {
            form: login::LoginForm::new(
                prefill.name.or(last_name).unwrap_or_default(),
                prefill.server.or(last_server).unwrap_or_default(),
            ),
            search: SearchField::default(),
            bridge,
            snapshot,
            dialogs: Dialogs::new(cc.egui_ctx.clone()),
            hover: Hover::new(cc),
            attention: Attention::default(),
            sheets: SheetStack::default(),
            asked: QuestionTimer::default(),
            is_quitting: false,
            has_asked_for_words: false,
            put_off: Postponed::default(),
            looked_at: None,
            rows: Vec::new(),
            rows_asked: QuestionTimer::default(),
            rows_moved: 0,
            choices: HashMap::new(),
            failures: FileFailures::new(),
            notice: None,
            drop: None,
            title: text::window_title(None),
            font_asked_for: false,
        };
        app.take_given(prefill.paths, prefill.link);
        let settings = &app.snapshot.settings;
        let again = settings.auto_log_in && app.form.is_as_remembered(settings);
        let is_out = matches!(app.snapshot.login, LoginState::LoggedOut { .. });
        // What was used last has worked before, so it is tried until it works again.
        let patience = match again {
            true => login::Patience::UntilLoggedIn,
            false => login::Patience::OneAttempt,
        };
        if (prefill.log_in || again && is_out)
            && let Some(command) = app.form.submit(patience)
        {
            app.send(command);
        }
        app
    }

    /// Asks for recovery words before the first login of a user who stands at the first
    /// screen, at whichever start that is. Whoever starts the window with a name and a server has a script or a demo.
    fn introduce_words(&mut self, command: &Command) {
        let begins = matches!(command, Command::LogIn { .. } | Command::GoNearby { .. });
        let is_new = self.snapshot.settings.name.is_none() && !self.snapshot.has_recovery_key;
        if begins && is_new && !self.has_asked_for_words {
            let asked = self.bridge.command(Command::NewRecoveryKey);
            self.has_asked_for_words = asked.is_ok();
        }
    }

    /// Returns whether the engine has taken the command. If not, a notice says so.
    fn send(&mut self, command: Command) -> bool {
        let taken = self.bridge.command(command);
        if let Err(busy) = taken {
            self.notice = Some(busy.to_owned());
        }
        taken.is_ok()
    }

    fn apply(&mut self, ctx: &egui::Context, action: UiAction) {
        match action {
            UiAction::Command(command) => {
                self.introduce_words(&command);
                self.send(command);
            }
            UiAction::Say { peer, text } => {
                if self.send(Command::SendText { peer, text }) {
                    self.sheets.discard();
                }
            }
            UiAction::Ask(question) => self.dialogs.ask(question, &self.snapshot.download_folder),
            UiAction::Open(sheet) => self.sheets.open(sheet),
            UiAction::CloseSheet => self.sheets.close(),
            UiAction::DiscardSheet => self.sheets.discard(),
            UiAction::Leave(leaving) => {
                let face = self.bridge.face();
                if leave::under_way(&self.snapshot, leaving, face)
                    .next()
                    .is_some()
                {
                    self.sheets.open(Sheet::Leave(leaving));
                } else {
                    self.leave(ctx, leaving);
                }
            }
            UiAction::LeaveNow(leaving) => self.leave(ctx, leaving),
            UiAction::TrustServer(server) => {
                self.form.trust(&server);
                match self.form.submit(login::Patience::OneAttempt) {
                    Some(command) => {
                        self.send(command);
                    }
                    None => self.sheets.open(Sheet::LogIn),
                }
            }
            UiAction::Postpone(transfer) => {
                self.put_off.offers.insert(transfer);
            }
            UiAction::LookAt(transfer) => {
                self.put_off.offers.remove(&transfer);
                self.looked_at = Some(transfer);
            }
            UiAction::PutOffStrangers => {
                self.put_off.all(&self.snapshot);
                self.put_off.be_quiet(ctx.input(|input| input.time));
            }
            UiAction::DeclineStrangers => {
                self.send(Command::DeclineAll);
                self.put_off.be_quiet(ctx.input(|input| input.time));
            }
            UiAction::LookAtStrangers => self.put_off.none(&self.snapshot),
            UiAction::Copy(text) => {
                ctx.copy_text(text);
                self.notice = Some(text::COPIED.to_owned());
            }
            UiAction::DismissNotice => self.notice = None,
            UiAction::SetTheme(preference) => ctx.set_theme(preference),
        }
        // The change may affect what is drawn further up.
        ctx.request_repaint();
    }

    fn leave(&mut self, ctx: &egui::Context, leaving: LeaveRequest) {
        for command in leaving.commands() {
            self.send(command);
        }
        if leaving == LeaveRequest::Quit {
            self.is_quitting = true;
            ctx.send_viewport_cmd(ViewportCommand::Close);
        }
    }

    /// Handles the window's close button: something may be under way.
    fn close_or_ask(&mut self, ctx: &egui::Context) {
        let is_asked_to = ctx.input(|input| input.viewport().close_requested());
        let would_lose = || {
            let quitting = LeaveRequest::Quit;
            let mut running = leave::under_way(&self.snapshot, quitting, self.bridge.face());
            running.next().is_some() || self.sheets.unsent().next().is_some()
        };
        if is_asked_to && !self.is_quitting && would_lose() {
            ctx.send_viewport_cmd(ViewportCommand::CancelClose);
            // The taskbar can close a minimised window.
            if ctx.input(|input| input.viewport().minimized) == Some(true) {
                ctx.send_viewport_cmd(ViewportCommand::Minimized(false));
            }
            self.sheets.open(Sheet::Leave(LeaveRequest::Quit));
        }
    }

    fn handle(&mut self, ctx: &egui::Context, event: Event) {
        match event {
            Event::Offered { .. } | Event::Asked { .. } => attract(ctx),
            Event::TextReceived { transfer } => {
                self.send(Command::TextShown { transfer });
                attract(ctx);
            }
            Event::FileFailed {
                transfer,
                path,
                failure,
            } => {
                let lines = self.failures.entry(transfer).or_default();
                if lines.len() < MOST_FILE_FAILURES {
                    lines.push(format!("{path}: {failure}"));
                }
            }
            Event::RecoveryWords { words } => self.sheets.open(Sheet::Words(words)),
            Event::KeySucceeded { peer, .. } => {
                self.notice = Some(text::key_succeeded(peer.name.as_str()));
            }
            Event::KeyRevoked { peer } => {
                self.notice = Some(text::key_revoked(peer.name.as_str()));
            }
            Event::Revoked { name } => self.notice = Some(text::revoked(name.as_str())),
            Event::CommandFailed { failure } => self.notice = Some(failure.to_string()),
            event @ (Event::Invitation { .. }
            | Event::Joined { .. }
            | Event::Welcomed { .. }
            | Event::CodeClosed { .. }) => self.meet(ctx, &event),
            Event::Raised { paths, link } => {
                self.come_to_front(ctx);
                self.take_given(paths, link);
            }
            // The snapshot shows the rest.
            Event::LoggedIn { .. }
            | Event::Code { .. }
            | Event::LogInFailed { .. }
            | Event::Nearby { .. }
            | Event::Disconnected { .. }
            | Event::Connected { .. }
            | Event::Moved { .. }
            | Event::KeyRefused { .. }
            | Event::Started { .. }
            | Event::PausedByPeer { .. }
            | Event::Reconnecting { .. }
            | Event::Diagnosed { .. }
            | Event::Finished { .. } => {}
        }
    }

    /// The window was started again, perhaps with files.
    fn come_to_front(&mut self, ctx: &egui::Context) {
        ctx.send_viewport_cmd(ViewportCommand::Minimized(false));
        ctx.send_viewport_cmd(ViewportCommand::Focus);
        // Where a program may not take the focus by itself.
        attract(ctx);
    }

    /// Asks what is to become of what the program was started with.
    fn take_given(&mut self, paths: Vec<PathBuf>, link: Option<String>) {
        if let Some(link) = link {
            self.sheets.open(Sheet::Join(self.form.join(link)));
        } else if !paths.is_empty() {
            self.sheets.ask_to_whom(&self.snapshot, paths);
        }
    }

    /// Takes over the engine's snapshot and drops state of transfers that are gone.
    fn take_snapshot(&mut self, ctx: &egui::Context) {
        let Some(snapshot) = self.bridge.snapshot() else {
            return;
        };
        if Arc::ptr_eq(&snapshot, &self.snapshot) {
            return;
        }
        self.snapshot = snapshot;
        let known: HashSet<TransferId> = self.snapshot.transfers.iter().map(|t| t.id).collect();
        self.failures.retain(|transfer, _| known.contains(transfer));
        self.put_off.obey(&self.snapshot);
        self.choices.retain(|transfer, _| known.contains(transfer));
        let is_logged_in = matches!(self.snapshot.login, LoginState::LoggedIn { .. });
        self.sheets.obey(&self.snapshot, is_logged_in);
        self.look_for_glyphs(ctx);
    }

    fn retitle(&mut self, ctx: &egui::Context) {
        let title = text::window_title(own_name(&self.snapshot).as_deref());
        if title != self.title {
            ctx.send_viewport_cmd(ViewportCommand::Title(title.clone()));
            self.title = title;
        }
    }

    /// Says once which fonts to install, when a title would be drawn as boxes.
    fn look_for_glyphs(&mut self, ctx: &egui::Context) {
        if self.font_asked_for {
            return;
        }
        let font = egui::FontId::default();
        let drawable = |title: &str| {
            let unseen = |c: char| c.is_ascii() || c.is_whitespace();
            ctx.fonts_mut(|fonts| {
                title
                    .chars()
                    .all(|c| unseen(c) || fonts.has_glyph(&font, c))
            })
        };
        if !self
            .snapshot
            .transfers
            .iter()
            .all(|transfer| drawable(&transfer.offer.title))
        {
            self.font_asked_for = true;
            self.notice = Some(text::NO_FONT.to_owned());
        }
    }

    /// Whether the list of people is shown.
    fn is_among_people(&self) -> bool {
        own_name(&self.snapshot).is_some()
    }

    fn first_screen(&mut self, ui: &mut Ui) -> Vec<UiAction> {
        let waiting = self.sheets.waiting().map(text::paths_title);
        login::show(ui, &mut self.form, &self.snapshot, waiting.as_deref())
    }

    fn main_screen(&mut self, ui: &mut Ui) -> peers::PeerListOutcome {
        let mut outcome = peers::PeerListOutcome::default();
        let hovering = ui.input(|input| !input.raw.hovered_files.is_empty());
        let margin = Frame::new().inner_margin(Margin::symmetric(24, 16));
        Panel::top("me")
            .frame(margin)
            .show_separator_line(false)
            .show(ui, |ui| {
                outcome.actions.extend(header::show(ui, &self.snapshot));
            });
        CentralPanel::default().frame(Frame::new()).show(ui, |ui| {
            ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
                Frame::new()
                    .inner_margin(Margin {
                        left: 24,
                        right: 24,
                        top: 8,
                        bottom: 24,
                    })
                    .show(ui, |ui| {
                        outcome.actions.extend(self.search.show(ui, &self.snapshot));
                        let list = peers::show(ui, &self.snapshot, hovering);
                        outcome.under_pointer = list.under_pointer;
                        outcome.focused = list.focused;
                        outcome.actions.extend(list.actions);
                        ui.add_space(theme::GAP_SECTION);
                        outcome
                            .actions
                            .extend(transfers::show(ui, &self.snapshot, &self.failures));
                    });
            });
        });
        if hovering && outcome.under_pointer.is_none() {
            let known = ui.input(|input| input.pointer.latest_pos().is_some());
            peers::hover_hint(ui, known);
        }
        outcome
    }

    fn notice(&self, ui: &mut Ui) -> Vec<UiAction> {
        let Some(notice) = &self.notice else {
            return Vec::new();
        };
        let margin = Frame::new().inner_margin(Margin::symmetric(24, 12));
        Panel::bottom("notice")
            .frame(margin)
            .show_separator_line(false)
            .show(ui, |ui| {
                theme::warning_card(ui)
                    .inner_margin(Margin::symmetric(16, 8))
                    .show(ui, |ui| {
                        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                            let dismissed = theme::quiet_button(ui, text::DISMISS).clicked();
                            ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                                ui.add(egui::Label::new(notice).wrap());
                            });
                            if dismissed {
                                vec![UiAction::DismissNotice]
                            } else {
                                Vec::new()
                            }
                        })
                        .inner
                    })
                    .inner
            })
            .inner
    }
}

impl eframe::App for App {
    fn raw_input_hook(&mut self, ctx: &egui::Context, raw_input: &mut egui::RawInput) {
        self.hover.amend(ctx, raw_input);
    }

    fn logic(&mut self, ctx: &egui::Context, _frame: &mut eframe::Frame) {
        for _ in 0..MOST_EVENTS {
            let Some(event) = self.bridge.next_event() else {
                break;
            };
            self.handle(ctx, event);
        }
        while let Some(answer) = self.dialogs.next_answer() {
            match answer {
                DialogAnswer::Command(command) => {
                    self.send(command);
                }
                DialogAnswer::Files(paths) => {
                    self.sheets.ask_to_whom(&self.snapshot, paths);
                }
                DialogAnswer::Trouble(words) => self.notice = Some(words),
            }
        }
        if self.bridge.has_just_ended() {
            self.notice = Some(text::ENGINE_ENDED.to_owned());
        }
        self.take_snapshot(ctx);
        self.retitle(ctx);
        self.close_or_ask(ctx);
    }

    fn ui(&mut self, ui: &mut Ui, _frame: &mut eframe::Frame) {
        // A busy engine is told in a later frame.
        if let Some((command, told)) = self.attention.news(ui.ctx())
            && self.bridge.command(command).is_ok()
        {
            self.attention = told;
        }
        let words = self.take_files(ui.ctx());
        let mut actions = self.notice(ui);
        let mut under_pointer = None;
        if self.is_among_people() {
            let outcome = self.main_screen(ui);
            under_pointer = outcome.under_pointer;
            if let Some(words) = words {
                actions.extend(self.open_draft(ui.ctx(), &words, &outcome));
            }
            actions.extend(outcome.actions);
            actions.extend(self.sheets(ui));
        } else {
            CentralPanel::default().frame(Frame::new()).show(ui, |ui| {
                actions.extend(self.first_screen(ui));
            });
            // The other sheets need people.
            if let Some(
                Sheet::Settings(_)
                | Sheet::Leave(_)
                | Sheet::Words(_)
                | Sheet::Recover(_)
                | Sheet::Join(_),
            ) = self.sheets.top()
            {
                actions.extend(self.sheet(ui));
            }
        }
        actions.extend(self.resolve_drop(ui.ctx(), under_pointer));
        for action in actions {
            self.apply(ui.ctx(), action);
        }
    }

    fn on_exit(&mut self, _gl: Option<&eframe::glow::Context>) {
        self.bridge.shut_down();
    }

    fn clear_color(&self, visuals: &egui::Visuals) -> [f32; 4] {
        visuals.panel_fill.to_normalized_gamma_f32()
    }
}

/// The name that others see.
fn own_name(snapshot: &Snapshot) -> Option<String> {
    match &snapshot.login {
        LoginState::LoggedIn { name, .. } | LoginState::Reconnecting { name, .. } => {
            Some(name.to_string())
        }
        LoginState::LoggedOut { .. } | LoginState::LoggingIn { .. } => {
            snapshot.nearby.as_ref().map(ToString::to_string)
        }
    }
}

/// Asks the user to look at the window.
fn attract(ctx: &egui::Context) {
    let attention = UserAttentionType::Informational;
    ctx.send_viewport_cmd(ViewportCommand::RequestUserAttention(attention));
}
