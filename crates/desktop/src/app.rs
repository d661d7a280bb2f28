//! The application: draws the latest snapshot and applies what the views ask for.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use egui::{Align, CentralPanel, Frame, Layout, Margin, Panel, ScrollArea, Ui};
use egui::{UserAttentionType, ViewportCommand};
use pinhole_client::{
    Command, Event, LoginState, PeerKey, PeerName, PeerView, Snapshot, Stage, TransferId,
    TransferView,
};

use crate::action::{Action, Sheet};
use crate::bridge::Bridge;
use crate::choice::Choice;
use crate::dialogs::{Answer, Dialogs};
use crate::hover::Hover;
use crate::leave::{self, Leaving};
use crate::message::Draft;
use crate::sheets::Sheets;
use crate::transfers::FileFailures;
use crate::{
    header, history, login, message, offer, paste, peers, send_sheet, settings, text, theme,
    transfers, trust,
};

/// How long a drop waits for the window system to say where it fell.
const DROP_PATIENCE: Duration = Duration::from_millis(250);
/// How long a question is in sight before it can be answered: longer than a
/// double click takes.
const SECONDS_TO_READ: f64 = 0.5;
/// How many failed files of one transfer are remembered.
const MOST_FILE_FAILURES: usize = 1_000;
/// How many events are taken before a frame is drawn.
const MOST_EVENTS: usize = 1_000;

/// The application.
pub(crate) struct App {
    bridge: Bridge,
    snapshot: Arc<Snapshot>,
    form: login::Form,
    dialogs: Dialogs,
    hover: Hover,
    sheets: Sheets,
    asked: Asked,
    /// The user wants it closed, whatever is under way.
    is_quitting: bool,
    postponed: HashSet<TransferId>,
    choices: HashMap<TransferId, Choice>,
    failures: FileFailures,
    notice: Option<String>,
    drop: Option<Drop>,
    title: String,
    font_asked_for: bool,
}

/// The question that is to be seen, and since when.
#[derive(Debug, Default)]
struct Asked {
    what: Option<egui::Id>,
    since_s: f64,
}

impl Asked {
    /// Whether this question has been in sight long enough to be answered: a
    /// click that comes sooner was meant for what stood there before.
    fn is_ready(&mut self, ctx: &egui::Context, what: egui::Id) -> bool {
        let now_s = ctx.input(|input| input.time);
        if self.what != Some(what) {
            self.what = Some(what);
            self.since_s = now_s;
        }
        let wait_s = self.since_s + SECONDS_TO_READ - now_s;
        if wait_s > 0.0 {
            ctx.request_repaint_after(Duration::from_secs_f64(wait_s));
        }
        wait_s <= 0.0
    }
}

/// Files that were dropped and do not know yet to whom they go.
struct Drop {
    paths: Vec<PathBuf>,
    fallen: Instant,
}

/// What the first screen is filled with.
#[derive(Debug, Default)]
pub(crate) struct Prefill {
    /// The name, instead of the one used last.
    pub(crate) name: Option<String>,
    /// The server, instead of the one used last.
    pub(crate) server: Option<String>,
    /// Both were asked for expressly: log in without a click.
    pub(crate) log_in: bool,
}

impl App {
    /// In the window that is being created, for an engine in this state.
    pub(crate) fn new(
        cc: &eframe::CreationContext<'_>,
        bridge: Bridge,
        snapshot: Arc<Snapshot>,
        prefill: Prefill,
    ) -> Self {
        theme::install(&cc.egui_ctx);
        let last_name = snapshot.settings.name.as_ref().map(ToString::to_string);
        let last_server = snapshot.settings.server.as_ref().map(ToString::to_string);
        let mut app = Self {
            form: login::Form::new(
                prefill.name.or(last_name).unwrap_or_default(),
                prefill.server.or(last_server).unwrap_or_default(),
            ),
            bridge,
            snapshot,
            dialogs: Dialogs::new(cc.egui_ctx.clone()),
            hover: Hover::new(cc),
            sheets: Sheets::default(),
            asked: Asked::default(),
            is_quitting: false,
            postponed: HashSet::new(),
            choices: HashMap::new(),
            failures: FileFailures::new(),
            notice: None,
            drop: None,
            title: text::window_title(None),
            font_asked_for: false,
        };
        let settings = &app.snapshot.settings;
        let again = settings.auto_log_in && app.form.is_as_remembered(settings);
        let is_out = matches!(app.snapshot.login, LoginState::LoggedOut { .. });
        // What was used last has worked: it is kept at until it does again.
        if (prefill.log_in || again && is_out)
            && let Some(command) = app.form.submit(again)
        {
            app.send(command);
        }
        app
    }

    /// Whether the engine has taken it; if not, a notice says so.
    fn send(&mut self, command: Command) -> bool {
        let taken = self.bridge.command(command);
        if let Err(busy) = taken {
            self.notice = Some(busy.to_owned());
        }
        taken.is_ok()
    }

    fn apply(&mut self, ctx: &egui::Context, action: Action) {
        match action {
            Action::Command(command) => {
                self.send(command);
            }
            Action::Say { peer, text } => {
                if self.send(Command::SendText { peer, text }) {
                    self.sheets.discard();
                }
            }
            Action::Ask(question) => self.dialogs.ask(question, &self.snapshot.download_folder),
            Action::Open(sheet) => self.sheets.open(sheet),
            Action::CloseSheet => self.sheets.close(),
            Action::DiscardSheet => self.sheets.discard(),
            Action::Leave(leaving) => {
                if leave::under_way(&self.snapshot).next().is_some() {
                    self.sheets.open(Sheet::Leave(leaving));
                } else {
                    self.leave(ctx, leaving);
                }
            }
            Action::LeaveNow(leaving) => self.leave(ctx, leaving),
            Action::TrustServer(server) => {
                self.form.trust(&server);
                match self.form.submit(false) {
                    Some(command) => {
                        self.send(command);
                    }
                    None => self.sheets.open(Sheet::LogIn),
                }
            }
            Action::Postpone(transfer) => {
                self.postponed.insert(transfer);
            }
            Action::LookAt(transfer) => {
                self.postponed.remove(&transfer);
            }
            Action::Copy(text) => {
                ctx.copy_text(text);
                self.notice = Some(text::COPIED.to_owned());
            }
            Action::DismissNotice => self.notice = None,
            Action::SetTheme(preference) => ctx.set_theme(preference),
        }
        // What an action changes may stand above it in the window.
        ctx.request_repaint();
    }

    fn leave(&mut self, ctx: &egui::Context, leaving: Leaving) {
        for command in leaving.commands() {
            self.send(command);
        }
        if leaving == Leaving::Quit {
            self.is_quitting = true;
            ctx.send_viewport_cmd(ViewportCommand::Close);
        }
    }

    /// The window's own button was pressed: something may be under way.
    fn close_or_ask(&mut self, ctx: &egui::Context) {
        let is_asked_to = ctx.input(|input| input.viewport().close_requested());
        let would_lose = || {
            let mut running = leave::under_way(&self.snapshot);
            running.next().is_some() || self.sheets.unsent().next().is_some()
        };
        if is_asked_to && !self.is_quitting && would_lose() {
            ctx.send_viewport_cmd(ViewportCommand::CancelClose);
            // The taskbar can close it while it is out of sight.
            if ctx.input(|input| input.viewport().minimized) == Some(true) {
                ctx.send_viewport_cmd(ViewportCommand::Minimized(false));
            }
            self.sheets.open(Sheet::Leave(Leaving::Quit));
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
            Event::CommandFailed { failure } => self.notice = Some(failure.to_string()),
            // The snapshot shows the rest.
            Event::LoggedIn { .. }
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

    /// Takes over the engine's state and forgets what belongs to what is gone.
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
        self.postponed.retain(|transfer| known.contains(transfer));
        self.choices.retain(|transfer, _| known.contains(transfer));
        let is_logged_in = matches!(self.snapshot.login, LoginState::LoggedIn { .. });
        self.sheets.obey(&self.snapshot, is_logged_in);
        self.look_for_glyphs(ctx);
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

    /// Whether there may be people to see.
    fn is_among_people(&self) -> bool {
        own_name(&self.snapshot).is_some()
    }

    /// Takes files that fell on the window or were pasted into it. What was
    /// pasted is returned when it is anything else.
    fn take_files(&mut self, ctx: &egui::Context) -> Option<String> {
        let typing = ctx.text_edit_focused();
        let (dropped, pasted) = ctx.input(|input| {
            let dropped: Vec<PathBuf> = input
                .raw
                .dropped_files
                .iter()
                .map(|file| file.path().to_owned())
                .collect();
            let pasted = input.events.iter().find_map(|event| match event {
                egui::Event::Paste(text) if !typing => Some(text.clone()),
                _ => None,
            });
            (dropped, pasted)
        });
        self.take_dropped(dropped);
        if let Some(fallen) = self.hover.take_fallen() {
            if !fallen.refused.is_empty() {
                self.notice = Some(text::refused_drop(&fallen.refused, fallen.paths.is_empty()));
            }
            self.take_dropped(fallen.paths);
        }
        let paths = paste::paths(pasted.as_deref()?);
        if paths.is_empty() {
            return pasted;
        }
        self.sheets.ask_to_whom(&self.snapshot, paths);
        None
    }

    fn take_dropped(&mut self, paths: Vec<PathBuf>) {
        if !paths.is_empty() {
            // One drop of several files may come in several frames.
            let drop = self.drop.get_or_insert_with(|| Drop {
                paths: Vec::new(),
                fallen: Instant::now(),
            });
            drop.paths.extend(paths);
        }
    }

    /// Pasted words go to the peer under the pointer or the keyboard's focus.
    fn open_draft(
        &self,
        ctx: &egui::Context,
        words: &str,
        list: &peers::Outcome,
    ) -> Option<Action> {
        // A question lies over the list.
        if ctx.memory(|memory| memory.top_modal_layer().is_some()) {
            return None;
        }
        let key = list.under_pointer.or(list.focused)?;
        let peer = |p: &&PeerView| p.identity.key == key && p.changed_from.is_none();
        let peer = self.snapshot.peers.iter().find(peer)?;
        let draft = Draft::to(peer.identity.clone(), words);
        Some(Action::Open(Sheet::Message(draft)))
    }

    /// Sends a drop to the peer it fell on, or asks to whom.
    fn resolve_drop(
        &mut self,
        ctx: &egui::Context,
        under_pointer: Option<PeerKey>,
    ) -> Option<Action> {
        let drop = self.drop.take()?;
        let position_known = ctx.input(|input| input.pointer.latest_pos().is_some());
        if self.is_among_people() && !position_known && drop.fallen.elapsed() < DROP_PATIENCE {
            ctx.request_repaint_after(Duration::from_millis(20));
            self.drop = Some(drop);
            return None;
        }
        let peer = under_pointer.and_then(|key| {
            self.snapshot
                .peers
                .iter()
                .find(|peer| peer.identity.key == key)
        });
        match peer {
            Some(peer) => Some(send_sheet::to_peer(peer, &drop.paths)),
            None => {
                self.sheets.ask_to_whom(&self.snapshot, drop.paths);
                ctx.request_repaint();
                None
            }
        }
    }

    fn first_screen(&mut self, ui: &mut Ui) -> Vec<Action> {
        let waiting = self.sheets.waiting().map(text::paths_title);
        login::show(ui, &mut self.form, &self.snapshot, waiting.as_deref())
    }

    fn main_screen(&self, ui: &mut Ui) -> peers::Outcome {
        let mut outcome = peers::Outcome::default();
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

    /// What lies over the window. An offer's question comes first, for somebody
    /// waits for the answer; only closing the window comes before it.
    fn sheets(&mut self, ui: &Ui) -> Vec<Action> {
        if matches!(self.sheets.top(), Some(Sheet::Leave(_))) {
            return self.sheet(ui);
        }
        let offers: Vec<&TransferView> = self
            .snapshot
            .transfers
            .iter()
            .filter(|t| {
                matches!(t.stage, Stage::AwaitingDecision) && !self.postponed.contains(&t.id)
            })
            .collect();
        if let Some(first) = offers.first() {
            if let Some(Sheet::Message(draft)) = self.sheets.top_mut() {
                draft.lose_focus();
            }
            // Whatever moves the buttons makes it another question.
            let what = ("offer", first.id, first.offer.existing > 0);
            let is_ready = self.asked.is_ready(ui.ctx(), egui::Id::unique(what));
            let choice = self.choices.entry(first.id);
            let choice = choice.or_insert_with(|| Choice::of(&first.offer));
            let others = offers.len() - 1;
            return offer::show(ui, &self.snapshot, first, choice, others, is_ready);
        }
        self.sheet(ui)
    }

    /// The topmost of the sheets that the user has opened.
    fn sheet(&mut self, ui: &Ui) -> Vec<Action> {
        let what = match self.sheets.top() {
            Some(Sheet::Trust { peer, .. }) => Some(egui::Id::unique(("trust", peer.as_bytes()))),
            Some(Sheet::Leave(_)) => Some(egui::Id::unique("leave")),
            Some(Sheet::History { clearing }) => Some(egui::Id::unique(("history", clearing))),
            _ => None,
        };
        let is_ready = what.is_none_or(|what| self.asked.is_ready(ui.ctx(), what));
        if what.is_none() {
            self.asked = Asked::default();
        }
        let unsent: Vec<PeerName> = self.sheets.unsent().cloned().collect();
        match self.sheets.top_mut() {
            Some(Sheet::Message(draft)) => message::show(ui, &self.snapshot, draft),
            Some(Sheet::Send { paths, chosen }) => {
                send_sheet::show(ui, &self.snapshot, paths, chosen)
            }
            Some(Sheet::Settings(form)) => settings::show(ui, &self.snapshot, form),
            Some(Sheet::History { clearing }) => {
                history::show(ui, &self.snapshot, clearing, is_ready)
            }
            Some(Sheet::LogIn) => login::show_sheet(ui, &mut self.form, &self.snapshot),
            Some(Sheet::Leave(leaving)) => {
                leave::show(ui, &self.snapshot, *leaving, &unsent, is_ready)
            }
            Some(Sheet::Trust { peer, paths }) => self
                .snapshot
                .peers
                .iter()
                .find(|p| p.identity.key == *peer)
                .map(|peer| trust::show(ui, peer, paths, is_ready))
                .unwrap_or_default(),
            None => Vec::new(),
        }
    }

    fn notice(&self, ui: &mut Ui) -> Vec<Action> {
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
                                vec![Action::DismissNotice]
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
                Answer::Command(command) => {
                    self.send(command);
                }
                Answer::Files(paths) => {
                    self.sheets.ask_to_whom(&self.snapshot, paths);
                }
                Answer::Trouble(words) => self.notice = Some(words),
            }
        }
        self.take_snapshot(ctx);
        self.close_or_ask(ctx);
    }

    fn ui(&mut self, ui: &mut Ui, _frame: &mut eframe::Frame) {
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
            // The others have nobody to be for yet.
            if let Some(Sheet::Settings(_) | Sheet::Leave(_)) = self.sheets.top() {
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
