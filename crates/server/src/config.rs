//! The configuration file. Each of its values becomes the default of the argument of the
//! same name, so the command line wins, and both know the same options by construction.

use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::error::{ContextKind, ContextValue};
use clap::{ArgMatches, Command, CommandFactory as _, FromArgMatches as _};
use toml::de::{DeTable, DeValue};

use crate::arguments::ServerArguments;

/// What a file cannot say: where it is itself, and that a start without names or key is
/// meant, which is true of one start only.
const NOT_IN_FILE: [&str; 4] = ["config", "start-afresh", "help", "version"];
/// How similar a name must be to be suggested, from 0 to 1.
const SIMILAR: f64 = 0.7;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// Something in the file is wrong.
    #[error("{}, line {line}: {what}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// The command line is wrong.
    #[error("{0}")]
    Arguments(#[from] clap::Error),
}

/// The arguments, with those of the file as their defaults, and as they were written.
pub(crate) fn arguments() -> Result<(ServerArguments, ArgMatches), ConfigError> {
    let matches = ServerArguments::command().try_get_matches()?;
    let arguments = ServerArguments::from_arg_matches(&matches)?;
    match &arguments.serve.config {
        None => Ok((arguments, matches)),
        Some(path) => {
            let matches = with_file(path)?.try_get_matches()?;
            Ok((ServerArguments::from_arg_matches(&matches)?, matches))
        }
    }
}

/// The arguments of a server that is started with this file alone.
pub(crate) fn of_file(path: &Path) -> Result<ServerArguments, ConfigError> {
    let matches = with_file(path)?.try_get_matches_from(["pinhole-server"])?;
    Ok(ServerArguments::from_arg_matches(&matches)?)
}

/// The arguments of a server that is started with none.
pub(crate) fn plain() -> Result<ServerArguments, ConfigError> {
    let matches = ServerArguments::command().try_get_matches_from(["pinhole-server"])?;
    Ok(ServerArguments::from_arg_matches(&matches)?)
}

/// The command whose defaults are those of the file.
fn with_file(path: &Path) -> Result<Command, ConfigError> {
    let read = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    });
    with_text(&read?).map_err(|WrongLine { line, what }| ConfigError::Line {
        path: path.to_owned(),
        line,
        what,
    })
}

/// A line of a file and what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
struct WrongLine {
    line: usize,
    what: String,
}

fn with_text(text: &str) -> Result<Command, WrongLine> {
    let wrong = |at: usize, what: String| {
        let before = text.get(..at).unwrap_or(text);
        let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
        WrongLine { line, what }
    };
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        wrong(at, error.message().to_owned())
    })?;
    let mut command = ServerArguments::command();
    for (name, value) in table.get_ref() {
        let at = name.span().start;
        let id = id_of(&command, name.get_ref()).map_err(|what| wrong(at, what))?;
        let values = written(value.get_ref()).map_err(|what| wrong(at, what))?;
        let typed = values.iter().map(|it| format!("--{}={it}", name.get_ref()));
        let typed = ["pinhole-server".to_owned()].into_iter().chain(typed);
        let tried = ServerArguments::command().try_get_matches_from(typed);
        tried.map_err(|error| wrong(at, sentence(&error)))?;
        command = command.mut_arg(id, |argument| argument.default_values(values));
    }
    Ok(command)
}

/// The argument of this name.
fn id_of(command: &Command, name: &str) -> Result<clap::Id, String> {
    let in_file = |argument: &&clap::Arg| {
        let long = argument.get_long();
        long.is_some_and(|long| !NOT_IN_FILE.contains(&long))
    };
    let options = || command.get_arguments().filter(in_file);
    if let Some(argument) = options().find(|it| it.get_long() == Some(name)) {
        return Ok(argument.get_id().clone());
    }
    if NOT_IN_FILE.contains(&name) {
        return Err(format!("\"{name}\" can be said on the command line only"));
    }
    let nearest = options()
        .filter_map(clap::Arg::get_long)
        .map(|option| (strsim::jaro_winkler(name, option), option))
        .filter(|(likeness, _)| *likeness >= SIMILAR)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    Err(match nearest {
        Some((_, option)) => format!("there is no option \"{name}\"; did you mean \"{option}\"?"),
        None => format!("there is no option \"{name}\"; pinhole-server --help lists them"),
    })
}

/// The value as it would be typed, or the values of a list.
fn written(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    match value {
        DeValue::Array(values) => {
            let written = values.iter().map(|it| single(it.get_ref()));
            written.collect()
        }
        value => Ok(vec![single(value)?]),
    }
}

fn single(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.clone().into_owned()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().replace('_', "")),
        DeValue::Boolean(is_set) => Ok(is_set.to_string()),
        other => Err(format!(
            "a value is a text, a whole number, true or false, or a list of them, and this is a {}",
            other.type_str()
        )),
    }
}

/// What is wrong with a value, without what only concerns the command line.
fn sentence(error: &clap::Error) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let source = std::error::Error::source(error).map(ToString::to_string);
    match (text(ContextKind::InvalidValue), source) {
        (Some(value), Some(why)) => format!("\"{value}\" is no value for this: {why}"),
        (Some(value), None) => format!("\"{value}\" is no value for this"),
        (None, _) => {
            let said = error.to_string();
            let first = said.lines().next().unwrap_or_default();
            first.strip_prefix("error: ").unwrap_or(first).to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, typed: &[&str]) -> ServerArguments {
        let all = [&["pinhole-server"], typed].concat();
        let matches = with_text(text).unwrap().try_get_matches_from(all).unwrap();
        ServerArguments::from_arg_matches(&matches).unwrap()
    }

    fn wrong(text: &str) -> String {
        let WrongLine { line, what } = with_text(text).unwrap_err();
        format!("{line}: {what}")
    }

    /// A value that each option takes and that differs from its default.
    fn example(option: &str) -> &'static str {
        match option {
            "listen" => "[\"127.0.0.1:7001\", \":7002\"]",
            "data-dir" => "\"/srv/pinhole\"",
            "database" => "\"postgres://pinhole@db.example.org/pinhole\"",
            "proxy-protocol" => "[\"10.0.0.2\", \"10.0.0.3\"]",
            "json" | "no-relay" | "log-addresses" => "true",
            "directory" => "\"closed\"",
            "directory-max" => "50",
            "relay-bytes" | "relay-network-bytes" => "\"3G\"",
            "relay-rate" | "relay-total-rate" => "\"2MiB\"",
            "admin" => "\"127.0.0.1:9747\"",
            "node" => "\"10.0.0.2:4749\"",
            "relay-address" => "[\"203.0.113.7:4747\"]",
            "log-format" => "\"json\"",
            "log-level" => "\"debug\"",
            "drain" => "\"2m\"",
            "relay-time" => "\"none\"",
            "names-expire" => "\"90d\"",
            count if count.starts_with("max-") || count.starts_with("relay-pairs") => "1_234",
            other => panic!("give an example of {other}"),
        }
    }

    #[test]
    fn the_file_has_every_option_of_the_command_line() {
        let command = ServerArguments::command();
        let options = command.get_arguments().filter_map(clap::Arg::get_long);
        let options: Vec<_> = options.filter(|it| !NOT_IN_FILE.contains(it)).collect();
        assert!(options.len() > 15, "{options:?}");
        for option in options {
            let text = format!("{option} = {}", example(option));
            let matches = with_text(&text).unwrap();
            let matches = matches.try_get_matches_from(["pinhole-server"]).unwrap();
            let plain = ServerArguments::command().get_matches_from(["pinhole-server"]);
            let id = id_of(&command, option).unwrap();
            let raw = |matches: &ArgMatches| {
                let raw = matches.get_raw(id.as_str());
                raw.map(|it| it.map(ToOwned::to_owned).collect::<Vec<_>>())
            };
            assert_ne!(raw(&matches), raw(&plain), "{option}");
        }
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let text = "listen = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\njson = true\nmax-names = 5\n";
        let of_file = parse(text, &[]).serve;
        assert_eq!((of_file.listen.len(), of_file.json), (2, true));
        let both = parse(text, &["--listen", "127.0.0.1:3", "--json=false"]).serve;
        let listen: Vec<_> = both.listen.iter().map(ToString::to_string).collect();
        assert_eq!(
            (&listen[..], both.json),
            (&["127.0.0.1:3".to_owned()][..], false)
        );
        let limits = pinhole_server::Limits::from(both.limits);
        assert_eq!(limits.names, 5);
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        let unknown = wrong("json = true\n\nrelay-byte = \"5G\"\n");
        assert_eq!(
            unknown,
            "3: there is no option \"relay-byte\"; did you mean \"relay-bytes\"?"
        );
        let strange = wrong("zzz = 1");
        assert!(strange.contains("--help"), "{strange}");
        let value = wrong("json = true\nrelay-time = 0");
        assert_eq!(
            value,
            "2: \"0\" is no value for this: it is 1 to 100000, or \"none\""
        );
        let table = wrong("[relay]\nrate = 5");
        assert!(
            table.starts_with("1: there is no option \"relay\""),
            "{table}"
        );
        let float = wrong("max-names = 1.5");
        assert!(float.contains("this is a float"), "{float}");
        let syntax = wrong("json = true\nlisten = [\n");
        assert!(
            syntax.starts_with("2: ") || syntax.starts_with("3: "),
            "{syntax}"
        );
        let once = wrong("start-afresh = true");
        assert!(once.contains("command line only"), "{once}");
        let twice = wrong("json = true\njson = false");
        assert!(twice.starts_with("2: "), "{twice}");
    }
}
