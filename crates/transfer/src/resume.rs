//! What a transfer remembers in memory from one attempt to the next.
//!
//! A file that the receiver has made durable once is settled: a later attempt holds
//! the sender's digests against the one that was noted then, never against what is
//! on the disk by now, which may be the user's again. So an accepted offer is
//! received once, however often the connection breaks.

use std::sync::Arc;

use crate::event::Summary;
use crate::protocol::digest::Digest;
use crate::protocol::index::EntryIndex;
use crate::protocol::manifest::{Entry, Manifest};
use parking_lot::{Mutex, MutexGuard};

/// What the attempts at one transfer share. Clones are the same. The next attempt
/// gets the one of the attempt before, by
/// [`send_resumable`](crate::Exchange::send_resumable) or
/// [`prepare`](crate::Exchange::prepare); another offer gets a new one.
#[derive(Debug, Clone, Default)]
pub struct ResumeState(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    is_begun: bool,
    /// Receiving: the files that were made durable, in the order of the manifest,
    /// and their roots.
    settled: Vec<(EntryIndex, Digest)>,
    /// Sending: what was sent to its end, though perhaps not acknowledged.
    sent: Option<Sent>,
}

/// An offer whose files were all sent.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) manifest: Arc<Manifest>,
    /// The digest of the files that were sent.
    pub(crate) digest: Digest,
    /// What it comes to if all of that was received.
    pub(crate) summary: Summary,
}

impl ResumeState {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// Notes an attempt. Returns whether it is the first.
    pub(crate) fn begin(&self) -> bool {
        !std::mem::replace(&mut self.state().is_begun, true)
    }

    /// These files were made durable. Those that were before stay as they are.
    pub(crate) fn settle(&self, files: impl IntoIterator<Item = (EntryIndex, Digest)>) {
        let mut state = self.state();
        for (entry, root) in files {
            let place = state.settled.binary_search_by_key(&entry, |(it, _)| *it);
            if let Err(place) = place {
                state.settled.insert(place, (entry, root));
            }
        }
    }

    /// Whether any file is settled.
    pub(crate) fn has_settled(&self) -> bool {
        !self.state().settled.is_empty()
    }

    /// The root of a file that is settled.
    pub(crate) fn settled(&self, entry: EntryIndex) -> Option<Digest> {
        let state = self.state();
        let place = state.settled.binary_search_by_key(&entry, |(it, _)| *it);
        Some(state.settled.get(place.ok()?)?.1)
    }

    /// Whether a file that is settled was something else than what has this root.
    pub(crate) fn differs(&self, manifest: &Manifest, entry: EntryIndex, root: Digest) -> bool {
        let size_bytes = manifest.entry(entry).and_then(Entry::file_size_bytes);
        // An empty file has another root in a batch than alone.
        let is_empty = size_bytes == Some(0);
        self.settled(entry)
            .is_some_and(|settled| settled != root && !is_empty)
    }

    pub(crate) fn note_sent(&self, sent: Sent) {
        self.state().sent = Some(sent);
    }

    /// What was sent completely of this offer.
    pub(crate) fn sent(&self, manifest: &Manifest) -> Option<Sent> {
        let state = self.state();
        state
            .sent
            .clone()
            .filter(|sent| *sent.manifest == *manifest)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::protocol::index::short::entry;
    use crate::protocol::manifest::ManifestBuilder;

    #[test]
    fn what_is_settled_stays_what_it_was() {
        let mut builder = ManifestBuilder::default();
        for size in 0..8 {
            let json = format!(r#"{{"file":{{"path":"{size}","size_bytes":{size}}}}}"#);
            builder.push(serde_json::from_str(&json).unwrap()).unwrap();
        }
        let manifest = builder.build();
        let digest = |byte| Digest::from_bytes([byte; 32]);
        let root = |(of, byte)| (entry(of), digest(byte));
        let resume = ResumeState::default();
        assert!(!resume.has_settled());
        resume.settle([(3, 3), (7, 7), (0, 0)].map(root));
        // A second attempt settles a file that failed in the first.
        resume.clone().settle([(5, 5), (7, 9)].map(root));
        assert!(resume.has_settled());
        for (of, byte) in [
            (0, Some(0)),
            (3, Some(3)),
            (4, None),
            (5, Some(5)),
            (7, Some(7)),
        ] {
            assert_eq!(resume.settled(entry(of)), byte.map(digest), "{of}");
        }
        assert!(resume.differs(&manifest, entry(7), digest(9)));
        assert!(!resume.differs(&manifest, entry(7), digest(7)));
        assert!(
            !resume.differs(&manifest, entry(4), digest(9)),
            "not settled"
        );
        assert!(!resume.differs(&manifest, entry(0), digest(9)), "empty");
    }
}
