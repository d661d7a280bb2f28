//! Who is online, who is nearby, and what is known of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pinhole_net::{Directory, PeerIdentity, PeerKey, PeerName, WATCHED_NAMES};

use super::State;
use super::effect::{Effect, LoginEffect};
use super::key_history::KeyDoubts;
use crate::consent::Standing;
use crate::event::Event;
use crate::failure::Failure;
use crate::snapshot::{LookUpState, LookedUp};
use crate::store::Acquaintance;

/// Names that the user has looked up, and people that have invited us: one more takes
/// the place of the first.
const FOLLOWED_MAX: usize = 64;

/// Who is there, through the server and on this network.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// Whether the server lists everybody; `None` until it has said so.
    directory: Option<Directory>,
    on_server: BTreeMap<PeerName, PeerKey>,
    /// The names that the server was asked to tell us about.
    watched: BTreeSet<PeerName>,
    /// Those of them about which it has not said anything yet.
    unanswered: BTreeSet<PeerName>,
    /// The watched names have to be compared with those that concern us.
    is_watch_stale: bool,
    /// The names that the user has looked up, the latest last.
    looked_up: VecDeque<PeerName>,
    /// The names of people that have invited us, the latest last.
    met: VecDeque<PeerName>,
    /// The name that we go by nearby, while people there are looked for.
    own_nearby_name: Option<PeerName>,
    /// The TCP port at which people nearby reach us, if they can.
    own_nearby_port: Option<u16>,
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

    pub(super) const fn nearby_port(&self) -> Option<u16> {
        self.own_nearby_port
    }

    pub(super) const fn directory(&self) -> Option<Directory> {
        self.directory
    }

    /// The server tells who is online. Returns who is not any more.
    pub(super) fn told(&mut self, presence: pinhole_net::Presence) -> Vec<PeerName> {
        self.directory = Some(presence.directory);
        for peer in presence.online {
            self.came(peer);
        }
        let mut gone = Vec::new();
        for name in presence.offline {
            self.unanswered.remove(&name);
            if self.on_server.remove(&name).is_some() {
                gone.push(name);
            }
        }
        if presence.directory == Directory::Closed {
            let watched = &self.watched;
            self.on_server.retain(|name, _| watched.contains(name));
        }
        gone
    }

    pub(super) fn clear_server(&mut self) {
        self.on_server.clear();
        self.directory = None;
    }

    /// Whether the server has said, since it was asked, whether this name is online.
    pub(super) fn knows_of(&self, name: &PeerName) -> bool {
        let is_answered = || self.watched.contains(name) && !self.unanswered.contains(name);
        self.directory == Some(Directory::Open) || self.has(name) || is_answered()
    }

    /// Whether the server says that somebody of this name is online.
    pub(super) fn has(&self, name: &PeerName) -> bool {
        self.on_server.contains_key(name)
    }

    /// Somebody is online who was kept back.
    pub(super) fn came(&mut self, peer: PeerIdentity) {
        self.unanswered.remove(&peer.name);
        self.on_server.insert(peer.name, peer.key);
    }

    /// The names that the user has looked up, and what came of it.
    pub(super) fn looked_up(&self, doubts: &KeyDoubts) -> Vec<LookedUp> {
        let is_open = |name| {
            self.directory.is_none() || self.unanswered.contains(name) || doubts.is_asked(name)
        };
        let state = |name| match self.on_server.contains_key(name) {
            true => LookUpState::Online,
            false if is_open(name) => LookUpState::Searching,
            false => LookUpState::NotOnline,
        };
        let names = self.looked_up.iter();
        names
            .map(|name| LookedUp {
                name: name.clone(),
                state: state(name),
            })
            .collect()
    }

    /// The names that concern us changed.
    pub(super) const fn set_watch_stale(&mut self) {
        self.is_watch_stale = true;
    }
}

/// Puts a name last in a list that has room for so many.
fn follow(names: &mut VecDeque<PeerName>, name: &PeerName) {
    names.retain(|known| known != name);
    while names.len() >= FOLLOWED_MAX {
        names.pop_front();
    }
    names.push_back(name.clone());
}

/// Whom the server tells us about.
impl State {
    /// The user looks for somebody by name.
    pub(super) fn look_up(&mut self, name: &PeerName) {
        follow(&mut self.presence.looked_up, name);
        self.presence.set_watch_stale();
    }

    /// The server has introduced somebody, so it is online, whether the server lists
    /// everybody or not.
    pub(super) fn note_introduced(&mut self, peer: &PeerIdentity) {
        follow(&mut self.presence.met, &peer.name);
        self.presence.set_watch_stale();
        self.presence.on_server.insert(peer.name.clone(), peer.key);
    }

    /// Whom to watch on the connection that is being made.
    pub(super) fn watch_anew(&mut self, server: Option<PeerKey>) -> Vec<PeerName> {
        let names = self.concerning_us(server);
        self.presence.watched = names.iter().cloned().collect();
        self.presence.unanswered = self.presence.watched.clone();
        names
    }

    /// Has the server tell about everybody who concerns us, and about nobody else.
    pub(super) fn update_watched(&mut self) {
        if !self.presence.is_watch_stale || !self.login.is_online() {
            return;
        }
        self.presence.is_watch_stale = false;
        let concerning = self.concerning_us(self.login.server_key());
        let presence = &mut self.presence;
        let is_new = |name: &&PeerName| !presence.watched.contains(*name);
        let new: Vec<_> = concerning.iter().filter(is_new).cloned().collect();
        let concerning: BTreeSet<_> = concerning.into_iter().collect();
        let old: Vec<_> = presence.watched.difference(&concerning).cloned().collect();
        presence.watched = concerning;
        presence.unanswered.extend(new.iter().cloned());
        presence.unanswered.retain(|name| !old.contains(name));
        if !old.is_empty() {
            self.effect(Effect::Login(LoginEffect::Unwatch(old)));
        }
        if !new.is_empty() {
            self.effect(Effect::Login(LoginEffect::Watch(new)));
        }
    }

    /// The names that concern us on this server, the most urgent first, because the
    /// server limits how many are looked up at once.
    fn concerning_us(&self, server: Option<PeerKey>) -> Vec<PeerName> {
        let unfinished = self.transfers.values().filter(|it| !it.is_final());
        // A run that only looks for somebody leaves the others alone.
        let is_errand = self.overrides.takes_nothing && !self.presence.looked_up.is_empty();
        let server = server.filter(|_| !is_errand);
        let contacts = server
            .into_iter()
            .flat_map(|server| self.contacts.of_server(server));
        let names = unfinished
            .map(|transfer| transfer.peer.name.clone())
            .chain(self.inviters(server))
            .chain(self.presence.looked_up.iter().rev().cloned())
            .chain(self.presence.met.iter().rev().cloned())
            .chain(contacts.map(|contact| contact.name));
        let own = self.login.name();
        let mut seen = BTreeSet::new();
        names
            .filter(|name| Some(name) != own && seen.insert(name.clone()))
            .take(WATCHED_NAMES)
            .collect()
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
            matches!(
                acquaintance,
                Acquaintance::Known { .. } | Acquaintance::Revoked
            )
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
        // Whoever is there to be sent to can be found, whichever face has begun it.
        self.be_nearby(name, announces || !self.overrides.takes_nothing);
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
        self.presence.own_nearby_port = port;
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
