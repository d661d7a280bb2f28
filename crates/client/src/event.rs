//! What the engine tells a face, once each, as it happens.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pinhole_net::diagnosis::Diagnosis;
use pinhole_net::{Fingerprint, PathKind, PeerIdentity, PeerName, ServerAddress};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::invitation::code::Code;
use crate::invitation::link::InvitationLink;
use crate::model::TransferId;
use crate::recovery_words::RecoveryWords;
use crate::stored_path;

/// Something that has happened. The [`crate::Snapshot`] holds the present state.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Event {
    /// Logged in, for the first time or again. The snapshot lists who is online.
    LoggedIn {
        /// Under this name.
        name: PeerName,
        /// The server, with the fingerprint of its key.
        server: ServerAddress,
        /// Our public address as the server sees it.
        observed: SocketAddr,
    },
    /// People nearby are looked for from now on.
    Nearby {
        /// The name we go by there.
        name: PeerName,
        /// The TCP port at which they can reach us, if they can find us, too.
        port: Option<u16>,
    },
    /// Logging in failed for a reason that trying again will not mend, or at the
    /// first attempt of a login that is not patient.
    LogInFailed {
        /// Why.
        failure: Failure,
    },
    /// The server cannot be reached or has closed the connection; the engine
    /// tries again by itself.
    Disconnected {
        /// Why.
        failure: Failure,
        /// When the next attempt begins.
        retry_in: Duration,
    },
    /// A session with a peer is up.
    Connected {
        /// Who.
        peer: PeerIdentity,
        /// Which way the bytes go.
        path: PathKind,
        /// Our address on that path.
        local: SocketAddr,
        /// The other end's (the relay server's, on a relayed path).
        remote: SocketAddr,
        /// From the request to the authenticated session.
        elapsed: Duration,
    },
    /// A session goes another way than before, or the story of its way has gone on.
    Moved {
        /// With whom.
        peer: PeerIdentity,
        /// Which way the bytes go now.
        path: PathKind,
        /// Our address on that path.
        local: SocketAddr,
        /// The other end's (the relay server's, on a relayed path).
        remote: SocketAddr,
    },
    /// Somebody wanted to connect under a name for which another key is pinned,
    /// and was not let in.
    KeyRefused {
        /// Who.
        peer: PeerIdentity,
        /// The fingerprint of the pinned key.
        known: Fingerprint,
        /// See [`crate::PeerView::released`].
        released: bool,
    },
    /// A person we know has a new key, and has signed that with the recovery key. It is
    /// pinned instead of the former one.
    KeySucceeded {
        /// Who, with the new key.
        peer: PeerIdentity,
        /// The fingerprint of the former one.
        was: Fingerprint,
    },
    /// A person we know has revoked a key.
    KeyRevoked {
        /// Who, with that key.
        peer: PeerIdentity,
    },
    /// What [`crate::Command::Invite`] has made.
    Invitation {
        /// To be passed on.
        link: InvitationLink,
    },
    /// We have joined somebody by a link or a code, and they are a contact.
    Joined {
        /// Whom.
        peer: PeerIdentity,
        /// They know of it. Otherwise they hear of it once both are online, if it was a
        /// link that says so, and ask their user as they do about any stranger if not.
        is_told: bool,
    },
    /// Somebody has joined us by a link or a code of ours, and is a contact.
    Welcomed {
        /// Who.
        peer: PeerIdentity,
        /// By the code that was open.
        is_by_code: bool,
    },
    /// A code of ours is open.
    Code {
        /// To be said to one person.
        code: Code,
    },
    /// Nobody can join by our code any more, and nobody has.
    CodeClosed {
        /// Why.
        failure: Failure,
    },
    /// What [`crate::Command::NewRecoveryKey`] has made. Nobody has them but who takes
    /// this event.
    RecoveryWords {
        /// To be shown once.
        words: RecoveryWords,
    },
    /// The server has noted what [`crate::Command::Revoke`] has signed.
    Revoked {
        /// The name whose key was revoked.
        name: PeerName,
    },
    /// A stranger wants to connect, and was told that it needs permission: it is in
    /// [`crate::Snapshot::asking`]. [`crate::Command::Allow`] lets it in when it tries
    /// again.
    Asked {
        /// Who.
        peer: PeerIdentity,
    },
    /// A peer offers something and the user has to decide: it waits in
    /// [`crate::Stage::AwaitingDecision`]. Of a stranger that may be words, too
    /// ([`crate::TransferView::is_text`]). What the accept policy takes begins
    /// with [`Event::Started`] instead.
    Offered {
        /// Which.
        transfer: TransferId,
    },
    /// A transfer has begun to move bytes.
    Started {
        /// Which.
        transfer: TransferId,
    },
    /// A few words may be shown: a peer that the user has chosen has sent them, or
    /// the user has accepted them. They stand in the snapshot.
    /// [`crate::Command::TextShown`] is to follow, and then [`Event::Finished`].
    TextReceived {
        /// Which.
        transfer: TransferId,
    },
    /// The other side has stopped a transfer for a while, or lets it go on.
    PausedByPeer {
        /// Which.
        transfer: TransferId,
        /// Whether it wants it to stop.
        paused: bool,
    },
    /// The connection of a transfer was lost. [`Event::Started`] follows when it
    /// goes on, [`Event::Finished`] when it does not.
    Reconnecting {
        /// Which.
        transfer: TransferId,
    },
    /// One file of a transfer failed; the others go on.
    FileFailed {
        /// In which transfer.
        transfer: TransferId,
        /// The path, safe to show.
        path: String,
        /// Why.
        failure: Failure,
    },
    /// A transfer has ended; the snapshot has the details until it is dismissed.
    Finished {
        /// Which.
        transfer: TransferId,
        /// `None` when everything is durable on the receiving side.
        failure: Option<Failure>,
    },
    /// What [`crate::Command::Diagnose`] has found.
    Diagnosed {
        /// All of it.
        diagnosis: Arc<Diagnosis>,
    },
    /// A command could not be carried out.
    CommandFailed {
        /// Why.
        failure: Failure,
    },
    /// What [`crate::Command::Raise`] asks for. Told only to the face in the engine's own
    /// process.
    Raised {
        /// Files and folders that somebody is to be chosen for, if any.
        #[serde(with = "stored_path::list")]
        paths: Vec<PathBuf>,
        /// An invitation that was opened.
        link: Option<String>,
    },
}

impl Event {
    /// Whether it is an answer that concerns nobody but the face that asked.
    pub(crate) const fn is_answer(&self) -> bool {
        matches!(
            self,
            Self::CommandFailed { .. }
                | Self::RecoveryWords { .. }
                | Self::Revoked { .. }
                | Self::Invitation { .. }
        )
    }
}
