//! How introductions fail, and who is told.

use crate::credential::Credential;
use crate::node::NodeMessage;
use crate::rendezvous::{IntroductionFailure, IntroductionId, NodeId, ServerMessage};

use super::super::{Registry, SessionId};
use super::{Invited, Inviting};

/// How an introduction has failed.
#[derive(Debug)]
pub(in crate::registry) struct Failed {
    pub(in crate::registry) reason: IntroductionFailure,
    /// From the invited.
    pub(in crate::registry) credential: Option<Credential>,
}

impl From<IntroductionFailure> for Failed {
    fn from(reason: IntroductionFailure) -> Self {
        Self {
            reason,
            credential: None,
        }
    }
}

impl Registry {
    pub(super) fn fail(
        &mut self,
        session: SessionId,
        id: IntroductionId,
        failed: impl Into<Failed>,
    ) {
        let Failed { reason, credential } = failed.into();
        let failed = ServerMessage::IntroductionFailed {
            introduction: id,
            reason,
            credential,
        };
        self.send(session, failed);
    }

    pub(super) fn fail_inviter(
        &mut self,
        it: &Inviting,
        id: IntroductionId,
        failed: impl Into<Failed>,
    ) {
        match it {
            Inviting::Here(session) => self.fail(*session, id, failed),
            Inviting::Elsewhere(it) => self.fail_at_node(it.node, id, failed),
        }
    }

    pub(super) fn fail_invited(
        &mut self,
        it: &Invited,
        id: IntroductionId,
        reason: IntroductionFailure,
    ) {
        match it {
            Invited::Here { session, .. } => self.fail(*session, id, reason),
            Invited::Elsewhere { node, .. } => self.fail_at_node(*node, id, reason),
        }
    }

    pub(super) fn fail_at_node(
        &mut self,
        node: NodeId,
        id: IntroductionId,
        failed: impl Into<Failed>,
    ) {
        let Failed { reason, credential } = failed.into();
        let failed = NodeMessage::IntroductionFailed {
            introduction: id,
            reason,
            credential,
        };
        self.send_to_node(node, failed);
    }
}
