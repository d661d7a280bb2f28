//! The paths of sessions that are up: they are bettered while they last, and
//! left when nothing is heard on them any more.
//!
//! A session on the relay looks for a direct path again and again; when it
//! finds one it moves there by itself, and the transfers on it notice nothing. A
//! session that falls silent while files are under way may have lost its way (a
//! new network, a NAT that has forgotten it) or may wait for a peer that stands
//! still. It stays, and another is made beside it: whichever is heard first goes
//! on with the files.

use std::time::Duration;

use pinhole_net::{
    NetworkWatch, PathKind, PathPolicy, PeerKey, SessionHandle, SessionPath, is_own_address,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::sessions::{PeerSession, SessionId, SessionInput, close};
use super::transfers::Transfer;
use super::{Engine, Input};
use crate::event::Event;
use crate::snapshot::{Direction, Stage, TransferId};

/// When a session on the relay looks for a direct path, after it came up and
/// after each attempt; from then on at the last distance.
const IMPROVE_AFTER: [Duration; 4] = [
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(300),
];
/// A peer counts as silent when nothing was heard of it for so many times as long
/// as the longest pause of the last seconds: a line that loses much, a slow one and
/// a busy machine have long pauses, and are not given up for the next.
const PAUSES: u32 = 3;
/// But not sooner than this. While files are under way the peer says something
/// every quarter of a second, older ones every second.
const SILENCE_MIN: Duration = Duration::from_millis(750);
/// Nor later than this, whatever the pauses were, or when they are not known yet.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Between two attempts to reach a silent peer on another way.
const BETWEEN_PROBES: Duration = Duration::from_millis(500);
/// When this side itself has not looked for so long, it stood still, and what the
/// peer said meanwhile may not have been read yet.
const STANDSTILL: Duration = Duration::from_millis(500);

/// Has the engine know when the network of this machine changes.
pub(super) async fn watch_network(inputs: mpsc::Sender<Input>) {
    let watched = async {
        let mut watch = NetworkWatch::new()?;
        // How it is to begin with is no change.
        watch.changed().await?;
        loop {
            watch.changed().await?;
            if inputs.send(Input::Network).await.is_err() {
                return std::io::Result::Ok(());
            }
        }
    };
    tokio::select! {
        ended = watched => if let Err(error) = ended {
            warn!(%error, "the system does not tell when the network changes");
        },
        () = inputs.closed() => {}
    }
}

/// What is watched of one session.
#[derive(Debug)]
pub(crate) struct Watch {
    improve_at: Option<Instant>,
    /// How often a better path was looked for.
    improvements: usize,
    /// While nothing is heard: when to try another way next.
    probe_at: Option<Instant>,
    /// Nothing has been heard for a while, and the server was asked whether it is
    /// there.
    has_asked: bool,
    /// The network has changed, and the address that it comes from may not be this
    /// machine's any more.
    local_address_gone: bool,
}

/// When the engine looked after its sessions.
#[derive(Debug, Default)]
pub(super) struct StallDetector {
    last: Option<Instant>,
    unbroken_since: Option<Instant>,
}

impl StallDetector {
    /// For how long it has looked again and again.
    fn lasts(&mut self, now: Instant) -> Duration {
        let last = self.last.replace(now);
        if last.is_none_or(|last| now - last > STANDSTILL) {
            self.unbroken_since = Some(now);
        }
        let since = self.unbroken_since;
        since.map_or(Duration::ZERO, |since| now - since)
    }
}

/// How long a peer is waited for before another way is tried.
fn patience(usual_silence: Option<Duration>) -> Duration {
    usual_silence.map_or(SILENCE_MAX, |usual| {
        usual.saturating_mul(PAUSES).clamp(SILENCE_MIN, SILENCE_MAX)
    })
}

impl Watch {
    pub(super) fn new(path: PathKind) -> Self {
        let mut watch = Self {
            improve_at: None,
            improvements: 0,
            probe_at: None,
            has_asked: false,
            local_address_gone: false,
        };
        if path == PathKind::Relay {
            watch.plan_improvement();
        }
        watch
    }

    /// Whether the peer is not heard although it should be.
    pub(super) const fn is_silent(&self) -> bool {
        self.probe_at.is_some()
    }

    fn plan_improvement(&mut self) {
        let last = IMPROVE_AFTER.len() - 1;
        let after = IMPROVE_AFTER.get(self.improvements.min(last));
        self.improve_at = after.map(|&after| Instant::now() + after);
        self.improvements += 1;
    }
}

impl Engine {
    /// Has whatever happens to the session's path come in.
    pub(super) fn watch_path(&self, session: SessionId, handle: &SessionHandle) {
        let (inputs, mut path) = (self.inputs.clone(), handle.path());
        tokio::spawn(async move {
            while path.changed().await.is_ok() {
                let path = Box::new(path.borrow_and_update().clone());
                let input = SessionInput::Moved { session, path };
                if inputs.send(Input::Session(input)).await.is_err() {
                    return;
                }
            }
        });
    }

    pub(super) async fn moved(&mut self, id: SessionId, path: &SessionPath) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.path = path.kind;
        if path.kind != PathKind::Relay {
            session.watch.improve_at = None;
        }
        let peer = session.peer.clone();
        for transfer in self.transfers.values_mut().filter(|t| t.uses(id)) {
            transfer.path = Some(path.kind);
        }
        self.remember_move(&peer, path);
        self.publish();
        self.emit(Event::Moved {
            peer,
            path: path.kind,
            local: path.local,
            remote: path.remote,
        })
        .await;
    }

    /// When a better path is to be looked for next.
    pub(super) fn next_improvement(&self) -> Option<Instant> {
        let due = self.sessions.values().filter_map(|s| s.watch.improve_at);
        due.min()
    }

    /// Looks for better paths where it is time to, for sessions that are in use
    /// and this side's to move.
    pub(super) fn improve_paths(&mut self) {
        let now = Instant::now();
        let rendezvous = self.login.rendezvous();
        let is_allowed = self.path_policy() == PathPolicy::Auto;
        let mut due = Vec::new();
        for session in self.sessions.values_mut() {
            if session.watch.improve_at.is_some_and(|at| at <= now) {
                session.watch.plan_improvement();
                if session.idle_since.is_none() && session.handle.is_controlling() && is_allowed {
                    due.push((session.peer.clone(), session.handle.clone()));
                }
            }
        }
        let Some(rendezvous) = rendezvous else { return };
        for (peer, handle) in due {
            let (rendezvous, sharing) = (rendezvous.clone(), self.host_sharing(&peer));
            tokio::spawn(async move {
                match rendezvous.improve(&handle, sharing).await {
                    Ok(moved) => debug!(peer = %peer.name, moved, "looked for a better path"),
                    Err(error) => debug!(peer = %peer.name, "no better path: {error}"),
                }
            });
        }
    }

    /// Both sides of this session have agreed to something, and so to a direct path: it
    /// is looked for at once.
    pub(super) fn improve_at_once(&mut self, session: SessionId) {
        if let Some(session) = self.sessions.get_mut(&session)
            && session.path == PathKind::Relay
        {
            session.watch.improve_at = Some(Instant::now());
            self.improve_paths();
        }
    }

    /// The network of this machine has changed: nothing is believed any more
    /// that was found out before.
    pub(super) fn network_changed(&mut self) {
        info!("the network has changed");
        self.login.check();
        let now = Instant::now();
        for session in self.sessions.values_mut() {
            if session.path == PathKind::Relay {
                session.watch.improve_at = Some(now);
            }
            session.watch.local_address_gone = true;
        }
    }

    /// Notices who has fallen silent, or is heard again, and tries other ways to
    /// those who are silent. Halfway there the server is asked whether it is there:
    /// if not, there is another way to it by the time that it is needed.
    pub(super) fn attend_to_silence(&mut self) {
        let now = Instant::now();
        let watched = self.stall_detector.lasts(now);
        let mut silent = Vec::new();
        let mut is_in_doubt = false;
        for (&id, session) in &mut self.sessions {
            let is_moving = |t: &&Transfer| matches!(t.stage, Stage::Transferring);
            let under_way = |t: &&Transfer| t.uses(id) && t.is_under_way();
            let under_way = || self.transfers.values().filter(under_way);
            // One that is offered again waits for its answer, maybe of a user.
            let is_awaited = under_way().any(|t| is_moving(&t));
            let is_used = under_way().next().is_some();
            let silence = session.exchange.silence().min(watched);
            let patience = patience(session.exchange.usual_silence());
            let watch = &mut session.watch;
            // Seen to be so each time anew: an address may come back.
            watch.local_address_gone =
                watch.local_address_gone && !is_own_address(session.handle.path().borrow().local);
            let local_address_gone = watch.local_address_gone && is_used;
            if !local_address_gone && (!is_awaited || silence < patience / 2) {
                (watch.probe_at, watch.has_asked) = (None, false);
                continue;
            }
            if !std::mem::replace(&mut watch.has_asked, true) {
                debug!(peer = %session.peer.name, ?silence, ?patience, "nothing is heard");
                is_in_doubt = true;
            }
            if silence < patience && !local_address_gone {
                watch.probe_at = None;
                continue;
            }
            let probe_at = watch.probe_at.get_or_insert(now);
            if *probe_at <= now {
                *probe_at = now + BETWEEN_PROBES;
                is_in_doubt = true;
                debug!(peer = %session.peer.name, ?silence, "silent");
                silent.push((id, session.peer.clone()));
            }
        }
        if is_in_doubt {
            self.login.check();
        }
        for (session, peer) in silent {
            // The sender connects, as it offers; else both would at once.
            if !self.sent_on(session).is_empty()
                && let Err(failure) = self.begin_connecting(&peer)
            {
                debug!(peer = %peer.name, "no other way yet: {failure}");
            }
        }
    }

    /// There is a way to the server again: what waited for one does not wait longer.
    pub(super) fn probe_again(&mut self) {
        let now = Instant::now();
        for session in self.sessions.values_mut() {
            if let Some(probe_at) = &mut session.watch.probe_at {
                *probe_at = now;
            }
        }
    }

    /// A new session with this peer is up: what is sent on silent ones goes on
    /// there. What is received goes on when it is offered again.
    pub(super) async fn leave_silent_sessions(&mut self, peer: PeerKey, new: SessionId) {
        let is_left = |(id, session): &(&SessionId, &PeerSession)| {
            session.peer.key == peer && **id != new && session.watch.is_silent()
        };
        let left: Vec<_> = self
            .sessions
            .iter()
            .filter(is_left)
            .map(|(id, _)| *id)
            .collect();
        for session in left {
            let sent = self.sent_on(session);
            for &id in &sent {
                let carried = self.transfers.get(&id).and_then(|t| t.carried.clone());
                if let Some(carried) = carried {
                    // Nobody may hear it; if the way comes back, it is true.
                    let _ = carried.exchange.interrupt(carried.id);
                }
                self.lose(id, "it fell silent").await;
                self.prepare(id).await;
            }
            let is_empty = !self.transfers.values().any(|t| t.uses(session));
            if is_empty && let Some(session) = self.remove_session(session) {
                tokio::spawn(close(session.exchange));
            }
        }
    }

    fn sent_on(&self, session: SessionId) -> Vec<TransferId> {
        let sent = self.transfers.iter().filter(|(_, transfer)| {
            transfer.uses(session)
                && transfer.direction == Direction::Sending
                && transfer.is_under_way()
        });
        sent.map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_speaks_often_is_missed_soon_and_whoever_pauses_later() {
        let after = |usual_ms| patience(Some(Duration::from_millis(usual_ms))).as_millis();
        assert_eq!(
            [100, 250, 600, 900, 20_000].map(after),
            [750, 750, 1800, 2700, 3000]
        );
        assert_eq!(patience(None), SILENCE_MAX);
    }

    #[test]
    fn who_stood_still_begins_to_wait_anew() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut stall_detector = StallDetector::default();
        let looked = [0, 100, 200, 300, 8300, 8400, 8500];
        let lasted = looked.map(|ms| stall_detector.lasts(at(ms)).as_millis());
        assert_eq!(lasted, [0, 100, 200, 300, 0, 100, 200]);
    }
}
