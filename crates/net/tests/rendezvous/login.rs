//! Logging in, presence, and the end of the control connection.

use pinhole_net::{
    ConnectError, Connector, DisconnectReason, Expect, HostSharing, LogInError, PathPolicy,
    Refusal, RendezvousEvent, ServerConnectError,
};
use tokio::time::timeout;

use crate::scene::{Client, PATIENCE, Server, connect_config, identity};

#[tokio::test]
async fn presence_is_told() {
    let server = Server::start();
    let mut alice = Client::new(&server, "alice").await;
    assert_eq!(alice.logged_in.server_key, server.key);
    assert!(alice.logged_in.observed.ip().is_loopback());
    let RendezvousEvent::Presence(peers) = alice.event().await else {
        panic!("no presence");
    };
    assert_eq!(peers, []);

    let mut bob = Client::new(&server, "bob").await;
    let RendezvousEvent::Presence(peers) = bob.event().await else {
        panic!("no presence");
    };
    assert_eq!(peers.len(), 1);
    assert_eq!((&peers[0].name, peers[0].key), (&alice.name(), alice.key));
    let RendezvousEvent::Online(peer) = alice.event().await else {
        panic!("bob not announced");
    };
    assert_eq!((peer.name, peer.key), (bob.name(), bob.key));

    let bob_name = bob.name();
    drop(bob);
    let RendezvousEvent::Offline(name) = alice.event().await else {
        panic!("bob's end not announced");
    };
    assert_eq!(name, bob_name);
}

#[tokio::test]
async fn a_name_belongs_to_one_key_and_its_newest_login() {
    let server = Server::start();
    let owner = identity();
    let log_in = server.log_in("alice", &owner);
    let (_first, _, mut first_events) =
        Connector::log_in(log_in.clone(), connect_config(PathPolicy::Auto))
            .await
            .unwrap();
    let stranger = server.log_in("alice", &identity());
    let error = Connector::log_in(stranger, connect_config(PathPolicy::Auto))
        .await
        .unwrap_err();
    assert!(matches!(error, LogInError::NameTaken(_)), "{error}");

    let _second = Connector::log_in(log_in, connect_config(PathPolicy::Auto))
        .await
        .unwrap();
    let reason = loop {
        match timeout(PATIENCE, first_events.recv()).await.unwrap() {
            Some(RendezvousEvent::Disconnected(reason)) => break reason,
            Some(_) => {}
            None => panic!("not told why"),
        }
    };
    let replaced = matches!(reason, DisconnectReason::Refused(Refusal::Replaced));
    assert!(replaced, "{reason}");
}

#[tokio::test]
async fn another_server_key_is_refused_whichever_way_it_is_known() {
    let server = Server::start();
    let other = identity().key();
    let fingerprinted = format!("{}#{}", server.unpinned(), other.fingerprint());
    let pinned = [
        (fingerprinted.parse().unwrap(), Expect::AnyKey),
        (server.unpinned(), Expect::Key(other)),
        (server.unpinned(), Expect::Fingerprint(other.fingerprint())),
        (fingerprinted.parse().unwrap(), Expect::Key(server.key)),
        (server.address.clone(), Expect::Key(other)),
    ];
    for (address, expect) in pinned {
        let mut log_in = server.log_in("alice", &identity());
        log_in.server = address;
        log_in.expect = expect;
        let error = Connector::log_in(log_in, connect_config(PathPolicy::Auto))
            .await
            .unwrap_err();
        let told = matches!(
            error,
            LogInError::Connect(ServerConnectError::WrongKey { .. })
        );
        assert!(told, "{expect:?}: {error}");
    }
    let mut log_in = server.log_in("alice", &identity());
    log_in.expect = Expect::Key(server.key);
    Connector::log_in(log_in, connect_config(PathPolicy::Auto))
        .await
        .unwrap();
}

#[tokio::test]
async fn who_receives_no_events_is_not_online_whoever_else_has_the_handle() {
    let server = Server::start();
    let alice = Client::new(&server, "alice").await;
    let mut bob = Client::new(&server, "bob").await;
    let RendezvousEvent::Presence(_) = bob.event().await else {
        panic!("no presence");
    };
    // Nothing more comes that alice's side would have to pass on.
    let handle = alice.connector.clone();
    drop(alice);
    let RendezvousEvent::Offline(name) = bob.event().await else {
        panic!("alice's end not announced");
    };
    assert_eq!(name.as_str(), "alice");
    drop(handle);
}

#[tokio::test]
async fn the_end_of_the_server_is_told_with_its_reason() {
    let server = Server::start();
    let mut alice = Client::new(&server, "alice").await;
    server.stop.send(()).unwrap();
    let reason = loop {
        if let RendezvousEvent::Disconnected(reason) = alice.event().await {
            break reason;
        }
    };
    let told = matches!(reason, DisconnectReason::Refused(Refusal::ShuttingDown));
    assert!(told, "{reason}");
    server.stopped.await.unwrap();
    let bob = "bob".parse().unwrap();
    let connected = alice.connector.connect(bob, alice.key, HostSharing::Always);
    let error = timeout(PATIENCE, connected).await.unwrap().unwrap_err();
    assert!(matches!(error, ConnectError::Disconnected), "{error}");
}
