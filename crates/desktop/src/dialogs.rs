//! Requests to the operating system: file dialogs and the file manager. Each has a thread
//! of its own, because its answer may take hours.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use pinhole_client::Command;

use crate::action::DialogRequest;
use crate::text;

/// A dialog that ends within this time was never shown: nobody closes one so fast.
const SHORTEST_DIALOG: Duration = Duration::from_millis(250);

/// Sends requests and collects the answers.
pub(crate) struct Dialogs {
    answers: (Sender<DialogAnswer>, Receiver<DialogAnswer>),
    ctx: egui::Context,
}

/// The answer to a request. A cancelled dialog has none.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DialogAnswer {
    /// The user has chosen something for the engine to do.
    Command(Command),
    /// The user has chosen files, and will choose the recipients.
    Files(Vec<PathBuf>),
    /// The request failed, with the reason.
    Trouble(String),
}

impl Dialogs {
    /// Creates the dialogs of a window, which each answer wakes.
    pub(crate) fn new(ctx: egui::Context) -> Self {
        Self {
            answers: channel(),
            ctx,
        }
    }

    /// Starts a request. The answer comes later.
    pub(crate) fn ask(&self, question: DialogRequest, download_folder: &Path) {
        let (answers, ctx) = (self.answers.0.clone(), self.ctx.clone());
        let start = download_folder.to_owned();
        std::thread::spawn(move || {
            if let Some(answer) = answer(question, &start) {
                // The window may be closed by now.
                let _ = answers.send(answer);
                ctx.request_repaint();
            }
        });
    }

    /// The next answer, if one has come.
    pub(crate) fn next_answer(&self) -> Option<DialogAnswer> {
        self.answers.1.try_recv().ok()
    }
}

fn answer(question: DialogRequest, download_folder: &Path) -> Option<DialogAnswer> {
    let asked = Instant::now();
    let dialog = || rfd::FileDialog::new().set_directory(download_folder);
    let files = || {
        let dialog = rfd::FileDialog::new().set_title(text::SEND_FILES);
        dialog.pick_files().filter(|paths| !paths.is_empty())
    };
    let send = |peer, paths| DialogAnswer::Command(Command::Send { peer, paths });
    let answer = match question {
        DialogRequest::Files => files().map(DialogAnswer::Files),
        DialogRequest::FilesFor(peer) => files().map(|paths| send(peer, paths)),
        DialogRequest::FolderFor(peer) => rfd::FileDialog::new()
            .set_title(text::SEND_FOLDER)
            .pick_folders()
            .filter(|paths| !paths.is_empty())
            .map(|paths| send(peer, paths)),
        DialogRequest::FolderInto {
            transfer,
            unwanted,
            existing,
        } => dialog()
            .set_title(text::SAVE_ELSEWHERE)
            .pick_folder()
            .map(|into| Command::Accept {
                transfer,
                into: Some(into),
                unwanted,
                existing,
            })
            .map(DialogAnswer::Command),
        DialogRequest::DownloadFolder => dialog()
            .set_title(text::DOWNLOADS)
            .pick_folder()
            .map(|folder| DialogAnswer::Command(Command::SetDownloadFolder { folder })),
        DialogRequest::Show(folder) => return show(&folder),
    };
    match answer {
        Some(answer) => Some(answer),
        None if asked.elapsed() < SHORTEST_DIALOG => {
            Some(DialogAnswer::Trouble(text::NO_DIALOG.to_owned()))
        }
        None => None,
    }
}

fn show(folder: &PathBuf) -> Option<DialogAnswer> {
    let error = open::that_detached(folder).err()?;
    Some(DialogAnswer::Trouble(text::cannot_open(folder, &error)))
}
