//! In the order of a session's life; then anything in any order.

mod codes;
mod garbage;
mod introductions;
mod presence;
mod recovery;
mod relay;
mod sessions;

use super::*;
use crate::candidate::{Candidate, CandidateKind};
use crate::credential::Credential;
use crate::recovery::KeyHistory;
use crate::rendezvous::{
    Directory, HostSharing, IntroductionFailure, Reachability, RefuseReason, Role,
};

/// A registry with a clock, a names table and every session's mailbox.
struct World {
    registry: Registry,
    now: Instant,
    names: BTreeMap<PeerName, PeerKey>,
    mail: BTreeMap<SessionId, Vec<ServerMessage>>,
    closed: BTreeMap<SessionId, Option<Refusal>>,
    relay_closed: BTreeMap<RelayId, Refusal>,
    paired: Vec<(RelayId, RelayId)>,
    /// Whose each relay connection is, whoever has made it.
    charged: BTreeMap<RelayId, PeerKey>,
    /// Claims wait here while `storage_is_slow`.
    claims: Vec<(SessionId, PeerName, PeerKey)>,
    storage_is_slow: bool,
    /// What is known of former keys.
    histories: BTreeMap<PeerKey, KeyHistory>,
    tokens: u8,
    last_id: u64,
}

fn key(number: u8) -> PeerKey {
    PeerKey::from_bytes([number; 32])
}

fn name(text: &str) -> PeerName {
    text.parse().unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn introduction(number: u8) -> IntroductionId {
    IntroductionId::from_random([number; 16])
}

fn reachability(candidates: &[(CandidateKind, &str)]) -> Reachability {
    Reachability {
        candidates: candidates
            .iter()
            .map(|&(kind, text)| Candidate {
                kind,
                address: address(text),
            })
            .collect(),
        share_host: HostSharing::SameNetwork,
        relay: true,
    }
}

const HOST: CandidateKind = CandidateKind::Host;
const REFLEXIVE: CandidateKind = CandidateKind::ServerReflexive;

impl World {
    fn new() -> Self {
        Self {
            registry: Registry::new(),
            now: Instant::now(),
            names: BTreeMap::new(),
            mail: BTreeMap::new(),
            closed: BTreeMap::new(),
            relay_closed: BTreeMap::new(),
            paired: Vec::new(),
            charged: BTreeMap::new(),
            claims: Vec::new(),
            storage_is_slow: false,
            histories: BTreeMap::new(),
            tokens: 0,
            last_id: 0,
        }
    }

    /// Does what is due, and everything that comes of it.
    fn drain(&mut self) {
        self.act();
        while self
            .registry
            .poll_timeout()
            .is_some_and(|at| at <= self.now)
        {
            self.registry.handle_timeout(self.now);
            self.act();
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.registry.poll_action() {
            match action {
                Action::ClaimName {
                    session, name, key, ..
                } => self.claims.push((session, name, key)),
                Action::FindKeyHistory { session, name, key } => {
                    let history = self.histories.get(&key).cloned();
                    let history = history.unwrap_or(KeyHistory::unknown(name, key));
                    self.registry.handle_key_history(session, history);
                }
                Action::Send { to, message } => {
                    assert!(!to.is_empty());
                    for session in to {
                        assert!(!self.closed.contains_key(&session), "mail after the end");
                        self.mail.entry(session).or_default().push(message.clone());
                    }
                }
                Action::Close { session, refusal } => {
                    let earlier = self.closed.insert(session, refusal);
                    assert_eq!(earlier, None, "closed twice");
                }
                Action::HoldRelay { relay, inviter } => {
                    self.charged.insert(relay, inviter.key);
                }
                Action::PairRelay {
                    first,
                    second,
                    inviter,
                } => {
                    self.charged.insert(second, inviter.key);
                    self.paired.push((first, second));
                }
                Action::SendToNodes { .. } | Action::CloseLink { .. } => {
                    panic!("there are no other nodes")
                }
                Action::CloseRelay { relay, refusal } => {
                    self.relay_closed.insert(relay, refusal);
                }
            }
            if !self.storage_is_slow {
                self.settle_claims();
            }
        }
    }

    fn settle_claims(&mut self) {
        for (session, name, key) in std::mem::take(&mut self.claims) {
            let owner = *self.names.entry(name).or_insert(key);
            self.registry.handle_claim(self.now, session, Ok(owner));
        }
    }

    fn log_in(&mut self, who: &str, key: PeerKey, from: &str) -> SessionId {
        let log_in = self.log_in_of(who, key, from);
        self.ask(log_in)
    }

    fn log_in_of(&self, who: &str, key: PeerKey, from: &str) -> LogIn {
        LogIn {
            key,
            is_known: false,
            observed: address(from),
            came_to: address("203.0.113.1:4747"),
            at_ms: 0,
            observer_ports: vec![4747, 4748],
            version: PROTOCOL_VERSION,
            name: name(who),
            watch: Vec::new(),
            recovery: None,
        }
    }

    fn ask(&mut self, log_in: LogIn) -> SessionId {
        self.last_id += 1;
        let session = SessionId(self.last_id);
        self.registry.handle_log_in(session, log_in);
        self.drain();
        session
    }

    fn say(&mut self, session: SessionId, message: ClientMessage) {
        self.tokens = self.tokens.wrapping_add(1);
        let token = RelayToken::from_random([self.tokens; 32]);
        self.registry
            .handle_message(self.now, session, message, token);
        self.drain();
    }

    fn introduce(&mut self, from: SessionId, id: u8, round: u8, to: &str, r: Reachability) {
        let message = ClientMessage::Introduce {
            introduction: introduction(id),
            round,
            peer: name(to),
            reachability: r,
            credential: None,
        };
        self.say(from, message);
    }

    fn answer(&mut self, from: SessionId, id: u8, round: u8, r: Reachability) {
        let message = ClientMessage::Answer {
            introduction: introduction(id),
            round,
            reachability: r,
        };
        self.say(from, message);
    }

    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.registry.poll_timeout().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            self.drain();
        }
        self.now = end;
    }

    fn disconnect(&mut self, session: SessionId) {
        self.registry.handle_disconnected(session);
        self.drain();
    }

    fn take_mail(&mut self, session: SessionId) -> Vec<ServerMessage> {
        self.mail.remove(&session).unwrap_or_default()
    }

    fn pong(&mut self, session: SessionId) {
        let mail = self.mail.get(&session).map(Vec::as_slice);
        let nonce = mail.unwrap_or_default().iter().rev().find_map(|m| match m {
            ServerMessage::Ping { nonce } => Some(*nonce),
            _ => None,
        });
        if let Some(nonce) = nonce {
            self.say(session, ClientMessage::Pong { nonce });
        }
    }

    /// alice and bob, online, with empty mailboxes.
    fn pair(&mut self, alice_from: &str, bob_from: &str) -> (SessionId, SessionId) {
        let alice = self.log_in("alice", key(1), alice_from);
        let bob = self.log_in("bob", key(2), bob_from);
        self.wait(PRESENCE_INTERVAL);
        self.mail.clear();
        (alice, bob)
    }

    /// What alice and bob are told after a whole introduction.
    fn introduced(&mut self, id: u8) -> (RelayToken, RelayToken) {
        let (alice, bob) = self.pair("198.51.100.1:1000", "198.51.100.2:1000");
        self.introduce(alice, id, 1, "bob", reachability(&[]));
        self.answer(bob, id, 1, reachability(&[]));
        let token = |mail: Vec<ServerMessage>| {
            mail.into_iter()
                .find_map(|m| match m {
                    ServerMessage::Introduced { relay, .. } => relay,
                    _ => None,
                })
                .unwrap()
        };
        (token(self.take_mail(alice)), token(self.take_mail(bob)))
    }

    fn relay(&mut self, key: PeerKey, token: RelayToken) -> RelayId {
        self.last_id += 1;
        let relay = RelayId(self.last_id);
        self.registry.handle_relay(self.now, relay, key, token);
        self.drain();
        relay
    }
}

fn peer(text: &str, number: u8) -> PeerIdentity {
    PeerIdentity {
        name: name(text),
        key: key(number),
    }
}

/// All of the presence that one message tells.
fn presence(directory: Directory, online: &[PeerIdentity], offline: &[&str]) -> ServerMessage {
    ServerMessage::Presence {
        directory,
        online: online.to_vec(),
        offline: offline.iter().map(|&text| name(text)).collect(),
        more: false,
    }
}

fn failed(id: u8, reason: IntroductionFailure) -> ServerMessage {
    ServerMessage::IntroductionFailed {
        introduction: introduction(id),
        reason,
        credential: None,
    }
}

fn candidates(mail: &[ServerMessage]) -> Vec<String> {
    mail.iter()
        .find_map(|m| match m {
            ServerMessage::Introduced { candidates, .. } => {
                Some(candidates.iter().map(|c| c.address.to_string()).collect())
            }
            _ => None,
        })
        .expect("introduced")
}
