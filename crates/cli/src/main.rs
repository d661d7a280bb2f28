//! `pinhole`: Pinhole on the command line.

mod arguments;
mod display;
mod exit;
mod history;
mod peers;
mod prompt;
mod receive;
mod report;
mod send;
mod terminal;

use std::process::ExitCode;

use clap::Parser as _;
use pinhole_client::{Options, Overrides, StartError};
use tracing_subscriber::EnvFilter;

use crate::arguments::{Arguments, Task};
use crate::exit::Exit;
use crate::report::Report;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    init_logging();
    let mut report = Report::new(arguments.common.json);
    let exit = run(arguments, &mut report).unwrap_or_else(|error| {
        report.error(&format!("{error:#}"));
        if error.is::<StartError>() {
            Exit::LocalFiles
        } else {
            Exit::Trouble
        }
    });
    exit.into()
}

/// Logs go to standard error, and only when `PINHOLE_LOG` asks for them: what
/// a user needs to know is part of the output.
fn init_logging() {
    let filter = EnvFilter::try_from_env("PINHOLE_LOG").unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

fn run(arguments: Arguments, report: &mut Report) -> anyhow::Result<Exit> {
    let mut options = Options {
        data_dir: arguments.common.data_dir.clone(),
        overrides: Overrides {
            path: arguments.common.path,
            ..Overrides::default()
        },
    };
    if let Task::Receive { into, accept, .. } = &arguments.task {
        options.overrides.download_folder.clone_from(into);
        options.overrides.accept = *accept;
    }
    let (mut client, mut events) = pinhole_client::start(options, || {})?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let exit = runtime.block_on(async {
        let mut face = terminal::Terminal::new(&mut client, &mut events, report);
        match arguments.task {
            Task::Id => Ok(peers::id(&face, arguments.common.name)),
            Task::History { clear } => history::history(&mut face, clear).await,
            Task::Peers => peers::list(&mut face, &arguments.common).await,
            Task::Send { wait, peer, paths } => {
                send::send(&mut face, &arguments.common, &peer, wait, paths).await
            }
            Task::Receive { once, .. } => {
                receive::receive(&mut face, &arguments.common, once).await
            }
        }
    });
    client.shut_down(events);
    // A prompt that is still open sits in a blocking read: do not wait for it.
    runtime.shutdown_background();
    exit
}
