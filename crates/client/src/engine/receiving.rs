//! What comes through a session: the other side's offers, and how transfers go on.

use std::collections::BTreeSet;
use std::sync::Arc;

use pinhole_net::PeerIdentity;
use pinhole_transfer::digest::Digest;
use pinhole_transfer::{
    DeclineReason, Destination, ExchangeEvent, Manifest, Summary, TransferError,
};

use super::sessions::SessionId;
use super::transfers::{Carrier, Transfer, TransferInput};
use super::{Engine, explain};
use crate::consent::{Answer, Standing, Yes};
use crate::event::Event;
use crate::offer;
use crate::snapshot::{Direction, Stage, TransferId};

/// Of the names that are taken so many are named.
const EXISTING_NAMED: usize = 3;

impl Engine {
    pub(super) async fn handle_exchange(&mut self, session: SessionId, event: ExchangeEvent) {
        match event {
            ExchangeEvent::Offered { id, .. } | ExchangeEvent::Text { id, .. }
                if self.overrides.takes_nothing =>
            {
                self.take_nothing(session, id);
            }
            ExchangeEvent::Offered { id, offer, sent } => {
                self.take_offer(session, id, offer, sent).await;
            }
            ExchangeEvent::Text { id, text } => self.take_text(session, id, text).await,
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
                self.note_yes(id, Yes::User).await;
                self.improve_at_once(session);
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
                let reason = reason.map_or("the other side ended it".to_owned(), |e| e.to_string());
                self.fail_session(session, &reason).await;
                self.remove_session(session);
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

    /// Turns down what comes to somebody who is not there to take it.
    fn take_nothing(&self, session: SessionId, id: pinhole_transfer::TransferId) {
        if let Some(carrier) = self.sessions.get(&session) {
            let exchange = carrier.exchange().clone();
            // Only a session that is over refuses.
            let _ = exchange.decline(id, DeclineReason::Unanswered);
        }
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
        let (peer, path) = (carrier.peer().clone(), carrier.path());
        let standing = self.standing_on(carrier);
        let exchange = carrier.exchange().clone();
        let carried = Carrier {
            session,
            id: wire_id,
            exchange,
            sent,
        };
        if let Some(id) = self.continued_by(peer.key, session, &manifest) {
            return self.go_on(id, carried);
        }
        if self.is_acknowledged(peer.key, &carried, &manifest) {
            return;
        }
        let offer = offer::of_manifest(&manifest);
        let answer = self.consent().offer(standing, offer.bytes);
        if answer == Answer::Refuse {
            // Only a session that is over refuses.
            let _ = carried.exchange.decline(wire_id, DeclineReason::Declined);
            return;
        }
        let mut transfer = self.received(&peer, carried, standing);
        transfer.path = Some(path);
        transfer.progress = offer::no_progress(&offer);
        transfer.offer = Arc::new(offer);
        transfer.manifest = Some(manifest.clone());
        let id = self.add_transfer(transfer);
        if answer == Answer::Take {
            let chosen = (None, BTreeSet::new(), None);
            return self.accept(id, chosen, Yes::Standing).await;
        }
        if self.ask(id, session, wire_id).await {
            self.look_at_folder(id, manifest);
        }
    }

    /// Something that has come, and waits.
    fn received(&self, peer: &PeerIdentity, carried: Carrier, standing: Standing) -> Transfer {
        let server = self.sessions.get(&carried.session).and_then(|s| s.server);
        let waiting = Stage::AwaitingDecision;
        Transfer {
            claimed: server.is_none() && self.is_only_claimed(peer),
            stranger: !standing.is_chosen(),
            carried: Some(carried),
            ..Transfer::new(peer.clone(), Direction::Receiving, waiting)
        }
    }

    /// Puts a question to the user, unless too many wait.
    async fn ask(
        &mut self,
        id: TransferId,
        session: SessionId,
        wire_id: pinhole_transfer::TransferId,
    ) -> bool {
        if self.admit_question(id, session).await {
            return true;
        }
        self.transfers.remove(&id);
        self.refuse_as_busy(session, wire_id).await;
        false
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

    /// Words have come: those of a peer that the user has chosen are shown, those of a
    /// stranger are an offer.
    async fn take_text(
        &mut self,
        session: SessionId,
        wire_id: pinhole_transfer::TransferId,
        text: String,
    ) {
        let Some(carrier) = self.sessions.get(&session) else {
            return;
        };
        let (peer, path) = (carrier.peer().clone(), carrier.path());
        let exchange = carrier.exchange().clone();
        let standing = self.standing_on(carrier);
        let answer = self.consent().words(standing);
        let is_taken = match answer {
            Answer::Take => self.admission.takes_words(peer.key, standing.is_chosen()),
            Answer::Ask => true,
            Answer::Refuse => false,
        };
        if !is_taken {
            return self.refuse_as_busy(session, wire_id).await;
        }
        let carried = Carrier {
            session,
            id: wire_id,
            exchange,
            sent: None,
        };
        let mut transfer = self.received(&peer, carried, standing);
        transfer.path = Some(path);
        transfer.is_text = true;
        transfer.offer = Arc::new(offer::of_unread_text(&text));
        transfer.text = Some(text.into());
        let id = self.add_transfer(transfer);
        if answer == Answer::Take {
            return self.show_text(id, Yes::Standing).await;
        }
        if self.ask(id, session, wire_id).await {
            self.publish();
            self.emit(Event::Offered { transfer: id }).await;
        }
    }

    /// Has words shown.
    pub(super) async fn show_text(&mut self, id: TransferId, yes: Yes) {
        let Some(transfer) = self.transfers.get_mut(&id) else {
            return;
        };
        transfer.yes = Some(yes);
        transfer.stage = Stage::Transferring;
        let text = transfer.text.as_deref().unwrap_or_default();
        transfer.offer = Arc::new(offer::of_text(text));
        self.note_yes(id, yes).await;
        self.publish();
        self.emit(Event::TextReceived { transfer: id }).await;
    }

    /// Words were shown: their sender hears of it.
    pub(super) async fn text_shown(&mut self, id: TransferId) {
        let is_shown = |t: &&Transfer| t.is_text && matches!(t.stage, Stage::Transferring);
        let Some(transfer) = self.transfers.get(&id).filter(is_shown) else {
            return;
        };
        let Some(carried) = transfer.carried.clone().filter(|_| transfer.yes.is_some()) else {
            return;
        };
        // One that the sender has taken back meanwhile has been shown all the same.
        let _ = carried.exchange.take_text(carried.id);
        self.finish(id, Ok(Summary::default())).await;
        self.note_idleness(carried.session);
    }
}
