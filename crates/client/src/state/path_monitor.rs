//! The paths of sessions: better ones are looked for, and silent ones are left.
//!
//! A session on the relay looks for a direct path again and again. When it finds one it
//! moves there by itself, and the transfers on it notice nothing. A session that falls
//! silent while files are under way may have lost its path (a new network, a NAT that
//! has forgotten it), or its peer may stand still. It stays, and another is made beside
//! it: whichever is heard first goes on with the files.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pinhole_net::{PathKind, PathPolicy, PeerKey};
use tracing::{debug, info};

use super::State;
use super::effect::{Effect, ExchangeEffect, SessionEffect};
use super::ids::SessionId;
use super::transfers::Transfer;
use crate::event::Event;
use crate::model::TransferId;

/// When a session on the relay looks for a direct path, after it came up and
/// after each attempt; from then on at the last distance.
const IMPROVE_AFTER: [Duration; 4] = [
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(300),
];
/// A peer counts as silent after this many times the longest pause of the last seconds.
/// A lossy line, a slow one and a busy machine have long pauses.
const PAUSES: u32 = 3;
/// The shortest silence that counts. While files are under way a peer says something
/// every quarter of a second.
const SILENCE_MIN: Duration = Duration::from_millis(750);
/// The longest silence that is tolerated, also while the usual pauses are not known.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Between two attempts to reach a silent peer on another path.
const BETWEEN_PROBES: Duration = Duration::from_millis(500);
/// When this side itself has not looked for so long, it stood still, and what the
/// peer said meanwhile may not have been read yet.
const STANDSTILL: Duration = Duration::from_millis(500);

/// What is seen of a session while files are under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionSample {
    pub(crate) session: SessionId,
    /// How long the peer has been waited for.
    pub(crate) silence: Duration,
    /// The longest that the peer had to be waited for of late.
    pub(crate) usual_silence: Option<Duration>,
    /// Whether its local address is one of this machine.
    pub(crate) has_local_address: bool,
}

/// What is watched of one session.
#[derive(Debug)]
pub(super) struct Watch {
    improve_at: Option<Instant>,
    /// How often a better path was looked for.
    improvements: usize,
    /// While nothing is heard: when to try another path next.
    probe_at: Option<Instant>,
    /// Nothing has been heard for a while, and the server was asked whether it is
    /// there.
    has_asked: bool,
    /// The network has changed, and the address that it comes from may not be this
    /// machine's any more.
    local_address_gone: bool,
}

/// Notices when this side has stood still itself.
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

/// How long a peer is waited for before another path is tried.
fn patience(usual_silence: Option<Duration>) -> Duration {
    usual_silence.map_or(SILENCE_MAX, |usual| {
        usual.saturating_mul(PAUSES).clamp(SILENCE_MIN, SILENCE_MAX)
    })
}

impl Watch {
    pub(super) fn new(path: PathKind, now: Instant) -> Self {
        let mut watch = Self {
            improve_at: None,
            improvements: 0,
            probe_at: None,
            has_asked: false,
            local_address_gone: false,
        };
        if path == PathKind::Relay {
            watch.plan_improvement(now);
        }
        watch
    }

    /// Whether the peer is not heard although it should be.
    pub(super) const fn is_silent(&self) -> bool {
        self.probe_at.is_some()
    }

    /// When a better path is to be looked for next.
    pub(super) const fn improve_at(&self) -> Option<Instant> {
        self.improve_at
    }

    fn plan_improvement(&mut self, now: Instant) {
        let last = IMPROVE_AFTER.len() - 1;
        let after = IMPROVE_AFTER.get(self.improvements.min(last));
        self.improve_at = after.map(|&after| now + after);
        self.improvements += 1;
    }
}

/// What [`State::watch_session`] finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// As often as before, or nothing depends on it.
    Well,
    /// Not for a while: ask the server whether it is there.
    Late,
    /// Not any more: try another path.
    NotAtAll,
}

impl State {
    /// A session has another path, or there is more to tell about its path.
    pub(crate) fn handle_moved(
        &mut self,
        id: SessionId,
        path: PathKind,
        (local, remote): (SocketAddr, SocketAddr),
    ) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        (session.path, session.local, session.remote) = (path, local, remote);
        if path != PathKind::Relay {
            session.watch.improve_at = None;
        }
        let peer = session.peer.clone();
        for transfer in self.transfers.values_mut().filter(|t| t.uses(id)) {
            transfer.path = Some(path);
        }
        self.emit(Event::Moved {
            peer,
            path,
            local,
            remote,
        });
    }

    /// Looks for better paths where it is time to, for sessions that are in use
    /// and this side's to move.
    pub(super) fn improve_paths(&mut self) {
        let now = self.now;
        let is_allowed = self.in_force().path == PathPolicy::Auto;
        let mut due = Vec::new();
        for (id, session) in self.sessions.iter_mut() {
            if session.watch.improve_at.is_some_and(|at| at <= now) {
                session.watch.plan_improvement(now);
                if session.idle_since.is_none() && session.is_controlling && is_allowed {
                    due.push((id, session.peer.clone()));
                }
            }
        }
        if !self.login.is_online() {
            return;
        }
        for (session, peer) in due {
            let sharing = self.host_sharing(&peer);
            let improve = SessionEffect::Improve { session, sharing };
            self.effect(Effect::Session(improve));
        }
    }

    /// Looks for a direct path at once, because both sides have agreed to something and
    /// so to a direct path.
    pub(super) fn improve_at_once(&mut self, session: SessionId) {
        let now = self.now;
        if let Some(session) = self.sessions.get_mut(session)
            && session.path == PathKind::Relay
        {
            session.watch.improve_at = Some(now);
            self.improve_paths();
        }
    }

    /// The addresses of this machine have changed, so earlier findings do not count.
    pub(crate) fn handle_network_changed(&mut self, now: Instant) {
        self.now = now;
        info!("the network has changed");
        self.check_server();
        for (_, session) in self.sessions.iter_mut() {
            if session.path == PathKind::Relay {
                session.watch.improve_at = Some(now);
            }
            session.watch.local_address_gone = true;
        }
    }

    /// Notices who has fallen silent, or is heard again, and tries other paths to
    /// those who are silent. Halfway there the server is asked whether it is there:
    /// if not, there is another connection to it by the time that it is needed.
    pub(crate) fn handle_samples(&mut self, samples: &[SessionSample], now: Instant) {
        self.now = now;
        let watched = self.sessions.stall_detector.lasts(now);
        let mut silent = Vec::new();
        let mut is_in_doubt = false;
        for sample in samples {
            let had_asked = self.has_asked(sample.session);
            match self.watch_session(sample, watched) {
                Heard::Well => {}
                Heard::Late => is_in_doubt |= !had_asked,
                Heard::NotAtAll => {
                    is_in_doubt = true;
                    silent.push(sample.session);
                }
            }
        }
        if is_in_doubt {
            self.check_server();
        }
        for session in silent {
            // The sender connects, as it offers; else both would at once.
            let peer = self.sessions.get(session).map(|s| s.peer.clone());
            if !self.sent_on(session).is_empty()
                && let Some(peer) = peer
                && let Err(failure) = self.begin_connecting(&peer)
            {
                debug!(peer = %peer.name, "no other path yet: {failure}");
            }
        }
    }

    fn has_asked(&self, session: SessionId) -> bool {
        let session = self.sessions.get(session);
        session.is_some_and(|session| session.watch.has_asked)
    }

    fn watch_session(&mut self, sample: &SessionSample, watched: Duration) -> Heard {
        let now = self.now;
        let id = sample.session;
        let under_way = |t: &&Transfer| t.uses(id) && t.is_under_way();
        let under_way = || self.transfers.values().filter(under_way);
        // One that is offered again waits for its answer, maybe of a user.
        let is_awaited = under_way().any(Transfer::is_moving);
        let is_used = under_way().next().is_some();
        let Some(session) = self.sessions.get_mut(id) else {
            return Heard::Well;
        };
        let silence = sample.silence.min(watched);
        let patience = patience(sample.usual_silence);
        let watch = &mut session.watch;
        // Seen to be so each time anew: an address may come back.
        watch.local_address_gone = watch.local_address_gone && !sample.has_local_address;
        let local_address_gone = watch.local_address_gone && is_used;
        if !local_address_gone && (!is_awaited || silence < patience / 2) {
            (watch.probe_at, watch.has_asked) = (None, false);
            return Heard::Well;
        }
        if !std::mem::replace(&mut watch.has_asked, true) {
            debug!(peer = %session.peer.name, ?silence, ?patience, "nothing is heard");
        }
        if silence < patience && !local_address_gone {
            watch.probe_at = None;
            return Heard::Late;
        }
        let probe_at = watch.probe_at.get_or_insert(now);
        if *probe_at > now {
            return Heard::Late;
        }
        *probe_at = now + BETWEEN_PROBES;
        debug!(peer = %session.peer.name, ?silence, "silent");
        Heard::NotAtAll
    }

    /// Whether the local address of a session may have gone.
    pub(crate) fn doubts_local_address(&self, session: SessionId) -> bool {
        let session = self.sessions.get(session);
        session.is_some_and(|session| session.watch.local_address_gone)
    }

    /// There is a connection to the server again: what waited for one does not wait
    /// longer.
    pub(super) fn probe_again(&mut self) {
        let now = self.now;
        for (_, session) in self.sessions.iter_mut() {
            if let Some(probe_at) = &mut session.watch.probe_at {
                *probe_at = now;
            }
        }
    }

    /// A new session with this peer is up: what is sent on silent ones goes on
    /// there. What is received goes on when it is offered again.
    pub(super) fn leave_silent_sessions(&mut self, peer: PeerKey, new: SessionId) {
        let is_silent = |id: &SessionId| {
            let session = self.sessions.get(*id);
            *id != new && session.is_some_and(|session| session.watch.is_silent())
        };
        let left: Vec<_> = self.sessions.with(peer).filter(is_silent).collect();
        for session in left {
            for id in self.sent_on(session) {
                let carrier = self.transfers.get(id).and_then(Transfer::carrier);
                if let Some(carrier) = carrier {
                    // The peer may hear it before the next offer, if the path comes back.
                    self.effect(Effect::Exchange(carrier, ExchangeEffect::Leave));
                }
                self.lose(id, "it fell silent");
                self.prepare(id);
            }
            if !self.transfers.values().any(|t| t.uses(session)) {
                self.remove_session(session);
            }
        }
    }

    /// What is sent on a session and can go on elsewhere.
    fn sent_on(&self, session: SessionId) -> Vec<TransferId> {
        self.transfers
            .ids(|t| t.uses(session) && t.is_sending() && t.is_under_way() && !t.is_streamed())
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
