//! The secret of an invitation link, and how it is proven without being shown.

use std::fmt;

use blake3::Hash;
use data_encoding::{BASE32_NOPAD, DecodeError};
use pinhole_net::{GenerateIdentityError, PeerKey, random_entropy};
use serde::{Deserialize, Serialize};

/// Separates proofs from everything else that is made of the secret.
const PROOF_CONTEXT: &str = "pinhole 2026 invitation proof v1";

/// 128 random bits that an inviter and whoever has its link know. As text, 26 characters
/// of lower-case base32.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Secret([u8; 16]);

/// The text is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret has 26 characters of a-z and 2-7")]
pub struct SecretError;

impl Secret {
    /// Draws a new one.
    pub(crate) fn generate() -> Result<Self, GenerateIdentityError> {
        random_entropy().map(Self)
    }

    #[cfg(test)]
    pub(crate) const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Shows the inviter that the joiner knows the secret. It is of use to nobody else:
    /// both keys are in it.
    pub(crate) fn proof(&self, inviter: PeerKey, joiner: PeerKey) -> Hash {
        let key = blake3::derive_key(PROOF_CONTEXT, &self.0);
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(inviter.as_bytes());
        hasher.update(joiner.as_bytes());
        hasher.finalize()
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl From<Secret> for String {
    fn from(secret: Secret) -> Self {
        secret.to_string()
    }
}

impl TryFrom<String> for Secret {
    type Error = SecretError;

    fn try_from(text: String) -> Result<Self, SecretError> {
        let of_decoded = |_: DecodeError| SecretError;
        let bytes = BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes());
        let bytes = bytes.map_err(of_decoded)?.try_into();
        bytes.map(Self).map_err(|_| SecretError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> PeerKey {
        PeerKey::from_bytes([n; 32])
    }

    #[test]
    fn a_proof_is_of_one_secret_and_both_keys() {
        let secret = Secret::from_bytes([7; 16]);
        let proof = secret.proof(key(1), key(2));
        assert_eq!(proof, secret.proof(key(1), key(2)));
        for other in [
            Secret::from_bytes([8; 16]).proof(key(1), key(2)),
            secret.proof(key(1), key(3)),
            secret.proof(key(3), key(2)),
            secret.proof(key(2), key(1)),
        ] {
            assert_ne!(proof, other);
        }
    }

    /// The test vector of PROTOCOL.md.
    #[test]
    fn a_proof_is_as_the_protocol_says() {
        let bytes: [u8; 16] = std::array::from_fn(|n| u8::try_from(n).unwrap());
        let secret = Secret::from_bytes(bytes);
        assert_eq!(secret.to_string(), "aaaqeayeaudaocajbifqydiob4");
        let proof = secret.proof(key(1), key(2));
        assert_eq!(
            proof.to_hex().as_str(),
            "53e4825854930b8df85e8d603c9935ff500ad4ae0931f6f55c127d1995f3a8b0"
        );
    }

    #[test]
    fn a_secret_is_stored_as_text_and_never_logged() {
        let secret = Secret::from_bytes([0xA5; 16]);
        let stored = serde_json::to_string(&secret).unwrap();
        assert_eq!(serde_json::from_str::<Secret>(&stored).unwrap(), secret);
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        for bad in [
            "",
            "a",
            "aaaaaaaaaaaaaaaaaaaaaaaaab",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ] {
            assert_eq!(Secret::try_from(bad.to_owned()), Err(SecretError), "{bad}");
        }
    }
}
