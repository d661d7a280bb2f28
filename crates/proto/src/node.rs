//! The messages between the nodes of one server.
//!
//! A server may be several processes, its **nodes**, that share the server's key and its
//! table of names. Each pair of nodes has one link: TLS 1.3 on which both sides prove the
//! server's key ([`ALPN_NODE`](crate::tls::ALPN_NODE)). Each node tells the others which
//! people are logged in to it. Clients do not see these messages.
//!
//! ```text
//! node A                                node B
//!   │ Hello ──────────────────────────────► │
//!   │ ◄────────────────────────────── Hello │
//!   │ Fetch{after} ───────────────────────► │
//!   │ ◄────────── People{number, …, more}   │   until more is false
//!   │ ◄────────── Changes{number + 1, …}    │   whenever somebody comes, goes, or opens or closes a code
//!   │ Ping{nonce, number} ────────────────► │
//!   │ ◄──────────────────────── Pong{nonce} │
//! ```

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::candidate::Candidate;
use crate::credential::{CodeNumber, Credential};
use crate::key::PeerKey;
use crate::name::PeerName;
use crate::rendezvous::{
    IntroductionFailure, IntroductionId, PeerIdentity, Reachability, Refusal, RelayToken,
};

pub use crate::rendezvous::NodeId;

/// The version of the messages between nodes. Nodes of different versions do not link.
pub const NODE_VERSION: u16 = 1;

/// A person who is logged in to the sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePerson {
    /// The name.
    pub name: PeerName,
    /// The key that the name is bound to.
    pub key: PeerKey,
    /// Grows with each login of the name, so that the newest login wins on all nodes.
    pub login: u64,
    /// The number of the code that the person has opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<CodeNumber>,
}

/// The inviter of an introduction, as the node of the invited has to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInviter {
    /// Name and key.
    pub identity: PeerIdentity,
    /// Where its control connection comes from.
    pub observed: SocketAddr,
    /// Whether its key has had a name for long.
    pub is_known: bool,
    /// Milliseconds from the sender to the inviter and back, with those between the nodes
    /// added.
    pub rtt_ms: Option<u32>,
    /// What the sender believes of the inviter's own word.
    pub reachability: Reachability,
}

/// The inviter's node, as a relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRelay {
    /// Good for the inviter and the invited, once each.
    pub token: RelayToken,
    /// Where the invited reaches that node.
    pub addresses: Vec<SocketAddr>,
}

/// An invitation of somebody who is logged in to another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInvitation {
    /// Names the introduction.
    pub introduction: IntroductionId,
    /// See [`ClientMessage::Introduce`](crate::rendezvous::ClientMessage::Introduce).
    pub round: u8,
    /// Who invites.
    pub inviter: NodeInviter,
    /// Who is invited.
    pub invited: PeerIdentity,
    /// Present when the inviter is willing to use the sender as a relay.
    pub relay: Option<NodeRelay>,
    /// What the inviter shows the invited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
}

/// What one node says to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum NodeMessage {
    /// First on a link, in both directions.
    Hello {
        /// [`NODE_VERSION`] of the sender.
        version: u16,
        /// The sender.
        node: NodeId,
    },
    /// Asks for the people whose names follow `after`, in the order of the names.
    Fetch {
        /// The last name known; none to begin with the first.
        after: Option<PeerName>,
    },
    /// Answers [`NodeMessage::Fetch`]. Of the names after `after`, up to the last of
    /// `people`, or all if no more follow, these and no others are logged in.
    People {
        /// The number of the last change before.
        number: u64,
        /// From the request.
        after: Option<PeerName>,
        /// In the order of their names.
        people: Vec<NodePerson>,
        /// Whether others follow.
        more: bool,
    },
    /// Who has come, who has gone, and whose code has changed.
    Changes {
        /// One more than that of the change before.
        number: u64,
        /// Who has logged in, or has opened or closed a code.
        online: Vec<NodePerson>,
        /// Who is gone.
        offline: Vec<PeerName>,
    },
    /// To be answered at once.
    Ping {
        /// To be sent back.
        nonce: u64,
        /// The number of the last change.
        number: u64,
    },
    /// Answers [`NodeMessage::Ping`].
    Pong {
        /// From the ping.
        nonce: u64,
    },
    /// Invites somebody who is logged in to the receiver.
    Invite(NodeInvitation),
    /// The invited has answered, and knows what it has to know.
    Introduced {
        /// Names the introduction.
        introduction: IntroductionId,
        /// From the invitation.
        round: u8,
        /// The invited.
        invited: PeerIdentity,
        /// Where the inviter can reach it.
        candidates: Vec<Candidate>,
        /// Whether both sides are willing to use the relay.
        relay: bool,
        /// For the inviter; see
        /// [`ServerMessage::Introduced`](crate::rendezvous::ServerMessage::Introduced).
        start_in_ms: u32,
    },
    /// The introduction will not happen. Either side's node says so.
    IntroductionFailed {
        /// Names the introduction.
        introduction: IntroductionId,
        /// Why.
        reason: IntroductionFailure,
        /// What the invited has answered to the inviter's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credential: Option<Credential>,
    },
    /// The sender has ended a relay between these two keys.
    RelayEnded {
        /// Both sides.
        keys: [PeerKey; 2],
        /// Why.
        reason: Refusal,
    },
}
