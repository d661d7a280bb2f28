//! What others may make this side hold: sessions, questions to the user, and words.
//! Each counts against a key and its network, and leaves a reserve for those whom
//! the user has chosen (PROTOCOL.md, "Budgets").

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use pinhole_budget::{Bounds, Budget, Full, Owner, Rate, RateLimiter, SubnetBounds, Ticket};
use pinhole_net::{PathKind, PeerKey};
use pinhole_transfer::DeclineReason;
use tracing::info;

use super::State;
use super::effect::{Effect, ExchangeEffect, SessionEffect};
use super::ids::{Carrier, SessionId};
use super::transfers::Transfer;
use crate::model::TransferId;

const SESSIONS: Bounds = Bounds {
    total: 256,
    reserved: 64,
    per_key: 8,
    per_subnet: SubnetBounds::uniform(64),
};
/// Offers and words that wait for the user.
const QUESTIONS: Bounds = Bounds {
    total: 256,
    reserved: 128,
    per_key: 32,
    per_subnet: SubnetBounds::uniform(64),
};
/// Words of one key that are shown unasked.
const WORDS: Rate = Rate {
    burst: 60,
    interval: Duration::from_secs(1),
};
/// How often a key may go on after it was told that this side is busy. Beyond that
/// its session ends.
const REFUSALS: Rate = Rate {
    burst: 64,
    interval: Duration::from_secs(1),
};
/// What strangers leave in the history, all together.
const KEPT_OF_STRANGERS: Rate = Rate {
    burst: 100,
    interval: Duration::from_secs(600),
};
/// Keys that are counted at a time: as many as can be pinned.
const KEYS_MAX: usize = 10_000;

/// What is held, and for whom.
pub(super) struct Admission {
    sessions: Budget<PeerKey>,
    questions: Budget<PeerKey>,
    asked: HashMap<TransferId, Ticket>,
    words_of_chosen: RateLimiter<PeerKey>,
    /// All of them together: keys are free.
    words_of_strangers: RateLimiter<()>,
    refusals: RateLimiter<PeerKey>,
    kept_of_strangers: RateLimiter<()>,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            sessions: Budget::new(SESSIONS),
            questions: Budget::new(QUESTIONS),
            asked: HashMap::new(),
            words_of_chosen: RateLimiter::new(WORDS, KEYS_MAX),
            words_of_strangers: RateLimiter::new(WORDS, 1),
            refusals: RateLimiter::new(REFUSALS, KEYS_MAX),
            kept_of_strangers: RateLimiter::new(KEPT_OF_STRANGERS, 1),
        }
    }
}

impl Admission {
    /// A session is over.
    pub(super) fn session_ended(&mut self, ticket: Ticket) {
        self.sessions.give_back(ticket);
    }
}

impl State {
    /// Whether words that need no question may be shown now.
    pub(super) fn takes_words(&mut self, peer: PeerKey, is_chosen: bool) -> bool {
        match is_chosen {
            true => self.admission.words_of_chosen.take(self.now, peer),
            false => self.admission.words_of_strangers.take(self.now, ()),
        }
    }

    /// Whether another entry about a stranger goes into the history.
    pub(super) fn keeps_of_stranger(&mut self) -> bool {
        self.admission.kept_of_strangers.take(self.now, ())
    }

    /// Whether a session would be let in.
    pub(super) fn has_room_for_session(&self, owner: Owner<PeerKey>) -> bool {
        let oldest = || self.replaceable_session(owner.key?);
        match self.admission.sessions.has_room(&owner, 1) {
            Ok(()) => true,
            Err(Full::Key) => oldest().is_some(),
            Err(_) => false,
        }
    }

    /// Counts a session that has come up. `None` when there are too many: then it is
    /// to be closed. One more than a key may have takes the place of its oldest that
    /// carries nothing under way.
    pub(super) fn admit_session(&mut self, owner: Owner<PeerKey>) -> Option<Ticket> {
        let taken = match self.admission.sessions.take(owner, 1) {
            Err(Full::Key) => {
                let oldest = self.replaceable_session(owner.key?)?;
                self.drop_session(oldest, "it was left for a newer one");
                self.admission.sessions.take(owner, 1)
            }
            taken => taken,
        };
        let taken = taken.inspect_err(|full| info!("a session too many: {full}"));
        let taken = taken.ok()?;
        for given_up in taken.evicted {
            if let Some(id) = self.sessions.with_ticket(given_up) {
                self.drop_session(id, "this side has too many");
            }
        }
        Some(taken.ticket)
    }

    /// The peer of these sessions has become known: they keep their places.
    pub(super) fn keep_sessions_of(&mut self, peer: PeerKey) {
        for (id, ticket) in self.sessions.tickets_of(peer) {
            let known = owner(peer, None, true);
            // The key is the same, and so is what it holds.
            let _ = self.admission.sessions.reassign(ticket, known);
            self.effect(Effect::Session(SessionEffect::SetKnown(id)));
        }
    }

    fn replaceable_session(&self, peer: PeerKey) -> Option<SessionId> {
        let is_free = |id: &SessionId| {
            let under_way = |t: &Transfer| t.uses(*id) && t.is_under_way();
            !self.transfers.values().any(under_way)
        };
        self.sessions.with(peer).filter(is_free).min()
    }

    /// Ends a session although its peer does not want that.
    pub(super) fn drop_session(&mut self, id: SessionId, reason: &str) {
        if let Some(session) = self.remove_session(id) {
            info!(peer = %session.peer.name, "session ended: {reason}");
            self.fail_session(id, reason);
        }
    }

    /// Counts a question to the user. `false` when too many wait: then the peer is
    /// to be told that this side is busy.
    pub(super) fn admit_question(&mut self, id: TransferId, session: SessionId) -> bool {
        self.settle_questions();
        let Some(owner) = self.owner_of_session(session) else {
            return false;
        };
        let Ok(taken) = self.admission.questions.take(owner, 1) else {
            return false;
        };
        self.admission.asked.insert(id, taken.ticket);
        for given_up in taken.evicted {
            let question = self.admission.asked.iter().find(|(_, it)| **it == given_up);
            if let Some(id) = question.map(|(id, _)| *id) {
                self.turn_down(id, DeclineReason::Busy);
            }
        }
        true
    }

    /// Gives back what counted for questions that are answered, or gone.
    fn settle_questions(&mut self) {
        let transfers = &self.transfers;
        let waits = |id: &TransferId| {
            let transfer = transfers.get(*id);
            transfer.is_some_and(Transfer::awaits_decision)
        };
        let settled = self.admission.asked.extract_if(|id, _| !waits(id));
        for (_, ticket) in settled {
            self.admission.questions.give_back(ticket);
        }
    }

    /// Tells a peer that this side is busy, and ends its session when it does not
    /// listen.
    pub(super) fn refuse_as_busy(&mut self, carrier: Carrier) {
        let Some(peer) = self.sessions.get(carrier.session).map(|s| s.peer.key) else {
            return;
        };
        let busy = ExchangeEffect::Decline(DeclineReason::Busy);
        self.effect(Effect::Exchange(carrier, busy));
        if !self.admission.refusals.take(self.now, peer) {
            self.drop_session(carrier.session, "it asks for too much");
        }
    }

    /// The owner against whom the content of this session counts.
    fn owner_of_session(&self, session: SessionId) -> Option<Owner<PeerKey>> {
        let session = self.sessions.get(session)?;
        // Over a relay the address is the relay's.
        let remote = (session.path != PathKind::Relay).then(|| session.remote.ip());
        let is_chosen = self.standing_on(session).is_chosen();
        Some(owner(session.peer.key, remote, is_chosen))
    }
}

/// The owner against whom something counts.
pub(super) const fn owner(
    peer: PeerKey,
    address: Option<IpAddr>,
    is_known: bool,
) -> Owner<PeerKey> {
    Owner {
        key: Some(peer),
        address,
        is_known,
    }
}
