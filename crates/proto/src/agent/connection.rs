//! The connections that came up and are not yet authenticated: valid pairs.

use std::time::Instant;

use super::{CheckId, PathKind};

/// Names one connection of one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u32);

/// How a connection came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Dialled(CheckId),
    Accepted,
    Relayed,
}

/// How likely a connection leads to the peer, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// With an address that the server introduced.
    Introduced,
    /// From another port of such an address.
    Related,
    /// Through the relay, which paired two authenticated sessions.
    Relayed,
    /// From anywhere.
    Stranger,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) origin: Origin,
    pub(super) standing: Standing,
    pub(super) path: PathKind,
    /// Nominated by this side.
    handshaking: bool,
    /// Must be authenticated by then.
    deadline: Option<Instant>,
}

/// At most one of them is being nominated by this side.
#[derive(Debug, Default)]
pub(super) struct Connections {
    list: Vec<Connection>,
    made: u32,
}

impl Connections {
    pub(super) fn add(
        &mut self,
        origin: Origin,
        standing: Standing,
        path: PathKind,
        deadline: Option<Instant>,
    ) -> ConnectionId {
        self.made += 1;
        let id = ConnectionId(self.made);
        self.list.push(Connection {
            id,
            origin,
            standing,
            path,
            handshaking: false,
            deadline,
        });
        id
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let index = self.list.iter().position(|one| one.id == id)?;
        Some(self.list.remove(index))
    }

    pub(super) fn take_relayed(&mut self) -> Option<ConnectionId> {
        let relayed = |one: &&Connection| one.origin == Origin::Relayed;
        let id = self.list.iter().find(relayed)?.id;
        self.remove(id).map(|one| one.id)
    }

    /// How many of them were accepted.
    pub(super) fn accepted(&self) -> usize {
        let accepted = |one: &&Connection| one.origin == Origin::Accepted;
        self.list.iter().filter(accepted).count()
    }

    /// Removes the oldest of the least promising accepted connections, if it
    /// is not more promising than a newcomer of this standing.
    pub(super) fn evict_for(&mut self, newcomer: Standing) -> Option<ConnectionId> {
        let evictable = |one: &&Connection| {
            one.origin == Origin::Accepted && !one.handshaking && one.standing >= newcomer
        };
        let victims = self.list.iter().filter(evictable);
        let id = victims
            .max_by_key(|one| (one.standing, std::cmp::Reverse(one.id)))?
            .id;
        self.remove(id).map(|one| one.id)
    }

    /// The one that this side nominated.
    pub(super) fn handshaking(&self) -> Option<&Connection> {
        self.list.iter().find(|one| one.handshaking)
    }

    /// The best that is not nominated, the relay only if it is due.
    pub(super) fn best_waiting(&self, relay_is_due: bool) -> Option<&Connection> {
        let waiting =
            |one: &&Connection| !one.handshaking && (relay_is_due || one.origin != Origin::Relayed);
        let waiting = self.list.iter().filter(waiting);
        waiting.min_by_key(|one| (one.standing, one.path, one.id))
    }

    /// Nominates this one.
    pub(super) fn begin_handshake(&mut self, id: ConnectionId, deadline: Instant) {
        if let Some(one) = self.list.iter_mut().find(|one| one.id == id) {
            one.handshaking = true;
            one.deadline = Some(deadline);
        }
    }

    /// Whether there is one that is worth waiting for.
    pub(super) fn is_promising(&self) -> bool {
        let promising = |one: &Connection| one.standing < Standing::Stranger;
        self.list.iter().any(promising)
    }

    /// Removes those whose time is up.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<ConnectionId> {
        let is_up = |one: &mut Connection| one.deadline.is_some_and(|deadline| now >= deadline);
        self.list.extract_if(.., is_up).map(|one| one.id).collect()
    }

    /// When the time of the next one is up.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.list.iter().filter_map(|one| one.deadline).min()
    }
}
