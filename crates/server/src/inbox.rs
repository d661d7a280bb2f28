//! The inputs of the registrar, and its decisions on relays.

use std::net::IpAddr;
use std::sync::Arc;

use pinhole_proto::key::PeerKey;
use pinhole_proto::name::PeerName;
use pinhole_proto::node::NodeMessage;
use pinhole_proto::recovery::{KeyHistory, RecoveryCertificate, Revocation};
use pinhole_proto::registry::{Inviter, LogIn, RelayId, SessionId};
use pinhole_proto::rendezvous::{ClientMessage, NodeId, Refusal, RelayToken};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use crate::admission::ConnectionSlot;
use crate::backlog::{Backlog, QueuedFrame, SharedFrame};
use crate::limits::NameLimits;
use crate::metrics::CountedConnection;

/// Boxed, because every step of a connection would otherwise reserve space for it.
pub(crate) type TlsStream = Box<tokio_rustls::server::TlsStream<TcpStream>>;

/// One link to another node, told from earlier ones of that node by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeLink {
    pub(crate) node: NodeId,
    pub(crate) number: u64,
}

/// What happens on a link.
#[derive(Debug)]
pub(crate) enum NodeEvent {
    Linked { outgoing: mpsc::Sender<SharedFrame> },
    Message(Box<NodeMessage>),
    Unlinked,
}

/// An input of the registrar, from a connection, another node or the name worker.
#[derive(Debug)]
pub(crate) enum RegistrarInput {
    LogIn {
        session: SessionId,
        log_in: LogIn,
        outgoing: mpsc::Sender<QueuedFrame>,
        backlog: Arc<Backlog>,
    },
    Claimed {
        session: SessionId,
        owner: Result<PeerKey, Refusal>,
    },
    Message {
        session: SessionId,
        message: ClientMessage,
    },
    /// Asks whether the names can be read.
    Health {
        reply: oneshot::Sender<bool>,
    },
    /// An operator changed how many names there may be, or for how long.
    NameLimits(NameLimits),
    Key(KeyNews),
    /// An operator changed names.
    NamesChanged,
    /// These sessions have lost their names.
    NamesLost {
        sessions: Vec<SessionId>,
    },
    /// Its connection or slot was evicted.
    Evicted {
        session: SessionId,
    },
    Disconnected {
        session: SessionId,
    },
    Observation {
        key: PeerKey,
        address: IpAddr,
    },
    ObservationEnded {
        key: PeerKey,
    },
    Relay {
        relay: RelayId,
        key: PeerKey,
        token: RelayToken,
        connection: Arc<ConnectionSlot>,
        verdict: oneshot::Sender<RelayDecision>,
    },
    RelayDisconnected {
        relay: RelayId,
    },
    RelayEnded {
        keys: [PeerKey; 2],
        reason: Refusal,
    },
    Node {
        link: NodeLink,
        event: NodeEvent,
    },
}

/// What the name worker has found out about keys, or done to them.
#[derive(Debug)]
pub(crate) enum KeyNews {
    /// A login has looked for the certificate of a name's key.
    Certificate {
        session: SessionId,
        certificate: Box<RecoveryCertificate>,
    },
    /// Another key has taken this one's place.
    Succeeded { key: PeerKey },
    /// The keys of these names were revoked.
    Revoked(Vec<(PeerName, Revocation)>),
    /// A session has asked about this key.
    History {
        session: SessionId,
        history: Box<KeyHistory>,
    },
}

/// The registrar's decision on a relay connection.
#[derive(Debug)]
pub(crate) enum RelayDecision {
    Refused(Refusal),
    /// Takes the peer's connection and passes bytes between the two.
    First(oneshot::Receiver<RelayLeg>, Inviter),
    /// Hands its connection to the peer's task.
    Second(oneshot::Sender<RelayLeg>),
}

/// A relay connection, one of the two of a pair.
#[derive(Debug)]
pub(crate) struct RelayLeg {
    pub(crate) stream: TlsStream,
    pub(crate) key: PeerKey,
    /// Counts against the inviter once it is known.
    pub(crate) connection: Arc<ConnectionSlot>,
    pub(crate) _counted: CountedConnection,
}
