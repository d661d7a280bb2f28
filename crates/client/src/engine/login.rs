//! The connection to the rendezvous server, as the state asks for it.

use std::time::Duration;

use pinhole_net::{
    ConnectConfig, Connector, Expect, Invitation, LogIn, LogInError, LoggedIn, PeerName,
    PendingLogin, Persistence, RendezvousEvent, ServerAddress,
};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::{Engine, Input};
use crate::explain;
use crate::failure::Failure;
use crate::state::{ConnectionId, Effort, LoggedInTo, LoginEffect, LoginInput};

/// An attempt that is made in haste lasts no longer than this.
const HASTY_TIMEOUT: Duration = Duration::from_secs(5);

/// Invitations that may wait until the server has said what became of a key.
const HELD_INVITATIONS: usize = 16;

/// What the tasks around the connection to the server report.
#[derive(Debug)]
pub(crate) enum ServerInput {
    LoggedIn {
        connection: ConnectionId,
        to: LoggedInTo,
        connector: Connector,
    },
    /// A connection was made beside the present one, or could not be.
    Aside {
        connection: ConnectionId,
        pending: Option<Box<PendingLogin>>,
    },
    Invitation {
        connection: ConnectionId,
        invitation: Invitation,
    },
    Said {
        connection: ConnectionId,
        input: LoginInput,
    },
}

/// The connection to the server, and the one that may take its place.
#[derive(Debug, Default)]
pub(super) struct ServerConnection {
    /// Empty while not logged in.
    connector: watch::Sender<Option<Connector>>,
    aside: Option<Box<PendingLogin>>,
    /// Invitations that wait for the history of a key.
    held: Vec<Invitation>,
    task: Option<AbortHandle>,
    aside_task: Option<AbortHandle>,
}

impl ServerConnection {
    /// What connects to peers, while logged in.
    pub(super) fn connector(&self) -> Option<Connector> {
        self.connector.borrow().clone()
    }

    /// The same as soon as there is one. Closed when the login ends.
    pub(super) fn coming_connector(&self) -> watch::Receiver<Option<Connector>> {
        self.connector.subscribe()
    }

    /// Keeps an invitation until a key's history has come. Gives it back if too many
    /// wait.
    pub(super) fn hold(&mut self, invitation: Invitation) -> Option<Invitation> {
        if self.held.len() >= HELD_INVITATIONS {
            return Some(invitation);
        }
        self.held.push(invitation);
        None
    }

    fn drop_aside(&mut self) {
        self.aside = None;
        if let Some(task) = self.aside_task.take() {
            task.abort();
        }
    }

    fn end_connection(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        self.held.clear();
        self.connector.send_replace(None);
    }
}

impl Drop for ServerConnection {
    fn drop(&mut self) {
        self.drop_aside();
        self.end_connection();
    }
}

impl Engine {
    pub(super) fn run_login(&mut self, effect: LoginEffect) {
        match effect {
            LoginEffect::LogIn {
                connection,
                name,
                server,
                watch,
                effort,
            } => {
                let attempt = self.login_attempt(connection, name, server);
                let task = tokio::spawn(async move {
                    let pending = attempt.approach(effort).await;
                    attempt.stay_logged_in(pending, &watch).await;
                });
                self.set_connection_task(task.abort_handle());
            }
            LoginEffect::LogInAside {
                connection,
                name,
                server,
                watch,
            } => {
                let attempt = self.login_attempt(connection, name, server);
                let pending = self.server.aside.take().ok_or_else(silent);
                let task =
                    tokio::spawn(async move { attempt.stay_logged_in(pending, &watch).await });
                self.set_connection_task(task.abort_handle());
            }
            LoginEffect::Watch(names) => self.connected(|it| it.rendezvous().watch(&names)),
            LoginEffect::Unwatch(names) => self.connected(|it| it.rendezvous().unwatch(&names)),
            LoginEffect::AskHistory(known) => {
                self.connected(|it| it.rendezvous().ask_history(known));
            }
            LoginEffect::OpenCode => self.connected(|it| it.rendezvous().open_code()),
            LoginEffect::CloseCode => self.connected(|it| it.rendezvous().close_code()),
            LoginEffect::FindCode(number) => {
                self.connected(|it| it.rendezvous().find_code(number));
            }
            LoginEffect::Ask(connection) => self.ask_server(connection),
            LoginEffect::ConnectAside {
                connection,
                name,
                server,
            } => {
                let attempt = self.login_attempt(connection, name, server);
                let task = tokio::spawn(async move {
                    let pending = attempt.approach(Effort::Hasty).await.ok();
                    let aside = ServerInput::Aside {
                        connection,
                        pending,
                    };
                    attempt.report(aside).await;
                });
                self.server.drop_aside();
                self.server.aside_task = Some(task.abort_handle());
            }
            LoginEffect::SetWarmth(warmth) => self.connected(|it| it.set_warmth(warmth)),
            LoginEffect::DropAside => self.server.drop_aside(),
            LoginEffect::GiveUp => {
                self.connected(|it| it.rendezvous().give_up());
                self.server.end_connection();
            }
            // Tasks that wait for a connector learn that there will be none.
            LoginEffect::End => self.server = ServerConnection::default(),
        }
    }

    /// Uses the connector, if there is one: a new login brings what is missed meanwhile.
    fn connected(&self, act: impl FnOnce(&Connector)) {
        if let Some(connector) = self.server.connector() {
            act(&connector);
        }
    }

    fn set_connection_task(&mut self, task: AbortHandle) {
        self.server.end_connection();
        self.server.task = Some(task);
    }

    fn ask_server(&self, connection: ConnectionId) {
        let (inputs, connector) = (self.inputs.clone(), self.server.connector());
        tokio::spawn(async move {
            let is_there = match connector {
                Some(connector) => connector.rendezvous().answers().await,
                None => false,
            };
            let said = ServerInput::Said {
                connection,
                input: LoginInput::Answered(is_there),
            };
            // The queue closes when the engine ends; then nobody needs this.
            let _ = inputs.send(Input::Server(said)).await;
        });
    }

    /// A fingerprint in the address wins over the pin: typing it is how a user
    /// confirms a server's new key.
    pub(super) fn expected_key(&self, server: &ServerAddress) -> Expect {
        match (
            server.fingerprint(),
            self.state.contacts().server_key(server),
        ) {
            (Some(fingerprint), _) => Expect::Fingerprint(fingerprint),
            (None, Some(pinned)) => Expect::Key(pinned),
            (None, None) => Expect::AnyKey,
        }
    }

    fn login_attempt(
        &self,
        connection: ConnectionId,
        name: PeerName,
        server: ServerAddress,
    ) -> LoginAttempt {
        let (log_in, config) = self.login_request(name, server);
        LoginAttempt {
            connection,
            inputs: self.inputs.clone(),
            log_in,
            config,
        }
    }

    /// What a login as this profile needs.
    pub(super) fn login_request(
        &self,
        name: PeerName,
        server: ServerAddress,
    ) -> (LogIn, ConnectConfig) {
        let settings = self.state.in_force();
        let log_in = LogIn {
            expect: self.expected_key(&server),
            server,
            identity: self.profile.identity().clone(),
            name,
            proxy: settings.proxy,
            known: self.known.clone(),
            recovery: self.recovery.at_login(),
        };
        let config = ConnectConfig {
            path: settings.path,
            sessions: self.live_sessions.clone(),
            port_mapper: Some(self.port_mapper.clone()),
            warmth: self.state.warmth(),
        };
        (log_in, config)
    }

    pub(super) async fn handle_server(&mut self, input: ServerInput) {
        let now = std::time::Instant::now();
        match input {
            ServerInput::LoggedIn {
                connection,
                to,
                connector,
            } => {
                if self.state.is_connected_by(connection) {
                    // It may have changed since the connection was begun.
                    connector.set_warmth(self.state.warmth());
                    self.server.connector.send_replace(Some(connector));
                }
                let logged_in = LoginInput::LoggedIn(to);
                self.state.handle_login(connection, logged_in, now);
            }
            ServerInput::Aside {
                connection,
                pending,
            } => {
                let aside = LoginInput::Aside(pending.is_some());
                self.server.aside = pending;
                self.state.handle_login(connection, aside, now);
                self.run_effects().await;
                // It was not needed any more.
                self.server.aside = None;
            }
            ServerInput::Invitation {
                connection,
                invitation,
            } => {
                if self.state.is_connected_by(connection) {
                    self.take_invitation(invitation).await;
                }
            }
            ServerInput::Said { connection, input } => {
                let brings_history = matches!(input, LoginInput::KeyHistory(_));
                self.state.handle_login(connection, input, now);
                if brings_history {
                    for invitation in std::mem::take(&mut self.server.held) {
                        self.take_invitation(invitation).await;
                    }
                }
            }
        }
    }
}

/// One attempt to log in, and the connection that comes of it.
struct LoginAttempt {
    connection: ConnectionId,
    inputs: mpsc::Sender<Input>,
    log_in: LogIn,
    config: ConnectConfig,
}

impl LoginAttempt {
    async fn approach(&self, effort: Effort) -> Result<Box<PendingLogin>, Failure> {
        let (log_in, config) = (self.log_in.clone(), self.config.clone());
        let reached = match effort {
            Effort::Hasty => {
                let reaching = Connector::approach(log_in, config, Persistence::Persistent);
                let in_time = timeout(HASTY_TIMEOUT, Box::pin(reaching)).await;
                in_time.map_err(|_| silent())?
            }
            Effort::Usual => Box::pin(Connector::approach(log_in, config, Persistence::Once)).await,
        };
        reached.map(Box::new).map_err(|error| self.failure(&error))
    }

    /// Takes the name, and passes on what the server says until the connection is gone.
    async fn stay_logged_in(
        &self,
        pending: Result<Box<PendingLogin>, Failure>,
        watch: &[PeerName],
    ) {
        let logged_in = match pending {
            Ok(pending) => {
                let logged_in = pending.log_in(watch).await;
                logged_in.map_err(|error| self.failure(&error))
            }
            Err(failure) => Err(failure),
        };
        let lost = match logged_in {
            Ok((connector, to, events)) => self.forward(connector, &to, events).await,
            Err(failure) => failure,
        };
        self.say(LoginInput::Lost(lost)).await;
    }

    async fn forward(
        &self,
        connector: Connector,
        to: &LoggedIn,
        mut events: mpsc::Receiver<RendezvousEvent>,
    ) -> Failure {
        let to = LoggedInTo {
            server_key: to.server_key,
            observed: to.observed,
            has_relay: to.relay,
            has_codes: to.codes,
            round_trip: connector.rendezvous().round_trip(),
        };
        let connection = self.connection;
        self.report(ServerInput::LoggedIn {
            connection,
            to,
            connector,
        })
        .await;
        while let Some(event) = events.recv().await {
            let input = match event {
                RendezvousEvent::Presence(presence) => LoginInput::Presence(presence),
                RendezvousEvent::KeyHistory(history) => LoginInput::KeyHistory(history),
                RendezvousEvent::RelayEnded { peer, reason } => {
                    LoginInput::RelayEnded { peer, reason }
                }
                RendezvousEvent::Invitation(invitation) => {
                    self.report(ServerInput::Invitation {
                        connection,
                        invitation,
                    })
                    .await;
                    continue;
                }
                RendezvousEvent::Code { number } => LoginInput::CodeOpened(number),
                RendezvousEvent::CodeEnded { number } => LoginInput::CodeEnded(number),
                RendezvousEvent::CodeFound { number, peer } => {
                    LoginInput::CodeFound { number, peer }
                }
                RendezvousEvent::Disconnected(reason) => return explain::disconnect(&reason),
            };
            self.say(input).await;
        }
        Failure::ServerLost {
            reason: "the connection ended".to_owned(),
        }
    }

    fn failure(&self, error: &LogInError) -> Failure {
        explain::log_in(&self.log_in.name, &self.log_in.server, error)
    }

    async fn say(&self, input: LoginInput) {
        let connection = self.connection;
        self.report(ServerInput::Said { connection, input }).await;
    }

    async fn report(&self, input: ServerInput) {
        // The queue closes when the engine ends; then nobody needs this.
        let _ = self.inputs.send(Input::Server(input)).await;
    }
}

fn silent() -> Failure {
    Failure::ServerLost {
        reason: "it does not answer".to_owned(),
    }
}
