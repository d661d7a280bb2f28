//! What `invite` and `join` take.

use std::time::Duration;

use clap::Args;

pub(super) const INVITE_EXAMPLES: &str = "\
Examples:
  pinhole invite                             a link for everybody you give it to, for a day
  pinhole invite --once --for 2h             for one person, within two hours";

/// An invitation lasts at least and at most so long.
const LASTS_MIN: Duration = Duration::from_secs(60);
const LASTS_MAX: Duration = Duration::from_secs(30 * DAY_S);

const DAY_S: u64 = 24 * 60 * 60;

/// What `invite` takes.
#[derive(Debug, Args)]
pub(crate) struct Invite {
    /// Let only the first who uses the link in.
    #[arg(long)]
    pub(crate) once: bool,
    /// For how long it can be used: 30m, 24h, 7d; at most 30 days.
    #[arg(long = "for", value_name = "TIME", default_value = "24h", value_parser = lasts)]
    pub(crate) lasts: Duration,
}

/// Parses a number of minutes, hours or days.
fn lasts(text: &str) -> Result<Duration, String> {
    let lasts = parsed(text).ok_or("it is a number with m, h or d behind it: 30m, 24h, 7d")?;
    match (LASTS_MIN..=LASTS_MAX).contains(&lasts) {
        true => Ok(lasts),
        false => Err("an invitation lasts from one minute to 30 days".to_owned()),
    }
}

fn parsed(text: &str) -> Option<Duration> {
    let units = [("m", 60), ("h", 60 * 60), ("d", DAY_S)];
    let number = |unit: &str| text.strip_suffix(unit)?.parse::<u32>().ok();
    let found = units
        .into_iter()
        .find_map(|(unit, seconds)| Some((number(unit)?, seconds)));
    let (number, seconds) = found?;
    Some(Duration::from_secs(u64::from(number) * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_minutes_hours_or_days() {
        for (text, seconds) in [("1m", 60), ("24h", 86_400), ("30d", 2_592_000)] {
            assert_eq!(lasts(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "h", "24", "1s", "-1h", "1.5h", "4294967296h", "1 h"] {
            assert!(lasts(text).unwrap_err().contains("30m"), "{text}");
        }
        for text in ["0m", "31d", "4294967295d"] {
            assert!(lasts(text).unwrap_err().contains("one minute"), "{text}");
        }
    }
}
