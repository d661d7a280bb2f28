//! A sheet over the window, as the settings and the questions use it.

use egui::{Key, Modal, Modifiers, Ui};

use crate::action::UiAction;
use crate::theme;

const WIDTH: f32 = 400.0;

/// Draws `content` over the window; Esc and a click beside it close it.
pub(crate) fn show(
    ui: &Ui,
    id: &'static str,
    content: impl FnOnce(&mut Ui) -> Vec<UiAction>,
) -> Vec<UiAction> {
    let ctx = ui.ctx();
    let width = WIDTH.min(ctx.content_rect().width() - 96.0);
    let modal = Modal::new(egui::Id::unique(id))
        .frame(theme::sheet(ui.style()))
        .show(ctx, |ui| {
            ui.set_width(width);
            let mut actions = content(ui);
            if ui.input_mut(|input| input.consume_key(Modifiers::NONE, Key::Escape)) {
                actions.push(UiAction::CloseSheet);
            }
            actions
        });
    let mut actions = modal.inner;
    if modal.backdrop_response.clicked() {
        actions.push(UiAction::CloseSheet);
    }
    actions
}
