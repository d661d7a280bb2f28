//! The question about an incoming offer.

use egui::{
    Align, Frame, Key, Layout, Margin, Modal, Modifiers, RichText, ScrollArea, TextStyle, Ui, Vec2,
};

use pinhole_client::snapshot::EntryView;
use pinhole_client::{Command, Existing, Snapshot, TransferView};

use crate::action::{DialogRequest, UiAction};
use crate::selection::{OfferSelection, Tick};
use crate::settings::existing_choice;
use crate::{strangers, text, theme};

const WIDTH: f32 = 480.0;
const LINE_HEIGHT: f32 = 26.0;
/// The height of the sheet without the list of files.
const AROUND_THE_LIST: f32 = 460.0;
/// The height of the warning about an unconfirmed name.
const CLAIMED_HEIGHT: f32 = 40.0;
/// The height of another row of buttons.
const BLOCK_HEIGHT: f32 = 42.0;
/// The height of the question about existing names.
const EXISTING_HEIGHT: f32 = 70.0;

/// An offer that the user is asked about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AskedOffer<'a> {
    pub(crate) transfer: &'a TransferView,
    /// How many more offers wait.
    pub(crate) others: usize,
    /// Whether the question can be answered. An earlier click or key was meant for
    /// something else.
    pub(crate) is_ready: bool,
}

/// Draws the question over the window.
pub(crate) fn show(
    ui: &Ui,
    snapshot: &Snapshot,
    asked: AskedOffer<'_>,
    choice: &mut OfferSelection,
) -> Vec<UiAction> {
    let AskedOffer {
        transfer,
        others,
        is_ready,
    } = asked;
    let ctx = ui.ctx();
    let screen = ctx.content_rect();
    let offer = &transfer.offer;
    Modal::new(egui::Id::unique(("offer", transfer.id)))
        .frame(theme::sheet(ui.style()))
        .show(ctx, |ui| {
            // The width inside the sheet's frame.
            ui.set_width(WIDTH.min(screen.width() - 96.0));
            let by_keyboard = by_keyboard(ui) && is_ready;
            who(ui, transfer);
            ui.add_space(theme::GAP_LARGE);
            amount(ui, &offer.entries, choice);
            ui.add_space(theme::GAP_SMALL);
            // The buttons stay on the screen however long the list is.
            let mut height = screen.height() - AROUND_THE_LIST;
            if offer.existing > 0 {
                height -= EXISTING_HEIGHT;
            }
            if transfer.claimed {
                height -= CLAIMED_HEIGHT;
            }
            if transfer.stranger {
                height -= BLOCK_HEIGHT;
            }
            let height = height.clamp(LINE_HEIGHT, 10.0 * LINE_HEIGHT);
            entries(ui, &offer.entries, choice, height);
            ui.add_space(theme::GAP);
            if offer.existing > 0 {
                let settings = snapshot.settings.existing;
                existing(ui, offer.existing, choice, settings);
                ui.add_space(theme::GAP);
            }
            let folder = text::into_folder(&snapshot.download_folder);
            let folder = theme::elided(ui, &folder, &TextStyle::Small, ui.available_width());
            ui.label(theme::muted(ui, folder));
            ui.add_space(theme::GAP_LARGE);
            let answer = |ui: &mut Ui| answer(ui, transfer, choice, by_keyboard);
            let mut actions = ui.add_enabled_ui(is_ready, answer).inner;
            let escape = ui.input_mut(|i| i.consume_key(Modifiers::NONE, Key::Escape));
            if escape && is_ready {
                actions.push(UiAction::Postpone(transfer.id));
            }
            ui.add_space(theme::GAP);
            ui.label(theme::muted(ui, text::DECIDE_LATER));
            if others > 0 {
                ui.label(theme::muted(ui, text::more_offers(others)));
            }
            actions
        })
        .inner
}

/// Whether the offer is accepted by keyboard. Checked before the focused box takes the
/// key for a click, and only while the focus is in this question: otherwise the key may
/// have been meant for something else.
fn by_keyboard(ui: &Ui) -> bool {
    let has_focus = ui.memory(|memory| memory.focused().is_some());
    let pressed = ui.input_mut(|input| input.consume_key(Modifiers::COMMAND, Key::Enter));
    pressed && has_focus
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
            if transfer.claimed {
                let warning = theme::palette(ui).warning;
                let words = theme::muted(ui, text::CLAIMED_HELP).color(warning);
                ui.add(egui::Label::new(words).wrap());
            }
        });
    });
}

/// The wanted amount, with a tick for all entries if there are several.
fn amount(ui: &mut Ui, entries: &[EntryView], choice: &mut OfferSelection) {
    let wanted = choice.wanted();
    let words = RichText::new(text::amount(wanted)).text_style(theme::title());
    if entries.len() < 2 {
        ui.label(words);
        return;
    }
    if let Some(wanted) = tick(ui, choice.tick_of_all(), words) {
        choice.set_all(entries, wanted);
    }
}

/// A box to tick. Returns its new state if it was clicked.
fn tick(ui: &mut Ui, tick: Tick, words: RichText) -> Option<bool> {
    let response = theme::tick_box(ui, tick, words);
    if response.gained_focus() {
        // Together with the next line, where the next press of Tab goes.
        let around = response.rect.expand2(Vec2::new(0.0, LINE_HEIGHT));
        ui.scroll_to_rect(around, None);
    }
    response.clicked().then_some(tick != Tick::Whole)
}

fn entries(ui: &mut Ui, entries: &[EntryView], choice: &mut OfferSelection, height: f32) {
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
                    let shown = entries.iter().zip(0..).skip(rows.start);
                    for (entry, place) in shown.take(rows.len()) {
                        let only = entries.len() == 1;
                        let before = (!only).then(|| choice.tick(place as usize));
                        if let Some(wanted) = line(ui, entry, before) {
                            choice.set(entries, place, wanted);
                        }
                    }
                });
        });
}

/// One file or folder, with a box to tick if there are several. Returns the new state of
/// the box if it was clicked.
fn line(ui: &mut Ui, entry: &EntryView, before: Option<Tick>) -> Option<bool> {
    let size = match (entry.size_bytes, entry.stream) {
        (None, false) => text::FOLDER.to_owned(),
        (bytes, _) => text::size(bytes),
    };
    let row = Vec2::new(ui.available_width(), LINE_HEIGHT);
    ui.allocate_ui_with_layout(row, Layout::right_to_left(Align::Center), |ui| {
        ui.label(theme::muted(ui, size));
        ui.add_space(theme::GAP);
        ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
            ui.spacing_mut().interact_size.y = LINE_HEIGHT;
            let spacing = ui.spacing();
            let width = ui.available_width();
            let beside = spacing.icon_width + spacing.icon_spacing;
            let Some(before) = before else {
                ui.label(theme::elided(ui, &entry.path, &TextStyle::Body, width));
                return None;
            };
            let path = theme::elided(ui, &entry.path, &TextStyle::Body, width - beside);
            tick(ui, before, RichText::new(path))
        })
        .inner
    })
    .inner
}

/// The choice of what to do about taken names.
fn existing(ui: &mut Ui, names: u32, choice: &mut OfferSelection, settings: Existing) {
    ui.label(text::names_taken(names));
    let now = choice.existing.unwrap_or(settings);
    if let Some(chosen) = existing_choice(ui, now) {
        choice.existing = Some(chosen);
    }
}

fn answer(
    ui: &mut Ui,
    transfer: &TransferView,
    choice: &OfferSelection,
    by_keyboard: bool,
) -> Vec<UiAction> {
    let id = transfer.id;
    let something = choice.tick_of_all() != Tick::None;
    let accept = || Command::Accept {
        transfer: id,
        into: None,
        unwanted: choice.unwanted(),
        existing: choice.existing,
    };
    let mut actions = Vec::new();
    ui.horizontal_wrapped(|ui| {
        let button = ui
            .add_enabled_ui(something, |ui| theme::primary_button(ui, text::ACCEPT))
            .inner
            .on_hover_text(text::ACCEPT_BY_KEYBOARD)
            .on_disabled_hover_text(text::NOTHING_TICKED);
        if button.clicked() || something && by_keyboard {
            actions.push(UiAction::Command(accept()));
        }
        if theme::button(ui, text::DECLINE).clicked() {
            actions.push(UiAction::Command(Command::Decline { transfer: id }));
        }
        if transfer.stranger {
            actions.extend(strangers::block(ui, transfer.peer.key));
        }
        ui.add_enabled_ui(something, |ui| {
            if theme::quiet_button(ui, text::SAVE_ELSEWHERE).clicked() {
                actions.push(UiAction::Ask(DialogRequest::FolderInto {
                    transfer: id,
                    unwanted: choice.unwanted(),
                    existing: choice.existing,
                }));
            }
        });
    });
    actions
}
