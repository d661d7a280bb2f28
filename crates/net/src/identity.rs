//! Making a new identity. Storing it is the caller's business.

use pinhole_proto::recovery::RecoveryKey;
use pinhole_proto::tls::{Identity, IdentityError};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::Ed25519KeyPair;

/// Why no new identity could be made.
#[derive(Debug, thiserror::Error)]
pub enum GenerateIdentityError {
    /// The system gave no random bytes.
    #[error("the system's random number generator failed")]
    Random,
    /// The new document cannot be read back.
    #[error(transparent)]
    Document(#[from] IdentityError),
}

/// A new Ed25519 key pair, and the PKCS #8 document from which
/// [`Identity::from_pkcs8`] makes it again. The document is the secret.
///
/// # Errors
/// When the system's random number generator fails.
pub fn generate_identity() -> Result<(Identity, Vec<u8>), GenerateIdentityError> {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map_err(|_| GenerateIdentityError::Random)?;
    let document = document.as_ref().to_vec();
    Ok((Identity::from_pkcs8(&document)?, document))
}

/// What a new [`RecoveryKey`] is made of. It is as secret as the key.
///
/// # Errors
/// When the system's random number generator fails.
pub fn random_entropy() -> Result<[u8; RecoveryKey::ENTROPY_BYTES], GenerateIdentityError> {
    let mut entropy = [0; RecoveryKey::ENTROPY_BYTES];
    let filled = SystemRandom::new().fill(&mut entropy);
    filled.map_err(|_| GenerateIdentityError::Random)?;
    Ok(entropy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_brings_the_same_key_back_and_no_two_are_equal() {
        let (identity, document) = generate_identity().unwrap();
        let again = Identity::from_pkcs8(&document).unwrap();
        assert_eq!(identity.key(), again.key());
        assert_ne!(identity.key(), generate_identity().unwrap().0.key());
    }
}
