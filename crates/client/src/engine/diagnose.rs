//! Finding out what the network does, at the user's wish.

use std::sync::Arc;

use pinhole_net::diagnosis::Diagnosis;
use pinhole_net::{Examination, ServerAddress};

use super::{Engine, Input};
use crate::event::Event;
use crate::failure::Failure;

/// What is known of the network, as the engine holds it.
#[derive(Debug, Default)]
pub(super) struct Diagnosing {
    /// The server that is measured with, while that is under way.
    pub(super) running: Option<ServerAddress>,
    pub(super) last: Option<Arc<Diagnosis>>,
}

impl Engine {
    /// Begins to measure, unless that is under way.
    pub(super) async fn diagnose(&mut self, server: Option<ServerAddress>) {
        let settings = self.state.in_force();
        let Some(server) = server.or(settings.server) else {
            let detail = "No server is known yet. Log in once, or name one.".to_owned();
            let failure = Failure::NotPossible { detail };
            return self.emit(Event::CommandFailed { failure }).await;
        };
        match &self.diagnosing.running {
            // Its outcome is told to all faces.
            Some(running) if *running == server => return,
            Some(running) => {
                let detail =
                    format!("A diagnosis with {running} is being made. Try again in a moment.");
                let failure = Failure::NotPossible { detail };
                return self.emit(Event::CommandFailed { failure }).await;
            }
            None => self.diagnosing.running = Some(server.clone()),
        }
        let proxy = settings.proxy.proxy_for(server.host());
        let examination = Examination {
            expect: self.expected_key(&server),
            identity: self.profile.identity().clone(),
            port_mapper: settings.port_mapping.then(|| self.port_mapper.clone()),
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
        self.diagnosing.running = None;
        self.diagnosing.last = Some(diagnosis.clone());
        self.emit(Event::Diagnosed { diagnosis }).await;
    }
}
