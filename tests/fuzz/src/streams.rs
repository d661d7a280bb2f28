//! Both state machines with a stream, whatever the other side says of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pinhole_transfer::{
    ChunkIndex, Entry, EntryIndex, Manifest, SafePath, Selection, chunking::CHUNK_BYTES,
    early::EarlyData, manifest::ManifestBuilder, receiver::Receiver, sender::Sender,
};

use super::Choices;

fn manifest() -> Arc<Manifest> {
    let mut builder = ManifestBuilder::default();
    let path = SafePath::parse("s").expect("a name");
    builder.push(Entry::Stream { path }).expect("a stream");
    Arc::new(builder.build())
}

/// What is let through is a chunk behind another, each full but the last, and one end that
/// says how long that is.
pub(crate) fn receive(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let manifest = manifest();
    let mut receiver = Receiver::new(manifest.clone(), EarlyData::default());
    let skips = choices.below(4) == 3;
    if choices.below(4) == 3 {
        assert!(
            receiver
                .chunk(EntryIndex::FIRST, ChunkIndex::FIRST, 1)
                .is_err()
        );
        assert!(receiver.stream_end(EntryIndex::FIRST, 0).is_err());
    }
    let skipped = BTreeSet::from_iter(skips.then_some(EntryIndex::FIRST));
    let selection = Arc::new(Selection::without(manifest, skipped));
    receiver.accept(selection, &BTreeMap::new());
    let (mut chunks, mut come_bytes, mut is_over) = (0, 0_u64, skips);
    while choices.are_left() {
        assert_eq!(receiver.is_complete(), is_over);
        let what = choices.byte();
        // Mostly what is due, or nothing would ever get far.
        let entry = match what & 0x80 {
            0 => EntryIndex::FIRST,
            _ => choices.entry(),
        };
        let index = match what & 0x40 {
            0 => ChunkIndex::new(chunks),
            _ => choices.chunk(),
        };
        match what % 6 {
            0 => {
                let full = CHUNK_BYTES as usize;
                let size = match choices.byte() {
                    byte @ ..4 => byte as usize,
                    4 => full + 1,
                    _ => full,
                };
                if receiver.chunk(entry, index, size).is_ok() {
                    assert!(!is_over && entry == EntryIndex::FIRST && index.get() == chunks);
                    assert_eq!(come_bytes, u64::from(chunks) * u64::from(CHUNK_BYTES));
                    assert!((1..=full).contains(&size));
                    chunks += 1;
                    come_bytes += size as u64;
                }
            }
            1 => {
                let size = come_bytes.wrapping_add(u64::from(choices.byte() % 4 / 3));
                if receiver.stream_end(entry, size).is_ok() {
                    assert!(!is_over && entry == EntryIndex::FIRST && size == come_bytes);
                    is_over = true;
                }
            }
            2 => assert!(receiver.file_end(entry).is_err()),
            3 => assert!(receiver.small_file(entry, choices.byte() as usize).is_err()),
            4 => assert!(receiver.digest(entry, index).is_err()),
            _ => {
                if receiver.file_failed(entry).is_ok() {
                    assert!(!is_over && entry == EntryIndex::FIRST);
                    is_over = true;
                }
            }
        }
    }
}

/// No more has arrived than was sent, and nothing is durable before its end.
pub(crate) fn send(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let mut sender = Sender::new(manifest(), EarlyData::default());
    let (mut is_accepted, mut is_over) = (false, false);
    let (mut sent_bytes, mut arrived_bytes) = (0_u64, 0_u64);
    while choices.are_left() {
        let is_believed = match choices.byte() % 8 {
            0 => sender
                .have(&[(EntryIndex::FIRST, choices.number())])
                .is_ok(),
            1 => sender
                .compared(EntryIndex::FIRST, choices.number(), &[])
                .is_ok(),
            2 => {
                let accepted = sender.accepted().is_ok();
                assert_eq!(accepted, !is_accepted);
                is_accepted = true;
                accepted
            }
            3 if is_accepted && !is_over => {
                let more = u64::from(choices.number());
                sender.streamed(more);
                sent_bytes += more;
                true
            }
            4 => {
                let size = u64::from(choices.number());
                let told = sender.arrived(size);
                if let Ok(news) = told {
                    assert!(size <= sent_bytes && size - news == arrived_bytes);
                    arrived_bytes = size;
                }
                told.is_ok()
            }
            5 if is_accepted && !is_over => {
                sender.sent(EntryIndex::FIRST);
                is_over = true;
                true
            }
            6 => {
                let told = sender.durable(choices.number());
                if let Ok(true) = told {
                    assert!(is_over && sender.delivered().bytes == sent_bytes);
                    return;
                }
                told.is_ok()
            }
            _ => true,
        };
        if !is_believed {
            // A lie; an exchange ends with it.
            return;
        }
    }
}
