//! What the registrar is told, and what it answers.

use std::net::IpAddr;
use std::sync::Arc;

use pinhole_proto::key::PeerKey;
use pinhole_proto::registry::{Inviter, LogIn, RelayId, SessionId};
use pinhole_proto::rendezvous::{ClientMessage, Refusal, RelayToken};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use crate::admission::ConnectionSlot;
use crate::backlog::{Backlog, QueuedFrame};

/// In a box, for each step of a connection would have room for one of its own.
pub(crate) type TlsStream = Box<tokio_rustls::server::TlsStream<TcpStream>>;

/// What connections and the storage tell the registrar.
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
    /// It has to make room for others.
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
}

/// What becomes of a relay connection.
#[derive(Debug)]
pub(crate) enum RelayDecision {
    Refused(Refusal),
    /// Takes the other side's connection and passes bytes between the two.
    First(oneshot::Receiver<RelayLeg>, Inviter),
    /// Gives its connection away.
    Second(oneshot::Sender<RelayLeg>),
}

/// A relay connection, one of the two of a pair.
#[derive(Debug)]
pub(crate) struct RelayLeg {
    pub(crate) stream: TlsStream,
    pub(crate) key: PeerKey,
    /// Counts against the inviter once it is known.
    pub(crate) connection: Arc<ConnectionSlot>,
}
