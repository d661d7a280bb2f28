//! Pinhole's protocol, without I/O.
//!
//! Everything here is a pure function of its inputs: no sockets, no clock, no
//! randomness, no files. Time comes in as a parameter, effects go out as
//! values, so two parties and the network between them can be simulated in a
//! single thread (see the tests of [`agent`]).
//!
//! | module | what it holds |
//! |---|---|
//! | [`name`], [`key`] | who a peer is: `PeerName`, `PeerKey`, `Fingerprint` |
//! | [`credential`] | what people show each other who have not met: credentials, numbers of codes |
//! | [`recovery`] | how a name outlives its key: certificates, successions, revocations |
//! | [`tls`] | TLS 1.3 with raw Ed25519 public keys (RFC 7250) for both kinds of connection |
//! | [`frame`] | length-prefixed frames and the bounded decoder |
//! | [`rendezvous`] | the messages between a client and the rendezvous server |
//! | [`node`] | the messages between the nodes of one server |
//! | [`candidate`] | addresses at which a peer may be reached, and which of them are refused |
//! | [`hello`] | what is said first on a connection between peers |
//! | [`agent`] | the connectivity agent: which address to dial when, which connection wins |
//! | [`registry`] | the server's state: names, presence, introductions, relay tokens |

pub mod agent;
pub mod candidate;
pub mod credential;
pub mod frame;
pub mod hello;
pub mod key;
pub mod name;
pub mod node;
pub mod recovery;
pub mod registry;
pub mod rendezvous;
pub mod tls;
