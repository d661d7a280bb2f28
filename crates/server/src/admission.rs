//! Budgets of keys and networks: connections, logins, and the reserve of regulars.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use pinhole_budget::{Full, Owner, RateLimiter, SubnetRateLimiter};
use pinhole_proto::key::PeerKey;

use crate::caps::{CONNECTIONS, PEOPLE};
use crate::limits::Limits;
use crate::metrics::Held;
use crate::slots::{Slot, Slots};

/// The most keys and networks that a rate is remembered for: more than can be in use
/// within the time that a rate covers.
pub(crate) const RATED: usize = 65_536;

/// An owner that is a newcomer, or has no proven key.
pub(crate) const fn newcomer(key: Option<PeerKey>, address: IpAddr) -> Owner<PeerKey> {
    Owner {
        key,
        address: Some(address),
        is_known: false,
    }
}

/// The slot of a connection with a proven key.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    slot: Slot,
    /// Its part of the reserve, if it is a regular's.
    reserve: Mutex<Option<Slot>>,
}

impl ConnectionSlot {
    /// Completes when the connection is evicted.
    pub(crate) async fn evicted(&self) {
        self.slot.evicted().await;
    }
}

/// Keys that have had a name for long. New keys cannot push them out of a full server.
#[derive(Debug, Default)]
pub(crate) struct Regulars(Mutex<HashSet<PeerKey>>);

impl Regulars {
    pub(crate) fn insert(&self, keys: impl IntoIterator<Item = PeerKey>) {
        self.0.lock().extend(keys);
    }

    pub(crate) fn contains(&self, key: PeerKey) -> bool {
        self.0.lock().contains(&key)
    }
}

#[derive(Debug)]
struct LoginRates {
    of_keys: RateLimiter<PeerKey>,
    of_networks: SubnetRateLimiter,
}

/// The budgets of all connections.
#[derive(Debug)]
pub(crate) struct AdmissionControl {
    connections: Arc<Slots>,
    handshakes: Arc<Slots>,
    reserve: Arc<Slots>,
    sessions: Arc<Slots>,
    strange_observations: Arc<Slots>,
    regulars: Arc<Regulars>,
    logins: Mutex<LoginRates>,
}

impl AdmissionControl {
    pub(crate) fn new(limits: &Limits, regulars: Arc<Regulars>) -> Self {
        Self {
            connections: Slots::raised_by(CONNECTIONS, limits.connections),
            handshakes: Slots::new(limits.handshakes),
            reserve: Slots::new(limits.regulars),
            sessions: Slots::raised_by(PEOPLE, limits.sessions),
            strange_observations: Slots::new(limits.strange_observations),
            regulars,
            logins: Mutex::new(LoginRates {
                of_keys: RateLimiter::new(limits.logins_per_key, RATED),
                of_networks: SubnetRateLimiter::new(limits.logins_per_network, RATED),
            }),
        }
    }

    /// Changes the bounds of people and connections.
    pub(crate) fn set_limits(&self, limits: &Limits) {
        self.connections.set_bounds(limits.connections);
        self.handshakes.set_bounds(limits.handshakes);
        self.reserve.set_bounds(limits.regulars);
        self.sessions.set_bounds(limits.sessions);
    }

    /// What is held at the moment.
    pub(crate) fn held(&self) -> Held {
        Held {
            people: self.sessions.used(),
            connections: self.connections.used(),
            strange_observations: self.strange_observations.used(),
            handshakes: self.handshakes.used(),
            ..Held::default()
        }
    }

    /// Takes a slot for the handshake of a connection from `address`. Its key is known
    /// only afterwards.
    pub(crate) fn arrive(&self, address: IpAddr) -> Result<Slot, Full> {
        self.handshakes.take(newcomer(None, address))
    }

    /// Takes a slot for a connection of this key.
    pub(crate) fn connect(&self, key: PeerKey, address: IpAddr) -> Result<ConnectionSlot, Full> {
        let (owner, reserve) = self.owner(key, address);
        Ok(ConnectionSlot {
            slot: self.connections.take(owner)?,
            reserve: Mutex::new(reserve),
        })
    }

    /// Charges the connection to another key from now on.
    pub(crate) fn charge(
        &self,
        connection: &ConnectionSlot,
        key: PeerKey,
        address: IpAddr,
    ) -> Result<(), Full> {
        let (owner, reserve) = self.owner(key, address);
        connection.slot.reassign(owner)?;
        *connection.reserve.lock() = reserve;
        Ok(())
    }

    /// The owner of a connection, with its part of the reserve.
    fn owner(&self, key: PeerKey, address: IpAddr) -> (Owner<PeerKey>, Option<Slot>) {
        let owner = newcomer(Some(key), address);
        let reserve = match self.is_regular(key) {
            true => self.reserve.take(owner).ok(),
            false => None,
        };
        let is_known = reserve.is_some();
        (Owner { is_known, ..owner }, reserve)
    }

    /// Whether the key has had a name for long.
    pub(crate) fn is_regular(&self, key: PeerKey) -> bool {
        self.regulars.contains(key)
    }

    /// Takes a slot for another session, unless there have been too many logins.
    pub(crate) fn log_in(&self, key: PeerKey, address: IpAddr) -> Option<Slot> {
        let now = Instant::now();
        let is_known = self.is_regular(key);
        let mut logins = self.logins.lock();
        let is_granted =
            logins.of_keys.take(now, key) && (is_known || logins.of_networks.take(now, address));
        drop(logins);
        let owner = newcomer(Some(key), address);
        let slot = || self.sessions.take(Owner { is_known, ..owner }).ok();
        is_granted.then(slot).flatten()
    }

    /// Takes a slot for an observation of this key. Keys that are logged in need none,
    /// because their connections are already counted.
    pub(crate) fn observe(&self, key: PeerKey, address: IpAddr) -> Result<Option<Slot>, Full> {
        if self.sessions.used_by(key) > 0 {
            return Ok(None);
        }
        let slot = self.strange_observations.take(newcomer(Some(key), address));
        slot.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use pinhole_budget::{Bounds, SubnetBounds};

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn key(number: u8) -> PeerKey {
        PeerKey::from_bytes([number; 32])
    }

    fn admission(limits: &Limits) -> AdmissionControl {
        AdmissionControl::new(limits, Arc::default())
    }

    /// As many connections from `addresses` in turn as there is room for, each with a
    /// key of its own.
    fn fill(admission: &AdmissionControl, addresses: &[IpAddr]) -> Vec<ConnectionSlot> {
        let mut held = Vec::new();
        let mut refused = 0;
        for (number, &address) in (0_u64..).zip(addresses.iter().cycle()) {
            let mut bytes = [0xff; 32];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            match admission.connect(PeerKey::from_bytes(bytes), address) {
                Ok(connection) => {
                    held.push(connection);
                    refused = 0;
                }
                Err(_) => refused += 1,
            }
            if refused == addresses.len() {
                break;
            }
        }
        held
    }

    fn are_held(connections: &[ConnectionSlot]) -> usize {
        let held = connections.iter().filter(|it| !it.slot.is_evicted());
        held.count()
    }

    #[test]
    fn the_sixteen_networks_of_a_home_leave_the_server_to_others() {
        let admission = admission(&Limits::default());
        let home: Vec<_> = (0..16)
            .map(|network| address(&format!("2001:db8:0:{network:x}::1")))
            .collect();
        let held = fill(&admission, &home);
        assert_eq!(held.len(), 1_024, "what one home may have");
        let other = admission.connect(key(1), address("198.51.100.1"));
        assert!(other.is_ok());
        assert_eq!(are_held(&held), 1_024);
    }

    #[test]
    fn a_crowd_of_sixteen_networks_is_evicted_for_newcomers() {
        let admission = admission(&Limits::default());
        let crowd: Vec<_> = (0..16)
            .map(|network| address(&format!("198.51.{network}.1")))
            .collect();
        let held = fill(&admission, &crowd);
        assert_eq!(held.len(), 9_216, "all but the reserve");
        let honest: Vec<_> = (0..250)
            .map(|number| {
                let from = address(&format!("203.0.113.{number}"));
                admission.connect(key(number), from).unwrap()
            })
            .collect();
        assert_eq!(are_held(&held), 9_216 - honest.len());
        let again = fill(&admission, &crowd);
        assert_eq!(again.len(), 0, "and not to the crowd");
        assert_eq!(are_held(&honest), 250);
    }

    #[test]
    fn silent_connections_of_a_crowd_hold_no_handshake_against_others() {
        let admission = admission(&Limits::default());
        let mut held = Vec::new();
        for network in 0..16 {
            let from = address(&format!("198.51.{network}.1"));
            held.extend((0..128).map(|_| admission.arrive(from).unwrap()));
        }
        let handshake = admission.arrive(address("203.0.113.1")).unwrap();
        assert!(!handshake.is_evicted());
        let evicted = held.iter().filter(|it| it.is_evicted()).count();
        assert_eq!(evicted, 1);
    }

    #[test]
    fn a_regular_gets_in_where_its_network_is_full_but_not_without_end() {
        let mut limits = Limits::default();
        limits.connections.total = 40;
        limits.connections.reserved = 10;
        limits.connections.per_subnet = SubnetBounds::uniform(20);
        limits.regulars.per_key = 4;
        let admission = admission(&limits);
        admission.regulars.insert([key(1)]);
        let home = address("198.51.100.1");
        let crowd = fill(&admission, &[home]);
        assert_eq!(crowd.len(), 20);
        let regular: Vec<_> = (0..8)
            .map_while(|_| admission.connect(key(1), home).ok())
            .collect();
        assert_eq!(regular.len(), 4, "further ones are like a newcomer's");
        let others = fill(&admission, &[address("203.0.113.1")]);
        assert_eq!(others.len(), 13, "up to the same as the crowd");
        assert_eq!(are_held(&regular), 4, "who is known never gives way");
    }

    #[test]
    fn a_charged_connection_no_longer_counts_for_its_own_key() {
        let mut limits = Limits::default();
        limits.connections.per_key = 2;
        let admission = admission(&limits);
        let (victim, home) = (key(1), address("198.51.100.1"));
        let (inviter, elsewhere) = (key(2), address("203.0.113.1"));
        let connect = || admission.connect(victim, home).unwrap();
        let relays = [connect(), connect()];
        assert!(admission.connect(victim, home).is_err());
        for relay in &relays {
            admission.charge(relay, inviter, elsewhere).unwrap();
        }
        let third = connect();
        let refused = admission.charge(&third, inviter, elsewhere);
        assert_eq!(refused, Err(Full::Key));
    }

    #[test]
    fn a_key_that_is_not_logged_in_observes_a_little() {
        let mut limits = Limits::default();
        limits.strange_observations = Bounds {
            per_key: 2,
            ..limits.strange_observations
        };
        let admission = admission(&limits);
        let home = address("198.51.100.1");
        let observe = |key| admission.observe(key, home);
        let held = [observe(key(1)).unwrap(), observe(key(1)).unwrap()];
        assert!(held.iter().all(Option::is_some));
        assert_eq!(observe(key(1)).unwrap_err(), Full::Key);
        let session = admission.log_in(key(1), home).unwrap();
        assert!(observe(key(1)).unwrap().is_none());
        drop(session);
        assert!(observe(key(1)).is_err());
    }

    #[test]
    fn regulars_log_in_where_their_network_may_not() {
        let limits = Limits {
            logins_per_network: pinhole_budget::Rate {
                burst: 2,
                interval: std::time::Duration::from_secs(60),
            },
            ..Limits::default()
        };
        let admission = admission(&limits);
        admission.regulars.insert([key(9)]);
        let home = address("2001:db8::1");
        let neighbour = address("2001:db8::2");
        let held = [1, 2].map(|number| admission.log_in(key(number), home));
        assert!(held.iter().all(Option::is_some));
        assert!(admission.log_in(key(3), neighbour).is_none());
        assert!(admission.log_in(key(9), neighbour).is_some());
        assert!(admission.log_in(key(3), address("198.51.100.1")).is_some());
    }
}
