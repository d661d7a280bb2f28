//! Amounts of bytes, and rates in bytes a second, as people type and read them.

use std::time::Duration;

/// Parses an amount of bytes such as `500k`, `2M`, `1.5MiB` or `1000`. The units `k`,
/// `M`, `G` and `T` are decimal; an `i` behind them makes them binary.
///
/// # Errors
/// A sentence for the user when the text is not such an amount.
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not an amount like 500k, 2M or 1.5MiB");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(split.unwrap_or(text.len()));
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.to_ascii_lowercase();
    let prefix = unit.strip_suffix('b').unwrap_or(&unit);
    let (prefix, base) = match prefix.strip_suffix('i') {
        Some(prefix) if !prefix.is_empty() => (prefix, 1024.0_f64),
        Some(_) => return Err(wrong()),
        None => (prefix, 1000.0),
    };
    let power = match prefix {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(wrong()),
    };
    // The cast saturates: more bytes than a u64 counts are no limit.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let bytes = (number * base.powi(power)).round() as u64;
    Ok(bytes)
}

/// Parses a rate in bytes a second: an amount, with or without `/s`.
///
/// # Errors
/// A sentence for the user when the text is not such a rate, or is zero.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    match parse(text.strip_suffix("/s").unwrap_or(text))? {
        0 => Err("nothing would ever move; leave the limit out for none".to_owned()),
        rate => Ok(rate),
    }
}

/// Formats an amount of bytes with three significant digits, as in `999 B`, `1.21 GB` or
/// `734 MB`.
#[must_use]
pub fn display(bytes: u64) -> String {
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64 / 1_000.0;
    let mut units = ["kB", "MB", "GB", "TB", "PB", "EB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    // An amount that would round to 1000 takes the next unit.
    while amount >= 999.5
        && let Some(larger) = units.next()
    {
        amount /= 1_000.0;
        unit = larger;
    }
    let decimals = match amount {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{amount:.decimals$} {unit}")
}

/// Formats a rate, as in `98.2 MB/s`.
#[must_use]
pub fn display_rate(bytes_per_second: u64) -> String {
    format!("{}/s", display(bytes_per_second))
}

/// The average rate in bytes a second. Less than a millisecond counts as one.
#[must_use]
pub fn average_rate(bytes: u64, elapsed: Duration) -> u64 {
    let micros = elapsed.max(Duration::from_millis(1)).as_micros();
    u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_parsed_as_people_write_them() {
        for (text, expected) in [
            ("0", 0),
            ("1000", 1_000),
            ("500k", 500_000),
            ("500K", 500_000),
            ("2M", 2_000_000),
            ("1.5M", 1_500_000),
            ("2MB", 2_000_000),
            ("1.5MiB", 1_572_864),
            ("1.5mi", 1_572_864),
            ("3G", 3_000_000_000),
            ("1T", 1_000_000_000_000),
            ("12B", 12),
            (".5k", 500),
            ("99999999999T", u64::MAX),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        for text in [
            "", "k", "-1", "1x", "1iB", "1.2.3", "1 M", "1kk", "1e9", "inf", "nan",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_is_never_zero() {
        assert_eq!(parse_rate("2M/s"), Ok(2_000_000));
        assert_eq!(parse_rate("1.5M"), Ok(1_500_000));
        assert!(parse_rate("0").is_err());
        assert!(parse_rate("0.1").is_err());
    }

    #[test]
    fn amounts_are_displayed_with_three_digits() {
        for (bytes, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.00 kB"),
            (9_994, "9.99 kB"),
            (9_996, "10.0 kB"),
            (99_960, "100 kB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (20_056_524, "20.1 MB"),
            (734_000_000, "734 MB"),
            (1_073_741_824, "1.07 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(display(bytes), shown, "{bytes}");
        }
        assert_eq!(display_rate(98_200_000), "98.2 MB/s");
    }

    #[test]
    fn an_average_needs_some_time() {
        assert_eq!(average_rate(3_000, Duration::from_secs(2)), 1_500);
        assert_eq!(average_rate(3, Duration::ZERO), 3_000);
        assert_eq!(average_rate(u64::MAX, Duration::ZERO), u64::MAX);
    }
}
