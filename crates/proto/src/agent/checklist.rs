//! The checks of one round, and when each is dialled.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Instant;

use crate::candidate::{Candidate, CandidateKind};
use crate::rendezvous::Role;

use super::path::Goal;
use super::{PathKind, Round, Timing};

/// Names one check of one agent, through all its dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CheckId(u32);

/// Why a dial did not come through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DialFailure {
    /// `EADDRNOTAVAIL`, or `EADDRINUSE` elsewhere than on Linux: a connection between
    /// these two addresses exists already.
    AddressInUse,
    /// Anything else: refused, unreachable, timed out.
    Other,
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

/// So many dials of one check follow each other as fast as they fail; both sides
/// begin within much less time than that takes.
const FAST_DIALS_MAX: u32 = 50;

#[derive(Debug)]
struct Check {
    id: CheckId,
    remote: SocketAddr,
    path: PathKind,
    state: State,
    dialled_at: Option<Instant>,
    dials: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be dialled at this time.
    Due(Instant),
    /// The kernel is at it.
    Pending,
    /// It came up, as a connection that lives or has failed to authenticate.
    Connected,
}

/// The checks of one round, in the order in which they are dialled.
#[derive(Debug, Default)]
pub(super) struct Checklist {
    checks: Vec<Check>,
    local: Vec<Candidate>,
}

impl Checklist {
    /// One check for each remote candidate that may be dialled; `made` counts
    /// the checks of all rounds.
    pub(super) fn new(round: &Round, role: Role, made: &mut u32) -> Self {
        let canonical = |candidate: &Candidate| Candidate {
            kind: candidate.kind,
            address: canonical(candidate.address),
        };
        let local: Vec<Candidate> = round.local.iter().map(canonical).collect();
        let mut seen: HashSet<SocketAddr> = local.iter().map(|own| own.address).collect();
        let admitted = round
            .remote
            .iter()
            .filter_map(|candidate| candidate.admit(round.loopback).ok())
            .filter(|one| seen.insert(one.address) && shares_family(&local, one.address));
        let remote = Candidate::within_limits(admitted);
        let remote = in_dialling_order(remote, &local, role);
        let checks = remote.into_iter().map(|remote| {
            *made += 1;
            Check {
                id: CheckId(*made),
                remote: remote.address,
                path: PathKind::dialled(&local, remote),
                state: State::Due(round.start_at),
                dialled_at: None,
                dials: 0,
            }
        });
        Self {
            checks: checks.collect(),
            local,
        }
    }

    /// The dials that are due, which are pending from now on.
    pub(super) fn dial(
        &mut self,
        now: Instant,
        goal: Goal,
    ) -> impl Iterator<Item = (CheckId, SocketAddr)> + '_ {
        let due = move |check: &&mut Check| {
            goal.wants(check.path) && matches!(check.state, State::Due(at) if at <= now)
        };
        self.checks.iter_mut().filter(due).map(move |check| {
            check.state = State::Pending;
            check.dialled_at = Some(now);
            check.dials += 1;
            (check.id, check.remote)
        })
    }

    /// When the next dial is due.
    pub(super) fn next_dial(&self, goal: Goal) -> Option<Instant> {
        let wanted = self.checks.iter().filter(|check| goal.wants(check.path));
        let due = wanted.filter_map(|check| match check.state {
            State::Due(at) => Some(at),
            State::Pending | State::Connected => None,
        });
        due.min()
    }

    /// A dial came through: the class of the connection, unless the check is
    /// of an earlier round.
    pub(super) fn connected(&mut self, id: CheckId) -> Option<PathKind> {
        let check = self.find(id, State::Pending)?;
        check.state = State::Connected;
        Some(check.path)
    }

    /// A dial failed.
    pub(super) fn failed(
        &mut self,
        now: Instant,
        id: CheckId,
        failure: DialFailure,
        timing: &Timing,
    ) {
        let wait = match failure {
            DialFailure::AddressInUse => timing.slow_redial,
            DialFailure::Other => timing.redial,
        };
        if let Some(check) = self.find(id, State::Pending) {
            // A peer must not make us dial an address it named for ever.
            let wait = match check.dials < FAST_DIALS_MAX {
                true => wait,
                false => timing.slow_redial,
            };
            check.redial(now, wait);
        }
    }

    /// A connection that had been dialled was lost. Slowly: somebody who
    /// accepts and closes at once would have us begin fifty handshakes a second.
    pub(super) fn lost(&mut self, now: Instant, id: CheckId, timing: &Timing) {
        if let Some(check) = self.find(id, State::Connected) {
            check.redial(now, timing.slow_redial);
        }
    }

    /// Whether a check that is still open may lead to what is wanted.
    pub(super) fn has_open(&self, goal: Goal) -> bool {
        let open = |check: &Check| goal.wants(check.path) && check.state != State::Connected;
        self.checks.iter().any(open)
    }

    /// What to think of a connection that `remote` made to us; `None` if we
    /// are connected with ourselves.
    pub(super) fn classify(&self, remote: SocketAddr) -> Option<(Standing, PathKind)> {
        let remote = canonical(remote);
        if self.local.iter().any(|own| own.address == remote) {
            return None;
        }
        let mut introduced = self.checks.iter().map(|check| check.remote);
        let standing = if introduced.clone().any(|address| address == remote) {
            Standing::Introduced
        } else if introduced.any(|address| address.ip() == remote.ip()) {
            Standing::Related
        } else {
            Standing::Stranger
        };
        Some((standing, PathKind::accepted(&self.local, remote.ip())))
    }

    fn find(&mut self, id: CheckId, state: State) -> Option<&mut Check> {
        let wanted = |check: &&mut Check| check.id == id && check.state == state;
        self.checks.iter_mut().find(wanted)
    }
}

impl Check {
    /// Dials again, as soon as `wait` has passed since the last dial.
    fn redial(&mut self, now: Instant, wait: std::time::Duration) {
        let at = self.dialled_at.map_or(now, |dialled_at| dialled_at + wait);
        self.state = State::Due(at.max(now));
    }
}

/// The guesses first, for each dial takes the next port of a NAT that counts them;
/// then the best class. Where both sides guess, the controlled one leaps: two that
/// count alike would miss each other at every dial once somebody else has taken a
/// port (see the [module](super)).
fn in_dialling_order(remote: Vec<Candidate>, local: &[Candidate], role: Role) -> Vec<Candidate> {
    let is_guess = |one: &Candidate| one.kind == CandidateKind::Predicted;
    let leaps = role == Role::Controlled && local.iter().any(is_guess);
    let step = if leaps { 2 } else { 1 };
    let (guesses, mut others): (Vec<_>, Vec<_>) = remote.into_iter().partition(is_guess);
    others.sort_by_key(|one| PathKind::dialled(local, *one));
    let guesses = (0..step).flat_map(|first| guesses.iter().skip(first).step_by(step));
    guesses.chain(&others).copied().collect()
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn shares_family(local: &[Candidate], remote: SocketAddr) -> bool {
    let same = |own: &Candidate| own.address.is_ipv4() == remote.is_ipv4();
    local.iter().any(same)
}
