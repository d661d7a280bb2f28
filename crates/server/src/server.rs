//! The whole server, on listeners that somebody else has bound.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use pinhole_proto::candidate::is_other_address;
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
use crate::claims::claims;
use crate::connection::{Arrival, Context, Place, serve};
use crate::data_dir::DataDir;
use crate::limits::Limits;
use crate::probe::Prober;
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
    let (registrar, ended) = registrar::start(claims(names, &limits), registry, stopping.clone());
    let relay = Arc::new(Relay::new(limits.relay.clone()));
    let context = Arc::new(Context {
        tls: TlsAcceptor::from(tls),
        admission: Admission::new(&limits),
        prober: Prober::new(&limits),
        relay: Arc::clone(&relay),
        limits,
        registrar,
        stopping,
        next_id: AtomicU64::new(0),
    });
    let mut accepting = JoinSet::new();
    for (listener, &address) in listeners.into_iter().zip(&addresses) {
        let place = Place {
            observer_ports: observer_ports(address, &addresses),
            other_address: other_address(address.ip(), &addresses),
        };
        accepting.spawn(accept(listener, place, Arc::clone(&context)));
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

/// Another address that is listened on and of use to the clients of this one.
fn other_address(own: IpAddr, all: &[SocketAddr]) -> Option<IpAddr> {
    let mut others = all.iter().map(SocketAddr::ip);
    others.find(|&other| is_other_address(own, other))
}

async fn accept(listener: TcpListener, place: Place, context: Arc<Context>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = context.stopped() => break,
            accepted = listener.accept() => match accepted {
                Ok((tcp, remote)) => begin(&mut connections, tcp, remote, &place, &context),
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
    place: &Place,
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
        place: place.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_address_is_one_that_clients_can_use_as_well() {
        let other = |own: &str, all: &[&str]| {
            let all: Vec<SocketAddr> = all.iter().map(|text| text.parse().unwrap()).collect();
            other_address(own.parse().unwrap(), &all).map(|ip| ip.to_string())
        };
        let two = &[
            "203.0.113.1:4747",
            "203.0.113.1:4748",
            "[2001:db8::1]:4747",
            "203.0.113.2:4747",
        ][..];
        assert_eq!(other("203.0.113.1", two), Some("203.0.113.2".to_owned()));
        assert_eq!(other("203.0.113.2", two), Some("203.0.113.1".to_owned()));
        assert_eq!(other("2001:db8::1", two), None);
        let mixed = &["203.0.113.1:4747", "192.168.1.5:4747", "10.0.0.5:4747"][..];
        assert_eq!(other("203.0.113.1", mixed), None);
        assert_eq!(other("192.168.1.5", mixed), None);
        let any = &["0.0.0.0:4747", "[::]:4747", "203.0.113.1:443"][..];
        assert_eq!(other("0.0.0.0", any), None);
        assert_eq!(other("203.0.113.1", any), None);
    }
}
