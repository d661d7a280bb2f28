//! The application without a user interface.
//!
//! A *face* (the window, the command line) sends [`Command`]s, receives [`Event`]s and
//! draws the latest [`Snapshot`]. It uses nothing else of Pinhole.
//!
//! | module | what it holds |
//! |---|---|
//! | [`client`] | starting the engine, and the handle a face holds |
//! | [`command`], [`event`], [`snapshot`], [`failure`], [`model`] | the vocabulary between face and engine |
//! | `state` | what the application knows and wants, without I/O |
//! | `engine` | the one task that does what the state asks for |
//! | `recovery_words` | the words that bring a name back |
//! | `invitation` | links and codes, by which two meet for the first time |
//! | `consent` | what may happen without asking, and what only after a yes |
//! | [`store`] | what survives a restart |
//! | `local` | one profile, several faces |

pub mod client;
pub mod command;
mod consent;
mod engine;
pub mod event;
mod explain;
pub mod failure;
mod invitation;
mod limits;
mod local;
pub mod model;
mod offer;
mod recovery_words;
pub mod snapshot;
mod state;
pub mod store;
mod stored_path;

pub use client::{Client, CommandError, Events, Options, StartError, raise, start};
pub use command::Command;
pub use event::Event;
pub use failure::Failure;
pub use invitation::code::{Code, CodeError};
pub use invitation::link::{InvitationLink, LinkError};
pub use local::AttachError;
pub use model::{Completion, Direction, FaceId, Progress, Stage, TransferId};
pub use pinhole_budget::amount;
pub use pinhole_net::diagnosis::{self, Diagnosis, Finding, Tone};
pub use pinhole_net::{
    Directory, Fingerprint, Multicast, PathKind, PathPolicy, PeerIdentity, PeerKey, PeerName,
    PeerNameError, ProxyChoice, ProxyTextError, ServerAddress, examine_multicast,
};
pub use pinhole_transfer::{
    Existing, Paused, PipeInput, PipeOutput, Renamed, SafePath,
    display::{display_lines, display_text, is_hidden},
    message::TEXT_BYTES_MAX,
};
pub use recovery_words::{RecoveryWords, WordsError};
pub use snapshot::{
    LoginState, LookUpState, LookedUp, OfferView, PeerView, Snapshot, TopView, TransferView,
};
pub use store::{
    AcceptPolicy, Attempt, FaceKind, HistoryEntry, Holder, Outcome, Overrides, Settings, Strangers,
    Uses,
};
