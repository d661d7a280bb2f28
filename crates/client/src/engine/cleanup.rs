//! What is left when a transfer is over: unfinished files that nobody wants any
//! more, and finished ones of which the sender may not have heard.

use std::path::PathBuf;
use std::sync::Arc;

use pinhole_net::PeerKey;
use pinhole_transfer::digest::Digest;
use pinhole_transfer::{AcceptOptions, Destination, Manifest, Summary, TransferError};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::Engine;
use super::sessions::SessionId;
use super::transfers::{Carrier, Transfer};
use crate::consent::Delivery;
use crate::snapshot::TransferId;

/// Unfinished files, and where they are.
#[derive(Debug)]
pub(crate) struct PartialTransfer {
    offer: Arc<Manifest>,
    folder: PathBuf,
    choices: AcceptOptions,
    owner: [u8; 32],
}

/// Who still uses them.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    /// Whatever receives this, until it has ended.
    Receiving(SessionId, pinhole_transfer::TransferId),
    /// Whatever is about to.
    Taking(TransferId),
}

impl Transfer {
    fn left(&self) -> Option<PartialTransfer> {
        Some(PartialTransfer {
            offer: self.manifest.clone()?,
            folder: self.folder.clone()?,
            choices: self.choices.clone(),
            owner: *self.peer.key.as_bytes(),
        })
    }
}

impl Engine {
    /// Nobody goes on with what has arrived of a transfer: it is to go, as soon as
    /// nobody uses it.
    pub(super) fn abandon(&mut self, id: TransferId) {
        let Some(transfer) = self.transfers.get(&id) else {
            return;
        };
        let Some(left) = transfer.left() else {
            return;
        };
        let holder = match &transfer.carried {
            _ if transfer.is_taking => Holder::Taking(id),
            Some(carried) => Holder::Receiving(carried.session, carried.id),
            None => return self.discard(left),
        };
        self.leftovers.insert(holder, left);
    }

    pub(super) fn discard(&self, left: PartialTransfer) {
        tokio::task::spawn_blocking(move || {
            let folder = Destination::open(&left.folder);
            let discarded = folder.and_then(|it| it.discard(left.offer, &left.choices, left.owner));
            if let Err(error) = discarded {
                warn!(%error, "what was cancelled stays behind");
            }
        });
    }

    /// Something has ended that is on no list any more.
    pub(super) fn end_unknown(
        &mut self,
        session: SessionId,
        id: pinhole_transfer::TransferId,
        outcome: &Result<Summary, TransferError>,
    ) {
        let left = self.leftovers.remove(&Holder::Receiving(session, id));
        // The connection broke before it could be cancelled.
        let is_kept = matches!(
            outcome,
            Err(TransferError::ConnectionLost | TransferError::Interrupted(_))
        );
        if let Some(left) = left.filter(|_| is_kept) {
            self.discard(left);
        }
    }

    /// A transfer was received to its end; its files have this digest together.
    pub(super) fn note_delivered(&mut self, id: TransferId, content: Digest) {
        let transfer = self.transfers.get(&id);
        let offer = transfer.and_then(|t| Some((t.peer.key, t.manifest.as_ref()?)));
        if let Some((peer, offer)) = offer {
            let delivery = Delivery {
                peer,
                listing: offer.listing(),
                content,
            };
            self.delivered.add(delivery, Instant::now());
        }
    }

    /// Answers an offer of what this peer has delivered a short while ago, if it is
    /// one: the same files, with the same content. Nothing is looked at or written,
    /// and nobody is asked or told again.
    pub(super) fn is_acknowledged(
        &self,
        peer: PeerKey,
        carried: &Carrier,
        offer: &Manifest,
    ) -> bool {
        let Some(content) = carried.sent else {
            return false;
        };
        let listing = offer.listing();
        let delivery = Delivery {
            peer,
            listing,
            content,
        };
        let is_delivered = self.delivered.has(delivery, Instant::now());
        if is_delivered {
            debug!("offered again after its end");
            // One that is over needs no answer.
            let _ = carried.exchange.acknowledge(carried.id);
        }
        is_delivered
    }
}
