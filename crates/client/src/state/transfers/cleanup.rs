//! What is left when a transfer is over: unfinished files that nobody wants any
//! more, and finished ones of which the sender may not have heard.

use std::collections::HashMap;

use pinhole_net::PeerKey;
use pinhole_transfer::digest::Digest;
use pinhole_transfer::{Manifest, Summary, TransferError};
use tracing::debug;

use super::{Accepted, ReceiveStage, Receiving, Role, Step, StepHolder};
use crate::consent::Delivery;
use crate::model::TransferId;
use crate::state::State;
use crate::state::effect::{Effect, ExchangeEffect, FileEffect, PartialTransfer};
use crate::state::ids::{Carrier, SessionId};

/// Unfinished files that are to go as soon as their holder has let go of them.
pub(super) type Leftovers = HashMap<Holder, PartialTransfer>;

/// What still uses unfinished files.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) enum Holder {
    /// A transfer on a session, until it has ended.
    Receiving(SessionId, pinhole_transfer::TransferId),
    /// The disk, which is made ready for a transfer.
    Preparing(TransferId),
}

impl Accepted {
    fn partial(&self, peer: PeerKey) -> PartialTransfer {
        PartialTransfer {
            offer: self.manifest.clone(),
            folder: self.folder.clone(),
            options: self.options.clone(),
            owner: *peer.as_bytes(),
        }
    }
}

impl State {
    /// Removes what has arrived of a transfer that does not go on, as soon as nothing
    /// uses it.
    pub(super) fn abandon(&mut self, id: TransferId) {
        let Some(transfer) = self.transfers.get(id) else {
            return;
        };
        let Role::Receiving(Receiving {
            stage: ReceiveStage::Accepted(accepted, step),
            ..
        }) = &transfer.role
        else {
            return;
        };
        if transfer.is_streamed() {
            // Nothing was kept.
            return;
        }
        let partial = accepted.partial(transfer.peer.key);
        let holder = match step {
            Step::Preparing(_)
            | Step::Lost { is_held: true, .. }
            | Step::Releasing {
                holder: StepHolder::Preparing,
                ..
            } => Holder::Preparing(id),
            Step::Running(carrier)
            | Step::Releasing {
                holder: StepHolder::Running(carrier),
                ..
            } => Holder::Receiving(carrier.session, carrier.id),
            Step::Lost { .. } => return self.discard(partial),
        };
        self.transfers.leftovers.insert(holder, partial);
    }

    fn discard(&mut self, partial: PartialTransfer) {
        self.effect(Effect::File(FileEffect::Discard(partial)));
    }

    /// Takes what the disk was made ready for off the list of what is to go.
    pub(super) fn take_leftover(&mut self, id: TransferId) -> Option<PartialTransfer> {
        self.transfers.leftovers.remove(&Holder::Preparing(id))
    }

    /// The disk has let go of what it was made ready for.
    pub(super) fn discard_leftover(&mut self, id: TransferId) {
        if let Some(partial) = self.take_leftover(id) {
            self.discard(partial);
        }
    }

    /// Something has ended that is on no list any more.
    pub(super) fn end_unknown(
        &mut self,
        carrier: Carrier,
        outcome: &Result<Summary, TransferError>,
    ) {
        let holder = Holder::Receiving(carrier.session, carrier.id);
        let partial = self.transfers.leftovers.remove(&holder);
        // The connection broke before it could be cancelled.
        let is_kept = matches!(
            outcome,
            Err(TransferError::ConnectionLost | TransferError::Interrupted(_))
        );
        if let Some(partial) = partial.filter(|_| is_kept) {
            self.discard(partial);
        }
    }

    /// A transfer was received to its end; its files have this digest together.
    pub(super) fn note_delivered(&mut self, id: TransferId, content: Digest) {
        let transfer = self.transfers.get(id);
        let accepted = transfer.and_then(|t| match &t.as_receiving()?.stage {
            ReceiveStage::Accepted(accepted, _) => Some((t.peer.key, accepted)),
            _ => None,
        });
        if let Some((peer, accepted)) = accepted {
            let delivery = Delivery {
                peer,
                listing: accepted.manifest.listing(),
                content,
            };
            self.delivered.add(delivery, self.now);
        }
    }

    /// Answers an offer of what this peer has delivered a short while ago, if it is
    /// one: the same files, with the same content. Nothing is looked at or written,
    /// and nobody is asked or told again.
    pub(super) fn is_acknowledged(
        &mut self,
        peer: PeerKey,
        carrier: Carrier,
        offer: &Manifest,
    ) -> bool {
        let Some(content) = carrier.sent else {
            return false;
        };
        let listing = offer.listing();
        let delivery = Delivery {
            peer,
            listing,
            content,
        };
        let is_delivered = self.delivered.has(delivery, self.now);
        if is_delivered {
            debug!("offered again after its end");
            self.effect(Effect::Exchange(carrier, ExchangeEffect::Acknowledge));
        }
        is_delivered
    }
}
