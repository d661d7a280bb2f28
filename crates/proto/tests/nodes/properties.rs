//! What must hold, whatever happens between the nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pinhole_proto::name::PeerName;
use pinhole_proto::registry::{ANSWER_TIMEOUT, NODE_GRACE, NODE_TIMEOUT, SessionId};
use pinhole_proto::rendezvous::{IntroductionId, Refusal};

use super::world::World;

const RUNS: u64 = 2_000;
const EVENTS: usize = 40;
/// After it, every node knows who is online, and every introduction has ended.
const SETTLED: Duration =
    Duration::from_secs(NODE_TIMEOUT.as_secs() + NODE_GRACE.as_secs() + ANSWER_TIMEOUT.as_secs());

/// Introductions that were asked for, with the inviter and the invited.
type Asked = Vec<(IntroductionId, SessionId, usize)>;

fn happen(world: &mut World, asked: &mut Asked) {
    let alive = world.nodes_alive();
    let node = world.random.pick(&alive);
    let others: Vec<_> = alive.into_iter().filter(|&other| other != node).collect();
    let online = world.online();
    match world.random.between(0, 99) {
        0..35 => {
            let person = world.random.between(0, world.people.len() as u64 - 1);
            world.log_in(usize::try_from(person).unwrap(), node);
        }
        35..45 if !online.is_empty() => {
            let (_, session) = world.random.pick(&online);
            world.disconnect(session);
        }
        45..75 if !online.is_empty() => {
            let (_, session) = world.random.pick(&online);
            let peer = world.random.between(0, world.people.len() as u64 - 1);
            let peer = usize::try_from(peer).unwrap();
            asked.push((world.introduce(session, peer), session, peer));
        }
        75..80 if !others.is_empty() => {
            let other = world.random.pick(&others);
            world.unlink(node, other);
        }
        80..85 if !others.is_empty() => {
            let (other, is_noticed) = (world.random.pick(&others), world.random.percent(50));
            world.cut(node, other, is_noticed);
        }
        85..88 => world.cut_from_names(node),
        88..92 => world.heal(),
        92..94 if others.len() > 1 => world.kill(node),
        94..97 => (world.lost, world.doubled) = (20, 20),
        _ => {}
    }
    let pause = world.random.between(0, 900);
    world.wait(Duration::from_millis(pause));
}

/// Nobody is ever told of another key than that of the name.
fn nobody_has_met_a_wrong_key(world: &World, context: &str) {
    let keys: BTreeMap<_, _> = world.people.iter().map(|it| (&it.name, it.key)).collect();
    for client in world.clients.values() {
        for (name, key) in &client.view {
            assert_eq!(keys[name], *key, "{context}: {name}");
        }
    }
    for told in world.told.values() {
        for (session, peer, ..) in &told.introduced {
            assert_eq!(keys[&peer.name], peer.key, "{context}");
            let own = &world.people[world.clients[session].person];
            assert_ne!(own.name, peer.name, "{context}");
        }
        let tokens: BTreeSet<_> = told.introduced.iter().map(|it| it.2).collect();
        assert!(
            tokens.len() <= 1,
            "{context}: two tokens for one introduction"
        );
    }
}

/// Each inviter whose session lives still has been told how it ended.
fn every_introduction_has_ended(world: &World, asked: &Asked, context: &str) {
    for (id, inviter, _) in asked {
        let told = &world.told[id];
        let is_told = told.introduced.iter().any(|it| it.0 == *inviter)
            || told.failed.contains(inviter)
            || world.clients[inviter].ended.is_some();
        assert!(is_told, "{context}: {id:?}");
    }
}

/// Everybody sees exactly those who are logged in, wherever they are.
fn everybody_sees_everybody(world: &World, context: &str) {
    let online = world.online();
    let people: BTreeSet<_> = online.iter().map(|it| it.0).collect();
    assert_eq!(
        people.len(),
        online.len(),
        "{context}: a name has two sessions"
    );
    for (person, session) in online {
        let others = people.iter().filter(|&&other| other != person);
        let expected: BTreeSet<_> = others.map(|&it| &world.people[it].name).collect();
        let view = world.clients[&session].view.keys();
        let own = &world.people[person].name;
        let seen: BTreeSet<&PeerName> = view.filter(|&it| it != own).collect();
        assert_eq!(seen, expected, "{context}: what {own} sees");
    }
}

/// Any two who are online can be introduced to each other.
fn everybody_can_meet_everybody(world: &mut World, context: &str) {
    let online = world.online();
    let mut asked = Vec::new();
    for &(person, inviter) in &online {
        for &(peer, invited) in &online {
            if person != peer {
                asked.push((world.introduce(inviter, peer), inviter, invited));
            }
        }
        world.wait(Duration::from_millis(500));
    }
    world.wait(Duration::from_secs(1));
    for (id, inviter, invited) in asked {
        let told = &world.told[&id];
        let sides: BTreeSet<_> = told.introduced.iter().map(|it| it.0).collect();
        assert_eq!(
            sides,
            BTreeSet::from([inviter, invited]),
            "{context}: {id:?}"
        );
    }
}

#[test]
fn whatever_happens_between_nodes_names_keys_and_presence_are_right() {
    let mut introductions = 0;
    for seed in 0..RUNS {
        let context = format!("seed {seed}");
        let nodes = usize::try_from(seed % 3).unwrap() + 1;
        let directory = [0, 3, 256][usize::try_from(seed / 3 % 3).unwrap()];
        let mut world = World::new(seed, nodes, directory);
        let mut asked = Vec::new();
        for _ in 0..EVENTS {
            happen(&mut world, &mut asked);
            nobody_has_met_a_wrong_key(&world, &context);
        }
        world.heal();
        world.wait(SETTLED);
        every_introduction_has_ended(&world, &asked, &context);
        everybody_sees_everybody(&world, &context);
        everybody_can_meet_everybody(&mut world, &context);
        nobody_has_met_a_wrong_key(&world, &context);
        introductions += asked.len();
    }
    assert!(introductions > 10_000, "{introductions}");
}

#[test]
fn the_newest_login_wins_on_all_nodes() {
    let mut world = World::new(1, 3, 256);
    let first = world.log_in(0, 0);
    world.wait(Duration::from_secs(1));
    let second = world.log_in(0, 2);
    world.wait(Duration::from_secs(1));
    let replaced = Some(Refusal::Replaced);
    assert_eq!(world.clients[&first].ended, Some(replaced));
    assert_eq!(world.online(), [(0, second)]);
}

#[test]
fn who_moves_to_another_node_is_not_seen_to_go() {
    let mut world = World::new(1, 3, 256);
    let watcher = world.log_in(1, 1);
    world.log_in(0, 0);
    world.wait(Duration::from_secs(1));
    let alice = world.people[0].name.clone();
    assert!(world.clients[&watcher].view.contains_key(&alice));
    world.kill(0);
    for _ in 0..20 {
        world.wait(Duration::from_millis(100));
        assert!(world.clients[&watcher].view.contains_key(&alice));
    }
    world.log_in(0, 2);
    for _ in 0..80 {
        world.wait(Duration::from_millis(100));
        assert!(world.clients[&watcher].view.contains_key(&alice));
    }
}

#[test]
fn nobody_waits_for_somebody_at_a_node_that_is_gone() {
    let mut world = World::new(1, 2, 256);
    let alice = world.log_in(0, 0);
    world.log_in(1, 1);
    world.wait(Duration::from_secs(1));
    world.cut(0, 1, false);
    let id = world.introduce(alice, 1);
    world.wait(Duration::from_millis(100));
    assert!(world.told[&id].failed.is_empty());
    world.kill(1);
    assert_eq!(world.told[&id].failed, [alice]);
    let id = world.introduce(alice, 1);
    assert_eq!(world.told[&id].failed, [alice], "nor asks it in vain");
}

#[test]
fn the_two_meet_at_the_relay_of_the_inviter_s_node() {
    let mut world = World::new(1, 2, 256);
    let alice = world.log_in(0, 0);
    let bob = world.log_in(1, 1);
    world.wait(Duration::from_secs(1));
    let id = world.introduce(alice, 1);
    world.wait(Duration::from_secs(1));
    let told = &world.told[&id].introduced;
    let relays: BTreeMap<_, _> = told.iter().map(|it| (it.0, it.2.unwrap())).collect();
    assert_eq!(relays[&alice], relays[&bob]);
    let elsewhere: BTreeMap<_, _> = told.iter().map(|it| (it.0, &it.3[..])).collect();
    assert_eq!(elsewhere[&alice], []);
    assert_eq!(elsewhere[&bob], [World::node_address(0)]);
    for session in [alice, bob] {
        let token = relays[&session];
        world.relay(0, world.clients[&session].person, token);
    }
    assert_eq!(world.relayed_pairs, 1);
}
