//! The bytes relayed within a day: for each pair of keys, each inviter and each network.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pinhole_budget::{Subnet, subnets};
use pinhole_proto::key::PeerKey;
use pinhole_proto::registry::Inviter;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The most accounts that are kept: about 15 MiB.
const MAX_ACCOUNTS: usize = 100_000;

/// Something with a quota of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Account {
    /// Two keys, in either order.
    Pair([PeerKey; 2]),
    Inviter(PeerKey),
    /// The inviter's network, because keys are free to make.
    Network(Subnet),
}

#[derive(Debug, Clone, Copy)]
struct DayUsage {
    bytes: u64,
    /// The day begins with the first byte.
    since: Instant,
}

#[derive(Debug, Clone, Copy)]
struct DayLimits {
    per_pair: Option<u64>,
    /// For one inviter, and for all of a network.
    per_network: Option<u64>,
}

/// Daily quotas.
#[derive(Debug)]
pub(crate) struct Quota {
    most: Mutex<DayLimits>,
    used: Mutex<HashMap<Account, DayUsage>>,
}

impl Quota {
    pub(crate) fn new(per_pair: Option<u64>, per_network: Option<u64>) -> Self {
        Self {
            most: Mutex::new(DayLimits {
                per_pair,
                per_network,
            }),
            used: Mutex::default(),
        }
    }

    /// Changes the quotas. What was used today still counts.
    pub(crate) fn set(&self, per_pair: Option<u64>, per_network: Option<u64>) {
        *self.most.lock() = DayLimits {
            per_pair,
            per_network,
        };
    }

    /// Counts `bytes` for these two. Returns whether every quota concerned has room for
    /// them. If the pair's quota has not, it is used up; the other quotas stay as they
    /// are.
    pub(crate) fn take(
        &self,
        now: Instant,
        keys: [PeerKey; 2],
        inviter: Inviter,
        bytes: u64,
    ) -> bool {
        let accounts = self.accounts(keys, inviter);
        let mut all = self.used.lock();
        let fits = |all: &HashMap<Account, DayUsage>, (account, most): &(Account, u64)| {
            let used = all.get(account).filter(|used| !used.is_over(now));
            let used = used.map_or(0, |used| used.bytes);
            used < *most && used.saturating_add(bytes) <= *most
        };
        let is_granted = accounts.iter().all(|account| fits(&all, account));
        for (account, most) in accounts {
            if is_granted {
                add(&mut all, now, account, bytes);
            } else if matches!(account, Account::Pair(_)) && !fits(&all, &(account, most)) {
                add(&mut all, now, account, most);
            }
        }
        is_granted
    }

    fn accounts(&self, mut keys: [PeerKey; 2], inviter: Inviter) -> Vec<(Account, u64)> {
        keys.sort_unstable();
        let limits = *self.most.lock();
        let of_pair = limits.per_pair.map(|most| (Account::Pair(keys), most));
        let mut accounts = Vec::from_iter(of_pair);
        if let Some(most) = limits.per_network {
            accounts.push((Account::Inviter(inviter.key), most));
            let networks = subnets(inviter.address).into_iter();
            // The customers of a provider share it.
            let networks = networks.filter(|subnet| subnet.prefix_bits() != 24);
            accounts.extend(networks.map(|subnet| (Account::Network(subnet), most)));
        }
        accounts
    }
}

impl DayUsage {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= DAY
    }
}

fn add(all: &mut HashMap<Account, DayUsage>, now: Instant, account: Account, bytes: u64) {
    if !all.contains_key(&account) && all.len() >= MAX_ACCOUNTS {
        make_room(all, now);
    }
    let fresh = DayUsage {
        bytes: 0,
        since: now,
    };
    let used = all.entry(account).or_insert(fresh);
    if used.is_over(now) {
        *used = fresh;
    }
    used.bytes = used.bytes.saturating_add(bytes);
}

/// Drops accounts whose day is over or, if those are few, the half with the least use.
fn make_room(all: &mut HashMap<Account, DayUsage>, now: Instant) {
    all.retain(|_, used| !used.is_over(now));
    if all.len() > MAX_ACCOUNTS / 2 {
        let mut bytes: Vec<_> = all.values().map(|used| used.bytes).collect();
        let middle = bytes.len() / 2;
        let (_, &mut median, _) = bytes.select_nth_unstable(middle);
        let mut excess = all.len() - MAX_ACCOUNTS / 2;
        all.retain(|_, used| {
            let is_forgotten = used.bytes <= median && excess > 0;
            excess -= usize::from(is_forgotten);
            !is_forgotten
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> PeerKey {
        PeerKey::from_bytes([number; 32])
    }

    fn take(quota: &Quota, now: Instant, keys: [PeerKey; 2], bytes: u64) -> bool {
        let inviter = Inviter {
            key: keys[0],
            address: [192, 0, 2, 1].into(),
        };
        quota.take(now, keys, inviter, bytes)
    }

    #[test]
    fn two_keys_share_one_quota_in_either_order() {
        let quota = Quota::new(Some(100), None);
        let now = Instant::now();
        let take = |now, a, b, bytes| take(&quota, now, [key(a), key(b)], bytes);
        assert!(take(now, 1, 2, 0));
        assert!(take(now, 1, 2, 60));
        assert!(take(now, 2, 1, 40));
        assert!(!take(now, 1, 2, 1));
        assert!(!take(now, 2, 1, 0), "nothing is left to begin with");
        assert!(take(now, 1, 3, 100));
        assert!(take(now + DAY, 1, 2, 100));
    }

    #[test]
    fn bytes_refused_to_a_pair_do_not_count_for_its_network() {
        let quota = Quota::new(Some(100), Some(150));
        let now = Instant::now();
        assert!(!take(&quota, now, [key(1), key(2)], 101));
        assert!(take(&quota, now, [key(1), key(3)], 100));
        assert!(!take(&quota, now, [key(1), key(4)], 51));
        assert!(take(&quota, now, [key(1), key(5)], 50));
    }

    #[test]
    fn without_a_limit_nothing_is_kept() {
        let quota = Quota::new(None, None);
        assert!(take(&quota, Instant::now(), [key(1), key(2)], u64::MAX));
        assert!(quota.used.lock().is_empty());
    }

    #[test]
    fn the_heaviest_account_is_remembered_longest() {
        let quota = Quota::new(Some(100), None);
        let now = Instant::now();
        take(&quota, now, [key(1), key(2)], 100);
        for number in 0..MAX_ACCOUNTS * 2 {
            let mut other = [0; 32];
            other[..8].copy_from_slice(&number.to_be_bytes());
            take(&quota, now, [PeerKey::from_bytes(other), key(1)], 1);
            assert!(quota.used.lock().len() <= MAX_ACCOUNTS);
        }
        assert!(!take(&quota, now, [key(1), key(2)], 1));
    }
}
