//! The whole server, on listeners that are bound already.

use std::convert::Infallible;
use std::fs::File;
use std::future::pending;
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
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{interval, sleep};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use crate::admin;
use crate::admission::{AdmissionControl, NamedKeys};
use crate::backlog::Backlogs;
use crate::connection::{self, Arrival, ListenerInfo};
use crate::context::{Context, Phase, tell};
use crate::data_dir::DataDir;
use crate::inbox::RegistrarInput;
use crate::limits::{Limits, NameLimits};
use crate::log::{ClientLog, LoggedAddresses};
use crate::memory::ConnectionPeak;
use crate::metrics::Metrics;
use crate::name_claims::claims;
use crate::names::NamesError;
use crate::nodes::{Mesh, NodeConfig};
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

/// How a server is run.
#[derive(Debug, Default)]
pub struct ServerConfig {
    /// Every timeout and budget.
    pub limits: Limits,
    /// The proxies that name their clients by the PROXY protocol.
    pub proxies: Vec<IpAddr>,
    /// Whether the log says where people are.
    pub addresses: LoggedAddresses,
    /// Where metrics and health are asked for over HTTP, if anywhere.
    pub admin: Option<TcpListener>,
    /// What it needs to be one node of several.
    pub node: Option<NodeConfig>,
}

/// What a running server is told.
#[derive(Debug)]
pub enum Control {
    /// To keep other limits from now on. Those of time that are not the relay's, and
    /// whether there is a relay, stay as they were.
    Reload(Box<Limits>),
    /// To stop. Relayed pairs may go on for [`Limits::drain`], until they are told again.
    Stop,
}

/// Serves on `listeners` until `shutdown` completes; then every client is told
/// ([`Refusal::ShuttingDown`]), and within two seconds nothing but relayed pairs is left.
///
/// # Errors
/// When the server cannot start.
pub async fn run(
    listeners: Vec<TcpListener>,
    data_dir: DataDir,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let config = ServerConfig {
        limits,
        ..ServerConfig::default()
    };
    let (control, controls) = mpsc::channel(1);
    let stop = async {
        shutdown.await;
        // The server may have failed already.
        drop(control.send(Control::Stop).await);
        pending::<Infallible>().await
    };
    tokio::select! {
        ended = serve(listeners, data_dir, config, controls) => ended,
        never = stop => match never {},
    }
}

/// The same, controlled while it runs. It stops when `controls` has no sender any more.
///
/// # Errors
/// When the server cannot start.
pub async fn serve(
    listeners: Vec<TcpListener>,
    data_dir: DataDir,
    mut config: ServerConfig,
    mut controls: mpsc::Receiver<Control>,
) -> Result<(), ServeError> {
    let addresses: Vec<SocketAddr> = listeners
        .iter()
        .map(TcpListener::local_addr)
        .collect::<Result<_, _>>()?;
    let (progress, phase) = watch::channel(Phase::Serving);
    let (admin, node) = (config.admin.take(), config.node.take());
    let identity = data_dir.identity().clone();
    let set_up = Box::pin(set_up(data_dir, config, node.as_ref(), phase));
    let (context, ended, _lock) = set_up.await?;
    let mut accepting = JoinSet::new();
    for (listener, &address) in listeners.into_iter().zip(&addresses) {
        let info = ListenerInfo {
            observer_ports: observer_ports(address, &addresses),
            other_address: other_address(address.ip(), &addresses),
        };
        accepting.spawn(accept(listener, info, Arc::clone(&context)));
    }
    // Aborted when this function returns.
    let mut answering = JoinSet::new();
    if let Some(listener) = admin {
        answering.spawn(admin::answer(listener, Arc::clone(&context)));
    }
    if let Some(node) = node {
        let mesh = Mesh::new(node.id, &identity, context.registrar.clone())?;
        answering.spawn(Arc::new(mesh).run(node.listener, node.known));
    }
    let mut drain_time = context.limits.drain;
    tokio::select! {
        () = obey(&context, &mut controls, &mut drain_time) => {}
        () = context.relay.report() => {}
        () = report_left_out(&context.log) => {}
    }
    info!(reason = %Refusal::ShuttingDown, "stopping");
    progress.send_replace(Phase::Draining);
    ended.await;
    drain(&context.relay, drain_time, &mut controls).await;
    progress.send_replace(Phase::Ending);
    while accepting.join_next().await.is_some() {}
    Ok(())
}

/// Makes what connections share and starts the registrar. Returns what completes when that
/// has ended, and the lock to keep.
async fn set_up(
    data_dir: DataDir,
    config: ServerConfig,
    node: Option<&NodeConfig>,
    phase: watch::Receiver<Phase>,
) -> Result<(Arc<Context>, impl Future<Output = ()> + use<>, File), ServeError> {
    let ServerConfig {
        limits,
        proxies,
        addresses,
        ..
    } = config;
    let tls = server_config(data_dir.identity(), Expect::AnyKey, ALPN_RENDEZVOUS)?;
    let (names, lock) = data_dir.into_names();
    let people = usize::try_from(limits.directory_people).unwrap_or(usize::MAX);
    let registry = Registry::new().with_directory(people);
    let registry = match limits.relay.offered {
        true => registry,
        false => registry.without_relay(),
    };
    let registry = match node {
        Some(node) => registry.as_node(node.id, node.relay_addresses.clone()),
        None => registry,
    };
    let named_keys: Arc<NamedKeys> = Arc::default();
    let (claims, name_worker) = claims(names, &limits, Arc::clone(&named_keys)).await?;
    let metrics = Arc::new(Metrics::new(claims.count.clone(), claims.lookups.clone()));
    let admission = Arc::new(AdmissionControl::new(&limits, named_keys));
    let log = Arc::new(ClientLog::new(&limits, addresses));
    let backlogs = Backlogs::default();
    let resources = registrar::RegistrarResources {
        claims,
        admission: Arc::clone(&admission),
        log: Arc::clone(&log),
        backlogs: backlogs.clone(),
        metrics: Arc::clone(&metrics),
    };
    let (registrar, ended) = registrar::start(registry, resources, name_worker, phase.clone());
    let context = Arc::new(Context {
        tls: TlsAcceptor::from(tls),
        turns: Turns::for_half_the_processors(),
        admission,
        prober: Prober::new(&limits),
        relay: Arc::new(RelayService::new(limits.relay.clone())),
        log,
        metrics,
        proxies: TrustedProxies::new(&proxies),
        backlogs,
        limits,
        registrar,
        phase,
        next_id: AtomicU64::new(0),
    });
    Ok((context, ended, lock))
}

/// Does what the server is told until that is to stop.
async fn obey(
    context: &Context,
    controls: &mut mpsc::Receiver<Control>,
    drain_time: &mut Duration,
) {
    while let Some(Control::Reload(limits)) = controls.recv().await {
        context.admission.set_limits(&limits);
        context.relay.set_limits(&limits.relay);
        *drain_time = limits.drain;
        let input = RegistrarInput::NameLimits(NameLimits::from(&*limits));
        if tell(context, input).await.is_err() {
            return;
        }
    }
}

/// Completes when the server is told to stop.
async fn stop_asked(controls: &mut mpsc::Receiver<Control>) {
    while let Some(Control::Reload(_)) = controls.recv().await {}
}

/// Waits until no pair is relayed, the time for that is up, or the server is told once
/// more to stop.
async fn drain(relay: &RelayService, time: Duration, controls: &mut mpsc::Receiver<Control>) {
    let pairs = relay.open_pairs();
    if pairs > 0 && !time.is_zero() {
        let seconds = time.as_secs();
        info!(
            pairs,
            "relayed pairs may go on until they end, for {seconds} s at most; a second signal \
             ends them"
        );
    }
    tokio::select! {
        () = relay.drained() => {}
        () = sleep(time) => {}
        () = stop_asked(controls) => {}
    }
    let pairs = relay.open_pairs();
    if pairs > 0 {
        warn!(pairs, "relayed pairs are cut off");
    }
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
    let too_late = async {
        context.reached(Phase::Ending).await;
        sleep(SHUTDOWN_TIMEOUT).await;
    };
    let is_finished = tokio::select! {
        () = finish => true,
        () = too_late => false,
    };
    if !is_finished {
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
        let observed = context.log.shown(observed);
        debug!(observed, "gone at once: {error}");
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
                        connection::serve(&context, tcp, arrival, silent).await;
                    }
                }
                Err(error) if context.log.admits(observed.ip()) => {
                    warn!("the proxy {observed} has passed on a connection with {error}");
                }
                Err(_) => {}
            }
        });
    } else if let Some(silent) = admit(&context, observed) {
        connections.spawn(async move { connection::serve(&context, tcp, arrival, silent).await });
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
