//! What the user says about keys: who may connect, who is blocked, who is forgotten.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use pinhole_net::{PeerIdentity, PeerKey};
use pinhole_transfer::DeclineReason;

use super::State;
use super::sessions::PeerSession;
use super::transfers::Transfer;
use crate::consent::{ALLOWED_FOR, Standing, Yes};
use crate::event::Event;
use crate::failure::Failure;
use crate::model::TransferId;
use crate::store::Acquaintance;

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

impl State {
    /// As [`State::standing`], for the peer of a session. A name that the server gave it
    /// stays valid after it has left the server.
    pub(super) fn standing_on(&self, session: &PeerSession) -> Standing {
        let acquaintance = match session.server {
            Some(server) => self.contacts.acquaintance(server, &session.peer),
            None => self.acquaintance(&session.peer),
        };
        Standing::of(acquaintance, self.contacts.is_blocked(session.peer.key))
    }

    /// There is a yes to a peer: whom the user has looked at is pinned under its name,
    /// and if files go through between the two it is a contact.
    pub(super) fn note_yes(&mut self, id: TransferId, yes: Yes) {
        let Some(transfer) = self.transfers.get(id) else {
            return;
        };
        let peer = transfer.peer.clone();
        let session = transfer.carrier().map(|carrier| carrier.session);
        let session = session.and_then(|session| self.sessions.get(session));
        let server = match session {
            Some(session) => session.server,
            None => self.server_of(&peer),
        };
        let brings_files = !transfer.is_text() && transfer.is_begun();
        let contacts = &mut self.contacts;
        let is_pinned = yes.pins()
            && match server {
                Some(server) => contacts.meet(server, &peer),
                None => contacts.meet_nearby(&peer),
            };
        let is_contact = brings_files
            && match server {
                Some(server) => contacts.mark_contact(server, &peer),
                None => contacts.mark_contact_nearby(&peer),
            };
        if is_pinned || is_contact {
            self.permissions.take_off(peer.key);
            self.keep_sessions_of(peer.key);
            self.store_contacts();
        }
    }

    /// A stranger has to wait for the user.
    pub(super) fn ask_for_permission(&mut self, peer: PeerIdentity) {
        if self.permissions.ask(&peer) {
            self.emit(Event::Asked { peer });
        }
    }

    pub(super) fn allow(&mut self, peer: PeerKey) {
        self.permissions.allow(peer, self.now);
    }

    pub(super) fn trust_new_key(&mut self, peer: PeerKey) {
        let Some(identity) = self.identity_of(peer) else {
            return;
        };
        if let Acquaintance::Known { .. } | Acquaintance::Revoked = self.acquaintance(&identity) {
            return;
        }
        match self.server_of(&identity) {
            Some(server) => self.contacts.replace(server, &identity),
            None => self.contacts.replace_nearby(&identity),
        }
        self.store_contacts();
    }

    /// Blocks a key. `met` is whose it was when it was met last, for one that is
    /// nowhere to be seen now.
    pub(crate) fn handle_block(&mut self, key: PeerKey, met: Option<PeerIdentity>, now: Instant) {
        self.now = now;
        self.block(key, met);
    }

    pub(super) fn block(&mut self, key: PeerKey, met: Option<PeerIdentity>) {
        let Some(peer) = self.identity_met(key).or(met) else {
            return;
        };
        if !self.contacts.block(&peer) && !self.contacts.is_blocked(key) {
            let detail = "So many people are blocked that nobody more can be. Unblock some.";
            return self.fail_command(Failure::NotPossible {
                detail: detail.to_owned(),
            });
        }
        self.cut_off(key, "it was blocked");
        for id in self.transfers.ids(|t| t.peer.key == key) {
            self.interrupt(id);
        }
        self.store_contacts();
    }

    /// Ends everything that is under way with a key, and takes its permissions.
    pub(super) fn cut_off(&mut self, key: PeerKey, why: &str) {
        self.permissions.take_off(key);
        self.permissions.allowed.remove(&key);
        self.decline_where(|of, _| of.key == key);
        let sessions: Vec<_> = self.sessions.with(key).collect();
        for session in sessions {
            self.drop_session(session, why);
        }
    }

    /// Anybody with this key who is there, has asked or offered something, or is pinned.
    fn identity_met(&self, key: PeerKey) -> Option<PeerIdentity> {
        let of_transfers = self.transfers.values().map(|t| &t.peer);
        let asking = self.permissions.asking.iter();
        let mut others = asking.chain(of_transfers).chain(self.pinned.iter());
        let here = self.identity_of(key);
        here.or_else(|| others.find(|peer| peer.key == key).cloned())
    }

    pub(super) fn unblock(&mut self, peer: PeerKey) {
        if self.contacts.unblock(peer) {
            self.store_contacts();
        }
    }

    pub(super) fn forget(&mut self, peer: PeerKey) {
        if self.contacts.forget(peer) {
            self.store_contacts();
        }
    }

    /// Turns down what strangers offer and ask for.
    pub(super) fn decline_all(&mut self) {
        self.permissions.asking.clear();
        self.decline_where(|_, is_stranger| is_stranger);
    }

    /// Turns down what waits for the user, of these peers: each with whether it is a
    /// stranger.
    fn decline_where(&mut self, is_meant: impl Fn(&PeerIdentity, bool) -> bool) {
        let waits = |t: &Transfer| t.awaits_decision() && is_meant(&t.peer, t.is_of_stranger());
        for id in self.transfers.ids(waits) {
            self.turn_down(id, DeclineReason::Declined);
        }
    }
}

#[cfg(test)]
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
