//! The settings' part about the connection: what the network does, and what
//! the last connections have tried.

use std::time::{SystemTime, UNIX_EPOCH};

use egui::{Label, RichText, Ui};
use pinhole_client::{Attempt, Command, Diagnosis, Finding, Snapshot, Tone};

use crate::action::UiAction;
use crate::selection::Tick;
use crate::{text, theme};

/// How many of the last connections are shown.
const SHOWN_CONNECTIONS: usize = 3;

/// Draws it below the setting that it explains.
pub(crate) fn show(ui: &mut Ui, snapshot: &Snapshot, actions: &mut Vec<UiAction>) {
    theme::section_heading(ui, text::CONNECTION);
    let asks_now = snapshot.settings.port_mapping;
    let asks = theme::tick_box(ui, Tick::from(asks_now), RichText::new(text::PORT_MAPPING));
    if asks.clicked() {
        let enabled = !asks_now;
        actions.push(UiAction::Command(Command::SetPortMapping { enabled }));
    }
    ui.add_space(theme::GAP_SMALL);
    if snapshot.is_diagnosing {
        ui.label(theme::muted(ui, text::DIAGNOSING));
    } else if theme::button(ui, text::DIAGNOSE).clicked() {
        actions.push(UiAction::Command(Command::Diagnose { server: None }));
    }
    if let Some(diagnosis) = &snapshot.diagnosis {
        findings(ui, diagnosis);
    }
    if !snapshot.attempts.is_empty() {
        ui.add_space(theme::GAP_SMALL);
        ui.label(text::LAST_CONNECTIONS);
        attempts(ui, snapshot);
    }
}

fn findings(ui: &mut Ui, diagnosis: &Diagnosis) {
    for finding in &diagnosis.findings {
        ui.add_space(theme::GAP_SMALL);
        let color = color(ui, finding);
        ui.label(RichText::new(&finding.topic).color(color));
        lines(ui, [Some(&finding.text), finding.advice.as_ref()]);
    }
}

fn color(ui: &Ui, finding: &Finding) -> egui::Color32 {
    let palette = theme::palette(ui);
    match finding.tone {
        Tone::Good | Tone::Neutral => palette.text,
        Tone::Trouble => palette.warning,
    }
}

fn attempts(ui: &mut Ui, snapshot: &Snapshot) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_s = now.map_or(0, |now| now.as_secs());
    for attempt in snapshot.attempts.iter().rev().take(SHOWN_CONNECTIONS) {
        ui.label(text::attempt(attempt, now_s));
        let Attempt { why, tried, .. } = attempt;
        lines(ui, std::iter::once(why).chain(tried).map(Some));
        ui.add_space(theme::GAP_SMALL);
    }
}

fn lines<'a>(ui: &mut Ui, lines: impl IntoIterator<Item = Option<&'a String>>) {
    for line in lines.into_iter().flatten() {
        ui.add(Label::new(theme::muted(ui, line)).wrap());
    }
}
