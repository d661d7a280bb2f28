//! Names and presence.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use pinhole_proto::rendezvous::{
    ClientMessage, PROTOCOL_VERSION, PeerIdentity, Refusal, ServerMessage,
};
use tokio::task::JoinSet;

use super::Server;
use super::client::{Client, identity};

fn peer(client: &Client, name: &str) -> PeerIdentity {
    PeerIdentity {
        name: name.parse().unwrap(),
        key: client.key,
    }
}

#[tokio::test]
async fn a_login_is_told_its_address_and_both_ports() {
    let server = Server::default();
    let [first, second] = server.addresses[..] else {
        panic!("two ports");
    };
    for (own, other) in [(first, second), (second, first)] {
        let mut alice = Client::asking(own, &identity(), &format!("alice{}", own.port())).await;
        let expected = ServerMessage::LoggedIn {
            observed: alice.local,
            observer_ports: vec![own.port(), other.port()],
            relay: true,
            codes: true,
        };
        assert_eq!(alice.hear().await, expected);
    }
    server.stop().await;
}

#[tokio::test]
async fn both_ports_tell_the_address_they_see() {
    let server = Server::default();
    let alice = identity();
    for &address in &server.addresses {
        let ports = server.addresses.iter().map(SocketAddr::port);
        let mut observer_ports: Vec<u16> = ports.collect();
        observer_ports.sort_by_key(|&port| port != address.port());
        let mut observation = Client::begin(address, &alice, &ClientMessage::Observe).await;
        let expected = ServerMessage::Observed {
            address: observation.local,
            other_address: None,
            observer_ports,
        };
        assert_eq!(observation.hear().await, expected);
    }
    server.stop().await;
}

#[tokio::test]
async fn presence_reaches_every_client() {
    let server = Server::default();
    let mut alice = Client::log_in(server.address(), &identity(), "alice").await;
    let mut bob = Client::asking(server.address(), &identity(), "bob").await;
    assert_eq!(bob.welcome().await, vec![peer(&alice, "alice")]);
    let mut told = Vec::new();
    while !told.contains(&peer(&bob, "bob")) {
        told.extend(alice.hear_presence().await.0);
    }
    drop(bob);
    let gone = vec!["bob".parse().unwrap()];
    assert_eq!(alice.hear_presence().await, (Vec::new(), gone));
    server.stop().await;
}

#[tokio::test]
async fn a_taken_name_is_refused_also_while_its_owner_is_away() {
    let server = Server::default();
    let owner = identity();
    let alice = Client::log_in(server.address(), &owner, "alice").await;
    let thief = identity();
    let mut refused = Client::asking(server.address(), &thief, "alice").await;
    assert_eq!(refused.refusal().await, Refusal::NameTaken);
    drop(alice);
    let mut refused = Client::asking(server.address(), &thief, "alice").await;
    assert_eq!(refused.refusal().await, Refusal::NameTaken);
    Client::log_in(server.address(), &owner, "alice").await;
    server.stop().await;
}

#[tokio::test]
async fn the_same_key_replaces_its_older_session() {
    let server = Server::default();
    let owner = identity();
    let mut older = Client::log_in(server.address(), &owner, "alice").await;
    let mut newer = Client::asking(server.address(), &owner, "alice").await;
    assert!(newer.welcome().await.is_empty());
    assert_eq!(older.refusal().await, Refusal::Replaced);
    server.stop().await;
}

#[tokio::test]
async fn one_of_a_hundred_simultaneous_keys_gets_the_name() {
    let server = Server::default();
    let address = server.address();
    let mut logins = JoinSet::new();
    for _ in 0..100 {
        logins.spawn(async move {
            let mut client = Client::asking(address, &identity(), "alice").await;
            // The winner stays online until all have their answer.
            (client.hear().await, client)
        });
    }
    let answers = logins.join_all().await;
    let won = answers
        .iter()
        .filter(|(answer, _)| matches!(answer, ServerMessage::LoggedIn { .. }))
        .count();
    let reason = Refusal::NameTaken;
    let lost = answers
        .iter()
        .filter(|(answer, _)| *answer == ServerMessage::Refused { reason })
        .count();
    assert_eq!((won, lost), (1, 99));
    server.stop().await;
}

#[tokio::test]
async fn a_client_of_another_version_is_told() {
    let server = Server::default();
    let log_in = ClientMessage::LogIn {
        version: PROTOCOL_VERSION + 1,
        name: "alice".parse().unwrap(),
        watch: Vec::new(),
        recovery: None,
    };
    let mut client = Client::begin(server.address(), &identity(), &log_in).await;
    assert_eq!(client.refusal().await, Refusal::Version);
    server.stop().await;
}

#[tokio::test]
async fn going_down_tells_every_kind_of_connection() {
    let server = Server::default();
    let alice = identity();
    let mut session = Client::log_in(server.address(), &alice, "alice").await;
    let mut observation = Client::begin(server.address(), &alice, &ClientMessage::Observe).await;
    observation.hear().await;
    let heard = tokio::spawn(async move {
        let told = (session.refusal().await, observation.refusal().await);
        (told, session, observation)
    });
    server.stop().await;
    let (told, ..) = heard.await.unwrap();
    assert_eq!(told, (Refusal::ShuttingDown, Refusal::ShuttingDown));
}

#[tokio::test]
async fn clients_that_log_in_at_once_see_each_other() {
    const CROWD: usize = 100;
    let server = Server::default();
    let address = server.address();
    let mut logins = JoinSet::new();
    for number in 0..CROWD {
        logins.spawn(async move {
            let name = format!("peer{number}");
            let mut client = Client::asking(address, &identity(), &name).await;
            let mut seen: BTreeSet<_> =
                client.welcome().await.into_iter().map(|p| p.name).collect();
            while seen.len() < CROWD - 1 {
                let (online, _) = client.hear_presence().await;
                let others = online.into_iter().map(|peer| peer.name);
                seen.extend(others.filter(|other| other.as_str() != name));
            }
            // Nobody leaves before everybody has seen everybody.
            client
        });
    }
    assert_eq!(logins.join_all().await.len(), CROWD);
    server.stop().await;
}
