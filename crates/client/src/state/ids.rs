//! What names things in the state.

use pinhole_transfer::digest::Digest;

/// Names a connection to the server, so that what is reported of an earlier one is
/// told from the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionId(pub(super) u64);

/// Names a session while the engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(pub(super) u64);

/// Ends when the user logs out, and with it every attempt to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Epoch(pub(super) u64);

/// The session that carries a transfer, and its name there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Carrier {
    pub(crate) session: SessionId,
    pub(crate) id: pinhole_transfer::TransferId,
    /// Receiving: the digest of what the peer says it has sent of it before, all of it.
    pub(crate) sent: Option<Digest>,
}

impl Carrier {
    pub(crate) const fn new(session: SessionId, id: pinhole_transfer::TransferId) -> Self {
        Self {
            session,
            id,
            sent: None,
        }
    }

    /// Whether it is this one, as its session names it.
    pub(super) fn is(&self, session: SessionId, id: pinhole_transfer::TransferId) -> bool {
        self.session == session && self.id == id
    }
}
