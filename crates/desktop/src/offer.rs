//! The question an incoming offer asks.

use egui::{
    Align, Frame, Key, Layout, Margin, Modal, Modifiers, RichText, ScrollArea, TextStyle, Ui, Vec2,
};
use std::collections::BTreeSet;

use pinhole_client::snapshot::EntryView;
use pinhole_client::{Command, Snapshot, TransferView};

use crate::action::{Action, Question};
use crate::{text, theme};

const WIDTH: f32 = 480.0;
const LINE_HEIGHT: f32 = 26.0;

/// Draws the question over the window. `others` more offers wait.
pub(crate) fn show(
    ui: &Ui,
    snapshot: &Snapshot,
    transfer: &TransferView,
    others: usize,
) -> Vec<Action> {
    let ctx = ui.ctx();
    let screen = ctx.content_rect();
    Modal::new(egui::Id::unique(("offer", transfer.id)))
        .frame(theme::sheet(ui.style()))
        .show(ctx, |ui| {
            // What is left of the window's width inside the sheet's frame.
            ui.set_width(WIDTH.min(screen.width() - 96.0));
            who(ui, transfer);
            ui.add_space(theme::GAP_LARGE);
            ui.label(RichText::new(text::amount(&transfer.offer)).text_style(theme::title()));
            ui.add_space(theme::GAP_SMALL);
            // The buttons stay on the screen however long the list is.
            let height = (screen.height() - 460.0).clamp(LINE_HEIGHT, 10.0 * LINE_HEIGHT);
            entries(ui, &transfer.offer.entries, height);
            ui.add_space(theme::GAP);
            let folder = text::into_folder(&snapshot.download_folder);
            let folder = theme::elided(ui, &folder, &TextStyle::Small, ui.available_width());
            ui.label(theme::muted(ui, folder));
            ui.add_space(theme::GAP_LARGE);
            let actions = answer(ui, transfer);
            ui.add_space(theme::GAP);
            ui.label(theme::muted(ui, text::DECIDE_LATER));
            if others > 0 {
                ui.label(theme::muted(ui, text::more_offers(others)));
            }
            actions
        })
        .inner
}

fn who(ui: &mut Ui, transfer: &TransferView) {
    let name = transfer.peer.name.as_str();
    ui.horizontal(|ui| {
        let (rect, _) = ui.allocate_exact_size(Vec2::splat(40.0), egui::Sense::hover());
        crate::icon::monogram(ui, rect.center(), name, true);
        ui.add_space(theme::GAP_SMALL);
        ui.vertical(|ui| {
            let question = RichText::new(text::wants_to_send(name))
                .heading()
                .size(19.0);
            ui.add(egui::Label::new(question).wrap());
            let fingerprint = transfer.peer.key.fingerprint().to_string();
            let fingerprint = text::grouped(&fingerprint);
            let style = RichText::new(fingerprint).monospace().size(11.0);
            ui.add(egui::Label::new(style.color(theme::palette(ui).muted)).wrap())
                .on_hover_text(text::FINGERPRINT_HELP);
        });
    });
}

fn entries(ui: &mut Ui, entries: &[EntryView], height: f32) {
    let palette = theme::palette(ui);
    Frame::new()
        .fill(palette.background)
        .corner_radius(8)
        .inner_margin(Margin::symmetric(12, 6))
        .show(ui, |ui| {
            ui.spacing_mut().item_spacing.y = 0.0;
            ScrollArea::vertical()
                .max_height(height)
                .min_scrolled_height(height.min(LINE_HEIGHT))
                .auto_shrink([false, true])
                .show_rows(ui, LINE_HEIGHT, entries.len(), |ui, rows| {
                    for entry in entries.iter().skip(rows.start).take(rows.len()) {
                        line(ui, entry);
                    }
                });
        });
}

fn line(ui: &mut Ui, entry: &EntryView) {
    let size = entry
        .size_bytes
        .map_or_else(|| text::EMPTY_FOLDER.to_owned(), text::size);
    let row = Vec2::new(ui.available_width(), LINE_HEIGHT);
    ui.allocate_ui_with_layout(row, Layout::right_to_left(Align::Center), |ui| {
        ui.label(theme::muted(ui, size));
        ui.add_space(theme::GAP);
        ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
            let path = theme::elided(ui, &entry.path, &TextStyle::Body, ui.available_width());
            ui.label(path);
        });
    });
}

fn answer(ui: &mut Ui, transfer: &TransferView) -> Vec<Action> {
    let id = transfer.id;
    let mut actions = Vec::new();
    ui.horizontal_wrapped(|ui| {
        if theme::primary_button(ui, text::ACCEPT, true).clicked() {
            let accept = Command::Accept {
                transfer: id,
                into: None,
                unwanted: BTreeSet::new(),
                existing: None,
            };
            actions.push(Action::Command(accept));
        }
        if theme::button(ui, text::DECLINE).clicked() {
            actions.push(Action::Command(Command::Decline { transfer: id }));
        }
        if theme::quiet_button(ui, text::SAVE_ELSEWHERE).clicked() {
            actions.push(Action::Ask(Question::FolderInto(id)));
        }
    });
    if ui.input_mut(|input| input.consume_key(Modifiers::NONE, Key::Escape)) {
        actions.push(Action::Postpone(id));
    }
    actions
}
