//! What is chosen for a link, and what is pasted to join.

use std::time::Duration;

use pinhole_client::{
    Code, Command, InvitationLink, LoginState, PeerName, ServerAddress, Snapshot, Uses,
};

use super::qr::QrModules;
use crate::text;

/// What is chosen for a link, and the link once there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InviteForm {
    pub(super) uses: Uses,
    pub(super) lasts: Lasts,
    pub(super) made: Option<MadeLink>,
}

/// For how long a link can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lasts {
    Hour,
    Day,
    Week,
}

/// A link, ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MadeLink {
    pub(super) text: String,
    pub(super) has_server: bool,
    /// `None` if it does not fit.
    pub(super) code: Option<QrModules>,
}

impl Default for InviteForm {
    fn default() -> Self {
        Self {
            uses: Uses::Once,
            lasts: Lasts::Day,
            made: None,
        }
    }
}

impl InviteForm {
    pub(super) const fn command(&self) -> Command {
        const HOUR_S: u64 = 60 * 60;
        let hours = match self.lasts {
            Lasts::Hour => 1,
            Lasts::Day => 24,
            Lasts::Week => 7 * 24,
        };
        Command::Invite {
            name: None,
            server: None,
            uses: self.uses,
            lasts: Duration::from_secs(hours * HOUR_S),
        }
    }

    /// The link is there.
    pub(crate) fn made(&mut self, link: &InvitationLink) {
        self.made = Some(MadeLink {
            text: link.to_string(),
            has_server: link.server().is_some(),
            code: QrModules::of(&link.for_qr_code()),
        });
    }
}

/// What is pasted to join somebody, and what the first screen says besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinForm {
    pub(super) text: String,
    pub(super) takes_focus: bool,
    /// The error in it, after an attempt.
    pub(super) complaint: Option<String>,
    name: String,
    server: String,
}

impl JoinForm {
    /// A form for somebody who has a name and a server.
    pub(crate) fn empty() -> Self {
        Self::new(String::new(), String::new(), String::new())
    }

    /// A form with what was pasted elsewhere, and what is typed on the first screen.
    pub(crate) fn new(text: String, name: String, server: String) -> Self {
        Self {
            text,
            name,
            server,
            takes_focus: true,
            complaint: None,
        }
    }

    /// The commands that join, or a complaint.
    pub(super) fn submit(&mut self, snapshot: &Snapshot) -> Vec<Command> {
        match self.commands(snapshot) {
            Ok(commands) => commands,
            Err(complaint) => {
                self.complaint = Some(complaint);
                Vec::new()
            }
        }
    }

    fn commands(&self, snapshot: &Snapshot) -> Result<Vec<Command>, String> {
        let text = self.text.trim();
        let not_usable = |error: String| text::not_usable(&error);
        if text.contains(':') {
            let link: InvitationLink = text.parse().map_err(|e| not_usable(format!("{e}")))?;
            let server = link.server().cloned();
            let log_in = server.and_then(|server| self.log_in(snapshot, server));
            let join = Command::Join { link };
            return Ok(log_in.into_iter().chain([join]).collect());
        }
        let code: Code = text.parse().map_err(|e| not_usable(format!("{e}")))?;
        let join = Command::JoinCode { code };
        if is_logged_in(snapshot) {
            return Ok(vec![join]);
        }
        let typed = self.server.trim().parse().ok();
        let server = typed.or_else(|| snapshot.settings.server.clone());
        let server = server.ok_or_else(|| text::CODE_NEEDS_SERVER.to_owned())?;
        let log_in = self.log_in(snapshot, server);
        Ok(log_in.into_iter().chain([join]).collect())
    }

    /// Logs in there, if need be as somebody who has not chosen a name.
    fn log_in(&self, snapshot: &Snapshot, server: ServerAddress) -> Option<Command> {
        let typed = self.name.trim().parse().ok();
        let name = typed.or_else(|| snapshot.settings.name.clone());
        (!is_logged_in(snapshot)).then(|| Command::LogIn {
            name: name.unwrap_or_else(|| PeerName::guest(snapshot.key)),
            server,
            patient: false,
        })
    }
}

const fn is_logged_in(snapshot: &Snapshot) -> bool {
    matches!(
        snapshot.login,
        LoginState::LoggedIn { .. } | LoginState::Reconnecting { .. }
    )
}
