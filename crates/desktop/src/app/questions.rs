//! Questions over the window, and when they can be answered.

use std::sync::Arc;
use std::time::Duration;

use egui::Ui;
use pinhole_client::{PeerKey, PeerName, Snapshot, Stage, TransferView};

use super::App;
use crate::action::{Sheet, UiAction};
use crate::offer::AskedOffer;
use crate::selection::OfferSelection;
use crate::strangers::{self, Ready, Stranger};
use crate::{
    contacts, history, invite, leave, login, message, offer, recovery, send_sheet, settings, trust,
};

/// How long a question is visible before it can be answered: longer than a double click
/// takes.
const SECONDS_TO_READ: f64 = 0.5;

/// The visible question, and since when it is visible.
#[derive(Debug, Default)]
pub(super) struct QuestionTimer {
    what: Option<egui::Id>,
    since_s: f64,
}

impl QuestionTimer {
    /// Whether this question has been visible long enough to be answered. An earlier
    /// click was meant for something else.
    pub(super) fn is_ready(&mut self, ctx: &egui::Context, what: egui::Id) -> bool {
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

impl App {
    /// Draws what covers the window. Closing the window comes first, and an offer's
    /// question second, because its sender waits.
    pub(super) fn sheets(&mut self, ui: &Ui) -> Vec<UiAction> {
        if matches!(self.sheets.top(), Some(Sheet::Leave(_))) {
            return self.sheet(ui);
        }
        let snapshot = Arc::clone(&self.snapshot);
        let mut strangers = strangers::waiting(&snapshot, &self.put_off);
        let now_s = ui.input(|input| input.time);
        if let Some(left) = self.put_off.is_quiet_for(now_s)
            && !strangers.is_empty()
        {
            let left = Duration::from_secs_f64(left);
            ui.ctx().request_repaint_after(left);
            strangers.clear();
        }
        if let Some(offer) = self.offer_to_ask(&snapshot, &strangers) {
            return self.ask_about(ui, &snapshot, offer);
        }
        if strangers.is_empty() {
            return self.sheet(ui);
        }
        self.hide_draft();
        let is_ready = self.asked.is_ready(ui.ctx(), egui::Id::unique("strangers"));
        let rows: Vec<PeerKey> = strangers.iter().map(|stranger| stranger.peer.key).collect();
        // A new row comes last. A row that goes moves those below it.
        if !rows.starts_with(&self.rows) {
            self.rows_moved += 1;
        }
        self.rows = rows;
        let what = egui::Id::unique(("strangers", self.rows_moved));
        let rows_are_ready = self.rows_asked.is_ready(ui.ctx(), what);
        let ready = Ready {
            question: is_ready,
            rows: is_ready && rows_are_ready,
        };
        strangers::show(ui, &strangers, ready)
    }

    /// The offer that is asked about alone, if any.
    fn offer_to_ask<'a>(
        &self,
        snapshot: &'a Snapshot,
        strangers: &[Stranger<'a>],
    ) -> Option<&'a TransferView> {
        let is_awaited = |t: &&TransferView| {
            matches!(t.stage, Stage::AwaitingDecision) && !self.put_off.offers.contains(&t.id)
        };
        let mut awaited = snapshot.transfers.iter().filter(is_awaited);
        let looked_at = awaited.clone().find(|t| self.looked_at == Some(t.id));
        let of_one = || {
            let stranger = strangers
                .first()
                .filter(|_| !strangers::are_grouped(strangers))?;
            stranger.offers.first().copied()
        };
        looked_at
            .or_else(|| awaited.find(|transfer| !transfer.stranger))
            .or_else(of_one)
    }

    fn ask_about(&mut self, ui: &Ui, snapshot: &Snapshot, asked: &TransferView) -> Vec<UiAction> {
        self.hide_draft();
        // A change that moves the buttons makes it another question.
        let what = ("offer", asked.id, asked.offer.existing > 0);
        let is_ready = self.asked.is_ready(ui.ctx(), egui::Id::unique(what));
        if asked.is_text {
            return strangers::show_words(ui, asked, is_ready);
        }
        let is_awaited = |t: &&TransferView| matches!(t.stage, Stage::AwaitingDecision);
        let others = snapshot.transfers.iter().filter(is_awaited);
        let others = others
            .filter(|t| !self.put_off.offers.contains(&t.id))
            .count();
        let choice = self.choices.entry(asked.id);
        let choice = choice.or_insert_with(|| OfferSelection::of(&asked.offer));
        let asked = AskedOffer {
            transfer: asked,
            others: others.saturating_sub(1),
            is_ready,
        };
        offer::show(ui, snapshot, asked, choice)
    }

    /// Notes that a question covers a message that is being written.
    fn hide_draft(&mut self) {
        if let Some(Sheet::Message(draft)) = self.sheets.top_mut() {
            draft.lose_focus();
        }
    }

    /// Draws the topmost sheet that the user has opened.
    pub(super) fn sheet(&mut self, ui: &Ui) -> Vec<UiAction> {
        let what = match self.sheets.top() {
            Some(Sheet::Trust { peer, .. }) => Some(egui::Id::unique(("trust", peer.as_bytes()))),
            Some(Sheet::Leave(_)) => Some(egui::Id::unique("leave")),
            Some(Sheet::History { clearing }) => Some(egui::Id::unique(("history", clearing))),
            Some(Sheet::Contacts { forgetting }) => {
                let forgetting = forgetting.map(|key| *key.as_bytes());
                Some(egui::Id::unique(("contacts", forgetting)))
            }
            _ => None,
        };
        let is_ready = what.is_none_or(|what| self.asked.is_ready(ui.ctx(), what));
        if what.is_none() {
            self.asked = QuestionTimer::default();
        }
        let unsent: Vec<PeerName> = self.sheets.unsent().cloned().collect();
        match self.sheets.top_mut() {
            Some(Sheet::Message(draft)) => message::show(ui, &self.snapshot, draft),
            Some(Sheet::Send { paths, chosen }) => {
                send_sheet::show(ui, &self.snapshot, paths, chosen)
            }
            Some(Sheet::Invite(form)) => invite::show_invite(ui, form),
            Some(Sheet::Join(form)) => invite::show_join(ui, &self.snapshot, form),
            Some(Sheet::Code(paths)) => invite::show_code(ui, &self.snapshot, paths),
            Some(Sheet::Words(words)) => recovery::show_words(ui, words),
            Some(Sheet::Recover(form)) => recovery::show_form(ui, form),
            Some(Sheet::Settings(form)) => settings::show(ui, &self.snapshot, form),
            Some(Sheet::History { clearing }) => {
                history::show(ui, &self.snapshot, clearing, is_ready)
            }
            Some(Sheet::Contacts { forgetting }) => {
                contacts::show(ui, &self.snapshot, forgetting, is_ready)
            }
            Some(Sheet::LogIn) => login::show_sheet(ui, &mut self.form, &self.snapshot),
            Some(Sheet::Leave(leaving)) => {
                let running = leave::under_way(&self.snapshot, *leaving, self.bridge.face());
                let running: Vec<_> = running.collect();
                leave::show(ui, &running, *leaving, &unsent, is_ready)
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
}
