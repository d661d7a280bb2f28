//! Transfers whose connection broke, and how they go on by themselves.
//!
//! ```text
//! running ──connection lost──► reconnecting ──offered again──► running
//!                                   └──nothing for too long──► failed
//! ```
//!
//! The sender connects and offers the same again; the receiver knows the offer
//! by its peer and its files and takes it as it took the first. The connection may
//! break again before it has: what has begun once waits for another.

use std::time::{Duration, Instant};

use pinhole_net::{PeerKey, PeerName};
use pinhole_transfer::Manifest;

use super::transfer::Reconnect;
use super::{ReceiveStage, Receiving, Role, SendStage, Sending, Step, StepHolder, Transfer};
use crate::consent;
use crate::event::Event;
use crate::model::TransferId;
use crate::state::State;
use crate::state::effect::{Effect, ExchangeEffect};
use crate::state::ids::{Carrier, SessionId};

/// How long a lost transfer waits for a new connection.
const WAIT: Duration = Duration::from_secs(120);
/// How long it waits when the server says that the peer is offline.
const WAIT_FOR_OFFLINE_PEER: Duration = Duration::from_secs(8);
/// Between two attempts of the sender. The first follows as fast: the session
/// that broke must be gone.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(500);

impl Transfer {
    fn reconnect(&self) -> Option<&Reconnect> {
        match &self.role {
            Role::Sending(sending) => match &sending.stage {
                SendStage::Reconnecting(again) => Some(again),
                SendStage::Listing { again } | SendStage::Connecting { again } => again.as_ref(),
                _ => None,
            },
            Role::Receiving(_) => match self.step() {
                Some(Step::Lost { again, .. }) => Some(again),
                _ => None,
            },
        }
    }

    fn reconnect_mut(&mut self) -> Option<&mut Reconnect> {
        match &mut self.role {
            Role::Sending(sending) => match &mut sending.stage {
                SendStage::Reconnecting(again) => Some(again),
                SendStage::Listing { again } | SendStage::Connecting { again } => again.as_mut(),
                _ => None,
            },
            Role::Receiving(Receiving {
                stage: ReceiveStage::Accepted(_, Step::Lost { again, .. }),
                ..
            }) => Some(again),
            Role::Receiving(_) => None,
        }
    }

    /// Has it wait for another connection.
    fn wait_for_connection(&mut self, again: Reconnect) {
        match &mut self.role {
            Role::Sending(sending) => sending.stage = SendStage::Reconnecting(again),
            Role::Receiving(receiving) => {
                if let ReceiveStage::Accepted(_, step) = &mut receiving.stage {
                    let is_held = matches!(step, Step::Preparing(_));
                    *step = Step::Lost { again, is_held };
                }
            }
        }
    }
}

impl super::Transfers {
    /// When a lost transfer is next to be looked after.
    pub(in crate::state) fn next_reconnect(&self) -> Option<Instant> {
        let lost = self.values().filter_map(Transfer::reconnect);
        lost.map(Reconnect::next_wake).min()
    }

    /// When something of the queue is to be tried again.
    pub(in crate::state) fn next_queue_attempt(&self) -> Option<Instant> {
        let queued = self.values().filter_map(|t| match t.as_sending()?.stage {
            SendStage::Queued { again_at } => again_at,
            _ => None,
        });
        queued.min()
    }
}

impl State {
    /// The connection of a transfer broke.
    pub(in crate::state) fn lose(&mut self, id: TransferId, reason: &str) {
        if self.take_next_offer(id) {
            return;
        }
        let failure = self.lost_connection_of(id, reason);
        let can_go_on = self.login.is_wanted() || self.presence.looks_nearby();
        let Some(transfer) = self.transfers.get(id) else {
            return;
        };
        if !transfer.is_under_way() || !can_go_on || transfer.is_text() || transfer.is_streamed() {
            return self.finish(id, Err(failure));
        }
        // The server may have said so before the connection was seen to break.
        let wait = match self.is_said_to_be_gone(transfer) {
            true => WAIT_FOR_OFFLINE_PEER,
            false => WAIT,
        };
        let now = self.now;
        let again = Reconnect {
            failure,
            give_up_at: now + wait,
            try_at: transfer.is_sending().then_some(now + BETWEEN_ATTEMPTS),
        };
        if let Some(transfer) = self.transfers.get_mut(id) {
            transfer.wait_for_connection(again);
        }
        // What broke it may have broken the connection to the server, too.
        self.check_server();
        self.emit(Event::Reconnecting { transfer: id });
    }

    /// Whether the server, asked now, would say that the peer of this transfer is
    /// offline.
    fn is_said_to_be_gone(&self, transfer: &Transfer) -> bool {
        let peer = &transfer.peer;
        // A stranger whom it named is not among those that are pinned.
        let is_named_stranger = transfer.as_receiving().is_some_and(|it| !it.claimed);
        let is_named = self.server_of(peer).is_some() || is_named_stranger;
        self.login.is_online() && is_named && !self.presence.is_online(peer)
    }

    /// If another offer continues the transfer whose connection broke, it is taken as
    /// soon as the disk allows. Returns whether one does.
    fn take_next_offer(&mut self, id: TransferId) -> bool {
        let step = self.transfers.step(id);
        match step {
            Some(Step::Releasing {
                holder: StepHolder::Running(_),
                next,
            }) => {
                self.take(id, next);
                true
            }
            Some(Step::Releasing { .. }) => true,
            _ => false,
        }
    }

    /// An attempt to go on has failed. Returns whether there will be another.
    pub(super) fn tries_again(&mut self, id: TransferId) -> bool {
        let try_at = self.now + BETWEEN_ATTEMPTS;
        let Some(Sending { stage, .. }) = self.transfers.sending_mut(id) else {
            return false;
        };
        match stage {
            SendStage::Listing { again } | SendStage::Connecting { again } => {
                let Some(mut again) = again.take() else {
                    return false;
                };
                again.try_at = Some(try_at);
                *stage = SendStage::Reconnecting(again);
                true
            }
            SendStage::Reconnecting(again) => {
                again.try_at = Some(try_at);
                true
            }
            _ => false,
        }
    }

    /// Tries again what is due, and gives up what has waited too long.
    pub(in crate::state) fn drive_reconnects(&mut self) {
        let now = self.now;
        let is_due = |t: &Transfer| t.reconnect().is_some_and(|it| it.next_wake() <= now);
        for id in self.transfers.ids(is_due) {
            let Some(transfer) = self.transfers.get_mut(id) else {
                continue;
            };
            let peer = transfer.peer.key;
            let Some(again) = transfer.reconnect_mut() else {
                continue;
            };
            again.try_at = None;
            if again.give_up_at <= now {
                let failure = again.failure.clone();
                self.finish(id, Err(failure));
            } else if self.login.is_online() || self.presence.is_nearby(peer) {
                self.prepare(id);
            } else {
                self.tries_again(id);
            }
        }
    }

    /// The server says that a peer is gone: what waits for it does not wait
    /// much longer.
    pub(in crate::state) fn shorten_waits_for(&mut self, name: &PeerName) {
        let give_up_at = self.now + WAIT_FOR_OFFLINE_PEER;
        for transfer in self.transfers.values_mut() {
            if transfer.peer.name == *name
                && let Some(again) = transfer.reconnect_mut()
            {
                again.give_up_at = again.give_up_at.min(give_up_at);
            }
        }
    }

    /// A transfer of this peer that the offer on `session` continues: one that
    /// waits for it, or whose connection has broken without this side having
    /// noticed.
    pub(super) fn continued_by(
        &self,
        peer: PeerKey,
        session: SessionId,
        offer: &Manifest,
    ) -> Option<TransferId> {
        let is_it = |transfer: &Transfer| {
            let of = transfer.peer.key;
            let accepted = transfer.as_receiving().and_then(|it| match &it.stage {
                ReceiveStage::Accepted(accepted, _) => Some(&accepted.manifest),
                _ => None,
            });
            transfer.is_under_way()
                && !transfer.is_streamed()
                && !transfer.uses(session)
                && !transfer.is_reoffered_on(session)
                && accepted.is_some_and(|it| consent::is_accepted((of, it), (peer, offer)))
        };
        let mut all = self.transfers.iter();
        all.find(|(_, transfer)| is_it(transfer)).map(|(id, _)| id)
    }

    /// Takes an offer that continues a transfer, once that has let go of its files.
    pub(super) fn go_on(&mut self, id: TransferId, next: Carrier) {
        let Some(step) = self.transfers.step(id) else {
            return;
        };
        let (holder, broken) = match step {
            Step::Running(carrier) => (Some(StepHolder::Running(carrier)), [Some(carrier), None]),
            Step::Preparing(carrier) => (Some(StepHolder::Preparing), [Some(carrier), None]),
            Step::Releasing {
                holder,
                next: older,
            } => {
                let running = match holder {
                    StepHolder::Running(carrier) => Some(carrier),
                    StepHolder::Preparing => None,
                };
                (Some(holder), [Some(older), running])
            }
            Step::Lost { is_held: true, .. } => (Some(StepHolder::Preparing), [None, None]),
            Step::Lost { .. } => (None, [None, None]),
        };
        for left in broken.into_iter().flatten() {
            // One that has ended already needs no end.
            self.effect(Effect::Exchange(left, ExchangeEffect::Interrupt));
        }
        let Some(holder) = holder else {
            return self.take(id, next);
        };
        if let Some(step) = self.transfers.step_mut(id) {
            *step = Step::Releasing { holder, next };
        }
    }
}
