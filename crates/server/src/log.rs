//! Limits the log lines about clients, so that nobody can flood the log.

use std::fmt::Display;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pinhole_budget::{Full, Rate, RateLimiter, SubnetRateLimiter};
use tracing::field::{DisplayValue, display};
use tracing::{info, warn};

use crate::admission::RATED;
use crate::limits::Limits;

/// Failed accepts repeat as long as their cause lasts.
const ACCEPT_FAILURES: Rate = Rate {
    burst: 1,
    interval: Duration::from_secs(60),
};

/// Whether the log says where people are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoggedAddresses {
    /// Their addresses stay out of the log.
    #[default]
    Omitted,
    /// Each line about a client has its address.
    Shown,
}

/// Limits the lines that clients cause, and what they say.
#[derive(Debug)]
pub(crate) struct ClientLog {
    limits: Mutex<LogLimits>,
    addresses: LoggedAddresses,
}

#[derive(Debug)]
struct LogLimits {
    of_networks: SubnetRateLimiter,
    of_all: RateLimiter<()>,
    accept_failures: RateLimiter<()>,
    left_out: u64,
}

impl ClientLog {
    pub(crate) fn new(limits: &Limits, addresses: LoggedAddresses) -> Self {
        let limits = LogLimits {
            of_networks: SubnetRateLimiter::new(limits.log_lines_per_network, RATED),
            of_all: RateLimiter::new(limits.log_lines, 1),
            accept_failures: RateLimiter::new(ACCEPT_FAILURES, 1),
            left_out: 0,
        };
        Self {
            limits: Mutex::new(limits),
            addresses,
        }
    }

    /// The address as a field of a line, which is left out unless the operator wants it.
    pub(crate) fn shown<A: Display>(&self, address: A) -> Option<DisplayValue<A>> {
        (self.addresses == LoggedAddresses::Shown).then(|| display(address))
    }

    /// Why a client is refused, without its network unless the operator wants addresses.
    pub(crate) fn reason(&self, full: Full) -> String {
        match (full, self.addresses) {
            (Full::Subnet(_), LoggedAddresses::Omitted) => {
                "its network holds as much as one network may".to_owned()
            }
            _ => full.to_string(),
        }
    }

    /// Whether a line about a client at `address` may be written now.
    pub(crate) fn admits(&self, address: IpAddr) -> bool {
        let now = Instant::now();
        let mut state = self.limits.lock();
        let is_granted = state.of_networks.take(now, address) && state.of_all.take(now, ());
        state.left_out += u64::from(!is_granted);
        is_granted
    }

    /// Logs a failed accept.
    pub(crate) fn accept_failed(&self, error: &std::io::Error) {
        if self.limits.lock().accept_failures.take(Instant::now(), ()) {
            warn!(
                "cannot accept connections: {error}. If there are too few open files, raise \
                 their limit (ulimit -n, or LimitNOFILE= of the systemd unit). Said once a minute"
            );
        }
    }

    /// Logs how many lines were omitted since the last call, if any.
    pub(crate) fn report(&self) {
        let left_out = std::mem::take(&mut self.limits.lock().left_out);
        if left_out > 0 {
            info!(
                lines = left_out,
                "too many lines about clients; left some out"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_leaves_the_log_to_others() {
        let log = ClientLog::new(&Limits::default(), LoggedAddresses::Omitted);
        let count = |address: &str| {
            let address: IpAddr = address.parse().unwrap();
            (0..1_000).filter(|_| log.admits(address)).count()
        };
        assert!((60..70).contains(&count("198.51.100.1")));
        assert!((60..70).contains(&count("203.0.113.1")));
        assert!(log.limits.lock().left_out > 1_800);
        log.report();
        assert_eq!(log.limits.lock().left_out, 0);
    }
}
