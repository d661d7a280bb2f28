//! Activity: whether the next connection is likely enough to keep a port ready for it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use pinhole_net::Warmth;

use super::State;
use super::effect::{Effect, LoginEffect};
use super::transfers::Transfer;
use crate::model::FaceId;

/// How long after the last login, transfer or sign of life a port is kept ready.
const IDLE_AFTER: Duration = Duration::from_secs(60);

/// When something was last done here, and what the login was told of it.
#[derive(Debug)]
pub(super) struct Activity {
    /// The faces at which the user stays: the window is in front, or a command runs.
    attended: BTreeSet<FaceId>,
    /// Something went on when this was last reviewed.
    was_busy: bool,
    last: Option<Instant>,
    warmth: Warmth,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            attended: BTreeSet::new(),
            was_busy: false,
            last: None,
            warmth: Warmth::Cold,
        }
    }
}

impl Activity {
    /// The face is gone.
    pub(super) fn forget(&mut self, face: FaceId) {
        self.attended.remove(&face);
    }

    /// When nothing more may be worth a port. What goes on has no such time: its end is
    /// an input.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let is_waiting = self.warmth == Warmth::Warm && !self.was_busy;
        let last = self.last.filter(|_| is_waiting);
        last.map(|last| last + IDLE_AFTER)
    }
}

impl State {
    /// Whether a port is to be kept ready.
    pub(crate) const fn warmth(&self) -> Warmth {
        self.activity.warmth
    }

    pub(super) fn note_activity(&mut self) {
        self.activity.last = Some(self.now);
    }

    /// The user has been there, and perhaps stays.
    pub(super) fn attend(&mut self, stays: bool) {
        match stays {
            true => self.activity.attended.insert(self.asking),
            false => self.activity.attended.remove(&self.asking),
        };
        self.note_activity();
    }

    /// After each input and each timer, once everything else is done for it.
    pub(super) fn review_activity(&mut self) {
        let is_busy = !self.activity.attended.is_empty()
            || self.sessions.is_connecting()
            || self.transfers.values().any(Transfer::needs_connection);
        if is_busy || std::mem::replace(&mut self.activity.was_busy, is_busy) {
            self.note_activity();
        }
        self.activity.was_busy = is_busy;
        let is_recent = |last: Instant| self.now < last + IDLE_AFTER;
        let warmth = match self.activity.last.is_some_and(is_recent) {
            true => Warmth::Warm,
            false => Warmth::Cold,
        };
        if std::mem::replace(&mut self.activity.warmth, warmth) != warmth {
            self.effect(Effect::Login(LoginEffect::SetWarmth(warmth)));
        }
    }
}
