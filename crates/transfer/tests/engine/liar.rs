//! A peer that speaks the protocol by hand, frame by frame, and may lie.

use std::path::Path;

use crate::support::{Peer, names};
use pinhole_transfer::chunking::Chunking;
use pinhole_transfer::digest::Digest;
use pinhole_transfer::frame::{
    BATCH_HEADER_BYTES, BatchItem, CHUNK_HEADER_BYTES, ChunkHeader, DigestItem, FRAME_HEADER_BYTES,
    FrameHeader, FrameKind, batch_items, encode_batch_header, encode_digests,
};
use pinhole_transfer::{
    ChunkIndex, EntryIndex, ExchangeError, ExchangeEvent, Owner, Resources, Side, TransferId,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

pub(crate) const MIB: usize = 1024 * 1024;

/// Of a chunk of a file with more of them; a shorter first one is the only one.
pub(crate) fn chunk_digest(index: u32, data: &[u8]) -> Digest {
    if index == 0 && data.len() < MIB {
        return Digest::of_file(data);
    }
    let lengths = Chunking::new((u64::from(index) + 2) * MIB as u64).unwrap();
    Digest::of_chunk(lengths.place(ChunkIndex::new(index)).unwrap(), data)
}
pub(crate) const FAILED: &str =
    r#"{"type":"file_failed","transfer":0,"entry":0,"trouble":"not_found"}"#;

/// The lying side of a connection.
pub(crate) struct Liar {
    pub(crate) stream: DuplexStream,
}

pub(crate) fn pair() -> (Liar, Peer) {
    let (left, right) = tokio::io::duplex(8 * MIB);
    (Liar { stream: left }, Peer::over(right, Side::Responder))
}

/// Beside bob, on a connection with the peer who has this key.
pub(crate) fn pair_of(key: [u8; 32], resources: Resources) -> (Liar, Peer) {
    let (left, right) = tokio::io::duplex(8 * MIB);
    let owner = Owner::stranger(key);
    let bob = Peer::with(right, Side::Responder, owner, resources);
    (Liar { stream: left }, bob)
}

pub(crate) fn id(id: u32) -> TransferId {
    serde_json::from_value(id.into()).unwrap()
}

pub(crate) fn digest_item(entry: u32, index: u32, digest: Digest) -> DigestItem {
    DigestItem {
        entry: EntryIndex::new(entry),
        index: ChunkIndex::new(index),
        digest,
    }
}

impl Liar {
    pub(crate) async fn bytes(&mut self, bytes: &[u8]) {
        // The other side may have hung up already.
        let _ = self.stream.write_all(bytes).await;
    }

    pub(crate) async fn json(&mut self, json: &str) {
        let length = u32::try_from(json.len() + 1).unwrap();
        self.bytes(&length.to_be_bytes()).await;
        self.bytes(&[1]).await;
        self.bytes(json.as_bytes()).await;
    }

    /// Offers files of these sizes, named 0, 1, 2.
    pub(crate) async fn offer(&mut self, sizes: &[usize]) {
        self.offer_as(0, sizes, "").await;
    }

    /// As `offer`, and all of them travel before the answer.
    pub(crate) async fn offer_early(&mut self, transfer: u32, sizes: &[usize]) {
        let early = format!(r#","early":{}"#, sizes.iter().sum::<usize>());
        self.offer_as(transfer, sizes, &early).await;
    }

    /// As `offer`, and the first chunk travels before the answer.
    pub(crate) async fn offer_chunk(&mut self, transfer: u32, sizes: &[usize]) {
        let early = format!(r#","early":{}"#, sizes[0].min(MIB));
        self.offer_as(transfer, sizes, &early).await;
    }

    /// As `offer`, with these words more.
    pub(crate) async fn offer_as(&mut self, transfer: u32, sizes: &[usize], early: &str) {
        let total: usize = sizes.iter().sum();
        let count = sizes.len();
        self.json(&format!(
            r#"{{"type":"offer","transfer":{transfer},"entries":{count},"total_bytes":{total}{early}}}"#
        ))
        .await;
        let entries: Vec<_> = sizes
            .iter()
            .enumerate()
            .map(|(name, size)| format!(r#"{{"file":{{"path":"{name}","size_bytes":{size}}}}}"#))
            .collect();
        let entries = entries.join(",");
        self.json(&format!(
            r#"{{"type":"entries","transfer":{transfer},"entries":[{entries}]}}"#
        ))
        .await;
    }

    pub(crate) async fn chunk(&mut self, entry: u32, index: u32, data: &[u8], digest: Digest) {
        self.chunk_as(0, entry, index, data, digest).await;
    }

    /// A genuine one of that transfer.
    pub(crate) async fn chunk_of(&mut self, transfer: u32, entry: u32, index: u32, data: &[u8]) {
        let digest = chunk_digest(index, data);
        self.chunk_as(transfer, entry, index, data, digest).await;
    }

    async fn chunk_as(
        &mut self,
        transfer: u32,
        entry: u32,
        index: u32,
        data: &[u8],
        digest: Digest,
    ) {
        let header = ChunkHeader {
            transfer: id(transfer),
            entry: EntryIndex::new(entry),
            index: ChunkIndex::new(index),
            digest,
        };
        self.bytes(&header.encode(data.len()).unwrap()).await;
        self.bytes(data).await;
    }

    pub(crate) async fn digests(&mut self, items: &[(u32, u32, Digest)]) {
        let items: Vec<_> = items
            .iter()
            .map(|&(entry, index, digest)| digest_item(entry, index, digest))
            .collect();
        self.bytes(&encode_digests(id(0), &items).unwrap()).await;
    }

    /// Returns when bob has read everything that was said before.
    pub(crate) async fn caught_up(&mut self, bob: &mut Peer) {
        self.json(r#"{"type":"text","transfer":1000,"text":""}"#)
            .await;
        loop {
            if let ExchangeEvent::Text { id, .. } = bob.event().await {
                break bob.exchange.take_text(id).unwrap();
            }
        }
        assert_eq!(self.hear().await["type"], "durable");
    }

    /// The beginning of a chunk that would go on.
    pub(crate) async fn half_a_chunk(&mut self, entry: u32, index: u32, data: &[u8]) {
        let header = ChunkHeader {
            transfer: id(0),
            entry: EntryIndex::new(entry),
            index: ChunkIndex::new(index),
            digest: chunk_digest(index, data),
        };
        self.bytes(&header.encode(data.len()).unwrap()).await;
        self.bytes(&data[..data.len() / 2]).await;
    }

    pub(crate) async fn batch(&mut self, files: &[(u32, &[u8])]) {
        self.batch_of(0, files).await;
    }

    pub(crate) async fn batch_of(&mut self, transfer: u32, files: &[(u32, &[u8])]) {
        let mut items = Vec::new();
        for (entry, data) in files {
            let length = u32::try_from(data.len()).unwrap();
            items.extend(BatchItem::encode_header(
                EntryIndex::new(*entry),
                length,
                Digest::of_file(data),
            ));
            items.extend(*data);
        }
        self.bytes(&encode_batch_header(id(transfer), items.len()).unwrap())
            .await;
        self.bytes(&items).await;
    }

    async fn hear_frame(&mut self) -> (FrameKind, Vec<u8>) {
        let mut header = [0; FRAME_HEADER_BYTES];
        self.stream.read_exact(&mut header).await.unwrap();
        let header = FrameHeader::decode(header).unwrap();
        let mut payload = vec![0; header.payload_bytes];
        self.stream.read_exact(&mut payload).await.unwrap();
        (header.kind, payload)
    }

    /// The files of a batch that the other side sends next.
    pub(crate) async fn hear_batch(&mut self) -> Vec<(u32, Vec<u8>)> {
        let (kind, payload) = self.hear_frame().await;
        assert_eq!(kind, FrameKind::Batch);
        let items = &payload[BATCH_HEADER_BYTES..];
        let found = batch_items(items).unwrap();
        let file = |item: BatchItem| (item.entry.get(), items[item.data].to_vec());
        found.into_iter().map(file).collect()
    }

    /// The chunk that the other side sends next: its file, place and data.
    pub(crate) async fn hear_chunk(&mut self) -> (u32, u32, Vec<u8>) {
        let (kind, payload) = self.hear_frame().await;
        assert_eq!(kind, FrameKind::Chunk);
        let (header, data) = payload.split_first_chunk::<CHUNK_HEADER_BYTES>().unwrap();
        let header = ChunkHeader::decode(header);
        (header.entry.get(), header.index.get(), data.to_vec())
    }

    /// What the other side says up to a batch. Returns its last word before.
    pub(crate) async fn hear_until_batch(&mut self) -> String {
        let mut last = String::new();
        loop {
            match self.hear_frame().await {
                (FrameKind::Batch, _) => return last,
                (FrameKind::Control, payload) => {
                    let said: serde_json::Value = serde_json::from_slice(&payload).unwrap();
                    last = said["type"].as_str().unwrap().to_owned();
                }
                _ => {}
            }
        }
    }

    /// What the other side says next, if it is not of a file.
    pub(crate) async fn hear_any(&mut self) -> Option<serde_json::Value> {
        let (kind, payload) = self.hear_frame().await;
        (kind == FrameKind::Control).then(|| serde_json::from_slice(&payload).unwrap())
    }

    pub(crate) async fn end(&mut self, entry: u32, chunks: &[&[u8]]) {
        let root = Digest::of_file(&chunks.concat());
        self.json(&format!(
            r#"{{"type":"file_end","transfer":0,"entry":{entry},"root":"{root}"}}"#
        ))
        .await;
    }

    /// The kind of what the other side sends next.
    pub(crate) async fn hear_kind(&mut self) -> FrameKind {
        self.hear_frame().await.0
    }

    /// What the other side says next.
    pub(crate) async fn hear(&mut self) -> serde_json::Value {
        let (_, payload) = self.hear_frame().await;
        serde_json::from_slice(&payload).unwrap()
    }

    /// The other side's words up to its last.
    pub(crate) async fn hear_close(&mut self) -> serde_json::Value {
        loop {
            let said = self.hear().await;
            if said["type"] == "close" {
                return said;
            }
        }
    }
}

/// Offers `sizes` and has bob accept into `into`.
pub(crate) async fn accepted(sizes: &[usize], into: &Path) -> (Liar, Peer, TransferId) {
    let (mut liar, mut bob) = pair();
    liar.offer(sizes).await;
    let id = bob.accept_next(into).await;
    assert_eq!(liar.hear().await["type"], "accept");
    (liar, bob, id)
}

/// The liar must have been found out: the connection is over with a reason on
/// both sides, and nothing is left in the folder.
pub(crate) async fn assert_refused(mut liar: Liar, mut bob: Peer, into: &Path, what: &str) {
    let said = liar.hear_close().await;
    assert!(said["violation"].is_string(), "{what}: {said}");
    let reason = bob.closed().await;
    assert!(
        matches!(reason, Some(ExchangeError::Violation(_))),
        "{what}: {reason:?}"
    );
    assert!(names(into).is_empty(), "{what}: {:?}", names(into));
}
