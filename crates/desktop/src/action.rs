//! What a view asks for. Views change nothing themselves: the application
//! applies their actions in one place, after everything is drawn.

use std::collections::BTreeSet;
use std::path::PathBuf;

use egui::ThemePreference;
use pinhole_client::{Command, Existing, PeerKey, TransferId};

use crate::message::Draft;
use crate::settings;

/// What a view asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Of the engine.
    Command(Command),
    /// Of the operating system, away from the window's thread.
    Ask(Question),
    /// Show a sheet.
    Open(Sheet),
    /// Put the sheet away.
    CloseSheet,
    /// Put an offer's question away; it stays in the list of transfers.
    Postpone(TransferId),
    /// Ask an offer's question again.
    LookAt(TransferId),
    /// Into the clipboard.
    Copy(String),
    /// Put the notice away.
    DismissNotice,
    /// Light, dark, or as the system.
    SetTheme(ThemePreference),
}

/// What is asked of the operating system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
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
    /// Whether a peer's changed key is right.
    Trust {
        /// The key as it is now.
        peer: PeerKey,
        /// What to send when it is.
        paths: Vec<PathBuf>,
    },
    /// The settings, as typed.
    Settings(settings::Form),
    /// What was sent and received.
    History {
        /// Clearing it was asked for once.
        clearing: bool,
    },
}
