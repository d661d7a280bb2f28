//! Frames: how messages are cut out of a byte stream.
//!
//! ```text
//! | length: u32, big endian | kind: u8 | payload: length - 1 bytes |
//! ```
//!
//! The length counts the kind byte. A frame longer than its kind allows ends
//! the connection before anything is allocated for it.

use serde::{Serialize, de::DeserializeOwned};

/// Every kind of frame there is on a rendezvous connection. An id is never
/// reused; a retired one stays here with a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// A [`crate::rendezvous::ClientMessage`] as JSON.
    Client = 0x01,
    /// A [`crate::rendezvous::ServerMessage`] as JSON.
    Server = 0x02,
    /// A [`crate::node::NodeMessage`] as JSON.
    Node = 0x03,
}

impl FrameKind {
    /// The kind with this id.
    ///
    /// # Errors
    /// [`FrameError::UnknownKind`] for an id that was never given out.
    pub const fn from_id(id: u8) -> Result<Self, FrameError> {
        match id {
            0x01 => Ok(Self::Client),
            0x02 => Ok(Self::Server),
            0x03 => Ok(Self::Node),
            other => Err(FrameError::UnknownKind(other)),
        }
    }

    /// Most payload bytes of a frame of this kind.
    #[must_use]
    pub const fn max_payload_bytes(self) -> usize {
        match self {
            Self::Client => 16 * 1024,
            // A page of presence is the largest.
            Self::Server | Self::Node => 64 * 1024,
        }
    }
}

/// Why a byte stream is not a sequence of frames.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A kind id that is not in [`FrameKind`].
    #[error("unknown frame kind {0:#04x}")]
    UnknownKind(u8),
    /// A frame of another kind than this side of the connection receives.
    #[error("unexpected frame kind {0:?}")]
    UnexpectedKind(FrameKind),
    /// Longer than [`FrameKind::max_payload_bytes`], or without a kind byte.
    #[error("frame of {length_bytes} bytes is outside the limits")]
    Length {
        /// What the length field said.
        length_bytes: u32,
    },
    /// The payload is not the JSON the kind promises.
    #[error("malformed message: {0}")]
    Json(#[from] serde_json::Error),
}

const LENGTH_BYTES: usize = 4;
const HEADER_BYTES: usize = LENGTH_BYTES + 1;

/// The frame that carries `message`, ready to be written.
///
/// # Errors
/// [`FrameError::Length`] when the message is longer than its kind allows.
pub fn encode<M: Serialize>(kind: FrameKind, message: &M) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; LENGTH_BYTES];
    frame.push(kind as u8);
    serde_json::to_writer(&mut frame, message)?;
    let length_bytes = u32::try_from(frame.len() - LENGTH_BYTES).unwrap_or(u32::MAX);
    if frame.len() - HEADER_BYTES > kind.max_payload_bytes() {
        return Err(FrameError::Length { length_bytes });
    }
    let (prefix, _) = frame.split_at_mut(LENGTH_BYTES);
    prefix.copy_from_slice(&length_bytes.to_be_bytes());
    Ok(frame)
}

/// Cuts messages of one kind out of the bytes fed to it.
///
/// ```
/// use pinhole_proto::frame::{Decoder, FrameError, FrameKind, encode};
/// use pinhole_proto::rendezvous::ClientMessage;
///
/// let ping = ClientMessage::Ping { nonce: 7 };
/// let bytes = encode(FrameKind::Client, &ping)?;
/// let (begin, end) = bytes.split_at(3);
///
/// let mut decoder = Decoder::new(FrameKind::Client);
/// decoder.feed(begin);
/// assert_eq!(decoder.next_message::<ClientMessage>()?, None);
/// decoder.feed(end);
/// assert_eq!(decoder.next_message()?, Some(ping));
/// # Ok::<(), FrameError>(())
/// ```
///
/// Holds at most one frame of the largest size plus what one [`feed`] brought.
///
/// [`feed`]: Decoder::feed
#[derive(Debug)]
pub struct Decoder {
    kind: FrameKind,
    buffered: Vec<u8>,
    consumed: usize,
}

impl Decoder {
    /// A decoder for a connection on which only frames of `kind` arrive.
    #[must_use]
    pub const fn new(kind: FrameKind) -> Self {
        Self {
            kind,
            buffered: Vec::new(),
            consumed: 0,
        }
    }

    /// Takes bytes as they came from the network.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffered.drain(..self.consumed);
        self.consumed = 0;
        self.buffered.extend_from_slice(bytes);
    }

    /// The next whole message, or `None` until more bytes are fed.
    ///
    /// # Errors
    /// Any [`FrameError`] but those of encoding; the connection is then of no
    /// further use.
    pub fn next_message<M: DeserializeOwned>(&mut self) -> Result<Option<M>, FrameError> {
        let pending = self.buffered.get(self.consumed..).unwrap_or_default();
        let Some((length, rest)) = pending.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length_bytes = u32::from_be_bytes(*length);
        let length = usize::try_from(length_bytes).unwrap_or(usize::MAX);
        if length == 0 || length - 1 > self.kind.max_payload_bytes() {
            return Err(FrameError::Length { length_bytes });
        }
        let Some((&id, _)) = rest.split_first() else {
            return Ok(None);
        };
        let kind = FrameKind::from_id(id)?;
        if kind != self.kind {
            return Err(FrameError::UnexpectedKind(kind));
        }
        let Some(payload) = rest.get(1..length) else {
            return Ok(None);
        };
        let message = serde_json::from_slice(payload)?;
        self.consumed += LENGTH_BYTES + length;
        Ok(Some(message))
    }

    /// Bytes that were read behind the last message taken. A relay connection
    /// turns into a raw stream after its last message; these belong to it.
    #[must_use]
    pub fn into_rest(mut self) -> Vec<u8> {
        self.buffered.split_off(self.consumed)
    }
}
