//! People on the same network, as the state asks for them.

use pinhole_net::{Nearby, NearbyConfig, NearbyEvent, PeerName, Visitor};
use pinhole_transfer::Side;
use tokio::task::JoinHandle;
use tracing::debug;

use super::sessions::SessionInput;
use super::{Engine, Input};
use crate::event::Event;
use crate::explain;
use crate::failure::Failure;
use crate::state::Told;

/// Tells what an earlier start reports from what the present one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct NearbyId(u64);

/// Looking for people nearby.
#[derive(Debug)]
pub(super) struct Neighbourhood {
    id: NearbyId,
    pub(super) nearby: Nearby,
    forwarding: JoinHandle<()>,
}

impl Drop for Neighbourhood {
    fn drop(&mut self) {
        self.forwarding.abort();
    }
}

impl Engine {
    pub(super) async fn start_nearby(&mut self, name: PeerName, announces: bool) {
        let started = Nearby::start(NearbyConfig {
            identity: self.profile.identity().clone(),
            name: name.clone(),
            announces,
            known: self.known.clone(),
        });
        let (nearby, mut events) = match started {
            Ok(started) => started,
            Err(error) => {
                let failure = Failure::NotPossible {
                    detail: format!("People nearby cannot be looked for: {error}."),
                };
                return self.emit(Event::CommandFailed { failure }).await;
            }
        };
        self.next_nearby.0 += 1;
        let id = self.next_nearby;
        let inputs = self.inputs.clone();
        let forwarding = tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if inputs.send(Input::Nearby { id, event }).await.is_err() {
                    return;
                }
            }
        });
        let port = nearby.port();
        self.nearby = Some(Neighbourhood {
            id,
            nearby,
            forwarding,
        });
        self.state.handle_nearby_started(name, port);
    }

    /// Says goodbye to whoever has found us.
    pub(super) async fn leave_nearby(&mut self) {
        if let Some(neighbourhood) = self.nearby.take() {
            neighbourhood.nearby.end().await;
        }
    }

    pub(super) fn handle_nearby(&mut self, id: NearbyId, event: NearbyEvent) {
        if self.nearby.as_ref().is_none_or(|running| running.id != id) {
            debug!("something of an earlier look for people nearby");
            return;
        }
        let now = std::time::Instant::now();
        match event {
            NearbyEvent::Peers(peers) => self.state.handle_nearby(peers, now),
            NearbyEvent::Visitor(visitor) => self.take_visitor(visitor),
        }
    }

    /// Lets somebody in, or not.
    fn take_visitor(&mut self, visitor: Visitor) {
        let own_name = self.nearby.as_ref().map(|it| it.nearby.name().clone());
        let Some(own_name) = own_name else {
            return;
        };
        let said = visitor.peer().clone();
        let told = self.state.handle_visitor(&said, std::time::Instant::now());
        let (peer, epoch, is_vouched) = match told {
            Told::Yes {
                peer,
                epoch,
                is_vouched,
                ..
            } => (peer, epoch, is_vouched),
            Told::No(reason) => {
                tokio::spawn(visitor.refuse(reason));
                return;
            }
            // Nothing is shown here that could be answered.
            Told::Answer(_) => return,
        };
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let admitted = visitor.admit(&own_name, peer.clone()).await;
            let outcome = admitted.map_err(|e| explain::lost(&peer, &e).into());
            let input = SessionInput::Connected {
                epoch,
                peer,
                is_vouched,
                side: Side::Responder,
                outcome,
            };
            let _ = inputs.send(Input::Session(input)).await;
        });
    }
}
