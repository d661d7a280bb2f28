//! Keys: who a peer or a server really is, and what they sign.

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

/// An Ed25519 signature (RFC 8032), 64 bytes; 103 characters of lower-case base32
/// as text and on the wire. It proves nothing until it is checked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signature([u8; 64]);

/// Why a text is not a key, a fingerprint or a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyTextError {
    /// Not base32, or not of the right length.
    #[error("a key has 52 characters of a-z and 2-7")]
    Key,
    /// A key for which everybody can sign: see [`PeerKey::checked`].
    #[error("this key belongs to nobody, because everybody can sign with it")]
    Weak,
    /// Not base32, or not of the right length.
    #[error("a fingerprint has 32 characters of a-z and 2-7")]
    Fingerprint,
    /// Not base32, or not of the right length.
    #[error("a signature has 103 characters of a-z and 2-7")]
    Signature,
}

/// The points of small order as RFC 8032 encodes them, without the sign of x:
/// orders 4, 1, 8, 8 and 2, then the first two once more with y not reduced.
const SMALL_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    with_ends(0x01, 0x00, 0x00),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
    with_ends(0xec, 0xff, 0x7f),
    with_ends(0xed, 0xff, 0x7f),
    with_ends(0xee, 0xff, 0x7f),
];

const fn with_ends(first: u8, between: u8, last: u8) -> [u8; 32] {
    let mut bytes = [between; 32];
    (bytes[0], bytes[31]) = (first, last);
    bytes
}

impl PeerKey {
    /// The key with these bytes, which the caller knows to be sound. Bytes from
    /// elsewhere go through [`PeerKey::checked`].
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key with these bytes from elsewhere. `None` when they are a point of
    /// small order: a signature under such a key needs no private key, so that it
    /// proves nothing. Whether they are a point on the curve at all shows when a
    /// signature is checked with them.
    #[must_use]
    pub fn checked(bytes: [u8; 32]) -> Option<Self> {
        let mut without_sign = bytes;
        without_sign[31] &= 0x7f;
        (!SMALL_ORDER.contains(&without_sign)).then_some(Self(bytes))
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

impl Signature {
    /// The signature with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The bytes, as RFC 8032 encodes them.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
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
    ($type:ty, $error:expr, $from:expr) => {
        impl std::str::FromStr for $type {
            type Err = KeyTextError;

            fn from_str(text: &str) -> Result<Self, KeyTextError> {
                $from(decode(text).ok_or($error)?)
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

text_form!(PeerKey, KeyTextError::Key, |bytes| {
    Self::checked(bytes).ok_or(KeyTextError::Weak)
});
text_form!(Fingerprint, KeyTextError::Fingerprint, |bytes| Ok(Self(
    bytes
)));
text_form!(Signature, KeyTextError::Signature, |bytes| Ok(Self(bytes)));

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

    #[test]
    fn a_key_with_which_everybody_can_sign_is_no_key() {
        for small in SMALL_ORDER {
            for sign in [0, 0x80] {
                let mut bytes = small;
                bytes[31] |= sign;
                assert_eq!(PeerKey::checked(bytes), None, "{bytes:02x?}");
                let text = PeerKey::from_bytes(bytes).to_string();
                assert_eq!(text.parse::<PeerKey>(), Err(KeyTextError::Weak));
                let json = serde_json::to_string(&text).unwrap();
                assert!(serde_json::from_str::<PeerKey>(&json).is_err());
                bytes[15] ^= 1;
                assert_eq!(PeerKey::checked(bytes), Some(PeerKey::from_bytes(bytes)));
            }
        }
    }
}
