//! Strangers. All their requests together are one question.

use std::collections::{BTreeSet, HashMap, HashSet};

use egui::{Align, Label, Layout, RichText, ScrollArea, TextStyle, Ui};
use pinhole_client::{Command, PeerIdentity, PeerKey, Snapshot, Stage, TransferId, TransferView};

use crate::action::UiAction;
use crate::{sheet, text, theme};

const ROW_HEIGHT: f32 = 52.0;

/// A stranger and what they want.
pub(crate) struct Stranger<'a> {
    pub(crate) peer: &'a PeerIdentity,
    /// Their offers, the oldest first; none if they only want to connect.
    pub(crate) offers: Vec<&'a TransferView>,
}

impl Stranger<'_> {
    /// What they want, in a few words.
    fn wish(&self) -> String {
        match self.offers.as_slice() {
            [] => text::WANTS_TO_CONNECT.to_owned(),
            [one] if one.is_text => text::A_MESSAGE.to_owned(),
            [one] => text::offered(&one.offer),
            several => text::several_offers(several.len()),
        }
    }
}

/// Whether the user has not decided on this offer of a stranger yet.
pub(crate) fn is_waiting(transfer: &TransferView) -> bool {
    transfer.stranger && matches!(transfer.stage, Stage::AwaitingDecision)
}

/// The strangers who wait and are not postponed, in the order in which they came.
pub(crate) fn waiting<'a>(snapshot: &'a Snapshot, put_off: &Postponed) -> Vec<Stranger<'a>> {
    let transfers = snapshot.transfers.iter().filter(|t| is_waiting(t));
    let offers = transfers.filter(|t| !put_off.offers.contains(&t.id));
    let offers = offers.map(|transfer| (&transfer.peer, Some(transfer)));
    let asking = snapshot.asking.iter();
    let asking = asking.filter(|peer| !put_off.asking.contains(&peer.key));
    let mut all: Vec<Stranger<'a>> = Vec::new();
    let mut places: HashMap<PeerKey, usize> = HashMap::new();
    for (peer, offer) in offers.chain(asking.map(|peer| (peer, None))) {
        let place = *places.entry(peer.key).or_insert(all.len());
        if place == all.len() {
            let offers = Vec::new();
            all.push(Stranger { peer, offers });
        }
        if let Some(stranger) = all.get_mut(place) {
            stranger.offers.extend(offer);
        }
    }
    all
}

/// What the user has postponed.
#[derive(Debug, Default)]
pub(crate) struct Postponed {
    /// Offers, of strangers and others.
    pub(crate) offers: HashSet<TransferId>,
    /// Peers who want to connect.
    pub(crate) asking: HashSet<PeerKey>,
    /// Until then, strangers are not asked about again. On the window's clock.
    quiet_until_s: f64,
}

/// How long no stranger is asked about after a question was postponed, so that a stream
/// of strangers does not ask again and again.
const QUIET_S: f64 = 60.0;

impl Postponed {
    /// Asks about no stranger for a while.
    pub(crate) fn be_quiet(&mut self, now_s: f64) {
        self.quiet_until_s = now_s + QUIET_S;
    }

    /// The rest of that time, in seconds.
    pub(crate) fn is_quiet_for(&self, now_s: f64) -> Option<f64> {
        Some(self.quiet_until_s - now_s).filter(|&left| left > 0.0)
    }

    /// Postpones all strangers.
    pub(crate) fn all(&mut self, snapshot: &Snapshot) {
        let offers = snapshot.transfers.iter().filter(|t| is_waiting(t));
        self.offers.extend(offers.map(|transfer| transfer.id));
        self.asking
            .extend(snapshot.asking.iter().map(|peer| peer.key));
    }

    /// Postpones no stranger any more.
    pub(crate) fn none(&mut self, snapshot: &Snapshot) {
        let is_stranger = |id| snapshot.transfers.iter().any(|t| t.id == id && t.stranger);
        self.offers.retain(|&id| !is_stranger(id));
        self.asking.clear();
        self.quiet_until_s = 0.0;
    }

    /// Drops what is gone.
    pub(crate) fn obey(&mut self, snapshot: &Snapshot) {
        let known: HashSet<TransferId> = snapshot.transfers.iter().map(|t| t.id).collect();
        self.offers.retain(|transfer| known.contains(transfer));
        let asking: HashSet<PeerKey> = snapshot.asking.iter().map(|peer| peer.key).collect();
        self.asking.retain(|key| asking.contains(key));
    }
}

/// What of the question about strangers can be answered. An earlier click was meant for
/// something else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) question: bool,
    /// The rows have not moved for a while.
    pub(crate) rows: bool,
}

/// Draws the question about strangers over the window.
pub(crate) fn show(ui: &Ui, strangers: &[Stranger<'_>], ready: Ready) -> Vec<UiAction> {
    question(
        ui,
        "strangers",
        &UiAction::PutOffStrangers,
        ready.question,
        |ui| {
            let mut actions = Vec::new();
            let heading = RichText::new(text::strangers(strangers.len())).heading();
            ui.add(Label::new(heading.size(19.0)).wrap());
            ui.add_space(theme::GAP_SMALL);
            ui.add(Label::new(theme::muted(ui, text::STRANGERS_HELP)).wrap());
            ui.add_space(theme::GAP);
            // The height does not depend on the number of rows, so that a new stranger moves
            // no button.
            let height = (ui.ctx().content_rect().height() - 320.0).clamp(80.0, 4.5 * ROW_HEIGHT);
            ui.add_enabled_ui(ready.rows, |ui| {
                ScrollArea::vertical()
                    .max_height(height)
                    .auto_shrink(false)
                    .show(ui, |ui| {
                        // The scroll bar is beside the buttons, not over them.
                        ui.set_width(ui.available_width() - theme::GAP_LARGE);
                        for stranger in strangers {
                            let key = stranger.peer.key;
                            ui.push_id(key.as_bytes(), |ui| actions.extend(row(ui, stranger)));
                        }
                    });
            });
            ui.add_space(theme::GAP_LARGE);
            ui.add_enabled_ui(ready.question, |ui| {
                ui.horizontal_wrapped(|ui| {
                    if theme::primary_button(ui, text::DECIDE_LATER_BUTTON).clicked() {
                        actions.push(UiAction::PutOffStrangers);
                    }
                    if theme::button(ui, text::DECLINE_ALL).clicked() {
                        actions.push(UiAction::DeclineStrangers);
                    }
                });
            });
            actions
        },
    )
}

/// Draws a question over the window. Esc and a click outside postpone it, once it
/// `is_ready`.
fn question(
    ui: &Ui,
    id: &'static str,
    postpone: &UiAction,
    is_ready: bool,
    content: impl FnOnce(&mut Ui) -> Vec<UiAction>,
) -> Vec<UiAction> {
    let mut actions = sheet::show(ui, id, content);
    for action in &mut actions {
        if *action == UiAction::CloseSheet {
            action.clone_from(postpone);
        }
    }
    actions.retain(|action| is_ready || action != postpone);
    actions
}

fn row(ui: &mut Ui, stranger: &Stranger<'_>) -> Vec<UiAction> {
    let name = stranger.peer.name.as_str();
    let peer = stranger.peer.key;
    let mut actions = Vec::new();
    let row = Layout::right_to_left(Align::Center);
    let size = egui::Vec2::new(ui.available_width(), ROW_HEIGHT);
    ui.allocate_ui_with_layout(size, row, |ui| {
        let block = theme::quiet_button(ui, text::BLOCK).accessible_name(text::block(name));
        if block.clicked() {
            actions.push(UiAction::Command(Command::Block { peer }));
        }
        let (words, accessible, action) = match stranger.offers.first() {
            Some(first) => (
                text::LOOK_SHORT,
                text::look_at(name),
                UiAction::LookAt(first.id),
            ),
            None => {
                let allow = UiAction::Command(Command::Allow { peer });
                (text::ALLOW, text::allow(name), allow)
            }
        };
        if theme::button(ui, words)
            .accessible_name(accessible)
            .clicked()
        {
            actions.push(action);
        }
        ui.with_layout(Layout::top_down(Align::Min), |ui| {
            ui.add_space(theme::GAP_SMALL);
            let shown = RichText::new(name).text_style(theme::title());
            let fingerprint = text::grouped(&peer.fingerprint().to_string());
            ui.add(Label::new(shown).truncate())
                .on_hover_text(fingerprint);
            let wish = stranger.wish();
            let wish = theme::elided(ui, &wish, &TextStyle::Small, ui.available_width());
            ui.label(theme::muted(ui, wish));
        });
    });
    actions
}

/// Draws the question about a stranger's message. A click before it `is_ready` was meant
/// for something else.
pub(crate) fn show_words(ui: &Ui, transfer: &TransferView, is_ready: bool) -> Vec<UiAction> {
    let name = transfer.peer.name.as_str();
    let id = transfer.id;
    question(ui, "words", &UiAction::Postpone(id), is_ready, |ui| {
        let mut actions = Vec::new();
        let heading = RichText::new(text::wants_to_write(name)).heading();
        ui.add(Label::new(heading.size(19.0)).wrap());
        let fingerprint = text::grouped(&transfer.peer.key.fingerprint().to_string());
        ui.add(Label::new(theme::muted(ui, fingerprint).monospace()).wrap())
            .on_hover_text(text::FINGERPRINT_HELP);
        if transfer.claimed {
            let warning = theme::palette(ui).warning;
            let words = theme::muted(ui, text::CLAIMED_HELP).color(warning);
            ui.add(Label::new(words).wrap());
        }
        ui.add_space(theme::GAP_LARGE);
        ui.add_enabled_ui(is_ready, |ui| {
            ui.horizontal_wrapped(|ui| {
                if theme::primary_button(ui, text::SHOW_WORDS).clicked() {
                    actions.push(UiAction::Command(Command::Accept {
                        transfer: id,
                        into: None,
                        unwanted: BTreeSet::new(),
                        existing: None,
                    }));
                }
                if theme::button(ui, text::DECLINE).clicked() {
                    actions.push(UiAction::Command(Command::Decline { transfer: id }));
                }
                actions.extend(block(ui, transfer.peer.key));
            });
        });
        ui.add_space(theme::GAP);
        ui.label(theme::muted(ui, text::ESC_DECIDES_LATER));
        actions
    })
}

/// A button that blocks a key.
pub(crate) fn block(ui: &mut Ui, peer: PeerKey) -> Option<UiAction> {
    let button = theme::quiet_button(ui, text::BLOCK).on_hover_text(text::BLOCK_HELP);
    button
        .clicked()
        .then_some(UiAction::Command(Command::Block { peer }))
}

/// A card among the transfers for strangers whose question was postponed, in place of
/// their offers. `None` if there are none to be grouped.
pub(crate) fn card(ui: &mut Ui, snapshot: &Snapshot) -> Option<Vec<UiAction>> {
    let all = waiting(snapshot, &Postponed::default());
    let mut actions = Vec::new();
    if !are_grouped(&all) {
        return None;
    }
    theme::card(ui).show(ui, |ui| {
        ui.set_width(ui.available_width());
        let words = RichText::new(text::strangers(all.len())).text_style(theme::title());
        ui.add(Label::new(words).wrap());
        if theme::button(ui, text::REVIEW).clicked() {
            actions.push(UiAction::LookAtStrangers);
        }
    });
    ui.add_space(theme::GAP_SMALL);
    Some(actions)
}

/// Whether they are asked about together. A single stranger's offer is asked about alone.
pub(crate) fn are_grouped(strangers: &[Stranger<'_>]) -> bool {
    strangers.len() > 1 || strangers.iter().any(|stranger| stranger.offers.is_empty())
}
