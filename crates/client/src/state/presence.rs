//! Who is online, who is nearby, and what is known of them.

use std::collections::BTreeMap;

use pinhole_net::{PeerIdentity, PeerKey, PeerName};

use super::State;
use super::effect::Effect;
use crate::consent::Standing;
use crate::event::Event;
use crate::failure::Failure;
use crate::store::Acquaintance;

/// Who is there, through the server and on this network.
#[derive(Debug, Default)]
pub(super) struct Presence {
    on_server: BTreeMap<PeerName, PeerKey>,
    /// The name that we go by nearby, while people there are looked for.
    own_nearby_name: Option<PeerName>,
    nearby: BTreeMap<PeerKey, PeerName>,
}

impl Presence {
    pub(super) fn online(&self) -> impl Iterator<Item = PeerIdentity> {
        self.on_server.iter().map(|(name, &key)| PeerIdentity {
            name: name.clone(),
            key,
        })
    }

    /// Who is nearby, under the names they give themselves.
    pub(super) fn nearby(&self) -> impl Iterator<Item = PeerIdentity> {
        self.nearby.iter().map(|(&key, name)| PeerIdentity {
            name: name.clone(),
            key,
        })
    }

    /// Whether files can be sent to it now.
    pub(super) fn is_online(&self, peer: &PeerIdentity) -> bool {
        self.is_on_server(peer) || self.is_nearby(peer.key)
    }

    /// Whether the server says that it is online.
    pub(super) fn is_on_server(&self, peer: &PeerIdentity) -> bool {
        self.on_server.get(&peer.name) == Some(&peer.key)
    }

    pub(super) fn is_nearby(&self, key: PeerKey) -> bool {
        self.nearby.contains_key(&key)
    }

    /// Whether people nearby are looked for.
    pub(super) const fn looks_nearby(&self) -> bool {
        self.own_nearby_name.is_some()
    }

    pub(super) const fn nearby_name(&self) -> Option<&PeerName> {
        self.own_nearby_name.as_ref()
    }

    pub(super) fn set_all_on_server(&mut self, peers: Vec<PeerIdentity>) {
        self.on_server = peers.into_iter().map(|p| (p.name, p.key)).collect();
    }

    pub(super) fn add_on_server(&mut self, peer: PeerIdentity) {
        self.on_server.insert(peer.name, peer.key);
    }

    pub(super) fn remove_from_server(&mut self, name: &PeerName) {
        self.on_server.remove(name);
    }

    pub(super) fn clear_server(&mut self) {
        self.on_server.clear();
    }
}

/// Whose key is whose.
impl State {
    /// The peer that is online, of a session, among the contacts, or nearby, with this
    /// key.
    pub(super) fn identity_of(&self, key: PeerKey) -> Option<PeerIdentity> {
        let of_sessions = self.sessions.peers().cloned();
        let online = self.presence.online();
        let known = online.chain(of_sessions).chain(self.contacts_here());
        let mut known = known.chain(self.presence.nearby());
        known.find(|peer| peer.key == key)
    }

    /// The server that vouches for its name, if the one we are logged in to does, or
    /// has.
    pub(super) fn server_of(&self, peer: &PeerIdentity) -> Option<PeerKey> {
        let server = self.login.server_key()?;
        let is_known = || {
            let acquaintance = self.contacts.acquaintance(server, peer);
            matches!(acquaintance, Acquaintance::Known { .. })
        };
        (self.presence.is_on_server(peer) || is_known()).then_some(server)
    }

    /// Contacts whose names are of this server, online or not.
    pub(super) fn contacts_here(&self) -> impl Iterator<Item = PeerIdentity> {
        let server = self.login.server_key();
        server
            .into_iter()
            .flat_map(|server| self.contacts.of_server(server))
    }

    pub(super) fn acquaintance(&self, peer: &PeerIdentity) -> Acquaintance {
        match self.server_of(peer) {
            Some(server) => self.contacts.acquaintance(server, peer),
            None => self.contacts.acquaintance_nearby(peer),
        }
    }

    /// What the user has to do with this key.
    pub(super) fn standing(&self, peer: &PeerIdentity) -> Standing {
        Standing::of(self.acquaintance(peer), self.contacts.is_blocked(peer.key))
    }

    /// Whether nobody but itself says that this is its name.
    pub(super) fn is_only_claimed(&self, peer: &PeerIdentity) -> bool {
        let is_contact = self.acquaintance(peer) == Acquaintance::Known { contact: true };
        !is_contact && !self.presence.is_on_server(peer) && !self.contacts.is_vouched_for(peer)
    }

    /// What a peer has to call itself nearby: nothing in particular if we know whose
    /// key it is.
    pub(super) fn name_to_prove(&self, peer: &PeerIdentity) -> Option<PeerName> {
        let is_known = matches!(self.acquaintance(peer), Acquaintance::Known { .. });
        (!is_known && !self.presence.is_on_server(peer)).then(|| peer.name.clone())
    }
}

/// People on the same network, with or without a server.
impl State {
    /// The user wants to find people nearby.
    pub(super) fn go_nearby(&mut self, name: PeerName, announces: bool, alone: bool) {
        if !self.in_force().allows_nearby() {
            let detail = "People nearby are not looked for: it is switched off, or only the relay may be used, which hides your address.";
            return self.fail_command(Failure::NotPossible {
                detail: detail.to_owned(),
            });
        }
        if alone && self.settings.name.as_ref() != Some(&name) {
            self.settings.name = Some(name.clone());
            self.store_settings();
        }
        self.be_nearby(name, announces);
    }

    /// Looks for people nearby, unless it does already under this name.
    pub(super) fn be_nearby(&mut self, name: PeerName, announces: bool) {
        if self.presence.nearby_name() == Some(&name) {
            return;
        }
        self.leave_nearby();
        self.effect(Effect::StartNearby { name, announces });
    }

    /// Says goodbye to whoever has found us.
    pub(super) fn leave_nearby(&mut self) {
        self.presence.nearby.clear();
        if self.presence.own_nearby_name.take().is_some() {
            self.effect(Effect::LeaveNearby);
        }
    }

    /// People nearby are looked for from now on; with the TCP port at which they reach
    /// us, if they can.
    pub(crate) fn handle_nearby_started(&mut self, name: PeerName, port: Option<u16>) {
        self.presence.own_nearby_name = Some(name.clone());
        self.emit(Event::Nearby { name, port });
    }

    /// These are nearby now.
    pub(crate) fn handle_nearby(&mut self, peers: Vec<PeerIdentity>, now: std::time::Instant) {
        self.now = now;
        let peers = peers.into_iter().map(|peer| (peer.key, peer.name));
        self.presence.nearby = peers.collect();
        self.send_queued();
    }
}
