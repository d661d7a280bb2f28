//! Logging in, presence, and the end of the control connection.

use pinhole_net::{
    ConnectError, Connector, Directory, DisconnectReason, Expect, HostSharing, LogInError,
    PathPolicy, PeerIdentity, Persistence, Refusal, RendezvousEvent, ServerConnectError,
    WATCHED_NAMES,
};
use pinhole_server::Limits;
use tokio::time::timeout;

use crate::scene::{Client, PATIENCE, Server, connect_config, identity};

#[tokio::test]
async fn presence_is_told() {
    let server = Server::start();
    let mut alice = Client::new(&server, "alice").await;
    assert_eq!(alice.logged_in.server_key, server.key);
    assert!(alice.logged_in.observed.ip().is_loopback());
    assert_eq!(alice.presence().await.online, []);

    let mut bob = Client::new(&server, "bob").await;
    let peer = |client: &Client| PeerIdentity {
        name: client.name(),
        key: client.key,
    };
    assert_eq!(bob.presence().await.online, [peer(&alice)]);
    while !alice.presence().await.online.contains(&peer(&bob)) {}

    let bob_name = bob.name();
    drop(bob);
    while !alice.presence().await.offline.contains(&bob_name) {}
}

#[tokio::test]
async fn in_a_closed_directory_whom_one_watches_is_told() {
    let server = Server::with(Limits {
        directory_people: 0,
        ..Limits::default()
    });
    let mut alice = Client::new(&server, "alice").await;
    let first = alice.presence().await;
    assert_eq!((first.directory, first.online), (Directory::Closed, vec![]));
    let _bob = Client::new(&server, "bob").await;
    let _carol = Client::new(&server, "carol").await;
    let names = ["bob", "nobody"].map(|name| name.parse().unwrap());
    alice.connector.rendezvous().watch(&names);
    let found = alice.presence().await;
    let online: Vec<_> = found.online.iter().map(|peer| peer.name.as_str()).collect();
    assert_eq!(
        (online, found.offline),
        (vec!["bob"], vec![names[1].clone()])
    );

    let log_in = server.log_in("dave", &identity());
    let watch: Vec<_> = (0..WATCHED_NAMES)
        .map(|number| format!("name-{number}").parse().unwrap())
        .collect();
    let config = connect_config(PathPolicy::Auto);
    let pending = Connector::approach(log_in, config, Persistence::Once);
    let (_connector, _, mut events) = pending.await.unwrap().log_in(&watch).await.unwrap();
    let mut offline = 0;
    while offline < WATCHED_NAMES {
        if let Some(RendezvousEvent::Presence(told)) = events.recv().await {
            offline += told.offline.len();
        }
    }
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
    assert!(matches!(error, LogInError::NameTaken { .. }), "{error}");

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
    bob.presence().await;
    // Nothing more comes that alice's side would have to pass on.
    let handle = alice.connector.clone();
    drop(alice);
    let alice = "alice".parse().unwrap();
    while !bob.presence().await.offline.contains(&alice) {}
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
    let connected = alice
        .connector
        .connect(bob, alice.key, HostSharing::Always, None);
    let error = timeout(PATIENCE, connected).await.unwrap().unwrap_err();
    assert!(matches!(error, ConnectError::Disconnected), "{error}");
}
