//! The bridge to the engine: commands go in, events and snapshots come out.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use pinhole_client::{Client, Command, CommandError, Event, Events, FaceId, Snapshot};

use crate::text;

/// Progress is drawn ten times a second, no more often.
const SHORTEST_FRAME: Duration = Duration::from_millis(100);

/// The engine as the application sees it.
pub(crate) struct Bridge {
    engine: EngineHandle,
    /// The engine was found to have ended by itself.
    is_left: bool,
}

enum EngineHandle {
    Running(Client, Events),
    Ended,
    #[cfg(test)]
    Played(crate::tests::Play),
}

impl Bridge {
    /// To the running engine.
    pub(crate) const fn engine(client: Client, events: Events) -> Self {
        Self::to(EngineHandle::Running(client, events))
    }

    /// To one that a test plays.
    #[cfg(test)]
    pub(crate) const fn played(play: crate::tests::Play) -> Self {
        Self::to(EngineHandle::Played(play))
    }

    const fn to(engine: EngineHandle) -> Self {
        Self {
            engine,
            is_left: false,
        }
    }

    /// Sends a command; an error is words for the user.
    pub(crate) fn command(&self, command: Command) -> Result<(), &'static str> {
        match &self.engine {
            EngineHandle::Running(client, _) => {
                client.command(command).map_err(|error| match error {
                    CommandError::Busy => text::ENGINE_BUSY,
                    CommandError::Ended => text::ENGINE_ENDED,
                })
            }
            EngineHandle::Ended => Err(text::ENGINE_ENDED),
            #[cfg(test)]
            EngineHandle::Played(play) => play.command(command),
        }
    }

    /// What this window is called at its engine.
    pub(crate) const fn face(&self) -> FaceId {
        match &self.engine {
            EngineHandle::Running(client, _) => client.face(),
            EngineHandle::Ended => FaceId::OWN,
            #[cfg(test)]
            EngineHandle::Played(_) => FaceId::OWN,
        }
    }

    /// The state of the application now; `None` when the engine has ended.
    pub(crate) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        match &self.engine {
            EngineHandle::Running(client, _) => Some(client.snapshot()),
            EngineHandle::Ended => None,
            #[cfg(test)]
            EngineHandle::Played(play) => Some(play.snapshot()),
        }
    }

    /// The next thing that has happened.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        match &mut self.engine {
            EngineHandle::Running(_, events) => events.try_next(),
            EngineHandle::Ended => None,
            #[cfg(test)]
            EngineHandle::Played(play) => play.next_event(),
        }
    }

    /// Whether the engine has ended by itself since the last call: it was another
    /// process's, for example.
    pub(crate) fn has_just_ended(&mut self) -> bool {
        let has_ended = match &self.engine {
            EngineHandle::Running(client, _) => client.has_ended(),
            EngineHandle::Ended => false,
            #[cfg(test)]
            EngineHandle::Played(_) => false,
        };
        has_ended && !std::mem::replace(&mut self.is_left, true)
    }

    /// Ends the engine and waits for it, two seconds at most: for the moment
    /// when the window has closed.
    pub(crate) fn shut_down(&mut self) {
        if let EngineHandle::Running(client, events) =
            std::mem::replace(&mut self.engine, EngineHandle::Ended)
        {
            client.shut_down(events);
        }
    }
}

/// Wakes the window of `ctx`: at once, or when a frame was asked for a moment
/// ago, a tenth of a second later.
pub(crate) fn waker(ctx: egui::Context) -> impl Fn() + Send + Sync + 'static {
    let last = Mutex::new(None::<Instant>);
    move || {
        let Ok(mut last) = last.lock() else {
            return ctx.request_repaint();
        };
        let now = Instant::now();
        let wait = last.map_or(Duration::ZERO, |last| {
            (last + SHORTEST_FRAME).saturating_duration_since(now)
        });
        if wait.is_zero() {
            *last = Some(now);
            ctx.request_repaint();
        } else {
            ctx.request_repaint_after(wait);
        }
    }
}
