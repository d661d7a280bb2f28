//! Two and more on this machine's loopback, over real multicast.

use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::identity::generate_identity;

/// Long enough for anything on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// A scope of its own for each test; the port is free when it is asked for.
fn scope() -> Scope {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    Scope {
        loopback: true,
        mdns_port: socket.local_addr().unwrap().port(),
    }
}

struct Party {
    nearby: Nearby,
    events: mpsc::Receiver<NearbyEvent>,
    identity: PeerIdentity,
}

fn party(name: &str, announces: bool, scope: Scope) -> Party {
    let identity = generate_identity().unwrap().0;
    let config = NearbyConfig {
        identity: identity.clone(),
        name: name.parse().unwrap(),
        announces,
    };
    let (nearby, events) = Nearby::start_in(config, scope).unwrap();
    let identity = PeerIdentity {
        name: name.parse().unwrap(),
        key: identity.key(),
    };
    Party {
        nearby,
        events,
        identity,
    }
}

impl Party {
    async fn sees(&mut self, expected: &[&PeerIdentity]) {
        let seen = async {
            loop {
                if let NearbyEvent::Peers(peers) = self.events.recv().await.unwrap() {
                    let all = expected.iter().all(|peer| peers.contains(peer));
                    if all && peers.len() == expected.len() {
                        return;
                    }
                }
            }
        };
        timeout(SOON, seen).await.expect("in time");
    }

    async fn visitor(&mut self) -> Visitor {
        let visit = async {
            loop {
                if let NearbyEvent::Visitor(visitor) = self.events.recv().await.unwrap() {
                    return visitor;
                }
            }
        };
        timeout(SOON, visit).await.expect("in time")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_find_each_other_connect_and_say_goodbye() {
    let scope = scope();
    let mut bob = party("bob", true, scope);
    let mut alice = party("alice", false, scope);
    alice.sees(&[&bob.identity]).await;
    let name = Some(bob.identity.name.clone());
    let (session, visitor) =
        tokio::join!(alice.nearby.connect(bob.identity.clone(), name), async {
            let visitor = bob.visitor().await;
            assert_eq!(*visitor.peer(), alice.identity);
            let peer = visitor.peer().clone();
            visitor.admit(&bob.identity.name, peer).await
        });
    let (session, theirs) = (session.unwrap(), visitor.unwrap());
    assert_eq!(session.peer, bob.identity);
    assert_eq!(session.path, pinhole_proto::agent::PathKind::Lan);
    assert_eq!(theirs.peer, alice.identity);
    assert_eq!(theirs.remote, session.local);
    bob.nearby.end().await;
    alice.sees(&[]).await;
    let left = alice.nearby.shared.discovery.addresses(bob.identity.key);
    assert_eq!(left, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_refused_or_named_wrongly_has_no_session() {
    let scope = scope();
    let mut bob = party("bob", true, scope);
    let mut alice = party("alice", false, scope);
    alice.sees(&[&bob.identity]).await;
    let (refused, ()) = tokio::join!(alice.nearby.connect(bob.identity.clone(), None), async {
        bob.visitor().await.refuse().await;
    });
    let refused = refused.unwrap_err();
    assert!(matches!(refused, ConnectError::Refused { .. }), "{refused}");
    let carol = Some("carol".parse().unwrap());
    let (other, _) = tokio::join!(alice.nearby.connect(bob.identity.clone(), carol), async {
        let visitor = bob.visitor().await;
        let peer = visitor.peer().clone();
        visitor.admit(&bob.identity.name, peer).await
    });
    let other = other.unwrap_err();
    assert!(matches!(other, ConnectError::OtherName { .. }), "{other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_without_the_key_is_a_stranger() {
    let scope = scope();
    let mallory = party("mallory", true, scope);
    let mut alice = party("alice", false, scope);
    alice.sees(&[&mallory.identity]).await;
    let addresses = alice
        .nearby
        .shared
        .discovery
        .addresses(mallory.identity.key);
    let bob = PeerIdentity {
        name: "bob".parse().unwrap(),
        key: generate_identity().unwrap().0.key(),
    };
    let own = &*alice.nearby.shared;
    let dial = dial::Dial {
        identity: &own.identity,
        name: &own.name,
        scope,
    };
    let error = dial.any_of(&addresses, &bob, None).await.unwrap_err();
    let stranger = matches!(error, ConnectError::WrongPeerKey { found: None, .. });
    assert!(stranger, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_from_another_network_is_answered() {
    use tokio::io::AsyncReadExt as _;
    let listener = visitors::listen().unwrap();
    let port = listener.local_addr().unwrap().port();
    let (events, mut visitors) = mpsc::channel(1);
    let identity = generate_identity().unwrap().0;
    // On the LAN loopback is another network.
    let receiving = tokio::spawn(visitors::receive(listener, identity, Scope::LAN, events));
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .unwrap();
    let mut heard = Vec::new();
    let end = timeout(SOON, stream.read_to_end(&mut heard)).await;
    // Whether the end is a reset or not.
    assert!(end.is_ok() && heard.is_empty(), "{end:?}");
    assert!(visitors.try_recv().is_err());
    receiving.abort();
}
