//! Reads the configuration again while the server runs.

use std::collections::BTreeSet;

use clap::{ArgMatches, CommandFactory as _};
use pinhole_server::Limits;
use tracing::{error, info, warn};

use crate::arguments::ServerArguments;
use crate::config;
use crate::log_output::LogLevel;

/// The options as they were read.
pub(crate) struct Reloader {
    /// When the server started.
    started: ArgMatches,
    /// The last time.
    current: ArgMatches,
    level: LogLevel,
    open_files: Option<u64>,
}

impl Reloader {
    pub(crate) fn new(started: ArgMatches, level: LogLevel, open_files: Option<u64>) -> Self {
        Self {
            current: started.clone(),
            started,
            level,
            open_files,
        }
    }

    /// Reads the options again. Returns the limits that hold from now on, or `None`, with
    /// the reason in the log, if the file is wrong.
    pub(crate) fn reload(&mut self) -> Option<Limits> {
        let (arguments, matches) = match config::arguments() {
            Ok(read) => read,
            Err(error) => {
                let said = crate::sentence(&error.into());
                error!("the configuration was not read again, and nothing has changed: {said}");
                return None;
            }
        };
        let changed = differences(&self.current, &matches);
        let changed = changed.into_iter().filter(|option| is_live(option));
        let changed: Vec<_> = changed.collect();
        let fixed = differences(&self.started, &matches);
        let fixed: Vec<_> = fixed.into_iter().filter(|it| !is_live(it)).collect();
        let changed = match changed.is_empty() {
            true => "nothing".to_owned(),
            false => changed.join(", "),
        };
        match fixed.is_empty() {
            true => info!("the configuration was read again; changed: {changed}"),
            false => warn!(
                "the configuration was read again; changed: {changed}; only a restart changes: {}",
                fixed.join(", ")
            ),
        }
        self.level.set(arguments.serve.log.log_level.as_deref());
        self.current = matches;
        Some(crate::limits(arguments.serve.limits, self.open_files))
    }
}

/// Whether an option can change while the server runs.
fn is_live(option: &str) -> bool {
    // Clients are told when they log in whether there is a relay.
    let is_limit = option.starts_with("max-") || option.starts_with("relay-");
    is_limit || matches!(option, "drain" | "log-level" | "names-expire")
}

/// The options whose values differ.
fn differences(before: &ArgMatches, now: &ArgMatches) -> BTreeSet<String> {
    let command = ServerArguments::command();
    let differ = |argument: &&clap::Arg| {
        let id = argument.get_id().as_str();
        let values = |matches: &ArgMatches| {
            let values = matches.try_get_raw(id).ok().flatten();
            values.map(|values| values.map(ToOwned::to_owned).collect::<Vec<_>>())
        };
        values(before) != values(now)
    };
    let options = command.get_arguments().filter(differ);
    let names = options.filter_map(clap::Arg::get_long);
    names.map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_differ_are_named() {
        let matches = |arguments: &[&str]| {
            let all = [&["pinhole-server"], arguments].concat();
            ServerArguments::command().get_matches_from(all)
        };
        let before = matches(&["--listen", ":1", "--max-names=5", "--relay-rate=1M"]);
        let now = matches(&["--listen", ":2", "--max-names=5", "--relay-time=7"]);
        let expected = ["listen", "relay-rate", "relay-time"].map(ToOwned::to_owned);
        assert_eq!(differences(&before, &now), BTreeSet::from(expected));
        assert!(is_live("relay-rate") && !is_live("listen") && !is_live("no-relay"));
    }
}
