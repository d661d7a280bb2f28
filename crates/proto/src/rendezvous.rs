//! The messages between a client and the rendezvous server.
//!
//! A client keeps one **control** connection, on which it logs in and is
//! introduced to peers. Each punch port adds **observation** connections (one
//! to each server port) from which the server reads the port's public address.
//! A **relay** connection turns into a raw byte stream once both sides came.
//! All three are TLS 1.3 with the client's key, so each is authenticated; the
//! first message tells which of them a connection is.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};

use crate::candidate::Candidate;
use crate::credential::{CodeNumber, Credential};
use crate::key::PeerKey;
use crate::name::PeerName;
use crate::recovery::{KeyHistory, LoginRecovery, RecoveryCertificate};

/// The version a client names when it logs in.
pub const PROTOCOL_VERSION: u16 = 1;

/// The port of a server whose address does not name one.
pub const DEFAULT_PORT: u16 = 4747;

/// A 128-bit number, as lower-case base32 in text: unguessable when it was
/// drawn at random, which is the business of the side that makes it.
macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// How long it is.
            pub const BYTES: usize = $bytes;

            /// The value with these bytes, which the caller drew at random.
            #[must_use]
            pub const fn from_random(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = MalformedId;

            fn try_from(text: String) -> Result<Self, MalformedId> {
                let bytes = BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes());
                bytes.ok().and_then(|b| b.try_into().ok()).map(Self).ok_or(MalformedId)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                BASE32_NOPAD.encode(&id.0).to_ascii_lowercase()
            }
        }
    };
}

/// An id on the wire that is not base32 of the right length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed id")]
pub struct MalformedId;

random_id!(
    /// Names one introduction through all its rounds. Drawn by the inviter.
    IntroductionId, 16
);
random_id!(
    /// Lets the two sides of one introduction meet at the relay, once. A
    /// secret: never logged.
    RelayToken, 32
);
random_id!(
    /// What a probe says first, so that its receiver knows it for the one that
    /// it asked for. Drawn by the asker.
    ProbeToken, 16
);

random_id!(
    /// One process of a server that is several. Drawn at its start.
    NodeId, 16
);

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from(*self))
    }
}

impl fmt::Debug for IntroductionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from(*self))
    }
}

impl fmt::Debug for RelayToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RelayToken(..)")
    }
}

impl fmt::Debug for ProbeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProbeToken(..)")
    }
}

/// From where the server comes back to a client that asked for it, which shows
/// whom the NAT lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeOrigin {
    /// Another port of the address that the client has connected to.
    OtherPort,
    /// Another address.
    OtherAddress,
}

impl ProbeOrigin {
    /// All that a probe says.
    pub const HELLO_BYTES: usize = ProbeToken::BYTES + 1;

    /// What a probe from here says: the token, and which of the two it is.
    #[must_use]
    pub fn hello(self, token: ProbeToken) -> [u8; Self::HELLO_BYTES] {
        let mut hello = [0; Self::HELLO_BYTES];
        let (first, last) = hello.split_at_mut(ProbeToken::BYTES);
        first.copy_from_slice(token.as_bytes());
        last.fill(match self {
            Self::OtherPort => 1,
            Self::OtherAddress => 2,
        });
        hello
    }

    /// Which probe says this; `None` when it is not one that was asked for.
    #[must_use]
    pub fn of_hello(hello: &[u8; Self::HELLO_BYTES], token: ProbeToken) -> Option<Self> {
        let both = [Self::OtherPort, Self::OtherAddress];
        both.into_iter().find(|one| one.hello(token) == *hello)
    }
}

/// A name with the key it is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PeerIdentity {
    /// The unique name.
    pub name: PeerName,
    /// The key that registered it.
    pub key: PeerKey,
}

/// Whether the server tells everybody of everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Directory {
    /// Everybody who is online is listed.
    Open,
    /// A client is told of the names that it watches and of nobody else.
    Closed,
}

/// To whom the server may pass on a client's host candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostSharing {
    /// Only to a peer that is seen at the same public address, and so is most
    /// likely on the same network.
    SameNetwork,
    /// To this peer wherever it is: it is an accepted contact.
    Always,
}

/// One side's part of an introduction: where it may be reached, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reachability {
    /// At most [`Candidate::MAX_PER_SIDE`]; empty when only the relay may be used.
    pub candidates: Vec<Candidate>,
    /// What the server does with the host candidates among them.
    pub share_host: HostSharing,
    /// Whether this side is willing to use the relay.
    pub relay: bool,
}

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientMessage {
    /// First on a control connection.
    LogIn {
        /// [`PROTOCOL_VERSION`] of the client.
        version: u16,
        /// The name wanted; bound to the connection's key when it is free.
        name: PeerName,
        /// The names to watch from the beginning; as [`ClientMessage::Watch`].
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        watch: Vec<PeerName>,
        /// How the name outlives its key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recovery: Option<Box<LoginRecovery>>,
    },
    /// First on an observation connection; answered by [`ServerMessage::Observed`].
    Observe,
    /// First on a relay connection; answered by [`ServerMessage::RelayPaired`]
    /// once the other side is there too.
    Relay {
        /// From [`ServerMessage::Introduced`].
        token: RelayToken,
    },
    /// Second on an observation connection, once: asks the server to connect to
    /// the address from which this very connection comes. Answered by
    /// [`ServerMessage::Probed`].
    Probe {
        /// Drawn at random; each probe says it ([`ProbeOrigin::hello`]).
        token: ProbeToken,
    },
    /// Asks to be told whether these names are online, now and at each change: at most
    /// [`WATCH_PAGE_NAMES`](crate::registry::WATCH_PAGE_NAMES) in one message, and
    /// [`WATCHED_NAMES`](crate::registry::WATCHED_NAMES) in all.
    Watch {
        /// Whom.
        names: Vec<PeerName>,
    },
    /// Takes a [`ClientMessage::Watch`] back.
    Unwatch {
        /// Whom.
        names: Vec<PeerName>,
    },
    /// Asks what has become of a key that the sender knows under a name; answered by
    /// [`ServerMessage::KeyHistory`].
    KeyHistory {
        /// The name.
        name: PeerName,
        /// The key.
        key: PeerKey,
    },
    /// Asks to be introduced to a peer. The sender becomes the controlling side.
    Introduce {
        /// Drawn at random by the inviter; the same in every round.
        introduction: IntroductionId,
        /// 1 for the first, one more for each round on fresh ports.
        round: u8,
        /// Who is wanted.
        peer: PeerName,
        /// The inviter's side.
        reachability: Reachability,
        /// Passed on to the peer. One round's is enough.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credential: Option<Credential>,
    },
    /// Takes up an [`ServerMessage::Invitation`].
    Answer {
        /// From the invitation.
        introduction: IntroductionId,
        /// From the invitation.
        round: u8,
        /// The invited side.
        reachability: Reachability,
    },
    /// Turns an [`ServerMessage::Invitation`] down.
    Refuse {
        /// From the invitation.
        introduction: IntroductionId,
        /// Passed on to the inviter.
        reason: RefuseReason,
        /// Passed on to the inviter. It answers that of the invitation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credential: Option<Credential>,
    },
    /// Asks for a number under which everybody can find the sender with
    /// [`ClientMessage::FindCode`]; answered by [`ServerMessage::Code`]. One at a time.
    OpenCode,
    /// Nobody is to find the sender under its number any more.
    CloseCode,
    /// Asks who has opened a code; answered by [`ServerMessage::CodeFound`], if need be
    /// later. One at a time.
    FindCode {
        /// Its number.
        number: CodeNumber,
    },
    /// To be answered at once by [`ServerMessage::Pong`]: shows whether the
    /// connection still leads to the server.
    Ping {
        /// To be sent back.
        nonce: u64,
    },
    /// Answers [`ServerMessage::Ping`].
    Pong {
        /// From the ping.
        nonce: u64,
    },
}

/// Which side of an introduction a peer is: the inviter controls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Nominates: begins the TLS handshake on the connection it chooses.
    Controlling,
    /// Takes whichever connection the other side begins the handshake on.
    Controlled,
}

/// What the server says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage {
    /// The name is ours. [`ServerMessage::Presence`] pages follow.
    LoggedIn {
        /// The control connection's public address.
        observed: SocketAddr,
        /// Every port the server observes on, the one of this connection first.
        observer_ports: Vec<u16>,
        /// Whether the server offers a relay.
        relay: bool,
        /// Whether the server knows [`ClientMessage::OpenCode`] and
        /// [`ClientMessage::FindCode`]. Older servers do not say.
        #[serde(default)]
        codes: bool,
    },
    /// Answers a login that looks for it, before [`Refusal::NameTaken`].
    RecoveryCertificate(RecoveryCertificate),
    /// Answers [`ClientMessage::KeyHistory`]. Unasked, to whoever watches the name, when
    /// its key was revoked.
    KeyHistory(Box<KeyHistory>),
    /// The connection ends because of this.
    Refused {
        /// Why.
        reason: Refusal,
    },
    /// The public address from which this connection came.
    Observed {
        /// As the server sees it.
        address: SocketAddr,
        /// Another address of the server that listens on the same ports, if its
        /// operator has given it one: shows whether a mapping depends on the
        /// address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        other_address: Option<IpAddr>,
        /// Every port the server observes on, as in [`ServerMessage::LoggedIn`].
        /// Older servers do not say.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        observer_ports: Vec<u16>,
    },
    /// Answers a [`ClientMessage::Probe`] when the probes are over: whether each
    /// found somebody who answered. `None` is said of one that was not sent,
    /// because there is no other address, or because of a limit.
    Probed {
        /// See [`ProbeOrigin::OtherPort`].
        other_port: Option<bool>,
        /// See [`ProbeOrigin::OtherAddress`].
        other_address: Option<bool>,
    },
    /// Who is online: at first whom the receiver is to know of, in pages until `more` is
    /// false, and then what has changed.
    Presence {
        /// Whether everybody is listed. When it closes, the receiver forgets whom it
        /// does not watch; when it opens, everybody follows.
        directory: Directory,
        /// Who is online, with the key.
        online: Vec<PeerIdentity>,
        /// Who is not. A watched name that does not exist is one of them.
        offline: Vec<PeerName>,
        /// Whether another page follows.
        more: bool,
    },
    /// A peer wants to connect: prepare a port, then [`ClientMessage::Answer`].
    Invitation {
        /// Names the introduction.
        introduction: IntroductionId,
        /// See [`ClientMessage::Introduce`].
        round: u8,
        /// Who asks.
        from: PeerIdentity,
        /// What the inviter shows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credential: Option<Credential>,
    },
    /// Both sides are known to each other: begin.
    Introduced {
        /// Names the introduction.
        introduction: IntroductionId,
        /// See [`ClientMessage::Introduce`].
        round: u8,
        /// The other side. Its key is the one to expect in the TLS handshake.
        peer: PeerIdentity,
        /// The receiver's role.
        role: Role,
        /// Where the other side may be reached.
        candidates: Vec<Candidate>,
        /// Present when both sides are willing to use the relay.
        relay: Option<RelayToken>,
        /// Where the relay is, if it is another node of the server than the one to which
        /// the receiver is connected: at most
        /// [`RELAY_ADDRESSES`](crate::registry::RELAY_ADDRESSES). It has the same key.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        relay_addresses: Vec<SocketAddr>,
        /// How long to wait before the first dial, so that both sides begin
        /// at the same moment although their distances to the server differ.
        start_in_ms: u32,
    },
    /// The introduction will not happen.
    IntroductionFailed {
        /// Names the introduction.
        introduction: IntroductionId,
        /// Why.
        reason: IntroductionFailure,
        /// What the peer has answered to the inviter's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credential: Option<Credential>,
    },
    /// Answers [`ClientMessage::OpenCode`].
    Code {
        /// The receiver's, until [`ServerMessage::CodeEnded`] or
        /// [`ClientMessage::CloseCode`]; `None` when there is none to be had now.
        number: Option<CodeNumber>,
    },
    /// The receiver's code is over: its time is up, or it has to make room.
    CodeEnded {
        /// Its number.
        number: CodeNumber,
    },
    /// Answers [`ClientMessage::FindCode`].
    CodeFound {
        /// From the question.
        number: CodeNumber,
        /// Who has opened it, if anybody.
        peer: Option<PeerIdentity>,
    },
    /// Answers a [`ClientMessage::Ping`].
    Pong {
        /// From the ping.
        nonce: u64,
    },
    /// To be answered at once by [`ClientMessage::Pong`]; measures the round
    /// trip and keeps the NAT's mapping alive.
    Ping {
        /// To be returned.
        nonce: u64,
    },
    /// Both sides of the relay are here: what follows on this connection are
    /// the peer's bytes.
    RelayPaired,
    /// On both control connections: the server carries nothing more between
    /// the receiver and this peer, and closes their relay.
    RelayEnded {
        /// The other side.
        peer: PeerKey,
        /// [`Refusal::RelayBytes`], [`Refusal::RelayTime`] or [`Refusal::Limited`].
        reason: Refusal,
    },
}

/// Why the server ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The name is bound to another key.
    #[error("that name belongs to somebody else")]
    NameTaken,
    /// The same key has logged in from elsewhere; the newest login wins.
    #[error("this identity has logged in from another place")]
    Replaced,
    /// The key was revoked, or another one has taken its place.
    #[error(
        "this key was revoked, or a newer one has taken its place; with the recovery words and a \
         new profile the name can be had back"
    )]
    KeyRevoked,
    /// The client speaks another version.
    #[error("the server speaks another version of the protocol; update Pinhole")]
    Version,
    /// Too many connections, logins or new names of this address or this key
    /// for now.
    #[error(
        "too many connections or requests at the moment, from your network or in all; try again in a minute"
    )]
    Limited,
    /// The key has as many names as it may.
    #[error("you have as many names there as its operator allows; use one of them")]
    TooManyNames,
    /// Names that are registered work, but the server can register none.
    #[error(
        "the server cannot register new names at the moment; its operator can see why in its log. \
         Names that are registered already work"
    )]
    NoNewNames,
    /// The server cannot reach its database of names. People who are logged in stay so.
    #[error("the server cannot reach its database of names at the moment; Pinhole tries again")]
    Unavailable,
    /// The relay token is unknown, used, expired, or another key's.
    #[error("the relay does not know this token")]
    Token,
    /// The relay has carried a day's worth: of these two keys, or of the inviter and
    /// its network.
    #[error(
        "the server's relay has carried all that its operator allows the two of you in a day, or \
         everybody at the sender's address"
    )]
    RelayBytes,
    /// A relay has lasted as long as one may.
    #[error("the server's relay lasts no longer than its operator allows")]
    RelayTime,
    /// The server is going down; reconnect after a while.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The server could not read or write its registry.
    #[error("the server has an internal problem; its operator can see it in the log")]
    Internal,
}

/// Why an invitation is turned down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefuseReason {
    /// Another key is known under the inviter's name.
    KeyMismatch,
    /// The user has to allow it first, and is told that somebody asks.
    NeedsPermission,
    /// Too many invitations or sessions at the moment.
    Busy,
    /// Nobody is here for this inviter, who is told that the peer is offline.
    Unavailable,
    /// The credential is answered by another one; then the inviter may ask again.
    Credential,
    /// The credential belongs to no invitation that still holds.
    InvitationOver,
}

impl From<RefuseReason> for IntroductionFailure {
    fn from(reason: RefuseReason) -> Self {
        match reason {
            RefuseReason::KeyMismatch => Self::KeyMismatch,
            RefuseReason::NeedsPermission => Self::NeedsPermission,
            RefuseReason::Busy => Self::Busy,
            RefuseReason::Unavailable => Self::Offline,
            RefuseReason::Credential => Self::Credential,
            RefuseReason::InvitationOver => Self::InvitationOver,
        }
    }
}

/// Why two peers were not introduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum IntroductionFailure {
    /// Nobody of that name is online. Also said of a name that does not exist,
    /// so that names cannot be told from each other.
    #[error("nobody of that name is online")]
    Offline,
    /// The other side knows another key under the inviter's name.
    #[error("the other side knows another key under your name")]
    KeyMismatch,
    /// The other side's user has to allow the connection first, and has been told.
    #[error("the other side has to allow the connection first")]
    NeedsPermission,
    /// The other side has too much to do at the moment.
    #[error("the other side is busy; try again in a minute")]
    Busy,
    /// The other side did not answer in time.
    #[error("the other side did not answer")]
    TimedOut,
    /// Too many introductions in a short time.
    #[error("too many connection attempts; try again in a minute")]
    Limited,
    /// The other side has answered the credential with one of its own.
    #[error("the other side has checked the code and waits for the next step")]
    Credential,
    /// The other side knows no such invitation, or it is used or over.
    #[error("the invitation is used up, over, or unknown to the other side")]
    InvitationOver,
}
