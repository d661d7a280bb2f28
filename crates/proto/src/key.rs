//! Keys: who a peer or a server really is.

use std::fmt;

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// An Ed25519 public key (RFC 8032), 32 bytes; 52 characters of lower-case
/// base32 (RFC 4648, no padding) as text and on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerKey([u8; 32]);

/// The short form of a [`PeerKey`] that people compare and that stands behind
/// the `#` of a server address: the first 160 bits of the key's SHA-256, as 32
/// characters of lower-case base32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 20]);

/// Why a text is not a key or a fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyTextError {
    /// Not base32, or not of the right length.
    #[error("a key has 52 characters of a-z and 2-7")]
    Key,
    /// Not base32, or not of the right length.
    #[error("a fingerprint has 32 characters of a-z and 2-7")]
    Fingerprint,
}

impl PeerKey {
    /// The key with these bytes. Whether they are a point on the curve shows
    /// when a signature is checked with them.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw public key, as RFC 8032 encodes it.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The short form for people.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let digest: [u8; 32] = Sha256::digest(self.0).into();
        let mut short = [0; 20];
        short.copy_from_slice(digest.split_at(20).0);
        Fingerprint(short)
    }
}

fn encode(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let bytes = BASE32_NOPAD
        .decode(text.to_ascii_uppercase().as_bytes())
        .ok()?;
    bytes.try_into().ok()
}

macro_rules! text_form {
    ($type:ty, $error:expr) => {
        impl std::str::FromStr for $type {
            type Err = KeyTextError;

            fn from_str(text: &str) -> Result<Self, KeyTextError> {
                decode(text).map(Self).ok_or($error)
            }
        }

        impl TryFrom<String> for $type {
            type Error = KeyTextError;

            fn try_from(text: String) -> Result<Self, KeyTextError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                encode(&value.0)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&encode(&self.0))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&encode(&self.0))
            }
        }
    };
}

text_form!(PeerKey, KeyTextError::Key);
text_form!(Fingerprint, KeyTextError::Fingerprint);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_round_trip_and_have_one_spelling() {
        let key = PeerKey::from_bytes(std::array::from_fn(|i| u8::try_from(i).unwrap()));
        let text = key.to_string();
        assert_eq!(text.len(), 52);
        assert_eq!(text.parse(), Ok(key));
        assert_eq!(
            text.to_uppercase().parse::<PeerKey>(),
            Err(KeyTextError::Key)
        );
        let print = key.fingerprint();
        assert_eq!(print.to_string().len(), 32);
        assert_eq!(print.to_string().parse(), Ok(print));
        assert_eq!(
            "short".parse::<Fingerprint>(),
            Err(KeyTextError::Fingerprint)
        );
    }
}
