//! What is typed to take a name back.

use pinhole_client::{Command, PeerName, RecoveryWords, ServerAddress};

/// What is typed to take a name back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RecoverForm {
    pub(super) name: String,
    pub(super) server: String,
    pub(super) words: String,
    /// The error in them, after an attempt.
    pub(super) complaint: Option<String>,
}

impl RecoverForm {
    /// A form with what is typed on the first screen.
    pub(crate) fn new(name: String, server: String) -> Self {
        Self {
            name,
            server,
            ..Self::default()
        }
    }

    /// The command that takes the name back, or a complaint.
    pub(super) fn submit(&mut self) -> Option<Command> {
        let command = self.command();
        self.complaint = command.as_ref().err().cloned();
        command.ok()
    }

    fn command(&self) -> Result<Command, String> {
        let name: PeerName = self.name.trim().parse().map_err(sentence)?;
        let server: ServerAddress = self.server.trim().parse().map_err(sentence)?;
        let words: RecoveryWords = self.words.parse().map_err(sentence)?;
        Ok(Command::Recover {
            name,
            server,
            words,
        })
    }
}

fn sentence(error: impl std::fmt::Display) -> String {
    format!("{error}.")
}
