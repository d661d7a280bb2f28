//! Sizes and speeds as people type them.

/// As `500k`, `2M`, `1.5MiB` or `1000`, in bytes: `k`, `M`, `G` and `T` count
/// in thousands, with an `i` behind them in 1024s.
///
/// # Errors
/// A sentence, when it is no such amount.
pub fn bytes(text: &str) -> Result<u64, String> {
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
    // Saturates: more than there is means no limit.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let bytes = (number * base.powi(power)).round() as u64;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_people_write_them() {
        for (text, expected) in [
            ("0", 0),
            ("1000", 1_000),
            ("500k", 500_000),
            ("500K", 500_000),
            ("2M", 2_000_000),
            ("2MB", 2_000_000),
            ("1.5MiB", 1_572_864),
            ("1.5mi", 1_572_864),
            ("3G", 3_000_000_000),
            ("1T", 1_000_000_000_000),
            ("12B", 12),
            (".5k", 500),
            ("99999999999T", u64::MAX),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in [
            "", "k", "-1", "1x", "1iB", "1.2.3", "1 M", "1kk", "1e9", "inf", "nan",
        ] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
