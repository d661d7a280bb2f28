//! The control connection: who writes to it, who reads from it, and where
//! what arrives goes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use pinhole_budget::{Bounds, Budget, Owner, SubnetBounds, Taken, Ticket};
use pinhole_proto::candidate::Candidate;
use pinhole_proto::frame::Decoder;
use pinhole_proto::key::PeerKey;
use pinhole_proto::rendezvous::{
    ClientMessage, IntroductionFailure, IntroductionId, PeerIdentity, RefuseReason, RelayToken,
    ServerMessage,
};
use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tracing::debug;

use super::invitations::Invitations;
use super::wire::{self, WireError};
use super::{DisconnectReason, Invitation, RendezvousEvent};
use crate::known::KnownKeys;
use crate::session::LiveSessions;

/// The server pings every 25 s; a connection silent for longer is dead.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one message may take to be written.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most peers of one roster.
const MAX_ROSTER: usize = 100_000;
/// Attempts to connect at a time, in both directions. Those that this side begins
/// count as known: the user has asked for them.
const ATTEMPTS: Bounds = Bounds {
    total: 96,
    reserved: 32,
    per_key: 16,
    per_subnet: SubnetBounds::UNBOUNDED,
};
/// Messages that may wait for one attempt.
const INBOX_MESSAGES: usize = 8;

/// What the server says to one attempt to connect.
#[derive(Debug)]
pub(crate) enum AttemptMessage {
    /// Controlled side: the inviter asks for another round.
    Invited { round: u8 },
    /// Both sides are known to each other.
    Introduced {
        round: u8,
        peer: PeerIdentity,
        candidates: Vec<Candidate>,
        relay: Option<RelayToken>,
        start_in: Duration,
    },
    /// The introduction will not happen.
    Failed(IntroductionFailure),
}

/// The attempts in progress, each of which hears what concerns it.
#[derive(Debug, Clone)]
pub(crate) struct Attempts(Arc<Mutex<Table>>);

#[derive(Debug)]
struct Table {
    budget: Budget<PeerKey>,
    attempts: HashMap<IntroductionId, Attempt>,
}

#[derive(Debug)]
struct Attempt {
    peer: PeerKey,
    ticket: Ticket,
    messages: mpsc::Sender<AttemptMessage>,
}

impl Attempts {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Table {
            budget: Budget::new(ATTEMPTS),
            attempts: HashMap::new(),
        })))
    }

    /// Makes an attempt known until the inbox is dropped; `None` when there
    /// are too many. An attempt of the stranger with most of them may end for it.
    pub(crate) fn register(
        &self,
        id: IntroductionId,
        peer: PeerKey,
        is_known: bool,
    ) -> Option<Inbox> {
        let mut table = self.lock();
        if table.attempts.contains_key(&id) {
            return None;
        }
        let owner = Owner {
            key: Some(peer),
            address: None,
            is_known,
        };
        let Taken { ticket, evicted } = table.budget.take(owner, 1).ok()?;
        let gives_way = |_: &IntroductionId, one: &mut Attempt| evicted.contains(&one.ticket);
        for (id, ended) in table.attempts.extract_if(gives_way) {
            debug!(?id, "gives way to another attempt");
            // Should it not hear this, it hears that there is nothing more to come.
            let busy = AttemptMessage::Failed(IntroductionFailure::Busy);
            let _ = ended.messages.try_send(busy);
        }
        let (messages, receiver) = mpsc::channel(INBOX_MESSAGES);
        let attempt = Attempt {
            peer,
            ticket,
            messages,
        };
        table.attempts.insert(id, attempt);
        Some(Inbox {
            id,
            ticket,
            receiver,
            attempts: self.clone(),
        })
    }

    /// Passes a message on; `false` when there is no such attempt.
    fn pass_on(&self, id: IntroductionId, message: AttemptMessage) -> bool {
        let Some(attempt) = self.lock().attempts.get(&id).map(|it| it.messages.clone()) else {
            return false;
        };
        // Never more than a few are outstanding unless the server misbehaves.
        if let Err(error) = attempt.try_send(message) {
            debug!(?id, %error, "an attempt does not take its messages");
        }
        true
    }

    /// Whether this is an attempt with this peer. Whoever is invited does not draw
    /// the id, and could be shown one of somebody else's.
    fn is_with(&self, id: IntroductionId, peer: PeerKey) -> bool {
        let table = self.lock();
        table.attempts.get(&id).is_some_and(|it| it.peer == peer)
    }

    /// Nothing more will come for any of them.
    fn end(&self) {
        let mut table = self.lock();
        let Table { budget, attempts } = &mut *table;
        for (_, attempt) in attempts.drain() {
            budget.give_back(attempt.ticket);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock()
    }
}

/// What concerns one attempt arrives here.
#[derive(Debug)]
pub(crate) struct Inbox {
    id: IntroductionId,
    ticket: Ticket,
    receiver: mpsc::Receiver<AttemptMessage>,
    attempts: Attempts,
}

impl Inbox {
    /// The next message; `None` once the control connection is gone.
    pub(crate) async fn next(&mut self) -> Option<AttemptMessage> {
        self.receiver.recv().await
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let mut table = self.attempts.lock();
        table.budget.give_back(self.ticket);
        // One that has given way may have left its id to another.
        let is_own = |it: &Attempt| it.ticket == self.ticket;
        if table.attempts.get(&self.id).is_some_and(is_own) {
            table.attempts.remove(&self.id);
        }
    }
}

/// Writes what is queued until nobody can queue anything more.
pub(super) async fn write_all(
    mut stream: WriteHalf<TlsStream<TcpStream>>,
    mut queue: mpsc::Receiver<ClientMessage>,
) {
    while let Some(message) = queue.recv().await {
        let written = timeout(WRITE_TIMEOUT, wire::write_message(&mut stream, &message)).await;
        if !matches!(written, Ok(Ok(()))) {
            debug!(?written, "writing to the server failed");
            return;
        }
    }
    // Only a courtesy: the server notices the end anyway.
    let _ = timeout(WRITE_TIMEOUT, stream.shutdown()).await;
}

/// Reads the control connection and sends everything where it belongs.
pub(super) struct Reader {
    pub(super) stream: ReadHalf<TlsStream<TcpStream>>,
    pub(super) decoder: Decoder,
    /// Weak, so that the connection ends when nobody else uses it.
    pub(super) outgoing: mpsc::WeakSender<ClientMessage>,
    pub(super) events: mpsc::Sender<RendezvousEvent>,
    pub(super) attempts: Attempts,
    /// Ends together with the reader: whoever wants to send then shall know.
    pub(super) writer: AbortHandle,
    /// The pages of the roster that have arrived so far.
    pub(super) roster: Vec<PeerIdentity>,
    pub(super) invitations: Invitations,
    pub(super) known: KnownKeys,
    pub(super) sessions: LiveSessions,
    /// How many messages have come.
    pub(super) heard: watch::Sender<u64>,
    /// Nobody waits for the server any more.
    pub(super) given_up: Arc<Notify>,
}

impl Reader {
    /// Runs until the connection ends or nobody receives the events, and
    /// tells why it ended.
    pub(super) async fn run(mut self) {
        let (given_up, events) = (self.given_up.clone(), self.events.clone());
        let reason = loop {
            let step = tokio::select! {
                step = self.step() => step,
                () = given_up.notified() => break None,
                () = events.closed() => break None,
            };
            match step {
                Ok(Some(event)) => {
                    if self.events.send(event).await.is_err() {
                        break None;
                    }
                }
                Ok(None) => {}
                Err(reason) => break Some(reason),
            }
        };
        self.writer.abort();
        // Attempts in progress go on without the server as far as they can.
        self.attempts.end();
        if let Some(reason) = reason {
            let event = RendezvousEvent::Disconnected(reason);
            // Fails when nobody is left to be told.
            let _ = self.events.send(event).await;
        }
    }

    async fn step(&mut self) -> Result<Option<RendezvousEvent>, DisconnectReason> {
        let (stream, decoder) = (&mut self.stream, &mut self.decoder);
        let message = wire::read_message_within(SILENCE_TIMEOUT, stream, decoder).await?;
        self.heard.send_modify(|count| *count += 1);
        Ok(match message {
            ServerMessage::Pong { .. } => None,
            ServerMessage::Ping { nonce } => {
                self.say(ClientMessage::Pong { nonce });
                None
            }
            ServerMessage::Refused { reason } => return Err(DisconnectReason::Refused(reason)),
            ServerMessage::Roster { peers, more } => self.add_to_roster(peers, more)?,
            ServerMessage::Online { peer } => Some(RendezvousEvent::Online(peer)),
            ServerMessage::Offline { name } => Some(RendezvousEvent::Offline(name)),
            ServerMessage::Invitation {
                introduction,
                round,
                from,
            } => self.invited(introduction, round, from),
            ServerMessage::Introduced {
                introduction,
                round,
                peer,
                candidates,
                relay,
                start_in_ms,
                ..
            } => {
                let message = AttemptMessage::Introduced {
                    round,
                    peer,
                    candidates,
                    relay,
                    start_in: Duration::from_millis(start_in_ms.into()),
                };
                self.attempts.pass_on(introduction, message);
                None
            }
            ServerMessage::IntroductionFailed {
                introduction,
                reason,
            } => {
                let message = AttemptMessage::Failed(reason);
                self.attempts.pass_on(introduction, message);
                None
            }
            ServerMessage::RelayEnded { peer, reason } => {
                Some(RendezvousEvent::RelayEnded { peer, reason })
            }
            ServerMessage::LoggedIn { .. }
            | ServerMessage::Observed { .. }
            | ServerMessage::Probed { .. }
            | ServerMessage::RelayPaired => return Err(WireError::Unexpected.into()),
        })
    }

    fn invited(
        &mut self,
        introduction: IntroductionId,
        round: u8,
        from: PeerIdentity,
    ) -> Option<RendezvousEvent> {
        let invited = AttemptMessage::Invited { round };
        if self.attempts.is_with(introduction, from.key)
            && self.attempts.pass_on(introduction, invited)
        {
            return None;
        }
        let is_known = self.known.contains(from.key);
        if round == 1 && self.invitations.take(Instant::now(), from.key, is_known) {
            return Some(RendezvousEvent::Invitation(Invitation {
                introduction,
                from,
                sessions: self.sessions.clone(),
            }));
        }
        // Too many, or our side of this attempt is over: no need to let the other
        // one wait.
        let reason = RefuseReason::Busy;
        self.say(ClientMessage::Refuse {
            introduction,
            reason,
        });
        None
    }

    fn add_to_roster(
        &mut self,
        peers: Vec<PeerIdentity>,
        more: bool,
    ) -> Result<Option<RendezvousEvent>, DisconnectReason> {
        self.roster.extend(peers);
        if self.roster.len() > MAX_ROSTER {
            return Err(WireError::Unexpected.into());
        }
        let whole = (!more).then(|| std::mem::take(&mut self.roster));
        Ok(whole.map(RendezvousEvent::Roster))
    }

    fn say(&self, message: ClientMessage) {
        let Some(outgoing) = self.outgoing.upgrade() else {
            return;
        };
        // A full queue means that the connection is stuck: its end is near.
        if outgoing.try_send(message).is_err() {
            debug!("too much waits to be sent to the server");
        }
    }
}
