//! Connecting to one peer: the agent decides, the driver does.

mod driver;
mod punch_port;
mod sockets;

use std::io;
use std::sync::Arc;

use pinhole_proto::agent::PathPolicy;
use pinhole_proto::key::PeerKey;
use pinhole_proto::name::PeerName;
use pinhole_proto::rendezvous::{
    HostSharing, IntroductionFailure, IntroductionId, PeerIdentity, RefuseReason, Role,
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

pub(crate) use punch_port::{Observing, WarmPort};

use crate::proxy::{Proxy, ProxyError};
use crate::rendezvous::Rendezvous;
use crate::report::Report;
use crate::session::{LiveSession, Session};

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The connection to the server ended before the two sides were introduced.
    #[error("the connection to the server is gone")]
    Disconnected,
    /// The server could not introduce the two sides.
    #[error("{0}")]
    Introduction(IntroductionFailure),
    /// The server did not answer in time.
    #[error("the server did not answer")]
    ServerSilent,
    /// The peer has another key than the one expected.
    #[error("{peer} has another key than expected: it may be somebody else")]
    WrongPeerKey {
        /// The name.
        peer: PeerName,
        /// The key it should have.
        expected: PeerKey,
        /// The key that the server says it has, when the server said so;
        /// `None` when the server named the right key and only the other end
        /// of the connection did not hold it.
        found: Option<PeerKey>,
    },
    /// The peer has proven its key and turned us down.
    #[error("{peer} refused to connect: {}", IntroductionFailure::from(*.reason))]
    Refused {
        /// The name.
        peer: PeerName,
        /// Why, as it says.
        reason: RefuseReason,
    },
    /// The peer has proven its key, but goes by another name.
    #[error("what was announced as {peer} calls itself {said}")]
    OtherName {
        /// The name announced.
        peer: PeerName,
        /// The name that the holder of the key gives itself.
        said: PeerName,
    },
    /// Nothing that was tried led to the peer.
    #[error("no path to {peer}: {report}")]
    NoPath {
        /// The name.
        peer: PeerName,
        /// What was tried, and what each answered.
        report: Report,
    },
    /// The proxy, which is the way to the relay, does not lead there, and nothing else
    /// that was tried led to the peer.
    #[error("the proxy {proxy}: {error}")]
    Proxy {
        /// The proxy.
        proxy: Proxy,
        /// What stood in the way.
        error: ProxyError,
    },
    /// No local port could be had.
    #[error("no local port to connect from: {0}")]
    LocalPort(io::Error),
    /// Too many attempts at a time.
    #[error("too many connections are being made at the same time")]
    Busy,
    /// The system gave no random bytes.
    #[error("the system's random number generator failed")]
    Random,
}

/// The session that is wanted.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) introduction: IntroductionId,
    pub(crate) role: Role,
    pub(crate) peer: PeerIdentity,
    pub(crate) share_host: HostSharing,
    /// Which paths this attempt may take. Only the relay: then nothing of it tells
    /// the other side where this one is.
    pub(crate) policy: PathPolicy,
    /// There is one already, and this attempt looks for a better path.
    pub(crate) improve: Option<(Arc<LiveSession>, OwnedSemaphorePermit)>,
}

/// What became of an invitation that was taken up.
#[derive(Debug)]
pub enum Accepted {
    /// A new session.
    Session(Session),
    /// A session that was up before has moved to a better path.
    Moved,
}

/// Connects, through as many rounds as it takes, and goes on looking for a
/// better path when there is a session. Ends with the last of its callers and
/// of the session.
pub(crate) async fn run(rendezvous: &Rendezvous, wanted: Wanted) -> Result<Accepted, ConnectError> {
    let inbox = rendezvous.register(&wanted)?;
    let (result, outcome) = oneshot::channel();
    let driver = driver::Driver::new(rendezvous.clone(), wanted, inbox, result);
    tokio::spawn(driver.run());
    outcome.await.unwrap_or(Err(ConnectError::Disconnected))
}
