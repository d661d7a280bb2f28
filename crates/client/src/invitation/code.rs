//! Codes: a number and two words that one person says to another.

use std::fmt;
use std::str::FromStr;

use bip39::Language;
use pinhole_net::{CodeNumber, GenerateIdentityError, random_entropy};
use serde::{Deserialize, Serialize};

/// Bits that choose a word: the list has 2,048.
const WORD_BITS: u32 = 11;
/// A text that is longer is no code, however it is written.
const TEXT_BYTES_MAX: usize = 64;

/// `7-crossover-clockwork`: a number, by which the server finds whoever has opened the
/// code, and two words that the server does not know (BIP-39's English list, 22 bits).
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Code {
    number: CodeNumber,
    words: CodeWords,
}

/// The two words, as places in the list.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct CodeWords([u16; 2]);

/// Why a text is not a [`Code`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Too long, or something else than letters and digits with marks between them.
    #[error("a code is a number and two words, as in 7-acid-zoo")]
    Form,
    /// The number is not from 1 to 999.
    #[error("a code begins with a number from 1 to 999")]
    Number,
    /// No word on the list begins like this.
    #[error("{0} is not one of the words that codes are made of. Check how it is spelt")]
    Unknown(String),
    /// Several words begin like this.
    #[error("several words begin with {0}: write more of it")]
    Ambiguous(String),
}

impl Code {
    pub(crate) const fn new(number: CodeNumber, words: CodeWords) -> Self {
        Self { number, words }
    }

    /// By which the server finds whoever has opened it.
    pub(crate) const fn number(&self) -> CodeNumber {
        self.number
    }

    pub(crate) const fn words(&self) -> CodeWords {
        self.words
    }
}

impl CodeWords {
    /// Draws new ones.
    pub(crate) fn generate() -> Result<Self, GenerateIdentityError> {
        let [a, b, c, d, ..] = random_entropy()?;
        let place = |bytes| u16::from_le_bytes(bytes) & ((1 << WORD_BITS) - 1);
        Ok(Self([place([a, b]), place([c, d])]))
    }
}

impl fmt::Display for CodeWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |place: u16| Language::English.word_list().get(usize::from(place));
        let [one, other] = self.0.map(|place| word(place).unwrap_or(&""));
        write!(f, "{one}-{other}")
    }
}

impl fmt::Debug for CodeWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CodeWords(..)")
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.number, self.words)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({}-..)", self.number)
    }
}

impl FromStr for Code {
    type Err = CodeError;

    /// Reads a code in any case, with spaces, hyphens, dots or commas between its parts.
    /// The beginning of a word is enough where only one word begins like that; four
    /// letters always are.
    fn from_str(text: &str) -> Result<Self, CodeError> {
        let text = text.trim();
        let is_mark = |it: char| matches!(it, ' ' | '-' | '.' | ',' | '_');
        let is_allowed = |it: char| it.is_ascii_alphanumeric() || is_mark(it);
        if text.len() > TEXT_BYTES_MAX || !text.chars().all(is_allowed) {
            return Err(CodeError::Form);
        }
        let lower = text.to_ascii_lowercase();
        let parts: Vec<_> = lower.split(is_mark).filter(|it| !it.is_empty()).collect();
        let [number, one, other] = parts[..] else {
            return Err(CodeError::Form);
        };
        let is_number = number.bytes().all(|it| it.is_ascii_digit());
        let parsed = number.parse::<u16>().ok().filter(|_| is_number);
        let number = parsed.and_then(|it| CodeNumber::try_from(it).ok());
        let number = number.ok_or(CodeError::Number)?;
        let words = CodeWords([place(one)?, place(other)?]);
        Ok(Self { number, words })
    }
}

/// The place of a word in the list, by the word or its beginning.
fn place(word: &str) -> Result<u16, CodeError> {
    let list = Language::English.word_list();
    let begins = |it: &str| it.starts_with(word);
    let first = list.iter().position(|&it| begins(it));
    let Some(first) = first else {
        return Err(CodeError::Unknown(word.to_owned()));
    };
    // The list is sorted: a word stands before those that it is the beginning of.
    let is_whole = list.get(first) == Some(&word);
    if !is_whole && list.get(first + 1).is_some_and(|next| begins(next)) {
        return Err(CodeError::Ambiguous(word.to_owned()));
    }
    u16::try_from(first).map_err(|_| CodeError::Form)
}

impl From<Code> for String {
    fn from(code: Code) -> Self {
        code.to_string()
    }
}

impl TryFrom<String> for Code {
    type Error = CodeError;

    fn try_from(text: String) -> Result<Self, CodeError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_however_it_was_heard() {
        let code: Code = "7-acid-zoo".parse().unwrap();
        for heard in [
            "7-acid-zoo",
            " 7-acid-zoo\n",
            "7 acid zoo",
            "7 - Acid - Zoo",
            "7. ACID, ZOO",
            "007_acid__zoo",
            "7-aci-zoo",
        ] {
            assert_eq!(heard.parse(), Ok(code), "{heard:?}");
        }
        assert_eq!(code.to_string(), "7-acid-zoo");
        assert_eq!(format!("{code:?}"), "Code(7-..)");
        // A whole word counts, although others begin with it.
        assert_eq!(
            "1-act-add".parse::<Code>().unwrap().to_string(),
            "1-act-add"
        );
    }

    #[test]
    fn four_letters_are_enough_for_every_word() {
        for (expected, word) in (0..).zip(Language::English.word_list()) {
            let beginning: String = word.chars().take(4).collect();
            assert_eq!(place(&beginning), Ok(expected), "{word}");
            let [one, other] = [expected, 2047 - expected];
            let code = Code::new(999.try_into().unwrap(), CodeWords([one, other]));
            assert_eq!(code.to_string().parse(), Ok(code));
        }
    }

    #[test]
    fn what_is_no_code_is_refused_in_words() {
        let long = format!("7-acid-{}", "o".repeat(64));
        for (text, said) in [
            ("", "as in 7-acid-zoo"),
            ("7", "as in 7-acid-zoo"),
            ("7-acid", "as in 7-acid-zoo"),
            ("7-acid-zoo-zoo", "as in 7-acid-zoo"),
            ("acid-zoo", "as in 7-acid-zoo"),
            ("7acid-zoo", "as in 7-acid-zoo"),
            ("7/acid/zoo", "as in 7-acid-zoo"),
            ("7-acid-zoo\0", "as in 7-acid-zoo"),
            ("7-acid-z\u{f6}o", "as in 7-acid-zoo"),
            ("\u{202e}7-acid-zoo", "as in 7-acid-zoo"),
            (&long, "as in 7-acid-zoo"),
            ("0-acid-zoo", "from 1 to 999"),
            ("1000-acid-zoo", "from 1 to 999"),
            ("99999999999-acid-zoo", "from 1 to 999"),
            ("7a-acid-zoo", "from 1 to 999"),
            ("acid-zoo-7", "from 1 to 999"),
            ("7-acid-zoom", "zoom is not one of the words"),
            ("7-7-zoo", "7 is not one of the words"),
            ("7-a-zoo", "several words begin with a"),
            ("7-acid-zo", "several words begin with zo"),
        ] {
            match text.parse::<Code>() {
                Err(error) => assert!(error.to_string().contains(said), "{text}: {error}"),
                Ok(code) => panic!("{text} is {code}"),
            }
        }
    }

    #[test]
    fn words_are_drawn_from_the_whole_list() {
        let drawn: Vec<_> = (0..200).map(|_| CodeWords::generate().unwrap()).collect();
        let places = drawn.iter().flat_map(|words| words.0);
        assert!(places.clone().all(|place| place < 2048));
        assert!(places.clone().any(|place| place >= 1024));
        assert!(places.clone().any(|place| place < 1024));
    }
}
