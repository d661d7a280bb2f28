//! The other nodes of the server, and who is logged in to them.
//!
//! Each node keeps a copy of the presence of each other node, which it fetches in pages
//! and keeps right by the changes that follow. A change that was lost shows in the number
//! of the next one, or of the next ping; then everything is fetched again. So a lost
//! message delays what a node knows and never makes it wrong for good.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::net::SocketAddr;
use std::ops::Bound;
use std::time::{Duration, Instant};

use crate::credential::CodeNumber;
use crate::key::PeerKey;
use crate::name::PeerName;
use crate::node::{NodeMessage, NodePerson};
use crate::rendezvous::{NodeId, PeerIdentity, Refusal};

use super::{Action, Registry, SessionId, Timer};

/// Most nodes of one server.
pub const NODES: usize = 64;
/// Most people in one message between nodes; about 32 KiB.
pub const NODE_PAGE_PEOPLE: usize = 256;
/// Time between two pings of one link.
pub const NODE_PING_INTERVAL: Duration = Duration::from_secs(1);
/// A link on which nothing has come for this long is closed.
pub const NODE_TIMEOUT: Duration = Duration::from_secs(4);
/// How long the people of a node without a link still count as online. Most have logged in
/// to another node before it is over, so that nobody sees them go.
pub const NODE_GRACE: Duration = Duration::from_secs(3);
/// Most addresses of a node's relay.
pub const RELAY_ADDRESSES: usize = 4;

/// What this node knows of the others.
#[derive(Debug)]
pub(super) struct Cluster {
    own: NodeId,
    /// Where clients of other nodes reach this one.
    pub(super) relay_addresses: Vec<SocketAddr>,
    nodes: BTreeMap<NodeId, Node>,
    /// Who at the nodes has opened a code.
    codes: BTreeMap<CodeNumber, BTreeSet<(NodeId, PeerName)>>,
    /// The number of the last change of those who are logged in here.
    number: u64,
    /// Names of which the others have to be told.
    changed: BTreeSet<PeerName>,
}

/// Another node.
#[derive(Debug)]
struct Node {
    link: Link,
    people: BTreeMap<PeerName, NodeLogin>,
}

#[derive(Debug)]
enum Link {
    Up(Feed),
    /// It went down, and the node's people are forgotten then.
    Down {
        forget_at: Instant,
    },
}

/// What comes over a link.
#[derive(Debug)]
struct Feed {
    /// The number of the last change that was applied; none before the first page.
    number: Option<u64>,
    /// Not all pages are here.
    fetch: Option<Fetch>,
    heard_at: Instant,
    ping: Option<(u64, Instant)>,
    /// When the next ping is due.
    ping_at: Instant,
    rtt: Option<Duration>,
}

#[derive(Debug)]
struct Fetch {
    after: Option<PeerName>,
    asked_at: Instant,
}

/// A login to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeLogin {
    pub(super) key: PeerKey,
    login: u64,
    code: Option<CodeNumber>,
}

impl Cluster {
    pub(super) fn new(own: NodeId, relay_addresses: Vec<SocketAddr>) -> Self {
        Self {
            own,
            relay_addresses,
            nodes: BTreeMap::new(),
            codes: BTreeMap::new(),
            number: 0,
            changed: BTreeSet::new(),
        }
    }

    /// The newest login of `name` elsewhere.
    pub(super) fn find(&self, name: &PeerName) -> Option<(NodeId, NodeLogin)> {
        let logins = self.nodes.iter().filter_map(|(&node, it)| {
            let login = it.people.get(name)?;
            Some((node, *login))
        });
        logins.max_by_key(|&(node, it)| (it.login, node))
    }

    /// Whether somebody elsewhere has opened a code with this number.
    pub(super) fn has_code(&self, number: CodeNumber) -> bool {
        self.codes.contains_key(&number)
    }

    /// Those elsewhere who have, as far as nobody has logged in again by their name.
    pub(super) fn owners_of_code(&self, number: CodeNumber) -> impl Iterator<Item = PeerIdentity> {
        let owners = self.codes.get(&number).into_iter().flatten();
        owners.filter_map(|(at, name)| {
            let (node, login) = self.find(name)?;
            (node == *at).then(|| PeerIdentity {
                name: name.clone(),
                key: login.key,
            })
        })
    }

    /// How many people are logged in elsewhere.
    pub(super) fn online(&self) -> usize {
        self.nodes.values().map(|node| node.people.len()).sum()
    }

    /// Everybody who is logged in elsewhere.
    pub(super) fn everybody(&self) -> impl Iterator<Item = PeerIdentity> {
        let people = self.nodes.values().flat_map(|node| &node.people);
        people.map(|(name, it)| PeerIdentity {
            name: name.clone(),
            key: it.key,
        })
    }

    /// The number of the next login of `name`, at this time in milliseconds since 1970.
    pub(super) fn next_login(&self, name: &PeerName, at_ms: u64) -> u64 {
        let last = self.find(name).map_or(0, |(_, it)| it.login);
        at_ms.max(last.saturating_add(1))
    }

    /// The nodes that hear what is sent to them.
    pub(super) fn linked(&self) -> Vec<NodeId> {
        let linked = self.nodes.iter().filter(|(_, node)| node.feed().is_some());
        linked.map(|(&id, _)| id).collect()
    }

    pub(super) fn is_linked(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|it| it.feed().is_some())
    }

    /// To a node and back.
    pub(super) fn rtt(&self, node: NodeId) -> Option<Duration> {
        self.nodes.get(&node)?.feed()?.rtt
    }

    pub(super) fn note_change(&mut self, name: PeerName) {
        self.changed.insert(name);
    }

    pub(super) fn clear(&mut self) {
        self.nodes.clear();
        self.codes.clear();
        self.changed.clear();
    }

    fn insert(&mut self, at: NodeId, person: NodePerson) {
        let NodePerson {
            name,
            key,
            login,
            code,
        } = person;
        self.remove(at, &name);
        let Some(node) = self.nodes.get_mut(&at) else {
            return;
        };
        if let Some(code) = code {
            let owners = self.codes.entry(code).or_default();
            owners.insert((at, name.clone()));
        }
        node.people.insert(name, NodeLogin { key, login, code });
    }

    fn remove(&mut self, at: NodeId, name: &PeerName) {
        let node = self.nodes.get_mut(&at);
        if let Some(code) = node.and_then(|it| it.people.remove(name)?.code)
            && let Some(owners) = self.codes.get_mut(&code)
        {
            owners.remove(&(at, name.clone()));
            if owners.is_empty() {
                self.codes.remove(&code);
            }
        }
    }

    fn feed_mut(&mut self, node: NodeId) -> Option<&mut Feed> {
        match &mut self.nodes.get_mut(&node)?.link {
            Link::Up(feed) => Some(feed),
            Link::Down { .. } => None,
        }
    }
}

impl Node {
    const fn feed(&self) -> Option<&Feed> {
        match &self.link {
            Link::Up(feed) => Some(feed),
            Link::Down { .. } => None,
        }
    }
}

impl Registry {
    /// A link to another node is up.
    pub fn handle_node_linked(&mut self, now: Instant, id: NodeId) {
        let is_known = self.cluster.nodes.contains_key(&id);
        if self.shutting_down || !is_known && self.cluster.nodes.len() >= NODES {
            return self.actions.push_back(Action::CloseLink { node: id });
        }
        let link = Link::Up(Feed {
            number: None,
            fetch: None,
            heard_at: now,
            ping: None,
            ping_at: now,
            rtt: None,
        });
        let people = self.cluster.nodes.remove(&id);
        let people = people.map(|node| node.people).unwrap_or_default();
        self.cluster.nodes.insert(id, Node { link, people });
        self.fetch(now, id, None);
        self.ping_node(now, id);
    }

    /// The link to another node is down.
    pub fn handle_node_unlinked(&mut self, now: Instant, id: NodeId) {
        if let Some(node) = self.cluster.nodes.get_mut(&id)
            && node.feed().is_some()
        {
            let forget_at = now + NODE_GRACE;
            node.link = Link::Down { forget_at };
            self.timers.insert((forget_at, Timer::Node(id)));
            self.fail_introductions_with(id);
        }
    }

    /// Another node says something.
    pub fn handle_node_message(&mut self, now: Instant, id: NodeId, message: NodeMessage) {
        let Some(feed) = self.cluster.feed_mut(id) else {
            return;
        };
        feed.heard_at = now;
        match message {
            // The link itself reads the first one.
            NodeMessage::Hello { .. } => {}
            NodeMessage::Fetch { after } => self.send_people(id, after),
            NodeMessage::People {
                number,
                after,
                people,
                more,
            } => {
                let page = Page {
                    after,
                    people,
                    more,
                };
                self.take_page(now, id, number, page);
            }
            NodeMessage::Changes {
                number,
                online,
                offline,
            } => {
                if self.is_next_change(now, id, number) {
                    self.apply(now, id, online, &offline);
                }
            }
            NodeMessage::Ping { nonce, number } => {
                self.send_to_node(id, NodeMessage::Pong { nonce });
                self.check_number(now, id, number);
            }
            NodeMessage::Pong { nonce } => {
                if let Some((_, at)) = feed.ping.take_if(|&mut (expected, _)| expected == nonce) {
                    feed.rtt = Some(now.saturating_duration_since(at));
                }
            }
            NodeMessage::Invite(invitation) => self.invited_from(now, id, invitation),
            NodeMessage::Introduced {
                introduction,
                round,
                invited,
                candidates,
                relay,
                start_in_ms,
            } => {
                let answer = super::introduction::Answered {
                    round,
                    invited,
                    candidates,
                    relay,
                    start_in_ms,
                };
                self.introduced_elsewhere(id, introduction, answer);
            }
            NodeMessage::IntroductionFailed {
                introduction,
                reason,
                credential,
            } => {
                let failed = super::introduction::Failed { reason, credential };
                self.failed_elsewhere(id, introduction, failed);
            }
            NodeMessage::RelayEnded { keys, reason } => self.tell_relay_ended(keys, reason),
        }
    }

    /// Pings a node whose link is up, and forgets one whose link has been down for long.
    pub(super) fn node_due(&mut self, now: Instant, id: NodeId) {
        let Some(node) = self.cluster.nodes.get(&id) else {
            return;
        };
        match &node.link {
            Link::Down { forget_at } if *forget_at <= now => self.forget_node(now, id),
            Link::Down { .. } => {}
            Link::Up(feed) if now.saturating_duration_since(feed.heard_at) >= NODE_TIMEOUT => {
                self.actions.push_back(Action::CloseLink { node: id });
                self.handle_node_unlinked(now, id);
            }
            // A timer of an earlier link.
            Link::Up(feed) if now < feed.ping_at => {}
            Link::Up(feed) => {
                let is_late =
                    |it: &Fetch| now.saturating_duration_since(it.asked_at) >= NODE_PING_INTERVAL;
                let late = feed.fetch.as_ref().filter(|it| is_late(it));
                if let Some(after) = late.map(|it| it.after.clone()) {
                    self.fetch(now, id, after);
                }
                self.ping_node(now, id);
            }
        }
    }

    /// Tells the other nodes of those who have come and gone here.
    pub(super) fn tell_nodes(&mut self) {
        let changed = take(&mut self.cluster.changed);
        let to = self.cluster.linked();
        let changed: Vec<_> = changed.into_iter().collect();
        for names in changed.chunks(NODE_PAGE_PEOPLE) {
            // The number tells a node that has no link now that it has missed something.
            self.cluster.number += 1;
            let here = names.iter().map(|name| (name, self.person(name)));
            let (online, offline): (Vec<_>, Vec<_>) = here.partition(|(_, it)| it.is_some());
            let message = NodeMessage::Changes {
                number: self.cluster.number,
                online: online.into_iter().filter_map(|(_, it)| it).collect(),
                offline: offline.into_iter().map(|(name, _)| name.clone()).collect(),
            };
            self.send_to_nodes(to.clone(), message);
        }
    }

    pub(super) fn send_to_node(&mut self, node: NodeId, message: NodeMessage) {
        self.send_to_nodes(vec![node], message);
    }

    pub(super) fn send_to_nodes(&mut self, to: Vec<NodeId>, message: NodeMessage) {
        if !to.is_empty() {
            self.actions.push_back(Action::SendToNodes { to, message });
        }
    }

    fn ping_node(&mut self, now: Instant, id: NodeId) {
        self.last_nonce += 1;
        let (nonce, number) = (self.last_nonce, self.cluster.number);
        if let Some(feed) = self.cluster.feed_mut(id) {
            feed.ping = Some((nonce, now));
            feed.ping_at = now + NODE_PING_INTERVAL;
            self.timers.insert((feed.ping_at, Timer::Node(id)));
            self.send_to_node(id, NodeMessage::Ping { nonce, number });
        }
    }

    fn fetch(&mut self, now: Instant, id: NodeId, after: Option<PeerName>) {
        if let Some(feed) = self.cluster.feed_mut(id) {
            feed.fetch = Some(Fetch {
                after: after.clone(),
                asked_at: now,
            });
            self.send_to_node(id, NodeMessage::Fetch { after });
        }
    }

    fn send_people(&mut self, to: NodeId, after: Option<PeerName>) {
        // What has changed is told first, so that the page holds no more than its number
        // says.
        self.tell_nodes();
        let begin = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut names = self.online.range((begin, Bound::Unbounded));
        let names_here: Vec<_> = names
            .by_ref()
            .take(NODE_PAGE_PEOPLE)
            .map(|it| it.0)
            .collect();
        let people = names_here.into_iter().filter_map(|name| self.person(name));
        let message = NodeMessage::People {
            number: self.cluster.number,
            people: people.collect(),
            more: names.next().is_some(),
            after,
        };
        self.send_to_node(to, message);
    }

    /// Somebody who is logged in here, as other nodes are told.
    fn person(&self, name: &PeerName) -> Option<NodePerson> {
        let session = self.sessions.get(self.online.get(name)?)?;
        Some(NodePerson {
            name: name.clone(),
            key: session.identity.key,
            login: session.login,
            code: session.code.open,
        })
    }

    fn take_page(&mut self, now: Instant, id: NodeId, number: u64, page: Page) {
        let Some(feed) = self.cluster.feed_mut(id) else {
            return;
        };
        let awaited = feed.fetch.take_if(|fetch| fetch.after == page.after);
        if awaited.is_none() {
            return;
        }
        if *feed.number.get_or_insert(number) != number {
            // It was overtaken, or changes before it are lost.
            feed.number = feed.number.max(Some(number));
            return self.fetch(now, id, None);
        }
        let Some(node) = self.cluster.nodes.get(&id) else {
            return;
        };
        let gone = page.missing_of(&node.people);
        let next = page.last().filter(|_| page.more).cloned();
        self.apply(now, id, page.people, &gone);
        if next.is_some() {
            self.fetch(now, id, next);
        }
    }

    fn is_next_change(&mut self, now: Instant, id: NodeId, number: u64) -> bool {
        let Some(feed) = self.cluster.feed_mut(id) else {
            return false;
        };
        let is_next = feed.number.is_some_and(|last| number == last + 1);
        match is_next {
            true => feed.number = Some(number),
            false => self.check_number(now, id, number),
        }
        is_next
    }

    /// Fetches everything again if changes before this one are lost. Before the first page
    /// there is nothing to lose.
    fn check_number(&mut self, now: Instant, id: NodeId, number: u64) {
        if let Some(feed) = self.cluster.feed_mut(id)
            && feed.number.is_some_and(|last| last < number)
        {
            feed.number = Some(number);
            self.fetch(now, id, None);
        }
    }

    /// Takes over who has come and gone at another node.
    fn apply(&mut self, now: Instant, id: NodeId, online: Vec<NodePerson>, offline: &[PeerName]) {
        let names = offline.iter().chain(online.iter().map(|it| &it.name));
        let before: Vec<_> = names
            .map(|name| (name.clone(), self.identity_of(name)))
            .collect();
        let (going, coming) = before.split_at(offline.len());
        let going = going.iter().filter(|(_, it)| it.is_some()).count();
        let coming = coming.iter().filter(|(_, it)| it.is_none()).count();
        self.make_room_in_directory(now, coming.saturating_sub(going));
        for it in &online {
            self.forget_revocation(&it.name, it.key);
        }
        for name in offline {
            self.cluster.remove(id, name);
        }
        let names: Vec<_> = online.iter().map(|it| it.name.clone()).collect();
        for person in online {
            self.cluster.insert(id, person);
        }
        for name in names {
            self.yield_to_newer(&name);
        }
        for (name, before) in before {
            if self.identity_of(&name) != before {
                self.presence_changed(name);
            }
        }
    }

    /// Ends a session here if the name has logged in elsewhere since.
    fn yield_to_newer(&mut self, name: &PeerName) {
        let Some((here, session)) = self.session_of(name) else {
            return;
        };
        let own = (session.login, self.cluster.own);
        let key = session.identity.key;
        if let Some((node, there)) = self.cluster.find(name)
            && (there.login, node) > own
        {
            let refusal = match there.key == key {
                true => Refusal::Replaced,
                false => Refusal::NameTaken,
            };
            self.close(here, Some(refusal));
        }
    }

    fn session_of(&self, name: &PeerName) -> Option<(SessionId, &super::Session)> {
        let id = *self.online.get(name)?;
        Some((id, self.sessions.get(&id)?))
    }

    fn forget_node(&mut self, now: Instant, id: NodeId) {
        let Some(node) = self.cluster.nodes.get(&id) else {
            return;
        };
        let gone: Vec<_> = node.people.keys().cloned().collect();
        self.apply(now, id, Vec::new(), &gone);
        self.cluster.nodes.remove(&id);
    }
}

/// From [`NodeMessage::People`].
struct Page {
    after: Option<PeerName>,
    people: Vec<NodePerson>,
    more: bool,
}

impl Page {
    fn last(&self) -> Option<&PeerName> {
        self.people.last().map(|person| &person.name)
    }

    /// Those who were known and belong on this page, but are not on it.
    fn missing_of(&self, known: &BTreeMap<PeerName, NodeLogin>) -> Vec<PeerName> {
        let begin = self.after.as_ref();
        let begin = begin.map_or(Bound::Unbounded, Bound::Excluded);
        let names = known.range((begin, Bound::Unbounded)).map(|it| it.0);
        let belongs = |name: &&PeerName| !self.more || Some(*name) <= self.last();
        let is_missing = |name: &&PeerName| {
            let found = self.people.binary_search_by(|it| it.name.cmp(name));
            found.is_err()
        };
        let names = names.take_while(belongs).filter(is_missing);
        names.cloned().collect()
    }
}
