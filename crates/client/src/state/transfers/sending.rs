//! Sending: from the command, or the queue, to the offer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use pinhole_net::{PeerIdentity, PeerKey};
use pinhole_transfer::{PipeInput, SafePath};

use super::{Content, SendStage, Sending, Transfer};
use crate::consent::Yes;
use crate::failure::Failure;
use crate::model::TransferId;
use crate::offer;
use crate::snapshot::OfferView;
use crate::state::State;
use crate::state::effect::{Effect, ExchangeEffect, FileEffect, Stored};
use crate::state::ids::{Carrier, SessionId};
use crate::store::Queued;

impl Transfer {
    /// Whether it waits, or has waited, for its peer to be online.
    pub(super) fn is_of_queue(&self) -> bool {
        self.as_sending().is_some_and(|it| it.queued_on.is_some())
    }

    /// Whether it is offered, and was not answered yet.
    pub(super) fn is_offered(&self) -> bool {
        let sending = self.as_sending();
        sending.is_some_and(|it| matches!(it.stage, SendStage::Offered(_)))
    }

    /// Whether it waits for a session with this peer.
    pub(in crate::state) fn waits_for(&self, peer: PeerKey) -> bool {
        let stage = self.as_sending().map(|it| &it.stage);
        self.peer.key == peer
            && matches!(
                stage,
                Some(
                    SendStage::Listing { .. }
                        | SendStage::Connecting { .. }
                        | SendStage::Reconnecting(_)
                )
            )
    }

    fn is_connecting(&self) -> bool {
        let sending = self.as_sending();
        sending.is_some_and(|it| matches!(it.stage, SendStage::Connecting { .. }))
    }

    fn queued(queued: Queued) -> Self {
        let offer = Arc::new(offer::of_paths(&queued.paths));
        let content = Content::Files(queued.paths);
        let mut transfer =
            Self::sending(queued.peer, content, SendStage::Queued { again_at: None });
        transfer.offer = offer;
        if let Some(sending) = transfer.as_sending_mut() {
            sending.queued_on = Some(queued.server);
        }
        transfer
    }

    fn as_queued(&self) -> Option<Queued> {
        let sending = self.as_sending()?;
        let Content::Files(paths) = &sending.content else {
            return None;
        };
        Some(Queued {
            server: sending.queued_on?,
            peer: self.peer.clone(),
            paths: paths.clone(),
        })
    }
}

impl State {
    pub(in crate::state) fn send(&mut self, peer: PeerKey, paths: Vec<PathBuf>) {
        let Some(peer) = self.identity_of(peer) else {
            let peer = peer.fingerprint().to_string();
            return self.fail_command(Failure::PeerOffline { peer });
        };
        if !self.presence.is_online(&peer) && self.sessions.to(peer.key).is_none() {
            return self.queue(peer, paths);
        }
        let stage = SendStage::Listing { again: None };
        self.tell_of_session(&peer);
        let transfer = Transfer::sending(peer, Content::Files(paths), stage);
        let id = self.add_transfer(transfer);
        self.prepare(id);
    }

    pub(in crate::state) fn send_stream(
        &mut self,
        peer: PeerKey,
        name: SafePath,
        input: PipeInput,
    ) {
        if input.is_taken() {
            let detail = format!("{} was read already.", input.name());
            return self.fail_command(Failure::NotPossible { detail });
        }
        let Some(peer) = self.in_reach(peer) else {
            return;
        };
        let stage = SendStage::Listing { again: None };
        let transfer = Transfer::sending(peer, Content::Stream(name, input), stage);
        let id = self.add_transfer(transfer);
        self.prepare(id);
    }

    /// A peer to whom something can be sent now; else the command fails.
    fn in_reach(&mut self, peer: PeerKey) -> Option<PeerIdentity> {
        let known = self.identity_of(peer);
        let in_reach = known
            .clone()
            .filter(|peer| self.presence.is_online(peer) || self.sessions.to(peer.key).is_some());
        if in_reach.is_none() {
            let name = known.map(|known| known.name.to_string());
            let peer = name.unwrap_or_else(|| peer.fingerprint().to_string());
            self.fail_command(Failure::PeerOffline { peer });
        }
        in_reach
    }

    pub(in crate::state) fn send_text(&mut self, peer: PeerKey, text: String) {
        let Some(peer) = self.in_reach(peer) else {
            return;
        };
        self.tell_of_session(&peer);
        let offer = Arc::new(offer::of_text(&text));
        let stage = SendStage::Connecting { again: None };
        let mut transfer = Transfer::sending(peer.clone(), Content::Text(text.into()), stage);
        transfer.offer = offer;
        let id = self.add_transfer(transfer);
        if let Some(failure) = self.key_failure(&peer) {
            return self.finish(id, Err(failure));
        }
        self.offer_or_connect(id, &peer);
    }

    /// Has the list of files read and, meanwhile, the connection made.
    pub(in crate::state) fn prepare(&mut self, id: TransferId) {
        let Some(transfer) = self.transfers.get_mut(id).filter(|t| !t.is_final()) else {
            return;
        };
        let peer = transfer.peer.clone();
        let Some(Sending { content, stage, .. }) = transfer.as_sending_mut() else {
            return;
        };
        let list = match content {
            Content::Files(paths) => FileEffect::List {
                transfer: id,
                paths: paths.clone(),
            },
            Content::Stream(name, input) => FileEffect::Stream {
                transfer: id,
                name: name.clone(),
                input: input.clone(),
            },
            Content::Text(_) => return,
        };
        let queued = SendStage::Queued { again_at: None };
        let again = match std::mem::replace(stage, queued) {
            SendStage::Reconnecting(again) => Some(again),
            SendStage::Listing { again } | SendStage::Connecting { again } => again,
            _ => None,
        };
        *stage = SendStage::Listing { again };
        if let Some(failure) = self.key_failure(&peer) {
            return self.finish(id, Err(failure));
        }
        self.effect(Effect::File(list));
        self.connect_for(id, &peer);
    }

    fn connect_for(&mut self, id: TransferId, peer: &PeerIdentity) {
        if let Err(failure) = self.ensure_session(peer)
            && !self.tries_again(id)
        {
            self.finish(id, Err(failure));
        }
    }

    fn offer_or_connect(&mut self, id: TransferId, peer: &PeerIdentity) {
        match self.sessions.to(peer.key) {
            Some(session) => self.offer_waiting(peer.key, session),
            None => self.connect_for(id, peer),
        }
    }

    pub(in crate::state) fn retry(&mut self, id: TransferId) {
        let failed = |t: &&Transfer| matches!(t.ended(), Some(Err(_)));
        let Some(transfer) = self.transfers.get(id).filter(failed) else {
            return;
        };
        let Some(sending) = transfer.as_sending() else {
            return;
        };
        let (peer, content) = (transfer.peer.clone(), sending.content.clone());
        if self.identity_of(peer.key).is_none() {
            let peer = peer.name.to_string();
            return self.fail_command(Failure::PeerOffline { peer });
        }
        self.dismiss(id);
        match content {
            Content::Text(text) => self.send_text(peer.key, text.as_ref().to_owned()),
            Content::Files(paths) => self.send(peer.key, paths),
            Content::Stream(name, input) => self.send_stream(peer.key, name, input),
        }
    }

    /// The list of files to be sent has been read, or why it cannot be. Returns
    /// whether it is wanted still.
    pub(crate) fn handle_listed(
        &mut self,
        id: TransferId,
        outcome: Result<OfferView, String>,
        now: Instant,
    ) -> bool {
        self.now = now;
        let Some(transfer) = self.transfers.get_mut(id) else {
            return false;
        };
        let peer = transfer.peer.clone();
        let Some(sending) = transfer.as_sending_mut() else {
            return false;
        };
        let SendStage::Listing { again } = &mut sending.stage else {
            return false;
        };
        let offer = match outcome {
            Ok(offer) => offer,
            Err(detail) => {
                self.finish(id, Err(Failure::LocalFiles { detail }));
                return false;
            }
        };
        let again = again.take();
        sending.stage = SendStage::Connecting { again };
        transfer.progress = offer::no_progress(&offer);
        transfer.offer = Arc::new(offer);
        // A session that was there when the list was begun may be gone.
        self.offer_or_connect(id, &peer);
        true
    }

    /// Offers everything that waits for a session with this peer.
    pub(in crate::state) fn offer_waiting(&mut self, peer: PeerKey, session: SessionId) {
        let waiting = |t: &Transfer| t.peer.key == peer && t.is_connecting();
        for transfer in self.transfers.ids(waiting) {
            let text = self.transfers.get(transfer).and_then(|t| t.text().cloned());
            self.effect(match text {
                Some(text) => Effect::SendText {
                    transfer,
                    session,
                    text,
                },
                None => Effect::Offer { transfer, session },
            });
        }
        self.note_idleness(session);
    }

    /// A transfer was offered on a session, under this name there, or could not be.
    pub(crate) fn handle_offered(
        &mut self,
        id: TransferId,
        session: SessionId,
        outcome: Result<pinhole_transfer::TransferId, String>,
        now: Instant,
    ) {
        self.now = now;
        let path = self.sessions.get(session).map(|session| session.path);
        let transfer = self.transfers.get_mut(id);
        let Some(transfer) = transfer.filter(|t| t.is_connecting()) else {
            if let Ok(id) = outcome {
                // It was cancelled meanwhile.
                let carrier = Carrier::new(session, id);
                self.effect(Effect::Exchange(carrier, ExchangeEffect::Cancel));
            }
            return;
        };
        let wire_id = match outcome {
            Ok(wire_id) => wire_id,
            Err(reason) => {
                if !self.tries_again(id) {
                    let failure = self.lost_connection_of(id, &reason);
                    self.finish(id, Err(failure));
                }
                return self.note_idleness(session);
            }
        };
        transfer.path = path;
        let is_text = transfer.is_text();
        if let Some(sending) = transfer.as_sending_mut() {
            let carrier = Carrier::new(session, wire_id);
            sending.stage = match is_text {
                true => SendStage::Running(carrier),
                false => SendStage::Offered(carrier),
            };
        }
        self.note_yes(id, Yes::User);
        self.note_idleness(session);
    }

    /// No session came up: what waited for it has failed.
    pub(in crate::state) fn fail_waiting(&mut self, peer: PeerKey, failure: &Failure) {
        for id in self.transfers.ids(|transfer| transfer.waits_for(peer)) {
            if !self.tries_again(id) {
                self.finish(id, Err(failure.clone()));
            }
        }
    }
}

/// What waits until its peer is online.
impl State {
    /// Lets files wait for a peer of the server that we are logged in to.
    fn queue(&mut self, peer: PeerIdentity, paths: Vec<PathBuf>) {
        let Some(server) = self.login.server_key() else {
            let peer = peer.name.to_string();
            return self.fail_command(Failure::PeerOffline { peer });
        };
        self.add_queued(Queued {
            server,
            peer,
            paths,
        });
        self.store_queue();
    }

    pub(in crate::state) fn add_queued(&mut self, queued: Queued) {
        self.add_transfer(Transfer::queued(queued));
    }

    /// Sends whatever waits for peers that are online now.
    /// Another key has taken the place of this one: what waits for it, or could not be
    /// sent to it, goes to that one.
    pub(in crate::state) fn move_queued(&mut self, former: PeerKey, present: PeerKey) {
        for transfer in self.transfers.values_mut() {
            let is_idle = transfer.as_sending().is_some_and(|it| {
                matches!(it.stage, SendStage::Queued { .. } | SendStage::Over(_))
            });
            if transfer.peer.key == former && is_idle {
                transfer.peer.key = present;
            }
        }
        self.store_queue();
    }

    pub(in crate::state) fn send_queued(&mut self) {
        let due = self.transfers.ids(|transfer| self.is_due(transfer));
        self.send_again(due);
    }

    /// Tries again what has waited for its time and whose peer seems to be online.
    pub(in crate::state) fn queue_timeout(&mut self) {
        let now = self.now;
        let mut due = Vec::new();
        for (&id, transfer) in &mut self.transfers.all {
            let Some(Sending {
                stage: SendStage::Queued { again_at },
                ..
            }) = transfer.as_sending_mut()
            else {
                continue;
            };
            if again_at.is_some_and(|at| at <= now) {
                *again_at = None;
                due.push(id);
            }
        }
        due.retain(|id| self.transfers.get(*id).is_some_and(|t| self.is_due(t)));
        self.send_again(due);
    }

    /// Whether it is queued, and its peer is online.
    fn is_due(&self, transfer: &Transfer) -> bool {
        let Some(sending) = transfer.as_sending() else {
            return false;
        };
        let is_here = sending.queued_on == self.login.server_key();
        matches!(sending.stage, SendStage::Queued { .. })
            && (is_here && self.presence.is_on_server(&transfer.peer)
                || self.presence.is_nearby(transfer.peer.key))
    }

    fn send_again(&mut self, due: Vec<TransferId>) {
        if due.is_empty() {
            return;
        }
        for id in due {
            self.prepare(id);
        }
        self.store_queue();
    }

    /// Lets one that was on its way wait again, until its peer comes or it is time.
    pub(super) fn requeue(&mut self, id: TransferId, again_at: Option<Instant>) {
        let Some(transfer) = self.transfers.get_mut(id) else {
            return;
        };
        let Some(queued) = transfer.as_queued() else {
            return;
        };
        let (carrier, face) = (transfer.carrier(), transfer.face);
        *transfer = Transfer::queued(queued);
        transfer.face = face;
        if let Some(sending) = transfer.as_sending_mut() {
            sending.stage = SendStage::Queued { again_at };
        }
        let release = FileEffect::Release { transfer: id };
        if let Some(carrier) = carrier {
            self.effect(Effect::Exchange(carrier, ExchangeEffect::Interrupt));
            self.note_idleness(carrier.session);
        }
        self.effect(Effect::File(release));
    }

    /// Whether something of the queue has failed only because its peer has
    /// left, perhaps without having seen it.
    pub(super) fn waits_again(&self, id: TransferId, failure: &Failure) -> bool {
        let queued = |t: &&Transfer| t.is_of_queue() && !t.is_final();
        let Some(transfer) = self.transfers.get(id).filter(queued) else {
            return false;
        };
        match failure {
            Failure::PeerOffline { .. }
            | Failure::ConnectionLost { .. }
            | Failure::InterruptedByPeer { .. } => true,
            Failure::NoPath { .. } => !self.presence.is_on_server(&transfer.peer),
            _ => false,
        }
    }

    /// What is on its way counts as waiting until it has ended: the program may
    /// end before.
    pub(super) fn store_queue(&mut self) {
        let waiting = self.transfers.values().filter(|t| !t.is_final());
        let queue = waiting.filter_map(Transfer::as_queued).collect();
        self.effect(Effect::Store(Stored::Queue(queue)));
    }
}
