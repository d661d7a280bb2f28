//! What the state asks of the world: each effect is carried out once, in order.

use std::path::PathBuf;
use std::sync::Arc;

use pinhole_net::{
    CodeNumber, HostSharing, PathPolicy, PeerIdentity, PeerName, ServerAddress, Warmth,
};
use pinhole_transfer::{AcceptOptions, DeclineReason, Manifest, PipeInput, SafePath};

use super::ids::{Carrier, ConnectionId, Epoch, SessionId};
use crate::event::Event;
use crate::invitation::evidence::Evidence;
use crate::model::TransferId;
use crate::snapshot::TransferView;
use crate::store::Queued;

/// Something that the engine has to do.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Tell the faces.
    Emit(Event),
    /// Tell the face whose command is being handled.
    Answer(Event),
    /// Store what has changed of the profile.
    Store(Stored),
    /// Add a transfer that has ended to the history.
    Record(Box<TransferView>),
    Login(LoginEffect),
    /// Look for people nearby under this name.
    StartNearby {
        name: PeerName,
        announces: bool,
    },
    /// Say goodbye to people nearby.
    LeaveNearby,
    Session(SessionEffect),
    File(FileEffect),
    /// Do something with what a session carries.
    Exchange(Carrier, ExchangeEffect),
    /// Offer the files that were listed for a transfer.
    Offer {
        transfer: TransferId,
        session: SessionId,
    },
    /// Send a few words.
    SendText {
        transfer: TransferId,
        session: SessionId,
        text: Arc<str>,
    },
}

/// Parts of the profile.
#[derive(Debug)]
pub(crate) enum Stored {
    Settings,
    Contacts,
    Invitations,
    Queue(Vec<Queued>),
}

/// What the login asks for.
#[derive(Debug)]
pub(crate) enum LoginEffect {
    /// Connect to the server and ask for the name.
    LogIn {
        connection: ConnectionId,
        name: PeerName,
        server: ServerAddress,
        watch: Vec<PeerName>,
        effort: Effort,
    },
    /// Ask for the name over the connection that was made aside.
    LogInAside {
        connection: ConnectionId,
        name: PeerName,
        server: ServerAddress,
        watch: Vec<PeerName>,
    },
    /// Ask the server to tell whether these are online.
    Watch(Vec<PeerName>),
    /// Take that back.
    Unwatch(Vec<PeerName>),
    /// Ask the server for the number of a code.
    OpenCode,
    /// Have it forget that number.
    CloseCode,
    /// Ask it who has opened the code with this number.
    FindCode(CodeNumber),
    /// Ask the server what has become of a pinned key.
    AskHistory(PeerIdentity),
    /// Ask the server whether it is there.
    Ask(ConnectionId),
    /// Make another connection beside the present one.
    ConnectAside {
        connection: ConnectionId,
        name: PeerName,
        server: ServerAddress,
    },
    /// Keep a port ready for the next connection from now on, or none.
    SetWarmth(Warmth),
    /// The connection made aside is not needed.
    DropAside,
    /// End the connection to the server, which does not answer any more.
    GiveUp,
    /// End the login.
    End,
}

/// How hard a connection to the server is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// One attempt, as long as the system takes.
    Usual,
    /// Repeated attempts within a few seconds.
    Hasty,
}

/// What sessions ask for.
#[derive(Debug)]
pub(crate) enum SessionEffect {
    Connect {
        peer: PeerIdentity,
        epoch: Epoch,
        plan: ConnectPlan,
    },
    /// Look for a better path for a session.
    Improve {
        session: SessionId,
        sharing: HostSharing,
    },
    /// Close a session if nothing is open on it: `handle_unused` follows.
    CloseIfUnused(SessionId),
    /// Close a session.
    Close(SessionId),
    /// Close all that were closed last, and wait for it.
    AwaitClosed,
    /// The peer of a session counts as known from now on.
    SetKnown(SessionId),
}

/// How to reach a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConnectPlan {
    /// It was found on this network.
    pub(crate) is_nearby: bool,
    /// What it has to call itself there.
    pub(crate) name_to_prove: Option<PeerName>,
    /// Whether the server may introduce us, now or when it is back.
    pub(crate) through_server: bool,
    /// Whether the server says that the key has this name.
    pub(crate) is_vouched: bool,
    pub(crate) sharing: HostSharing,
    pub(crate) policy: PathPolicy,
    /// What is shown to the peer, through the server alone.
    pub(crate) evidence: Option<Evidence>,
}

/// What transfers ask of the disk.
#[derive(Debug)]
pub(crate) enum FileEffect {
    /// List the files to be sent: `handle_listed` follows.
    List {
        transfer: TransferId,
        paths: Vec<PathBuf>,
    },
    /// Make ready what comes out of a pipe: `handle_listed` follows.
    Stream {
        transfer: TransferId,
        name: SafePath,
        input: PipeInput,
    },
    /// Find out which names of an offer are taken: `handle_taken_names` follows.
    FindTakenNames {
        transfer: TransferId,
        offer: Arc<Manifest>,
    },
    /// Make the disk ready for an accepted offer: `handle_prepared` follows.
    Prepare {
        transfer: TransferId,
        carrier: Carrier,
        folder: PathBuf,
        options: AcceptOptions,
    },
    /// Begin to receive into what was prepared: `handle_begun` or `handle_let_go`
    /// follows.
    Begin { transfer: TransferId },
    /// Put away what was prepared in vain: `handle_let_go` follows.
    PutAway {
        transfer: TransferId,
        what_arrived: Arrived,
    },
    /// Remove unfinished files that nobody uses.
    Discard(PartialTransfer),
    /// Nothing more comes of a transfer: forget what was kept for its attempts.
    Release { transfer: TransferId },
}

/// What becomes of what has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrived {
    Kept,
    Removed,
}

/// Unfinished files, and where they are.
#[derive(Debug)]
pub(crate) struct PartialTransfer {
    pub(crate) offer: Arc<Manifest>,
    pub(crate) folder: PathBuf,
    pub(crate) options: AcceptOptions,
    pub(crate) owner: [u8; 32],
}

/// What is done with something that a session carries. It may have ended meanwhile;
/// then there is nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExchangeEffect {
    Decline(DeclineReason),
    Cancel,
    Interrupt,
    /// It goes on over another connection.
    Leave,
    Pause,
    Unpause,
    /// All of it is here already.
    Acknowledge,
    /// The words have been shown.
    TakeText,
}
