//! When a connection to the server that is gone is tried again.

use std::time::{Duration, Instant};

use pinhole_net::PeerKey;

use super::effect::Effort;
use crate::failure::Failure;

/// First wait after a lost connection; doubles with each failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest wait. After a restart the clients of a large server come back
/// spread over it.
pub(super) const LAST_RETRY: Duration = Duration::from_secs(20);
/// Longest wait of one that only sends: its user waits for it, and there are few.
pub(super) const LAST_RETRY_OF_SENDER: Duration = Duration::from_secs(8);
/// The wait between two attempts when the connection to the server was lost while files
/// are under way.
const HASTY_RETRY: Duration = Duration::from_millis(250);
/// How long it is looked for in haste.
const HASTE: Duration = Duration::from_secs(60);

/// When a login that is gone is tried again.
#[derive(Debug)]
pub(super) struct Retries {
    key: PeerKey,
    last_retry: Duration,
    failures_in_a_row: u32,
    hasty_until: Option<Instant>,
}

impl Retries {
    pub(super) const fn new(key: PeerKey, last_retry: Duration) -> Self {
        Self {
            key,
            last_retry,
            failures_in_a_row: 0,
            hasty_until: None,
        }
    }

    pub(super) fn hurry(&mut self, now: Instant) {
        self.hasty_until = Some(now + HASTE);
    }

    pub(super) fn effort(&self, now: Instant) -> Effort {
        match self.hasty_until {
            Some(until) if now < until => Effort::Hasty,
            _ => Effort::Usual,
        }
    }

    /// The server has answered.
    pub(super) const fn succeeded(&mut self) {
        self.failures_in_a_row = 0;
    }

    /// How long to wait after this failure.
    pub(super) fn after(&mut self, failure: &Failure, now: Instant) -> Duration {
        // A server that refuses need not be looked for, and wants time.
        if matches!(failure, Failure::ServerRefused { .. }) {
            self.hasty_until = None;
        }
        if self.effort(now) == Effort::Hasty {
            return HASTY_RETRY;
        }
        let delay = retry_delay(self.failures_in_a_row, self.key, self.last_retry);
        self.failures_in_a_row += 1;
        delay
    }
}

/// Trying again will not mend these.
pub(super) const fn is_final(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::NameTaken { .. }
            | Failure::KeyRevoked
            | Failure::ServerKeyChanged { .. }
            | Failure::Replaced
    )
}

/// Doubles with each failure. A part of it depends on our key, so that the
/// clients of a restarted server do not all return in the same second.
fn retry_delay(failures_in_a_row: u32, key: PeerKey, longest: Duration) -> Duration {
    let base = FIRST_RETRY
        .saturating_mul(1 << failures_in_a_row.min(6))
        .min(longest);
    let bytes = key.as_bytes();
    let share = bytes
        .iter()
        .cycle()
        .nth(failures_in_a_row as usize)
        .copied()
        .unwrap_or(0);
    base + base.mul_f64(f64::from(share) / 256.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> Failure {
        Failure::ServerLost {
            reason: "it does not answer".to_owned(),
        }
    }

    #[test]
    fn a_server_that_refuses_is_asked_again_but_not_in_haste() {
        let now = Instant::now();
        let refused = Failure::ServerRefused {
            reason: "too many".to_owned(),
        };
        assert!(!is_final(&refused));
        let mut retries = Retries::new(PeerKey::from_bytes([0; 32]), LAST_RETRY);
        retries.hurry(now);
        assert_eq!(retries.after(&lost(), now), HASTY_RETRY);
        let waits = [1, 2, 4, 8].map(Duration::from_secs);
        assert_eq!([(); 4].map(|()| retries.after(&refused, now)), waits);
    }

    #[test]
    fn who_only_sends_never_waits_long() {
        let now = Instant::now();
        let mut retries = Retries::new(PeerKey::from_bytes([255; 32]), LAST_RETRY_OF_SENDER);
        let longest = [(); 12].map(|()| retries.after(&lost(), now));
        assert!(longest.iter().all(|wait| *wait <= 2 * LAST_RETRY_OF_SENDER));
    }
}
