//! The part of an offer that the user wants, as ticked.

use std::collections::BTreeSet;

use pinhole_client::snapshot::EntryView;
use pinhole_client::{Existing, OfferView};

/// Whether a file is wanted, or how much of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tick {
    /// All of it.
    Whole,
    /// Some of the folder's content.
    Part,
    /// None of it.
    None,
}

impl From<bool> for Tick {
    fn from(wanted: bool) -> Self {
        if wanted { Self::Whole } else { Self::None }
    }
}

/// The wanted part of an offer, and what to do about taken names.
#[derive(Debug, Clone)]
pub(crate) struct OfferSelection {
    ticks: Vec<Tick>,
    wanted: SelectedAmount,
    /// `None` while the settings apply.
    pub(crate) existing: Option<Existing>,
}

/// How much is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SelectedAmount {
    pub(crate) files: u64,
    pub(crate) folders: u64,
    pub(crate) bytes: u64,
    /// The size of the one file is not known.
    pub(crate) stream: bool,
}

impl OfferSelection {
    /// Selects everything, as at first.
    pub(crate) fn of(offer: &OfferView) -> Self {
        Self {
            ticks: vec![Tick::Whole; offer.entries.len()],
            wanted: SelectedAmount {
                files: offer.files,
                folders: offer.folders,
                bytes: offer.bytes,
                stream: offer.stream,
            },
            existing: None,
        }
    }

    /// The tick of the entry at this index.
    pub(crate) fn tick(&self, place: usize) -> Tick {
        self.ticks.get(place).copied().unwrap_or(Tick::None)
    }

    /// The tick of all entries together.
    pub(crate) fn tick_of_all(&self) -> Tick {
        of_parts(self.ticks.iter().copied())
    }

    /// How much is wanted.
    pub(crate) const fn wanted(&self) -> SelectedAmount {
        self.wanted
    }

    /// The indices of what is not wanted; with a folder everything in it.
    pub(crate) fn unwanted(&self) -> BTreeSet<u32> {
        let ticks = self.ticks.iter().zip(0..);
        ticks
            .filter(|(tick, _)| **tick == Tick::None)
            .map(|(_, place)| place)
            .collect()
    }

    /// Selects everything or nothing.
    pub(crate) fn set_all(&mut self, entries: &[EntryView], wanted: bool) {
        self.ticks.fill(wanted.into());
        self.add_up(entries);
    }

    /// Selects or deselects the entry at this index, with everything in it.
    pub(crate) fn set(&mut self, entries: &[EntryView], place: u32, wanted: bool) {
        let mut is_meant = vec![false; entries.len()];
        for ((at, entry), tick) in (0..).zip(entries).zip(&mut self.ticks) {
            // A folder comes before its content.
            let inside = entry.folder.is_some_and(|it| holds(&is_meant, it));
            if inside || at == place {
                *tick = wanted.into();
                if let Some(meant) = is_meant.get_mut(at as usize) {
                    *meant = true;
                }
            }
        }
        self.settle_folders(entries);
        self.add_up(entries);
    }

    /// Derives the ticks of folders from their content.
    fn settle_folders(&mut self, entries: &[EntryView]) {
        let mut held: Vec<Option<Tick>> = vec![None; entries.len()];
        for (at, entry) in entries.iter().enumerate().rev() {
            if let Some(tick) = held.get(at).copied().flatten()
                && let Some(own) = self.ticks.get_mut(at)
            {
                *own = tick;
            }
            let own = self.tick(at);
            let holder = entry.folder.and_then(|it| held.get_mut(it as usize));
            if let Some(so_far) = holder {
                *so_far = Some(so_far.map_or(own, |tick| of_parts([tick, own])));
            }
        }
    }

    fn add_up(&mut self, entries: &[EntryView]) {
        self.wanted = SelectedAmount::default();
        for (entry, tick) in entries.iter().zip(&self.ticks) {
            match (tick, entry.size_bytes) {
                (Tick::None, _) => {}
                (_, None) if entry.stream => {
                    self.wanted.files += 1;
                    self.wanted.stream = true;
                }
                (_, None) => self.wanted.folders += 1,
                (_, Some(bytes)) => {
                    self.wanted.files += 1;
                    self.wanted.bytes += bytes;
                }
            }
        }
    }
}

fn holds(is_meant: &[bool], folder: u32) -> bool {
    is_meant.get(folder as usize).copied().unwrap_or(false)
}

fn of_parts(parts: impl IntoIterator<Item = Tick>) -> Tick {
    let mut parts = parts.into_iter();
    let first = parts.next().unwrap_or(Tick::None);
    if parts.all(|tick| tick == first) {
        first
    } else {
        Tick::Part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 0: d, 1: d/1 (1 byte), 2: d/e, 3: d/e/2 (2 bytes), 4: f (4 bytes), 5: g
    fn entries() -> Vec<EntryView> {
        [
            ("d", None, None),
            ("d/1", Some(1), Some(0)),
            ("d/e", None, Some(0)),
            ("d/e/2", Some(2), Some(2)),
            ("f", Some(4), None),
            ("g", None, None),
        ]
        .map(|(path, size_bytes, folder)| EntryView {
            path: path.to_owned(),
            size_bytes,
            stream: false,
            folder,
        })
        .into()
    }

    fn everything() -> OfferSelection {
        OfferSelection::of(&OfferView {
            entries: entries(),
            files: 3,
            folders: 3,
            bytes: 7,
            ..OfferView::default()
        })
    }

    fn left_out(choice: &OfferSelection) -> Vec<u32> {
        choice.unwanted().into_iter().collect()
    }

    #[test]
    fn a_folder_goes_with_everything_in_it_and_comes_back_with_any_of_it() {
        let mut choice = everything();
        assert_eq!(
            (left_out(&choice), choice.tick_of_all()),
            (vec![], Tick::Whole)
        );
        choice.set(&entries(), 0, false);
        assert_eq!(left_out(&choice), [0, 1, 2, 3]);
        assert_eq!(choice.tick_of_all(), Tick::Part);
        choice.set(&entries(), 3, true);
        assert_eq!(left_out(&choice), [1]);
        assert_eq!([0, 2].map(|at| choice.tick(at)), [Tick::Part, Tick::Whole]);
        let left = SelectedAmount {
            stream: false,
            files: 2,
            folders: 3,
            bytes: 6,
        };
        assert_eq!(choice.wanted(), left);
    }

    #[test]
    fn a_folder_without_wanted_content_is_unwanted() {
        let mut choice = everything();
        choice.set(&entries(), 3, false);
        assert_eq!(left_out(&choice), [2, 3]);
        choice.set(&entries(), 1, false);
        assert_eq!(left_out(&choice), [0, 1, 2, 3]);
        choice.set_all(&entries(), false);
        assert_eq!(choice.wanted(), SelectedAmount::default());
        assert_eq!(
            (left_out(&choice).len(), choice.tick_of_all()),
            (6, Tick::None)
        );
        choice.set_all(&entries(), true);
        assert_eq!(choice.wanted(), everything().wanted());
    }
}
