//! The rendezvous server's state: names, presence, introductions, relay tokens.
//!
//! A [`Registry`] is driven from outside, like the connectivity agent: what
//! happened goes in through `handle_*`, what is to be done comes out of
//! [`Registry::poll_action`], and [`Registry::poll_timeout`] says when
//! [`Registry::handle_timeout`] wants to be called. It opens nothing, reads no
//! clock, and draws no random number.
//!
//! ```text
//!  handle_log_in ──► ClaimName ──► handle_claim ──► LoggedIn, Presence…, Ping   (Presence to others)
//!                                       │                 │
//!                                       ▼                 ▼
//!                            Close{NameTaken, …}   handle_message, handle_timeout
//!                                                         │
//!                         Close{Replaced, ShuttingDown, …}, handle_disconnected (Presence to others)
//! ```
//!
//! | part | holds |
//! |---|---|
//! | [`Registry`] | who is logged in; replaces, pings |
//! | `presence` | who is told who is online |
//! | `introduction` | invitations on their way, and what each side learns of the other |
//! | `code` | the numbers under which people can be found without a name |
//! | `cluster` | the other nodes of the server, and who is logged in to them |
//! | `observed` | the addresses from which the server has seen each key |
//! | `recovery` | what has become of keys, and who is told |
//! | `relay` | one-use tokens and the connections that wait for their other half |

mod cluster;
mod code;
mod introduction;
mod observed;
mod presence;
mod recovery;
mod relay;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use pinhole_budget::{Budget, RateLimiter, SubnetRateLimiter};

use crate::key::PeerKey;
use crate::name::PeerName;
use crate::node::NodeMessage;
use crate::recovery::{LoginRecovery, Revocation};
use crate::rendezvous::{
    ClientMessage, IntroductionId, NodeId, PROTOCOL_VERSION, PeerIdentity, Refusal, RelayToken,
    ServerMessage,
};

use cluster::Cluster;
use code::{CodeUse, Codes};
use introduction::{Introduction, InviteRequest, Invitee, RoundReachability};
use observed::Observed;
use presence::{PresenceFeed, Watched};
use relay::Relay;

pub use cluster::{
    NODE_GRACE, NODE_PAGE_PEOPLE, NODE_PING_INTERVAL, NODE_TIMEOUT, NODES, RELAY_ADDRESSES,
};
pub use code::{CODE_LIFETIME, CODES_OF_KEY, CODES_OF_NETWORK, OPEN_CODES};
pub use introduction::{
    ANSWER_TIMEOUT, INTRODUCTIONS_OF_KEY, INTRODUCTIONS_OF_NETWORK, MAX_ROUNDS, PENDING_INVITATIONS,
};
pub use presence::{
    DIRECTORY_PEOPLE, LOOKUPS_OF_KEY, LOOKUPS_OF_NETWORK, PRESENCE_INTERVAL, PRESENCE_PAGE_PEERS,
    WATCH_PAGE_NAMES, WATCHED_NAMES,
};
pub use recovery::REVOKED_NAMES;
pub use relay::{Inviter, RelayId, TOKEN_LIFETIME};

/// Time between two pings of one session.
pub const PING_INTERVAL: Duration = Duration::from_secs(25);
/// So many unanswered pings, and the session counts as dead at the next.
pub const MAX_UNANSWERED_PINGS: u8 = 2;
/// Most keys and networks that a rate is remembered for.
const RATED: usize = 65_536;

/// One control connection, from its first message to its end. Numbered by the
/// owner of the [`Registry`]; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What the owner of a [`Registry`] has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Bind `name` to `key` unless it is bound already, durably, and report the
    /// key it is bound to with [`Registry::handle_claim`]. Claims of a name are
    /// answered in the order in which they were asked.
    ClaimName {
        /// The inviter.
        session: SessionId,
        /// The name wanted.
        name: PeerName,
        /// The key the session proved.
        key: PeerKey,
        /// From where it did.
        address: IpAddr,
        /// From [`LogIn`].
        is_known: bool,
        /// From [`LogIn`]: to be seen to before the key is reported.
        recovery: Option<Box<LoginRecovery>>,
    },
    /// Report with [`Registry::handle_key_history`] what has become of this key.
    FindKeyHistory {
        /// Who asks.
        session: SessionId,
        /// Under which name it was known.
        name: PeerName,
        /// The key.
        key: PeerKey,
    },
    /// Queue `message` for each of these sessions. A session whose queue is
    /// full is reported with [`Registry::handle_disconnected`].
    Send {
        /// Receivers; never empty.
        to: Vec<SessionId>,
        /// The same for all of them.
        message: ServerMessage,
    },
    /// End the connection, after telling why when there is something to tell.
    /// The registry has forgotten the session already.
    Close {
        /// Whose connection.
        session: SessionId,
        /// The last message, if any: none for one that is dead or broke the
        /// protocol.
        refusal: Option<Refusal>,
    },
    /// One side of a relay is here and waits for the other.
    HoldRelay {
        /// Which.
        relay: RelayId,
        /// Against whom it counts.
        inviter: Inviter,
    },
    /// Both sides of a relay are here: tell both and pass their bytes on.
    PairRelay {
        /// The side that came first.
        first: RelayId,
        /// The side that came second.
        second: RelayId,
        /// Against whom it counts.
        inviter: Inviter,
    },
    /// Send `message` to these nodes. A node whose queue is full is reported with
    /// [`Registry::handle_node_unlinked`].
    SendToNodes {
        /// Receivers; never empty.
        to: Vec<NodeId>,
        /// The same for all of them.
        message: NodeMessage,
    },
    /// End the link to a node. The registry counts it as down already.
    CloseLink {
        /// Which.
        node: NodeId,
    },
    /// End a relay connection that waits for nothing any more.
    CloseRelay {
        /// Which.
        relay: RelayId,
        /// The last message.
        refusal: Refusal,
    },
}

/// A control connection's first message, with what its connection tells.
#[derive(Debug, Clone)]
pub struct LogIn {
    /// The key proven in the TLS handshake.
    pub key: PeerKey,
    /// Whether the key has been here for long: then newcomers give way to it.
    pub is_known: bool,
    /// The address the connection comes from.
    pub observed: SocketAddr,
    /// The address of this server to which it comes.
    pub came_to: SocketAddr,
    /// The time, in milliseconds since 1970. It only decides which of two logins to
    /// different nodes is the newer one.
    pub at_ms: u64,
    /// Passed on in [`ServerMessage::LoggedIn`].
    pub observer_ports: Vec<u16>,
    /// From [`ClientMessage::LogIn`].
    pub version: u16,
    /// From [`ClientMessage::LogIn`].
    pub name: PeerName,
    /// From [`ClientMessage::LogIn`].
    pub watch: Vec<PeerName>,
    /// From [`ClientMessage::LogIn`].
    pub recovery: Option<Box<LoginRecovery>>,
}

#[derive(Debug)]
struct Session {
    identity: PeerIdentity,
    is_known: bool,
    observed: SocketAddr,
    came_to: SocketAddr,
    /// When it logged in; then the number of the login among those of its name.
    login: u64,
    observer_ports: Vec<u16>,
    /// False while the name is being claimed.
    online: bool,
    /// The last ping's number, and when it left.
    ping: Option<(u64, Instant)>,
    unanswered_pings: u8,
    rtt: Option<Duration>,
    /// Invitations this session has not answered yet, by who has sent them.
    pending_invitations: Budget<PeerKey>,
    /// What it wants to watch from the login on.
    watch: Vec<PeerName>,
    watched: Watched,
    code: CodeUse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Ping(SessionId),
    Introduction(IntroductionId),
    Token(RelayToken),
    LookUp(SessionId),
    Code(SessionId),
    FindCode(SessionId),
    Node(NodeId),
}

/// The server's state machine. See the [module documentation](self).
#[derive(Debug)]
pub struct Registry {
    sessions: BTreeMap<SessionId, Session>,
    online: BTreeMap<PeerName, SessionId>,
    cluster: Cluster,
    observed: Observed,
    presence: PresenceFeed,
    introductions: BTreeMap<IntroductionId, Introduction>,
    introductions_of_keys: RateLimiter<PeerKey>,
    introductions_of_networks: SubnetRateLimiter,
    relay: Relay,
    codes: Codes,
    /// The names of revoked keys.
    revoked: BTreeMap<PeerName, Revocation>,
    /// Most are not removed early: a timer whose subject is gone does nothing.
    timers: BTreeSet<(Instant, Timer)>,
    actions: VecDeque<Action>,
    last_nonce: u64,
    shutting_down: bool,
    has_no_relay: bool,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// A registry in which nobody is logged in.
    #[must_use]
    pub fn new() -> Self {
        let of_networks = SubnetRateLimiter::new(INTRODUCTIONS_OF_NETWORK, RATED);
        Self {
            sessions: BTreeMap::new(),
            online: BTreeMap::new(),
            cluster: Cluster::new(NodeId::from_random([0; NodeId::BYTES]), Vec::new()),
            observed: Observed::default(),
            presence: PresenceFeed::new(DIRECTORY_PEOPLE),
            introductions: BTreeMap::new(),
            introductions_of_keys: RateLimiter::new(INTRODUCTIONS_OF_KEY, RATED),
            introductions_of_networks: of_networks,
            relay: Relay::default(),
            codes: Codes::new(),
            revoked: BTreeMap::new(),
            timers: BTreeSet::new(),
            actions: VecDeque::new(),
            last_nonce: 0,
            shutting_down: false,
            has_no_relay: false,
        }
    }

    /// The same, but it offers nobody the relay.
    #[must_use]
    pub fn without_relay(self) -> Self {
        Self {
            has_no_relay: true,
            ..self
        }
    }

    /// The same, but it tells everybody of everybody only up to this many people online,
    /// and never with 0.
    #[must_use]
    pub fn with_directory(self, people: usize) -> Self {
        Self {
            presence: PresenceFeed::new(people),
            ..self
        }
    }

    /// The same, as one node of several. Clients of the other nodes reach its relay at
    /// these addresses; without any, at the address to which their peer is connected.
    #[must_use]
    pub fn as_node(self, own: NodeId, mut relay_addresses: Vec<SocketAddr>) -> Self {
        relay_addresses.truncate(RELAY_ADDRESSES);
        Self {
            cluster: Cluster::new(own, relay_addresses),
            ..self
        }
    }

    /// The next thing to do. Call until `None` after every `handle_*`.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Registry::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|&(at, _)| at);
        timer.into_iter().chain(self.presence.due()).min()
    }

    /// Does everything that is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, timer)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            match timer {
                Timer::Ping(session) => self.ping(now, session),
                Timer::Introduction(id) => self.expire_introduction(now, id),
                Timer::Token(token) => self.actions.extend(self.relay.expire(now, token)),
                Timer::LookUp(session) => self.look_up_waiting(now, session),
                Timer::Code(session) => self.expire_code(now, session),
                Timer::FindCode(session) => self.find_sought(now, session),
                Timer::Node(node) => self.node_due(now, node),
            }
        }
        if self.presence.due().is_some_and(|due| due <= now) {
            self.tell_changes(now);
        }
    }

    /// A control connection wants to log in.
    pub fn handle_log_in(&mut self, session: SessionId, log_in: LogIn) {
        let LogIn {
            key,
            is_known,
            name,
            ..
        } = log_in;
        let address = log_in.observed.ip();
        let is_watching_too_many = log_in.watch.len() > WATCH_PAGE_NAMES;
        self.observed.connected(key, address);
        let identity = PeerIdentity {
            name: name.clone(),
            key,
        };
        self.sessions.insert(
            session,
            Session {
                identity,
                is_known,
                observed: log_in.observed,
                came_to: log_in.came_to,
                login: log_in.at_ms,
                observer_ports: log_in.observer_ports,
                online: false,
                ping: None,
                unanswered_pings: 0,
                rtt: None,
                pending_invitations: Budget::new(PENDING_INVITATIONS),
                watch: log_in.watch,
                watched: Watched::default(),
                code: CodeUse::default(),
            },
        );
        if self.shutting_down {
            self.close(session, Some(Refusal::ShuttingDown));
        } else if is_watching_too_many {
            self.close(session, None);
        } else if log_in.version == PROTOCOL_VERSION {
            self.actions.push_back(Action::ClaimName {
                session,
                name,
                key,
                address,
                is_known,
                recovery: log_in.recovery,
            });
        } else {
            self.close(session, Some(Refusal::Version));
        }
    }

    /// The operator has taken the name of this session away.
    pub fn handle_name_lost(&mut self, session: SessionId) {
        if self.sessions.contains_key(&session) {
            self.close(session, Some(Refusal::NameTaken));
        }
    }

    /// The outcome of [`Action::ClaimName`]: the key the name is bound to, or
    /// why it is bound to none.
    pub fn handle_claim(
        &mut self,
        now: Instant,
        session: SessionId,
        owner: Result<PeerKey, Refusal>,
    ) {
        // A session may have ended while its name was looked up.
        let Some(claimant) = self.sessions.get(&session) else {
            return;
        };
        let PeerIdentity { name, key } = claimant.identity.clone();
        if claimant.online {
            return;
        }
        match owner {
            Err(refusal) => return self.close(session, Some(refusal)),
            Ok(owner) if owner != key => {
                return self.close(session, Some(Refusal::NameTaken));
            }
            Ok(_) => {}
        }
        let before = self.identity_of(&name);
        if before.is_none() {
            self.make_room_in_directory(now, 1);
        }
        self.forget_revocation(&name, key);
        // The newest login of a key wins, on all nodes. To the others nothing changes.
        let older = self.online.insert(name, session);
        if let Some(older) = older {
            self.close(older, Some(Refusal::Replaced));
        }
        self.welcome(now, session, before.as_ref());
    }

    /// Makes a session one that is online. Before, its name belonged to somebody who was,
    /// or to nobody.
    fn welcome(&mut self, now: Instant, session: SessionId, before: Option<&PeerIdentity>) {
        let Some(newcomer) = self.sessions.get_mut(&session) else {
            return;
        };
        newcomer.online = true;
        let name = newcomer.identity.name.clone();
        newcomer.login = self.cluster.next_login(&name, newcomer.login);
        let watch = std::mem::take(&mut newcomer.watch);
        let logged_in = ServerMessage::LoggedIn {
            observed: newcomer.observed,
            observer_ports: newcomer.observer_ports.clone(),
            relay: !self.has_no_relay,
            codes: true,
        };
        self.send(session, logged_in);
        self.begin_presence(now, session, watch);
        self.ping(now, session);
        self.note_change_for_nodes(name.clone());
        if self.identity_of(&name).as_ref() != before {
            self.presence_changed(name);
        }
    }

    /// Who is online by this name, here or elsewhere.
    fn identity_of(&self, name: &PeerName) -> Option<PeerIdentity> {
        let here = self.online.get(name).and_then(|id| self.sessions.get(id));
        here.map(|session| session.identity.clone()).or_else(|| {
            let (_, login) = self.cluster.find(name)?;
            Some(PeerIdentity {
                name: name.clone(),
                key: login.key,
            })
        })
    }

    /// A message after the first on a control connection.
    ///
    /// `fresh_token` is a token drawn at random for this call. It is used when the
    /// message completes an introduction, decides which number a code has, and is
    /// dropped otherwise.
    pub fn handle_message(
        &mut self,
        now: Instant,
        session: SessionId,
        message: ClientMessage,
        fresh_token: RelayToken,
    ) {
        let Some(sender) = self.sessions.get_mut(&session) else {
            return;
        };
        if !sender.online {
            return self.close(session, None);
        }
        match message {
            ClientMessage::Introduce {
                introduction,
                round,
                peer,
                reachability,
                credential,
            } => {
                let wanted = InviteRequest {
                    round,
                    reachability,
                    credential,
                };
                let invitee = Invitee {
                    name: &peer,
                    fresh_token,
                };
                self.introduce(now, session, introduction, invitee, wanted);
            }
            ClientMessage::Answer {
                introduction,
                round,
                reachability,
            } => {
                let answer = RoundReachability {
                    round,
                    reachability,
                };
                self.answer(now, session, introduction, answer, fresh_token);
            }
            ClientMessage::Refuse {
                introduction,
                reason,
                credential,
            } => self.refuse(session, introduction, reason, credential),
            ClientMessage::OpenCode => self.open_code(now, session, fresh_token),
            ClientMessage::CloseCode => self.close_code(session),
            ClientMessage::FindCode { number } => self.find_code(now, session, number),
            ClientMessage::Watch { names } => self.watch(now, session, names),
            ClientMessage::Unwatch { names } => self.unwatch(session, &names),
            ClientMessage::KeyHistory { name, key } => {
                self.find_key_history(now, session, name, key);
            }
            ClientMessage::Ping { nonce } => self.send(session, ServerMessage::Pong { nonce }),
            ClientMessage::Pong { nonce } => sender.pong(now, nonce),
            ClientMessage::LogIn { .. }
            | ClientMessage::Observe
            | ClientMessage::Probe { .. }
            | ClientMessage::Relay { .. } => self.close(session, None),
        }
    }

    /// A control connection has ended, or its queue is full.
    pub fn handle_disconnected(&mut self, session: SessionId) {
        self.forget(session);
    }

    /// A session has to make room for others.
    pub fn handle_evicted(&mut self, session: SessionId) {
        if self.sessions.contains_key(&session) {
            self.close(session, Some(Refusal::Limited));
        }
    }

    /// An observation connection has come from `address`. Server-reflexive
    /// candidates are passed on only for addresses seen so.
    pub fn handle_observation(&mut self, key: PeerKey, address: IpAddr) {
        self.observed.connected(key, address);
    }

    /// An observation connection has ended.
    pub fn handle_observation_ended(&mut self, key: PeerKey) {
        self.observed.disconnected(key);
    }

    /// A relay connection has shown its token.
    pub fn handle_relay(&mut self, now: Instant, relay: RelayId, key: PeerKey, token: RelayToken) {
        let action = self.relay.arrive(now, relay, key, token);
        self.actions.push_back(action);
    }

    /// A relay connection has ended before it was paired.
    pub fn handle_relay_disconnected(&mut self, relay: RelayId) {
        self.relay.leave(relay);
    }

    /// A relay has been ended between these two keys, because of `reason`: both
    /// sides are told, wherever they are logged in.
    pub fn handle_relay_ended(&mut self, keys: [PeerKey; 2], reason: Refusal) {
        self.tell_relay_ended(keys, reason);
        let to = self.cluster.linked();
        self.send_to_nodes(to, NodeMessage::RelayEnded { keys, reason });
    }

    fn tell_relay_ended(&mut self, keys: [PeerKey; 2], reason: Refusal) {
        let [a, b] = keys;
        for (key, peer) in [(a, b), (b, a)] {
            let sessions = self.sessions.iter();
            let of_key = sessions.filter(|(_, s)| s.online && s.identity.key == key);
            let to = of_key.map(|(&id, _)| id).collect();
            self.broadcast(to, ServerMessage::RelayEnded { peer, reason });
        }
    }

    /// The server is going down: everybody is told, nobody is let in any more.
    pub fn handle_shutdown(&mut self) {
        self.shutting_down = true;
        self.online.clear();
        self.cluster.clear();
        self.presence.clear();
        self.introductions.clear();
        self.codes = Codes::new();
        self.timers.clear();
        let refusal = Refusal::ShuttingDown;
        for session in std::mem::take(&mut self.sessions).into_keys() {
            self.actions.push_back(Action::Close {
                session,
                refusal: Some(refusal),
            });
        }
        for relay in self.relay.clear() {
            self.actions
                .push_back(Action::CloseRelay { relay, refusal });
        }
    }

    fn ping(&mut self, now: Instant, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if session.unanswered_pings >= MAX_UNANSWERED_PINGS {
            return self.close(id, None);
        }
        self.last_nonce += 1;
        let nonce = self.last_nonce;
        session.ping = Some((nonce, now));
        session.unanswered_pings += 1;
        self.timers.insert((now + PING_INTERVAL, Timer::Ping(id)));
        self.send(id, ServerMessage::Ping { nonce });
    }

    fn send(&mut self, session: SessionId, message: ServerMessage) {
        self.broadcast(vec![session], message);
    }

    fn broadcast(&mut self, to: Vec<SessionId>, message: ServerMessage) {
        if !to.is_empty() {
            self.actions.push_back(Action::Send { to, message });
        }
    }

    fn close(&mut self, session: SessionId, refusal: Option<Refusal>) {
        self.actions.push_back(Action::Close { session, refusal });
        self.forget(session);
    }

    fn forget(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        self.observed.disconnected(session.identity.key);
        self.presence.forget(id, &session.watched);
        if let Some(number) = session.code.open {
            self.forget_code(id, number);
        }
        self.fail_introductions_of(id);
        let name = session.identity.name;
        // A replaced session does not take its successor's name offline.
        if self.online.get(&name) == Some(&id) {
            self.online.remove(&name);
            self.note_change_for_nodes(name.clone());
            self.presence_changed(name);
        }
    }
}

impl Session {
    fn pong(&mut self, now: Instant, nonce: u64) {
        if let Some((expected, sent_at)) = self.ping
            && expected == nonce
        {
            self.rtt = Some(now.saturating_duration_since(sent_at));
            self.ping = None;
            self.unanswered_pings = 0;
        }
    }
}
