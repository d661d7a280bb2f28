//! Consent: what may happen without asking, and what only after a yes.
//!
//! One rule: nothing is written, opened, pinned, learnt about files here, or shown
//! beyond a notice, without a yes that covers exactly it: this peer's key, this offer
//! or these digests, for so long. PROTOCOL.md ("Consent") has it in words. Everything
//! that needs a yes asks here; nothing here has a clock, a disk or a network.

use std::time::{Duration, Instant};

use pinhole_net::{PathPolicy, PeerKey, RefuseReason};
use pinhole_transfer::Manifest;
use pinhole_transfer::digest::Digest;

use crate::offer;
use crate::store::Acquaintance;
use crate::store::{AcceptPolicy, Settings, Strangers};

/// How long a sender may offer a delivery again and be told that it has arrived, in
/// case it missed the acknowledgement. Never renewed.
pub(crate) const DELIVERY_REMEMBERED: Duration = Duration::from_secs(120);
/// A stranger who was allowed to connect may do so for this long.
pub(crate) const ALLOWED_FOR: Duration = Duration::from_secs(60 * 60);
/// Most deliveries that are remembered, in all and of one key.
const DELIVERIES_MAX: usize = 256;
const DELIVERIES_OF_ONE_MAX: usize = 32;

/// How the user stands to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The user has blocked it.
    Blocked,
    /// It is pinned, and was revoked.
    Revoked,
    /// Another key is pinned under its name.
    Changed,
    /// The user does not know it.
    Stranger,
    /// The user has sent to it, accepted something of it, or trusted it.
    Chosen,
    /// Chosen, and an offer of files went through.
    Contact,
}

impl Standing {
    pub(crate) const fn of(acquaintance: Acquaintance, is_blocked: bool) -> Self {
        match acquaintance {
            _ if is_blocked => Self::Blocked,
            Acquaintance::Revoked => Self::Revoked,
            Acquaintance::KeyChanged { .. } => Self::Changed,
            Acquaintance::New => Self::Stranger,
            Acquaintance::Known { contact: false } => Self::Chosen,
            Acquaintance::Known { contact: true } => Self::Contact,
        }
    }

    /// Whether it is kept out whatever it shows.
    pub(crate) const fn is_barred(self) -> bool {
        matches!(self, Self::Blocked | Self::Revoked | Self::Changed)
    }

    /// Whether the user has chosen this key once.
    pub(crate) const fn is_chosen(self) -> bool {
        matches!(self, Self::Chosen | Self::Contact)
    }
}

/// What said yes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Yes {
    /// The user, about this offer. The key is pinned.
    User,
    /// The settings, about everybody or all contacts. Nothing is pinned.
    Standing,
}

impl Yes {
    /// Whether the key that it is said to is pinned under its name.
    pub(crate) const fn pins(self) -> bool {
        matches!(self, Self::User)
    }
}

/// What to do with an offer or a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Take it: there is a yes already.
    Take,
    /// Ask the user.
    Ask,
    /// Decline it without asking.
    Refuse,
}

/// What to do with an invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Invited {
    /// It is answered, on such paths.
    Answer(PathPolicy),
    /// It is not; the inviter hears why.
    Refuse(RefuseReason),
}

/// What the user has said for all cases.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    accept: AcceptPolicy,
    unasked_bytes_max: Option<u64>,
    strangers: Strangers,
    path: PathPolicy,
}

impl Policy {
    pub(crate) const fn of(settings: &Settings) -> Self {
        Self {
            accept: settings.accept,
            unasked_bytes_max: settings.unasked_bytes_max,
            strangers: settings.strangers,
            path: settings.path,
        }
    }

    /// Files of so many bytes are offered, or a stream, of which nobody knows how many it
    /// has.
    pub(crate) fn offer(&self, standing: Standing, bytes: Option<u64>) -> Answer {
        let is_trusted = match (standing, self.accept) {
            (Standing::Blocked | Standing::Revoked, _) => return Answer::Refuse,
            (Standing::Changed, _) | (_, AcceptPolicy::Ask) => false,
            (_, AcceptPolicy::All) => true,
            (standing, AcceptPolicy::Contacts) => standing == Standing::Contact,
        };
        let is_within = |max| bytes.is_some_and(|bytes| bytes <= max);
        match is_trusted && self.unasked_bytes_max.is_none_or(is_within) {
            true => Answer::Take,
            false => Answer::Ask,
        }
    }

    /// Words come. Those of a stranger are an offer.
    pub(crate) fn words(&self, standing: Standing) -> Answer {
        match standing {
            Standing::Blocked | Standing::Revoked => Answer::Refuse,
            Standing::Chosen | Standing::Contact => Answer::Take,
            Standing::Stranger if self.accept == AcceptPolicy::All => Answer::Take,
            Standing::Stranger | Standing::Changed => Answer::Ask,
        }
    }

    /// A peer wants to connect through the server. To answer on a direct path tells
    /// it our addresses, for which whom the user has chosen needs no further yes.
    pub(crate) fn invitation(
        &self,
        standing: Standing,
        has_relay: bool,
        is_allowed: bool,
    ) -> Invited {
        match standing {
            Standing::Blocked => return Invited::Refuse(RefuseReason::Unavailable),
            Standing::Revoked | Standing::Changed => {
                return Invited::Refuse(RefuseReason::KeyMismatch);
            }
            Standing::Chosen | Standing::Contact => return Invited::Answer(self.path),
            Standing::Stranger if is_allowed => return Invited::Answer(self.path),
            Standing::Stranger => {}
        }
        let can_relay = has_relay && self.path != PathPolicy::DirectOnly;
        match (self.strangers, self.accept) {
            (Strangers::Ask, _) => Invited::Refuse(RefuseReason::NeedsPermission),
            (Strangers::Direct, _) | (Strangers::Relay, AcceptPolicy::All) => {
                Invited::Answer(self.path)
            }
            (Strangers::Relay, _) if can_relay => Invited::Answer(PathPolicy::RelayOnly),
            (Strangers::Relay, _) => Invited::Refuse(RefuseReason::NeedsPermission),
        }
    }
}

/// Whether an offer is what was accepted: of the same key, with the same paths and
/// sizes. The digests are the store's to compare: it settles each file once.
pub(crate) fn is_accepted(
    accepted: (PeerKey, &Manifest),
    (peer, offer): (PeerKey, &Manifest),
) -> bool {
    accepted.0 == peer && offer::is_same(accepted.1, offer)
}

/// What was received completely a short while ago. Its sender may not know that.
#[derive(Debug, Default)]
pub(crate) struct Deliveries(Vec<(Delivery, Instant)>);

/// What identifies a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// The sender.
    pub(crate) peer: PeerKey,
    /// Which files and folders: [`Manifest::listing`].
    pub(crate) listing: Digest,
    /// The digest of their content.
    pub(crate) content: Digest,
}

impl Deliveries {
    /// Notes one, for [`DELIVERY_REMEMBERED`].
    pub(crate) fn add(&mut self, delivery: Delivery, now: Instant) {
        self.forget_old(now);
        let is_of_peer = |(it, _): &(Delivery, Instant)| it.peer == delivery.peer;
        let of_peer = self.0.iter().filter(|it| is_of_peer(it)).count();
        if of_peer >= DELIVERIES_OF_ONE_MAX
            && let Some(oldest) = self.0.iter().position(is_of_peer)
        {
            self.0.remove(oldest);
        }
        if self.0.len() >= DELIVERIES_MAX {
            self.0.remove(0);
        }
        self.0.push((delivery, now + DELIVERY_REMEMBERED));
    }

    /// Whether this very thing was delivered: by the same key, the same paths and
    /// sizes, with the same content. To ask does not make it last.
    pub(crate) fn has(&self, delivery: Delivery, now: Instant) -> bool {
        let mut all = self.0.iter();
        all.any(|&(it, forget_at)| it == delivery && now < forget_at)
    }

    fn forget_old(&mut self, now: Instant) {
        self.0.retain(|&(_, forget_at)| now < forget_at);
    }
}

#[cfg(test)]
mod tests;
