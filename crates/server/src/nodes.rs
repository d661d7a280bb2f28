//! The links to the other nodes of the server.
//!
//! Nodes have one key, so each proves it to the other in the TLS handshake, and nobody
//! else gets further. Of two nodes the one with the greater id connects.

mod link;
mod open_links;
mod roster;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pinhole_proto::rendezvous::NodeId;
use pinhole_proto::tls::{ALPN_NODE, Expect, Identity, client_config, server_config, server_name};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tracing::{debug, warn};

use crate::inbox::RegistrarInput;
use link::{Link, LinkError};

pub(crate) use open_links::OpenLinks;
pub use roster::{JoinError, Roster};

/// How often nodes without a link are tried.
const DIAL_INTERVAL: Duration = Duration::from_millis(500);
/// How long connecting, the handshake and the first message may take in all.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);
/// Incoming connections that have not proven the key yet.
const HANDSHAKES: usize = 64;
/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A node, and where it listens for other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownNode {
    /// Which.
    pub id: NodeId,
    /// Where other nodes connect to it.
    pub address: SocketAddr,
}

/// How a server is one node of several.
#[derive(Debug)]
pub struct NodeConfig {
    /// This node. Another one at each start.
    pub id: NodeId,
    /// Where it listens for the others.
    pub listener: TcpListener,
    /// Where clients of the others reach its relay. Without any, that is where its own
    /// clients are connected to.
    pub relay_addresses: Vec<SocketAddr>,
    /// All nodes, as far as they are known.
    pub known: watch::Receiver<Vec<KnownNode>>,
}

/// This node's part of the links to all others.
pub(crate) struct Mesh {
    own: NodeId,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    registrar: mpsc::Sender<RegistrarInput>,
    /// The nodes to which there is a link, or one is being made from here.
    busy: Mutex<BTreeSet<NodeId>>,
    handshakes: Semaphore,
    next_link: AtomicU64,
}

impl Mesh {
    pub(crate) fn new(
        own: NodeId,
        identity: &Identity,
        registrar: mpsc::Sender<RegistrarInput>,
    ) -> Result<Self, rustls::Error> {
        let own_key = Expect::Key(identity.key());
        Ok(Self {
            own,
            acceptor: server_config(identity, own_key, ALPN_NODE)?.into(),
            connector: client_config(identity, own_key, ALPN_NODE)?.into(),
            registrar,
            busy: Mutex::default(),
            handshakes: Semaphore::new(HANDSHAKES),
            next_link: AtomicU64::new(0),
        })
    }

    /// Links this node to those that are known, as long as it is polled.
    pub(crate) async fn run(
        self: Arc<Self>,
        listener: TcpListener,
        known: watch::Receiver<Vec<KnownNode>>,
    ) {
        tokio::join!(Arc::clone(&self).accept(listener), self.dial(known));
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut links = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((tcp, from)) => {
                        let mesh = Arc::clone(&self);
                        links.spawn(async move { mesh.serve(tcp, from).await });
                    }
                    Err(error) => {
                        warn!("accepting the link of a node failed: {error}");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = links.join_next() => {}
            }
        }
    }

    async fn serve(&self, tcp: TcpStream, from: SocketAddr) {
        // Beyond the bound, a stranger is shown out and a node tries again.
        let Ok(handshake) = self.handshakes.try_acquire() else {
            return debug!(%from, "too many connections that may be nodes");
        };
        let accept = async {
            tcp.set_nodelay(true)?;
            let stream = self.acceptor.accept(tcp).await?;
            Link::open(TlsStream::from(stream), self.own).await
        };
        let opened = timeout(OPEN_TIMEOUT, accept).await;
        drop(handshake);
        match opened.unwrap_or(Err(LinkError::Slow)) {
            Ok(link) if link.node() == self.own => {}
            Ok(link) => {
                self.busy.lock().insert(link.node());
                self.carry(link, from).await;
            }
            Err(error @ LinkError::Version(_)) => warn!(%from, "no link to a node: {error}"),
            // Anybody who finds the address may try.
            Err(error) => debug!(%from, "not a node of this server: {error}"),
        }
    }

    async fn dial(self: Arc<Self>, mut known: watch::Receiver<Vec<KnownNode>>) {
        let mut links = JoinSet::new();
        let mut ticks = interval(DIAL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let nodes = known.borrow_and_update().clone();
            for node in nodes.into_iter().filter(|node| node.id < self.own) {
                if self.busy.lock().insert(node.id) {
                    let mesh = Arc::clone(&self);
                    links.spawn(async move { mesh.connect(node).await });
                }
            }
            tokio::select! {
                _ = ticks.tick() => {}
                Ok(()) = known.changed() => {}
                Some(_) = links.join_next() => {}
            }
        }
    }

    async fn connect(&self, node: KnownNode) {
        let connect = async {
            let tcp = TcpStream::connect(node.address).await?;
            tcp.set_nodelay(true)?;
            let stream = self.connector.connect(server_name(), tcp).await?;
            Link::open(TlsStream::from(stream), self.own).await
        };
        let opened = timeout(OPEN_TIMEOUT, connect).await;
        match opened.unwrap_or(Err(LinkError::Slow)) {
            // Somebody else has this address now.
            Ok(link) if link.node() != node.id => {
                self.busy.lock().remove(&node.id);
            }
            Ok(link) => self.carry(link, node.address).await,
            Err(error) => {
                debug!(node = ?node.id, at = %node.address, "no link: {error}");
                self.busy.lock().remove(&node.id);
                // The next attempt waits for the next tick.
                sleep(DIAL_INTERVAL).await;
            }
        }
    }

    async fn carry(&self, link: Link, at: SocketAddr) {
        let node = link.node();
        let number = self.next_link.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = link.carry(number, &self.registrar).await {
            warn!(?node, %at, "the link is down: {error}");
        }
        self.busy.lock().remove(&node);
    }
}
