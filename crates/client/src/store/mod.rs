//! What survives a restart: the profile's folder, and what its files hold.

mod attempts;
mod contacts;
mod history;
mod holder;
mod invitations;
mod profile;
mod queue;
mod recovery;
mod settings;
mod writer;

pub use attempts::Attempt;
pub(crate) use attempts::{Attempts, Won};
pub use contacts::{Acquaintance, Contacts};
pub(crate) use history::History;
pub use history::{HistoryEntry, Outcome};
pub use holder::{FaceKind, Holder};
pub use invitations::Uses;
pub(crate) use invitations::{Invitations, UsedInvitation};
pub use profile::{Profile, ProfileError};
pub(crate) use profile::{SOCKET_FILE, create_identity};
pub(crate) use queue::Queued;
pub(crate) use recovery::Recovery;
pub use settings::{AcceptPolicy, Overrides, Settings, Strangers};
pub(crate) use writer::ProfileWriter;
