//! What a face asks of the engine.

use std::path::PathBuf;

use pinhole_net::{PeerKey, PeerName, ServerAddress};

use crate::settings::AcceptPolicy;
use crate::snapshot::TransferId;

/// What a face asks of the engine. None of them answers directly: what comes
/// of it shows in the events and the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Log in and stay logged in, reconnecting with backoff.
    LogIn {
        /// The unique name wanted.
        name: PeerName,
        /// Where the rendezvous server is.
        server: ServerAddress,
    },
    /// End the login and every transfer; back to the first screen.
    LogOut,
    /// Offer files and folders to a peer. For a contact that is not online they
    /// wait until it is.
    Send {
        /// To whom.
        peer: PeerKey,
        /// What: files and folders, each under its own last component.
        paths: Vec<PathBuf>,
    },
    /// Take an offer.
    Accept {
        /// In stage [`crate::Stage::AwaitingDecision`].
        transfer: TransferId,
        /// Where to; `None` for the download folder of the settings.
        into: Option<PathBuf>,
    },
    /// Turn an offer down.
    Decline {
        /// In stage [`crate::Stage::AwaitingDecision`].
        transfer: TransferId,
    },
    /// End a transfer that has not finished, in either direction.
    Cancel {
        /// Which.
        transfer: TransferId,
    },
    /// Offer what failed to be sent once more, in place of the failed transfer.
    Retry {
        /// One of ours in stage [`crate::Stage::Failed`].
        transfer: TransferId,
    },
    /// Take a finished transfer off the list.
    Dismiss {
        /// Which.
        transfer: TransferId,
    },
    /// Forget what was sent and received.
    ClearHistory,
    /// The user has made sure that a peer's changed key is right: pin the new one.
    TrustNewKey {
        /// The new key, as the roster shows it.
        peer: PeerKey,
    },
    /// Change and store where accepted files go.
    SetDownloadFolder {
        /// An existing folder.
        folder: PathBuf,
    },
    /// Change and store whose offers are taken without asking.
    SetAcceptPolicy {
        /// From now on.
        policy: AcceptPolicy,
    },
}
