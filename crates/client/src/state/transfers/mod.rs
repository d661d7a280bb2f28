//! Transfers: the stages of each, and what both directions share.

mod cleanup;
mod receiving;
mod resume;
mod sending;
mod transfer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pinhole_transfer::{Party, Paused, Summary, TransferError};

use self::cleanup::Leftovers;
pub(crate) use self::receiving::NotPrepared;
pub(super) use self::transfer::Transfer;
use self::transfer::{
    Accepted, Begun, Content, ReceiveStage, Receiving, Role, SendStage, Sending, Step, StepHolder,
};
use super::State;
use super::effect::{Effect, ExchangeEffect, FileEffect};
use super::ids::{Carrier, SessionId};
use crate::event::Event;
use crate::failure::Failure;
use crate::model::{Progress, TransferId};
use crate::offer;

/// The most transfers on the list. Beyond it, the oldest that have ended leave.
const MAX_TRANSFERS: usize = 1_000;
/// What waits for a peer that seems to be online is tried again after so long.
const BETWEEN_QUEUE_ATTEMPTS: Duration = Duration::from_secs(10);
/// The most offers of strangers on the list that ended without a yes.
const MAX_UNWANTED: usize = 32;

/// All transfers, oldest first, until they are dismissed.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    all: BTreeMap<TransferId, Transfer>,
    /// Unfinished files of cancelled transfers that are still in use.
    leftovers: Leftovers,
}

impl Transfers {
    pub(super) fn get(&self, id: TransferId) -> Option<&Transfer> {
        self.all.get(&id)
    }

    fn get_mut(&mut self, id: TransferId) -> Option<&mut Transfer> {
        self.all.get_mut(&id)
    }

    fn sending_mut(&mut self, id: TransferId) -> Option<&mut Sending> {
        self.get_mut(id)?.as_sending_mut()
    }

    fn receiving_mut(&mut self, id: TransferId) -> Option<&mut Receiving> {
        self.get_mut(id)?.as_receiving_mut()
    }

    /// How far an accepted offer is.
    fn step(&self, id: TransferId) -> Option<Step> {
        self.get(id)?.step().cloned()
    }

    fn step_mut(&mut self, id: TransferId) -> Option<&mut Step> {
        self.receiving_mut(id)?.step_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TransferId, &Transfer)> {
        self.all.iter().map(|(&id, transfer)| (id, transfer))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Transfer> {
        self.all.values()
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Transfer> {
        self.all.values_mut()
    }

    /// Those of which this holds.
    pub(super) fn ids(&self, holds: impl Fn(&Transfer) -> bool) -> Vec<TransferId> {
        let those = self.iter().filter(|(_, transfer)| holds(transfer));
        those.map(|(id, _)| id).collect()
    }

    #[cfg(test)]
    pub(super) fn has_no_leftovers(&self) -> bool {
        self.leftovers.is_empty()
    }

    /// The one that is carried like this.
    fn find(&self, session: SessionId, id: pinhole_transfer::TransferId) -> Option<TransferId> {
        let carries = |t: &Transfer| t.carrier().is_some_and(|it| it.is(session, id));
        let mut all = self.iter();
        all.find(|(_, t)| carries(t)).map(|(id, _)| id)
    }
}

/// What both directions share.
impl State {
    fn add_transfer(&mut self, mut transfer: Transfer) -> TransferId {
        transfer.face = self.asking;
        while self.transfers.all.len() >= MAX_TRANSFERS {
            let oldest = self.transfers.iter().find(|(_, t)| t.is_final());
            let Some((oldest, _)) = oldest else {
                break;
            };
            self.transfers.all.remove(&oldest);
        }
        let id = TransferId(self.next_id());
        self.transfers.all.insert(id, transfer);
        self.presence.set_watch_stale();
        id
    }

    /// Takes one off the list that has not ended.
    fn remove_transfer(&mut self, id: TransferId) {
        self.transfers.all.remove(&id);
        let release = FileEffect::Release { transfer: id };
        self.effect(Effect::File(release));
    }

    fn unfinished(&self, id: TransferId) -> Option<&Transfer> {
        self.transfers.get(id).filter(|t| !t.is_final())
    }

    pub(super) fn cancel(&mut self, id: TransferId) {
        let Some(transfer) = self.unfinished(id) else {
            return;
        };
        let is_queued = |sending: &Sending| matches!(sending.stage, SendStage::Queued { .. });
        if transfer.as_sending().is_some_and(is_queued) {
            self.remove_transfer(id);
            return self.store_queue();
        }
        let reason = TransferError::Cancelled(Party::Us);
        let failure = transfer.broken(Failure::Cancelled, &reason);
        if let Some(carrier) = transfer.carrier() {
            let end = transfer.end_as(ExchangeEffect::Cancel);
            self.effect(Effect::Exchange(carrier, end));
        }
        self.abandon(id);
        self.finish(id, Err(failure));
    }

    /// Ends a transfer and keeps what has arrived.
    pub(super) fn interrupt(&mut self, id: TransferId) {
        let Some(transfer) = self.unfinished(id) else {
            return;
        };
        if transfer.is_streamed() {
            // Nothing of it is worth keeping.
            return self.cancel(id);
        }
        let failure = match transfer.is_begun() {
            true => Failure::Interrupted,
            false => Failure::Cancelled,
        };
        match transfer.carrier() {
            Some(carrier) => {
                let end = transfer.end_as(ExchangeEffect::Interrupt);
                self.effect(Effect::Exchange(carrier, end));
            }
            // Between two connections there is nobody to tell.
            None if transfer.is_begun() => {}
            None => return self.cancel(id),
        }
        self.finish(id, Err(failure));
    }

    pub(super) fn pause(&mut self, id: TransferId, paused: bool) {
        let Some(transfer) = self.transfers.get_mut(id).filter(|t| t.is_under_way()) else {
            return;
        };
        if let Some(begun) = &mut transfer.begun {
            begun.wants_pause = paused;
        }
        transfer.progress.paused.by_us = paused;
        // One that is being offered again gets it when it begins.
        if let Some(carrier) = transfer.carrier() {
            let effect = match paused {
                true => ExchangeEffect::Pause,
                false => ExchangeEffect::Unpause,
            };
            self.effect(Effect::Exchange(carrier, effect));
        }
    }

    /// The program ends, or the login. What has arrived is kept for another day,
    /// and what was queued waits again.
    pub(super) fn interrupt_all(&mut self) {
        self.interrupt_those(|_| true);
    }

    /// The same with some of them.
    pub(super) fn interrupt_those(&mut self, is_meant: impl Fn(&Transfer) -> bool) {
        let is_running = |t: &Transfer| {
            let sending = t.as_sending();
            !t.is_final() && !sending.is_some_and(|it| matches!(it.stage, SendStage::Queued { .. }))
        };
        for id in self.transfers.ids(|t| is_running(t) && is_meant(t)) {
            match self.transfers.get(id) {
                Some(transfer) if transfer.is_of_queue() => self.requeue(id, None),
                // The end of its session tells the peer.
                Some(transfer) if transfer.awaits_decision() => {
                    self.finish(id, Err(Failure::Cancelled));
                }
                _ => self.interrupt(id),
            }
        }
    }

    pub(super) fn dismiss(&mut self, id: TransferId) {
        if self.transfers.get(id).is_some_and(Transfer::is_final) {
            self.transfers.all.remove(&id);
        }
    }

    /// The session is gone, and with it what it carried.
    pub(super) fn fail_session(&mut self, session: SessionId, reason: &str) {
        for id in self.transfers.ids(|t| t.uses(session)) {
            self.lose(id, reason);
        }
    }

    /// Ends a transfer that has not ended, and says so.
    pub(super) fn finish(&mut self, id: TransferId, outcome: Result<Summary, Failure>) {
        if let Err(failure) = &outcome
            && self.waits_again(id, failure)
        {
            // The peer may be online still. One that has interrupted is not asked again.
            let is_lost = matches!(failure, Failure::ConnectionLost { .. });
            let again_at = is_lost.then_some(self.now + BETWEEN_QUEUE_ATTEMPTS);
            return self.requeue(id, again_at);
        }
        let now = self.now;
        let Some(transfer) = self.transfers.get_mut(id).filter(|t| !t.is_final()) else {
            return;
        };
        transfer.progress.bytes_per_second = None;
        transfer.progress.time_left = None;
        let delivered = outcome.as_ref().ok().and_then(|summary| summary.digest);
        let failure = outcome.as_ref().err().cloned();
        let ended = outcome.map(|summary| transfer.completion(summary, now));
        let is_of_queue = transfer.is_of_queue();
        if let Some(digest) = delivered {
            self.note_delivered(id, digest);
        }
        self.let_go_of_offers(id, failure.as_ref());
        if let Some(transfer) = self.transfers.get_mut(id) {
            let carrier = transfer.carrier();
            transfer.end(ended);
            transfer.offer = Arc::new(offer::in_short(&transfer.offer));
            if let Some(carrier) = carrier {
                self.note_idleness(carrier.session);
            }
        }
        self.remember(id);
        if is_of_queue {
            self.store_queue();
        }
        let release = FileEffect::Release { transfer: id };
        self.effect(Effect::File(release));
        let transfer = id;
        self.emit(Event::Finished { transfer, failure });
    }

    /// An offer that was to continue a transfer is answered.
    fn let_go_of_offers(&mut self, id: TransferId, failure: Option<&Failure>) {
        let Some(transfer) = self.transfers.get_mut(id) else {
            return;
        };
        let peer = transfer.peer.key;
        let Role::Receiving(Receiving {
            stage: ReceiveStage::Accepted(accepted, step),
            ..
        }) = &mut transfer.role
        else {
            return;
        };
        let Step::Releasing { holder, next } = step else {
            return;
        };
        let (holder, next, manifest) = (*holder, *next, accepted.manifest.clone());
        // It is not to count as offered any more.
        *step = match holder {
            StepHolder::Running(carrier) => Step::Running(carrier),
            StepHolder::Preparing => Step::Preparing(next),
        };
        match failure {
            None if self.is_acknowledged(peer, next, &manifest) => {}
            Some(Failure::Cancelled) => {
                self.effect(Effect::Exchange(next, ExchangeEffect::Cancel));
            }
            _ => self.effect(Effect::Exchange(next, ExchangeEffect::Interrupt)),
        }
        self.note_idleness(next.session);
    }

    fn remember(&mut self, id: TransferId) {
        let Some(transfer) = self.transfers.get(id) else {
            return;
        };
        if transfer.is_unwanted() {
            return self.forget_unwanted();
        }
        let view = transfer.view(id);
        if transfer.is_of_stranger() && !self.keeps_of_stranger() {
            return;
        }
        self.effect(Effect::Record(Box::new(view)));
    }

    /// Takes the oldest offers of strangers off the list that ended without a yes.
    fn forget_unwanted(&mut self) {
        let over = self.transfers.ids(|t| t.is_unwanted() && t.is_final());
        for id in over.iter().rev().skip(MAX_UNWANTED) {
            self.transfers.all.remove(id);
        }
    }

    /// It has begun to move, or goes on, as this title if only a part of it is wanted.
    fn begin(&mut self, id: TransferId, title: Option<String>) {
        let now = self.now;
        let Some(transfer) = self.transfers.get_mut(id) else {
            return;
        };
        match &mut transfer.begun {
            // What has come over a lost connection has travelled.
            Some(begun) => {
                begun.had_bytes.get_or_insert(transfer.progress.here_bytes);
            }
            None => {
                transfer.begun = Some(Begun {
                    at: now,
                    wants_pause: false,
                    had_bytes: None,
                });
            }
        }
        if let Some(title) = title {
            Arc::make_mut(&mut transfer.offer).title = title;
        }
        let wants_pause = transfer.begun.is_some_and(|begun| begun.wants_pause);
        if let Some(carrier) = transfer.carrier().filter(|_| wants_pause) {
            self.effect(Effect::Exchange(carrier, ExchangeEffect::Pause));
        }
    }

    fn lost_connection_of(&self, id: TransferId, reason: &str) -> Failure {
        match self.transfers.get(id) {
            Some(transfer) => {
                let lost = Failure::ConnectionLost {
                    peer: transfer.peer.name.clone(),
                    reason: reason.to_owned(),
                };
                transfer.broken(lost, &TransferError::ConnectionLost)
            }
            None => Failure::NotPossible {
                detail: reason.to_owned(),
            },
        }
    }

    /// Whether there is something to sample. Of what is paused there is no progress
    /// once everything on its way has arrived.
    pub(crate) fn is_moving(&self) -> bool {
        let is_still = |progress: &Progress| {
            progress.paused != Paused::default() && progress.bytes_per_second == Some(0)
        };
        // One that is offered again has no progress, but its path is watched.
        let is_watched = |t: &Transfer| t.is_sending() && t.is_under_way() && t.is_offered();
        self.transfers
            .values()
            .any(|t| t.is_moving() && !is_still(&t.progress) || is_watched(t))
    }

    /// What moves, and what carries it.
    pub(crate) fn moving(&self) -> impl Iterator<Item = (TransferId, Carrier)> {
        let moving = self.transfers.iter().filter(|(_, t)| t.is_moving());
        moving.filter_map(|(id, t)| Some((id, t.carrier()?)))
    }

    /// How far a transfer is.
    pub(crate) fn handle_progress(&mut self, id: TransferId, progress: Progress) {
        if let Some(transfer) = self.transfers.get_mut(id).filter(|t| t.is_moving()) {
            transfer.progress = progress;
        }
    }
}
