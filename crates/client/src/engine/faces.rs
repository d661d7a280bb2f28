//! The faces of an engine: its own, in the same process, and those that are attached to it
//! from others.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tracing::warn;

use crate::command::Command;
use crate::event::Event;
use crate::model::FaceId;
use crate::snapshot::Snapshot;

/// What comes of faces that are attached.
#[derive(Debug)]
pub(crate) enum FaceInput {
    /// One is there.
    Came {
        face: FaceId,
        events: mpsc::Sender<Event>,
    },
    Command {
        face: FaceId,
        command: Command,
    },
    /// It has ended.
    Gone {
        face: FaceId,
    },
}

/// The ways out to the faces.
pub(crate) struct Faces {
    own: mpsc::Sender<Event>,
    attached: BTreeMap<FaceId, mpsc::Sender<Event>>,
    snapshot: watch::Sender<Arc<Snapshot>>,
    wake: Arc<dyn Fn() + Send + Sync>,
    /// Whose command is being carried out.
    asking: Option<FaceId>,
}

impl Faces {
    /// The engine's own face alone.
    pub(crate) fn new(
        own: mpsc::Sender<Event>,
        first: Arc<Snapshot>,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        Self {
            own,
            attached: BTreeMap::new(),
            snapshot: watch::Sender::new(first),
            wake,
            asking: None,
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.subscribe()
    }

    pub(super) fn publish(&self, snapshot: Snapshot) {
        self.snapshot.send_replace(Arc::new(snapshot));
        (self.wake)();
    }

    pub(super) fn add(&mut self, face: FaceId, events: mpsc::Sender<Event>) {
        self.attached.insert(face, events);
    }

    pub(super) fn remove(&mut self, face: FaceId) {
        self.attached.remove(&face);
    }

    /// The engine ends: the attached faces have been told all that there was.
    pub(super) fn let_go(&mut self) {
        self.attached.clear();
    }

    /// What follows is done for this face, until [`Faces::end_command`].
    pub(super) const fn begin_command(&mut self, face: FaceId) {
        self.asking = Some(face);
    }

    pub(super) const fn end_command(&mut self) {
        self.asking = None;
    }

    /// Whose command is being carried out.
    pub(super) const fn asking(&self) -> Option<FaceId> {
        self.asking
    }

    /// Tells every face, or the one that asked if it is an answer.
    pub(super) async fn tell(&mut self, event: Event) {
        if event.is_answer() && self.asking.is_some() {
            return self.answer(event).await;
        }
        for face in self.attached.keys().copied().collect::<Vec<_>>() {
            self.tell_attached(face, event.clone());
        }
        self.tell_own(event).await;
    }

    /// Tells the face whose command is being carried out, or the engine's own.
    pub(super) async fn answer(&mut self, event: Event) {
        match self.asking {
            Some(face) if face != FaceId::OWN => self.tell_attached(face, event),
            _ => self.tell_own(event).await,
        }
    }

    /// Waits for room: a face that stops taking events stops its engine rather than losing
    /// the news that a transfer has finished.
    pub(super) async fn tell_own(&self, event: Event) {
        // A face that is gone needs no events.
        let _ = self.own.send(event).await;
    }

    /// An attached face that takes no events stops nobody: it is let go.
    fn tell_attached(&mut self, face: FaceId, event: Event) {
        let Some(events) = self.attached.get(&face) else {
            return;
        };
        if let Err(mpsc::error::TrySendError::Full(_)) = events.try_send(event) {
            warn!(?face, "a face does not take its events");
            self.attached.remove(&face);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;

    struct Scene {
        faces: Faces,
        own: mpsc::Receiver<Event>,
    }

    impl Scene {
        fn new() -> Self {
            let (events, own) = mpsc::channel(100);
            let state = crate::state::State::new(
                crate::state::Stores {
                    settings: crate::store::Settings::default(),
                    overrides: crate::store::Overrides::default(),
                    contacts: crate::store::Contacts::default(),
                    queue: Vec::new(),
                    invitations: crate::store::Invitations::default(),
                    default_folder: "downloads".into(),
                    key: pinhole_net::PeerKey::from_bytes([1; 32]),
                },
                std::time::Instant::now(),
            );
            let first = state.snapshot(pinhole_net::PeerKey::from_bytes([1; 32]));
            Self {
                faces: Faces::new(events, Arc::new(first), Arc::new(|| {})),
                own,
            }
        }

        fn attach(&mut self, face: u64, room: usize) -> mpsc::Receiver<Event> {
            let (events, queue) = mpsc::channel(room);
            self.faces.add(FaceId(face), events);
            queue
        }
    }

    fn count(queue: &mut mpsc::Receiver<Event>) -> usize {
        std::iter::from_fn(|| queue.try_recv().ok()).count()
    }

    const FAILED: Event = Event::CommandFailed {
        failure: Failure::Cancelled,
    };
    const NEWS: Event = Event::LogInFailed {
        failure: Failure::Replaced,
    };

    #[tokio::test]
    async fn an_answer_is_told_to_the_face_that_asked_and_news_to_all() {
        let mut scene = Scene::new();
        let (mut one, mut other) = (scene.attach(1, 10), scene.attach(2, 10));
        scene.faces.begin_command(FaceId(1));
        scene.faces.tell(FAILED).await;
        scene.faces.tell(NEWS).await;
        scene.faces.begin_command(FaceId::OWN);
        scene.faces.tell(FAILED).await;
        scene.faces.end_command();
        assert_eq!((count(&mut one), count(&mut other)), (2, 1));
        assert_eq!(count(&mut scene.own), 2);
        // Nobody has asked: the disk is full, for example.
        scene.faces.tell(FAILED).await;
        assert_eq!((count(&mut one), count(&mut other)), (1, 1));
        assert_eq!(count(&mut scene.own), 1);
    }

    #[tokio::test]
    async fn a_face_that_takes_no_events_is_let_go_and_stops_nobody() {
        let mut scene = Scene::new();
        let (mut lazy, mut busy) = (scene.attach(1, 2), scene.attach(2, 10));
        for _ in 0..5 {
            scene.faces.tell(NEWS).await;
        }
        assert_eq!((count(&mut lazy), count(&mut busy)), (2, 5));
        assert!(lazy.is_closed() && !busy.is_closed());
        assert_eq!(count(&mut scene.own), 5);
    }
}
