//! What the peer has offered: announced, waiting for an answer, or on its way in.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{TRANSFERS_MAX, TransferTable, on_thread, thread_error};
use crate::event::{ExchangeError, ExchangeEvent};
use crate::offers::{GiveWay, OfferRoom};
use crate::protocol::chunking::CHUNK_BYTES;
use crate::protocol::digest::Digest;
use crate::protocol::early::{self, EarlyData};
use crate::protocol::file_error::FileErrorKind;
use crate::protocol::index::EntryIndex;
use crate::protocol::manifest::{
    ENTRIES_MAX, Entry, Manifest, ManifestBuilder, ManifestError, PATHS_BYTES_MAX,
};
use crate::protocol::message::{CancelReason, DeclineReason, Message, Offer, TransferId};
use crate::protocol::selection::Selection;
use crate::protocol::violation::Violation;
use crate::receive::inlet::Inlet;
use crate::receive::{Feeds, Place, Receiving};
use crate::resume::ResumeState;
use crate::transfer::Transfer;

/// Most bytes of paths in all offers of the peer that are open.
const OPEN_PATHS_BYTES_MAX: usize = 2 * PATHS_BYTES_MAX;
/// Most entries in all of them: each takes memory however short its path.
const OPEN_ENTRIES_MAX: u32 = 2 * ENTRIES_MAX;
/// Files, or runs of them, in one message that says what is there or not
/// wanted: it fits into a frame.
const PAGE: usize = 8192;

pub(crate) enum OpenIncoming {
    /// Entries are still coming.
    Announced(Announced),
    /// Not answered, or the answer is being prepared.
    Offered {
        manifest: Arc<Manifest>,
        is_preparing: bool,
        inlet: Arc<Inlet>,
        early_bytes: Option<u32>,
        /// What it takes counts until it is answered.
        _room: OfferRoom,
    },
    /// Accepted.
    Receiving {
        manifest: Arc<Manifest>,
        transfer: Arc<Transfer>,
        inlet: Arc<Inlet>,
    },
}

/// An offer whose entries are still coming.
pub(crate) struct Announced {
    builder: ManifestBuilder,
    entries: u32,
    total_bytes: u64,
    /// Bytes that come before the answer.
    early_bytes: Option<u32>,
    sent: Option<Digest>,
    room: OfferRoom,
}

impl Announced {
    /// Adds the next entries. Returns whether those were the last.
    fn add(&mut self, page: Vec<Entry>) -> Result<bool, Violation> {
        for entry in page {
            self.builder.push(entry)?;
        }
        let announced = usize::try_from(self.entries).unwrap_or(usize::MAX);
        let is_complete = self.builder.count() >= announced;
        let adds_up =
            self.builder.count() == announced && self.builder.total_bytes() == self.total_bytes;
        match is_complete && !adds_up {
            true => Err(ManifestError::Sum.into()),
            false => Ok(is_complete),
        }
    }

    /// The offer, all of it, as it waits for an answer.
    fn complete(self) -> Result<(Arc<Manifest>, OpenIncoming), Violation> {
        let manifest = Arc::new(self.builder.build());
        let is_more = self.early_bytes.is_some() || self.sent.is_some() || manifest.unread() > 0;
        if manifest.is_stream() && is_more {
            return Err(ManifestError::Stream.into());
        }
        let early = match self.early_bytes {
            Some(bytes) => EarlyData::promised(&manifest, bytes)?,
            None => EarlyData::default(),
        };
        let offered = OpenIncoming::Offered {
            manifest: Arc::clone(&manifest),
            is_preparing: false,
            inlet: Arc::new(Inlet::new(&manifest, early)),
            early_bytes: self.early_bytes,
            _room: self.room,
        };
        Ok((manifest, offered))
    }
}

impl OpenIncoming {
    /// Whether a chunk of it may have to be held until it is answered.
    fn holds_chunk(&self) -> bool {
        match self {
            Self::Announced(Announced { early_bytes, .. }) | Self::Offered { early_bytes, .. } => {
                early_bytes.is_some_and(early::is_chunk)
            }
            Self::Receiving { .. } => false,
        }
    }

    /// How many entries it has, or will have.
    fn entries(&self) -> u32 {
        match self {
            Self::Announced(announced) => announced.entries,
            Self::Offered { manifest, .. } | Self::Receiving { manifest, .. } => manifest.count(),
        }
    }

    fn paths_bytes(&self) -> usize {
        match self {
            Self::Announced(announced) => announced.builder.paths_bytes(),
            Self::Offered { manifest, .. } | Self::Receiving { manifest, .. } => {
                manifest.paths_bytes()
            }
        }
    }
}

/// What the peer says.
impl TransferTable {
    /// The peer announces an offer.
    pub(crate) fn announced(self: &Arc<Self>, offer: &Offer) -> Result<(), Violation> {
        let (id, entries, total_bytes) = (offer.transfer, offer.entries, offer.total_bytes);
        let early_bytes = offer.early.unwrap_or_default();
        let mut open = self.open();
        open.announce(self.side, id)?;
        if entries == 0 {
            return Err(ManifestError::Sum.into());
        }
        if entries > ENTRIES_MAX {
            return Err(ManifestError::TooMany.into());
        }
        // So that no more than one chunk waits for answers.
        let is_one_too_many = early::is_chunk(early_bytes)
            && (early_bytes > CHUNK_BYTES || open.incoming.values().any(OpenIncoming::holds_chunk));
        if is_one_too_many || u64::from(early_bytes) > total_bytes {
            return Err(ManifestError::Early.into());
        }
        let open_entries: u32 = open.incoming.values().map(OpenIncoming::entries).sum();
        if open.incoming.len() >= TRANSFERS_MAX || open_entries + entries > OPEN_ENTRIES_MAX {
            return self.decline_busy(id);
        }
        let mut room = OfferRoom::new(self.connection.resources.offers.clone(), self.giving(id));
        let owner = self.connection.owner();
        let Ok(displaced) = room.announce(owner, early_bytes, entries) else {
            return self.decline_busy(id);
        };
        let mut builder = ManifestBuilder::default();
        builder.leave_out(offer.unread);
        let announced = Announced {
            builder,
            entries,
            total_bytes,
            early_bytes: offer.early,
            sent: offer.sent,
            room,
        };
        open.incoming.insert(id, OpenIncoming::Announced(announced));
        drop(open);
        displaced.iter().for_each(|give_way| give_way());
        Ok(())
    }

    fn giving(self: &Arc<Self>, id: TransferId) -> GiveWay {
        let table = Arc::downgrade(self);
        Arc::new(move || {
            if let Some(table) = table.upgrade() {
                table.give_way(id);
            }
        })
    }

    /// Says that there is no room, as often as the peer likes.
    pub(crate) fn decline_busy(&self, transfer: TransferId) -> Result<(), Violation> {
        let reason = DeclineReason::Busy;
        let decline = Message::Decline { transfer, reason };
        self.connection.outbox.push_answer(decline)
    }

    /// Adds a page to an offer. Returns what the application is to be told when that
    /// was the last.
    pub(crate) fn add_entries(
        &self,
        id: TransferId,
        page: Vec<Entry>,
    ) -> Result<Option<ExchangeEvent>, Violation> {
        let mut open = self.open();
        let open_bytes: usize = open.incoming.values().map(OpenIncoming::paths_bytes).sum();
        let announced = match open.incoming.get_mut(&id) {
            Some(OpenIncoming::Announced(announced)) => announced,
            Some(_) => return Err(Violation::State("entries")),
            None => return open.check_was_open(self.side, id).map(|()| None),
        };
        let displaced = match announced.room.add(self.connection.owner(), &page) {
            Ok(displaced) if open_bytes <= OPEN_PATHS_BYTES_MAX => displaced,
            _ => {
                open.incoming.remove(&id);
                return self.decline_busy(id).map(|()| None);
            }
        };
        let mut event = None;
        if announced.add(page)?
            && let Some(OpenIncoming::Announced(announced)) = open.incoming.remove(&id)
        {
            let sent = announced.sent;
            let (offer, offered) = announced.complete()?;
            open.incoming.insert(id, offered);
            event = Some(ExchangeEvent::Offered { id, offer, sent });
        }
        drop(open);
        displaced.iter().for_each(|give_way| give_way());
        Ok(event)
    }

    /// Where files of a transfer go. `None` when it has ended.
    pub(crate) fn inlet(
        &self,
        id: TransferId,
        what: &'static str,
    ) -> Result<Option<Arc<Inlet>>, Violation> {
        if id.side() == self.side {
            return Err(Violation::Transfer(id));
        }
        let open = self.open();
        open.check_was_open(self.side, id)?;
        match open.incoming.get(&id) {
            None => Ok(None),
            Some(OpenIncoming::Announced(_)) => Err(Violation::State(what)),
            Some(OpenIncoming::Offered { inlet, .. } | OpenIncoming::Receiving { inlet, .. }) => {
                Ok(Some(Arc::clone(inlet)))
            }
        }
    }
}

/// How this side answers.
impl TransferTable {
    /// Holds an offer for the one who prepares to take it.
    pub(crate) fn begin_preparing(
        &self,
        id: TransferId,
        resume: &ResumeState,
    ) -> Result<(Arc<Manifest>, Arc<Transfer>), ExchangeError> {
        match self.open().incoming.get_mut(&id) {
            Some(OpenIncoming::Offered {
                manifest,
                is_preparing: is_preparing @ false,
                ..
            }) => {
                *is_preparing = true;
                let transfer = Transfer::new(id, manifest, resume.clone());
                Ok((Arc::clone(manifest), Arc::new(transfer)))
            }
            _ => Err(ExchangeError::UnknownTransfer),
        }
    }

    /// Lets go of an offer that could not be taken.
    pub(crate) fn back_to_offered(&self, id: TransferId) {
        if let Some(OpenIncoming::Offered { is_preparing, .. }) = self.open().incoming.get_mut(&id)
        {
            *is_preparing = false;
        }
    }

    /// Takes the offer that was prepared, unless it ended meanwhile, and tells
    /// the peer.
    pub(crate) fn begin_receiving(
        self: &Arc<Self>,
        transfer: Arc<Transfer>,
        selection: &Arc<Selection>,
        have: &BTreeMap<EntryIndex, u32>,
    ) -> Result<(Receiving, Feeds), ExchangeError> {
        let id = transfer.id;
        let mut open = self.open();
        let Some(OpenIncoming::Offered {
            manifest, inlet, ..
        }) = open.incoming.get(&id)
        else {
            return Err(ExchangeError::UnknownTransfer);
        };
        let (manifest, inlet) = (Arc::clone(manifest), Arc::clone(inlet));
        transfer.select(selection);
        let (feeds, have) = inlet.accept(&transfer, selection, have);
        let receiving = OpenIncoming::Receiving {
            manifest,
            transfer: Arc::clone(&transfer),
            inlet: Arc::clone(&inlet),
        };
        open.incoming.insert(id, receiving);
        self.say_accept(id, selection, &have);
        let receiving = Receiving {
            transfer,
            selection: Arc::clone(selection),
            inlet,
            connection: Arc::clone(&self.connection),
        };
        Ok((receiving, feeds))
    }

    fn say_accept(&self, transfer: TransferId, selection: &Selection, have: &[(EntryIndex, u32)]) {
        for page in EntryIndex::runs(selection.skipped().iter().copied()).chunks(PAGE) {
            self.connection.say(Message::Skip {
                transfer,
                entries: page.to_vec(),
            });
        }
        for page in have.chunks(PAGE) {
            self.connection.say(Message::Have {
                transfer,
                files: page.to_vec(),
            });
        }
        self.connection.say(Message::Accept { transfer });
    }

    /// An offer that nobody is about to take.
    pub(crate) fn offer(&self, id: TransferId) -> Result<Arc<Manifest>, ExchangeError> {
        match self.open().incoming.get(&id) {
            Some(OpenIncoming::Offered {
                is_preparing: false,
                manifest,
                ..
            }) => Ok(Arc::clone(manifest)),
            _ => Err(ExchangeError::UnknownTransfer),
        }
    }

    /// Takes out an offer that nobody is about to take.
    pub(crate) fn remove_offer(&self, id: TransferId) -> Result<Arc<Manifest>, ExchangeError> {
        let mut open = self.open();
        match open.incoming.get(&id) {
            Some(OpenIncoming::Offered {
                is_preparing: false,
                manifest,
                ..
            }) => {
                let manifest = Arc::clone(manifest);
                open.incoming.remove(&id);
                Ok(manifest)
            }
            _ => Err(ExchangeError::UnknownTransfer),
        }
    }

    /// Sees an accepted offer of the peer to its end.
    pub(crate) async fn receive(self: Arc<Self>, receiving: Receiving, place: Place, feeds: Feeds) {
        let id = receiving.transfer.id;
        let outcome = on_thread("pinhole-receive", move || receiving.run(place, feeds)).await;
        let outcome = outcome.unwrap_or_else(|| {
            let reason = CancelReason::Disk(FileErrorKind::Io);
            self.connection.say(Message::Cancel {
                transfer: id,
                reason,
            });
            Err(thread_error())
        });
        let finished = ExchangeEvent::Finished { id, outcome };
        self.connection.emit(finished).await;
        self.open().incoming.remove(&id);
        self.landed.notify_one();
    }
}
