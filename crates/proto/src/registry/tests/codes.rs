//! Being found under a number.

use std::collections::BTreeSet;

use super::*;
use crate::credential::CodeNumber;

impl World {
    /// Opens a code, and returns its number; `None` when there is none to be had.
    fn open_code(&mut self, session: SessionId) -> Option<CodeNumber> {
        self.take_mail(session);
        self.say(session, ClientMessage::OpenCode);
        let mail = self.take_mail(session);
        let [ServerMessage::Code { number }] = mail.as_slice() else {
            panic!("{mail:?}");
        };
        *number
    }

    fn find_code(&mut self, session: SessionId, number: CodeNumber) -> Option<PeerIdentity> {
        self.take_mail(session);
        self.say(session, ClientMessage::FindCode { number });
        let mail = self.take_mail(session);
        let [ServerMessage::CodeFound { number: of, peer }] = mail.as_slice() else {
            panic!("{mail:?}");
        };
        assert_eq!(*of, number);
        peer.clone()
    }

    /// Somebody whose key has been here for long.
    fn regular(&mut self, who: &str, key: PeerKey) -> SessionId {
        let log_in = LogIn {
            is_known: true,
            ..self.log_in_of(who, key, "198.51.100.9:1000")
        };
        self.ask(log_in)
    }
}

fn number(number: u16) -> CodeNumber {
    CodeNumber::try_from(number).unwrap()
}

/// A key of its own for each number.
fn numbered_key(number: u16) -> PeerKey {
    let mut bytes = [7; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    PeerKey::from_bytes(bytes)
}

#[test]
fn a_code_leads_to_its_owner_until_it_is_closed() {
    let mut world = World::new();
    let (alice, bob) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
    let code = world.open_code(alice).unwrap();
    assert_eq!(world.find_code(bob, code), Some(peer("alice", 1)));
    assert_eq!(world.find_code(alice, code), None, "nobody finds himself");
    let other = CodeNumber::all().find(|it| *it != code).unwrap();
    assert_eq!(world.find_code(bob, other), None);
    for _ in 0..2 {
        world.say(alice, ClientMessage::CloseCode);
        assert_eq!(world.take_mail(alice), []);
        assert_eq!(world.find_code(bob, code), None);
    }
    assert!(world.open_code(alice).is_some());
}

#[test]
fn a_code_is_over_after_ten_minutes_and_its_owner_is_told() {
    let mut world = World::new();
    let alice = world.regular("alice", key(1));
    world.open_code(alice);
    world.say(alice, ClientMessage::CloseCode);
    // The end of the one that was closed is not that of the next.
    world.wait(Duration::from_secs(1));
    let number = world.open_code(alice).unwrap();
    let end = world.now + CODE_LIFETIME;
    let ended = ServerMessage::CodeEnded { number };
    while world.now < end {
        let mail = world.mail.get(&alice);
        assert!(mail.is_none_or(|it| !it.contains(&ended)));
        world.wait(Duration::from_secs(1));
        world.pong(alice);
    }
    assert!(world.take_mail(alice).contains(&ended));
    assert!(world.registry.codes.is_empty());
}

#[test]
fn a_code_ends_with_its_session() {
    let mut world = World::new();
    let (alice, bob) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
    let code = world.open_code(alice).unwrap();
    let again = world.log_in("alice", key(1), "198.51.100.1:1000");
    assert_eq!(world.closed[&alice], Some(Refusal::Replaced));
    assert_eq!(world.find_code(bob, code), None);
    let code = world.open_code(again).unwrap();
    assert_eq!(world.find_code(bob, code), Some(peer("alice", 1)));
    world.disconnect(again);
    assert_eq!(world.find_code(bob, code), None);
    assert!(world.registry.codes.is_empty());
}

#[test]
fn no_two_have_the_same_number_and_when_all_are_in_use_there_is_none() {
    let mut world = World::new();
    let mut seen = BTreeSet::new();
    for count in 0..CodeNumber::MAX {
        // The random number does not make them different.
        world.tokens = 0;
        let key = numbered_key(count / 4);
        let session = world.regular(&format!("peer{count}"), key);
        assert!(seen.insert(world.open_code(session).unwrap()), "{count}");
    }
    let late = world.regular("late", numbered_key(999));
    assert_eq!(world.open_code(late), None);
    let owner = world.find_code(late, number(1)).unwrap();
    let session = world.registry.online[&owner.name];
    world.say(session, ClientMessage::CloseCode);
    assert_eq!(world.open_code(late), Some(number(1)));
}

#[test]
fn the_number_is_drawn_among_the_free_ones() {
    let mut world = World::new();
    let mut drawn = BTreeSet::new();
    for count in 0..20 {
        let alice = world.regular("alice", numbered_key(0));
        let mut token = [0; RelayToken::BYTES];
        token[..8].copy_from_slice(&(u64::MAX / 20 * count).to_be_bytes());
        let (now, token) = (world.now, RelayToken::from_random(token));
        world.take_mail(alice);
        world
            .registry
            .handle_message(now, alice, ClientMessage::OpenCode, token);
        world.drain();
        let mail = world.take_mail(alice);
        let [ServerMessage::Code { number: Some(one) }] = mail.as_slice() else {
            panic!("{mail:?}");
        };
        drawn.insert(*one);
        world.wait(CODES_OF_KEY.interval);
    }
    assert!(drawn.len() > 15, "{drawn:?}");
}

/// What a session says, which ends it, if anything of it is misuse.
#[test]
fn misuse_ends_the_session_and_no_other() {
    let open = || ClientMessage::OpenCode;
    let find = || ClientMessage::FindCode { number: number(7) };
    let flood = || std::iter::repeat_with(find).take(10);
    let rows: [(&str, Vec<ClientMessage>, bool); 6] = [
        ("two codes", vec![open(), open()], true),
        ("one code", vec![open()], false),
        (
            "one after the other",
            vec![open(), ClientMessage::CloseCode, open()],
            false,
        ),
        ("none to close", vec![ClientMessage::CloseCode], false),
        ("as often as one may", flood().collect(), false),
        (
            "without waiting for the answer",
            flood().chain([find(), find()]).collect(),
            true,
        ),
    ];
    for (what, said, is_misuse) in rows {
        let mut world = World::new();
        let (alice, bob) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
        let code = world.open_code(bob).unwrap();
        for message in said {
            world.say(alice, message);
        }
        let expected = is_misuse.then_some(&None);
        assert_eq!(world.closed.get(&alice), expected, "{what}");
        let carol = world.log_in("carol", key(3), "198.51.100.3:1000");
        assert_eq!(world.find_code(carol, code), Some(peer("bob", 2)), "{what}");
    }
}

#[test]
fn questions_beyond_the_rate_wait_and_codes_beyond_it_are_not_given_out() {
    let mut world = World::new();
    let (alice, bob) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
    let code = world.open_code(alice).unwrap();
    for _ in 0..CODES_OF_KEY.burst {
        assert!(world.find_code(bob, code).is_some());
    }
    assert_eq!(world.open_code(bob), None);
    world.say(bob, ClientMessage::FindCode { number: code });
    world.wait(CODES_OF_KEY.interval - Duration::from_millis(1));
    assert_eq!(world.take_mail(bob), []);
    world.wait(Duration::from_millis(1));
    let found = ServerMessage::CodeFound {
        number: code,
        peer: Some(peer("alice", 1)),
    };
    assert_eq!(world.take_mail(bob), [found]);
}

#[test]
fn the_newcomers_of_a_network_share_a_rate_and_regulars_have_their_own() {
    let mut world = World::new();
    let alice = world.regular("alice", key(1));
    let code = world.open_code(alice).unwrap();
    let asked = CODES_OF_NETWORK.burst / CODES_OF_KEY.burst;
    for count in 0..u16::try_from(asked).unwrap() {
        let from = "198.51.100.9:1000";
        let newcomer = world.log_in(&format!("peer{count}"), numbered_key(count), from);
        for _ in 0..CODES_OF_KEY.burst {
            assert!(world.find_code(newcomer, code).is_some());
        }
    }
    let late = world.log_in("late", numbered_key(99), "198.51.100.9:2000");
    world.take_mail(late);
    world.say(late, ClientMessage::FindCode { number: code });
    assert_eq!(world.take_mail(late), []);
    let regular = world.regular("bob", key(2));
    assert!(world.find_code(regular, code).is_some());
    world.disconnect(late);
    world.wait(CODES_OF_NETWORK.interval * 2);
}

#[test]
fn a_crowd_leaves_room_for_others_and_whoever_makes_room_is_told() {
    let mut world = World::new();
    let newcomers = u16::try_from(OPEN_CODES.total - OPEN_CODES.reserved).unwrap();
    let mut crowd = Vec::new();
    for count in 0..newcomers {
        let from = format!("203.0.{}.1:1000", count / 40);
        let key = numbered_key(count / 4);
        let session = world.log_in(&format!("peer{count}"), key, &from);
        assert!(world.open_code(session).is_some(), "{count}");
        crowd.push(session);
    }
    let alice = world.log_in("alice", key(1), "198.51.100.1:1000");
    let number = world.open_code(alice).unwrap();
    let told = crowd.iter().flat_map(|&it| world.take_mail(it));
    let told: Vec<_> = told
        .filter(|it| matches!(it, ServerMessage::CodeEnded { .. }))
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    let bob = world.regular("bob", key(2));
    assert_eq!(world.find_code(bob, number), Some(peer("alice", 1)));
    assert!(world.open_code(bob).is_some(), "of the reserve");
    // Its network has as much as any other.
    let of_the_crowd = world.log_in("late", numbered_key(999), "203.0.0.2:1000");
    assert_eq!(world.open_code(of_the_crowd), None);
}

#[test]
fn a_credential_reaches_the_invited_and_the_answer_the_inviter() {
    let mut world = World::new();
    let (alice, bob) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
    let carol = world.log_in("carol", key(3), "198.51.100.3:1000");
    world.mail.clear();
    let shown: Credential = "shown".parse().unwrap();
    let introduce = ClientMessage::Introduce {
        introduction: introduction(7),
        round: 1,
        peer: name("bob"),
        reachability: reachability(&[]),
        credential: Some(shown.clone()),
    };
    world.say(alice, introduce);
    let invitation = ServerMessage::Invitation {
        introduction: introduction(7),
        round: 1,
        from: peer("alice", 1),
        credential: Some(shown),
    };
    assert_eq!(world.take_mail(bob), [invitation]);
    let refuse = |credential: &str| ClientMessage::Refuse {
        introduction: introduction(7),
        reason: RefuseReason::Credential,
        credential: Some(credential.parse().unwrap()),
    };
    // Only the invited answers it.
    for other in [carol, alice] {
        world.say(other, refuse("not-mine"));
        assert_eq!(world.take_mail(alice), []);
    }
    world.say(bob, refuse("answer"));
    let failed = ServerMessage::IntroductionFailed {
        introduction: introduction(7),
        reason: IntroductionFailure::Credential,
        credential: Some("answer".parse().unwrap()),
    };
    assert_eq!(world.take_mail(alice), [failed]);
    world.say(bob, refuse("twice"));
    assert_eq!(world.take_mail(alice), []);
    let open = world
        .closed
        .keys()
        .all(|it| ![alice, bob, carol].contains(it));
    assert!(open, "nobody has broken the protocol");
}
