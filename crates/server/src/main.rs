//! `pinhole-server`: arguments, log and signals around [`pinhole_server::run`].

mod amount;

use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser};
use directories::ProjectDirs;
use pinhole_proto::key::Fingerprint;
use pinhole_server::{DataDir, Limits, RelayLimits, listener};
use serde::Serialize;
use tracing_subscriber::EnvFilter;

/// More pairs than any machine has connections for.
const MAX_PAIRS: usize = 1_000_000;

/// Pinhole's rendezvous server and relay: introduces peers to each other and
/// never sees a byte of their files in the clear.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    /// Listen here; can be repeated. When all addresses share one port, the
    /// next port is listened on too, to learn about the clients' NATs. Two public
    /// addresses of one family tell clients more about them
    /// [default: ports 4747 and 4748 on 0.0.0.0 and [::]]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<SocketAddr>,
    /// Where the server's key and the names are kept [default: the system's
    /// place for the data of programs]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print the first line as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    relay: RelayArguments,
}

/// What the relay may take. Amounts are written as 500k, 2M or 10G.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits of the relay")]
struct RelayArguments {
    /// Introduce peers to each other, but carry nothing for them
    #[arg(long)]
    no_relay: bool,
    /// Carry so much between the same two peers in a day [default: no limit]
    #[arg(long, value_name = "BYTES", value_parser = amount::bytes)]
    relay_bytes: Option<u64>,
    /// Carry so much a second for one pair of peers [default: no limit]
    #[arg(long, value_name = "BYTES", value_parser = amount::bytes)]
    relay_rate: Option<u64>,
    /// Carry so much a second for all together, in even shares [default: no limit]
    #[arg(long, value_name = "BYTES", value_parser = amount::bytes)]
    relay_total_rate: Option<u64>,
    /// Part two peers after so many minutes; they may meet again [default: no limit]
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    relay_time: Option<u64>,
    /// Carry for so many pairs of peers at a time
    #[arg(long, value_name = "COUNT", default_value_t = RelayLimits::default().pairs)]
    relay_pairs: usize,
    /// Of them for so many with a side at the same address
    #[arg(long, value_name = "COUNT", default_value_t = RelayLimits::default().pairs_per_address)]
    relay_pairs_per_address: usize,
    /// Of them for so many with the same peer
    #[arg(long, value_name = "COUNT", default_value_t = RelayLimits::default().pairs_per_key)]
    relay_pairs_per_peer: usize,
}

impl From<RelayArguments> for RelayLimits {
    fn from(arguments: RelayArguments) -> Self {
        let minutes = |count| Duration::from_secs(count * 60);
        Self {
            offered: !arguments.no_relay,
            time: arguments.relay_time.map(minutes),
            bytes_per_day: arguments.relay_bytes,
            bytes_per_second: arguments.relay_rate,
            total_bytes_per_second: arguments.relay_total_rate,
            pairs: arguments.relay_pairs.min(MAX_PAIRS),
            pairs_per_address: arguments.relay_pairs_per_address,
            pairs_per_key: arguments.relay_pairs_per_peer,
            ..Self::default()
        }
    }
}

/// The first line, for programs.
#[derive(Serialize)]
#[serde(tag = "event", rename = "listening")]
struct Listening<'a> {
    addresses: &'a [SocketAddr],
    fingerprint: Fingerprint,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    raise_open_files_limit();
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(serve(arguments))
}

async fn serve(arguments: Arguments) -> anyhow::Result<()> {
    // Before the first line is printed: who waits for it may end us at once.
    let shutdown = shutdown_signal().context("listening for signals")?;
    let path = match arguments.data_dir {
        Some(path) => path,
        None => default_data_dir()?,
    };
    let data_dir = DataDir::open(&path)?;
    let listeners = if arguments.listen.is_empty() {
        listener::bind_default()?
    } else {
        listener::bind(&arguments.listen)?
    };
    let addresses = listener::dialable_addresses(&listeners)?;
    let fingerprint = data_dir.identity().key().fingerprint();
    announce(&addresses, fingerprint, arguments.json).context("writing to standard output")?;
    let limits = Limits {
        relay: arguments.relay.into(),
        ..Limits::default()
    };
    pinhole_server::run(listeners, data_dir, limits, shutdown).await?;
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

fn default_data_dir() -> anyhow::Result<PathBuf> {
    let dirs = ProjectDirs::from("", "", "pinhole-server");
    let dirs = dirs.context("no home directory; say where to keep data with --data-dir")?;
    Ok(dirs.data_dir().to_owned())
}

#[cfg(unix)]
fn shutdown_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
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

/// Each client holds a handful of connections; the usual soft limit of 1024
/// open files would be reached with 200 of them.
#[cfg(unix)]
fn raise_open_files_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(
            "the limit of open files stays at {:?}: {error}",
            limit.current
        );
    }
}

#[cfg(not(unix))]
fn raise_open_files_limit() {}
