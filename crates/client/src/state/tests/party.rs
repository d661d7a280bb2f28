//! One person: a state, what it has stored, its disk, and what it was seen to do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;

use pinhole_net::{CodeNumber, PeerIdentity, PeerKey, PeerName};

use super::link::Millis;
use crate::event::Event;
use crate::model::TransferId;
use crate::state::{Carrier, ConnectionId, Introduced, State, Stores};
use crate::store::{AcceptPolicy, Contacts, Invitations, Overrides, Queued, Settings};

/// A transfer that the person who started it may expect something of.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    pub(super) started: u32,
    pub(super) finished: u32,
    pub(super) is_complete: bool,
    /// Somebody has ended it, or has been away.
    pub(super) is_excused: bool,
}

/// What holds the files of a transfer that is received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) transfer: TransferId,
    pub(super) link: usize,
}

pub(super) struct Party {
    pub(super) state: State,
    pub(super) identity: PeerIdentity,
    /// Counts restarts.
    pub(super) incarnation: u32,
    pub(super) is_network_up: bool,
    /// The connection with which the server knows it.
    pub(super) on_server: Option<ConnectionId>,
    /// Whom the server is to tell it about.
    pub(super) watched: BTreeSet<PeerName>,
    pub(super) has_aside: bool,
    /// The number under which the server has it be found.
    pub(super) code: Option<CodeNumber>,
    pub(super) settings: Settings,
    contacts: Contacts,
    invitations: Invitations,
    queue: Vec<Queued>,
    pub(super) seen: BTreeMap<TransferId, Seen>,
    /// Offers that the user has said yes to, or a setting.
    pub(super) yeses: BTreeMap<usize, u32>,
    pub(super) deliveries: BTreeMap<usize, u32>,
    /// Parts of files that have arrived, and were not delivered yet.
    pub(super) partial: BTreeMap<usize, u64>,
    pub(super) holders: BTreeMap<usize, Holder>,
    /// Of which transfers all parts were sent.
    pub(super) sent: BTreeSet<TransferId>,
    pub(super) listed: BTreeMap<TransferId, usize>,
    pub(super) prepared: BTreeMap<TransferId, Carrier>,
    /// What the user has said yes to.
    pub(super) accepted: BTreeSet<TransferId>,
    begun: BTreeSet<TransferId>,
    pub(super) is_sampling: bool,
    /// What it was told of links and codes.
    pub(super) met: Vec<Event>,
}

impl Party {
    pub(super) fn new(identity: PeerIdentity, settings: Settings, now: Instant) -> Self {
        let stores = Stores {
            settings: settings.clone(),
            overrides: Overrides::default(),
            contacts: Contacts::default(),
            invitations: Invitations::default(),
            queue: Vec::new(),
            default_folder: PathBuf::from("received"),
            key: identity.key,
        };
        let state = State::new(stores, now);
        Self {
            state,
            identity,
            incarnation: 0,
            is_network_up: true,
            on_server: None,
            watched: BTreeSet::new(),
            has_aside: false,
            code: None,
            settings,
            contacts: Contacts::default(),
            invitations: Invitations::default(),
            queue: Vec::new(),
            seen: BTreeMap::new(),
            yeses: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            partial: BTreeMap::new(),
            holders: BTreeMap::new(),
            sent: BTreeSet::new(),
            listed: BTreeMap::new(),
            prepared: BTreeMap::new(),
            accepted: BTreeSet::new(),
            begun: BTreeSet::new(),
            is_sampling: false,
            met: Vec::new(),
        }
    }

    /// The program is killed and started again.
    pub(super) fn restart(&mut self, now: Instant) {
        let stores = Stores {
            settings: self.settings.clone(),
            overrides: Overrides::default(),
            contacts: self.contacts.clone(),
            invitations: self.invitations.clone(),
            queue: self.queue.clone(),
            default_folder: PathBuf::from("received"),
            key: self.identity.key,
        };
        self.state = State::new(stores, now);
        self.incarnation += 1;
        self.on_server = None;
        self.has_aside = false;
        self.code = None;
        self.is_sampling = false;
        self.holders.clear();
        self.sent.clear();
        self.listed.clear();
        self.prepared.clear();
        self.accepted.clear();
        self.begun.clear();
        self.seen.clear();
    }

    pub(super) fn store_settings(&mut self) {
        self.settings = self.state.settings().clone();
    }

    pub(super) fn store_contacts(&mut self) {
        self.contacts = self.state.contacts().clone();
    }

    pub(super) fn store_invitations(&mut self) {
        self.invitations = self.state.invitations().clone();
    }

    pub(super) fn store_queue(&mut self, queue: Vec<Queued>) {
        self.queue = queue;
    }

    /// Files are received from now on: for the first time there must be a yes.
    pub(super) fn begin(&mut self, transfer: TransferId, content: usize) {
        if !self.begun.insert(transfer) {
            return;
        }
        let is_standing = self.settings.accept != AcceptPolicy::Ask;
        let is_yes = self.accepted.contains(&transfer) || is_standing;
        assert!(is_yes, "received without a yes");
        *self.yeses.entry(content).or_default() += 1;
    }

    pub(super) fn excuse(&mut self, id: TransferId) {
        self.seen.entry(id).or_default().is_excused = true;
    }

    pub(super) fn excuse_all(&mut self) {
        let all = self.state.snapshot(self.identity.key).transfers;
        for transfer in all.iter().filter(|transfer| !transfer.stage.is_final()) {
            self.excuse(transfer.id);
        }
    }

    /// Notes what the face is told of transfers.
    pub(super) fn note(&mut self, event: &Event) {
        let (id, change): (_, fn(&mut Seen)) = match event {
            Event::Started { transfer } => (*transfer, |seen| seen.started += 1),
            Event::Finished { transfer, failure } => (
                *transfer,
                match failure {
                    None => |seen| {
                        seen.finished += 1;
                        seen.is_complete = true;
                    },
                    Some(_) => |seen| seen.finished += 1,
                },
            ),
            Event::Joined { .. } | Event::Welcomed { .. } => return self.met.push(event.clone()),
            _ => return,
        };
        change(self.seen.entry(id).or_default());
    }
}

pub(super) fn identity(name: &str, number: u8) -> PeerIdentity {
    PeerIdentity {
        name: name.parse().expect("a name"),
        key: PeerKey::from_bytes([number; 32]),
    }
}

/// Somebody who wants to connect and shows nothing.
pub(super) fn introduced(peer: PeerIdentity) -> Introduced {
    Introduced {
        peer,
        is_new: true,
        evidence: None,
        at_s: 0,
    }
}

/// Which part of the virtual time is which.
pub(super) const TROUBLE_ENDS: Millis = 60_000;
pub(super) const END: Millis = 500_000;
