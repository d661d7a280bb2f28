//! The sender's state machine against a record of what is so: it believes of
//! the receiver exactly what can be true, and counts nothing twice.

use std::collections::{BTreeMap, BTreeSet};

use pinhole_transfer::{
    ChunkIndex, EntryIndex, Manifest,
    early::EarlyData,
    sender::{Delivered, Sender},
};

use super::{Choices, files, size_bytes, streams};

struct Record<'a> {
    manifest: &'a Manifest,
    early: EarlyData,
    /// Files that could not be sent before the answer.
    failed_early: BTreeSet<EntryIndex>,
    was_sent: bool,
    is_accepted: bool,
    have: BTreeMap<EntryIndex, (u32, u32)>,
    skipped: BTreeSet<EntryIndex>,
    failed: BTreeSet<EntryIndex>,
    failed_folders: BTreeSet<EntryIndex>,
    sent: BTreeSet<EntryIndex>,
    durable: EntryIndex,
    delivered: Delivered,
}

/// A manifest, and what the receiver says then, while this side sends: from the
/// answer on, and with early data; and of what was sent before.
pub fn hold(bytes: &[u8]) {
    streams::send(bytes);
    for is_early in [false, true] {
        hold_with(bytes, is_early, false);
        hold_with(bytes, is_early, true);
    }
}

fn hold_with(bytes: &[u8], is_early: bool, was_sent: bool) {
    let mut choices = Choices(bytes);
    let manifest = choices.manifest();
    let early = match is_early {
        true => EarlyData::of(&manifest),
        false => EarlyData::default(),
    };
    let mut record = Record {
        manifest: &manifest,
        early,
        failed_early: BTreeSet::new(),
        was_sent,
        is_accepted: false,
        have: BTreeMap::new(),
        skipped: BTreeSet::new(),
        failed: BTreeSet::new(),
        failed_folders: BTreeSet::new(),
        sent: BTreeSet::new(),
        durable: EntryIndex::FIRST,
        delivered: Delivered::default(),
    };
    let mut sender = Sender::new(manifest.clone(), early);
    if was_sent {
        sender = sender.sent_before();
    }
    while choices.are_left() {
        if !record.step(&mut sender, &mut choices) {
            // A lie; an exchange ends with it.
            return;
        }
        record.check_early(&sender);
        assert_eq!(sender.delivered(), record.delivered);
        assert_eq!(sender.failed_files() as usize, record.failed.len());
        assert_eq!(
            sender.failed_folders() as usize,
            record.failed_folders.len()
        );
        assert!(record.delivered.bytes <= manifest.total_bytes());
        assert!(record.delivered.files + sender.failed_files() <= manifest.files());
    }
}

impl Record<'_> {
    /// It goes on behind what went ahead exactly when the receiver does.
    fn check_early(&self, sender: &Sender) {
        let holds_chunk = self.early.is_chunk() && !self.is_accepted;
        assert_eq!(sender.holds_chunk(), holds_chunk);
        let is_wanted = |entry: &EntryIndex| {
            let is_whole = !self.skipped.contains(entry) && !self.have.contains_key(entry);
            self.is_accepted && is_whole
        };
        let begun = self.early.begun();
        assert_eq!(sender.goes_on_behind(), begun.filter(is_wanted));
    }

    /// The next file of which this side has not told what became of it.
    fn due(&self) -> Option<EntryIndex> {
        let is_left = |entry: &EntryIndex| {
            (self.early.holds(*entry) || !self.skipped.contains(entry))
                && !self.sent.contains(entry)
        };
        files(self.manifest).find(is_left)
    }

    /// The first entry that can not be durable yet.
    fn limit(&self) -> EntryIndex {
        let is_open = |entry: &EntryIndex| {
            !self.skipped.contains(entry)
                && !self.sent.contains(entry)
                && !self.failed.contains(entry)
        };
        let first = files(self.manifest).find(is_open);
        first.unwrap_or_else(|| self.manifest.end())
    }

    /// False when the machine has found a lie.
    fn step(&mut self, sender: &mut Sender, choices: &mut Choices<'_>) -> bool {
        match choices.byte() % 9 {
            0 => self.have(sender, &choices.runs(EntryIndex::new)),
            1 => self.accepted(sender),
            2 => {
                let can = !self.is_accepted;
                assert_eq!(sender.declined().is_ok(), can);
                can
            }
            what @ (3 | 4) => {
                self.own(sender, what == 3);
                true
            }
            5 => self.peer_failed(sender, choices.entry()),
            6 => self.compared(sender, choices),
            7 => self.durable(sender, choices.number()),
            _ => self.skip(sender, &choices.runs(EntryIndex::new)),
        }
    }

    fn have(&mut self, sender: &mut Sender, files: &[(EntryIndex, u32)]) -> bool {
        let is_believed = sender.have(files).is_ok();
        if is_believed {
            assert!(!self.is_accepted);
            for &(entry, chunks) in files {
                assert!(!self.early.holds(entry));
                let lengths = self.manifest.lengths(entry).expect("a file");
                assert!(chunks <= lengths.chunks());
                let last = self.have.last_key_value();
                assert!(last.is_none_or(|(last, _)| *last < entry));
                self.have.insert(entry, (chunks, 0));
            }
        }
        is_believed
    }

    fn skip(&mut self, sender: &mut Sender, runs: &[(EntryIndex, u32)]) -> bool {
        let is_believed = sender.skip(runs).is_ok();
        if is_believed {
            assert!(!self.is_accepted);
            for &(first, count) in runs {
                assert!(self.skipped.last().is_none_or(|last| *last < first));
                let end = first.checked_add(count).expect("an end");
                assert!(end <= self.manifest.end());
                self.skipped.extend(first.until(end));
            }
        }
        is_believed
    }

    fn accepted(&mut self, sender: &mut Sender) -> bool {
        let accepted = sender.accepted();
        assert_eq!(accepted.is_ok(), !self.is_accepted);
        let Ok(accepted) = accepted else {
            return false;
        };
        self.is_accepted = true;
        for &entry in &self.failed_early {
            let is_wanted = !self.skipped.contains(&entry);
            assert_eq!(sender.counts_early(entry), is_wanted);
            if is_wanted {
                assert!(sender.failed(entry));
                self.failed.insert(entry);
            }
        }
        assert_eq!(*accepted.selection.skipped(), self.skipped);
        let is_wanted = |entry: &EntryIndex| !self.skipped.contains(entry);
        assert!(accepted.have.keys().all(is_wanted));
        let wanted = files(self.manifest).filter(is_wanted);
        assert_eq!(accepted.selection.files() as usize, wanted.count());
        true
    }

    /// This side sends the next file, or cannot.
    fn own(&mut self, sender: &mut Sender, is_sent: bool) {
        let Some(entry) = self.due() else {
            return;
        };
        if !self.is_accepted && !self.early.holds(entry) {
            return;
        }
        self.sent.insert(entry);
        if is_sent {
            sender.sent(entry);
        } else if self.is_accepted {
            let is_news = !self.skipped.contains(&entry) && self.failed.insert(entry);
            assert_eq!(sender.failed(entry), is_news);
        } else {
            // Nobody knows yet whether that matters.
            self.failed_early.insert(entry);
        }
    }

    fn peer_failed(&mut self, sender: &mut Sender, entry: EntryIndex) -> bool {
        let is_wanted = |entry: &EntryIndex| !self.skipped.contains(entry);
        let mut wanted = files(self.manifest).filter(is_wanted);
        let due = wanted.find(|entry| !self.sent.contains(entry));
        // Folders are there before anything is sent.
        let is_folder = entry < self.manifest.end() && size_bytes(self.manifest, entry).is_none();
        let is_begun = is_folder || self.sent.contains(&entry) || due == Some(entry);
        let can = self.is_accepted && is_begun && is_wanted(&entry) && entry >= self.durable;
        let told = sender.peer_failed(entry);
        assert_eq!(told.is_ok(), can, "{entry}");
        told.is_ok_and(|is_news| {
            let failed = match is_folder {
                true => &mut self.failed_folders,
                false => &mut self.failed,
            };
            assert_eq!(is_news, failed.insert(entry));
            true
        })
    }

    fn compared(&mut self, sender: &mut Sender, choices: &mut Choices<'_>) -> bool {
        let (entry, chunks) = (choices.entry(), choices.number());
        let runs = choices.runs(ChunkIndex::new);
        let Ok((same, differing)) = sender.compared(entry, chunks, &runs) else {
            return false;
        };
        assert!(self.is_accepted);
        let lengths = self.manifest.lengths(entry).expect("a file");
        let (have, compared) = self.have.get_mut(&entry).expect("it was said to be there");
        assert!(chunks > *compared && chunks <= *have);
        assert_eq!(
            same + differing,
            lengths.run_bytes(ChunkIndex::new(*compared), chunks - *compared)
        );
        let mut end = ChunkIndex::new(*compared);
        for (first, count) in runs {
            assert!(first >= end && count > 0);
            end = first.checked_add(count).expect("an end");
        }
        assert!(end <= ChunkIndex::new(chunks));
        *compared = chunks;
        true
    }

    fn durable(&mut self, sender: &mut Sender, entries: u32) -> bool {
        let end = EntryIndex::new(entries);
        let can = match self.is_accepted {
            true => (self.durable..=self.limit()).contains(&end),
            false => self.was_sent && end == self.manifest.end(),
        };
        let told = sender.durable(entries);
        assert_eq!(told.is_ok(), can, "{entries} of {}", self.limit());
        let Ok(is_complete) = told else {
            return false;
        };
        assert_eq!(is_complete, end == self.manifest.end());
        if !self.is_accepted {
            // It is over, and counts as it did before.
            return false;
        }
        for entry in self.durable.until(end) {
            let size = size_bytes(self.manifest, entry);
            let size = size.filter(|_| !self.skipped.contains(&entry));
            if let Some(size) = size.filter(|_| !self.failed.contains(&entry)) {
                self.delivered.files += 1;
                self.delivered.bytes += size;
            }
        }
        self.durable = end;
        true
    }
}
