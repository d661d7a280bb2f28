//! Several nodes of one server, the links between them, and people who come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pinhole_proto::credential::CodeNumber;
use pinhole_proto::key::PeerKey;
use pinhole_proto::name::PeerName;
use pinhole_proto::node::NodeMessage;
use pinhole_proto::registry::{Action, LogIn, Registry, RelayId, SessionId};
use pinhole_proto::rendezvous::{
    ClientMessage, HostSharing, IntroductionId, NodeId, PROTOCOL_VERSION, PeerIdentity,
    Reachability, Refusal, RelayToken, ServerMessage,
};

use super::random::Random;

/// How long after the end of a link a new one is made.
const RELINK_PAUSE: Duration = Duration::from_millis(500);
const STEP: Duration = Duration::from_millis(10);
/// Numbers are drawn among so many, so that nodes that do not hear each other often give
/// out the same.
const DRAWN: u64 = 4;

/// One connection of a person to a node.
pub(crate) struct Client {
    pub(crate) person: usize,
    pub(crate) node: usize,
    pub(crate) is_online: bool,
    /// Whom it believes to be online.
    pub(crate) view: BTreeMap<PeerName, PeerKey>,
    pub(crate) ended: Option<Option<Refusal>>,
    pub(crate) code: Option<CodeNumber>,
    /// The code that it looks for.
    pub(crate) sought: Option<CodeNumber>,
    pub(crate) found: Vec<(CodeNumber, Option<PeerIdentity>)>,
}

struct Node {
    id: NodeId,
    registry: Registry,
    is_alive: bool,
    /// Its clock is ahead by so much.
    skew_ms: u64,
    /// It does not reach the table of names, and claims wait.
    is_cut_from_names: bool,
    claims: Vec<(SessionId, PeerName, PeerKey)>,
}

#[derive(Default)]
struct Link {
    is_up: bool,
    /// Nothing arrives, although neither side is told.
    is_silent: bool,
    /// It cannot be made.
    is_cut: bool,
    relink_at: Option<Instant>,
}

struct InFlight {
    at: Instant,
    from: usize,
    to: usize,
    message: NodeMessage,
}

/// Who was told, of whom, and the token and the addresses of the relay.
type Introduced = (SessionId, PeerIdentity, Option<RelayToken>, Vec<SocketAddr>);

/// What became of an introduction, as its two sides were told.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) introduced: Vec<Introduced>,
    pub(crate) failed: Vec<SessionId>,
}

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) now: Instant,
    start: Instant,
    nodes: Vec<Node>,
    links: BTreeMap<(usize, usize), Link>,
    in_flight: Vec<InFlight>,
    names: BTreeMap<PeerName, PeerKey>,
    pub(crate) people: Vec<PeerIdentity>,
    pub(crate) clients: BTreeMap<SessionId, Client>,
    pub(crate) told: BTreeMap<IntroductionId, Told>,
    /// Who has ever had which number.
    pub(crate) opened: BTreeSet<(CodeNumber, PeerName)>,
    /// Percent of the messages between nodes.
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) relayed_pairs: usize,
    last_id: u64,
}

fn key(number: u8) -> PeerKey {
    PeerKey::from_bytes([number; 32])
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn reachability() -> Reachability {
    Reachability {
        candidates: Vec::new(),
        share_host: HostSharing::SameNetwork,
        relay: true,
    }
}

impl World {
    pub(crate) fn new(seed: u64, nodes: usize, directory: usize) -> Self {
        let mut random = Random::new(seed);
        let now = Instant::now();
        let names = ["alice", "bob", "carol", "dave", "erin"];
        let people = names.iter().zip(1..).map(|(name, number)| PeerIdentity {
            name: name.parse().unwrap(),
            key: key(number),
        });
        let mut world = Self {
            now,
            start: now,
            nodes: Vec::new(),
            links: BTreeMap::new(),
            in_flight: Vec::new(),
            names: BTreeMap::new(),
            people: people.collect(),
            clients: BTreeMap::new(),
            told: BTreeMap::new(),
            opened: BTreeSet::new(),
            lost: 0,
            doubled: 0,
            relayed_pairs: 0,
            last_id: 0,
            random: Random::new(seed.wrapping_add(1)),
        };
        for number in 0..nodes {
            let id = NodeId::from_random([u8::try_from(number).unwrap() + 1; 16]);
            let registry = Registry::new().with_directory(directory);
            world.nodes.push(Node {
                id,
                registry: registry.as_node(id, Vec::new()),
                is_alive: true,
                skew_ms: random.between(0, 60_000),
                is_cut_from_names: false,
                claims: Vec::new(),
            });
            for other in 0..number {
                world.links.insert((other, number), Link::default());
            }
        }
        world.relink();
        world
    }

    /// Where clients reach a node.
    pub(crate) fn node_address(number: usize) -> SocketAddr {
        SocketAddr::from(([203, 0, 113, u8::try_from(number).unwrap()], 4747))
    }

    /// Somebody shows a token at a node's relay.
    pub(crate) fn relay(&mut self, number: usize, person: usize, token: RelayToken) {
        self.last_id += 1;
        let (relay, key) = (RelayId(self.last_id), self.people[person].key);
        let registry = &mut self.nodes[number].registry;
        registry.handle_relay(self.now, relay, key, token);
        self.settle(number);
    }

    pub(crate) fn nodes_alive(&self) -> Vec<usize> {
        let alive = self.nodes.iter().enumerate().filter(|(_, it)| it.is_alive);
        alive.map(|(number, _)| number).collect()
    }

    pub(crate) fn log_in(&mut self, person: usize, number: usize) -> SessionId {
        self.last_id += 1;
        let session = SessionId(self.last_id);
        let watch = self.people.iter().map(|it| it.name.clone());
        let PeerIdentity { name, key } = self.people[person].clone();
        let node = &mut self.nodes[number];
        let since_start = self.now.saturating_duration_since(self.start).as_millis();
        let log_in = LogIn {
            key,
            is_known: true,
            observed: address("198.51.100.1:1000"),
            came_to: Self::node_address(number),
            at_ms: u64::try_from(since_start).unwrap() + node.skew_ms,
            observer_ports: vec![4747],
            version: PROTOCOL_VERSION,
            name,
            watch: watch.collect(),
            recovery: None,
        };
        self.clients.insert(
            session,
            Client {
                person,
                node: number,
                is_online: false,
                view: BTreeMap::new(),
                ended: None,
                code: None,
                sought: None,
                found: Vec::new(),
            },
        );
        node.registry.handle_log_in(session, log_in);
        self.settle(number);
        session
    }

    pub(crate) fn disconnect(&mut self, session: SessionId) {
        let client = self.clients.get_mut(&session).unwrap();
        client.ended = Some(None);
        let number = client.node;
        let registry = &mut self.nodes[number].registry;
        registry.handle_disconnected(session);
        self.settle(number);
    }

    pub(crate) fn introduce(&mut self, session: SessionId, peer: usize) -> IntroductionId {
        self.last_id += 1;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.last_id.to_be_bytes());
        let introduction = IntroductionId::from_random(bytes);
        let message = ClientMessage::Introduce {
            introduction,
            round: 1,
            peer: self.people[peer].name.clone(),
            reachability: reachability(),
            credential: None,
        };
        self.told.insert(introduction, Told::default());
        self.say(session, message);
        introduction
    }

    /// Opens a code, or closes the one that is open.
    pub(crate) fn toggle_code(&mut self, session: SessionId) {
        let client = self.clients.get_mut(&session).unwrap();
        let message = match client.code.take() {
            Some(_) => ClientMessage::CloseCode,
            None => ClientMessage::OpenCode,
        };
        self.say(session, message);
    }

    pub(crate) fn find_code(&mut self, session: SessionId, number: CodeNumber) {
        let client = self.clients.get_mut(&session).unwrap();
        if client.sought.is_none() {
            client.sought = Some(number);
            self.say(session, ClientMessage::FindCode { number });
        }
    }

    fn say(&mut self, session: SessionId, message: ClientMessage) {
        let Some(client) = self.clients.get(&session) else {
            return;
        };
        if client.ended.is_some() {
            return;
        }
        let number = client.node;
        self.last_id += 1;
        let mut token = [0; 32];
        let drawn = self.random.between(0, DRAWN - 1);
        token[..8].copy_from_slice(&drawn.to_be_bytes());
        token[8..16].copy_from_slice(&self.last_id.to_be_bytes());
        let token = RelayToken::from_random(token);
        let registry = &mut self.nodes[number].registry;
        registry.handle_message(self.now, session, message, token);
        self.settle(number);
    }

    pub(crate) fn kill(&mut self, number: usize) {
        self.nodes[number].is_alive = false;
        for (&(a, b), link) in &mut self.links {
            if a == number || b == number {
                link.relink_at = None;
            }
        }
        let ends: Vec<_> = self.links.keys().copied().collect();
        for (a, b) in ends {
            if a == number || b == number {
                self.unlink(a, b);
            }
        }
        for client in self.clients.values_mut() {
            if client.node == number && client.ended.is_none() {
                client.ended = Some(None);
            }
        }
    }

    /// Ends the link, as when its connection breaks.
    pub(crate) fn unlink(&mut self, a: usize, b: usize) {
        let link = self.links.get_mut(&(a.min(b), a.max(b))).unwrap();
        link.relink_at = Some(self.now + RELINK_PAUSE);
        if !std::mem::take(&mut link.is_up) {
            return;
        }
        self.in_flight
            .retain(|it| (it.from, it.to) != (a, b) && (it.from, it.to) != (b, a));
        for (number, other) in [(a, b), (b, a)] {
            let other = self.nodes[other].id;
            let node = &mut self.nodes[number];
            if node.is_alive {
                node.registry.handle_node_unlinked(self.now, other);
                self.settle(number);
            }
        }
    }

    /// Lets nothing through between two nodes, with or without their noticing at once.
    pub(crate) fn cut(&mut self, a: usize, b: usize, is_noticed: bool) {
        let link = self.links.get_mut(&(a.min(b), a.max(b))).unwrap();
        link.is_cut = true;
        match is_noticed {
            true => self.unlink(a, b),
            false => link.is_silent = true,
        }
    }

    pub(crate) fn cut_from_names(&mut self, number: usize) {
        self.nodes[number].is_cut_from_names = true;
    }

    /// Everything works again, except for dead nodes.
    pub(crate) fn heal(&mut self) {
        (self.lost, self.doubled) = (0, 0);
        for link in self.links.values_mut() {
            (link.is_cut, link.is_silent) = (false, false);
        }
        for number in self.nodes_alive() {
            self.nodes[number].is_cut_from_names = false;
            self.settle(number);
        }
    }

    fn relink(&mut self) {
        let now = self.now;
        let is_due = |link: &Link| {
            !link.is_up && !link.is_cut && link.relink_at.is_none_or(|relink_at| relink_at <= now)
        };
        let due = self.links.iter().filter(|(_, link)| is_due(link));
        let due: Vec<_> = due.map(|(&ends, _)| ends).collect();
        for (a, b) in due {
            if !self.nodes[a].is_alive || !self.nodes[b].is_alive {
                continue;
            }
            self.links.get_mut(&(a, b)).unwrap().is_up = true;
            for (number, other) in [(a, b), (b, a)] {
                let other = self.nodes[other].id;
                let registry = &mut self.nodes[number].registry;
                registry.handle_node_linked(now, other);
                self.settle(number);
            }
        }
    }

    pub(crate) fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.now += STEP;
            self.deliver();
            self.relink();
            for number in self.nodes_alive() {
                let registry = &mut self.nodes[number].registry;
                registry.handle_timeout(self.now);
                self.settle(number);
            }
        }
    }

    fn deliver(&mut self) {
        let due = |it: &InFlight, now| it.at <= now;
        while let Some(index) = self.in_flight.iter().position(|it| due(it, self.now)) {
            let InFlight {
                from, to, message, ..
            } = self.in_flight.remove(index);
            let from = self.nodes[from].id;
            let node = &mut self.nodes[to];
            if node.is_alive {
                node.registry.handle_node_message(self.now, from, message);
                self.settle(to);
            }
        }
    }

    /// Does what a node wants done.
    fn settle(&mut self, number: usize) {
        loop {
            while let Some(action) = self.nodes[number].registry.poll_action() {
                self.act(number, action);
            }
            let node = &mut self.nodes[number];
            if node.claims.is_empty() || node.is_cut_from_names {
                return;
            }
            for (session, name, key) in std::mem::take(&mut node.claims) {
                let owner = *self.names.entry(name).or_insert(key);
                node.registry.handle_claim(self.now, session, Ok(owner));
            }
        }
    }

    fn act(&mut self, number: usize, action: Action) {
        match action {
            Action::ClaimName {
                session, name, key, ..
            } => self.nodes[number].claims.push((session, name, key)),
            Action::Send { to, message } => {
                for session in to {
                    self.hear(session, &message);
                }
            }
            Action::Close { session, refusal } => {
                let client = self.clients.get_mut(&session).unwrap();
                client.ended.get_or_insert(refusal);
            }
            Action::SendToNodes { to, message } => {
                for id in to {
                    let to = self.nodes.iter().position(|it| it.id == id).unwrap();
                    self.post(number, to, &message);
                }
            }
            Action::CloseLink { node } => {
                let other = self.nodes.iter().position(|it| it.id == node).unwrap();
                self.unlink(number, other);
            }
            Action::PairRelay { .. } => self.relayed_pairs += 1,
            Action::FindKeyHistory { .. }
            | Action::HoldRelay { .. }
            | Action::CloseRelay { .. } => {}
        }
    }

    fn post(&mut self, from: usize, to: usize, message: &NodeMessage) {
        let link = &self.links[&(from.min(to), from.max(to))];
        if !link.is_up || link.is_silent {
            return;
        }
        let copies = 1 + u64::from(self.random.percent(self.doubled));
        for _ in 0..copies {
            if self.random.percent(self.lost) {
                continue;
            }
            // A link keeps the order, unless messages are lost or doubled on it as well.
            let delay = match self.lost + self.doubled {
                0 => 20,
                _ => self.random.between(10, 300),
            };
            self.in_flight.push(InFlight {
                at: self.now + Duration::from_millis(delay),
                from,
                to,
                message: message.clone(),
            });
        }
    }

    fn hear(&mut self, session: SessionId, message: &ServerMessage) {
        let client = self.clients.get_mut(&session).unwrap();
        if client.ended.is_some() {
            return;
        }
        match message {
            ServerMessage::LoggedIn { .. } => client.is_online = true,
            // Everybody watches everybody, so that the directory makes no difference.
            ServerMessage::Presence {
                online, offline, ..
            } => {
                let online = online.iter().map(|it| (it.name.clone(), it.key));
                client.view.extend(online);
                for name in offline {
                    client.view.remove(name);
                }
            }
            ServerMessage::Ping { nonce } => {
                self.say(session, ClientMessage::Pong { nonce: *nonce });
            }
            ServerMessage::Invitation {
                introduction,
                round,
                ..
            } => {
                let answer = ClientMessage::Answer {
                    introduction: *introduction,
                    round: *round,
                    reachability: reachability(),
                };
                self.say(session, answer);
            }
            ServerMessage::Introduced {
                introduction,
                peer,
                relay,
                relay_addresses,
                ..
            } => {
                let told = self.told.entry(*introduction).or_default();
                let relay_addresses = relay_addresses.clone();
                told.introduced
                    .push((session, peer.clone(), *relay, relay_addresses));
            }
            ServerMessage::Code { number } => {
                client.code = *number;
                let name = &self.people[client.person].name;
                self.opened.extend(number.map(|it| (it, name.clone())));
            }
            ServerMessage::CodeEnded { .. } => client.code = None,
            ServerMessage::CodeFound { number, peer } => {
                assert_eq!(client.sought.take(), Some(*number));
                client.found.push((*number, peer.clone()));
            }
            ServerMessage::IntroductionFailed { introduction, .. } => {
                self.told
                    .entry(*introduction)
                    .or_default()
                    .failed
                    .push(session);
            }
            _ => {}
        }
    }

    /// Those who are logged in, with their sessions.
    pub(crate) fn online(&self) -> Vec<(usize, SessionId)> {
        let online = self.clients.iter();
        let online = online.filter(|(_, it)| it.is_online && it.ended.is_none());
        online.map(|(&session, it)| (it.person, session)).collect()
    }
}
