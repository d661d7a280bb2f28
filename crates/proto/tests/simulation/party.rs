//! One party: the agent, its driver, and its kernel.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use pinhole_proto::agent::{Action, Agent, CheckId, ConnectionId, DialFailure, PathKind, Round};

use super::kernel::{Event, Kernel, Message, Millis, Output, SocketId};
use super::world::{Ending, Happening, World};

/// What carries a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    Socket(SocketId),
    Relay(u8),
}

#[derive(Debug)]
pub(crate) struct Party {
    index: usize,
    agent: Agent,
    pub(crate) v4: IpAddr,
    pub(crate) v6: Option<IpAddr>,
    pub(crate) kernel: Kernel,
    checks: HashMap<SocketId, CheckId>,
    connections: HashMap<ConnectionId, Carrier>,
    /// Those on which the controlled side waits or the controlling side began.
    handshaking: HashSet<ConnectionId>,
    round: u8,
    wake_at: Option<Millis>,
    pub(crate) dials: HashMap<(u8, SocketAddr), Vec<Millis>>,
    pub(crate) actions: usize,
    pub(crate) most_connections: usize,
    pub(crate) ending: Option<Ending>,
    pub(crate) endings: usize,
    /// The first path that was selected, and when.
    pub(crate) first: Option<(Millis, PathKind)>,
    last: Option<(Millis, PathKind)>,
    pub(crate) selected: Option<Carrier>,
    /// Paths that the session has left stay open here: nobody models the bytes
    /// that are still on them.
    left: HashSet<ConnectionId>,
    pub(crate) broken: bool,
}

impl Party {
    pub(crate) fn new(index: usize, agent: Agent, v4: IpAddr, v6: Option<IpAddr>) -> Self {
        Self {
            index,
            agent,
            v4,
            v6,
            kernel: Kernel::default(),
            checks: HashMap::new(),
            connections: HashMap::new(),
            handshaking: HashSet::new(),
            round: 0,
            wake_at: None,
            dials: HashMap::new(),
            actions: 0,
            most_connections: 0,
            ending: None,
            endings: 0,
            first: None,
            last: None,
            selected: None,
            left: HashSet::new(),
            broken: false,
        }
    }

    fn is_controlling(&self) -> bool {
        self.index == 0
    }

    fn local(&self, round: u8, family_of: SocketAddr) -> SocketAddr {
        let port = 40_000 + u16::from(round) * 10 + u16::try_from(self.index).unwrap();
        let ip = if family_of.is_ipv6() {
            self.v6.unwrap()
        } else {
            self.v4
        };
        SocketAddr::new(ip, port)
    }

    fn connection_of(&self, carrier: Carrier) -> Option<ConnectionId> {
        let mut connections = self.connections.iter();
        connections
            .find(|(_, one)| **one == carrier)
            .map(|(id, _)| *id)
    }
}

impl World {
    pub(crate) fn begin_round(&mut self, party: usize, round: &Round) {
        let now = self.instant();
        self.parties[party].round = round.number;
        self.parties[party].agent.handle_round(now, round);
        self.settle(party);
    }

    pub(crate) fn wake(&mut self, party: usize) {
        let now = self.now;
        if self.parties[party].wake_at == Some(now) {
            let now = self.instant();
            self.parties[party].wake_at = None;
            self.parties[party].agent.handle_timeout(now);
            let next = self.parties[party].agent.poll_timeout();
            assert!(next.is_none_or(|next| next > now), "would never sleep");
            self.settle(party);
        }
    }

    /// Does what kernel and agent ask for until both are quiet.
    pub(crate) fn settle(&mut self, party: usize) {
        loop {
            if let Some(action) = self.parties[party].agent.poll_action() {
                self.parties[party].actions += 1;
                self.act(party, action);
            } else if let Some(output) = self.parties[party].kernel.output.pop_front() {
                match output {
                    Output::Send(segment) => self.send(party, segment),
                    Output::Timer(wait, timer) => {
                        self.after(wait, Happening::SocketTimer(party, timer));
                    }
                    Output::Event(event) => self.kernel_event(party, &event),
                }
            } else {
                break;
            }
        }
        if let Some(at) = self.parties[party].agent.poll_timeout() {
            let at = self.millis(at).max(self.now);
            if self.parties[party].wake_at != Some(at) {
                self.parties[party].wake_at = Some(at);
                self.after(at - self.now, Happening::Wake(party));
            }
        }
    }

    fn act(&mut self, index: usize, action: Action) {
        let party = &mut self.parties[index];
        assert!(party.ending.is_none(), "{action:?} after the end");
        match action {
            Action::Listen { round } => {
                let v4 = SocketAddr::new(party.v4, 0);
                party.kernel.listen(party.local(round, v4));
                if let Some(v6) = party.v6 {
                    party
                        .kernel
                        .listen(party.local(round, SocketAddr::new(v6, 0)));
                }
            }
            Action::Dial {
                check,
                round,
                remote,
            } => self.dial(index, check, round, remote),
            Action::OpenRelay { round } => self.open_relay(index, round),
            Action::Handshake { connection } => {
                assert!(party.connections.contains_key(&connection));
                assert!(party.handshaking.insert(connection), "nominated twice");
                if party.is_controlling() {
                    self.say(index, connection, Message::ClientHello);
                }
            }
            Action::Close { connection } => self.close(index, connection),
            Action::CloseRound { round } => {
                let port = party.local(round, SocketAddr::new(party.v4, 0)).port();
                party.kernel.close_port(port);
            }
            Action::RequestRound { round } => {
                assert!(party.is_controlling());
                self.introduce(round);
            }
            Action::Selected { connection, path } => self.select(index, connection, path),
            Action::Finished => {
                assert!(party.selected.is_some(), "finished without a path");
                self.end(index);
            }
            Action::Failed => {
                assert!(party.selected.is_none(), "failed with a path");
                self.end(index);
            }
        }
    }

    fn dial(&mut self, index: usize, check: CheckId, round: u8, remote: SocketAddr) {
        let (fresh, now, instant) = (self.fresh_socket(), self.now, self.instant());
        let party = &mut self.parties[index];
        let local = party.local(round, remote);
        party.dials.entry((round, remote)).or_default().push(now);
        match party.kernel.connect((local, remote), fresh) {
            Some(socket) => {
                party.checks.insert(socket, check);
            }
            None => {
                let failure = DialFailure::AddressInUse;
                party.agent.handle_dial_failed(instant, check, failure);
            }
        }
    }

    fn say(&mut self, index: usize, connection: ConnectionId, message: Message) {
        match self.parties[index].connections[&connection] {
            Carrier::Socket(socket) => self.parties[index].kernel.write(socket, message),
            Carrier::Relay(round) => {
                let delay = self.relay_delay();
                self.after(delay, Happening::RelayMessage(1 - index, round, message));
            }
        }
    }

    fn close(&mut self, index: usize, connection: ConnectionId) {
        self.parties[index].handshaking.remove(&connection);
        match self.parties[index].connections.remove(&connection) {
            Some(Carrier::Socket(socket)) => self.parties[index].kernel.close(socket),
            Some(Carrier::Relay(round)) => {
                let delay = self.relay_delay();
                self.after(delay, Happening::RelayClosed(1 - index, round));
            }
            None => {}
        }
    }

    fn select(&mut self, index: usize, connection: ConnectionId, path: PathKind) {
        let now = self.now;
        let party = &mut self.parties[index];
        if let Some((_, before)) = party.last {
            assert!(path.is_worth_a_move_from(before), "{before} to {path}");
        }
        let before = party.selected.and_then(|one| party.connection_of(one));
        party.left.extend(before);
        party.selected = Some(party.connections[&connection]);
        party.first.get_or_insert((now, path));
        party.last = Some((now, path));
        if party.is_controlling() {
            self.say(index, connection, Message::Selected);
        }
    }

    fn end(&mut self, index: usize) {
        let now = self.now;
        let party = &mut self.parties[index];
        party.endings += 1;
        party.ending = Some(Ending {
            first_at: party.first.map_or(now, |(at, _)| at),
            at: party.last.map_or(now, |(at, _)| at),
            ended_at: now,
            round: party.round,
            path: party.last.map(|(_, path)| path),
        });
        for round in 1..=party.round {
            let port = party.local(round, SocketAddr::new(party.v4, 0)).port();
            party.kernel.close_port(port);
        }
        let kept = party.selected.and_then(|one| party.connection_of(one));
        let others: Vec<ConnectionId> = party.connections.keys().copied().collect();
        for other in others {
            if kept != Some(other) && !self.parties[index].left.contains(&other) {
                self.close(index, other);
            }
        }
    }

    fn kernel_event(&mut self, index: usize, event: &Event) {
        let now = self.instant();
        let party = &mut self.parties[index];
        let (socket, admitted) = match *event {
            Event::Connected(socket) => {
                let check = party.checks.remove(&socket);
                (
                    socket,
                    check.and_then(|check| party.agent.handle_connected(now, check)),
                )
            }
            Event::Accepted(socket, local, remote) => {
                let round = u8::try_from((local.port() - 40_000) / 10).unwrap();
                (socket, party.agent.handle_accepted(now, round, remote))
            }
            Event::DialFailed(socket) => {
                if let Some(check) = party.checks.remove(&socket) {
                    party
                        .agent
                        .handle_dial_failed(now, check, DialFailure::Other);
                }
                return;
            }
            Event::Lost(socket) => return self.lost(index, Carrier::Socket(socket)),
            Event::Received(socket, message) => {
                return self.received(index, Carrier::Socket(socket), message);
            }
        };
        match admitted {
            Some(connection) => {
                party
                    .connections
                    .insert(connection, Carrier::Socket(socket));
                party.most_connections = party.most_connections.max(party.connections.len());
            }
            None => party.kernel.close(socket),
        }
    }

    fn lost(&mut self, index: usize, carrier: Carrier) {
        let now = self.instant();
        let party = &mut self.parties[index];
        party.broken |= party.selected == Some(carrier);
        if let Some(connection) = party.connection_of(carrier) {
            party.connections.remove(&connection);
            party.handshaking.remove(&connection);
            party.agent.handle_connection_lost(now, connection);
        }
    }

    fn received(&mut self, index: usize, carrier: Carrier, message: Message) {
        let now = self.instant();
        let party = &mut self.parties[index];
        let Some(connection) = party.connection_of(carrier) else {
            return;
        };
        assert!(party.handshaking.contains(&connection) || message == Message::Garbage);
        match (message, party.is_controlling()) {
            (Message::ClientHello, false) => self.say(index, connection, Message::ServerFinished),
            (Message::ServerFinished, true) => {
                self.say(index, connection, Message::ClientFinished);
                self.parties[index]
                    .agent
                    .handle_authenticated(now, connection);
            }
            (Message::ClientFinished, false) => {}
            (Message::Selected, false) => party.agent.handle_authenticated(now, connection),
            _ => {
                self.close(index, connection);
                self.parties[index]
                    .agent
                    .handle_handshake_failed(now, connection);
            }
        }
    }

    pub(crate) fn relay_up(&mut self, index: usize, round: u8) {
        let now = self.instant();
        let party = &mut self.parties[index];
        match party.agent.handle_relay_connected(now, round) {
            Some(connection) => {
                party.connections.insert(connection, Carrier::Relay(round));
            }
            None => {
                let delay = self.relay_delay();
                self.after(delay, Happening::RelayClosed(1 - index, round));
            }
        }
        self.settle(index);
    }

    pub(crate) fn relay_down(&mut self, index: usize, round: u8) {
        let now = self.instant();
        self.parties[index].agent.handle_relay_failed(now, round);
        self.settle(index);
    }

    pub(crate) fn relay_message(&mut self, index: usize, round: u8, message: Message) {
        self.received(index, Carrier::Relay(round), message);
        self.settle(index);
    }

    pub(crate) fn relay_closed(&mut self, index: usize, round: u8) {
        self.lost(index, Carrier::Relay(round));
        self.settle(index);
    }
}
