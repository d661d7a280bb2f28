//! What is left when a transfer is over: unfinished files that nobody wants any
//! more, and finished ones of which the sender may not have heard.

use std::path::PathBuf;
use std::sync::Arc;

use pinhole_net::PeerKey;
use pinhole_transfer::merkle::Digest;
use pinhole_transfer::{Choices, Destination, Manifest, Summary, TransferError};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::Engine;
use super::going_on::WAIT;
use super::sessions::SessionId;
use super::transfers::{Carried, Transfer};
use crate::snapshot::TransferId;

/// Most deliveries that are remembered.
const DELIVERED_MAX: usize = 256;

/// Unfinished files, and where they are.
#[derive(Debug)]
pub(crate) struct Left {
    offer: Arc<Manifest>,
    folder: PathBuf,
    choices: Choices,
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

/// Something received to its end, on a session that has not ended in good order
/// since. If its last word was lost, the sender offers it again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Delivered {
    peer: PeerKey,
    session: SessionId,
    /// Which files and folders, by their paths and sizes.
    listing: Digest,
    /// And what was in them.
    digest: Digest,
    /// Never put off.
    forget_at: Instant,
}

impl Transfer {
    fn left(&self) -> Option<Left> {
        Some(Left {
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

    pub(super) fn discard(&self, left: Left) {
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
    pub(super) fn note_delivered(&mut self, id: TransferId, digest: Digest) {
        self.forget_old();
        let Some(transfer) = self.transfers.get(&id) else {
            return;
        };
        let (Some(offer), Some(carried)) = (&transfer.manifest, &transfer.carried) else {
            return;
        };
        if self.delivered.len() >= DELIVERED_MAX {
            self.delivered.remove(0);
        }
        self.delivered.push(Delivered {
            peer: transfer.peer.key,
            session: carried.session,
            listing: offer.listing(),
            digest,
            forget_at: Instant::now() + WAIT,
        });
    }

    /// The sender has said goodbye on this session, and so has heard everything.
    pub(super) fn forget_delivered(&mut self, session: SessionId) {
        self.delivered.retain(|it| it.session != session);
    }

    pub(super) fn next_forgetting(&self) -> Option<Instant> {
        self.delivered.iter().map(|it| it.forget_at).min()
    }

    pub(super) fn forget_old(&mut self) {
        let now = Instant::now();
        self.delivered.retain(|it| it.forget_at > now);
    }

    /// Answers an offer of what this peer has delivered a short while ago, if it is
    /// one: the same files, with the same content. Nothing is looked at or written,
    /// and nobody is asked or told again.
    pub(super) fn is_acknowledged(
        &mut self,
        peer: PeerKey,
        carried: &Carried,
        offer: &Manifest,
    ) -> bool {
        self.forget_old();
        let Some(sent) = carried.sent else {
            return false;
        };
        let listing = offer.listing();
        let is_it = |it: &Delivered| (it.peer, it.listing, it.digest) == (peer, listing, sent);
        if !self.delivered.iter().any(is_it) {
            return false;
        }
        debug!("offered again after its end");
        // One that is over needs no answer.
        let _ = carried.exchange.acknowledge(carried.id);
        true
    }
}
