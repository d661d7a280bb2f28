//! The text fields of the settings.

use pinhole_client::{Settings, amount};

use crate::text;

/// What is typed in the settings and not applied yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SettingsForm {
    pub(super) unasked_max: FormField,
    pub(super) send_limit: FormField,
    pub(super) receive_limit: FormField,
    pub(super) proxy: FormField,
}

/// The content of one field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FormField {
    pub(super) typed: String,
    /// Changed since its value was last applied.
    pub(super) is_edited: bool,
}

impl SettingsForm {
    /// Fills the fields with the present settings.
    pub(crate) fn of(settings: &Settings) -> Self {
        let field = |bytes: Option<u64>| FormField {
            typed: bytes.map(megabytes).unwrap_or_default(),
            is_edited: false,
        };
        Self {
            unasked_max: field(settings.unasked_bytes_max),
            send_limit: field(settings.send_limit),
            receive_limit: field(settings.receive_limit),
            proxy: FormField {
                typed: settings.proxy.to_text(),
                is_edited: false,
            },
        }
    }
}

/// Formats megabytes with as few digits as needed.
fn megabytes(bytes: u64) -> String {
    (bytes as f64 / 1_000_000.0).to_string()
}

/// Parses an amount, which is in megabytes when it has no unit. Nothing typed is no
/// limit, and zero is refused.
pub(super) fn bytes(typed: &str) -> Result<Option<u64>, &'static str> {
    let mut typed = typed.trim().replace(',', ".");
    if typed.is_empty() {
        return Ok(None);
    }
    if typed.ends_with(|c: char| c.is_ascii_digit() || c == '.') {
        typed.push('M');
    }
    match amount::parse(&typed) {
        Ok(bytes @ 1..) => Ok(Some(bytes)),
        Ok(0) | Err(_) => Err(text::NOT_A_NUMBER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_in_megabytes_unless_they_have_a_unit() {
        for (typed, expected) in [
            ("", Ok(None)),
            (" 2.5 ", Ok(Some(2_500_000))),
            ("2,5", Ok(Some(2_500_000))),
            ("80", Ok(Some(80_000_000))),
            ("1.5M", Ok(Some(1_500_000))),
            ("500k", Ok(Some(500_000))),
            ("2GiB", Ok(Some(2 << 30))),
        ] {
            assert_eq!(bytes(typed), expected, "{typed}");
        }
        for wrong in ["fast", "0", "-1", "1e99", "NaN", "inf", "1 2"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        for shown in [1, 2_500_000, 80_000_000, 123_456_789_012] {
            assert_eq!(bytes(&megabytes(shown)), Ok(Some(shown)));
        }
    }
}
