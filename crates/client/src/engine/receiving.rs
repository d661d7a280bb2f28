//! What comes through a session: the other side's offers, and how transfers go on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pinhole_transfer::{
    AcceptError, Choices, DeclineReason, Destination, DestinationError, ExchangeEvent, Existing,
    Summary, TransferError, Trouble,
};

use super::sessions::SessionId;
use super::transfers::{Carried, Transfer};
use super::{Engine, explain};
use crate::contacts::Acquaintance;
use crate::event::Event;
use crate::failure::Failure;
use crate::offer;
use crate::settings::AcceptPolicy;
use crate::snapshot::{Direction, OfferView, Stage, TransferId};

/// Of the names that are taken so many are named.
const EXISTING_NAMED: usize = 3;

impl Engine {
    pub(super) async fn handle_exchange(&mut self, session: SessionId, event: ExchangeEvent) {
        match event {
            ExchangeEvent::Offered { id, offer } => {
                let folder = super::download_folder(&self.profile, &self.in_force());
                let folder = Destination::open(&folder).ok();
                let existing = folder.map_or_else(Vec::new, |it| it.existing(&offer));
                let names = existing.iter().take(EXISTING_NAMED);
                let offer = OfferView {
                    existing: u32::try_from(existing.len()).unwrap_or(u32::MAX),
                    existing_names: names.map(|path| path.display_text()).collect(),
                    ..offer::of_manifest(&offer)
                };
                self.take_offer(session, id, Arc::new(offer)).await;
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
            return;
        };
        let Some(transfer) = self.transfers.get(&id) else {
            return;
        };
        let is_begun = transfer.accepted_at.is_some();
        let is_queued = transfer.queued_on.is_some();
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
        self.finish(id, Err(failure)).await;
    }

    async fn take_offer(
        &mut self,
        session: SessionId,
        wire_id: pinhole_transfer::TransferId,
        offer: Arc<OfferView>,
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
        };
        if let Some(id) = self.continued_by(peer.key, session, &offer) {
            return self.go_on(id, carried).await;
        }
        let mut transfer =
            Transfer::new(peer.clone(), Direction::Receiving, Stage::AwaitingDecision);
        transfer.claimed = self.is_only_claimed(&peer);
        transfer.path = Some(path);
        transfer.progress = offer::no_progress(&offer);
        let bytes = offer.bytes;
        transfer.offer = offer;
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
            return self.accept(id, None, BTreeSet::new(), None).await;
        }
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

    pub(super) async fn accept(
        &mut self,
        id: TransferId,
        into: Option<PathBuf>,
        unwanted: BTreeSet<u32>,
        existing: Option<Existing>,
    ) {
        let settings = self.in_force();
        let folder = into.unwrap_or_else(|| super::download_folder(&self.profile, &settings));
        let choices = Choices {
            unwanted,
            existing: existing.unwrap_or(settings.existing),
            keeps_executable: settings.keeps_executable,
        };
        self.take(id, folder, choices).await;
    }

    /// Accepts an offer that waits for an answer.
    pub(super) async fn take(&mut self, id: TransferId, folder: PathBuf, choices: Choices) {
        let Some(carried) = self.awaiting_decision(id) else {
            return;
        };
        if let Err(error) = take_into(&carried, &folder, choices.clone()).await {
            let _ = carried
                .exchange
                .decline(carried.id, decline_reason(&error))
                .await;
            let failure = self.not_accepted(id, &folder, &error);
            return self.finish(id, Err(failure)).await;
        }
        if let Some(transfer) = self.transfers.get_mut(&id) {
            transfer.folder = Some(folder);
            transfer.choices = choices;
        }
        self.begin(id);
        self.befriend(id).await;
        self.publish();
        self.emit(Event::Started { transfer: id }).await;
    }

    pub(super) async fn decline(&mut self, id: TransferId) {
        let Some(carried) = self.awaiting_decision(id) else {
            return;
        };
        let _ = carried
            .exchange
            .decline(carried.id, DeclineReason::Declined)
            .await;
        self.transfers.remove(&id);
        self.note_idleness(carried.session);
    }

    /// The offer behind `id`, if it still waits for the user.
    fn awaiting_decision(&self, id: TransferId) -> Option<Carried> {
        let transfer = self.transfers.get(&id)?;
        matches!(transfer.stage, Stage::AwaitingDecision).then(|| transfer.carried.clone())?
    }

    fn not_accepted(&self, id: TransferId, folder: &Path, error: &AcceptError) -> Failure {
        match error {
            AcceptError::Destination(e) => not_opened(folder, e),
            AcceptError::Exchange(e) => self.lost(id, &e.to_string()),
        }
    }
}

async fn take_into(carried: &Carried, folder: &Path, choices: Choices) -> Result<(), AcceptError> {
    let destination = open_folder(folder)?;
    carried
        .exchange
        .accept(carried.id, destination, choices)
        .await
}

/// The folder to receive into, made if need be. Blocks.
pub(crate) fn open_folder(folder: &Path) -> Result<Destination, DestinationError> {
    // A folder that cannot be made cannot be opened either, which says why.
    let _ = std::fs::create_dir_all(folder);
    Destination::open(folder)
}

/// Why a folder cannot be received into.
pub(crate) fn not_opened(folder: &Path, error: &DestinationError) -> Failure {
    let detail = match error {
        DestinationError::Folder { .. } => format!("Cannot receive into {error}."),
        DestinationError::NoSpace { .. } => {
            format!("Cannot receive into {}: {error}.", folder.display())
        }
    };
    Failure::LocalFiles { detail }
}

fn decline_reason(error: &AcceptError) -> DeclineReason {
    match error {
        AcceptError::Destination(e) if e.trouble() == Trouble::DiskFull => DeclineReason::NoSpace,
        _ => DeclineReason::NotWritable,
    }
}
