//! SPAKE2 over the words of a code: both sides learn whether the other knows them, and
//! nobody between them learns anything.
//!
//! ```text
//! joiner                              opener
//!   start ──────────── A ───────────► answer
//!   finish ◄──────── B, cB ───────────
//!          ────────── cA ───────────► compares
//! ```
//!
//! The number and both keys are part of the identities, so a server that gives either
//! side another key gets two exchanges of which none succeeds.

use blake3::Hash;
use pinhole_net::{CodeNumber, PeerKey};
use spake2::{Ed25519Group, Identity, Password, Spake2};

use super::code::Code;

/// Separates the confirmations from everything else that is made of the shared key.
const CONFIRMATION_CONTEXT: &str = "pinhole 2026 code confirmation v1";

/// What a side says first: a letter that names the side, and a point.
pub(crate) type CodeMessage = [u8; 33];

/// Whose exchange it is. Both sides have to mean the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parties {
    pub(crate) joiner: PeerKey,
    pub(crate) opener: PeerKey,
}

/// The side that has typed a code in, while it waits for the answer.
#[derive(Debug)]
pub(crate) struct Joiner {
    spake: Spake2<Ed25519Group>,
    number: CodeNumber,
    parties: Parties,
    message: CodeMessage,
}

/// What the side that has opened the code makes of the first message.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) message: CodeMessage,
    pub(crate) confirmation: Hash,
    /// What the joiner has to say next.
    pub(crate) expected: Hash,
}

/// Who has made a confirmation.
#[derive(Debug, Clone, Copy)]
enum Role {
    Joiner,
    Opener,
}

impl Joiner {
    /// Begins, with what is to be sent.
    pub(crate) fn start(code: &Code, parties: Parties) -> Self {
        let (spake, message) = Spake2::start_a(
            &password(code),
            &parties.identity(Role::Joiner, code.number()),
            &parties.identity(Role::Opener, code.number()),
        );
        Self {
            spake,
            number: code.number(),
            parties,
            message: fixed(&message),
        }
    }

    pub(crate) const fn message(&self) -> CodeMessage {
        self.message
    }

    /// Checks the answer. Returns what convinces the other side; `None` if the other side
    /// does not know the words or does not mean these keys.
    pub(crate) fn finish(self, message: &CodeMessage, confirmation: Hash) -> Option<Hash> {
        let shared = self.spake.finish(message).ok()?;
        let transcript = Transcript {
            number: self.number,
            parties: self.parties,
            messages: [self.message, *message],
        };
        let expected = transcript.confirmation(&shared, Role::Opener);
        (expected == confirmation).then(|| transcript.confirmation(&shared, Role::Joiner))
    }
}

/// Answers a joiner's first message; `None` if it is none.
pub(crate) fn answer(code: &Code, parties: Parties, message: &CodeMessage) -> Option<Answer> {
    let (spake, own) = Spake2::<Ed25519Group>::start_b(
        &password(code),
        &parties.identity(Role::Joiner, code.number()),
        &parties.identity(Role::Opener, code.number()),
    );
    let shared = spake.finish(message).ok()?;
    let own = fixed(&own);
    let transcript = Transcript {
        number: code.number(),
        parties,
        messages: [*message, own],
    };
    Some(Answer {
        message: own,
        confirmation: transcript.confirmation(&shared, Role::Opener),
        expected: transcript.confirmation(&shared, Role::Joiner),
    })
}

fn password(code: &Code) -> Password {
    Password::new(code.words().to_string())
}

/// The library gives messages of this length as vectors.
fn fixed(message: &[u8]) -> CodeMessage {
    let mut fixed = [0; 33];
    for (to, from) in fixed.iter_mut().zip(message) {
        *to = *from;
    }
    fixed
}

impl Parties {
    fn identity(&self, role: Role, number: CodeNumber) -> Identity {
        let key = match role {
            Role::Joiner => self.joiner,
            Role::Opener => self.opener,
        };
        Identity::new(&[role.as_bytes(), &number.get().to_be_bytes(), key.as_bytes()].concat())
    }
}

impl Role {
    const fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::Joiner => b"joiner",
            Self::Opener => b"opener",
        }
    }
}

/// Everything that both sides have to agree on.
struct Transcript {
    number: CodeNumber,
    parties: Parties,
    /// The joiner's, then the opener's.
    messages: [CodeMessage; 2],
}

impl Transcript {
    fn confirmation(&self, shared: &[u8], role: Role) -> Hash {
        let key = blake3::derive_key(CONFIRMATION_CONTEXT, shared);
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(role.as_bytes());
        hasher.update(&self.number.get().to_be_bytes());
        hasher.update(self.parties.joiner.as_bytes());
        hasher.update(self.parties.opener.as_bytes());
        for message in &self.messages {
            hasher.update(message);
        }
        hasher.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> PeerKey {
        PeerKey::from_bytes([n; 32])
    }

    fn code(text: &str) -> Code {
        text.parse().unwrap()
    }

    const PARTIES: Parties = Parties {
        joiner: PeerKey::from_bytes([1; 32]),
        opener: PeerKey::from_bytes([2; 32]),
    };

    #[test]
    fn whoever_knows_the_words_is_convinced_and_convinces() {
        let code = code("7-acid-zoo");
        let joiner = Joiner::start(&code, PARTIES);
        let answer = answer(&code, PARTIES, &joiner.message()).unwrap();
        let said = joiner.finish(&answer.message, answer.confirmation);
        assert_eq!(said, Some(answer.expected));
        assert_ne!(answer.confirmation, answer.expected);
    }

    #[test]
    fn wrong_words_another_number_and_other_keys_convince_nobody() {
        let right = code("7-acid-zoo");
        for (theirs, parties) in [
            (code("7-acid-zone"), PARTIES),
            (code("7-zoo-acid"), PARTIES),
            (code("8-acid-zoo"), PARTIES),
            (
                right,
                Parties {
                    joiner: key(3),
                    ..PARTIES
                },
            ),
            (
                right,
                Parties {
                    opener: key(3),
                    ..PARTIES
                },
            ),
            (
                right,
                Parties {
                    joiner: key(2),
                    opener: key(1),
                },
            ),
        ] {
            let joiner = Joiner::start(&right, PARTIES);
            let answer = answer(&theirs, parties, &joiner.message()).unwrap();
            let said = joiner.finish(&answer.message, answer.confirmation);
            assert_eq!(said, None, "{theirs} {parties:?}");
        }
    }

    /// The server shows each side a key of its own and passes the messages on.
    #[test]
    fn a_server_in_between_convinces_neither_side() {
        let code = code("7-acid-zoo");
        let (to_joiner, to_opener) = (
            Parties {
                opener: key(9),
                ..PARTIES
            },
            Parties {
                joiner: key(9),
                ..PARTIES
            },
        );
        let joiner = Joiner::start(&code, to_joiner);
        let answer = answer(&code, to_opener, &joiner.message()).unwrap();
        assert_eq!(joiner.finish(&answer.message, answer.confirmation), None);
    }

    #[test]
    fn messages_of_another_exchange_and_ones_own_are_of_no_use() {
        let code = code("7-acid-zoo");
        let (first, second) = (Joiner::start(&code, PARTIES), Joiner::start(&code, PARTIES));
        assert_ne!(first.message(), second.message());
        let to_first = answer(&code, PARTIES, &first.message()).unwrap();
        // An answer is to one message alone.
        assert_eq!(
            second.finish(&to_first.message, to_first.confirmation),
            None
        );
        // The joiner's own message comes back to it, with what it would say itself.
        let (message, expected) = (first.message(), to_first.expected);
        assert_eq!(first.finish(&message, expected), None);
        // The opener gets what an opener says.
        let reflected = answer(&code, PARTIES, &to_first.message);
        assert!(reflected.is_none());
        // The opener's confirmation is not the joiner's.
        assert_ne!(to_first.confirmation, to_first.expected);
    }

    #[test]
    fn what_is_no_point_is_no_message() {
        let code = code("7-acid-zoo");
        assert!(answer(&code, PARTIES, &[0; 33]).is_none());
        let with = |n| {
            let mut message = [0; 33];
            (message[0], message[1]) = (b'A', n);
            message
        };
        let mut all = (0..=u8::MAX).map(with);
        let is_refused = |message: &CodeMessage| answer(&code, PARTIES, message).is_none();
        let mut no_point = all.find(is_refused).expect("half of them are none");
        let joiner = Joiner::start(&code, PARTIES);
        no_point[0] = b'B';
        assert_eq!(joiner.finish(&no_point, Hash::from_bytes([0; 32])), None);
    }

    /// The test vector of PROTOCOL.md: what follows from the shared key.
    #[test]
    fn confirmations_are_as_the_protocol_says() {
        let transcript = Transcript {
            number: 7.try_into().unwrap(),
            parties: PARTIES,
            messages: [[b'A'; 33], [b'B'; 33]],
        };
        let of = |role| transcript.confirmation(&[3; 32], role).to_hex();
        assert_eq!(
            of(Role::Joiner).as_str(),
            "470cf528b6322340946c1d0da1e98a579dff1ed3eb561c239d2a53eadc444884"
        );
        assert_eq!(
            of(Role::Opener).as_str(),
            "59f521c61529e82fea99bb973e03cf2d1e64ac43041e68be00fd90df6afc6625"
        );
    }
}
