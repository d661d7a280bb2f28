//! The client of the rendezvous server: one logged-in control connection. It signals
//! and nothing else: who is online, who invites, and where both sides of an
//! introduction may be reached.

mod control;
mod introduction;
mod invitations;
mod login;
pub(crate) mod observe;
pub(crate) mod record_stream;
pub(crate) mod server;
pub(crate) mod wire;

use std::sync::Arc;
use std::time::Duration;

use pinhole_proto::credential::{CodeNumber, Credential};
use pinhole_proto::frame::Decoder;
use pinhole_proto::key::PeerKey;
use pinhole_proto::name::PeerName;
use pinhole_proto::recovery::KeyHistory;
use pinhole_proto::registry::WATCH_PAGE_NAMES;
pub use pinhole_proto::registry::WATCHED_NAMES;
use pinhole_proto::rendezvous::{
    ClientMessage, Directory, IntroductionId, PeerIdentity, Refusal, RefuseReason, Role,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;
use tokio_rustls::client::TlsStream;
use tracing::debug;

pub(crate) use introduction::{Introduction, IntroductionMessage, RelayOffer};
pub use login::{LogIn, LogInError, LoggedIn};
pub(crate) use login::{ProvenServer, ReachedServer};
pub use server::{Persistence, ServerConnectError};
pub use wire::WireError;

use crate::known::KnownKeys;
use control::Reader;
use introduction::Introductions;
use invitations::Invitations;
use server::Server;

/// Messages that may wait to be sent.
const OUTGOING_MESSAGES: usize = 128;
/// Events that may wait for the caller; beyond it, reading from the server stops.
const EVENTS: usize = 256;

/// What happens on the control connection.
#[derive(Debug)]
pub enum RendezvousEvent {
    /// Who is online. The first tells of everybody whom we are to know of, the later ones
    /// what has changed.
    Presence(Presence),
    /// A peer wants to connect. To be accepted or refused within seconds.
    Invitation(Invitation),
    /// What has become of a key that we know: an answer to [`Rendezvous::ask_history`], or
    /// unasked, of a name that we watch. Its statements are not checked.
    KeyHistory(Box<KeyHistory>),
    /// The server ends the relay to this peer; sessions over it break off.
    RelayEnded {
        /// The other side.
        peer: PeerKey,
        /// The limit that was reached.
        reason: Refusal,
    },
    /// Answers [`Rendezvous::open_code`].
    Code {
        /// The number under which we can be found, until [`RendezvousEvent::CodeEnded`],
        /// [`Rendezvous::close_code`] or the end of the connection; `None` when there is
        /// none to be had now.
        number: Option<CodeNumber>,
    },
    /// The server has ended our code: its time is up, or it has to make room.
    CodeEnded {
        /// Its number.
        number: CodeNumber,
    },
    /// Answers [`Rendezvous::find_code`].
    CodeFound {
        /// The number asked for.
        number: CodeNumber,
        /// Who has opened it, as the server says; `None` when nobody has.
        peer: Option<PeerIdentity>,
    },
    /// The end. Sessions live on; attempts to connect may.
    Disconnected(DisconnectReason),
}

/// Who of some people is online.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Whether the server lists everybody. Once it does not, only the names that are
    /// watched count; once it does again, everybody follows.
    pub directory: Directory,
    /// Who is online. We may be one of them.
    pub online: Vec<PeerIdentity>,
    /// Who is not.
    pub offline: Vec<PeerName>,
}

/// Why the control connection ended.
#[derive(Debug, thiserror::Error)]
pub enum DisconnectReason {
    /// The server ended it.
    #[error("{0}")]
    Refused(Refusal),
    /// It broke.
    #[error(transparent)]
    Lost(#[from] WireError),
}

/// A peer's wish to connect.
#[derive(Debug, Clone)]
pub struct Invitation {
    introduction: IntroductionId,
    from: PeerIdentity,
    credential: Option<Credential>,
}

impl Invitation {
    /// The inviter, as the server knows it. The session proves the key.
    #[must_use]
    pub const fn from(&self) -> &PeerIdentity {
        &self.from
    }

    /// What the inviter shows, to be let in. The server has not looked at it.
    #[must_use]
    pub const fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }

    const fn refusal(&self, reason: RefuseReason, credential: Option<Credential>) -> ClientMessage {
        ClientMessage::Refuse {
            introduction: self.introduction,
            reason,
            credential,
        }
    }
}

/// Why nothing could be signalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignalError {
    /// The connection to the server is gone.
    Disconnected,
    /// Too many introductions are under way.
    Busy,
    /// The system gave no random bytes.
    Random,
}

/// One logged-in control connection. Clones share it; it ends with the last
/// of them, or with the receiver of its events.
#[derive(Debug, Clone)]
pub struct Rendezvous {
    connection: Arc<ControlConnection>,
}

#[derive(Debug)]
struct ControlConnection {
    server: Arc<Server>,
    known: KnownKeys,
    outgoing: mpsc::Sender<ClientMessage>,
    introductions: Introductions,
    reader: AbortHandle,
    /// How many messages the server has sent.
    heard: watch::Receiver<u64>,
    given_up: Arc<Notify>,
    /// Between the login and its answer.
    round_trip: Duration,
}

impl Drop for ControlConnection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Rendezvous {
    /// Begins to read and write, once the login is answered.
    fn begin(
        server: Arc<Server>,
        stream: Box<TlsStream<TcpStream>>,
        decoder: Decoder,
        known: KnownKeys,
        round_trip: Duration,
    ) -> (Self, mpsc::Receiver<RendezvousEvent>) {
        let (events, events_receiver) = mpsc::channel(EVENTS);
        let (outgoing, queue) = mpsc::channel(OUTGOING_MESSAGES);
        let (read_half, write_half) = tokio::io::split(*stream);
        let introductions = Introductions::new();
        let (heard_by_reader, heard) = watch::channel(0);
        let given_up = Arc::new(Notify::new());
        let reader = Reader {
            stream: read_half,
            decoder,
            outgoing: outgoing.downgrade(),
            events,
            introductions: introductions.clone(),
            writer: tokio::spawn(control::write_all(write_half, queue)).abort_handle(),
            heard: heard_by_reader,
            presence: Presence {
                directory: Directory::Open,
                online: Vec::new(),
                offline: Vec::new(),
            },
            invitations: Invitations::new(),
            known: known.clone(),
            given_up: given_up.clone(),
        };
        let connection = Arc::new(ControlConnection {
            server,
            known,
            outgoing,
            introductions,
            reader: tokio::spawn(reader.run()).abort_handle(),
            heard,
            given_up,
            round_trip,
        });
        (Self { connection }, events_receiver)
    }

    /// Begins an introduction to a peer. It is invited with the first
    /// [`Introduction::ask`], and is shown the credential.
    pub(crate) fn introduce(
        &self,
        peer: PeerIdentity,
        credential: Option<Credential>,
    ) -> Result<Introduction, SignalError> {
        let introduction = self.register(introduction_id()?, Role::Controlling, peer)?;
        Ok(Introduction {
            credential,
            ..introduction
        })
    }

    /// Takes up an invitation. The peer is answered with the first
    /// [`Introduction::ask`].
    pub(crate) fn take_up(&self, invitation: &Invitation) -> Result<Introduction, SignalError> {
        let from = invitation.from.clone();
        self.register(invitation.introduction, Role::Controlled, from)
    }

    fn register(
        &self,
        id: IntroductionId,
        role: Role,
        peer: PeerIdentity,
    ) -> Result<Introduction, SignalError> {
        let is_known = role == Role::Controlling || self.connection.known.contains(peer.key);
        let introductions = &self.connection.introductions;
        let inbox = introductions.register(id, peer.key, is_known);
        Ok(Introduction {
            rendezvous: self.clone(),
            role,
            peer,
            credential: None,
            inbox: inbox.ok_or(SignalError::Busy)?,
        })
    }

    /// Turns an invitation down. Nothing happens when the connection to the
    /// server is gone: then the invitation is, too.
    pub async fn refuse(&self, invitation: Invitation, reason: RefuseReason) {
        let _ = self.say(invitation.refusal(reason, None)).await;
    }

    /// Answers the credential of an invitation with one of our own. The invitation itself
    /// is turned down with [`RefuseReason::Credential`]: the inviter may ask again.
    pub async fn answer_credential(&self, invitation: Invitation, credential: Credential) {
        let refusal = invitation.refusal(RefuseReason::Credential, Some(credential));
        let _ = self.say(refusal).await;
    }

    /// Asks to be told whether these names are online, now and at each change: at most
    /// [`WATCHED_NAMES`] with those of the login.
    pub fn watch(&self, names: &[PeerName]) {
        for names in names.chunks(WATCH_PAGE_NAMES) {
            let names = names.to_vec();
            self.say_at_once(ClientMessage::Watch { names });
        }
    }

    /// Takes a watch back.
    pub fn unwatch(&self, names: &[PeerName]) {
        for names in names.chunks(WATCH_PAGE_NAMES) {
            let names = names.to_vec();
            self.say_at_once(ClientMessage::Unwatch { names });
        }
    }

    /// Asks what has become of a key that we know under a name.
    pub fn ask_history(&self, peer: PeerIdentity) {
        let PeerIdentity { name, key } = peer;
        self.say_at_once(ClientMessage::KeyHistory { name, key });
    }

    /// Asks for a number under which everybody at the server can find us for ten minutes:
    /// [`RendezvousEvent::Code`]. Only for a server that says
    /// [`LoggedIn::codes`], and only without a code that is open, or it ends the connection.
    pub fn open_code(&self) {
        self.say_at_once(ClientMessage::OpenCode);
    }

    /// Nobody is to find us under our number any more. Does no harm without one.
    pub fn close_code(&self) {
        self.say_at_once(ClientMessage::CloseCode);
    }

    /// Asks who has opened the code with this number: [`RendezvousEvent::CodeFound`], within
    /// seconds when we have asked often. Only for a server that says [`LoggedIn::codes`],
    /// and only once the last question is answered, or it ends the connection.
    pub fn find_code(&self, number: CodeNumber) {
        self.say_at_once(ClientMessage::FindCode { number });
    }

    fn say_at_once(&self, message: ClientMessage) {
        // A full queue means that the connection is stuck: its end is near.
        if self.connection.outgoing.try_send(message).is_err() {
            debug!("too much waits to be sent to the server");
        }
    }

    /// Asks the server whether it is there, and returns when it says anything:
    /// true, or false when the connection is gone.
    pub async fn answers(&self) -> bool {
        let mut heard = self.connection.heard.clone();
        heard.mark_unchanged();
        let ping = ClientMessage::Ping { nonce: 0 };
        if self.connection.outgoing.try_send(ping).is_err() {
            return false;
        }
        heard.changed().await.is_ok()
    }

    /// How long the server took to answer the login: at least a round trip.
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        self.connection.round_trip
    }

    /// Ends the connection. Whoever waits for a word of the server is told that
    /// there will be none.
    pub fn give_up(&self) {
        self.connection.given_up.notify_one();
    }

    async fn say(&self, message: ClientMessage) -> Result<(), SignalError> {
        let sent = self.connection.outgoing.send(message).await;
        sent.map_err(|_| SignalError::Disconnected)
    }

    pub(crate) fn server(&self) -> &Arc<Server> {
        &self.connection.server
    }
}

fn introduction_id() -> Result<IntroductionId, SignalError> {
    let mut id = [0; IntroductionId::BYTES];
    let filled = SystemRandom::new().fill(&mut id);
    filled.map_err(|_| SignalError::Random)?;
    Ok(IntroductionId::from_random(id))
}
