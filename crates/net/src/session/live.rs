//! The sessions that are up, so that they can be moved to better paths.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};
use pinhole_proto::agent::PathKind;
use pinhole_proto::key::PeerKey;
use pinhole_proto::rendezvous::{IntroductionId, PeerIdentity, Role};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::migration::Migrator;
use crate::port_mapping::PortMapping;
use crate::report::Report;

/// The way a session takes at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPath {
    /// How the connection reaches the peer.
    pub kind: PathKind,
    /// This end of the TCP connection.
    pub local: SocketAddr,
    /// The other end of the TCP connection: the peer's, or the relay's.
    pub remote: SocketAddr,
    /// What was tried on the way there, and what each answered.
    pub report: Report,
}

/// A session beside its bytes: where it is, and the means to better that.
#[derive(Debug, Clone)]
pub struct SessionHandle(pub(crate) Arc<LiveSession>);

#[derive(Debug)]
pub(crate) struct LiveSession {
    pub(crate) id: IntroductionId,
    pub(crate) role: Role,
    pub(crate) peer: PeerIdentity,
    pub(crate) migrator: Migrator,
    path: watch::Sender<SessionPath>,
    /// The router's mapping of the port that the session uses, if there is one.
    mapping: Mutex<Option<PortMapping>>,
    /// One attempt at a time looks for a better path.
    attempts: Arc<Semaphore>,
}

/// Sessions by their peers and ids: a peer chooses the ids of those it begins. Shared by
/// all logins of one client, for sessions outlive them.
#[derive(Debug, Clone, Default)]
pub struct LiveSessions(Arc<Mutex<ByPeer>>);

type ByPeer = HashMap<(PeerKey, IntroductionId), Weak<LiveSession>>;

impl SessionHandle {
    /// The session's path, now and whenever it moves.
    #[must_use]
    pub fn path(&self) -> watch::Receiver<SessionPath> {
        self.0.path.subscribe()
    }

    /// Whether this side chooses the path.
    #[must_use]
    pub fn is_controlling(&self) -> bool {
        self.0.role == Role::Controlling
    }
}

impl LiveSession {
    pub(crate) fn new(
        id: IntroductionId,
        role: Role,
        peer: PeerIdentity,
        migrator: Migrator,
        path: SessionPath,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            role,
            peer,
            migrator,
            path: watch::Sender::new(path),
            mapping: Mutex::default(),
            attempts: Arc::new(Semaphore::new(1)),
        })
    }

    /// Keeps the mapping of the port that the session uses from now on.
    pub(crate) fn keep(&self, mapping: Option<PortMapping>) {
        *self.mapping.lock() = mapping;
    }

    pub(crate) fn migrated(&self, path: SessionPath) {
        self.path.send_replace(path);
    }

    /// The story has gone on although the path is the same.
    pub(crate) fn tell(&self, report: &Report) {
        self.path.send_if_modified(|path| {
            path.report.clone_from(report);
            false
        });
    }

    /// Whether it is up, and this peer's to move.
    fn is_controlled_by(&self, peer: PeerKey) -> bool {
        self.role == Role::Controlled && self.peer.key == peer && !self.migrator.is_closed()
    }

    pub(crate) fn kind(&self) -> PathKind {
        self.path.borrow().kind
    }

    /// `None` while another attempt looks for a better path.
    pub(crate) fn begin_attempt(&self) -> Option<OwnedSemaphorePermit> {
        self.attempts.clone().try_acquire_owned().ok()
    }
}

impl LiveSessions {
    pub(crate) fn add(&self, session: &Arc<LiveSession>) {
        let mut sessions = self.lock();
        sessions.retain(|_, session| session.strong_count() > 0);
        sessions.insert((session.peer.key, session.id), Arc::downgrade(session));
    }

    /// The session that a peer wants to move: it must be with this peer, and
    /// controlled by it.
    pub(crate) fn find(&self, id: IntroductionId, peer: PeerKey) -> Option<Arc<LiveSession>> {
        let found = self.lock().get(&(peer, id)).and_then(Weak::upgrade)?;
        found.is_controlled_by(peer).then_some(found)
    }

    /// Whether there is any that this peer may move.
    pub(crate) fn has_any_of(&self, peer: PeerKey) -> bool {
        let sessions = self.lock();
        let mut up = sessions.values().filter_map(Weak::upgrade);
        up.any(|session| session.is_controlled_by(peer))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(PeerKey, IntroductionId), Weak<LiveSession>>> {
        self.0.lock()
    }
}
