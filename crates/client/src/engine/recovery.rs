//! Recovery: making words, taking a name back with them, and revoking keys.

use std::path::PathBuf;
use std::time::Instant;

use pinhole_net::{
    ConnectConfig, Connector, Identity, LogIn, LogInError, LoginRecovery, PeerKey, PeerName,
    Persistence, RecoveryCertificate, RecoveryKey, RecoveryRequest, Refusal, Revocation,
    ServerAddress, Succession,
};
use tokio::task::spawn_blocking;

use super::{Engine, Input};
use crate::command::Command;
use crate::event::Event;
use crate::explain;
use crate::failure::Failure;
use crate::model::FaceId;
use crate::recovery_words::RecoveryWords;
use crate::store::{Recovery, create_identity};

/// What the tasks that speak to a server about recovery report.
#[derive(Debug)]
pub(crate) enum RecoveryInput {
    /// The certificate of the lost key was found, or why not.
    Found {
        name: PeerName,
        server: ServerAddress,
        recovery: Box<RecoveryKey>,
        found: Result<Box<Found>, Failure>,
        asking: FaceId,
    },
    Revoked {
        asking: FaceId,
        name: PeerName,
        outcome: Result<(), Failure>,
    },
}

/// A lost key's certificate, and the identity that was made where the profile's own key is
/// the lost one.
#[derive(Debug)]
pub(crate) struct Found {
    certificate: RecoveryCertificate,
    identity: Option<Identity>,
}

impl Engine {
    pub(super) async fn make_recovery_key(&mut self) {
        let made = RecoveryWords::generate().map_err(|error| error.to_string());
        let made = made.and_then(|words| {
            let key = words.key().map_err(|error| error.to_string())?.key();
            Ok((words, key))
        });
        let (words, key) = match made {
            Ok(made) => made,
            Err(detail) => return self.fail(Failure::NotPossible { detail }).await,
        };
        let certificate = RecoveryCertificate::sign(self.profile.identity(), key);
        self.recovery.certificate = Some(certificate);
        self.store_recovery().await;
        self.emit(Event::RecoveryWords { words }).await;
    }

    /// Whose command is being carried out.
    fn asking(&self) -> FaceId {
        self.faces.asking().unwrap_or(FaceId::OWN)
    }

    async fn store_recovery(&mut self) {
        let stored = self.writer.store_recovery(&self.recovery);
        self.report_profile(stored).await;
    }

    async fn fail(&mut self, failure: Failure) {
        self.emit(Event::CommandFailed { failure }).await;
    }

    /// Has the server tell whose the words are: [`RecoveryInput::Found`] follows.
    pub(super) async fn recover(
        &mut self,
        name: PeerName,
        server: ServerAddress,
        words: &RecoveryWords,
    ) {
        let recovery = match words.key() {
            Ok(recovery) => Box::new(recovery),
            Err(error) => {
                let detail = error.to_string();
                return self.fail(Failure::NotPossible { detail }).await;
            }
        };
        // The key that this profile has may be the lost one.
        self.state.handle_command(Command::LogOut, Instant::now());
        let (log_in, config) = self.login_request(name.clone(), server.clone());
        let (own, identity_file) = (log_in.identity.key(), self.profile.identity_file());
        let (inputs, asking) = (self.inputs.clone(), self.asking());
        tokio::spawn(async move {
            let found = match find(log_in, config, recovery.key()).await {
                Ok(certificate) => {
                    let replaced = (certificate.key == own).then_some(identity_file);
                    let identity = identity_instead(replaced).await;
                    identity.map(|identity| Found {
                        certificate,
                        identity,
                    })
                }
                Err(failure) => Err(failure),
            };
            let input = RecoveryInput::Found {
                name,
                server,
                recovery,
                found: found.map(Box::new),
                asking,
            };
            // The queue closes when the engine ends; then nobody needs this.
            let _ = inputs.send(Input::Recovery(Box::new(input))).await;
        });
    }

    /// Has the server note that a key is revoked: [`RecoveryInput::Revoked`] follows.
    pub(super) async fn revoke(
        &mut self,
        name: PeerName,
        server: ServerAddress,
        words: Option<&RecoveryWords>,
    ) {
        let recovery = match words.map(RecoveryWords::key).transpose() {
            Ok(recovery) => recovery,
            Err(error) => {
                let detail = error.to_string();
                return self.fail(Failure::NotPossible { detail }).await;
            }
        };
        let (log_in, config) = self.login_request(name.clone(), server);
        let (inputs, asking) = (self.inputs.clone(), self.asking());
        tokio::spawn(async move {
            let outcome = revoke(log_in, config, recovery).await;
            let input = RecoveryInput::Revoked {
                asking,
                name,
                outcome,
            };
            let _ = inputs.send(Input::Recovery(Box::new(input))).await;
        });
    }

    pub(super) async fn handle_recovery(&mut self, input: RecoveryInput) {
        let (RecoveryInput::Found { asking, .. } | RecoveryInput::Revoked { asking, .. }) = input;
        self.faces.begin_command(asking);
        match input {
            RecoveryInput::Found {
                name,
                server,
                recovery,
                found,
                ..
            } => match found {
                Ok(found) => {
                    self.take_name_back(&recovery, *found).await;
                    let log_in = Command::LogIn {
                        name,
                        server,
                        patient: false,
                    };
                    self.state.handle_command(log_in, Instant::now());
                }
                Err(failure) => self.fail(failure).await,
            },
            RecoveryInput::Revoked { name, outcome, .. } => match outcome {
                Ok(()) => self.emit(Event::Revoked { name }).await,
                Err(failure) => self.fail(failure).await,
            },
        }
    }

    /// Signs that our key is the successor; the next login shows that to the server. The
    /// words stay good for our key.
    async fn take_name_back(&mut self, recovery: &RecoveryKey, found: Found) {
        if let Some(identity) = found.identity {
            self.profile.set_identity(identity);
        }
        let identity = self.profile.identity();
        let succession = Succession::sign(recovery, found.certificate, identity.key());
        self.recovery = Recovery {
            certificate: Some(RecoveryCertificate::sign(identity, recovery.key())),
            succession: Some(succession),
        };
        self.store_recovery().await;
    }
}

/// What the server says to a login that asks for something else than to be logged in.
async fn ask(
    log_in: LogIn,
    config: ConnectConfig,
    request: RecoveryRequest,
) -> Result<(), LogInError> {
    let log_in = LogIn {
        recovery: LoginRecovery {
            certificate: None,
            request: Some(request),
        },
        ..log_in
    };
    let pending = Box::pin(Connector::approach(log_in, config, Persistence::Once)).await?;
    Box::pin(pending.log_in(&[])).await.map(drop)
}

async fn find(
    log_in: LogIn,
    config: ConnectConfig,
    recovery_key: PeerKey,
) -> Result<RecoveryCertificate, Failure> {
    let (name, server) = (log_in.name.clone(), log_in.server.clone());
    let asked = ask(log_in, config, RecoveryRequest::Find { recovery_key }).await;
    match asked {
        Err(LogInError::NameTaken { certificate, .. }) => {
            let is_sound =
                |it: &RecoveryCertificate| it.recovery_key == recovery_key && it.verify().is_ok();
            let found = certificate.map(|it| *it).filter(is_sound);
            found.ok_or(Failure::NotRecoverable { name })
        }
        Err(error) => Err(explain::log_in(&name, &server, &error)),
        Ok(()) => Err(unexpected()),
    }
}

async fn revoke(
    log_in: LogIn,
    config: ConnectConfig,
    recovery: Option<RecoveryKey>,
) -> Result<(), Failure> {
    let (name, server) = (log_in.name.clone(), log_in.server.clone());
    let revocation = match &recovery {
        Some(recovery) => {
            let certificate = find(log_in.clone(), config.clone(), recovery.key()).await?;
            Revocation::sign_with(recovery, certificate)
        }
        None => Revocation::sign(&log_in.identity),
    };
    match ask(log_in, config, RecoveryRequest::Revoke(revocation)).await {
        Err(LogInError::Refused(Refusal::KeyRevoked)) => Ok(()),
        Err(LogInError::NameTaken { .. }) if recovery.is_some() => {
            Err(Failure::NotRecoverable { name })
        }
        Err(error) => Err(explain::log_in(&name, &server, &error)),
        Ok(()) => Err(unexpected()),
    }
}

/// Makes an identity in the place of the one in this file, if that has to be replaced.
async fn identity_instead(of: Option<PathBuf>) -> Result<Option<Identity>, Failure> {
    let Some(path) = of else {
        return Ok(None);
    };
    let made = spawn_blocking(move || create_identity(&path)).await;
    let failed = |detail| Failure::Profile { detail };
    let made = made.map_err(|error| failed(error.to_string()))?;
    made.map(Some).map_err(|error| failed(error.to_string()))
}

fn unexpected() -> Failure {
    Failure::ServerRefused {
        reason: "it does not know what recovery is".to_owned(),
    }
}
