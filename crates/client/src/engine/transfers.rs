//! Transfers: what one is, and what both directions share.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pinhole_net::{PathKind, PeerIdentity, PeerKey};
use pinhole_transfer::digest::Digest;
use pinhole_transfer::{
    AcceptError, AcceptOptions, Exchange, Manifest, Paused, Prepared, ResumeState, Source,
    SourceError, Summary,
};
use tokio::time::Instant;

use super::Engine;
use super::resume::ReconnectState;
use super::sessions::SessionId;
use crate::consent::Yes;
use crate::event::Event;
use crate::failure::Failure;
use crate::history::HistoryEntry;
use crate::offer;
use crate::snapshot::{
    Completion, Direction, OfferView, Progress, Stage, TransferId, TransferView,
};

/// Finished transfers beyond this many leave the list, oldest first.
const MAX_TRANSFERS: usize = 1_000;

/// As many of what strangers have offered and nobody has accepted.
const MAX_UNWANTED: usize = 32;

/// What the tasks around transfers report.
#[derive(Debug)]
pub(crate) enum TransferInput {
    /// The list of files to be sent has been read.
    Scanned {
        transfer: TransferId,
        outcome: Result<Source, SourceError>,
    },
    /// It is known how many names of an offer are taken.
    LookedAt {
        transfer: TransferId,
        existing: u32,
        /// The first of them.
        names: Vec<String>,
    },
    /// The disk is ready for an accepted offer, or is not to be.
    Taken {
        transfer: TransferId,
        carried: Carrier,
        outcome: Result<Box<Prepared>, AcceptError>,
    },
}

/// One transfer, with what its stage needs.
pub(crate) struct Transfer {
    pub(super) peer: PeerIdentity,
    /// Receiving: its name is only what it says of itself.
    pub(super) claimed: bool,
    /// Receiving: the user had not chosen its key when this came.
    pub(super) stranger: bool,
    pub(super) direction: Direction,
    pub(super) offer: Arc<OfferView>,
    pub(super) stage: Stage,
    pub(super) path: Option<PathKind>,
    /// Sending: what was asked for, should it have to be sent again.
    pub(super) paths: Vec<PathBuf>,
    /// A few words instead of files.
    pub(super) is_text: bool,
    /// Those words.
    pub(super) text: Option<Arc<str>>,
    /// Receiving: why it may be taken, once it may.
    pub(super) yes: Option<Yes>,
    /// Sending: the server on which the peer was offline.
    pub(super) queued_on: Option<PeerKey>,
    /// Sending: what was scanned and waits for a session.
    pub(super) source: Option<Source>,
    /// Where it runs, once it does.
    pub(super) carried: Option<Carrier>,
    /// The connection was lost, and how long it waits for a new one.
    pub(super) lost: Option<ReconnectState>,
    /// Receiving: what is offered, until it ends.
    pub(super) manifest: Option<Arc<Manifest>>,
    /// Receiving: an offer of it is being taken.
    pub(super) is_taking: bool,
    /// Receiving: an offer that continues this one.
    pub(super) reoffered: Option<Carrier>,
    /// Receiving: where to.
    pub(super) folder: Option<PathBuf>,
    /// Receiving: what of it, and how.
    pub(super) choices: AcceptOptions,
    /// What its attempts share, on whatever connection.
    pub(super) resume: ResumeState,
    /// When it began to move, on whatever connection.
    pub(super) accepted_at: Option<Instant>,
    /// The user wants it to stand still, on whatever connection.
    pub(super) wants_pause: bool,
    pub(super) progress: Progress,
    /// Once it has gone on: what the receiver had before it began.
    pub(super) had_bytes: Option<u64>,
}

/// The session that carries a transfer, and its name there.
#[derive(Clone)]
pub(crate) struct Carrier {
    pub(super) session: SessionId,
    pub(super) id: pinhole_transfer::TransferId,
    pub(super) exchange: Exchange,
    /// Receiving: what the peer says it has sent of it before, all of it.
    pub(super) sent: Option<Digest>,
}

impl Carrier {
    pub(super) fn is(&self, session: SessionId, id: pinhole_transfer::TransferId) -> bool {
        self.session == session && self.id == id
    }
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} on {:?}", self.id, self.session)
    }
}

impl Transfer {
    pub(super) fn new(peer: PeerIdentity, direction: Direction, stage: Stage) -> Self {
        Self {
            peer,
            claimed: false,
            stranger: false,
            direction,
            offer: Arc::default(),
            stage,
            path: None,
            paths: Vec::new(),
            is_text: false,
            text: None,
            yes: None,
            queued_on: None,
            source: None,
            carried: None,
            lost: None,
            manifest: None,
            is_taking: false,
            reoffered: None,
            folder: None,
            choices: AcceptOptions::default(),
            resume: ResumeState::default(),
            accepted_at: None,
            wants_pause: false,
            progress: Progress::default(),
            had_bytes: None,
        }
    }

    /// Whether its words may be shown.
    fn may_be_shown(&self) -> bool {
        self.direction == Direction::Sending || self.yes.is_some()
    }

    /// Whether it came of a stranger, and nobody has said yes to it.
    fn is_unwanted(&self) -> bool {
        self.stranger && self.yes.is_none()
    }

    /// Whether the session must stay up for this transfer.
    pub(super) fn uses(&self, session: SessionId) -> bool {
        let carried_by = self.carried.as_ref().map(|c| c.session);
        carried_by == Some(session) && !self.stage.is_final()
    }

    /// Whether it has begun to move, and has not ended: it outlives its
    /// connection.
    pub(super) fn is_under_way(&self) -> bool {
        self.accepted_at.is_some() && !self.stage.is_final()
    }

    /// Whether another offer on this session is to continue it.
    pub(super) fn is_reoffered_on(&self, session: SessionId) -> bool {
        self.reoffered.as_ref().map(|c| c.session) == Some(session)
    }

    pub(super) fn sample_progress(&mut self) {
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
            claimed: self.claimed,
            stranger: self.stranger,
            direction: self.direction,
            offer: self.offer.clone(),
            stage: self.stage.clone(),
            path: self.path,
            progress: self.progress,
            is_text: self.is_text,
            text: self.text.clone().filter(|_| self.may_be_shown()),
        }
    }
}

/// What both directions share.
impl Engine {
    pub(super) async fn cancel(&mut self, id: TransferId) {
        let Some(transfer) = self.transfers.get(&id).filter(|t| !t.stage.is_final()) else {
            return;
        };
        if let Stage::Queued = transfer.stage {
            self.transfers.remove(&id);
            return self.store_queue().await;
        }
        if let Some(carried) = transfer.carried.clone() {
            // Only a session that is over refuses, and then there is nothing to cancel.
            let _ = carried.exchange.cancel(carried.id);
        }
        self.abandon(id);
        self.finish(id, Err(Failure::Cancelled)).await;
    }

    /// As `cancel`, but what has arrived is kept.
    pub(super) async fn interrupt(&mut self, id: TransferId) {
        let Some(transfer) = self.transfers.get(&id).filter(|t| !t.stage.is_final()) else {
            return;
        };
        let failure = match transfer.accepted_at {
            Some(_) => Failure::Interrupted,
            None => Failure::Cancelled,
        };
        match transfer.carried.clone() {
            Some(carried) => {
                // As in `cancel`.
                let _ = carried.exchange.interrupt(carried.id);
            }
            // Between two connections there is nobody to tell.
            None if transfer.accepted_at.is_some() => {}
            None => return self.cancel(id).await,
        }
        self.finish(id, Err(failure)).await;
    }

    pub(super) fn pause(&mut self, id: TransferId, paused: bool) {
        let under_way = |t: &&mut Transfer| t.is_under_way();
        let Some(transfer) = self.transfers.get_mut(&id).filter(under_way) else {
            return;
        };
        transfer.wants_pause = paused;
        if let Some(carried) = &transfer.carried {
            // One that has ended meanwhile needs no pause, and one that is being
            // offered again gets it when it begins.
            let _ = match paused {
                true => carried.exchange.pause(carried.id),
                false => carried.exchange.unpause(carried.id),
            };
            transfer.sample_progress();
        }
        transfer.progress.paused.by_us = paused;
    }

    /// The program ends, or the login. What has arrived is kept for another day,
    /// and what was queued waits again.
    pub(super) async fn interrupt_all(&mut self) {
        let running: Vec<_> = self
            .transfers
            .iter()
            .filter(|(_, t)| !t.stage.is_final() && !matches!(t.stage, Stage::Queued))
            .map(|(id, _)| *id)
            .collect();
        for id in running {
            let transfer = self.transfers.get(&id);
            if transfer.is_some_and(|t| t.queued_on.is_some()) {
                self.requeue(id);
            } else {
                self.interrupt(id).await;
            }
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
            self.lose(id, reason).await;
        }
    }

    /// Ends a transfer that has not ended, and says so.
    pub(super) async fn finish(&mut self, id: TransferId, outcome: Result<Summary, Failure>) {
        if let Err(failure) = &outcome
            && self.waits_again(id, failure)
        {
            return self.requeue(id);
        }
        let Some(transfer) = self.transfers.get_mut(&id).filter(|t| !t.stage.is_final()) else {
            return;
        };
        transfer.sample_progress();
        transfer.progress.bytes_per_second = None;
        transfer.progress.time_left = None;
        let elapsed = transfer
            .accepted_at
            .map_or(Duration::ZERO, |at| at.elapsed());
        let delivered = match &outcome {
            Ok(summary) => summary.digest,
            Err(_) => None,
        };
        let failure = match outcome {
            Ok(summary) => {
                transfer.stage = Stage::Completed(Completion {
                    files: u64::from(summary.files),
                    bytes: match &transfer.text {
                        Some(text) => text.len() as u64,
                        None => summary.bytes,
                    },
                    here_bytes: transfer.had_bytes.unwrap_or(summary.here_bytes),
                    resent_bytes: summary.resent_bytes,
                    failed_files: u64::from(summary.failed_files),
                    unread: transfer.offer.unread,
                    skipped_files: u64::from(summary.skipped_files),
                    skipped: summary.skipped,
                    digest: summary.digest.map(|digest| digest.to_string()),
                    elapsed,
                    folder: summary.folder.or_else(|| transfer.folder.clone()),
                    paths: summary.paths,
                    renamed: summary.renamed,
                });
                None
            }
            Err(failure) => {
                transfer.stage = Stage::Failed(failure.clone());
                Some(failure)
            }
        };
        transfer.source = None;
        let is_of_queue = transfer.queued_on.is_some();
        transfer.lost = None;
        transfer.offer = Arc::new(offer::in_short(&transfer.offer));
        if let Some(digest) = delivered {
            self.note_delivered(id, digest);
        }
        self.let_go_of_offers(id, failure.as_ref());
        self.remember(id);
        if is_of_queue {
            self.store_queue().await;
        }
        self.publish();
        self.freed.note();
        self.emit(Event::Finished {
            transfer: id,
            failure,
        })
        .await;
    }

    /// Nothing carries a transfer that has ended, and an offer that was to continue
    /// it is answered.
    fn let_go_of_offers(&mut self, id: TransferId, failure: Option<&Failure>) {
        let Some(transfer) = self.transfers.get_mut(&id) else {
            return;
        };
        let peer = transfer.peer.key;
        let offer = transfer.manifest.take();
        transfer.choices = AcceptOptions::default();
        let (carried, again) = (transfer.carried.take(), transfer.reoffered.take());
        if let (Some(again), Some(offer)) = (&again, offer) {
            // Only a session that is over refuses.
            let _ = match failure {
                None if self.is_acknowledged(peer, again, &offer) => Ok(()),
                Some(Failure::Cancelled) => again.exchange.cancel(again.id),
                _ => again.exchange.interrupt(again.id),
            };
        }
        for Carrier { session, .. } in carried.into_iter().chain(again) {
            self.note_idleness(session);
        }
    }

    fn remember(&mut self, id: TransferId) {
        let Some(transfer) = self.transfers.get(&id) else {
            return;
        };
        if transfer.is_unwanted() {
            return self.forget_unwanted();
        }
        if transfer.stranger && !self.admission.keeps_of_stranger() {
            return;
        }
        if let Some(entry) = HistoryEntry::of(&transfer.view(id), SystemTime::now()) {
            self.history.add(&self.writer, entry);
        }
    }

    /// Of what strangers have offered in vain only the last stay on the list.
    fn forget_unwanted(&mut self) {
        let is_over = |t: &Transfer| t.is_unwanted() && t.stage.is_final();
        let over = self.transfers.iter().filter(|(_, t)| is_over(t));
        let over: Vec<_> = over.map(|(id, _)| *id).collect();
        for id in over.iter().rev().skip(MAX_UNWANTED) {
            self.transfers.remove(id);
        }
    }

    pub(super) fn begin(&mut self, id: TransferId) {
        if let Some(transfer) = self.transfers.get_mut(&id) {
            transfer.stage = Stage::Transferring;
            transfer.lost = None;
            // What has come over a lost connection has travelled.
            if transfer.accepted_at.is_some() {
                transfer
                    .had_bytes
                    .get_or_insert(transfer.progress.here_bytes);
            }
            transfer.accepted_at.get_or_insert_with(Instant::now);
            if let Some(carried) = transfer.carried.as_ref().filter(|_| transfer.wants_pause) {
                // One that has ended meanwhile needs no pause.
                let _ = carried.exchange.pause(carried.id);
            }
            transfer.sample_progress();
            let carried = transfer.carried.as_ref();
            let selection = carried.and_then(|it| it.exchange.selection(it.id));
            if let Some(title) = selection.and_then(|it| offer::title_of_wanted(&it)) {
                Arc::make_mut(&mut transfer.offer).title = title;
            }
        }
    }

    pub(super) fn find(
        &self,
        session: SessionId,
        id: pinhole_transfer::TransferId,
    ) -> Option<TransferId> {
        let carries = |t: &Transfer| t.carried.as_ref().is_some_and(|c| c.is(session, id));
        self.transfers
            .iter()
            .find(|(_, t)| carries(t))
            .map(|(id, _)| *id)
    }

    pub(super) fn add_transfer(&mut self, transfer: Transfer) -> TransferId {
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

    pub(super) fn lost(&self, id: TransferId, reason: &str) -> Failure {
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

    /// Whether there is progress to sample. Of what is paused there is none once
    /// everything on its way has arrived.
    pub(super) fn is_moving(&self) -> bool {
        let is_still = |progress: &Progress| {
            progress.paused != Paused::default() && progress.bytes_per_second == Some(0)
        };
        self.transfers.values().any(|t| match t.stage {
            Stage::Transferring => !is_still(&t.progress),
            // Nothing to sample, but its way is watched.
            Stage::AwaitingAnswer => t.is_under_way(),
            _ => false,
        })
    }

    pub(super) fn sample_progress(&mut self) {
        for transfer in self.transfers.values_mut() {
            if matches!(transfer.stage, Stage::Transferring) {
                transfer.sample_progress();
            }
        }
    }
}

fn progress_view(now: pinhole_transfer::Progress) -> Progress {
    Progress {
        bytes_done: now.bytes_done,
        here_bytes: now.here_bytes,
        bytes_total: now.bytes_total,
        files_done: u64::from(now.files_done),
        files_total: u64::from(now.files_total),
        bytes_per_second: now.bytes_per_second,
        time_left: now.time_left,
        paused: now.paused,
    }
}
