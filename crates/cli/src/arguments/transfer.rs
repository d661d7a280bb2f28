//! What `send` and `receive` take.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use clap::builder::{PathBufValueParser, TypedValueParser as _};
use pinhole_client::{AcceptPolicy, Existing, Strangers, amount};

use super::{PeerSpec, expanded, one_of};

pub(super) const SEND_EXAMPLES: &str = "\
Examples:
  pinhole send bob holiday.mp4 photos/       a file and a whole folder
  pinhole send bob,carol report.pdf          to two people; the exit code is the worst
  pinhole send bob --text 'https://...'      a few words
  date | pinhole send bob --text -           what another program says
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
                                             one offer, in a script: only what is new";

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
    /// What to send. Folders are sent whole.
    #[arg(required_unless_present_any = ["text", "code"], value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
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
    /// The code that whoever sends with --code has said to you: what they offer is taken
    /// without asking, and nothing else.
    #[arg(num_args = 0..=3, conflicts_with_all = ["accept", "max_size", "strangers", "once"], value_name = "CODE")]
    pub(crate) code: Vec<String>,
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
