//! Two and more on this machine's loopback, over real multicast.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use pinhole_proto::rendezvous::RefuseReason;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::discovery::Table;
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
    party_that_knows(name, announces, scope, &KnownKeys::default())
}

fn party_that_knows(name: &str, announces: bool, scope: Scope, known: &KnownKeys) -> Party {
    let identity = generate_identity().unwrap().0;
    let config = NearbyConfig {
        identity: identity.clone(),
        name: name.parse().unwrap(),
        announces,
        known: known.clone(),
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
    let (session, visitor) = tokio::join!(
        alice.nearby.connect(bob.identity.clone(), name, None),
        async {
            let visitor = bob.visitor().await;
            assert_eq!(*visitor.peer(), alice.identity);
            let peer = visitor.peer().clone();
            visitor.admit(&bob.identity.name, peer).await
        }
    );
    let (session, theirs) = (session.unwrap(), visitor.unwrap());
    assert_eq!(session.peer, bob.identity);
    assert_eq!(session.path, pinhole_proto::agent::PathKind::Lan);
    assert_eq!(theirs.peer, alice.identity);
    assert_eq!(theirs.remote, session.local);
    bob.nearby.end().await;
    alice.sees(&[]).await;
    let left = alice.nearby.state.discovery.table();
    assert_eq!(left.borrow().addresses(bob.identity.key), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_can_show_a_credential_before_it_is_let_in() {
    let scope = scope();
    let mut bob = party("bob", true, scope);
    let mut alice = party("alice", false, scope);
    alice.sees(&[&bob.identity]).await;
    let longest: Credential = "x".repeat(Credential::MAX_CHARS).parse().unwrap();
    for (shown, is_let_in) in [
        (Some(longest), true),
        (None, true),
        ("over".parse().ok(), false),
    ] {
        let connecting = alice
            .nearby
            .connect(bob.identity.clone(), None, shown.clone());
        let (session, ()) = tokio::join!(connecting, async {
            let visitor = bob.visitor().await;
            assert_eq!(*visitor.peer(), alice.identity);
            assert_eq!(visitor.credential(), shown.as_ref());
            match is_let_in {
                true => {
                    let admitted = visitor.admit(&bob.identity.name, alice.identity.clone());
                    admitted.await.unwrap();
                }
                false => visitor.refuse(RefuseReason::InvitationOver).await,
            }
        });
        match session {
            Ok(_) => assert!(is_let_in),
            Err(ConnectError::Refused { reason, .. }) if !is_let_in => {
                assert_eq!(reason, RefuseReason::InvitationOver);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_refused_or_named_wrongly_has_no_session() {
    let scope = scope();
    let mut bob = party("bob", true, scope);
    let mut alice = party("alice", false, scope);
    alice.sees(&[&bob.identity]).await;
    for why in [
        RefuseReason::KeyMismatch,
        RefuseReason::Busy,
        RefuseReason::Unavailable,
    ] {
        let (refused, ()) = tokio::join!(
            alice.nearby.connect(bob.identity.clone(), None, None),
            async {
                bob.visitor().await.refuse(why).await;
            }
        );
        let refused = refused.unwrap_err();
        let is_told = matches!(refused, ConnectError::Refused { reason, .. } if reason == why);
        assert!(is_told, "{refused}");
    }
    let carol = Some("carol".parse().unwrap());
    let (other, _) = tokio::join!(
        alice.nearby.connect(bob.identity.clone(), carol, None),
        async {
            let visitor = bob.visitor().await;
            let peer = visitor.peer().clone();
            visitor.admit(&bob.identity.name, peer).await
        }
    );
    let other = other.unwrap_err();
    assert!(matches!(other, ConnectError::OtherName { .. }), "{other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_without_the_key_is_a_stranger() {
    let scope = scope();
    let mallory = party("mallory", true, scope);
    let mut alice = party("alice", false, scope);
    alice.sees(&[&mallory.identity]).await;
    let table = alice.nearby.state.discovery.table();
    let addresses = table.borrow().addresses(mallory.identity.key);
    let bob = PeerIdentity {
        name: "bob".parse().unwrap(),
        key: generate_identity().unwrap().0.key(),
    };
    let own = &*alice.nearby.state;
    let dial = dial::Dial {
        identity: &own.identity,
        name: &own.name,
        credential: None,
        scope,
    };
    let table = watch::Sender::new(Table::of(bob.clone(), addresses));
    let error = dial
        .any_of(table.subscribe(), &bob, None)
        .await
        .unwrap_err();
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
    let listener = VisitorListener {
        listener,
        identity,
        known: KnownKeys::default(),
        scope: Scope::LAN,
        events,
    };
    let receiving = tokio::spawn(listener.receive());
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut heard = Vec::new();
    let end = timeout(SOON, stream.read_to_end(&mut heard)).await;
    // Whether the end is a reset or not.
    assert!(end.is_ok() && heard.is_empty(), "{end:?}");
    assert!(visitors.try_recv().is_err());
    receiving.abort();
}

/// A connection to `port` from another machine of the network, so to speak.
async fn from(last: u8, port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let own = SocketAddr::from((Ipv4Addr::new(127, 0, 7, last), 0));
    socket.bind(own).unwrap();
    let there = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    socket.connect(there).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_at_the_door_does_not_keep_anybody_out() {
    let scope = scope();
    let known = KnownKeys::default();
    let mut bob = party_that_knows("bob", true, scope, &known);
    let mut alice = party("alice", false, scope);
    alice.sees(&[&bob.identity]).await;
    let port = bob.nearby.port().unwrap();
    // They say nothing, from many places, and come again when they are sent away.
    let crowd: Vec<_> = (1..=20)
        .map(|last| {
            tokio::spawn(async move {
                loop {
                    let mut silent = Vec::new();
                    for _ in 0..10 {
                        silent.push(from(last, port).await);
                    }
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            })
        })
        .collect();
    for _ in 0..5 {
        let (session, admitted) = tokio::join!(
            alice.nearby.connect(bob.identity.clone(), None, None),
            async {
                let visitor = bob.visitor().await;
                let peer = visitor.peer().clone();
                visitor.admit(&bob.identity.name, peer).await
            }
        );
        session.unwrap();
        admitted.unwrap();
    }
    crowd.iter().for_each(JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_is_kept_for_whoever_is_known_and_others_are_told() {
    let scope = scope();
    let known = KnownKeys::default();
    let mut bob = party_that_knows("bob", true, scope, &known);
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, bob.nearby.port().unwrap()));
    let to = bob.identity.clone();
    // Nobody answers them.
    let visit = |identity: Identity| {
        let to = to.clone();
        tokio::spawn(async move {
            let table = watch::Sender::new(Table::of(to.clone(), vec![at]));
            let name = "visitor".parse().unwrap();
            let dial = dial::Dial {
                identity: &identity,
                name: &name,
                credential: None,
                scope,
            };
            dial.any_of(table.subscribe(), &to, None).await
        })
    };
    const FOR_STRANGERS: usize = 32;
    let (mut crowd, mut waiting) = (Vec::new(), Vec::new());
    for _ in 0..FOR_STRANGERS {
        crowd.push(visit(generate_identity().unwrap().0));
        waiting.push(bob.visitor().await);
    }
    let one_more = visit(generate_identity().unwrap().0).await.unwrap();
    let is_told = matches!(
        one_more,
        Err(ConnectError::Refused {
            reason: RefuseReason::Busy,
            ..
        })
    );
    assert!(is_told, "{one_more:?}");
    let friend = generate_identity().unwrap().0;
    known.set([friend.key()]);
    let visiting = visit(friend.clone());
    let visitor = bob.visitor().await;
    assert_eq!(visitor.peer().key, friend.key());
    let peer = visitor.peer().clone();
    visitor.admit(&bob.identity.name, peer).await.unwrap();
    visiting.await.unwrap().unwrap();
    // Whoever is turned away makes room for the next.
    waiting.pop().unwrap().refuse(RefuseReason::Busy).await;
    visit(generate_identity().unwrap().0);
    bob.visitor().await;
    crowd.iter().for_each(JoinHandle::abort);
}

/// A firewall that lets nothing through to one of the addresses, and the other address
/// becomes known a moment later.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_becomes_known_while_others_fail_is_dialled() {
    let scope = scope();
    let mut bob = party("bob", true, scope);
    let alice = party("alice", false, scope);
    let blocked = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = blocked.local_addr().unwrap();
    drop(blocked);
    let open = SocketAddr::from((Ipv4Addr::LOCALHOST, bob.nearby.port().unwrap()));
    let table = watch::Sender::new(Table::of(bob.identity.clone(), vec![closed]));
    let own = &*alice.nearby.state;
    let dial = dial::Dial {
        identity: &own.identity,
        name: &own.name,
        credential: None,
        scope,
    };
    let to = bob.identity.clone();
    let announcing = async {
        // Once the first has failed.
        tokio::time::sleep(Duration::from_millis(700)).await;
        table.send_replace(Table::of(to.clone(), vec![closed, open]));
        let visitor = bob.visitor().await;
        let peer = visitor.peer().clone();
        visitor.admit(&bob.identity.name, peer).await
    };
    let dialling = dial.any_of(table.subscribe(), &to, None);
    let (session, admitted) = tokio::join!(dialling, announcing);
    assert_eq!(session.unwrap().remote, open);
    admitted.unwrap();
}

#[tokio::test]
async fn what_is_said_on_loopback_is_heard() {
    assert_eq!(multicast::examine(scope()).await, Multicast::Heard);
}
