//! A limit on how often something happens.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::limits::Rate;

/// At most so often for each value of `K`.
#[derive(Debug)]
pub(crate) struct Pace<K> {
    rate: Rate,
    /// When all that was granted would have been at the steady rate; forgotten
    /// when that is past, which is one interval for each grant.
    due: Mutex<HashMap<K, Instant>>,
}

impl<K: Eq + Hash> Pace<K> {
    pub(crate) fn new(rate: Rate) -> Self {
        Self {
            rate,
            due: Mutex::default(),
        }
    }

    /// Counts one more, unless there were as many as may be.
    pub(crate) fn take(&self, now: Instant, key: K) -> bool {
        let Rate { at_once, interval } = self.rate;
        let mut all = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, due| *due > now);
        let due = all.get(&key).map_or(now, |&due| due) + interval;
        let granted = due <= now + interval * at_once;
        if granted {
            all.insert(key, due);
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn so_many_pass_at_once_and_then_one_each_interval() {
        let second = Duration::from_secs(1);
        let pace = Pace::new(Rate {
            at_once: 3,
            interval: second,
        });
        let begin = Instant::now();
        let pass = |now, key| (0..10).filter(|_| pace.take(now, key)).count();
        assert_eq!(pass(begin, "a"), 3);
        assert_eq!(pass(begin, "b"), 3, "each has its own");
        assert_eq!(pass(begin + second - Duration::from_nanos(1), "a"), 0);
        assert_eq!(pass(begin + second, "a"), 1);
        assert_eq!(pass(begin + 3 * second, "a"), 2);
        assert_eq!(pass(begin + 60 * second, "a"), 3, "and no more");
    }

    #[test]
    fn who_may_do_all_again_is_forgotten() {
        let interval = Duration::from_secs(1);
        let pace = Pace::new(Rate {
            at_once: 3,
            interval,
        });
        let begin = Instant::now();
        for key in 0..100 {
            assert!(pace.take(begin, key));
        }
        assert!(pace.take(begin + interval, 100));
        assert_eq!(pace.due.lock().unwrap().len(), 1);
    }
}
