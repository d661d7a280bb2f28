//! The connectivity agent: which address to dial when, and which connection
//! wins.
//!
//! # The model
//!
//! One [`Agent`] lives through one attempt to connect two peers, or to find a
//! better path for a session that they have. It knows neither sockets nor a
//! clock: a driver feeds it what happened (`handle_*`, each with the current
//! time), does what it asks for ([`Agent::poll_action`]) and wakes it when it
//! wants to be woken ([`Agent::poll_timeout`]).
//!
//! ```text
//!        introduced           3 s without a direct path
//! new ───► round 1 ─────────────► round 2 ─ … ─► round 4 ──► Failed, or
//!            │ dial, accept, relay    │ fresh local ports     Finished on the relay
//!            ▼                        ▼
//!         valid pairs ──► handshakes ──► held ──► Selected ──► Finished
//!            ▲            (the relay's beside       │  a better path may come:
//!            └──────────── the direct ones)  ◄──────┘  Selected again
//! ```
//!
//! * A **round** is one introduction: both sides have a fresh local port, know
//!   each other's candidates, listen on the port and dial from it at the same
//!   moment. A round that brings no direct path is followed by another from
//!   another port; the controlling side asks for it.
//! * A **check** ([`CheckId`]) is the attempt to reach one remote candidate. It
//!   stays pending until the kernel answers: closing and redialling poisons the
//!   NAT's mapping, so retransmission is the kernel's business. A check that
//!   *fails* is redialled at once, at most every [`Timing::redial`]: the refusal
//!   may have deleted the mapping that the other side is just about to use.
//!   The one exception is [`DialFailure::AddressInUse`]: then a connection
//!   between these addresses exists already and will show up by itself.
//! * A **connection** ([`ConnectionId`]) is a TCP connection that came up, by
//!   dialling, by accepting or at the relay: a *valid pair* (RFC 8445). That
//!   says nothing yet about who is at the other end. With simultaneous open
//!   both sides dialled successfully and nobody accepted, so neither role nor
//!   identity is ever derived from how a connection came up.
//! * **Handshakes** are begun by the controlling side, on the relay and on the
//!   best direct pair at the same time; the controlled side waits for a
//!   ClientHello on every valid pair. A stranger fails to authenticate, and the
//!   next pair is tried.
//! * **Selection**, which RFC 8445 calls nomination: the controlling side alone
//!   chooses among the authenticated connections and says so on the one chosen.
//!   A session may be selected another path later, when that is of a class that
//!   makes the move worth it ([`PathKind::is_worth_a_move_from`]).
//!
//! # In which order a round dials
//!
//! Each dial uses up the next port of a NAT that counts them, so the predicted
//! candidates go first, in their order. Where both sides have some, the controlled
//! side leaps: it dials every second one, and the others after these. Its `j`-th
//! dial goes to port `2j - 1` of those predicted, the controlling side's `i`-th to
//! port `i`. Others may have connected since the observation, `a` times through the
//! controlling side's NAT and `b` times through the other one: then these dials
//! leave from ports `j + b` and `i + a`, and they meet where `i = j + b` and
//! `2j - 1 = i + a`, at `j = a + b + 1`. If neither side leapt, they would meet for
//! `a + b = 0` only. With `n` ports predicted this bears `a + b < n / 2`, and the
//! two sides need not have the same `n`.
//!
//! # Which pair is best
//!
//! First by standing: connections with an address the server introduced, then
//! those from another port of such an address (the peer's NAT maps
//! address-dependently), and strangers last. Then by class, in the order of
//! [`PathKind`]. An authenticated connection is *held* for as long as it took
//! itself while the handshake with one of a better class is under way, and the
//! relay for a third of that while a direct path may still come up at all: so
//! whatever is about as fast begins as the better one.
//!
//! # What is bounded
//!
//! At most [`Candidate::MAX_PER_SIDE`][max] and
//! [`Candidate::MAX_PREDICTED`][predicted] checks a round, [`Agent::MAX_ROUNDS`]
//! rounds, [`Agent::MAX_ACCEPTED`] accepted connections at a time, one dial of
//! a check per [`Timing::redial`], and [`Timing::attempt`] for everything.
//!
//! [max]: crate::candidate::Candidate::MAX_PER_SIDE
//! [predicted]: crate::candidate::Candidate::MAX_PREDICTED

mod action;
mod checklist;
mod connection;
mod current_round;
mod path;
mod round;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::rendezvous::Role;

use checklist::{Checklist, Standing};
use connection::{Connections, Origin};
use current_round::CurrentRound;
use path::Goal;

pub use action::Action;
pub use checklist::{CheckId, DialFailure};
pub use connection::ConnectionId;
pub use path::{PathKind, PathPolicy};
pub use round::Round;

/// How long the agent waits for what. [`Timing::default`] is what the
/// measurements led to; tests may shorten it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Shortest time between two dials of one check.
    pub redial: Duration,
    /// Shortest time between two dials of a check whose addresses were in use,
    /// or whose connection was lost.
    pub slow_redial: Duration,
    /// How long an authenticated connection is held at least while the handshake
    /// with a better one is under way.
    pub hold: Duration,
    /// And at most.
    pub hold_max: Duration,
    /// And at least where both sides seem to be on one network: what is a moment away
    /// may still be late on a busy machine.
    pub near_hold: Duration,
    /// How long strangers wait for the peer to come first.
    pub settle: Duration,
    /// How long direct attempts have before another round is asked for, from
    /// the round's start.
    pub direct: Duration,
    /// How long the relay connection may take while nothing else works, from
    /// the round's start.
    pub relay: Duration,
    /// How long a handshake that this side has begun may take.
    pub handshake: Duration,
    /// How long a direct connection may exist without being authenticated.
    pub idle: Duration,
    /// How long the next round may take to be introduced.
    pub introduction: Duration,
    /// How long everything may take, from the first introduction.
    pub attempt: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            redial: Duration::from_millis(20),
            slow_redial: Duration::from_millis(500),
            hold: Duration::from_millis(60),
            hold_max: Duration::from_secs(1),
            near_hold: Duration::from_millis(500),
            settle: Duration::from_millis(50),
            direct: Duration::from_secs(3),
            relay: Duration::from_secs(8),
            handshake: Duration::from_secs(5),
            idle: Duration::from_secs(15),
            introduction: Duration::from_secs(10),
            attempt: Duration::from_secs(60),
        }
    }
}

/// The agent, see the [module](self).
///
/// ```
/// use pinhole_proto::agent::{Action, Agent, PathPolicy, Round, Timing};
/// use pinhole_proto::candidate::{Candidate, CandidateKind, LoopbackAddresses};
/// use pinhole_proto::rendezvous::Role;
/// use std::time::Instant;
///
/// # fn main() -> Result<(), std::net::AddrParseError> {
/// let host = |address: &str| -> Result<_, std::net::AddrParseError> {
///     Ok(Candidate { kind: CandidateKind::Host, address: address.parse()? })
/// };
/// let now = Instant::now();
/// let mut agent = Agent::new(Role::Controlling, PathPolicy::Auto, Timing::default());
/// agent.handle_round(now, &Round {
///     number: 1,
///     local: vec![host("192.168.1.10:40000")?],
///     remote: vec![host("192.168.1.20:40001")?],
///     relay: false,
///     start_at: now,
///     loopback: LoopbackAddresses::Refused,
/// });
/// while let Some(action) = agent.poll_action() {
///     // A driver does this with sockets. Here every dial succeeds at once.
///     if let Action::Dial { check, .. } = action {
///         let connection = agent.handle_connected(now, check).expect("a wanted connection");
///         assert_eq!(agent.poll_action(), Some(Action::Handshake { connection }));
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Agent {
    role: Role,
    policy: PathPolicy,
    timing: Timing,
    round: Option<CurrentRound>,
    connections: Connections,
    actions: VecDeque<Action>,
    checks_made: u32,
    /// Up to here every decision has been taken.
    now: Option<Instant>,
    attempt_ends_at: Option<Instant>,
    goal: Goal,
    finished: bool,
}

impl Agent {
    /// Most rounds of one attempt.
    pub const MAX_ROUNDS: u8 = 4;
    /// Most accepted connections at a time; beyond it the least promising goes.
    pub const MAX_ACCEPTED: usize = 16;

    /// An agent that waits for the first [`Agent::handle_round`].
    #[must_use]
    pub fn new(role: Role, policy: PathPolicy, timing: Timing) -> Self {
        Self {
            role,
            policy,
            timing,
            round: None,
            connections: Connections::default(),
            actions: VecDeque::new(),
            checks_made: 0,
            now: None,
            attempt_ends_at: None,
            goal: Goal::default(),
            finished: false,
        }
    }

    /// An agent that looks for something better than the `current` path of a
    /// session which this side controls. It never uses the relay.
    #[must_use]
    pub fn improving(current: PathKind, timing: Timing) -> Self {
        let mut agent = Self::new(Role::Controlling, PathPolicy::DirectOnly, timing);
        agent.goal.selected = Some(current);
        agent
    }

    /// The server introduced the two sides: the first round, or a later one
    /// from fresh ports. A round that is not newer than the current one, or
    /// beyond [`Agent::MAX_ROUNDS`], is ignored.
    pub fn handle_round(&mut self, now: Instant, round: &Round) {
        let previous = self.round.as_ref().map_or(0, |round| round.number);
        if self.finished || round.number <= previous || round.number > Self::MAX_ROUNDS {
            return;
        }
        if let Some(previous) = self.round.take() {
            self.actions.push_back(Action::CloseRound {
                round: previous.number,
            });
            // Its token is spent; the new round brings another.
            if let Some(connection) = self.connections.take_relayed() {
                self.actions.push_back(Action::Close { connection });
            }
        }
        let direct = self.policy != PathPolicy::RelayOnly && !round.remote.is_empty();
        let relay = self.policy != PathPolicy::DirectOnly
            && round.relay
            && self.goal.wants(PathKind::Relay);
        self.attempt_ends_at
            .get_or_insert(now + self.timing.attempt);
        if !direct && !relay {
            return self.give_up();
        }
        let checklist = if direct {
            self.actions.push_back(Action::Listen {
                round: round.number,
            });
            Checklist::new(round, self.role, &mut self.checks_made)
        } else {
            Checklist::default()
        };
        if relay {
            self.actions.push_back(Action::OpenRelay {
                round: round.number,
            });
        }
        self.round = Some(CurrentRound {
            number: round.number,
            checklist,
            direct,
            is_near: round.is_near(),
            relay_pending: relay,
            direct_ends_at: round.start_at + self.timing.direct,
            relay_ends_at: round.start_at + self.timing.relay,
            strangers_at: None,
            next_round_by: None,
        });
        self.advance(now);
    }

    /// A dial came through. Returns the connection's id, or `None` when it is
    /// not wanted any more: then close it.
    #[must_use = "a connection without an id is to be closed"]
    pub fn handle_connected(&mut self, now: Instant, check: CheckId) -> Option<ConnectionId> {
        let round = self.round.as_mut().filter(|_| !self.finished)?;
        let path = round.checklist.connected(check)?;
        if !self.goal.wants(path) {
            return None;
        }
        let origin = Origin::Dialled(check);
        Some(self.add_connection(now, origin, Standing::Introduced, path))
    }

    /// A dial failed.
    pub fn handle_dial_failed(&mut self, now: Instant, check: CheckId, failure: DialFailure) {
        if let Some(round) = &mut self.round {
            round.checklist.failed(now, check, failure, &self.timing);
        }
        self.advance(now);
    }

    /// The listener of `round` accepted a connection from `remote`. Returns
    /// its id, or `None` when it is not wanted: then close it.
    #[must_use = "a connection without an id is to be closed"]
    pub fn handle_accepted(
        &mut self,
        now: Instant,
        round: u8,
        remote: SocketAddr,
    ) -> Option<ConnectionId> {
        let current = self.round.as_ref().filter(|_| !self.finished)?;
        if current.number != round {
            return None;
        }
        let (standing, path) = current.checklist.classify(remote)?;
        if !self.goal.wants(path) {
            return None;
        }
        if self.connections.accepted() >= Self::MAX_ACCEPTED {
            let connection = self.connections.evict_for(standing)?;
            self.actions.push_back(Action::Close { connection });
        }
        Some(self.add_connection(now, Origin::Accepted, standing, path))
    }

    /// Both sides have met at the relay of `round`. Returns the connection's
    /// id, or `None` when it is not wanted any more: then close it.
    #[must_use = "a connection without an id is to be closed"]
    pub fn handle_relay_connected(&mut self, now: Instant, round: u8) -> Option<ConnectionId> {
        let current = self.round.as_mut().filter(|_| !self.finished)?;
        let is_awaited = current.number == round && std::mem::take(&mut current.relay_pending);
        if !(is_awaited && self.goal.wants(PathKind::Relay)) {
            return None;
        }
        Some(self.add_connection(now, Origin::Relayed, Standing::Relayed, PathKind::Relay))
    }

    /// The relay of `round` could not be reached, or the other side did not come.
    pub fn handle_relay_failed(&mut self, now: Instant, round: u8) {
        if let Some(current) = &mut self.round
            && current.number == round
        {
            current.relay_pending = false;
        }
        self.advance(now);
    }

    /// The TLS handshake on this connection succeeded, with the key expected;
    /// on the controlled side, the other one has selected it besides.
    pub fn handle_authenticated(&mut self, now: Instant, connection: ConnectionId) {
        if self.finished {
            return;
        }
        match (self.role, &self.round) {
            (Role::Controlling, Some(round)) => {
                let until = round.holds_until(now, &self.timing);
                self.connections.hold(connection, until);
            }
            _ => self.select(connection),
        }
        self.advance(now);
    }

    /// The other end of this connection is not the peer: it spoke no TLS, or
    /// showed another key. The driver has closed it.
    pub fn handle_handshake_failed(&mut self, now: Instant, connection: ConnectionId) {
        self.connections.remove(connection);
        self.advance(now);
    }

    /// This connection ended before it was authenticated: reset, end of
    /// stream, or another network error. The driver has closed it. If it was
    /// dialled it is dialled again.
    pub fn handle_connection_lost(&mut self, now: Instant, connection: ConnectionId) {
        let lost = self.connections.remove(connection);
        if let Some(Origin::Dialled(check)) = lost.map(|connection| connection.origin)
            && let Some(round) = &mut self.round
        {
            round.checklist.lost(now, check, &self.timing);
        }
        self.advance(now);
    }

    /// The time that [`Agent::poll_timeout`] named has come. Harmless earlier.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
    }

    /// When to call [`Agent::handle_timeout`] next, if nothing happens before.
    /// May change with every other call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.finished {
            return None;
        }
        let mut coming = vec![
            self.attempt_ends_at,
            self.connections.next_deadline(self.now),
        ];
        if let Some(round) = &self.round {
            coming.extend([
                round.checklist.next_dial(self.goal),
                round.next_round_by,
                round.strangers_at,
                Some(round.direct_ends_at),
                round.ends_at(),
            ]);
        }
        let coming = coming.into_iter().flatten();
        coming.filter(|&at| Some(at) > self.now).min()
    }

    /// The next thing to do, in order. Call until `None` after every `handle_*`.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn add_connection(
        &mut self,
        now: Instant,
        origin: Origin,
        standing: Standing,
        path: PathKind,
    ) -> ConnectionId {
        // On the controlled side the relayed one waits until the other has chosen.
        let deadline = (origin != Origin::Relayed).then(|| now + self.timing.idle);
        let id = self.connections.add(origin, standing, path, deadline);
        if let Some(round) = &mut self.round
            && origin != Origin::Relayed
        {
            round.strangers_at.get_or_insert(now + self.timing.settle);
        }
        if self.role == Role::Controlled {
            self.actions.push_back(Action::Handshake { connection: id });
        }
        self.advance(now);
        id
    }

    /// Takes every decision that is due at `now`.
    fn advance(&mut self, now: Instant) {
        self.now = Some(now);
        if self.finished {
            return;
        }
        if self.attempt_ends_at.is_some_and(|ends_at| now >= ends_at) {
            return self.give_up();
        }
        for connection in self.connections.expire(now) {
            self.actions.push_back(Action::Close { connection });
        }
        self.dial(now);
        if self.role == Role::Controlling {
            self.select_held(now);
            self.begin_handshakes(now);
        }
        self.look_beyond_round(now);
    }

    fn dial(&mut self, now: Instant) {
        if let Some(round) = &mut self.round {
            let number = round.number;
            let dials = round.checklist.dial(now, self.goal);
            self.actions
                .extend(dials.map(|(check, remote)| Action::Dial {
                    check,
                    round: number,
                    remote,
                }));
        }
    }

    /// Begins the handshakes that are due on valid pairs.
    fn begin_handshakes(&mut self, now: Instant) {
        let Some(round) = &self.round else { return };
        let strangers_are_due = round.strangers_at.is_some_and(|at| now >= at);
        while let Some(connection) = self.connections.next_to_begin(strangers_are_due) {
            let deadline = now + self.timing.handshake;
            if let Some(stranger) = self.connections.begin(connection, deadline) {
                self.actions.push_back(Action::Close {
                    connection: stranger,
                });
            }
            self.actions.push_back(Action::Handshake { connection });
        }
    }

    /// Selects the best authenticated connection, unless a better one is close.
    fn select_held(&mut self, now: Instant) {
        let Some((held, until)) = self.connections.best_held() else {
            return;
        };
        let direct_may_come = || {
            let round = self.round.as_ref();
            held.path == PathKind::Relay
                && round.is_some_and(|round| {
                    now < round.direct_ends_at && round.checklist.has_open(self.goal)
                })
        };
        let waits = if self.connections.may_better(held.path) {
            now < until.better_is_begun
        } else {
            now < until.nothing_is_up && direct_may_come()
        };
        if !waits {
            let connection = held.id;
            self.select(connection);
        }
    }

    /// Makes this connection the session's.
    fn select(&mut self, connection: ConnectionId) {
        let Some(selected) = self.connections.remove(connection) else {
            return;
        };
        let path = selected.path;
        self.goal.selected = Some(path);
        self.actions
            .push_back(Action::Selected { connection, path });
        for connection in self.connections.take_unwanted(self.goal) {
            self.actions.push_back(Action::Close { connection });
        }
    }

    /// Asks for the next round, or ends the attempt, when the current round is
    /// over or can bring nothing any more.
    fn look_beyond_round(&mut self, now: Instant) {
        let Some(round) = &mut self.round else { return };
        if self.goal.selected == Some(PathKind::Relay) && !round.direct {
            return self.finish(Action::Finished);
        }
        if let Some(by) = round.next_round_by {
            if now >= by && !self.connections.is_promising() {
                self.give_up();
            }
            return;
        }
        let is_over = match self.goal.selected {
            None => round.is_over(now),
            Some(PathKind::Lan) => return self.finish(Action::Finished),
            Some(PathKind::Relay) if round.direct => now >= round.direct_ends_at,
            Some(PathKind::Relay) => return self.finish(Action::Finished),
            // The other side may know of an address that this one does not.
            Some(_) if self.role == Role::Controlled && now < round.direct_ends_at => return,
            Some(_) if now < round.direct_ends_at && round.checklist.has_open(self.goal) => return,
            Some(_) if self.connections.is_promising() => return,
            Some(_) => return self.finish(Action::Finished),
        };
        if !is_over {
            return;
        }
        match self.role {
            Role::Controlled => {
                let patience = self.timing.handshake + self.timing.introduction;
                round.next_round_by = Some(now + patience);
            }
            Role::Controlling if self.connections.is_promising() => {}
            Role::Controlling if round.number >= Self::MAX_ROUNDS => self.give_up(),
            Role::Controlling => {
                round.next_round_by = Some(now + self.timing.introduction);
                let next = round.number + 1;
                self.actions.push_back(Action::RequestRound { round: next });
            }
        }
    }

    /// There is nothing more to hope for.
    fn give_up(&mut self) {
        self.finish(match self.goal.selected {
            Some(_) => Action::Finished,
            None => Action::Failed,
        });
    }

    fn finish(&mut self, last: Action) {
        self.finished = true;
        self.actions.push_back(last);
    }
}
