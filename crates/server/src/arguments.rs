//! The arguments of the command line, which are the options of the configuration file too.

mod limits;
mod values;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use directories::ProjectDirs;
use pinhole_proto::name::PeerName;
use pinhole_server::listener::ListenAddress;
use pinhole_server::names::Database;

pub(crate) use limits::LimitArguments;

use crate::log_output::{LogFormat, parse_level};

/// Pinhole's rendezvous server and relay: introduces peers to each other and
/// never sees a byte of their files in the clear.
#[derive(Debug, Parser)]
#[command(
    name = "pinhole-server",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
pub(crate) struct ServerArguments {
    #[command(subcommand)]
    pub(crate) task: Option<ServerTask>,
    #[command(flatten)]
    pub(crate) serve: ServeArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServerTask {
    /// Write the server's key and the names to a new folder, while it runs or not.
    /// To restore it, stop the server and put that folder in the place of its own
    Backup {
        /// The folder to create. Keep it secret: anyone with the key can pose as the
        /// server
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// List names, release, ban or transfer them, while the server runs or not. It notices
    /// within seconds
    Names {
        #[command(subcommand)]
        task: NamesTask,
        #[command(flatten)]
        place: Place,
    },
    /// Carry the names of the data folder over to the empty database that --database names.
    /// Stop the server first
    Migrate {
        #[command(flatten)]
        place: Place,
    },
    /// Check the configuration and the data folder, and say what is wrong. Changes nothing
    Check {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NamesTask {
    /// Print every name with its key's fingerprint
    List {
        /// Print a line of JSON for each
        #[arg(long)]
        json: bool,
    },
    /// Print a name with its key
    Show {
        #[arg(value_name = "NAME")]
        name: PeerName,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Free a name for whoever claims it first. Its owner may be that; ban it to prevent
    /// this
    Release {
        #[arg(value_name = "NAME")]
        name: PeerName,
    },
    /// Let nobody log in by this name. It stays bound to its key
    Ban {
        #[arg(value_name = "NAME")]
        name: PeerName,
    },
    /// Lift a ban
    Unban {
        #[arg(value_name = "NAME")]
        name: PeerName,
    },
    /// Bind a registered name to another key
    Transfer {
        #[arg(value_name = "NAME")]
        name: PeerName,
        /// The key, or the fingerprint of one that has a name on this server
        #[arg(value_name = "KEY")]
        key: String,
    },
}

/// Where the environment has the URL of the database.
const DATABASE: &str = "PINHOLE_DATABASE";

/// Which server a task is about.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Where the server keeps its data [default: as for the server]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) data_dir: Option<PathBuf>,
    /// The database with the server's names, if they are in one
    #[arg(long, value_name = "URL", global = true, env = DATABASE, hide_env_values = true)]
    pub(crate) database: Option<String>,
    /// The server's configuration file, which may say where it keeps its data
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// Read options from this TOML file: those below, by the same names. The command line
    /// wins over the file. SIGHUP reads it again
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Listen here; can be repeated. Without a port it is 4747, and :PORT means every
    /// address. When all share one port, the next one is listened on too, to learn
    /// about the clients' NATs. Two public addresses of one family tell clients more
    /// about them [default: :4747]
    #[arg(long, value_name = "ADDR[:PORT]")]
    pub(crate) listen: Vec<ListenAddress>,
    /// Where the server's key and the names are kept [default: the system's
    /// place for the data of programs]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Keep the names in this PostgreSQL database (15 or newer), which several servers with
    /// the same key can share: postgres://USER@HOST/NAME?sslmode=verify-full. Others can
    /// read arguments, so give a URL with a password in the environment or in the
    /// configuration file [default: a file in the data folder]
    #[arg(long, value_name = "URL", env = DATABASE, hide_env_values = true)]
    pub(crate) database: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArguments,
    /// Start although the names or the key are missing, and create what is missing. A
    /// server without its names gives every name to the first who claims it
    #[arg(long)]
    pub(crate) start_afresh: bool,
    /// Trust the PROXY protocol (version 1 or 2) on connections from these addresses, and
    /// take the client's address from it
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    pub(crate) proxy_protocol: Vec<IpAddr>,
    /// Print the first line as JSON
    #[arg(
        long, num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set,
        default_value_t = false, default_missing_value = "true", hide_possible_values = true,
        hide_default_value = true, value_name = "true|false"
    )]
    pub(crate) json: bool,
    /// Answer GET /metrics (Prometheus) and /healthz over plain HTTP at this address, such
    /// as 127.0.0.1:9747
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) admin: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) log: LogArguments,
    #[command(flatten)]
    pub(crate) limits: LimitArguments,
}

/// How a server with a database is one node of several.
#[derive(Debug, Args)]
#[command(next_help_heading = "Several nodes with one database")]
pub(crate) struct NodeArguments {
    /// Listen here for the other nodes, which connect to just this address. Only they need
    /// to reach it
    #[arg(
        long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0",
        value_parser = parse_node_address
    )]
    pub(crate) node: SocketAddr,
    /// Where clients of the other nodes reach this one, to be relayed; can be repeated
    /// [default: the address to which its own clients are connected]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) relay_address: Vec<SocketAddr>,
}

/// An address that others can connect to.
fn parse_node_address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "it is an IP address and a port".to_owned())?;
    match address.ip().is_unspecified() {
        true => Err("other nodes connect to this address, so it cannot be every one".to_owned()),
        false => Ok(address),
    }
}

/// What is logged, on standard error.
#[derive(Debug, Args)]
#[command(next_help_heading = "The log")]
pub(crate) struct LogArguments {
    /// Write each line as text or as JSON
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// How much is logged: error, warn, info or debug [default: RUST_LOG, or info]
    #[arg(long, value_name = "LEVEL", value_parser = parse_level)]
    pub(crate) log_level: Option<String>,
    /// Log the addresses of people too
    #[arg(
        long, num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set,
        default_value_t = false, default_missing_value = "true", hide_possible_values = true,
        hide_default_value = true, value_name = "true|false"
    )]
    pub(crate) log_addresses: bool,
}

/// The database asked for. It is parsed only here, so that no message repeats a password.
pub(crate) fn database(asked: Option<&str>) -> anyhow::Result<Option<Database>> {
    Ok(asked.map(str::parse).transpose()?)
}

/// The folder asked for, or the system's place for the data of programs.
pub(crate) fn data_dir_or_default(asked: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(path) = asked {
        return Ok(path);
    }
    let dirs = ProjectDirs::from("", "", "pinhole-server");
    let dirs = dirs.context("no home directory; say where to keep data with --data-dir")?;
    Ok(dirs.data_dir().to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        ServerArguments::command().debug_assert();
    }

    #[test]
    fn a_task_takes_its_database_beside_its_own_arguments() {
        let url = "postgres://anna@db/people";
        for task in [
            &["names", "list"][..],
            &["backup", "folder"],
            &["migrate"],
            &["check"],
        ] {
            let all = [&["pinhole-server"], task, &["--database", url]].concat();
            let task = ServerArguments::try_parse_from(all).unwrap().task.unwrap();
            let (ServerTask::Backup { place, .. }
            | ServerTask::Names { place, .. }
            | ServerTask::Migrate { place }
            | ServerTask::Check { place }) = task;
            assert_eq!(place.database.as_deref(), Some(url));
        }
    }

    #[test]
    fn a_switch_can_be_switched_off() {
        let json = |arguments: &[&str]| {
            let all = [&["pinhole-server"], arguments].concat();
            ServerArguments::try_parse_from(all).unwrap().serve.json
        };
        assert!(!json(&[]));
        assert!(json(&["--json"]));
        assert!(!json(&["--json=false"]));
    }
}
