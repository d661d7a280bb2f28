//! How far the round in progress is.

use std::time::{Duration, Instant};

use super::Timing;
use super::checklist::Checklist;
use super::connection::Until;

/// The round in progress.
#[derive(Debug)]
pub(super) struct CurrentRound {
    pub(super) number: u8,
    pub(super) checklist: Checklist,
    /// Whether the two sides try to connect directly at all.
    pub(super) direct: bool,
    /// Whether they seem to be on one network.
    pub(super) is_near: bool,
    /// The relay was asked for, and has neither come nor failed.
    pub(super) relay_pending: bool,
    pub(super) direct_ends_at: Instant,
    pub(super) relay_ends_at: Instant,
    /// Until then strangers wait for the peer; set by the first valid pair.
    pub(super) strangers_at: Option<Instant>,
    /// The next round was asked for (or, on the controlled side, is expected)
    /// and must come by then.
    pub(super) next_round_by: Option<Instant>,
}

impl CurrentRound {
    /// How long an authenticated connection waits for a better one: what it took
    /// itself, for on a long way everything takes longer.
    pub(super) fn holds_until(&self, now: Instant, timing: &Timing) -> Until {
        let took = now.saturating_duration_since(self.direct_ends_at - timing.direct);
        let patience = took.clamp(timing.hold, timing.hold_max);
        let at_least = match self.is_near {
            true => timing.near_hold,
            false => Duration::ZERO,
        };
        Until {
            nothing_is_up: now + (patience / 3).max(at_least),
            better_is_begun: now + patience.max(at_least),
        }
    }

    /// When there is nothing more to hope for.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        match (self.relay_pending, self.direct) {
            (true, _) => Some(self.relay_ends_at),
            (false, true) => Some(self.direct_ends_at),
            (false, false) => None,
        }
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.ends_at().is_none_or(|ends_at| now >= ends_at)
    }
}
