//! The actions that views ask for. Views change nothing themselves: the application
//! applies their actions in one place, after everything is drawn.

use std::collections::BTreeSet;
use std::path::PathBuf;

use egui::ThemePreference;
use pinhole_client::{Command, Existing, PeerKey, RecoveryWords, ServerAddress, TransferId};

use crate::invite::{InviteForm, JoinForm};
use crate::message::Draft;
use crate::recovery::RecoverForm;
use crate::settings::SettingsForm;

/// What a view asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum UiAction {
    /// Send a command to the engine.
    Command(Command),
    /// Ask the operating system, on another thread.
    Ask(DialogRequest),
    /// Show a sheet.
    Open(Sheet),
    /// Close the sheet. What was typed in it is kept for the next time.
    CloseSheet,
    /// Close the sheet and discard what was typed in it.
    DiscardSheet,
    /// Send a message, and close its sheet once the engine has taken it.
    Say {
        /// The recipient.
        peer: PeerKey,
        /// The text.
        text: String,
    },
    /// Leave; ask first if something is under way.
    Leave(LeaveRequest),
    /// Leave without asking.
    LeaveNow(LeaveRequest),
    /// Log in to the server with the key that it shows now.
    TrustServer(ServerAddress),
    /// Postpone an offer's question. The offer stays in the list of transfers.
    Postpone(TransferId),
    /// Ask an offer's question again.
    LookAt(TransferId),
    /// Postpone the question about strangers. A card in the list shows it again.
    PutOffStrangers,
    /// Decline everything from strangers.
    DeclineStrangers,
    /// Show the question about strangers again.
    LookAtStrangers,
    /// Copy to the clipboard.
    Copy(String),
    /// Close the notice.
    DismissNotice,
    /// Light, dark, or as the system.
    SetTheme(ThemePreference),
}

/// A way to leave, which ends transfers that are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaveRequest {
    /// Closing the window.
    Quit,
    /// Back to the first screen, also at the next start.
    LogOut,
    /// Back to the first screen, because the login under way is no longer wanted.
    GiveUp,
    /// Switching off people nearby, where there is no server.
    Nearby,
}

impl LeaveRequest {
    /// The commands for it, apart from closing the window.
    pub(crate) fn commands(self) -> Vec<Command> {
        let stays_out = Command::SetAutoLogIn { on: false };
        match self {
            Self::Quit => Vec::new(),
            Self::LogOut => vec![stays_out, Command::LogOut],
            Self::GiveUp => vec![Command::LogOut],
            Self::Nearby => vec![Command::SetNearby { on: false }, Command::LogOut],
        }
    }
}

/// A request to the operating system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DialogRequest {
    /// Choose files to send. The recipient is chosen later.
    Files,
    /// Choose files to send to a peer.
    FilesFor(PeerKey),
    /// Choose a folder to send to a peer.
    FolderFor(PeerKey),
    /// Choose where to save an offer.
    FolderInto {
        /// Which offer.
        transfer: TransferId,
        /// The indices of entries that are not wanted.
        unwanted: BTreeSet<u32>,
        /// What to do about names that are taken.
        existing: Option<Existing>,
    },
    /// Choose where accepted files go from now on.
    DownloadFolder,
    /// Show a folder in the file manager.
    Show(PathBuf),
}

/// A sheet over the list of people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sheet {
    /// Choosing recipients.
    Send {
        /// The files to send.
        paths: Vec<PathBuf>,
        /// The chosen recipients.
        chosen: BTreeSet<PeerKey>,
    },
    /// A message to a peer.
    Message(Draft),
    /// Logging in to a server while people nearby are shown.
    LogIn,
    /// Confirming to leave while something is under way.
    Leave(LeaveRequest),
    /// Deciding on a peer's changed key.
    Trust {
        /// The key as it is now.
        peer: PeerKey,
        /// What to send once the key is trusted.
        paths: Vec<PathBuf>,
    },
    /// New recovery words, to be written down.
    Words(RecoveryWords),
    /// Making a link that invites somebody.
    Invite(InviteForm),
    /// Joining somebody by what is pasted.
    Join(JoinForm),
    /// A code for whoever shall get these files.
    Code(Vec<PathBuf>),
    /// Taking a name back, as typed.
    Recover(RecoverForm),
    /// The settings, as typed.
    Settings(SettingsForm),
    /// Contacts and blocked people.
    Contacts {
        /// The contact whose removal was clicked once.
        forgetting: Option<PeerKey>,
    },
    /// The history.
    History {
        /// Clearing was clicked once.
        clearing: bool,
    },
}
