//! Beside the stages: holds what an earlier attempt has left against the
//! sender's digests, and asks for what differs.

use std::collections::{BTreeMap, HashMap};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::mpsc;

use super::{Receiving, Stopped};
use crate::disk::partial_file::Content;
use crate::disk::store::{Folders, Store};
use crate::disk::system;
use crate::protocol::chunking::{CHUNK_BYTES, Chunking};
use crate::protocol::digest::{Digest, Tree};
use crate::protocol::frame::DigestItem;
use crate::protocol::index::{ChunkIndex, EntryIndex};
use crate::protocol::message::Message;

/// What the comparison has found so far, file by file.
#[derive(Default)]
pub(super) struct Comparisons(Mutex<HashMap<EntryIndex, Comparison>>);

#[derive(Default)]
struct Comparison {
    /// Over the sender's digests of what was here.
    tree: Tree,
    /// Those of chunks that are sent after all.
    expected: BTreeMap<ChunkIndex, Digest>,
}

impl Comparisons {
    fn files(&self) -> MutexGuard<'_, HashMap<EntryIndex, Comparison>> {
        self.0.lock()
    }

    /// Chunks of a file were compared, and these of them differ.
    fn add(&self, entry: EntryIndex, compared: &[DigestItem], differing: &[DigestItem]) {
        let mut files = self.files();
        let file = files.entry(entry).or_default();
        for item in compared {
            file.tree.push(item.digest);
        }
        let differing = differing.iter().map(|item| (item.index, item.digest));
        file.expected.extend(differing);
    }

    /// The digest that a chunk must have because it was named before.
    pub(super) fn expected(&self, entry: EntryIndex, index: ChunkIndex) -> Option<Digest> {
        self.files().get_mut(&entry)?.expected.remove(&index)
    }

    /// The tree over what was here of a file that has ended.
    pub(super) fn take(&self, entry: EntryIndex) -> Tree {
        self.files()
            .remove(&entry)
            .map_or_else(Tree::default, |file| file.tree)
    }
}

/// A file that is being compared.
struct Left {
    entry: EntryIndex,
    /// `None` when it cannot be read any more; then all of it differs.
    content: Option<Content>,
    /// It is not looked at: the root of what comes tells whether it is the same.
    is_settled: bool,
    /// A finished file must stay as it is. If anything in it differs, all of
    /// it is sent again, so that its digests wait here until it is compared.
    waiting: Option<Vec<DigestItem>>,
    differs: bool,
}

impl Left {
    fn has(&self, lengths: Chunking, item: &DigestItem, buffer: &mut [u8]) -> bool {
        if self.is_settled {
            return true;
        }
        let Some(Content { file, chunks, .. }) = &self.content else {
            return false;
        };
        if let Some(known) = chunks.get(item.index) {
            return known == item.digest;
        }
        let mut read = || {
            let place = lengths.place(item.index)?;
            let data = buffer.get_mut(..place.length_bytes())?;
            system::read_at(file, data, place.offset_bytes()).ok()?;
            Some(Digest::of_chunk(place, data))
        };
        let is_here = read() == Some(item.digest);
        match (is_here, &self.waiting) {
            (true, Some(_)) => chunks.set(item.index, item.digest),
            // Perhaps the attempt before has not made it durable.
            (true, None) => chunks.wrote(item.index, item.digest),
            (false, _) => chunks.forget(item.index),
        }
        is_here
    }
}

impl Receiving {
    pub(super) fn compare(
        &self,
        store: &Store,
        mut digests: mpsc::Receiver<Vec<DigestItem>>,
        comparisons: &Comparisons,
    ) -> Result<(), Stopped> {
        let mut folders = Folders::default();
        let mut buffer = vec![0; CHUNK_BYTES as usize];
        let mut left: Option<Left> = None;
        while let Some(items) = digests.blocking_recv() {
            for run in items.chunk_by(|one, next| one.entry == next.entry) {
                self.check_stopped()?;
                let Some(first) = run.first() else {
                    continue;
                };
                let mut file = match left.take_if(|left| left.entry == first.entry) {
                    Some(left) => left,
                    None => self.open_left(store, &mut folders, first.entry),
                };
                self.compare_run(&mut file, run, &mut buffer, comparisons);
                left = Some(file);
            }
        }
        Ok(())
    }

    fn open_left(&self, store: &Store, folders: &mut Folders, entry: EntryIndex) -> Left {
        if store.is_settled(entry) {
            return Left {
                entry,
                content: None,
                is_settled: true,
                waiting: None,
                differs: false,
            };
        }
        let path = self.path(entry);
        let opened = path.and_then(|path| store.left(folders, entry, path));
        let (content, is_whole) = match opened {
            Ok((content, is_whole)) => (Some(content), is_whole),
            Err(error) => {
                tracing::info!(%error, %entry, "what an earlier attempt left is gone");
                (None, false)
            }
        };
        Left {
            entry,
            content,
            is_settled: false,
            waiting: is_whole.then(Vec::new),
            differs: false,
        }
    }

    /// Compares chunks of one file that lie behind each other.
    fn compare_run(
        &self,
        left: &mut Left,
        run: &[DigestItem],
        buffer: &mut [u8],
        comparisons: &Comparisons,
    ) {
        let Some(lengths) = self.manifest().lengths(left.entry) else {
            return;
        };
        let mut compared = run.to_vec();
        let mut differing = compared.clone();
        differing.retain(|item| !left.has(lengths, item, buffer));
        if let Some(waiting) = &mut left.waiting {
            left.differs |= !differing.is_empty();
            waiting.append(&mut compared);
            differing.clear();
            let end = waiting.last().map(|item| item.index.next());
            if end == Some(lengths.end()) {
                compared = std::mem::take(waiting);
                if left.differs {
                    differing.clone_from(&compared);
                }
            }
        }
        comparisons.add(left.entry, run, &differing);
        if let Some(last) = compared.last() {
            let differing_bytes = bytes_of(lengths, &differing);
            let same_bytes = bytes_of(lengths, &compared) - differing_bytes;
            self.transfer
                .progress
                .add_compared(same_bytes, differing_bytes);
            self.say_compared(
                left.entry,
                last.index.next().get(),
                ChunkIndex::runs(differing.iter().map(|item| item.index)),
            );
        }
    }

    fn say_compared(&self, entry: EntryIndex, chunks: u32, differing: Vec<(ChunkIndex, u32)>) {
        let transfer = self.transfer.id;
        self.inlet.compared(entry, chunks, &differing);
        self.connection.say(Message::Compared {
            transfer,
            entry,
            chunks,
            differing,
        });
    }
}

fn bytes_of(lengths: Chunking, items: &[DigestItem]) -> u64 {
    items
        .iter()
        .map(|item| lengths.run_bytes(item.index, 1))
        .sum()
}
