//! What each two keys have had relayed within a day.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pinhole_proto::key::PeerKey;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Most pairs that are remembered: about 10 MiB.
const MAX_PAIRS: usize = 100_000;

/// So many bytes a day for each two keys, whichever of them asks.
#[derive(Debug)]
pub(crate) struct Quota {
    bytes_per_day: Option<u64>,
    used: Mutex<HashMap<[PeerKey; 2], Used>>,
}

#[derive(Debug, Clone, Copy)]
struct Used {
    bytes: u64,
    /// The day begins with the first byte.
    since: Instant,
}

impl Quota {
    pub(crate) fn new(bytes_per_day: Option<u64>) -> Self {
        Self {
            bytes_per_day,
            used: Mutex::default(),
        }
    }

    /// Counts `bytes` for these two; whether they still had as many.
    pub(crate) fn take(&self, now: Instant, mut keys: [PeerKey; 2], bytes: u64) -> bool {
        let Some(bytes_per_day) = self.bytes_per_day else {
            return true;
        };
        keys.sort_unstable();
        let mut all = self.lock();
        if !all.contains_key(&keys) && all.len() >= MAX_PAIRS {
            make_room(&mut all, now);
        }
        let fresh = Used {
            bytes: 0,
            since: now,
        };
        let used = all.entry(keys).or_insert(fresh);
        if now.saturating_duration_since(used.since) >= DAY {
            *used = fresh;
        }
        let sum = used.bytes.saturating_add(bytes);
        let granted = sum <= bytes_per_day && used.bytes < bytes_per_day;
        used.bytes = sum.min(bytes_per_day);
        granted
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[PeerKey; 2], Used>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets those whose day is over or, if there is none, who had least.
fn make_room(all: &mut HashMap<[PeerKey; 2], Used>, now: Instant) {
    all.retain(|_, used| now.saturating_duration_since(used.since) < DAY);
    if all.len() >= MAX_PAIRS
        && let Some(keys) = all
            .iter()
            .min_by_key(|(_, used)| used.bytes)
            .map(|(k, _)| *k)
    {
        all.remove(&keys);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(a: u8, b: u8) -> [PeerKey; 2] {
        [a, b].map(|number| PeerKey::from_bytes([number; 32]))
    }

    #[test]
    fn two_keys_share_one_day_s_worth_whoever_asks() {
        let quota = Quota::new(Some(100));
        let now = Instant::now();
        assert!(quota.take(now, keys(1, 2), 0));
        assert!(quota.take(now, keys(1, 2), 60));
        assert!(quota.take(now, keys(2, 1), 40));
        assert!(!quota.take(now, keys(1, 2), 1));
        assert!(
            !quota.take(now, keys(2, 1), 0),
            "nothing is left to begin with"
        );
        assert!(quota.take(now, keys(1, 3), 100));
        assert!(quota.take(now + DAY, keys(1, 2), 100));
    }

    #[test]
    fn without_a_limit_nothing_is_kept() {
        let quota = Quota::new(None);
        assert!(quota.take(Instant::now(), keys(1, 2), u64::MAX));
        assert!(quota.lock().is_empty());
    }

    #[test]
    fn who_had_most_is_remembered_longest() {
        let quota = Quota::new(Some(100));
        let now = Instant::now();
        quota.take(now, keys(1, 2), 100);
        for number in 0..MAX_PAIRS {
            let mut other = [0; 32];
            other[..8].copy_from_slice(&number.to_be_bytes());
            quota.take(now, [PeerKey::from_bytes(other), keys(1, 2)[0]], 1);
        }
        assert_eq!(quota.lock().len(), MAX_PAIRS);
        assert!(!quota.take(now, keys(1, 2), 1));
    }
}
