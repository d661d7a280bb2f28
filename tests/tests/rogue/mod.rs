//! Somebody who keeps to no rule but the protocol's.
#![allow(dead_code, reason = "each test program uses a part of it")]

use pinhole_client::PeerIdentity;
use pinhole_net::{
    ConnectConfig, Connector, Expect, HostSharing, KnownKeys, LiveSessions, LogIn, LoginRecovery,
    PathPolicy, ProxyChoice, Warmth, generate_identity,
};
use pinhole_tests::scene::{SOON, Scene};
use pinhole_transfer::{Exchange, ExchangeEvent, Owner, Resources, Side};
use tokio::sync::mpsc;

/// A login without an engine, with as many sessions as it likes.
pub(crate) struct Rogue {
    connector: Connector,
}

/// One session of a rogue.
pub(crate) struct Raid {
    pub(crate) exchange: Exchange,
    pub(crate) events: mpsc::Receiver<ExchangeEvent>,
    is_closed: bool,
}

impl Rogue {
    pub(crate) async fn log_in(scene: &Scene, name: &str) -> Self {
        let (identity, _) = generate_identity().expect("a key");
        let log_in = LogIn {
            server: scene.server_address.parse().expect("an address"),
            expect: Expect::AnyKey,
            identity,
            name: name.parse().expect("a name"),
            known: KnownKeys::default(),
            proxy: ProxyChoice::default(),
            recovery: LoginRecovery::default(),
        };
        let config = ConnectConfig {
            path: PathPolicy::Auto,
            sessions: LiveSessions::default(),
            port_mapper: None,
            warmth: Warmth::Warm,
        };
        let (connector, _, mut events) = Connector::log_in(log_in, config).await.expect("a login");
        tokio::spawn(async move { while events.recv().await.is_some() {} });
        Self { connector }
    }

    pub(crate) async fn raid(&self, target: &PeerIdentity) -> Raid {
        self.try_raid(target).await.expect("a session")
    }

    pub(crate) async fn try_raid(&self, target: &PeerIdentity) -> Option<Raid> {
        let name = target.name.clone();
        let connected = self
            .connector
            .connect(name, target.key, HostSharing::Always, None);
        let stream = connected.await.ok()?.stream.into_inner();
        let nobody = Owner {
            key: None,
            address: None,
            is_known: false,
        };
        let resources = Resources::default();
        let (exchange, events) =
            pinhole_transfer::start(stream, Side::Initiator, nobody, resources);
        Some(Raid {
            exchange,
            events,
            is_closed: false,
        })
    }
}

impl Raid {
    pub(crate) async fn event(&mut self) -> ExchangeEvent {
        let event = tokio::time::timeout(SOON, self.events.recv()).await;
        event.expect("an event in time").expect("an event")
    }

    /// Whether the other side has ended the session.
    pub(crate) fn is_over(&mut self) -> bool {
        while let Ok(event) = self.events.try_recv() {
            self.is_closed |= matches!(event, ExchangeEvent::Closed { .. });
        }
        self.is_closed
    }
}
