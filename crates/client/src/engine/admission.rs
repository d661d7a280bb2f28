//! What others may make the engine hold: sessions, questions to the user, and words.
//! Each counts against a key and its network, and leaves a reserve for those whom
//! the user has chosen (PROTOCOL.md, "Budgets").

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use pinhole_budget::{Bounds, Budget, Full, Owner, Rate, RateLimiter, SubnetBounds, Ticket};
use pinhole_net::{PathKind, PeerKey};
use pinhole_transfer::DeclineReason;
use tokio::time::Instant;
use tracing::info;

use super::Engine;
use super::sessions::{SessionId, close};
use super::transfers::Transfer;
use crate::snapshot::{Stage, TransferId};

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
    /// Whether words that need no question may be shown now.
    pub(super) fn takes_words(&mut self, peer: PeerKey, is_chosen: bool) -> bool {
        let now = Instant::now().into_std();
        match is_chosen {
            true => self.words_of_chosen.take(now, peer),
            false => self.words_of_strangers.take(now, ()),
        }
    }

    /// Whether this side may go on with a peer that it has just told to be busy.
    fn bears_refusing(&mut self, peer: PeerKey) -> bool {
        self.refusals.take(Instant::now().into_std(), peer)
    }

    /// Whether another entry about a stranger goes into the history.
    pub(super) fn keeps_of_stranger(&mut self) -> bool {
        let now = Instant::now().into_std();
        self.kept_of_strangers.take(now, ())
    }

    /// A session is over.
    pub(super) fn session_ended(&mut self, ticket: Ticket) {
        self.sessions.give_back(ticket);
    }
}

impl Engine {
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
    pub(super) async fn admit_session(&mut self, owner: Owner<PeerKey>) -> Option<Ticket> {
        let taken = match self.admission.sessions.take(owner, 1) {
            Err(Full::Key) => {
                let oldest = self.replaceable_session(owner.key?)?;
                self.drop_session(oldest, "it was left for a newer one")
                    .await;
                self.admission.sessions.take(owner, 1)
            }
            taken => taken,
        };
        let taken = taken.inspect_err(|full| info!("a session too many: {full}"));
        let taken = taken.ok()?;
        for given_up in taken.evicted {
            let session = self.sessions.iter().find(|(_, s)| s.ticket == given_up);
            if let Some(id) = session.map(|(id, _)| *id) {
                self.drop_session(id, "this side has too many").await;
            }
        }
        Some(taken.ticket)
    }

    /// The peer of these sessions has become known: they keep their places.
    pub(super) fn keep_sessions_of(&mut self, peer: PeerKey) {
        for session in self.sessions.values().filter(|s| s.peer.key == peer) {
            let known = owner(peer, None, true);
            // The key is the same, and so is what it holds.
            let _ = self.admission.sessions.reassign(session.ticket, known);
            session.exchange.set_known();
        }
    }

    fn replaceable_session(&self, peer: PeerKey) -> Option<SessionId> {
        let with_peer = self.sessions.iter().filter(|(_, s)| s.peer.key == peer);
        let is_free = |id: &SessionId| {
            let under_way = |t: &Transfer| t.uses(*id) && t.is_under_way();
            !self.transfers.values().any(under_way)
        };
        with_peer.map(|(id, _)| *id).filter(is_free).min()
    }

    /// Ends a session although its peer does not want that.
    pub(super) async fn drop_session(&mut self, id: SessionId, reason: &str) {
        if let Some(session) = self.remove_session(id) {
            info!(peer = %session.peer.name, "session ended: {reason}");
            tokio::spawn(close(session.exchange));
            self.fail_session(id, reason).await;
        }
    }

    /// Counts a question to the user. `false` when too many wait: then the peer is
    /// to be told that this side is busy.
    pub(super) async fn admit_question(&mut self, id: TransferId, session: SessionId) -> bool {
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
                self.turn_down(id, DeclineReason::Busy).await;
            }
        }
        true
    }

    /// Gives back what counted for questions that are answered, or gone.
    fn settle_questions(&mut self) {
        let transfers = &self.transfers;
        let waits = |id: &TransferId| {
            let transfer = transfers.get(id);
            transfer.is_some_and(|t| matches!(t.stage, Stage::AwaitingDecision))
        };
        let settled = self.admission.asked.extract_if(|id, _| !waits(id));
        for (_, ticket) in settled {
            self.admission.questions.give_back(ticket);
        }
    }

    /// Tells a peer that this side is busy, and ends its session when it does not
    /// listen.
    pub(super) async fn refuse_as_busy(
        &mut self,
        session: SessionId,
        id: pinhole_transfer::TransferId,
    ) {
        let Some(carrier) = self.sessions.get(&session) else {
            return;
        };
        let peer = carrier.peer.key;
        // Only a session that is over refuses.
        let _ = carrier.exchange.decline(id, DeclineReason::Busy);
        if !self.admission.bears_refusing(peer) {
            self.drop_session(session, "it asks for too much").await;
        }
    }

    /// Against whom things count that come on this session.
    fn owner_of_session(&self, session: SessionId) -> Option<Owner<PeerKey>> {
        let session = self.sessions.get(&session)?;
        let is_direct = session.path != PathKind::Relay;
        let remote = is_direct.then(|| session.handle.path().borrow().remote.ip());
        let is_chosen = self.standing_on(session).is_chosen();
        Some(owner(session.peer.key, remote, is_chosen))
    }
}

/// Against whom something counts.
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
