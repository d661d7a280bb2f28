//! Addresses are private until the user says yes: what a stranger began over the relay
//! moves to a direct path only then, but at once.

use std::time::{Duration, Instant};

use pinhole_net::{
    Accepted, ConnectError, HostSharing, IntroductionFailure, Invitation, PathAttempt, PathKind,
    PathPolicy, Session,
};
use tokio::time::timeout;

use crate::scene::{Client, PATIENCE, Server, begun, exchange};

/// A session of two, the invitation to which was taken up over the relay only.
async fn begin_over_the_relay(alice: &Client, bob: &mut Client) -> (Session, Session) {
    let (name, key) = (bob.name(), bob.key);
    let inviting = alice
        .connector
        .connect(name, key, HostSharing::Always, None);
    let accepting = async {
        let invitation = bob.invitation().await;
        assert!(!bob.connector.may_migrate_a_session(&invitation));
        let policy = PathPolicy::RelayOnly;
        let accepted = bob
            .connector
            .accept(invitation, HostSharing::Always, policy);
        begun(accepted.await.unwrap())
    };
    let both = async { tokio::join!(inviting, accepting) };
    let (at_alice, at_bob) = timeout(PATIENCE, both).await.expect("no session");
    (at_alice.unwrap(), at_bob)
}

#[tokio::test]
async fn a_session_begun_over_the_relay_goes_direct_at_once_after_a_yes() {
    let server = Server::start();
    let alice = Client::new(&server, "alice").await;
    let mut bob = Client::new(&server, "bob").await;
    let (at_alice, at_bob) = begin_over_the_relay(&alice, &mut bob).await;
    for session in [&at_alice, &at_bob] {
        assert_eq!(session.path, PathKind::Relay);
        let only_relay = session
            .report
            .tried
            .iter()
            .all(|t| t.way == PathAttempt::Relay);
        assert!(only_relay, "{}", session.report);
    }

    // Before the yes: it is looked for in vain, and the session stays.
    let improving = alice
        .connector
        .improve(&at_alice.handle, HostSharing::Always);
    let refusing = async {
        let invitation = bob.invitation().await;
        assert!(bob.connector.may_migrate_a_session(&invitation));
        let policy = PathPolicy::RelayOnly;
        let accepted = bob
            .connector
            .accept(invitation, HostSharing::Always, policy);
        accepted.await.unwrap_err()
    };
    let both = async { tokio::join!(improving, refusing) };
    let (improved, refused) = timeout(PATIENCE, both).await.expect("still at it");
    let in_vain =
        matches!(improved, Err(ConnectError::NoPath { ref report, .. }) if report.tried.is_empty());
    assert!(in_vain, "{improved:?}");
    let in_vain =
        matches!(refused, ConnectError::NoPath { ref report, .. } if report.tried.is_empty());
    assert!(in_vain, "{refused:?}");
    assert_eq!(at_alice.handle.path().borrow().kind, PathKind::Relay);

    // After it.
    let began = Instant::now();
    let improving = alice
        .connector
        .improve(&at_alice.handle, HostSharing::Always);
    let accepting = async {
        let invitation = bob.invitation().await;
        let accepted = bob
            .connector
            .accept(invitation, HostSharing::SameNetwork, PathPolicy::Auto);
        accepted.await.unwrap()
    };
    let both = async { tokio::join!(improving, accepting) };
    let (improved, accepted) = timeout(PATIENCE, both).await.expect("still at it");
    assert!(improved.unwrap());
    assert!(matches!(accepted, Accepted::Migrated));
    assert!(began.elapsed() < Duration::from_secs(3));
    for session in [&at_alice, &at_bob] {
        assert_eq!(session.handle.path().borrow().kind, PathKind::Lan);
    }
    exchange(at_alice, at_bob, 20_000_000).await;
}

#[tokio::test]
async fn the_relay_for_strangers_is_none_where_the_relay_is_forbidden() {
    let server = Server::start();
    let alice = Client::new(&server, "alice").await;
    let mut bob = Client::with_path(&server, "bob", PathPolicy::DirectOnly).await;
    let (name, key) = (bob.name(), bob.key);
    let inviting = alice
        .connector
        .connect(name, key, HostSharing::Always, None);
    let accepting = async {
        let invitation = bob.invitation().await;
        let policy = PathPolicy::RelayOnly;
        let accepted = bob
            .connector
            .accept(invitation, HostSharing::Always, policy);
        accepted.await
    };
    let both = async { tokio::join!(inviting, accepting) };
    let (at_alice, at_bob) = timeout(PATIENCE, both).await.expect("neither yes nor no");
    for refused in [
        at_alice.map(drop).unwrap_err(),
        at_bob.map(drop).unwrap_err(),
    ] {
        let expected = IntroductionFailure::NeedsPermission;
        assert!(matches!(refused, ConnectError::Introduction { reason, .. } if reason == expected));
    }
}

#[tokio::test]
async fn whoever_invites_too_often_is_refused_at_once_and_nobody_else() {
    let server = Server::start();
    let mallory = Client::new(&server, "mallory").await;
    let carol = Client::new(&server, "carol").await;
    let mut bob = Client::new(&server, "bob").await;
    for _ in 0..2 {
        sixteen_at_once(&mallory, &mut bob).await;
    }
    let (mut accepting, mut sessions) = (tokio::task::JoinSet::new(), Vec::new());
    let error = loop {
        let one_more = mallory
            .connector
            .connect(bob.name(), bob.key, HostSharing::Always, None);
        let one_more = timeout(PATIENCE, one_more);
        tokio::pin!(one_more);
        let outcome = loop {
            tokio::select! {
                outcome = &mut one_more => break outcome.unwrap(),
                // One more each second.
                invitation = bob.invitation() => accept_over_the_relay(&bob, invitation, &mut accepting),
            }
        };
        match outcome {
            Ok(session) => sessions.push(session),
            // Her own attempts end a moment after there are sessions.
            Err(ConnectError::Busy) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    let busy = IntroductionFailure::Busy;
    assert!(matches!(error, ConnectError::Introduction { reason, .. } if reason == busy));
    begin_over_the_relay(&carol, &mut bob).await;
}

type Accepting = tokio::task::JoinSet<Result<Session, ConnectError>>;

fn accept_over_the_relay(bob: &Client, invitation: Invitation, accepting: &mut Accepting) {
    let connector = bob.connector.clone();
    accepting.spawn(async move {
        let policy = PathPolicy::RelayOnly;
        let accepted = connector.accept(invitation, HostSharing::Always, policy);
        accepted.await.map(begun)
    });
}

/// As many as may be under way. All of them are answered.
async fn sixteen_at_once(mallory: &Client, bob: &mut Client) {
    const MOST_OF_ONE: usize = 16;
    let mut inviting = tokio::task::JoinSet::new();
    for _ in 0..MOST_OF_ONE {
        let (connector, name, key) = (mallory.connector.clone(), bob.name(), bob.key);
        inviting.spawn(async move {
            connector
                .connect(name, key, HostSharing::Always, None)
                .await
        });
    }
    let mut accepting = tokio::task::JoinSet::new();
    for _ in 0..MOST_OF_ONE {
        let invitation = bob.invitation().await;
        accept_over_the_relay(bob, invitation, &mut accepting);
    }
    let mut sessions = Vec::new();
    while let Some(session) = timeout(PATIENCE, accepting.join_next()).await.unwrap() {
        sessions.push(session.unwrap().unwrap());
    }
    for session in timeout(PATIENCE, inviting.join_all()).await.unwrap() {
        session.unwrap();
    }
}
