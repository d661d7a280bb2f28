//! Recovery words: the form in which a person keeps a recovery key.

use std::fmt;
use std::str::FromStr;

use bip39::{Language, Mnemonic};
use pinhole_net::{GenerateIdentityError, RecoveryKey, random_entropy};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// How many words there are: 128 bits and a checksum of four.
const WORDS: usize = 12;

/// A recovery key as twelve English words (BIP-39). They are wiped from memory when they
/// are dropped, and stored nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveryWords(Zeroizing<String>);

/// Why a text is no recovery words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    /// More or fewer than there have to be.
    #[error("these are {0} words, and recovery words are twelve")]
    Count(usize),
    /// One that is not on the list; counted from 1.
    #[error("word {0} is no recovery word. Check how it is spelt")]
    Unknown(usize),
    /// Each word is on the list, but they do not belong together.
    #[error(
        "these words do not belong together. Check that each is right, and that they are in order"
    )]
    Checksum,
}

impl RecoveryWords {
    /// New ones, drawn at random.
    pub(crate) fn generate() -> Result<Self, GenerateIdentityError> {
        let entropy = Zeroizing::new(random_entropy()?);
        let words = Mnemonic::from_entropy_in(Language::English, entropy.as_slice());
        let words = words.map_err(|_| GenerateIdentityError::Random)?;
        Ok(Self::of(&words))
    }

    fn of(words: &Mnemonic) -> Self {
        // Long enough from the beginning, so that it leaves no copy behind when it grows.
        let mut text = Zeroizing::new(String::with_capacity(WORDS * 9));
        for word in words.words() {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(word);
        }
        Self(text)
    }

    /// The words, with a space between them, to be shown once.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key pair.
    ///
    /// # Errors
    /// Never: they were checked when they were read.
    pub(crate) fn key(&self) -> Result<RecoveryKey, WordsError> {
        let words = Mnemonic::parse_in_normalized(Language::English, &self.0);
        let (entropy, _) = words.map_err(|_| WordsError::Checksum)?.to_entropy_array();
        let entropy = Zeroizing::new(entropy);
        let entropy = entropy.first_chunk().ok_or(WordsError::Checksum)?;
        RecoveryKey::from_entropy(entropy).map_err(|_| WordsError::Checksum)
    }
}

impl FromStr for RecoveryWords {
    type Err = WordsError;

    /// Reads words in any case, with spaces, commas, numbers or line ends between them.
    fn from_str(text: &str) -> Result<Self, WordsError> {
        let lower = Zeroizing::new(text.to_ascii_lowercase());
        let words = lower.split(|it: char| !it.is_alphabetic());
        let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
        if words.len() != WORDS {
            return Err(WordsError::Count(words.len()));
        }
        let joined = Zeroizing::new(words.join(" "));
        let parsed = Mnemonic::parse_in_normalized(Language::English, &joined);
        let parsed = parsed.map_err(|error| match error {
            bip39::Error::UnknownWord(place) => WordsError::Unknown(place + 1),
            _ => WordsError::Checksum,
        })?;
        Ok(Self::of(&parsed))
    }
}

/// For a face that is attached to the engine of another process, over a socket that only
/// their user can reach.
impl Serialize for RecoveryWords {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RecoveryWords {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Debug for RecoveryWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryWords(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test vector of BIP-39: sixteen bytes of zero.
    const ZERO: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon \
                        abandon abandon about";

    #[test]
    fn words_and_key_belong_together() {
        let words: RecoveryWords = ZERO.parse().unwrap();
        let zero = RecoveryKey::from_entropy(&[0; RecoveryKey::ENTROPY_BYTES]).unwrap();
        assert_eq!(words.key().unwrap().key(), zero.key());
        let (one, other) = (
            RecoveryWords::generate().unwrap(),
            RecoveryWords::generate().unwrap(),
        );
        assert_ne!(one, other);
        assert_eq!(one.as_str().split(' ').count(), WORDS);
        let again: RecoveryWords = one.as_str().parse().unwrap();
        assert_eq!(again.key().unwrap().key(), one.key().unwrap().key());
        assert_eq!(format!("{one:?}"), "RecoveryWords(..)");
    }

    #[test]
    fn words_are_read_however_they_were_written_down() {
        let words: RecoveryWords = ZERO.parse().unwrap();
        let numbered = ZERO.split(' ').enumerate();
        let lines = numbered.map(|(place, word)| format!("{}. {word}", place + 1));
        let lines: Vec<_> = lines.collect();
        for written in [
            ZERO.to_uppercase(),
            format!(" {ZERO}\n"),
            lines.join("\r\n"),
        ] {
            assert_eq!(written.parse(), Ok(words.clone()), "{written}");
        }
    }

    #[test]
    fn slips_of_the_pen_are_named() {
        let parsed = |text: &str| text.parse::<RecoveryWords>();
        assert_eq!(parsed(""), Err(WordsError::Count(0)));
        assert_eq!(parsed("abandon about"), Err(WordsError::Count(2)));
        let misspelt = ZERO.replacen("abandon", "abandom", 1);
        assert_eq!(parsed(&misspelt), Err(WordsError::Unknown(1)));
        let mistaken = ZERO.replace("about", "abandon");
        assert_eq!(parsed(&mistaken), Err(WordsError::Checksum));
    }
}
