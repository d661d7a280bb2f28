//! One transfer, and the stages that it goes through.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pinhole_net::{PathKind, PeerIdentity, PeerKey};
use pinhole_transfer::{
    AcceptOptions, DeclineReason, Manifest, Paused, PipeInput, SafePath, Streamed, Summary,
    TransferError,
};

use crate::consent::Yes;
use crate::explain;
use crate::failure::Failure;
use crate::model::{Completion, Direction, FaceId, Progress, Stage, TransferId};
use crate::snapshot::{OfferView, TransferView};
use crate::state::effect::ExchangeEffect;
use crate::state::ids::{Carrier, SessionId};

/// One transfer, with what its stage needs.
#[derive(Debug)]
pub(in crate::state) struct Transfer {
    pub(in crate::state) peer: PeerIdentity,
    /// The face that asked for it.
    pub(in crate::state) face: FaceId,
    pub(super) offer: Arc<OfferView>,
    pub(in crate::state) path: Option<PathKind>,
    pub(super) progress: Progress,
    pub(super) role: Role,
    /// Once it has moved, on whatever connection.
    pub(super) begun: Option<Begun>,
}

#[derive(Debug)]
pub(super) enum Role {
    Sending(Sending),
    Receiving(Receiving),
}

/// What a transfer keeps once it has begun to move.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    pub(super) at: Instant,
    /// The user wants it to stand still.
    pub(super) wants_pause: bool,
    /// Once it has gone on: what the receiver had before it began.
    pub(super) had_bytes: Option<u64>,
}

/// How a transfer has ended.
pub(super) type Ended = Result<Completion, Failure>;

#[derive(Debug)]
pub(super) struct Sending {
    pub(super) content: Content,
    /// The server on which the peer was offline.
    pub(super) queued_on: Option<PeerKey>,
    pub(super) stage: SendStage,
}

/// What was asked for, should it have to be sent again.
#[derive(Debug, Clone)]
pub(super) enum Content {
    Files(Vec<PathBuf>),
    Text(Arc<str>),
    /// What comes out of a pipe, and what it is called.
    Stream(SafePath, PipeInput),
}

#[derive(Debug)]
pub(super) enum SendStage {
    /// Waiting until the peer is online; `again_at` if it seems to be.
    Queued {
        again_at: Option<Instant>,
    },
    /// The list of files is read; `again` after a connection was lost.
    Listing {
        again: Option<Reconnect>,
    },
    /// Ready to be offered, as soon as there is a session.
    Connecting {
        again: Option<Reconnect>,
    },
    /// The peer has not answered yet.
    Offered(Carrier),
    Running(Carrier),
    /// The connection was lost.
    Reconnecting(Reconnect),
    Over(Ended),
}

#[derive(Debug)]
pub(super) struct Receiving {
    /// Its peer's name is only what it says of itself.
    pub(super) claimed: bool,
    /// The user had not chosen its peer's key when this came.
    pub(super) stranger: bool,
    /// Why it may be taken, once it may.
    pub(super) yes: Option<Yes>,
    /// A few words instead of files.
    pub(super) text: Option<Arc<str>>,
    pub(super) stage: ReceiveStage,
}

#[derive(Debug)]
pub(super) enum ReceiveStage {
    /// The user has not answered yet. Words have no manifest.
    Asking {
        carrier: Carrier,
        manifest: Option<Arc<Manifest>>,
    },
    /// Words that may be shown, and have not been yet.
    Showing(Carrier),
    /// An accepted offer of files.
    Accepted(Accepted, Step),
    Over(Ended),
}

/// What was accepted, and where it goes.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) manifest: Arc<Manifest>,
    pub(super) folder: PathBuf,
    pub(super) options: AcceptOptions,
    /// It goes into a pipe, not into the folder.
    pub(super) is_piped: bool,
}

/// How far an accepted offer is.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// The disk is made ready.
    Preparing(Carrier),
    Running(Carrier),
    /// The next offer continues it as soon as the attempt before has let go of its
    /// files.
    Releasing {
        holder: StepHolder,
        next: Carrier,
    },
    /// The connection was lost. The disk may still be at it.
    Lost {
        again: Reconnect,
        is_held: bool,
    },
}

/// Which attempt still holds the files.
#[derive(Debug, Clone, Copy)]
pub(super) enum StepHolder {
    /// One for which the disk is still made ready.
    Preparing,
    Running(Carrier),
}

/// What a transfer remembers that lost its connection.
#[derive(Debug, Clone)]
pub(super) struct Reconnect {
    /// What it ends with if it does not go on.
    pub(super) failure: Failure,
    pub(super) give_up_at: Instant,
    /// Sending: when to try again, unless an attempt is under way.
    pub(super) try_at: Option<Instant>,
}

impl Reconnect {
    pub(super) fn next_wake(&self) -> Instant {
        self.try_at
            .map_or(self.give_up_at, |at| at.min(self.give_up_at))
    }
}

impl Transfer {
    pub(super) fn sending(peer: PeerIdentity, content: Content, stage: SendStage) -> Self {
        let sending = Sending {
            content,
            queued_on: None,
            stage,
        };
        Self::new(peer, Role::Sending(sending))
    }

    pub(super) fn new(peer: PeerIdentity, role: Role) -> Self {
        Self {
            peer,
            face: FaceId::OWN,
            offer: Arc::default(),
            path: None,
            progress: Progress {
                bytes_total: Some(0),
                ..Progress::default()
            },
            role,
            begun: None,
        }
    }

    pub(super) fn as_sending(&self) -> Option<&Sending> {
        match &self.role {
            Role::Sending(sending) => Some(sending),
            Role::Receiving(_) => None,
        }
    }

    pub(super) fn as_sending_mut(&mut self) -> Option<&mut Sending> {
        match &mut self.role {
            Role::Sending(sending) => Some(sending),
            Role::Receiving(_) => None,
        }
    }

    pub(super) fn as_receiving(&self) -> Option<&Receiving> {
        match &self.role {
            Role::Sending(_) => None,
            Role::Receiving(receiving) => Some(receiving),
        }
    }

    pub(super) fn as_receiving_mut(&mut self) -> Option<&mut Receiving> {
        match &mut self.role {
            Role::Sending(_) => None,
            Role::Receiving(receiving) => Some(receiving),
        }
    }

    pub(in crate::state) const fn is_sending(&self) -> bool {
        matches!(self.role, Role::Sending(_))
    }

    pub(super) fn text(&self) -> Option<&Arc<str>> {
        match &self.role {
            Role::Sending(sending) => match &sending.content {
                Content::Text(text) => Some(text),
                Content::Files(_) | Content::Stream(..) => None,
            },
            Role::Receiving(receiving) => receiving.text.as_ref(),
        }
    }

    pub(in crate::state) fn is_text(&self) -> bool {
        self.text().is_some()
    }

    /// Whether it is read from a pipe or written into one. Then it cannot go on from where
    /// it broke off.
    pub(in crate::state) fn is_streamed(&self) -> bool {
        self.offer.stream || self.is_piped()
    }

    /// Whether it goes into a pipe.
    fn is_piped(&self) -> bool {
        let stage = self.as_receiving().map(|it| &it.stage);
        matches!(stage, Some(ReceiveStage::Accepted(accepted, _)) if accepted.is_piped)
    }

    /// What it ends with when it has begun, and breaks off.
    pub(super) fn broken(&self, failure: Failure, reason: &TransferError) -> Failure {
        if !self.is_streamed() || !self.is_under_way() {
            return failure;
        }
        let streamed = match (self.is_sending(), self.offer.stream) {
            (true, _) => Streamed::Sent,
            // The disk has a stream only where it does not go into a pipe.
            (false, true) if !self.is_piped() => Streamed::Removed,
            (false, _) => Streamed::PassedOn,
        };
        explain::broken(&self.peer, self.progress.bytes_done, streamed, reason)
    }

    /// Whether it came of a stranger.
    pub(in crate::state) const fn is_of_stranger(&self) -> bool {
        matches!(&self.role, Role::Receiving(it) if it.stranger)
    }

    /// Whether it came of a stranger, and nobody has said yes to it.
    pub(super) const fn is_unwanted(&self) -> bool {
        matches!(&self.role, Role::Receiving(it) if it.stranger && it.yes.is_none())
    }

    pub(super) const fn ended(&self) -> Option<&Ended> {
        match &self.role {
            Role::Sending(Sending {
                stage: SendStage::Over(ended),
                ..
            })
            | Role::Receiving(Receiving {
                stage: ReceiveStage::Over(ended),
                ..
            }) => Some(ended),
            _ => None,
        }
    }

    pub(in crate::state) const fn is_final(&self) -> bool {
        self.ended().is_some()
    }

    pub(in crate::state) const fn is_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// Whether it has begun to move, and has not ended: it outlives its connection.
    pub(in crate::state) const fn is_under_way(&self) -> bool {
        self.is_begun() && !self.is_final()
    }

    /// Whether it waits for the user.
    pub(in crate::state) const fn awaits_decision(&self) -> bool {
        let Role::Receiving(receiving) = &self.role else {
            return false;
        };
        matches!(receiving.stage, ReceiveStage::Asking { .. })
    }

    /// Whether bytes move.
    pub(in crate::state) fn is_moving(&self) -> bool {
        match &self.role {
            Role::Sending(sending) => matches!(sending.stage, SendStage::Running(_)),
            Role::Receiving(receiving) => matches!(
                receiving.stage,
                ReceiveStage::Showing(_) | ReceiveStage::Accepted(_, Step::Running(_))
            ),
        }
    }

    /// Whether it moves or is about to, so that it may need a connection at any moment.
    /// What waits for a person, or was paused by one, does not.
    pub(in crate::state) fn needs_connection(&self) -> bool {
        let is_paused = self.progress.paused != Paused::default();
        match &self.role {
            Role::Sending(sending) => match sending.stage {
                SendStage::Listing { .. }
                | SendStage::Connecting { .. }
                | SendStage::Reconnecting(_) => true,
                SendStage::Running(_) => !is_paused,
                SendStage::Queued { .. } | SendStage::Offered(_) | SendStage::Over(_) => false,
            },
            Role::Receiving(receiving) => match receiving.stage {
                ReceiveStage::Showing(_) => true,
                ReceiveStage::Accepted(..) => !is_paused,
                ReceiveStage::Asking { .. } | ReceiveStage::Over(_) => false,
            },
        }
    }

    /// What carries it.
    pub(in crate::state) const fn carrier(&self) -> Option<Carrier> {
        match &self.role {
            Role::Sending(sending) => match sending.stage {
                SendStage::Offered(carrier) | SendStage::Running(carrier) => Some(carrier),
                _ => None,
            },
            Role::Receiving(receiving) => match &receiving.stage {
                ReceiveStage::Asking { carrier, .. } | ReceiveStage::Showing(carrier) => {
                    Some(*carrier)
                }
                ReceiveStage::Accepted(_, step) => step.carrier(),
                ReceiveStage::Over(_) => None,
            },
        }
    }

    /// Whether the session must stay up for this transfer.
    pub(in crate::state) fn uses(&self, session: SessionId) -> bool {
        self.carrier().is_some_and(|it| it.session == session)
    }

    /// The offer that is to continue it.
    pub(super) const fn next_carrier(&self) -> Option<Carrier> {
        let Some(Step::Releasing { next, .. }) = self.step() else {
            return None;
        };
        Some(*next)
    }

    /// Whether another offer on this session is to continue it.
    pub(in crate::state) fn is_reoffered_on(&self, session: SessionId) -> bool {
        self.next_carrier().is_some_and(|it| it.session == session)
    }

    pub(super) const fn step(&self) -> Option<&Step> {
        match &self.role {
            Role::Receiving(Receiving {
                stage: ReceiveStage::Accepted(_, step),
                ..
            }) => Some(step),
            _ => None,
        }
    }

    pub(super) fn stage(&self) -> Stage {
        match self.ended() {
            Some(Ok(completion)) => return Stage::Completed(completion.clone()),
            Some(Err(failure)) => return Stage::Failed(failure.clone()),
            None => {}
        }
        match &self.role {
            Role::Sending(sending) => match sending.stage {
                SendStage::Queued { .. } => Stage::Queued,
                SendStage::Listing { .. } => Stage::Preparing,
                SendStage::Connecting { .. } => Stage::Connecting,
                SendStage::Offered(_) => Stage::AwaitingAnswer,
                SendStage::Reconnecting(_) => Stage::Reconnecting,
                SendStage::Running(_) | SendStage::Over(_) => Stage::Transferring,
            },
            Role::Receiving(receiving) => match &receiving.stage {
                ReceiveStage::Asking { .. } => Stage::AwaitingDecision,
                ReceiveStage::Accepted(_, Step::Preparing(_)) if !self.is_begun() => {
                    Stage::Preparing
                }
                ReceiveStage::Accepted(_, Step::Running(_))
                | ReceiveStage::Showing(_)
                | ReceiveStage::Over(_) => Stage::Transferring,
                ReceiveStage::Accepted(..) => Stage::Reconnecting,
            },
        }
    }

    pub(in crate::state) fn view(&self, id: TransferId) -> TransferView {
        let (claimed, stranger, may_be_shown) = match &self.role {
            Role::Sending(_) => (false, false, true),
            Role::Receiving(it) => (it.claimed, it.stranger, it.yes.is_some()),
        };
        TransferView {
            id,
            face: self.face,
            peer: self.peer.clone(),
            claimed,
            stranger,
            direction: match self.is_sending() {
                true => Direction::Sending,
                false => Direction::Receiving,
            },
            offer: self.offer.clone(),
            stage: self.stage(),
            path: self.path,
            progress: self.progress,
            is_text: self.is_text(),
            text: self.text().filter(|_| may_be_shown).cloned(),
        }
    }

    pub(super) fn completion(&self, summary: Summary, now: Instant) -> Completion {
        let folder = match &self.role {
            Role::Receiving(Receiving {
                stage: ReceiveStage::Accepted(accepted, _),
                ..
            }) if !accepted.is_piped => Some(accepted.folder.clone()),
            _ => None,
        };
        Completion {
            files: u64::from(summary.files),
            bytes: match self.text() {
                Some(text) => text.len() as u64,
                None => summary.bytes,
            },
            here_bytes: self
                .begun
                .and_then(|begun| begun.had_bytes)
                .unwrap_or(summary.here_bytes),
            resent_bytes: summary.resent_bytes,
            failed_files: u64::from(summary.failed_files),
            unread: self.offer.unread,
            skipped_files: u64::from(summary.skipped_files),
            skipped: summary.skipped,
            digest: summary.digest.map(|digest| digest.to_string()),
            elapsed: self.begun.map_or(Duration::ZERO, |begun| now - begun.at),
            folder: summary.folder.or(folder),
            paths: summary.paths,
            renamed: summary.renamed,
        }
    }

    /// What ends it on its session: an offer that was not answered can only be declined.
    pub(super) const fn end_as(&self, end: ExchangeEffect) -> ExchangeEffect {
        match self.awaits_decision() {
            true => ExchangeEffect::Decline(DeclineReason::Declined),
            false => end,
        }
    }

    pub(super) fn end(&mut self, ended: Ended) {
        match &mut self.role {
            Role::Sending(sending) => sending.stage = SendStage::Over(ended),
            Role::Receiving(receiving) => receiving.stage = ReceiveStage::Over(ended),
        }
    }
}

impl Step {
    pub(in crate::state) const fn carrier(&self) -> Option<Carrier> {
        match self {
            Self::Preparing(carrier)
            | Self::Running(carrier)
            | Self::Releasing {
                holder: StepHolder::Running(carrier),
                ..
            } => Some(*carrier),
            Self::Releasing { .. } | Self::Lost { .. } => None,
        }
    }
}
