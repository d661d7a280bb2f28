//! Why there is no session.

use std::io;

use pinhole_proto::credential::Credential;
use pinhole_proto::key::PeerKey;
use pinhole_proto::name::PeerName;
use pinhole_proto::rendezvous::{IntroductionFailure, RefuseReason};

use crate::proxy::{Proxy, ProxyError};
use crate::rendezvous::SignalError;
use crate::report::Report;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The connection to the server ended before the two sides were introduced.
    #[error("the connection to the server is gone")]
    Disconnected,
    /// The server could not introduce the two sides.
    #[error("{reason}")]
    Introduction {
        /// Why.
        reason: IntroductionFailure,
        /// What the peer has answered to the credential that it was shown, with
        /// [`IntroductionFailure::Credential`].
        credential: Option<Credential>,
    },
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

impl From<IntroductionFailure> for ConnectError {
    fn from(reason: IntroductionFailure) -> Self {
        Self::Introduction {
            reason,
            credential: None,
        }
    }
}

impl From<SignalError> for ConnectError {
    fn from(error: SignalError) -> Self {
        match error {
            SignalError::Disconnected => Self::Disconnected,
            SignalError::Busy => Self::Busy,
            SignalError::Random => Self::Random,
        }
    }
}
