//! The side of a face that works through the engine of another process.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::socket::{Stream, connect, is_same_user};
use super::{Greeting, Hello, HostMessage, Version, frame};
use crate::command::Command;
use crate::event::Event;
use crate::model::FaceId;
use crate::snapshot::Snapshot;
use crate::store::{FaceKind, Holder};

/// How long the holder has to let a face in. It may be busy with a hundred of them.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// At the end, how long the holder has to take the last commands.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a face cannot work through the process that holds the profile.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// It does not listen: it is about to, or it ends.
    #[error(
        "{holder} holds the profile, and does not answer: {error}. Close it, or use another --data-dir"
    )]
    Unreachable {
        /// Which process.
        holder: Holder,
        /// What the system said.
        error: io::Error,
    },
    /// It has another version.
    #[error("{holder} holds the profile and is version {theirs} of Pinhole, but this is version {own}. Restart {holder} with the same version as this, or use another --data-dir", own = Version::own())]
    OtherVersion {
        /// Which process.
        holder: Holder,
        /// What it said, if that can be told.
        theirs: String,
    },
    /// It is somebody else's.
    #[error(
        "{holder} holds the profile, but belongs to another user. Run this command as that user, or use another --data-dir"
    )]
    OtherUser {
        /// Which process.
        holder: Holder,
    },
    /// It said why not.
    #[error("{holder} does not let this command in: {reason}")]
    Refused {
        /// Which process.
        holder: Holder,
        /// In words.
        reason: String,
    },
}

/// A face at the engine of another process.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) face: FaceId,
    pub(crate) holder: Holder,
    pub(crate) snapshot: Arc<Snapshot>,
    reader: ReadHalf<Stream>,
    writer: WriteHalf<Stream>,
}

/// Where to what the engine tells goes.
pub(crate) struct Outlets {
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) snapshot: watch::Sender<Arc<Snapshot>>,
    pub(crate) wake: Box<dyn Fn() + Send + Sync>,
}

impl Attached {
    /// Connects to the holder of the profile in this folder.
    pub(crate) async fn attach(
        folder: &Path,
        holder: &Holder,
        face: FaceKind,
    ) -> Result<Self, AttachError> {
        let unreachable = |error| AttachError::Unreachable {
            holder: holder.clone(),
            error,
        };
        let stream = connect(folder).await.map_err(unreachable)?;
        if !is_same_user(&stream).map_err(unreachable)? {
            let holder = holder.clone();
            return Err(AttachError::OtherUser { holder });
        }
        let (mut reader, mut writer) = split(stream);
        let hello = Hello {
            version: Version::own(),
            face: serde_json::json!(face),
        };
        let greeting = async {
            frame::write(&mut writer, &hello).await?;
            frame::read::<_, Greeting>(&mut reader).await
        };
        let greeting = timeout(GREETING_TIMEOUT, greeting).await;
        let greeting = match greeting.unwrap_or_else(|late| Err(late.into())) {
            Ok(Some(greeting)) => greeting,
            Ok(None) => return Err(unreachable(io::ErrorKind::ConnectionReset.into())),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(AttachError::OtherVersion {
                    holder: holder.clone(),
                    theirs: "unknown".to_owned(),
                });
            }
            Err(error) => return Err(unreachable(error)),
        };
        let holder = greeting.holder;
        if greeting.version != Version::own() {
            let theirs = greeting.version.to_string();
            return Err(AttachError::OtherVersion { holder, theirs });
        }
        let face = match greeting.admitted {
            Ok(face) => face,
            Err(reason) => return Err(AttachError::Refused { holder, reason }),
        };
        let unreachable = |error| AttachError::Unreachable {
            holder: holder.clone(),
            error,
        };
        let first = timeout(GREETING_TIMEOUT, frame::read(&mut reader)).await;
        let first = first.map_err(|late| unreachable(late.into()))?;
        let snapshot = match first.map_err(unreachable)? {
            Some(HostMessage::Update(update)) => update.apply(None),
            _ => None,
        };
        let Some(snapshot) = snapshot else {
            return Err(unreachable(io::ErrorKind::ConnectionReset.into()));
        };
        Ok(Self {
            face,
            holder,
            snapshot: Arc::new(snapshot),
            reader,
            writer,
        })
    }

    /// Runs until the face is gone, the sender of `commands`, or the holder.
    pub(crate) async fn run(self, mut commands: mpsc::Receiver<Command>, outlets: Outlets) {
        self.converse(&mut commands, &outlets).await;
        drop(commands);
        drop(outlets.events);
        (outlets.wake)();
    }

    async fn converse(self, commands: &mut mpsc::Receiver<Command>, outlets: &Outlets) {
        let mut writer = self.writer;
        let listening = listen(self.reader, self.snapshot, outlets);
        let mut listening = std::pin::pin!(listening);
        let speaking = async {
            while let Some(command) = commands.recv().await {
                frame::write(&mut writer, &command).await?;
            }
            writer.shutdown().await
        };
        tokio::select! {
            heard = &mut listening => if let Err(error) = heard {
                warn!(%error, "the holder of the profile cannot be understood");
            },
            spoken = speaking => match spoken {
                // Once it has carried out the last command, it ends the conversation.
                Ok(()) => if timeout(GOODBYE_TIMEOUT, listening).await.is_err() {
                    debug!("the holder of the profile does not say goodbye");
                },
                Err(error) => debug!(%error, "the holder of the profile takes no commands"),
            },
        }
    }
}

/// Passes on what the engine tells.
async fn listen(
    mut reader: ReadHalf<Stream>,
    mut snapshot: Arc<Snapshot>,
    outlets: &Outlets,
) -> io::Result<()> {
    while let Some(message) = frame::read(&mut reader).await? {
        match message {
            HostMessage::Update(update) => {
                let next = update.apply(Some(snapshot));
                let next = next.ok_or(io::ErrorKind::InvalidData)?;
                snapshot = Arc::new(next);
                outlets.snapshot.send_replace(snapshot.clone());
            }
            // A face that is gone needs no events.
            HostMessage::Event(event) => drop(outlets.events.send(event).await),
        }
        (outlets.wake)();
    }
    Ok(())
}
