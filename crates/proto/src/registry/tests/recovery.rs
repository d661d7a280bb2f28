//! What becomes of keys, and who hears of it.

use super::*;
use crate::key::Signature;
use crate::recovery::{KeyHistory, RecoveryCertificate, Revocation};

/// The registry checks no signature.
const SIGNATURE: Signature = Signature::from_bytes([0; 64]);

fn revocation(number: u8) -> Revocation {
    Revocation {
        key: key(number),
        certificate: None,
        signature: SIGNATURE,
    }
}

fn told(who: &str, revocation: Revocation) -> ServerMessage {
    ServerMessage::KeyHistory(Box::new(KeyHistory {
        revocation: Some(revocation),
        ..KeyHistory::unknown(name(who), revocation.key)
    }))
}

fn watching(world: &mut World, who: &str, number: u8) -> SessionId {
    world.ask(LogIn {
        key: key(number),
        is_known: false,
        observed: address("198.51.100.3:1000"),
        came_to: address("203.0.113.1:4747"),
        at_ms: 0,
        observer_ports: vec![4747, 4748],
        version: PROTOCOL_VERSION,
        name: name(who),
        watch: vec![name("bob")],
        recovery: None,
    })
}

impl World {
    fn revoke(&mut self, who: &str, revocation: Revocation) {
        self.registry
            .handle_revocations(vec![(name(who), revocation)]);
        self.drain();
    }
}

#[test]
fn a_revoked_key_s_sessions_end_and_watchers_are_told_now_and_later() {
    let mut world = World::new();
    let carol = watching(&mut world, "carol", 3);
    let (alice, bob) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
    let other = world.log_in("bob-phone", key(2), "198.51.100.2:2000");
    world.wait(PRESENCE_INTERVAL);
    world.mail.clear();
    world.revoke("bob", revocation(2));
    for session in [bob, other] {
        let closed = world.closed.get(&session);
        assert_eq!(closed, Some(&Some(Refusal::KeyRevoked)));
    }
    assert_eq!(world.take_mail(carol), [told("bob", revocation(2))]);
    assert_eq!(world.take_mail(alice), [], "she does not watch");
    world.revoke("bob", revocation(2));
    assert_eq!(world.take_mail(carol), [], "she is told once");
    let dave = watching(&mut world, "dave", 4);
    assert!(world.take_mail(dave).contains(&told("bob", revocation(2))));
    let bobs = vec![name("bob")];
    world.say(alice, ClientMessage::Watch { names: bobs });
    assert!(world.take_mail(alice).contains(&told("bob", revocation(2))));
}

#[test]
fn the_revocation_of_a_former_key_is_told_no_more() {
    let mut world = World::new();
    world.revoke("bob", revocation(2));
    world.log_in("bob", key(5), "198.51.100.2:1000");
    let carol = watching(&mut world, "carol", 3);
    let mail = world.take_mail(carol);
    assert!(!mail.contains(&told("bob", revocation(2))), "{mail:?}");
}

#[test]
fn whoever_knows_a_former_key_is_told_what_has_become_of_it() {
    let mut world = World::new();
    let (alice, _) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
    let history = KeyHistory {
        released_at_s: Some(7),
        ..KeyHistory::unknown(name("bob"), key(9))
    };
    world.histories.insert(key(9), history.clone());
    let ask = |number| ClientMessage::KeyHistory {
        name: name("bob"),
        key: key(number),
    };
    world.say(alice, ask(9));
    world.say(alice, ask(8));
    let unknown = KeyHistory::unknown(name("bob"), key(8));
    let expected = [history, unknown].map(|it| ServerMessage::KeyHistory(Box::new(it)));
    assert_eq!(world.take_mail(alice), expected);
}

#[test]
fn histories_are_told_as_often_as_names_may_be_looked_up() {
    let mut world = World::new();
    let (alice, _) = world.pair("198.51.100.1:1000", "198.51.100.2:1000");
    let history = KeyHistory {
        released_at_s: Some(7),
        ..KeyHistory::unknown(name("bob"), key(9))
    };
    world.histories.insert(key(9), history.clone());
    for _ in 0..LOOKUPS_OF_KEY.burst + 1 {
        let (name, key) = (history.name.clone(), history.key);
        world.say(alice, ClientMessage::KeyHistory { name, key });
    }
    let mut mail = world.take_mail(alice);
    let unknown = KeyHistory::unknown(name("bob"), key(9));
    let last = ServerMessage::KeyHistory(Box::new(unknown));
    assert_eq!(mail.pop(), Some(last));
    let known = ServerMessage::KeyHistory(Box::new(history));
    assert!(mail.iter().all(|it| *it == known));
}

#[test]
fn a_certificate_comes_before_the_refusal() {
    let mut world = World::new();
    world.storage_is_slow = true;
    let session = world.log_in("bob", key(5), "198.51.100.2:1000");
    let certificate = RecoveryCertificate {
        key: key(2),
        recovery_key: key(7),
        signature: SIGNATURE,
    };
    world.registry.handle_certificate(session, certificate);
    let now = world.now;
    world.registry.handle_claim(now, session, Ok(key(2)));
    world.drain();
    let mail = world.take_mail(session);
    assert_eq!(mail, [ServerMessage::RecoveryCertificate(certificate)]);
    let closed = world.closed.get(&session);
    assert_eq!(closed, Some(&Some(Refusal::NameTaken)));
}
