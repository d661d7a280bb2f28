//! What the controlling side says first on the connection it has selected.
//!
//! The TLS handshake proves who is at the other end; these few bytes say what
//! the connection is for. A session is named after the introduction that began
//! it, and may be moved to a connection of a later one.

use crate::agent::PathKind;
use crate::rendezvous::IntroductionId;

/// See the [module](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Whether the session begins here or is moved here.
    pub purpose: Purpose,
    /// How the controlling side reaches the other one: both shall call it the same.
    pub path: PathKind,
    /// The session's name.
    pub session: IntroductionId,
}

/// What a selected connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A new session.
    Begin,
    /// A session that both sides have goes on here. The controlled side answers
    /// with [`Hello::READY`].
    Continue,
}

/// The bytes are no hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other side does not say what the connection is for")]
pub struct MalformedHello;

const PURPOSES: [Purpose; 2] = [Purpose::Begin, Purpose::Continue];
const PATHS: [PathKind; 5] = [
    PathKind::Lan,
    PathKind::Ipv6,
    PathKind::Mapped,
    PathKind::Punched,
    PathKind::Relay,
];

impl Hello {
    /// Bytes on the wire: the purpose, the path, the session's name.
    pub const BYTES: usize = 2 + IntroductionId::BYTES;
    /// The controlled side's answer to [`Purpose::Continue`].
    pub const READY: u8 = 1;

    /// As bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let (head, name) = bytes.split_at_mut(2);
        head.copy_from_slice(&[number(&PURPOSES, &self.purpose), number(&PATHS, &self.path)]);
        name.copy_from_slice(self.session.as_bytes());
        bytes
    }

    /// From bytes on the wire.
    ///
    /// # Errors
    /// When they are none.
    pub fn decode(bytes: [u8; Self::BYTES]) -> Result<Self, MalformedHello> {
        let [purpose, path, name @ ..] = bytes;
        let purpose = PURPOSES.get(usize::from(purpose).wrapping_sub(1));
        let path = PATHS.get(usize::from(path).wrapping_sub(1));
        match (purpose, path) {
            (Some(&purpose), Some(&path)) => Ok(Self {
                purpose,
                path,
                session: IntroductionId::from_random(name),
            }),
            _ => Err(MalformedHello),
        }
    }
}

/// Counted from 1, so that zeros mean nothing.
fn number<T: PartialEq>(all: &[T], one: &T) -> u8 {
    let index = all.iter().position(|other| other == one);
    u8::try_from(index.map_or(0, |index| index + 1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hello_survives_the_wire_and_nothing_else_is_one() {
        let session = IntroductionId::from_random([7; IntroductionId::BYTES]);
        for purpose in PURPOSES {
            for path in PATHS {
                let hello = Hello {
                    purpose,
                    path,
                    session,
                };
                assert_eq!(Hello::decode(hello.encode()), Ok(hello));
            }
        }
        for head in [[0, 1], [1, 0], [3, 1], [1, 6], [255, 255]] {
            let mut bytes = [7; Hello::BYTES];
            bytes[..2].copy_from_slice(&head);
            assert_eq!(Hello::decode(bytes), Err(MalformedHello), "{head:?}");
        }
    }
}
