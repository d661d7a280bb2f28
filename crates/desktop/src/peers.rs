//! The list of peers. Files can be dropped on each of them.

use egui::{Align, Align2, Layout, Rect, RichText, Sense, Stroke, StrokeKind, Ui, UiBuilder, Vec2};
use pinhole_client::{Directory, LoginState, PeerKey, PeerView, Snapshot};

use crate::action::{DialogRequest, Sheet, UiAction};
use crate::icon::Icon;
use crate::invite::{InviteForm, JoinForm};
use crate::message::Draft;
use crate::{icon, text, theme};

const ROW_HEIGHT: f32 = 68.0;

/// The result of drawing the list.
#[derive(Debug, Default)]
pub(crate) struct PeerListOutcome {
    /// The actions asked for.
    pub(crate) actions: Vec<UiAction>,
    /// The peer under the pointer.
    pub(crate) under_pointer: Option<PeerKey>,
    /// The peer of the button that has the keyboard's focus.
    pub(crate) focused: Option<PeerKey>,
}

/// Draws the list. `hovering` is set while files are dragged over the window.
pub(crate) fn show(ui: &mut Ui, snapshot: &Snapshot, hovering: bool) -> PeerListOutcome {
    let mut outcome = PeerListOutcome::default();
    ui.horizontal(|ui| {
        ui.set_min_height(theme::BUTTON_HEIGHT);
        theme::section_heading(ui, text::PEOPLE);
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            outcome.actions.extend(heading_buttons(ui, snapshot));
        });
    });
    if snapshot.peers.is_empty() {
        outcome.actions.extend(nobody(ui, snapshot));
    }
    for peer in &snapshot.peers {
        ui.push_id(peer.identity.key.as_bytes(), |ui| {
            row(ui, peer, hovering, &mut outcome);
        });
        ui.add_space(theme::GAP_SMALL);
    }
    outcome
}

/// The buttons beside the heading. Tab follows the order in which they are drawn, so they
/// are drawn from left to right.
fn heading_buttons(ui: &mut Ui, snapshot: &Snapshot) -> Option<UiAction> {
    let several = (snapshot.peers.len() > 1).then_some(text::SEND_TO_SEVERAL);
    let all = several.into_iter().chain([text::JOIN, text::INVITE]);
    let gap = ui.spacing().item_spacing.x;
    let widths = all
        .clone()
        .map(|words| theme::quiet_button_width(ui, words) + gap);
    let size = Vec2::new(widths.sum::<f32>() - gap, theme::BUTTON_HEIGHT);
    let layout = Layout::left_to_right(Align::Center);
    let buttons = ui.allocate_ui_with_layout(size, layout, |ui| {
        let mut clicked = None;
        for words in all {
            if theme::quiet_button(ui, words).clicked() {
                clicked = Some(words);
            }
        }
        clicked
    });
    match buttons.inner? {
        text::JOIN => Some(UiAction::Open(Sheet::Join(JoinForm::empty()))),
        text::INVITE => Some(UiAction::Open(Sheet::Invite(InviteForm::default()))),
        _ => Some(UiAction::Ask(DialogRequest::Files)),
    }
}

fn nobody(ui: &mut Ui, snapshot: &Snapshot) -> Vec<UiAction> {
    let (LoginState::LoggedIn { server, .. } | LoginState::Reconnecting { server, .. }) =
        &snapshot.login
    else {
        nobody_card(ui, text::NOBODY_NEARBY, text::ASK_NEARBY);
        return Vec::new();
    };
    if snapshot.directory == Some(Directory::Closed) {
        nobody_card(ui, text::NOBODY_KNOWN, text::SEARCH_FOR_THEM);
        return Vec::new();
    }
    let server = server.to_string();
    let host = server.split('#').next().unwrap_or_default();
    theme::card(ui)
        .show(ui, |ui| {
            ui.vertical_centered(|ui| {
                ui.add_space(theme::GAP_LARGE);
                icon::aperture(ui, 48.0);
                ui.add_space(theme::GAP_LARGE);
                ui.label(RichText::new(text::NOBODY).text_style(theme::title()));
                ui.add_space(theme::GAP_SMALL);
                ui.label(RichText::new(text::ask_them(host)).color(theme::palette(ui).muted));
                ui.add_space(theme::GAP_LARGE);
                let invite = theme::primary_button(ui, text::INVITE_TITLE).clicked();
                let copy = theme::button(ui, text::COPY_SERVER).clicked();
                ui.add_space(theme::GAP_LARGE);
                let sheet = || Sheet::Invite(InviteForm::default());
                let invite = invite.then(|| UiAction::Open(sheet()));
                let copy = copy.then(|| UiAction::Copy(server.clone()));
                invite.into_iter().chain(copy).collect()
            })
            .inner
        })
        .inner
}

/// An empty list, and what to do about it.
fn nobody_card(ui: &mut Ui, title: &str, advice: &str) {
    theme::card(ui).show(ui, |ui| {
        ui.vertical_centered(|ui| {
            ui.add_space(theme::GAP_LARGE);
            icon::aperture(ui, 48.0);
            ui.add_space(theme::GAP_LARGE);
            ui.label(RichText::new(title).text_style(theme::title()));
            ui.add_space(theme::GAP_SMALL);
            ui.label(RichText::new(advice).color(theme::palette(ui).muted));
            ui.add_space(theme::GAP_LARGE);
        });
    });
}

fn row(ui: &mut Ui, peer: &PeerView, hovering: bool, outcome: &mut PeerListOutcome) {
    let palette = theme::palette(ui);
    let size = Vec2::new(ui.available_width(), ROW_HEIGHT);
    let (rect, _) = ui.allocate_exact_size(size, Sense::hover());
    let under_pointer = ui.rect_contains_pointer(rect);
    if under_pointer {
        outcome.under_pointer = Some(peer.identity.key);
    }
    let lit = hovering && under_pointer;
    let (fill, stroke) = match (lit, hovering) {
        (true, _) => (palette.accent_tint, Stroke::new(2.0, palette.accent)),
        (_, true) => (palette.card, Stroke::new(1.0, palette.accent)),
        _ => (palette.card, Stroke::new(1.0, palette.line)),
    };
    ui.painter()
        .rect(rect, 12, fill, stroke, StrokeKind::Inside);
    let name = peer.identity.name.as_str();
    let monogram = rect.left_center() + Vec2::new(36.0, 0.0);
    icon::monogram(ui, monogram, name, lit);
    let inner = Rect::from_min_max(
        rect.min + Vec2::new(68.0, 0.0),
        rect.max - Vec2::new(12.0, 0.0),
    );
    let mut inside = ui.new_child(
        UiBuilder::new()
            .max_rect(inner)
            .layout(Layout::right_to_left(Align::Center)),
    );
    if !hovering {
        buttons(&mut inside, peer, outcome);
    }
    inside.with_layout(Layout::top_down(Align::Min), |ui| {
        ui.add_space(ROW_HEIGHT / 2.0 - 20.0);
        describe(ui, peer, lit);
    });
}

fn buttons(ui: &mut Ui, peer: &PeerView, outcome: &mut PeerListOutcome) {
    if peer.revoked {
        return;
    }
    let (name, key) = (peer.identity.name.as_str(), peer.identity.key);
    if peer.changed_from.is_some() {
        let review = theme::button(ui, text::REVIEW).accessible_name(text::review_key_of(name));
        if review.clicked() {
            let paths = Vec::new();
            let sheet = Sheet::Trust { peer: key, paths };
            outcome.actions.push(UiAction::Open(sheet));
        }
        return;
    }
    // The layout runs from right to left, and Tab follows it, so these buttons get a
    // layout from left to right.
    let width = theme::width_of(ui, text::SEND_FILES, &egui::TextStyle::Button)
        + 2.0 * (ui.spacing().button_padding.x + ui.spacing().item_spacing.x + theme::ICON_BUTTON);
    let size = Vec2::new(width, theme::BUTTON_HEIGHT);
    ui.allocate_ui_with_layout(size, Layout::left_to_right(Align::Center), |ui| {
        let files = theme::button(ui, text::SEND_FILES).accessible_name(text::send_files_to(name));
        let folder = icon::button(ui, Icon::Folder, true, text::send_folder_to(name));
        let message = text::send_message_to(name, peer.online);
        let message = icon::button(ui, Icon::Bubble, peer.online, message);
        if files.clicked() {
            outcome
                .actions
                .push(UiAction::Ask(DialogRequest::FilesFor(key)));
        }
        if folder.clicked() {
            outcome
                .actions
                .push(UiAction::Ask(DialogRequest::FolderFor(key)));
        }
        if message.clicked() {
            let sheet = Sheet::Message(Draft::to(peer.identity.clone(), ""));
            outcome.actions.push(UiAction::Open(sheet));
        }
        if [files, folder, message]
            .iter()
            .any(egui::Response::has_focus)
        {
            outcome.focused = Some(key);
        }
    });
}

fn describe(ui: &mut Ui, peer: &PeerView, lit: bool) {
    let palette = theme::palette(ui);
    let name = peer.identity.name.as_str();
    ui.add(egui::Label::new(RichText::new(name).text_style(theme::title())).truncate());
    let (words, color) = if peer.revoked {
        (text::KEY_REVOKED.to_owned(), palette.warning)
    } else if peer.released {
        (text::NAME_RELEASED.to_owned(), palette.warning)
    } else if peer.changed_from.is_some() {
        (text::KEY_CHANGED.to_owned(), palette.warning)
    } else if lit {
        (text::drop_to_send(name), palette.accent)
    } else if !peer.online {
        (text::OFFLINE.to_owned(), palette.muted)
    } else if peer.claimed {
        (text::CLAIMED.to_owned(), palette.warning)
    } else if let Some(path) = peer.path {
        (text::connected(path).to_owned(), palette.muted)
    } else if peer.nearby {
        let words = if peer.contact {
            text::CONTACT_NEARBY
        } else {
            text::NEARBY
        };
        (words.to_owned(), palette.muted)
    } else if peer.contact {
        (text::CONTACT_ONLINE.to_owned(), palette.muted)
    } else {
        (text::ONLINE.to_owned(), palette.muted)
    };
    let label = ui.add(egui::Label::new(theme::muted(ui, words).color(color)).truncate());
    if peer.claimed {
        let fingerprint = text::grouped(&peer.identity.key.fingerprint().to_string());
        label.on_hover_text(format!("{}\n{fingerprint}", text::CLAIMED_HELP));
    }
}

/// Says what a drop does, at the bottom of the window.
pub(crate) fn hover_hint(ui: &Ui, position_known: bool) {
    let palette = theme::palette(ui);
    let words = if position_known {
        text::DROP_ON_A_NAME
    } else {
        text::DROP_TO_CHOOSE
    };
    let screen = ui.ctx().content_rect();
    let bar = Rect::from_min_max(
        egui::pos2(screen.left() + 24.0, screen.bottom() - 64.0),
        egui::pos2(screen.right() - 24.0, screen.bottom() - 20.0),
    );
    let painter = ui.ctx().layer_painter(egui::LayerId::new(
        egui::Order::Tooltip,
        egui::Id::unique("hover hint"),
    ));
    painter.rect_filled(bar, 22, palette.accent);
    painter.text(
        bar.center(),
        Align2::CENTER_CENTER,
        words,
        theme::title().resolve(ui.style()),
        palette.on_accent,
    );
}
