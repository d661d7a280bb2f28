//! Finding out what the network does, at the user's wish, and keeping what
//! the last attempts to connect have shown.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pinhole_net::diagnosis::Diagnosis;
use pinhole_net::{ConnectError, Examination, PeerIdentity, ServerAddress, Session};
use tracing::warn;

use super::{Engine, Input};
use crate::attempts::Attempt;
use crate::event::Event;
use crate::failure::Failure;

/// The usual variables that name an HTTP proxy, in the order of precedence.
const PROXY_VARIABLES: [&str; 6] = [
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "http_proxy",
    "HTTP_PROXY",
];

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
        let examination = Examination {
            expect: self.expected_key(&server),
            identity: self.profile.identity().clone(),
            port_mapper: asks_router.then(|| self.port_mapper.clone()),
            proxy: proxy(|variable| std::env::var(variable).ok()),
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
        outcome: &Result<Session, ConnectError>,
    ) {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_s = since_1970.unwrap_or(Duration::ZERO).as_secs();
        let whom = (&peer.name, invited);
        let attempt = match outcome {
            Ok(session) => {
                let won = (session.path, session.elapsed);
                Attempt::connected(now_s, whom, won, &session.report)
            }
            Err(ConnectError::NoPath { report, .. }) => Attempt::failed(now_s, whom, report),
            // Nothing was tried.
            Err(_) => return,
        };
        if let Err(error) = self.attempts.add(&self.profile, attempt) {
            warn!(%error, "an attempt to connect is not kept");
        }
    }
}

/// The first variable that names a proxy, and the proxy without what is in
/// front of its host: that may be a password.
fn proxy(variable: impl Fn(&str) -> Option<String>) -> Option<(String, String)> {
    PROXY_VARIABLES.iter().find_map(|name| {
        let value = variable(name).filter(|value| !value.is_empty())?;
        let place = value.rsplit_once('@').map_or_else(
            || {
                value
                    .rsplit_once("://")
                    .map_or(value.as_str(), |(_, place)| place)
            },
            |(_, place)| place,
        );
        Some(((*name).to_owned(), place.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_named_without_its_password() {
        for (value, place) in [
            ("http://proxy.example:3128", "proxy.example:3128"),
            (
                "http://user:pass@proxy.example:3128/",
                "proxy.example:3128/",
            ),
            ("http://user:p@ss@proxy.example:3128", "proxy.example:3128"),
            ("proxy.example:3128", "proxy.example:3128"),
        ] {
            let set = |name: &str| (name == "ALL_PROXY").then(|| value.to_owned());
            assert_eq!(proxy(set), Some(("ALL_PROXY".into(), place.into())));
        }
        assert_eq!(proxy(|_| None), None);
        assert_eq!(proxy(|_| Some(String::new())), None);
    }
}
