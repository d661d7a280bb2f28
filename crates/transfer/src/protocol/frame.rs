//! Frames of a peer connection, cut as on a rendezvous connection:
//!
//! ```text
//! | length: u32, big endian | kind: u8 | payload: length - 1 bytes |
//! ```
//!
//! The length counts the kind byte. A frame longer than its kind allows ends
//! the connection before anything is allocated for it.

use std::ops::Range;

use crate::protocol::chunking::CHUNK_BYTES;
use crate::protocol::digest::{DIGEST_BYTES, Digest};
use crate::protocol::index::{ChunkIndex, EntryIndex};
use crate::protocol::message::{Message, TransferId};

/// Every kind of frame there is on a peer connection. An id is never reused; a
/// retired one stays here with a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// A [`Message`] as JSON.
    Control = 0x01,
    /// A [`ChunkHeader`] and one chunk of a file.
    Chunk = 0x02,
    /// Many whole small files, see [`batch_items`].
    Batch = 0x03,
    /// Digests of chunks that the receiver has, see [`digest_items`].
    Digests = 0x04,
}

impl FrameKind {
    /// The kind with this id.
    ///
    /// # Errors
    /// [`FrameError::UnknownKind`] for an id that was never given out.
    pub const fn from_id(id: u8) -> Result<Self, FrameError> {
        match id {
            0x01 => Ok(Self::Control),
            0x02 => Ok(Self::Chunk),
            0x03 => Ok(Self::Batch),
            0x04 => Ok(Self::Digests),
            other => Err(FrameError::UnknownKind(other)),
        }
    }

    /// Most payload bytes of a frame of this kind.
    #[must_use]
    pub const fn max_payload_bytes(self) -> usize {
        match self {
            Self::Control => 256 * 1024,
            Self::Chunk => CHUNK_HEADER_BYTES + CHUNK_BYTES as usize,
            Self::Batch => BATCH_HEADER_BYTES + CHUNK_BYTES as usize,
            Self::Digests => BATCH_HEADER_BYTES + DIGEST_ITEMS_MAX * DIGEST_ITEM_BYTES,
        }
    }

    /// Fewest payload bytes of a frame of this kind.
    #[must_use]
    pub const fn min_payload_bytes(self) -> usize {
        match self {
            Self::Control => 2,
            Self::Chunk => CHUNK_HEADER_BYTES + 1,
            Self::Batch => BATCH_HEADER_BYTES + BATCH_ITEM_BYTES,
            Self::Digests => BATCH_HEADER_BYTES + DIGEST_ITEM_BYTES,
        }
    }
}

/// Why a byte stream is not a sequence of frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A kind id that is not in [`FrameKind`].
    #[error("unknown frame kind {0:#04x}")]
    UnknownKind(u8),
    /// Outside [`FrameKind::min_payload_bytes`] and
    /// [`FrameKind::max_payload_bytes`], or without a kind byte.
    #[error("frame of {length_bytes} bytes is outside the limits")]
    Length {
        /// What the length field said.
        length_bytes: u32,
    },
    /// The payload is not the JSON the kind promises.
    #[error("malformed message: {0}")]
    Json(String),
    /// The items of a batch do not fill its frame exactly.
    #[error("malformed batch")]
    Batch,
    /// A list of digests ends within one.
    #[error("malformed digests")]
    Digests,
}

/// Bytes before every payload: the length and the kind.
pub const FRAME_HEADER_BYTES: usize = 5;
/// Bytes before the data of a chunk.
pub const CHUNK_HEADER_BYTES: usize = 3 * 4 + DIGEST_BYTES;
/// Bytes before the first item of a batch or a list of digests.
pub const BATCH_HEADER_BYTES: usize = 4;
/// Bytes before the data of each item of a batch.
pub const BATCH_ITEM_BYTES: usize = 2 * 4 + DIGEST_BYTES;
/// Bytes of each item of a list of digests.
pub const DIGEST_ITEM_BYTES: usize = 2 * 4 + DIGEST_BYTES;
/// Most items of a list of digests.
pub const DIGEST_ITEMS_MAX: usize = 1024;

/// The header of every payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the payload is.
    pub kind: FrameKind,
    /// How long it is, within the limits of its kind.
    pub payload_bytes: usize,
}

impl FrameHeader {
    /// The header in these bytes.
    ///
    /// # Errors
    /// [`FrameError::UnknownKind`] and [`FrameError::Length`].
    pub fn decode(bytes: [u8; FRAME_HEADER_BYTES]) -> Result<Self, FrameError> {
        let [a, b, c, d, id] = bytes;
        let length_bytes = u32::from_be_bytes([a, b, c, d]);
        let payload_bytes = usize::try_from(length_bytes).unwrap_or(usize::MAX);
        let Some(payload_bytes) = payload_bytes.checked_sub(1) else {
            return Err(FrameError::Length { length_bytes });
        };
        let kind = FrameKind::from_id(id)?;
        if !(kind.min_payload_bytes()..=kind.max_payload_bytes()).contains(&payload_bytes) {
            return Err(FrameError::Length { length_bytes });
        }
        Ok(Self {
            kind,
            payload_bytes,
        })
    }

    fn encode(self) -> Result<[u8; FRAME_HEADER_BYTES], FrameError> {
        let length_bytes = u32::try_from(self.payload_bytes + 1).unwrap_or(u32::MAX);
        if self.payload_bytes > self.kind.max_payload_bytes() {
            return Err(FrameError::Length { length_bytes });
        }
        let [a, b, c, d] = length_bytes.to_be_bytes();
        Ok([a, b, c, d, self.kind as u8])
    }
}

/// The frame that carries `message`.
///
/// # Errors
/// [`FrameError::Length`] when the message is longer than its kind allows.
pub fn encode_message(message: &Message) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    serde_json::to_writer(&mut frame, message).map_err(|error| json(&error))?;
    let header = FrameHeader {
        kind: FrameKind::Control,
        payload_bytes: frame.len() - FRAME_HEADER_BYTES,
    };
    let encoded = header.encode()?;
    if let Some((start, _)) = frame.split_first_chunk_mut() {
        *start = encoded;
    }
    Ok(frame)
}

/// The message in the payload of a control frame.
///
/// # Errors
/// [`FrameError::Json`].
pub fn decode_message(payload: &[u8]) -> Result<Message, FrameError> {
    serde_json::from_slice(payload).map_err(|error| json(&error))
}

fn json(error: &serde_json::Error) -> FrameError {
    FrameError::Json(error.to_string())
}

/// The header of a chunk: `transfer: u32`, `entry: u32`,
/// `index: u32`, big endian, and the digest of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHeader {
    /// The transfer it belongs to.
    pub transfer: TransferId,
    /// The place of the file in the manifest.
    pub entry: EntryIndex,
    /// The place of the chunk in the file.
    pub index: ChunkIndex,
    /// [`Digest::of_chunk`] of the data.
    pub digest: Digest,
}

impl ChunkHeader {
    /// The header in these bytes; whether it makes sense is the receiver's
    /// to say.
    #[must_use]
    pub fn decode(bytes: &[u8; CHUNK_HEADER_BYTES]) -> Self {
        let (numbers, digest) = bytes.split_at(CHUNK_HEADER_BYTES - DIGEST_BYTES);
        let (numbers, _) = numbers.as_chunks::<4>();
        let number = |place: usize| numbers.get(place).copied().map_or(0, u32::from_be_bytes);
        Self {
            transfer: TransferId::from_wire(number(0)),
            entry: EntryIndex::new(number(1)),
            index: ChunkIndex::new(number(2)),
            digest: Digest::from_bytes(digest.try_into().unwrap_or_default()),
        }
    }

    /// Everything of a chunk's frame that stands before its data.
    #[must_use]
    pub fn encode(
        &self,
        data_bytes: usize,
    ) -> Option<[u8; FRAME_HEADER_BYTES + CHUNK_HEADER_BYTES]> {
        let header = FrameHeader {
            kind: FrameKind::Chunk,
            payload_bytes: CHUNK_HEADER_BYTES + data_bytes,
        };
        let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES + CHUNK_HEADER_BYTES);
        bytes.extend(header.encode().ok()?);
        bytes.extend(self.transfer.to_wire().to_be_bytes());
        bytes.extend(self.entry.get().to_be_bytes());
        bytes.extend(self.index.get().to_be_bytes());
        bytes.extend(self.digest.as_bytes());
        bytes.try_into().ok()
    }
}

/// Everything of a batch's frame that stands before its items.
#[must_use]
pub fn encode_batch_header(
    transfer: TransferId,
    items_bytes: usize,
) -> Option<[u8; FRAME_HEADER_BYTES + BATCH_HEADER_BYTES]> {
    let header = FrameHeader {
        kind: FrameKind::Batch,
        payload_bytes: BATCH_HEADER_BYTES + items_bytes,
    };
    let [a, b, c, d, e] = header.encode().ok()?;
    let [f, g, h, i] = transfer.to_wire().to_be_bytes();
    Some([a, b, c, d, e, f, g, h, i])
}

/// One whole small file in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchItem {
    /// The place of the file in the manifest.
    pub entry: EntryIndex,
    /// The file's hash.
    pub digest: Digest,
    /// Where the data lies in the items.
    pub data: Range<usize>,
}

impl BatchItem {
    /// The header: `entry: u32`, `length: u32`, big endian,
    /// and the digest.
    #[must_use]
    pub fn encode_header(
        entry: EntryIndex,
        length_bytes: u32,
        digest: Digest,
    ) -> [u8; BATCH_ITEM_BYTES] {
        let mut bytes = [0; BATCH_ITEM_BYTES];
        let (numbers, rest) = bytes.split_at_mut(8);
        let (first, second) = numbers.split_at_mut(4);
        first.copy_from_slice(&entry.get().to_be_bytes());
        second.copy_from_slice(&length_bytes.to_be_bytes());
        rest.copy_from_slice(digest.as_bytes());
        bytes
    }
}

/// Cuts the items of a batch: everything in its payload behind the transfer.
///
/// # Errors
/// [`FrameError::Batch`] when they do not fill `items` exactly.
pub fn batch_items(items: &[u8]) -> Result<Vec<BatchItem>, FrameError> {
    let mut found = Vec::new();
    let mut offset = 0;
    while offset < items.len() {
        let rest = items.get(offset..).unwrap_or_default();
        let (header, data) = rest
            .split_first_chunk::<BATCH_ITEM_BYTES>()
            .ok_or(FrameError::Batch)?;
        let (numbers, digest) = header.split_at(8);
        let (numbers, _) = numbers.as_chunks::<4>();
        let number = |place: usize| numbers.get(place).copied().map_or(0, u32::from_be_bytes);
        let length = usize::try_from(number(1)).unwrap_or(usize::MAX);
        if length > data.len() {
            return Err(FrameError::Batch);
        }
        let start = offset + BATCH_ITEM_BYTES;
        found.push(BatchItem {
            entry: EntryIndex::new(number(0)),
            digest: Digest::from_bytes(digest.try_into().unwrap_or_default()),
            data: start..start + length,
        });
        offset = start + length;
    }
    Ok(found)
}

/// The digest of one chunk that is not sent, because the receiver has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestItem {
    /// The place of the file in the manifest.
    pub entry: EntryIndex,
    /// The place of the chunk in the file.
    pub index: ChunkIndex,
    /// [`Digest::of_chunk`] of the chunk as the sender has it.
    pub digest: Digest,
}

/// The frame that carries these digests; `None` when they are none or more
/// than [`DIGEST_ITEMS_MAX`].
#[must_use]
pub fn encode_digests(transfer: TransferId, items: &[DigestItem]) -> Option<Vec<u8>> {
    let header = FrameHeader {
        kind: FrameKind::Digests,
        payload_bytes: BATCH_HEADER_BYTES + items.len() * DIGEST_ITEM_BYTES,
    };
    let mut bytes = header.encode().ok().filter(|_| !items.is_empty())?.to_vec();
    bytes.extend(transfer.to_wire().to_be_bytes());
    for item in items {
        bytes.extend(item.entry.get().to_be_bytes());
        bytes.extend(item.index.get().to_be_bytes());
        bytes.extend(item.digest.as_bytes());
    }
    Some(bytes)
}

/// Everything in the payload of a list of digests behind the transfer: `entry:
/// u32`, `index: u32`, big endian, and the digest, as often as there is room.
///
/// # Errors
/// [`FrameError::Digests`] when they do not fill `items` exactly.
pub fn digest_items(items: &[u8]) -> Result<Vec<DigestItem>, FrameError> {
    let (items, rest) = items.as_chunks::<DIGEST_ITEM_BYTES>();
    if !rest.is_empty() {
        return Err(FrameError::Digests);
    }
    let item = |item: &[u8; DIGEST_ITEM_BYTES]| {
        let (numbers, digest) = item.split_at(8);
        let (numbers, _) = numbers.as_chunks::<4>();
        let number = |place: usize| numbers.get(place).copied().map_or(0, u32::from_be_bytes);
        DigestItem {
            entry: EntryIndex::new(number(0)),
            index: ChunkIndex::new(number(1)),
            digest: Digest::from_bytes(digest.try_into().unwrap_or_default()),
        }
    };
    Ok(items.iter().map(item).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::index::short::entry;

    fn header(length_bytes: u32, id: u8) -> [u8; FRAME_HEADER_BYTES] {
        let [a, b, c, d] = length_bytes.to_be_bytes();
        [a, b, c, d, id]
    }

    #[test]
    fn the_limits_of_each_kind() {
        for kind in [
            FrameKind::Control,
            FrameKind::Chunk,
            FrameKind::Batch,
            FrameKind::Digests,
        ] {
            assert_eq!(FrameKind::from_id(kind as u8), Ok(kind));
            for (payload_bytes, fits) in [
                (kind.min_payload_bytes() - 1, false),
                (kind.min_payload_bytes(), true),
                (kind.max_payload_bytes(), true),
                (kind.max_payload_bytes() + 1, false),
            ] {
                let length_bytes = u32::try_from(payload_bytes + 1).unwrap();
                let decoded = FrameHeader::decode(header(length_bytes, kind as u8));
                let right = if fits {
                    Ok(FrameHeader {
                        kind,
                        payload_bytes,
                    })
                } else {
                    Err(FrameError::Length { length_bytes })
                };
                assert_eq!(decoded, right);
            }
        }
    }

    #[test]
    fn huge_zero_and_unknown_frames_are_refused() {
        for (length_bytes, id) in [(0, 1), (u32::MAX, 1), (u32::MAX, 2), (1 << 31, 3)] {
            let error = FrameHeader::decode(header(length_bytes, id)).unwrap_err();
            assert_eq!(error, FrameError::Length { length_bytes });
        }
        for id in [0, 5, 0xff] {
            assert_eq!(
                FrameHeader::decode(header(5, id)),
                Err(FrameError::UnknownKind(id))
            );
        }
    }

    #[test]
    fn a_message_too_long_for_a_frame_is_not_sent() {
        let entries = (0..100_000).map(|place| (entry(place), 1)).collect();
        let transfer = TransferId::from_wire(0);
        let error = encode_message(&Message::Skip { transfer, entries }).unwrap_err();
        assert!(matches!(error, FrameError::Length { .. }));
    }

    proptest! {
        #[test]
        fn any_header_is_refused_or_within_its_limits(bytes: [u8; FRAME_HEADER_BYTES]) {
            if let Ok(header) = FrameHeader::decode(bytes) {
                prop_assert!(header.payload_bytes <= header.kind.max_payload_bytes());
                prop_assert_eq!(header.encode(), Ok(bytes));
            }
        }

        #[test]
        fn garbage_is_no_message(bytes: Vec<u8>) {
            prop_assert!(decode_message(&bytes).is_err());
        }

        #[test]
        fn a_cut_message_is_refused(cut in 0usize..60) {
            let transfer = TransferId::from_wire(7);
            let frame = encode_message(&Message::Durable { transfer, entries: 1 }).unwrap();
            let payload = &frame[FRAME_HEADER_BYTES..];
            prop_assume!(cut < payload.len());
            prop_assert!(decode_message(&payload[..cut]).is_err());
        }

        #[test]
        fn a_chunk_header_reads_back(transfer: u32, entry: u32, index: u32, digest: [u8; 32]) {
            let header = ChunkHeader {
                transfer: TransferId::from_wire(transfer),
                entry: EntryIndex::new(entry),
                index: ChunkIndex::new(index),
                digest: Digest::from_bytes(digest),
            };
            let bytes = header.encode(10).unwrap();
            let (_, payload) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>().unwrap();
            prop_assert_eq!(ChunkHeader::decode(payload.try_into().unwrap()), header);
        }

        #[test]
        fn batch_items_lie_in_the_frame_and_never_overlap(bytes: Vec<u8>) {
            if let Ok(items) = batch_items(&bytes) {
                let mut end = 0;
                for item in items {
                    prop_assert_eq!(item.data.start, end + BATCH_ITEM_BYTES);
                    end = item.data.end;
                }
                prop_assert_eq!(end, bytes.len());
            }
        }

        #[test]
        fn a_batch_reads_back(files in prop::collection::vec(any::<Vec<u8>>(), 1..8), cut in 1usize..40) {
            let mut bytes = Vec::new();
            for (data, place) in files.iter().zip(0..) {
                let length = u32::try_from(data.len()).unwrap();
                let digest = Digest::of_file(data);
                bytes.extend(BatchItem::encode_header(entry(place), length, digest));
                bytes.extend(data);
            }
            let items = batch_items(&bytes).unwrap();
            prop_assert_eq!(items.len(), files.len());
            for (item, data) in items.iter().zip(&files) {
                prop_assert_eq!(&bytes[item.data.clone()], data.as_slice());
                prop_assert_eq!(item.digest, Digest::of_file(data));
            }
            let last = files.last().unwrap().len();
            if cut < last + BATCH_ITEM_BYTES {
                prop_assert!(batch_items(&bytes[..bytes.len() - cut]).is_err());
            }
        }
    }
}
