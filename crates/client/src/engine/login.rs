//! Being logged in: the connection to the rendezvous server, again and again.

use std::future::pending;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use pinhole_net::{
    ConnectConfig, Connector, Expect, Identity, Invitation, KnownKeys, LiveSessions, LogIn,
    LogInError, LoggedIn, PathPolicy, PeerIdentity, PeerKey, PeerName, PendingLogin, Persistence,
    PortMapper, ProxyChoice, Refusal, Rendezvous, RendezvousEvent, ServerAddress,
};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::{Engine, Input, explain};
use crate::event::Event;
use crate::failure::Failure;
use crate::snapshot::LoginState;

/// First wait after a lost connection; doubles with each failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest wait. After a restart the clients of a large server come back
/// spread over it.
const LAST_RETRY: Duration = Duration::from_secs(20);
/// Longest wait of one that only sends: its user waits for it, and there are few.
const LAST_RETRY_OF_SENDER: Duration = Duration::from_secs(8);
/// How long a server that is asked whether it is there has to answer before a
/// fresh connection is made beside the old one: two round trips within these
/// limits. The server has to answer twice on the fresh one, so an old one that
/// works has two more.
const HEAD_START_MIN: Duration = Duration::from_millis(50);
const HEAD_START_MAX: Duration = Duration::from_millis(500);
/// And how long in all, when no fresh one can be made.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1500);
/// When the way to the server is lost while files are under way, a new one is
/// looked for persistently, and this long after an attempt has failed.
const HASTY_RETRY: Duration = Duration::from_millis(250);
/// Each attempt lasts no longer than this.
const HASTY_TIMEOUT: Duration = Duration::from_secs(5);
/// And all of it no longer than this.
const HASTE: Duration = Duration::from_secs(60);

/// Names a login, so that late words of an earlier one are told from those of
/// the current.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoginId(u64);

/// What the login task reports.
#[derive(Debug)]
pub(crate) enum LoginInput {
    LoggedIn {
        rendezvous: Connector,
        server_key: PeerKey,
        observed: SocketAddr,
        has_relay: bool,
    },
    Failed {
        failure: Failure,
    },
    Disconnected {
        failure: Failure,
        retry_in: Duration,
    },
    Roster(Vec<PeerIdentity>),
    Online(PeerIdentity),
    Offline(PeerName),
    Invitation(Invitation),
    RelayEnded {
        peer: PeerKey,
        reason: Refusal,
    },
}

/// Whether, where and as whom we are logged in.
#[derive(Debug)]
pub(crate) struct Login {
    id: Option<LoginId>,
    state: LoginState,
    server_key: Option<PeerKey>,
    /// The server offers a relay.
    has_relay: bool,
    /// Empty while not logged in.
    rendezvous: watch::Sender<Option<Connector>>,
    /// Logged in, but the roster has not come yet: tell the face when it has.
    observed: Option<SocketAddr>,
    task: Option<JoinHandle<()>>,
    check: Arc<Notify>,
}

impl Login {
    pub(crate) fn logged_out() -> Self {
        let state = LoginState::LoggedOut { failure: None };
        Self {
            id: None,
            state,
            server_key: None,
            has_relay: false,
            rendezvous: watch::Sender::new(None),
            observed: None,
            task: None,
            check: Arc::default(),
        }
    }

    pub(crate) fn view(&self) -> LoginState {
        self.state.clone()
    }

    /// The key of the server we are, or were last, logged in to.
    pub(crate) const fn server_key(&self) -> Option<PeerKey> {
        self.server_key
    }

    /// Whether that server offers a relay.
    pub(crate) const fn has_relay(&self) -> bool {
        self.has_relay
    }

    /// Which login this is, if there is one.
    pub(crate) const fn id(&self) -> Option<LoginId> {
        self.id
    }

    /// The way to peers, while logged in.
    pub(crate) fn rendezvous(&self) -> Option<Connector> {
        self.rendezvous.borrow().clone()
    }

    /// The way to peers as soon as there is one, if it is wanted at all. Closed
    /// when the login ends.
    pub(crate) fn coming_rendezvous(&self) -> Option<watch::Receiver<Option<Connector>>> {
        self.id.map(|_| self.rendezvous.subscribe())
    }

    /// Has the login find out whether the server is still there, and connect
    /// again if not.
    pub(super) fn check(&self) {
        self.check.notify_one();
    }

    /// Whom and where the current login is for.
    fn target(&self) -> Option<(PeerName, ServerAddress)> {
        match &self.state {
            LoginState::LoggedOut { .. } => None,
            LoginState::LoggingIn { name, server }
            | LoginState::LoggedIn { name, server }
            | LoginState::Reconnecting { name, server, .. } => Some((name.clone(), server.clone())),
        }
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Engine {
    pub(super) async fn log_in(&mut self, name: PeerName, server: ServerAddress, patient: bool) {
        if self.login.id.is_some() {
            self.log_out().await;
        }
        let id = LoginId(self.next_id());
        let attempt = Attempt {
            id,
            inputs: self.inputs.clone(),
            identity: self.profile.identity().clone(),
            expect: self.expected_key(&server),
            path: self.path_policy(),
            proxy: self.proxy.subscribe(),
            sessions: self.live_sessions.clone(),
            known: self.known.clone(),
            check: self.login.check.clone(),
            port_mapper: self.port_mapper.clone(),
            name: name.clone(),
            server: server.clone(),
            patient,
            last_retry: match self.overrides.takes_nothing {
                true => LAST_RETRY_OF_SENDER,
                false => LAST_RETRY,
            },
        };
        let task = tokio::spawn(attempt.stay_logged_in());
        self.login.id = Some(id);
        self.login.task = Some(task);
        self.login.state = LoginState::LoggingIn { name, server };
    }

    /// A fingerprint in the address wins over the pin: typing it is how a user
    /// confirms a server's new key.
    pub(super) fn expected_key(&self, server: &ServerAddress) -> Expect {
        match (server.fingerprint(), self.contacts.server_key(server)) {
            (Some(fingerprint), _) => Expect::Fingerprint(fingerprint),
            (None, Some(pinned)) => Expect::Key(pinned),
            (None, None) => Expect::AnyKey,
        }
    }

    pub(super) async fn log_out(&mut self) {
        self.end_all_sessions().await;
        self.connecting.clear();
        self.era.end();
        self.end_login();
        self.leave_nearby().await;
    }

    fn end_login(&mut self) {
        self.presence.clear();
        self.login = Login::logged_out();
    }

    pub(super) async fn handle_login(&mut self, login: LoginId, input: LoginInput) {
        let target = self.login.target().filter(|_| self.login.id == Some(login));
        let Some((name, server)) = target else {
            debug!("late word of a login that has ended");
            return;
        };
        match input {
            LoginInput::LoggedIn {
                rendezvous,
                server_key,
                observed,
                has_relay,
            } => {
                self.login.has_relay = has_relay;
                self.login.rendezvous.send_replace(Some(rendezvous));
                self.probe_again();
                self.login.server_key = Some(server_key);
                self.login.observed = Some(observed);
                self.remember_login(name.clone(), server, server_key).await;
                if self.in_force().allows_nearby() {
                    self.be_nearby(name, true).await;
                }
            }
            LoginInput::Failed { failure } => {
                // What goes on nearby needs no server.
                if self.nearby.is_running() {
                    self.end_login();
                } else {
                    self.log_out().await;
                }
                self.login.state = LoginState::LoggedOut {
                    failure: Some(failure.clone()),
                };
                self.emit(Event::LogInFailed { failure }).await;
            }
            LoginInput::Disconnected { failure, retry_in } => {
                self.login.rendezvous.send_replace(None);
                let next_attempt = (Instant::now() + retry_in).into_std();
                let failure_again = failure.clone();
                self.login.state = LoginState::Reconnecting {
                    name,
                    server,
                    failure,
                    next_attempt,
                };
                self.emit(Event::Disconnected {
                    failure: failure_again,
                    retry_in,
                })
                .await;
            }
            LoginInput::Roster(peers) => {
                self.presence = peers.into_iter().map(|p| (p.name, p.key)).collect();
                self.send_queued().await;
                if let Some(observed) = self.login.observed.take() {
                    self.announce_login(name, server, observed).await;
                }
            }
            LoginInput::Online(peer) => {
                self.presence.insert(peer.name, peer.key);
                self.send_queued().await;
            }
            LoginInput::Offline(name) => {
                self.expect_less_of(&name);
                self.presence.remove(&name);
            }
            LoginInput::Invitation(invitation) => self.take_invitation(invitation).await,
            LoginInput::RelayEnded { peer, reason } => self.end_relay(peer, reason).await,
        }
    }

    async fn remember_login(&mut self, name: PeerName, server: ServerAddress, key: PeerKey) {
        if self.contacts.pin_server(&server, key) {
            self.store_contacts().await;
        }
        if self.settings.name.as_ref() != Some(&name)
            || self.settings.server.as_ref() != Some(&server)
        {
            self.settings.name = Some(name);
            self.settings.server = Some(server);
            self.store_settings().await;
        }
    }

    /// Logged in counts once the roster is there, so that a face which is told
    /// can look for its peer at once.
    async fn announce_login(
        &mut self,
        name: PeerName,
        server: ServerAddress,
        observed: SocketAddr,
    ) {
        let fingerprint = self.login.server_key.map(|key| key.fingerprint());
        let server = fingerprint.map_or(server.clone(), |f| server.with_fingerprint(f));
        self.login.state = LoginState::LoggedIn {
            name: name.clone(),
            server: server.clone(),
        };
        self.publish();
        self.emit(Event::LoggedIn {
            name,
            server,
            observed,
        })
        .await;
    }
}

/// One login, kept up by reconnecting.
struct Attempt {
    id: LoginId,
    inputs: mpsc::Sender<Input>,
    identity: Identity,
    expect: Expect,
    path: PathPolicy,
    /// The user may change it while we try to connect again.
    proxy: watch::Receiver<ProxyChoice>,
    sessions: LiveSessions,
    known: KnownKeys,
    check: Arc<Notify>,
    port_mapper: PortMapper,
    name: PeerName,
    server: ServerAddress,
    /// See [`crate::Command::LogIn`].
    patient: bool,
    last_retry: Duration,
}

impl Attempt {
    async fn stay_logged_in(mut self) {
        let mut retries = Retries::of(self.identity.key(), self.last_retry);
        let mut keeps_trying = self.patient;
        let mut is_told_of_haste = false;
        let mut approach = None;
        loop {
            let failure = match self.log_in(approach.take(), retries.are_hasty()).await {
                Ok((rendezvous, logged_in, events)) => {
                    retries.failures_in_a_row = 0;
                    is_told_of_haste = false;
                    keeps_trying = true;
                    // From now on only this very server will do.
                    self.expect = Expect::Key(logged_in.server_key);
                    let first = LoginInput::LoggedIn {
                        rendezvous: rendezvous.clone(),
                        server_key: logged_in.server_key,
                        observed: logged_in.observed,
                        has_relay: logged_in.relay,
                    };
                    self.tell(first).await;
                    match self.forward(rendezvous.rendezvous(), events).await {
                        End::Disconnected(failure) => failure,
                        End::Silent(fresh) => {
                            retries.hurry();
                            approach = fresh;
                            silent()
                        }
                    }
                }
                Err(failure) => failure,
            };
            if !keeps_trying || is_final(&failure) {
                self.tell(LoginInput::Failed { failure }).await;
                return;
            }
            let retry_in = match approach {
                Some(_) => Duration::ZERO,
                None => retries.after(&failure),
            };
            let is_hasty = retries.are_hasty();
            // Of many short attempts the user hears once.
            if !(is_hasty && is_told_of_haste) {
                let lost = LoginInput::Disconnected { failure, retry_in };
                self.tell(lost).await;
            }
            is_told_of_haste = is_hasty;
            tokio::select! {
                () = tokio::time::sleep(retry_in) => {}
                () = self.check.notified() => retries.hurry(),
            }
        }
    }

    /// Logs in, over this connection if there is one.
    async fn log_in(
        &self,
        approach: Option<Box<PendingLogin>>,
        is_hasty: bool,
    ) -> Result<(Connector, LoggedIn, mpsc::Receiver<RendezvousEvent>), Failure> {
        let approach = match approach {
            Some(approach) => approach,
            None => self.approach(is_hasty).await?,
        };
        let logged_in = approach.log_in().await;
        logged_in.map_err(|error| self.failure(&error))
    }

    async fn approach(&self, is_hasty: bool) -> Result<Box<PendingLogin>, Failure> {
        let log_in = LogIn {
            server: self.server.clone(),
            expect: self.expect,
            identity: self.identity.clone(),
            name: self.name.clone(),
            proxy: self.proxy.borrow().clone(),
            known: self.known.clone(),
        };
        let config = ConnectConfig {
            path: self.path,
            sessions: self.sessions.clone(),
            port_mapper: Some(self.port_mapper.clone()),
        };
        let approached = if is_hasty {
            let approach = Box::pin(Connector::approach(log_in, config, Persistence::Persistent));
            let in_time = timeout(HASTY_TIMEOUT, approach).await;
            in_time.map_err(|_| silent())?
        } else {
            Box::pin(Connector::approach(log_in, config, Persistence::Once)).await
        };
        approached
            .map(Box::new)
            .map_err(|error| self.failure(&error))
    }

    /// Finds out whether the server still answers. `None` if so; if not, the
    /// connection to go on with, when one was made that the server answers on.
    async fn doubt(&self, rendezvous: &Rendezvous) -> Option<Option<Box<PendingLogin>>> {
        let head_start = (2 * rendezvous.round_trip()).clamp(HEAD_START_MIN, HEAD_START_MAX);
        let mut answers = pin!(rendezvous.answers());
        let is_gone = match timeout(head_start, &mut answers).await {
            Ok(true) => return None,
            Ok(false) => true,
            Err(_) => false,
        };
        debug!(is_gone, ?head_start, "the server does not answer at once");
        if is_gone {
            return Some(self.approach(true).await.ok());
        }
        let fresh = async {
            match self.approach(true).await {
                Ok(approach) => Some(approach),
                Err(_) => pending().await,
            }
        };
        tokio::select! {
            biased;
            true = &mut answers => None,
            fresh = timeout(ANSWER_TIMEOUT, fresh) => Some(fresh.ok().flatten()),
        }
    }

    fn failure(&self, error: &LogInError) -> Failure {
        explain::log_in(&self.name, &self.server, error)
    }

    async fn tell(&self, input: LoginInput) {
        let login = self.id;
        // The queue closes when the engine ends; then nobody needs this.
        let _ = self.inputs.send(Input::Login { login, input }).await;
    }

    /// Passes the server's words on until the connection is gone.
    async fn forward(
        &self,
        rendezvous: &Rendezvous,
        mut events: mpsc::Receiver<RendezvousEvent>,
    ) -> End {
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = self.check.notified() => {
                    let Some(fresh) = self.doubt(rendezvous).await else {
                        continue;
                    };
                    rendezvous.give_up();
                    return End::Silent(fresh);
                }
            };
            let input = match event {
                Some(RendezvousEvent::Presence(peers)) => LoginInput::Roster(peers),
                Some(RendezvousEvent::Online(peer)) => LoginInput::Online(peer),
                Some(RendezvousEvent::Offline(name)) => LoginInput::Offline(name),
                Some(RendezvousEvent::Invitation(invitation)) => LoginInput::Invitation(invitation),
                Some(RendezvousEvent::RelayEnded { peer, reason }) => {
                    LoginInput::RelayEnded { peer, reason }
                }
                Some(RendezvousEvent::Disconnected(reason)) => {
                    return End::Disconnected(explain::disconnect(&reason));
                }
                None => {
                    let reason = "the connection ended".to_owned();
                    return End::Disconnected(Failure::ServerLost { reason });
                }
            };
            self.tell(input).await;
        }
    }
}

/// How a connection to the server ended.
enum End {
    Disconnected(Failure),
    /// It does not answer any more, but may on another connection.
    Silent(Option<Box<PendingLogin>>),
}

fn silent() -> Failure {
    Failure::ServerLost {
        reason: "it does not answer".to_owned(),
    }
}

/// When a login that is gone is tried again.
struct Retries {
    key: PeerKey,
    last_retry: Duration,
    failures_in_a_row: u32,
    hasty_until: Instant,
}

impl Retries {
    fn of(key: PeerKey, last_retry: Duration) -> Self {
        Self {
            key,
            last_retry,
            failures_in_a_row: 0,
            hasty_until: Instant::now(),
        }
    }

    fn hurry(&mut self) {
        self.hasty_until = Instant::now() + HASTE;
    }

    fn are_hasty(&self) -> bool {
        Instant::now() < self.hasty_until
    }

    /// How long to wait after this failure.
    fn after(&mut self, failure: &Failure) -> Duration {
        // A server that refuses need not be looked for, and wants time.
        if matches!(failure, Failure::ServerRefused { .. }) {
            self.hasty_until = Instant::now();
        }
        if self.are_hasty() {
            return HASTY_RETRY;
        }
        let delay = retry_delay(self.failures_in_a_row, self.key, self.last_retry);
        self.failures_in_a_row += 1;
        delay
    }
}

/// Trying again will not mend these.
const fn is_final(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::NameTaken { .. } | Failure::ServerKeyChanged { .. } | Failure::Replaced
    )
}

/// Doubles with each failure. A part of it depends on our key, so that the
/// clients of a restarted server do not all return in the same second.
fn retry_delay(failures_in_a_row: u32, key: PeerKey, longest: Duration) -> Duration {
    let base = FIRST_RETRY
        .saturating_mul(1 << failures_in_a_row.min(6))
        .min(longest);
    let bytes = key.as_bytes();
    let share = bytes
        .iter()
        .cycle()
        .nth(failures_in_a_row as usize)
        .copied()
        .unwrap_or(0);
    base + base.mul_f64(f64::from(share) / 256.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_refuses_is_asked_again_but_not_in_haste() {
        let (name, server) = ("alice".parse().unwrap(), "server.test".parse().unwrap());
        let error = LogInError::Refused(Refusal::Limited);
        let refused = explain::log_in(&name, &server, &error);
        assert!(!is_final(&refused));
        let words = "The server refused: too many connections or requests at the moment, from your network or in all; try again in a minute.";
        assert_eq!(refused.to_string(), words);

        let mut retries = Retries::of(PeerKey::from_bytes([0; 32]), LAST_RETRY);
        retries.hurry();
        assert_eq!(retries.after(&silent()), HASTY_RETRY);
        let waits = [1, 2, 4, 8].map(Duration::from_secs);
        assert_eq!([(); 4].map(|()| retries.after(&refused)), waits);
    }

    #[test]
    fn who_only_sends_never_waits_long() {
        let mut retries = Retries::of(PeerKey::from_bytes([255; 32]), LAST_RETRY_OF_SENDER);
        let longest = [(); 12].map(|()| retries.after(&silent()));
        assert!(longest.iter().all(|wait| *wait <= 2 * LAST_RETRY_OF_SENDER));
    }
}
