//! Port mapping: having the router open a punch port on request.
//!
//! A port that the router forwards can be reached by everybody, whatever the
//! NATs do. Each warm punch port gets one, if the router grants it: in the
//! background, so that nobody ever waits for a router. What it says is only a
//! candidate; the server passes it on only at an address at which it has itself
//! seen us.
//!
//! Routers are old, slow and wrong. So: few mappings at a time, one request
//! after the other, a time limit on each, and after a failure silence for
//! [`QUIET`], unless the network has become another one.

mod gateway;
mod grant;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pinhole_proto::candidate::{Candidate, is_global};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::debug;

use gateway::{Gateway, Mapping, Network};

pub use grant::{Grant, MappingProtocol, RouterOutside};

/// Most mappings held at a time; further ports wait for one of them to end.
const MAX_MAPPINGS: usize = 8;
/// How long a router that granted nothing is left alone.
const QUIET: Duration = Duration::from_secs(600);
/// Shortest and longest time after which a mapping is renewed, whatever the
/// router said.
const RENEW_AFTER_MIN: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 60_000 });
const RENEW_AFTER_MAX: Duration = Duration::from_secs(1_800);

/// Asks the router for mappings. Clones share what is known of it; one is
/// worth keeping for as long as the process runs.
#[derive(Debug, Clone)]
pub struct PortMapper {
    state: Arc<MapperState>,
}

struct MapperState {
    find_network: Box<dyn Fn() -> Option<Network> + Send + Sync>,
    known: Mutex<Known>,
    slots: Semaphore,
    /// How many mappings are held, or most likely will be.
    held: watch::Sender<usize>,
    /// The router has granted one before.
    grants: AtomicBool,
    enabled: watch::Sender<bool>,
}

impl std::fmt::Debug for MapperState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MapperState")
            .field("held", &self.held)
            .finish()
    }
}

/// The router of one network.
#[derive(Debug, Default)]
struct Known {
    network: Option<Network>,
    gateway: Option<Gateway>,
    quiet_until: Option<Instant>,
}

/// The wish to have one local port mapped, for as long as the value lives.
#[derive(Debug)]
pub struct PortMapping(watch::Receiver<Option<SocketAddr>>);

impl PortMapping {
    /// Where the port can be reached from outside, if the router has opened it
    /// by now.
    pub(crate) fn external(&self) -> Option<SocketAddr> {
        *self.0.borrow()
    }

    /// One that is closed to its other end when it is released.
    #[cfg(test)]
    pub(crate) fn granted() -> (watch::Sender<Option<SocketAddr>>, Self) {
        let (sender, external) = watch::channel(None);
        (sender, Self(external))
    }
}

impl Default for PortMapper {
    /// Asks nobody anything before it is switched on and a port is to be mapped.
    fn default() -> Self {
        let mapper = Self::with(Network::current);
        mapper.switch_off();
        mapper
    }
}

impl PortMapper {
    fn with(find_network: impl Fn() -> Option<Network> + Send + Sync + 'static) -> Self {
        Self {
            state: Arc::new(MapperState {
                find_network: Box::new(find_network),
                known: Mutex::default(),
                slots: Semaphore::new(MAX_MAPPINGS),
                held: watch::Sender::new(0),
                grants: AtomicBool::new(false),
                enabled: watch::Sender::new(true),
            }),
        }
    }

    /// From now on the router is asked, once a port is to be mapped.
    pub fn switch_on(&self) {
        self.state.enabled.send_replace(true);
    }

    /// From now on the router is asked nothing, and every mapping is released.
    pub fn switch_off(&self) {
        self.state.enabled.send_replace(false);
    }

    /// Begins to have this local port of IPv4 mapped, and keeps it so until the
    /// returned value is dropped.
    pub(crate) fn keep(&self, port: u16) -> Option<PortMapping> {
        let port = NonZeroU16::new(port)?;
        let (sender, external) = watch::channel(None);
        let mapper = self.clone();
        tokio::spawn(async move { mapper.keep_mapped(port, sender).await });
        Some(PortMapping(external))
    }

    /// What the router says of its own outside, for a diagnosis.
    pub async fn outside(&self) -> RouterOutside {
        match self.network().await {
            Some(network) => Box::pin(gateway::outside(network)).await,
            None => RouterOutside::Unsaid,
        }
    }

    async fn network(&self) -> Option<Network> {
        let state = self.state.clone();
        let found = tokio::task::spawn_blocking(move || (state.find_network)());
        found.await.ok().flatten()
    }

    /// Asks the router for a mapping of this port, however recently it granted
    /// none, and releases it at once: what it granted, for a diagnosis.
    pub async fn examine(&self, port: u16) -> Option<Grant> {
        self.state.known.lock().await.quiet_until = None;
        let mapping = self.map(NonZeroU16::new(port)?).await.ok()?;
        let grant = Grant {
            protocol: mapping.protocol(),
            external: mapping.external,
        };
        release(mapping).await;
        Some(grant)
    }

    /// Returns when every mapping that nobody wants any more is released, but
    /// after `patience` in any case.
    pub async fn all_released(&self, patience: Duration) {
        let mut held = self.state.held.subscribe();
        // The sender lives as long as we do.
        let _ = timeout(patience, held.wait_for(|held| *held == 0)).await;
    }

    async fn keep_mapped(&self, port: NonZeroU16, external: watch::Sender<Option<SocketAddr>>) {
        let mut enabled = self.state.enabled.subscribe();
        loop {
            tokio::select! {
                _ = enabled.wait_for(|enabled| *enabled) => {}
                () = external.closed() => return,
            }
            let stop = async {
                tokio::select! {
                    _ = enabled.wait_for(|enabled| !*enabled) => {}
                    () = external.closed() => {}
                }
            };
            self.hold(port, &external, stop).await;
        }
    }

    /// Gets a mapping, if need be after a while, and keeps it until `stop`.
    async fn hold(
        &self,
        port: NonZeroU16,
        external: &watch::Sender<Option<SocketAddr>>,
        stop: impl Future<Output = ()>,
    ) {
        tokio::pin!(stop);
        let _slot = tokio::select! {
            slot = self.state.slots.acquire() => slot,
            () = &mut stop => return,
        };
        loop {
            // Never given up half way: the router would keep what it grants. For
            // a router that grants nothing nobody waits at the end.
            let grants = self.state.grants.load(Ordering::Relaxed);
            let held = grants.then(|| Held::new(&self.state.held));
            let mut mapping = match self.map(port).await {
                Ok(mapping) if is_useful(mapping.external) => mapping,
                Ok(mapping) => {
                    debug!(external = %mapping.external, "a mapping that leads nowhere");
                    self.leave_alone().await;
                    release(mapping).await;
                    continue;
                }
                Err(again_at) => {
                    drop(held);
                    tokio::select! {
                        () = sleep_until(again_at) => continue,
                        () = &mut stop => return,
                    }
                }
            };
            self.state.grants.store(true, Ordering::Relaxed);
            let _held = held.unwrap_or_else(|| Held::new(&self.state.held));
            loop {
                external.send_replace(Some(mapping.external));
                tokio::select! {
                    () = sleep(renew_after(mapping.lifetime)) => {}
                    () = &mut stop => {
                        external.send_replace(None);
                        release(mapping).await;
                        return;
                    }
                }
                if let Err(error) = mapping.renew().await {
                    debug!(%error, "a mapping was not renewed");
                    external.send_replace(None);
                    break;
                }
            }
        }
    }

    /// Asks for a mapping; an error says when to ask again. Whoever comes
    /// meanwhile waits here: routers get one request at a time.
    async fn map(&self, port: NonZeroU16) -> Result<Mapping, Instant> {
        let mut known = self.state.known.lock().await;
        let network = self.network().await;
        if known.network != network {
            *known = Known {
                network,
                ..Known::default()
            };
        }
        let now = Instant::now();
        if let Some(quiet_until) = known.quiet_until.filter(|until| *until > now) {
            return Err(quiet_until);
        }
        if let Some(gateway) = &known.gateway {
            match gateway.map(port).await {
                Ok(mapping) => return Ok(mapping),
                Err(error) => debug!(%error, "a router that granted mappings does not any more"),
            }
        }
        known.gateway = None;
        if let Some(network) = network
            && let Some((gateway, mapping)) = Gateway::discover(network, port).await
        {
            debug!(protocol = %mapping.protocol(), external = %mapping.external, "mapped");
            known.gateway = Some(gateway);
            return Ok(mapping);
        }
        let quiet_until = Instant::now() + QUIET;
        known.quiet_until = Some(quiet_until);
        Err(quiet_until)
    }

    /// Asks nothing of this router for a while.
    async fn leave_alone(&self) {
        self.state.known.lock().await.quiet_until = Some(Instant::now() + QUIET);
    }
}

/// One mapping that is held, counted.
struct Held<'a>(&'a watch::Sender<usize>);

impl<'a> Held<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|held| *held += 1);
        Self(count)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|held| *held -= 1);
    }
}

/// Whether anybody outside could reach this: behind a second NAT the router's
/// own outside is an inside.
fn is_useful(external: SocketAddr) -> bool {
    is_global(external.ip()) && external.port() >= Candidate::MIN_PORT
}

fn renew_after(lifetime: Duration) -> Duration {
    (lifetime / 2).clamp(RENEW_AFTER_MIN, RENEW_AFTER_MAX)
}

async fn release(mapping: Mapping) {
    let external = mapping.external;
    match mapping.release().await {
        Ok(()) => debug!(%external, "released"),
        Err(error) => debug!(%error, %external, "not released: it will run out"),
    }
}
