//! The introductions under way, each of which gets what the server says of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use pinhole_budget::{Bounds, Budget, Owner, SubnetBounds, Taken, Ticket};
use pinhole_proto::candidate::Candidate;
use pinhole_proto::credential::Credential;
use pinhole_proto::key::PeerKey;
use pinhole_proto::rendezvous::{
    ClientMessage, IntroductionFailure, IntroductionId, PeerIdentity, Reachability, RelayToken,
    Role,
};
use tokio::sync::mpsc;
use tracing::debug;

use super::{Rendezvous, SignalError};

/// Introductions at a time, in both directions. Those that this side begins
/// count as known: the user has asked for them.
const INTRODUCTIONS: Bounds = Bounds {
    total: 96,
    reserved: 32,
    per_key: 16,
    per_subnet: SubnetBounds::UNBOUNDED,
};
/// Messages that may wait for one introduction.
const MESSAGES: usize = 8;

/// A relay at which both sides of one introduction can meet.
#[derive(Debug)]
pub(crate) struct RelayOffer {
    pub(crate) token: RelayToken,
    /// Where, if it is another node of the server than the one that we are logged in to.
    pub(crate) addresses: Vec<SocketAddr>,
}

/// What the server says of one introduction.
#[derive(Debug)]
pub(crate) enum IntroductionMessage {
    /// Controlled side: the inviter asks for another round.
    Invited { round: u8 },
    /// Both sides are known to each other.
    Introduced {
        round: u8,
        peer: PeerIdentity,
        candidates: Vec<Candidate>,
        relay: Option<RelayOffer>,
        start_in: Duration,
    },
    /// The introduction will not happen.
    Failed {
        reason: IntroductionFailure,
        /// What the peer has answered to ours.
        credential: Option<Credential>,
    },
}

/// The introductions under way on one control connection.
#[derive(Debug, Clone)]
pub(super) struct Introductions(Arc<Mutex<IntroductionTable>>);

#[derive(Debug)]
struct IntroductionTable {
    budget: Budget<PeerKey>,
    entries: HashMap<IntroductionId, Entry>,
}

#[derive(Debug)]
struct Entry {
    peer: PeerKey,
    ticket: Ticket,
    messages: mpsc::Sender<IntroductionMessage>,
}

impl Introductions {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(IntroductionTable {
            budget: Budget::new(INTRODUCTIONS),
            entries: HashMap::new(),
        })))
    }

    /// Takes messages for an introduction until the inbox is dropped; `None` when there
    /// are too many. An introduction of the stranger with most of them may end for it.
    pub(super) fn register(
        &self,
        id: IntroductionId,
        peer: PeerKey,
        is_known: bool,
    ) -> Option<Inbox> {
        let mut table = self.lock();
        if table.entries.contains_key(&id) {
            return None;
        }
        let owner = Owner {
            key: Some(peer),
            address: None,
            is_known,
        };
        let Taken { ticket, evicted } = table.budget.take(owner, 1).ok()?;
        let gives_way = |_: &IntroductionId, one: &mut Entry| evicted.contains(&one.ticket);
        for (id, ended) in table.entries.extract_if(gives_way) {
            debug!(?id, "gives way to another introduction");
            // Should it not hear this, it hears that there is nothing more to come.
            let busy = IntroductionMessage::Failed {
                reason: IntroductionFailure::Busy,
                credential: None,
            };
            let _ = ended.messages.try_send(busy);
        }
        let (messages, receiver) = mpsc::channel(MESSAGES);
        let entry = Entry {
            peer,
            ticket,
            messages,
        };
        table.entries.insert(id, entry);
        Some(Inbox {
            id,
            ticket,
            messages: receiver,
            introductions: self.clone(),
        })
    }

    /// Passes a message on; `false` when there is no such introduction.
    pub(super) fn pass_on(&self, id: IntroductionId, message: IntroductionMessage) -> bool {
        let Some(messages) = self.lock().entries.get(&id).map(|it| it.messages.clone()) else {
            return false;
        };
        // Only a few are outstanding unless the server misbehaves.
        if let Err(error) = messages.try_send(message) {
            debug!(?id, %error, "an introduction does not take its messages");
        }
        true
    }

    /// Whether this is an introduction to this peer. Whoever is invited does not draw
    /// the id, and could be shown one of somebody else's.
    pub(super) fn is_with(&self, id: IntroductionId, peer: PeerKey) -> bool {
        let table = self.lock();
        table.entries.get(&id).is_some_and(|it| it.peer == peer)
    }

    /// Nothing more will come for any of them.
    pub(super) fn end(&self) {
        let mut table = self.lock();
        let IntroductionTable { budget, entries } = &mut *table;
        for (_, entry) in entries.drain() {
            budget.give_back(entry.ticket);
        }
    }

    fn lock(&self) -> MutexGuard<'_, IntroductionTable> {
        self.0.lock()
    }
}

/// Where the messages of one introduction arrive.
#[derive(Debug)]
pub(super) struct Inbox {
    id: IntroductionId,
    ticket: Ticket,
    messages: mpsc::Receiver<IntroductionMessage>,
    introductions: Introductions,
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let mut table = self.introductions.lock();
        table.budget.give_back(self.ticket);
        // One that has given way may have left its id to another.
        let is_own = |it: &Entry| it.ticket == self.ticket;
        if table.entries.get(&self.id).is_some_and(is_own) {
            table.entries.remove(&self.id);
        }
    }
}

/// One introduction, until this is dropped. Keeps the control connection open.
#[derive(Debug)]
pub(crate) struct Introduction {
    pub(super) rendezvous: Rendezvous,
    pub(super) role: Role,
    pub(super) peer: PeerIdentity,
    /// What the peer is shown with the invitation.
    pub(super) credential: Option<Credential>,
    pub(super) inbox: Inbox,
}

impl Introduction {
    pub(crate) const fn id(&self) -> IntroductionId {
        self.inbox.id
    }

    pub(crate) const fn role(&self) -> Role {
        self.role
    }

    pub(crate) const fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    /// What the server says next; `None` once the control connection is gone.
    pub(crate) async fn next(&mut self) -> Option<IntroductionMessage> {
        self.inbox.messages.recv().await
    }

    /// Tells the server where this side may be reached in this round.
    pub(crate) async fn ask(
        &self,
        round: u8,
        reachability: Reachability,
    ) -> Result<(), SignalError> {
        let introduction = self.id();
        let message = match self.role {
            Role::Controlling => ClientMessage::Introduce {
                introduction,
                round,
                peer: self.peer.name.clone(),
                reachability,
                // Later rounds belong to an attempt that the peer has agreed to.
                credential: self.credential.clone().filter(|_| round == 1),
            },
            Role::Controlled => ClientMessage::Answer {
                introduction,
                round,
                reachability,
            },
        };
        self.rendezvous.say(message).await
    }
}
