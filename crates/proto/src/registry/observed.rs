//! Where each key has been seen, so that nobody can claim somebody else's
//! address as its own and aim a peer at it.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use crate::candidate::{is_global, same_network};
use crate::key::PeerKey;

/// A laptop between Wi-Fi, cable and two address families has about four.
const MAX_ADDRESSES_PER_KEY: usize = 8;

#[derive(Debug, Default)]
struct Seen {
    /// Open control and observation connections of the key.
    connections: usize,
    /// From where they came, the oldest first.
    addresses: VecDeque<IpAddr>,
}

/// The addresses of every key that has a connection open; they are kept until
/// its last connection is gone.
#[derive(Debug, Default)]
pub(super) struct Observed(BTreeMap<PeerKey, Seen>);

impl Observed {
    pub(super) fn connected(&mut self, key: PeerKey, address: IpAddr) {
        let address = address.to_canonical();
        let seen = self.0.entry(key).or_default();
        seen.connections += 1;
        seen.addresses.retain(|&known| known != address);
        seen.addresses.push_back(address);
        if seen.addresses.len() > MAX_ADDRESSES_PER_KEY {
            seen.addresses.pop_front();
        }
    }

    pub(super) fn disconnected(&mut self, key: PeerKey) {
        if let Some(seen) = self.0.get_mut(&key) {
            seen.connections = seen.connections.saturating_sub(1);
            if seen.connections == 0 {
                self.0.remove(&key);
            }
        }
    }

    pub(super) fn contains(&self, key: PeerKey, address: IpAddr) -> bool {
        let seen = self.0.get(&key);
        seen.is_some_and(|seen| seen.addresses.contains(&address.to_canonical()))
    }

    /// Whether the key has been seen in the network of `address`. `None` for
    /// IPv6 of a key that has never come over it: the server, or its address
    /// as that client knows it, may have none.
    pub(super) fn has_network(&self, key: PeerKey, address: IpAddr) -> Option<bool> {
        let seen = self.0.get(&key).map(|seen| &seen.addresses);
        let mut addresses = seen.into_iter().flatten().copied();
        let has_come = |known: IpAddr| known.is_ipv6() && is_global(known);
        if address.is_ipv6() && !addresses.clone().any(has_come) {
            return None;
        }
        Some(addresses.any(|known| same_network(known, address)))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
