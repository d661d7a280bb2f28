//! `pinhole-server`: arguments, log and signals around [`pinhole_server::run_behind`].

mod line;

use std::fmt;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use directories::ProjectDirs;
use pinhole_budget::amount;
use pinhole_proto::key::Fingerprint;
use pinhole_server::data_dir::back_up;
use pinhole_server::listener::{self, ListenAddress};
use pinhole_server::{DataDir, Limits, Missing, RelayLimits};
use serde::Serialize;
use tracing_subscriber::EnvFilter;

/// More pairs than a machine has connections for.
const MAX_PAIRS: u64 = 1_000_000;

/// Pinhole's rendezvous server and relay: introduces peers to each other and
/// never sees a byte of their files in the clear.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, args_conflicts_with_subcommands = true)]
struct ServerArguments {
    #[command(subcommand)]
    task: Option<ServerTask>,
    #[command(flatten)]
    serve: ServeArguments,
}

#[derive(Debug, Subcommand)]
enum ServerTask {
    /// Write the server's key and the names to a new folder, while it runs or not.
    /// To restore it, stop the server and put that folder in the place of its own
    Backup {
        /// The folder to create. Keep it secret: anyone with the key can pose as the
        /// server
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
        /// Where the server keeps its data [default: as for the server]
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct ServeArguments {
    /// Listen here; can be repeated. Without a port it is 4747, and :PORT means every
    /// address. When all share one port, the next one is listened on too, to learn
    /// about the clients' NATs. Two public addresses of one family tell clients more
    /// about them [default: :4747]
    #[arg(long, value_name = "ADDR[:PORT]")]
    listen: Vec<ListenAddress>,
    /// Where the server's key and the names are kept [default: the system's
    /// place for the data of programs]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Start although the names or the key are missing, and create what is missing. A
    /// server without its names gives every name to the first who claims it
    #[arg(long)]
    start_afresh: bool,
    /// Whether clients are told of everybody who is online. Otherwise, and whenever more
    /// people are online than --directory-max, they are told of those whom they know or
    /// look up by name, and nobody can list the names
    #[arg(long, value_name = "WHICH", default_value = "open")]
    directory: DirectoryChoice,
    /// The most people online while the directory is open
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().directory_people)]
    directory_max: usize,
    /// Trust the PROXY protocol (version 1 or 2) on connections from these addresses, and
    /// take the client's address from it
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    proxy_protocol: Vec<IpAddr>,
    /// Print the first line as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    relay: RelayArguments,
}

/// Whether everybody is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DirectoryChoice {
    Open,
    Closed,
}

/// The limits of the relay. Amounts are written as 500k, 1.5M, 2MiB or 10G.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits of the relay (\"none\" for no limit)")]
struct RelayArguments {
    /// Introduce peers to each other, but carry nothing for them
    #[arg(long)]
    no_relay: bool,
    /// The most bytes between the same two peers in a day
    #[arg(long, value_name = "BYTES", default_value_t = ByteLimit(RelayLimits::default().bytes_per_day))]
    relay_bytes: ByteLimit,
    /// The most bytes in a day for all who send from one address
    #[arg(long, value_name = "BYTES", default_value_t = ByteLimit(RelayLimits::default().network_bytes_per_day))]
    relay_network_bytes: ByteLimit,
    /// The most bytes a second for one pair of peers
    #[arg(long, value_name = "BYTES", default_value_t = ByteLimit(RelayLimits::default().bytes_per_second))]
    relay_rate: ByteLimit,
    /// The most bytes a second for all pairs together, in even shares
    #[arg(long, value_name = "BYTES", default_value_t = ByteLimit(RelayLimits::default().total_bytes_per_second))]
    relay_total_rate: ByteLimit,
    /// Disconnect two peers after this many minutes; they may meet again
    #[arg(long, value_name = "MINUTES", default_value_t = Minutes(RelayLimits::default().time))]
    relay_time: Minutes,
    /// The most pairs of peers at once
    #[arg(long, value_name = "COUNT", default_value_t = RelayLimits::default().pairs.total)]
    relay_pairs: u64,
    /// The most pairs at once of all who send from one address
    #[arg(long, value_name = "COUNT", default_value_t = RelayLimits::default().pairs.per_subnet.ipv4)]
    relay_pairs_per_address: u64,
    /// The most pairs at once of one sender
    #[arg(long, value_name = "COUNT", default_value_t = RelayLimits::default().pairs.per_key)]
    relay_pairs_per_peer: u64,
}

/// Bytes, or no limit.
#[derive(Debug, Clone, Copy)]
struct ByteLimit(Option<u64>);

impl FromStr for ByteLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            text => match amount::parse(text.strip_suffix("/s").unwrap_or(text))? {
                0 => Err("nothing would ever pass; --no-relay says so to people".to_owned()),
                bytes => Ok(Self(Some(bytes))),
            },
        }
    }
}

impl fmt::Display for ByteLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("none"),
            Some(bytes) if bytes % 1_000_000_000 == 0 => write!(f, "{}G", bytes / 1_000_000_000),
            Some(bytes) if bytes % 1_000_000 == 0 => write!(f, "{}M", bytes / 1_000_000),
            Some(bytes) => write!(f, "{bytes}"),
        }
    }
}

/// Minutes, or no limit.
#[derive(Debug, Clone, Copy)]
struct Minutes(Option<Duration>);

impl FromStr for Minutes {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse::<u64>()) {
            ("none", _) => Ok(Self(None)),
            (_, Ok(minutes @ 1..=100_000)) => Ok(Self(Some(Duration::from_secs(minutes * 60)))),
            _ => Err("it is 1 to 100000, or \"none\""),
        }
    }
}

impl fmt::Display for Minutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("none"),
            Some(time) => write!(f, "{}", time.as_secs() / 60),
        }
    }
}

impl From<RelayArguments> for RelayLimits {
    fn from(arguments: RelayArguments) -> Self {
        let mut limits = Self {
            offered: !arguments.no_relay,
            time: arguments.relay_time.0,
            bytes_per_day: arguments.relay_bytes.0,
            network_bytes_per_day: arguments.relay_network_bytes.0,
            bytes_per_second: arguments.relay_rate.0,
            total_bytes_per_second: arguments.relay_total_rate.0,
            ..Self::default()
        };
        let pairs = &mut limits.pairs;
        pairs.total = arguments.relay_pairs.min(MAX_PAIRS);
        pairs.reserved = pairs.reserved.min(pairs.total / 4);
        pairs.per_key = arguments.relay_pairs_per_peer;
        let most = arguments.relay_pairs_per_address;
        pairs.per_subnet.ipv4 = most;
        pairs.per_subnet.ipv6_64 = most;
        pairs.per_subnet.ipv6_56 = most.saturating_mul(2);
        pairs.per_subnet.ipv6_48 = most.saturating_mul(4);
        limits
    }
}

/// The first line, for programs.
#[derive(Serialize)]
#[serde(tag = "event", rename = "listening")]
struct Listening<'a> {
    addresses: &'a [SocketAddr],
    fingerprint: Fingerprint,
}

fn main() -> ExitCode {
    let arguments = ServerArguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(|| line::OneLine)
        .init();
    let done = match arguments.task {
        Some(ServerTask::Backup { folder, data_dir }) => backup(&folder, data_dir),
        None => start(arguments.serve),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pinhole-server: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes. Some causes repeat those below them, which is left out.
fn sentence(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        let is_new = said
            .rsplit(": ")
            .next()
            .is_none_or(|last| !cause.contains(last));
        if said.is_empty() {
            said = cause;
        } else if is_new {
            said.push_str(": ");
            said.push_str(&cause);
        }
    }
    said
}

fn backup(folder: &std::path::Path, data_dir: Option<PathBuf>) -> anyhow::Result<()> {
    let (fingerprint, names) = back_up(&data_dir_or_default(data_dir)?, folder)?;
    let folder = folder.display();
    writeln!(
        io::stdout(),
        "{folder} has the key {fingerprint} and {names} names"
    )?;
    Ok(())
}

fn start(arguments: ServeArguments) -> anyhow::Result<()> {
    let open_files = raise_open_files_limit();
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(serve(arguments, open_files))
}

async fn serve(arguments: ServeArguments, open_files: Option<u64>) -> anyhow::Result<()> {
    // Before the first line is printed, because its reader may stop the server at once.
    let shutdown = shutdown_signal().context("listening for signals")?;
    let path = data_dir_or_default(arguments.data_dir)?;
    let missing = match arguments.start_afresh {
        true => Missing::StartAfresh,
        false => Missing::Refuse,
    };
    let data_dir = DataDir::open_with(&path, missing)?;
    let listeners = listener::bind_all(&arguments.listen)?;
    let addresses = listener::dialable_addresses(&listeners)?;
    let fingerprint = data_dir.identity().key().fingerprint();
    announce(&addresses, fingerprint, arguments.json).context("writing to standard output")?;
    let mut limits = Limits {
        relay: arguments.relay.into(),
        directory_people: match arguments.directory {
            DirectoryChoice::Open => arguments.directory_max,
            DirectoryChoice::Closed => 0,
        },
        ..Limits::default()
    };
    if let Some(files) = open_files {
        limits = limits.within_open_files(files);
    }
    let proxies = &arguments.proxy_protocol;
    pinhole_server::run_behind(proxies, listeners, data_dir, limits, shutdown).await?;
    Ok(())
}

fn announce(addresses: &[SocketAddr], fingerprint: Fingerprint, json: bool) -> io::Result<()> {
    let line = if json {
        let listening = Listening {
            addresses,
            fingerprint,
        };
        serde_json::to_string(&listening)?
    } else {
        let clients_take = addresses.iter().map(|a| format!("{a}#{fingerprint}"));
        let mut line = format!("listening on {}", clients_take.take(1).collect::<String>());
        let others: Vec<_> = addresses.iter().skip(1).map(ToString::to_string).collect();
        if !others.is_empty() {
            line.push_str(&format!(" (and {})", others.join(", ")));
        }
        line
    };
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

fn data_dir_or_default(asked: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(path) = asked {
        return Ok(path);
    }
    let dirs = ProjectDirs::from("", "", "pinhole-server");
    let dirs = dirs.context("no home directory; say where to keep data with --data-dir")?;
    Ok(dirs.data_dir().to_owned())
}

/// A hang-up ends the server like the other signals, because there is no configuration to
/// read again. A server that was started to outlive its terminal (nohup) ignores it.
#[cfg(unix)]
fn shutdown_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = match is_hang_up_ignored() {
        true => None,
        false => Some(signal(SignalKind::hangup())?),
    };
    Ok(async move {
        let hung_up = async {
            match &mut hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hung_up => {}
        }
    })
}

/// Whether this process was started with SIGHUP ignored. Only Linux tells without unsafe
/// code.
#[cfg(unix)]
fn is_hang_up_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // The first bit is that of signal 1, SIGHUP.
    ignored.is_some_and(|mask| mask & 1 != 0)
}

#[cfg(not(unix))]
fn shutdown_signal() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!("signals do not work, end this process by force: {error}");
            std::future::pending::<()>().await;
        }
    })
}

/// Raises the limit of open files, because each client holds a handful of connections and
/// the usual soft limit of 1024 would be reached with 200 of them. Returns the limit in
/// force.
#[cfg(unix)]
fn raise_open_files_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            let current = limit.current;
            tracing::warn!("the limit of open files stays at {current:?}: {error}");
            current
        }
    }
}

#[cfg(not(unix))]
fn raise_open_files_limit() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_typed_with_units_and_shown_as_they_can_be_typed() {
        for (typed, bytes, shown) in [
            ("none", None, "none"),
            ("1.5M", Some(1_500_000), "1500000"),
            ("1.5M/s", Some(1_500_000), "1500000"),
            ("2MiB", Some(2 << 20), "2097152"),
            ("500M", Some(500_000_000), "500M"),
            ("10G", Some(10_000_000_000), "10G"),
        ] {
            let amount: ByteLimit = typed.parse().unwrap();
            assert_eq!((amount.0, &*amount.to_string()), (bytes, shown), "{typed}");
        }
        for wrong in ["0", "", "-1", "some"] {
            assert!(wrong.parse::<ByteLimit>().is_err(), "{wrong}");
        }
    }
}
