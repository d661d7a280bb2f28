//! Transfers whose connection broke, and how they go on by themselves.
//!
//! ```text
//! Transferring ──connection lost──► Reconnecting ──offered again──► Transferring
//!                                        └──nothing for too long──► Failed
//! ```
//!
//! The sender connects and offers the same again; the receiver knows the offer
//! by its peer and its files and takes it as it took the first. The connection may
//! break again before it has: whatever has begun once waits for another.

use std::time::Duration;

use pinhole_net::{PeerKey, PeerName};
use pinhole_transfer::Manifest;
use tokio::time::Instant;

use super::Engine;
use super::sessions::SessionId;
use super::transfers::{Carrier, Transfer};
use crate::consent;
use crate::event::Event;
use crate::failure::Failure;
use crate::snapshot::{Direction, Stage, TransferId};

/// A lost transfer waits this long for a new connection.
const WAIT: Duration = Duration::from_secs(120);
/// And this long when the server says that the peer is gone.
const WAIT_FOR_OFFLINE_PEER: Duration = Duration::from_secs(8);
/// Between two attempts of the sender. The first follows as fast: the session
/// that broke must be gone.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(500);

/// What a transfer remembers that lost its connection.
pub(crate) struct ReconnectState {
    /// What it ends with if it does not go on.
    failure: Failure,
    give_up_at: Instant,
    /// Sending: when to try again, unless an attempt is under way.
    try_at: Option<Instant>,
}

impl ReconnectState {
    fn next_wake(&self) -> Instant {
        self.try_at
            .map_or(self.give_up_at, |at| at.min(self.give_up_at))
    }
}

impl Engine {
    /// The connection of a transfer broke.
    pub(super) async fn lose(&mut self, id: TransferId, reason: &str) {
        let failure = self.lost(id, reason);
        if let Some(transfer) = self.transfers.get_mut(&id)
            && transfer.reoffered.is_some()
        {
            transfer.carried = None;
            transfer.stage = Stage::Reconnecting;
            return match transfer.is_taking {
                // `Taken` follows.
                true => (),
                false => self.take_again(id),
            };
        }
        let can_go_on = self.login.id().is_some() || self.nearby.is_running();
        // The server may have said so before the connection was seen to break.
        let transfer = self.transfers.get(&id);
        let wait = if transfer.is_some_and(|it| self.is_said_to_be_gone(it)) {
            WAIT_FOR_OFFLINE_PEER
        } else {
            WAIT
        };
        let under_way = |t: &&mut Transfer| t.is_under_way();
        let Some(transfer) = self.transfers.get_mut(&id).filter(under_way) else {
            return self.finish(id, Err(failure)).await;
        };
        if !can_go_on || transfer.text.is_some() {
            return self.finish(id, Err(failure)).await;
        }
        let now = Instant::now();
        let is_sending = transfer.direction == Direction::Sending;
        transfer.carried = None;
        transfer.stage = Stage::Reconnecting;
        transfer.lost = Some(ReconnectState {
            failure,
            give_up_at: now + wait,
            try_at: is_sending.then_some(now + BETWEEN_ATTEMPTS),
        });
        // What broke it may have broken the way to the server, too.
        self.login.check();
        self.publish();
        self.emit(Event::Reconnecting { transfer: id }).await;
    }

    /// An attempt to go on has failed. Returns whether there will be another.
    pub(super) fn tries_again(&mut self, id: TransferId) -> bool {
        let Some(transfer) = self.transfers.get_mut(&id) else {
            return false;
        };
        let Some(lost) = &mut transfer.lost else {
            return false;
        };
        lost.try_at = Some(Instant::now() + BETWEEN_ATTEMPTS);
        transfer.stage = Stage::Reconnecting;
        true
    }

    /// When a lost transfer is next to be looked after.
    pub(super) fn next_attempt(&self) -> Option<Instant> {
        let lost = self.transfers.values().filter_map(|t| t.lost.as_ref());
        lost.map(ReconnectState::next_wake).min()
    }

    /// Tries again what is due, and gives up what has waited too long.
    pub(super) async fn drive_reconnects(&mut self) {
        let now = Instant::now();
        let due = |(id, transfer): (&TransferId, &Transfer)| {
            let lost = transfer.lost.as_ref()?;
            (lost.next_wake() <= now).then_some((*id, lost.give_up_at <= now))
        };
        let due: Vec<_> = self.transfers.iter().filter_map(due).collect();
        for (id, is_over) in due {
            let Some(lost) = self.transfers.get_mut(&id).and_then(|t| t.lost.as_mut()) else {
                continue;
            };
            lost.try_at = None;
            let failure = lost.failure.clone();
            let peer = self.transfers.get(&id).map(|transfer| transfer.peer.key);
            let is_nearby = peer.is_some_and(|peer| self.nearby.has(peer));
            if is_over {
                self.finish(id, Err(failure)).await;
            } else if self.login.rendezvous().is_some() || is_nearby {
                self.prepare(id).await;
            } else {
                self.tries_again(id);
            }
        }
    }

    /// The server says that a peer is gone: what waits for it does not wait
    /// much longer.
    pub(super) fn expect_less_of(&mut self, name: &PeerName) {
        let give_up_at = Instant::now() + WAIT_FOR_OFFLINE_PEER;
        for transfer in self.transfers.values_mut() {
            if let Some(lost) = &mut transfer.lost
                && transfer.peer.name == *name
            {
                lost.give_up_at = lost.give_up_at.min(give_up_at);
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
        let is_it = |transfer: &&Transfer| {
            let (of, manifest) = (transfer.peer.key, transfer.manifest.as_ref());
            transfer.direction == Direction::Receiving
                && transfer.is_under_way()
                && !transfer.uses(session)
                && !transfer.is_reoffered_on(session)
                && manifest.is_some_and(|it| consent::is_accepted((of, it), (peer, offer)))
        };
        let mut all = self.transfers.iter();
        all.find(|(_, transfer)| is_it(transfer)).map(|(id, _)| *id)
    }

    /// Takes an offer that continues a transfer, once that has let go of its
    /// files.
    pub(super) fn go_on(&mut self, id: TransferId, carried: Carrier) {
        let Some(transfer) = self.transfers.get_mut(&id) else {
            return;
        };
        let older = transfer.reoffered.replace(carried);
        let (broken, is_taking) = (transfer.carried.clone(), transfer.is_taking);
        for left in [older, broken.clone()].into_iter().flatten() {
            // One that has ended already needs no end.
            let _ = left.exchange.interrupt(left.id);
        }
        // Otherwise `Finished` or `Taken` follows.
        if broken.is_none() && !is_taking {
            self.take_again(id);
        }
    }

    pub(super) fn take_again(&mut self, id: TransferId) {
        if let Some(transfer) = self.transfers.get_mut(&id) {
            transfer.carried = transfer.reoffered.take();
            transfer.lost = None;
            self.take(id);
        }
    }
}
