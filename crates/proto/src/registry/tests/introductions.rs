//! Being introduced.

use HostSharing::{Always, SameNetwork};

use super::*;

#[test]
fn an_introduction_tells_each_side_who_the_other_is_and_who_controls() {
    let mut world = World::new();
    let (alice, bob) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
    let alice_at = reachability(&[(REFLEXIVE, "198.51.100.1:5000")]);
    let bob_at = reachability(&[(REFLEXIVE, "198.51.100.2:6000")]);
    world.introduce(alice, 7, 1, "bob", alice_at.clone());
    let from = PeerIdentity {
        name: name("alice"),
        key: key(1),
    };
    let invitation = ServerMessage::Invitation {
        introduction: introduction(7),
        round: 1,
        from: from.clone(),
        credential: None,
    };
    assert_eq!(world.take_mail(bob), vec![invitation]);
    world.answer(bob, 7, 1, bob_at.clone());
    let introduced = |peer, role, at: Reachability| ServerMessage::Introduced {
        introduction: introduction(7),
        round: 1,
        peer,
        role,
        candidates: at.candidates,
        relay: Some(RelayToken::from_random([2; 32])),
        relay_addresses: Vec::new(),
        start_in_ms: 0,
    };
    let peer = PeerIdentity {
        name: name("bob"),
        key: key(2),
    };
    let to_alice = introduced(peer, Role::Controlling, bob_at);
    let to_bob = introduced(from, Role::Controlled, alice_at);
    assert_eq!(world.take_mail(alice), vec![to_alice]);
    assert_eq!(world.take_mail(bob), vec![to_bob]);
    world.wait(ANSWER_TIMEOUT * 2);
    assert!(!world.mail.values().flatten().any(is_failure));
}

fn is_failure(message: &ServerMessage) -> bool {
    matches!(message, ServerMessage::IntroductionFailed { .. })
}

#[test]
fn the_relay_needs_the_will_of_both() {
    for (one, other) in [(true, false), (false, true), (false, false)] {
        let mut world = World::new();
        let (alice, bob) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
        let willing = |relay| Reachability {
            relay,
            ..reachability(&[])
        };
        world.introduce(alice, 7, 1, "bob", willing(one));
        world.answer(bob, 7, 1, willing(other));
        let mail = world.take_mail(alice);
        let [ServerMessage::Introduced { relay, .. }] = mail.as_slice() else {
            panic!("{mail:?}");
        };
        assert_eq!(*relay, None);
    }
}

#[test]
fn starts_are_evened_out_by_half_the_difference_of_the_round_trips() {
    for (alice_rtt_ms, bob_rtt_ms, alice_waits_ms, bob_waits_ms) in [
        (20, 20, 0, 0),
        (20, 120, 50, 0),
        (300, 0, 0, 150),
        // A claimed hour is believed up to two seconds.
        (0, 3_600_000, 1_000, 0),
    ] {
        let mut world = World::new();
        let alice = world.log_in("alice", key(1), "198.51.100.1:1000");
        let bob = world.log_in("bob", key(2), "198.51.100.2:1000");
        let begin = world.now;
        for (session, rtt_ms) in [(alice, alice_rtt_ms), (bob, bob_rtt_ms)] {
            world.now = begin + Duration::from_millis(rtt_ms);
            world.pong(session);
            world.take_mail(session);
        }
        world.introduce(alice, 7, 1, "bob", reachability(&[]));
        world.answer(bob, 7, 1, reachability(&[]));
        for (session, expected_ms) in [(alice, alice_waits_ms), (bob, bob_waits_ms)] {
            let mail = world.take_mail(session);
            let waits = mail.iter().find_map(|m| match m {
                ServerMessage::Introduced { start_in_ms, .. } => Some(*start_in_ms),
                _ => None,
            });
            assert_eq!(waits, Some(expected_ms));
        }
    }
}

/// Where alice and bob are seen, to whom alice shares her host candidates, what
/// she says, and what of it reaches bob.
type Row = (
    &'static str,
    &'static str,
    HostSharing,
    &'static [(CandidateKind, &'static str)],
    &'static [&'static str],
);

const ALICE: &str = "198.51.100.1:1";
const BOB: &str = "198.51.100.2:1";
const LAN: (CandidateKind, &str) = (HOST, "192.168.1.5:5000");
const MAPPED: CandidateKind = CandidateKind::PortMapped;
const PREDICTED: CandidateKind = CandidateKind::Predicted;
const OUTSIDE: (CandidateKind, &str) = (REFLEXIVE, "198.51.100.1:5000");

#[rustfmt::skip]
const CANDIDATES: &[Row] = &[
    // Strangers elsewhere learn the outside only.
    (ALICE, BOB, SameNetwork, &[LAN, OUTSIDE], &["198.51.100.1:5000"]),
    // Behind one public address, in one IPv6 /64, and for a contact: the inside too.
    (ALICE, "198.51.100.1:2", SameNetwork, &[LAN, OUTSIDE], &["192.168.1.5:5000", "198.51.100.1:5000"]),
    ("[2001:db8::1]:1", "[2001:db8::2]:1", SameNetwork, &[LAN], &["192.168.1.5:5000"]),
    ("[2001:db8::1]:1", "[2001:db8:0:1::2]:1", SameNetwork, &[LAN], &[]),
    (ALICE, BOB, Always, &[LAN], &["192.168.1.5:5000"]),
    // A global IPv6 address is public anyway, the other kinds are not.
    (ALICE, BOB, SameNetwork, &[(HOST, "[2001:db8::5]:5000")], &["[2001:db8::5]:5000"]),
    (ALICE, BOB, SameNetwork, &[(HOST, "[fd00::5]:5000"), (HOST, "[fe80::5]:5000")], &[]),
    // On the server's own machine loopback counts, and beside it the network it is in.
    ("127.0.0.1:1", "127.0.0.1:2", SameNetwork, &[(HOST, "127.0.0.1:5000"), LAN], &["127.0.0.1:5000", "192.168.1.5:5000"]),
    ("127.0.0.1:1", "192.168.1.9:2", SameNetwork, &[LAN], &["192.168.1.5:5000"]),
    ("127.0.0.1:1", BOB, SameNetwork, &[LAN], &[]),
    // One private address may be that of a proxy, from which everybody seems to come.
    ("172.17.0.1:1", "172.17.0.1:2", SameNetwork, &[LAN], &[]),
    ("100.64.0.1:1", "100.64.0.1:2", SameNetwork, &[LAN], &[]),
    ("[fd00::1]:1", "[fd00::1]:2", SameNetwork, &[LAN], &[]),
    ("[fd00::1]:1", "[fd00::2]:2", SameNetwork, &[LAN], &["192.168.1.5:5000"]),
    // Nowhere else, and nobody's address but one's own, and no well-known port.
    (ALICE, BOB, Always, &[(HOST, "127.0.0.1:5000"), (HOST, "169.254.169.254:8080")], &[]),
    (ALICE, BOB, Always, &[(REFLEXIVE, "203.0.113.7:5000"), (HOST, "192.168.1.5:22")], &[]),
    (ALICE, BOB, Always, &[(HOST, "203.0.113.7:5000"), (HOST, "100.100.100.200:8080")], &[]),
    (ALICE, BOB, Always, &[(HOST, "[64:ff9b::a9fe:a9fe]:8080"), (HOST, "[2002:7f00:1::1]:8080")], &[]),
    (ALICE, BOB, Always, &[(MAPPED, "203.0.113.7:5000"), (PREDICTED, "203.0.113.7:5001")], &[]),
    (ALICE, BOB, Always, &[(MAPPED, "192.168.1.1:5000"), (PREDICTED, "192.168.1.1:8080")], &[]),
    (ALICE, BOB, Always, &[(MAPPED, "198.51.100.1:5000"), (PREDICTED, "198.51.100.1:5001")], &["198.51.100.1:5000", "198.51.100.1:5001"]),
    // Of who has come over IPv6 the network is known, of others two addresses are believed.
    (ALICE, BOB, Always, &[(HOST, "[2001:db8:1::5]:1024"), (HOST, "[2001:db8:2::5]:1024"), (HOST, "[2001:db8:3::5]:1024")], &["[2001:db8:1::5]:1024", "[2001:db8:2::5]:1024"]),
    ("[2001:db8::1]:1", BOB, Always, &[(HOST, "[2001:db8::5]:5000")], &["[2001:db8::5]:5000"]),
    ("[2001:db8::1]:1", BOB, Always, &[(HOST, "[2001:db8:1::5]:5000")], &[]),
    // Mapped forms are what they map; twice is once.
    (ALICE, BOB, SameNetwork, &[(REFLEXIVE, "[::ffff:198.51.100.1]:5000"), OUTSIDE], &["198.51.100.1:5000"]),
];

#[test]
fn host_candidates_go_only_where_they_may() {
    for (alice_from, bob_from, share_host, said, expected) in CANDIDATES {
        let mut world = World::new();
        let (alice, bob) = world.pair(alice_from, bob_from);
        let alice_at = Reachability {
            share_host: *share_host,
            ..reachability(said)
        };
        let bob_at = Reachability {
            share_host: *share_host,
            ..reachability(&[])
        };
        world.introduce(alice, 7, 1, "bob", alice_at);
        world.answer(bob, 7, 1, bob_at);
        let told = candidates(&world.take_mail(bob));
        assert_eq!(told, *expected, "{alice_from} {bob_from} {said:?}");
    }
}

#[test]
fn a_stranger_aims_nobody_at_the_network_around_them() {
    let open = |candidates: &[_]| Reachability {
        share_host: Always,
        ..reachability(candidates)
    };
    // An inviter has chosen the peer and is told what the peer shows it.
    let mut world = World::new();
    let (alice, bob) = world.pair(ALICE, BOB);
    world.introduce(alice, 7, 1, "bob", open(&[LAN]));
    world.answer(bob, 7, 1, reachability(&[(HOST, "10.0.0.1:5000")]));
    assert!(candidates(&world.take_mail(bob)).is_empty());
    assert!(candidates(&world.take_mail(alice)).is_empty());
    world.introduce(alice, 8, 1, "bob", reachability(&[]));
    world.answer(bob, 8, 1, open(&[(HOST, "10.0.0.1:5000")]));
    assert_eq!(candidates(&world.take_mail(alice)), ["10.0.0.1:5000"]);
}

#[test]
fn an_address_counts_as_ones_own_after_an_observation_and_until_all_is_closed() {
    let mut world = World::new();
    let (alice, bob) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
    let v6: IpAddr = "2001:db8::1".parse().unwrap();
    let said = reachability(&[(REFLEXIVE, "[2001:db8::1]:5000")]);
    let told = |world: &mut World, alice, id| {
        world.introduce(alice, id, 1, "bob", said.clone());
        world.answer(bob, id, 1, reachability(&[]));
        candidates(&world.take_mail(bob))
    };
    assert!(told(&mut world, alice, 1).is_empty());
    world.registry.handle_observation(key(1), v6);
    world.registry.handle_observation_ended(key(1));
    assert_eq!(told(&mut world, alice, 2), ["[2001:db8::1]:5000"]);
    world.disconnect(alice);
    let alice = world.log_in("alice", key(1), "198.51.100.1:1000");
    world.take_mail(bob);
    assert!(told(&mut world, alice, 3).is_empty());
}

#[test]
fn no_side_gets_more_than_eight_candidates() {
    let mut world = World::new();
    let (alice, bob) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
    let many: Vec<_> = (0..20)
        .map(|n| format!("198.51.100.1:{}", 5000 + n))
        .collect();
    let many: Vec<_> = many.iter().map(|a| (REFLEXIVE, a.as_str())).collect();
    world.introduce(alice, 7, 1, "bob", reachability(&many));
    world.answer(bob, 7, 1, reachability(&[]));
    let told = candidates(&world.take_mail(bob));
    assert_eq!(told.len(), Candidate::MAX_PER_SIDE);
    assert_eq!(told[0], "198.51.100.1:5000");
}

#[test]
fn unknown_offline_and_own_names_get_the_same_answer() {
    let mut world = World::new();
    let (alice, bob) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
    world.disconnect(bob);
    world.take_mail(alice);
    for (id, wanted) in [(1, "bob"), (2, "nobody"), (3, "alice")] {
        world.introduce(alice, id, 1, wanted, reachability(&[]));
        let expected = failed(id, IntroductionFailure::Offline);
        assert_eq!(world.take_mail(alice), vec![expected]);
    }
}

#[test]
fn a_refusal_reaches_the_inviter_and_only_the_invited_can_refuse() {
    let mut world = World::new();
    let (alice, bob) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
    let carol = world.log_in("carol", key(3), "198.51.100.3:1000");
    world.mail.clear();
    world.introduce(alice, 7, 1, "bob", reachability(&[]));
    let refuse = ClientMessage::Refuse {
        introduction: introduction(7),
        reason: RefuseReason::KeyMismatch,
        credential: None,
    };
    world.say(carol, refuse.clone());
    world.say(alice, refuse.clone());
    world.answer(carol, 7, 1, reachability(&[]));
    assert_eq!(world.take_mail(alice), vec![]);
    world.say(bob, refuse);
    let expected = failed(7, IntroductionFailure::KeyMismatch);
    assert_eq!(world.take_mail(alice), vec![expected]);
}

#[test]
fn silence_ends_an_introduction_for_both_and_a_late_answer_is_told_so() {
    let mut world = World::new();
    let (alice, bob) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
    world.introduce(alice, 7, 1, "bob", reachability(&[]));
    world.take_mail(bob);
    world.wait(ANSWER_TIMEOUT - Duration::from_millis(1));
    assert_eq!(world.take_mail(alice), vec![]);
    world.wait(Duration::from_millis(1));
    let expected = vec![failed(7, IntroductionFailure::TimedOut)];
    assert_eq!(world.take_mail(alice), expected);
    assert_eq!(world.take_mail(bob), expected);
    world.answer(bob, 7, 1, reachability(&[]));
    assert_eq!(world.take_mail(bob), expected);
    assert_eq!(world.take_mail(alice), vec![]);
}

#[test]
fn whoever_is_left_behind_is_told_at_once() {
    for inviter_leaves in [true, false] {
        let mut world = World::new();
        let (alice, bob) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
        world.introduce(alice, 7, 1, "bob", reachability(&[]));
        let (gone, left) = if inviter_leaves {
            (alice, bob)
        } else {
            (bob, alice)
        };
        world.disconnect(gone);
        let expected = failed(7, IntroductionFailure::Offline);
        assert!(world.take_mail(left).contains(&expected));
    }
}

#[test]
fn a_later_round_takes_the_place_of_an_unanswered_one() {
    let mut world = World::new();
    let (alice, bob) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
    world.introduce(alice, 7, 1, "bob", reachability(&[]));
    world.wait(ANSWER_TIMEOUT / 2);
    world.introduce(alice, 7, 2, "bob", reachability(&[]));
    world.wait(ANSWER_TIMEOUT / 2);
    world.take_mail(bob);
    world.answer(bob, 7, 1, reachability(&[]));
    assert_eq!(world.take_mail(bob), vec![], "an answer to a round gone by");
    world.answer(bob, 7, 2, reachability(&[]));
    let mail = world.take_mail(alice);
    let [ServerMessage::Introduced { round: 2, .. }] = mail.as_slice() else {
        panic!("{mail:?}");
    };
}

#[test]
fn rounds_beyond_the_fourth_and_borrowed_ids_end_the_session() {
    for round in [0, MAX_ROUNDS + 1, u8::MAX] {
        let mut world = World::new();
        let (alice, _) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
        world.introduce(alice, 7, round, "bob", reachability(&[]));
        assert_eq!(world.closed.get(&alice), Some(&None));
    }
    let mut world = World::new();
    let (alice, bob) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
    world.introduce(alice, 7, 1, "bob", reachability(&[]));
    world.introduce(bob, 7, 1, "alice", reachability(&[]));
    assert_eq!(world.closed.get(&bob), Some(&None));
    assert!(!world.closed.contains_key(&alice));
}

#[test]
fn introductions_are_limited_and_the_allowance_comes_back() {
    let mut world = World::new();
    let (alice, _) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
    let limited = |world: &mut World| {
        world.introduce(alice, 7, 1, "nobody", reachability(&[]));
        world.take_mail(alice) == vec![failed(7, IntroductionFailure::Limited)]
    };
    for _ in 0..INTRODUCTIONS_OF_KEY.burst {
        assert!(!limited(&mut world));
    }
    assert!(limited(&mut world));
    world.now += Duration::from_secs(1);
    assert!(!limited(&mut world));
    assert!(limited(&mut world));
}

#[test]
fn a_key_s_sessions_and_a_network_s_keys_are_limited_together() {
    let mut world = World::new();
    let mut asked = 0;
    for number in 0..8_u8 {
        // Two names of each key, from the many networks of one home.
        for name in ["one", "two"] {
            let from = format!("[2001:db8:0:{number:x}::1]:1000");
            let name = format!("{name}{number}");
            let session = world.log_in(&name, key(10 + number), &from);
            world.take_mail(session);
            for _ in 0..INTRODUCTIONS_OF_KEY.burst {
                world.introduce(session, 7, 1, "nobody", reachability(&[]));
            }
            let offline = failed(7, IntroductionFailure::Offline);
            let mail = world.take_mail(session);
            asked += mail.iter().filter(|it| **it == offline).count();
        }
    }
    let of_eight_keys = 8 * INTRODUCTIONS_OF_KEY.burst as usize;
    assert_eq!(asked, of_eight_keys, "twice a network's for the /56");
    let ninth = world.log_in("ninth", key(30), "[2001:db8:0:9::1]:1000");
    world.take_mail(ninth);
    world.introduce(ninth, 7, 1, "nobody", reachability(&[]));
    let limited = failed(7, IntroductionFailure::Limited);
    assert!(world.take_mail(ninth).contains(&limited));
}

#[test]
fn nobody_is_drowned_in_invitations_and_nobody_drowns_those_of_others() {
    let mut world = World::new();
    let bob = world.log_in("bob", key(2), "198.51.100.2:1000");
    let mut crowd = Vec::new();
    let mut id = 0;
    for number in 0..12_u8 {
        let from = format!("203.0.{number}.1:1000");
        let stranger = world.log_in(&format!("eve{number}"), key(10 + number), &from);
        crowd.push(stranger);
        world.take_mail(stranger);
        for count in 0..9 {
            world.introduce(stranger, id, 1, "bob", reachability(&[]));
            let expected = (count == 8).then(|| failed(id, IntroductionFailure::Limited));
            let told: Vec<_> = world.take_mail(stranger);
            let failures: Vec<_> = told.into_iter().filter(is_failure).collect();
            assert_eq!(failures, Vec::from_iter(expected), "{number} {count}");
            id += 1;
        }
    }
    world.take_mail(bob);
    // All but the reserve is in use; alice needs none of it.
    let alice = world.log_in("alice", key(1), "198.51.100.1:1000");
    world.introduce(alice, id, 1, "bob", reachability(&[]));
    assert!(!world.take_mail(alice).iter().any(is_failure));
    let gave_way = crowd.iter().flat_map(|&it| world.take_mail(it));
    assert_eq!(gave_way.filter(is_failure).count(), 1);
    world.answer(bob, id, 1, reachability(&[]));
    let introduced = |m: &ServerMessage| matches!(m, ServerMessage::Introduced { .. });
    assert!(world.take_mail(alice).iter().any(introduced));
}

#[test]
fn who_has_to_make_room_is_told_and_forgotten() {
    let mut world = World::new();
    let (alice, bob) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
    world.registry.handle_evicted(alice);
    world.registry.handle_evicted(alice);
    world.drain();
    assert_eq!(world.closed.get(&alice), Some(&Some(Refusal::Limited)));
    world.wait(PRESENCE_INTERVAL);
    let offline = presence(Directory::Open, &[], &["alice"]);
    assert_eq!(world.take_mail(bob), [offline]);
}
