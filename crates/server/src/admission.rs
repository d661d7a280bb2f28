//! Counts connections, so that nobody takes more than a fair part.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pinhole_proto::key::PeerKey;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::Limits;
use crate::pace::Pace;

/// At most so many at once for each value of `K`.
#[derive(Debug)]
pub(crate) struct Cap<K> {
    most: usize,
    counts: Mutex<HashMap<K, usize>>,
}

/// One of those a [`Cap`] counts; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit<K: Eq + Hash> {
    cap: Arc<Cap<K>>,
    key: K,
}

impl<K: Eq + Hash + Clone> Cap<K> {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            counts: Mutex::default(),
        })
    }

    pub(crate) fn take(self: &Arc<Self>, key: K) -> Option<Permit<K>> {
        let mut counts = lock(&self.counts);
        let count = counts.entry(key.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        drop(counts);
        let cap = Arc::clone(self);
        Some(Permit { cap, key })
    }
}

impl<K: Eq + Hash> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut counts = lock(&self.cap.counts);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

// A count is changed in one step, so a panic elsewhere leaves it true.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One IPv4 address, or one IPv6 /64.
pub(crate) type Network = IpAddr;

pub(crate) fn network(address: IpAddr) -> Network {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => {
            let host_bits = u128::MAX >> 64;
            IpAddr::V6((u128::from(v6) & !host_bits).into())
        }
    }
}

/// Held by a connection for its whole life.
#[derive(Debug)]
pub(crate) struct Admitted {
    _one_of_all: OwnedSemaphorePermit,
    _one_of_address: Permit<Network>,
}

/// Held by a connection until it has authenticated and said what it wants.
#[derive(Debug)]
pub(crate) struct Handshaking {
    _one_of_all: OwnedSemaphorePermit,
    _one_of_address: Permit<Network>,
}

/// All the caps of one server.
#[derive(Debug)]
pub(crate) struct Admission {
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    by_address: Arc<Cap<Network>>,
    handshakes_by_address: Arc<Cap<Network>>,
    by_key: Arc<Cap<PeerKey>>,
    logins: Pace<Network>,
}

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            connections: Arc::new(Semaphore::new(limits.connections)),
            handshakes: Arc::new(Semaphore::new(limits.handshakes)),
            by_address: Cap::new(limits.connections_per_address),
            handshakes_by_address: Cap::new(limits.handshakes_per_address),
            by_key: Cap::new(limits.connections_per_key),
            logins: Pace::new(limits.logins_per_address),
        }
    }

    /// Room for a connection from `address`, or `None` when a cap is reached.
    pub(crate) fn admit(&self, address: IpAddr) -> Option<(Admitted, Handshaking)> {
        let network = network(address);
        let admitted = Admitted {
            _one_of_all: self.connections.clone().try_acquire_owned().ok()?,
            _one_of_address: self.by_address.take(network)?,
        };
        let handshaking = Handshaking {
            _one_of_all: self.handshakes.clone().try_acquire_owned().ok()?,
            _one_of_address: self.handshakes_by_address.take(network)?,
        };
        Some((admitted, handshaking))
    }

    /// Room for another connection of `key`.
    pub(crate) fn admit_key(&self, key: PeerKey) -> Option<Permit<PeerKey>> {
        self.by_key.take(key)
    }

    /// Whether another login may come from `address` now.
    pub(crate) fn admit_login(&self, address: IpAddr) -> bool {
        self.logins.take(Instant::now(), network(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_counts_what_is_held_and_forgets_what_is_not() {
        let cap = Cap::new(2);
        let held: Vec<_> = (0..2).map(|_| cap.take("a").unwrap()).collect();
        assert!(cap.take("a").is_none());
        assert!(cap.take("b").is_some());
        drop(held);
        assert!(lock(&cap.counts).is_empty());
        assert!(cap.take("a").is_some());
    }

    #[test]
    fn one_household_is_one_address() {
        let same = [
            ("198.51.100.1", "::ffff:198.51.100.1", true),
            ("198.51.100.1", "198.51.100.2", false),
            ("2001:db8::1", "2001:db8::ffff:0:0:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ];
        for (a, b, expected) in same {
            let network = |text: &str| network(text.parse().unwrap());
            assert_eq!(network(a) == network(b), expected, "{a} {b}");
        }
    }

    #[test]
    fn silent_connections_leave_room_for_other_addresses() {
        let limits = Limits {
            handshakes_per_address: 3,
            ..Limits::default()
        };
        let admission = Admission::new(&limits);
        let crowd: IpAddr = "198.51.100.1".parse().unwrap();
        let held: Vec<_> = std::iter::from_fn(|| admission.admit(crowd)).collect();
        assert_eq!(held.len(), 3);
        assert!(admission.admit("198.51.100.2".parse().unwrap()).is_some());
    }
}
