//! The frames of a session: what is taken is within its limits and reads back
//! as it was.

use pinhole_transfer::frame::{
    BATCH_HEADER_BYTES, BATCH_ITEM_BYTES, CHUNK_HEADER_BYTES, ChunkHeader, DIGEST_ITEM_BYTES,
    FRAME_HEADER_BYTES, FrameHeader, FrameKind, batch_items, decode_message, digest_items,
    encode_message,
};

/// One frame behind the other, until one is refused or cut short.
pub fn hold(mut bytes: &[u8]) {
    while let Some((header, rest)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() {
        let Ok(header) = FrameHeader::decode(*header) else {
            return;
        };
        let limits = header.kind.min_payload_bytes()..=header.kind.max_payload_bytes();
        assert!(limits.contains(&header.payload_bytes));
        // What the stream lacks is filled up, or every length would have to be
        // guessed right.
        let mut payload = rest.get(..header.payload_bytes).unwrap_or(rest).to_vec();
        bytes = rest.get(header.payload_bytes..).unwrap_or_default();
        if header.kind != FrameKind::Control {
            payload.resize(header.payload_bytes, 0);
        }
        match header.kind {
            FrameKind::Control => control(&payload),
            FrameKind::Chunk => chunk(&payload),
            FrameKind::Batch => batch(&payload[BATCH_HEADER_BYTES..]),
            FrameKind::Digests => digests(&payload[BATCH_HEADER_BYTES..]),
        }
    }
}

fn control(payload: &[u8]) {
    let Ok(message) = decode_message(payload) else {
        return;
    };
    // Longer than it came only where that makes it longer than a frame.
    if let Ok(encoded) = encode_message(&message) {
        let again = decode_message(&encoded[FRAME_HEADER_BYTES..]);
        assert_eq!(again, Ok(message));
    }
}

fn chunk(payload: &[u8]) {
    let (header, data) = payload
        .split_first_chunk::<CHUNK_HEADER_BYTES>()
        .expect("the least payload");
    let decoded = ChunkHeader::decode(header);
    let encoded = decoded.encode(data.len()).expect("it came so");
    assert_eq!(encoded[FRAME_HEADER_BYTES..], header[..]);
}

fn batch(items: &[u8]) {
    let Ok(found) = batch_items(items) else {
        return;
    };
    let mut end = 0;
    for item in &found {
        assert_eq!(item.data.start, end + BATCH_ITEM_BYTES);
        end = item.data.end;
    }
    assert_eq!(end, items.len());
}

fn digests(items: &[u8]) {
    if let Ok(found) = digest_items(items) {
        assert_eq!(found.len() * DIGEST_ITEM_BYTES, items.len());
    }
}
