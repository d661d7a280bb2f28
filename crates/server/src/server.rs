//! The whole server, on listeners that somebody else has bound.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pinhole_proto::registry::Registry;
use pinhole_proto::rendezvous::Refusal;
use pinhole_proto::tls::{ALPN_RENDEZVOUS, Expect, server_config};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use crate::admission::Admission;
use crate::connection::{Arrival, Context, serve};
use crate::data_dir::DataDir;
use crate::limits::Limits;
use crate::registrar;
use crate::relay::Relay;
use crate::storage::{Names, StorageError};

/// How long clients may take to read why they are sent away.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after a failed accept: the cause (no free file descriptor, mostly)
/// goes away only with time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The names cannot be opened.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// A listener does not tell its address.
    #[error("a listener does not work: {0}")]
    Listener(#[from] io::Error),
}

/// Serves on `listeners` until `shutdown` completes; then every client is told
/// ([`Refusal::ShuttingDown`]), and within two seconds nothing is left.
///
/// # Errors
/// When the server cannot start.
pub async fn run(
    listeners: Vec<TcpListener>,
    data_dir: DataDir,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let tls = server_config(data_dir.identity(), Expect::AnyKey, ALPN_RENDEZVOUS)?;
    let addresses: Vec<SocketAddr> = listeners
        .iter()
        .map(TcpListener::local_addr)
        .collect::<Result<_, _>>()?;
    let names = Names::open(&data_dir.names_path())?;
    let (stop, stopping) = watch::channel(false);
    let registry = match limits.relay.offered {
        true => Registry::new(),
        false => Registry::new().without_relay(),
    };
    let (registrar, ended) = registrar::start(names, registry, stopping.clone());
    let relay = Arc::new(Relay::new(limits.relay.clone()));
    let context = Arc::new(Context {
        tls: TlsAcceptor::from(tls),
        admission: Admission::new(&limits),
        relay: Arc::clone(&relay),
        limits,
        registrar,
        stopping,
    });
    let mut accepting = JoinSet::new();
    for (listener, &address) in listeners.into_iter().zip(&addresses) {
        let observer_ports = observer_ports(address, &addresses);
        accepting.spawn(accept(listener, observer_ports, Arc::clone(&context)));
    }
    tokio::select! {
        () = shutdown => {}
        () = relay.report() => {}
    }
    info!(reason = %Refusal::ShuttingDown, "stopping");
    stop.send_replace(true);
    ended.await;
    while accepting.join_next().await.is_some() {}
    Ok(())
}

/// The ports listened on at the same address, `own`'s first.
fn observer_ports(own: SocketAddr, all: &[SocketAddr]) -> Vec<u16> {
    let others = all
        .iter()
        .filter(|other| other.ip() == own.ip() && other.port() != own.port());
    std::iter::once(own.port())
        .chain(others.map(SocketAddr::port))
        .collect()
}

async fn accept(listener: TcpListener, observer_ports: Vec<u16>, context: Arc<Context>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = context.stopped() => break,
            accepted = listener.accept() => match accepted {
                Ok((tcp, remote)) => begin(&mut connections, tcp, remote, &observer_ports, &context),
                Err(error) => {
                    warn!("accepting a connection: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next() => report(ended),
        }
    }
    drop(listener);
    let finish = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if timeout(SHUTDOWN_TIMEOUT, finish).await.is_err() {
        debug!(left = connections.len(), "connections cut off");
    }
}

fn begin(
    connections: &mut JoinSet<()>,
    tcp: TcpStream,
    remote: SocketAddr,
    observer_ports: &[u16],
    context: &Arc<Context>,
) {
    let observed = SocketAddr::new(remote.ip().to_canonical(), remote.port());
    let Some((admitted, handshaking)) = context.admission.admit(observed.ip()) else {
        debug!(%observed, "too many connections");
        return;
    };
    if let Err(error) = prepare(&tcp) {
        debug!(%observed, "gone at once: {error}");
        return;
    }
    let arrival = Arrival {
        observed,
        observer_ports: observer_ports.to_vec(),
    };
    let context = Arc::clone(context);
    connections.spawn(async move {
        serve(&context, tcp, arrival, admitted, handshaking).await;
    });
}

fn prepare(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    // Finds the dead among connections on which the server only waits, and
    // keeps their NAT mappings alive.
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(25))
        .with_interval(Duration::from_secs(10));
    #[cfg(not(windows))]
    let keepalive = keepalive.with_retries(3);
    SockRef::from(tcp).set_tcp_keepalive(&keepalive)
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        warn!("a connection's task failed: {error}");
    }
}
