//! Keys that the user has chosen or blocked, kept in `contacts.json` of the profile.
//!
//! Trust on first use: the first key that the user sends to, accepts something of,
//! or trusts under a name is pinned, and another one is refused until the user
//! decides. Nobody is pinned for having come by. Names mean something only on their
//! server, so a pin is `(server, name, key)`.
//!
//! Nearby, without a server, a name is what its holder says. There every pin
//! counts: whoever is known from anywhere is known, and whoever takes the name
//! of somebody known from anywhere is refused.

use std::collections::{BTreeMap, BTreeSet};

use pinhole_net::{PeerIdentity, PeerKey, PeerName, ServerAddress};
use serde::{Deserialize, Serialize};

/// Most peers that are pinned, and most that are blocked.
const PEERS_MAX: usize = 10_000;
/// Since this format, only the user's choice pins a peer.
const FORMAT: u32 = 1;

/// Every server met before, and every peer that the user has chosen or blocked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Contacts {
    /// The key met at each `host:port`.
    servers: BTreeMap<String, PeerKey>,
    /// Peers by the server's key, then by name.
    peers: BTreeMap<PeerKey, BTreeMap<PeerName, Pin>>,
    /// Peers met nearby.
    nearby: BTreeMap<PeerName, Pin>,
    /// Blocked keys, with the names they had.
    blocked: BTreeMap<PeerKey, PeerName>,
    /// Pinned keys that were revoked.
    revoked: BTreeSet<PeerKey>,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(default)]
    format: u32,
    #[serde(default)]
    servers: BTreeMap<String, PeerKey>,
    #[serde(default)]
    peers: BTreeMap<PeerKey, BTreeMap<PeerName, Pin>>,
    #[serde(default)]
    nearby: BTreeMap<PeerName, Pin>,
    #[serde(default)]
    blocked: BTreeMap<PeerKey, PeerName>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    revoked: BTreeSet<PeerKey>,
}

impl From<Stored> for Contacts {
    fn from(stored: Stored) -> Self {
        let mut contacts = Self {
            servers: stored.servers,
            peers: stored.peers,
            nearby: stored.nearby,
            blocked: stored.blocked,
            revoked: stored.revoked,
        };
        // That format pinned every peer that connected.
        if stored.format < FORMAT {
            contacts.retain(|_, pin| pin.contact);
        }
        contacts
    }
}

impl From<Contacts> for Stored {
    fn from(contacts: Contacts) -> Self {
        Self {
            format: FORMAT,
            servers: contacts.servers,
            peers: contacts.peers,
            nearby: contacts.nearby,
            blocked: contacts.blocked,
            revoked: contacts.revoked,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Pin {
    key: PeerKey,
    /// An offer of files went through between us.
    contact: bool,
}

/// What is known of a peer's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acquaintance {
    /// No key is pinned under this name on this server.
    New,
    /// This very key is.
    Known {
        /// An offer went through between us.
        contact: bool,
    },
    /// Another one is.
    KeyChanged {
        /// That one.
        pinned: PeerKey,
    },
    /// This very key is, and it was revoked.
    Revoked,
}

impl Contacts {
    /// The key met at this server's address before.
    #[must_use]
    pub fn server_key(&self, server: &ServerAddress) -> Option<PeerKey> {
        self.servers.get(&server.host_port()).copied()
    }

    /// Pins the key of a server. Returns whether anything changed.
    pub fn pin_server(&mut self, server: &ServerAddress, key: PeerKey) -> bool {
        self.servers.insert(server.host_port(), key) != Some(key)
    }

    /// What is known of this peer on this server.
    #[must_use]
    pub fn acquaintance(&self, server: PeerKey, peer: &PeerIdentity) -> Acquaintance {
        match self
            .peers
            .get(&server)
            .and_then(|names| names.get(&peer.name))
        {
            None => Acquaintance::New,
            Some(pin) if pin.key == peer.key => self.with_key(pin.key, pin.contact),
            Some(pin) => Acquaintance::KeyChanged { pinned: pin.key },
        }
    }

    /// The peers on this server between whom and us an offer went through.
    pub fn of_server(&self, server: PeerKey) -> impl Iterator<Item = PeerIdentity> {
        let names = self.peers.get(&server).into_iter().flatten();
        names
            .filter(|(_, pin)| pin.contact)
            .map(|(name, pin)| PeerIdentity {
                name: name.clone(),
                key: pin.key,
            })
    }

    /// The keys of everybody whom the user has chosen.
    pub fn keys(&self) -> impl Iterator<Item = PeerKey> {
        let names = self.peers.values().chain(std::iter::once(&self.nearby));
        names.flat_map(BTreeMap::values).map(|pin| pin.key)
    }

    /// Pins a peer that the user has chosen for the first time. Never replaces a
    /// pin. Returns whether anything changed: not where 10,000 are pinned.
    pub fn meet(&mut self, server: PeerKey, peer: &PeerIdentity) -> bool {
        if self.acquaintance(server, peer) != Acquaintance::New || self.is_full() {
            return false;
        }
        self.replace(server, peer);
        true
    }

    /// Pins a peer's new key because the user said so.
    pub fn replace(&mut self, server: PeerKey, peer: &PeerIdentity) {
        let pin = Pin {
            key: peer.key,
            contact: false,
        };
        self.peers
            .entry(server)
            .or_default()
            .insert(peer.name.clone(), pin);
    }

    /// Notes that an offer went through between us and a pinned peer. Returns
    /// whether anything changed.
    pub fn mark_contact(&mut self, server: PeerKey, peer: &PeerIdentity) -> bool {
        let pin = self
            .peers
            .get_mut(&server)
            .and_then(|names| names.get_mut(&peer.name));
        match pin {
            Some(pin) if pin.key == peer.key && !pin.contact => {
                pin.contact = true;
                true
            }
            _ => false,
        }
    }

    /// What is known of this peer where no server vouches for its name.
    #[must_use]
    pub fn acquaintance_nearby(&self, peer: &PeerIdentity) -> Acquaintance {
        let pins = || {
            let on_servers = self.peers.values();
            let all = on_servers.chain(std::iter::once(&self.nearby));
            all.filter_map(|names| names.get(&peer.name))
        };
        let same = |pin: &&Pin| pin.key == peer.key;
        match (pins().find(same), pins().next()) {
            (Some(pin), _) => {
                let is_contact = pins().filter(same).any(|pin| pin.contact);
                self.with_key(pin.key, is_contact)
            }
            (None, Some(other)) => Acquaintance::KeyChanged { pinned: other.key },
            (None, None) => Acquaintance::New,
        }
    }

    fn with_key(&self, key: PeerKey, contact: bool) -> Acquaintance {
        match self.revoked.contains(&key) {
            true => Acquaintance::Revoked,
            false => Acquaintance::Known { contact },
        }
    }

    /// Whether this key is pinned anywhere.
    #[must_use]
    pub fn has(&self, key: PeerKey) -> bool {
        self.keys().any(|pinned| pinned == key)
    }

    /// Notes that a pinned key was revoked. Returns whether anything changed.
    pub fn revoke(&mut self, key: PeerKey) -> bool {
        self.has(key) && self.revoked.insert(key)
    }

    /// Another key has taken the place of this one, wherever it is pinned or blocked, as
    /// both have signed. Returns the names under which it was pinned.
    pub fn succeed(&mut self, former: PeerKey, successor: PeerKey) -> BTreeSet<PeerName> {
        let everywhere = self.peers.values_mut();
        let everywhere = everywhere.chain(std::iter::once(&mut self.nearby));
        let mut names = BTreeSet::new();
        for (name, pin) in everywhere.flatten() {
            if pin.key == former {
                pin.key = successor;
                names.insert(name.clone());
            }
        }
        if let Some(name) = self.blocked.get(&former).cloned() {
            if self.blocked.len() >= PEERS_MAX {
                self.blocked.remove(&former);
            }
            self.blocked.insert(successor, name);
        }
        self.revoked.remove(&former);
        names
    }

    /// Whether any server has ever said that this key has this name.
    #[must_use]
    pub fn is_vouched_for(&self, peer: &PeerIdentity) -> bool {
        let mut pins = self
            .peers
            .values()
            .filter_map(|names| names.get(&peer.name));
        pins.any(|pin| pin.key == peer.key)
    }

    /// As `meet`, for a peer nearby.
    pub fn meet_nearby(&mut self, peer: &PeerIdentity) -> bool {
        if self.acquaintance_nearby(peer) != Acquaintance::New || self.is_full() {
            return false;
        }
        self.replace_nearby(peer);
        true
    }

    /// As `replace`, for a peer nearby.
    pub fn replace_nearby(&mut self, peer: &PeerIdentity) {
        let pin = Pin {
            key: peer.key,
            contact: false,
        };
        self.nearby.insert(peer.name.clone(), pin);
    }

    /// As `mark_contact`, for a peer nearby.
    pub fn mark_contact_nearby(&mut self, peer: &PeerIdentity) -> bool {
        let all = self
            .peers
            .values_mut()
            .chain(std::iter::once(&mut self.nearby));
        let mut is_news = false;
        for pin in all.filter_map(|names| names.get_mut(&peer.name)) {
            if pin.key == peer.key {
                is_news |= !pin.contact;
                pin.contact = true;
            }
        }
        is_news
    }

    /// Removes every pin of this key. Returns whether there was one.
    pub fn forget(&mut self, key: PeerKey) -> bool {
        let before = self.pins();
        self.retain(|_, pin| pin.key != key);
        self.pins() < before
    }

    /// Removes the pin of this key under this name on one server. Returns whether there
    /// was one.
    pub fn forget_at(&mut self, server: PeerKey, peer: &PeerIdentity) -> bool {
        let before = self.pins();
        if let Some(names) = self.peers.get_mut(&server) {
            names.retain(|name, pin| (name, pin.key) != (&peer.name, peer.key));
        }
        self.retain(|_, _| true);
        self.pins() < before
    }

    /// Blocks this key. Returns whether anything
    /// changed: not where 10,000 are blocked.
    pub fn block(&mut self, peer: &PeerIdentity) -> bool {
        let has_room = self.blocked.len() < PEERS_MAX;
        let is_news = has_room && !self.is_blocked(peer.key);
        if is_news {
            self.blocked.insert(peer.key, peer.name.clone());
        }
        is_news
    }

    /// Takes [`Contacts::block`] back. Returns whether anything changed.
    pub fn unblock(&mut self, key: PeerKey) -> bool {
        self.blocked.remove(&key).is_some()
    }

    /// Whether this key is blocked.
    #[must_use]
    pub fn is_blocked(&self, key: PeerKey) -> bool {
        self.blocked.contains_key(&key)
    }

    /// Who is blocked, ordered by name.
    #[must_use]
    pub fn blocked(&self) -> Vec<PeerIdentity> {
        let all = self.blocked.iter().map(|(&key, name)| PeerIdentity {
            name: name.clone(),
            key,
        });
        let mut all: Vec<_> = all.collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// Who is pinned, on any server or nearby, ordered by name; each name and key once.
    #[must_use]
    pub fn pinned(&self) -> Vec<PeerIdentity> {
        let everywhere = self.peers.values().chain(std::iter::once(&self.nearby));
        let all = everywhere.flatten().map(|(name, pin)| PeerIdentity {
            name: name.clone(),
            key: pin.key,
        });
        let mut all: Vec<_> = all.collect();
        all.sort_by(|one, other| (&one.name, one.key).cmp(&(&other.name, other.key)));
        all.dedup();
        all
    }

    fn is_full(&self) -> bool {
        self.pins() >= PEERS_MAX
    }

    fn pins(&self) -> usize {
        let on_servers: usize = self.peers.values().map(BTreeMap::len).sum();
        on_servers + self.nearby.len()
    }

    fn retain(&mut self, keep: impl Fn(&PeerName, &Pin) -> bool) {
        for names in self.peers.values_mut() {
            names.retain(|name, pin| keep(name, pin));
        }
        self.peers.retain(|_, names| !names.is_empty());
        self.nearby.retain(|name, pin| keep(name, pin));
        let pinned: BTreeSet<_> = self.keys().collect();
        self.revoked.retain(|key| pinned.contains(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str, key: u8) -> PeerIdentity {
        PeerIdentity {
            name: name.parse().unwrap(),
            key: PeerKey::from_bytes([key; 32]),
        }
    }

    #[test]
    fn the_first_key_stays_until_the_user_decides() {
        let server = PeerKey::from_bytes([9; 32]);
        let (bob, impostor) = (peer("bob", 1), peer("bob", 2));
        let mut contacts = Contacts::default();
        assert_eq!(contacts.acquaintance(server, &bob), Acquaintance::New);
        assert!(contacts.meet(server, &bob));
        assert!(!contacts.meet(server, &impostor));
        assert!(!contacts.mark_contact(server, &impostor));
        assert_eq!(
            contacts.acquaintance(server, &impostor),
            Acquaintance::KeyChanged { pinned: bob.key }
        );
        assert!(contacts.mark_contact(server, &bob));
        assert_eq!(
            contacts.acquaintance(server, &bob),
            Acquaintance::Known { contact: true }
        );
        contacts.replace(server, &impostor);
        assert_eq!(
            contacts.acquaintance(server, &impostor),
            Acquaintance::Known { contact: false },
            "a new key does not inherit the old one's trust"
        );
    }

    #[test]
    fn nearby_every_pin_counts() {
        let server = PeerKey::from_bytes([9; 32]);
        let (bob, impostor) = (peer("bob", 1), peer("bob", 2));
        let mut contacts = Contacts::default();
        assert_eq!(contacts.acquaintance_nearby(&bob), Acquaintance::New);
        assert!(contacts.meet(server, &bob));
        assert!(contacts.mark_contact(server, &bob));
        assert_eq!(
            contacts.acquaintance_nearby(&bob),
            Acquaintance::Known { contact: true }
        );
        assert_eq!(
            contacts.acquaintance_nearby(&impostor),
            Acquaintance::KeyChanged { pinned: bob.key }
        );
        assert!(!contacts.meet_nearby(&impostor));
        assert!(contacts.is_vouched_for(&bob) && !contacts.is_vouched_for(&impostor));

        let carol = peer("carol", 3);
        assert!(contacts.meet_nearby(&carol));
        assert!(contacts.mark_contact_nearby(&carol) && !contacts.mark_contact_nearby(&carol));
        assert_eq!(
            contacts.acquaintance(server, &carol),
            Acquaintance::New,
            "what was met nearby says nothing of a server's names"
        );
        assert!(!contacts.is_vouched_for(&carol));

        contacts.replace_nearby(&impostor);
        assert_eq!(
            contacts.acquaintance_nearby(&impostor),
            Acquaintance::Known { contact: false }
        );
        assert_eq!(
            contacts.acquaintance(server, &impostor),
            Acquaintance::KeyChanged { pinned: bob.key },
            "nor does a decision made there"
        );
    }

    #[test]
    fn what_came_by_before_the_user_chose_is_no_pin() {
        let (bob, visitor) = (peer("bob", 1), peer("carol", 2));
        let (server, pin) = (
            PeerKey::from_bytes([9; 32]),
            |peer: &PeerIdentity, contact| {
                let pin = serde_json::json!({ "key": peer.key, "contact": contact });
                serde_json::json!({ peer.name.as_str(): pin })
            },
        );
        let old = serde_json::json!({
            "peers": { server.to_string(): pin(&bob, true) },
            "nearby": pin(&visitor, false),
        });
        let contacts: Contacts = serde_json::from_value(old).unwrap();
        let known = Acquaintance::Known { contact: true };
        assert_eq!(contacts.acquaintance(server, &bob), known);
        let carol = peer("carol", 3);
        assert_eq!(contacts.acquaintance_nearby(&carol), Acquaintance::New);

        let mut chosen = Contacts::default();
        assert!(chosen.meet(server, &carol) && chosen.block(&visitor));
        let stored = serde_json::to_value(&chosen).unwrap();
        assert_eq!(serde_json::from_value::<Contacts>(stored).unwrap(), chosen);
    }

    #[test]
    fn a_successor_takes_every_place_of_the_former_key() {
        let (here, there) = (PeerKey::from_bytes([8; 32]), PeerKey::from_bytes([9; 32]));
        let (bob, next) = (peer("bob", 1), peer("bob", 2));
        let mut contacts = Contacts::default();
        assert!(contacts.meet(here, &bob) && contacts.mark_contact(here, &bob));
        assert!(contacts.meet(there, &peer("robert", 1)));
        assert!(contacts.revoke(bob.key) && !contacts.revoke(bob.key));
        assert!(!contacts.revoke(next.key), "it is not pinned");
        assert_eq!(contacts.acquaintance(here, &bob), Acquaintance::Revoked);
        assert_eq!(contacts.acquaintance_nearby(&bob), Acquaintance::Revoked);
        let stored = serde_json::to_value(&contacts).unwrap();
        let again = serde_json::from_value::<Contacts>(stored).unwrap();
        assert_eq!(again, contacts);
        assert!(contacts.block(&bob));
        let names = contacts.succeed(bob.key, next.key);
        let names: Vec<_> = names.iter().map(PeerName::as_str).collect();
        assert_eq!(names, ["bob", "robert"]);
        let known = Acquaintance::Known { contact: true };
        assert_eq!(contacts.acquaintance(here, &next), known);
        assert!(contacts.is_blocked(next.key), "a new key lifts no block");
        assert!(!contacts.has(bob.key) && contacts.succeed(bob.key, here).is_empty());
    }

    #[test]
    fn whoever_is_forgotten_is_new_everywhere() {
        let (here, there) = (PeerKey::from_bytes([8; 32]), PeerKey::from_bytes([9; 32]));
        let (bob, carol) = (peer("bob", 1), peer("carol", 2));
        let mut contacts = Contacts::default();
        assert!(contacts.meet(here, &bob) && contacts.meet_nearby(&carol));
        assert!(contacts.meet(there, &bob) && !contacts.meet_nearby(&bob));
        assert!(contacts.forget(bob.key) && !contacts.forget(bob.key));
        assert_eq!(contacts.acquaintance(here, &bob), Acquaintance::New);
        assert_eq!(contacts.acquaintance_nearby(&bob), Acquaintance::New);
        let known = Acquaintance::Known { contact: false };
        assert_eq!(contacts.acquaintance_nearby(&carol), known);
    }

    #[test]
    fn pins_and_blocks_are_bounded() {
        let mut contacts = Contacts::default();
        let numbered = |number: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            PeerIdentity {
                name: format!("peer{number}").parse().unwrap(),
                key: PeerKey::from_bytes(key),
            }
        };
        for number in 0..PEERS_MAX {
            assert!(contacts.meet_nearby(&numbered(number)));
            assert!(contacts.block(&numbered(number)));
        }
        let more = numbered(PEERS_MAX);
        assert!(!contacts.meet_nearby(&more) && !contacts.block(&more));
        assert!(contacts.is_blocked(numbered(0).key) && !contacts.is_blocked(more.key));
        assert!(contacts.forget(numbered(0).key) && contacts.meet_nearby(&more));
        assert!(contacts.unblock(numbered(0).key) && contacts.block(&more));
    }

    #[test]
    fn a_name_means_something_only_on_its_server() {
        let (here, there) = (PeerKey::from_bytes([8; 32]), PeerKey::from_bytes([9; 32]));
        let mut contacts = Contacts::default();
        contacts.meet(here, &peer("bob", 1));
        assert_eq!(
            contacts.acquaintance(there, &peer("bob", 2)),
            Acquaintance::New
        );
    }
}
