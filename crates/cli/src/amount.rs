//! Sizes and speeds as people type them.

pub(crate) use pinhole_client::amount::bytes;

/// As [`bytes`], a second, with or without `/s`.
pub(crate) fn bytes_per_second(text: &str) -> Result<u64, String> {
    match bytes(text.strip_suffix("/s").unwrap_or(text))? {
        0 => Err("nothing would ever move; leave the limit out for none".to_owned()),
        rate => Ok(rate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_never_zero() {
        assert_eq!(bytes_per_second("2M/s"), Ok(2_000_000));
        assert_eq!(bytes_per_second("2M"), Ok(2_000_000));
        assert!(bytes_per_second("0").is_err());
        assert!(bytes_per_second("0.1").is_err());
    }
}
