//! Transfers: from a command or an offer to their end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pinhole_net::{PathKind, PeerIdentity, PeerKey};
use pinhole_transfer::{
    AcceptError, DeclineReason, Destination, Exchange, ExchangeEvent, Source, SourceError, Summary,
    Trouble,
};
use tokio::time::Instant;

use super::sessions::SessionId;
use super::{Engine, Input, explain};
use crate::command::AcceptPolicy;
use crate::contacts::Acquaintance;
use crate::event::Event;
use crate::failure::Failure;
use crate::offer;
use crate::snapshot::{
    Completion, Direction, OfferView, Progress, Stage, TransferId, TransferView,
};

/// Finished transfers beyond this many leave the list, oldest first.
const MAX_TRANSFERS: usize = 1_000;

/// What the tasks around transfers report.
#[derive(Debug)]
pub(crate) enum TransferInput {
    /// The list of files to be sent has been read.
    Scanned {
        transfer: TransferId,
        outcome: Result<Source, SourceError>,
    },
}

/// One transfer, with what its stage needs.
pub(crate) struct Transfer {
    peer: PeerIdentity,
    direction: Direction,
    offer: Arc<OfferView>,
    stage: Stage,
    path: Option<PathKind>,
    /// Sending: what was scanned and waits for a session.
    source: Option<Source>,
    /// Where it runs, once it does.
    carried: Option<Carried>,
    /// Receiving: where to.
    folder: Option<PathBuf>,
    accepted_at: Option<Instant>,
    progress: Progress,
}

/// The session that carries a transfer, and its name there.
#[derive(Clone)]
struct Carried {
    session: SessionId,
    id: pinhole_transfer::TransferId,
    exchange: Exchange,
}

impl Transfer {
    fn new(peer: PeerIdentity, direction: Direction, stage: Stage) -> Self {
        Self {
            peer,
            direction,
            offer: Arc::default(),
            stage,
            path: None,
            source: None,
            carried: None,
            folder: None,
            accepted_at: None,
            progress: Progress::default(),
        }
    }

    /// Whether the session must stay up for this transfer.
    pub(super) fn uses(&self, session: SessionId) -> bool {
        let carried_by = self.carried.as_ref().map(|c| c.session);
        carried_by == Some(session) && !self.stage.is_final()
    }

    fn sample_progress(&mut self) {
        if let Some(carried) = &self.carried
            && let Some(now) = carried.exchange.progress(carried.id)
        {
            self.progress = progress_view(now);
        }
    }

    pub(super) fn view(&self, id: TransferId) -> TransferView {
        TransferView {
            id,
            peer: self.peer.clone(),
            direction: self.direction,
            offer: self.offer.clone(),
            stage: self.stage.clone(),
            path: self.path,
            progress: self.progress,
        }
    }
}

/// Sending.
impl Engine {
    pub(super) async fn send(&mut self, peer: PeerKey, paths: Vec<PathBuf>) {
        let Some(peer) = self.identity_of(peer) else {
            let failure = Failure::PeerOffline {
                peer: peer.fingerprint().to_string(),
            };
            return self.emit(Event::CommandFailed { failure }).await;
        };
        let stage = Stage::Preparing;
        let id = self.add_transfer(Transfer::new(peer.clone(), Direction::Sending, stage));
        if let Acquaintance::KeyChanged { .. } = self.acquaintance(&peer) {
            return self
                .finish(id, Err(Failure::PeerKeyChanged { peer: peer.name }))
                .await;
        }
        let inputs = self.inputs.clone();
        tokio::task::spawn_blocking(move || {
            let outcome = Source::scan(&paths);
            let input = Input::Transfer(TransferInput::Scanned {
                transfer: id,
                outcome,
            });
            // The queue closes when the engine ends; then nobody needs this.
            let _ = inputs.blocking_send(input);
        });
        // The connection is made while the list of files is read.
        if let Err(failure) = self.ensure_session(&peer) {
            self.finish(id, Err(failure)).await;
        }
    }

    pub(super) async fn handle_transfer(&mut self, input: TransferInput) {
        let TransferInput::Scanned {
            transfer: id,
            outcome,
        } = input;
        let Some(transfer) = self.transfers.get_mut(&id).filter(|t| !t.stage.is_final()) else {
            return;
        };
        match outcome {
            Ok(source) => {
                transfer.offer = Arc::new(offer::of_source(&source));
                transfer.progress = offer::no_progress(&transfer.offer);
                transfer.source = Some(source);
                transfer.stage = Stage::Connecting;
                let peer = transfer.peer.key;
                if let Some(session) = self.session_with(peer) {
                    self.offer_waiting(peer, session).await;
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
        let mut failed = Vec::new();
        for (&id, transfer) in &mut self.transfers {
            if transfer.peer.key != peer {
                continue;
            }
            let Some(source) = transfer.source.take() else {
                continue;
            };
            match exchange.send(source).await {
                Ok(wire_id) => {
                    transfer.stage = Stage::AwaitingAnswer;
                    transfer.path = Some(path);
                    let exchange = exchange.clone();
                    transfer.carried = Some(Carried {
                        session,
                        id: wire_id,
                        exchange,
                    });
                }
                Err(e) => failed.push((id, e)),
            }
        }
        for (id, error) in failed {
            let failure = self.lost(id, &error.to_string());
            self.finish(id, Err(failure)).await;
        }
    }

    /// No session came up: what waited for it has failed.
    pub(super) async fn fail_waiting(&mut self, peer: PeerKey, failure: &Failure) {
        let waiting: Vec<_> = self
            .transfers
            .iter()
            .filter(|(_, t)| t.peer.key == peer && t.direction == Direction::Sending)
            .filter(|(_, t)| t.carried.is_none() && !t.stage.is_final())
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            self.finish(id, Err(failure.clone())).await;
        }
    }
}

/// Receiving, and the end of either.
impl Engine {
    pub(super) async fn handle_exchange(&mut self, session: SessionId, event: ExchangeEvent) {
        match event {
            ExchangeEvent::Offered { id, offer } => {
                self.take_offer(session, id, Arc::new(offer::of_manifest(&offer)))
                    .await;
            }
            ExchangeEvent::Accepted { id } => {
                let Some(id) = self.find(session, id) else {
                    return;
                };
                self.begin(id);
                self.befriend(id).await;
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
            ExchangeEvent::Finished { id, outcome } => {
                let Some(id) = self.find(session, id) else {
                    return;
                };
                let Some(transfer) = self.transfers.get(&id) else {
                    return;
                };
                let outcome = outcome.map_err(|e| explain::transfer(&transfer.peer, &e));
                self.finish(id, outcome).await;
            }
            ExchangeEvent::Closed { reason } => {
                let reason = reason.map_or("the other side ended it".to_owned(), |e| e.to_string());
                self.fail_session(session, &reason).await;
                self.sessions.remove(&session);
            }
        }
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
        let mut transfer =
            Transfer::new(peer.clone(), Direction::Receiving, Stage::AwaitingDecision);
        transfer.path = Some(carrier.path());
        transfer.progress = offer::no_progress(&offer);
        transfer.offer = offer;
        let exchange = carrier.exchange().clone();
        transfer.carried = Some(Carried {
            session,
            id: wire_id,
            exchange,
        });
        let id = self.add_transfer(transfer);
        let contact = self.acquaintance(&peer) == Acquaintance::Known { contact: true };
        match self.overrides.accept.unwrap_or(self.settings.accept) {
            AcceptPolicy::All => self.accept(id, None).await,
            AcceptPolicy::Contacts if contact => self.accept(id, None).await,
            AcceptPolicy::Contacts | AcceptPolicy::Ask => {
                self.publish();
                self.emit(Event::Offered { transfer: id }).await;
            }
        }
    }

    pub(super) async fn accept(&mut self, id: TransferId, into: Option<PathBuf>) {
        let folder = into.unwrap_or_else(|| {
            super::download_folder(&self.profile, &self.settings, &self.overrides)
        });
        let Some(carried) = self.awaiting_decision(id) else {
            return;
        };
        if let Err(error) = take_into(&carried, &folder).await {
            let _ = carried
                .exchange
                .decline(carried.id, decline_reason(&error))
                .await;
            let failure = self.not_accepted(id, &folder, &error);
            return self.finish(id, Err(failure)).await;
        }
        if let Some(transfer) = self.transfers.get_mut(&id) {
            transfer.folder = Some(folder);
        }
        self.begin(id);
        self.befriend(id).await;
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

    pub(super) async fn cancel(&mut self, id: TransferId) {
        let Some(transfer) = self.transfers.get(&id).filter(|t| !t.stage.is_final()) else {
            return;
        };
        if let Some(carried) = transfer.carried.clone() {
            // Only a session that is over refuses, and then there is nothing to cancel.
            let _ = carried.exchange.cancel(carried.id).await;
        }
        self.finish(id, Err(Failure::Cancelled)).await;
    }

    pub(super) async fn cancel_all(&mut self) {
        let running: Vec<_> = self
            .transfers
            .iter()
            .filter(|(_, t)| !t.stage.is_final())
            .map(|(id, _)| *id)
            .collect();
        for id in running {
            self.cancel(id).await;
        }
    }

    pub(super) fn dismiss(&mut self, id: TransferId) {
        if self.transfers.get(&id).is_some_and(|t| t.stage.is_final()) {
            self.transfers.remove(&id);
        }
    }

    /// The session is gone, and with it what it carried.
    pub(super) async fn fail_session(&mut self, session: SessionId, reason: &str) {
        let carried: Vec<_> = self
            .transfers
            .iter()
            .filter(|(_, t)| t.uses(session))
            .map(|(id, _)| *id)
            .collect();
        for id in carried {
            let failure = self.lost(id, reason);
            self.finish(id, Err(failure)).await;
        }
    }

    /// Ends a transfer that has not ended, and says so.
    async fn finish(&mut self, id: TransferId, outcome: Result<Summary, Failure>) {
        let Some(transfer) = self.transfers.get_mut(&id).filter(|t| !t.stage.is_final()) else {
            return;
        };
        transfer.sample_progress();
        transfer.progress.bytes_per_second = None;
        transfer.progress.time_left = None;
        let elapsed = transfer
            .accepted_at
            .map_or(Duration::ZERO, |at| at.elapsed());
        let failure = match outcome {
            Ok(summary) => {
                transfer.stage = Stage::Completed(Completion {
                    files: u64::from(summary.files),
                    bytes: summary.bytes,
                    resent_bytes: summary.resent_bytes,
                    failed_files: u64::from(summary.failed_files),
                    elapsed,
                    folder: transfer.folder.clone(),
                });
                None
            }
            Err(failure) => {
                transfer.stage = Stage::Failed(failure.clone());
                Some(failure)
            }
        };
        transfer.source = None;
        let session = transfer.carried.take().map(|c| c.session);
        if let Some(session) = session {
            self.note_idleness(session);
        }
        self.publish();
        self.emit(Event::Finished {
            transfer: id,
            failure,
        })
        .await;
    }

    fn begin(&mut self, id: TransferId) {
        if let Some(transfer) = self.transfers.get_mut(&id) {
            transfer.stage = Stage::Transferring;
            transfer.accepted_at = Some(Instant::now());
        }
    }

    async fn befriend(&mut self, id: TransferId) {
        let Some(server) = self.login.server_key() else {
            return;
        };
        let Some(transfer) = self.transfers.get(&id) else {
            return;
        };
        if self.contacts.befriend(server, &transfer.peer) {
            self.store_contacts().await;
        }
    }

    /// The offer behind `id`, if it still waits for the user.
    fn awaiting_decision(&self, id: TransferId) -> Option<Carried> {
        let transfer = self.transfers.get(&id)?;
        matches!(transfer.stage, Stage::AwaitingDecision).then(|| transfer.carried.clone())?
    }

    fn find(&self, session: SessionId, id: pinhole_transfer::TransferId) -> Option<TransferId> {
        let carries = |t: &Transfer| {
            t.carried
                .as_ref()
                .is_some_and(|c| c.session == session && c.id == id)
        };
        self.transfers
            .iter()
            .find(|(_, t)| carries(t))
            .map(|(id, _)| *id)
    }

    fn add_transfer(&mut self, transfer: Transfer) -> TransferId {
        while self.transfers.len() >= MAX_TRANSFERS {
            let oldest = self.transfers.iter().find(|(_, t)| t.stage.is_final());
            let Some(oldest) = oldest.map(|(id, _)| *id) else {
                break;
            };
            self.transfers.remove(&oldest);
        }
        let id = TransferId(self.next_id());
        self.transfers.insert(id, transfer);
        id
    }

    fn not_accepted(&self, id: TransferId, folder: &Path, error: &AcceptError) -> Failure {
        match error {
            AcceptError::Destination(e) => Failure::LocalFiles {
                detail: format!("Cannot receive into {}: {e}.", folder.display()),
            },
            AcceptError::Exchange(e) => self.lost(id, &e.to_string()),
        }
    }

    fn lost(&self, id: TransferId, reason: &str) -> Failure {
        match self.transfers.get(&id) {
            Some(transfer) => Failure::ConnectionLost {
                peer: transfer.peer.name.clone(),
                reason: reason.to_owned(),
            },
            None => Failure::NotPossible {
                detail: reason.to_owned(),
            },
        }
    }

    /// Whether there is progress to sample.
    pub(super) fn is_moving(&self) -> bool {
        self.transfers
            .values()
            .any(|t| matches!(t.stage, Stage::Transferring))
    }

    pub(super) fn sample_progress(&mut self) {
        for transfer in self.transfers.values_mut() {
            if matches!(transfer.stage, Stage::Transferring) {
                transfer.sample_progress();
            }
        }
    }
}

async fn take_into(carried: &Carried, folder: &Path) -> Result<(), AcceptError> {
    // A folder that cannot be made cannot be opened either, which says why.
    let _ = std::fs::create_dir_all(folder);
    let destination = Destination::open(folder)?;
    carried.exchange.accept(carried.id, destination).await
}

fn decline_reason(error: &AcceptError) -> DeclineReason {
    match error {
        AcceptError::Destination(e) if e.trouble() == Trouble::DiskFull => DeclineReason::NoSpace,
        _ => DeclineReason::NotWritable,
    }
}

fn progress_view(now: pinhole_transfer::Progress) -> Progress {
    Progress {
        bytes_done: now.bytes_done,
        bytes_total: now.bytes_total,
        files_done: u64::from(now.files_done),
        files_total: u64::from(now.files_total),
        bytes_per_second: now.bytes_per_second,
        time_left: now.time_left,
    }
}
