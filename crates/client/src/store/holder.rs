//! Who holds a profile, as its lock says it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of face a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaceKind {
    /// One command, which ends by itself. It holds the profile alone.
    #[default]
    Command,
    /// `pinhole receive`. Other faces can work through it.
    Receive,
    /// The window. Other faces can work through it.
    Window,
}

impl FaceKind {
    /// Whether other faces can work through it.
    pub(crate) const fn serves(self) -> bool {
        matches!(self, Self::Receive | Self::Window)
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Receive => "receive",
            Self::Window => "window",
        }
    }
}

/// The process that holds a profile.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Holder {
    /// Its id; `None` while it has not written it down.
    pub process: Option<u32>,
    /// What it is; `None` where the lock cannot be read, as on Windows.
    pub face: Option<FaceKind>,
}

impl Holder {
    /// This process.
    pub(crate) fn here(face: FaceKind) -> Self {
        Self {
            process: Some(std::process::id()),
            face: Some(face),
        }
    }

    /// From the content of the lock.
    pub(super) fn parse(text: &str) -> Self {
        let mut words = text.split_whitespace();
        let process = words.next().and_then(|word| word.parse().ok());
        let all = [FaceKind::Command, FaceKind::Receive, FaceKind::Window];
        let word = words.next();
        Self {
            process,
            face: word.and_then(|word| all.into_iter().find(|face| face.word() == word)),
        }
    }

    /// For the content of the lock.
    pub(super) fn line(&self) -> String {
        let process = self.process.unwrap_or_default();
        let face = self.face.unwrap_or_default();
        format!("{process} {}", face.word())
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.face {
            Some(FaceKind::Receive) => "`pinhole receive`",
            Some(FaceKind::Window) => "the window of Pinhole",
            Some(FaceKind::Command) => "another command of Pinhole",
            None => "another Pinhole",
        })?;
        match self.process {
            Some(process) => write!(f, " (process {process})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_what_the_lock_says() {
        for face in [FaceKind::Command, FaceKind::Receive, FaceKind::Window] {
            let holder = Holder {
                process: Some(12),
                face: Some(face),
            };
            assert_eq!(Holder::parse(&holder.line()), holder);
            assert!(holder.to_string().contains("(process 12)"), "{holder}");
        }
        for (text, process) in [("", None), ("12", Some(12)), ("12 cook", Some(12))] {
            let holder = Holder::parse(text);
            assert_eq!((holder.process, holder.face), (process, None), "{text}");
        }
    }
}
