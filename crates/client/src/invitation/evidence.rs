//! What is shown with an introduction, so that two who have not met are sure of each
//! other. The server passes it on as a credential that it does not understand.

use blake3::Hash;
use data_encoding::BASE64URL_NOPAD;
use pinhole_net::{CodeNumber, Credential, CredentialError};

use super::exchange::CodeMessage;

/// The first byte says what follows, each of a fixed length.
const PROOF: u8 = 1;
const CODE_START: u8 = 2;
const CODE_ANSWER: u8 = 3;
const CODE_CONFIRM: u8 = 4;

/// Why a stranger may be let in, or a part of finding that out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// Of the secret of a link ([`super::proof::Secret::proof`]).
    Proof(Hash),
    /// The joiner begins to prove that it knows the words of a code.
    CodeStart {
        number: CodeNumber,
        message: CodeMessage,
    },
    /// Whoever has opened the code answers.
    CodeAnswer {
        message: CodeMessage,
        confirmation: Hash,
    },
    /// The joiner is convinced, and convinces.
    CodeConfirm {
        number: CodeNumber,
        confirmation: Hash,
    },
}

/// The credential is none that this version knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a credential of an unknown kind or of the wrong length")]
pub(crate) struct EvidenceError;

impl Evidence {
    /// As it travels.
    ///
    /// # Errors
    /// Never: the longest of them has 92 characters.
    pub(crate) fn to_credential(self) -> Result<Credential, CredentialError> {
        let number = |it: CodeNumber| it.get().to_be_bytes();
        let bytes = match self {
            Self::Proof(proof) => [&[PROOF], proof.as_bytes().as_slice()].concat(),
            Self::CodeStart {
                number: of,
                message,
            } => [&[CODE_START], number(of).as_slice(), &message].concat(),
            Self::CodeAnswer {
                message,
                confirmation,
            } => [&[CODE_ANSWER], message.as_slice(), confirmation.as_bytes()].concat(),
            Self::CodeConfirm {
                number: of,
                confirmation,
            } => [
                &[CODE_CONFIRM],
                number(of).as_slice(),
                confirmation.as_bytes(),
            ]
            .concat(),
        };
        BASE64URL_NOPAD.encode(&bytes).parse()
    }

    /// Reads what has come.
    pub(crate) fn parse(credential: &Credential) -> Result<Self, EvidenceError> {
        let bytes = BASE64URL_NOPAD.decode(credential.as_str().as_bytes());
        let bytes = bytes.map_err(|_| EvidenceError)?;
        let (kind, mut rest) = bytes.split_first().ok_or(EvidenceError)?;
        let rest = &mut rest;
        let credential = match *kind {
            PROOF => Self::Proof(hash(rest)?),
            CODE_START => Self::CodeStart {
                number: number(rest)?,
                message: take(rest)?,
            },
            CODE_ANSWER => Self::CodeAnswer {
                message: take(rest)?,
                confirmation: hash(rest)?,
            },
            CODE_CONFIRM => Self::CodeConfirm {
                number: number(rest)?,
                confirmation: hash(rest)?,
            },
            _ => return Err(EvidenceError),
        };
        match rest.is_empty() {
            true => Ok(credential),
            false => Err(EvidenceError),
        }
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], EvidenceError> {
    let (taken, rest) = bytes.split_first_chunk().ok_or(EvidenceError)?;
    *bytes = rest;
    Ok(*taken)
}

fn number(bytes: &mut &[u8]) -> Result<CodeNumber, EvidenceError> {
    let number = take(bytes).map(u16::from_be_bytes)?;
    CodeNumber::try_from(number).map_err(|_| EvidenceError)
}

fn hash(bytes: &mut &[u8]) -> Result<Hash, EvidenceError> {
    take(bytes).map(Hash::from_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number_of(number: u16) -> CodeNumber {
        number.try_into().unwrap()
    }

    fn all() -> [Evidence; 4] {
        let hash = Hash::from_bytes([5; 32]);
        [
            Evidence::Proof(hash),
            Evidence::CodeStart {
                number: number_of(999),
                message: [6; 33],
            },
            Evidence::CodeAnswer {
                message: [7; 33],
                confirmation: hash,
            },
            Evidence::CodeConfirm {
                number: number_of(1),
                confirmation: hash,
            },
        ]
    }

    fn parsed(bytes: &[u8]) -> Result<Evidence, EvidenceError> {
        Evidence::parse(&BASE64URL_NOPAD.encode(bytes).parse().unwrap())
    }

    #[test]
    fn what_is_written_is_read() {
        for evidence in all() {
            let credential = evidence.to_credential().unwrap();
            assert_eq!(Evidence::parse(&credential), Ok(evidence));
            assert!(credential.as_str().len() <= 92);
        }
    }

    #[test]
    fn what_is_cut_lengthened_or_unknown_is_refused() {
        for evidence in all() {
            let credential = evidence.to_credential().unwrap();
            let bytes = BASE64URL_NOPAD
                .decode(credential.as_str().as_bytes())
                .unwrap();
            for length in 1..bytes.len() {
                assert_eq!(parsed(&bytes[..length]), Err(EvidenceError));
            }
            let longer = [bytes.as_slice(), &[0]].concat();
            assert_eq!(parsed(&longer), Err(EvidenceError));
        }
        let no_number = [&[CODE_CONFIRM, 0, 0], [0; 32].as_slice()].concat();
        assert_eq!(parsed(&no_number), Err(EvidenceError));
        for text in ["A", "AA", "BQ", "AB", "_-_-", "proof"] {
            let credential = text.parse().unwrap();
            assert_eq!(Evidence::parse(&credential), Err(EvidenceError), "{text}");
        }
    }
}
