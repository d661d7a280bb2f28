//! Sending: from the command to the offer.

use std::path::PathBuf;
use std::sync::Arc;

use pinhole_net::{PeerIdentity, PeerKey};
use pinhole_transfer::{Source, SourceError};

use super::Engine;
use super::sessions::SessionId;
use super::transfers::{Carrier, Transfer, TransferInput};
use crate::consent::Yes;
use crate::contacts::Acquaintance;
use crate::event::Event;
use crate::failure::Failure;
use crate::offer;
use crate::snapshot::{Direction, Stage, TransferId};

impl Engine {
    pub(super) async fn send(&mut self, peer: PeerKey, paths: Vec<PathBuf>) {
        let Some(peer) = self.identity_of(peer) else {
            let failure = Failure::PeerOffline {
                peer: peer.fingerprint().to_string(),
            };
            return self.emit(Event::CommandFailed { failure }).await;
        };
        // They may be sent much later, and from another working directory.
        let absolute = |path| std::path::absolute(&path).unwrap_or(path);
        let paths: Vec<PathBuf> = paths.into_iter().map(absolute).collect();
        if !self.is_online(&peer) && self.session_with(peer.key).is_none() {
            return self.queue(peer, paths).await;
        }
        let mut transfer = Transfer::new(peer, Direction::Sending, Stage::Preparing);
        transfer.paths = paths;
        let id = self.add_transfer(transfer);
        self.prepare(id).await;
    }

    pub(super) async fn send_text(&mut self, peer: PeerKey, text: String) {
        let known = self.identity_of(peer);
        let in_reach = known
            .clone()
            .filter(|peer| self.is_online(peer) || self.session_with(peer.key).is_some());
        let Some(peer) = in_reach else {
            let name = known.map(|known| known.name.to_string());
            let peer = name.unwrap_or_else(|| peer.fingerprint().to_string());
            let failure = Failure::PeerOffline { peer };
            return self.emit(Event::CommandFailed { failure }).await;
        };
        let mut transfer = Transfer::new(peer.clone(), Direction::Sending, Stage::Connecting);
        transfer.offer = Arc::new(offer::of_text(&text));
        transfer.is_text = true;
        transfer.text = Some(text.into());
        let id = self.add_transfer(transfer);
        if let Acquaintance::KeyChanged { pinned } = self.acquaintance(&peer) {
            let failure = Failure::key_changed(&peer, pinned);
            return self.finish(id, Err(failure)).await;
        }
        match self.session_with(peer.key) {
            Some(session) => self.offer_waiting(peer.key, session).await,
            None => self.connect_for(id, &peer).await,
        }
    }

    /// Has the list of files read and, meanwhile, the connection made.
    pub(super) async fn prepare(&mut self, id: TransferId) {
        let Some(transfer) = self.transfers.get_mut(&id) else {
            return;
        };
        transfer.stage = Stage::Preparing;
        let (peer, paths) = (transfer.peer.clone(), transfer.paths.clone());
        if let Acquaintance::KeyChanged { pinned } = self.acquaintance(&peer) {
            let failure = Failure::key_changed(&peer, pinned);
            return self.finish(id, Err(failure)).await;
        }
        self.on_disk(move || TransferInput::Scanned {
            transfer: id,
            outcome: Source::scan(&paths),
        });
        self.connect_for(id, &peer).await;
    }

    async fn connect_for(&mut self, id: TransferId, peer: &PeerIdentity) {
        if let Err(failure) = self.ensure_session(peer)
            && !self.tries_again(id)
        {
            self.finish(id, Err(failure)).await;
        }
    }

    pub(super) async fn retry(&mut self, id: TransferId) {
        let is_ours = |t: &Transfer| t.direction == Direction::Sending;
        let failed = |t: &&Transfer| matches!(t.stage, Stage::Failed(_)) && is_ours(t);
        let Some(transfer) = self.transfers.get(&id).filter(failed) else {
            return;
        };
        let (peer, paths) = (transfer.peer.clone(), transfer.paths.clone());
        let text = transfer.text.clone();
        if self.identity_of(peer.key).is_none() {
            let peer = peer.name.to_string();
            let failure = Failure::PeerOffline { peer };
            return self.emit(Event::CommandFailed { failure }).await;
        }
        self.transfers.remove(&id);
        match text {
            Some(text) => self.send_text(peer.key, text.as_ref().to_owned()).await,
            None => self.send(peer.key, paths).await,
        }
    }

    pub(super) async fn handle_transfer(&mut self, input: TransferInput) {
        match input {
            TransferInput::Scanned { transfer, outcome } => self.scanned(transfer, outcome).await,
            TransferInput::LookedAt {
                transfer,
                existing,
                names,
            } => {
                self.looked_at(transfer, existing, names).await;
            }
            TransferInput::Taken {
                transfer,
                carried,
                outcome,
            } => self.taken(transfer, carried, outcome).await,
        }
    }

    async fn scanned(&mut self, id: TransferId, outcome: Result<Source, SourceError>) {
        let is_awaited = |t: &&mut Transfer| matches!(t.stage, Stage::Preparing);
        let Some(transfer) = self.transfers.get_mut(&id).filter(is_awaited) else {
            return;
        };
        match outcome {
            Ok(source) => {
                transfer.offer = Arc::new(offer::of_source(&source));
                transfer.progress = offer::no_progress(&transfer.offer);
                transfer.source = Some(source);
                transfer.stage = Stage::Connecting;
                let peer = transfer.peer.clone();
                match self.session_with(peer.key) {
                    Some(session) => self.offer_waiting(peer.key, session).await,
                    // One that was there when the list was begun may be gone.
                    None => self.connect_for(id, &peer).await,
                }
            }
            Err(e) => {
                let failure = Failure::LocalFiles {
                    detail: e.to_string(),
                };
                self.finish(id, Err(failure)).await;
            }
        }
    }

    /// Offers everything that waits for a session with this peer.
    pub(super) async fn offer_waiting(&mut self, peer: PeerKey, session: SessionId) {
        let Some((exchange, path)) = self
            .sessions
            .get(&session)
            .map(|s| (s.exchange().clone(), s.path()))
        else {
            return;
        };
        let (mut sent_ones, mut failed) = (Vec::new(), Vec::new());
        for (&id, transfer) in &mut self.transfers {
            if transfer.peer.key != peer {
                continue;
            }
            let is_waiting = matches!(transfer.stage, Stage::Connecting);
            let (sent, stage) = match (transfer.source.take(), &transfer.text) {
                (Some(source), _) => {
                    let sent = exchange.send_resumable(source, &transfer.resume);
                    (sent, Stage::AwaitingAnswer)
                }
                (None, Some(text)) if is_waiting => {
                    let sent = exchange.send_text(text.as_ref().to_owned());
                    (sent, Stage::Transferring)
                }
                _ => continue,
            };
            match sent {
                Ok(wire_id) => {
                    sent_ones.push(id);
                    transfer.stage = stage;
                    transfer.lost = None;
                    transfer.path = Some(path);
                    let exchange = exchange.clone();
                    transfer.carried = Some(Carrier {
                        session,
                        id: wire_id,
                        exchange,
                        sent: None,
                    });
                }
                Err(e) => failed.push((id, e)),
            }
        }
        for id in sent_ones {
            self.note_yes(id, Yes::User).await;
        }
        for (id, error) in failed {
            if self.tries_again(id) {
                continue;
            }
            let failure = self.lost(id, &error.to_string());
            self.finish(id, Err(failure)).await;
        }
        self.note_idleness(session);
    }

    /// No session came up: what waited for it has failed.
    pub(super) async fn fail_waiting(&mut self, peer: PeerKey, failure: &Failure) {
        let waiting: Vec<_> = self
            .transfers
            .iter()
            .filter(|(_, t)| t.peer.key == peer && t.direction == Direction::Sending)
            .filter(|(_, t)| t.carried.is_none() && !t.stage.is_final())
            .filter(|(_, t)| !matches!(t.stage, Stage::Queued))
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            if !self.tries_again(id) {
                self.finish(id, Err(failure.clone())).await;
            }
        }
    }
}
