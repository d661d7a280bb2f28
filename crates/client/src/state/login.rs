//! Being logged in: the connection to the rendezvous server, again and again.
//!
//! ```text
//! LoggingIn ──► Online ──lost──► Waiting ──► LoggingIn
//!                 └─in doubt─► Asked ─no answer─► Racing ─► LoggingIn (aside)
//! ```
//!
//! A server that is in doubt is asked whether it is there. If it does not answer soon,
//! a connection is made aside, and whichever answers first stays.

mod doubt;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pinhole_net::{
    CodeNumber, KeyHistory, PeerIdentity, PeerKey, PeerName, Presence, Refusal, ServerAddress,
};
use tracing::debug;

use super::State;
use super::effect::{Effect, Effort, LoginEffect};
use super::ids::ConnectionId;
use super::retries::{LAST_RETRY, LAST_RETRY_OF_SENDER, Retries, is_final};
use crate::event::Event;
use crate::failure::Failure;
use crate::snapshot::LoginState;

/// How long the server has to answer in all, when no fresh connection can be made.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1500);
/// What the connection to the server reports.
#[derive(Debug)]
pub(crate) enum LoginInput {
    LoggedIn(LoggedInTo),
    /// The login failed, or the connection ended.
    Lost(Failure),
    /// Whether the server has said anything since it was asked; if not, the connection
    /// is gone.
    Answered(bool),
    /// Whether a connection was made aside.
    Aside(bool),
    Presence(Presence),
    KeyHistory(Box<KeyHistory>),
    /// The number of our code; `None` if there is none for it.
    CodeOpened(Option<CodeNumber>),
    /// The server has ended our code with this number.
    CodeEnded(CodeNumber),
    /// Who has opened the code with this number, if anybody has.
    CodeFound {
        number: CodeNumber,
        peer: Option<PeerIdentity>,
    },
    RelayEnded {
        peer: PeerKey,
        reason: Refusal,
    },
}

/// What a server says to a login.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoggedInTo {
    pub(crate) server_key: PeerKey,
    /// Our public address as the server sees it.
    pub(crate) observed: SocketAddr,
    /// The server offers a relay.
    pub(crate) has_relay: bool,
    /// The server knows codes.
    pub(crate) has_codes: bool,
    /// How long it took to answer.
    pub(crate) round_trip: Duration,
}

/// Whether, where and as whom we are logged in.
#[derive(Debug)]
pub(crate) struct Login {
    own_key: PeerKey,
    /// The key of the server that we are, or were last, logged in to.
    server_key: Option<PeerKey>,
    stage: LoginStage,
}

#[derive(Debug)]
enum LoginStage {
    LoggedOut {
        failure: Option<Failure>,
    },
    /// Logged in, or on the way there.
    Wanted(Box<Wanted>),
}

/// A login that is kept up.
#[derive(Debug)]
struct Wanted {
    name: PeerName,
    /// With the fingerprint of its key once that is known.
    server: ServerAddress,
    connection: ConnectionId,
    phase: Phase,
    retries: Retries,
    /// A failure is no reason to stop.
    keeps_trying: bool,
    /// The user has heard that it is tried in haste.
    is_told_of_haste: bool,
    /// Whether the server is there is to be found out as soon as it can be.
    is_check_due: bool,
}

#[derive(Debug)]
enum Phase {
    /// `after` is why the connection before was lost.
    LoggingIn {
        after: Option<(Failure, Instant)>,
    },
    Online {
        to: LoggedInTo,
        /// It has said who is online.
        is_told: bool,
        /// And what became of those who come with other keys.
        is_announced: bool,
        doubt: Option<Doubt>,
    },
    Waiting {
        failure: Failure,
        until: Instant,
    },
}

/// What is done about a server that may be gone.
#[derive(Debug, Clone, Copy)]
enum Doubt {
    /// It was asked.
    Asked { until: Instant },
    /// It does not answer: another connection is made beside this one.
    Racing { until: Instant },
    /// This connection is gone, and another one is being made.
    Gone,
}

impl Login {
    pub(super) const fn new(own_key: PeerKey) -> Self {
        Self {
            own_key,
            server_key: None,
            stage: LoginStage::LoggedOut { failure: None },
        }
    }

    pub(super) fn view(&self) -> LoginState {
        let wanted = match &self.stage {
            LoginStage::LoggedOut { failure } => {
                return LoginState::LoggedOut {
                    failure: failure.clone(),
                };
            }
            LoginStage::Wanted(wanted) => wanted,
        };
        let (name, server) = (wanted.name.clone(), wanted.server.clone());
        match &wanted.phase {
            Phase::Online {
                is_announced: true, ..
            } => LoginState::LoggedIn { name, server },
            Phase::LoggingIn { after: None } | Phase::Online { .. } => {
                LoginState::LoggingIn { name, server }
            }
            Phase::LoggingIn {
                after: Some((failure, at)),
            }
            | Phase::Waiting { failure, until: at } => LoginState::Reconnecting {
                name,
                server,
                failure: failure.clone(),
                next_attempt: *at,
            },
        }
    }

    /// Our own name, while there is a login.
    pub(super) const fn name(&self) -> Option<&PeerName> {
        match &self.stage {
            LoginStage::Wanted(wanted) => Some(&wanted.name),
            LoginStage::LoggedOut { .. } => None,
        }
    }

    /// The server says who is online. Returns whether it has said so before.
    fn is_told_again(&mut self) -> bool {
        match self.wanted().map(|wanted| &mut wanted.phase) {
            Some(Phase::Online { is_told, .. }) => std::mem::replace(is_told, true),
            _ => false,
        }
    }

    /// The key of the server that we are, or were last, logged in to.
    pub(super) const fn server_key(&self) -> Option<PeerKey> {
        self.server_key
    }

    pub(super) const fn own_key(&self) -> PeerKey {
        self.own_key
    }

    /// The server of the login, with the fingerprint of its key once that is known.
    pub(super) const fn server(&self) -> Option<&ServerAddress> {
        match &self.stage {
            LoginStage::Wanted(wanted) => Some(&wanted.server),
            LoginStage::LoggedOut { .. } => None,
        }
    }

    /// Whether the user was told that we are logged in: the server has said all that is
    /// needed.
    pub(super) const fn is_announced(&self) -> bool {
        match &self.stage {
            LoginStage::Wanted(wanted) => matches!(
                wanted.phase,
                Phase::Online {
                    is_announced: true,
                    ..
                }
            ),
            LoginStage::LoggedOut { .. } => false,
        }
    }

    /// Whether there is a login, be it interrupted.
    pub(super) const fn is_wanted(&self) -> bool {
        matches!(self.stage, LoginStage::Wanted(_))
    }

    /// Whether the server can be asked for introductions.
    pub(super) fn is_online(&self) -> bool {
        self.online_to().is_some()
    }

    /// Whether the server offers a relay.
    pub(super) fn has_relay(&self) -> bool {
        self.online_to().is_some_and(|to| to.has_relay)
    }

    /// Whether the server knows codes.
    pub(super) fn has_codes(&self) -> bool {
        self.online_to().is_some_and(|to| to.has_codes)
    }

    /// Our public address as the server sees it.
    pub(super) fn observed(&self) -> Option<SocketAddr> {
        self.online_to().map(|to| to.observed)
    }

    fn online_to(&self) -> Option<&LoggedInTo> {
        let LoginStage::Wanted(wanted) = &self.stage else {
            return None;
        };
        match &wanted.phase {
            Phase::Online { to, .. } => Some(to),
            _ => None,
        }
    }

    fn wanted(&mut self) -> Option<&mut Wanted> {
        match &mut self.stage {
            LoginStage::Wanted(wanted) => Some(wanted),
            LoginStage::LoggedOut { .. } => None,
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let LoginStage::Wanted(wanted) = &self.stage else {
            return None;
        };
        match wanted.phase {
            Phase::Waiting { until, .. } => Some(until),
            Phase::Online {
                doubt: Some(Doubt::Asked { until } | Doubt::Racing { until }),
                ..
            } => Some(until),
            Phase::LoggingIn { .. } | Phase::Online { .. } => None,
        }
    }
}

impl State {
    pub(super) fn log_in(&mut self, name: PeerName, server: ServerAddress, patient: bool) {
        if self.login.is_wanted() {
            self.log_out();
        }
        let last_retry = match self.overrides.takes_nothing {
            true => LAST_RETRY_OF_SENDER,
            false => LAST_RETRY,
        };
        self.login.stage = LoginStage::Wanted(Box::new(Wanted {
            name,
            server,
            connection: ConnectionId(0),
            phase: Phase::LoggingIn { after: None },
            retries: Retries::new(self.login.own_key, last_retry),
            keeps_trying: patient,
            is_told_of_haste: false,
            is_check_due: false,
        }));
        self.connect_to_server(Source::Dialled);
    }

    pub(super) fn log_out(&mut self) {
        self.end_all_sessions();
        self.end_login(None);
        self.leave_nearby();
    }

    fn end_login(&mut self, failure: Option<Failure>) {
        self.forget_what_was_told();
        self.end_codes();
        self.links.stop_joining();
        self.login = Login::new(self.login.own_key);
        self.login.stage = LoginStage::LoggedOut { failure };
        self.effect(Effect::Login(LoginEffect::End));
    }

    /// Makes a connection to the server, or goes on with the one made aside.
    fn connect_to_server(&mut self, source: Source) {
        let connection = ConnectionId(self.next_id());
        let now = self.now;
        let Some(wanted) = self.login.wanted() else {
            return;
        };
        wanted.connection = connection;
        wanted.phase = match std::mem::replace(&mut wanted.phase, Phase::LoggingIn { after: None })
        {
            Phase::Waiting { failure, until } => Phase::LoggingIn {
                after: Some((failure, until)),
            },
            other => other,
        };
        let (name, server) = (wanted.name.clone(), wanted.server.clone());
        let effort = wanted.retries.effort(now);
        let server_key = self.contacts.server_key(&server);
        let watch = self.watch_anew(server_key.or(self.login.server_key()));
        let effect = match source {
            Source::Dialled => LoginEffect::LogIn {
                connection,
                name,
                server,
                watch,
                effort,
            },
            Source::Aside => LoginEffect::LogInAside {
                connection,
                name,
                server,
                watch,
            },
        };
        self.effect(Effect::Login(effect));
    }

    /// Whether this is the present connection to the server.
    pub(crate) const fn is_connected_by(&self, connection: ConnectionId) -> bool {
        matches!(&self.login.stage, LoginStage::Wanted(it) if it.connection.0 == connection.0)
    }

    pub(crate) fn handle_login(
        &mut self,
        connection: ConnectionId,
        input: LoginInput,
        now: Instant,
    ) {
        self.now = now;
        if !self.is_connected_by(connection) {
            debug!("something of a connection to the server that has ended");
            return;
        }
        match input {
            LoginInput::LoggedIn(to) => self.logged_in(to),
            LoginInput::Lost(failure) => self.connection_lost(failure),
            LoginInput::Answered(is_there) => self.server_answered(is_there),
            LoginInput::Aside(is_made) => self.connected_aside(is_made),
            LoginInput::Presence(presence) => self.presence_told(presence),
            LoginInput::KeyHistory(history) => self.history_told(&history),
            LoginInput::CodeOpened(number) => self.code_opened(number),
            LoginInput::CodeEnded(number) => self.code_ended(number),
            LoginInput::CodeFound { number, peer } => self.code_found(number, peer),
            LoginInput::RelayEnded { peer, reason } => self.end_relay(peer, reason),
        }
    }

    fn presence_told(&mut self, mut presence: Presence) {
        if !self.login.is_told_again() {
            self.forget_what_was_told();
        }
        self.hold_doubtful(&mut presence);
        for name in self.presence.told(presence) {
            self.shorten_waits_for(&name);
        }
        self.send_queued();
        self.announce_login();
        self.drive_join();
        self.present_proofs();
    }

    fn logged_in(&mut self, to: LoggedInTo) {
        let Some(wanted) = self.login.wanted() else {
            return;
        };
        wanted.retries.succeeded();
        wanted.is_told_of_haste = false;
        wanted.keeps_trying = true;
        // One that the user has asked for: reconnecting is no sign of life.
        let is_first = matches!(wanted.phase, Phase::LoggingIn { after: None });
        let (name, server) = (wanted.name.clone(), wanted.server.clone());
        // Later connections must reach the same server.
        wanted.server = server.with_fingerprint(to.server_key.fingerprint());
        wanted.phase = Phase::Online {
            to,
            is_told: false,
            is_announced: false,
            doubt: None,
        };
        let is_check_due = std::mem::take(&mut wanted.is_check_due);
        self.login.server_key = Some(to.server_key);
        self.presence.set_watch_stale();
        if is_first {
            self.note_activity();
        }
        self.probe_again();
        self.remember_login(&name, server, to.server_key);
        self.links.try_again();
        self.pin_inviter();
        if self.in_force().allows_nearby() {
            self.be_nearby(name, true);
        }
        if is_check_due {
            self.check_server();
        }
    }

    fn remember_login(&mut self, name: &PeerName, server: ServerAddress, key: PeerKey) {
        if self.contacts.pin_server(&server, key) {
            self.store_contacts();
        }
        if self.settings.name.as_ref() != Some(name)
            || self.settings.server.as_ref() != Some(&server)
        {
            self.settings.name = Some(name.clone());
            self.settings.server = Some(server);
            self.store_settings();
        }
    }

    /// Logged in counts once the server has said who is online, and what became of the
    /// keys of those who come with others, so that a face which is told can look for its
    /// peer at once.
    pub(super) fn announce_login(&mut self) {
        let are_in_doubt = self.doubts.are_any();
        let Some(wanted) = self.login.wanted() else {
            return;
        };
        let Phase::Online {
            to,
            is_told: true,
            is_announced,
            ..
        } = &mut wanted.phase
        else {
            return;
        };
        if are_in_doubt || std::mem::replace(is_announced, true) {
            return;
        }
        let event = Event::LoggedIn {
            name: wanted.name.clone(),
            server: wanted.server.clone(),
            observed: to.observed,
        };
        self.emit(event);
        self.drive_join();
        self.drive_codes();
    }

    fn connection_lost(&mut self, failure: Failure) {
        let Some(wanted) = self.login.wanted() else {
            return;
        };
        match &wanted.phase {
            // What was asked of it shows the same, and a connection may be under way.
            Phase::Online { doubt: Some(_), .. } if !is_final(&failure) => return,
            Phase::Waiting { .. } => return,
            Phase::Online { .. } => self.effect(Effect::Login(LoginEffect::GiveUp)),
            Phase::LoggingIn { .. } => {}
        }
        self.wait_after(failure, Source::Dialled);
    }

    /// Tries again after a while, or at once over the connection that was made aside.
    fn wait_after(&mut self, failure: Failure, next: Source) {
        let now = self.now;
        let Some(wanted) = self.login.wanted() else {
            return;
        };
        if !wanted.keeps_trying || is_final(&failure) {
            return self.give_up_login(failure);
        }
        let retry_in = match next {
            Source::Aside => Duration::ZERO,
            Source::Dialled => wanted.retries.after(&failure, now),
        };
        let is_hasty = wanted.retries.effort(now) == Effort::Hasty;
        let is_told = is_hasty && wanted.is_told_of_haste;
        wanted.is_told_of_haste = is_hasty;
        wanted.phase = Phase::Waiting {
            failure: failure.clone(),
            until: now + retry_in,
        };
        let is_check_due = std::mem::take(&mut wanted.is_check_due);
        self.lose_codes(&failure);
        // The user hears of many short attempts only once.
        if !is_told {
            self.emit(Event::Disconnected { failure, retry_in });
        }
        match next {
            Source::Aside => self.connect_to_server(next),
            Source::Dialled if is_check_due => self.check_server(),
            Source::Dialled => {}
        }
    }

    fn give_up_login(&mut self, failure: Failure) {
        // What goes on nearby needs no server.
        if !self.presence.looks_nearby() {
            self.end_all_sessions();
        }
        self.end_login(Some(failure.clone()));
        self.emit(Event::LogInFailed { failure });
    }

    pub(super) fn login_timeout(&mut self) {
        let now = self.now;
        let Some(wanted) = self.login.wanted() else {
            return;
        };
        match &mut wanted.phase {
            Phase::Waiting { until, .. } if *until <= now => {
                self.connect_to_server(Source::Dialled);
            }
            Phase::Online { doubt, .. } => match *doubt {
                Some(Doubt::Asked { until }) if until <= now => {
                    let until = now + ANSWER_TIMEOUT;
                    *doubt = Some(Doubt::Racing { until });
                    debug!("the server does not answer at once");
                    self.connect_aside();
                }
                Some(Doubt::Racing { until }) if until <= now => {
                    self.effect(Effect::Login(LoginEffect::DropAside));
                    self.server_silent(Source::Dialled);
                }
                _ => {}
            },
            _ => {}
        }
    }
}

/// Where a connection to the server comes from.
#[derive(Debug, Clone, Copy)]
enum Source {
    Dialled,
    Aside,
}

fn silent() -> Failure {
    Failure::ServerLost {
        reason: "it does not answer".to_owned(),
    }
}
