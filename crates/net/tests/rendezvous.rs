//! Clients, the real server and everything between them, over loopback.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what is here fails by panicking, as tests do"
)]

use std::time::Duration;

use pinhole_net::{
    Answer, ConnectError, DisconnectReason, Expect, HostSharing, Identity, IntroductionFailure,
    LogIn, LogInError, LoggedIn, PathKind, PathPolicy, PeerKey, PeerName, Refusal, Rendezvous,
    RendezvousEvent, ServerAddress, Session, Way, generate_identity,
};
use pinhole_server::{DataDir, Limits, listener};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    address: ServerAddress,
    key: PeerKey,
    stop: oneshot::Sender<()>,
    stopped: JoinHandle<()>,
    _data: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(data.path()).unwrap();
        let listeners = listener::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let key = data_dir.identity().key();
        let address = listeners[0].local_addr().unwrap();
        let address = format!("{address}#{}", key.fingerprint()).parse().unwrap();
        let (stop, stopping) = oneshot::channel();
        let stopped = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopping.await;
            };
            let served = pinhole_server::run(listeners, data_dir, Limits::default(), shutdown);
            served.await.unwrap();
        });
        Self {
            address,
            key,
            stop,
            stopped,
            _data: data,
        }
    }

    /// The address without the fingerprint.
    fn unpinned(&self) -> ServerAddress {
        let text = self.address.to_string();
        text.split_once('#').unwrap().0.parse().unwrap()
    }

    fn log_in(&self, name: &str, identity: &Identity, path: PathPolicy) -> LogIn {
        LogIn {
            server: self.address.clone(),
            expect: Expect::AnyKey,
            identity: identity.clone(),
            name: name.parse().unwrap(),
            path,
        }
    }
}

fn identity() -> Identity {
    generate_identity().unwrap().0
}

/// A client that is logged in.
struct Client {
    rendezvous: Rendezvous,
    logged_in: LoggedIn,
    events: mpsc::Receiver<RendezvousEvent>,
    key: PeerKey,
}

impl Client {
    async fn new(server: &Server, name: &str) -> Self {
        Self::with_path(server, name, PathPolicy::Auto).await
    }

    async fn with_path(server: &Server, name: &str, path: PathPolicy) -> Self {
        let identity = identity();
        let log_in = server.log_in(name, &identity, path);
        let (rendezvous, logged_in, events) = Rendezvous::log_in(log_in).await.unwrap();
        Self {
            rendezvous,
            logged_in,
            events,
            key: identity.key(),
        }
    }

    fn name(&self) -> PeerName {
        self.logged_in.name.clone()
    }

    async fn event(&mut self) -> RendezvousEvent {
        let event = timeout(PATIENCE, self.events.recv()).await;
        event.expect("no event").expect("no more events")
    }

    /// The next invitation, whatever comes before.
    async fn invitation(&mut self) -> pinhole_net::Invitation {
        loop {
            if let RendezvousEvent::Invitation(invitation) = self.event().await {
                return invitation;
            }
        }
    }
}

/// Connects `from` to `to`, who accepts.
async fn connect(
    from: &Client,
    to: &mut Client,
) -> (Result<Session, ConnectError>, Result<Session, ConnectError>) {
    let (name, key, other) = (to.name(), to.key, to.rendezvous.clone());
    let inviting = from.rendezvous.connect(name, key, HostSharing::SameNetwork);
    let accepting = async {
        let invitation = to.invitation().await;
        assert_eq!(invitation.from().key, from.key);
        other.accept(invitation, HostSharing::SameNetwork).await
    };
    let both = async { tokio::join!(inviting, accepting) };
    timeout(PATIENCE, both).await.expect("neither yes nor no")
}

/// Sends so many bytes each way at once and checks every one of them.
async fn exchange(one: Session, other: Session, size_bytes: usize) {
    async fn side(session: Session, size_bytes: usize) {
        let (mut reader, mut writer) = tokio::io::split(session.stream);
        let pattern = |index: usize| u8::try_from(index % 251).unwrap();
        let write = async {
            let bytes: Vec<u8> = (0..size_bytes).map(pattern).collect();
            writer.write_all(&bytes).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let read = async {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).await.unwrap();
            assert_eq!(bytes.len(), size_bytes);
            let right = |(index, &byte): (usize, &u8)| byte == pattern(index);
            assert!(bytes.iter().enumerate().all(right));
        };
        tokio::join!(write, read);
    }
    let both = async { tokio::join!(side(one, size_bytes), side(other, size_bytes)) };
    timeout(PATIENCE, both).await.expect("the exchange hangs");
}

#[tokio::test]
async fn presence_is_told() {
    let server = Server::start();
    let mut alice = Client::new(&server, "alice").await;
    assert_eq!(alice.logged_in.server_key, server.key);
    assert!(alice.logged_in.observed.ip().is_loopback());
    let RendezvousEvent::Roster(peers) = alice.event().await else {
        panic!("no roster");
    };
    assert_eq!(peers, []);

    let mut bob = Client::new(&server, "bob").await;
    let RendezvousEvent::Roster(peers) = bob.event().await else {
        panic!("no roster");
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
    let identity = identity();
    let log_in = server.log_in("alice", &identity, PathPolicy::Auto);
    let (_first, _, mut first_events) = Rendezvous::log_in(log_in.clone()).await.unwrap();
    let stranger = server.log_in("alice", &self::identity(), PathPolicy::Auto);
    let error = Rendezvous::log_in(stranger).await.unwrap_err();
    assert!(matches!(error, LogInError::NameTaken(_)), "{error}");

    let _second = Rendezvous::log_in(log_in).await.unwrap();
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
        let mut log_in = server.log_in("alice", &identity(), PathPolicy::Auto);
        log_in.server = address;
        log_in.expect = expect;
        let error = Rendezvous::log_in(log_in).await.unwrap_err();
        assert!(error.is_wrong_server_key(), "{expect:?}: {error}");
    }
    let mut log_in = server.log_in("alice", &identity(), PathPolicy::Auto);
    log_in.expect = Expect::Key(server.key);
    Rendezvous::log_in(log_in).await.unwrap();
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
        .rendezvous
        .connect(bob, alice.key, HostSharing::Always);
    let error = timeout(PATIENCE, connected).await.unwrap().unwrap_err();
    assert!(matches!(error, ConnectError::Disconnected), "{error}");
}

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
        let chosen = |tried: &&pinhole_net::Tried| tried.answer == Answer::Selected;
        let chosen: Vec<_> = session.report.tried.iter().filter(chosen).collect();
        assert_eq!(chosen.len(), 1, "{}", session.report);
        assert_ne!(chosen[0].way, Way::Relay);
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
        assert_eq!(session.remote.port(), server.address.port());
        let only_relay = session.report.tried.iter().all(|t| t.way == Way::Relay);
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
        let (rendezvous, name, key) = (alice.rendezvous.clone(), bob.name(), bob.key);
        inviting.spawn(async move {
            rendezvous
                .connect(name, key, HostSharing::SameNetwork)
                .await
        });
    }
    for _ in 0..SESSIONS {
        let (rendezvous, invitation) = (bob.rendezvous.clone(), bob.invitation().await);
        accepting.spawn(async move { rendezvous.accept(invitation, HostSharing::Always).await });
    }
    let mut ends = Vec::new();
    for result in inviting.join_all().await {
        ends.push(result.unwrap());
    }
    for mut session in accepting.join_all().await.into_iter().map(Result::unwrap) {
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
        .rendezvous
        .connect(nobody, alice.key, HostSharing::Always);
    let error = timeout(PATIENCE, connected).await.unwrap().unwrap_err();
    let offline = matches!(
        error,
        ConnectError::Introduction(IntroductionFailure::Offline)
    );
    assert!(offline, "{error}");
}

#[tokio::test]
async fn a_refusal_is_told_as_such() {
    let server = Server::start();
    let alice = Client::new(&server, "alice").await;
    let mut bob = Client::new(&server, "bob").await;
    let inviting = alice
        .rendezvous
        .connect(bob.name(), bob.key, HostSharing::SameNetwork);
    let refusing = bob.rendezvous.clone();
    let refusing = async {
        let invitation = bob.invitation().await;
        refusing.refuse(invitation).await;
    };
    let both = async { tokio::join!(inviting, refusing) };
    let error = timeout(PATIENCE, both).await.unwrap().0.unwrap_err();
    let refused = matches!(
        error,
        ConnectError::Introduction(IntroductionFailure::Refused)
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
        .rendezvous
        .connect(name, expected, HostSharing::SameNetwork);
    let accepting = async {
        let (rendezvous, invitation) = (bob.rendezvous.clone(), bob.invitation().await);
        // Alice leaves at once; bob would go on trying for a while.
        drop(tokio::spawn(async move {
            let accepted = rendezvous.accept(invitation, HostSharing::SameNetwork);
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
