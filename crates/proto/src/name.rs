//! The unique name a peer logs in with.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::key::PeerKey;

/// How much of the fingerprint is in the name of a guest: 40 bits, so that two guests of
/// one server hardly ever get the same name.
const GUEST_KEY_CHARS: usize = 8;

/// A rendezvous name: 3 to 32 characters of `[a-z0-9._-]`.
///
/// Only a valid name can be constructed, so a `PeerName` may be shown, logged
/// and stored without further checks.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerName(String);

/// Why a text is not a [`PeerName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerNameError {
    /// Shorter than [`PeerName::MIN_CHARS`] or longer than [`PeerName::MAX_CHARS`].
    #[error("a name has 3 to 32 characters")]
    Length,
    /// A character outside `[a-z0-9._-]`.
    #[error("a name has only a-z, 0-9, '.', '_' and '-', not {0:?}")]
    Character(char),
}

impl PeerName {
    /// Shortest name, in characters.
    pub const MIN_CHARS: usize = 3;
    /// Longest name, in characters.
    pub const MAX_CHARS: usize = 32;

    /// A name for somebody who has not chosen one, made from the key: whoever has the key
    /// always gets the same.
    #[must_use]
    pub fn guest(key: PeerKey) -> Self {
        let fingerprint = key.fingerprint().to_string();
        let chars = fingerprint.chars().take(GUEST_KEY_CHARS);
        Self("guest-".chars().chain(chars).collect())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PeerName {
    type Error = PeerNameError;

    fn try_from(text: String) -> Result<Self, PeerNameError> {
        let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-');
        if let Some(stranger) = text.chars().find(|&c| !allowed(c)) {
            return Err(PeerNameError::Character(stranger));
        }
        if !(Self::MIN_CHARS..=Self::MAX_CHARS).contains(&text.len()) {
            return Err(PeerNameError::Length);
        }
        Ok(Self(text))
    }
}

impl std::str::FromStr for PeerName {
    type Err = PeerNameError;

    fn from_str(text: &str) -> Result<Self, PeerNameError> {
        Self::try_from(text.to_owned())
    }
}

impl From<PeerName> for String {
    fn from(name: PeerName) -> Self {
        name.0
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_whole_alphabet_and_nothing_else() {
        for good in ["bob", "a.b_c-9", "00000000000000000000000000000000"] {
            assert_eq!(good.parse::<PeerName>().unwrap().as_str(), good);
        }
        for short_or_long in ["", "ab", "000000000000000000000000000000000"] {
            assert_eq!(
                short_or_long.parse::<PeerName>(),
                Err(PeerNameError::Length)
            );
        }
        for (bad, stranger) in [
            ("Bob", 'B'),
            ("bo b", ' '),
            ("bøb", 'ø'),
            ("bob\n", '\n'),
            ("bob\u{202e}", '\u{202e}'),
        ] {
            assert_eq!(
                bad.parse::<PeerName>(),
                Err(PeerNameError::Character(stranger))
            );
        }
    }

    #[test]
    fn a_guest_keeps_its_name() {
        let name = |n| PeerName::guest(PeerKey::from_bytes([n; 32]));
        assert_eq!(name(1), name(1));
        assert_ne!(name(1), name(2));
        let fingerprint = PeerKey::from_bytes([1; 32]).fingerprint().to_string();
        assert_eq!(name(1).as_str(), format!("guest-{}", &fingerprint[..8]));
        assert_eq!(name(1).as_str().parse(), Ok(name(1)));
    }

    #[test]
    fn wire_form_is_checked() {
        assert!(serde_json::from_str::<PeerName>("\"bob\"").is_ok());
        assert!(serde_json::from_str::<PeerName>("\"../bob\"").is_err());
    }
}
