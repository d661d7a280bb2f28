//! Asking the user on the terminal.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use tokio::sync::oneshot;

/// A yes-or-no question at a time. Where nobody can answer, the answer is no.
pub(crate) struct Prompt {
    answer: Option<oneshot::Receiver<bool>>,
}

impl Prompt {
    pub(crate) const fn new() -> Self {
        Self { answer: None }
    }

    /// Puts a question; [`Prompt::answer`] brings the answer.
    pub(crate) fn ask(&mut self, question: &str) {
        let (sender, receiver) = oneshot::channel();
        self.answer = Some(receiver);
        if !std::io::stdin().is_terminal() {
            let note = "Nobody to ask: use --accept contacts or --accept all.";
            let _ = writeln!(std::io::stderr(), "{note}");
            let _ = sender.send(false);
            return;
        }
        let _ = write!(std::io::stderr(), "{question}");
        tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            let read = std::io::stdin().lock().read_line(&mut line);
            let yes = matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes");
            let _ = sender.send(read.is_ok() && yes);
        });
    }

    /// Waits for the answer to the question put last.
    pub(crate) async fn answer(&mut self) -> bool {
        match &mut self.answer {
            Some(receiver) => {
                let answer = receiver.await.unwrap_or(false);
                self.answer = None;
                answer
            }
            None => std::future::pending().await,
        }
    }
}
