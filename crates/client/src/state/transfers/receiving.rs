//! Receiving: from the other side's offer, over the yes, to the end.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use pinhole_net::PathKind;
use pinhole_transfer::{
    AcceptOptions, DeclineReason, EntryIndex, Existing, FileError, Manifest, Summary, TransferError,
};

use super::{
    Accepted, ReceiveStage, Receiving, Role, SendStage, Sending, Step, StepHolder, Transfer,
};
use crate::consent::{Answer, Standing, Yes};
use crate::event::Event;
use crate::explain;
use crate::failure::Failure;
use crate::model::TransferId;
use crate::offer;
use crate::state::State;
use crate::state::effect::{Arrived, Effect, ExchangeEffect, FileEffect};
use crate::state::ids::{Carrier, SessionId};

/// What the user wants with an offer: where to, what not, and what to do with what
/// is there.
pub(in crate::state) type Chosen = (Option<PathBuf>, BTreeSet<u32>, Option<Existing>);

/// Why the disk was not made ready for an offer.
#[derive(Debug)]
pub(crate) enum NotPrepared {
    /// The folder, or the pipe, does not serve.
    Place {
        reason: DeclineReason,
        failure: Failure,
    },
    /// The offer is over.
    Over(String),
}

/// What comes through a session.
impl State {
    /// The peer offers files.
    pub(crate) fn handle_offer(&mut self, carrier: Carrier, manifest: Arc<Manifest>, now: Instant) {
        self.now = now;
        let session = carrier.session;
        let Some(up) = self.sessions.get(session) else {
            return;
        };
        if !self.takes_from(up.peer.key) {
            return self.take_nothing(carrier);
        }
        let (peer, path) = (up.peer.key, up.path);
        let standing = self.standing_on(up);
        if let Some(id) = self.continued_by(peer, session, &manifest) {
            return self.go_on(id, carrier);
        }
        if self.is_acknowledged(peer, carrier, &manifest) {
            return;
        }
        let offer = offer::of_manifest(&manifest);
        let bytes = (!offer.stream).then_some(offer.bytes);
        let answer = self.consent().offer(standing, bytes);
        if answer == Answer::Refuse {
            let declined = ExchangeEffect::Decline(DeclineReason::Declined);
            return self.effect(Effect::Exchange(carrier, declined));
        }
        let stage = ReceiveStage::Asking {
            carrier,
            manifest: Some(manifest.clone()),
        };
        let Some(mut transfer) = self.received(carrier, standing, stage, path) else {
            return;
        };
        let is_one_file = (offer.files, offer.folders) == (1, 0);
        transfer.progress = offer::no_progress(&offer);
        transfer.offer = Arc::new(offer);
        let id = self.add_transfer(transfer);
        self.note_idleness(session);
        if self.overrides.output.is_some() && !is_one_file {
            return self.turn_down(id, DeclineReason::OnlyOneFile);
        }
        if answer == Answer::Take {
            return self.accept(id, (None, BTreeSet::new(), None), Yes::Standing);
        }
        if self.ask(id, carrier) {
            if self.overrides.output.is_some() {
                // No name can be taken.
                return self.emit(Event::Offered { transfer: id });
            }
            // Before the user is asked.
            self.effect(Effect::File(FileEffect::FindTakenNames {
                transfer: id,
                offer: manifest,
            }));
        }
    }

    /// Turns down what comes to somebody who is not there to take it.
    fn take_nothing(&mut self, carrier: Carrier) {
        let unanswered = ExchangeEffect::Decline(DeclineReason::Unanswered);
        self.effect(Effect::Exchange(carrier, unanswered));
    }

    /// Something that has come, and waits.
    fn received(
        &self,
        carrier: Carrier,
        standing: Standing,
        stage: ReceiveStage,
        path: PathKind,
    ) -> Option<Transfer> {
        let session = self.sessions.get(carrier.session)?;
        let receiving = Receiving {
            claimed: session.server.is_none() && self.is_only_claimed(&session.peer),
            stranger: !standing.is_chosen(),
            yes: None,
            text: None,
            stage,
        };
        let mut transfer = Transfer::new(session.peer.clone(), Role::Receiving(receiving));
        transfer.path = Some(path);
        Some(transfer)
    }

    /// Puts a question to the user, unless too many wait.
    fn ask(&mut self, id: TransferId, carrier: Carrier) -> bool {
        if self.admit_question(id, carrier.session) {
            return true;
        }
        self.remove_transfer(id);
        self.refuse_as_busy(carrier);
        self.note_idleness(carrier.session);
        false
    }

    /// It is known how many names of an offer are taken, and the first of them.
    pub(crate) fn handle_taken_names(&mut self, id: TransferId, existing: u32, names: Vec<String>) {
        let waits = |t: &&mut Transfer| t.awaits_decision();
        let Some(transfer) = self.transfers.get_mut(id).filter(waits) else {
            return;
        };
        let offer = Arc::make_mut(&mut transfer.offer);
        (offer.existing, offer.existing_names) = (existing, names);
        self.emit(Event::Offered { transfer: id });
    }

    /// The peer has sent a few words: those of a peer that the user has chosen are
    /// shown, those of a stranger are an offer.
    pub(crate) fn handle_text(&mut self, carrier: Carrier, text: String, now: Instant) {
        self.now = now;
        if self.overrides.output.is_some() {
            let declined = ExchangeEffect::Decline(DeclineReason::OnlyOneFile);
            return self.effect(Effect::Exchange(carrier, declined));
        }
        let Some(up) = self.sessions.get(carrier.session) else {
            return;
        };
        if !self.takes_from(up.peer.key) {
            return self.take_nothing(carrier);
        }
        let (peer, path) = (up.peer.key, up.path);
        let standing = self.standing_on(up);
        let answer = self.consent().words(standing);
        let is_taken = match answer {
            Answer::Take => self.takes_words(peer, standing.is_chosen()),
            Answer::Ask => true,
            Answer::Refuse => false,
        };
        if !is_taken {
            return self.refuse_as_busy(carrier);
        }
        let stage = ReceiveStage::Asking {
            carrier,
            manifest: None,
        };
        let Some(mut transfer) = self.received(carrier, standing, stage, path) else {
            return;
        };
        transfer.offer = Arc::new(offer::of_unread_text(&text));
        if let Some(receiving) = transfer.as_receiving_mut() {
            receiving.text = Some(text.into());
        }
        let id = self.add_transfer(transfer);
        self.note_idleness(carrier.session);
        if answer == Answer::Take {
            return self.show_text(id, Yes::Standing);
        }
        if self.ask(id, carrier) {
            self.emit(Event::Offered { transfer: id });
        }
    }

    /// The peer has stopped a transfer for a while, or lets it go on.
    pub(crate) fn handle_paused(&mut self, carrier: Carrier, paused: bool) {
        if let Some(transfer) = self.transfers.find(carrier.session, carrier.id) {
            self.emit(Event::PausedByPeer { transfer, paused });
        }
    }

    /// The peer has accepted an offer; `title` is of what it wants, if that is not all.
    pub(crate) fn handle_accepted(
        &mut self,
        carrier: Carrier,
        title: Option<String>,
        now: Instant,
    ) {
        self.now = now;
        let Some(id) = self.transfers.find(carrier.session, carrier.id) else {
            return;
        };
        let sending = self.transfers.sending_mut(id);
        if let Some(Sending { stage, .. }) = sending
            && let SendStage::Offered(carrier) = *stage
        {
            *stage = SendStage::Running(carrier);
        }
        self.begin(id, title);
        self.note_yes(id, Yes::User);
        self.improve_at_once(carrier.session);
        self.emit(Event::Started { transfer: id });
    }

    /// One file did not make it; the others go on.
    pub(crate) fn handle_file_failed(&mut self, carrier: Carrier, path: String, error: &FileError) {
        let Some(id) = self.transfers.find(carrier.session, carrier.id) else {
            return;
        };
        if let Some(transfer) = self.transfers.get(id) {
            let failure = explain::file(&transfer.peer, error);
            self.emit(Event::FileFailed {
                transfer: id,
                path,
                failure,
            });
        }
    }

    /// What a session carried has ended.
    pub(crate) fn handle_finished(
        &mut self,
        carrier: Carrier,
        outcome: Result<Summary, TransferError>,
        now: Instant,
    ) {
        self.now = now;
        match self.transfers.find(carrier.session, carrier.id) {
            Some(id) => self.end(id, outcome),
            None => self.end_unknown(carrier, &outcome),
        }
        self.note_idleness(carrier.session);
    }

    fn end(&mut self, id: TransferId, outcome: Result<Summary, TransferError>) {
        let Some(transfer) = self.transfers.get(id) else {
            return;
        };
        // The attempt has left nothing.
        let is_cancelled = matches!(transfer.step(), Some(Step::Preparing(_)))
            && matches!(outcome, Err(TransferError::Cancelled(_)));
        let can_be_kept = transfer.is_begun() || transfer.is_of_queue();
        let explained = |error| explain::transfer(&transfer.peer, &error);
        let failure = match outcome {
            Ok(summary) => return self.finish(id, Ok(summary)),
            Err(TransferError::ConnectionLost) => return self.lose(id, "the connection broke"),
            Err(_) if transfer.next_carrier().is_some() => {
                return self.lose(id, "offered again");
            }
            // Nothing has arrived that could be kept.
            Err(TransferError::Interrupted(party)) if !can_be_kept => {
                explained(TransferError::Cancelled(party))
            }
            Err(error) => explained(error),
        };
        if is_cancelled {
            self.abandon(id);
        }
        self.finish(id, Err(failure));
    }

    /// What a session carries is over.
    pub(crate) fn handle_closed(&mut self, session: SessionId, reason: &str, now: Instant) {
        self.now = now;
        self.fail_session(session, reason);
        self.remove_session(session);
    }
}

/// What the user decides, and what follows.
impl State {
    /// There is a yes to an offer, or to words.
    pub(in crate::state) fn accept(&mut self, id: TransferId, chosen: Chosen, yes: Yes) {
        let (into, unwanted, existing) = chosen;
        let settings = self.in_force();
        let folder = into.unwrap_or_else(|| self.download_folder());
        let is_piped = self.overrides.output.is_some();
        let Some(receiving) = self.transfers.receiving_mut(id) else {
            return;
        };
        let ReceiveStage::Asking { carrier, manifest } = &receiving.stage else {
            return;
        };
        let (carrier, Some(manifest)) = (*carrier, manifest.clone()) else {
            return self.show_text(id, yes);
        };
        let options = AcceptOptions {
            unwanted: unwanted.into_iter().map(EntryIndex::new).collect(),
            existing: existing.unwrap_or(settings.existing),
            keeps_executable: settings.keeps_executable,
        };
        receiving.yes = Some(yes);
        let accepted = Accepted {
            manifest,
            folder,
            options,
            is_piped,
        };
        receiving.stage = ReceiveStage::Accepted(accepted, Step::Preparing(carrier));
        // Before the peer can hear of it, and look for a direct path.
        self.note_yes(id, yes);
        self.take(id, carrier);
    }

    /// Takes an offer of what was accepted.
    pub(super) fn take(&mut self, id: TransferId, carrier: Carrier) {
        let Some(receiving) = self.transfers.receiving_mut(id) else {
            return;
        };
        let ReceiveStage::Accepted(accepted, step) = &mut receiving.stage else {
            return;
        };
        *step = Step::Preparing(carrier);
        let prepare = FileEffect::Prepare {
            transfer: id,
            carrier,
            folder: accepted.folder.clone(),
            options: accepted.options.clone(),
        };
        self.effect(Effect::File(prepare));
    }

    /// The place on the disk is ready, or cannot be. Meanwhile the offer may have
    /// ended, or another may continue the transfer.
    pub(crate) fn handle_prepared(
        &mut self,
        id: TransferId,
        carrier: Carrier,
        outcome: Result<(), NotPrepared>,
        now: Instant,
    ) {
        self.now = now;
        let step = self.transfers.step(id);
        let is_wanted = matches!(step, Some(Step::Preparing(current)) if current == carrier);
        match outcome {
            Ok(()) if is_wanted => {
                let begin = FileEffect::Begin { transfer: id };
                self.effect(Effect::File(begin));
            }
            Ok(()) => self.put_away(id),
            Err(error) => {
                self.let_go(id);
                match error {
                    _ if !is_wanted => {}
                    NotPrepared::Place { reason, failure } => {
                        let declined = ExchangeEffect::Decline(reason);
                        self.effect(Effect::Exchange(carrier, declined));
                        self.finish(id, Err(failure));
                    }
                    NotPrepared::Over(reason) => self.lose_unprepared(id, &reason),
                }
            }
        }
    }

    fn put_away(&mut self, id: TransferId) {
        let what_arrived = match self.take_leftover(id) {
            Some(_) => Arrived::Removed,
            None => Arrived::Kept,
        };
        self.effect(Effect::File(FileEffect::PutAway {
            transfer: id,
            what_arrived,
        }));
    }

    /// The offer is over for which the disk was made ready.
    fn lose_unprepared(&mut self, id: TransferId, reason: &str) {
        self.lose(id, reason);
        if let Some(Step::Lost { is_held, .. }) = self.transfers.step_mut(id) {
            *is_held = false;
        }
    }

    /// Bytes are received from now on.
    pub(crate) fn handle_begun(&mut self, id: TransferId, title: Option<String>, now: Instant) {
        self.now = now;
        let Some(receiving) = self.transfers.receiving_mut(id) else {
            return;
        };
        let yes = receiving.yes;
        let Some(step) = receiving.step_mut() else {
            return;
        };
        let Step::Preparing(carrier) = *step else {
            return;
        };
        *step = Step::Running(carrier);
        self.begin(id, title);
        if let Some(yes) = yes {
            self.note_yes(id, yes);
        }
        self.improve_at_once(carrier.session);
        self.emit(Event::Started { transfer: id });
    }

    /// What was prepared in vain has let go of its files.
    pub(crate) fn handle_let_go(&mut self, id: TransferId, now: Instant) {
        self.now = now;
        let step = self.transfers.step(id);
        let was_wanted = matches!(step, Some(Step::Preparing(_)));
        self.let_go(id);
        if was_wanted {
            self.lose_unprepared(id, "no such transfer");
        }
    }

    fn let_go(&mut self, id: TransferId) {
        self.discard_leftover(id);
        match self.transfers.step_mut(id) {
            Some(Step::Releasing {
                holder: StepHolder::Preparing,
                next,
            }) => {
                let next = *next;
                self.take(id, next);
            }
            Some(Step::Lost { is_held, .. }) => *is_held = false,
            _ => {}
        }
    }

    pub(in crate::state) fn decline(&mut self, id: TransferId) {
        self.turn_down(id, DeclineReason::Declined);
    }

    /// Turns down what waits for the user. What the user has not turned down stays on
    /// the list.
    pub(in crate::state) fn turn_down(&mut self, id: TransferId, reason: DeclineReason) {
        let waiting = self.transfers.get(id).filter(|t| t.awaits_decision());
        let Some(carrier) = waiting.and_then(Transfer::carrier) else {
            return;
        };
        self.effect(Effect::Exchange(carrier, ExchangeEffect::Decline(reason)));
        if reason == DeclineReason::Declined {
            self.remove_transfer(id);
            return self.note_idleness(carrier.session);
        }
        let detail = match reason {
            DeclineReason::OnlyOneFile => {
                "Several files or folders were offered, and only a single file can be passed on. They were declined."
            }
            _ => "Too much waits for an answer, so this was turned down.",
        };
        let failure = Failure::NotPossible {
            detail: detail.to_owned(),
        };
        self.finish(id, Err(failure));
    }

    /// Has words shown.
    fn show_text(&mut self, id: TransferId, yes: Yes) {
        let Some(transfer) = self.transfers.get_mut(id) else {
            return;
        };
        let offer = transfer.text().map(|text| offer::of_text(text));
        let Some(receiving) = transfer.as_receiving_mut() else {
            return;
        };
        let ReceiveStage::Asking { carrier, .. } = receiving.stage else {
            return;
        };
        receiving.yes = Some(yes);
        receiving.stage = ReceiveStage::Showing(carrier);
        transfer.offer = Arc::new(offer.unwrap_or_default());
        self.note_yes(id, yes);
        self.emit(Event::TextReceived { transfer: id });
    }

    /// Words were shown: their sender hears of it.
    pub(in crate::state) fn text_shown(&mut self, id: TransferId) {
        let receiving = self.transfers.get(id).and_then(Transfer::as_receiving);
        let Some(ReceiveStage::Showing(carrier)) = receiving.map(|it| &it.stage) else {
            return;
        };
        // One that the sender has taken back meanwhile has been shown all the same.
        self.effect(Effect::Exchange(*carrier, ExchangeEffect::TakeText));
        self.finish(id, Ok(Summary::default()));
    }
}

impl Receiving {
    pub(super) const fn step_mut(&mut self) -> Option<&mut Step> {
        match &mut self.stage {
            ReceiveStage::Accepted(_, step) => Some(step),
            _ => None,
        }
    }
}
