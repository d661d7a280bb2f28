//! `pinhole recovery`, `recover` and `revoke`, and the words at the first start.

use std::io::{self, IsTerminal as _, Read as _};

use pinhole_client::{Command, Event, PeerName, RecoveryWords, ServerAddress};

use crate::arguments::{Common, Revoke};
use crate::exit::Exit;
use crate::prompt::{Prompt, PromptInput};
use crate::terminal::{Terminal, Wake};

/// More than any words that belong together.
const INPUT_BYTES_MAX: u64 = 4 * 1024;

/// Shows a new user the recovery words, if there is a terminal to show them on. Whoever
/// reads a pipe or a log shall not have them unasked.
pub(crate) async fn introduce(terminal: &mut Terminal<'_>, common: &Common) -> anyhow::Result<()> {
    let snapshot = terminal.client.snapshot();
    let is_new = snapshot.is_first_run && !snapshot.has_recovery_key;
    let is_elsewhere = terminal.client.holder().is_some();
    if !is_new || is_elsewhere || common.json || !io::stderr().is_terminal() {
        return Ok(());
    }
    terminal.client.command(Command::NewRecoveryKey)?;
    loop {
        match terminal.wait().await? {
            Wake::Event(Event::RecoveryWords { words }) => {
                terminal.report.first_words(&words);
                return Ok(());
            }
            Wake::Event(Event::CommandFailed { failure }) => {
                terminal.report.warning(&failure);
                return Ok(());
            }
            Wake::Interrupted(_) => return Ok(()),
            Wake::Event(_) | Wake::Changed => {}
        }
    }
}

/// Makes new words and prints them.
pub(crate) async fn new(terminal: &mut Terminal<'_>) -> anyhow::Result<Exit> {
    let replaces = terminal.client.snapshot().has_recovery_key;
    terminal.client.command(Command::NewRecoveryKey)?;
    loop {
        match terminal.wait().await? {
            Wake::Event(Event::RecoveryWords { words }) => {
                terminal.report.new_words(&words);
                if replaces {
                    terminal.report.note(
                        "the words before count on your servers for 30 more days, and these from then on",
                    );
                }
                return Ok(Exit::Done);
            }
            Wake::Event(Event::CommandFailed { failure }) => return Ok(terminal.fail(&failure)),
            Wake::Interrupted(_) => return Ok(Exit::Interrupted),
            Wake::Event(_) | Wake::Changed => {}
        }
    }
}

/// Takes a name back with its words.
pub(crate) async fn recover(
    terminal: &mut Terminal<'_>,
    common: &Common,
    name: PeerName,
) -> anyhow::Result<Exit> {
    let Some(server) = server_of(terminal, common) else {
        return Ok(Exit::Usage);
    };
    let words = match read_words(terminal).await? {
        Ok(words) => words,
        Err(exit) => return Ok(exit),
    };
    let recover = Command::Recover {
        name,
        server,
        words,
    };
    terminal.client.command(recover)?;
    loop {
        match terminal.wait().await? {
            Wake::Event(Event::LoggedIn { name, .. }) => {
                let fingerprint = terminal.client.snapshot().fingerprint;
                terminal.report.recovered(&name, fingerprint);
                return Ok(Exit::Done);
            }
            Wake::Event(Event::LogInFailed { failure } | Event::CommandFailed { failure }) => {
                return Ok(terminal.fail(&failure));
            }
            Wake::Interrupted(_) => return Ok(Exit::Interrupted),
            Wake::Event(event) => terminal.tell(&event),
            Wake::Changed => {}
        }
    }
}

/// Has nobody believe the key of a name any more.
pub(crate) async fn revoke(
    terminal: &mut Terminal<'_>,
    common: &Common,
    task: Revoke,
) -> anyhow::Result<Exit> {
    let Some(server) = server_of(terminal, common) else {
        return Ok(Exit::Usage);
    };
    let words = match task.words {
        false => None,
        true => match read_words(terminal).await? {
            Ok(words) => Some(words),
            Err(exit) => return Ok(exit),
        },
    };
    let revoke = Command::Revoke {
        name: task.name,
        server,
        words,
    };
    terminal.client.command(revoke)?;
    loop {
        match terminal.wait().await? {
            Wake::Event(Event::Revoked { name }) => {
                terminal.report.revoked(&name);
                return Ok(Exit::Done);
            }
            Wake::Event(Event::CommandFailed { failure }) => return Ok(terminal.fail(&failure)),
            Wake::Interrupted(_) => return Ok(Exit::Interrupted),
            Wake::Event(_) | Wake::Changed => {}
        }
    }
}

fn server_of(terminal: &mut Terminal<'_>, common: &Common) -> Option<ServerAddress> {
    let stored = || terminal.client.snapshot().settings.server.clone();
    let server = common.server.clone().or_else(stored);
    if server.is_none() {
        let reason = "no server: pass --server HOST:PORT or set PINHOLE_SERVER";
        terminal.report.error("usage", reason);
    }
    server
}

/// Reads the words from the terminal, or from standard input: as arguments, they would
/// stay in the shell's history. The inner `Err` holds the exit code when that fails.
async fn read_words(terminal: &mut Terminal<'_>) -> anyhow::Result<Result<RecoveryWords, Exit>> {
    if !Prompt::has_reader() {
        let mut text = String::new();
        let read = io::stdin()
            .lock()
            .take(INPUT_BYTES_MAX)
            .read_to_string(&mut text);
        return Ok(match read.map_err(|error| error.to_string()) {
            Ok(_) => parsed(terminal, &text).ok_or(Exit::Usage),
            Err(reason) => {
                let reason = format!("cannot read the words from standard input: {reason}");
                terminal.report.error("usage", &reason);
                Err(Exit::Usage)
            }
        });
    }
    let mut prompt = Prompt::new();
    loop {
        terminal.report.ask("Recovery words:");
        prompt.open();
        let typed = tokio::select! {
            typed = prompt.next() => typed,
            wake = interrupted(terminal) => return wake.map(Err),
        };
        match typed {
            PromptInput::Line(line) => {
                terminal.report.is_answered();
                if let Some(words) = parsed(terminal, &line) {
                    return Ok(Ok(words));
                }
            }
            PromptInput::End => {
                terminal.report.withdraw_question();
                return Ok(Err(Exit::Interrupted));
            }
            PromptInput::Foreground => {}
        }
    }
}

async fn interrupted(terminal: &mut Terminal<'_>) -> anyhow::Result<Exit> {
    loop {
        if let Wake::Interrupted(_) = terminal.wait().await? {
            terminal.report.withdraw_question();
            return Ok(Exit::Interrupted);
        }
    }
}

fn parsed(terminal: &mut Terminal<'_>, text: &str) -> Option<RecoveryWords> {
    match text.parse::<RecoveryWords>() {
        Ok(words) => Some(words),
        Err(error) => {
            let reason = format!("{error}.");
            terminal.report.error("recovery_words", &reason);
            None
        }
    }
}
