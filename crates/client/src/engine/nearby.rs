//! People on the same network, with or without a server.

use std::collections::BTreeMap;

use pinhole_net::{
    Nearby, NearbyConfig, NearbyEvent, PeerIdentity, PeerKey, PeerName, RefuseReason, Visitor,
};
use pinhole_transfer::Side;
use tokio::task::JoinHandle;
use tracing::{debug, info};

use super::sessions::SessionInput;
use super::{Engine, Input, explain};
use crate::contacts::Acquaintance;
use crate::event::Event;
use crate::failure::Failure;

/// With so many sessions up nobody more is let in: no server counts who comes.
const SESSIONS_MAX: usize = 32;
/// As many of one key.
const SESSIONS_OF_ONE_MAX: usize = 4;

/// Tells late words of an earlier start from those of the current.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NearbyId(u64);

/// Whether people nearby are looked for, and who is there.
#[derive(Debug, Default)]
pub(crate) struct Neighbourhood {
    running: Option<Running>,
    peers: BTreeMap<PeerKey, PeerName>,
}

#[derive(Debug)]
struct Running {
    id: NearbyId,
    nearby: Nearby,
    forwarding: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.forwarding.abort();
    }
}

impl Neighbourhood {
    pub(super) const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The name we go by there.
    pub(super) fn name(&self) -> Option<PeerName> {
        let running = self.running.as_ref();
        running.map(|running| running.nearby.name().clone())
    }

    pub(super) fn has(&self, key: PeerKey) -> bool {
        self.peers.contains_key(&key)
    }

    /// Who is there, under the names they give themselves.
    pub(super) fn peers(&self) -> impl Iterator<Item = PeerIdentity> {
        self.peers.iter().map(|(&key, name)| PeerIdentity {
            name: name.clone(),
            key,
        })
    }

    /// The way to somebody who is there.
    pub(super) fn to(&self, key: PeerKey) -> Option<Nearby> {
        let running = self.running.as_ref().filter(|_| self.has(key));
        running.map(|running| running.nearby.clone())
    }
}

impl Engine {
    /// As the user asks for it.
    pub(super) async fn go_nearby(&mut self, name: PeerName, announces: bool, alone: bool) {
        if !self.in_force().allows_nearby() {
            let detail = "People nearby are not looked for: it is switched off, or only the relay may be used, which hides your address.";
            let failure = Failure::NotPossible {
                detail: detail.to_owned(),
            };
            return self.emit(Event::CommandFailed { failure }).await;
        }
        if alone && self.settings.name.as_ref() != Some(&name) {
            self.settings.name = Some(name.clone());
            self.store_settings().await;
        }
        self.be_nearby(name, announces).await;
    }

    /// Looks for people nearby, unless it does already under this name.
    pub(super) async fn be_nearby(&mut self, name: PeerName, announces: bool) {
        if self.nearby.name().as_ref() == Some(&name) {
            return;
        }
        self.leave_nearby().await;
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
        let id = NearbyId(self.next_id());
        let inputs = self.inputs.clone();
        let forwarding = tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if inputs.send(Input::Nearby { id, event }).await.is_err() {
                    return;
                }
            }
        });
        let port = nearby.port();
        self.nearby.running = Some(Running {
            id,
            nearby,
            forwarding,
        });
        self.publish();
        self.emit(Event::Nearby { name, port }).await;
    }

    /// Says goodbye to whoever has found us.
    pub(super) async fn leave_nearby(&mut self) {
        self.nearby.peers.clear();
        if let Some(running) = self.nearby.running.take() {
            running.nearby.end().await;
        }
    }

    pub(super) async fn set_nearby(&mut self, on: bool) {
        self.settings.nearby = on;
        self.overrides.nearby = None;
        self.store_settings().await;
        if !self.in_force().allows_nearby() {
            self.leave_nearby().await;
        } else if let (Some(_), Some(name)) = (self.login.id(), self.settings.name.clone()) {
            self.be_nearby(name, true).await;
        }
    }

    pub(super) async fn handle_nearby(&mut self, id: NearbyId, event: NearbyEvent) {
        if self.nearby.running.as_ref().map(|running| running.id) != Some(id) {
            debug!("late word from nearby");
            return;
        }
        match event {
            NearbyEvent::Peers(peers) => {
                let peers = peers.into_iter().map(|peer| (peer.key, peer.name));
                self.nearby.peers = peers.collect();
                self.send_queued().await;
            }
            NearbyEvent::Visitor(visitor) => self.take_visitor(visitor).await,
        }
    }

    /// What a peer has to call itself nearby: nothing in particular if we know
    /// whose key it is.
    pub(super) fn name_to_prove(&self, peer: &PeerIdentity) -> Option<PeerName> {
        let is_known = matches!(self.acquaintance(peer), Acquaintance::Known { .. });
        (!is_known && !self.is_on_server(peer)).then(|| peer.name.clone())
    }

    /// Lets somebody in, unless the key is not the one known under the name.
    async fn take_visitor(&self, visitor: Visitor) {
        let Some(own_name) = self.nearby.name() else {
            return;
        };
        let said = visitor.peer();
        let theirs = self.sessions.values().filter(|s| s.peer().key == said.key);
        if self.sessions.len() >= SESSIONS_MAX || theirs.count() >= SESSIONS_OF_ONE_MAX {
            info!(peer = %said.name, "refused somebody nearby: too many sessions");
            tokio::spawn(visitor.refuse(RefuseReason::Busy));
            return;
        }
        let named_by_server = self.online().find(|peer| peer.key == said.key);
        let peer = named_by_server.unwrap_or_else(|| said.clone());
        if let Acquaintance::KeyChanged { pinned } = self.acquaintance(&peer) {
            info!(peer = %peer.name, "refused somebody nearby: the key has changed");
            tokio::spawn(visitor.refuse(RefuseReason::KeyMismatch));
            let known = pinned.fingerprint();
            return self.emit(Event::KeyRefused { peer, known }).await;
        }
        let (era, vouched) = (self.era, self.is_on_server(&peer));
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let admitted = visitor.admit(&own_name, peer.clone()).await;
            let outcome = admitted.map_err(|e| explain::lost(&peer, &e).into());
            let input = SessionInput::Connected {
                era,
                peer,
                vouched,
                side: Side::Responder,
                outcome,
            };
            let _ = inputs.send(Input::Session(input)).await;
        });
    }
}
