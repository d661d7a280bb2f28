//! What both sides of a nearby session say first: the name that they give
//! themselves. The dialling side speaks, and the other answers: with its own name if
//! it admits the visitor, with a reason if it does not and the visitor is to know it.
//!
//! ```text
//! | length: u8 | name: 3 to 32 bytes of [a-z0-9._-] |
//! | 0          | reason: u8 |
//! ```

use std::io;

use pinhole_proto::name::PeerName;
use pinhole_proto::rendezvous::RefuseReason;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

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
        RefuseReason::Unavailable => None,
    }
}

const fn reason(code: u8) -> RefuseReason {
    match code {
        1 => RefuseReason::KeyMismatch,
        2 => RefuseReason::NeedsPermission,
        3 => RefuseReason::Busy,
        _ => RefuseReason::Unavailable,
    }
}

pub(super) async fn hear(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<PeerName> {
    let length = stream.read_u8().await?;
    hear_name(stream, length).await
}

async fn hear_name(stream: &mut (impl AsyncRead + Unpin), length: u8) -> io::Result<PeerName> {
    let length = usize::from(length);
    if length > PeerName::MAX_CHARS {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut name = vec![0; length];
    stream.read_exact(&mut name).await?;
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidData);
    let name = String::from_utf8(name).map_err(invalid)?;
    PeerName::try_from(name).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_heard_as_it_was_said_and_nothing_else() {
        let mut said = Vec::new();
        say(&mut said, &"alice".parse().unwrap()).await.unwrap();
        assert_eq!(said, b"\x05alice");
        assert_eq!(
            hear(&mut said.as_slice()).await.unwrap(),
            "alice".parse().unwrap()
        );
        for bad in [
            b"".as_slice(),
            b"\x00",
            b"\x02ab",
            b"\x05alic",
            b"\x05Alice",
            b"\x05ali\xff\xff",
            b"\x2100000000000000000000000000000000000",
        ] {
            let mut bad = bad;
            assert!(hear(&mut bad).await.is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn whoever_is_turned_away_learns_why_and_nothing_where_nobody_is_here() {
        for reason in [
            RefuseReason::KeyMismatch,
            RefuseReason::NeedsPermission,
            RefuseReason::Busy,
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
