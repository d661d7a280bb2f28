//! What two people show each other who have not met: credentials, and the numbers of codes.
//!
//! The server passes both on and understands neither: what a credential says is between
//! the two clients.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What one side of an introduction shows the other beside its key: 1 to 256 characters of
/// `[A-Za-z0-9_-]`, so any bytes fit in base64url or base32.
///
/// Only a valid one can be constructed. It may be a secret between the two: never logged.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Credential(String);

/// Why a text is not a [`Credential`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Empty, or longer than [`Credential::MAX_CHARS`].
    #[error("a credential has 1 to 256 characters")]
    Length,
    /// A character outside `[A-Za-z0-9_-]`.
    #[error("a credential has only A-Z, a-z, 0-9, '_' and '-'")]
    Character,
}

impl Credential {
    /// Longest credential, in characters.
    pub const MAX_CHARS: usize = 256;

    /// The credential as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Credential {
    type Error = CredentialError;

    fn try_from(text: String) -> Result<Self, CredentialError> {
        if !(1..=Self::MAX_CHARS).contains(&text.len()) {
            return Err(CredentialError::Length);
        }
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        match text.bytes().all(is_allowed) {
            true => Ok(Self(text)),
            false => Err(CredentialError::Character),
        }
    }
}

impl std::str::FromStr for Credential {
    type Err = CredentialError;

    fn from_str(text: &str) -> Result<Self, CredentialError> {
        Self::try_from(text.to_owned())
    }
}

impl From<Credential> for String {
    fn from(credential: Credential) -> Self {
        credential.0
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(..)")
    }
}

/// The number under which somebody can be found for a while without a name: 1 to 999, short
/// enough to be said aloud. The server gives it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct CodeNumber(u16);

/// A number outside 1 to 999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the number of a code is 1 to 999")]
pub struct CodeNumberError;

impl CodeNumber {
    /// The largest.
    pub const MAX: u16 = 999;

    /// All of them, in rising order.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..=Self::MAX).map(Self)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for CodeNumber {
    type Error = CodeNumberError;

    fn try_from(number: u16) -> Result<Self, CodeNumberError> {
        match number {
            1..=Self::MAX => Ok(Self(number)),
            _ => Err(CodeNumberError),
        }
    }
}

impl From<CodeNumber> for u16 {
    fn from(number: CodeNumber) -> Self {
        number.0
    }
}

impl fmt::Display for CodeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_has_the_whole_alphabet_and_nothing_else() {
        let longest = "x".repeat(Credential::MAX_CHARS);
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
        for good in ["a", alphabet, &longest] {
            assert_eq!(good.parse::<Credential>().unwrap().as_str(), good);
        }
        for (bad, error) in [
            ("", CredentialError::Length),
            (&(longest.clone() + "x"), CredentialError::Length),
            ("YQ==", CredentialError::Character),
            ("a+b/", CredentialError::Character),
            ("a b", CredentialError::Character),
            ("bøb", CredentialError::Character),
            ("a\n", CredentialError::Character),
        ] {
            assert_eq!(bad.parse::<Credential>(), Err(error), "{bad:?}");
        }
    }

    #[test]
    fn a_credential_is_not_shown_by_accident() {
        let shown = format!("{:?}", "abc".parse::<Credential>().unwrap());
        assert_eq!(shown, "Credential(..)");
    }

    #[test]
    fn a_code_s_number_is_1_to_999() {
        assert_eq!(CodeNumber::all().count(), 999);
        for good in [1, 999] {
            let number: CodeNumber = serde_json::from_value(good.into()).unwrap();
            assert_eq!(number.get(), good);
            assert_eq!(serde_json::to_value(number).unwrap(), good);
        }
        for bad in [serde_json::json!(0), 1_000.into(), (-1).into(), "7".into()] {
            assert!(
                serde_json::from_value::<CodeNumber>(bad.clone()).is_err(),
                "{bad}"
            );
        }
    }
}
