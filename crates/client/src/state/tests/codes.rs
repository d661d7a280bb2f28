//! The server's part of codes, and what two people do with them.

use pinhole_net::CodeNumber;

use super::party::identity;
use super::random::Random;
use super::world::{Act, Fault, Happening, World, other};
use crate::event::Event;
use crate::state::{LoginEffect, LoginInput};
use crate::store::Acquaintance;

impl World {
    /// The server is asked for the number of a code, or about one.
    pub(super) fn run_code(&mut self, who: usize, effect: &LoginEffect) {
        let Some(connection) = self.parties[who].on_server else {
            return;
        };
        if !self.is_reachable(who) {
            return;
        }
        let answer = match effect {
            LoginEffect::OpenCode => {
                assert_eq!(self.parties[who].code, None, "one at a time");
                let number = CodeNumber::try_from(7).unwrap();
                self.parties[who].code = Some(number);
                LoginInput::CodeOpened(Some(number))
            }
            LoginEffect::CloseCode => {
                self.parties[who].code = None;
                return;
            }
            LoginEffect::FindCode(number) => {
                let opener = &self.parties[other(who)];
                let is_open = opener.code == Some(*number) && opener.on_server.is_some();
                LoginInput::CodeFound {
                    number: *number,
                    peer: is_open.then(|| opener.identity.clone()),
                }
            }
            _ => return,
        };
        self.plan(who, 30, Happening::Server(connection, answer));
    }
}

/// Two who are told nothing of each other, with trouble or without.
fn strangers(seed: u64) -> World {
    let mut world = World::new(seed);
    world.do_not_know_each_other();
    let mut random = Random::new(seed ^ 0xc0de);
    for _ in 0..random.between(0, 4) * (seed % 2) {
        let (at, who) = (random.between(1_000, 50_000), random.between(0, 1));
        let lasts = random.between(300, 15_000);
        let faults = [
            Fault::Break,
            Fault::Freeze(lasts),
            Fault::ServerDown,
            Fault::NetworkDown,
        ];
        let fault = random.pick(&faults).unwrap();
        let who = usize::try_from(who).unwrap();
        world.plan_act(who, at, Happening::Fault(fault));
    }
    world
}

/// Whether this one has the other as a contact.
fn has_other(world: &World, who: usize) -> bool {
    let server = identity("server", 9).key;
    let there = &world.parties[other(who)].identity;
    let contacts = world.parties[who].state.contacts();
    contacts.acquaintance(server, there) == (Acquaintance::Known { contact: true })
}

fn count(world: &World, who: usize, is_it: impl Fn(&Event) -> bool) -> usize {
    let met = &world.parties[who].met;
    met.iter().filter(|event| is_it(event)).count()
}

const fn is_joined(event: &Event) -> bool {
    matches!(event, Event::Joined { .. })
}

const fn is_welcomed(event: &Event) -> bool {
    matches!(event, Event::Welcomed { .. })
}

/// Alice opens a code, or makes a link, at some time, and bob joins by it.
fn meets(seed: u64, act: Act) -> World {
    let mut world = strangers(seed);
    let at = world.random.between(500, 40_000);
    world.plan_act(0, at, Happening::User(act));
    world.run();
    world
}

#[test]
fn a_code_makes_contacts_of_both_or_of_neither() {
    let mut joined = 0;
    for seed in 0..2_000 {
        let world = meets(seed, Act::OpenCode);
        let is_joined = count(&world, 1, is_joined);
        assert!(
            is_joined <= 1 && count(&world, 0, is_welcomed) <= 1,
            "{seed}"
        );
        if is_joined == 1 {
            assert!(has_other(&world, 0) && has_other(&world, 1), "{seed}");
            assert_eq!(count(&world, 0, is_welcomed), 1, "{seed}");
            joined += 1;
        }
        // Bob is sure of alice before she is of him.
        assert!(has_other(&world, 1) || !has_other(&world, 0), "{seed}");
    }
    assert!(joined > 1_000, "{joined}");
}

#[test]
fn a_link_makes_a_contact_at_once_and_of_both_when_they_meet() {
    let (mut told, mut later) = (0, 0);
    for seed in 0..2_000 {
        let world = meets(seed, Act::Invite);
        let is_joined = count(&world, 1, is_joined);
        assert!(
            is_joined <= 1 && count(&world, 0, is_welcomed) <= 1,
            "{seed}"
        );
        assert_eq!(is_joined == 1, has_other(&world, 1), "{seed}");
        assert_eq!(
            count(&world, 0, is_welcomed) == 1,
            has_other(&world, 0),
            "{seed}"
        );
        if count(&world, 1, |it| {
            matches!(it, Event::Joined { is_told: true, .. })
        }) == 1
        {
            assert!(has_other(&world, 0), "{seed}");
            told += 1;
        } else if has_other(&world, 0) {
            later += 1;
        }
    }
    assert!(told > 500 && later > 10, "{told} {later}");
}
