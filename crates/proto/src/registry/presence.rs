//! Who is told who is online: everybody of everybody while the directory is open, and
//! each client of the names that it watches.
//!
//! Changes are gathered for [`PRESENCE_INTERVAL`] and told in one message, so that a
//! crowd that logs in costs each client a few messages a second.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use pinhole_budget::{Rate, RateLimiter, SubnetRateLimiter};

use crate::key::PeerKey;
use crate::name::PeerName;
use crate::rendezvous::{Directory, PeerIdentity, ServerMessage};

use super::{RATED, Registry, SessionId, Timer};

/// Most people in one [`ServerMessage::Presence`]; about 30 KiB.
pub const PRESENCE_PAGE_PEERS: usize = 256;
/// Time between two messages about changes.
pub const PRESENCE_INTERVAL: Duration = Duration::from_millis(200);
/// Most names that one session watches.
pub const WATCHED_NAMES: usize = 500;
/// Most names in one message of a client.
pub const WATCH_PAGE_NAMES: usize = 256;
/// Most people online while the directory is open, unless the operator says otherwise.
pub const DIRECTORY_PEOPLE: usize = 256;
/// How many names one key may look up.
pub const LOOKUPS_OF_KEY: Rate = Rate {
    burst: 1_500,
    interval: Duration::from_secs(1),
};
/// How many names all newcomers of one network may look up.
pub const LOOKUPS_OF_NETWORK: Rate = Rate {
    burst: 6_000,
    interval: Duration::from_millis(250),
};
/// How often names that were over the rate are tried again.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(1);

/// The directory, and who watches whom.
#[derive(Debug)]
pub(super) struct PresenceFeed {
    /// Most people online while the directory is open.
    directory_people: usize,
    directory: Directory,
    watchers: BTreeMap<PeerName, BTreeSet<SessionId>>,
    /// Names that everybody has to be told of.
    changed: BTreeSet<PeerName>,
    /// Sessions that have to be told of names they watch.
    to_tell: BTreeSet<SessionId>,
    /// Somebody has come or gone since changes were told.
    is_due: bool,
    /// When changes may be told again.
    tell_at: Option<Instant>,
    lookups_of_keys: RateLimiter<PeerKey>,
    lookups_of_networks: SubnetRateLimiter,
}

/// The names that one session watches.
#[derive(Debug, Default)]
pub(super) struct Watched {
    names: BTreeSet<PeerName>,
    /// Names that are looked up once the rate allows it.
    waiting: VecDeque<PeerName>,
    /// There is a timer for the names that wait.
    is_timed: bool,
    /// Watched names whose presence has changed.
    changed: BTreeSet<PeerName>,
}

impl PresenceFeed {
    pub(super) fn new(directory_people: usize) -> Self {
        Self {
            directory_people,
            directory: match directory_people {
                0 => Directory::Closed,
                _ => Directory::Open,
            },
            watchers: BTreeMap::new(),
            changed: BTreeSet::new(),
            to_tell: BTreeSet::new(),
            is_due: false,
            tell_at: None,
            lookups_of_keys: RateLimiter::new(LOOKUPS_OF_KEY, RATED),
            lookups_of_networks: SubnetRateLimiter::new(LOOKUPS_OF_NETWORK, RATED),
        }
    }

    /// When changes are to be told.
    pub(super) fn due(&self) -> Option<Instant> {
        self.tell_at.filter(|_| self.is_due)
    }

    /// Who is told of this name because it asked for that.
    pub(super) fn watchers_of(&self, name: &PeerName) -> Vec<SessionId> {
        self.watchers
            .get(name)
            .into_iter()
            .flatten()
            .copied()
            .collect()
    }

    pub(super) fn may_look_up(
        &mut self,
        now: Instant,
        key: PeerKey,
        newcomer_at: Option<IpAddr>,
    ) -> bool {
        self.lookups_of_keys.take(now, key)
            && newcomer_at.is_none_or(|address| self.lookups_of_networks.take(now, address))
    }

    fn unwatch(&mut self, session: SessionId, name: &PeerName) {
        if let Some(watchers) = self.watchers.get_mut(name) {
            watchers.remove(&session);
            if watchers.is_empty() {
                self.watchers.remove(name);
            }
        }
    }

    pub(super) fn forget(&mut self, session: SessionId, watched: &Watched) {
        self.to_tell.remove(&session);
        for name in &watched.names {
            self.unwatch(session, name);
        }
    }

    pub(super) fn clear(&mut self) {
        self.watchers.clear();
        self.changed.clear();
        self.to_tell.clear();
        self.is_due = false;
    }

    #[cfg(test)]
    pub(super) const fn directory(&self) -> Directory {
        self.directory
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.watchers.is_empty() && self.to_tell.is_empty()
    }
}

#[cfg(test)]
impl Watched {
    pub(super) fn is_watched(&self, name: &PeerName) -> bool {
        self.names.contains(name)
    }
}

impl Registry {
    /// So many more are about to be online. If they are too many for the directory, it
    /// closes first, so that nobody is told of more people than there may be in it.
    pub(super) fn make_room_in_directory(&mut self, now: Instant, newcomers: usize) {
        let people = self.people_online().saturating_add(newcomers);
        let is_full = people > self.presence.directory_people;
        if is_full && self.presence.directory == Directory::Open {
            self.tell_changes(now);
            self.presence.directory = Directory::Closed;
            self.tell_everybody(Presence::default());
        }
    }

    /// Begins to tell a session who is online: everybody, or whom it watches.
    pub(super) fn begin_presence(&mut self, now: Instant, id: SessionId, watch: Vec<PeerName>) {
        self.presence.tell_at.get_or_insert(now);
        let watched = self.add_watched(now, id, watch);
        let mut presence = self.presence_of(watched);
        if self.presence.directory == Directory::Open {
            presence.online = self.everybody_but(Some(id));
        }
        for page in presence.pages(self.presence.directory) {
            self.send(id, page);
        }
    }

    /// A client wants to know of these names.
    pub(super) fn watch(&mut self, now: Instant, id: SessionId, names: Vec<PeerName>) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let known = session.watched.names.len() + session.watched.waiting.len();
        if names.len() > WATCH_PAGE_NAMES || known + names.len() > WATCHED_NAMES {
            return self.close(id, None);
        }
        let added = self.add_watched(now, id, names);
        self.tell_of(id, added);
    }

    /// A client does not want to know of these names any more.
    pub(super) fn unwatch(&mut self, id: SessionId, names: &[PeerName]) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        for name in names {
            session.watched.names.remove(name);
            session.watched.changed.remove(name);
            self.presence.unwatch(id, name);
        }
        session.watched.waiting.retain(|name| !names.contains(name));
    }

    /// Looks up names that were over the rate before.
    pub(super) fn look_up_waiting(&mut self, now: Instant, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.watched.is_timed = false;
            let waiting = std::mem::take(&mut session.watched.waiting);
            let added = self.add_watched(now, id, waiting);
            self.tell_of(id, added);
        }
    }

    /// Watches the names that the rate allows, and returns them. The others wait.
    fn add_watched(
        &mut self,
        now: Instant,
        id: SessionId,
        names: impl IntoIterator<Item = PeerName>,
    ) -> Vec<PeerName> {
        let Some(session) = self.sessions.get_mut(&id) else {
            return Vec::new();
        };
        let PeerIdentity { name: own, key } = &session.identity;
        let newcomer_at = (!session.is_known).then_some(session.observed.ip());
        let watched = &mut session.watched;
        let mut added = Vec::new();
        for name in names {
            if name == *own || watched.names.contains(&name) || watched.waiting.contains(&name) {
                continue;
            }
            let may_look =
                watched.waiting.is_empty() && self.presence.may_look_up(now, *key, newcomer_at);
            if !may_look {
                watched.waiting.push_back(name);
                continue;
            }
            let watchers = self.presence.watchers.entry(name.clone()).or_default();
            watchers.insert(id);
            watched.names.insert(name.clone());
            added.push(name);
        }
        if !watched.waiting.is_empty() && !watched.is_timed {
            watched.is_timed = true;
            let at = now + LOOKUP_INTERVAL;
            self.timers.insert((at, Timer::LookUp(id)));
        }
        self.tell_revocations(id, &added);
        added
    }

    /// Somebody who is logged in here has come or gone. The other nodes are told with the
    /// next changes.
    pub(super) fn note_change_for_nodes(&mut self, name: PeerName) {
        self.presence.is_due = true;
        self.cluster.note_change(name);
    }

    /// Somebody has come or gone.
    pub(super) fn presence_changed(&mut self, name: PeerName) {
        self.presence.is_due = true;
        if self.presence.directory == Directory::Open {
            self.presence.changed.insert(name);
            return;
        }
        for &watcher in self.presence.watchers.get(&name).into_iter().flatten() {
            if let Some(session) = self.sessions.get_mut(&watcher) {
                session.watched.changed.insert(name.clone());
                self.presence.to_tell.insert(watcher);
            }
        }
    }

    /// Tells of all changes, and opens the directory when it has room again.
    pub(super) fn tell_changes(&mut self, now: Instant) {
        self.presence.is_due = false;
        self.presence.tell_at = Some(now + PRESENCE_INTERVAL);
        let changed = std::mem::take(&mut self.presence.changed);
        if !changed.is_empty() {
            let presence = self.presence_of(changed);
            self.tell_everybody(presence);
        }
        for id in std::mem::take(&mut self.presence.to_tell) {
            if let Some(session) = self.sessions.get_mut(&id) {
                let changed = std::mem::take(&mut session.watched.changed);
                self.tell_of(id, changed);
            }
        }
        self.tell_nodes();
        self.reopen_directory();
    }

    /// Here and elsewhere.
    fn people_online(&self) -> usize {
        self.online.len() + self.cluster.online()
    }

    /// Opens a closed directory when a quarter of its room is free, so that it does not
    /// open and close all the time.
    fn reopen_directory(&mut self) {
        let (online, most) = (self.people_online(), self.presence.directory_people);
        let has_room = most > 0 && online <= most.saturating_mul(3) / 4;
        if !has_room || self.presence.directory == Directory::Open {
            return;
        }
        self.presence.directory = Directory::Open;
        self.tell_everybody(Presence {
            online: self.everybody_but(None),
            offline: Vec::new(),
        });
    }

    fn tell_everybody(&mut self, presence: Presence) {
        let everybody: Vec<_> = self.online.values().copied().collect();
        for page in presence.pages(self.presence.directory) {
            self.broadcast(everybody.clone(), page);
        }
    }

    fn tell_of(&mut self, id: SessionId, names: impl IntoIterator<Item = PeerName>) {
        let presence = self.presence_of(names);
        if presence != Presence::default() {
            for page in presence.pages(self.presence.directory) {
                self.send(id, page);
            }
        }
    }

    fn presence_of(&self, names: impl IntoIterator<Item = PeerName>) -> Presence {
        let mut presence = Presence::default();
        for name in names {
            match self.identity_of(&name) {
                Some(identity) => presence.online.push(identity),
                None => presence.offline.push(name),
            }
        }
        presence
    }

    /// Everybody here and elsewhere. Somebody whose login is moving from one node to
    /// another is listed once.
    fn everybody_but(&self, id: Option<SessionId>) -> Vec<PeerIdentity> {
        let but = id.and_then(|id| self.sessions.get(&id));
        let sessions = self.online.values().filter_map(|id| self.sessions.get(id));
        let here = sessions.map(|session| session.identity.clone());
        let all = self.cluster.everybody().chain(here);
        let mut all: BTreeMap<_, _> = all.map(|it| (it.name, it.key)).collect();
        if let Some(but) = but {
            all.remove(&but.identity.name);
        }
        let all = all.into_iter();
        all.map(|(name, key)| PeerIdentity { name, key }).collect()
    }
}

/// Who of some people is online.
#[derive(Debug, Default, PartialEq, Eq)]
struct Presence {
    online: Vec<PeerIdentity>,
    offline: Vec<PeerName>,
}

impl Presence {
    /// At least one page, so that a receiver knows that it is alone.
    fn pages(self, directory: Directory) -> Vec<ServerMessage> {
        let mut online = self.online.into_iter().peekable();
        let mut offline = self.offline.into_iter().peekable();
        let mut pages = Vec::new();
        loop {
            let of_online: Vec<_> = online.by_ref().take(PRESENCE_PAGE_PEERS).collect();
            let room = PRESENCE_PAGE_PEERS - of_online.len();
            let of_offline = offline.by_ref().take(room).collect();
            let more = online.peek().is_some() || offline.peek().is_some();
            pages.push(ServerMessage::Presence {
                directory,
                online: of_online,
                offline: of_offline,
                more,
            });
            if !more {
                return pages;
            }
        }
    }
}
