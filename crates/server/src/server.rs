//! The whole server, on listeners that are bound already.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use pinhole_budget::give_back_memory;
use pinhole_proto::candidate::is_other_address;
use pinhole_proto::registry::Registry;
use pinhole_proto::rendezvous::Refusal;
use pinhole_proto::tls::{ALPN_RENDEZVOUS, Expect, server_config};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use crate::admission::{AdmissionControl, NamedKeys};
use crate::backlog::Backlogs;
use crate::connection::{Arrival, ListenerInfo, serve};
use crate::context::Context;
use crate::data_dir::DataDir;
use crate::limits::Limits;
use crate::log::ClientLog;
use crate::memory::ConnectionPeak;
use crate::name_claims::claims;
use crate::names::NamesError;
use crate::probe::Prober;
use crate::proxy_protocol::TrustedProxies;
use crate::registrar;
use crate::relay::RelayService;
use crate::slots::Slot;
use crate::turns::Turns;

/// How long clients may take to read why they are disconnected.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause after a failed accept. Its cause, mostly too few file descriptors, passes
/// only with time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the log reports omitted lines.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The names cannot be read.
    #[error(transparent)]
    Storage(#[from] NamesError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// A listener does not tell its address.
    #[error("a listener does not work")]
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
    run_behind(&[], listeners, data_dir, limits, shutdown).await
}

/// The same, behind proxies that name their clients by the PROXY protocol.
///
/// # Errors
/// When the server cannot start.
pub async fn run_behind(
    proxies: &[IpAddr],
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
    let (names, _lock) = data_dir.into_names();
    let (stop, stopping) = watch::channel(false);
    let registry = match limits.relay.offered {
        true => Registry::new(),
        false => Registry::new().without_relay(),
    };
    let named_keys: Arc<NamedKeys> = Arc::default();
    let (claims, name_worker) = claims(names, &limits, Arc::clone(&named_keys))?;
    let admission = Arc::new(AdmissionControl::new(&limits, named_keys));
    let log = Arc::new(ClientLog::new(&limits));
    let backlogs = Backlogs::default();
    let resources = registrar::RegistrarResources {
        claims,
        admission: Arc::clone(&admission),
        log: Arc::clone(&log),
        backlogs: backlogs.clone(),
    };
    let (registrar, ended) = registrar::start(registry, resources, name_worker, stopping.clone());
    let relay = Arc::new(RelayService::new(limits.relay.clone()));
    let context = Arc::new(Context {
        tls: TlsAcceptor::from(tls),
        turns: Turns::for_half_the_processors(),
        admission,
        prober: Prober::new(&limits),
        relay: Arc::clone(&relay),
        log: Arc::clone(&log),
        proxies: TrustedProxies::new(proxies),
        backlogs,
        limits,
        registrar,
        stopping,
        next_id: AtomicU64::new(0),
    });
    let mut accepting = JoinSet::new();
    for (listener, &address) in listeners.into_iter().zip(&addresses) {
        let info = ListenerInfo {
            observer_ports: observer_ports(address, &addresses),
            other_address: other_address(address.ip(), &addresses),
        };
        accepting.spawn(accept(listener, info, Arc::clone(&context)));
    }
    tokio::select! {
        () = shutdown => {}
        () = relay.report() => {}
        () = report_left_out(&log) => {}
    }
    info!(reason = %Refusal::ShuttingDown, "stopping");
    stop.send_replace(true);
    ended.await;
    while accepting.join_next().await.is_some() {}
    Ok(())
}

async fn report_left_out(log: &ClientLog) {
    let mut ticks = interval(REPORT_INTERVAL);
    loop {
        ticks.tick().await;
        log.report();
    }
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

/// Another address that is listened on and that clients of this one can use.
fn other_address(own: IpAddr, all: &[SocketAddr]) -> Option<IpAddr> {
    let mut others = all.iter().map(SocketAddr::ip);
    others.find(|&other| is_other_address(own, other))
}

async fn accept(listener: TcpListener, info: ListenerInfo, context: Arc<Context>) {
    let mut connections = JoinSet::new();
    let mut peak = ConnectionPeak::default();
    loop {
        tokio::select! {
            () = context.stopped() => break,
            accepted = listener.accept() => match accepted {
                Ok((tcp, remote)) => begin(&mut connections, tcp, remote, &info, &context),
                Err(error) => {
                    context.log.accept_failed(&error);
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next() => report(ended),
        }
        if peak.is_over(connections.len()) {
            spawn_blocking(give_back_memory);
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
    mut tcp: TcpStream,
    remote: SocketAddr,
    listener: &ListenerInfo,
    context: &Arc<Context>,
) {
    let observed = SocketAddr::new(remote.ip().to_canonical(), remote.port());
    if let Err(error) = prepare(&tcp) {
        debug!(%observed, "gone at once: {error}");
        return;
    }
    let arrival = Arrival {
        observed,
        is_proxied: false,
        listener: listener.clone(),
    };
    let context = Arc::clone(context);
    if context.proxies.contain(remote.ip()) {
        connections.spawn(async move {
            match context.proxies.client(&mut tcp, observed).await {
                Ok(client) => {
                    let arrival = Arrival {
                        observed: client,
                        is_proxied: true,
                        ..arrival
                    };
                    if let Some(silent) = admit(&context, client) {
                        serve(&context, tcp, arrival, silent).await;
                    }
                }
                Err(error) if context.log.admits(observed.ip()) => {
                    warn!("the proxy {observed} has passed on a connection with {error}");
                }
                Err(_) => {}
            }
        });
    } else if let Some(silent) = admit(&context, observed) {
        connections.spawn(async move { serve(&context, tcp, arrival, silent).await });
    }
}

fn admit(context: &Context, observed: SocketAddr) -> Option<Slot> {
    let admitted = context.admission.arrive(observed.ip());
    admitted
        .map_err(|full| context.note_refused(observed, full))
        .ok()
}

fn prepare(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    // Detects dead connections on which the server only waits, and keeps their NAT
    // mappings alive.
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
