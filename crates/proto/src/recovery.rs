//! Recovery: how a name outlives the key that it is bound to.
//!
//! Three signed statements, none of which names a server or a time:
//!
//! | statement | signed by | says |
//! |---|---|---|
//! | [`RecoveryCertificate`] | a key | this recovery key may name my successor |
//! | [`Succession`] | the recovery key | this key has taken that one's place |
//! | [`Revocation`] | the key or its recovery key | nobody shall believe this key any more |
//!
//! A signature covers a fixed text that names the statement, a version byte and keys of
//! fixed size, so no statement can be read as another one.

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::key::{PeerKey, Signature};
use crate::name::PeerName;
use crate::tls::{Identity, signed_by};

/// Most changes of one key that are told and followed at once.
pub const SUCCESSIONS_MAX: usize = 8;

const SEED: &[u8] = b"pinhole recovery key\x01";
const CERTIFICATE: &[u8] = b"pinhole recovery certificate\x01";
const SUCCESSION: &[u8] = b"pinhole succession\x01";
const REVOCATION: &[u8] = b"pinhole revocation\x01";

/// A statement whose signature is wrong, or which is about one key where it has to be
/// about two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a statement about a key is not signed as it should be")]
pub struct InvalidStatement;

/// The key pair that names the successor of a lost key. Nothing of it is stored.
pub struct RecoveryKey(Ed25519KeyPair);

impl RecoveryKey {
    /// How much has to be drawn at random for one.
    pub const ENTROPY_BYTES: usize = 16;

    /// The key pair that always comes of these bytes: the SHA-256 of a fixed text, a
    /// version byte and the bytes is its seed. They are random and no password, so
    /// guessing them needs no slowing down.
    ///
    /// # Errors
    /// Never with a library that works.
    pub fn from_entropy(entropy: &[u8; Self::ENTROPY_BYTES]) -> Result<Self, InvalidStatement> {
        let seed = Sha256::new().chain_update(SEED).chain_update(entropy);
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed.finalize());
        pair.map(Self).map_err(|_| InvalidStatement)
    }

    /// The public half.
    #[must_use]
    pub fn key(&self) -> PeerKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        PeerKey::from_bytes(bytes)
    }
}

impl std::fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RecoveryKey").field(&self.key()).finish()
    }
}

/// A key's word that a recovery key may name its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryCertificate {
    /// The key that signs.
    pub key: PeerKey,
    /// The recovery key.
    pub recovery_key: PeerKey,
    /// Of `key`.
    pub signature: Signature,
}

impl RecoveryCertificate {
    /// Makes one.
    #[must_use]
    pub fn sign(identity: &Identity, recovery_key: PeerKey) -> Self {
        let key = identity.key();
        let signature = identity.sign(&statement(CERTIFICATE, &[key, recovery_key]));
        Self {
            key,
            recovery_key,
            signature,
        }
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// When it is wrong, or both keys are the same.
    pub fn verify(&self) -> Result<(), InvalidStatement> {
        differ(self.key, self.recovery_key)?;
        let keys = [self.key, self.recovery_key];
        check(self.key, &statement(CERTIFICATE, &keys), &self.signature)
    }
}

/// A recovery key's word that another key has taken the place of the one that certified
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Succession {
    /// Why the recovery key may say so. Its `key` is the former one.
    pub certificate: RecoveryCertificate,
    /// The new key.
    pub successor: PeerKey,
    /// Of the recovery key.
    pub signature: Signature,
}

impl Succession {
    /// Makes one. The certificate has to be of this recovery key.
    #[must_use]
    pub fn sign(
        recovery: &RecoveryKey,
        certificate: RecoveryCertificate,
        successor: PeerKey,
    ) -> Self {
        let signed = statement(SUCCESSION, &[certificate.key, successor]);
        Self {
            certificate,
            successor,
            signature: signed_by(&recovery.0, &signed),
        }
    }

    /// The former key.
    #[must_use]
    pub const fn former(&self) -> PeerKey {
        self.certificate.key
    }

    /// Checks both signatures.
    ///
    /// # Errors
    /// When one is wrong, or the key would succeed itself.
    pub fn verify(&self) -> Result<(), InvalidStatement> {
        self.certificate.verify()?;
        differ(self.former(), self.successor)?;
        let signed = statement(SUCCESSION, &[self.former(), self.successor]);
        check(self.certificate.recovery_key, &signed, &self.signature)
    }
}

/// A word that a key is not to be believed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// The key.
    pub key: PeerKey,
    /// Why a recovery key may say so; absent when the key itself has signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<RecoveryCertificate>,
    /// Of the recovery key, or of the key itself.
    pub signature: Signature,
}

impl Revocation {
    /// A key's own.
    #[must_use]
    pub fn sign(identity: &Identity) -> Self {
        let key = identity.key();
        Self {
            key,
            certificate: None,
            signature: identity.sign(&statement(REVOCATION, &[key])),
        }
    }

    /// That of a recovery key, of which the certificate has to be.
    #[must_use]
    pub fn sign_with(recovery: &RecoveryKey, certificate: RecoveryCertificate) -> Self {
        let key = certificate.key;
        Self {
            key,
            certificate: Some(certificate),
            signature: signed_by(&recovery.0, &statement(REVOCATION, &[key])),
        }
    }

    /// Checks the signatures.
    ///
    /// # Errors
    /// When one is wrong, or the certificate is another key's.
    pub fn verify(&self) -> Result<(), InvalidStatement> {
        let signer = match &self.certificate {
            None => self.key,
            Some(certificate) if certificate.key == self.key => {
                certificate.verify()?;
                certificate.recovery_key
            }
            Some(_) => return Err(InvalidStatement),
        };
        check(signer, &statement(REVOCATION, &[self.key]), &self.signature)
    }
}

/// What a login says about recovery.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LoginRecovery {
    /// Whose word is to be taken for a change of the key that logs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<RecoveryCertificate>,
    /// What is asked for beside the login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RecoveryRequest>,
}

/// What a holder of recovery words, or of a key, asks of the server as it logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RecoveryRequest {
    /// The certificate of the name's key, if this is its recovery key. The login is
    /// refused in any case.
    Find {
        /// The recovery key.
        recovery_key: PeerKey,
    },
    /// To bind the names of the former key to the key that logs in.
    Succeed(Succession),
    /// To believe the name's key no more. The login is refused in any case.
    Revoke(Revocation),
}

/// What has become of a key that somebody has known under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyHistory {
    /// The name.
    pub name: PeerName,
    /// The key.
    pub key: PeerKey,
    /// The changes from that key on, in order: at most [`SUCCESSIONS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub successions: Vec<Succession>,
    /// Present when the key was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Revocation>,
    /// When the name was taken from the key because it was not used for long, in seconds
    /// since 1970. Nobody has signed this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_at_s: Option<i64>,
}

impl KeyHistory {
    /// Nothing is known.
    #[must_use]
    pub const fn unknown(name: PeerName, key: PeerKey) -> Self {
        Self {
            name,
            key,
            successions: Vec::new(),
            revocation: None,
            released_at_s: None,
        }
    }

    /// The key that has taken the place of the known one. Changes count as far as each
    /// is signed and begins where the one before has ended.
    #[must_use]
    pub fn present_key(&self) -> PeerKey {
        let mut present = self.key;
        for change in self.successions.iter().take(SUCCESSIONS_MAX) {
            if change.former() != present || change.verify().is_err() {
                break;
            }
            present = change.successor;
        }
        present
    }

    /// Whether the known key was revoked, by itself or its recovery key.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        let of_key = self.revocation.filter(|it| it.key == self.key);
        of_key.is_some_and(|it| it.verify().is_ok())
    }
}

fn statement(what: &[u8], keys: &[PeerKey]) -> Vec<u8> {
    let keys = keys.iter().flat_map(PeerKey::as_bytes);
    what.iter().chain(keys).copied().collect()
}

fn differ(one: PeerKey, other: PeerKey) -> Result<(), InvalidStatement> {
    match one == other {
        true => Err(InvalidStatement),
        false => Ok(()),
    }
}

fn check(signer: PeerKey, statement: &[u8], signature: &Signature) -> Result<(), InvalidStatement> {
    let signer = UnparsedPublicKey::new(&ED25519, signer.as_bytes());
    let checked = signer.verify(statement, signature.as_bytes());
    checked.map_err(|_| InvalidStatement)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        let document = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new());
        Identity::from_pkcs8(document.unwrap().as_ref()).unwrap()
    }

    fn recovery(number: u8) -> RecoveryKey {
        RecoveryKey::from_entropy(&[number; RecoveryKey::ENTROPY_BYTES]).unwrap()
    }

    fn unknown(key: PeerKey) -> KeyHistory {
        KeyHistory::unknown("bob".parse().unwrap(), key)
    }

    /// As many keys in a row, each the successor of the one before.
    fn chain(length: usize) -> (Vec<PeerKey>, Vec<Succession>) {
        let identities: Vec<_> = (0..=length).map(|_| identity()).collect();
        let keys: Vec<_> = identities.iter().map(Identity::key).collect();
        let changes = identities.iter().zip(&keys[1..]).map(|(former, &next)| {
            let certificate = RecoveryCertificate::sign(former, recovery(7).key());
            Succession::sign(&recovery(7), certificate, next)
        });
        (keys.clone(), changes.collect())
    }

    #[test]
    fn the_same_entropy_makes_the_same_recovery_key() {
        assert_eq!(recovery(1).key(), recovery(1).key());
        assert_ne!(recovery(1).key(), recovery(2).key());
        let zero = "of4q5bhsqwp2bmyceafp5s2ch65urhffg5vqmwc2vrvosremh2oa";
        assert_eq!(recovery(0).key().to_string(), zero);
    }

    #[test]
    fn what_is_signed_is_as_the_protocol_says() {
        let keys = [PeerKey::from_bytes([1; 32]), PeerKey::from_bytes([2; 32])];
        let expected = [b"pinhole succession".as_slice(), &[1], &[1; 32], &[2; 32]];
        assert_eq!(statement(SUCCESSION, &keys), expected.concat());
        let expected = [
            b"pinhole recovery certificate".as_slice(),
            &[1],
            &[1; 32],
            &[2; 32],
        ];
        assert_eq!(statement(CERTIFICATE, &keys), expected.concat());
        let expected = [b"pinhole revocation".as_slice(), &[1], &[1; 32]];
        assert_eq!(statement(REVOCATION, &keys[..1]), expected.concat());
    }

    #[test]
    fn a_certificate_is_of_one_key_for_one_recovery_key() {
        let bob = identity();
        let certificate = RecoveryCertificate::sign(&bob, recovery(1).key());
        assert_eq!(certificate.verify(), Ok(()));
        let others = [
            RecoveryCertificate {
                key: identity().key(),
                ..certificate
            },
            RecoveryCertificate {
                recovery_key: recovery(2).key(),
                ..certificate
            },
            RecoveryCertificate {
                signature: Revocation::sign(&bob).signature,
                ..certificate
            },
            RecoveryCertificate::sign(&bob, bob.key()),
        ];
        for other in others {
            assert_eq!(other.verify(), Err(InvalidStatement), "{other:?}");
        }
    }

    #[test]
    fn a_succession_needs_both_signatures() {
        let (bob, next) = (identity(), identity().key());
        let certificate = RecoveryCertificate::sign(&bob, recovery(1).key());
        let succession = Succession::sign(&recovery(1), certificate, next);
        assert_eq!(succession.verify(), Ok(()));
        let other = identity();
        let forged = [
            Succession::sign(&recovery(2), certificate, next),
            Succession::sign(&recovery(1), certificate, bob.key()),
            Succession {
                successor: other.key(),
                ..succession
            },
            // By somebody with words, and a key, of their own.
            Succession {
                certificate: RecoveryCertificate::sign(&other, recovery(1).key()),
                ..succession
            },
            Succession {
                certificate: RecoveryCertificate {
                    key: bob.key(),
                    ..RecoveryCertificate::sign(&other, recovery(1).key())
                },
                ..succession
            },
        ];
        for forged in forged {
            assert_eq!(forged.verify(), Err(InvalidStatement), "{forged:?}");
        }
    }

    #[test]
    fn a_key_or_its_recovery_key_revokes_it_and_nobody_else() {
        let (bob, other) = (identity(), identity());
        let certificate = RecoveryCertificate::sign(&bob, recovery(1).key());
        let (own, by_words) = (
            Revocation::sign(&bob),
            Revocation::sign_with(&recovery(1), certificate),
        );
        assert_eq!((own.verify(), by_words.verify()), (Ok(()), Ok(())));
        let of_other = RecoveryCertificate::sign(&other, recovery(2).key());
        let forged = [
            Revocation {
                key: bob.key(),
                ..Revocation::sign(&other)
            },
            Revocation::sign_with(&recovery(2), certificate),
            Revocation {
                key: bob.key(),
                ..Revocation::sign_with(&recovery(2), of_other)
            },
            Revocation {
                certificate: None,
                ..by_words
            },
        ];
        for forged in forged {
            assert_eq!(forged.verify(), Err(InvalidStatement), "{forged:?}");
        }
        let history = |revocation| KeyHistory {
            revocation: Some(revocation),
            ..unknown(bob.key())
        };
        assert!(history(own).is_revoked() && history(by_words).is_revoked());
        assert!(!history(Revocation::sign(&other)).is_revoked());
    }

    #[test]
    fn changes_are_followed_as_far_as_they_are_signed_and_no_farther_than_allowed() {
        let (keys, changes) = chain(SUCCESSIONS_MAX + 1);
        let reached = |changes: &[Succession]| {
            let history = KeyHistory {
                successions: changes.to_vec(),
                ..unknown(keys[0])
            };
            let present = history.present_key();
            keys.iter().position(|&key| key == present).unwrap()
        };
        assert_eq!(reached(&[]), 0);
        assert_eq!(reached(&changes[..3]), 3);
        assert_eq!(reached(&changes), SUCCESSIONS_MAX);
        assert_eq!(reached(&changes[1..]), 0, "it begins with another key");
        let mut forged = changes.clone();
        forged[2].signature = forged[1].signature;
        assert_eq!(reached(&forged), 2);
        let mut skipping = changes;
        skipping.remove(2);
        assert_eq!(reached(&skipping), 2);
    }

    #[test]
    fn a_weak_recovery_key_is_no_key_on_the_wire() {
        let certificate = RecoveryCertificate::sign(&identity(), PeerKey::from_bytes([0; 32]));
        let json = serde_json::to_string(&certificate).unwrap();
        assert!(serde_json::from_str::<RecoveryCertificate>(&json).is_err());
    }

    #[test]
    fn the_longest_history_fits_into_a_frame() {
        let (keys, successions) = chain(SUCCESSIONS_MAX);
        let certificate = successions[0].certificate;
        let history = KeyHistory {
            successions,
            revocation: Some(Revocation::sign_with(&recovery(7), certificate)),
            released_at_s: Some(i64::MIN),
            ..unknown(keys[0])
        };
        let json = serde_json::to_string(&history).unwrap();
        assert!(json.len() < 8 * 1024, "{}", json.len());
        assert_eq!(serde_json::from_str::<KeyHistory>(&json).unwrap(), history);
    }
}
