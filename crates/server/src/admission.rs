//! Budgets of keys and networks: connections, logins, and what keys with a name have apart.

use std::collections::HashMap;
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

/// The owner of something that this key has by its tenure.
const fn owner(key: PeerKey, address: IpAddr, tenure: Option<Tenure>) -> Owner<PeerKey> {
    match tenure {
        Some(Tenure::Regular) => Owner {
            is_known: true,
            ..newcomer(Some(key), address)
        },
        // It counts for itself, not for its network.
        Some(Tenure::Named) => Owner::stranger(key),
        None => newcomer(Some(key), address),
    }
}

/// The slot of a connection with a proven key.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    slot: Slot,
    /// Its part of what regulars or other keys with a name have apart.
    apart: Mutex<Option<Slot>>,
}

impl ConnectionSlot {
    /// Completes when the connection is evicted.
    pub(crate) async fn evicted(&self) {
        self.slot.evicted().await;
    }
}

/// For how long a key has had a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tenure {
    /// It has one. Networks share what newcomers may have, but this key has logged in
    /// before, so it is no newcomer.
    Named,
    /// For long. New keys cannot push it out of a full server.
    Regular,
}

/// The keys that have names. There are at most as many as there may be names.
#[derive(Debug, Default)]
pub(crate) struct NamedKeys(Mutex<HashMap<PeerKey, Tenure>>);

impl NamedKeys {
    pub(crate) fn insert(&self, keys: impl IntoIterator<Item = PeerKey>) {
        let mut all = self.0.lock();
        for key in keys {
            all.entry(key).or_insert(Tenure::Named);
        }
    }

    pub(crate) fn insert_regulars(&self, keys: impl IntoIterator<Item = PeerKey>) {
        let regulars = keys.into_iter().map(|key| (key, Tenure::Regular));
        self.0.lock().extend(regulars);
    }

    /// `None` for a key without a name.
    pub(crate) fn tenure(&self, key: PeerKey) -> Option<Tenure> {
        self.0.lock().get(&key).copied()
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
    silent: Arc<Slots>,
    waiting: Arc<Slots>,
    handshakes: Arc<Slots>,
    regulars: Arc<Slots>,
    named: Arc<Slots>,
    sessions: Arc<Slots>,
    strange_observations: Arc<Slots>,
    named_keys: Arc<NamedKeys>,
    logins: Mutex<LoginRates>,
}

impl AdmissionControl {
    pub(crate) fn new(limits: &Limits, named_keys: Arc<NamedKeys>) -> Self {
        Self {
            connections: Slots::raised_by(CONNECTIONS, limits.connections),
            silent: Slots::new(limits.silent),
            waiting: Slots::new(limits.waiting),
            handshakes: Slots::new(limits.handshakes),
            regulars: Slots::new(limits.regulars),
            named: Slots::new(limits.named),
            sessions: Slots::raised_by(PEOPLE, limits.sessions),
            strange_observations: Slots::new(limits.strange_observations),
            named_keys,
            logins: Mutex::new(LoginRates {
                of_keys: RateLimiter::new(limits.logins_per_key, RATED),
                of_networks: SubnetRateLimiter::new(limits.logins_per_network, RATED),
            }),
        }
    }

    /// Changes the bounds of people and connections.
    pub(crate) fn set_limits(&self, limits: &Limits) {
        self.connections.set_bounds(limits.connections);
        self.silent.set_bounds(limits.silent);
        self.waiting.set_bounds(limits.waiting);
        self.handshakes.set_bounds(limits.handshakes);
        self.regulars.set_bounds(limits.regulars);
        self.named.set_bounds(limits.named);
        self.sessions.set_bounds(limits.sessions);
    }

    /// What is held at the moment.
    pub(crate) fn held(&self) -> Held {
        Held {
            people: self.sessions.used(),
            strange_observations: self.strange_observations.used(),
            handshakes: self.handshakes.used(),
            waiting_handshakes: self.waiting.used(),
            ..Held::default()
        }
    }

    /// Takes a slot for a connection from `address` until it says something. A client
    /// speaks within one round trip, so a crowd that does not only pushes itself out.
    pub(crate) fn arrive(&self, address: IpAddr) -> Result<Slot, Full> {
        self.silent.take_from_oldest(newcomer(None, address))
    }

    /// Takes a slot for a connection that has spoken until its handshake has a turn.
    pub(crate) fn wait(&self, address: IpAddr) -> Result<Slot, Full> {
        self.waiting.take(newcomer(None, address))
    }

    /// Takes a slot for a handshake that has had its first turn. Its key is known only
    /// afterwards.
    pub(crate) fn shake_hands(&self, address: IpAddr) -> Result<Slot, Full> {
        self.handshakes.take_from_oldest(newcomer(None, address))
    }

    /// Takes a slot for a connection of this key.
    pub(crate) fn connect(&self, key: PeerKey, address: IpAddr) -> Result<ConnectionSlot, Full> {
        let (owner, apart) = self.owner(key, address);
        Ok(ConnectionSlot {
            slot: self.connections.take(owner)?,
            apart: Mutex::new(apart),
        })
    }

    /// Charges the connection to another key from now on.
    pub(crate) fn charge(
        &self,
        connection: &ConnectionSlot,
        key: PeerKey,
        address: IpAddr,
    ) -> Result<(), Full> {
        let (owner, apart) = self.owner(key, address);
        connection.slot.reassign(owner)?;
        *connection.apart.lock() = apart;
        Ok(())
    }

    /// The owner of a connection, with its part of what is apart from newcomers.
    fn owner(&self, key: PeerKey, address: IpAddr) -> (Owner<PeerKey>, Option<Slot>) {
        let tenure = self.named_keys.tenure(key);
        let newcomer = newcomer(Some(key), address);
        if tenure == Some(Tenure::Regular)
            && let Ok(slot) = self.regulars.take(newcomer)
        {
            return (owner(key, address, tenure), Some(slot));
        }
        if tenure.is_some()
            && let Ok(slot) = self.named.take(newcomer)
        {
            return (owner(key, address, Some(Tenure::Named)), Some(slot));
        }
        (newcomer, None)
    }

    /// Whether the key has had a name for long.
    pub(crate) fn is_regular(&self, key: PeerKey) -> bool {
        self.named_keys.tenure(key) == Some(Tenure::Regular)
    }

    /// Takes a slot for another session, unless there have been too many logins.
    pub(crate) fn log_in(&self, key: PeerKey, address: IpAddr) -> Option<Slot> {
        let now = Instant::now();
        let tenure = self.named_keys.tenure(key);
        let mut logins = self.logins.lock();
        let is_granted = logins.of_keys.take(now, key)
            && (tenure.is_some() || logins.of_networks.take(now, address));
        drop(logins);
        let slot = || self.sessions.take(owner(key, address, tenure)).ok();
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
        const ALL_BUT_THE_RESERVE: usize = 9_216;
        let mut limits = Limits::default();
        limits.connections.total = 12_288;
        limits.connections.reserved = 3_072;
        let admission = admission(&limits);
        let crowd: Vec<_> = (0..16)
            .map(|network| address(&format!("198.51.{network}.1")))
            .collect();
        let held = fill(&admission, &crowd);
        assert_eq!(held.len(), ALL_BUT_THE_RESERVE);
        let honest: Vec<_> = (0..250)
            .map(|number| {
                let from = address(&format!("203.0.113.{number}"));
                admission.connect(key(number), from).unwrap()
            })
            .collect();
        assert_eq!(are_held(&held), ALL_BUT_THE_RESERVE - honest.len());
        let again = fill(&admission, &crowd);
        assert_eq!(again.len(), 0, "and not to the crowd");
        assert_eq!(are_held(&honest), 250);
    }

    fn evicted(slots: &[Slot]) -> usize {
        slots.iter().filter(|it| it.is_evicted()).count()
    }

    #[test]
    fn silent_connections_of_a_crowd_push_themselves_out() {
        let admission = admission(&Limits::default());
        let mut held = Vec::new();
        for network in 0..16 {
            let from = address(&format!("198.51.{network}.1"));
            held.extend((0..256).map(|_| admission.arrive(from).unwrap()));
        }
        let newcomer = admission.arrive(address("203.0.113.1")).unwrap();
        assert_eq!((newcomer.is_evicted(), evicted(&held)), (false, 1));
    }

    #[test]
    fn a_silent_crowd_of_a_network_each_cuts_no_newcomer_off() {
        let admission = admission(&Limits::default());
        let stranger = |number: u16| {
            let [high, low] = number.to_be_bytes();
            IpAddr::from([10, high, low, 1])
        };
        let mut held: Vec<_> = (0..6_000)
            .map(|number| admission.arrive(stranger(number)).unwrap())
            .collect();
        assert_eq!(evicted(&held), 6_000 - 4_096);
        let newcomer = admission.arrive(address("203.0.113.1")).unwrap();
        // Two seconds of strangers, two thousand a second.
        held.extend((6_000..10_000).map(|it| admission.arrive(stranger(it)).unwrap()));
        assert!(!newcomer.is_evicted());
        let handshake = admission.shake_hands(address("203.0.113.1")).unwrap();
        drop((newcomer, held));
        assert!(!handshake.is_evicted());
    }

    #[test]
    fn an_office_of_two_thousand_comes_back_through_one_address() {
        let admission = admission(&Limits::default());
        let office = address("198.51.100.1");
        let people: Vec<_> = (0..2_000_u16)
            .map(|number| {
                let mut bytes = [7; 32];
                bytes[..2].copy_from_slice(&number.to_be_bytes());
                PeerKey::from_bytes(bytes)
            })
            .collect();
        admission.named_keys.insert(people.iter().copied());
        let silent: Vec<_> = (0..2_000).map(|_| admission.arrive(office)).collect();
        let shaking: Vec<_> = (0..2_000).map(|_| admission.shake_hands(office)).collect();
        for slots in [silent, shaking] {
            let slots: Vec<_> = slots.into_iter().map(Result::unwrap).collect();
            assert_eq!(evicted(&slots), 0);
        }
        let connect = |key: &PeerKey| admission.connect(*key, office).unwrap();
        let connections: Vec<_> = people
            .iter()
            .flat_map(|key| [connect(key), connect(key), connect(key)])
            .collect();
        let log_in = |key: &PeerKey| admission.log_in(*key, office).unwrap();
        let sessions: Vec<_> = people.iter().map(log_in).collect();
        assert_eq!((are_held(&connections), evicted(&sessions)), (6_000, 0));
        let newcomer = key(1);
        assert!(admission.connect(newcomer, office).is_ok());
        assert!(admission.log_in(newcomer, office).is_some(), "beside them");
    }

    #[test]
    fn keys_with_a_name_cannot_take_the_reserve() {
        let mut limits = Limits::default();
        limits.connections.total = 10;
        limits.connections.reserved = 4;
        limits.named.per_key = 9;
        let admission = admission(&limits);
        admission.named_keys.insert([key(1)]);
        admission.named_keys.insert_regulars([key(2)]);
        let home = address("198.51.100.1");
        let connect = |number| admission.connect(key(number), home);
        let named: Vec<_> = (0..9).map_while(|_| connect(1).ok()).collect();
        assert_eq!(named.len(), 6);
        let regular: Vec<_> = (0..9).map_while(|_| connect(2).ok()).collect();
        assert!(regular.len() >= 4);
    }

    #[test]
    fn a_regular_gets_in_where_its_network_is_full_but_not_without_end() {
        let mut limits = Limits::default();
        limits.connections.total = 40;
        limits.connections.reserved = 10;
        limits.connections.per_subnet = SubnetBounds::uniform(20);
        limits.regulars.per_key = 4;
        limits.named.per_key = 0;
        let admission = admission(&limits);
        admission.named_keys.insert_regulars([key(1)]);
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
        admission.named_keys.insert_regulars([key(9)]);
        let home = address("2001:db8::1");
        let neighbour = address("2001:db8::2");
        let held = [1, 2].map(|number| admission.log_in(key(number), home));
        assert!(held.iter().all(Option::is_some));
        assert!(admission.log_in(key(3), neighbour).is_none());
        assert!(admission.log_in(key(9), neighbour).is_some());
        assert!(admission.log_in(key(3), address("198.51.100.1")).is_some());
    }
}
