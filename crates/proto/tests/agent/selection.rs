//! Which connection is selected, when, and when the session moves.

use std::time::Instant;

use pinhole_proto::agent::{Action, Agent, CheckId, PathKind, PathPolicy, Round, Timing};
use pinhole_proto::candidate::{Candidate, CandidateKind, LoopbackAddresses};
use pinhole_proto::rendezvous::Role;

use crate::{
    Driven, OWN_HOST, OWN_PUBLIC, PEER_HOST, PEER_PUBLIC, address, candidates, handshake, selected,
};

/// What comes up here and authenticates is selected at once, and ends the attempt.
fn finishes_on(driven: &mut Driven, check: CheckId, path: PathKind) {
    let connection = driven.connect(check);
    driven.agent.handle_authenticated(driven.now, connection);
    let end = [
        handshake(connection),
        selected(connection, path),
        Action::Finished,
    ];
    assert_eq!(driven.actions(), end);
}

#[test]
fn a_better_class_may_come_while_the_first_pair_shakes_hands() {
    let mut driven = Driven::controlling(&[PEER_PUBLIC, PEER_HOST]);
    let dials = driven.dials();
    let [(lan, _), (punched, _)] = dials[..] else {
        panic!("{dials:?}")
    };
    let punched = driven.connect(punched);
    assert_eq!(driven.actions(), [handshake(punched)], "at once");
    driven.wait_ms(90);
    let lan = driven.connect(lan);
    assert_eq!(driven.actions(), [handshake(lan)], "beside the other");
    driven.agent.handle_authenticated(driven.now, punched);
    assert_eq!(driven.actions(), [], "held for the better one");
    driven.agent.handle_authenticated(driven.now, lan);
    let close = Action::Close {
        connection: punched,
    };
    let end = [selected(lan, PathKind::Lan), close, Action::Finished];
    assert_eq!(driven.actions(), end);
}

#[test]
fn what_is_authenticated_is_held_for_as_long_as_it_took() {
    for (took_ms, held_ms) in [(30, 60), (300, 300), (2_700, 1_000)] {
        let mut driven = Driven::controlling(&[PEER_PUBLIC, PEER_HOST]);
        let dials = driven.dials();
        let [(lan, _), (punched, _)] = dials[..] else {
            panic!("{dials:?}")
        };
        let punched = driven.connect(punched);
        driven.connect(lan);
        driven.actions();
        driven.wait_ms(took_ms);
        driven.agent.handle_authenticated(driven.now, punched);
        driven.wait_ms(held_ms - 1);
        assert_eq!(driven.actions(), [], "{took_ms}");
        driven.wait_ms(1);
        let expected = selected(punched, PathKind::Punched);
        assert_eq!(driven.actions(), [expected], "{took_ms}");
    }
}

#[test]
fn without_a_better_handshake_under_way_nothing_is_held() {
    let mut driven = Driven::controlling(&[PEER_PUBLIC, PEER_HOST]);
    let punched = driven.check(PEER_PUBLIC);
    let punched = driven.connect(punched);
    driven.actions();
    driven.wait_ms(100);
    driven.agent.handle_authenticated(driven.now, punched);
    let expected = selected(punched, PathKind::Punched);
    assert_eq!(driven.actions(), [expected]);
}

#[test]
fn a_session_moves_to_its_own_network_while_the_round_lasts() {
    let mut driven = Driven::controlling(&[PEER_PUBLIC, PEER_HOST]);
    let dials = driven.dials();
    let [(lan, _), (punched, _)] = dials[..] else {
        panic!("{dials:?}")
    };
    let punched = driven.connect(punched);
    driven.agent.handle_authenticated(driven.now, punched);
    driven.actions();
    driven.wait_ms(2000);
    finishes_on(&mut driven, lan, PathKind::Lan);

    let mut driven = Driven::controlling(&[PEER_PUBLIC, PEER_HOST]);
    let punched = driven.check(PEER_PUBLIC);
    let punched = driven.connect(punched);
    driven.agent.handle_authenticated(driven.now, punched);
    driven.actions();
    driven.wait_ms(2999);
    assert_eq!(driven.actions(), []);
    driven.wait_ms(1);
    assert_eq!(driven.actions(), [Action::Finished]);
}

#[test]
fn a_session_on_the_relay_moves_to_the_first_direct_path() {
    let mut driven = Driven::new(Role::Controlling, PathPolicy::Auto, &[PEER_PUBLIC], true);
    let check = driven.check(PEER_PUBLIC);
    let relay = driven.relay();
    driven.wait_ms(60);
    driven.agent.handle_authenticated(driven.now, relay);
    driven.wait_ms(20);
    let expected = [handshake(relay), selected(relay, PathKind::Relay)];
    assert_eq!(driven.actions(), expected);
    finishes_on(&mut driven, check, PathKind::Punched);
}

#[test]
fn on_the_relay_the_rounds_go_on_without_another_relay() {
    let mut driven = Driven::new(Role::Controlling, PathPolicy::Auto, &[PEER_PUBLIC], true);
    let relay = driven.relay();
    driven.agent.handle_authenticated(driven.now, relay);
    driven.wait_ms(20);
    driven.actions();
    for round in 2..=Agent::MAX_ROUNDS {
        driven.wait_ms(3000);
        assert_eq!(driven.actions(), [Action::RequestRound { round }]);
        driven.begin_round(round, &[PEER_PUBLIC], true);
        let actions = driven.actions();
        assert!(!actions.contains(&Action::OpenRelay { round }), "{round}");
    }
    driven.wait_ms(3000);
    assert_eq!(driven.actions(), [Action::Finished]);
}

#[test]
fn an_improving_agent_wants_only_what_is_better() {
    let mut agent = Agent::improving(PathKind::Punched, Timing::default());
    let now = Instant::now();
    let round = Round {
        number: 1,
        local: candidates(&[OWN_HOST, OWN_PUBLIC]),
        remote: candidates(&[PEER_PUBLIC, PEER_HOST]),
        relay: true,
        start_at: now,
        loopback: LoopbackAddresses::Refused,
    };
    agent.handle_round(now, &round);
    let mut driven = Driven { agent, now };
    let dials = driven.dials();
    let [(lan, remote)] = dials[..] else {
        panic!("{dials:?}")
    };
    assert_eq!(remote, address(PEER_HOST));
    finishes_on(&mut driven, lan, PathKind::Lan);
}

#[test]
fn the_relay_shakes_hands_at_once_and_is_held_only_for_what_is_close() {
    // A direct path may still come up at all: held for a third.
    let mut driven = Driven::new(Role::Controlling, PathPolicy::Auto, &[PEER_PUBLIC], true);
    let relay = driven.relay();
    assert_eq!(driven.agent.handle_relay_connected(driven.now, 1), None);
    assert!(driven.actions().contains(&handshake(relay)));
    driven.wait_ms(150);
    driven.agent.handle_authenticated(driven.now, relay);
    driven.wait_ms(49);
    assert_eq!(driven.actions(), []);
    driven.wait_ms(1);
    assert_eq!(driven.actions(), [selected(relay, PathKind::Relay)]);

    // It came up meanwhile, and proves itself in time.
    let mut driven = Driven::new(Role::Controlling, PathPolicy::Auto, &[PEER_PUBLIC], true);
    let check = driven.check(PEER_PUBLIC);
    let relay = driven.relay();
    driven.wait_ms(100);
    let direct = driven.connect(check);
    driven.wait_ms(50);
    driven.agent.handle_authenticated(driven.now, relay);
    driven.wait_ms(49);
    driven.agent.handle_authenticated(driven.now, direct);
    let close = Action::Close { connection: relay };
    let end = [
        handshake(relay),
        handshake(direct),
        selected(direct, PathKind::Punched),
        close,
        Action::Finished,
    ];
    assert_eq!(driven.actions(), end);
}

/// Two behind one NAT, or with the server on their own network: one of them may be busy.
#[test]
fn two_on_one_network_do_not_begin_on_the_relay_for_a_moment_s_delay() {
    let seen = |at: &str| Candidate {
        kind: CandidateKind::ServerReflexive,
        address: address(at),
    };
    for (own, theirs, held_ms) in [
        (OWN_PUBLIC, "198.51.100.1:50000", 500),
        (OWN_HOST, PEER_HOST, 500),
        (OWN_PUBLIC, PEER_PUBLIC, 20),
        (OWN_HOST, PEER_PUBLIC, 20),
    ] {
        let mut driven = Driven {
            agent: Agent::new(Role::Controlling, PathPolicy::Auto, Timing::default()),
            now: Instant::now(),
        };
        let mut remote = candidates(&[PEER_HOST]);
        remote.insert(0, seen(theirs));
        let round = Round {
            number: 1,
            local: vec![seen(own)],
            remote,
            relay: true,
            start_at: driven.now,
            loopback: LoopbackAddresses::Refused,
        };
        driven.agent.handle_round(driven.now, &round);
        let relay = driven.relay();
        driven.agent.handle_authenticated(driven.now, relay);
        driven.actions();
        driven.wait_ms(held_ms - 1);
        let is_selected = |driven: &mut Driven| {
            let selected = selected(relay, PathKind::Relay);
            driven.actions().contains(&selected)
        };
        assert!(!is_selected(&mut driven), "{own} {theirs}");
        driven.wait_ms(1);
        assert!(is_selected(&mut driven), "{own} {theirs}");
    }
}

#[test]
fn a_slow_relay_is_waited_for_before_another_round() {
    let mut driven = Driven::new(Role::Controlling, PathPolicy::Auto, &[PEER_PUBLIC], true);
    driven.wait_ms(7999);
    driven.actions();
    let relay = driven.agent.handle_relay_connected(driven.now, 1);
    assert_eq!(driven.actions(), [handshake(relay.expect("wanted"))]);

    let mut driven = Driven::new(Role::Controlling, PathPolicy::Auto, &[PEER_PUBLIC], true);
    driven.wait_ms(7999);
    assert!(
        !driven
            .actions()
            .contains(&Action::RequestRound { round: 2 })
    );
    driven.agent.handle_relay_failed(driven.now, 1);
    assert_eq!(driven.actions(), [Action::RequestRound { round: 2 }]);
}

#[test]
fn the_relay_is_nominated_at_once_when_nothing_else_is_possible() {
    for (policy, remote) in [
        (PathPolicy::RelayOnly, &[PEER_PUBLIC][..]),
        (PathPolicy::Auto, &[]),
    ] {
        let mut driven = Driven::new(Role::Controlling, policy, remote, true);
        assert_eq!(driven.actions(), [Action::OpenRelay { round: 1 }]);
        let relay = driven.agent.handle_relay_connected(driven.now, 1);
        assert_eq!(driven.actions(), [handshake(relay.expect("wanted"))]);
    }
}
