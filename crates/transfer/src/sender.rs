//! The sending side of one transfer as a state machine without I/O: which
//! words of the receiver are believed, and when everything has arrived.
//!
//! ```text
//! Offered ──Accept──► Sending ──Durable of all entries──► complete
//!    └─────Decline──► (over)
//! ```

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    manifest::{Entry, Manifest},
    message::{Choice, EntryChoice},
    violation::Violation,
};

/// What is durable on the other side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivered {
    /// How many files.
    pub files: u32,
    /// Their bytes.
    pub bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Sender {
    manifest: Arc<Manifest>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Offered,
    Sending {
        skipped: BTreeSet<u32>,
        failed: BTreeSet<u32>,
        /// Entries from the first that are sent, failed or skipped.
        sent: u32,
        /// Entries from the first that the receiver called durable.
        durable: u32,
        delivered: Delivered,
    },
}

impl Sender {
    /// A transfer whose offer is on its way.
    #[must_use]
    pub const fn new(manifest: Arc<Manifest>) -> Self {
        Self {
            manifest,
            phase: Phase::Offered,
        }
    }

    /// The receiver takes the offer. Returns the files it does not want.
    ///
    /// # Errors
    /// Accepted twice, or a choice about no file.
    pub fn accepted(&mut self, choices: &[EntryChoice]) -> Result<BTreeSet<u32>, Violation> {
        if !matches!(self.phase, Phase::Offered) {
            return Err(Violation::State("accept"));
        }
        let mut skipped = BTreeSet::new();
        for EntryChoice { entry, choice } in choices {
            if !matches!(self.manifest.entry(*entry), Some(Entry::File { .. })) {
                return Err(Violation::Entry(*entry));
            }
            match choice {
                Choice::Skip => skipped.insert(*entry),
            };
        }
        self.phase = Phase::Sending {
            skipped: skipped.clone(),
            failed: BTreeSet::new(),
            sent: 0,
            durable: 0,
            delivered: Delivered::default(),
        };
        self.advance(0);
        Ok(skipped)
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
    pub fn sent(&mut self, entry: u32) {
        self.advance(entry.saturating_add(1));
    }

    /// This side could not send the file `entry`. Returns whether that is
    /// news.
    pub fn failed(&mut self, entry: u32) -> bool {
        let news = match &mut self.phase {
            Phase::Sending { failed, .. } => failed.insert(entry),
            Phase::Offered => false,
        };
        self.advance(entry.saturating_add(1));
        news
    }

    fn advance(&mut self, from: u32) {
        if let Phase::Sending { skipped, sent, .. } = &mut self.phase {
            *sent = self.manifest.next_file(from);
            while skipped.contains(sent) {
                *sent = self.manifest.next_file(*sent + 1);
            }
        }
    }

    /// The receiver could not keep the file `entry`. Returns whether that is
    /// news.
    ///
    /// # Errors
    /// A file that this side did not begin to send, or that is durable.
    pub fn peer_failed(&mut self, entry: u32) -> Result<bool, Violation> {
        let Phase::Sending {
            failed,
            sent,
            durable,
            skipped,
            ..
        } = &mut self.phase
        else {
            return Err(Violation::State("file_failed"));
        };
        let is_file = matches!(self.manifest.entry(entry), Some(Entry::File { .. }));
        let due = *durable..=*sent;
        if !is_file || !due.contains(&entry) || skipped.contains(&entry) {
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
            skipped,
            failed,
            sent,
            durable,
            delivered,
        } = &mut self.phase
        else {
            return Err(Violation::State("durable"));
        };
        if entries > *sent || entries < *durable {
            return Err(Violation::Durable(entries));
        }
        for number in *durable..entries {
            if let Some(size_bytes) = self.manifest.entry(number).and_then(Entry::file_size_bytes)
                && !skipped.contains(&number)
                && !failed.contains(&number)
            {
                delivered.files += 1;
                delivered.bytes += size_bytes;
            }
        }
        *durable = entries;
        Ok(entries == self.manifest.count())
    }

    /// How many files did not make it.
    #[must_use]
    pub fn failed_files(&self) -> u32 {
        match &self.phase {
            Phase::Offered => 0,
            Phase::Sending { failed, .. } => u32::try_from(failed.len()).unwrap_or(u32::MAX),
        }
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
    use crate::manifest::ManifestBuilder;

    /// A folder, two files of 1 and 2 bytes, a folder, a file of 3 bytes.
    fn sender() -> Sender {
        let mut builder = ManifestBuilder::default();
        for entry in [
            r#"{"folder":{"path":"d"}}"#,
            r#"{"file":{"path":"d/1","size_bytes":1}}"#,
            r#"{"file":{"path":"d/2","size_bytes":2}}"#,
            r#"{"folder":{"path":"e"}}"#,
            r#"{"file":{"path":"e/3","size_bytes":3}}"#,
        ] {
            builder.push(serde_json::from_str(entry).unwrap()).unwrap();
        }
        Sender::new(Arc::new(builder.build()))
    }

    const SKIP_2: EntryChoice = EntryChoice {
        entry: 2,
        choice: Choice::Skip,
    };

    #[test]
    fn complete_only_when_all_is_durable() {
        let mut sender = sender();
        sender.accepted(&[]).unwrap();
        sender.sent(1);
        assert_eq!(sender.durable(2), Ok(false));
        sender.sent(2);
        sender.sent(4);
        assert_eq!(sender.delivered(), Delivered { files: 1, bytes: 1 });
        assert_eq!(sender.durable(4), Ok(false));
        assert_eq!(sender.durable(5), Ok(true));
        assert_eq!(sender.delivered(), Delivered { files: 3, bytes: 6 });
        assert_eq!(sender.failed_files(), 0);
    }

    #[test]
    fn failures_of_either_side_and_skips_are_not_delivered() {
        let mut sender = sender();
        assert_eq!(sender.accepted(&[SKIP_2]).unwrap(), BTreeSet::from([2]));
        sender.failed(1);
        sender.sent(4);
        assert_eq!(sender.peer_failed(4), Ok(true));
        assert_eq!(sender.peer_failed(4), Ok(false));
        assert_eq!(sender.durable(5), Ok(true));
        assert_eq!(sender.delivered(), Delivered::default());
        assert_eq!(sender.failed_files(), 2);
    }

    #[test]
    fn acknowledgements_it_does_not_own_are_refused() {
        let mut sender = sender();
        assert_eq!(sender.durable(0), Err(Violation::State("durable")));
        assert_eq!(sender.peer_failed(1), Err(Violation::State("file_failed")));
        sender.accepted(&[]).unwrap();
        assert_eq!(sender.durable(2), Err(Violation::Durable(2)));
        assert_eq!(sender.peer_failed(2), Err(Violation::Entry(2)));
        assert_eq!(sender.peer_failed(0), Err(Violation::Entry(0)));
        sender.sent(1);
        sender.durable(2).unwrap();
        assert_eq!(sender.durable(1), Err(Violation::Durable(1)));
        assert_eq!(
            sender.peer_failed(1),
            Err(Violation::Entry(1)),
            "durable already"
        );
        assert_eq!(sender.durable(u32::MAX), Err(Violation::Durable(u32::MAX)));
    }

    #[test]
    fn an_offer_is_answered_once_and_about_its_own_files() {
        for entry in [0, 5, u32::MAX] {
            let choice = EntryChoice {
                entry,
                choice: Choice::Skip,
            };
            assert_eq!(sender().accepted(&[choice]), Err(Violation::Entry(entry)));
        }
        let mut sender = sender();
        sender.accepted(&[]).unwrap();
        assert_eq!(sender.accepted(&[]), Err(Violation::State("accept")));
        assert_eq!(sender.declined(), Err(Violation::State("decline")));
    }

    #[test]
    fn all_skipped_is_all_sent() {
        let mut sender = sender();
        let skip = |entry| EntryChoice {
            entry,
            choice: Choice::Skip,
        };
        sender.accepted(&[skip(1), skip(2), skip(4)]).unwrap();
        assert_eq!(sender.durable(5), Ok(true));
    }
}
