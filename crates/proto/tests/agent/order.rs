//! The order in which a round dials.

use std::time::Instant;

use pinhole_proto::agent::{Action, Agent, PathPolicy, Round, Timing};
use pinhole_proto::candidate::{Candidate, CandidateKind, LoopbackAddresses};
use pinhole_proto::rendezvous::Role::{self, Controlled, Controlling};

use super::{OWN_HOST, address, candidates};

const PUNCHED: &str = "198.51.100.2:40001";
const LAN: &str = "192.168.1.20:40002";

fn with_predicted(known: &[&str], ip: &str, ports: &[u16]) -> Vec<Candidate> {
    let predicted = ports.iter().map(|port| Candidate {
        kind: CandidateKind::Predicted,
        address: address(&format!("{ip}:{port}")),
    });
    candidates(known).into_iter().chain(predicted).collect()
}

/// The ports that are dialled, where these are predicted of this side's NAT and of
/// the other one's.
fn dialled(role: Role, own: &[u16], others: &[u16]) -> Vec<u16> {
    let now = Instant::now();
    let round = Round {
        number: 1,
        local: with_predicted(&[OWN_HOST], "198.51.100.1", own),
        remote: with_predicted(&[PUNCHED, LAN], "198.51.100.2", others),
        relay: false,
        start_at: now,
        loopback: LoopbackAddresses::Refused,
    };
    let mut agent = Agent::new(role, PathPolicy::Auto, Timing::default());
    agent.handle_round(now, &round);
    let actions = std::iter::from_fn(|| agent.poll_action());
    let ports = actions.filter_map(|action| match action {
        Action::Dial { remote, .. } => Some(remote.port()),
        _ => None,
    });
    ports.collect()
}

#[test]
fn the_best_class_goes_first() {
    for role in [Controlling, Controlled] {
        assert_eq!(dialled(role, &[7001, 7002], &[]), [40002, 40001]);
    }
}

#[test]
fn guesses_go_before_what_is_known_in_their_order() {
    for role in [Controlling, Controlled] {
        let ports = dialled(role, &[], &[5001, 5002, 5003]);
        assert_eq!(ports, [5001, 5002, 5003, 40002, 40001]);
    }
}

#[test]
fn where_both_sides_guess_the_controlled_one_leaps() {
    let dialled = |role| dialled(role, &[7001], &[5001, 5002, 5003, 5004, 5005]);
    let ascending = [5001, 5002, 5003, 5004, 5005, 40002, 40001];
    assert_eq!(dialled(Controlling), ascending);
    let leaping = [5001, 5003, 5005, 5002, 5004, 40002, 40001];
    assert_eq!(dialled(Controlled), leaping);
}
