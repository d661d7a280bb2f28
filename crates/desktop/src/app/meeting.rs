//! People who meet for the first time: what the window does about it.

use pinhole_client::{Command, Event, InvitationLink, PeerIdentity};

use super::{App, attract};
use crate::action::Sheet;
use crate::text;

impl App {
    /// Handles what has come of links and codes.
    pub(super) fn meet(&mut self, ctx: &egui::Context, event: &Event) {
        match event {
            Event::Invitation { link } => self.show_link(link),
            Event::Joined { peer, is_told } => {
                self.notice = Some(text::joined(peer.name.as_str(), *is_told));
            }
            Event::Welcomed { peer, is_by_code } => {
                self.notice = Some(text::welcomed(peer.name.as_str()));
                attract(ctx);
                if *is_by_code {
                    self.send_by_code(peer);
                }
            }
            Event::CodeClosed { failure } => {
                self.notice = Some(failure.to_string());
                if let Some(paths) = self.sheets.take_code() {
                    self.sheets.ask_to_whom(&self.snapshot, paths);
                }
            }
            _ => {}
        }
    }

    fn show_link(&mut self, link: &InvitationLink) {
        if let Some(Sheet::Invite(form)) = self.sheets.top_mut() {
            form.made(link);
        }
    }

    /// Sends what the code was made for.
    fn send_by_code(&mut self, peer: &PeerIdentity) {
        if let Some(paths) = self.sheets.take_code() {
            let peer = peer.key;
            self.send(Command::Send { peer, paths });
        }
    }
}
