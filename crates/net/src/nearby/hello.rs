//! What both sides of a nearby session say first: the name that they give
//! themselves. The dialling side speaks, and the other answers if it admits it.
//!
//! ```text
//! | length: u8 | name: 3 to 32 bytes of [a-z0-9._-] |
//! ```

use std::io;

use pinhole_proto::name::PeerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

pub(super) async fn say(stream: &mut (impl AsyncWrite + Unpin), name: &PeerName) -> io::Result<()> {
    let name = name.as_str().as_bytes();
    let length = u8::try_from(name.len()).map_err(io::Error::other)?;
    stream.write_all(&[&[length], name].concat()).await?;
    stream.flush().await
}

pub(super) async fn hear(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<PeerName> {
    let length = usize::from(stream.read_u8().await?);
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
}
