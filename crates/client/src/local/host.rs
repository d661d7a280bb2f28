//! The side of the process that holds the profile: other faces come, and work through its
//! engine.

use std::fs::File;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, warn};

use super::socket::{Listener, Stream, is_same_user};
use super::update::Told;
use super::{Greeting, Hello, HostMessage, Version, frame};
use crate::engine::{FaceInput, Input};
use crate::event::Event;
use crate::model::FaceId;
use crate::snapshot::Snapshot;
use crate::store::{FaceKind, Holder, Profile};

/// Faces that can be attached at the same time.
const FACES_MAX: usize = 128;
/// More of them that are told so at the same time. Others are not even told.
const REFUSED_MAX: usize = 32;
/// Events that may wait for a face.
const EVENT_QUEUE: usize = 1_024;
/// How long a face has for its first message.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// While nothing but the snapshot changes, a face is told this often.
const UPDATE_INTERVAL: Duration = Duration::from_millis(100);
/// At the end, how long faces have to take what they are told last.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_millis(500);
/// How long no face is let in after the system could not let one in.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where other faces reach the engine.
#[derive(Debug)]
pub(crate) struct Host {
    listener: Listener,
    holder: Holder,
    /// The name of the socket goes before the profile is free.
    _lock: Arc<File>,
}

/// What every conversation needs.
#[derive(Clone)]
struct Guests {
    holder: Holder,
    inputs: mpsc::Sender<Input>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
}

impl Host {
    /// Has to be called within a runtime.
    pub(crate) fn bind(profile: &Profile, face: FaceKind) -> io::Result<Self> {
        let (folder, lock) = profile.held();
        Ok(Self {
            listener: Listener::bind(&folder)?,
            holder: Holder::here(face),
            _lock: lock,
        })
    }

    /// Lets faces in until the engine ends.
    pub(crate) async fn run(
        mut self,
        inputs: mpsc::Sender<Input>,
        snapshot: watch::Receiver<Arc<Snapshot>>,
    ) {
        let guests = Guests {
            holder: self.holder,
            inputs: inputs.clone(),
            snapshot,
        };
        let mut faces = JoinSet::new();
        let mut next = FaceId::OWN;
        loop {
            tokio::select! {
                () = inputs.closed() => break,
                Some(_) = faces.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok(stream) if faces.len() < FACES_MAX => {
                        next.0 += 1;
                        faces.spawn(guests.clone().serve(next, stream));
                    }
                    Ok(stream) if faces.len() < FACES_MAX + REFUSED_MAX => {
                        let words = format!("{FACES_MAX} commands work through it already. Try again when some have ended");
                        faces.spawn(guests.clone().turn_away(stream, words));
                    }
                    Ok(_) => debug!("too many faces are there to tell one more"),
                    Err(error) => {
                        warn!(%error, "no face can be let in");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(self.listener);
        let last_words = async { while faces.join_next().await.is_some() {} };
        if timeout(LAST_WORDS_TIMEOUT, last_words).await.is_err() {
            warn!("a face does not take what it is told last");
        }
    }
}

impl Guests {
    async fn serve(self, face: FaceId, stream: Stream) {
        match is_same_user(&stream) {
            Ok(true) => {}
            Ok(false) => {
                let words = "the profile belongs to another user. Run the command as that user, or use another --data-dir";
                return self.turn_away(stream, words.to_owned()).await;
            }
            Err(error) => return debug!(%error, "it cannot be told whose a face is"),
        }
        if let Err(error) = self.converse(face, stream).await {
            debug!(?face, %error, "a face is let go");
        }
    }

    async fn turn_away(self, mut stream: Stream, words: String) {
        if let Err(error) = self.greet(&mut stream, Err(words)).await {
            debug!(%error, "a face does not hear why it is turned away");
        }
    }

    async fn greet<W: AsyncWrite + Unpin>(
        &self,
        stream: &mut W,
        admitted: Result<FaceId, String>,
    ) -> io::Result<()> {
        let greeting = Greeting {
            version: Version::own(),
            holder: self.holder.clone(),
            admitted,
        };
        frame::write(stream, &greeting).await
    }

    async fn converse(self, face: FaceId, stream: Stream) -> io::Result<()> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let hello = timeout(HELLO_TIMEOUT, frame::read::<_, Hello>(&mut reader)).await??;
        let Some(hello) = hello else {
            return Ok(());
        };
        // A face of another version tells its user so by itself.
        let admitted = match hello.version == Version::own() {
            true => Ok(face),
            false => Err(format!("it is version {} of Pinhole", Version::own())),
        };
        let is_admitted = admitted.is_ok();
        self.greet(&mut writer, admitted).await?;
        if !is_admitted {
            return Ok(());
        }
        let kind = serde_json::from_value(hello.face)?;
        let (events, event_queue) = mpsc::channel(EVENT_QUEUE);
        let inputs = self.inputs;
        // The engine has ended if it takes no inputs; then so does this.
        let _ = inputs
            .send(Input::Face(FaceInput::Came { face, events }))
            .await;
        let commands = async {
            while let Some(command) = frame::read(&mut reader).await? {
                let input = Input::Face(FaceInput::Command { face, command });
                if inputs.send(input).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            Ok(())
        };
        let talk = Talk {
            writer: &mut writer,
            told: Told::nothing(kind),
            snapshot: self.snapshot,
        };
        let ended = first_of(commands, talk.run(event_queue)).await;
        let _ = inputs.send(Input::Face(FaceInput::Gone { face })).await;
        ended
    }
}

async fn first_of<T>(one: impl Future<Output = T>, other: impl Future<Output = T>) -> T {
    tokio::select! {
        ended = one => ended,
        ended = other => ended,
    }
}

/// What a face is told.
struct Talk<'a, W> {
    writer: &'a mut W,
    told: Told,
    snapshot: watch::Receiver<Arc<Snapshot>>,
}

impl<W: AsyncWrite + Unpin> Talk<'_, W> {
    /// Runs until the engine lets the face go, or has ended.
    async fn run(mut self, mut events: mpsc::Receiver<Event>) -> io::Result<()> {
        self.update().await?;
        let (mut due, mut earliest, mut is_over) = (None, Instant::now(), false);
        loop {
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(event) => {
                        self.update().await?;
                        frame::write(self.writer, &HostMessage::Event(event)).await?;
                    }
                    None => return Ok(()),
                },
                () = sleep_until(due.unwrap_or(earliest)), if due.is_some() => {
                    self.update().await?;
                    due = None;
                    earliest = Instant::now() + UPDATE_INTERVAL;
                }
                changed = self.snapshot.changed(), if due.is_none() && !is_over => match changed {
                    Ok(()) => due = Some(earliest),
                    // The last events are on their way.
                    Err(_) => is_over = true,
                },
            }
        }
    }

    async fn update(&mut self) -> io::Result<()> {
        let next = self.snapshot.borrow_and_update().clone();
        match self.told.update(&next) {
            Some(update) => frame::write(self.writer, &HostMessage::Update(Box::new(update))).await,
            None => Ok(()),
        }
    }
}
