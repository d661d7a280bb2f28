//! The connections that came up and are not selected: valid pairs, and those
//! that are authenticated but wait for a better one.

use std::time::Instant;

use super::checklist::Standing;
use super::path::Goal;
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

/// How far this side is with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It came up.
    Valid,
    /// This side has begun the handshake.
    Handshaking,
    /// The peer is at the other end; a better path may still come until then.
    Held(Until),
}

/// How long an authenticated connection waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Until {
    /// While no better one has come up, but may.
    pub(super) nothing_is_up: Instant,
    /// While the handshake with a better one is under way.
    pub(super) better_is_begun: Instant,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) origin: Origin,
    pub(super) path: PathKind,
    standing: Standing,
    stage: Stage,
    /// Must be authenticated by then.
    deadline: Option<Instant>,
}

impl Connection {
    /// Most likely the peer's, and worth waiting for.
    fn is_promising(&self) -> bool {
        self.standing < Standing::Stranger
    }

    fn is_direct(&self) -> bool {
        self.origin != Origin::Relayed
    }
}

/// See the [module](self).
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
            path,
            standing,
            stage: Stage::Valid,
            deadline,
        });
        id
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let index = self.list.iter().position(|one| one.id == id)?;
        Some(self.list.remove(index))
    }

    pub(super) fn take_relayed(&mut self) -> Option<ConnectionId> {
        let relayed = |one: &&Connection| !one.is_direct();
        let id = self.list.iter().find(relayed)?.id;
        self.remove(id).map(|one| one.id)
    }

    /// Removes those that do not lead to what is wanted.
    pub(super) fn take_unwanted(&mut self, goal: Goal) -> Vec<ConnectionId> {
        let unwanted = |one: &mut Connection| !goal.wants(one.path);
        let unwanted = self.list.extract_if(.., unwanted);
        unwanted.map(|one| one.id).collect()
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
            one.origin == Origin::Accepted && one.stage == Stage::Valid && one.standing >= newcomer
        };
        let victims = self.list.iter().filter(evictable);
        let id = victims
            .max_by_key(|one| (one.standing, std::cmp::Reverse(one.id)))?
            .id;
        self.remove(id).map(|one| one.id)
    }

    /// The next on which to begin the handshake: the relayed one at once; of
    /// the direct ones the best, beside those under way only if it is of a
    /// better class than they. Strangers come when nobody else is there.
    pub(super) fn next_to_begin(&self, strangers_are_due: bool) -> Option<ConnectionId> {
        let begun = self.list.iter().filter(|one| one.stage != Stage::Valid);
        let direct = begun.filter(|one| one.is_direct());
        let best_begun = direct.min_by_key(|one| (one.standing, one.path));
        let may_begin = |one: &&Connection| {
            let comes_first = match best_begun {
                _ if !one.is_direct() => true,
                Some(begun) if begun.is_promising() => one.is_promising() && one.path < begun.path,
                Some(_) => one.is_promising(),
                None => one.is_promising() || strangers_are_due,
            };
            one.stage == Stage::Valid && comes_first
        };
        let waiting = self.list.iter().filter(may_begin);
        let best = waiting.min_by_key(|one| (one.is_direct(), one.standing, one.path, one.id));
        best.map(|one| one.id)
    }

    /// This side has begun the handshake on this one. Returns the stranger with
    /// whom it was wasting its time, if this one is more promising.
    pub(super) fn begin(&mut self, id: ConnectionId, deadline: Instant) -> Option<ConnectionId> {
        let one = self.list.iter_mut().find(|one| one.id == id)?;
        one.stage = Stage::Handshaking;
        one.deadline = Some(deadline);
        if !(one.is_promising() && one.is_direct()) {
            return None;
        }
        let wasted = |one: &&Connection| one.stage == Stage::Handshaking && !one.is_promising();
        let stranger = self.list.iter().find(wasted)?.id;
        self.remove(stranger).map(|one| one.id)
    }

    /// The peer is at the other end of this one.
    pub(super) fn hold(&mut self, id: ConnectionId, until: Until) {
        if let Some(one) = self.list.iter_mut().find(|one| one.id == id) {
            one.stage = Stage::Held(until);
            one.deadline = None;
        }
    }

    /// The best of those that are authenticated, and how long it is held.
    pub(super) fn best_held(&self) -> Option<(&Connection, Until)> {
        let held = self.list.iter().filter_map(|one| match one.stage {
            Stage::Held(until) => Some((one, until)),
            Stage::Valid | Stage::Handshaking => None,
        });
        held.min_by_key(|(one, _)| (one.path, one.id))
    }

    /// Whether one of a better class than `path` is being authenticated.
    pub(super) fn may_better(&self, path: PathKind) -> bool {
        let better = |one: &Connection| {
            one.stage == Stage::Handshaking && one.is_promising() && one.path < path
        };
        self.list.iter().any(better)
    }

    /// Whether there is one that is worth waiting for.
    pub(super) fn is_promising(&self) -> bool {
        self.list.iter().any(Connection::is_promising)
    }

    /// Removes those whose time is up.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<ConnectionId> {
        let is_up = |one: &mut Connection| one.deadline.is_some_and(|deadline| now >= deadline);
        self.list.extract_if(.., is_up).map(|one| one.id).collect()
    }

    /// When something about one of them is due next.
    pub(super) fn next_deadline(&self, now: Option<Instant>) -> Option<Instant> {
        let due = |one: &Connection| match one.stage {
            Stage::Held(until) => [Some(until.nothing_is_up), Some(until.better_is_begun)],
            Stage::Valid | Stage::Handshaking => [one.deadline, None],
        };
        let due = self.list.iter().flat_map(due).flatten();
        due.filter(|&at| Some(at) > now).min()
    }
}
