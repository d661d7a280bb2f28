//! Which transfers are open, and everything that changes it: the application's
//! wishes come from [`crate::exchange`], the peer's words from
//! [`crate::dispatch`].

mod ending;
mod outgoing;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, mpsc};

pub(crate) use self::outgoing::{Leaving, OpenOutgoing};

use crate::connection::Connection;
use crate::event::{ExchangeError, TransferError};
use crate::exchange::TRANSFERS_MAX;
use crate::offers::OfferRoom;
use crate::protocol::digest::Digest;
use crate::protocol::frame::DigestItem;
use crate::protocol::manifest::{Early, Entry, Manifest, ManifestBuilder, ManifestError};
use crate::protocol::message::{Message, Side, TEXT_BYTES_MAX, TransferId};
use crate::protocol::receiver::Receiver;
use crate::protocol::selection::Selection;
use crate::protocol::violation::Violation;
use crate::receive::{DIGESTS, Feeds, Incoming, WORK, Work};
use crate::resume::ResumeState;
use crate::transfer::Transfer;

/// Files, or runs of them, in one message that says what is there or not
/// wanted: it fits into a frame.
const PAGE: usize = 8192;

/// What the tasks and handles of an exchange share.
pub(crate) struct TransferTable {
    side: Side,
    pub(crate) connection: Arc<Connection>,
    /// An accepted transfer has ended, or the application was told of an end.
    landed: Notify,
    open: Mutex<OpenTransfers>,
}

/// The transfers that are open, and what was said of others.
pub(crate) struct OpenTransfers {
    /// The exchange is over and opens nothing more.
    is_over: bool,
    /// The next id of this side; `None` when they are used up.
    next: Option<TransferId>,
    /// The last id the peer gave out.
    last_of_peer: Option<TransferId>,
    /// Words of either side that were not answered yet.
    texts: BTreeSet<TransferId>,
    pub(crate) outgoing: HashMap<TransferId, OpenOutgoing>,
    pub(crate) incoming: HashMap<TransferId, OpenIncoming>,
    /// Ends of transfers for which the application's queue had no room yet.
    untold: usize,
}

pub(crate) enum OpenIncoming {
    /// Entries are still coming.
    Announced(Announced),
    /// Not answered, or the answer is being prepared.
    Offered {
        manifest: Arc<Manifest>,
        is_preparing: bool,
        /// `None` when nothing of it comes before the answer.
        held: Option<EarlyData>,
        /// What it takes counts until it is answered.
        _room: OfferRoom,
    },
    /// Accepted.
    Receiving {
        transfer: Arc<Transfer>,
        manifest: Arc<Manifest>,
        machine: Receiver,
        /// `None` once everything has come, or the transfer was stopped.
        work: Option<mpsc::Sender<Work>>,
        /// As `work`.
        digests: Option<mpsc::Sender<Vec<DigestItem>>>,
    },
}

/// An offer whose entries are still coming.
pub(crate) struct Announced {
    pub(crate) builder: ManifestBuilder,
    pub(crate) entries: u32,
    pub(crate) total_bytes: u64,
    pub(crate) early: Early,
    pub(crate) sent: Option<Digest>,
    pub(crate) room: OfferRoom,
}

impl Announced {
    /// Adds the next entries. Returns whether those were the last.
    pub(crate) fn add(&mut self, page: Vec<Entry>) -> Result<bool, Violation> {
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
    pub(crate) fn complete(self) -> Result<(Arc<Manifest>, OpenIncoming), Violation> {
        let manifest = Arc::new(self.builder.build());
        if self.early == Early::FirstChunk && !manifest.has_first_chunk() {
            return Err(ManifestError::Ahead.into());
        }
        let offered = OpenIncoming::Offered {
            manifest: Arc::clone(&manifest),
            is_preparing: false,
            held: EarlyData::new(&manifest, self.early),
            _room: self.room,
        };
        Ok((manifest, offered))
    }
}

/// What has come of an offer before the answer to it: no more than the manifest
/// allows of files that come along, of which each comes once, or one chunk.
pub(crate) struct EarlyData {
    pub(crate) machine: Receiver,
    pub(crate) work: Vec<Work>,
    /// Bytes of a chunk, be it that the rest of it is still coming.
    pub(crate) chunk_bytes: u64,
}

impl EarlyData {
    /// `None` where nothing comes early.
    pub(crate) fn new(manifest: &Arc<Manifest>, early: Early) -> Option<Self> {
        let machine = Receiver::unanswered(Arc::clone(manifest), early);
        (early != Early::Nothing).then_some(Self {
            machine,
            work: Vec::new(),
            chunk_bytes: 0,
        })
    }

    /// What goes on once the offer is taken, without what is not wanted of it.
    fn accepted(held: Option<Self>, selection: &Arc<Selection>, have: &BTreeMap<u32, u32>) -> Self {
        let selection = Arc::clone(selection);
        let nothing = |machine| Self {
            machine,
            work: Vec::new(),
            chunk_bytes: 0,
        };
        let Some(held) = held else {
            return nothing(Receiver::new(selection, have));
        };
        let (machine, counts) = held.machine.accepted(selection, have);
        match counts {
            true => Self { machine, ..held },
            false => nothing(machine),
        }
    }
}

impl OpenIncoming {
    /// Ends an accepted one early: its pipeline gets no more, and ends.
    fn stop(&mut self, reason: TransferError) {
        if let Self::Receiving {
            transfer,
            work,
            digests,
            ..
        } = self
        {
            transfer.control.stop(reason);
            *work = None;
            *digests = None;
        }
    }

    /// Whether a chunk of it may have to be held until it is answered.
    pub(crate) fn is_ahead(&self) -> bool {
        match self {
            Self::Announced(announced) => announced.early == Early::FirstChunk,
            Self::Offered { held, .. } => held.as_ref().is_some_and(|held| held.machine.is_ahead()),
            Self::Receiving { .. } => false,
        }
    }

    /// How many entries it has, or will have.
    pub(crate) fn entries(&self) -> u32 {
        match self {
            Self::Announced(announced) => announced.entries,
            Self::Offered { manifest, .. } | Self::Receiving { manifest, .. } => manifest.count(),
        }
    }

    pub(crate) fn paths_bytes(&self) -> usize {
        match self {
            Self::Announced(announced) => announced.builder.paths_bytes(),
            Self::Offered { manifest, .. } | Self::Receiving { manifest, .. } => {
                manifest.paths_bytes()
            }
        }
    }
}

impl OpenTransfers {
    /// An id for something new of this side.
    fn new_id(&mut self) -> Result<TransferId, ExchangeError> {
        if self.is_over {
            return Err(ExchangeError::Closed);
        }
        let id = self.next.ok_or(ExchangeError::TooManyTransfers)?;
        if self.outgoing.len() + self.texts_of(id.side()) >= TRANSFERS_MAX {
            return Err(ExchangeError::TooManyTransfers);
        }
        self.next = id.next();
        Ok(id)
    }

    fn texts_of(&self, side: Side) -> usize {
        self.texts.iter().filter(|id| id.side() == side).count()
    }

    /// Notes a new id of the peer.
    pub(crate) fn announce(&mut self, side: Side, id: TransferId) -> Result<(), Violation> {
        if id.side() == side || self.last_of_peer.is_some_and(|last| id <= last) {
            return Err(Violation::Transfer(id));
        }
        self.last_of_peer = Some(id);
        Ok(())
    }

    /// What came for a transfer that is not open is late if it was once.
    pub(crate) fn check_was_open(&self, side: Side, id: TransferId) -> Result<(), Violation> {
        let was_open = if id.side() == side {
            self.next.is_none_or(|next| id < next)
        } else {
            self.last_of_peer.is_some_and(|last| id <= last)
        };
        if was_open {
            Ok(())
        } else {
            Err(Violation::Transfer(id))
        }
    }
}

impl TransferTable {
    pub(crate) fn new(side: Side, connection: Connection) -> Self {
        Self {
            side,
            connection: Arc::new(connection),
            landed: Notify::new(),
            open: Mutex::new(OpenTransfers {
                is_over: false,
                next: Some(TransferId::first(side)),
                last_of_peer: None,
                texts: BTreeSet::new(),
                outgoing: HashMap::new(),
                incoming: HashMap::new(),
                untold: 0,
            }),
        }
    }

    pub(crate) const fn side(&self) -> Side {
        self.side
    }

    pub(crate) fn open(&self) -> MutexGuard<'_, OpenTransfers> {
        self.open.lock()
    }

    /// Whether files are under way in either direction.
    pub(crate) fn is_moving(&self) -> bool {
        let open = self.open();
        let is_sent = |one: &OpenOutgoing| one.machine.is_accepted();
        let receiving = |one: &OpenIncoming| matches!(one, OpenIncoming::Receiving { .. });
        open.outgoing.values().any(is_sent) || open.incoming.values().any(receiving)
    }

    /// Whether nothing is open in either direction.
    pub(crate) fn is_idle(&self) -> bool {
        let open = self.open();
        open.outgoing.is_empty() && open.incoming.is_empty() && open.texts.is_empty()
    }

    /// Sends a few words.
    pub(crate) fn send_text(&self, text: String) -> Result<TransferId, ExchangeError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(ExchangeError::TextTooLong);
        }
        let mut open = self.open();
        let transfer = open.new_id()?;
        open.texts.insert(transfer);
        // Under the lock, as an offer.
        self.connection.say(Message::Text { transfer, text });
        Ok(transfer)
    }

    /// The peer answers these words of this side. Whether they were waiting for
    /// that.
    pub(crate) fn text_is_answered(&self, id: TransferId) -> bool {
        id.side() == self.side && self.open().texts.remove(&id)
    }

    /// Words of the peer wait for their answer, unless too many do.
    pub(crate) fn keep_text(&self, id: TransferId) -> bool {
        let mut open = self.open();
        let has_room = open.texts_of(id.side()) < TRANSFERS_MAX;
        has_room && open.texts.insert(id)
    }

    /// Answers words of the peer. Whether they were waiting for that.
    pub(crate) fn answer_text(&self, id: TransferId, answer: Message) -> bool {
        let mut open = self.open();
        let was_waiting = id.side() != self.side && open.texts.remove(&id);
        if was_waiting {
            self.connection.say(answer);
        }
        was_waiting
    }

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
        have: &BTreeMap<u32, u32>,
    ) -> Result<(Incoming, Feeds), ExchangeError> {
        let id = transfer.id;
        let mut open = self.open();
        let Some(OpenIncoming::Offered { manifest, held, .. }) = open.incoming.get_mut(&id) else {
            return Err(ExchangeError::UnknownTransfer);
        };
        let manifest = Arc::clone(manifest);
        let EarlyData {
            machine,
            work: held,
            chunk_bytes,
        } = EarlyData::accepted(held.take(), selection, have);
        transfer.select(selection);
        transfer.progress.add_bytes(chunk_bytes);
        // What comes along is compared when it is here.
        let said = Some(have).filter(|_| !machine.is_early());
        let (work, waiting_work) = mpsc::channel(WORK);
        let (digests, waiting_digests) = mpsc::channel(DIGESTS);
        let receiving = OpenIncoming::Receiving {
            transfer: Arc::clone(&transfer),
            manifest,
            work: Some(work).filter(|_| !machine.is_complete()),
            digests: Some(digests).filter(|_| !machine.is_complete()),
            machine,
        };
        open.incoming.insert(id, receiving);
        self.say_accept(id, selection, said);
        let shared = Arc::clone(self);
        let incoming = Incoming {
            transfer,
            selection: Arc::clone(selection),
            shared,
        };
        let feeds = Feeds {
            held,
            work: waiting_work,
            digests: waiting_digests,
        };
        Ok((incoming, feeds))
    }

    fn say_accept(
        &self,
        transfer: TransferId,
        selection: &Selection,
        have: Option<&BTreeMap<u32, u32>>,
    ) {
        for page in runs(selection.skipped().iter().copied()).chunks(PAGE) {
            self.connection.say(Message::Skip {
                transfer,
                entries: page.to_vec(),
            });
        }
        let files = have.into_iter().flatten().map(|(&e, &chunks)| (e, chunks));
        for page in files.collect::<Vec<_>>().chunks(PAGE) {
            self.connection.say(Message::Have {
                transfer,
                files: page.to_vec(),
            });
        }
        self.connection.say(Message::Accept { transfer });
    }

    /// What the bytes of the next chunk count for from the first on.
    pub(crate) fn counting(&self, id: TransferId) -> Option<Arc<Transfer>> {
        match self.open().incoming.get(&id) {
            Some(OpenIncoming::Receiving {
                transfer, machine, ..
            }) if !machine.drops_next() => Some(Arc::clone(transfer)),
            _ => None,
        }
    }

    /// Bytes of what comes ahead of the answer are here. They count once the
    /// offer is taken, if they are wanted then.
    pub(crate) fn came_ahead(&self, id: TransferId, bytes: u64) {
        match self.open().incoming.get_mut(&id) {
            Some(OpenIncoming::Offered {
                held: Some(held), ..
            }) => held.chunk_bytes += bytes,
            Some(OpenIncoming::Receiving {
                transfer, machine, ..
            }) if !machine.drops_next() => transfer.progress.add_bytes(bytes),
            _ => {}
        }
    }

    /// Ends an accepted transfer early: its pipeline gets no more, and ends.
    pub(crate) fn stop_receiving(&self, id: TransferId, reason: TransferError) {
        if let Some(receiving) = self.open().incoming.get_mut(&id) {
            receiving.stop(reason);
        }
    }

    /// The comparison of what an earlier attempt has left goes on.
    pub(crate) fn compared(
        &self,
        id: TransferId,
        entry: u32,
        chunks: u32,
        differing: &[(u32, u32)],
    ) {
        if let Some(OpenIncoming::Receiving { machine, .. }) = self.open().incoming.get_mut(&id) {
            machine.compared(entry, chunks, differing);
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

    /// Takes out a transfer whose pipeline has ended.
    pub(crate) fn remove_received(&self, id: TransferId) {
        self.open().incoming.remove(&id);
        self.landed.notify_one();
    }

    /// A transfer of either direction.
    pub(crate) fn transfer(&self, id: TransferId) -> Option<Arc<Transfer>> {
        let open = self.open();
        match (open.outgoing.get(&id), open.incoming.get(&id)) {
            (Some(outgoing), _) => Some(Arc::clone(&outgoing.transfer)),
            (_, Some(OpenIncoming::Receiving { transfer, .. })) => Some(Arc::clone(transfer)),
            _ => None,
        }
    }

    /// A transfer of either direction, once the offer was taken.
    pub(crate) fn accepted_transfer(&self, id: TransferId) -> Option<Arc<Transfer>> {
        let open = self.open();
        let outgoing = open.outgoing.get(&id);
        let is_accepted = outgoing.is_none_or(|it| it.machine.is_accepted());
        drop(open);
        self.transfer(id).filter(|_| is_accepted)
    }
}

/// Rising numbers as runs: the first of each and how many.
pub(crate) fn runs(numbers: impl IntoIterator<Item = u32>) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((first, count)) if *first + *count == number => *count += 1,
            _ => runs.push((number, 1)),
        }
    }
    runs
}
