//! Two sessions are introduced to each other.

use std::net::SocketAddr;

use pinhole_proto::candidate::{Candidate, CandidateKind};
use pinhole_proto::rendezvous::{
    ClientMessage, HostSharing, IntroductionFailure, Reachability, RefuseReason, Role,
    ServerMessage,
};

use super::Server;
use super::client::{Client, identity, introduction, relay_only};

fn at(address: SocketAddr) -> Reachability {
    Reachability {
        candidates: vec![Candidate {
            kind: CandidateKind::ServerReflexive,
            address,
        }],
        share_host: HostSharing::SameNetwork,
        relay: false,
    }
}

#[tokio::test]
async fn each_side_learns_where_the_other_is_and_who_controls() {
    let server = Server::default();
    let mut alice = Client::log_in(server.address(), &identity(), "alice").await;
    let mut bob = Client::log_in(server.address(), &identity(), "bob").await;
    let introduce = ClientMessage::Introduce {
        introduction: introduction(1),
        round: 1,
        peer: "bob".parse().unwrap(),
        reachability: at(alice.local),
        credential: None,
    };
    alice.say(&introduce).await;
    let invitation = bob.hear().await;
    let ServerMessage::Invitation { from, round: 1, .. } = invitation else {
        panic!("{invitation:?}");
    };
    assert_eq!((from.name.as_str(), from.key), ("alice", alice.key));
    let answer = ClientMessage::Answer {
        introduction: introduction(1),
        round: 1,
        reachability: at(bob.local),
    };
    bob.say(&answer).await;
    let (to_alice, to_bob) = (alice.hear().await, bob.hear().await);
    let expectations = [
        (to_alice, "bob", &bob, Role::Controlling),
        (to_bob, "alice", &alice, Role::Controlled),
    ];
    for (told, name, other, expected_role) in expectations {
        let ServerMessage::Introduced {
            peer,
            role,
            candidates,
            relay: None,
            ..
        } = told
        else {
            panic!("{told:?}");
        };
        assert_eq!((peer.name.as_str(), peer.key), (name, other.key));
        assert_eq!(role, expected_role);
        assert_eq!(candidates, at(other.local).candidates);
    }
    server.stop().await;
}

#[tokio::test]
async fn an_offline_or_unwilling_peer_is_reported() {
    let server = Server::default();
    let mut alice = Client::log_in(server.address(), &identity(), "alice").await;
    let introduce = |number, peer: &str| ClientMessage::Introduce {
        introduction: introduction(number),
        round: 1,
        peer: peer.parse().unwrap(),
        reachability: relay_only(),
        credential: None,
    };
    let failed = |number, reason| ServerMessage::IntroductionFailed {
        introduction: introduction(number),
        reason,
        credential: None,
    };
    alice.say(&introduce(1, "bob")).await;
    let offline = failed(1, IntroductionFailure::Offline);
    assert_eq!(alice.hear().await, offline);
    let mut bob = Client::log_in(server.address(), &identity(), "bob").await;
    alice.say(&introduce(2, "bob")).await;
    bob.hear().await; // the invitation
    let refuse = ClientMessage::Refuse {
        introduction: introduction(2),
        reason: RefuseReason::KeyMismatch,
        credential: None,
    };
    bob.say(&refuse).await;
    let refused = failed(2, IntroductionFailure::KeyMismatch);
    assert_eq!(alice.hear().await, refused);
    server.stop().await;
}
