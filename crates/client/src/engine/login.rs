//! Being logged in: the connection to the rendezvous server, again and again.

use std::net::SocketAddr;
use std::time::Duration;

use pinhole_net::{
    Expect, Identity, Invitation, LogIn, LogInError, PathPolicy, PeerIdentity, PeerKey, PeerName,
    PortMapper, Rendezvous, RendezvousEvent, ServerAddress,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::debug;

use super::{Engine, Input, explain};
use crate::event::Event;
use crate::failure::Failure;
use crate::snapshot::LoginState;

/// First wait after a lost connection; doubles with each failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest wait. After a restart the clients of a large server come back
/// spread over it.
const LAST_RETRY: Duration = Duration::from_secs(60);

/// Names a login, so that late words of an earlier one are told from those of
/// the current.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoginId(u64);

/// What the login task reports.
#[derive(Debug)]
pub(crate) enum LoginInput {
    LoggedIn {
        rendezvous: Rendezvous,
        server_key: PeerKey,
        observed: SocketAddr,
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
}

/// Whether, where and as whom we are logged in.
#[derive(Debug)]
pub(crate) struct Login {
    id: Option<LoginId>,
    state: LoginState,
    server_key: Option<PeerKey>,
    rendezvous: Option<Rendezvous>,
    /// Logged in, but the roster has not come yet: tell the face when it has.
    observed: Option<SocketAddr>,
    task: Option<JoinHandle<()>>,
}

impl Login {
    pub(crate) const fn logged_out() -> Self {
        let state = LoginState::LoggedOut { failure: None };
        Self {
            id: None,
            state,
            server_key: None,
            rendezvous: None,
            observed: None,
            task: None,
        }
    }

    pub(crate) fn view(&self) -> LoginState {
        self.state.clone()
    }

    /// The key of the server we are, or were last, logged in to.
    pub(crate) const fn server_key(&self) -> Option<PeerKey> {
        self.server_key
    }

    /// Which login this is, if there is one.
    pub(crate) const fn id(&self) -> Option<LoginId> {
        self.id
    }

    /// The way to peers, while logged in.
    pub(crate) const fn rendezvous(&self) -> Option<&Rendezvous> {
        self.rendezvous.as_ref()
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
    pub(super) async fn log_in(&mut self, name: PeerName, server: ServerAddress) {
        self.log_out().await;
        let id = LoginId(self.next_id());
        let attempt = Attempt {
            id,
            inputs: self.inputs.clone(),
            identity: self.profile.identity().clone(),
            expect: self.expected_key(&server),
            path: self.path_policy(),
            port_mapper: self.port_mapper.clone(),
            name: name.clone(),
            server: server.clone(),
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
        self.roster.clear();
        self.connecting.clear();
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
            } => {
                self.login.rendezvous = Some(rendezvous);
                self.login.server_key = Some(server_key);
                self.login.observed = Some(observed);
                self.remember_login(name, server, server_key).await;
            }
            LoginInput::Failed { failure } => {
                self.log_out().await;
                self.login.state = LoginState::LoggedOut {
                    failure: Some(failure.clone()),
                };
                self.emit(Event::LogInFailed { failure }).await;
            }
            LoginInput::Disconnected { failure, retry_in } => {
                self.login.rendezvous = None;
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
                self.roster = peers.into_iter().map(|p| (p.name, p.key)).collect();
                self.send_queued().await;
                if let Some(observed) = self.login.observed.take() {
                    self.announce_login(name, server, observed).await;
                }
            }
            LoginInput::Online(peer) => {
                self.roster.insert(peer.name, peer.key);
                self.send_queued().await;
            }
            LoginInput::Offline(name) => {
                self.expect_less_of(&name);
                self.roster.remove(&name);
            }
            LoginInput::Invitation(invitation) => self.take_invitation(invitation).await,
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
    port_mapper: PortMapper,
    name: PeerName,
    server: ServerAddress,
}

impl Attempt {
    async fn stay_logged_in(mut self) {
        let mut failures_in_a_row = 0;
        let mut was_logged_in = false;
        loop {
            let failure = match self.log_in().await {
                Ok((rendezvous, logged_in, events)) => {
                    failures_in_a_row = 0;
                    was_logged_in = true;
                    // From now on only this very server will do.
                    self.expect = Expect::Key(logged_in.server_key);
                    let first = LoginInput::LoggedIn {
                        rendezvous,
                        server_key: logged_in.server_key,
                        observed: logged_in.observed,
                    };
                    self.tell(first).await;
                    self.forward(events).await
                }
                Err(e) => self.failure(&e),
            };
            if !was_logged_in || is_final(&failure) {
                self.tell(LoginInput::Failed { failure }).await;
                return;
            }
            let retry_in = retry_delay(failures_in_a_row, self.identity.key());
            failures_in_a_row += 1;
            let lost = LoginInput::Disconnected { failure, retry_in };
            self.tell(lost).await;
            tokio::time::sleep(retry_in).await;
        }
    }

    async fn log_in(
        &self,
    ) -> Result<
        (
            Rendezvous,
            pinhole_net::LoggedIn,
            mpsc::Receiver<RendezvousEvent>,
        ),
        LogInError,
    > {
        Rendezvous::log_in(LogIn {
            server: self.server.clone(),
            expect: self.expect,
            identity: self.identity.clone(),
            name: self.name.clone(),
            path: self.path,
            port_mapper: Some(self.port_mapper.clone()),
        })
        .await
    }

    fn failure(&self, error: &LogInError) -> Failure {
        explain::log_in(&self.name, &self.server, error)
    }

    async fn tell(&self, input: LoginInput) {
        let login = self.id;
        // The queue closes when the engine ends; then nobody needs this.
        let _ = self.inputs.send(Input::Login { login, input }).await;
    }

    /// Passes the server's words on until the connection is gone; says why it
    /// went.
    async fn forward(&self, mut events: mpsc::Receiver<RendezvousEvent>) -> Failure {
        while let Some(event) = events.recv().await {
            let input = match event {
                RendezvousEvent::Roster(peers) => LoginInput::Roster(peers),
                RendezvousEvent::Online(peer) => LoginInput::Online(peer),
                RendezvousEvent::Offline(name) => LoginInput::Offline(name),
                RendezvousEvent::Invitation(invitation) => LoginInput::Invitation(invitation),
                RendezvousEvent::Disconnected(reason) => return explain::disconnect(&reason),
            };
            self.tell(input).await;
        }
        Failure::ServerLost {
            reason: "the connection ended".to_owned(),
        }
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
fn retry_delay(failures_in_a_row: u32, key: PeerKey) -> Duration {
    let base = FIRST_RETRY
        .saturating_mul(1 << failures_in_a_row.min(6))
        .min(LAST_RETRY);
    let bytes = key.as_bytes();
    let share = bytes
        .iter()
        .cycle()
        .nth(failures_in_a_row as usize)
        .copied()
        .unwrap_or(0);
    base + base.mul_f64(f64::from(share) / 256.0)
}
