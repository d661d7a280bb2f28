//! A session between the two, with what it carries.

use std::collections::BTreeMap;
use std::sync::Arc;

use pinhole_transfer::digest::Digest;
use pinhole_transfer::{Manifest, TransferId as WireId};

use crate::model::TransferId;
use crate::state::SessionId;

/// Milliseconds of virtual time.
pub(super) type Millis = u64;

/// What travels over a link.
#[derive(Debug, Clone)]
pub(super) enum Message {
    Offer(WireId, Arc<Manifest>, Option<Digest>),
    Text(WireId, String),
    /// The receiver has so many parts already.
    Accept(WireId, u64),
    Decline(WireId),
    /// One more part of the files.
    Part(WireId),
    Durable(WireId),
    Cancel(WireId),
    Interrupt(WireId),
    /// It goes on over another link.
    Leave(WireId),
    Pause(WireId, bool),
    Close,
}

/// How far a transfer is at one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FlightStage {
    /// Offered, and not answered yet.
    Offered,
    /// Receiving: the disk is made ready.
    Preparing,
    Running,
}

/// A transfer at one end of a link.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) stage: FlightStage,
    /// Which files; `None` for words.
    pub(super) content: Option<usize>,
    /// Parts that have travelled, or were there.
    pub(super) parts: u64,
    pub(super) is_sending: bool,
    pub(super) paused: [bool; 2],
    /// The transfer whose attempt this is, where that is known.
    pub(super) transfer: Option<TransferId>,
}

/// One end of a link.
#[derive(Debug, Default)]
pub(super) struct End {
    /// Once the state has let it in.
    pub(super) session: Option<SessionId>,
    pub(super) incarnation: u32,
    pub(super) is_closed: bool,
    pub(super) flights: BTreeMap<WireId, Flight>,
    /// What has come before the session was let in.
    pub(super) early: Vec<Message>,
    next_wire_id: u32,
}

impl End {
    pub(super) fn new(first_wire_id: u32, incarnation: u32) -> Self {
        Self {
            incarnation,
            next_wire_id: first_wire_id,
            ..Self::default()
        }
    }

    pub(super) fn next_wire_id(&mut self) -> WireId {
        let id = self.next_wire_id;
        self.next_wire_id += 2;
        serde_json::from_value(id.into()).expect("a number")
    }
}

/// A session between alice and bob.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) ends: [End; 2],
    pub(super) condition: Condition,
    /// The invited side has answered.
    pub(super) is_answered: bool,
    /// Nothing that was sent earlier arrives later.
    pub(super) arrives_at: [Millis; 2],
}

/// Whether what is sent arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Up,
    /// It stands still until then, and loses nothing.
    Frozen {
        since: Millis,
        until: Millis,
    },
    Broken {
        since: Millis,
    },
}

impl Link {
    pub(super) const fn new(ends: [End; 2]) -> Self {
        Self {
            ends,
            condition: Condition::Up,
            is_answered: false,
            arrives_at: [0, 0],
        }
    }

    /// For how long nothing has arrived.
    pub(super) const fn silence(&self, now: Millis) -> Millis {
        match self.condition {
            Condition::Up => 50,
            Condition::Frozen { since, until } => match now < until {
                true => now - since,
                false => 50,
            },
            Condition::Broken { since } => now - since,
        }
    }

    pub(super) const fn is_broken(&self) -> bool {
        matches!(self.condition, Condition::Broken { .. })
    }
}
