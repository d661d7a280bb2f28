//! What a view asks for. Views change nothing themselves: the application
//! applies their actions in one place, after everything is drawn.

use std::collections::BTreeSet;
use std::path::PathBuf;

use egui::ThemePreference;
use pinhole_client::{Command, Existing, PeerKey, ServerAddress, TransferId};

use crate::message::Draft;
use crate::settings::SettingsForm;

/// What a view asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum UiAction {
    /// Of the engine.
    Command(Command),
    /// Of the operating system, away from the window's thread.
    Ask(DialogRequest),
    /// Show a sheet.
    Open(Sheet),
    /// Put the sheet away; what was typed in it stays for the next time.
    CloseSheet,
    /// Put the sheet away, with what was typed in it.
    DiscardSheet,
    /// Send a few words, and put their sheet away once the engine has them.
    Say {
        /// To whom.
        peer: PeerKey,
        /// What.
        text: String,
    },
    /// Leave, once the user says so if something is under way.
    Leave(LeaveRequest),
    /// Leave, whatever is under way.
    LeaveNow(LeaveRequest),
    /// Log in to the server under the key that it shows now.
    TrustServer(ServerAddress),
    /// Put an offer's question away; it stays in the list of transfers.
    Postpone(TransferId),
    /// Ask an offer's question again.
    LookAt(TransferId),
    /// Put the question about strangers away; a card keeps it in reach.
    PutOffStrangers,
    /// Turn down whatever strangers want.
    DeclineStrangers,
    /// Ask the question about strangers again.
    LookAtStrangers,
    /// Into the clipboard.
    Copy(String),
    /// Put the notice away.
    DismissNotice,
    /// Light, dark, or as the system.
    SetTheme(ThemePreference),
}

/// What ends transfers that are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaveRequest {
    /// Closing the window.
    Quit,
    /// Back to the first screen, also at the next start.
    LogOut,
    /// Back to the first screen: the login under way is not wanted.
    GiveUp,
    /// Switching people nearby off while there is nobody else.
    Nearby,
}

impl LeaveRequest {
    /// What does it, but for closing the window.
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

/// What is asked of the operating system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DialogRequest {
    /// Which files to send, to whom comes later.
    Files,
    /// Which files to send to a peer.
    FilesFor(PeerKey),
    /// Which folder to send to a peer.
    FolderFor(PeerKey),
    /// Where to save an offer.
    FolderInto {
        /// Which offer.
        transfer: TransferId,
        /// Places of what is not wanted of it.
        unwanted: BTreeSet<u32>,
        /// What happens to names that are there.
        existing: Option<Existing>,
    },
    /// Where to save accepted files from now on.
    DownloadFolder,
    /// Show a folder in the file manager.
    Show(PathBuf),
}

/// What lies over the list of people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sheet {
    /// To whom to send.
    Send {
        /// What.
        paths: Vec<PathBuf>,
        /// Those who are ticked.
        chosen: BTreeSet<PeerKey>,
    },
    /// A few words to a peer.
    Message(Draft),
    /// A name and a server, while people nearby are in sight.
    LogIn,
    /// Whether to leave although something is under way.
    Leave(LeaveRequest),
    /// Whether a peer's changed key is right.
    Trust {
        /// The key as it is now.
        peer: PeerKey,
        /// What to send when it is.
        paths: Vec<PathBuf>,
    },
    /// The settings, as typed.
    Settings(SettingsForm),
    /// Contacts, and who is blocked.
    Contacts {
        /// The contact whose removal was asked for once.
        forgetting: Option<PeerKey>,
    },
    /// What was sent and received.
    History {
        /// Clearing it was asked for once.
        clearing: bool,
    },
}
