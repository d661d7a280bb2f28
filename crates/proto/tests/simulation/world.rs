//! Two parties, the networks between them, and the server that introduces
//! them, on one virtual clock.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use pinhole_proto::agent::{Agent, PathKind, PathPolicy, Round, Timing};
use pinhole_proto::candidate::{Candidate, CandidateKind, LoopbackAddresses, predict};
use pinhole_proto::rendezvous::Role;

use super::kernel::{Flags, Message, Millis, Segment, SocketId, Timer};
use super::nat::{Nat, NatKind, Unsolicited};
use super::party::{Carrier, Party};
use super::random::Random;

/// What becomes of a relay connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RelayModel {
    NotOffered,
    Works,
    Fails,
    /// Neither comes up nor fails.
    Hangs,
}

/// How an address that is not the peer's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StrangerModel {
    /// Accepts and says nothing.
    Silent,
    /// Accepts and answers a ClientHello with something else.
    Garbage,
    /// Accepts and closes at the first byte.
    Closes,
}

#[derive(Debug, Clone)]
pub(crate) struct Site {
    pub(crate) nat: NatKind,
    /// A stateful firewall for IPv6, if there is IPv6.
    pub(crate) firewall: Option<NatKind>,
    pub(crate) hairpins: bool,
    /// To the middle of the internet.
    pub(crate) delay: Millis,
    /// Connections of other machines there, between what the server observes and
    /// the dials.
    pub(crate) others: u16,
}

/// Everything that a run depends on.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) sites: [Site; 2],
    pub(crate) same_site: bool,
    pub(crate) shares_host: bool,
    pub(crate) policy: [PathPolicy; 2],
    pub(crate) relay: RelayModel,
    pub(crate) loss_percent: u64,
    pub(crate) jitter: Millis,
    /// How much later the second party begins.
    pub(crate) skew: Millis,
    /// Both LANs have a device with the host address of the other party.
    pub(crate) double: Option<StrangerModel>,
    /// Connections made from elsewhere to every port, per second.
    pub(crate) strangers_per_second: u64,
}

#[derive(Debug)]
pub(crate) enum Happening {
    /// A segment comes to where its destination address lives.
    Arrival(Segment),
    SocketTimer(usize, Timer),
    Wake(usize),
    Introduced(usize, Round),
    RelayUp(usize, u8),
    RelayDown(usize, u8),
    RelayMessage(usize, u8, Message),
    RelayClosed(usize, u8),
    StrangerSyn(SocketAddr),
}

struct Scheduled(Millis, u64, Happening);

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// How a run ended for one party.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    /// When there was a path.
    pub(crate) first_at: Millis,
    /// When there was the one that remained.
    pub(crate) at: Millis,
    /// When the agent came to rest.
    pub(crate) ended_at: Millis,
    pub(crate) round: u8,
    pub(crate) path: Option<PathKind>,
}

pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) now: Millis,
    epoch: Instant,
    schedule: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
    sockets_made: SocketId,
    random: Random,
    nats: Vec<Nat>,
    firewalls: Vec<Option<Nat>>,
    pub(crate) parties: [Party; 2],
    relay_opened: HashMap<u8, usize>,
}

const SERVER: &str = "203.0.113.1:4444";
const SERVER_SECOND: &str = "203.0.113.1:4445";
const SERVER_V6: &str = "[2001:db8:ffff::1]:4444";

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl World {
    pub(crate) fn new(scenario: Scenario) -> Self {
        let publics = [ip("198.51.100.1"), ip("198.51.100.2")];
        let v6 = [ip("2001:db8:a::1"), ip("2001:db8:b::1")];
        let roles = [Role::Controlling, Role::Controlled];
        let site_of = |party: usize| if scenario.same_site { 0 } else { party };
        let party = |index: usize| {
            let site = &scenario.sites[site_of(index)];
            let natted = site.nat.mapping.is_some() || scenario.same_site;
            let private = [ip("192.168.1.10"), ip("192.168.1.20")][index];
            Party::new(
                index,
                Agent::new(roles[index], scenario.policy[index], Timing::default()),
                if natted { private } else { publics[index] },
                site.firewall.map(|_| v6[index]),
            )
        };
        let parties = [party(0), party(1)];
        let sites = scenario.sites.iter().zip(publics);
        let nats = sites
            .map(|(site, public)| Nat::new(site.nat, public))
            .collect();
        let firewalls = scenario.sites.iter().zip(v6);
        let firewalls = firewalls.map(|(site, ip)| site.firewall.map(|kind| Nat::new(kind, ip)));
        let mut world = Self {
            now: 0,
            epoch: Instant::now(),
            schedule: BinaryHeap::new(),
            scheduled: 0,
            sockets_made: 0,
            random: Random::new(scenario.seed),
            nats,
            firewalls: firewalls.collect(),
            parties,
            relay_opened: HashMap::new(),
            scenario,
        };
        world.introduce(1);
        world
    }

    /// Runs until both parties have ended and what is under way has arrived.
    pub(crate) fn run(&mut self) {
        let limit = 90_000;
        let mut quiet_at = limit;
        while let Some(Reverse(Scheduled(at, _, happening))) = self.schedule.pop() {
            if at > quiet_at {
                break;
            }
            self.now = at;
            self.handle(happening);
            if quiet_at == limit && self.parties.iter().all(|party| party.ending.is_some()) {
                quiet_at = self.now + 3000;
            }
        }
    }

    pub(crate) fn instant(&self) -> Instant {
        self.at(self.now)
    }

    fn at(&self, ms: Millis) -> Instant {
        self.epoch + Duration::from_millis(ms)
    }

    pub(crate) fn millis(&self, at: Instant) -> Millis {
        // Up, so that a wake-up is never early.
        let micros = at.duration_since(self.epoch).as_micros();
        u64::try_from(micros.div_ceil(1000)).unwrap()
    }

    pub(crate) fn after(&mut self, wait: Millis, happening: Happening) {
        self.scheduled += 1;
        let scheduled = Scheduled(self.now + wait, self.scheduled, happening);
        self.schedule.push(Reverse(scheduled));
    }

    pub(crate) fn fresh_socket(&mut self) -> SocketId {
        self.sockets_made += 1;
        self.sockets_made
    }

    fn handle(&mut self, happening: Happening) {
        match happening {
            Happening::Arrival(segment) => self.arrive(segment),
            Happening::SocketTimer(party, timer) => {
                self.parties[party].kernel.timer(timer);
                self.settle(party);
            }
            Happening::Wake(party) => self.wake(party),
            Happening::Introduced(party, round) => self.begin_round(party, &round),
            Happening::RelayUp(party, round) => self.relay_up(party, round),
            Happening::RelayDown(party, round) => self.relay_down(party, round),
            Happening::RelayMessage(party, round, message) => {
                self.relay_message(party, round, message);
            }
            Happening::RelayClosed(party, round) => self.relay_closed(party, round),
            Happening::StrangerSyn(target) => self.stranger_syn(target),
        }
    }

    // --- the server -------------------------------------------------------

    fn rtt(&self, party: usize) -> Millis {
        2 * self.scenario.sites[self.site(party)].delay + 2
    }

    /// Both sides take a fresh port, have it observed, and are introduced.
    pub(crate) fn introduce(&mut self, number: u8) {
        let preparation = 2 * (self.rtt(0) + self.rtt(1));
        let local = [self.gather(0, number), self.gather(1, number)];
        for party in 0..2 {
            let other = &local[1 - party];
            let shares = self.scenario.shares_host || self.scenario.same_site;
            let told = |one: &&Candidate| {
                shares || one.kind != CandidateKind::Host || one.address.is_ipv6()
            };
            let relay_only = self.scenario.policy[1 - party] == PathPolicy::RelayOnly;
            let remote: Vec<Candidate> = other.iter().filter(told).copied().collect();
            let start = preparation + 100 + self.scenario.skew * party as u64;
            let round = Round {
                number,
                local: local[party].clone(),
                remote: if relay_only { Vec::new() } else { remote },
                relay: self.scenario.relay != RelayModel::NotOffered
                    && !self.scenario.policy.contains(&PathPolicy::DirectOnly),
                start_at: self.at(self.now + start),
                loopback: LoopbackAddresses::Refused,
            };
            let wait = preparation + self.random.between(0, 100);
            self.after(wait, Happening::Introduced(party, round));
        }
        if let Some(pause) = 1000u64.checked_div(self.scenario.strangers_per_second) {
            let targets: Vec<SocketAddr> = local.iter().flatten().map(|one| one.address).collect();
            for at in (0..5000).step_by(usize::try_from(pause).unwrap()) {
                let target = self.random.pick(&targets);
                self.after(preparation + at, Happening::StrangerSyn(target));
            }
        }
    }

    fn gather(&mut self, party: usize, number: u8) -> Vec<Candidate> {
        let port = 40_000 + u16::from(number) * 10 + u16::try_from(party).unwrap();
        let candidate = |kind, address| Candidate { kind, address };
        let host = SocketAddr::new(self.parties[party].v4, port);
        let server = SERVER.parse().unwrap();
        let site = self.site(party);
        let second = SERVER_SECOND.parse().unwrap();
        let observed =
            [server, second].map(|server| self.nats[site].outbound(host, server, &mut self.random));
        let mut gathered = vec![
            candidate(CandidateKind::Host, host),
            candidate(CandidateKind::ServerReflexive, observed[0]),
        ];
        let predicted = predict(observed[0], observed[1]);
        gathered.extend(
            predicted
                .into_iter()
                .map(|address| candidate(CandidateKind::Predicted, address)),
        );
        if let Some(v6) = self.parties[party].v6 {
            let host = SocketAddr::new(v6, port);
            gathered.push(candidate(CandidateKind::Host, host));
            if let Some(firewall) = &mut self.firewalls[site] {
                firewall.outbound(host, SERVER_V6.parse().unwrap(), &mut self.random);
            }
        }
        let another = SocketAddr::new(ip("192.168.1.77"), port);
        let others = self.scenario.sites[site].others;
        self.nats[site].serve_another(another, others, &mut self.random);
        gathered
    }

    pub(crate) fn open_relay(&mut self, party: usize, round: u8) {
        match self.scenario.relay {
            RelayModel::NotOffered | RelayModel::Hangs => {}
            RelayModel::Fails => self.after(self.rtt(party), Happening::RelayDown(party, round)),
            RelayModel::Works => {
                let opened = self.relay_opened.entry(round).or_default();
                *opened += 1;
                if *opened == 2 {
                    // Together: what one side says waits for the other.
                    let wait = 2 * self.rtt(0).max(self.rtt(1));
                    for party in 0..2 {
                        self.after(wait, Happening::RelayUp(party, round));
                    }
                }
            }
        }
    }

    pub(crate) fn relay_delay(&self) -> Millis {
        (self.rtt(0) + self.rtt(1)) / 2
    }

    // --- the network ------------------------------------------------------

    fn site(&self, party: usize) -> usize {
        if self.scenario.same_site { 0 } else { party }
    }

    fn holder(&self, address: SocketAddr) -> Option<usize> {
        let holds = |party: &Party| party.v4 == address.ip() || party.v6 == Some(address.ip());
        self.parties.iter().position(holds)
    }

    fn is_private(address: SocketAddr) -> bool {
        matches!(address.ip(), IpAddr::V4(v4) if v4.is_private())
    }

    /// `party` sends a segment.
    pub(crate) fn send(&mut self, party: usize, segment: Segment) {
        let neighbour = self.holder(segment.dst);
        if neighbour.is_some_and(|other| self.site(other) == self.site(party)) {
            return self.after(1, Happening::Arrival(segment));
        }
        if Self::is_private(segment.dst) {
            return self.send_to_double(party, segment);
        }
        let site = self.site(party);
        let nat = match (segment.dst.is_ipv6(), &mut self.firewalls[site]) {
            (true, Some(firewall)) => firewall,
            (true, None) => return,
            (false, _) => &mut self.nats[site],
        };
        let src = nat.outbound(segment.src, segment.dst, &mut self.random);
        let hairpin = nat.public == segment.dst.ip();
        if hairpin && !self.scenario.sites[site].hairpins {
            return;
        }
        self.cross_wan(Segment { src, ..segment });
    }

    fn cross_wan(&mut self, segment: Segment) {
        if self.random.percent(self.scenario.loss_percent) {
            return;
        }
        let delay: Millis = self.scenario.sites.iter().map(|site| site.delay).sum();
        let jitter = self.random.between(0, self.scenario.jitter);
        self.after(delay + jitter, Happening::Arrival(segment));
    }

    /// A device in the sender's own LAN with the address meant for the peer.
    fn send_to_double(&mut self, party: usize, segment: Segment) {
        let Some(model) = self.scenario.double else {
            if self.scenario.seed.is_multiple_of(2) {
                let icmp = segment.answer(0, 0, Flags::Icmp);
                self.after(2, Happening::Arrival(icmp));
            }
            return;
        };
        let id = 1_000_000 + u32::try_from(party).unwrap();
        let reply = match (segment.flags, model) {
            (Flags::Syn, _) => segment.answer(id, segment.seq, Flags::SynAck),
            (Flags::Data(..), StrangerModel::Garbage) => {
                segment.answer(id, segment.seq, Flags::Data(1, Message::Garbage))
            }
            (Flags::Data(..), StrangerModel::Closes) => segment.answer(id, segment.seq, Flags::Fin),
            (Flags::Data(number, _), StrangerModel::Silent) => {
                segment.answer(id, segment.seq, Flags::DataAck(number))
            }
            _ => return,
        };
        self.after(2, Happening::Arrival(reply));
    }

    fn arrive(&mut self, segment: Segment) {
        if let Some(stranger) = Self::stranger_answer(&segment) {
            return self.after(5, Happening::Arrival(stranger));
        }
        let holder = self.holder(segment.dst);
        let in_lan = Self::is_private(segment.src)
            || holder
                .zip(self.holder(segment.src))
                .is_some_and(|(a, b)| self.site(a) == self.site(b));
        if let (Some(party), true) = (holder, in_lan) {
            return self.deliver(party, segment);
        }
        let firewalls = self.firewalls.iter_mut().flatten();
        let mut boxes = self.nats.iter_mut().chain(firewalls);
        let behind_firewall = |nat: &Nat| nat.public == segment.dst.ip();
        let Some(nat) = boxes.find(|nat| behind_firewall(nat)) else {
            return;
        };
        // Both sides of one site share the box of the first; the IPv6 firewall
        // of a site holds the address of its only party.
        let unsolicited = nat.kind.unsolicited;
        match nat.inbound(segment.src, segment.dst) {
            Some(dst) => {
                if segment.flags == Flags::Rst {
                    nat.forget(segment.src, segment.dst);
                }
                if let Some(party) = self.holder(dst) {
                    self.deliver(party, Segment { dst, ..segment });
                }
            }
            None if segment.flags == Flags::Syn => self.turn_away(segment, unsolicited),
            None => {}
        }
    }

    fn turn_away(&mut self, segment: Segment, how: Unsolicited) {
        let answer = match how {
            Unsolicited::Silence => None,
            Unsolicited::Rst => segment.refusal(),
            Unsolicited::Icmp => Some(segment.answer(0, segment.seq, Flags::Icmp)),
        };
        if let Some(answer) = answer {
            self.cross_wan(answer);
        }
    }

    fn deliver(&mut self, party: usize, segment: Segment) {
        let fresh = self.fresh_socket();
        self.parties[party].kernel.receive(segment, fresh);
        self.settle(party);
    }

    // --- strangers --------------------------------------------------------

    const STRANGER: &str = "192.0.2.66";
    const STRANGER_IN_LAN: &str = "192.168.1.66";

    /// Somebody connects, completes TCP's handshake, and says nothing.
    fn stranger_syn(&mut self, target: SocketAddr) {
        let from = if Self::is_private(target) {
            Self::STRANGER_IN_LAN
        } else {
            Self::STRANGER
        };
        let from = if target.is_ipv6() {
            "2001:db8:66::1"
        } else {
            from
        };
        let port = u16::try_from(self.random.between(1024, 65535)).unwrap();
        let syn = Segment {
            src: SocketAddr::new(ip(from), port),
            dst: target,
            seq: 2_000_000 + u32::from(port),
            ack: 0,
            flags: Flags::Syn,
        };
        self.after(1, Happening::Arrival(syn));
    }

    fn stranger_answer(segment: &Segment) -> Option<Segment> {
        let strangers = [Self::STRANGER, Self::STRANGER_IN_LAN, "2001:db8:66::1"];
        let to_stranger = strangers.iter().any(|one| ip(one) == segment.dst.ip());
        (to_stranger && segment.flags == Flags::SynAck)
            .then(|| segment.answer(segment.ack, segment.seq, Flags::Ack))
    }

    /// Whether two sockets are the two ends of one connection.
    pub(crate) fn same_connection(&self) -> bool {
        let [a, b] = &self.parties;
        match (a.selected, b.selected) {
            (Some(Carrier::Socket(a_end)), Some(Carrier::Socket(b_end))) => {
                a_end != b_end
                    && a.kernel.peer_of(a_end) == Some(b_end)
                    && b.kernel.peer_of(b_end) == Some(a_end)
            }
            (Some(Carrier::Relay(a_round)), Some(Carrier::Relay(b_round))) => a_round == b_round,
            _ => false,
        }
    }
}
