//! Relay tokens, and the connections that wait for their other half.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::key::PeerKey;
use crate::rendezvous::{Refusal, RelayToken};

use super::Action;

/// How long after an introduction both sides must have shown its token.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(60);

/// One relay connection, from its token to its pairing or end. Numbered by the
/// owner of the registry; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayId(pub u64);

/// Who has invited the other side of a relay. All that the relay takes counts against
/// this one: who is invited has no part in how often that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inviter {
    /// Its key.
    pub key: PeerKey,
    /// Where its control connection comes from.
    pub address: IpAddr,
}

#[derive(Debug)]
struct Ticket {
    inviter: Inviter,
    /// The inviter's first.
    keys: [PeerKey; 2],
    expires_at: Instant,
    /// The side that is here, with the index of its key.
    waiting: Option<(RelayId, usize)>,
}

#[derive(Debug, Default)]
pub(super) struct Relay {
    tickets: BTreeMap<RelayToken, Ticket>,
    waiting: BTreeMap<RelayId, RelayToken>,
}

impl Relay {
    /// Makes `token` good for one connection of each key; returns when it expires.
    pub(super) fn issue(
        &mut self,
        now: Instant,
        token: RelayToken,
        inviter: Inviter,
        invited: PeerKey,
    ) -> Instant {
        let expires_at = now + TOKEN_LIFETIME;
        let ticket = Ticket {
            inviter,
            keys: [inviter.key, invited],
            expires_at,
            waiting: None,
        };
        self.tickets.insert(token, ticket);
        expires_at
    }

    /// A connection has shown `token`: it waits, is paired, or is refused.
    pub(super) fn arrive(
        &mut self,
        now: Instant,
        relay: RelayId,
        key: PeerKey,
        token: RelayToken,
    ) -> Action {
        let refused = Action::CloseRelay {
            relay,
            refusal: Refusal::Token,
        };
        let Some(ticket) = self.tickets.get_mut(&token) else {
            return refused;
        };
        let taken = ticket.waiting.map(|(_, side)| side);
        let side = (0..ticket.keys.len())
            .find(|&side| ticket.keys.get(side) == Some(&key) && taken != Some(side));
        let Some(side) = side.filter(|_| now < ticket.expires_at) else {
            return refused;
        };
        let inviter = ticket.inviter;
        let Some((first, _)) = ticket.waiting else {
            ticket.waiting = Some((relay, side));
            self.waiting.insert(relay, token);
            return Action::HoldRelay { relay, inviter };
        };
        self.tickets.remove(&token);
        self.waiting.remove(&first);
        Action::PairRelay {
            first,
            second: relay,
            inviter,
        }
    }

    /// A side that leaves has used its half of the token, so nobody can be
    /// paired by it any more.
    pub(super) fn leave(&mut self, relay: RelayId) {
        if let Some(token) = self.waiting.remove(&relay) {
            self.tickets.remove(&token);
        }
    }

    pub(super) fn expire(&mut self, now: Instant, token: RelayToken) -> Option<Action> {
        let ticket = self.tickets.get(&token)?;
        if now < ticket.expires_at {
            return None;
        }
        let (relay, _) = self.tickets.remove(&token)?.waiting?;
        self.waiting.remove(&relay);
        let refusal = Refusal::Token;
        Some(Action::CloseRelay { relay, refusal })
    }

    /// Forgets everything; returns who waited.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = RelayId> + use<> {
        self.tickets.clear();
        std::mem::take(&mut self.waiting).into_keys()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.tickets.is_empty() && self.waiting.is_empty()
    }
}
