//! What becomes of several faces at one engine: each asks as if it were alone, finds what
//! others have begun, and takes with it what it has begun itself.

use std::time::{Duration, Instant};

use pinhole_net::{PeerIdentity, PeerName, ServerAddress};

use super::State;
use super::effect::Effect;
use crate::event::Event;
use crate::failure::Failure;
use crate::model::FaceId;
use crate::snapshot::LoginState;

impl State {
    /// Tells the face whose command this is, and no other.
    fn answer(&mut self, event: Event) {
        self.effect(Effect::Answer(event));
    }

    /// Whether a command to log in finds a login that was begun for another face.
    pub(super) fn joins_login(&self) -> bool {
        self.asking != FaceId::OWN && self.login.is_wanted()
    }

    /// Answers an attached face as a login of its own would have been answered. The first
    /// attempt is told to all faces when it ends.
    pub(super) fn join_login(&mut self, name: &PeerName, server: &ServerAddress) {
        let view = self.login.view();
        if let Some((own_name, own_server)) = view.wanted()
            && (own_name != name || !is_same(own_server, server))
        {
            let detail = format!(
                "This profile is logged in already, as {own_name} at {own_server}. Leave out --name and --server, or use another --data-dir."
            );
            let failure = Failure::NotPossible { detail };
            return self.answer(Event::LogInFailed { failure });
        }
        match (view, self.login.observed()) {
            (LoginState::LoggedIn { name, server }, Some(observed)) => {
                self.answer(Event::LoggedIn {
                    name,
                    server,
                    observed,
                });
            }
            (
                LoginState::Reconnecting {
                    failure,
                    next_attempt,
                    ..
                },
                _,
            ) => {
                let retry_in = next_attempt.saturating_duration_since(self.now);
                self.answer(Event::Disconnected { failure, retry_in });
            }
            _ => {}
        }
    }

    /// Whether a command to look for people nearby finds that another face does.
    pub(super) fn joins_nearby(&self) -> bool {
        self.asking != FaceId::OWN && self.presence.looks_nearby()
    }

    pub(super) fn share_nearby(&mut self, name: PeerName) {
        match self.presence.nearby_name() {
            Some(own_name) if *own_name != name => {
                let detail = format!("People nearby know this profile as {own_name}.");
                self.fail_command(Failure::NotPossible { detail });
            }
            _ => {
                let port = self.presence.nearby_port();
                self.answer(Event::Nearby { name, port });
            }
        }
    }

    /// A face that sends over a session which is up already hears of it now.
    pub(super) fn tell_of_session(&mut self, peer: &PeerIdentity) {
        if self.asking == FaceId::OWN {
            return;
        }
        let session = self.sessions.to(peer.key);
        let Some(session) = session.and_then(|id| self.sessions.get(id)) else {
            return;
        };
        let connected = Event::Connected {
            peer: session.peer.clone(),
            path: session.path,
            local: session.local,
            remote: session.remote,
            elapsed: Duration::ZERO,
        };
        self.answer(connected);
    }

    /// A face is gone: what it has begun ends as if its process had held the profile, and
    /// leaves the list. What waits for its peer goes on waiting.
    pub(crate) fn handle_face_gone(&mut self, face: FaceId, now: Instant) {
        self.now = now;
        self.activity.forget(face);
        self.interrupt_those(|transfer| transfer.face == face);
        for transfer in self.transfers.values_mut() {
            if transfer.face == face && !transfer.is_final() {
                transfer.face = FaceId::OWN;
            }
        }
        for id in self.transfers.ids(|t| t.face == face) {
            self.dismiss(id);
        }
    }
}

/// Whether what was asked for is what there is. A key that was asked for has to be known.
fn is_same(own: &ServerAddress, asked: &ServerAddress) -> bool {
    let has_key = |key| own.fingerprint() == Some(key);
    own.host_port() == asked.host_port() && asked.fingerprint().is_none_or(has_key)
}
