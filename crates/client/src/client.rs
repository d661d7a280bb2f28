//! The handle a face holds: commands in, events and snapshots out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tracing::warn;

use crate::command::Command;
use crate::engine::{Engine, Faces, make_and_open, not_opened};
use crate::event::Event;
use crate::failure::Failure;
use crate::limits;
use crate::local::{AttachError, Attached, Host, Outlets};
use crate::model::FaceId;
use crate::snapshot::Snapshot;
use crate::store::{FaceKind, Holder, Overrides, Profile, ProfileError};

/// Commands that may wait for the engine.
const COMMAND_QUEUE: usize = 256;
/// Events that may wait for the face.
const EVENT_QUEUE: usize = 1_024;
/// Outcomes that may wait for the engine.
const INPUT_QUEUE: usize = 1_024;
/// What still runs when the engine has ended is given up after this long.
const RUNTIME_SHUTDOWN: Duration = Duration::from_millis(500);
/// For how long a profile is tried that is held by a process which does not answer: it
/// starts or ends, and nothing tells when it is done.
const HOLDER_PATIENCE: Duration = Duration::from_secs(2);
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// What a run of the engine starts with.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The profile's folder, `None` for the user's own profile.
    pub data_dir: Option<PathBuf>,
    /// What differs from the profile's settings in this run.
    pub overrides: Overrides,
    /// What this process is. The window and `receive` let other faces work through them.
    pub face: FaceKind,
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The profile cannot be used.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// Another process holds the profile, and nothing can be done through it.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Only one process at a time receives.
    #[error("the profile {} is open in {holder}, which receives already. Close that one, or use another --data-dir", folder.display())]
    Receives {
        /// The profile's folder.
        folder: PathBuf,
        /// The other process.
        holder: Holder,
    },
    /// This run is to do something otherwise than the process that holds the profile.
    #[error("{holder} holds the profile, and this command works through it; but it has other settings than {} asks for. Leave that out, close the other one, or use another --data-dir", options.join(" and "))]
    Differs {
        /// The other process.
        holder: Holder,
        /// The options of the command line.
        options: Vec<&'static str>,
    },
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

/// A face at a running engine. Dropping it ends an engine of this process, without waiting
/// for it; another process goes on.
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
    face: FaceId,
    holder: Option<Holder>,
}

/// The engine's events, in order. A face that does not take them stops an engine in its
/// own process, and is left by another one.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Event>);

/// Opens the profile and starts the engine on threads of its own. Where the window or
/// `receive` holds the profile, works through the engine of that process.
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
    let deadline = Instant::now() + HOLDER_PATIENCE;
    loop {
        let opened = Profile::open_for(options.face, options.data_dir.as_deref());
        let (folder, holder) = match opened {
            Ok(profile) => return hold(profile, options, wake),
            Err(ProfileError::InUse { folder, holder }) => (folder, holder),
            Err(error) => return Err(error.into()),
        };
        if holder.face.is_some_and(|face| !face.serves()) {
            return Err(ProfileError::InUse { folder, holder }.into());
        }
        match attach(&folder, &holder, options.face) {
            Ok((attached, runtime)) => {
                check(&attached, folder, &options)?;
                return work_through(attached, runtime, wake);
            }
            Err(error) => pause_or_give_up(error, deadline)?,
        }
    }
}

/// Brings the window that holds the profile to the front, and hands it these files to ask
/// to whom they are to go, or a link to join by. Returns whether there is such a window.
///
/// # Errors
/// When there is one, and it cannot be reached.
pub fn raise(
    data_dir: Option<&Path>,
    paths: Vec<PathBuf>,
    link: Option<String>,
) -> Result<bool, StartError> {
    let deadline = Instant::now() + HOLDER_PATIENCE;
    while let Some((folder, holder)) = Profile::holder(data_dir)? {
        if holder.face.is_some_and(|face| face != FaceKind::Window) {
            return Ok(false);
        }
        match attach(&folder, &holder, FaceKind::Window) {
            Ok((attached, _)) if attached.holder.face != Some(FaceKind::Window) => {
                return Ok(false);
            }
            Ok((attached, runtime)) => {
                let (client, events) = work_through(attached, runtime, || {})?;
                let handed = client.command(Command::Raise { paths, link });
                client.shut_down(events);
                return Ok(handed.is_ok());
            }
            Err(error) => pause_or_give_up(error, deadline)?,
        }
    }
    Ok(false)
}

/// A holder that is about to listen, or to end, is worth another try for a while.
fn pause_or_give_up(error: StartError, deadline: Instant) -> Result<(), StartError> {
    let may_change = matches!(error, StartError::Attach(AttachError::Unreachable { .. }));
    if !may_change || Instant::now() >= deadline {
        return Err(error);
    }
    thread::sleep(BETWEEN_TRIES);
    Ok(())
}

/// Starts an engine in this process.
fn hold(
    profile: Profile,
    options: Options,
    wake: impl Fn() + Send + Sync + 'static,
) -> Result<(Client, Events), StartError> {
    let (commands, command_queue) = mpsc::channel(COMMAND_QUEUE);
    let (inputs, input_queue) = mpsc::channel(INPUT_QUEUE);
    let (events, event_queue) = mpsc::channel(EVENT_QUEUE);
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let host = options
        .face
        .serves()
        .then(|| serve(&runtime, &profile, options.face));
    let engine = Engine::new(profile, options.overrides, inputs.clone(), |first| {
        Faces::new(events, first, Arc::new(wake))
    })?;
    let snapshot = engine.subscribe();
    let faces = snapshot.clone();
    let run = move || {
        runtime.block_on(async {
            let serving = host.flatten().map(|host| host.run(inputs, faces));
            let serving = serving.map(tokio::spawn);
            engine.run(command_queue, input_queue).await;
            if let Some(serving) = serving
                && serving.await.is_err()
            {
                tracing::error!("what serves other faces panicked");
            }
        });
        runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
    };
    Ok((
        Client {
            commands,
            snapshot,
            thread: thread::Builder::new()
                .name("pinhole-engine".to_owned())
                .spawn(run)?,
            face: FaceId::OWN,
            holder: None,
        },
        Events(event_queue),
    ))
}

/// Lets other faces in. Without them, this one works all the same.
fn serve(runtime: &Runtime, profile: &Profile, face: FaceKind) -> Option<Host> {
    let _within = runtime.enter();
    let host = Host::bind(profile, face);
    host.inspect_err(|error| warn!(%error, "other commands cannot use the profile meanwhile"))
        .ok()
}

/// Connects to the process that holds the profile. On a thread of its own, because the
/// caller may have a runtime.
fn attach(
    folder: &Path,
    holder: &Holder,
    face: FaceKind,
) -> Result<(Attached, Runtime), StartError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let attaching = Attached::attach(folder, holder, face);
    let attached = thread::scope(|scope| {
        let attaching = scope.spawn(|| runtime.block_on(attaching));
        attaching.join().map_err(|_| panicked())
    })??;
    Ok((attached, runtime))
}

/// Whether what this run is to do can be done through another process.
fn check(attached: &Attached, folder: PathBuf, options: &Options) -> Result<(), StartError> {
    let holder = attached.holder.clone();
    let is_second = match options.face {
        FaceKind::Receive => true,
        FaceKind::Window => holder.face == Some(FaceKind::Window),
        FaceKind::Command => false,
    };
    if is_second {
        return Err(StartError::Receives { folder, holder });
    }
    let options = options.overrides.differing(&attached.snapshot.settings);
    match options.is_empty() {
        true => Ok(()),
        false => Err(StartError::Differs { holder, options }),
    }
}

/// A face at the engine of another process.
fn work_through(
    attached: Attached,
    runtime: Runtime,
    wake: impl Fn() + Send + Sync + 'static,
) -> Result<(Client, Events), StartError> {
    let (commands, command_queue) = mpsc::channel(COMMAND_QUEUE);
    let (events, event_queue) = mpsc::channel(EVENT_QUEUE);
    let snapshot = watch::Sender::new(attached.snapshot.clone());
    let (face, holder) = (attached.face, attached.holder.clone());
    let outlets = Outlets {
        events,
        snapshot,
        wake: Box::new(wake),
    };
    let snapshot = outlets.snapshot.subscribe();
    let run = move || runtime.block_on(attached.run(command_queue, outlets));
    Ok((
        Client {
            commands,
            snapshot,
            thread: thread::Builder::new()
                .name("pinhole-face".to_owned())
                .spawn(run)?,
            face,
            holder: Some(holder),
        },
        Events(event_queue),
    ))
}

fn panicked() -> StartError {
    StartError::Runtime(std::io::Error::other("a thread panicked"))
}

impl Client {
    /// Hands a command to the engine; never waits.
    ///
    /// # Errors
    /// When too many commands wait already, or the engine has ended.
    pub fn command(&self, command: Command) -> Result<(), CommandError> {
        let command = command.with_absolute_paths();
        self.commands.try_send(command).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => CommandError::Busy,
            mpsc::error::TrySendError::Closed(_) => CommandError::Ended,
        })
    }

    /// What this face is called in [`crate::TransferView::face`].
    #[must_use]
    pub const fn face(&self) -> FaceId {
        self.face
    }

    /// The process whose engine this face works through; `None` for an engine in this one.
    #[must_use]
    pub const fn holder(&self) -> Option<&Holder> {
        self.holder.as_ref()
    }

    /// Whether the engine has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.commands.is_closed()
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

    /// Puts off what this face has begun, so that it can go on another day, and waits for
    /// it: at most a few seconds. An engine in this process says goodbye to peers and
    /// server and ends.
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

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    /// Longer than anything takes here.
    const SOON: Duration = Duration::from_secs(20);

    fn options(folder: &TempDir, face: FaceKind) -> Options {
        Options {
            data_dir: Some(folder.path().join("profile")),
            face,
            ..Options::default()
        }
    }

    fn begin(folder: &TempDir, face: FaceKind) -> (Client, Events) {
        start(options(folder, face), || {}).unwrap()
    }

    fn next(events: &mut Events) -> Option<Event> {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let next = async { tokio::time::timeout(SOON, events.next()).await };
        runtime.block_on(next).unwrap()
    }

    fn until(client: &mut Client, holds: impl Fn(&Snapshot) -> bool) {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let until = async {
            while !holds(&client.snapshot()) {
                assert!(client.changed().await);
            }
        };
        runtime
            .block_on(async { tokio::time::timeout(SOON, until).await })
            .unwrap();
    }

    const LIMIT: Command = Command::SetLimits {
        send: Some(1_000),
        receive: None,
    };

    #[test]
    fn a_face_works_through_the_engine_that_holds_the_profile() {
        let folder = tempfile::tempdir().unwrap();
        let (mut holder, mut own_events) = begin(&folder, FaceKind::Receive);
        let (mut one, mut events) = begin(&folder, FaceKind::Command);
        let (mut other, mut other_events) = begin(&folder, FaceKind::Window);
        assert_eq!(holder.holder(), None);
        let named = one.holder().unwrap().to_string();
        assert!(named.contains(&std::process::id().to_string()), "{named}");
        assert!(one.face() != FaceId::OWN && one.face() != other.face());
        // There is no server to measure with.
        one.command(Command::Diagnose { server: None }).unwrap();
        let told = next(&mut events).unwrap();
        assert!(matches!(told, Event::CommandFailed { .. }), "{told:?}");
        one.command(LIMIT).unwrap();
        for client in [&mut holder, &mut one, &mut other] {
            until(client, |it| it.settings.send_limit == Some(1_000));
        }
        assert!(own_events.try_next().is_none() && other_events.try_next().is_none());
        one.shut_down(events);
        assert!(!other.has_ended());
        holder.shut_down(own_events);
        assert!(next(&mut other_events).is_none());
        assert!(other.has_ended());
        assert!(matches!(other.command(LIMIT), Err(CommandError::Ended)));
        let (_again, _) = begin(&folder, FaceKind::Command);
    }

    #[test]
    fn what_was_handed_over_is_carried_out_although_the_face_ends_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (mut holder, mut events) = begin(&folder, FaceKind::Window);
        let data_dir = folder.path().join("profile");
        assert!(raise(Some(&data_dir), vec!["some file".into()], None).unwrap());
        let (second, second_events) = begin(&folder, FaceKind::Command);
        second.command(LIMIT).unwrap();
        second.shut_down(second_events);
        let told = next(&mut events).unwrap();
        let Event::Raised { paths, link: None } = told else {
            panic!("{told:?}");
        };
        assert_eq!(paths, [std::path::absolute("some file").unwrap()]);
        until(&mut holder, |it| it.settings.send_limit.is_some());
        holder.shut_down(events);
        assert!(
            !raise(Some(&data_dir), vec![], None).unwrap(),
            "there is none"
        );
        assert!(!raise(Some(&folder.path().join("none")), vec![], None).unwrap());
        assert!(!fs::exists(folder.path().join("none")).unwrap());
    }

    #[test]
    fn other_settings_than_the_holder_has_are_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let held = Options {
            overrides: Overrides {
                nearby: Some(false),
                ..Overrides::default()
            },
            ..options(&folder, FaceKind::Receive)
        };
        let (_holder, _events) = start(held, || {}).unwrap();
        let with = |overrides| Options {
            overrides,
            ..options(&folder, FaceKind::Command)
        };
        let same = Overrides {
            nearby: Some(false),
            takes_nothing: true,
            ..Overrides::default()
        };
        start(with(same.clone()), || {}).unwrap();
        let other = Overrides {
            send_limit: Some(1),
            nearby: Some(true),
            ..same
        };
        let text = start(with(other), || {}).unwrap_err().to_string();
        for part in ["`pinhole receive`", "--limit and --no-nearby", "--data-dir"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn only_one_receives_and_a_lone_command_serves_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let (holder, events) = begin(&folder, FaceKind::Window);
        for face in [FaceKind::Receive, FaceKind::Window] {
            let text = start(options(&folder, face), || {}).unwrap_err();
            let text = text.to_string();
            assert!(text.contains("the window"), "{text}");
            assert!(text.contains("receives already"), "{text}");
        }
        holder.shut_down(events);
        let (_command, _events) = begin(&folder, FaceKind::Command);
        let text = start(options(&folder, FaceKind::Command), || {});
        let text = text.unwrap_err().to_string();
        assert!(text.contains("another command"), "{text}");
    }

    #[test]
    fn a_holder_that_does_not_listen_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("profile");
        let _held = Profile::open_for(FaceKind::Window, Some(&data_dir)).unwrap();
        let begun = Instant::now();
        let text = start(options(&folder, FaceKind::Command), || {});
        let text = text.unwrap_err().to_string();
        assert!(begun.elapsed() >= HOLDER_PATIENCE);
        assert!(text.contains("the window of Pinhole"), "{text}");
        assert!(text.contains("does not answer"), "{text}");
        assert!(!fs::exists(data_dir.join("socket")).unwrap());
    }
}
