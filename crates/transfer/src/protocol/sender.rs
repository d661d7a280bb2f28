//! The sending side of one transfer as a state machine without I/O: which
//! words of the receiver are believed, and when everything has arrived.
//!
//! ```text
//! Offered ──Skip…, Have…, Accept──► Sending ──Durable of all entries──► complete
//!    └──────────Decline──► (over)
//! ```
//!
//! What travels before the answer ([`EarlyData`]) is sent in either phase, and whether it
//! is wanted or not. Nothing of it is believed to have arrived before `Accept`. A file
//! of which only the first chunk travels then starts anew if the receiver has it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::protocol::early::EarlyData;
use crate::protocol::index::{ChunkIndex, EntryIndex};
use crate::protocol::manifest::{Entry, Manifest};
use crate::protocol::selection::Selection;
use crate::protocol::violation::Violation;

/// What is durable on the other side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivered {
    /// How many files.
    pub files: u32,
    /// Their bytes.
    pub bytes: u64,
}

impl Delivered {
    /// Those of these entries that are files and wanted. A stream had `streamed_bytes`.
    fn add(
        &mut self,
        selection: &Selection,
        streamed_bytes: u64,
        entries: impl Iterator<Item = EntryIndex>,
    ) {
        for index in entries.filter(|index| !selection.skipped().contains(index)) {
            let entry = selection.manifest().entry(index);
            if let Some(file) = entry.filter(|entry| entry.is_file()) {
                self.files += 1;
                self.bytes += file.file_size_bytes().unwrap_or(streamed_bytes);
            }
        }
    }
}

/// What the receiver said when it took the offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// What is to be sent.
    pub selection: Arc<Selection>,
    /// How many chunks, from the first, it has of other files.
    pub have: BTreeMap<EntryIndex, u32>,
}

/// The sender's side of one transfer.
#[derive(Debug)]
pub struct Sender {
    manifest: Arc<Manifest>,
    phase: Phase,
    /// What does not wait for the answer.
    early: EarlyData,
    /// The first entry that is not yet sent, failed or skipped.
    sent: EntryIndex,
    failed: BTreeSet<EntryIndex>,
    failed_folders: BTreeSet<EntryIndex>,
    /// Files that the receiver does not want.
    skipped: BTreeSet<EntryIndex>,
    /// Of which files the receiver has how many chunks, and how many of them
    /// it has compared.
    have: BTreeMap<EntryIndex, (u32, u32)>,
    /// The receiver may have received all of it before.
    was_sent: bool,
    /// How much of a stream was sent, and how much of that has arrived.
    streamed_bytes: u64,
    arrived_bytes: u64,
}

#[derive(Debug)]
enum Phase {
    Offered,
    Sending {
        selection: Arc<Selection>,
        /// The first entry that the receiver has not yet called durable.
        durable: EntryIndex,
        delivered: Delivered,
        /// What of it travelled whole before the answer.
        early: Delivered,
    },
}

impl Sender {
    /// A transfer whose offer is on its way, and what does not wait for the
    /// answer behind it.
    #[must_use]
    pub fn new(manifest: Arc<Manifest>, early: EarlyData) -> Self {
        Self {
            sent: manifest.next_file(EntryIndex::FIRST),
            manifest,
            phase: Phase::Offered,
            early,
            failed: BTreeSet::new(),
            failed_folders: BTreeSet::new(),
            skipped: BTreeSet::new(),
            have: BTreeMap::new(),
            was_sent: false,
            streamed_bytes: 0,
            arrived_bytes: 0,
        }
    }

    /// All of it was sent before, and the offer says so: the receiver may say at
    /// once that it has it.
    #[must_use]
    pub fn sent_before(mut self) -> Self {
        self.was_sent = true;
        self
    }

    /// What does not wait for the answer.
    #[must_use]
    pub const fn early(&self) -> EarlyData {
        self.early
    }

    /// The file that goes on behind its first chunk, which travels before the answer.
    /// `None` before that is known, and where it came to nothing.
    #[must_use]
    pub fn goes_on_behind(&self) -> Option<EntryIndex> {
        let begun = self.early.begun();
        begun.filter(|&begun| self.counts_early(begun))
    }

    /// Whether the receiver may hold a chunk until it has answered.
    #[must_use]
    pub const fn holds_chunk(&self) -> bool {
        self.early.is_chunk() && !self.is_accepted()
    }

    /// What of this file travels before the answer counts: the offer was accepted, and
    /// the receiver wants it.
    #[must_use]
    pub fn counts_early(&self, entry: EntryIndex) -> bool {
        let Phase::Sending { selection, .. } = &self.phase else {
            return false;
        };
        let is_here = self.early.begun() == Some(entry) && self.have.contains_key(&entry);
        !selection.skipped().contains(&entry) && !is_here
    }

    /// Bytes of files that travelled whole before the answer, and are durable on the
    /// other side.
    #[must_use]
    pub const fn delivered_early_bytes(&self) -> u64 {
        match &self.phase {
            Phase::Offered => 0,
            Phase::Sending { early, .. } => early.bytes,
        }
    }

    /// Whether the receiver has taken the offer.
    #[must_use]
    pub const fn is_accepted(&self) -> bool {
        matches!(self.phase, Phase::Sending { .. })
    }

    /// The receiver does not want the files in these runs of entries, before
    /// it accepts.
    ///
    /// # Errors
    /// Too late, entries that do not exist, or out of order.
    pub fn skip(&mut self, runs: &[(EntryIndex, u32)]) -> Result<(), Violation> {
        if self.is_accepted() {
            return Err(Violation::State("skip"));
        }
        for &(first, count) in runs {
            let end = first.checked_add(count);
            let end = end.filter(|end| *end <= self.manifest.end());
            let is_behind = self.skipped.last().is_none_or(|last| first > *last);
            let Some(end) = end.filter(|_| is_behind && count > 0) else {
                return Err(Violation::Entry(first));
            };
            self.skipped.extend(first.until(end));
        }
        Ok(())
    }

    /// The receiver has these chunks of these files, before it accepts.
    ///
    /// # Errors
    /// Too late, no file, more chunks than it has, out of order, or it travels whole
    /// before the answer.
    pub fn have(&mut self, files: &[(EntryIndex, u32)]) -> Result<(), Violation> {
        if self.is_accepted() {
            return Err(Violation::State("have"));
        }
        for &(entry, chunks) in files {
            let lengths = self.manifest.lengths(entry);
            let lengths = lengths.ok_or(Violation::Entry(entry))?;
            let last = self.have.last_key_value();
            if self.early.holds(entry) || last.is_some_and(|(last, _)| entry <= *last) {
                return Err(Violation::Entry(entry));
            }
            // An empty file has none.
            if chunks > lengths.chunks() || (chunks == 0 && lengths.chunks() > 0) {
                return Err(Violation::Have { entry, chunks });
            }
            self.have.insert(entry, (chunks, 0));
        }
        Ok(())
    }

    /// The receiver has compared the first `chunks` of a file. Returns how many
    /// bytes of them need not be sent, and how many must.
    ///
    /// # Errors
    /// Compared before or never there, or chunks that were not compared now.
    pub fn compared(
        &mut self,
        entry: EntryIndex,
        chunks: u32,
        differing: &[(ChunkIndex, u32)],
    ) -> Result<(u64, u64), Violation> {
        if !self.is_accepted() {
            return Err(Violation::State("compared"));
        }
        let cannot_be = Violation::Have { entry, chunks };
        let lengths = self.manifest.lengths(entry).ok_or(cannot_be.clone())?;
        let (have, compared) = self.have.get_mut(&entry).ok_or(cannot_be.clone())?;
        if chunks <= *compared || chunks > *have {
            return Err(cannot_be);
        }
        let newly = ChunkIndex::new(*compared);
        let (mut end, mut differing_bytes) = (newly, 0);
        for &(first, count) in differing {
            let run_end = first
                .checked_add(count)
                .filter(|run_end| *run_end <= ChunkIndex::new(chunks));
            let Some(run_end) = run_end.filter(|_| first >= end && count > 0) else {
                return Err(Violation::Chunk {
                    entry,
                    index: first,
                });
            };
            end = run_end;
            differing_bytes += lengths.run_bytes(first, count);
        }
        let all_bytes = lengths.run_bytes(newly, chunks - *compared);
        *compared = chunks;
        Ok((all_bytes - differing_bytes, differing_bytes))
    }

    /// The receiver takes the offer. Returns the files it wants, and how many
    /// chunks it has of which.
    ///
    /// # Errors
    /// Accepted twice.
    pub fn accepted(&mut self) -> Result<Accepted, Violation> {
        if self.is_accepted() {
            return Err(Violation::State("accept"));
        }
        let skipped = std::mem::take(&mut self.skipped);
        let selection = Arc::new(Selection::without(Arc::clone(&self.manifest), skipped));
        self.phase = Phase::Sending {
            selection: Arc::clone(&selection),
            durable: EntryIndex::FIRST,
            delivered: Delivered::default(),
            early: Delivered::default(),
        };
        self.advance(self.sent);
        let skipped = selection.skipped();
        let wanted = self.have.iter().filter(|(e, _)| !skipped.contains(e));
        let have = wanted
            .map(|(&entry, &(chunks, _))| (entry, chunks))
            .collect();
        Ok(Accepted { selection, have })
    }

    /// The receiver does not take the offer.
    ///
    /// # Errors
    /// Declined after it was accepted.
    pub const fn declined(&self) -> Result<(), Violation> {
        match self.phase {
            Phase::Offered => Ok(()),
            Phase::Sending { .. } => Err(Violation::State("decline")),
        }
    }

    /// This side has sent the file `entry` to its end.
    pub fn sent(&mut self, entry: EntryIndex) {
        self.advance(entry.next());
    }

    /// This side sends so much more of a stream.
    pub const fn streamed(&mut self, bytes: u64) {
        self.streamed_bytes += bytes;
    }

    /// How much of a stream the receiver has written, as far as it has said.
    #[must_use]
    pub const fn arrived_bytes(&self) -> u64 {
        self.arrived_bytes
    }

    /// The receiver has written so much of a stream. Returns how much of that is news.
    ///
    /// # Errors
    /// More than was sent, or less than before; nothing is sent of what is no stream.
    pub fn arrived(&mut self, size_bytes: u64) -> Result<u64, Violation> {
        let news_bytes = size_bytes.checked_sub(self.arrived_bytes);
        match news_bytes.filter(|_| size_bytes <= self.streamed_bytes) {
            Some(news_bytes) if self.manifest.is_stream() => {
                self.arrived_bytes = size_bytes;
                Ok(news_bytes)
            }
            _ => Err(Violation::Arrived(size_bytes)),
        }
    }

    /// This side could not send the file `entry` of an offer that was accepted. Returns
    /// whether that is news.
    pub fn failed(&mut self, entry: EntryIndex) -> bool {
        self.advance(entry.next());
        let Phase::Sending { selection, .. } = &self.phase else {
            return false;
        };
        !selection.skipped().contains(&entry) && self.failed.insert(entry)
    }

    /// A failure before the answer is told behind it, when later files may be sent.
    fn advance(&mut self, from: EntryIndex) {
        let from = from.max(self.sent);
        self.sent = match &self.phase {
            Phase::Sending { selection, .. } => selection.next_file(from),
            Phase::Offered => self.manifest.next_file(from),
        };
    }

    /// The receiver could not keep the file, or make the folder, `entry`. Returns
    /// whether that is news.
    ///
    /// # Errors
    /// A file that this side did not begin to send, or what is durable or skipped.
    pub fn peer_failed(&mut self, entry: EntryIndex) -> Result<bool, Violation> {
        let Phase::Sending {
            durable, selection, ..
        } = &self.phase
        else {
            return Err(Violation::State("file_failed"));
        };
        let (failed, due) = match self.manifest.entry(entry) {
            Some(Entry::File { .. } | Entry::Stream { .. }) => {
                (&mut self.failed, *durable..=self.sent)
            }
            // Those are made before anything is sent.
            Some(Entry::Folder { .. }) => {
                (&mut self.failed_folders, *durable..=self.manifest.end())
            }
            None => return Err(Violation::Entry(entry)),
        };
        if !due.contains(&entry) || selection.skipped().contains(&entry) {
            return Err(Violation::Entry(entry));
        }
        Ok(failed.insert(entry))
    }

    /// The receiver has made the first `entries` durable. Returns whether
    /// that is all of them.
    ///
    /// # Errors
    /// More than was sent, or less than before.
    pub fn durable(&mut self, entries: u32) -> Result<bool, Violation> {
        let Phase::Sending {
            selection,
            durable,
            delivered,
            early,
        } = &mut self.phase
        else {
            let is_all = self.was_sent && entries == self.manifest.count();
            return is_all.then_some(true).ok_or(Violation::State("durable"));
        };
        let failed = &self.failed;
        let end = EntryIndex::new(entries);
        // One that the receiver gave up may still be on its way.
        let due = match failed.contains(&self.sent) {
            true => selection.next_file(self.sent.next()),
            false => self.sent,
        };
        if end > due || end < *durable {
            return Err(Violation::Durable(entries));
        }
        let newly = durable.until(end).filter(|index| !failed.contains(index));
        let streamed_bytes = self.streamed_bytes;
        early.add(
            selection,
            streamed_bytes,
            newly.clone().take_while(|it| self.early.holds(*it)),
        );
        delivered.add(selection, streamed_bytes, newly);
        *durable = end;
        Ok(end == self.manifest.end())
    }

    /// What will have been delivered when the receiver has all that was sent; `None`
    /// before everything was.
    #[must_use]
    pub fn all_sent(&self) -> Option<Delivered> {
        let Phase::Sending {
            selection, durable, ..
        } = &self.phase
        else {
            return None;
        };
        let all = self.manifest.end();
        let mut delivered = self.delivered();
        let rest = durable.until(all);
        let rest = rest.filter(|index| !self.failed.contains(index));
        delivered.add(selection, self.streamed_bytes, rest);
        (self.sent == all).then_some(delivered)
    }

    /// How many files the receiver does not want.
    #[must_use]
    pub fn skipped_files(&self) -> u32 {
        match &self.phase {
            Phase::Offered => 0,
            Phase::Sending { selection, .. } => selection.skipped_files(),
        }
    }

    /// How many files did not make it.
    #[must_use]
    pub fn failed_files(&self) -> u32 {
        u32::try_from(self.failed.len()).unwrap_or(u32::MAX)
    }

    /// How many folders the receiver could not make.
    #[must_use]
    pub fn failed_folders(&self) -> u32 {
        u32::try_from(self.failed_folders.len()).unwrap_or(u32::MAX)
    }

    /// What is durable on the other side.
    #[must_use]
    pub const fn delivered(&self) -> Delivered {
        match &self.phase {
            Phase::Offered => Delivered { files: 0, bytes: 0 },
            Phase::Sending { delivered, .. } => *delivered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::index::short::{chunk, entry};
    use crate::protocol::manifest::ManifestBuilder;

    /// A folder, two files of so many and 2 bytes, a folder, a file of 3 bytes.
    fn manifest(size_bytes: u32) -> Arc<Manifest> {
        let mut builder = ManifestBuilder::default();
        for entry in [
            r#"{"folder":{"path":"d"}}"#,
            &format!(r#"{{"file":{{"path":"d/1","size_bytes":{size_bytes}}}}}"#),
            r#"{"file":{"path":"d/2","size_bytes":2}}"#,
            r#"{"folder":{"path":"e"}}"#,
            r#"{"file":{"path":"e/3","size_bytes":3}}"#,
        ] {
            builder.push(serde_json::from_str(entry).unwrap()).unwrap();
        }
        Arc::new(builder.build())
    }

    fn entries(runs: &[(u32, u32)]) -> Vec<(EntryIndex, u32)> {
        let typed = |&(first, count): &(u32, u32)| (entry(first), count);
        runs.iter().map(typed).collect()
    }

    fn sender() -> Sender {
        Sender::new(manifest(1), EarlyData::default())
    }

    fn early_sender(size_bytes: u32) -> Sender {
        let manifest = manifest(size_bytes);
        let early = EarlyData::of(&manifest);
        Sender::new(manifest, early)
    }

    #[test]
    fn complete_only_when_all_is_durable() {
        let mut sender = sender();
        sender.accepted().unwrap();
        sender.sent(entry(1));
        assert_eq!(sender.durable(2), Ok(false));
        sender.sent(entry(2));
        sender.sent(entry(4));
        assert_eq!(sender.delivered(), Delivered { files: 1, bytes: 1 });
        assert_eq!(sender.durable(4), Ok(false));
        assert_eq!(sender.durable(5), Ok(true));
        assert_eq!(sender.delivered(), Delivered { files: 3, bytes: 6 });
        assert_eq!(sender.failed_files(), 0);
    }

    #[test]
    fn failures_of_either_side_and_skips_are_not_delivered() {
        let mut sender = sender();
        sender.skip(&[(entry(2), 1)]).unwrap();
        let accepted = sender.accepted().unwrap();
        assert_eq!(accepted.selection.skipped(), &BTreeSet::from([entry(2)]));
        sender.failed(entry(1));
        sender.sent(entry(4));
        assert_eq!(sender.peer_failed(entry(4)), Ok(true));
        assert_eq!(sender.peer_failed(entry(4)), Ok(false));
        assert_eq!(sender.durable(5), Ok(true));
        assert_eq!(sender.delivered(), Delivered::default());
        assert_eq!((sender.failed_files(), sender.skipped_files()), (2, 1));
    }

    #[test]
    fn acknowledgements_it_does_not_own_are_refused() {
        let mut sender = sender();
        assert_eq!(sender.durable(0), Err(Violation::State("durable")));
        assert_eq!(
            sender.peer_failed(entry(1)),
            Err(Violation::State("file_failed"))
        );
        sender.accepted().unwrap();
        assert_eq!(sender.durable(2), Err(Violation::Durable(2)));
        assert_eq!(
            sender.peer_failed(entry(2)),
            Err(Violation::Entry(entry(2)))
        );
        assert_eq!(sender.peer_failed(entry(0)), Ok(true), "a folder");
        sender.sent(entry(1));
        sender.durable(2).unwrap();
        assert_eq!(sender.durable(1), Err(Violation::Durable(1)));
        assert_eq!(
            sender.peer_failed(entry(1)),
            Err(Violation::Entry(entry(1))),
            "durable already"
        );
        assert_eq!(sender.durable(u32::MAX), Err(Violation::Durable(u32::MAX)));
    }

    #[test]
    fn a_file_that_the_receiver_gave_up_needs_no_end() {
        let mut sender = sender();
        sender.skip(&[(entry(2), 1)]).unwrap();
        sender.accepted().unwrap();
        assert_eq!(sender.durable(2), Err(Violation::Durable(2)));
        sender.peer_failed(entry(1)).unwrap();
        assert_eq!(sender.durable(5), Err(Violation::Durable(5)));
        assert_eq!(sender.durable(4), Ok(false));
        assert_eq!(
            sender.peer_failed(entry(4)),
            Err(Violation::Entry(entry(4))),
            "not begun"
        );
        sender.failed(entry(1));
        sender.sent(entry(4));
        assert_eq!(sender.durable(5), Ok(true));
        assert_eq!(sender.delivered(), Delivered { files: 1, bytes: 3 });
    }

    #[test]
    fn an_offer_is_answered_once_and_about_its_own_files() {
        for runs in [
            &[(0, 6)][..],
            &[(5, 1)],
            &[(1, 0)],
            &[(u32::MAX, 1)],
            &[(1, u32::MAX)],
            &[(2, 1), (2, 1)],
            &[(2, 1), (1, 1)],
        ] {
            assert!(sender().skip(&entries(runs)).is_err(), "{runs:?}");
        }
        let mut sender = sender();
        sender.accepted().unwrap();
        assert_eq!(sender.accepted(), Err(Violation::State("accept")));
        assert_eq!(sender.declined(), Err(Violation::State("decline")));
        assert_eq!(sender.skip(&[(entry(1), 1)]), Err(Violation::State("skip")));
    }

    /// One file of four and a half chunks.
    fn large() -> Sender {
        let mut builder = ManifestBuilder::default();
        let entry = r#"{"file":{"path":"large","size_bytes":4718592}}"#;
        builder.push(serde_json::from_str(entry).unwrap()).unwrap();
        Sender::new(Arc::new(builder.build()), EarlyData::default())
    }

    #[test]
    fn what_the_receiver_has_is_counted_once_it_was_compared() {
        const MIB: u64 = 1 << 20;
        let mut sender = large();
        sender.have(&[(entry(0), 5)]).unwrap();
        assert_eq!(
            sender.accepted().unwrap().have,
            BTreeMap::from([(entry(0), 5)])
        );
        assert_eq!(
            sender.compared(entry(0), 2, &[(chunk(1), 1)]),
            Ok((MIB, MIB))
        );
        let rest = sender.compared(entry(0), 5, &[(chunk(2), 1), (chunk(4), 1)]);
        assert_eq!(rest, Ok((MIB, MIB + MIB / 2)));
        assert!(sender.compared(entry(0), 5, &[]).is_err(), "again");
    }

    #[test]
    fn a_lying_receiver_has_nothing() {
        for files in [&[(1, 1)][..], &[(0, 0)], &[(0, 6)], &[(0, 1), (0, 2)]] {
            assert!(large().have(&entries(files)).is_err(), "{files:?}");
        }
        let mut sender = large();
        assert_eq!(
            sender.compared(entry(0), 1, &[]),
            Err(Violation::State("compared"))
        );
        sender.have(&[(entry(0), 3)]).unwrap();
        sender.accepted().unwrap();
        assert_eq!(sender.have(&[(entry(0), 3)]), Err(Violation::State("have")));
        for (of, chunks, differing) in [
            (1, 1, &[][..]),
            (0, 0, &[]),
            (0, 4, &[]),
            (0, 3, &[(3, 1)]),
            (0, 3, &[(0, 0)]),
            (0, 3, &[(0, u32::MAX)]),
            (0, 3, &[(u32::MAX, u32::MAX)]),
            (0, 3, &[(1, 1), (0, 1)]),
            (0, 3, &[(0, 2), (1, 1)]),
        ] {
            let runs = differing
                .iter()
                .map(|&(first, count)| (chunk(first), count));
            let answer = sender.compared(entry(of), chunks, &Vec::from_iter(runs));
            assert!(answer.is_err(), "{of} {chunks} {differing:?}");
        }
    }

    #[test]
    fn what_is_sent_before_the_answer_counts_only_once_it_was_accepted() {
        let mut sender = early_sender(1);
        assert!(!sender.holds_chunk());
        sender.sent(entry(1));
        sender.sent(entry(2));
        assert_eq!(sender.durable(5), Err(Violation::State("durable")));
        assert_eq!(
            sender.peer_failed(entry(1)),
            Err(Violation::State("file_failed"))
        );
        assert_eq!(
            sender.have(&[(entry(1), 1)]),
            Err(Violation::Entry(entry(1)))
        );
        assert_eq!(sender.delivered(), Delivered::default());
        sender.accepted().unwrap();
        assert_eq!(sender.durable(5), Err(Violation::Durable(5)), "not sent");
        assert!(sender.counts_early(entry(4)) && sender.failed(entry(4)));
        assert_eq!(sender.durable(5), Ok(true));
        assert_eq!(sender.delivered(), Delivered { files: 2, bytes: 3 });
        assert_eq!(sender.delivered_early_bytes(), 3);
        assert_eq!(sender.failed_files(), 1);
    }

    #[test]
    fn what_was_sent_before_the_answer_and_skipped_is_neither_delivered_nor_failed() {
        let mut sender = early_sender(1);
        sender.sent(entry(2));
        sender.skip(&[(entry(1), 2)]).unwrap();
        sender.accepted().unwrap();
        assert!(
            !sender.counts_early(entry(1)) && !sender.failed(entry(1)),
            "not wanted"
        );
        assert_eq!(
            sender.peer_failed(entry(1)),
            Err(Violation::Entry(entry(1)))
        );
        assert_eq!(sender.durable(5), Err(Violation::Durable(5)), "not sent");
        assert_eq!(sender.durable(4), Ok(false));
        sender.sent(entry(4));
        assert_eq!(sender.durable(5), Ok(true));
        assert_eq!(sender.delivered(), Delivered { files: 1, bytes: 3 });
        assert_eq!((sender.failed_files(), sender.skipped_files()), (0, 2));
    }

    #[test]
    fn a_failure_that_is_told_late_takes_nothing_back() {
        let mut sender = early_sender(1);
        sender.sent(entry(2));
        sender.sent(entry(4));
        sender.accepted().unwrap();
        assert!(sender.failed(entry(1)));
        assert_eq!(sender.durable(5), Ok(true));
        assert_eq!(sender.delivered(), Delivered { files: 2, bytes: 5 });
    }

    #[test]
    fn a_chunk_is_gone_behind_only_if_the_file_is_sent_from_its_beginning() {
        const BYTES: u32 = 100_000;
        for (skipped, have, behind) in [
            (&[][..], &[][..], Some(1)),
            (&[(2, 3)], &[(2, 1)], Some(1)),
            (&[(0, 2)], &[], None),
            (&[], &[(1, 1)], None),
        ] {
            let mut sender = early_sender(BYTES);
            assert!(sender.holds_chunk());
            assert_eq!(sender.goes_on_behind(), None, "nobody knows");
            sender.skip(&entries(skipped)).unwrap();
            sender.have(&entries(have)).unwrap();
            sender.accepted().unwrap();
            assert_eq!(sender.goes_on_behind(), behind.map(entry));
            assert!(!sender.holds_chunk());
        }
        let mut sender = sender();
        sender.accepted().unwrap();
        assert_eq!(sender.goes_on_behind(), None);
    }

    #[test]
    fn all_skipped_is_all_sent() {
        let mut sender = sender();
        sender.skip(&[(entry(1), 2)]).unwrap();
        sender.skip(&[(entry(4), 1)]).unwrap();
        sender.accepted().unwrap();
        assert_eq!(sender.durable(5), Ok(true));
    }
}
