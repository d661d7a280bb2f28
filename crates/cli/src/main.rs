//! `pinhole`: Pinhole on the command line.

mod arguments;
mod contacts;
mod display;
mod doctor;
mod exit;
mod history;
mod interrupts;
mod invitations;
mod logging;
mod payload;
mod peers;
mod pipes;
mod prompt;
mod receive;
mod recovery;
mod report;
mod send;
mod stdout_watch;
mod terminal;
mod trust;
mod tty;

use std::process::ExitCode;

use anyhow::Context as _;
use pinhole_client::{FaceKind, Options, Overrides, ProxyTextError, StartError};

use crate::arguments::{CliArguments, CliTask, RecoveryTask};
use crate::contacts::ContactChange;
use crate::exit::Exit;
use crate::interrupts::Interrupts;
use crate::report::{Lines, Reporter, Results};
use crate::terminal::Terminal;

fn main() -> ExitCode {
    let arguments = match CliArguments::of_process() {
        Ok(arguments) => arguments,
        Err(unusable) => {
            let results = Results::beside_data(unusable.stdout);
            let mut report = Reporter::new(unusable.json, results, Lines::Plain);
            report.unusable(&unusable.text);
            return told(Exit::Usage, &mut report).into();
        }
    };
    let writes_data = matches!(&arguments.task, CliTask::Receive(task) if task.stdout);
    let results = Results::beside_data(writes_data);
    let lines = match arguments.task.is_service() {
        true => Lines::WithLevels,
        false => Lines::Plain,
    };
    logging::init(lines);
    let mut report = Reporter::new(arguments.common.json, results, lines);
    let exit = run(arguments, &mut report).unwrap_or_else(|error| {
        let (kind, exit) = match error.downcast_ref() {
            Some(StartError::Differs { .. }) => ("usage", Exit::Usage),
            Some(_) => ("profile", Exit::LocalFiles),
            None => ("trouble", Exit::Trouble),
        };
        report.error(kind, &format!("{error:#}"));
        exit
    });
    told(exit, &mut report).into()
}

/// The exit code, in view of results that could not be written.
fn told(exit: Exit, report: &mut Reporter) -> Exit {
    let Some(why) = report.lost().map(ToString::to_string) else {
        return exit;
    };
    if exit == Exit::Done {
        report.unheard(&format!("Cannot write to standard output: {why}."));
    }
    exit.max(Exit::Trouble)
}

fn run(arguments: CliArguments, report: &mut Reporter) -> anyhow::Result<Exit> {
    let refusal = match &arguments.task {
        CliTask::Send(send) => send.refusal(),
        CliTask::Receive(receive) => receive.refusal(),
        _ => None,
    };
    if let Some(reason) = refusal {
        report.error("usage", reason);
        return Ok(Exit::Usage);
    }
    let mut overrides = overrides(&arguments)?;
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
        face: match arguments.task {
            CliTask::Receive(_) => FaceKind::Receive,
            _ => FaceKind::Command,
        },
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
            // A second Ctrl-C does not wait for goodbyes.
            _ = interrupts.next() => {}
        }
        exit
    });
    // An open prompt blocks in a read, so it is not waited for.
    runtime.shutdown_background();
    exit
}

async fn perform(mut face: Terminal<'_>, arguments: CliArguments) -> anyhow::Result<Exit> {
    let common = &arguments.common;
    if arguments.task.uses_the_name() && !arguments.task.is_service() {
        recovery::introduce(&mut face, common).await?;
    }
    match arguments.task {
        CliTask::Recovery {
            task: RecoveryTask::New,
        } => recovery::new(&mut face).await,
        CliTask::Recover { name } => recovery::recover(&mut face, common, name).await,
        CliTask::Revoke(task) => recovery::revoke(&mut face, common, task).await,
        CliTask::Id => Ok(peers::id(&face, arguments.common.name)),
        CliTask::Doctor { last } => doctor::doctor(&mut face, common, last).await,
        CliTask::History { clear } => history::history(&mut face, clear).await,
        CliTask::Peers { names } => peers::list(&mut face, common, &names).await,
        CliTask::Contacts => Ok(contacts::list(&face)),
        CliTask::Block { spec } => contacts::change(&mut face, ContactChange::Block, &spec).await,
        CliTask::Unblock { spec } => {
            contacts::change(&mut face, ContactChange::Unblock, &spec).await
        }
        CliTask::Forget { spec } => contacts::change(&mut face, ContactChange::Forget, &spec).await,
        CliTask::Invite(task) => invitations::invite(&mut face, common, task).await,
        CliTask::Join { link } => invitations::join(&mut face, common, &link).await,
        CliTask::Trust(task) => trust::trust(&mut face, common, task).await,
        CliTask::Send(task) => send::send(&mut face, common, task).await,
        CliTask::Receive(task) => match task.code.is_empty() {
            true => receive::receive(&mut face, common, &task).await,
            false => receive::by_code::receive(&mut face, common, &task.code.join(" ")).await,
        },
    }
}

/// Settings that differ in this run.
fn overrides(arguments: &CliArguments) -> anyhow::Result<Overrides> {
    let common = Overrides {
        path: arguments.common.path,
        nearby: arguments.common.no_nearby.then_some(false),
        port_mapping: arguments.common.no_port_mapping.then_some(false),
        // By a code something is taken of one peer alone, and the engine knows whom.
        takes_nothing: !matches!(&arguments.task, CliTask::Receive(task) if task.code.is_empty()),
        ..Overrides::default()
    };
    Ok(match &arguments.task {
        CliTask::Send(send) => Overrides {
            send_limit: send.limit,
            ..common
        },
        CliTask::Receive(receive) => Overrides {
            download_folder: receive.into.clone(),
            accept: receive.accept,
            unasked_bytes_max: receive.max_size,
            existing: receive.existing,
            keeps_executable: receive.executable.then_some(true),
            receive_limit: receive.limit,
            strangers: receive.strangers,
            output: match receive.stdout {
                true => Some(pipes::output().context("cannot use standard output")?),
                false => None,
            },
            ..common
        },
        _ => common,
    })
}
