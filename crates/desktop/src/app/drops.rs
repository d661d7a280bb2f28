//! Files that are dropped on the window or pasted into it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pinhole_client::{PeerKey, PeerView};

use super::App;
use crate::action::{Sheet, UiAction};
use crate::message::Draft;
use crate::{paste, peers, send_sheet, text};

/// How long a drop waits for its position from the window system.
const DROP_PATIENCE: Duration = Duration::from_millis(250);

/// Dropped files whose recipient is not known yet.
pub(super) struct PendingDrop {
    paths: Vec<PathBuf>,
    fallen: Instant,
}

impl App {
    /// Takes files that were dropped or pasted. Other pasted text is returned.
    pub(super) fn take_files(&mut self, ctx: &egui::Context) -> Option<String> {
        let typing = ctx.text_edit_focused();
        let (dropped, pasted) = ctx.input(|input| {
            let dropped: Vec<PathBuf> = input
                .raw
                .dropped_files
                .iter()
                .map(|file| file.path().to_owned())
                .collect();
            let pasted = input.events.iter().find_map(|event| match event {
                egui::Event::Paste(text) if !typing => Some(text.clone()),
                _ => None,
            });
            (dropped, pasted)
        });
        self.take_dropped(dropped);
        if let Some(fallen) = self.hover.take_fallen() {
            if !fallen.refused.is_empty() {
                self.notice = Some(text::refused_drop(&fallen.refused, fallen.paths.is_empty()));
            }
            self.take_dropped(fallen.paths);
        }
        let paths = paste::paths(pasted.as_deref()?);
        if paths.is_empty() {
            return pasted;
        }
        self.sheets.ask_to_whom(&self.snapshot, paths);
        None
    }

    fn take_dropped(&mut self, paths: Vec<PathBuf>) {
        if !paths.is_empty() {
            // A drop of several files can come in several frames.
            let drop = self.drop.get_or_insert_with(|| PendingDrop {
                paths: Vec::new(),
                fallen: Instant::now(),
            });
            drop.paths.extend(paths);
        }
    }

    /// Pasted text starts a message to the peer under the pointer or the keyboard's
    /// focus.
    pub(super) fn open_draft(
        &self,
        ctx: &egui::Context,
        words: &str,
        list: &peers::PeerListOutcome,
    ) -> Option<UiAction> {
        // A question covers the list.
        if ctx.memory(|memory| memory.top_modal_layer().is_some()) {
            return None;
        }
        let key = list.under_pointer.or(list.focused)?;
        let peer = |p: &&PeerView| p.identity.key == key && p.changed_from.is_none();
        let peer = self.snapshot.peers.iter().find(peer)?;
        let draft = Draft::to(peer.identity.clone(), words);
        Some(UiAction::Open(Sheet::Message(draft)))
    }

    /// Sends a drop to the peer under it, or asks for the recipients.
    pub(super) fn resolve_drop(
        &mut self,
        ctx: &egui::Context,
        under_pointer: Option<PeerKey>,
    ) -> Option<UiAction> {
        let drop = self.drop.take()?;
        let position_known = ctx.input(|input| input.pointer.latest_pos().is_some());
        if self.is_among_people() && !position_known && drop.fallen.elapsed() < DROP_PATIENCE {
            ctx.request_repaint_after(Duration::from_millis(20));
            self.drop = Some(drop);
            return None;
        }
        let peer = under_pointer.and_then(|key| {
            self.snapshot
                .peers
                .iter()
                .find(|peer| peer.identity.key == key)
        });
        match peer {
            Some(peer) => Some(send_sheet::to_peer(peer, &drop.paths)),
            None => {
                self.sheets.ask_to_whom(&self.snapshot, drop.paths);
                ctx.request_repaint();
                None
            }
        }
    }
}
