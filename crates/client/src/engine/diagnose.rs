//! Finding out what the network does, at the user's wish, and keeping what
//! the last attempts to connect have shown.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pinhole_net::diagnosis::Diagnosis;
use pinhole_net::{Examination, PeerIdentity, ServerAddress, Session, SessionPath};
use tracing::warn;

use super::sessions::NotConnected;
use super::{Engine, Input};
use crate::attempts::Attempt;
use crate::event::Event;
use crate::failure::Failure;

/// What is known of the network, as the engine holds it.
#[derive(Debug, Default)]
pub(crate) struct Diagnosing {
    pub(crate) is_running: bool,
    pub(crate) last: Option<Arc<Diagnosis>>,
}

impl Engine {
    /// Begins to measure, unless that is under way.
    pub(super) async fn diagnose(&mut self, server: Option<ServerAddress>) {
        if self.diagnosing.is_running {
            return;
        }
        let Some(server) = server.or_else(|| self.settings.server.clone()) else {
            let detail = "No server is known yet. Log in once, or name one.".to_owned();
            let failure = Failure::NotPossible { detail };
            return self.emit(Event::CommandFailed { failure }).await;
        };
        self.diagnosing.is_running = true;
        let asks_router = self.in_force().port_mapping;
        let proxy = self.in_force().proxy.proxy_for(server.host());
        let examination = Examination {
            expect: self.expected_key(&server),
            identity: self.profile.identity().clone(),
            port_mapper: asks_router.then(|| self.port_mapper.clone()),
            proxy: proxy.map(|proxy| proxy.to_string()),
            server,
        };
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let diagnosis = Arc::new(Box::pin(examination.run()).await);
            // The queue closes when the engine ends; then nobody needs this.
            let _ = inputs.send(Input::Diagnosed(diagnosis)).await;
        });
    }

    pub(super) async fn take_diagnosis(&mut self, diagnosis: Arc<Diagnosis>) {
        self.diagnosing.is_running = false;
        self.diagnosing.last = Some(diagnosis.clone());
        self.emit(Event::Diagnosed { diagnosis }).await;
    }

    /// Keeps what an attempt to connect has shown.
    pub(super) fn remember_attempt(
        &mut self,
        peer: &PeerIdentity,
        invited: bool,
        outcome: &Result<Session, NotConnected>,
    ) {
        let now_s = now_s();
        let whom = (&peer.name, invited);
        let attempt = match outcome {
            Ok(session) => {
                let won = (session.path, session.elapsed);
                Attempt::connected(now_s, whom, won, &session.report)
            }
            Err(failed) => match &failed.report {
                Some(report) => Attempt::failed(now_s, whom, report),
                None => return,
            },
        };
        self.keep_attempt(attempt);
    }

    /// Keeps what a better path for a session has shown.
    pub(super) fn remember_move(&mut self, peer: &PeerIdentity, path: &SessionPath) {
        let moved = Attempt::moved(now_s(), &peer.name, path.kind, &path.report);
        self.keep_attempt(moved);
    }

    fn keep_attempt(&mut self, attempt: Attempt) {
        if let Err(error) = self.attempts.add(&self.writer, attempt) {
            warn!(%error, "an attempt to connect is not kept");
        }
    }
}

fn now_s() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.unwrap_or(Duration::ZERO).as_secs()
}
