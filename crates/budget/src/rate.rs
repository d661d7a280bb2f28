//! How often something may happen.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::subnet::{Subnet, subnets};

/// How often something may happen: a burst, and one more after each interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many may follow each other without a pause.
    pub burst: u32,
    /// The time after which one more is allowed.
    pub interval: Duration,
}

/// Limits how often something happens, for each value of `K` (the generic cell rate
/// algorithm of ITU-T I.371).
///
/// ```
/// use pinhole_budget::{Rate, RateLimiter};
/// use std::time::{Duration, Instant};
///
/// let rate = Rate { burst: 2, interval: Duration::from_secs(1) };
/// let mut logins = RateLimiter::new(rate, 1_000);
/// let now = Instant::now();
/// assert!(logins.take(now, "alice") && logins.take(now, "alice"));
/// assert!(!logins.take(now, "alice"));
/// assert!(logins.take(now + rate.interval, "alice"));
/// ```
#[derive(Debug)]
pub struct RateLimiter<K> {
    rate: Rate,
    keys_max: usize,
    /// The theoretical arrival time of each key: when everything granted so far would
    /// have been granted at the steady rate. An entry is dropped once that time is past.
    due: HashMap<K, Instant>,
    swept_at: Option<Instant>,
}

impl<K: Eq + Hash> RateLimiter<K> {
    /// Remembers at most `keys_max` keys. While all of them are in use, other keys are
    /// refused, so limit the keys themselves where anyone can make them up.
    #[must_use]
    pub fn new(rate: Rate, keys_max: usize) -> Self {
        Self {
            rate,
            keys_max,
            due: HashMap::new(),
            swept_at: None,
        }
    }

    /// Counts one more for `key`. Returns whether the rate allows it.
    pub fn take(&mut self, now: Instant, key: K) -> bool {
        let granted = self.next(now, &key);
        if let Some(due) = granted {
            self.due.insert(key, due);
        }
        granted.is_some()
    }

    /// The arrival time that `take` would note for `key`; `None` if it would refuse.
    fn next(&mut self, now: Instant, key: &K) -> Option<Instant> {
        self.sweep(now);
        if self.due.len() >= self.keys_max && !self.due.contains_key(key) {
            return None;
        }
        let Rate { burst, interval } = self.rate;
        let due = self.due.get(key).map_or(now, |&due| due.max(now)) + interval;
        Some(due).filter(|due| *due <= now + interval * burst)
    }

    /// How many keys are remembered.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.due.len()
    }

    /// Runs at most once an interval, because each sweep looks at every key.
    fn sweep(&mut self, now: Instant) {
        let is_due = |at: Instant| now.saturating_duration_since(at) >= self.rate.interval;
        if self.swept_at.is_none_or(is_due) || self.due.len() >= self.keys_max {
            self.due.retain(|_, due| *due > now);
            self.swept_at = Some(now);
        }
    }
}

/// Limits how often something happens for each network. An IPv4 address and an IPv6 /64
/// have the given rate, a /56 has twice and a /48 four times as much. An IPv4 /24 has no
/// rate of its own, because the customers of a provider share it.
#[derive(Debug)]
pub struct SubnetRateLimiter([RateLimiter<Subnet>; 3]);

impl SubnetRateLimiter {
    /// Remembers at most `networks_max` networks of each size.
    #[must_use]
    pub fn new(rate: Rate, networks_max: usize) -> Self {
        let times = |factor: u32| {
            let rate = Rate {
                burst: rate.burst.saturating_mul(factor),
                interval: rate.interval / factor,
            };
            RateLimiter::new(rate, networks_max)
        };
        Self([times(1), times(2), times(4)])
    }

    /// Counts one more for the networks of `address`. If one of them has reached its
    /// rate, it counts for none. Returns whether the rate allows it.
    pub fn take(&mut self, now: Instant, address: IpAddr) -> bool {
        let all = subnets(address);
        let subnets = all.iter().filter(|subnet| subnet.prefix_bits() != 24);
        let mut granted = [None; 3];
        let each = self.0.iter_mut().zip(subnets).zip(&mut granted);
        for ((limiter, &subnet), slot) in each {
            let Some(due) = limiter.next(now, &subnet) else {
                return false;
            };
            *slot = Some((subnet, due));
        }
        for (limiter, granted) in self.0.iter_mut().zip(granted) {
            limiter.due.extend(granted);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limiter(keys_max: usize) -> RateLimiter<&'static str> {
        let rate = Rate {
            burst: 3,
            interval: SECOND,
        };
        RateLimiter::new(rate, keys_max)
    }

    #[test]
    fn a_burst_passes_at_once_and_then_one_each_interval() {
        let mut limiter = limiter(10);
        let begin = Instant::now();
        let mut pass = |now, key| (0..10).filter(|_| limiter.take(now, key)).count();
        assert_eq!(pass(begin, "a"), 3);
        assert_eq!(pass(begin, "b"), 3, "each key has its own");
        assert_eq!(pass(begin + SECOND - Duration::from_nanos(1), "a"), 0);
        assert_eq!(pass(begin + SECOND, "a"), 1);
        assert_eq!(pass(begin + 3 * SECOND, "a"), 2);
        assert_eq!(pass(begin + 60 * SECOND, "a"), 3, "and no more");
    }

    #[test]
    fn a_key_that_has_its_whole_burst_back_is_forgotten() {
        let mut limiter = limiter(2);
        let begin = Instant::now();
        assert!(limiter.take(begin, "a") && limiter.take(begin, "b"));
        assert!(!limiter.take(begin, "c"), "no room for a third key");
        assert!(limiter.take(begin + SECOND, "c"));
        assert_eq!(limiter.keys(), 1);
    }

    #[test]
    fn the_many_networks_of_one_home_are_limited_together() {
        let rate = Rate {
            burst: 3,
            interval: SECOND,
        };
        let mut limiter = SubnetRateLimiter::new(rate, 100);
        let now = Instant::now();
        let mut pass = |address: &str| {
            let address: IpAddr = address.parse().unwrap();
            (0..20).filter(|_| limiter.take(now, address)).count()
        };
        assert_eq!(pass("198.51.100.1"), 3);
        assert_eq!(pass("198.51.100.2"), 3, "a neighbour has its own");
        assert_eq!(pass("2001:db8::1"), 3);
        assert_eq!(pass("2001:db8::2"), 0, "the same /64");
        assert_eq!(pass("2001:db8:0:1::1"), 3, "the /56 has twice as many");
        assert_eq!(pass("2001:db8:0:2::1"), 0);
        assert_eq!(pass("2001:db8:0:100::1"), 3);
        assert_eq!(pass("2001:db8:0:200::1"), 3, "the /48 four times");
        assert_eq!(pass("2001:db8:0:300::1"), 0);
        assert_eq!(pass("2001:db8:1::1"), 3);
    }
}
