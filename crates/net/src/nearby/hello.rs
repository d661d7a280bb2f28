//! What both sides of a nearby session say first: the name that they give
//! themselves. The dialling side speaks, and the other answers: with its own name if
//! it admits the visitor, with a reason if it does not and the visitor is to know it.
//!
//! ```text
//! | length: u8       | name: 3 to 32 bytes of [a-z0-9._-] |
//! | length + 128: u8 | name | length: u16, big endian | credential: 1 to 256 bytes |
//! | 0                | reason: u8 |
//! ```
//!
//! A visitor that shows a credential speaks the second form. Versions that do not know it
//! hang up; none of them has given anybody an invitation.

use std::io;

use pinhole_proto::credential::Credential;
use pinhole_proto::name::PeerName;
use pinhole_proto::rendezvous::RefuseReason;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Added to the length of the name when a credential follows.
const WITH_CREDENTIAL: u8 = 0x80;

/// What a visitor says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Introduction {
    pub(super) name: PeerName,
    pub(super) credential: Option<Credential>,
}

impl Introduction {
    pub(super) async fn say(&self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let Some(credential) = &self.credential else {
            return say(stream, &self.name).await;
        };
        let (name, credential) = (self.name.as_str(), credential.as_str());
        let name_length = u8::try_from(name.len()).map_err(io::Error::other)?;
        let length = u16::try_from(credential.len()).map_err(io::Error::other)?;
        let said = [
            &[WITH_CREDENTIAL | name_length],
            name.as_bytes(),
            &length.to_be_bytes(),
            credential.as_bytes(),
        ];
        stream.write_all(&said.concat()).await?;
        stream.flush().await
    }

    pub(super) async fn hear(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let length = stream.read_u8().await?;
        let name = hear_name(stream, length & !WITH_CREDENTIAL).await?;
        let credential = match length & WITH_CREDENTIAL {
            0 => None,
            _ => Some(hear_credential(stream).await?),
        };
        Ok(Self { name, credential })
    }
}

pub(super) async fn say(stream: &mut (impl AsyncWrite + Unpin), name: &PeerName) -> io::Result<()> {
    let name = name.as_str().as_bytes();
    let length = u8::try_from(name.len()).map_err(io::Error::other)?;
    stream.write_all(&[&[length], name].concat()).await?;
    stream.flush().await
}

/// Turns a visitor away, who is told why. Of one for whom nobody is here that is to
/// say nothing.
pub(super) async fn refuse(
    stream: &mut (impl AsyncWrite + Unpin),
    reason: RefuseReason,
) -> io::Result<()> {
    if let Some(code) = code(reason) {
        stream.write_all(&[0, code]).await?;
    }
    stream.flush().await
}

/// The answer to a visitor.
pub(super) async fn hear_answer(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Result<PeerName, RefuseReason>> {
    let length = match stream.read_u8().await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Ok(Err(RefuseReason::Unavailable));
        }
        length => length?,
    };
    if length == 0 {
        return Ok(Err(reason(stream.read_u8().await?)));
    }
    hear_name(stream, length).await.map(Ok)
}

const fn code(reason: RefuseReason) -> Option<u8> {
    match reason {
        RefuseReason::KeyMismatch => Some(1),
        RefuseReason::NeedsPermission => Some(2),
        RefuseReason::Busy => Some(3),
        RefuseReason::InvitationOver => Some(4),
        // Codes are looked at through a server only.
        RefuseReason::Unavailable | RefuseReason::Credential => None,
    }
}

const fn reason(code: u8) -> RefuseReason {
    match code {
        1 => RefuseReason::KeyMismatch,
        2 => RefuseReason::NeedsPermission,
        3 => RefuseReason::Busy,
        4 => RefuseReason::InvitationOver,
        _ => RefuseReason::Unavailable,
    }
}

async fn hear_name(stream: &mut (impl AsyncRead + Unpin), length: u8) -> io::Result<PeerName> {
    let name = hear_text(stream, length.into(), PeerName::MAX_CHARS).await?;
    PeerName::try_from(name).map_err(invalid)
}

async fn hear_credential(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Credential> {
    let length = stream.read_u16().await?;
    let text = hear_text(stream, length.into(), Credential::MAX_CHARS).await?;
    Credential::try_from(text).map_err(invalid)
}

async fn hear_text(
    stream: &mut (impl AsyncRead + Unpin),
    length: usize,
    length_max: usize,
) -> io::Result<String> {
    if length > length_max {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; length];
    stream.read_exact(&mut text).await?;
    String::from_utf8(text).map_err(invalid)
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_visitor_is_heard_as_it_has_spoken_and_nothing_else_is() {
        let longest = "x".repeat(256);
        for credential in [None, Some("abc"), Some(&longest)] {
            let introduction = Introduction {
                name: "alice".parse().unwrap(),
                credential: credential.map(|it| it.parse().unwrap()),
            };
            let mut said = Vec::new();
            introduction.say(&mut said).await.unwrap();
            let begin: &[u8] = match credential {
                None => b"\x05alice",
                Some("abc") => b"\x85alice\x00\x03abc",
                Some(_) => b"\x85alice\x01\x00xxx",
            };
            assert!(said.starts_with(begin), "{said:?}");
            let mut said = said.as_slice();
            let heard = Introduction::hear(&mut said).await.unwrap();
            assert_eq!(heard, introduction);
            assert!(said.is_empty(), "{said:?}");
        }
        let too_long = [b"\x85alice\x01\x01".as_slice(), &[b'x'; 257]].concat();
        for bad in [
            too_long.as_slice(),
            b"\x85alice",
            b"\x85alice\x00\x00",
            b"\x85alice\x00\x04abc",
            b"\x85alice\x00\x03a=c",
            b"\x80\x00\x03abc",
            b"".as_slice(),
            b"\x00",
            b"\x02ab",
            b"\x05alic",
            b"\x05Alice",
            b"\x05ali\xff\xff",
            b"\x2100000000000000000000000000000000000",
        ] {
            let mut bad = bad;
            assert!(Introduction::hear(&mut bad).await.is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn whoever_is_turned_away_learns_why_and_nothing_where_nobody_is_here() {
        for reason in [
            RefuseReason::KeyMismatch,
            RefuseReason::NeedsPermission,
            RefuseReason::Busy,
            RefuseReason::InvitationOver,
            RefuseReason::Unavailable,
        ] {
            let mut said = Vec::new();
            refuse(&mut said, reason).await.unwrap();
            let heard = hear_answer(&mut said.as_slice()).await.unwrap();
            assert_eq!(heard, Err(reason), "{said:?}");
        }
        let later = hear_answer(&mut [0, 200].as_slice()).await.unwrap();
        assert_eq!(later, Err(RefuseReason::Unavailable), "a reason to come");
        let mut said = Vec::new();
        say(&mut said, &"bob".parse().unwrap()).await.unwrap();
        let heard = hear_answer(&mut said.as_slice()).await.unwrap();
        assert_eq!(heard, Ok("bob".parse().unwrap()));
    }
}
