//! One drag of files over the window, driven by its messages.
//!
//! The list of files is requested while they hover, and can come later than the drop.
//! Every drop ends in files or in a message about what is missing.

use std::time::{Duration, Instant};

use crate::paste::DroppedFiles;
use crate::text;

/// How long a drop waits for its list.
const LIST_PATIENCE: Duration = Duration::from_secs(5);

/// The state of the present drag.
#[derive(Debug, Default)]
pub(crate) struct Drag {
    list: DropList,
    /// In physical pixels from the window's upper left corner.
    position: Option<(f32, f32)>,
    /// Dropped before the list has arrived.
    awaiting_since: Option<Instant>,
    /// Dropped, and not taken by the window yet.
    fallen: Option<DroppedFiles>,
}

#[derive(Debug, Default)]
enum DropList {
    #[default]
    Unasked,
    /// Requested with this timestamp of the X server.
    Asked(u32),
    Read(DroppedFiles),
    Unreadable,
}

/// What the window needs to know about a drag.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct DragState {
    /// Files hover over the window.
    pub(crate) hovers: bool,
    /// Where they hover, or were dropped.
    pub(crate) position: Option<(f32, f32)>,
    /// What was dropped since the last call.
    pub(crate) fallen: Option<DroppedFiles>,
    /// A drop waits for its list: call again by then.
    pub(crate) again_in: Option<Duration>,
}

impl Drag {
    /// A drag enters the window.
    pub(crate) fn enter(&mut self) {
        // The list of an earlier drag will not come any more.
        if self.awaiting_since.is_some() {
            self.fall(unreadable());
        }
        self.forget();
    }

    /// The drag moves. Returns whether to request its list, with this timestamp.
    pub(crate) fn hover(&mut self, position: (f32, f32), time: u32) -> bool {
        self.position = Some(position);
        let is_new = matches!(self.list, DropList::Unasked);
        if is_new {
            self.list = DropList::Asked(time);
        }
        is_new
    }

    /// Takes the list that was requested with this timestamp; `None` if the source does
    /// not provide it.
    pub(crate) fn read(&mut self, time: u32, list: Option<DroppedFiles>) {
        if !matches!(self.list, DropList::Asked(asked) if asked == time) {
            return;
        }
        self.list = list.map_or(DropList::Unreadable, DropList::Read);
        if self.awaiting_since.is_some() {
            self.settle();
        }
    }

    /// The files are dropped on the window.
    pub(crate) fn drop_here(&mut self, now: Instant) {
        if matches!(self.list, DropList::Asked(_)) {
            self.awaiting_since = Some(now);
        } else {
            self.settle();
        }
    }

    /// The drag leaves the window or is cancelled.
    pub(crate) fn leave(&mut self) {
        if self.awaiting_since.is_none() {
            self.forget();
        }
    }

    /// The present state. Takes out what was dropped.
    pub(crate) fn look(&mut self, now: Instant) -> DragState {
        let again_in = self.awaiting_since.map(|since| {
            let waited = now.saturating_duration_since(since);
            LIST_PATIENCE.saturating_sub(waited)
        });
        if again_in == Some(Duration::ZERO) {
            self.list = DropList::Unreadable;
            self.settle();
        }
        let look = DragState {
            hovers: matches!(self.list, DropList::Read(_)),
            position: self.position,
            fallen: self.fallen.take(),
            again_in: again_in.filter(|wait| !wait.is_zero()),
        };
        if look.fallen.is_some() {
            self.position = None;
        }
        look
    }

    fn settle(&mut self) {
        let fallen = match std::mem::take(&mut self.list) {
            DropList::Read(dropped) if dropped == DroppedFiles::default() => DroppedFiles {
                refused: vec![text::NOTHING_IN_THE_DROP.to_owned()],
                ..dropped
            },
            DropList::Read(dropped) => dropped,
            _ => unreadable(),
        };
        self.awaiting_since = None;
        self.fall(fallen);
    }

    fn fall(&mut self, fallen: DroppedFiles) {
        let all = self.fallen.get_or_insert_default();
        all.paths.extend(fallen.paths);
        all.refused.extend(fallen.refused);
    }

    fn forget(&mut self) {
        self.list = DropList::Unasked;
        self.awaiting_since = None;
        if self.fallen.is_none() {
            self.position = None;
        }
    }
}

fn unreadable() -> DroppedFiles {
    DroppedFiles {
        paths: Vec::new(),
        refused: vec![text::UNREADABLE_DROP.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: (f32, f32) = (10.0, 20.0);

    fn files() -> DroppedFiles {
        DroppedFiles {
            paths: vec!["/a".into()],
            refused: Vec::new(),
        }
    }

    fn begun() -> Drag {
        let mut drag = Drag::default();
        drag.enter();
        assert!(drag.hover(AT, 7), "the list is asked for");
        assert!(!drag.hover(AT, 8), "once");
        drag
    }

    fn hovering(list: Option<DroppedFiles>) -> Drag {
        let mut drag = begun();
        drag.read(7, list);
        drag
    }

    fn dropped(mut drag: Drag) -> Drag {
        drag.drop_here(Instant::now());
        drag
    }

    #[test]
    fn every_drop_ends_in_files_or_in_words() {
        let late = |mut drag: Drag| {
            drag.leave();
            drag.read(7, Some(files()));
            drag
        };
        let another = |mut drag: Drag| {
            drag.enter();
            drag
        };
        let of_an_earlier_one = |mut drag: Drag| {
            drag.read(6, Some(files()));
            drag.enter();
            drag
        };
        let unhovered = Drag::default();
        let nothing = Some(DroppedFiles::default());
        for (story, mut drag, paths, refused) in [
            ("read first", dropped(hovering(Some(files()))), 1, 0),
            ("not given by the source", dropped(hovering(None)), 0, 1),
            ("an empty list", dropped(hovering(nothing)), 0, 1),
            ("never hovered", dropped(unhovered), 0, 1),
            ("read afterwards", late(dropped(begun())), 1, 0),
            ("never read", another(dropped(begun())), 0, 1),
            ("another's list", of_an_earlier_one(dropped(begun())), 0, 1),
        ] {
            let fallen = drag.look(Instant::now()).fallen.expect(story);
            let seen = (fallen.paths.len(), fallen.refused.len());
            assert_eq!(seen, (paths, refused), "{story}");
            let again = drag.look(Instant::now());
            assert_eq!(again, DragState::default(), "{story}: once");
        }
    }

    #[test]
    fn a_drop_waits_for_its_list_but_not_for_ever() {
        let now = Instant::now();
        let mut drag = Drag::default();
        drag.enter();
        drag.hover(AT, 7);
        drag.drop_here(now);
        let waits = drag.look(now);
        assert_eq!((waits.fallen, waits.again_in), (None, Some(LIST_PATIENCE)));
        let ended = drag.look(now + LIST_PATIENCE);
        assert_eq!(ended.fallen, Some(unreadable()));
        assert_eq!(ended.position, Some(AT), "where it fell");
    }

    #[test]
    fn a_drag_that_leaves_is_no_drop() {
        let now = Instant::now();
        let mut drag = hovering(Some(files()));
        assert!(drag.look(now).hovers);
        drag.leave();
        assert_eq!(drag.look(now), DragState::default());
        assert!(drag.hover(AT, 9), "another one is asked anew");
    }
}
