use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds {
    total: 10,
    reserved: 2,
    per_key: 4,
    per_subnet: SubnetBounds {
        ipv4: 5,
        ipv6_64: 4,
        ipv6_56: 6,
        ipv6_48: 8,
    },
};

fn from(address: &str) -> Owner<u8> {
    Owner {
        key: None,
        address: Some(address.parse().unwrap()),
        is_known: false,
    }
}

fn known(key: u8) -> Owner<u8> {
    Owner {
        key: Some(key),
        address: Some("198.51.100.1".parse().unwrap()),
        is_known: true,
    }
}

fn fill(budget: &mut Budget<u8>, owner: Owner<u8>) -> Vec<Ticket> {
    std::iter::from_fn(|| budget.take(owner, 1).ok().map(|taken| taken.ticket)).collect()
}

#[test]
fn one_network_leaves_room_for_others() {
    let mut budget = Budget::new(BOUNDS);
    assert_eq!(fill(&mut budget, from("198.51.100.1")).len(), 5);
    let refused = budget.take(from("198.51.100.1"), 1);
    assert!(matches!(refused, Err(Full::Subnet(it)) if it.to_string() == "198.51.100.1/32"));
    assert!(budget.take(from("203.0.113.1"), 1).is_ok());
}

#[test]
fn the_many_networks_of_a_home_count_together() {
    let mut budget = Budget::new(BOUNDS);
    let mut held = 0;
    for network in 0..16 {
        held += fill(&mut budget, from(&format!("2001:db8:0:{network:x}::1"))).len();
    }
    assert_eq!(held, 6, "the /56 is the bound");
}

#[test]
fn a_full_budget_evicts_the_heaviest_newcomer_for_a_lighter_one() {
    let mut budget = Budget::new(BOUNDS);
    let crowd = fill(&mut budget, from("198.51.100.1"));
    assert_eq!(crowd.len(), 5);
    for number in 1..=3 {
        let taken = budget.take(from(&format!("203.0.{number}.1")), 1).unwrap();
        assert_eq!(taken.evicted, [], "the reserve is left");
    }
    let taken = budget.take(from("203.0.113.1"), 1).unwrap();
    assert_eq!(taken.evicted, [crowd[4]], "the latest of the heaviest");
    budget.give_back(crowd[4]);
    assert_eq!(budget.used(), 8, "what gave way is not counted twice");
}

#[test]
fn asking_for_room_takes_none() {
    let mut budget = Budget::new(BOUNDS);
    fill(&mut budget, from("198.51.100.1"));
    fill(&mut budget, from("198.51.100.2"));
    let used = budget.used();
    assert_eq!(budget.has_room(&from("203.0.113.1"), 1), Ok(()));
    let crowd = budget.has_room(&from("198.51.100.1"), 1);
    assert_eq!(crowd, Err(Full::Total));
    assert_eq!(budget.used(), used);
}

#[test]
fn neighbours_of_a_crowd_are_not_evicted() {
    let mut budget = Budget::new(BOUNDS);
    let crowd = fill(&mut budget, from("198.51.100.1"));
    for number in 2..=4 {
        let taken = budget.take(from(&format!("198.51.100.{number}")), 1);
        assert_eq!(taken.unwrap().evicted, []);
    }
    let neighbour = budget.take(from("198.51.100.5"), 1).unwrap();
    assert_eq!(neighbour.evicted, [crowd[4]]);
    let refused = budget.take(from("198.51.100.1"), 1);
    assert_eq!(
        refused,
        Err(Full::Total),
        "the crowd pushes no neighbour out"
    );
}

#[test]
fn what_is_held_too_long_is_evicted_for_an_equal_if_asked_for() {
    let mut budget = Budget::new(Bounds {
        total: 4,
        reserved: 0,
        per_key: 9,
        per_subnet: SubnetBounds::uniform(2),
    });
    let mut take = |address| budget.take_from_oldest(from(address), 1).unwrap();
    let first = take("198.51.100.1");
    let second = take("198.51.100.1");
    let third = take("198.51.100.1");
    assert_eq!(third.evicted, [first.ticket], "the oldest of the network");
    let others = [take("203.0.113.1"), take("192.0.2.1")];
    assert_eq!(take("198.18.0.1").evicted, [third.ticket], "the heaviest");
    assert_eq!(take("198.18.1.1").evicted, [second.ticket], "of all");
    assert_eq!(take("198.18.2.1").evicted, [others[0].ticket]);
}

#[test]
fn nobody_is_evicted_for_an_equal() {
    let mut budget = Budget::new(BOUNDS);
    for number in 1..=8 {
        assert!(budget.take(from(&format!("203.0.{number}.1")), 1).is_ok());
    }
    assert_eq!(budget.take(from("198.51.100.1"), 1), Err(Full::Total));
}

#[test]
fn known_keys_have_a_reserve_and_are_never_evicted() {
    let mut budget = Budget::new(BOUNDS);
    fill(&mut budget, from("198.51.100.1"));
    fill(&mut budget, from("203.0.113.1"));
    for key in 0..2 {
        assert_eq!(budget.take(known(key), 1).unwrap().evicted, []);
    }
    let taken = budget.take(known(2), 1).unwrap();
    assert_eq!(
        taken.evicted.len(),
        1,
        "a newcomer gives way beyond the reserve"
    );
    while budget.take(known(3), 1).is_ok() {}
    assert_eq!(budget.used_by_key(3), 4, "but a key has its bound");
}

#[test]
fn a_key_that_becomes_known_no_longer_counts_for_its_network() {
    let mut budget = Budget::new(BOUNDS);
    let crowd = fill(&mut budget, from("198.51.100.1"));
    budget.reassign(crowd[0], known(1)).unwrap();
    assert!(budget.take(from("198.51.100.1"), 1).is_ok());
}

#[derive(Debug, Clone)]
enum Step {
    Take {
        network: u8,
        key: u8,
        is_known: bool,
        cost: u64,
    },
    GiveBack(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let take =
        (0..4_u8, 0..4_u8, any::<bool>(), 1..4_u64).prop_map(|(network, key, is_known, cost)| {
            Step::Take {
                network,
                key,
                is_known,
                cost,
            }
        });
    let step = prop_oneof![3 => take, 1 => any::<usize>().prop_map(Step::GiveBack)];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    #[test]
    fn counts_stay_exact_and_within_bounds(steps in steps()) {
        let mut budget = Budget::new(BOUNDS);
        let mut held: Vec<(Ticket, Owner<u8>, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Take { network, key, is_known, cost } => {
                    let owner = Owner {
                        key: Some(key),
                        address: Some(IpAddr::from([203, 0, network, 1])),
                        is_known,
                    };
                    if let Ok(taken) = budget.take(owner, cost) {
                        for gone in &taken.evicted {
                            let place = held.iter().position(|(it, ..)| it == gone);
                            let (_, evicted, _) = held.remove(place.unwrap());
                            prop_assert!(!evicted.is_known);
                        }
                        held.push((taken.ticket, owner, cost));
                    }
                }
                Step::GiveBack(which) if !held.is_empty() => {
                    let (ticket, ..) = held.remove(which % held.len());
                    budget.give_back(ticket);
                }
                Step::GiveBack(_) => {}
            }
            let sum = |counts: &dyn Fn(&Owner<u8>) -> bool| -> u64 {
                held.iter().filter(|(_, owner, _)| counts(owner)).map(|(.., cost)| cost).sum()
            };
            prop_assert_eq!(budget.used(), sum(&|_| true));
            prop_assert!(budget.used() <= BOUNDS.total);
            for key in 0..4 {
                prop_assert_eq!(budget.used_by_key(key), sum(&|it| it.key == Some(key)));
                prop_assert!(budget.used_by_key(key) <= BOUNDS.per_key);
            }
            for network in 0..4 {
                let address = Some(IpAddr::from([203, 0, network, 1]));
                let newcomers = sum(&|it| it.address == address && !it.is_known);
                prop_assert!(newcomers <= BOUNDS.per_subnet.ipv4);
            }
        }
        for (ticket, ..) in held {
            budget.give_back(ticket);
        }
        prop_assert!(budget.by_key.is_empty() && budget.by_subnet.is_empty());
        prop_assert!(budget.groups.is_empty() && budget.by_weight.is_empty());
    }
}
