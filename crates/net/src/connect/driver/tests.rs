use std::net::SocketAddr;

use pinhole_proto::candidate::{CandidateKind, LoopbackAddresses};
use pinhole_proto::recovery::LoginRecovery;
use pinhole_proto::rendezvous::{HostSharing, IntroductionFailure, IntroductionId};
use pinhole_proto::tls::{Expect, Identity};
use pinhole_server::{DataDir, Limits, listener};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::*;
use crate::ProxyChoice;
use crate::connect::{ConnectConfig, Connector, Warmth};
use crate::identity::generate_identity;
use crate::known::KnownKeys;
use crate::rendezvous::{LogIn, RendezvousEvent};
use crate::report::Report;
use crate::session::{LiveSessions, Session, authenticate};

async fn transports() -> (Transport, Transport) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap());
    let (ours, theirs) = tokio::join!(ours, listener.accept());
    let ours = Transport::direct(ours.unwrap()).unwrap();
    (ours, Transport::direct(theirs.unwrap().0).unwrap())
}

async fn authenticated(alice: &Identity, bob: &Identity) -> (Authenticated, Authenticated) {
    let (ours, theirs) = transports().await;
    let ours = authenticate(ours, Role::Controlling, alice, bob.key());
    let theirs = authenticate(theirs, Role::Controlled, bob, alice.key());
    let (ours, theirs) = tokio::join!(ours, theirs);
    (ours.unwrap(), theirs.unwrap())
}

fn offline() -> IntroductionMessage {
    IntroductionMessage::Failed {
        reason: IntroductionFailure::Offline,
        credential: None,
    }
}

/// A session on a path that can be bettered, and who looks for that.
struct Scene {
    driver: Driver,
    session: Session,
    alice: Identity,
    bob: Identity,
    mapping: watch::Sender<Option<SocketAddr>>,
    _events: mpsc::Receiver<RendezvousEvent>,
    _theirs: Authenticated,
    _data: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let [alice, bob] = [(); 2].map(|()| generate_identity().unwrap().0);
        let data = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(data.path()).unwrap();
        let listeners = listener::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let address = listeners[0].local_addr().unwrap();
        tokio::spawn(async move {
            let served = pinhole_server::run(listeners, data_dir, Limits::default(), pending());
            served.await.unwrap();
        });
        let log_in = LogIn {
            server: address.to_string().parse().unwrap(),
            expect: Expect::AnyKey,
            identity: alice.clone(),
            name: "alice".parse().unwrap(),
            known: KnownKeys::default(),
            proxy: ProxyChoice::Never,
            recovery: LoginRecovery::default(),
        };
        let config = ConnectConfig {
            path: PathPolicy::RelayOnly,
            sessions: LiveSessions::default(),
            port_mapper: None,
            warmth: Warmth::Warm,
        };
        let (connector, _, events) = Connector::log_in(log_in, config).await.unwrap();
        // Nobody knows him at the server: that is the answer to every round.
        let peer = PeerIdentity {
            name: "bob".parse().unwrap(),
            key: bob.key(),
        };
        let (ours, theirs) = authenticated(&alice, &bob).await;
        let path = ours.path(PathKind::Mapped, Report::default());
        let name = IntroductionId::from_random([1; IntroductionId::BYTES]);
        let (role, elapsed) = (Role::Controlling, Duration::ZERO);
        let session = ours.into_session(name, role, peer.clone(), path, elapsed);
        let live = session.handle.0.clone();
        let (mapping, kept) = PortMapping::granted();
        live.keep(Some(kept));
        let attempt = live.begin_attempt().unwrap();
        let wanted = Wanted {
            introduction: connector.rendezvous().introduce(peer, None).unwrap(),
            share_host: HostSharing::Always,
            policy: PathPolicy::DirectOnly,
            improve: Some((live, attempt)),
        };
        let driver = Driver::new(connector.login, wanted, oneshot::channel().0);
        Self {
            driver,
            session,
            alice,
            bob,
            mapping,
            _events: events,
            _theirs: theirs,
            _data: data,
        }
    }

    /// Begins to move the session; returns the other end of the new path.
    async fn begin_migration(&mut self) -> Authenticated {
        let (ours, mut theirs) = authenticated(&self.alice, &self.bob).await;
        let candidate = |address| Candidate {
            kind: CandidateKind::Host,
            address,
        };
        let round = Round {
            number: self.driver.newest_round,
            local: vec![candidate(ours.local)],
            remote: vec![candidate(ours.remote)],
            relay: false,
            start_at: Instant::now(),
            loopback: LoopbackAddresses::Admitted,
        };
        self.driver.newest_round += 1;
        self.driver.introduced = true;
        let agent = &mut self.driver.agent;
        agent.handle_round(Instant::now(), &round);
        let id = agent.handle_accepted(Instant::now(), round.number, ours.remote);
        let id = id.expect("a better path");
        let sockets = &mut self.driver.sockets;
        let (way, transport) = (PathAttempt::Accepted(ours.remote), transports().await.0);
        sockets.add_connection(Some(id), round.number, way, transport);
        sockets.authenticated(id, ours);
        self.driver.selected(id, PathKind::Lan).await.unwrap();
        theirs.hear_hello().await.unwrap();
        theirs
    }

    async fn migrated(&mut self) {
        let outcome = self.driver.sockets.next_outcome().await.unwrap();
        assert!(matches!(outcome, Outcome::Migrated(..)));
        self.driver.handle_outcome(outcome).await.unwrap();
    }

    fn kind(&self) -> PathKind {
        self.session.handle.path().borrow().kind
    }
}

async fn say_ready(theirs: &mut Authenticated) {
    theirs.stream.write_all(&[Hello::READY]).await.unwrap();
    theirs.stream.flush().await.unwrap();
}

#[tokio::test]
async fn the_router_keeps_the_old_port_open_until_the_session_has_moved() {
    let mut scene = Scene::new().await;
    let theirs = scene.begin_migration().await;
    assert!(!scene.mapping.is_closed(), "released before");
    drop(theirs);
    scene.migrated().await;
    assert!(!scene.mapping.is_closed(), "released in vain");
    assert_eq!(scene.kind(), PathKind::Mapped);
    let mut theirs = scene.begin_migration().await;
    say_ready(&mut theirs).await;
    scene.migrated().await;
    assert_eq!(scene.kind(), PathKind::Lan);
    assert!(scene.mapping.is_closed());
}

/// Nor does it matter that nobody waits for it.
#[tokio::test]
async fn a_move_under_way_is_finished_though_there_is_no_further_round() {
    let mut scene = Scene::new().await;
    let mut theirs = scene.begin_migration().await;
    let stranger = PeerIdentity {
        name: "bob".parse().unwrap(),
        key: scene.alice.key(),
    };
    let driver = &mut scene.driver;
    let no_port = Outcome::Prepared(2, Err(io::ErrorKind::AddrInUse.into()));
    driver.handle_outcome(no_port).await.unwrap();
    for message in [
        Some(offline()),
        Some(IntroductionMessage::Introduced {
            round: 2,
            peer: stranger,
            candidates: Vec::new(),
            relay: None,
            start_in: Duration::ZERO,
        }),
        None,
    ] {
        driver.handle_message(message).unwrap();
    }
    driver.finished = true;
    let (driven, ()) = tokio::join!(driver.drive(), say_ready(&mut theirs));
    driven.unwrap();
    assert_eq!(scene.kind(), PathKind::Lan);
}

/// Before there has been any round that is what there is to tell.
#[tokio::test]
async fn who_is_not_there_to_move_is_told_as_such() {
    let mut scene = Scene::new().await;
    let failed = offline();
    let told = scene.driver.handle_message(Some(failed)).unwrap_err();
    assert!(matches!(told, ConnectError::Introduction { .. }), "{told}");
}
