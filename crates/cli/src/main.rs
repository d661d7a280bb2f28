//! `pinhole`: Pinhole on the command line.

mod arguments;
mod display;
mod doctor;
mod exit;
mod history;
mod interrupts;
mod payload;
mod peers;
mod people;
mod prompt;
mod reader;
mod receive;
mod report;
mod send;
mod terminal;
mod trust;
mod tty;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Context as _;
use pinhole_client::{Options, Overrides, ProxyTextError, StartError};
use tracing_subscriber::EnvFilter;

use crate::arguments::{Arguments, Task};
use crate::exit::Exit;
use crate::interrupts::Interrupts;
use crate::people::Wish;
use crate::report::Report;
use crate::terminal::Terminal;

fn main() -> ExitCode {
    let arguments = match Arguments::of_process() {
        Ok(arguments) => arguments,
        Err(unusable) => {
            let mut report = Report::new(unusable.json);
            report.unusable(&unusable.text);
            return told(Exit::Usage, &mut report).into();
        }
    };
    init_logging();
    let mut report = Report::new(arguments.common.json);
    let exit = run(arguments, &mut report).unwrap_or_else(|error| {
        let (kind, exit) = match error.is::<StartError>() {
            true => ("profile", Exit::LocalFiles),
            false => ("trouble", Exit::Trouble),
        };
        report.error(kind, &format!("{error:#}"));
        exit
    });
    told(exit, &mut report).into()
}

/// How it ends, when its results may not have been written.
fn told(exit: Exit, report: &mut Report) -> Exit {
    let Some(why) = report.lost().map(ToString::to_string) else {
        return exit;
    };
    if exit == Exit::Done {
        report.unheard(&format!("Cannot write to standard output: {why}."));
    }
    exit.max(Exit::Trouble)
}

/// Logs go to standard error, and only when `PINHOLE_LOG` asks for them: what
/// a user needs to know is part of the output.
fn init_logging() {
    let filter = EnvFilter::try_from_env("PINHOLE_LOG").unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_writer(std::io::stderr)
        .init();
}

fn run(arguments: Arguments, report: &mut Report) -> anyhow::Result<Exit> {
    let mut overrides = overrides(&arguments);
    if let Some(proxy) = &arguments.common.proxy {
        match proxy.parse() {
            Ok(proxy) => overrides.proxy = Some(proxy),
            Err(error) => {
                let error: ProxyTextError = error;
                report.error("usage", &format!("--proxy: {error}"));
                return Ok(Exit::Usage);
            }
        }
    }
    let options = Options {
        data_dir: arguments.common.data_dir.clone(),
        overrides,
    };
    let (mut client, mut events) = pinhole_client::start(options, || {})?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let exit = runtime.block_on(async {
        let mut interrupts = Interrupts::listen().context("cannot listen for Ctrl-C")?;
        let face = Terminal::new(&mut client, &mut events, report, &mut interrupts);
        let exit = perform(face, arguments).await;
        let goodbye = tokio::task::spawn_blocking(|| client.shut_down(events));
        tokio::select! {
            _ = goodbye => {}
            // Whoever is in such a hurry need not wait for goodbyes.
            _ = interrupts.next() => {}
        }
        exit
    });
    // A prompt that is still open sits in a blocking read: do not wait for it.
    runtime.shutdown_background();
    exit
}

async fn perform(mut face: Terminal<'_>, arguments: Arguments) -> anyhow::Result<Exit> {
    let common = &arguments.common;
    match arguments.task {
        Task::Id => Ok(peers::id(&face, arguments.common.name)),
        Task::Doctor { last } => doctor::doctor(&mut face, common, last).await,
        Task::History { clear } => history::history(&mut face, clear).await,
        Task::Peers => peers::list(&mut face, common).await,
        Task::Contacts => Ok(people::contacts(&face)),
        Task::Block { whom } => people::wish(&mut face, Wish::Block, &whom).await,
        Task::Unblock { whom } => people::wish(&mut face, Wish::Unblock, &whom).await,
        Task::Forget { whom } => people::wish(&mut face, Wish::Forget, &whom).await,
        Task::Trust(task) => trust::trust(&mut face, common, task).await,
        Task::Send(task) => send::send(&mut face, common, task).await,
        Task::Receive(task) => receive::receive(&mut face, common, task.once).await,
    }
}

/// What differs from the profile's settings in this run.
fn overrides(arguments: &Arguments) -> Overrides {
    let common = Overrides {
        path: arguments.common.path,
        nearby: arguments.common.no_nearby.then_some(false),
        port_mapping: arguments.common.no_port_mapping.then_some(false),
        takes_nothing: !matches!(arguments.task, Task::Receive(_)),
        ..Overrides::default()
    };
    match &arguments.task {
        Task::Send(send) => Overrides {
            send_limit: send.limit,
            ..common
        },
        Task::Receive(receive) => Overrides {
            download_folder: receive.into.clone(),
            accept: receive.accept,
            unasked_bytes_max: receive.max_size,
            existing: receive.existing,
            keeps_executable: receive.executable.then_some(true),
            receive_limit: receive.limit,
            strangers: receive.strangers,
            ..common
        },
        _ => common,
    }
}
