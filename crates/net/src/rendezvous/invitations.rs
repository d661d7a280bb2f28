//! How many invitations are passed on. Whoever may invite may have us connect, and a
//! server that lies could have us dial for it without end.

use std::time::{Duration, Instant};

use pinhole_budget::{Rate, RateLimiter};
use pinhole_proto::key::PeerKey;

/// Of one stranger: somebody whose offers are all taken may send one file after the
/// other.
const STRANGER: Rate = Rate {
    burst: 32,
    interval: Duration::from_secs(1),
};
/// The rate of all strangers together, because keys cost nothing.
const STRANGERS: Rate = Rate {
    burst: 128,
    interval: Duration::from_millis(500),
};
/// Of one key that is known. A transfer whose connection breaks again and again
/// brings one each half a second for a while.
const ONE_KNOWN: Rate = Rate {
    burst: 64,
    interval: Duration::from_secs(1),
};
/// The rate of all known keys together. A lying server may use their names.
const ALL_KNOWN: Rate = Rate {
    burst: 256,
    interval: Duration::from_millis(250),
};
/// Most keys of which the invitations are counted; others wait.
const KEYS: usize = 1024;

/// Counts invitations: those of strangers apart from those of keys that are known,
/// so that no stranger can make us unreachable for these.
#[derive(Debug)]
pub(super) struct Invitations {
    strangers: Inviters,
    known: Inviters,
}

#[derive(Debug)]
struct Inviters {
    each: RateLimiter<PeerKey>,
    all: RateLimiter<()>,
}

impl Inviters {
    fn new(each: Rate, all: Rate) -> Self {
        Self {
            each: RateLimiter::new(each, KEYS),
            all: RateLimiter::new(all, 1),
        }
    }

    fn take(&mut self, now: Instant, key: PeerKey) -> bool {
        // In this order: what one has too many of is not taken from the others.
        self.each.take(now, key) && self.all.take(now, ())
    }
}

impl Invitations {
    pub(super) fn new() -> Self {
        Self {
            strangers: Inviters::new(STRANGER, STRANGERS),
            known: Inviters::new(ONE_KNOWN, ALL_KNOWN),
        }
    }

    /// Whether another one of this key may be passed on.
    pub(super) fn take(&mut self, now: Instant, key: PeerKey, is_known: bool) -> bool {
        match is_known {
            true => self.known.take(now, key),
            false => self.strangers.take(now, key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u16) -> PeerKey {
        let mut bytes = [7; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        PeerKey::from_bytes(bytes)
    }

    #[test]
    fn no_stranger_takes_what_is_others_and_all_of_them_not_what_is_for_known_keys() {
        let mut invitations = Invitations::new();
        let now = Instant::now();
        let mut passed = |now, keys: std::ops::Range<u16>, times, is_known| {
            let each = keys.flat_map(|number| std::iter::repeat_n(number, times));
            each.filter(|&number| invitations.take(now, key(number), is_known))
                .count()
        };
        assert_eq!(passed(now, 0..1, 1000, false), 32);
        assert_eq!(passed(now, 1..2, 1, false), 1, "another stranger");
        assert_eq!(passed(now, 2..2000, 3, false), 128 - 33);
        assert_eq!(passed(now, 3000..3001, 10, true), 10, "a contact");
        assert_eq!(passed(now, 3000..3001, 1000, true), 64 - 10);
        assert_eq!(passed(now, 3001..3002, 1, true), 1, "another contact");
        let later = now + Duration::from_secs(2);
        assert_eq!(passed(later, 0..1, 1000, false), 2, "slowly again");
    }
}
