//! The whole of Pinhole without a face.
//!
//! A face (the desktop application, the command line) sends [`Command`]s,
//! receives [`Event`]s and draws the latest [`Snapshot`]. It uses nothing else
//! of Pinhole.
//!
//! | module | what it holds |
//! |---|---|
//! | [`client`] | starting the engine, and the handle a face holds |
//! | [`command`], [`event`], [`snapshot`], [`failure`] | the vocabulary between face and engine |
//! | `engine` | the one task that owns all state, by concern: login, nearby, sessions, transfers |
//! | `consent` | what may happen without asking, and what only after a yes |
//! | [`profile`], [`settings`], [`contacts`], [`history`], [`attempts`] | what survives a restart |

pub mod attempts;
pub mod client;
pub mod command;
mod consent;
pub mod contacts;
mod engine;
pub mod event;
pub mod failure;
pub mod history;
mod limits;
mod offer;
pub mod profile;
pub mod settings;
pub mod snapshot;

pub use attempts::Attempt;
pub use client::{Client, CommandError, Events, Options, StartError, start};
pub use command::Command;
pub use event::Event;
pub use failure::Failure;
pub use history::{HistoryEntry, Outcome};
pub use pinhole_budget::amount;
pub use pinhole_net::diagnosis::{self, Diagnosis, Finding, Tone};
pub use pinhole_net::{
    Fingerprint, Multicast, PathKind, PathPolicy, PeerIdentity, PeerKey, PeerName, ProxyChoice,
    ProxyTextError, ServerAddress, examine_multicast,
};
pub use pinhole_transfer::{
    Existing, Paused, Renamed,
    display::{display_lines, display_text, is_hidden},
    message::TEXT_BYTES_MAX,
};
pub use settings::{AcceptPolicy, Overrides, Settings, Strangers};
pub use snapshot::{
    Direction, LoginState, OfferView, PeerView, Progress, Snapshot, Stage, TopView, TransferId,
    TransferView,
};
