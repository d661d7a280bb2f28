//! Announcing and browsing.
//!
//! One instance of `_pinhole._tcp` for each key, named after its fingerprint,
//! so that no two can want one name and none has to be probed for
//! (RFC 6762, 8.1). What it says, and where, is believed of nobody.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use mdns_sd::{
    HostnameResolutionEvent, IfKind, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent,
    ServiceInfo,
};
use pinhole_budget::{Bounds, Budget, Owner, SubnetBounds, Taken, Ticket};
use pinhole_proto::key::PeerKey;
use pinhole_proto::rendezvous::PeerIdentity;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::debug;

use super::NearbyEvent;
use super::networks::{Networks, Scope};
use crate::known::KnownKeys;

const SERVICE: &str = "_pinhole._tcp.local.";
/// The version of the announcement. Others are ignored.
const VERSION: &str = "1";
/// Peers that are kept in mind.
const PEERS: Bounds = Bounds {
    total: 256,
    reserved: 64,
    per_key: 1,
    per_subnet: SubnetBounds::UNBOUNDED,
};
/// Most addresses kept of one of them.
const ADDRESSES_MAX: usize = 16;
/// How long addresses of a peer that is being dialled are waited for: an answer that
/// was given within the last second is not given again (RFC 6762, 6), and then the
/// question is asked once more.
pub(super) const LATE_ADDRESSES: Duration = Duration::from_millis(2500);
/// Between two lists of who is there: announcements may come in floods.
const BETWEEN_LISTS: Duration = Duration::from_millis(100);
/// How long a peer that could not be reached has to answer for itself.
const DOUBT: Duration = Duration::from_secs(2);
/// How long the goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// Before browsing begins anew, should it have ended.
const BROWSE_PAUSE: Duration = Duration::from_secs(1);

/// Who is there, and where.
#[derive(Debug)]
pub(super) struct Table {
    peers: BTreeMap<PeerKey, Announced>,
    places: Budget<PeerKey>,
}

#[derive(Debug)]
struct Announced {
    peer: PeerIdentity,
    /// The newest first. Older ones stay: an announcement may be forged.
    addresses: Vec<SocketAddr>,
    place: Ticket,
}

/// What an announcement has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    None,
    /// There is another address.
    Address,
    /// There is somebody new, or under a new name.
    Peer,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            peers: BTreeMap::new(),
            places: Budget::new(PEERS),
        }
    }

    /// Of one peer.
    #[cfg(test)]
    pub(super) fn of(peer: PeerIdentity, addresses: Vec<SocketAddr>) -> Self {
        let mut table = Self::new();
        table.add(peer, addresses, false);
        table
    }

    /// Takes note. When there are too many, those who are not known give way.
    fn add(&mut self, peer: PeerIdentity, addresses: Vec<SocketAddr>, is_known: bool) -> News {
        let key = peer.key;
        let Some(known) = self.peers.get_mut(&key) else {
            return self.add_new(peer, addresses, is_known);
        };
        let is_new = |address: &SocketAddr| !known.addresses.contains(address);
        let is_elsewhere = addresses.iter().any(is_new);
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
        match (is_renamed, is_elsewhere) {
            (true, _) => News::Peer,
            (false, true) => News::Address,
            (false, false) => News::None,
        }
    }

    fn add_new(
        &mut self,
        peer: PeerIdentity,
        mut addresses: Vec<SocketAddr>,
        is_known: bool,
    ) -> News {
        let Some(address) = addresses.first().map(SocketAddr::ip) else {
            return News::None;
        };
        let owner = Owner {
            key: Some(peer.key),
            address: Some(address),
            is_known,
        };
        let Ok(Taken { ticket, evicted }) = self.places.take(owner, 1) else {
            return News::None;
        };
        self.peers.retain(|_, it| !evicted.contains(&it.place));
        addresses.truncate(ADDRESSES_MAX);
        let announced = Announced {
            peer,
            addresses,
            place: ticket,
        };
        self.peers.insert(announced.peer.key, announced);
        News::Peer
    }

    fn remove(&mut self, instance: &str) -> bool {
        let gone = |key: &PeerKey, _: &mut Announced| is_instance(instance, *key);
        let mut gone = self.peers.extract_if(.., gone);
        let Some((_, gone)) = gone.next() else {
            return false;
        };
        self.places.give_back(gone.place);
        true
    }

    fn peers(&self) -> Vec<PeerIdentity> {
        self.peers.values().map(|it| it.peer.clone()).collect()
    }

    /// Where the holder of this key may be.
    pub(super) fn addresses(&self, key: PeerKey) -> Vec<SocketAddr> {
        let known = self.peers.get(&key);
        known.map_or_else(Vec::new, |it| it.addresses.clone())
    }
}

fn host(key: PeerKey) -> String {
    format!("{}.local.", key.fingerprint())
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
    table: watch::Sender<Table>,
}

/// Asks for the addresses of a host, of all interfaces and families, until it is
/// dropped.
pub(super) struct Asking {
    daemon: Daemon,
    host: String,
    /// An answer is noted like any announcement.
    _heard: mdns_sd::Receiver<HostnameResolutionEvent>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Err(error) = self.daemon.0.stop_resolve_hostname(&self.host) {
            debug!(%error, "still asks for addresses");
        }
    }
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
    table: watch::Sender<Table>,
    own: PeerKey,
    known: KnownKeys,
    scope: Scope,
}

impl Discovery {
    /// With a port, it is announced.
    pub(super) fn start(
        us: &PeerIdentity,
        port: Option<u16>,
        scope: Scope,
        known: KnownKeys,
    ) -> io::Result<(Self, Search)> {
        let daemon = ServiceDaemon::new_with_port(scope.mdns_port).map_err(io::Error::other)?;
        let discovery = Self {
            daemon: Daemon(daemon),
            table: watch::Sender::new(Table::new()),
        };
        discovery
            .prepare(us, port, scope)
            .map_err(io::Error::other)?;
        let search = Search {
            daemon: discovery.daemon.clone(),
            table: discovery.table.clone(),
            own: us.key,
            known,
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
        let host = host(us.key);
        let (name, key) = (us.name.to_string(), us.key.to_string());
        let said = [("v", VERSION), ("name", &name), ("key", &key)];
        let instance = us.key.fingerprint().to_string();
        let service = ServiceInfo::new(SERVICE, &instance, &host, "", port, &said[..])?;
        let mut service = service.enable_addr_auto();
        service.set_requires_probe(false);
        daemon.register(service)
    }

    /// Who is there, now and whenever that changes.
    pub(super) fn table(&self) -> watch::Receiver<Table> {
        self.table.subscribe()
    }

    /// Asks where the holder of this key may be, if it is there.
    pub(super) fn ask(&self, key: PeerKey) -> Option<Asking> {
        let host = host(key);
        let limit_ms = u64::try_from(LATE_ADDRESSES.as_millis()).ok();
        match self.daemon.0.resolve_hostname(&host, limit_ms) {
            Ok(heard) => Some(Asking {
                daemon: self.daemon.clone(),
                host,
                _heard: heard,
            }),
            Err(error) => {
                debug!(%error, "cannot ask for addresses");
                None
            }
        }
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
                    let peers = self.table.borrow().peers();
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
                let is_known = self.known.contains(peer.key);
                let mut news = News::None;
                self.table.send_if_modified(|table| {
                    news = table.add(peer, addresses, is_known);
                    news != News::None
                });
                news == News::Peer
            }
            ServiceEvent::ServiceRemoved(_, fullname) => {
                self.table.send_if_modified(|table| table.remove(&fullname))
            }
            _ => false,
        }
    }
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

    fn numbered(number: u16) -> PeerIdentity {
        let mut key = [7; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        PeerIdentity {
            key: PeerKey::from_bytes(key),
            ..peer("bob", 0)
        }
    }

    #[test]
    fn a_crowd_of_announcements_does_not_hide_somebody_known() {
        let mut table = Table::new();
        let crowd = (0..1000).filter(|&number| {
            let news = table.add(numbered(number), vec![at(5000)], false);
            news == News::Peer
        });
        assert_eq!(crowd.count(), 192);
        for number in 1000..1200 {
            let news = table.add(numbered(number), vec![at(5000)], true);
            assert_eq!(news, News::Peer, "{number}");
        }
        assert_eq!(table.peers.len(), 256);
        let known =
            (1000..1200).filter(|&number| !table.addresses(numbered(number).key).is_empty());
        assert_eq!(known.count(), 200);
        let gone = instance(numbered(1000).key);
        assert!(table.remove(&gone) && !table.remove(&gone));
        assert_eq!(table.add(numbered(5000), vec![at(5000)], true), News::Peer);
    }

    #[test]
    fn of_one_peer_so_many_addresses_are_kept_and_the_newest_first() {
        let mut table = Table::new();
        assert_eq!(table.add(numbered(7), vec![at(5000)], false), News::Peer);
        assert_eq!(table.add(numbered(7), vec![at(5000)], false), News::None);
        for port in 5001..5100 {
            let news = table.add(numbered(7), vec![at(port)], false);
            assert_eq!(news, News::Address);
        }
        let newest: Vec<_> = (5084..5100).rev().map(at).collect();
        assert_eq!(table.addresses(numbered(7).key), newest);
    }

    #[test]
    fn a_forged_announcement_does_not_hide_the_address_known_before() {
        let mut table = Table::new();
        let bob = peer("bob", 1);
        assert_eq!(table.add(bob.clone(), vec![at(5000)], false), News::Peer);
        assert_eq!(table.add(bob.clone(), vec![at(6666)], false), News::Address);
        assert_eq!(table.addresses(bob.key), [at(6666), at(5000)]);
        assert!(table.remove(&instance(bob.key).to_uppercase()));
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
