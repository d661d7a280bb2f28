//! The history of transfers, also of earlier runs.

use std::time::{SystemTime, UNIX_EPOCH};

use egui::{Align, Layout, RichText, ScrollArea, TextStyle, Ui, Vec2};
use pinhole_client::{Command, HistoryEntry, Outcome, Snapshot};

use crate::action::{DialogRequest, UiAction};
use crate::{sheet, text, theme};

const ROW_HEIGHT: f32 = 72.0;

/// Draws the list over the window, the newest first. `clearing` is set once clearing was
/// clicked. A second click counts once the sheet `is_ready`.
pub(crate) fn show(
    ui: &Ui,
    snapshot: &Snapshot,
    clearing: &mut bool,
    is_ready: bool,
) -> Vec<UiAction> {
    sheet::show(ui, "history", |ui| {
        let mut actions = Vec::new();
        ui.label(RichText::new(text::HISTORY).heading().size(19.0));
        ui.add_space(theme::GAP);
        let entries = &snapshot.history;
        if entries.is_empty() {
            ui.label(theme::muted(ui, text::NO_HISTORY));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_s = now.map_or(0, |now| now.as_secs());
        let height = (ui.ctx().content_rect().height() - 220.0).max(ROW_HEIGHT);
        ui.spacing_mut().item_spacing.y = 0.0;
        ScrollArea::vertical()
            .max_height(height)
            .min_scrolled_height(height)
            .auto_shrink([false, true])
            .show_rows(ui, ROW_HEIGHT, entries.len(), |ui, rows| {
                let newest_first = entries.iter().rev().enumerate().skip(rows.start);
                for (place, entry) in newest_first.take(rows.len()) {
                    ui.push_id(place, |ui| actions.extend(row(ui, entry, now_s)));
                }
            });
        ui.add_space(theme::GAP_LARGE);
        ui.horizontal(|ui| {
            if theme::primary_button(ui, text::CLOSE).clicked() {
                actions.push(UiAction::CloseSheet);
            }
            if entries.is_empty() {
                return;
            }
            // Cleared entries cannot be restored, so clearing takes two clicks.
            let words = [text::CLEAR_HISTORY, text::CLEAR_FOR_GOOD];
            let [first, second] = words;
            let words = if *clearing { second } else { first };
            if theme::quiet_button(ui, words).clicked() && is_ready {
                if *clearing {
                    actions.push(UiAction::Command(Command::ClearHistory));
                }
                *clearing = !*clearing;
            }
        });
        actions
    })
}

fn row(ui: &mut Ui, entry: &HistoryEntry, now_s: u64) -> Option<UiAction> {
    let size = Vec2::new(ui.available_width(), ROW_HEIGHT);
    ui.allocate_ui_with_layout(size, Layout::right_to_left(Align::Center), |ui| {
        ui.set_min_height(ROW_HEIGHT);
        // The list also follows the focus.
        let show = entry.folder.as_ref().and_then(|folder| {
            let button = theme::quiet_button(ui, text::OPEN_FOLDER);
            if button.gained_focus() {
                let around = Vec2::new(0.0, ROW_HEIGHT);
                ui.scroll_to_rect(button.rect.expand2(around), None);
            }
            let question = || UiAction::Ask(DialogRequest::Show(folder.clone()));
            button.clicked().then(question)
        });
        ui.with_layout(Layout::top_down(Align::Min), |ui| {
            ui.add_space(theme::GAP_SMALL);
            let width = ui.available_width();
            let title = theme::elided(ui, &entry.title, &theme::title(), width);
            ui.label(RichText::new(title).text_style(theme::title()));
            let lines = [text::entry(entry, now_s), text::ended(entry)];
            let palette = theme::palette(ui);
            let color = match entry.outcome {
                Outcome::Completed { failed_files: 0 } => palette.muted,
                Outcome::Completed { .. } => palette.warning,
                Outcome::Failed { .. } => palette.danger,
            };
            for (line, color) in lines.into_iter().zip([palette.muted, color]) {
                let shown = theme::elided(ui, &line, &TextStyle::Small, width);
                let label = ui.label(theme::muted(ui, &shown).color(color));
                if shown != line {
                    label.on_hover_text(line);
                }
            }
        });
        show
    })
    .inner
}
