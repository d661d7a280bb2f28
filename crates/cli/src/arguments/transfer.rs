//! What `send` and `receive` take.

use std::io::{IsTerminal as _, stdin, stdout};
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use clap::builder::{PathBufValueParser, TypedValueParser as _};
use pinhole_client::{AcceptPolicy, Existing, SafePath, Strangers, amount};

use super::{PeerSpec, expanded, one_of};

pub(super) const SEND_EXAMPLES: &str = "\
Examples:
  pinhole send bob holiday.mp4 photos/       a file and a whole folder
  pinhole send bob,carol report.pdf          to two people; the exit code is the worst
  pinhole send bob --text 'https://...'      a few words
  date | pinhole send bob --text -           what another program says
  tar c photos | pinhole send bob --as photos.tar -
                                             all that another program writes, without a
                                             temporary file
  pinhole send --code holiday.mp4            to whoever you say the code to
  pinhole send --wait --limit 2M bob disk.img
                                             tonight, and easy on the line";

pub(super) const RECEIVE_EXAMPLES: &str = "\
Examples:
  pinhole receive --into ~/Videos            ask for each offer
  pinhole receive 7-acid-zoo                 what `pinhole send --code` offers there
  pinhole receive --accept contacts --max-size 5G
                                             take what is not too large from people you have
                                             accepted before
  pinhole receive --accept all --existing skip --once
                                             one offer, in a script: only what is new
  pinhole receive --once --stdout | tar x    a single file, straight into another program";

/// What `send` takes.
#[derive(Debug, Args)]
pub(crate) struct Send {
    /// Wait until the peer receives, again whenever it goes away before everything has
    /// arrived.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Send at most so many bytes a second: 500k, 2M, 1.5MiB.
    #[arg(long, env = "PINHOLE_LIMIT", value_name = "RATE", value_parser = amount::parse_rate)]
    pub(crate) limit: Option<u64>,
    /// Send these words instead of files; `-` for what standard input says.
    #[arg(long, conflicts_with = "paths", value_name = "WORDS")]
    pub(crate) text: Option<String>,
    /// What standard input is called on the other side, where it is a single file: give -
    /// as the only PATH. Its size need not be known. It goes to one recipient, and what
    /// breaks off cannot go on: it starts again.
    #[arg(long = "as", value_name = "NAME", value_parser = file_name, conflicts_with = "text")]
    pub(crate) as_name: Option<SafePath>,
    /// Send to whoever joins by a code: a number and two words that you say to them. Needs
    /// no name on either side. `pinhole receive CODE` is the other side of it.
    #[arg(long, num_args = 0.., conflicts_with_all = ["peers", "wait"], value_name = "PATH")]
    pub(crate) code: Option<Vec<PathBuf>>,
    /// The recipient, or several with commas between their names. With #FINGERPRINT only
    /// the person with that key, whether a server confirms the name or not.
    #[arg(
        required_unless_present = "code",
        value_name = "PEER[#FINGERPRINT][,PEER...]"
    )]
    pub(crate) peers: Option<PeerSpecs>,
    /// What to send. Folders are sent whole; - is standard input, with --as.
    #[arg(required_unless_present_any = ["text", "code"], value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
}

impl Send {
    /// Why these arguments cannot be used together, or here.
    pub(crate) fn refusal(&self) -> Option<&'static str> {
        let paths = self.code.as_ref().unwrap_or(&self.paths);
        let peers = self.peers.as_ref().map_or(1, |peers| peers.0.len());
        let reads_input = paths.iter().any(|path| path.as_os_str() == "-");
        match (reads_input, &self.as_name) {
            (false, None) => None,
            (false, Some(_)) => Some(
                "--as names what standard input brings: give - as the only path. Files keep their names.",
            ),
            (true, None) => Some(
                "what standard input brings needs a name: --as NAME. A file that is called - is ./-",
            ),
            (true, Some(_)) if paths.len() > 1 => {
                Some("standard input cannot be sent together with files: give - as the only path")
            }
            (true, Some(_)) if peers > 1 => {
                Some("standard input is read once and goes to one person only")
            }
            (true, Some(_)) if stdin().is_terminal() => Some(
                "standard input is a terminal. Pipe something into it, as in: tar c photos | pinhole send bob --as photos.tar -",
            ),
            (true, Some(_)) => None,
        }
    }
}

/// Recipients with commas between them. No name contains a comma.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerSpecs(pub(crate) Vec<PeerSpec>);

impl FromStr for PeerSpecs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = Vec::new();
        for one in text.split(',') {
            let spec = one.parse()?;
            // A recipient given twice gets everything once.
            if !all.contains(&spec) {
                all.push(spec);
            }
        }
        Ok(Self(all))
    }
}

/// What `receive` takes.
#[derive(Debug, Args)]
pub(crate) struct Receive {
    /// The folder to put files in.
    #[arg(long, env = "PINHOLE_INTO", value_name = "DIR", value_parser = PathBufValueParser::new().map(expanded))]
    pub(crate) into: Option<PathBuf>,
    /// Whose offers to take without asking: nobody's, those of people accepted before, everybody's.
    #[arg(long, env = "PINHOLE_ACCEPT", value_name = "ask|contacts|all", value_parser = accept_policy)]
    pub(crate) accept: Option<AcceptPolicy>,
    /// The largest offer to take without asking, as 500M or 2GiB. A larger one needs an
    /// answer.
    #[arg(long, env = "PINHOLE_MAX_SIZE", value_name = "SIZE", value_parser = amount::parse)]
    pub(crate) max_size: Option<u64>,
    /// How to answer people you have not chosen yet: over the relay, which hides your address
    /// until you accept something (the default); directly; or only once you let them connect.
    #[arg(long, env = "PINHOLE_STRANGERS", value_name = "relay|direct|ask", value_parser = strangers)]
    pub(crate) strangers: Option<Strangers>,
    /// Where a name is taken: give the new file a number (the default), skip it, or replace the old one.
    #[arg(long, env = "PINHOLE_EXISTING", value_name = "rename|skip|replace", value_parser = existing)]
    pub(crate) existing: Option<Existing>,
    /// Let programs stay programs: what could be executed there can be executed here.
    #[arg(long)]
    pub(crate) executable: bool,
    /// Receive at most so many bytes a second: 500k, 2M, 1.5MiB.
    #[arg(long, env = "PINHOLE_LIMIT", value_name = "RATE", value_parser = amount::parse_rate)]
    pub(crate) limit: Option<u64>,
    /// Exit after the first offer, with its outcome.
    #[arg(long)]
    pub(crate) once: bool,
    /// Write the one file that is offered to standard output as it arrives, without a
    /// temporary file; an offer of several files or of folders is declined. Everything
    /// else goes to standard error then, also with --json.
    #[arg(long, requires = "once")]
    pub(crate) stdout: bool,
    /// Run under a service manager: ask nothing, tell systemd how it is going, and begin
    /// each line with its level. What needs an answer waits for the window.
    #[arg(long, conflicts_with = "once")]
    pub(crate) service: bool,
    /// The code that whoever sends with --code has said to you: what they offer is taken
    /// without asking, and nothing else.
    #[arg(num_args = 0..=3, conflicts_with_all = ["accept", "max_size", "strangers", "once", "service"], value_name = "CODE")]
    pub(crate) code: Vec<String>,
}

impl Receive {
    /// Why these arguments cannot be used here.
    pub(crate) fn refusal(&self) -> Option<&'static str> {
        (self.stdout && stdout().is_terminal()).then_some(
            "standard output is a terminal. Pipe it into a program or a file, as in: pinhole receive --once --stdout | tar x",
        )
    }
}

/// A name that a file may have on every system.
fn file_name(name: &str) -> Result<SafePath, String> {
    match SafePath::parse(name) {
        Ok(path) if path.parent().is_none() => Ok(path),
        Ok(_) => Err("it is the name of a file, without folders".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn accept_policy(word: &str) -> Result<AcceptPolicy, String> {
    let meanings = [
        ("ask", AcceptPolicy::Ask),
        ("contacts", AcceptPolicy::Contacts),
        ("all", AcceptPolicy::All),
    ];
    one_of(word, &meanings)
}

fn strangers(word: &str) -> Result<Strangers, String> {
    let meanings = [
        ("relay", Strangers::Relay),
        ("direct", Strangers::Direct),
        ("ask", Strangers::Ask),
    ];
    one_of(word, &meanings)
}

fn existing(word: &str) -> Result<Existing, String> {
    let meanings = [
        ("rename", Existing::Rename),
        ("skip", Existing::Skip),
        ("replace", Existing::Replace),
    ];
    one_of(word, &meanings)
}
