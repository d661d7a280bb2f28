//! What is left when a transfer is over: unfinished files that nobody wants any
//! more, and finished ones of which the sender may not have heard.

use std::path::PathBuf;
use std::sync::Arc;

use pinhole_net::PeerKey;
use pinhole_transfer::{
    AcceptError, Choices, DeclineReason, Destination, Manifest, Places, Summary, TransferError,
};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::Engine;
use super::going_on::WAIT;
use super::sessions::SessionId;
use super::taking::open;
use super::transfers::{Carried, Transfer};
use crate::offer;
use crate::snapshot::TransferId;

/// Most deliveries that are remembered, and most entries in all of them: a peer
/// may finish many, and the entries of one take megabytes.
const DELIVERED_MAX: usize = 32;
const DELIVERED_ENTRIES_MAX: u32 = 500_000;

/// Unfinished files, and where they are.
#[derive(Debug)]
pub(crate) struct Left {
    offer: Arc<Manifest>,
    folder: PathBuf,
    choices: Choices,
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
#[derive(Debug)]
pub(crate) struct Delivered {
    peer: PeerKey,
    session: SessionId,
    offer: Arc<Manifest>,
    folder: PathBuf,
    choices: Choices,
    places: Places,
    forget_at: Instant,
}

impl Transfer {
    fn left(&self) -> Option<Left> {
        Some(Left {
            offer: self.manifest.clone()?,
            folder: self.folder.clone()?,
            choices: self.choices.clone(),
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
            let discarded = folder.and_then(|it| it.discard(left.offer, &left.choices));
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
        self.answering.remove(&(session, id));
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

    /// A transfer was received to its end.
    pub(super) fn note_delivered(&mut self, id: TransferId, places: Places) {
        let now = Instant::now();
        self.delivered.retain(|it| it.forget_at > now);
        let Some(transfer) = self.transfers.get(&id) else {
            return;
        };
        let (Some(left), Some(carried)) = (transfer.left(), &transfer.carried) else {
            return;
        };
        self.delivered.push(Delivered {
            peer: transfer.peer.key,
            session: carried.session,
            offer: left.offer,
            folder: left.folder,
            choices: left.choices,
            places,
            forget_at: now + WAIT,
        });
        keep_newest(&mut self.delivered);
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

    /// Takes an offer of what is here whole already, if it is one: it is compared,
    /// and the sender has it delivered. Nobody is asked or told again, for only
    /// what was taken away or changed meanwhile travels.
    pub(super) fn is_answered_again(
        &mut self,
        peer: PeerKey,
        carried: &Carried,
        offer: &Manifest,
    ) -> bool {
        let now = Instant::now();
        let is_it = |it: &&mut Delivered| {
            it.peer == peer
                && it.session != carried.session
                && it.forget_at > now
                && offer::is_same(&it.offer, offer)
        };
        let Some(delivered) = self.delivered.iter_mut().find(is_it) else {
            return false;
        };
        debug!("offered again after its end");
        delivered.session = carried.session;
        delivered.forget_at = now + WAIT;
        let (folder, choices) = (delivered.folder.clone(), delivered.choices.clone());
        let places = delivered.places.clone();
        self.answering.insert((carried.session, carried.id));
        let carried = carried.clone();
        tokio::spawn(async move {
            if let Err(error) = take_whole(&carried, folder, choices, places).await {
                debug!("not taken again: {error}");
                let reason = DeclineReason::NotWritable;
                // One that is over needs no answer.
                let _ = carried.exchange.decline(carried.id, reason).await;
            }
        });
        true
    }
}

/// As many of the last as may be remembered.
fn keep_newest(delivered: &mut Vec<Delivered>) {
    let mut entries: u32 = 0;
    let newest = delivered.iter().rev().take(DELIVERED_MAX);
    let kept = newest.take_while(|it| {
        entries = entries.saturating_add(it.offer.count());
        entries <= DELIVERED_ENTRIES_MAX
    });
    let kept = kept.count();
    delivered.drain(..delivered.len() - kept);
}

async fn take_whole(
    carried: &Carried,
    folder: PathBuf,
    choices: Choices,
    places: Places,
) -> Result<(), AcceptError> {
    let destination = open(folder).await?.knowing(places);
    let accepted = carried.exchange.accept(carried.id, destination, choices);
    accepted.await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use pinhole_transfer::manifest::ManifestBuilder;

    use super::*;

    fn delivered(number: u64, entries: u32) -> Delivered {
        let mut builder = ManifestBuilder::default();
        for entry in 0..entries {
            let entry = format!(r#"{{"file":{{"path":"{entry}","size_bytes":0}}}}"#);
            builder.push(serde_json::from_str(&entry).unwrap()).unwrap();
        }
        Delivered {
            peer: PeerKey::from_bytes([1; 32]),
            session: SessionId(number),
            offer: Arc::new(builder.build()),
            folder: PathBuf::new(),
            choices: Choices::default(),
            places: Places::default(),
            forget_at: Instant::now(),
        }
    }

    #[test]
    fn what_was_delivered_is_remembered_within_bounds() {
        let sessions = |all: &[Delivered]| Vec::from_iter(all.iter().map(|it| it.session.0));
        let mut many = Vec::from_iter((0..40).map(|number| delivered(number, 1)));
        keep_newest(&mut many);
        assert_eq!(sessions(&many), Vec::from_iter(8..40));
        let mut large = Vec::from_iter((0..3).map(|number| delivered(number, 200_000)));
        keep_newest(&mut large);
        assert_eq!(sessions(&large), [1, 2]);
    }
}
