//! Pinhole's network: from a name to an authenticated connection.
//!
//! [`Connector::log_in`] connects to the rendezvous server;
//! [`Connector::connect`] and [`Connector::accept`] turn a peer's name or
//! its invitation into a [`Session`]: one encrypted byte stream whose other
//! end has proven the key expected, over the best path there is.
//!
//! Every decision of the traversal is taken in `pinhole_proto::agent`, which
//! knows no sockets; what is here does as it is told.
//!
//! Each module uses only those below it:
//!
//! | module | what it holds |
//! |---|---|
//! | `doctor` | what the network does to connections, measured and explained |
//! | `nearby` | the LAN without a server: who announces itself there, and connecting to it |
//! | `connect` | connecting to a peer: the connector, the driver of the agent, the punch ports |
//! | `session` | mutual authentication, and the session that comes of it |
//! | `relay` | the way through the server when there is no direct one |
//! | `rendezvous` | the signalling: finding the server, login, presence, introductions |
//! | `port_mapping` | having the router open a punch port: PCP, NAT-PMP, `UPnP` |
//! | `candidates` | gathering: the addresses at which this side may be reached |
//! | `report` | what an attempt to connect has tried |
//! | `proxy` | the way out through an HTTP proxy |
//! | `dial` | finding a host and reaching one of its addresses |
//! | `network` | changes of this machine's networks |
//! | `known` | for whom something is kept free when strangers take the rest |
//! | [`socket`] | the local port that listens and connects at once; of use outside Pinhole |

mod candidates;
mod connect;
mod dial;
mod doctor;
mod identity;
mod known;
mod nearby;
mod network;
mod port_mapping;
mod proxy;
mod relay;
mod rendezvous;
mod report;
mod server_address;
mod session;
pub mod socket;

pub use connect::{Accepted, ConnectConfig, ConnectError, Connector, PendingLogin, Warmth};
pub use dial::Unreached;
pub use doctor::{Examination, diagnosis};
pub use identity::{GenerateIdentityError, generate_identity, random_entropy};
pub use known::KnownKeys;
pub use nearby::{Multicast, Nearby, NearbyConfig, NearbyEvent, Visitor, examine_multicast};
pub use network::{NetworkWatch, is_own_address};
pub use port_mapping::{PortMapper, PortMapping};
pub use proxy::{Proxy, ProxyChoice, ProxyError, ProxyTextError};
pub use rendezvous::{
    DisconnectReason, Invitation, LogIn, LogInError, LoggedIn, Persistence, Presence, Rendezvous,
    RendezvousEvent, ServerConnectError, WATCHED_NAMES, WireError,
};
pub use report::{Answer, MappingBehaviour, PathAttempt, Report, Tried};
pub use server_address::{ServerAddress, ServerAddressError};
pub use session::{
    LiveSessions, Session, SessionHandle, SessionPath, SessionReader, SessionStream, SessionWriter,
};

pub use pinhole_proto::agent::{PathKind, PathPolicy};
pub use pinhole_proto::credential::{CodeNumber, CodeNumberError, Credential, CredentialError};
pub use pinhole_proto::frame::FrameError;
pub use pinhole_proto::key::{Fingerprint, KeyTextError, PeerKey};
pub use pinhole_proto::name::{PeerName, PeerNameError};
pub use pinhole_proto::recovery::{
    InvalidStatement, KeyHistory, LoginRecovery, RecoveryCertificate, RecoveryKey, RecoveryRequest,
    Revocation, Succession,
};
pub use pinhole_proto::rendezvous::{
    Directory, HostSharing, IntroductionFailure, PeerIdentity, Refusal, RefuseReason,
};
pub use pinhole_proto::tls::{Expect, Identity, IdentityError};
