//! TCP as a kernel does it, as far as hole punching can tell: retransmission,
//! simultaneous open, challenge acknowledgements, resets, one connection per
//! pair of addresses. A socket is told apart from its predecessor on the same
//! addresses by its initial sequence number, which is also its id here.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;

/// Milliseconds of virtual time.
pub(crate) type Millis = u64;
pub(crate) type SocketId = u32;

/// The TLS handshake, as three messages, the word that a connection is selected,
/// and what no peer would say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    ClientHello,
    ServerFinished,
    ClientFinished,
    Selected,
    Garbage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flags {
    Syn,
    SynAck,
    Ack,
    /// Stop and wait: the next one goes when this one is acknowledged.
    Data(u32, Message),
    DataAck(u32),
    Fin,
    Rst,
    /// Not TCP: a router's answer to a segment from `dst` to `src`.
    Icmp,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    pub(crate) seq: SocketId,
    /// 0: no acknowledgement.
    pub(crate) ack: SocketId,
    pub(crate) flags: Flags,
}

impl Segment {
    /// What is sent when there is no socket for a segment.
    pub(crate) fn refusal(&self) -> Option<Self> {
        let (seq, ack) = match self.flags {
            Flags::Rst | Flags::Icmp => return None,
            Flags::Syn => (0, self.seq),
            _ => (self.ack, 0),
        };
        Some(self.answer(seq, ack, Flags::Rst))
    }

    pub(crate) fn answer(&self, seq: SocketId, ack: SocketId, flags: Flags) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            seq,
            ack,
            flags,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    SynSent,
    SynReceived,
    Established,
}

#[derive(Debug)]
struct Socket {
    id: SocketId,
    peer: SocketId,
    passive: bool,
    state: State,
    /// How often the current thing was sent; a timer for an earlier count is stale.
    sends: u32,
    outgoing: VecDeque<(u32, Message)>,
    queued: u32,
    received: u32,
}

#[derive(Debug)]
pub(crate) enum Event {
    Connected(SocketId),
    DialFailed(SocketId),
    Accepted(SocketId, SocketAddr, SocketAddr),
    Lost(SocketId),
    Received(SocketId, Message),
}

#[derive(Debug)]
pub(crate) enum Output {
    Send(Segment),
    Timer(Millis, Timer),
    Event(Event),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Timer {
    socket: SocketId,
    state: State,
    sends: u32,
}

type Flow = (SocketAddr, SocketAddr);

#[derive(Debug, Default)]
pub(crate) struct Kernel {
    sockets: HashMap<Flow, Socket>,
    listeners: HashSet<SocketAddr>,
    pub(crate) output: VecDeque<Output>,
}

impl Kernel {
    pub(crate) fn listen(&mut self, local: SocketAddr) {
        self.listeners.insert(local);
    }

    /// `None`: `EADDRNOTAVAIL`.
    pub(crate) fn connect(&mut self, flow: Flow, id: SocketId) -> Option<SocketId> {
        if self.sockets.contains_key(&flow) {
            return None;
        }
        self.sockets
            .insert(flow, Socket::new(id, 0, State::SynSent));
        self.transmit(flow);
        Some(id)
    }

    pub(crate) fn write(&mut self, id: SocketId, message: Message) {
        let Some(flow) = self.flow(id) else { return };
        let socket = self.sockets.get_mut(&flow).unwrap();
        socket.queued += 1;
        socket.outgoing.push_back((socket.queued, message));
        if socket.outgoing.len() == 1 {
            socket.sends = 0;
            self.transmit(flow);
        }
    }

    pub(crate) fn close(&mut self, id: SocketId) {
        let Some(flow) = self.flow(id) else { return };
        let socket = self.sockets.remove(&flow).unwrap();
        if socket.state == State::Established {
            self.send(flow, socket.id, socket.peer, Flags::Fin);
        }
    }

    /// Closes the listener and everything that is not established on the port.
    pub(crate) fn close_port(&mut self, port: u16) {
        self.listeners.retain(|local| local.port() != port);
        let unfinished = |flow: &Flow, socket: &Socket| {
            flow.0.port() == port && socket.state != State::Established
        };
        self.sockets
            .retain(|flow, socket| !unfinished(flow, socket));
    }

    pub(crate) fn peer_of(&self, id: SocketId) -> Option<SocketId> {
        let flow = self.flow(id)?;
        self.sockets.get(&flow).map(|socket| socket.peer)
    }

    fn flow(&self, id: SocketId) -> Option<Flow> {
        let mut sockets = self.sockets.iter();
        sockets
            .find(|(_, socket)| socket.id == id)
            .map(|(flow, _)| *flow)
    }

    pub(crate) fn timer(&mut self, timer: Timer) {
        let Some(flow) = self.flow(timer.socket) else {
            return;
        };
        let socket = &self.sockets[&flow];
        if (socket.state, socket.sends) != (timer.state, timer.sends) {
            return;
        }
        let most_sends = if socket.state == State::Established {
            15
        } else {
            6
        };
        if socket.sends < most_sends {
            self.transmit(flow);
        } else {
            self.fail(flow);
        }
    }

    /// Sends what the state calls for, and comes back to it.
    fn transmit(&mut self, flow: Flow) {
        let socket = self.sockets.get_mut(&flow).unwrap();
        let (flags, first_ms, longest_ms) = match socket.state {
            State::SynSent => (Flags::Syn, 1000, 32_000),
            State::SynReceived => (Flags::SynAck, 1000, 32_000),
            State::Established => match socket.outgoing.front() {
                Some(&(number, message)) => (Flags::Data(number, message), 300, 2000),
                None => return,
            },
        };
        let wait = (first_ms << socket.sends).min(longest_ms);
        socket.sends += 1;
        let timer = Timer {
            socket: socket.id,
            state: socket.state,
            sends: socket.sends,
        };
        let (id, peer) = (socket.id, socket.peer);
        self.output.push_back(Output::Timer(wait, timer));
        self.send(flow, id, peer, flags);
    }

    fn send(&mut self, (src, dst): Flow, seq: SocketId, ack: SocketId, flags: Flags) {
        self.output.push_back(Output::Send(Segment {
            src,
            dst,
            seq,
            ack,
            flags,
        }));
    }

    fn fail(&mut self, flow: Flow) {
        let socket = self.sockets.remove(&flow).unwrap();
        let event = match socket.state {
            State::Established => Event::Lost(socket.id),
            _ if socket.passive => return,
            _ => Event::DialFailed(socket.id),
        };
        self.output.push_back(Output::Event(event));
    }

    pub(crate) fn receive(&mut self, segment: Segment, fresh: SocketId) {
        let flow = (segment.dst, segment.src);
        let Some(socket) = self.sockets.get(&flow) else {
            if segment.flags == Flags::Syn && self.listeners.contains(&segment.dst) {
                let mut socket = Socket::new(fresh, segment.seq, State::SynReceived);
                socket.passive = true;
                self.sockets.insert(flow, socket);
                self.transmit(flow);
            } else {
                self.output.extend(segment.refusal().map(Output::Send));
            }
            return;
        };
        match socket.state {
            State::SynSent => self.receive_in_syn_sent(flow, segment),
            State::SynReceived | State::Established => self.receive_synchronised(flow, segment),
        }
    }

    fn receive_in_syn_sent(&mut self, flow: Flow, segment: Segment) {
        let socket = self.sockets.get_mut(&flow).unwrap();
        match segment.flags {
            Flags::Icmp => self.fail(flow),
            Flags::Rst if segment.ack == socket.id => self.fail(flow),
            Flags::Rst => {}
            Flags::Syn => {
                socket.peer = segment.seq;
                socket.state = State::SynReceived;
                socket.sends = 0;
                self.transmit(flow);
            }
            Flags::SynAck if segment.ack == socket.id => {
                socket.peer = segment.seq;
                let (id, peer) = (socket.id, socket.peer);
                self.send(flow, id, peer, Flags::Ack);
                self.establish(flow);
            }
            _ => self.output.extend(segment.refusal().map(Output::Send)),
        }
    }

    fn receive_synchronised(&mut self, flow: Flow, segment: Segment) {
        let socket = self.sockets.get_mut(&flow).unwrap();
        let (id, peer, state) = (socket.id, socket.peer, socket.state);
        let current = segment.seq == peer && segment.ack == id;
        match segment.flags {
            Flags::Icmp if state == State::SynReceived && !socket.passive => self.fail(flow),
            // Soft once the connection stands. An acknowledgement out of place
            // is not answered, or two sockets would never stop.
            Flags::Icmp => {}
            Flags::Ack if !current => {}
            Flags::Rst if segment.seq == peer => self.fail(flow),
            Flags::Rst => {}
            Flags::Syn if segment.seq == peer && state == State::SynReceived => {
                self.send(flow, id, peer, Flags::SynAck);
            }
            _ if !current => self.send(flow, id, peer, Flags::Ack),
            flags => {
                if flags == Flags::SynAck {
                    self.send(flow, id, peer, Flags::Ack);
                }
                if state == State::SynReceived {
                    self.establish(flow);
                }
                self.receive_payload(flow, flags);
            }
        }
    }

    fn establish(&mut self, flow: Flow) {
        let socket = self.sockets.get_mut(&flow).unwrap();
        socket.state = State::Established;
        socket.sends = 0;
        let event = if socket.passive {
            Event::Accepted(socket.id, flow.0, flow.1)
        } else {
            Event::Connected(socket.id)
        };
        self.output.push_back(Output::Event(event));
    }

    fn receive_payload(&mut self, flow: Flow, flags: Flags) {
        let socket = self.sockets.get_mut(&flow).unwrap();
        let (id, peer) = (socket.id, socket.peer);
        match flags {
            Flags::Data(number, message) => {
                if number == socket.received + 1 {
                    socket.received = number;
                    let event = Event::Received(id, message);
                    self.output.push_back(Output::Event(event));
                }
                self.send(flow, id, peer, Flags::DataAck(number));
            }
            Flags::DataAck(number)
                if socket.outgoing.front().is_some_and(|next| next.0 == number) =>
            {
                socket.outgoing.pop_front();
                socket.sends = 0;
                self.transmit(flow);
            }
            Flags::Fin => self.fail(flow),
            _ => {}
        }
    }
}

impl Socket {
    fn new(id: SocketId, peer: SocketId, state: State) -> Self {
        Self {
            id,
            peer,
            passive: false,
            state,
            sends: 0,
            outgoing: VecDeque::new(),
            queued: 0,
            received: 0,
        }
    }
}
