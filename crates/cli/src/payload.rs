//! The payload of `send`: files or a text.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use pinhole_client::{Command, PeerKey, PipeInput, SafePath, TEXT_BYTES_MAX, display_text};

use crate::exit::Exit;
use crate::terminal::{Terminal, Wake};

/// What is sent.
pub(crate) enum Payload {
    Files(Vec<PathBuf>),
    Text(String),
    /// Standard input, under this name.
    Stream(SafePath, PipeInput),
}

/// Why there is nothing to send, and the exit code for it.
#[derive(Debug)]
struct PayloadError {
    reason: String,
    exit: Exit,
}

impl Payload {
    /// Collects the payload that the arguments name. Reads standard input if they say so.
    /// Blocks.
    fn of(text: Option<String>, paths: Vec<PathBuf>) -> Result<Self, PayloadError> {
        let usage = |reason: String| PayloadError {
            reason,
            exit: Exit::Usage,
        };
        let Some(text) = text else {
            if paths.is_empty() {
                let reason = "there is nothing to send: name files or folders, or use --text";
                return Err(usage(reason.to_owned()));
            }
            let mut troubles = paths.iter().filter_map(|path| trouble(path));
            return match troubles.next() {
                Some(reason) => Err(PayloadError {
                    reason,
                    exit: Exit::LocalFiles,
                }),
                None => Ok(Self::Files(each_once(paths))),
            };
        };
        // With a recipient, the arguments rule that out.
        if !paths.is_empty() {
            return Err(usage("words and files cannot be sent together".to_owned()));
        }
        let text = if text == "-" { typed()? } else { text };
        match text.len() {
            0 => Err(usage("there are no words to send".to_owned())),
            1..=TEXT_BYTES_MAX => Ok(Self::Text(text)),
            _ => Err(usage(format!(
                "the text is longer than {TEXT_BYTES_MAX} bytes; send it as a file"
            ))),
        }
    }

    pub(crate) fn command(&self, peer: PeerKey) -> Command {
        match self {
            Self::Files(paths) => Command::Send {
                peer,
                paths: paths.clone(),
            },
            Self::Text(text) => Command::SendText {
                peer,
                text: text.clone(),
            },
            Self::Stream(name, input) => Command::SendStream {
                peer,
                name: name.clone(),
                input: input.clone(),
            },
        }
    }
}

/// Why this path cannot be sent. Links are never followed: anyone who may write beside
/// the files of `send bob *` could make it send anything else.
fn trouble(path: &Path) -> Option<String> {
    // Removes a slash at the end, which would follow a link.
    let named: PathBuf = path.components().collect();
    let readable = |kind: std::fs::FileType| match kind {
        kind if kind.is_dir() => std::fs::read_dir(&named).map(drop),
        _ => File::open(&named).map(drop),
    };
    let why = match std::fs::symlink_metadata(&named).map(|it| it.file_type()) {
        Ok(kind) if kind.is_symlink() => {
            "a link; links are not sent. Name what it leads to.".to_owned()
        }
        Ok(kind) if !kind.is_dir() && !kind.is_file() => {
            "not a regular file; only files and folders are sent".to_owned()
        }
        Ok(kind) => in_words(&readable(kind).err()?),
        Err(error) => in_words(&error),
    };
    let named = display_text(&path.to_string_lossy());
    Some(format!("{named}: {why}"))
}

/// Removes paths that name the same thing again.
fn each_once(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut places = HashSet::new();
    let is_new = |path: &PathBuf| places.insert(place(path));
    paths.into_iter().filter(is_new).collect()
}

/// The canonical path of something. A link at its end is not followed.
fn place(path: &Path) -> PathBuf {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let found = match path.file_name() {
        Some(name) => parent.canonicalize().map(|parent| parent.join(name)),
        // A path such as `..` has no name.
        None => path.canonicalize(),
    };
    found.unwrap_or_else(|_| path.to_owned())
}

fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or folder".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::NotADirectory => "it leads through something that is no folder".to_owned(),
        _ => crate::report::plain(&error.to_string()),
    }
}

/// Reads standard input, up to one byte more than can be sent.
fn typed() -> Result<String, PayloadError> {
    let mut text = String::new();
    let mut input = io::stdin().lock().take(TEXT_BYTES_MAX as u64 + 1);
    match input.read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(error) => Err(PayloadError {
            reason: format!("cannot read the text from standard input: {error}"),
            exit: Exit::LocalFiles,
        }),
    }
}

/// Collects the payload; the inner `Err` holds the exit code when that fails.
pub(crate) async fn payload_of(
    terminal: &mut Terminal<'_>,
    text: Option<String>,
    paths: Vec<PathBuf>,
) -> anyhow::Result<Result<Payload, Exit>> {
    // This happens before anyone else is asked for anything.
    let mut reading = tokio::task::spawn_blocking(|| Payload::of(text, paths));
    let payload = loop {
        tokio::select! {
            payload = &mut reading => break payload?,
            wake = terminal.wait() => if let Wake::Interrupted(_) = wake? {
                return Ok(Err(Exit::Interrupted));
            },
        }
    };
    Ok(payload.map_err(|PayloadError { reason, exit }| {
        let kind = match exit {
            Exit::LocalFiles => "local_files",
            _ => "usage",
        };
        terminal.report.error(kind, &reason);
        exit
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_named_twice_is_sent_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("fo")).unwrap();
        for file in ["a", "b", "fo/a"] {
            std::fs::write(at(file), file).unwrap();
        }
        let named = ["a", "./a", "fo", "fo/", "fo/../a", "b", "fo/a", "fo/."];
        let kept = each_once(named.iter().map(|name| at(name)).collect());
        assert_eq!(kept, ["a", "fo", "b", "fo/a"].map(at));
        let absent = [at("none"), at("none")];
        assert_eq!(each_once(absent.to_vec()), absent[..1]);
    }
}
