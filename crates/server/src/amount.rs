//! Amounts of bytes as operators type them.

/// As `1000`, `500k`, `2M`, `10G` or `1T`, in bytes.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not an amount like 500k, 2M or 10G");
    let split = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(split.unwrap_or(text.len()));
    let factor: u64 = match unit {
        "" => 1,
        "k" | "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let bytes = number.checked_mul(factor).filter(|&bytes| bytes > 0);
    bytes.ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_operators_write_them() {
        for (text, expected) in [
            ("1000", 1_000),
            ("500k", 500_000),
            ("2M", 2_000_000),
            ("10G", 10_000_000_000),
            ("1T", 1_000_000_000_000),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "0", "k", "-1", "1x", "1.5M", "2 M", "99999999999T"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
