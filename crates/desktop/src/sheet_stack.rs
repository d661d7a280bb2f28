//! What lies over the window, one sheet upon another, and what was typed and not
//! sent: nothing that the user began is lost because something else comes up.

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::path::PathBuf;

use pinhole_client::{PeerKey, PeerName, Snapshot};

use crate::action::Sheet;
use crate::message::Draft;
use crate::send_sheet;

/// The sheets, the topmost last; of each kind there is one.
#[derive(Debug, Default)]
pub(crate) struct SheetStack {
    open: Vec<Sheet>,
    /// Messages that were begun and put away.
    drafts: BTreeMap<PeerKey, Draft>,
}

impl SheetStack {
    /// The sheet that is to be seen.
    pub(crate) fn top(&self) -> Option<&Sheet> {
        self.open.last()
    }

    /// The sheet that is to be seen.
    pub(crate) fn top_mut(&mut self) -> Option<&mut Sheet> {
        self.open.last_mut()
    }

    /// Lays a sheet over the others. A message goes on where it was left.
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

    /// Asks to whom these files go, and those that wait for the same answer.
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

    /// The files that wait for somebody to be chosen.
    pub(crate) fn waiting(&self) -> Option<&[PathBuf]> {
        self.open.iter().find_map(|sheet| match sheet {
            Sheet::Send { paths, .. } => Some(paths.as_slice()),
            _ => None,
        })
    }

    /// Puts the topmost away; what was typed in it stays for the next time.
    pub(crate) fn close(&mut self) {
        if let Some(sheet) = self.open.pop() {
            self.keep(sheet);
        }
    }

    /// Puts the topmost away, with what was typed in it.
    pub(crate) fn discard(&mut self) {
        self.open.pop();
    }

    /// Puts away what has become pointless.
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

    /// To whom something was written and not sent.
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
