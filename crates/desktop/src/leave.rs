//! Leaving while something is under way.

use egui::{RichText, Ui};
use pinhole_client::{FaceId, PeerName, Snapshot, Stage, TransferView};

use crate::action::{LeaveRequest, UiAction};
use crate::{sheet, text, theme};

/// The transfers that leaving would stop. `face` is this window at its engine: one that is
/// attached to another process stops only its own by quitting.
pub(crate) fn under_way(
    snapshot: &Snapshot,
    leaving: LeaveRequest,
    face: FaceId,
) -> impl Iterator<Item = &TransferView> {
    let ends_engine = face == FaceId::OWN || leaving != LeaveRequest::Quit;
    // Queued transfers resume after a restart, and an unanswered offer is the sender's.
    let stays = |stage: &Stage| matches!(stage, Stage::Queued | Stage::AwaitingDecision);
    let transfers = snapshot.transfers.iter();
    let is_meant = move |t: &&TransferView| ends_engine || t.face == face;
    transfers.filter(move |t| is_meant(t) && !t.stage.is_final() && !stays(&t.stage))
}

/// Draws the question over the window. `running` is what would stop, and `unsent` are the recipients of unsent messages. A
/// click before the question `is_ready` was meant for something else.
pub(crate) fn show(
    ui: &Ui,
    running: &[&TransferView],
    leaving: LeaveRequest,
    unsent: &[PeerName],
    is_ready: bool,
) -> Vec<UiAction> {
    const NAMED: usize = 3;
    sheet::show(ui, "leave", |ui| {
        let heading = RichText::new(text::would_stop(running.len())).heading();
        ui.add(egui::Label::new(heading.size(19.0)).wrap());
        ui.add_space(theme::GAP);
        for transfer in running.iter().take(NAMED) {
            let line = text::under_way(transfer);
            ui.add(egui::Label::new(theme::muted(ui, line)).truncate());
        }
        if let Some(more @ 1..) = running.len().checked_sub(NAMED) {
            ui.label(theme::muted(ui, text::and_more(more)));
        }
        if !running.is_empty() {
            ui.add_space(theme::GAP_SMALL);
            ui.label(text::PARTS_ARE_KEPT);
        }
        if leaving == LeaveRequest::Quit {
            for name in unsent.iter().take(NAMED) {
                ui.label(text::message_unsent(name.as_str()));
            }
        }
        ui.add_space(theme::GAP_LARGE);
        let mut actions = Vec::new();
        ui.add_enabled_ui(is_ready, |ui| {
            ui.horizontal_wrapped(|ui| {
                if theme::primary_button(ui, text::KEEP_GOING).clicked() {
                    actions.push(UiAction::CloseSheet);
                }
                let words = match leaving {
                    LeaveRequest::Quit => text::STOP_AND_QUIT,
                    LeaveRequest::LogOut | LeaveRequest::GiveUp => text::STOP_AND_LOG_OUT,
                    LeaveRequest::Nearby => text::STOP_AND_LEAVE,
                };
                if theme::button(ui, words).clicked() {
                    actions.push(UiAction::CloseSheet);
                    actions.push(UiAction::LeaveNow(leaving));
                }
            });
        });
        actions
    })
}
