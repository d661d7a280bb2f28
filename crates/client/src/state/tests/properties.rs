//! What must hold, whatever goes wrong.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::random::Random;
use super::world::{Act, Fault, Happening, World, other};
use crate::model::{Direction, Stage};
use crate::snapshot::TransferView;

/// What was seen in many runs, so that a property is not true for want of cases.
#[derive(Debug, Default)]
struct Coverage {
    delivered: u32,
    delivered_after_loss: u32,
    failed: u32,
    texts: u32,
}

fn anything(seed: u64) -> World {
    let mut random = Random::new(seed ^ 0x5eed);
    let mut world = World::new(seed);
    for _ in 0..random.between(1, 5) {
        let at = random.between(500, 45_000);
        let who = usize::try_from(random.between(0, 1)).unwrap();
        let act = match random.between(0, 4) {
            0 => Act::SendText,
            _ => Act::SendFiles,
        };
        world.plan_act(who, at, Happening::User(act));
    }
    let acts = [
        Act::Pause,
        Act::Unpause,
        Act::Cancel,
        Act::Interrupt,
        Act::Retry,
        Act::LogOut,
        Act::LogIn,
        Act::Restart,
    ];
    if random.percent(50) {
        for _ in 0..random.between(1, 4) {
            let (at, who) = (random.between(1_000, 55_000), random.between(0, 1));
            let act = random.pick(&acts).unwrap();
            let who = usize::try_from(who).unwrap();
            world.plan_act(who, at, Happening::User(act));
        }
    }
    for _ in 0..random.between(0, 6) {
        let (at, who) = (random.between(1_000, 50_000), random.between(0, 1));
        let lasts = random.between(300, 15_000);
        let faults = [
            Fault::Break,
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

/// Each transfer ends once, and nothing is left that waits.
fn assert_all_ended_once(world: &World) {
    for who in [0, 1] {
        for transfer in world.transfers(who) {
            let seen = world.parties[who].seen.get(&transfer.id);
            assert!(transfer.stage.is_final(), "{who} waits: {transfer:?}");
            assert_eq!(seen.map(|seen| seen.finished), Some(1), "{transfer:?}");
        }
        let seen = &world.parties[who].seen;
        assert!(seen.values().all(|seen| seen.finished <= 1), "{seen:?}");
        let party = &world.parties[who];
        assert!(party.state.transfers.has_no_leftovers());
        assert!(party.holders.is_empty(), "{:?}", party.holders);
    }
}

/// Nothing is received without a yes to it, and nothing more often than there was one.
fn assert_yes_to_each_delivery(world: &World) {
    for party in &world.parties {
        for (content, deliveries) in &party.deliveries {
            let yeses = party.yeses.get(content).copied().unwrap_or(0);
            assert!(*deliveries <= yeses, "{content}: {deliveries} for {yeses}");
        }
    }
}

/// What was accepted and nobody has ended arrives, and both sides know.
fn assert_accepted_arrives(world: &World, coverage: &mut Coverage) {
    for who in [0, 1] {
        for transfer in world.transfers(who) {
            let Some(seen) = world.parties[who].seen.get(&transfer.id) else {
                continue;
            };
            if seen.started > 0 && !seen.is_excused && sender_has_begun(world, who, &transfer) {
                let is_complete = matches!(transfer.stage, Stage::Completed(_));
                assert!(is_complete, "{who}: {transfer:?} {seen:?}");
            }
            match (seen.is_complete, seen.started) {
                (true, 0) if transfer.is_text => coverage.texts += 1,
                (true, 0 | 1) => coverage.delivered += 1,
                (true, _) => coverage.delivered_after_loss += 1,
                (false, _) => coverage.failed += 1,
            }
        }
    }
}

/// Whether the sender of a transfer has heard of the yes: until then a lost connection
/// ends it there.
fn sender_has_begun(world: &World, who: usize, transfer: &TransferView) -> bool {
    let there = other(who);
    let has_begun = |it: &TransferView| {
        let seen = world.parties[there].seen.get(&it.id);
        it.offer.title == transfer.offer.title
            && seen.is_some_and(|seen| seen.started > 0 && !seen.is_excused)
    };
    transfer.direction == Direction::Sending || world.transfers(there).iter().any(has_begun)
}

/// Runs one seed to its end and checks everything.
fn check(mut world: World, coverage: &mut Coverage) {
    world.run();
    assert_all_ended_once(&world);
    assert_yes_to_each_delivery(&world);
    assert_accepted_arrives(&world, coverage);
}

fn run(seeds: Range<u64>) -> Coverage {
    let mut coverage = Coverage::default();
    for seed in seeds {
        let checked = catch_unwind(AssertUnwindSafe(|| check(anything(seed), &mut coverage)));
        if checked.is_err() {
            println!("seed {seed}, again, with everything that happens:");
            let mut world = anything(seed);
            world.prints = true;
            check(world, &mut coverage);
            panic!("seed {seed} did not fail again");
        }
    }
    coverage
}

fn hold_for(seeds: Range<u64>) {
    let coverage = run(seeds);
    // Far below what was counted, so that another mix of seeds passes, too.
    assert!(coverage.delivered > 10_000, "{coverage:?}");
    assert!(coverage.delivered_after_loss > 400, "{coverage:?}");
    assert!(coverage.failed > 5_000, "{coverage:?}");
    assert!(coverage.texts > 3_000, "{coverage:?}");
}

#[test]
fn transfers_end_once_and_arrive_once_whatever_goes_wrong_first_half() {
    hold_for(0..10_000);
}

#[test]
fn transfers_end_once_and_arrive_once_whatever_goes_wrong_second_half() {
    hold_for(10_000..20_000);
}
