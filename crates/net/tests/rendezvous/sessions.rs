//! Two clients connect, or are told why not.

use std::time::Duration;

use pinhole_net::{
    Answer, ConnectError, HostSharing, IntroductionFailure, PathAttempt, PathKind, PathPolicy,
    RefuseReason, Tried,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::scene::{Client, PATIENCE, Server, begun, connect, exchange, identity};

#[tokio::test]
async fn two_peers_connect_directly_and_know_each_other() {
    let server = Server::start();
    let alice = Client::new(&server, "alice").await;
    let mut bob = Client::new(&server, "bob").await;
    let (at_alice, at_bob) = connect(&alice, &mut bob).await;
    let (at_alice, at_bob) = (at_alice.unwrap(), at_bob.unwrap());
    assert_eq!((at_alice.path, at_bob.path), (PathKind::Lan, PathKind::Lan));
    assert_eq!(at_alice.peer.key, bob.key);
    assert_eq!(at_bob.peer.key, alice.key);
    assert_eq!(at_bob.peer.name, alice.name());
    assert_eq!(at_alice.local, at_bob.remote);
    assert_eq!(at_alice.remote, at_bob.local);
    for session in [&at_alice, &at_bob] {
        let chosen = |tried: &&Tried| tried.answer == Answer::Selected;
        let chosen: Vec<_> = session.report.tried.iter().filter(chosen).collect();
        assert_eq!(chosen.len(), 1, "{}", session.report);
        assert_ne!(chosen[0].way, PathAttempt::Relay);
        let quick = session.elapsed < Duration::from_secs(2);
        assert!(quick, "took {:?}: {}", session.elapsed, session.report);
    }
    exchange(at_alice, at_bob, 20_000_000).await;
}

#[tokio::test]
async fn the_relay_carries_what_may_not_go_directly() {
    let server = Server::start();
    let alice = Client::with_path(&server, "alice", PathPolicy::RelayOnly).await;
    let mut bob = Client::new(&server, "bob").await;
    let (at_alice, at_bob) = connect(&alice, &mut bob).await;
    let (at_alice, at_bob) = (at_alice.unwrap(), at_bob.unwrap());
    assert_eq!(at_alice.path, PathKind::Relay);
    assert_eq!(at_bob.path, PathKind::Relay);
    assert_eq!(at_bob.peer.key, alice.key);
    for session in [&at_alice, &at_bob] {
        assert_eq!(session.remote.port(), server.port());
        let only_relay = session
            .report
            .tried
            .iter()
            .all(|t| t.way == PathAttempt::Relay);
        assert!(only_relay, "{}", session.report);
    }
    exchange(at_alice, at_bob, 20_000_000).await;
}

#[tokio::test]
async fn there_is_no_path_between_relay_only_and_direct_only() {
    let server = Server::start();
    let alice = Client::with_path(&server, "alice", PathPolicy::RelayOnly).await;
    let mut bob = Client::with_path(&server, "bob", PathPolicy::DirectOnly).await;
    let (at_alice, at_bob) = connect(&alice, &mut bob).await;
    for error in [at_alice.unwrap_err(), at_bob.unwrap_err()] {
        assert!(matches!(error, ConnectError::NoPath { .. }), "{error}");
    }
}

#[tokio::test]
async fn many_sessions_between_the_same_two_at_once() {
    let server = Server::start();
    let alice = Client::new(&server, "alice").await;
    let mut bob = Client::new(&server, "bob").await;
    const SESSIONS: usize = 6;
    let mut inviting = tokio::task::JoinSet::new();
    let mut accepting = tokio::task::JoinSet::new();
    for _ in 0..SESSIONS {
        let (connector, name, key) = (alice.connector.clone(), bob.name(), bob.key);
        inviting.spawn(async move {
            connector
                .connect(name, key, HostSharing::SameNetwork, None)
                .await
        });
    }
    for _ in 0..SESSIONS {
        let (connector, invitation) = (bob.connector.clone(), bob.invitation().await);
        accepting.spawn(async move {
            connector
                .accept(invitation, HostSharing::Always, PathPolicy::Auto)
                .await
        });
    }
    let mut ends = Vec::new();
    for result in inviting.join_all().await {
        ends.push(result.unwrap());
    }
    for accepted in accepting.join_all().await {
        let mut session = begun(accepted.unwrap());
        let other = ends.iter().position(|s| s.local == session.remote).unwrap();
        let mut other = ends.swap_remove(other);
        session.stream.write_all(b"hello").await.unwrap();
        session.stream.flush().await.unwrap();
        let mut heard = [0; 5];
        other.stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
    }
    assert!(ends.is_empty());
}

#[tokio::test]
async fn who_is_not_there_is_told_as_such() {
    let server = Server::start();
    let alice = Client::new(&server, "alice").await;
    let nobody = "nobody".parse().unwrap();
    let connected = alice
        .connector
        .connect(nobody, alice.key, HostSharing::Always, None);
    let error = timeout(PATIENCE, connected).await.unwrap().unwrap_err();
    let offline = matches!(
        error,
        ConnectError::Introduction {
            reason: IntroductionFailure::Offline,
            ..
        }
    );
    assert!(offline, "{error}");
}

#[tokio::test]
async fn a_refusal_is_told_as_such() {
    let server = Server::start();
    let alice = Client::new(&server, "alice").await;
    let mut bob = Client::new(&server, "bob").await;
    let inviting = alice
        .connector
        .connect(bob.name(), bob.key, HostSharing::SameNetwork, None);
    let refusing = bob.connector.clone();
    let refusing = async {
        let invitation = bob.invitation().await;
        refusing
            .rendezvous()
            .refuse(invitation, RefuseReason::KeyMismatch)
            .await;
    };
    let both = async { tokio::join!(inviting, refusing) };
    let error = timeout(PATIENCE, both).await.unwrap().0.unwrap_err();
    let refused = matches!(
        error,
        ConnectError::Introduction {
            reason: IntroductionFailure::KeyMismatch,
            ..
        }
    );
    assert!(refused, "{error}");
}

#[tokio::test]
async fn a_peer_with_another_key_is_not_connected_to() {
    let server = Server::start();
    let alice = Client::new(&server, "alice").await;
    let mut bob = Client::new(&server, "bob").await;
    let real_key = std::mem::replace(&mut bob.key, identity().key());
    let (expected, name) = (bob.key, bob.name());
    let inviting = alice
        .connector
        .connect(name, expected, HostSharing::SameNetwork, None);
    let accepting = async {
        let (connector, invitation) = (bob.connector.clone(), bob.invitation().await);
        // Alice leaves at once; bob would go on trying for a while.
        drop(tokio::spawn(async move {
            let accepted = connector.accept(invitation, HostSharing::SameNetwork, PathPolicy::Auto);
            accepted.await.map(drop)
        }));
    };
    let both = async { tokio::join!(inviting, accepting) };
    match timeout(PATIENCE, both).await.unwrap().0.unwrap_err() {
        ConnectError::WrongPeerKey {
            expected: wanted,
            found,
            ..
        } => {
            assert_eq!(wanted, expected);
            assert_eq!(found, Some(real_key));
        }
        other => panic!("{other}"),
    }
}
