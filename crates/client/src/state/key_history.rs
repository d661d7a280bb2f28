//! Keys that have changed or were revoked: what the server says of them, and how much of
//! that is believed.
//!
//! Whoever comes with another key than the one pinned is in doubt until the server has
//! said what became of the pinned key. A pin moves along signed changes and for no other
//! reason.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use pinhole_net::{Fingerprint, KeyHistory, PeerIdentity, PeerKey, PeerName, Presence};
use tracing::info;

use super::State;
use super::effect::{Effect, LoginEffect};
use crate::event::Event;
use crate::failure::Failure;
use crate::store::Acquaintance;

/// What the server has been asked of keys, and has said, since the login.
#[derive(Debug, Default)]
pub(super) struct KeyDoubts {
    /// With which key somebody has come under a name, while the server is asked about the
    /// pinned one.
    asked: BTreeMap<PeerName, PeerKey>,
    /// Who has come with a key of which nothing good was said.
    answered: BTreeSet<(PeerName, PeerKey)>,
    /// The names that the server has taken from these keys, because nobody used them.
    released: BTreeSet<(PeerName, PeerKey)>,
}

impl KeyDoubts {
    pub(super) fn is_asked(&self, name: &PeerName) -> bool {
        self.asked.contains_key(name)
    }

    pub(super) fn are_any(&self) -> bool {
        !self.asked.is_empty()
    }
}

impl State {
    /// Keeps back those who come with another key than the one pinned, and asks about it.
    pub(super) fn hold_doubtful(&mut self, presence: &mut Presence) {
        for name in &presence.offline {
            self.doubts.asked.remove(name);
        }
        let online = std::mem::take(&mut presence.online);
        for peer in online {
            if !self.is_in_doubt(&peer) {
                self.doubts.asked.remove(&peer.name);
                presence.online.push(peer);
            } else if self.presence.has(&peer.name) {
                presence.offline.push(peer.name);
            }
        }
    }

    /// Nothing that the server has said counts any more.
    pub(super) fn forget_what_was_told(&mut self) {
        self.presence.clear_server();
        self.doubts = KeyDoubts::default();
    }

    /// Somebody wants to connect. Returns whether that has to wait until the server has
    /// said what became of the key pinned under this name.
    pub(crate) fn handle_doubtful(&mut self, peer: &PeerIdentity, now: Instant) -> bool {
        self.now = now;
        self.is_in_doubt(peer)
    }

    /// Whether the server has yet to say what became of the key that is pinned for this
    /// peer. It is asked if it was not.
    fn is_in_doubt(&mut self, peer: &PeerIdentity) -> bool {
        let Some(server) = self.login.server_key() else {
            return false;
        };
        let Acquaintance::KeyChanged { pinned } = self.contacts.acquaintance(server, peer) else {
            return false;
        };
        let come = (peer.name.clone(), peer.key);
        if self.doubts.answered.contains(&come) {
            return false;
        }
        if self.doubts.asked.insert(come.0, come.1).is_none() {
            self.ask_history(&peer.name, pinned);
        }
        true
    }

    fn ask_history(&mut self, name: &PeerName, key: PeerKey) {
        let known = PeerIdentity {
            name: name.clone(),
            key,
        };
        self.effect(Effect::Login(LoginEffect::AskHistory(known)));
    }

    /// The server says what has become of a key.
    pub(super) fn history_told(&mut self, history: &KeyHistory) {
        if self.contacts.has(history.key) {
            self.believe(history);
        }
        let Some(key) = self.doubts.asked.remove(&history.name) else {
            return;
        };
        let name = history.name.clone();
        let peer = PeerIdentity { name, key };
        // A long chain is told in parts, of which each moves the pin.
        if self.pinned_key(&peer) == Some(history.key) {
            self.doubts.answered.insert((peer.name.clone(), key));
        }
        if !self.is_in_doubt(&peer) {
            self.presence.came(peer);
        }
        self.send_queued();
        self.announce_login();
    }

    /// The key that is pinned under this peer's name, if it is another one.
    fn pinned_key(&self, peer: &PeerIdentity) -> Option<PeerKey> {
        let server = self.login.server_key()?;
        match self.contacts.acquaintance(server, peer) {
            Acquaintance::KeyChanged { pinned } => Some(pinned),
            _ => None,
        }
    }

    /// Does what is signed in it.
    fn believe(&mut self, history: &KeyHistory) {
        let KeyHistory { name, key, .. } = history;
        if history.released_at_s.is_some() {
            self.doubts.released.insert((name.clone(), *key));
        }
        if history.is_revoked() && self.contacts.revoke(*key) {
            info!(peer = %name, "the key was revoked");
            self.cut_off(*key, "its key was revoked");
            self.store_contacts();
            let peer = PeerIdentity {
                name: name.clone(),
                key: *key,
            };
            self.emit(Event::KeyRevoked { peer });
        }
        let present = history.present_key();
        if present == *key {
            return;
        }
        let names = self.contacts.succeed(*key, present);
        self.cut_off(*key, "another key has taken its place");
        self.move_queued(*key, present);
        self.store_contacts();
        for name in names {
            info!(peer = %name, "a signed change of the key");
            let (peer, was) = (PeerIdentity { name, key: present }, key.fingerprint());
            self.emit(Event::KeySucceeded { peer, was });
        }
    }

    /// Why nothing is sent to this peer, if its key is the reason.
    pub(super) fn key_failure(&self, peer: &PeerIdentity) -> Option<Failure> {
        match self.acquaintance(peer) {
            Acquaintance::KeyChanged { pinned } => {
                let (peer, known, now) = (
                    peer.name.clone(),
                    pinned.fingerprint(),
                    peer.key.fingerprint(),
                );
                Some(match self.is_released_from(&peer, pinned) {
                    true => Failure::NameReleased { peer, known, now },
                    false => Failure::PeerKeyChanged { peer, known, now },
                })
            }
            Acquaintance::Revoked => {
                let peer = peer.name.clone();
                Some(Failure::PeerKeyRevoked { peer })
            }
            Acquaintance::New | Acquaintance::Known { .. } => None,
        }
    }

    /// Whether the server says that the name was taken from this key because nobody used
    /// it.
    pub(super) fn is_released_from(&self, name: &PeerName, key: PeerKey) -> bool {
        self.doubts.released.contains(&(name.clone(), key))
    }

    /// Somebody with another key than the one pinned was refused.
    pub(super) fn tell_key_refused(&mut self, peer: PeerIdentity, pinned: PeerKey) {
        let known: Fingerprint = pinned.fingerprint();
        let released = self.is_released_from(&peer.name, pinned);
        self.emit(Event::KeyRefused {
            peer,
            known,
            released,
        });
    }
}
