//! What must hold, whatever happens between the nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pinhole_proto::credential::CodeNumber;
use pinhole_proto::name::PeerName;
use pinhole_proto::registry::{
    ANSWER_TIMEOUT, CODE_LIFETIME, NODE_GRACE, NODE_TIMEOUT, PRESENCE_INTERVAL, SessionId,
};
use pinhole_proto::rendezvous::{IntroductionId, PeerIdentity, Refusal};

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
        45..62 if !online.is_empty() => {
            let (_, session) = world.random.pick(&online);
            let peer = world.random.between(0, world.people.len() as u64 - 1);
            let peer = usize::try_from(peer).unwrap();
            asked.push((world.introduce(session, peer), session, peer));
        }
        62..72 if !online.is_empty() => {
            let (_, session) = world.random.pick(&online);
            world.toggle_code(session);
        }
        72..75 if !online.is_empty() => {
            let (_, session) = world.random.pick(&online);
            let numbers: Vec<_> = world.opened.iter().map(|it| it.0).collect();
            if !numbers.is_empty() {
                let number = world.random.pick(&numbers);
                world.find_code(session, number);
            }
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
        for (number, peer) in &client.found {
            let Some(PeerIdentity { name, key }) = peer else {
                continue;
            };
            assert_eq!(keys[name], *key, "{context}: {name}");
            let has_had_it = world.opened.contains(&(*number, name.clone()));
            assert!(has_had_it, "{context}: {name} has never had {number}");
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

/// Asks everywhere for every number, and returns how many it leads to. A number that two
/// people have got at nodes which did not hear each other leads to nobody.
fn everybody_finds_all_codes(world: &mut World, context: &str) -> usize {
    let online = world.online();
    let mut owners: BTreeMap<CodeNumber, Vec<usize>> = BTreeMap::new();
    for &(person, session) in &online {
        if let Some(number) = world.clients[&session].code {
            owners.entry(number).or_default().push(person);
        }
    }
    let asked: BTreeSet<_> = world.opened.iter().map(|it| it.0).collect();
    for number in asked {
        let owner = match owners.get(&number).map(Vec::as_slice) {
            Some(&[owner]) => Some(owner),
            _ => None,
        };
        for &(_, session) in &online {
            world.find_code(session, number);
        }
        for &(person, session) in &online {
            while world.clients[&session].sought.is_some() {
                world.wait(PRESENCE_INTERVAL);
            }
            let found = world.clients[&session].found.last();
            let owner = owner.filter(|&it| it != person);
            let owner = owner.map(|it| world.people[it].clone());
            assert_eq!(found, Some(&(number, owner)), "{context}: {person}");
        }
    }
    owners.len()
}

#[test]
fn whatever_happens_between_nodes_names_keys_and_presence_are_right() {
    let (mut introductions, mut codes) = (0, 0);
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
        codes += everybody_finds_all_codes(&mut world, &context);
        nobody_has_met_a_wrong_key(&world, &context);
        introductions += asked.len();
    }
    assert!(introductions > 10_000, "{introductions}");
    assert!(codes > 500, "{codes}");
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

/// A change is told within this time where nothing is lost.
const TOLD: Duration = Duration::from_millis(300);

/// What somebody finds under a number.
fn found(world: &mut World, session: SessionId, number: CodeNumber) -> Option<PeerIdentity> {
    world.find_code(session, number);
    let (of, peer) = world.clients[&session].found.last().cloned().unwrap();
    assert_eq!(of, number);
    peer
}

/// Alice at one node with a code, and bob at the other.
fn with_a_code() -> (World, SessionId, SessionId, CodeNumber) {
    let mut world = World::new(1, 2, 256);
    let (alice, bob) = (world.log_in(0, 0), world.log_in(1, 1));
    world.wait(Duration::from_secs(1));
    world.toggle_code(alice);
    let number = world.clients[&alice].code.unwrap();
    world.wait(TOLD);
    (world, alice, bob, number)
}

#[test]
fn a_code_is_found_at_another_node_and_ends_there_with_all_that_ends_it() {
    type End = fn(&mut World, SessionId);
    let ends: [(&str, End, Duration); 4] = [
        ("closed", World::toggle_code, TOLD),
        ("its session over", World::disconnect, TOLD),
        (
            "its owner elsewhere",
            |world, _| {
                world.log_in(0, 1);
            },
            TOLD,
        ),
        ("its node gone", |world, _| world.kill(0), NODE_GRACE + TOLD),
    ];
    for (what, end, time) in ends {
        let (mut world, alice, bob, number) = with_a_code();
        let owner = Some(world.people[0].clone());
        assert_eq!(found(&mut world, bob, number), owner, "{what}");
        end(&mut world, alice);
        world.wait(time);
        assert_eq!(found(&mut world, bob, number), None, "{what}");
    }
    let (mut world, _, bob, number) = with_a_code();
    world.wait(CODE_LIFETIME - TOLD - Duration::from_secs(1));
    assert!(found(&mut world, bob, number).is_some(), "not over yet");
    world.wait(TOLD + Duration::from_secs(1));
    assert_eq!(found(&mut world, bob, number), None, "its time over");
}

#[test]
fn no_node_gives_out_a_number_of_another() {
    let (mut world, alice, bob, number) = with_a_code();
    for _ in 0..8 {
        world.toggle_code(bob);
        assert_ne!(world.clients[&bob].code.unwrap(), number);
        world.toggle_code(bob);
        world.wait(Duration::from_secs(6));
    }
    world.toggle_code(alice);
    world.wait(TOLD);
    let mut got = BTreeSet::new();
    for _ in 0..20 {
        world.toggle_code(bob);
        got.insert(world.clients[&bob].code.unwrap());
        world.toggle_code(bob);
        world.wait(Duration::from_secs(6));
    }
    assert!(got.contains(&number), "free again: {got:?}");
}

#[test]
fn a_number_that_two_nodes_have_given_out_leads_to_nobody() {
    for seed in 0..100 {
        let mut world = World::new(seed, 2, 256);
        let sessions = [world.log_in(0, 0), world.log_in(1, 1), world.log_in(2, 1)];
        world.wait(Duration::from_secs(1));
        world.cut(0, 1, true);
        let [alice, bob, carol] = sessions;
        world.toggle_code(alice);
        world.toggle_code(bob);
        let [a, b] = [alice, bob].map(|it| world.clients[&it].code.unwrap());
        if a != b {
            continue;
        }
        world.heal();
        world.wait(Duration::from_secs(2));
        assert_eq!(found(&mut world, carol, a), None);
        world.toggle_code(alice);
        world.wait(TOLD);
        let bob = Some(world.people[1].clone());
        assert_eq!(found(&mut world, carol, a), bob, "unique again");
        return;
    }
    panic!("no two were the same");
}
