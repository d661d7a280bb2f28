//! A server that may be gone: it is asked, and a connection is made aside.

use std::time::Duration;

use super::{Doubt, Phase, Source, silent};
use crate::state::State;
use crate::state::effect::{Effect, LoginEffect};

/// How long a server that is asked whether it is there has to answer before a
/// fresh connection is made beside the old one: two round trips within these
/// limits. The server has to answer twice on the fresh one, so an old one that
/// works has two more.
const HEAD_START_MIN: Duration = Duration::from_millis(50);
const HEAD_START_MAX: Duration = Duration::from_millis(500);

impl State {
    /// Finds out whether the server is still there, and connects again if it is not.
    pub(in crate::state) fn check_server(&mut self) {
        let now = self.now;
        let Some(wanted) = self.login.wanted() else {
            return;
        };
        match &mut wanted.phase {
            Phase::LoggingIn { .. } => wanted.is_check_due = true,
            Phase::Online { doubt: Some(_), .. } => {}
            Phase::Online { to, doubt, .. } => {
                let head_start = (2 * to.round_trip).clamp(HEAD_START_MIN, HEAD_START_MAX);
                let until = now + head_start;
                *doubt = Some(Doubt::Asked { until });
                let ask = LoginEffect::Ask(wanted.connection);
                self.effect(Effect::Login(ask));
            }
            Phase::Waiting { until, .. } => {
                wanted.retries.hurry(now);
                *until = now;
                self.login_timeout();
            }
        }
    }

    pub(super) fn server_answered(&mut self, is_there: bool) {
        let Some(doubt) = self.doubt() else {
            return;
        };
        match (*doubt, is_there) {
            (Some(Doubt::Asked { .. }), true) => *doubt = None,
            (Some(Doubt::Racing { .. }), true) => {
                *doubt = None;
                self.effect(Effect::Login(LoginEffect::DropAside));
            }
            (Some(Doubt::Asked { .. }), false) => {
                *doubt = Some(Doubt::Gone);
                self.connect_aside();
            }
            _ => {}
        }
    }

    fn doubt(&mut self) -> Option<&mut Option<Doubt>> {
        match &mut self.login.wanted()?.phase {
            Phase::Online { doubt, .. } => Some(doubt),
            _ => None,
        }
    }

    pub(super) fn connect_aside(&mut self) {
        let Some(wanted) = self.login.wanted() else {
            return;
        };
        let aside = LoginEffect::ConnectAside {
            connection: wanted.connection,
            name: wanted.name.clone(),
            server: wanted.server.clone(),
        };
        self.effect(Effect::Login(aside));
    }

    pub(super) fn connected_aside(&mut self, is_made: bool) {
        let doubt = self.doubt().and_then(|doubt| *doubt);
        match (doubt, is_made) {
            (Some(Doubt::Racing { .. } | Doubt::Gone), true) => self.server_silent(Source::Aside),
            (Some(Doubt::Gone), false) => self.server_silent(Source::Dialled),
            _ => {}
        }
    }

    /// The server does not answer on this connection any more.
    pub(super) fn server_silent(&mut self, next: Source) {
        let now = self.now;
        if let Some(wanted) = self.login.wanted() {
            wanted.retries.hurry(now);
        }
        self.effect(Effect::Login(LoginEffect::GiveUp));
        self.wait_after(silent(), next);
    }
}
