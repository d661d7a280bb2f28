//! Announcing and browsing.
//!
//! One instance of `_pinhole._tcp` for each key, named after its fingerprint,
//! so that no two can want one name and none has to be probed for
//! (RFC 6762, 8.1). What it says, and where, is believed of nobody.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mdns_sd::{IfKind, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo};
use pinhole_proto::key::PeerKey;
use pinhole_proto::rendezvous::PeerIdentity;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::debug;

use super::NearbyEvent;
use super::networks::{Networks, Scope};

const SERVICE: &str = "_pinhole._tcp.local.";
/// Of the announcement; another is not understood.
const VERSION: &str = "1";
/// Most peers that are kept in mind; further ones are ignored.
const PEERS_MAX: usize = 256;
/// Most addresses kept of one of them.
const ADDRESSES_MAX: usize = 8;
/// Between two lists of who is there: announcements may come in floods.
const BETWEEN_LISTS: Duration = Duration::from_millis(100);
/// How long a peer that could not be reached has to answer for itself.
const DOUBT: Duration = Duration::from_secs(2);
/// How long the goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// Before browsing begins anew, should it have ended.
const BROWSE_PAUSE: Duration = Duration::from_secs(1);

/// Who is there, and where.
#[derive(Debug, Default)]
struct Table(BTreeMap<PeerKey, Announced>);

#[derive(Debug, PartialEq, Eq)]
struct Announced {
    peer: PeerIdentity,
    /// The newest first. Older ones stay: an announcement may be forged.
    addresses: Vec<SocketAddr>,
}

impl Table {
    /// Takes note. Returns whether there is somebody new, or under a new name.
    fn add(&mut self, peer: PeerIdentity, addresses: Vec<SocketAddr>) -> bool {
        let key = peer.key;
        let Some(known) = self.0.get_mut(&key) else {
            let is_taken = self.0.len() < PEERS_MAX && !addresses.is_empty();
            if is_taken {
                let mut addresses = addresses;
                addresses.truncate(ADDRESSES_MAX);
                self.0.insert(key, Announced { peer, addresses });
            }
            return is_taken;
        };
        let mut newest_first = addresses;
        for older in std::mem::take(&mut known.addresses) {
            if !newest_first.contains(&older) {
                newest_first.push(older);
            }
        }
        newest_first.truncate(ADDRESSES_MAX);
        known.addresses = newest_first;
        let is_renamed = known.peer != peer;
        known.peer = peer;
        is_renamed
    }

    fn remove(&mut self, instance: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|key, _| !is_instance(instance, *key));
        self.0.len() < before
    }

    fn peers(&self) -> Vec<PeerIdentity> {
        self.0.values().map(|known| known.peer.clone()).collect()
    }
}

fn instance(key: PeerKey) -> String {
    format!("{}.{SERVICE}", key.fingerprint())
}

fn is_instance(fullname: &str, key: PeerKey) -> bool {
    fullname.eq_ignore_ascii_case(&instance(key))
}

/// What an announcement says, if it is one.
fn read(service: &ResolvedService) -> Option<(PeerIdentity, Vec<SocketAddr>)> {
    let text = |key| service.get_property_val_str(key);
    if text("v")? != VERSION {
        return None;
    }
    let key: PeerKey = text("key")?.parse().ok()?;
    if !is_instance(&service.fullname, key) {
        return None;
    }
    let name = text("name")?.parse().ok()?;
    let port = service.port;
    let addresses = service.addresses.iter().filter_map(|ip| match ip {
        ScopedIp::V4(v4) => Some(SocketAddr::new(IpAddr::V4(*v4.addr()), port)),
        ScopedIp::V6(v6) => {
            let scope = v6.scope_id().index;
            let scope = if v6.addr().is_unicast_link_local() {
                scope
            } else {
                0
            };
            Some(SocketAddrV6::new(*v6.addr(), port, 0, scope).into())
        }
        _ => None,
    });
    Some((PeerIdentity { name, key }, addresses.collect()))
}

/// The daemon of multicast DNS, on a thread of its own, and what it has found.
#[derive(Debug)]
pub(super) struct Discovery {
    daemon: Daemon,
    table: Arc<Mutex<Table>>,
}

#[derive(Clone)]
struct Daemon(ServiceDaemon);

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Daemon")
    }
}

/// The browsing side of a [`Discovery`].
pub(super) struct Search {
    daemon: Daemon,
    table: Arc<Mutex<Table>>,
    own: PeerKey,
    scope: Scope,
}

impl Discovery {
    /// With a port, it is announced.
    pub(super) fn start(
        us: &PeerIdentity,
        port: Option<u16>,
        scope: Scope,
    ) -> io::Result<(Self, Search)> {
        let daemon = ServiceDaemon::new_with_port(scope.mdns_port).map_err(io::Error::other)?;
        let discovery = Self {
            daemon: Daemon(daemon),
            table: Arc::default(),
        };
        discovery
            .prepare(us, port, scope)
            .map_err(io::Error::other)?;
        let search = Search {
            daemon: discovery.daemon.clone(),
            table: discovery.table.clone(),
            own: us.key,
            scope,
        };
        Ok((discovery, search))
    }

    fn prepare(&self, us: &PeerIdentity, port: Option<u16>, scope: Scope) -> mdns_sd::Result<()> {
        let daemon = &self.daemon.0;
        if scope.loopback {
            daemon.disable_interface(IfKind::All)?;
            daemon.enable_interface(IfKind::LoopbackV4)?;
        } else {
            daemon.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])?;
        }
        let Some(port) = port else {
            return Ok(());
        };
        let host = format!("{}.local.", us.key.fingerprint());
        let (name, key) = (us.name.to_string(), us.key.to_string());
        let said = [("v", VERSION), ("name", &name), ("key", &key)];
        let instance = us.key.fingerprint().to_string();
        let service = ServiceInfo::new(SERVICE, &instance, &host, "", port, &said[..])?;
        let mut service = service.enable_addr_auto();
        service.set_requires_probe(false);
        daemon.register(service)
    }

    /// Where the holder of this key may be.
    pub(super) fn addresses(&self, key: PeerKey) -> Vec<SocketAddr> {
        let table = lock(&self.table);
        table
            .0
            .get(&key)
            .map(|known| known.addresses.clone())
            .unwrap_or_default()
    }

    /// It could not be reached: unless it answers for itself, it is gone.
    pub(super) fn doubt(&self, key: PeerKey) {
        if let Err(error) = self.daemon.0.verify(instance(key), DOUBT) {
            debug!(%error, "cannot ask whether it is there still");
        }
    }

    pub(super) async fn end(&self) {
        match self.daemon.0.shutdown() {
            Ok(ended) => {
                if timeout(GOODBYE, ended.recv_async()).await.is_err() {
                    debug!("no goodbye in time");
                }
            }
            Err(error) => debug!(%error, "no goodbye"),
        }
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        // It has ended already, unless nobody has waited for the goodbye.
        let _ = self.daemon.0.shutdown();
    }
}

impl Search {
    /// Tells who is there whenever that changes, until nobody listens.
    pub(super) async fn run(self, events: mpsc::Sender<NearbyEvent>) {
        loop {
            match self.daemon.0.browse(SERVICE) {
                Ok(found) => {
                    if !self.follow(&found, &events).await {
                        return;
                    }
                }
                Err(error) => debug!(%error, "cannot browse"),
            }
            sleep(BROWSE_PAUSE).await;
        }
    }

    /// Returns whether to begin anew.
    async fn follow(
        &self,
        found: &mdns_sd::Receiver<ServiceEvent>,
        events: &mpsc::Sender<NearbyEvent>,
    ) -> bool {
        let mut next_list = Instant::now();
        let mut is_news = false;
        loop {
            tokio::select! {
                event = found.recv_async() => match event {
                    Ok(event) => is_news |= self.note(event),
                    Err(_) => return !events.is_closed(),
                },
                () = sleep_until(next_list), if is_news => {
                    is_news = false;
                    next_list = Instant::now() + BETWEEN_LISTS;
                    let peers = lock(&self.table).peers();
                    if events.send(NearbyEvent::Peers(peers)).await.is_err() {
                        return false;
                    }
                }
            }
        }
    }

    /// Returns whether the list of who is there has changed.
    fn note(&self, event: ServiceEvent) -> bool {
        match event {
            ServiceEvent::ServiceResolved(service) => {
                let Some((peer, mut addresses)) = read(&service) else {
                    debug!(name = ?service.fullname, "not an announcement of ours to understand");
                    return false;
                };
                if peer.key == self.own {
                    return false;
                }
                let Ok(networks) = Networks::now(self.scope) else {
                    return false;
                };
                addresses.retain(|address| networks.admit_to_dial(*address).is_some());
                lock(&self.table).add(peer, addresses)
            }
            ServiceEvent::ServiceRemoved(_, fullname) => lock(&self.table).remove(&fullname),
            _ => false,
        }
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str, key: u8) -> PeerIdentity {
        PeerIdentity {
            name: name.parse().unwrap(),
            key: PeerKey::from_bytes([key; 32]),
        }
    }

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 168, 1, 2], port))
    }

    #[test]
    fn the_table_has_bounds() {
        let mut table = Table::default();
        for n in 0..=u8::MAX {
            assert!(table.add(peer("bob", n), vec![at(5000)]));
        }
        assert_eq!(table.0.len(), PEERS_MAX);
        let mut other = [0; 32];
        other[0] = 1;
        let late = PeerIdentity {
            key: PeerKey::from_bytes(other),
            ..peer("carol", 0)
        };
        assert!(!table.add(late, vec![at(5000)]));
        for port in 5001..5100 {
            assert!(!table.add(peer("bob", 7), vec![at(port)]));
        }
        let known = table.0.get(&peer("bob", 7).key).unwrap();
        let newest: Vec<_> = (5092..5100).rev().map(at).collect();
        assert_eq!(known.addresses, newest);
    }

    #[test]
    fn a_forged_announcement_does_not_hide_the_address_known_before() {
        let mut table = Table::default();
        assert!(table.add(peer("bob", 1), vec![at(5000)]));
        assert!(!table.add(peer("bob", 1), vec![at(6666)]));
        let known = table.0.get(&peer("bob", 1).key).unwrap();
        assert_eq!(known.addresses, [at(6666), at(5000)]);
        assert!(table.remove(&instance(peer("bob", 1).key).to_uppercase()));
        assert!(table.peers().is_empty());
    }

    #[test]
    fn only_announcements_named_after_their_key_are_read() {
        let bob = peer("bob", 1);
        let (own, others) = (bob.key, PeerKey::from_bytes([2; 32]));
        let announce = |instance: PeerKey, said: &[(&str, &str)]| {
            let name = instance.fingerprint().to_string();
            let info = ServiceInfo::new(SERVICE, &name, "h.local.", "192.168.1.2", 5000, said);
            read(&info.unwrap().as_resolved_service())
        };
        let key = own.to_string();
        let good = [("v", "1"), ("name", "bob"), ("key", &key)];
        assert_eq!(announce(own, &good), Some((bob, vec![at(5000)])));
        assert_eq!(announce(others, &good), None);
        for bad in [
            [("v", "2"), ("name", "bob"), ("key", &key)],
            [("v", "1"), ("name", "../bob"), ("key", &key)],
            [("v", "1"), ("name", "bob"), ("key", "short")],
        ] {
            assert_eq!(announce(own, &bad), None, "{bad:?}");
        }
        assert_eq!(announce(own, &[]), None);
    }
}
