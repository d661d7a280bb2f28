//! Authenticated encryption (RFC 5116), by whichever of two libraries is faster
//! on this processor: `ring` has no code for AVX-512, with which `aws-lc` is
//! about twice as fast as either is otherwise; without, `ring` is as much faster.

use std::ops::RangeFrom;

use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};

/// The length of a nonce.
pub const NONCE_BYTES: usize = 12;
/// The length of a tag.
pub const TAG_BYTES: usize = 16;

/// The ciphers of TLS 1.3 (RFC 8446, B.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// AES-GCM with a key of 16 bytes (RFC 5116, 5.1).
    Aes128Gcm,
    /// AES-GCM with a key of 32 bytes (RFC 5116, 5.2).
    Aes256Gcm,
    /// ChaCha20-Poly1305 with a key of 32 bytes (RFC 8439, 2.8).
    ChaCha20Poly1305,
}

/// A key that does not have the length of its cipher, plaintext that is longer
/// than it seals, or bytes that were not sealed with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cipher refuses")]
pub struct Refused;

/// A key of one cipher.
#[derive(Debug)]
pub struct Key(Library);

#[derive(Debug)]
enum Library {
    Ring(Box<LessSafeKey>),
    #[cfg(target_arch = "x86_64")]
    AwsLc(aws_lc_rs::aead::LessSafeKey),
}

impl Key {
    /// A key for `algorithm`.
    ///
    /// # Errors
    /// It does not have the right length.
    pub fn new(algorithm: Algorithm, key: &[u8]) -> Result<Self, Refused> {
        #[cfg(target_arch = "x86_64")]
        if algorithm != Algorithm::ChaCha20Poly1305 && has_wide_aes() {
            return Self::aws_lc(algorithm, key);
        }
        Self::ring(algorithm, key)
    }

    fn ring(algorithm: Algorithm, key: &[u8]) -> Result<Self, Refused> {
        let algorithm = match algorithm {
            Algorithm::Aes128Gcm => &aead::AES_128_GCM,
            Algorithm::Aes256Gcm => &aead::AES_256_GCM,
            Algorithm::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, key).map_err(|_| Refused)?;
        Ok(Self(Library::Ring(Box::new(LessSafeKey::new(key)))))
    }

    #[cfg(target_arch = "x86_64")]
    fn aws_lc(algorithm: Algorithm, key: &[u8]) -> Result<Self, Refused> {
        use aws_lc_rs::aead::{self, LessSafeKey, UnboundKey};
        let algorithm = match algorithm {
            Algorithm::Aes128Gcm => &aead::AES_128_GCM,
            Algorithm::Aes256Gcm => &aead::AES_256_GCM,
            Algorithm::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, key).map_err(|_| Refused)?;
        Ok(Self(Library::AwsLc(LessSafeKey::new(key))))
    }

    /// Seals `plaintext` and one `last` byte behind what is in `sealed`, with the
    /// tag behind them. No nonce may be used twice with a key.
    ///
    /// # Errors
    /// The plaintext is longer than the cipher allows. Nothing of it is left in
    /// `sealed` then.
    pub fn seal(
        &self,
        nonce: [u8; NONCE_BYTES],
        aad: &[u8],
        inner: (&[u8], u8),
        sealed: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        let start = sealed.len();
        self.try_seal(nonce, aad, inner, sealed)
            .inspect_err(|_| sealed.truncate(start))
    }

    fn try_seal(
        &self,
        nonce: [u8; NONCE_BYTES],
        aad: &[u8],
        (plaintext, last): (&[u8], u8),
        sealed: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        let start = sealed.len();
        match &self.0 {
            Library::Ring(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                sealed.extend_from_slice(plaintext);
                sealed.push(last);
                let inner = sealed.get_mut(start..).unwrap_or_default();
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), inner);
                sealed.extend_from_slice(tag.map_err(|_| Refused)?.as_ref());
            }
            #[cfg(target_arch = "x86_64")]
            Library::AwsLc(key) => {
                use aws_lc_rs::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key(nonce);
                sealed.resize(start + plaintext.len() + 1 + TAG_BYTES, 0);
                let room = sealed.get_mut(start..).unwrap_or_default();
                let (inner, behind) = room.split_at_mut(plaintext.len());
                let aad = Aad::from(aad);
                key.seal_out_of_place_scatter(nonce, aad, plaintext, inner, &[last], behind)
                    .map_err(|_| Refused)?;
            }
        }
        Ok(())
    }

    /// Opens what lies in `room` from `sealed` on, and returns the plaintext,
    /// which lies at the start of the room then.
    ///
    /// # Errors
    /// It was not sealed with this key, nonce and `aad`. What is in the room
    /// then is nobody's.
    pub fn open_within<'room>(
        &self,
        nonce: [u8; NONCE_BYTES],
        aad: &[u8],
        room: &'room mut [u8],
        sealed: RangeFrom<usize>,
    ) -> Result<&'room mut [u8], Refused> {
        match &self.0 {
            Library::Ring(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.open_within(nonce, Aad::from(aad), room, sealed)
                    .map_err(|_| Refused)
            }
            #[cfg(target_arch = "x86_64")]
            Library::AwsLc(key) => {
                use aws_lc_rs::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.open_within(nonce, Aad::from(aad), room, sealed)
                    .map_err(|_| Refused)
            }
        }
    }
}

/// Whether `aws-lc` uses AVX-512 here: it asks for just these.
#[cfg(target_arch = "x86_64")]
fn has_wide_aes() -> bool {
    is_x86_feature_detected!("vaes")
        && is_x86_feature_detected!("vpclmulqdq")
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    const ALGORITHMS: [(Algorithm, usize); 3] = [
        (Algorithm::Aes128Gcm, 16),
        (Algorithm::Aes256Gcm, 32),
        (Algorithm::ChaCha20Poly1305, 32),
    ];

    /// By each library there is here, and by the one that is chosen.
    fn keys(algorithm: Algorithm, key: &[u8]) -> Vec<Key> {
        vec![
            Key::ring(algorithm, key).unwrap(),
            #[cfg(target_arch = "x86_64")]
            Key::aws_lc(algorithm, key).unwrap(),
            Key::new(algorithm, key).unwrap(),
        ]
    }

    #[test]
    fn each_library_seals_the_same_and_opens_what_the_others_have_sealed() {
        for (algorithm, key_bytes) in ALGORITHMS {
            let keys = keys(algorithm, &vec![7; key_bytes]);
            for length in [0, 1, 15, 16, 255, 4096, 16_384] {
                let plaintext: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
                let mut sealed = b"before".to_vec();
                keys[0]
                    .seal([3; NONCE_BYTES], b"aad", (&plaintext, 23), &mut sealed)
                    .unwrap();
                assert_eq!(sealed.len(), 6 + length + 1 + TAG_BYTES);
                for key in &keys {
                    let mut again = b"before".to_vec();
                    key.seal([3; NONCE_BYTES], b"aad", (&plaintext, 23), &mut again)
                        .unwrap();
                    assert!(again == sealed, "{algorithm:?} {length}");
                    let opened = key.open_within([3; NONCE_BYTES], b"aad", &mut again, 6..);
                    let (last, content) = opened.unwrap().split_last().unwrap();
                    assert!(content == plaintext && *last == 23);
                    let lies = again.starts_with(&plaintext);
                    assert!(lies, "not at the start: {algorithm:?} {length}");
                }
            }
        }
    }

    #[test]
    fn what_was_not_sealed_like_this_is_refused() {
        for (algorithm, key_bytes) in ALGORITHMS {
            for key in keys(algorithm, &vec![7; key_bytes]) {
                let mut sealed = Vec::new();
                key.seal([3; NONCE_BYTES], b"aad", (b"plaintext", 23), &mut sealed)
                    .unwrap();
                let open = |nonce, aad: &[u8], mut sealed: Vec<u8>| {
                    let opened = key.open_within([nonce; NONCE_BYTES], aad, &mut sealed, 0..);
                    opened.map(|opened| opened.len())
                };
                assert_eq!(open(3, b"aad", sealed.clone()), Ok(10));
                assert_eq!(open(4, b"aad", sealed.clone()), Err(Refused));
                assert_eq!(open(3, b"dad", sealed.clone()), Err(Refused));
                for place in 0..sealed.len() {
                    let mut changed = sealed.clone();
                    changed[place] ^= 1;
                    assert_eq!(open(3, b"aad", changed), Err(Refused), "{place}");
                }
                for length in 0..sealed.len() {
                    let cut = sealed[..length].to_vec();
                    assert_eq!(open(3, b"aad", cut), Err(Refused), "{length}");
                }
            }
            let short = vec![7; key_bytes - 1];
            assert_eq!(Key::new(algorithm, &short).err(), Some(Refused));
        }
    }
}
