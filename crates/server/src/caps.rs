//! Warnings about bounds that an operator can raise.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pinhole_budget::{Full, Rate, RateLimiter};
use tracing::warn;

/// A bound is met again and again once it is met.
const WARNINGS: Rate = Rate {
    burst: 1,
    interval: Duration::from_secs(60),
};

/// The options that raise the bounds of a budget.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CapOptions {
    what: &'static str,
    total: &'static str,
    per_network: Option<&'static str>,
    per_key: Option<&'static str>,
}

pub(crate) const PEOPLE: CapOptions = CapOptions {
    what: "people online",
    total: "--max-people",
    per_network: Some("--max-people-per-address"),
    per_key: None,
};
pub(crate) const CONNECTIONS: CapOptions = CapOptions {
    what: "connections",
    total: "--max-connections (and the limit of open files)",
    per_network: Some("--max-connections-per-address"),
    per_key: None,
};
pub(crate) const RELAY_PAIRS: CapOptions = CapOptions {
    what: "relayed pairs",
    total: "--relay-pairs",
    per_network: Some("--relay-pairs-per-address"),
    per_key: Some("--relay-pairs-per-peer"),
};
pub(crate) const NAMES: CapOptions = CapOptions {
    what: "names",
    total: "--max-names",
    per_network: None,
    per_key: Some("--max-names-per-key"),
};

/// Warns of each bound that is met, once a minute.
#[derive(Debug)]
pub(crate) struct CapWarnings {
    options: CapOptions,
    said: Mutex<RateLimiter<&'static str>>,
}

impl CapWarnings {
    pub(crate) fn new(options: CapOptions) -> Self {
        Self {
            options,
            said: Mutex::new(RateLimiter::new(WARNINGS, 3)),
        }
    }

    /// Says which bound was met and how to raise it, if an option does.
    pub(crate) fn met(&self, full: Full) {
        if let Some(line) = self.line(Instant::now(), full) {
            warn!("{line}");
        }
    }

    fn line(&self, now: Instant, full: Full) -> Option<String> {
        let (who, option) = match full {
            Full::Total => ("there are", Some(self.options.total)),
            Full::Subnet(_) => ("one address has", self.options.per_network),
            Full::Key => ("one key has", self.options.per_key),
        };
        let option = option?;
        let what = self.options.what;
        self.said.lock().take(now, option).then(|| {
            format!("{who} as many {what} as {option} allows; raise it to allow more. Said once a minute")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_is_named_once_a_minute_with_its_option() {
        let warnings = CapWarnings::new(RELAY_PAIRS);
        let now = Instant::now();
        let total = warnings.line(now, Full::Total).unwrap();
        assert!(total.starts_with("there are as many relayed pairs as --relay-pairs allows"));
        assert_eq!(warnings.line(now, Full::Total), None);
        let per_key = warnings.line(now, Full::Key).unwrap();
        assert!(per_key.contains("one key has as many relayed pairs as --relay-pairs-per-peer"));
        let later = now + Duration::from_secs(60);
        assert!(warnings.line(later, Full::Total).is_some());
        assert_eq!(CapWarnings::new(PEOPLE).line(now, Full::Key), None);
    }
}
