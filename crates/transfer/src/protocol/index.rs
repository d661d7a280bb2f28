//! Places in an offer: that of an entry in the manifest and that of a chunk in its
//! file. Each is a type of its own, so that neither is taken for the other, nor for a
//! number of them.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! index {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(u32);

        impl $name {
            /// The place of the first, which is also the default.
            pub const FIRST: Self = Self(0);

            /// The place behind so many others.
            #[must_use]
            pub const fn new(index: u32) -> Self {
                Self(index)
            }

            /// How many others stand before it.
            #[must_use]
            pub const fn get(self) -> u32 {
                self.0
            }

            /// The place right behind it; the last of all stays where it is.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }

            /// The place behind `count` of them, of which this is the first; `None` beyond
            /// the last of all.
            #[must_use]
            pub fn checked_add(self, count: u32) -> Option<Self> {
                self.0.checked_add(count).map(Self)
            }

            /// Every place from this one up to the one before `end`.
            pub fn until(self, end: Self) -> impl DoubleEndedIterator<Item = Self> + Clone {
                (self.0..end.0).map(Self)
            }

            /// Places in rising order as runs: the first of each and how many.
            pub(crate) fn runs(places: impl IntoIterator<Item = Self>) -> Vec<(Self, u32)> {
                let mut runs: Vec<(Self, u32)> = Vec::new();
                for place in places {
                    match runs.last_mut() {
                        Some((first, count)) if first.checked_add(*count) == Some(place) => {
                            *count += 1;
                        }
                        _ => runs.push((place, 1)),
                    }
                }
                runs
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

index! {
    /// The place of a file or folder in the manifest.
    EntryIndex
}

index! {
    /// The place of a chunk in its file.
    ChunkIndex
}

/// Short names for tests.
#[cfg(test)]
pub(crate) mod short {
    use super::{ChunkIndex, EntryIndex};

    pub(crate) const fn entry(index: u32) -> EntryIndex {
        EntryIndex::new(index)
    }

    pub(crate) const fn chunk(index: u32) -> ChunkIndex {
        ChunkIndex::new(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_travels_as_a_bare_number() {
        let index = EntryIndex::new(7);
        assert_eq!(serde_json::to_string(&index).unwrap(), "7");
        assert_eq!(serde_json::from_str::<EntryIndex>("7").unwrap(), index);
        assert_eq!(
            (index.to_string(), ChunkIndex::new(0).to_string()),
            ("7".into(), "0".into())
        );
        for json in ["-1", "4294967296", "7.5", "[7]", r#""7""#] {
            assert!(serde_json::from_str::<ChunkIndex>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn runs_hold_what_lies_behind_each_other() {
        let runs = |places: &[u32]| {
            let places = places.iter().copied().map(ChunkIndex::new);
            let bare = |(first, count): (ChunkIndex, u32)| (first.get(), count);
            Vec::from_iter(ChunkIndex::runs(places).into_iter().map(bare))
        };
        assert_eq!(runs(&[]), []);
        assert_eq!(runs(&[0, 1, 3, 5, 6, 7]), [(0, 2), (3, 1), (5, 3)]);
        assert_eq!(runs(&[u32::MAX - 1, u32::MAX]), [(u32::MAX - 1, 2)]);
    }

    #[test]
    fn nothing_stands_behind_the_last_of_all() {
        let last = ChunkIndex::new(u32::MAX);
        assert_eq!(last.next(), last);
        assert_eq!(last.checked_add(1), None);
        assert_eq!(ChunkIndex::FIRST.checked_add(3), Some(ChunkIndex::new(3)));
        let places = EntryIndex::new(2).until(EntryIndex::new(4));
        assert_eq!(Vec::from_iter(places.map(EntryIndex::get)), [2, 3]);
        assert_eq!(last.until(ChunkIndex::FIRST).count(), 0);
    }
}
