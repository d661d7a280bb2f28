//! `pinhole-server`: arguments, log and signals around [`pinhole_server::serve`].

mod arguments;
mod config;
mod log_output;
mod open_files;
mod reload;
mod signals;
mod tasks;

use std::convert::Infallible;
use std::future::pending;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use pinhole_proto::key::Fingerprint;
use pinhole_server::{
    Control, DataDir, Limits, LoggedAddresses, Missing, Roster, ServerConfig, listener,
};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::arguments::{
    LimitArguments, LogArguments, NodeArguments, Place, ServeArguments, ServerTask,
    data_dir_or_default, database,
};
use crate::config::ConfigError;
use crate::reload::Reloader;
use crate::signals::{Asked, Signals};

/// Signals that may wait for the server to obey.
const CONTROLS: usize = 4;

/// The first line, for programs.
#[derive(Serialize)]
#[serde(tag = "event", rename = "listening")]
struct Listening<'a> {
    addresses: &'a [SocketAddr],
    fingerprint: Fingerprint,
}

fn main() -> ExitCode {
    let (arguments, matches) = match config::arguments() {
        Ok(read) => read,
        Err(ConfigError::Arguments(error)) => error.exit(),
        Err(error) => return failed(&error.into()),
    };
    let LogArguments {
        log_format,
        log_level,
        ..
    } = &arguments.serve.log;
    let level = log_output::start(*log_format, log_level.as_deref());
    let done = match arguments.task {
        Some(task) => carry_out(task),
        None => start(arguments.serve, |open_files| {
            Reloader::new(matches, level, open_files)
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("pinhole-server: {}", sentence(error));
    ExitCode::FAILURE
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

fn carry_out(task: ServerTask) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(async {
        match task {
            ServerTask::Backup { folder, place } => tasks::backup(&folder, &place).await,
            ServerTask::Names { task, place } => tasks::names(task, &place).await,
            ServerTask::Migrate { place } => tasks::migrate(&place).await,
            ServerTask::Check { place } => check(place).await,
        }
    })
}

/// Checks what a server with this folder and configuration would find.
async fn check(place: Place) -> anyhow::Result<()> {
    let mut serve = match &place.config {
        Some(path) => config::of_file(path)?.serve,
        None => config::plain()?.serve,
    };
    serve.data_dir = place.data_dir.or(serve.data_dir);
    serve.database = place.database.or(serve.database);
    tasks::check(serve, open_files::raise_limit()).await
}

fn start(
    arguments: ServeArguments,
    reloader: impl FnOnce(Option<u64>) -> Reloader,
) -> anyhow::Result<()> {
    let open_files = open_files::raise_limit();
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(serve(arguments, reloader(open_files), open_files))
}

async fn serve(
    arguments: ServeArguments,
    reloader: Reloader,
    open_files: Option<u64>,
) -> anyhow::Result<()> {
    // Before the first line is printed, because its reader may stop the server at once.
    let signals = Signals::listen(arguments.config.as_deref()).context("listening for signals")?;
    let path = data_dir_or_default(arguments.data_dir)?;
    let missing = match arguments.start_afresh {
        true => Missing::StartAfresh,
        false => Missing::Refuse,
    };
    let database = database(arguments.database.as_deref())?;
    let data_dir = match database.clone() {
        Some(database) => DataDir::open_with_database(&path, database, missing).await?,
        None => DataDir::open_with(&path, missing)?,
    };
    let (node, roster) = match database {
        Some(database) => {
            let NodeArguments {
                node,
                relay_address,
            } = arguments.node;
            let (node, roster) = Roster::join(database, node, relay_address).await?;
            (Some(node), Some(roster))
        }
        None => (None, None),
    };
    let listeners = listener::bind_all(&arguments.listen)?;
    let admin = match arguments.admin {
        Some(address) => {
            let admin = TcpListener::bind(address).await;
            Some(admin.with_context(|| format!("cannot listen on {address} (--admin)"))?)
        }
        None => None,
    };
    let addresses = listener::dialable_addresses(&listeners)?;
    let fingerprint = data_dir.identity().key().fingerprint();
    announce(&addresses, fingerprint, arguments.json).context("writing to standard output")?;
    let config = ServerConfig {
        limits: limits(arguments.limits, open_files),
        proxies: arguments.proxy_protocol,
        addresses: match arguments.log.log_addresses {
            true => LoggedAddresses::Shown,
            false => LoggedAddresses::Omitted,
        },
        admin,
        node,
    };
    let reloader = arguments.config.map(|_| reloader);
    let (control, controls) = mpsc::channel(CONTROLS);
    let roster = async {
        match roster {
            Some(roster) => roster.keep().await,
            None => pending().await,
        }
    };
    tokio::select! {
        never = roster => match never {},
        ended = pinhole_server::serve(listeners, data_dir, config, controls) => Ok(ended?),
        never = obey(signals, reloader, control) => match never {},
    }
}

/// The limits that the arguments ask for, as far as there are files for them.
fn limits(arguments: LimitArguments, open_files: Option<u64>) -> Limits {
    let limits = Limits::from(arguments);
    match open_files {
        Some(files) => limits.within_open_files(files),
        None => limits,
    }
}

/// Passes signals on to the server as long as it runs.
async fn obey(
    mut signals: Signals,
    mut reloader: Option<Reloader>,
    control: mpsc::Sender<Control>,
) -> Infallible {
    loop {
        let asked = match (signals.next().await, &mut reloader) {
            (Asked::HangUp, Some(reloader)) => reloader.reload().map(Box::new).map(Control::Reload),
            _ => Some(Control::Stop),
        };
        if let Some(asked) = asked
            && control.send(asked).await.is_err()
        {
            // The server has ended and this process is about to.
            pending::<()>().await;
        }
    }
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
