//! What the user says about keys: who may connect, who is blocked, who is forgotten.

use std::collections::{HashMap, VecDeque};

use pinhole_net::{PeerIdentity, PeerKey};
use pinhole_transfer::DeclineReason;
use tokio::time::Instant;

use super::Engine;
use super::sessions::{PeerSession, SessionId};
use crate::consent::{ALLOWED_FOR, Policy, Standing, Yes};
use crate::event::Event;
use crate::failure::Failure;
use crate::settings::Strangers;
use crate::snapshot::{Direction, Stage, TransferId};

/// Strangers that have asked to connect and are shown; one more takes the place of
/// the first.
const ASKING_MAX: usize = 64;

/// Strangers that want to connect, and those that may.
#[derive(Debug, Default)]
pub(super) struct Permissions {
    asking: VecDeque<PeerIdentity>,
    /// Until when.
    allowed: HashMap<PeerKey, Instant>,
}

impl Permissions {
    /// Who has asked, the oldest first.
    pub(super) fn asking(&self) -> Vec<PeerIdentity> {
        self.asking.iter().cloned().collect()
    }

    pub(super) fn is_allowed(&self, key: PeerKey, now: Instant) -> bool {
        self.allowed.get(&key).is_some_and(|&until| now < until)
    }

    /// A stranger has asked. Returns whether that is news.
    fn ask(&mut self, peer: &PeerIdentity) -> bool {
        if self.asking.contains(peer) {
            return false;
        }
        while self.asking.len() >= ASKING_MAX {
            self.asking.pop_front();
        }
        self.asking.push_back(peer.clone());
        true
    }

    fn allow(&mut self, key: PeerKey, now: Instant) {
        self.allowed.retain(|_, until| *until > now);
        self.allowed.insert(key, now + ALLOWED_FOR);
        self.take_off(key);
    }

    fn take_off(&mut self, key: PeerKey) {
        self.asking.retain(|peer| peer.key != key);
    }
}

impl Engine {
    pub(super) fn consent(&self) -> Policy {
        Policy::of(&self.in_force())
    }

    /// What the user has to do with this key.
    pub(super) fn standing(&self, peer: &PeerIdentity) -> Standing {
        Standing::of(self.acquaintance(peer), self.contacts.is_blocked(peer.key))
    }

    /// As [`Engine::standing`], of the peer of a session: that the server named it
    /// stays true when it has left the server since.
    pub(super) fn standing_on(&self, session: &PeerSession) -> Standing {
        let acquaintance = match session.server {
            Some(server) => self.contacts.acquaintance(server, &session.peer),
            None => self.acquaintance(&session.peer),
        };
        Standing::of(acquaintance, self.contacts.is_blocked(session.peer.key))
    }

    /// There is a yes to a peer: whom the user has looked at is pinned under its name,
    /// and if files go through between the two it is a contact.
    pub(super) async fn note_yes(&mut self, id: TransferId, yes: Yes) {
        let Some(transfer) = self.transfers.get(&id) else {
            return;
        };
        let peer = transfer.peer.clone();
        let session = transfer.carried.as_ref().map(|carried| carried.session);
        let session = session.and_then(|session| self.sessions.get(&session));
        let server = match session {
            Some(session) => session.server,
            None => self.server_of(&peer),
        };
        let brings_files = !transfer.is_text && transfer.accepted_at.is_some();
        let contacts = &mut self.contacts;
        let is_pinned = yes.pins()
            && match server {
                Some(server) => contacts.meet(server, &peer),
                None => contacts.meet_nearby(&peer),
            };
        let is_contact = brings_files
            && match server {
                Some(server) => contacts.mark_contact(server, &peer),
                None => contacts.befriend_nearby(&peer),
            };
        if is_pinned || is_contact {
            self.permissions.take_off(peer.key);
            self.keep_sessions_of(peer.key);
            self.store_contacts().await;
        }
    }

    /// A stranger has to wait for the user.
    pub(super) async fn ask_for_permission(&mut self, peer: PeerIdentity) {
        if self.permissions.ask(&peer) {
            self.publish();
            self.emit(Event::Asked { peer }).await;
        }
    }

    pub(super) fn allow(&mut self, peer: PeerKey) {
        self.permissions.allow(peer, Instant::now());
    }

    pub(super) async fn set_strangers(&mut self, strangers: Strangers) {
        self.settings.strangers = strangers;
        self.overrides.strangers = None;
        self.store_settings().await;
    }

    pub(super) async fn block(&mut self, key: PeerKey) {
        let of_transfers = self.transfers.values().map(|t| &t.peer);
        let (pinned, history) = (self.contacts.pinned(), self.history.entries());
        let met = pinned.iter().chain(history.iter().map(|entry| &entry.peer));
        let mut others = self
            .permissions
            .asking
            .iter()
            .chain(of_transfers)
            .chain(met);
        let known = self.identity_of(key);
        let Some(peer) = known.or_else(|| others.find(|peer| peer.key == key).cloned()) else {
            return;
        };
        if !self.contacts.block(&peer) && !self.contacts.is_blocked(key) {
            let detail = "So many people are blocked that nobody more can be. Unblock some.";
            let failure = Failure::NotPossible {
                detail: detail.to_owned(),
            };
            return self.emit(Event::CommandFailed { failure }).await;
        }
        self.permissions.take_off(key);
        self.permissions.allowed.remove(&key);
        self.decline_where(|transfer_peer, _| transfer_peer.key == key)
            .await;
        let of_peer = |(_, s): &(&SessionId, &PeerSession)| s.peer.key == key;
        let sessions = self.sessions.iter().filter(of_peer);
        let sessions: Vec<_> = sessions.map(|(id, _)| *id).collect();
        for session in sessions {
            self.drop_session(session, "it was blocked").await;
        }
        let under_way = self.transfers.iter().filter(|(_, t)| t.peer.key == key);
        let under_way: Vec<_> = under_way.map(|(id, _)| *id).collect();
        for id in under_way {
            self.interrupt(id).await;
        }
        self.store_contacts().await;
    }

    pub(super) async fn unblock(&mut self, peer: PeerKey) {
        if self.contacts.unblock(peer) {
            self.store_contacts().await;
        }
    }

    pub(super) async fn forget(&mut self, peer: PeerKey) {
        if self.contacts.forget(peer) {
            self.store_contacts().await;
        }
    }

    /// Turns down what strangers offer and ask for.
    pub(super) async fn decline_all(&mut self) {
        self.permissions.asking.clear();
        self.decline_where(|_, is_stranger| is_stranger).await;
    }

    /// Turns down what waits for the user, of these peers: each with whether it is a
    /// stranger.
    async fn decline_where(&mut self, is_meant: impl Fn(&PeerIdentity, bool) -> bool) {
        let waiting = self.transfers.iter().filter(|(_, transfer)| {
            transfer.direction == Direction::Receiving
                && matches!(transfer.stage, Stage::AwaitingDecision)
                && is_meant(&transfer.peer, transfer.stranger)
        });
        let waiting: Vec<_> = waiting.map(|(id, _)| *id).collect();
        for id in waiting {
            self.turn_down(id, DeclineReason::Declined).await;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn peer(number: u8) -> PeerIdentity {
        PeerIdentity {
            name: format!("peer{number}").parse().unwrap(),
            key: PeerKey::from_bytes([number; 32]),
        }
    }

    #[test]
    fn who_asks_is_shown_once_and_within_bounds() {
        let mut permissions = Permissions::default();
        assert!(permissions.ask(&peer(0)) && !permissions.ask(&peer(0)));
        for number in 1..=64 {
            assert!(permissions.ask(&peer(number)));
        }
        let expected = Vec::from_iter((1..=64).map(peer));
        assert_eq!(permissions.asking(), expected);
    }

    #[test]
    fn a_permission_is_one_key_s_and_ends() {
        let now = Instant::now();
        let mut permissions = Permissions::default();
        permissions.ask(&peer(1));
        permissions.allow(peer(1).key, now);
        assert_eq!(permissions.asking(), []);
        let is_allowed = |number, at| permissions.is_allowed(peer(number).key, at);
        assert!(is_allowed(1, now) && !is_allowed(2, now));
        assert!(!is_allowed(1, now + ALLOWED_FOR));
    }
}
