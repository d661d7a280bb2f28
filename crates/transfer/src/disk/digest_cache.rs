//! What this process has found the chunks of files to be, so that nothing is
//! read again for a transfer that goes on after its connection broke.
//!
//! It trusts only what cannot have changed: the file is the same, as long as
//! before, and was neither written nor touched since; and what this side has
//! written itself counts once the disk has it, because what a disk fails to
//! write is gone without a trace.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::sync::Arc;

use crate::disk::version::FileVersion;
use crate::protocol::chunking::CHUNK_BYTES;
use crate::protocol::digest::Digest;
use crate::protocol::index::ChunkIndex;
use parking_lot::{Mutex, MutexGuard};

/// Most chunks that are remembered, of all files together: 256 GiB, in 9 MB.
const CHUNKS_MAX: usize = 256 * 1024;
/// What a file costs beside its chunks, in chunks.
const FILE_COST: usize = 8;
/// So that any one file can be remembered.
const COST_MAX: usize = CHUNKS_MAX + FILE_COST;

/// The digests of chunks of files that were read, written or compared. Clones
/// are the same.
#[derive(Debug, Clone, Default)]
pub struct DigestCache(Arc<Mutex<Files>>);

#[derive(Debug, Default)]
struct Files {
    chunks: HashMap<FileVersion, Arc<Chunks>>,
    /// From the one remembered first.
    order: VecDeque<FileVersion>,
    cost: usize,
}

/// A file of one chunk is soon read again.
const fn is_of_use(version: &FileVersion) -> bool {
    version.size_bytes() > CHUNK_BYTES as u64
}

/// What it costs at most to remember this file, in chunks.
fn cost(version: &FileVersion) -> usize {
    let chunks = version.size_bytes().div_ceil(u64::from(CHUNK_BYTES));
    FILE_COST + usize::try_from(chunks).map_or(CHUNKS_MAX, |chunks| chunks.min(CHUNKS_MAX))
}

impl DigestCache {
    fn files(&self) -> MutexGuard<'_, Files> {
        self.0.lock()
    }

    /// The digests of this open file: those known now, and those to be added.
    pub(crate) fn recall(&self, file: &File) -> Arc<Chunks> {
        let version = FileVersion::of(file).ok().filter(is_of_use);
        version.map_or_else(Arc::default, |version| self.files().recall(version))
    }

    /// From now on `chunks` is what is known of this open file, as long as it
    /// stays as it is now: as far as the disk has it.
    pub(crate) fn remember(&self, file: &File, chunks: &Arc<Chunks>) {
        chunks.take_fresh();
        if let Some(version) = FileVersion::of(file).ok().filter(is_of_use) {
            self.files().insert(version, Arc::clone(chunks));
        }
    }
}

impl Files {
    fn recall(&mut self, version: FileVersion) -> Arc<Chunks> {
        if let Some(chunks) = self.chunks.get(&version) {
            return Arc::clone(chunks);
        }
        let chunks = Arc::default();
        self.insert(version, Arc::clone(&chunks));
        chunks
    }

    fn insert(&mut self, version: FileVersion, chunks: Arc<Chunks>) {
        if self.chunks.insert(version, chunks).is_none() {
            self.order.push_back(version);
            self.cost += cost(&version);
        }
        while self.cost > COST_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.cost -= cost(&oldest);
            self.chunks.remove(&oldest);
        }
    }
}

/// The digests of chunks of one file, as far as they are known.
#[derive(Debug, Default)]
pub(crate) struct Chunks(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Those that the disk has.
    durable: Vec<Option<Digest>>,
    /// Those that it may not have yet.
    fresh: FreshDigests,
}

/// Digests of chunks that the disk may not have yet.
pub(crate) type FreshDigests = Vec<(ChunkIndex, Digest)>;

impl Chunks {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    pub(crate) fn get(&self, index: ChunkIndex) -> Option<Digest> {
        let index = usize::try_from(index.get()).ok()?;
        self.state().durable.get(index).copied().flatten()
    }

    /// The disk has this chunk, with this digest.
    pub(crate) fn set(&self, index: ChunkIndex, digest: Digest) {
        self.state().set(index, Some(digest));
    }

    /// The chunk is not, or soon not any more, what it was.
    pub(crate) fn forget(&self, index: ChunkIndex) {
        let mut state = self.state();
        state.set(index, None);
        state.fresh.retain(|(fresh, _)| *fresh != index);
    }

    /// The chunk has this digest, but is perhaps not on the disk yet.
    pub(crate) fn wrote(&self, index: ChunkIndex, digest: Digest) {
        if is_remembered(index) {
            self.state().fresh.push((index, digest));
        }
    }

    /// What is to be [`settled`](Chunks::settle) once the disk has all that is
    /// written by now.
    pub(crate) fn take_fresh(&self) -> FreshDigests {
        std::mem::take(&mut self.state().fresh)
    }

    /// The disk has these.
    pub(crate) fn settle(&self, fresh: FreshDigests) {
        let mut state = self.state();
        for (index, digest) in fresh {
            state.set(index, Some(digest));
        }
    }
}

impl State {
    fn set(&mut self, index: ChunkIndex, digest: Option<Digest>) {
        let place = usize::try_from(index.get()).ok();
        let Some(index) = place.filter(|_| is_remembered(index)) else {
            return;
        };
        if index >= self.durable.len() && digest.is_some() {
            self.durable.resize(index + 1, None);
        }
        if let Some(room) = self.durable.get_mut(index) {
            *room = digest;
        }
    }
}

const fn is_remembered(index: ChunkIndex) -> bool {
    (index.get() as usize) < CHUNKS_MAX
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::Path;

    use tempfile::tempdir;

    use super::*;
    use crate::protocol::index::short::chunk;

    const MIB: usize = CHUNK_BYTES as usize;

    fn digest(of: u8) -> Digest {
        Digest::of_file(&[of])
    }

    /// A file of three chunks.
    fn file_in(folder: &Path, name: &str) -> File {
        let path = folder.join(name);
        fs::write(&path, vec![1; 3 * MIB]).unwrap();
        File::options().append(true).open(path).unwrap()
    }

    #[test]
    fn a_file_that_stays_as_it_is_is_known_until_it_changes() {
        let folder = tempdir().unwrap();
        let mut file = file_in(folder.path(), "a");
        let known = DigestCache::default();
        known.recall(&file).set(chunk(1), digest(1));
        let again = File::open(folder.path().join("a")).unwrap();
        let chunks = known.recall(&again);
        assert_eq!(
            [0, 1, 2].map(|it| chunks.get(chunk(it))),
            [None, Some(digest(1)), None]
        );
        let other = file_in(folder.path(), "b");
        assert_eq!(known.recall(&other).get(chunk(1)), None);

        file.write_all(b"more").unwrap();
        assert_eq!(known.recall(&again).get(chunk(1)), None, "it is longer");
        known.remember(&file, &chunks);
        assert_eq!(known.recall(&again).get(chunk(1)), Some(digest(1)));
        // Its time is set back, but not the one that says so.
        let modified = file.metadata().unwrap().modified().unwrap();
        file.set_modified(modified).unwrap();
        let is_noticed = cfg!(unix);
        assert_eq!(known.recall(&again).get(chunk(1)).is_none(), is_noticed);
    }

    #[test]
    fn what_was_written_counts_once_the_disk_has_it() {
        let chunks = Chunks::default();
        let known = || [0, 1, 2].map(|index| chunks.get(chunk(index)).is_some());
        chunks.wrote(chunk(0), digest(0));
        chunks.wrote(chunk(1), digest(1));
        let fresh = chunks.take_fresh();
        chunks.wrote(chunk(2), digest(2));
        assert_eq!(known(), [false; 3]);
        chunks.settle(fresh);
        assert_eq!(known(), [true, true, false]);
        chunks.forget(chunk(1));
        chunks.forget(chunk(2));
        chunks.settle(chunks.take_fresh());
        assert_eq!(known(), [true, false, false]);
    }

    #[test]
    fn what_the_disk_may_not_have_is_not_remembered() {
        let folder = tempdir().unwrap();
        let file = file_in(folder.path(), "a");
        let known = DigestCache::default();
        let chunks = known.recall(&file);
        chunks.set(chunk(0), digest(0));
        chunks.wrote(chunk(1), digest(1));
        known.remember(&file, &chunks);
        let chunks = known.recall(&file);
        chunks.settle(chunks.take_fresh());
        assert_eq!(
            (chunks.get(chunk(0)), chunks.get(chunk(1))),
            (Some(digest(0)), None)
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let folder = tempdir().unwrap();
        let files = [0, 1, 2].map(|number| {
            let file = file_in(folder.path(), &number.to_string());
            let chunks = CHUNKS_MAX as u64 / 2;
            file.set_len(chunks * MIB as u64).unwrap();
            file
        });
        let known = DigestCache::default();
        for file in &files {
            known.recall(file).set(chunk(0), digest(7));
        }
        let are_known = files
            .each_ref()
            .map(|it| known.recall(it).get(chunk(0)).is_some());
        assert!(!are_known[0], "the oldest is forgotten");
        assert!(known.files().cost <= COST_MAX);

        let small = file_in(folder.path(), "small");
        small.set_len(MIB as u64).unwrap();
        known.recall(&small).set(chunk(0), digest(7));
        assert_eq!(known.recall(&small).get(chunk(0)), None);
        let chunks = Chunks::default();
        chunks.set(chunk(u32::MAX), digest(7));
        assert_eq!(chunks.get(chunk(u32::MAX)), None);
        assert!(chunks.state().durable.is_empty());
    }
}
