//! What comes through a session: the other side's offers, and how transfers go on.

use std::collections::BTreeSet;
use std::sync::Arc;

use pinhole_transfer::merkle::Digest;
use pinhole_transfer::{Destination, ExchangeEvent, Manifest, Summary, TransferError};

use super::sessions::SessionId;
use super::transfers::{Carried, Transfer, TransferInput};
use super::{Engine, explain};
use crate::contacts::Acquaintance;
use crate::event::Event;
use crate::offer;
use crate::settings::AcceptPolicy;
use crate::snapshot::{Direction, Stage, TransferId};

/// Of the names that are taken so many are named.
const EXISTING_NAMED: usize = 3;

impl Engine {
    pub(super) async fn handle_exchange(&mut self, session: SessionId, event: ExchangeEvent) {
        match event {
            ExchangeEvent::Offered { id, offer, sent } => {
                self.take_offer(session, id, offer, sent).await;
            }
            ExchangeEvent::Text { text, .. } => self.take_text(session, text).await,
            ExchangeEvent::Paused { id, paused } => {
                let Some(id) = self.find(session, id) else {
                    return;
                };
                if let Some(transfer) = self.transfers.get_mut(&id) {
                    transfer.sample_progress();
                }
                self.publish();
                self.emit(Event::PausedByPeer {
                    transfer: id,
                    paused,
                })
                .await;
            }
            ExchangeEvent::Accepted { id } => {
                let Some(id) = self.find(session, id) else {
                    return;
                };
                self.begin(id);
                self.befriend(id).await;
                self.publish();
                self.emit(Event::Started { transfer: id }).await;
            }
            ExchangeEvent::FileFailed { id, path, error } => {
                let Some(id) = self.find(session, id) else {
                    return;
                };
                let path = path.display_text();
                let Some(transfer) = self.transfers.get(&id) else {
                    return;
                };
                let failure = explain::file(&transfer.peer, &error);
                self.emit(Event::FileFailed {
                    transfer: id,
                    path,
                    failure,
                })
                .await;
            }
            ExchangeEvent::Finished { id, outcome } => self.end(session, id, outcome).await,
            ExchangeEvent::Closed { reason } => {
                if reason.is_none() {
                    self.forget_delivered(session);
                }
                let reason = reason.map_or("the other side ended it".to_owned(), |e| e.to_string());
                self.fail_session(session, &reason).await;
                self.sessions.remove(&session);
            }
        }
    }

    async fn end(
        &mut self,
        session: SessionId,
        wire_id: pinhole_transfer::TransferId,
        outcome: Result<Summary, TransferError>,
    ) {
        let Some(id) = self.find(session, wire_id) else {
            return self.end_unknown(session, wire_id, &outcome);
        };
        let Some(transfer) = self.transfers.get(&id) else {
            return;
        };
        let is_begun = transfer.accepted_at.is_some();
        let is_queued = transfer.queued_on.is_some();
        // Whatever receives has left nothing.
        let is_cancelled =
            transfer.is_taking && matches!(outcome, Err(TransferError::Cancelled(_)));
        let failure = |error| explain::transfer(&transfer.peer, &error);
        let failure = match outcome {
            Ok(summary) => return self.finish(id, Ok(summary)).await,
            Err(TransferError::ConnectionLost) => {
                return self.lose(id, "the connection broke").await;
            }
            Err(_) if transfer.reoffered.is_some() => {
                return self.lose(id, "offered again").await;
            }
            // Nothing has arrived that could be kept.
            Err(TransferError::Interrupted(party)) if !is_begun && !is_queued => {
                failure(TransferError::Cancelled(party))
            }
            Err(error) => failure(error),
        };
        if is_cancelled {
            self.abandon(id);
        }
        self.finish(id, Err(failure)).await;
    }

    async fn take_offer(
        &mut self,
        session: SessionId,
        wire_id: pinhole_transfer::TransferId,
        manifest: Arc<Manifest>,
        sent: Option<Digest>,
    ) {
        let Some(carrier) = self.sessions.get(&session) else {
            return;
        };
        let peer = carrier.peer().clone();
        let path = carrier.path();
        let exchange = carrier.exchange().clone();
        let carried = Carried {
            session,
            id: wire_id,
            exchange,
            sent,
        };
        if let Some(id) = self.continued_by(peer.key, session, &manifest) {
            return self.go_on(id, carried).await;
        }
        if self.is_acknowledged(peer.key, &carried, &manifest) {
            return;
        }
        let mut transfer =
            Transfer::new(peer.clone(), Direction::Receiving, Stage::AwaitingDecision);
        transfer.claimed = self.is_only_claimed(&peer);
        transfer.path = Some(path);
        let offer = offer::of_manifest(&manifest);
        transfer.progress = offer::no_progress(&offer);
        let bytes = offer.bytes;
        transfer.offer = Arc::new(offer);
        transfer.manifest = Some(manifest.clone());
        transfer.carried = Some(carried);
        let id = self.add_transfer(transfer);
        let contact = self.acquaintance(&peer) == Acquaintance::Known { contact: true };
        let settings = self.in_force();
        let is_trusted = match settings.accept {
            AcceptPolicy::All => true,
            AcceptPolicy::Contacts => contact,
            AcceptPolicy::Ask => false,
        };
        if is_trusted && settings.unasked_bytes_max.is_none_or(|max| bytes <= max) {
            return self.accept(id, None, BTreeSet::new(), None);
        }
        self.look_at_folder(id, manifest);
    }

    /// Finds out which names are taken, before the user is asked.
    fn look_at_folder(&self, transfer: TransferId, offer: Arc<Manifest>) {
        let folder = super::download_folder(&self.profile, &self.in_force());
        self.on_disk(move || {
            let folder = Destination::open(&folder).ok();
            let existing = folder.map_or_else(Vec::new, |it| it.existing(&offer));
            let names = existing.iter().take(EXISTING_NAMED);
            TransferInput::LookedAt {
                transfer,
                existing: u32::try_from(existing.len()).unwrap_or(u32::MAX),
                names: names.map(|path| path.display_text()).collect(),
            }
        });
    }

    pub(super) async fn looked_at(&mut self, id: TransferId, existing: u32, names: Vec<String>) {
        let waits = |t: &&mut Transfer| matches!(t.stage, Stage::AwaitingDecision);
        let Some(transfer) = self.transfers.get_mut(&id).filter(waits) else {
            return;
        };
        let offer = Arc::make_mut(&mut transfer.offer);
        (offer.existing, offer.existing_names) = (existing, names);
        self.publish();
        self.emit(Event::Offered { transfer: id }).await;
    }

    async fn take_text(&mut self, session: SessionId, text: String) {
        let Some(carrier) = self.sessions.get(&session) else {
            return;
        };
        let peer = carrier.peer().clone();
        let claimed = self.is_only_claimed(&peer);
        let mut transfer = Transfer::new(peer, Direction::Receiving, Stage::Transferring);
        transfer.claimed = claimed;
        transfer.path = Some(carrier.path());
        transfer.offer = Arc::new(offer::of_text(&text));
        transfer.text = Some(text.into());
        let id = self.add_transfer(transfer);
        self.finish(id, Ok(Summary::default())).await;
        self.emit(Event::TextReceived { transfer: id }).await;
    }
}
