//! What a face asks of the engine.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use pinhole_net::{PeerKey, PeerName, ProxyChoice, ServerAddress};

use pinhole_transfer::{Existing, PipeInput, SafePath};
use serde::{Deserialize, Serialize};

use crate::invitation::code::Code;
use crate::invitation::link::InvitationLink;
use crate::model::TransferId;
use crate::recovery_words::RecoveryWords;
use crate::store::{AcceptPolicy, Strangers, Uses};
use crate::stored_path;

/// What a face asks of the engine. None of them answers directly: what comes
/// of it shows in the events and the snapshot. A command that fails is told to the face
/// that asked, most other events to all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Log in and stay logged in, reconnecting with backoff.
    LogIn {
        /// The unique name wanted.
        name: PeerName,
        /// Where the rendezvous server is.
        server: ServerAddress,
        /// Keep trying also while the first attempts fail. Otherwise the first
        /// decides.
        patient: bool,
    },
    /// Look for people nearby, with or without a server. Goes on until
    /// [`Command::LogOut`].
    GoNearby {
        /// The name to go by.
        name: PeerName,
        /// Whether to be found by them, too.
        announces: bool,
        /// There is no server, so the name is stored at once. A login stores it once the
        /// server has granted it.
        alone: bool,
    },
    /// Make a link that invites somebody: [`crate::Event::Invitation`]. Needs no login. Name
    /// and server are remembered if there were none.
    Invite {
        /// Our name, if it is another one than that of the login or the profile.
        name: Option<PeerName>,
        /// The server, likewise.
        server: Option<ServerAddress>,
        /// How often the link can be used.
        uses: Uses,
        /// For how long.
        lasts: Duration,
    },
    /// Join by a link: [`crate::Event::Joined`]. What stands in the way is told by
    /// [`crate::Event::CommandFailed`]. If the link names a server, a [`Command::LogIn`]
    /// with exactly that address comes before.
    Join {
        /// The link.
        link: InvitationLink,
    },
    /// Open a code that somebody else can join by, instead of another one if there is one:
    /// [`crate::Event::Code`], then [`crate::Event::Welcomed`] or
    /// [`crate::Event::CodeClosed`]. A [`Command::LogIn`] comes before.
    OpenCode,
    /// Have nobody join by the code any more.
    CloseCode,
    /// Join whoever has opened a code: [`crate::Event::Joined`]. What stands in the way is
    /// told by [`crate::Event::CommandFailed`]. A [`Command::LogIn`] comes before.
    JoinCode {
        /// The code.
        code: Code,
    },
    /// Make recovery words for our key, instead of others if there are some:
    /// [`crate::Event::RecoveryWords`]. The server hears of them at the next login.
    NewRecoveryKey,
    /// Take a name back whose key is lost, and log in: with a new key if this profile's is
    /// the lost one. What stands in the way is told by [`crate::Event::CommandFailed`],
    /// before the login.
    Recover {
        /// The name.
        name: PeerName,
        /// Where it was registered.
        server: ServerAddress,
        /// Its recovery words.
        words: RecoveryWords,
    },
    /// Have nobody believe the key of a name any more: [`crate::Event::Revoked`].
    Revoke {
        /// The name.
        name: PeerName,
        /// Where it was registered.
        server: ServerAddress,
        /// Its recovery words; `None` for a name of this profile.
        words: Option<RecoveryWords>,
    },
    /// End the login, nearby, and every transfer; back to the first screen.
    LogOut,
    /// Find out whether somebody is online, now and later on:
    /// [`crate::Snapshot::looked_up`]. Needed only where the server does not list
    /// everybody, and known before the login ([`crate::Event::LoggedIn`]) is told when it
    /// is asked for before it.
    LookUp {
        /// Whom.
        name: PeerName,
    },
    /// The user is there. Whoever gives a sign of life is likely to connect soon, so a
    /// port is kept ready for a minute, as after every other command.
    Attend {
        /// And it is kept ready until this is said again: the window is in front, or a
        /// command runs.
        stays: bool,
    },
    /// Offer files and folders to a peer. For a contact that is not online they
    /// wait until it is.
    Send {
        /// To whom.
        peer: PeerKey,
        /// Files and folders. Each is offered under its own last component.
        #[serde(with = "stored_path::list")]
        paths: Vec<PathBuf>,
    },
    /// Send what comes out of a pipe, however long it is, to a peer that is online. It is
    /// read once, so what breaks off does not go on. A pipe belongs to one process, so this
    /// is for the engine of the same process alone.
    #[serde(skip)]
    SendStream {
        /// To whom.
        peer: PeerKey,
        /// What it is offered as.
        name: SafePath,
        /// Where it comes from. Nothing is read before the peer accepts.
        input: PipeInput,
    },
    /// Send a short text to a peer that is online.
    SendText {
        /// To whom.
        peer: PeerKey,
        /// At most [`crate::TEXT_BYTES_MAX`] of them.
        text: String,
    },
    /// Take an offer, or a part of it. Words that wait are shown: none of the other
    /// fields counts for them.
    Accept {
        /// In stage [`crate::Stage::AwaitingDecision`].
        transfer: TransferId,
        /// Where to; `None` for the download folder of the settings.
        #[serde(with = "stored_path::optional")]
        into: Option<PathBuf>,
        /// Places in [`crate::OfferView::entries`] of what is not wanted; a
        /// folder stands for everything in it.
        unwanted: BTreeSet<u32>,
        /// What happens where something of the same name is there already;
        /// `None` for what the settings say.
        existing: Option<Existing>,
    },
    /// Stop a transfer for a while, or let it go on.
    Pause {
        /// In stage [`crate::Stage::Transferring`], or begun and reconnecting.
        transfer: TransferId,
        /// Whether this side wants it to stop.
        paused: bool,
    },
    /// Turn an offer down, or words that wait.
    Decline {
        /// In stage [`crate::Stage::AwaitingDecision`].
        transfer: TransferId,
    },
    /// The words of [`crate::Event::TextReceived`] have been shown: their sender hears
    /// that they have arrived. Without it, it does not.
    TextShown {
        /// Which.
        transfer: TransferId,
    },
    /// Turn down everything that strangers offer ([`crate::TransferView::stranger`]),
    /// and take everybody off [`crate::Snapshot::asking`].
    DeclineAll,
    /// Let a stranger connect who is in [`crate::Snapshot::asking`]: the next
    /// invitations of this key are answered, for an hour. The stranger has to try
    /// again, and whatever it offers then is a question of its own.
    Allow {
        /// Whom.
        peer: PeerKey,
    },
    /// Hear nothing of this key any more: what it has offered is turned down, its
    /// sessions end, and it finds us offline. Stored, until [`Command::Unblock`].
    Block {
        /// Anybody in the snapshot.
        peer: PeerKey,
    },
    /// Take a block back.
    Unblock {
        /// One of [`crate::Snapshot::blocked`].
        peer: PeerKey,
    },
    /// Remove a key from the contacts, on every server and nearby. It is a stranger
    /// again.
    Forget {
        /// Any key that is pinned.
        peer: PeerKey,
    },
    /// End a transfer that has not finished, in either direction.
    Cancel {
        /// Which.
        transfer: TransferId,
    },
    /// As `Cancel`, but what has arrived is kept, and the same offer goes on
    /// from there.
    Interrupt {
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
    /// Find out what the network does to connections:
    /// [`crate::Event::Diagnosed`]. Takes a few seconds.
    Diagnose {
        /// Which server to measure with; `None` for the one used last.
        server: Option<ServerAddress>,
    },
    /// Forget what was sent and received.
    ClearHistory,
    /// The user has made sure that a peer's key is right: pin it, instead of
    /// another one if there is one.
    TrustNewKey {
        /// The new key, as the snapshot shows it.
        peer: PeerKey,
    },
    /// Change and store where accepted files go.
    SetDownloadFolder {
        /// An existing folder.
        #[serde(with = "stored_path::required")]
        folder: PathBuf,
    },
    /// Change and store whether the server is reached through a proxy; counts
    /// from the next connection to it.
    SetProxy {
        /// From now on.
        proxy: ProxyChoice,
    },
    /// Change and store whose offers are taken without asking.
    SetAcceptPolicy {
        /// From now on.
        policy: AcceptPolicy,
    },
    /// Change and store how the invitations of strangers are answered.
    SetStrangers {
        /// From now on.
        strangers: Strangers,
    },
    /// Change and store the most bytes of an offer that is taken without
    /// asking.
    SetUnaskedBytesMax {
        /// From now on; `None` for no limit.
        bytes: Option<u64>,
    },
    /// Change and store what happens where something of the same name is there
    /// already.
    SetExisting {
        /// From now on.
        existing: Existing,
    },
    /// Change and store whether received programs can be executed.
    SetKeepsExecutable {
        /// From now on.
        keeps: bool,
    },
    /// Change and store whether people on the same network find each other
    /// without a server.
    SetNearby {
        /// From now on.
        on: bool,
    },
    /// Change and store whether a face that is used daily logs in by itself when
    /// it is started.
    SetAutoLogIn {
        /// From now on.
        on: bool,
    },
    /// Change and store whether the router is asked to forward ports, from now
    /// on.
    SetPortMapping {
        /// It is.
        enabled: bool,
    },
    /// Change and store how fast files may travel, from now on.
    SetLimits {
        /// To all peers together, in bytes per second; `None` for no limit.
        send: Option<u64>,
        /// From all peers together.
        receive: Option<u64>,
    },
    /// Another start of the window was asked for: the one that is there comes to the
    /// front, and asks to whom these files are to go or whether to join by the link
    /// ([`crate::Event::Raised`]).
    Raise {
        /// Files and folders, if any.
        #[serde(with = "stored_path::list")]
        paths: Vec<PathBuf>,
        /// An invitation that was opened, as it was given.
        link: Option<String>,
    },
}

impl Command {
    /// The same for a face with another working directory, or for later.
    pub(crate) fn with_absolute_paths(self) -> Self {
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let all = |paths: Vec<PathBuf>| paths.into_iter().map(absolute).collect();
        match self {
            Self::Send { peer, paths } => Self::Send {
                peer,
                paths: all(paths),
            },
            Self::Raise { paths, link } => Self::Raise {
                paths: all(paths),
                link,
            },
            Self::Accept {
                transfer,
                into,
                unwanted,
                existing,
            } => Self::Accept {
                transfer,
                into: into.map(absolute),
                unwanted,
                existing,
            },
            Self::SetDownloadFolder { folder } => Self::SetDownloadFolder {
                folder: absolute(folder),
            },
            other => other,
        }
    }
}
