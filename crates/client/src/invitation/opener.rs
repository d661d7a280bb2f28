//! The side that has opened a code: who may try it, how often, and for how long.

use std::time::{Duration, Instant};

use blake3::Hash;
use pinhole_net::{CodeNumber, PeerKey};

use super::code::Code;
use super::evidence::Evidence;
use super::exchange::{self, CodeMessage, Parties};
use crate::failure::Failure;

/// How long a code can be used.
pub(crate) const CODE_LASTS: Duration = Duration::from_secs(10 * 60);
/// How many may try: whoever guesses has three chances in four million.
const TRIES: u8 = 3;
/// How long the joiner may take to compare what it was answered, and to say so. Nobody has
/// to do anything for it.
const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(20);

/// A code that waits for whoever joins by it.
#[derive(Debug)]
pub(crate) struct Opener {
    code: Code,
    own_key: PeerKey,
    tries_left: u8,
    ends_at: Instant,
    /// Those that were answered, each with what it has to say until when.
    answered: Vec<(PeerKey, Hash, Instant)>,
}

/// What comes of somebody who tries.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    /// It gets this answer, which was one of the tries.
    Answered(Evidence),
    /// It knows the words. The code is used up.
    Joined,
    /// It does not, or the code is another one or used up.
    Refused,
}

impl Opener {
    pub(crate) fn new(code: Code, own_key: PeerKey, now: Instant) -> Self {
        Self {
            code,
            own_key,
            tries_left: TRIES,
            ends_at: now + CODE_LASTS,
            answered: Vec::new(),
        }
    }

    pub(crate) const fn code(&self) -> Code {
        self.code
    }

    /// A joiner begins.
    pub(crate) fn start(
        &mut self,
        joiner: PeerKey,
        number: CodeNumber,
        message: &CodeMessage,
        now: Instant,
    ) -> Tried {
        if self.is_over(now) || self.tries_left == 0 || number != self.code.number() {
            return Tried::Refused;
        }
        self.tries_left -= 1;
        let parties = Parties {
            joiner,
            opener: self.own_key,
        };
        let Some(answer) = exchange::answer(&self.code, parties, message) else {
            return Tried::Refused;
        };
        self.answered.retain(|(key, ..)| *key != joiner);
        let until = now + CONFIRMATION_TIMEOUT;
        self.answered.push((joiner, answer.expected, until));
        Tried::Answered(Evidence::CodeAnswer {
            message: answer.message,
            confirmation: answer.confirmation,
        })
    }

    /// A joiner that was answered says that it is convinced.
    pub(crate) fn confirm(
        &mut self,
        joiner: PeerKey,
        number: CodeNumber,
        confirmation: Hash,
        now: Instant,
    ) -> Tried {
        let is_its = |(key, ..): &(PeerKey, Hash, Instant)| *key == joiner;
        let Some(place) = self.answered.iter().position(is_its) else {
            return Tried::Refused;
        };
        // Nobody says it twice.
        let (_, expected, until) = self.answered.swap_remove(place);
        let is_right = number == self.code.number() && expected == confirmation;
        match is_right && now < until {
            true => Tried::Joined,
            false => Tried::Refused,
        }
    }

    /// When the code closes by itself: its time is over, or all tries are used and none
    /// can succeed any more.
    pub(crate) fn closes_at(&self) -> Instant {
        match self.tries_left {
            0 => {
                let pending = self.answered.iter().map(|(_, _, until)| *until);
                pending
                    .max()
                    .map_or(self.ends_at, |last| last.min(self.ends_at))
            }
            _ => self.ends_at,
        }
    }

    /// Whether nobody can join by it any more.
    pub(crate) fn is_closed(&self, now: Instant) -> bool {
        self.is_exhausted() || self.closes_at() <= now
    }

    /// All tries were used, and none has succeeded.
    pub(crate) const fn is_exhausted(&self) -> bool {
        self.tries_left == 0 && self.answered.is_empty()
    }

    /// Why nobody can join by it any more.
    pub(crate) const fn failure(&self) -> Failure {
        match self.tries_left {
            0 => Failure::CodeExhausted,
            _ => Failure::CodeUnused,
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        self.ends_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::super::exchange::Joiner;
    use super::*;

    const OPENER: PeerKey = PeerKey::from_bytes([9; 32]);

    fn key(n: u8) -> PeerKey {
        PeerKey::from_bytes([n; 32])
    }

    fn number(number: u16) -> CodeNumber {
        number.try_into().unwrap()
    }

    fn opened(now: Instant) -> Opener {
        Opener::new("7-acid-zoo".parse().unwrap(), OPENER, now)
    }

    /// Somebody tries these words. Returns what it says when it was convinced.
    fn tries(opener: &mut Opener, joiner: PeerKey, words: &str, now: Instant) -> Option<Hash> {
        let code = words.parse().unwrap();
        let parties = Parties {
            joiner,
            opener: OPENER,
        };
        let exchange = Joiner::start(&code, parties);
        let message = exchange.message();
        match opener.start(joiner, code.number(), &message, now) {
            Tried::Answered(Evidence::CodeAnswer {
                message,
                confirmation,
            }) => exchange.finish(&message, confirmation),
            _ => None,
        }
    }

    #[test]
    fn whoever_knows_the_words_joins_once() {
        let now = Instant::now();
        let mut opener = opened(now);
        let said = tries(&mut opener, key(1), "7-acid-zoo", now).unwrap();
        // Nobody else can say it.
        assert_eq!(opener.confirm(key(2), number(7), said, now), Tried::Refused);
        assert_eq!(opener.confirm(key(1), number(7), said, now), Tried::Joined);
        assert_eq!(opener.confirm(key(1), number(7), said, now), Tried::Refused);
    }

    #[test]
    fn three_wrong_tries_exhaust_a_code() {
        let now = Instant::now();
        let mut opener = opened(now);
        for n in 1..=3 {
            assert!(!opener.is_closed(now));
            assert_eq!(tries(&mut opener, key(n), "7-acid-zone", now), None);
        }
        // The right words come too late.
        assert_eq!(tries(&mut opener, key(4), "7-acid-zoo", now), None);
        // Whoever was answered could still say the right thing, for a while.
        assert!(!opener.is_closed(now));
        assert!(opener.is_closed(now + CONFIRMATION_TIMEOUT));
        for n in 1..=3 {
            let wrong = Hash::from_bytes([0; 32]);
            assert_eq!(
                opener.confirm(key(n), number(7), wrong, now),
                Tried::Refused
            );
        }
        assert!(opener.is_exhausted() && opener.is_closed(now));
    }

    #[test]
    fn nonsense_is_a_try_and_another_number_is_none() {
        let now = Instant::now();
        let mut opener = opened(now);
        for _ in 0..10 {
            assert_eq!(
                opener.start(key(1), number(8), &[0; 33], now),
                Tried::Refused
            );
        }
        assert!(tries(&mut opener, key(1), "7-acid-zoo", now).is_some());
        for _ in 0..2 {
            assert_eq!(
                opener.start(key(2), number(7), &[0; 33], now),
                Tried::Refused
            );
        }
        assert_eq!(tries(&mut opener, key(3), "7-acid-zoo", now), None);
    }

    #[test]
    fn the_third_try_may_be_the_right_one() {
        let now = Instant::now();
        let mut opener = opened(now);
        for _ in 0..2 {
            assert_eq!(tries(&mut opener, key(1), "7-acid-zone", now), None);
        }
        let said = tries(&mut opener, key(1), "7-acid-zoo", now).unwrap();
        assert_eq!(opener.confirm(key(1), number(7), said, now), Tried::Joined);
    }

    #[test]
    fn a_code_ends_and_so_does_the_time_to_answer() {
        let now = Instant::now();
        let mut opener = opened(now);
        assert_eq!(opener.closes_at(), now + CODE_LASTS);
        let said = tries(&mut opener, key(1), "7-acid-zoo", now).unwrap();
        let late = now + CONFIRMATION_TIMEOUT;
        assert_eq!(
            opener.confirm(key(1), number(7), said, late),
            Tried::Refused
        );
        let over = now + CODE_LASTS;
        assert!(opener.is_closed(over) && !opener.is_closed(late));
        assert_eq!(tries(&mut opener, key(1), "7-acid-zoo", over), None);
    }
}
