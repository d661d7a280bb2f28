//! What one attempt to connect is given, and what comes of it.

use std::sync::Arc;

use pinhole_proto::agent::PathPolicy;
use pinhole_proto::rendezvous::HostSharing;
use pinhole_proto::tls::Identity;
use tokio::sync::OwnedSemaphorePermit;

use super::warm_port::WarmPort;
use crate::rendezvous::Introduction;
use crate::rendezvous::server::Server;
use crate::session::{LiveSession, LiveSessions, Session};

/// What all attempts of one login share.
#[derive(Debug)]
pub(super) struct LoginContext {
    pub(super) server: Arc<Server>,
    pub(super) identity: Identity,
    /// Sessions that are up, of earlier logins, too.
    pub(super) sessions: LiveSessions,
    /// Absent when only the relay may be used: nothing then reveals an address.
    pub(super) warm_port: Option<WarmPort>,
}

/// The session that is wanted.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) introduction: Introduction,
    pub(super) share_host: HostSharing,
    /// Which paths this attempt may take. Only the relay: then nothing of it tells
    /// the other side where this one is.
    pub(super) policy: PathPolicy,
    /// There is one already, and this attempt looks for a better path.
    pub(super) improve: Option<(Arc<LiveSession>, OwnedSemaphorePermit)>,
}

/// What became of an invitation that was taken up.
#[derive(Debug)]
pub enum Accepted {
    /// A new session.
    Session(Session),
    /// A session that was up before has moved to a better path.
    Migrated,
}
