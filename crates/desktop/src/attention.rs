//! Telling the engine that the user is there, so that it keeps a port ready.

use pinhole_client::Command;

/// How often a sign of life is passed on while the window is not in front: somebody who
/// drags files over it has another window there.
const BETWEEN_SIGNS_S: f64 = 30.0;

/// What the engine was told last.
#[derive(Debug, Default)]
pub(crate) struct Attention {
    is_in_front: bool,
    told_at_s: Option<f64>,
}

impl Attention {
    /// What to tell the engine in this frame, if anything. Never asks for a frame of its
    /// own: whoever does nothing costs nothing.
    pub(crate) fn news(&self, ctx: &egui::Context) -> Option<(Command, Self)> {
        let (is_in_front, has_input, time_s) = ctx.input(|input| {
            let has_input = !input.events.is_empty() || !input.raw.hovered_files.is_empty();
            (input.focused, has_input, input.time)
        });
        let is_due = self
            .told_at_s
            .is_none_or(|told| time_s - told >= BETWEEN_SIGNS_S);
        let is_sign = has_input && !is_in_front && is_due;
        if is_in_front == self.is_in_front && !is_sign {
            return None;
        }
        let command = Command::Attend { stays: is_in_front };
        let told = Self {
            is_in_front,
            told_at_s: Some(time_s),
        };
        Some((command, told))
    }
}
