//! Values of arguments: amounts and times, or no limit.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use pinhole_budget::amount;

/// Bytes, or no limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ByteLimit(pub(crate) Option<u64>);

impl FromStr for ByteLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            text => match amount::parse(text.strip_suffix("/s").unwrap_or(text))? {
                0 => Err("nothing would ever pass; --no-relay says so to people".to_owned()),
                bytes => Ok(Self(Some(bytes))),
            },
        }
    }
}

impl fmt::Display for ByteLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("none"),
            Some(bytes) if bytes % 1_000_000_000 == 0 => write!(f, "{}G", bytes / 1_000_000_000),
            Some(bytes) if bytes % 1_000_000 == 0 => write!(f, "{}M", bytes / 1_000_000),
            Some(bytes) => write!(f, "{bytes}"),
        }
    }
}

/// Minutes, or no limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Minutes(pub(crate) Option<Duration>);

impl FromStr for Minutes {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse::<u64>()) {
            ("none", _) => Ok(Self(None)),
            (_, Ok(minutes @ 1..=100_000)) => Ok(Self(Some(Duration::from_secs(minutes * 60)))),
            _ => Err("it is 1 to 100000, or \"none\""),
        }
    }
}

impl fmt::Display for Minutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("none"),
            Some(time) => write!(f, "{}", time.as_secs() / 60),
        }
    }
}

/// A time as people write it: 30s, 2m, or 0 for none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "write it like 30s, 2m or 0, up to 1h";
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let span: SignedDuration = text.parse().map_err(|_| WRONG)?;
        let span = Duration::try_from(span).map_err(|_| WRONG)?;
        match span <= Duration::from_secs(60 * 60) {
            true => Ok(Self(span)),
            false => Err(WRONG),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0.as_secs())
    }
}

const DAY_S: u64 = 24 * 60 * 60;

/// Days as people write them: 365d, or 0 for never.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Days(pub(crate) Option<Duration>);

impl FromStr for Days {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "0" {
            return Ok(Self(None));
        }
        let days = text.strip_suffix('d').and_then(|days| days.parse().ok());
        match days {
            Some(days @ 1..=100_000) => Ok(Self(Some(Duration::from_secs(days * DAY_S)))),
            _ => Err("write it like 365d, or 0 for never"),
        }
    }
}

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("0"),
            Some(time) => write!(f, "{}d", time.as_secs() / DAY_S),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        let seconds = |text: &str| text.parse().map(|Span(span)| span.as_secs()).ok();
        for (text, expected) in [
            ("0", 0),
            ("30s", 30),
            ("2m", 120),
            ("1m 30s", 90),
            ("1h", 3600),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for wrong in ["", "30", "-1s", "2h", "soon"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn days_are_shown_as_they_are_typed() {
        for (typed, days) in [("365d", Some(365)), ("1d", Some(1)), ("0", None)] {
            let parsed: Days = typed.parse().unwrap();
            assert_eq!(parsed.0.map(|it| it.as_secs() / DAY_S), days);
            assert_eq!(parsed.to_string(), typed);
        }
        for wrong in ["", "365", "0d", "-1d", "1y", "d"] {
            assert!(wrong.parse::<Days>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn amounts_are_typed_with_units_and_shown_as_they_can_be_typed() {
        for (typed, bytes, shown) in [
            ("none", None, "none"),
            ("1.5M", Some(1_500_000), "1500000"),
            ("1.5M/s", Some(1_500_000), "1500000"),
            ("2MiB", Some(2 << 20), "2097152"),
            ("500M", Some(500_000_000), "500M"),
            ("10G", Some(10_000_000_000), "10G"),
        ] {
            let amount: ByteLimit = typed.parse().unwrap();
            assert_eq!((amount.0, &*amount.to_string()), (bytes, shown), "{typed}");
        }
        for wrong in ["0", "", "-1", "some"] {
            assert!(wrong.parse::<ByteLimit>().is_err(), "{wrong}");
        }
    }
}
