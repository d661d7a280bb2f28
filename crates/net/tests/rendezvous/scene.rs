//! What every test begins with: a server and clients.

use std::time::Duration;

use pinhole_net::{
    Accepted, ConnectConfig, ConnectError, Connector, Expect, HostSharing, Identity, Invitation,
    KnownKeys, LiveSessions, LogIn, LoggedIn, LoginRecovery, PathPolicy, PeerKey, PeerName,
    Presence, ProxyChoice, RendezvousEvent, ServerAddress, Session, Warmth, generate_identity,
};
use pinhole_server::{DataDir, Limits, listener};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    pub(crate) address: ServerAddress,
    pub(crate) key: PeerKey,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) stopped: JoinHandle<()>,
    _data: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_at(&["127.0.0.1:0"])
    }

    pub(crate) fn start_at(listen: &[&str]) -> Self {
        Self::start_with(listen, Limits::default())
    }

    /// With other limits than the usual ones.
    pub(crate) fn with(limits: Limits) -> Self {
        Self::start_with(&["127.0.0.1:0"], limits)
    }

    fn start_with(listen: &[&str], limits: Limits) -> Self {
        let data = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(data.path()).unwrap();
        let listen: Vec<_> = listen.iter().map(|text| text.parse().unwrap()).collect();
        let listeners = listener::bind(&listen).unwrap();
        let key = data_dir.identity().key();
        let address = listeners[0].local_addr().unwrap();
        let address = format!("{address}#{}", key.fingerprint()).parse().unwrap();
        let (stop, stopping) = oneshot::channel();
        let stopped = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopping.await;
            };
            let served = pinhole_server::run(listeners, data_dir, limits, shutdown);
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
    pub(crate) fn unpinned(&self) -> ServerAddress {
        let text = self.address.to_string();
        text.split_once('#').unwrap().0.parse().unwrap()
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.ports()[0]
    }

    pub(crate) fn log_in(&self, name: &str, identity: &Identity) -> LogIn {
        LogIn {
            server: self.address.clone(),
            expect: Expect::AnyKey,
            identity: identity.clone(),
            name: name.parse().unwrap(),
            known: KnownKeys::default(),
            proxy: ProxyChoice::Never,
            recovery: LoginRecovery::default(),
        }
    }
}

pub(crate) fn connect_config(path: PathPolicy) -> ConnectConfig {
    ConnectConfig {
        path,
        sessions: LiveSessions::default(),
        port_mapper: None,
        warmth: Warmth::Warm,
    }
}

pub(crate) fn identity() -> Identity {
    generate_identity().unwrap().0
}

/// A client that is logged in.
pub(crate) struct Client {
    pub(crate) connector: Connector,
    pub(crate) logged_in: LoggedIn,
    pub(crate) events: mpsc::Receiver<RendezvousEvent>,
    /// Whom this client knows.
    pub(crate) known: KnownKeys,
    pub(crate) key: PeerKey,
}

impl Client {
    pub(crate) async fn new(server: &Server, name: &str) -> Self {
        Self::with_path(server, name, PathPolicy::Auto).await
    }

    pub(crate) async fn with_path(server: &Server, name: &str, path: PathPolicy) -> Self {
        Self::with(server, name, connect_config(path)).await
    }

    /// One for whom no port is kept ready.
    pub(crate) async fn idle(server: &Server, name: &str) -> Self {
        let config = ConnectConfig {
            warmth: Warmth::Cold,
            ..connect_config(PathPolicy::Auto)
        };
        Self::with(server, name, config).await
    }

    async fn with(server: &Server, name: &str, config: ConnectConfig) -> Self {
        let identity = identity();
        let log_in = server.log_in(name, &identity);
        let known = log_in.known.clone();
        let (connector, logged_in, events) = Connector::log_in(log_in, config).await.unwrap();
        Self {
            connector,
            logged_in,
            events,
            known,
            key: identity.key(),
        }
    }

    pub(crate) fn name(&self) -> PeerName {
        self.logged_in.name.clone()
    }

    pub(crate) async fn event(&mut self) -> RendezvousEvent {
        let event = timeout(PATIENCE, self.events.recv()).await;
        event.expect("no event").expect("no more events")
    }

    /// What is told of others next, which nothing else comes before.
    pub(crate) async fn presence(&mut self) -> Presence {
        match self.event().await {
            RendezvousEvent::Presence(presence) => presence,
            other => panic!("{other:?}"),
        }
    }

    /// The next invitation, whatever comes before.
    pub(crate) async fn invitation(&mut self) -> Invitation {
        loop {
            if let RendezvousEvent::Invitation(invitation) = self.event().await {
                return invitation;
            }
        }
    }
}

/// Connects `from` to `to`, who accepts.
pub(crate) async fn connect(
    from: &Client,
    to: &mut Client,
) -> (Result<Session, ConnectError>, Result<Session, ConnectError>) {
    let (name, key, other) = (to.name(), to.key, to.connector.clone());
    let inviting = from
        .connector
        .connect(name, key, HostSharing::SameNetwork, None);
    let accepting = async {
        let invitation = to.invitation().await;
        assert_eq!(invitation.from().key, from.key);
        let accepted = other
            .accept(invitation, HostSharing::SameNetwork, PathPolicy::Auto)
            .await;
        accepted.map(begun)
    };
    let both = async { tokio::join!(inviting, accepting) };
    timeout(PATIENCE, both).await.expect("neither yes nor no")
}

/// The session of an invitation that began one.
pub(crate) fn begun(accepted: Accepted) -> Session {
    match accepted {
        Accepted::Session(session) => session,
        Accepted::Migrated => panic!("an older session has moved"),
    }
}

/// Sends so many bytes each way at once and checks every one of them.
pub(crate) async fn exchange(one: Session, other: Session, size_bytes: usize) {
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
