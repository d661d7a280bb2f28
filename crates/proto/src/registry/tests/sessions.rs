//! Logging in, staying, leaving.

use super::*;

#[test]
fn a_newcomer_is_told_its_address_and_who_is_there_and_all_others_of_it() {
    let mut world = World::new();
    let alice = world.log_in("alice", key(1), "198.51.100.1:1000");
    world.take_mail(alice);
    let bob = world.log_in("bob", key(2), "198.51.100.2:2000");
    let mail = world.take_mail(bob);
    let [logged_in, told, ping] = mail.as_slice() else {
        panic!("{mail:?}");
    };
    let expected = ServerMessage::LoggedIn {
        observed: address("198.51.100.2:2000"),
        observer_ports: vec![4747, 4748],
        relay: true,
        codes: true,
    };
    assert_eq!(*logged_in, expected);
    assert_eq!(*told, presence(Directory::Open, &[peer("alice", 1)], &[]));
    assert!(matches!(ping, ServerMessage::Ping { .. }));
    world.wait(PRESENCE_INTERVAL);
    let online = presence(Directory::Open, &[peer("bob", 2)], &[]);
    assert_eq!(world.take_mail(alice), [online]);
    world.disconnect(bob);
    world.wait(PRESENCE_INTERVAL);
    let offline = presence(Directory::Open, &[], &["bob"]);
    assert_eq!(world.take_mail(alice), [offline]);
}

#[test]
fn a_name_belongs_to_the_first_key() {
    let mut world = World::new();
    let alice = world.log_in("alice", key(1), "198.51.100.1:1000");
    let thief = world.log_in("alice", key(2), "198.51.100.2:1000");
    assert_eq!(world.closed.get(&thief), Some(&Some(Refusal::NameTaken)));
    world.disconnect(alice);
    let thief = world.log_in("alice", key(2), "198.51.100.2:1000");
    assert_eq!(world.closed.get(&thief), Some(&Some(Refusal::NameTaken)));
}

#[test]
fn the_newest_login_of_a_key_replaces_the_older_silently_to_others() {
    let mut world = World::new();
    let (alice, bob) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
    let again = world.log_in("alice", key(1), "203.0.113.9:1000");
    assert_eq!(world.closed.get(&alice), Some(&Some(Refusal::Replaced)));
    assert!(!world.closed.contains_key(&again));
    assert_eq!(world.take_mail(bob), vec![]);
    // The replaced connection ends later: the name stays online.
    world.disconnect(alice);
    assert_eq!(world.take_mail(bob), vec![]);
}

#[test]
fn of_a_hundred_keys_racing_for_a_name_exactly_one_gets_it() {
    let mut world = World::new();
    world.storage_is_slow = true;
    let racers: Vec<_> = (0..100)
        .map(|number| world.log_in("alice", key(number), "198.51.100.1:1000"))
        .collect();
    world.settle_claims();
    world.drain();
    let refused = |s: &&SessionId| world.closed.get(s) == Some(&Some(Refusal::NameTaken));
    assert_eq!(racers.iter().filter(refused).count(), 99);
    assert_eq!(world.registry.online.len(), 1);
}

#[test]
fn of_a_hundred_logins_of_one_key_the_newest_stays() {
    let mut world = World::new();
    world.storage_is_slow = true;
    let racers: Vec<_> = (0..100)
        .map(|_| world.log_in("alice", key(1), "198.51.100.1:1000"))
        .collect();
    world.settle_claims();
    world.drain();
    let (newest, older) = racers.split_last().unwrap();
    for session in older {
        assert_eq!(world.closed.get(session), Some(&Some(Refusal::Replaced)));
    }
    assert!(!world.closed.contains_key(newest));
}

#[test]
fn another_version_and_a_name_that_cannot_be_had_are_told_apart() {
    let mut world = World::new();
    let log_in = LogIn {
        is_known: false,
        key: key(1),
        observed: address("198.51.100.1:1000"),
        came_to: address("203.0.113.1:4747"),
        at_ms: 0,
        observer_ports: vec![],
        version: PROTOCOL_VERSION + 1,
        name: name("alice"),
        watch: Vec::new(),
        recovery: None,
    };
    let session = world.ask(log_in);
    assert_eq!(world.closed.get(&session), Some(&Some(Refusal::Version)));
    world.storage_is_slow = true;
    for refusal in [Refusal::Internal, Refusal::Limited, Refusal::TooManyNames] {
        let session = world.log_in("alice", key(1), "198.51.100.1:1000");
        world
            .registry
            .handle_claim(world.now, session, Err(refusal));
        world.drain();
        assert_eq!(world.closed.get(&session), Some(&Some(refusal)));
    }
}

#[test]
fn a_session_that_answers_pings_stays_and_one_that_does_not_is_dropped() {
    let mut world = World::new();
    let (alice, bob) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
    for _ in 0..10 {
        world.wait(PING_INTERVAL);
        world.pong(alice);
        world.take_mail(alice);
    }
    assert!(!world.closed.contains_key(&alice));
    assert_eq!(world.closed.get(&bob), Some(&None));
}

#[test]
fn a_made_up_pong_counts_for_nothing() {
    let mut world = World::new();
    let (alice, _) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
    for _ in 0..3 {
        world.say(alice, ClientMessage::Pong { nonce: u64::MAX });
        world.wait(PING_INTERVAL);
    }
    assert_eq!(world.closed.get(&alice), Some(&None));
}

#[test]
fn messages_that_belong_to_other_connections_end_the_session() {
    let token = RelayToken::from_random([0; 32]);
    for message in [
        ClientMessage::Observe,
        ClientMessage::Relay { token },
        ClientMessage::LogIn {
            version: PROTOCOL_VERSION,
            name: name("carol"),
            watch: Vec::new(),
            recovery: None,
        },
    ] {
        let mut world = World::new();
        let (alice, _) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
        world.say(alice, message);
        assert_eq!(world.closed.get(&alice), Some(&None));
    }
}

#[test]
fn shutdown_tells_everybody_and_lets_nobody_in() {
    let mut world = World::new();
    let (token, _) = world.introduced(1);
    let waiting = world.relay(key(1), token);
    let sessions: Vec<_> = world.registry.sessions.keys().copied().collect();
    world.registry.handle_shutdown();
    world.drain();
    for session in sessions {
        let told = world.closed.get(&session);
        assert_eq!(told, Some(&Some(Refusal::ShuttingDown)));
    }
    let told = world.relay_closed.get(&waiting);
    assert_eq!(told, Some(&Refusal::ShuttingDown));
    let late = world.log_in("carol", key(3), "198.51.100.3:1000");
    assert_eq!(world.closed.get(&late), Some(&Some(Refusal::ShuttingDown)));
    assert_eq!(world.registry.poll_timeout(), None);
}
