//! The open sheets, one over another, and unsent messages. Nothing that the user has
//! begun is lost when another sheet opens.

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::path::PathBuf;

use pinhole_client::{PeerKey, PeerName, Snapshot};

use crate::action::Sheet;
use crate::message::Draft;
use crate::send_sheet;

/// The open sheets, the topmost last. There is at most one of each kind.
#[derive(Debug, Default)]
pub(crate) struct SheetStack {
    open: Vec<Sheet>,
    /// Unsent messages whose sheets were closed.
    drafts: BTreeMap<PeerKey, Draft>,
}

impl SheetStack {
    /// The visible sheet.
    pub(crate) fn top(&self) -> Option<&Sheet> {
        self.open.last()
    }

    /// The visible sheet.
    pub(crate) fn top_mut(&mut self) -> Option<&mut Sheet> {
        self.open.last_mut()
    }

    /// Opens a sheet over the others. A message continues where it was left.
    pub(crate) fn open(&mut self, mut sheet: Sheet) {
        let same = |other: &Sheet| discriminant(other) == discriminant(&sheet);
        if let Some(place) = self.open.iter().position(same) {
            let other = self.open.remove(place);
            self.keep(other);
        }
        if let Sheet::Message(draft) = &mut sheet
            && let Some(kept) = self.drafts.remove(&draft.peer().key)
        {
            draft.go_on_from(kept);
        }
        self.open.push(sheet);
    }

    /// Asks for the recipients of these files, together with files that wait already.
    pub(crate) fn ask_to_whom(&mut self, snapshot: &Snapshot, paths: Vec<PathBuf>) {
        let is_send = |sheet: &Sheet| matches!(sheet, Sheet::Send { .. });
        let Some(place) = self.open.iter().position(is_send) else {
            return self.open.push(send_sheet::question(snapshot, paths));
        };
        let mut sheet = self.open.remove(place);
        if let Sheet::Send { paths: waiting, .. } = &mut sheet {
            for path in paths {
                if !waiting.contains(&path) {
                    waiting.push(path);
                }
            }
        }
        self.open.push(sheet);
    }

    /// The files for whoever joins by the code that is shown; its sheet is closed.
    pub(crate) fn take_code(&mut self) -> Option<Vec<PathBuf>> {
        let is_code = |sheet: &Sheet| matches!(sheet, Sheet::Code(_));
        let place = self.open.iter().position(is_code)?;
        match self.open.remove(place) {
            Sheet::Code(paths) => Some(paths),
            _ => None,
        }
    }

    /// The files that wait for recipients.
    pub(crate) fn waiting(&self) -> Option<&[PathBuf]> {
        self.open.iter().find_map(|sheet| match sheet {
            Sheet::Send { paths, .. } => Some(paths.as_slice()),
            _ => None,
        })
    }

    /// Closes the topmost sheet. What was typed in it is kept for the next time.
    pub(crate) fn close(&mut self) {
        if let Some(sheet) = self.open.pop() {
            self.keep(sheet);
        }
    }

    /// Closes the topmost sheet and discards what was typed in it.
    pub(crate) fn discard(&mut self) {
        self.open.pop();
    }

    /// Closes sheets that have become pointless.
    pub(crate) fn obey(&mut self, snapshot: &Snapshot, is_logged_in: bool) {
        let mut homeless = Vec::new();
        self.open.retain_mut(|sheet| match sheet {
            Sheet::LogIn => !is_logged_in,
            Sheet::Trust { peer, paths } => {
                let mut peers = snapshot.peers.iter();
                let is_asked = peers.any(|p| p.identity.key == *peer && p.changed_from.is_some());
                if !is_asked {
                    homeless.append(paths);
                }
                is_asked
            }
            _ => true,
        });
        if !homeless.is_empty() {
            self.ask_to_whom(snapshot, homeless);
        }
    }

    /// The recipients of unsent messages.
    pub(crate) fn unsent(&self) -> impl Iterator<Item = &PeerName> {
        let open = self.open.iter().filter_map(|sheet| match sheet {
            Sheet::Message(draft) if !draft.is_blank() => Some(draft),
            _ => None,
        });
        open.chain(self.drafts.values())
            .map(|draft| &draft.peer().name)
    }

    fn keep(&mut self, sheet: Sheet) {
        if let Sheet::Message(mut draft) = sheet
            && !draft.is_blank()
        {
            draft.lose_focus();
            self.drafts.insert(draft.peer().key, draft);
        }
    }
}
