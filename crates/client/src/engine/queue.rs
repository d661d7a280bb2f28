//! What waits until its peer is online, kept in `queue.json` of the profile.

use std::path::PathBuf;
use std::sync::Arc;

use pinhole_net::{PeerIdentity, PeerKey};
use serde::{Deserialize, Serialize};

use super::Engine;
use super::transfers::Transfer;
use crate::event::Event;
use crate::failure::Failure;
use crate::offer;
use crate::profile::{ProfileError, stored_path};
use crate::snapshot::{Direction, Stage, TransferId};

/// Files for a peer that was not online when they were to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Queued {
    /// The server on which the peer has its name.
    server: PeerKey,
    peer: PeerIdentity,
    #[serde(with = "stored_path::list")]
    paths: Vec<PathBuf>,
}

impl Engine {
    /// Takes up what waited when the last run ended.
    pub(super) fn load_queue(&mut self) -> Result<(), ProfileError> {
        for queued in self.profile.load_queue()? {
            self.add_queued(queued);
        }
        Ok(())
    }

    /// Lets files wait for a peer of the server we are logged in to.
    pub(super) async fn queue(&mut self, peer: PeerIdentity, paths: Vec<PathBuf>) {
        let Some(server) = self.login.server_key() else {
            let peer = peer.name.to_string();
            let failure = Failure::PeerOffline { peer };
            return self.emit(Event::CommandFailed { failure }).await;
        };
        self.add_queued(Queued {
            server,
            peer,
            paths,
        });
        self.store_queue().await;
    }

    fn add_queued(&mut self, queued: Queued) {
        let Queued {
            server,
            peer,
            paths,
        } = queued;
        let mut transfer = Transfer::new(peer, Direction::Sending, Stage::Queued);
        transfer.offer = Arc::new(offer::of_paths(&paths));
        transfer.paths = paths;
        transfer.queued_on = Some(server);
        self.add_transfer(transfer);
    }

    /// Sends whatever waits for peers that are online now.
    pub(super) async fn send_queued(&mut self) {
        let is_due = |transfer: &Transfer| {
            let is_here = transfer.queued_on == self.login.server_key();
            matches!(transfer.stage, Stage::Queued)
                && (is_here && self.is_on_server(&transfer.peer)
                    || self.nearby.has(transfer.peer.key))
        };
        let due = self
            .transfers
            .iter()
            .filter(|(_, t)| is_due(t))
            .map(|(id, _)| *id);
        let due: Vec<TransferId> = due.collect();
        if due.is_empty() {
            return;
        }
        for &id in &due {
            self.prepare(id).await;
        }
        self.store_queue().await;
    }

    /// Lets one that was on its way wait again.
    pub(super) fn requeue(&mut self, id: TransferId) {
        let Some(transfer) = self.transfers.get_mut(&id) else {
            return;
        };
        let carried = transfer.carried.take();
        *transfer = Transfer {
            paths: std::mem::take(&mut transfer.paths),
            queued_on: transfer.queued_on,
            offer: Arc::new(offer::of_paths(&transfer.paths)),
            ..Transfer::new(transfer.peer.clone(), Direction::Sending, Stage::Queued)
        };
        if let Some(carried) = carried {
            // Only a session that is over refuses, and then it is over anyway.
            let _ = carried.exchange.interrupt(carried.id);
            self.note_idleness(carried.session);
        }
    }

    /// Whether something of the queue has failed only because its peer has
    /// left, perhaps without having seen it.
    pub(super) fn waits_again(&self, id: TransferId, failure: &Failure) -> bool {
        let queued = |t: &&Transfer| t.queued_on.is_some() && !t.stage.is_final();
        let Some(transfer) = self.transfers.get(&id).filter(queued) else {
            return false;
        };
        match failure {
            Failure::PeerOffline { .. }
            | Failure::ConnectionLost { .. }
            | Failure::InterruptedByPeer { .. } => true,
            Failure::NoPath { .. } => !self.is_on_server(&transfer.peer),
            _ => false,
        }
    }

    /// What is on its way counts as waiting until it has ended: the program may
    /// end before.
    pub(super) async fn store_queue(&mut self) {
        let waiting = self.transfers.values().filter(|t| !t.stage.is_final());
        let queue: Vec<Queued> = waiting
            .filter_map(|transfer| {
                Some(Queued {
                    server: transfer.queued_on?,
                    peer: transfer.peer.clone(),
                    paths: transfer.paths.clone(),
                })
            })
            .collect();
        let stored = self.writer.store_queue(&queue);
        self.report_profile(stored).await;
    }
}
