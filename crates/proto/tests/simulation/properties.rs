//! What must hold, whatever the networks are like.

use pinhole_proto::agent::{Agent, PathKind, PathPolicy, Timing};
use pinhole_proto::candidate::Candidate;

use super::kernel::Millis;
use super::nat::{Dependence, NatKind, Ports, Unsolicited};
use super::random::Random;
use super::world::{Ending, RelayModel, Scenario, Site, StrangerModel, World};

/// A home router: one mapping for all, nothing passes that was not asked for.
const STABLE: NatKind = NatKind {
    mapping: Some(Dependence::Independent),
    ports: Ports::Kept,
    filtering: Dependence::AddressAndPort,
    unsolicited: Unsolicited::Silence,
};

const SYMMETRIC: NatKind = NatKind {
    mapping: Some(Dependence::AddressAndPort),
    ports: Ports::Random,
    ..STABLE
};

/// As symmetric, but the next port is the last one and one more.
const COUNTING: NatKind = NatKind {
    ports: Ports::Counted,
    ..SYMMETRIC
};

const FIREWALL: NatKind = NatKind {
    mapping: None,
    ..STABLE
};

fn any_nat(random: &mut Random, mappings: &[Option<Dependence>]) -> NatKind {
    NatKind {
        mapping: random.pick(mappings),
        ports: random.pick(&[Ports::Kept, Ports::Random, Ports::Counted]),
        filtering: random.pick(&Dependence::ALL),
        unsolicited: random.pick(&Unsolicited::ALL),
    }
}

fn any_site(random: &mut Random, nat: NatKind) -> Site {
    Site {
        nat,
        firewall: None,
        hairpins: random.percent(50),
        delay: random.between(1, 80),
        others: 0,
    }
}

/// Two sites with these NATs, far apart, without loss, with a working relay.
fn between(seed: u64, random: &mut Random, nats: [NatKind; 2]) -> Scenario {
    Scenario {
        seed,
        sites: nats.map(|nat| any_site(random, nat)),
        same_site: false,
        shares_host: random.percent(50),
        policy: [PathPolicy::Auto; 2],
        relay: RelayModel::Works,
        loss_percent: 0,
        jitter: random.between(0, 20),
        skew: random.between(0, 150),
        double: None,
        strangers_per_second: 0,
    }
}

/// Anything at all.
fn anything(seed: u64, random: &mut Random) -> Scenario {
    let mappings = [
        None,
        Some(Dependence::Independent),
        Some(Dependence::Address),
        Some(Dependence::AddressAndPort),
    ];
    let policies = [
        PathPolicy::Auto,
        PathPolicy::Auto,
        PathPolicy::DirectOnly,
        PathPolicy::RelayOnly,
    ];
    let nats = [any_nat(random, &mappings), any_nat(random, &mappings)];
    let mut scenario = between(seed, random, nats);
    for site in &mut scenario.sites {
        site.delay = random.between(1, 200);
        site.others = random.pick(&[0, 0, 1, 3]);
        if random.percent(30) {
            site.firewall = Some(any_nat(random, &[None]));
        }
    }
    Scenario {
        same_site: random.percent(15),
        policy: [random.pick(&policies), random.pick(&policies)],
        relay: random.pick(&[
            RelayModel::Works,
            RelayModel::Works,
            RelayModel::NotOffered,
            RelayModel::Fails,
            RelayModel::Hangs,
        ]),
        loss_percent: random.pick(&[0, 0, 2, 10]),
        skew: random.pick(&[0, 20, 150, 400]),
        double: random.pick(&[
            None,
            None,
            Some(StrangerModel::Silent),
            Some(StrangerModel::Garbage),
            Some(StrangerModel::Closes),
        ]),
        strangers_per_second: random.pick(&[0, 0, 5, 100]),
        ..scenario
    }
}

/// Runs `scenario` and checks what holds in every run.
fn run(scenario: Scenario) -> [Ending; 2] {
    let mut world = World::new(scenario);
    world.run();
    let scenario = &world.scenario;
    let endings = world.parties.each_ref().map(|party| {
        let ending = party.ending;
        ending.unwrap_or_else(|| panic!("did not end: {scenario:?}"))
    });
    for party in &world.parties {
        assert_eq!(party.endings, 1, "{scenario:?}");
        assert!(
            party.actions < 6000,
            "{} actions: {scenario:?}",
            party.actions
        );
        let most = Agent::MAX_ACCEPTED + 2 * Candidate::MAX_PER_SIDE;
        assert!(party.most_connections <= most, "{scenario:?}");
        let redial = Timing::default().redial.as_millis();
        for (target, dials) in &party.dials {
            assert!(
                dials
                    .windows(2)
                    .all(|pair| u128::from(pair[1] - pair[0]) >= redial),
                "{target:?} dialled too fast: {scenario:?}"
            );
        }
        assert!(
            !party.broken,
            "selected connection broke, {endings:?}: {scenario:?}"
        );
    }
    let limit = Timing::default().attempt.as_millis();
    assert!(
        endings
            .iter()
            .all(|ending| u128::from(ending.ended_at) < limit + 2000),
        "took too long, {endings:?}: {scenario:?}"
    );
    let paths = endings.map(|ending| ending.path.is_some());
    assert_eq!(
        paths[0], paths[1],
        "only one has a path, {endings:?}: {scenario:?}"
    );
    assert!(
        !paths[0] || world.same_connection(),
        "different connections, {endings:?}: {scenario:?}"
    );
    endings
}

fn is_direct(endings: &[Ending; 2]) -> bool {
    let direct = |ending: &Ending| ending.path.is_some_and(|path| path != PathKind::Relay);
    endings.iter().all(direct)
}

fn paths(endings: &[Ending; 2]) -> [Option<PathKind>; 2] {
    endings.map(|ending| ending.path)
}

fn for_seeds(count: u64, mut property: impl FnMut(u64, &mut Random)) {
    for seed in 0..count {
        property(seed, &mut Random::new(seed));
    }
}

#[test]
fn stable_mappings_always_connect_directly() {
    let mut later_rounds = 0;
    let mut times: Vec<Millis> = Vec::new();
    for_seeds(1500, |seed, random| {
        let stable = [None, Some(Dependence::Independent)];
        let nats = [any_nat(random, &stable), any_nat(random, &stable)];
        let scenario = between(seed, random, nats);
        let endings = run(scenario.clone());
        assert!(is_direct(&endings), "{endings:?}: {scenario:?}");
        later_rounds += u32::from(endings[0].round > 1);
        times.push(endings[0].at);
    });
    times.sort_unstable();
    println!(
        "{later_rounds} took later rounds; median {} ms",
        times[times.len() / 2]
    );
}

#[test]
fn every_answer_to_strangers_is_survived() {
    for unsolicited in Unsolicited::ALL {
        for_seeds(200, |seed, random| {
            let nat = NatKind {
                unsolicited,
                ..STABLE
            };
            let scenario = between(seed, random, [nat, nat]);
            let endings = run(scenario.clone());
            let punched = [Some(PathKind::Punched); 2];
            assert_eq!(paths(&endings), punched, "{endings:?}: {scenario:?}");
            assert_eq!(endings[0].round, 1, "{endings:?}: {scenario:?}");
        });
    }
}

#[test]
fn a_symmetric_nat_reaches_a_loosely_filtering_one_through_its_listener() {
    for_seeds(200, |seed, random| {
        let filtering = random.pick(&[Dependence::Independent, Dependence::Address]);
        let loose = NatKind {
            filtering,
            ..STABLE
        };
        let nats = if random.percent(50) {
            [SYMMETRIC, loose]
        } else {
            [loose, SYMMETRIC]
        };
        let scenario = between(seed, random, nats);
        let endings = run(scenario.clone());
        let punched = [Some(PathKind::Punched); 2];
        assert_eq!(paths(&endings), punched, "{endings:?}: {scenario:?}");
    });
}

#[test]
fn a_symmetric_nat_that_counts_is_predicted() {
    for_seeds(300, |seed, random| {
        let stable = [None, Some(Dependence::Independent)];
        let other = match random.percent(50) {
            true => any_nat(random, &stable),
            false => COUNTING,
        };
        let nats = if random.percent(50) {
            [COUNTING, other]
        } else {
            [other, COUNTING]
        };
        let scenario = between(seed, random, nats);
        let endings = run(scenario.clone());
        let punched = [Some(PathKind::Punched); 2];
        assert_eq!(paths(&endings), punched, "{endings:?}: {scenario:?}");
    });
}

/// Other machines behind either NAT connect between what the server observes
/// and the dials; lists of 8 ports bear 3 such connections, wherever they are.
#[test]
fn other_traffic_through_two_nats_that_count_is_borne() {
    let mut unborne = Vec::new();
    for (a, b) in (0..16).map(|both| (both / 4, both % 4)) {
        let mut punched = 0;
        for_seeds(100, |seed, random| {
            let mut scenario = between(seed, random, [COUNTING, COUNTING]);
            scenario.sites[0].others = a;
            scenario.sites[1].others = b;
            let [ending, _] = run(scenario);
            punched += u32::from((ending.path, ending.round) == (Some(PathKind::Punched), 1));
        });
        println!("{a} and {b} others: {punched} of 100 in the first round");
        if a + b <= 3 && punched < 100 {
            unborne.push((a, b));
        }
    }
    assert_eq!(unborne, []);
}

#[test]
fn two_symmetric_nats_need_the_relay_and_have_it_at_once() {
    for_seeds(200, |seed, random| {
        let scenario = between(seed, random, [SYMMETRIC, SYMMETRIC]);
        let endings = run(scenario.clone());
        let relay = [Some(PathKind::Relay); 2];
        assert_eq!(paths(&endings), relay, "{endings:?}: {scenario:?}");
        assert!(endings[0].first_at < 2000, "{endings:?}: {scenario:?}");
    });
}

#[test]
fn a_session_begins_on_the_relay_and_moves_when_the_other_side_is_late() {
    let mut moved = 0;
    for_seeds(300, |seed, random| {
        let scenario = Scenario {
            skew: random.between(300, 2000),
            ..between(seed, random, [STABLE, STABLE])
        };
        let endings = run(scenario.clone());
        let punched = [Some(PathKind::Punched); 2];
        assert_eq!(paths(&endings), punched, "{endings:?}: {scenario:?}");
        moved += u32::from(endings[0].first_at < endings[0].at);
    });
    println!("{moved} of 300 moved");
    assert!(moved > 200, "only {moved} of 300 moved");
}

#[test]
fn what_is_as_fast_as_the_relay_begins_directly() {
    let mut at_once = 0;
    for_seeds(300, |seed, random| {
        let scenario = Scenario {
            skew: 0,
            jitter: 0,
            ..between(seed, random, [STABLE, STABLE])
        };
        let endings = run(scenario.clone());
        at_once += u32::from(endings[0].first_at == endings[0].at);
    });
    println!("{at_once} of 300 began directly");
    assert!(at_once > 270, "only {at_once} of 300 began directly");
}

#[test]
fn two_symmetric_nats_fail_without_the_relay() {
    for_seeds(50, |seed, random| {
        let scenario = Scenario {
            policy: [PathPolicy::Auto, PathPolicy::DirectOnly],
            ..between(seed, random, [SYMMETRIC, SYMMETRIC])
        };
        let endings = run(scenario.clone());
        assert_eq!(paths(&endings), [None, None], "{endings:?}: {scenario:?}");
        assert_eq!(
            endings[0].round,
            Agent::MAX_ROUNDS,
            "{endings:?}: {scenario:?}"
        );
    });
}

#[test]
fn the_relay_is_used_at_once_where_direct_paths_are_refused() {
    for_seeds(100, |seed, random| {
        let insisting = random.pick(&[0, 1]);
        let mut scenario = between(seed, random, [STABLE, STABLE]);
        scenario.policy[insisting] = PathPolicy::RelayOnly;
        let mut world = World::new(scenario.clone());
        world.run();
        assert!(world.parties[insisting].dials.is_empty(), "{scenario:?}");
        let endings = run(scenario.clone());
        assert_eq!(
            paths(&endings),
            [Some(PathKind::Relay); 2],
            "{endings:?}: {scenario:?}"
        );
        assert!(endings[0].at < 3000, "{endings:?}: {scenario:?}");
    });
}

#[test]
fn neighbours_connect_within_their_lan() {
    for_seeds(200, |seed, random| {
        let nat = random.pick(&[STABLE, SYMMETRIC]);
        let scenario = Scenario {
            same_site: true,
            ..between(seed, random, [nat, nat])
        };
        let endings = run(scenario.clone());
        assert_eq!(
            paths(&endings),
            [Some(PathKind::Lan); 2],
            "{endings:?}: {scenario:?}"
        );
    });
}

#[test]
fn ipv6_is_preferred_to_punched_ipv4() {
    for_seeds(300, |seed, random| {
        let mut scenario = between(seed, random, [STABLE, STABLE]);
        for site in &mut scenario.sites {
            site.firewall = Some(NatKind {
                unsolicited: random.pick(&Unsolicited::ALL),
                ..FIREWALL
            });
            site.nat = random.pick(&[STABLE, SYMMETRIC]);
        }
        scenario.skew = 0;
        let endings = run(scenario.clone());
        assert_eq!(
            paths(&endings),
            [Some(PathKind::Ipv6); 2],
            "{endings:?}: {scenario:?}"
        );
    });
}

#[test]
fn strangers_cannot_prevent_success() {
    for_seeds(300, |seed, random| {
        let loose = NatKind {
            filtering: Dependence::Independent,
            ..STABLE
        };
        let nats = [
            random.pick(&[loose, NatKind::PUBLIC]),
            random.pick(&[loose, NatKind::PUBLIC, SYMMETRIC]),
        ];
        let scenario = Scenario {
            strangers_per_second: random.pick(&[10, 200]),
            double: random.pick(&[
                None,
                Some(StrangerModel::Garbage),
                Some(StrangerModel::Closes),
            ]),
            ..between(seed, random, nats)
        };
        let endings = run(scenario.clone());
        assert!(is_direct(&endings), "{endings:?}: {scenario:?}");
        assert!(endings[0].at < 3000, "{endings:?}: {scenario:?}");
    });
}

#[test]
fn a_silent_device_with_the_address_of_the_peer_only_delays() {
    for_seeds(100, |seed, random| {
        let scenario = Scenario {
            double: Some(StrangerModel::Silent),
            shares_host: true,
            ..between(seed, random, [STABLE, STABLE])
        };
        let endings = run(scenario.clone());
        let punched = [Some(PathKind::Punched); 2];
        assert_eq!(paths(&endings), punched, "{endings:?}: {scenario:?}");
    });
}

#[test]
fn loss_is_survived() {
    let mut direct = 0;
    for_seeds(500, |seed, random| {
        let scenario = Scenario {
            loss_percent: 10,
            ..between(seed, random, [STABLE, STABLE])
        };
        let endings = run(scenario.clone());
        assert!(endings[0].path.is_some(), "{endings:?}: {scenario:?}");
        direct += u32::from(is_direct(&endings));
    });
    println!("{direct} of 500 direct");
    assert!(direct > 450, "only {direct} of 500 direct");
}

#[test]
fn a_broken_relay_leaves_the_direct_path() {
    for_seeds(200, |seed, random| {
        let scenario = Scenario {
            relay: random.pick(&[RelayModel::Fails, RelayModel::Hangs]),
            loss_percent: 15,
            ..between(seed, random, [STABLE, STABLE])
        };
        let endings = run(scenario.clone());
        assert!(is_direct(&endings), "{endings:?}: {scenario:?}");
    });
}

#[test]
fn whatever_happens_both_sides_agree_and_end() {
    let mut outcomes = std::collections::BTreeMap::new();
    for_seeds(3000, |seed, random| {
        let scenario = anything(seed, random);
        let endings = run(scenario.clone());
        let relay_allowed = !scenario.policy.contains(&PathPolicy::DirectOnly);
        assert!(
            endings[0].path.is_some() || !relay_allowed || scenario.relay != RelayModel::Works,
            "a working relay was not used, {endings:?}: {scenario:?}"
        );
        *outcomes.entry(endings[0].path).or_insert(0) += 1;
    });
    println!("{outcomes:?}");
    for path in [
        PathKind::Lan,
        PathKind::Ipv6,
        PathKind::Punched,
        PathKind::Relay,
    ] {
        assert!(outcomes.contains_key(&Some(path)), "{outcomes:?}");
    }
}
