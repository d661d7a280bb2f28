//! Running and finished transfers.

use std::collections::HashMap;

use egui::{Align, Frame, Layout, Margin, RichText, ScrollArea, TextEdit, Ui, Vec2};
use pinhole_client::{
    Command, Direction, Paused, Snapshot, Stage, TransferId, TransferView, display_lines,
};

use crate::action::{DialogRequest, Sheet, UiAction};
use crate::icon::{Icon, badge};
use crate::{strangers, text, theme};

/// Which files of a transfer failed and why, one line each.
pub(crate) type FileFailures = HashMap<TransferId, Vec<String>>;

/// Draws the list, the newest first.
pub(crate) fn show(ui: &mut Ui, snapshot: &Snapshot, failures: &FileFailures) -> Vec<UiAction> {
    let mut actions = Vec::new();
    let finished: Vec<TransferId> = snapshot
        .transfers
        .iter()
        .filter(|transfer| transfer.stage.is_final())
        .map(|transfer| transfer.id)
        .collect();
    ui.horizontal(|ui| {
        ui.set_min_height(theme::BUTTON_HEIGHT);
        theme::section_heading(ui, text::TRANSFERS);
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            let history = !snapshot.history.is_empty();
            if history && theme::quiet_button(ui, text::HISTORY).clicked() {
                actions.push(UiAction::Open(Sheet::History { clearing: false }));
            }
            if finished.len() > 1 && theme::quiet_button(ui, text::DISMISS_ALL).clicked() {
                let dismiss = |transfer| UiAction::Command(Command::Dismiss { transfer });
                actions.extend(finished.into_iter().map(dismiss));
            }
        });
    });
    if let Some(overall) = snapshot.overall() {
        ui.label(theme::muted(ui, text::overall(&overall)));
        ui.add_space(theme::GAP_SMALL);
    }
    if snapshot.transfers.is_empty() {
        ui.label(RichText::new(text::NO_TRANSFERS).color(theme::palette(ui).muted));
    }
    let strangers = strangers::card(ui, snapshot);
    let are_grouped = strangers.is_some();
    actions.extend(strangers.unwrap_or_default());
    let shown = snapshot.transfers.iter().rev();
    for transfer in shown.filter(|t| !(are_grouped && strangers::is_waiting(t))) {
        ui.push_id(transfer.id, |ui| {
            let failed = failures.get(&transfer.id).map_or(&[][..], Vec::as_slice);
            theme::card(ui).show(ui, |ui| {
                ui.set_width(ui.available_width());
                actions.extend(card(ui, transfer, failed));
            });
        });
        ui.add_space(theme::GAP_SMALL);
    }
    actions
}

/// The left margin of a card's text, right of its icon.
const INDENT: i8 = 48;

fn card(ui: &mut Ui, transfer: &TransferView, failed: &[String]) -> Vec<UiAction> {
    ui.horizontal(|ui| {
        let (icon, color) = picture(ui, transfer, failed);
        badge(ui, icon, color);
        ui.add_space(theme::GAP_SMALL);
        let buttons = ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            let actions = buttons(ui, transfer);
            ui.with_layout(Layout::top_down(Align::Min), |ui| headline(ui, transfer));
            actions
        });
        buttons.inner
    })
    .inner
    .into_iter()
    .chain(indented(ui, |ui| details(ui, transfer, failed)))
    .collect()
}

fn indented<R>(ui: &mut Ui, content: impl FnOnce(&mut Ui) -> R) -> R {
    let margin = Margin {
        left: INDENT,
        ..Margin::ZERO
    };
    Frame::new().inner_margin(margin).show(ui, content).inner
}

fn picture(ui: &Ui, transfer: &TransferView, failed: &[String]) -> (Icon, egui::Color32) {
    let palette = theme::palette(ui);
    let paused = transfer.progress.paused != Paused::default();
    match (&transfer.stage, transfer.direction) {
        (Stage::Completed(_), _) if transfer.text.is_some() => (Icon::Bubble, palette.accent),
        (Stage::Completed(done), _) if done.missing() > 0 || !failed.is_empty() => {
            (Icon::Warning, palette.warning)
        }
        (Stage::Completed(_), _) => (Icon::Check, palette.accent),
        (Stage::Failed(failure), _) if text::can_go_on(failure) => (Icon::Bars, palette.muted),
        (Stage::Failed(_), _) => (Icon::Cross, palette.danger),
        (Stage::Transferring, _) if paused => (Icon::Bars, palette.muted),
        (_, Direction::Sending) => (Icon::Up, palette.muted),
        (_, Direction::Receiving) => (Icon::Down, palette.muted),
    }
}

fn headline(ui: &mut Ui, transfer: &TransferView) {
    let palette = theme::palette(ui);
    let title = text::title(transfer);
    let title = match title.as_str() {
        "" => text::stage(transfer),
        title => theme::elided(ui, title, &theme::title(), ui.available_width()),
    };
    ui.label(RichText::new(title).text_style(theme::title()));
    let color = match &transfer.stage {
        Stage::Completed(_) => palette.accent,
        Stage::Failed(failure) if text::can_go_on(failure) => palette.muted,
        Stage::Failed(_) => palette.danger,
        Stage::Transferring if transfer.progress.is_stalled() => palette.warning,
        _ => palette.muted,
    };
    let said = match transfer.text {
        Some(_) => is_received(transfer),
        None => transfer.offer.title.is_empty(),
    };
    if !said {
        ui.add(egui::Label::new(theme::muted(ui, text::stage(transfer)).color(color)).wrap());
    }
}

fn is_received(transfer: &TransferView) -> bool {
    matches!(transfer.stage, Stage::Completed(_)) && transfer.direction == Direction::Receiving
}

fn buttons(ui: &mut Ui, transfer: &TransferView) -> Vec<UiAction> {
    let id = transfer.id;
    let command = |words, command| (words, UiAction::Command(command));
    let retry = command(text::SEND_AGAIN, Command::Retry { transfer: id });
    let dismiss = command(text::DISMISS, Command::Dismiss { transfer: id });
    let cancel = command(text::CANCEL, Command::Cancel { transfer: id });
    let buttons = match (&transfer.stage, transfer.direction) {
        (Stage::AwaitingDecision, _) => vec![(text::LOOK, UiAction::LookAt(id))],
        (Stage::Transferring, _) if transfer.text.is_none() => return while_moving(ui, transfer),
        (Stage::Failed(_), Direction::Sending) => vec![dismiss, retry],
        (stage, _) if stage.is_final() => {
            // Copies the original. What is shown has replaced hidden characters.
            let copy = transfer.text.as_ref().filter(|_| is_received(transfer));
            let copy = copy.map(|words| (text::COPY, UiAction::Copy(words.to_string())));
            vec![dismiss].into_iter().chain(copy).collect()
        }
        _ => vec![cancel],
    };
    let pressed = buttons
        .into_iter()
        .filter(|(words, _)| theme::quiet_button(ui, words).clicked());
    pressed.map(|(_, action)| action).collect()
}

/// Pausing and ending. There are two ways to end once something has arrived.
fn while_moving(ui: &mut Ui, transfer: &TransferView) -> Vec<UiAction> {
    let id = transfer.id;
    let cancel = Command::Cancel { transfer: id };
    let interrupt = Command::Interrupt { transfer: id };
    let end = if transfer.progress.bytes_done == 0 {
        theme::quiet_button(ui, text::CANCEL)
            .clicked()
            .then_some(cancel)
    } else {
        let ways = [(text::KEEP_PART, interrupt), (text::KEEP_NOTHING, cancel)];
        theme::quiet_menu(ui, text::STOP, ways)
    };
    let paused = transfer.progress.paused.by_us;
    let words = if paused { text::RESUME } else { text::PAUSE };
    let pause = Command::Pause {
        transfer: id,
        paused: !paused,
    };
    let pause = theme::quiet_button(ui, words).clicked().then_some(pause);
    end.into_iter()
        .chain(pause)
        .map(UiAction::Command)
        .collect()
}

fn details(ui: &mut Ui, transfer: &TransferView, failed: &[String]) -> Vec<UiAction> {
    let mut actions = Vec::new();
    if let Some(words) = &transfer.text {
        message(ui, words);
        return actions;
    }
    match &transfer.stage {
        Stage::Transferring => running(ui, transfer),
        Stage::Completed(done) => {
            ui.add_space(theme::GAP);
            let row = Layout::right_to_left(Align::Center);
            ui.allocate_ui_with_layout(Vec2::new(ui.available_width(), 0.0), row, |ui| {
                if let Some(folder) = &done.folder
                    && theme::button(ui, text::OPEN_FOLDER).clicked()
                {
                    actions.push(UiAction::Ask(DialogRequest::Show(folder.clone())));
                }
                ui.with_layout(Layout::top_down(Align::Min), |ui| {
                    let way = transfer.path.map(|path| text::path(path).to_owned());
                    for line in [text::completion(done)].into_iter().chain(way) {
                        ui.add(egui::Label::new(theme::muted(ui, line)).wrap());
                    }
                });
            });
        }
        _ => {}
    }
    if let Stage::Completed(done) = &transfer.stage {
        let renamed = &done.renamed;
        let names = renamed.first.iter();
        let names: Vec<String> = names
            .map(|(before, now)| text::now_called(before, now))
            .collect();
        let count = usize::try_from(renamed.count).unwrap_or(usize::MAX);
        lines(ui, &names, count, Some(&text::renamed(count)));
        lines(ui, &done.skipped, done.skipped.len(), Some(text::SKIPPED));
    }
    let left_out = transfer.offer.left_out.iter().map(ToString::to_string);
    let left_out: Vec<String> = left_out.collect();
    lines(ui, &left_out, left_out.len(), None);
    // Not all failures are remembered if there are very many.
    let failures = match &transfer.stage {
        Stage::Completed(done) => usize::try_from(done.failed_files).unwrap_or(usize::MAX),
        _ => 0,
    };
    let failures = failures.max(failed.len());
    lines(ui, failed, failures, Some(&text::files_failed(failures)));
    actions
}

/// A message that can be read and selected.
fn message(ui: &mut Ui, words: &str) {
    const HIGHEST: f32 = 160.0;
    let shown = display_lines(words);
    ui.add_space(theme::GAP);
    Frame::new()
        .fill(theme::palette(ui).background)
        .corner_radius(8)
        .inner_margin(Margin::symmetric(12, 8))
        .show(ui, |ui| {
            ScrollArea::vertical()
                .max_height(HIGHEST)
                .auto_shrink([false, true])
                .show(ui, |ui| {
                    // An immutable string makes the field read-only.
                    let mut shown = shown.as_str();
                    let field = TextEdit::multiline(&mut shown)
                        .frame(Frame::NONE)
                        .desired_rows(1)
                        .desired_width(f32::INFINITY);
                    ui.add(field).accessible_name(text::MESSAGE);
                });
        });
}

fn running(ui: &mut Ui, transfer: &TransferView) {
    let progress = &transfer.progress;
    ui.add_space(theme::GAP);
    let share = match progress.bytes_total {
        // Nobody knows how much of a stream is to come.
        None | Some(0) => 0.0,
        Some(total) => progress.bytes_done as f32 / total as f32,
    };
    theme::progress_bar(ui, share).accessible_name(text::stage(transfer));
    ui.add_space(theme::GAP_SMALL);
    ui.label(theme::muted(ui, text::progress(progress)));
    if let Some(path) = transfer.path {
        ui.label(theme::muted(ui, text::path(path)));
    }
}

/// The first few of `count` lines under a heading, and how many more there are.
fn lines(ui: &mut Ui, lines: &[String], count: usize, heading: Option<&str>) {
    const MOST: usize = 5;
    if count == 0 {
        return;
    }
    let color = theme::palette(ui).warning;
    let shown = lines.iter().take(MOST).map(String::as_str);
    let more = count - lines.len().min(MOST);
    let more = (more > 0 && !lines.is_empty()).then(|| text::and_more(more));
    for line in heading.into_iter().chain(shown).chain(more.as_deref()) {
        ui.add(egui::Label::new(theme::muted(ui, line).color(color)).wrap());
    }
}
