//! Meeting at the relay.

use super::*;

#[test]
fn a_token_pairs_its_two_keys_once() {
    let mut world = World::new();
    let (token, same) = world.introduced(7);
    assert_eq!(token, same);
    let first = world.relay(key(2), token);
    let twice = world.relay(key(2), token);
    let stranger = world.relay(key(3), token);
    assert_eq!(world.paired, []);
    let second = world.relay(key(1), token);
    assert_eq!(world.paired, [(first, second)]);
    let charged = [first, second].map(|relay| world.charged.get(&relay).copied());
    assert_eq!(charged, [Some(key(1)); 2], "alice has invited");
    let replayed = world.relay(key(1), token);
    for refused in [twice, stranger, replayed] {
        assert_eq!(world.relay_closed.get(&refused), Some(&Refusal::Token));
    }
    world.wait(TOKEN_LIFETIME);
    assert!(!world.relay_closed.contains_key(&first));
}

#[test]
fn a_token_dies_with_time_or_with_the_side_that_waited() {
    let mut world = World::new();
    let (token, _) = world.introduced(7);
    let waiting = world.relay(key(1), token);
    world.wait(TOKEN_LIFETIME);
    let late = world.relay(key(2), token);
    for refused in [waiting, late] {
        assert_eq!(world.relay_closed.get(&refused), Some(&Refusal::Token));
    }
    let mut world = World::new();
    let (token, _) = world.introduced(7);
    let left = world.relay(key(1), token);
    world.registry.handle_relay_disconnected(left);
    let alone = world.relay(key(2), token);
    assert_eq!(world.relay_closed.get(&alone), Some(&Refusal::Token));
    assert_eq!(world.paired, []);
}

#[test]
fn an_unknown_token_is_refused() {
    let mut world = World::new();
    let relay = world.relay(key(1), RelayToken::from_random([9; 32]));
    assert_eq!(world.relay_closed.get(&relay), Some(&Refusal::Token));
}

#[test]
fn both_sides_are_told_why_their_relay_ends() {
    let mut world = World::new();
    let (alice, bob) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
    let carol = world.log_in("carol", key(3), "198.51.100.3:1000");
    world.mail.clear();
    let reason = Refusal::RelayBytes;
    world.registry.handle_relay_ended([key(2), key(1)], reason);
    world.drain();
    let told = |number| {
        let peer = key(number);
        vec![ServerMessage::RelayEnded { peer, reason }]
    };
    assert_eq!(world.take_mail(alice), told(2));
    assert_eq!(world.take_mail(bob), told(1));
    assert_eq!(world.take_mail(carol), []);
}

#[test]
fn a_server_without_a_relay_gives_no_tokens() {
    let mut world = World::new();
    world.registry = Registry::new().without_relay();
    let (alice, bob) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
    world.introduce(alice, 7, 1, "bob", reachability(&[]));
    world.answer(bob, 7, 1, reachability(&[]));
    for side in [alice, bob] {
        let mail = world.take_mail(side);
        let tokens = mail.iter().filter_map(|message| match message {
            ServerMessage::Introduced { relay, .. } => Some(relay),
            _ => None,
        });
        assert_eq!(tokens.collect::<Vec<_>>(), [&None]);
    }
    let guessed = world.relay(key(1), RelayToken::from_random([1; 32]));
    assert_eq!(world.relay_closed.get(&guessed), Some(&Refusal::Token));
}
