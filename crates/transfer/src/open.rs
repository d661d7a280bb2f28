//! Which transfers are open, and everything that changes it: the application's
//! wishes come from [`crate::exchange`], the peer's words from
//! [`crate::reader`].

mod ending;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, mpsc};

use crate::{
    choices::Selection,
    event::{ExchangeError, ExchangeEvent, Summary, TransferError},
    exchange::TRANSFERS_MAX,
    flight::Flight,
    frame::DigestItem,
    incoming::{DIGESTS, Feeds, Incoming, WORK, Work},
    link::Link,
    manifest::{Manifest, ManifestBuilder},
    message::{Message, Side, TEXT_BYTES_MAX, TransferId},
    outgoing::{Answer, Departure, Outgoing, Sent},
    receiver::Receiver,
    sender::Sender,
    source::Source,
    violation::Violation,
};

/// Files, or runs of them, in one message that says what is there or not
/// wanted: it fits into a frame.
const PAGE: usize = 8192;

/// What the tasks and handles of an exchange share.
pub(crate) struct Shared {
    side: Side,
    pub(crate) link: Arc<Link>,
    /// An accepted transfer has ended, or the application was told of an end.
    landed: Notify,
    open: Mutex<Open>,
}

/// See the module.
pub(crate) struct Open {
    /// The exchange is over and opens nothing more.
    is_over: bool,
    /// The next id of this side; `None` when they are used up.
    next: Option<TransferId>,
    /// The last id the peer gave out.
    last_of_peer: Option<TransferId>,
    /// Words of this side that were not acknowledged yet.
    texts: BTreeSet<TransferId>,
    pub(crate) outgoing: HashMap<TransferId, OpenOutgoing>,
    pub(crate) incoming: HashMap<TransferId, OpenIncoming>,
    /// Ends of transfers for which the application's queue had no room yet.
    untold: usize,
}

pub(crate) struct OpenOutgoing {
    pub(crate) flight: Arc<Flight>,
    pub(crate) source: Arc<Source>,
    pub(crate) machine: Sender,
    /// Files the receiver does not want, or gave up.
    pub(crate) unwanted: Arc<Mutex<BTreeSet<u32>>>,
    /// What the receiver misses of what it seemed to have; `None` until files
    /// are sent.
    pub(crate) answers: Option<mpsc::UnboundedSender<Answer>>,
}

pub(crate) enum OpenIncoming {
    /// Entries are still coming.
    Announced {
        builder: ManifestBuilder,
        entries: u32,
        total_bytes: u64,
        comes_along: bool,
    },
    /// Not answered, or the answer is being prepared.
    Offered {
        manifest: Arc<Manifest>,
        is_preparing: bool,
        along: Option<Along>,
    },
    /// Accepted.
    Receiving {
        flight: Arc<Flight>,
        manifest: Arc<Manifest>,
        machine: Receiver,
        /// `None` once everything has come, or the transfer was stopped.
        work: Option<mpsc::Sender<Work>>,
        /// As `work`.
        digests: Option<mpsc::Sender<Vec<DigestItem>>>,
    },
}

/// Files that have come along with an offer and wait for the answer to it: no
/// more than the manifest allows, of which each comes once.
pub(crate) struct Along {
    pub(crate) machine: Receiver,
    pub(crate) held: Vec<Work>,
}

impl Along {
    pub(crate) fn new(manifest: Arc<Manifest>) -> Self {
        Self {
            machine: Receiver::along(manifest),
            held: Vec::new(),
        }
    }
}

impl OpenOutgoing {
    /// What sends its files, from now on.
    pub(crate) fn depart(&mut self, link: &Arc<Link>, have: BTreeMap<u32, u32>) -> Departure {
        let (answers, waiting) = mpsc::unbounded_channel();
        self.answers = Some(answers);
        let outgoing = Outgoing {
            flight: Arc::clone(&self.flight),
            source: Arc::clone(&self.source),
            link: Arc::clone(link),
            unwanted: Arc::clone(&self.unwanted),
            have,
            comes_along: self.machine.comes_along(),
        };
        (outgoing, waiting)
    }

    /// Hands the receiver's answer to the threads that send.
    pub(crate) fn answer(&self, answer: Answer) {
        if let Some(answers) = &self.answers {
            // They have ended when everything is sent.
            let _ = answers.send(answer);
        }
    }
}

impl OpenIncoming {
    /// Ends an accepted one early: its pipeline gets no more, and ends.
    fn stop(&mut self, reason: TransferError) {
        if let Self::Receiving {
            flight,
            work,
            digests,
            ..
        } = self
        {
            flight.stop(reason);
            *work = None;
            *digests = None;
        }
    }

    /// How many entries it has, or will have.
    pub(crate) fn entries(&self) -> u32 {
        match self {
            Self::Announced { entries, .. } => *entries,
            Self::Offered { manifest, .. } | Self::Receiving { manifest, .. } => manifest.count(),
        }
    }

    pub(crate) fn paths_bytes(&self) -> usize {
        match self {
            Self::Announced { builder, .. } => builder.paths_bytes(),
            Self::Offered { manifest, .. } | Self::Receiving { manifest, .. } => {
                manifest.paths_bytes()
            }
        }
    }
}

impl Open {
    /// An id for something new of this side.
    fn new_id(&mut self) -> Result<TransferId, ExchangeError> {
        if self.is_over {
            return Err(ExchangeError::Closed);
        }
        let id = self.next.ok_or(ExchangeError::TooManyTransfers)?;
        if self.outgoing.len() + self.texts.len() >= TRANSFERS_MAX {
            return Err(ExchangeError::TooManyTransfers);
        }
        self.next = id.next();
        Ok(id)
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

impl Shared {
    pub(crate) fn new(side: Side, link: Link) -> Self {
        Self {
            side,
            link: Arc::new(link),
            landed: Notify::new(),
            open: Mutex::new(Open {
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

    pub(crate) fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether files are under way in either direction.
    pub(crate) fn is_moving(&self) -> bool {
        let open = self.open();
        let is_sent = |one: &OpenOutgoing| one.machine.is_accepted();
        let receiving = |one: &OpenIncoming| matches!(one, OpenIncoming::Receiving { .. });
        open.outgoing.values().any(is_sent) || open.incoming.values().any(receiving)
    }

    /// Gives a source an id and announces it. Its files may depart at once if
    /// they come along.
    pub(crate) fn open_outgoing(
        &self,
        source: &Arc<Source>,
    ) -> Result<(Arc<Flight>, Option<Departure>), ExchangeError> {
        let mut open = self.open();
        let id = open.new_id()?;
        let manifest = source.manifest();
        let known = self.link.resources.known.clone();
        let flight = Arc::new(Flight::new(id, manifest, known));
        let along = manifest.fits_along();
        let mut outgoing = OpenOutgoing {
            flight: Arc::clone(&flight),
            source: Arc::clone(source),
            machine: Sender::new(Arc::clone(manifest), along),
            unwanted: Arc::default(),
            answers: None,
        };
        let departure = along.then(|| outgoing.depart(&self.link, BTreeMap::new()));
        open.outgoing.insert(id, outgoing);
        // Under the lock, so that ids reach the peer in rising order.
        self.link.say(Message::Offer {
            transfer: id,
            entries: manifest.count(),
            total_bytes: manifest.total_bytes(),
            along,
        });
        Ok((flight, departure))
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
        self.link.say(Message::Text { transfer, text });
        Ok(transfer)
    }

    /// The peer has these words of this side. Whether they were waiting for
    /// that.
    pub(crate) fn text_arrived(&self, id: TransferId) -> bool {
        self.open().texts.remove(&id)
    }

    /// What has become of a file that is on its way out.
    pub(crate) fn sent(&self, id: TransferId, sent: Sent) {
        let mut open = self.open();
        let Some(OpenOutgoing {
            flight,
            machine,
            source,
            ..
        }) = open.outgoing.get_mut(&id)
        else {
            return;
        };
        match sent {
            Sent::File(entry) => machine.sent(entry),
            Sent::Failed(entry, error) => {
                flight.add_failed(entry);
                let is_news = machine.failed(entry);
                let path = source
                    .manifest()
                    .entry(entry)
                    .map(|entry| entry.path().clone());
                drop(open);
                if let Some(path) = path.filter(|_| is_news) {
                    self.link
                        .emit_blocking(ExchangeEvent::FileFailed { id, path, error });
                }
            }
        }
    }

    /// Takes a transfer of this side out, complete.
    pub(crate) fn complete_outgoing(&self, id: TransferId) -> Option<Summary> {
        let outgoing = self.open().outgoing.remove(&id)?;
        let delivered = outgoing.machine.delivered();
        Some(Summary {
            files: delivered.files,
            folders: outgoing.source.manifest().folders(),
            bytes: delivered.bytes,
            digest: outgoing.flight.digest(),
            failed_files: outgoing.machine.failed_files(),
            skipped_files: outgoing.machine.skipped_files(),
            here_bytes: outgoing.flight.here_bytes(),
            resent_bytes: outgoing.flight.resent_bytes(),
            ..Summary::default()
        })
    }

    /// Holds an offer for the one who prepares to take it.
    pub(crate) fn begin_preparing(
        &self,
        id: TransferId,
    ) -> Result<(Arc<Manifest>, Arc<Flight>), ExchangeError> {
        match self.open().incoming.get_mut(&id) {
            Some(OpenIncoming::Offered {
                manifest,
                is_preparing: is_preparing @ false,
                ..
            }) => {
                *is_preparing = true;
                let known = self.link.resources.known.clone();
                let flight = Flight::new(id, manifest, known);
                Ok((Arc::clone(manifest), Arc::new(flight)))
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
        flight: Arc<Flight>,
        selection: &Arc<Selection>,
        have: &BTreeMap<u32, u32>,
    ) -> Result<(Incoming, Feeds), ExchangeError> {
        let id = flight.id;
        let mut open = self.open();
        let Some(OpenIncoming::Offered {
            manifest, along, ..
        }) = open.incoming.get_mut(&id)
        else {
            return Err(ExchangeError::UnknownTransfer);
        };
        let manifest = Arc::clone(manifest);
        let along = along.take();
        let comes_along = along.is_some();
        let (machine, held) = match along {
            Some(Along { machine, held }) => (machine, held),
            None => (Receiver::new(Arc::clone(selection), have), Vec::new()),
        };
        flight.select(selection);
        let (work, waiting_work) = mpsc::channel(WORK);
        let (digests, waiting_digests) = mpsc::channel(DIGESTS);
        let receiving = OpenIncoming::Receiving {
            flight: Arc::clone(&flight),
            manifest,
            work: Some(work).filter(|_| !machine.is_complete()),
            digests: Some(digests).filter(|_| !machine.is_complete()),
            machine,
        };
        open.incoming.insert(id, receiving);
        // What comes along is compared when it is here.
        let have = Some(have).filter(|_| !comes_along);
        self.say_accept(id, selection, have);
        let shared = Arc::clone(self);
        let incoming = Incoming {
            flight,
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
            self.link.say(Message::Skip {
                transfer,
                entries: page.to_vec(),
            });
        }
        let files = have.into_iter().flatten().map(|(&e, &chunks)| (e, chunks));
        for page in files.collect::<Vec<_>>().chunks(PAGE) {
            self.link.say(Message::Have {
                transfer,
                files: page.to_vec(),
            });
        }
        self.link.say(Message::Accept { transfer });
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
    pub(crate) fn remove_offer(&self, id: TransferId) -> Result<(), ExchangeError> {
        let mut open = self.open();
        match open.incoming.get(&id) {
            Some(OpenIncoming::Offered {
                is_preparing: false,
                ..
            }) => {
                open.incoming.remove(&id);
                Ok(())
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
    pub(crate) fn flight(&self, id: TransferId) -> Option<Arc<Flight>> {
        let open = self.open();
        match (open.outgoing.get(&id), open.incoming.get(&id)) {
            (Some(outgoing), _) => Some(Arc::clone(&outgoing.flight)),
            (_, Some(OpenIncoming::Receiving { flight, .. })) => Some(Arc::clone(flight)),
            _ => None,
        }
    }

    /// A transfer of either direction, once the offer was taken.
    pub(crate) fn accepted_flight(&self, id: TransferId) -> Option<Arc<Flight>> {
        let open = self.open();
        let outgoing = open.outgoing.get(&id);
        let is_accepted = outgoing.is_none_or(|it| it.machine.is_accepted());
        drop(open);
        self.flight(id).filter(|_| is_accepted)
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
