//! The command line.

mod invitations;
mod transfer;

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::{
    FalseyValueParser, OsStr, PathBufValueParser, Resettable, TypedValueParser as _,
};
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Args, Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use pinhole_client::{Fingerprint, PathPolicy, PeerName, ServerAddress, display_text};

use self::invitations::INVITE_EXAMPLES;
pub(crate) use self::invitations::Invite;
pub(crate) use self::transfer::{PeerSpecs, Receive, Send};
use self::transfer::{RECEIVE_EXAMPLES, SEND_EXAMPLES};

/// Hand files straight to another person's computer.
///
/// Both sides log in to a rendezvous server under a unique name, or find each
/// other nearby, on one network, without any server. The files then go directly
/// from one computer to the other, through both NATs, encrypted end to end and checked chunk by chunk; a relay carries the encrypted bytes only
/// when there is no direct path.
#[derive(Debug, Parser)]
#[command(version, name = "pinhole", after_help = EXIT_CODES)]
pub(crate) struct CliArguments {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) task: CliTask,
}

/// Arguments that cannot be used.
#[derive(Debug)]
pub(crate) struct UsageError {
    /// The reason, with correct examples.
    pub(crate) text: String,
    /// Whether JSON was asked for.
    pub(crate) json: bool,
    /// Whether standard output is for what is received.
    pub(crate) stdout: bool,
}

impl CliArguments {
    /// Parses the arguments of this process. Exits when they only ask for help.
    pub(crate) fn of_process() -> Result<Self, UsageError> {
        let words: Vec<OsString> = std::env::args_os().collect();
        Self::of(&words).map_err(|error| {
            if !error.use_stderr() {
                error.exit();
            }
            // A `*` may have put the name of any file among them.
            let safe = words
                .iter()
                .map(|word| OsString::from(display_text(&word.to_string_lossy())));
            let safe: Vec<OsString> = safe.collect();
            let error = Self::of(&safe).err().unwrap_or(error);
            UsageError {
                text: with_variable(&error),
                json: is_given(&words, "json"),
                stdout: is_given(&words, "stdout"),
            }
        })
    }

    fn of(words: &[OsString]) -> Result<Self, clap::Error> {
        let command = with_variables_that_count(Self::command(), words);
        let mut matches = command.try_get_matches_from(words)?;
        Self::from_arg_matches_mut(&mut matches)
    }
}

/// An empty environment variable counts as not set. A variable is ignored, even a
/// malformed one, when its option is given.
fn with_variables_that_count(command: Command, words: &[OsString]) -> Command {
    let forget = |arg: Arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        let is_said = arg.get_long().is_some_and(|long| is_given(words, long));
        match is_said || value.is_some_and(|value| value.is_empty()) {
            true => arg.env(Resettable::<OsStr>::Reset),
            false => arg,
        }
    };
    command
        .mut_args(forget)
        .mut_subcommands(|subcommand| subcommand.mut_args(forget))
}

/// Whether the words contain an option.
fn is_given(words: &[OsString], long: &str) -> bool {
    let mut words = words.iter().take_while(|word| *word != "--");
    words.any(|word| {
        let word = word.to_string_lossy();
        let option = word.strip_prefix("--").unwrap_or_default();
        option.split('=').next() == Some(long)
    })
}

/// The error text, with the name of the environment variable that caused it.
fn with_variable(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let Some(ContextValue::String(wrong)) = error.get(ContextKind::InvalidArg) else {
        return text;
    };
    let mut command = CliArguments::command();
    command.build();
    let of_subcommands = command.get_subcommands().flat_map(Command::get_arguments);
    let mut arguments = command.get_arguments().chain(of_subcommands);
    let variable = arguments
        .find(|arg| arg.to_string() == *wrong)
        .and_then(Arg::get_env)
        .filter(|variable| std::env::var_os(variable).is_some_and(|value| !value.is_empty()));
    match (variable, error.get(ContextKind::InvalidValue)) {
        (Some(variable), Some(ContextValue::String(value)))
            if std::env::var_os(variable).is_some_and(|it| it.to_string_lossy() == *value) =>
        {
            let variable = variable.to_string_lossy();
            text.replacen(
                &format!("'{wrong}'"),
                &format!("'{wrong}' (from the variable {variable})"),
                1,
            )
        }
        _ => text,
    }
}

const EXIT_CODES: &str = "\
Exit codes:
  0    done: for send, everything is safely on the other side's disk, or
       skipped there; of several outcomes the highest code counts
  1    anything not named below
  2    usage
  3    the name belongs to somebody else
  4    the peer is unknown or offline, or only claims its name while there is a
       server that could confirm it; an invitation or a code is used up, over or wrong
  5    declined or cancelled by the other side
  6    no path, to the server or to the peer
  7    verification failed: a key or the data is not what it should be
  8    trouble with a file, a folder or a pipe
  130  interrupted; `receive` ends with 0 when the system ends it (SIGTERM, SIGHUP)

The last server and name are remembered in the profile.";

/// Options that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Common {
    /// The rendezvous server; with #FINGERPRINT nobody can pose as it.
    #[arg(
        long,
        global = true,
        env = "PINHOLE_SERVER",
        value_name = "HOST[:PORT][,...][#FINGERPRINT]"
    )]
    pub(crate) server: Option<ServerAddress>,
    /// The unique name to log in with: 3 to 32 of a-z 0-9 . _ -
    #[arg(long, global = true, env = "PINHOLE_NAME")]
    pub(crate) name: Option<PeerName>,
    /// Where identity, contacts and settings are kept, instead of your own profile.
    #[arg(long, global = true, env = "PINHOLE_DATA_DIR", value_name = "DIR", value_parser = PathBufValueParser::new().map(expanded))]
    pub(crate) data_dir: Option<PathBuf>,
    /// Which paths may be used: any, never the relay, or only the relay (which hides your address).
    #[arg(long, global = true, env = "PINHOLE_PATH", value_name = "auto|direct|relay", value_parser = path_policy)]
    pub(crate) path: Option<PathPolicy>,
    /// Reach the server through this HTTP proxy, or through none; otherwise https_proxy and all_proxy count.
    #[arg(
        long,
        global = true,
        env = "PINHOLE_PROXY",
        hide_env_values = true,
        value_name = "http://[USER:PASSWORD@]HOST:PORT|none"
    )]
    // It is parsed later, because an error message of clap would show the password.
    pub(crate) proxy: Option<String>,
    /// Neither look for people on your own network nor be found by them.
    #[arg(long, global = true, env = "PINHOLE_NO_NEARBY", value_parser = FalseyValueParser::new())]
    pub(crate) no_nearby: bool,
    /// Do not ask the router to forward ports (PCP, NAT-PMP, UPnP).
    #[arg(long, global = true, env = "PINHOLE_NO_PORT_MAPPING", value_parser = FalseyValueParser::new())]
    pub(crate) no_port_mapping: bool,
    /// Print one JSON object a line instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum CliTask {
    /// Send files, folders or a few words, and wait until they are safely there.
    ///
    /// Exits with 0 once everything is on the other side's disk, whole and
    /// verified. After Ctrl-C, a crash or a lost connection the same command
    /// goes on where it stopped.
    #[command(after_help = SEND_EXAMPLES)]
    Send(Send),
    /// Wait for offers and receive them.
    ///
    /// Asks on the terminal before anything is taken; of an offer of several
    /// things you can take some by their numbers; where names are taken, `s` skips
    /// and `r` replaces; `b` blocks the peer, and `none` declines all that strangers
    /// want. Words of strangers are a question, too. Files appear under their
    /// names when they are whole, and nothing is overwritten unless you say so.
    #[command(after_help = RECEIVE_EXAMPLES)]
    Receive(Receive),
    /// Print a link that lets somebody else in, and its QR code.
    ///
    /// Whoever runs `pinhole join` with it, or opens it in the window, meets your server
    /// and you with both keys checked, and you are contacts from then on, without a
    /// question on either side. Give it only to whom you mean. If you use no server, it
    /// holds your name and key, for people on your own network.
    #[command(after_help = INVITE_EXAMPLES)]
    Invite(Invite),
    /// Join somebody by the link that they have given to you.
    ///
    /// Logs in at the server that it names, and makes its author a contact. Without
    /// --name, and if you have no name yet, you get one like guest-abcdefgh.
    Join {
        /// What `pinhole invite` has printed
        #[arg(value_name = "LINK")]
        link: String,
    },
    /// List who is online or nearby, with the fingerprints of their keys.
    ///
    /// A person whose key has changed since you met is marked. Compare fingerprints over
    /// another channel before you trust a new one. A large server does not list
    /// everybody: there these are your contacts, and you can look others up by name.
    Peers {
        /// List only these, and fail if one of them is neither online nor nearby
        #[arg(value_name = "NAME")]
        names: Vec<PeerName>,
    },
    /// Trust the new key of a person you know.
    ///
    /// The person has to be online or nearby. Compare the fingerprint with them over
    /// another channel: `pinhole id` shows it to them.
    Trust(Trust),
    /// List your contacts, and the people you have blocked.
    Contacts,
    /// Block a person. You appear offline to them.
    Block {
        /// A contact, or a person from the history.
        #[arg(value_name = "PEER[#FINGERPRINT]")]
        spec: PeerSpec,
    },
    /// Unblock a person.
    Unblock {
        /// A person you have blocked.
        #[arg(value_name = "PEER[#FINGERPRINT]")]
        spec: PeerSpec,
    },
    /// Remove a person from the contacts. They are a stranger again.
    Forget {
        /// The contact.
        #[arg(value_name = "PEER[#FINGERPRINT]")]
        spec: PeerSpec,
    },
    /// Make recovery words for your key.
    Recovery {
        #[command(subcommand)]
        task: RecoveryTask,
    },
    /// Take your name back with its recovery words, after this computer or its profile
    /// was lost.
    ///
    /// Asks for the words on the terminal, or reads them from standard input. The name
    /// then belongs to this profile's key, and people who know you are told that you have
    /// signed that.
    Recover {
        /// The name.
        #[arg(value_name = "NAME")]
        name: PeerName,
    },
    /// Have nobody believe your key any more, because somebody else may have it.
    ///
    /// The server refuses it from then on, and people who know you are told. `recover`
    /// brings the name back with a new key.
    Revoke(Revoke),
    /// Show your own name, key and fingerprint.
    ///
    /// The fingerprint is what others compare to be sure that you are you.
    Id,
    /// Find out what your network does to connections, and what you can do.
    ///
    /// Measures for a few seconds whether the server is reached on each of its
    /// ports, what the NATs on the way do with yours, and whether the router
    /// opens ports on request; then says with whom transfers will go directly.
    /// Below that: what the last connections tried, and why they went as they did.
    Doctor {
        /// Measure nothing; show what the last twenty connections tried.
        #[arg(long)]
        last: bool,
    },
    /// Show what was sent and received.
    ///
    /// Oldest first: when, with whom, how much, which way and how fast, and how
    /// it ended; with --json everything that is known of it.
    History {
        /// Forget it all instead.
        #[arg(long)]
        clear: bool,
    },
}

impl CliTask {
    /// Whether a service manager runs it.
    pub(crate) const fn is_service(&self) -> bool {
        matches!(self, Self::Receive(receive) if receive.service)
    }

    /// Whether a new user of it may come to have a name.
    pub(crate) const fn uses_the_name(&self) -> bool {
        match self {
            Self::Recovery { .. }
            | Self::Recover { .. }
            | Self::Revoke(_)
            | Self::Doctor { .. } => false,
            // The name may be one that nobody has chosen.
            Self::Send(send) => send.code.is_none(),
            Self::Receive(receive) => receive.code.is_empty(),
            _ => true,
        }
    }
}

/// What `recovery` does.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum RecoveryTask {
    /// Print new recovery words, once. They take the place of those before, if any.
    ///
    /// Write them down: nothing keeps them. Your server hears of them when you log in.
    /// Words that replace others count there after 30 days, so that a thief with your
    /// computer cannot make yours worthless.
    New,
}

/// What `revoke` takes.
#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// Ask for the recovery words instead of signing with this profile's key.
    #[arg(long)]
    pub(crate) words: bool,
    /// The name whose key is revoked.
    #[arg(value_name = "NAME")]
    pub(crate) name: PeerName,
}

/// What `trust` takes.
#[derive(Debug, Args)]
pub(crate) struct Trust {
    /// Wait until the peer is online instead of failing when it is not.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Whose key.
    #[arg(value_name = "PEER")]
    pub(crate) peer: PeerName,
    /// The fingerprint that the key must have.
    #[arg(value_name = "FINGERPRINT")]
    pub(crate) fingerprint: Fingerprint,
}

/// A name, and the fingerprint of its key if one was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerSpec {
    pub(crate) name: PeerName,
    pub(crate) fingerprint: Option<Fingerprint>,
}

impl FromStr for PeerSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, fingerprint) = match text.split_once('#') {
            Some((name, fingerprint)) => (name, Some(fingerprint)),
            None => (text, None),
        };
        let fingerprint = fingerprint.map(Fingerprint::from_str).transpose();
        Ok(Self {
            name: name.parse().map_err(|error| format!("{error}"))?,
            fingerprint: fingerprint.map_err(|error| format!("{error}"))?,
        })
    }
}

/// Parses one of the words of an option, in upper or lower case.
fn one_of<T: Copy>(word: &str, meanings: &[(&str, T)]) -> Result<T, String> {
    let mut all = meanings.iter();
    match all.find(|(one, _)| one.eq_ignore_ascii_case(word)) {
        Some((_, meaning)) => Ok(*meaning),
        None => {
            let words: Vec<&str> = meanings.iter().map(|(word, _)| *word).collect();
            Err(format!("it is one of: {}", words.join(", ")))
        }
    }
}

/// Expands the `~` that a shell leaves in `--into=~/Videos`.
fn expanded(path: PathBuf) -> PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) if rest.as_os_str().is_empty() => home,
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

fn path_policy(word: &str) -> Result<PathPolicy, String> {
    let meanings = [
        ("auto", PathPolicy::Auto),
        ("direct", PathPolicy::DirectOnly),
        ("relay", PathPolicy::RelayOnly),
    ];
    one_of(word, &meanings)
}

#[cfg(test)]
mod tests {
    use super::transfer::PeerSpecs;
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CliArguments::command().debug_assert();
    }

    #[test]
    fn several_names_stand_between_commas() {
        let line = ["pinhole", "send", "bob,carol,bob", "a", "b"];
        let CliTask::Send(send) = CliArguments::try_parse_from(line).unwrap().task else {
            panic!("something else");
        };
        let peers = send.peers.unwrap();
        assert_eq!(peers, "bob,carol".parse().unwrap());
        assert!(peers.0.iter().all(|spec| spec.fingerprint.is_none()));
        assert_eq!(peers.0.len(), 2);
        assert_eq!(send.paths.len(), 2);
    }

    #[test]
    fn a_fingerprint_stands_behind_a_name() {
        let fingerprint = pinhole_client::PeerKey::from_bytes([7; 32]).fingerprint();
        let peers: PeerSpecs = format!("bob#{fingerprint},carol").parse().unwrap();
        let known: Vec<_> = peers.0.iter().map(|spec| spec.fingerprint).collect();
        assert_eq!(known, [Some(fingerprint), None]);
        assert!("bob#".parse::<PeerSpecs>().is_err());
        assert!(format!("#{fingerprint}").parse::<PeerSpecs>().is_err());
    }

    #[test]
    fn a_wrong_word_is_answered_with_the_right_ones() {
        for (option, value, words) in [
            ("--path", "x", "auto, direct, relay"),
            ("--accept", "x", "ask, contacts, all"),
            ("--existing", "x", "rename, skip, replace"),
            ("--strangers", "x", "relay, direct, ask"),
        ] {
            let line = ["pinhole", "receive", option, value];
            let error = CliArguments::try_parse_from(line).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let line = ["pinhole", "receive", "--accept", "ALL"];
        assert!(CliArguments::try_parse_from(line).is_ok());
    }

    #[test]
    fn the_home_folder_is_where_a_tilde_says() {
        let home = std::env::home_dir().expect("a home folder");
        for (said, expected) in [
            ("~", home.clone()),
            ("~/x/y", home.join("x/y")),
            ("./~/x", "./~/x".into()),
            ("~x", "~x".into()),
            ("/x/~", "/x/~".into()),
        ] {
            assert_eq!(expanded(said.into()), expected);
        }
    }

    #[test]
    fn an_option_counts_before_two_dashes_only() {
        let words = ["pinhole", "--name=a", "send", "--json", "--", "--path"];
        let words = words.map(OsString::from);
        for (long, expected) in [
            ("name", true),
            ("json", true),
            ("path", false),
            ("na", false),
        ] {
            assert_eq!(is_given(&words, long), expected, "{long}");
        }
    }

    #[test]
    fn words_become_policies() {
        let line = ["pinhole", "send", "bob", "a", "--path", "relay", "--json"];
        let arguments = CliArguments::try_parse_from(line).unwrap();
        assert_eq!(arguments.common.path, Some(PathPolicy::RelayOnly));
        assert!(arguments.common.json && !arguments.common.no_nearby);
        for bad in [
            vec!["pinhole", "send", "bob"],
            vec!["pinhole", "send", "BOB", "a"],
            vec!["pinhole", "send", "bob,", "a"],
            vec!["pinhole", "send", "bob", "a", "--text", "words"],
            vec!["pinhole", "receive", "--accept", "some"],
            vec!["pinhole", "receive", "--existing", "destroy"],
            vec!["pinhole", "receive", "--max-size", "big"],
            vec!["pinhole", "send", "bob", "a", "--limit", "0"],
            vec!["pinhole", "peers", "--server", "no port"],
        ] {
            assert_eq!(
                CliArguments::try_parse_from(bad).unwrap_err().exit_code(),
                2
            );
        }
    }
}
