//! What is looked at from time to time: what others have changed, whose names are lost, and
//! which keys have names.

use std::mem;
use std::time::{Duration, Instant};

use super::{CHANGES_INTERVAL, NameWorker, OnlineName};
use crate::inbox::RegistrarInput;
use crate::names::{NameState, NamesError, now_s};

/// The most people whose names are looked up again together.
pub(super) const REVIEW: usize = 1_024;
/// How often keys with new names and new regulars are looked for.
const KEYS_INTERVAL: Duration = Duration::from_secs(60);
/// How much earlier than the last look a new name may have been registered: another
/// server's clock may be behind, and its write may have been under way.
pub(super) const KEYS_OVERLAP_S: i64 = 60;

impl NameWorker {
    /// Says so if an operator has changed the names, or another server has, and which keys
    /// were revoked.
    pub(super) async fn look_for_changes(&mut self, now: Instant) -> Vec<RegistrarInput> {
        let is_due = |at: Instant| now.saturating_duration_since(at) >= CHANGES_INTERVAL;
        if !self.changes_looked_at.is_none_or(is_due) {
            return Vec::new();
        }
        self.changes_looked_at = Some(now);
        let changed = self.names.has_changed_elsewhere().await;
        let Some(changed) = self.note(changed, "looking for changed names") else {
            return Vec::new();
        };
        self.note_count();
        let is_review_due = mem::take(&mut self.is_review_due);
        if !changed && !is_review_due {
            return Vec::new();
        }
        let revoked = self.revoked_elsewhere().await;
        let inputs = revoked.into_iter().chain([RegistrarInput::NamesChanged]);
        inputs.collect()
    }

    /// Those of `online` whose name is banned, free or another key's.
    pub(super) async fn review(&mut self, online: &[OnlineName]) -> Option<RegistrarInput> {
        let mut sessions = Vec::new();
        for page in online.chunks(REVIEW) {
            let names: Vec<_> = page.iter().map(|it| it.name.clone()).collect();
            let states = self.names.look_up(&names).await;
            let Some(states) = self.note(states, "reviewing names") else {
                self.is_review_due = true;
                break;
            };
            let lost = page.iter().zip(states).filter(|(it, state)| {
                !matches!(state, NameState::Bound(key) if *key == it.key)
                    && *state != NameState::Damaged
            });
            sessions.extend(lost.map(|(it, _)| it.session));
        }
        if !self.is_review_due {
            self.end_day(online).await;
        }
        (!sessions.is_empty()).then_some(RegistrarInput::NamesLost { sessions })
    }

    pub(super) async fn note_keys_if_due(&mut self, now: Instant) {
        let is_due = |at: Instant| now.saturating_duration_since(at) >= KEYS_INTERVAL;
        if !self.is_out && self.keys_looked_at.is_none_or(is_due) {
            let noted = self.note_keys(now).await;
            self.note(noted, "looking for regulars");
        }
    }

    /// Notes the keys that have names, and as regulars those whose names have become old
    /// enough.
    pub(super) async fn note_keys(&mut self, now: Instant) -> Result<(), NamesError> {
        self.keys_looked_at = Some(now);
        let now_s = now_s();
        let keys = self.names.registered_within(self.named_until_s, i64::MAX);
        self.named_keys.insert(keys.await?);
        self.named_until_s = now_s.saturating_sub(KEYS_OVERLAP_S);
        let after_s = i64::try_from(self.regular_after.as_secs()).unwrap_or(i64::MAX);
        let until_s = now_s.saturating_sub(after_s);
        let keys = self.names.registered_within(self.regular_until_s, until_s);
        self.named_keys.insert_regulars(keys.await?);
        self.regular_until_s = self.regular_until_s.max(until_s);
        Ok(())
    }
}
