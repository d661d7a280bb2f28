//! The handle a face holds: commands in, events and snapshots out.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::command::Command;
use crate::engine::{Engine, Outputs, make_and_open, not_opened};
use crate::event::Event;
use crate::failure::Failure;
use crate::limits;
use crate::snapshot::Snapshot;
use crate::store::Overrides;
use crate::store::{Profile, ProfileError};

/// Commands that may wait for the engine.
const COMMAND_QUEUE: usize = 256;
/// Events that may wait for the face.
const EVENT_QUEUE: usize = 1_024;
/// Outcomes that may wait for the engine.
const INPUT_QUEUE: usize = 1_024;
/// What still runs when the engine has ended is given up after this long.
const RUNTIME_SHUTDOWN: Duration = Duration::from_millis(500);

/// What a run of the engine starts with.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The profile's folder, `None` for the user's own profile.
    pub data_dir: Option<PathBuf>,
    /// What differs from the profile's settings in this run.
    pub overrides: Overrides,
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The profile cannot be used.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The system gave no thread.
    #[error("cannot start the engine: {0}")]
    Runtime(std::io::Error),
}

// Without `source()`, for the sentence says it already.
impl From<std::io::Error> for StartError {
    fn from(error: std::io::Error) -> Self {
        Self::Runtime(error)
    }
}

/// The command could not be handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Too many commands wait; try again.
    #[error("the engine is busy; try again")]
    Busy,
    /// The engine has ended.
    #[error("the engine has ended")]
    Ended,
}

/// A running engine. Dropping it ends the engine without waiting for it.
///
/// ```no_run
/// use pinhole_client::{Command, Event, Options, start};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (client, mut events) = start(Options::default(), || {})?;
/// client.command(Command::LogIn {
///     name: "alice".parse()?,
///     server: "example.org:4747".parse()?,
///     patient: false,
/// })?;
/// while let Some(event) = events.next().await {
///     match event {
///         Event::LoggedIn { name, .. } => println!("logged in as {name}"),
///         Event::LogInFailed { failure } => println!("{failure}"),
///         _ => continue,
///     }
///     break;
/// }
/// client.shut_down(events);
/// # Ok(())
/// # }
/// ```
///
/// `examples/send_file.rs` sends a file.
#[derive(Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    thread: JoinHandle<()>,
}

/// The engine's events, in order. A face that does not take them stops its
/// engine.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Event>);

/// Opens the profile and starts the engine on threads of its own.
///
/// `wake` is called, from any thread, whenever there is a new event or a new
/// snapshot.
///
/// # Errors
/// When the profile is in use or unreadable, or no thread can be had.
pub fn start(
    options: Options,
    wake: impl Fn() + Send + Sync + 'static,
) -> Result<(Client, Events), StartError> {
    limits::raise_open_files();
    let profile = Profile::open(options.data_dir.as_deref())?;
    let (commands, command_queue) = mpsc::channel(COMMAND_QUEUE);
    let (inputs, input_queue) = mpsc::channel(INPUT_QUEUE);
    let (events, event_queue) = mpsc::channel(EVENT_QUEUE);
    let engine = Engine::new(profile, options.overrides, inputs, |first| Outputs {
        events,
        snapshot: watch::Sender::new(first),
        wake: Arc::new(wake),
    })?;
    let snapshot = engine.subscribe();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let thread = thread::Builder::new()
        .name("pinhole-engine".to_owned())
        .spawn(move || {
            runtime.block_on(engine.run(command_queue, input_queue));
            runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
        })?;
    Ok((
        Client {
            commands,
            snapshot,
            thread,
        },
        Events(event_queue),
    ))
}

impl Client {
    /// Hands a command to the engine; never waits.
    ///
    /// # Errors
    /// When too many commands wait already, or the engine has ended.
    pub fn command(&self, command: Command) -> Result<(), CommandError> {
        self.commands.try_send(command).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => CommandError::Busy,
            mpsc::error::TrySendError::Closed(_) => CommandError::Ended,
        })
    }

    /// The latest state.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// Makes the download folder if need be, and makes sure that it can be
    /// received into. Blocks.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check_download_folder(&self) -> Result<(), Failure> {
        let folder = self.snapshot().download_folder.clone();
        let opened = make_and_open(&folder);
        opened.map(drop).map_err(|e| not_opened(&folder, &e))
    }

    /// Waits until the state has changed since the last call. Returns `false`
    /// when the engine has ended.
    pub async fn changed(&mut self) -> bool {
        self.snapshot.changed().await.is_ok()
    }

    /// Puts off what runs, so that it can go on another day, says goodbye to
    /// peers and server, and waits for it: at most a few seconds.
    pub fn shut_down(self, events: Events) {
        drop(self.commands);
        // The engine must not wait for a face that is no longer listening.
        drop(events);
        if self.thread.join().is_err() {
            tracing::error!("the engine panicked");
        }
    }
}

impl Events {
    /// The next event, if there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.0.try_recv().ok()
    }

    /// The next event; `None` when the engine has ended.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}
