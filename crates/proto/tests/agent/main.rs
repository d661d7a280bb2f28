//! The agent's rules one by one, in the order of its life. What they add up to
//! between two agents is shown in `simulation`.

mod order;
mod selection;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pinhole_proto::agent::{
    Action, Agent, CheckId, ConnectionId, DialFailure, PathKind, PathPolicy, Round, Timing,
};
use pinhole_proto::candidate::{Candidate, CandidateKind, LoopbackAddresses};
use pinhole_proto::rendezvous::Role;

const OWN_HOST: &str = "192.168.1.10:40000";
const OWN_PUBLIC: &str = "198.51.100.1:40000";
const PEER_HOST: &str = "192.168.1.20:40001";
const PEER_PUBLIC: &str = "198.51.100.2:40001";

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn candidates(addresses: &[&str]) -> Vec<Candidate> {
    let one = |text: &&str| Candidate {
        kind: CandidateKind::Host,
        address: address(text),
    };
    addresses.iter().map(one).collect()
}

/// An agent in its first round, with a clock.
struct Driven {
    agent: Agent,
    now: Instant,
}

impl Driven {
    fn new(role: Role, policy: PathPolicy, remote: &[&str], relay: bool) -> Self {
        let mut driven = Self {
            agent: Agent::new(role, policy, Timing::default()),
            now: Instant::now(),
        };
        driven.begin_round(1, remote, relay);
        driven
    }

    fn controlling(remote: &[&str]) -> Self {
        Self::new(Role::Controlling, PathPolicy::Auto, remote, false)
    }

    fn controlled(remote: &[&str]) -> Self {
        Self::new(Role::Controlled, PathPolicy::Auto, remote, false)
    }

    fn begin_round(&mut self, number: u8, remote: &[&str], relay: bool) {
        let round = Round {
            number,
            local: candidates(&[OWN_HOST, OWN_PUBLIC]),
            remote: candidates(remote),
            relay,
            start_at: self.now,
            loopback: LoopbackAddresses::Refused,
        };
        self.agent.handle_round(self.now, &round);
    }

    fn wait_ms(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.agent.handle_timeout(self.now);
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.agent.poll_action()).collect()
    }

    fn dials(&mut self) -> Vec<(CheckId, SocketAddr)> {
        let dial = |action| match action {
            Action::Dial { check, remote, .. } => Some((check, remote)),
            _ => None,
        };
        self.actions().into_iter().filter_map(dial).collect()
    }

    fn check(&mut self, remote: &str) -> CheckId {
        let dials = self.dials();
        let of = dials.iter().find(|dial| dial.1 == address(remote));
        of.expect("dialled").0
    }

    fn accept(&mut self, remote: &str) -> Option<ConnectionId> {
        self.agent.handle_accepted(self.now, 1, address(remote))
    }

    fn relay(&mut self) -> ConnectionId {
        let relay = self.agent.handle_relay_connected(self.now, 1);
        relay.expect("wanted")
    }

    fn connect(&mut self, check: CheckId) -> ConnectionId {
        let connection = self.agent.handle_connected(self.now, check);
        connection.expect("wanted")
    }
}

fn handshake(connection: ConnectionId) -> Action {
    Action::Handshake { connection }
}

fn selected(connection: ConnectionId, path: PathKind) -> Action {
    Action::Selected { connection, path }
}

#[test]
fn both_listen_and_dial_when_the_round_starts_and_not_before() {
    let mut driven = Driven {
        agent: Agent::new(Role::Controlled, PathPolicy::Auto, Timing::default()),
        now: Instant::now(),
    };
    let round = Round {
        number: 1,
        local: candidates(&[OWN_HOST]),
        remote: candidates(&[PEER_PUBLIC]),
        relay: true,
        start_at: driven.now + Duration::from_millis(70),
        loopback: LoopbackAddresses::Refused,
    };
    driven.agent.handle_round(driven.now, &round);
    let opening = [Action::Listen { round: 1 }, Action::OpenRelay { round: 1 }];
    assert_eq!(driven.actions(), opening);
    assert_eq!(driven.agent.poll_timeout(), Some(round.start_at));
    driven.wait_ms(69);
    assert_eq!(driven.dials(), []);
    driven.wait_ms(1);
    assert_eq!(driven.dials().len(), 1);
}

#[test]
fn only_admissible_remote_candidates_of_our_families_are_dialled_once_each() {
    let mut driven = Driven::controlling(&[
        PEER_PUBLIC,
        "[::ffff:198.51.100.2]:40001",
        OWN_HOST,
        "[::ffff:192.168.1.10]:40000",
        "127.0.0.1:40000",
        "198.51.100.2:22",
        "[2001:db8::2]:40001",
        PEER_HOST,
    ]);
    let dialled: Vec<SocketAddr> = driven.dials().iter().map(|dial| dial.1).collect();
    assert_eq!(dialled, [address(PEER_HOST), address(PEER_PUBLIC)]);
}

#[test]
fn no_more_than_eight_candidates_are_dialled() {
    let many: Vec<String> = (0..20)
        .map(|n| format!("198.51.100.2:{}", 2000 + n))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut driven = Driven::controlling(&many);
    assert_eq!(driven.dials().len(), Candidate::MAX_PER_SIDE);
}

#[test]
fn a_connection_with_ourselves_is_refused() {
    let mut driven = Driven::controlling(&[PEER_PUBLIC]);
    assert_eq!(driven.accept(OWN_PUBLIC), None);
    assert_eq!(driven.accept("[::ffff:192.168.1.10]:40000"), None);
    assert!(driven.accept("192.168.1.10:40001").is_some());
}

#[test]
fn a_pending_dial_is_held() {
    let mut driven = Driven::controlling(&[PEER_PUBLIC]);
    assert_eq!(driven.dials().len(), 1);
    for _ in 0..290 {
        driven.wait_ms(10);
        assert_eq!(driven.actions(), []);
    }
}

#[test]
fn a_failed_dial_is_repeated_at_once_but_not_faster_than_every_20_ms() {
    let mut driven = Driven::controlling(&[PEER_PUBLIC]);
    let check = driven.check(PEER_PUBLIC);
    driven
        .agent
        .handle_dial_failed(driven.now, check, DialFailure::Other);
    driven.wait_ms(19);
    assert_eq!(driven.dials(), []);
    driven.wait_ms(1);
    assert_eq!(driven.check(PEER_PUBLIC), check);
    driven.wait_ms(200);
    driven
        .agent
        .handle_dial_failed(driven.now, check, DialFailure::Other);
    assert_eq!(driven.check(PEER_PUBLIC), check);
}

#[test]
fn an_address_that_goes_on_refusing_is_knocked_at_slowly() {
    let mut driven = Driven::controlling(&[PEER_PUBLIC]);
    let mut dials = 0;
    for _ in 0..2_900 {
        for (check, _) in driven.dials() {
            dials += 1;
            driven
                .agent
                .handle_dial_failed(driven.now, check, DialFailure::Other);
        }
        driven.wait_ms(1);
    }
    assert!((50..60).contains(&dials), "{dials} dials");
}

#[test]
fn an_address_in_use_or_a_lost_connection_is_dialled_again_slowly() {
    let mut driven = Driven::controlling(&[PEER_PUBLIC]);
    let check = driven.check(PEER_PUBLIC);
    driven
        .agent
        .handle_dial_failed(driven.now, check, DialFailure::AddressInUse);
    driven.wait_ms(499);
    assert_eq!(driven.dials(), []);
    driven.wait_ms(1);
    let check = driven.check(PEER_PUBLIC);
    let connection = driven.connect(check);
    driven.agent.handle_connection_lost(driven.now, connection);
    driven.wait_ms(499);
    assert_eq!(driven.dials(), []);
    driven.wait_ms(1);
    assert_eq!(driven.check(PEER_PUBLIC), check);
}

#[test]
fn a_pair_that_fails_to_authenticate_gives_way_to_the_next() {
    let mut driven = Driven::controlling(&[PEER_PUBLIC, PEER_HOST]);
    let dials = driven.dials();
    let [(lan, _), (punched, _)] = dials[..] else {
        panic!("{dials:?}")
    };
    let (lan, punched) = (driven.connect(lan), driven.connect(punched));
    assert_eq!(driven.actions(), [handshake(lan)]);
    driven.agent.handle_handshake_failed(driven.now, lan);
    assert_eq!(driven.actions(), [handshake(punched)]);
    driven.agent.handle_authenticated(driven.now, punched);
    let end = [selected(punched, PathKind::Punched), Action::Finished];
    assert_eq!(driven.actions(), end);
}

#[test]
fn a_silent_pair_gives_way_after_five_seconds() {
    let mut driven = Driven::controlling(&[PEER_PUBLIC, PEER_HOST]);
    let dials = driven.dials();
    let [(lan, _), (punched, _)] = dials[..] else {
        panic!("{dials:?}")
    };
    let (lan, punched) = (driven.connect(lan), driven.connect(punched));
    driven.wait_ms(4999);
    assert_eq!(driven.actions(), [handshake(lan)]);
    driven.wait_ms(1);
    let close = Action::Close { connection: lan };
    assert_eq!(driven.actions(), [close, handshake(punched)]);
}

#[test]
fn a_handshake_with_a_stranger_is_given_up_for_the_peer() {
    let mut driven = Driven::controlling(&[PEER_PUBLIC]);
    let check = driven.check(PEER_PUBLIC);
    let stranger = driven.accept("192.0.2.1:5000").expect("wanted");
    driven.wait_ms(50);
    assert_eq!(driven.actions(), [handshake(stranger)]);
    let other_stranger = driven.accept("192.0.2.1:5001").expect("wanted");
    assert_ne!(stranger, other_stranger);
    assert_eq!(driven.actions(), []);
    let peer = driven.connect(check);
    let close = Action::Close {
        connection: stranger,
    };
    assert_eq!(driven.actions(), [close, handshake(peer)]);
}

#[test]
fn strangers_push_out_strangers_but_not_the_peer() {
    let mut driven = Driven::controlled(&[PEER_PUBLIC]);
    let related = driven.accept("198.51.100.2:60000").expect("wanted");
    let mut strangers = Vec::new();
    for port in 0..20 {
        let stranger = driven.accept(&format!("192.0.2.1:{}", 5000 + port));
        strangers.push(stranger.expect("wanted"));
    }
    let closed = |action| match action {
        Action::Close { connection } => Some(connection),
        _ => None,
    };
    let closed: Vec<ConnectionId> = driven.actions().into_iter().filter_map(closed).collect();
    assert_eq!(
        closed,
        strangers[..5],
        "the oldest, beyond {}",
        Agent::MAX_ACCEPTED
    );
    driven.agent.handle_authenticated(driven.now, related);
    let first = driven.actions().into_iter().next();
    assert_eq!(first, Some(selected(related, PathKind::Punched)));
}

#[test]
fn a_full_house_of_better_connections_refuses_strangers() {
    let mut driven = Driven::controlled(&[PEER_PUBLIC]);
    for port in 0..16 {
        let related = driven.accept(&format!("198.51.100.2:{}", 50_000 + port));
        assert!(related.is_some());
    }
    assert_eq!(driven.accept("192.0.2.1:5000"), None);
}

#[test]
fn whoever_may_be_the_peer_pushes_out_a_stranger_however_new() {
    let mut driven = Driven::controlled(&[PEER_PUBLIC]);
    for port in 0..15 {
        let related = driven.accept(&format!("198.51.100.2:{}", 50_000 + port));
        assert!(related.is_some());
    }
    let stranger = driven.accept("192.0.2.1:5000").expect("wanted");
    assert!(driven.accept("198.51.100.2:60000").is_some());
    let close = Action::Close {
        connection: stranger,
    };
    assert!(driven.actions().contains(&close));
}

#[test]
fn the_controlled_side_awaits_the_hello_on_every_pair() {
    let mut driven = Driven::controlled(&[PEER_PUBLIC, PEER_HOST]);
    let dials = driven.dials();
    let connections: Vec<ConnectionId> = dials.iter().map(|dial| driven.connect(dial.0)).collect();
    let awaited: Vec<Action> = connections.iter().copied().map(handshake).collect();
    assert_eq!(driven.actions(), awaited);
    driven.wait_ms(15_000);
    assert!(driven.actions().contains(&Action::Close {
        connection: connections[0]
    }));
}

#[test]
fn what_the_policies_exclude_fails_at_once() {
    for (policy, remote, relay) in [
        (PathPolicy::RelayOnly, &[PEER_PUBLIC][..], false),
        (PathPolicy::DirectOnly, &[], true),
        (PathPolicy::Auto, &[], false),
    ] {
        let mut driven = Driven::new(Role::Controlled, policy, remote, relay);
        assert_eq!(driven.actions(), [Action::Failed]);
        assert_eq!(driven.agent.poll_timeout(), None);
    }
    let direct = PathPolicy::DirectOnly;
    let mut driven = Driven::new(Role::Controlling, direct, &[PEER_PUBLIC], true);
    assert!(!driven.actions().contains(&Action::OpenRelay { round: 1 }));
}

#[test]
fn a_round_without_success_is_followed_by_one_from_a_fresh_port() {
    let mut driven = Driven::controlling(&[PEER_PUBLIC]);
    let check = driven.check(PEER_PUBLIC);
    driven.wait_ms(3000);
    assert_eq!(driven.actions(), [Action::RequestRound { round: 2 }]);
    driven.wait_ms(100);
    driven.begin_round(2, &["198.51.100.2:40002"], false);
    let actions = driven.actions();
    assert_eq!(
        actions[..2],
        [Action::CloseRound { round: 1 }, Action::Listen { round: 2 }]
    );
    assert_eq!(driven.agent.handle_connected(driven.now, check), None);
    driven.begin_round(2, &[PEER_PUBLIC], false);
    assert_eq!(driven.actions(), [], "the same round twice");
}

#[test]
fn connections_outlive_their_round() {
    let mut driven = Driven::controlled(&[PEER_PUBLIC]);
    let check = driven.check(PEER_PUBLIC);
    let connection = driven.connect(check);
    driven.wait_ms(3000);
    driven.begin_round(2, &["198.51.100.2:40002"], false);
    driven.agent.handle_authenticated(driven.now, connection);
    let expected = selected(connection, PathKind::Punched);
    assert!(driven.actions().contains(&expected));
}

#[test]
fn nothing_is_asked_for_after_the_end() {
    let mut driven = Driven::controlled(&[PEER_PUBLIC, PEER_HOST]);
    let dials = driven.dials();
    let connection = driven.connect(dials[0].0);
    driven.agent.handle_authenticated(driven.now, connection);
    driven.actions();
    assert_eq!(driven.agent.handle_connected(driven.now, dials[1].0), None);
    assert_eq!(driven.accept("192.0.2.1:5000"), None);
    driven.begin_round(2, &[PEER_PUBLIC], true);
    driven.wait_ms(100_000);
    assert_eq!(driven.actions(), []);
    assert_eq!(driven.agent.poll_timeout(), None);
}

#[test]
fn a_side_left_alone_gives_up() {
    for role in [Role::Controlling, Role::Controlled] {
        let mut driven = Driven::new(role, PathPolicy::Auto, &[PEER_PUBLIC], true);
        let started = driven.now;
        while let Some(at) = driven.agent.poll_timeout() {
            assert!(at > driven.now);
            driven.now = at;
            driven.agent.handle_timeout(at);
        }
        assert_eq!(driven.actions().pop(), Some(Action::Failed));
        assert!(driven.now - started <= Timing::default().attempt);
    }
}

#[test]
fn a_path_is_named_after_where_it_leads() {
    let own = [
        "192.168.1.10:40000",
        "198.51.100.1:40000",
        "[2001:db8:1:2::a]:40000",
    ];
    for (remote, path) in [
        ("192.168.1.20:40001", PathKind::Lan),
        ("10.9.8.7:40001", PathKind::Lan),
        ("100.64.0.9:40001", PathKind::Lan),
        ("[fd00::9]:40001", PathKind::Lan),
        ("[2001:db8:1:2::b]:40001", PathKind::Lan),
        ("[2001:db8:1:3::b]:40001", PathKind::Ipv6),
        ("198.51.100.1:40001", PathKind::Lan),
        ("198.51.100.2:40001", PathKind::Punched),
    ] {
        let now = Instant::now();
        let mut agent = Agent::new(Role::Controlled, PathPolicy::Auto, Timing::default());
        let round = Round {
            number: 1,
            local: candidates(&own),
            remote: candidates(&[remote]),
            relay: false,
            start_at: now,
            loopback: LoopbackAddresses::Refused,
        };
        agent.handle_round(now, &round);
        let connection = agent.handle_accepted(now, 1, address(remote));
        agent.handle_authenticated(now, connection.expect("wanted"));
        let named = std::iter::from_fn(|| agent.poll_action()).find_map(|action| match action {
            Action::Selected { path, .. } => Some(path),
            _ => None,
        });
        assert_eq!(named, Some(path), "{remote}");
    }
}

#[test]
fn a_mapped_port_names_the_path_on_both_sides() {
    let mapped = |text| Candidate {
        kind: CandidateKind::PortMapped,
        address: address(text),
    };
    let selected = |local: Vec<Candidate>, remote: Vec<Candidate>, accepts: bool| {
        let now = Instant::now();
        let mut agent = Agent::new(Role::Controlled, PathPolicy::Auto, Timing::default());
        let round = Round {
            number: 1,
            local,
            remote,
            relay: false,
            start_at: now,
            loopback: LoopbackAddresses::Refused,
        };
        agent.handle_round(now, &round);
        let dialled = std::iter::from_fn(|| agent.poll_action()).find_map(|action| match action {
            Action::Dial { check, .. } => Some(check),
            _ => None,
        });
        let connection = if accepts {
            // Behind a NAT that gives each destination another port.
            agent.handle_accepted(now, 1, address("198.51.100.2:50123"))
        } else {
            agent.handle_connected(now, dialled.expect("a dial"))
        };
        agent.handle_authenticated(now, connection.expect("wanted"));
        match std::iter::from_fn(|| agent.poll_action()).last() {
            Some(Action::Selected { path, .. }) => path,
            other => panic!("{other:?}"),
        }
    };
    let (own, peer) = (candidates(&[OWN_HOST]), candidates(&[PEER_PUBLIC]));
    let dialling = selected(own.clone(), vec![mapped(PEER_PUBLIC)], false);
    assert_eq!(dialling, PathKind::Mapped);
    let own_mapped = [own, vec![mapped(OWN_PUBLIC)]].concat();
    assert_eq!(
        selected(own_mapped.clone(), peer.clone(), true),
        PathKind::Mapped
    );
    // What we dialled came up through the other side's NAT, not through ours.
    assert_eq!(selected(own_mapped, peer, false), PathKind::Punched);
}
