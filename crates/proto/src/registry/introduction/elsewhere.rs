//! Introductions of two people who are logged in to different nodes.
//!
//! The inviter's node hands on the invitation with all that it believes of the inviter.
//! The node of the invited does what it does for an inviter of its own, and hands back
//! what that one is to be told. Both nodes give up after the same time, so a message that
//! is lost between them costs a time-out.

use std::time::{Duration, Instant};

use crate::candidate::Candidate;
use crate::node::{NodeInvitation, NodeInviter, NodeMessage, NodeRelay};
use crate::rendezvous::{
    IntroductionFailure, IntroductionId, NodeId, PeerIdentity, RelayToken, Role, ServerMessage,
};

use super::super::{Registry, SessionId};
use super::{
    ANSWER_TIMEOUT, Failed, Introduction, InviteRequest, Invited, Invitee, InviterElsewhere,
    Inviting, Party,
};

/// What the inviter is told once the invited has answered.
#[derive(Debug)]
pub(in crate::registry) struct Answered {
    pub(in crate::registry) round: u8,
    pub(in crate::registry) invited: PeerIdentity,
    pub(in crate::registry) candidates: Vec<Candidate>,
    /// Both sides are willing to use the relay.
    pub(in crate::registry) relay: bool,
    pub(in crate::registry) start_in_ms: u32,
}

impl Answered {
    pub(super) fn for_inviter(
        self,
        id: IntroductionId,
        token: Option<RelayToken>,
    ) -> ServerMessage {
        ServerMessage::Introduced {
            introduction: id,
            round: self.round,
            peer: self.invited,
            role: Role::Controlling,
            candidates: self.candidates,
            relay: token.filter(|_| self.relay),
            relay_addresses: Vec::new(),
            start_in_ms: self.start_in_ms,
        }
    }

    pub(super) fn for_node(self, id: IntroductionId) -> NodeMessage {
        NodeMessage::Introduced {
            introduction: id,
            round: self.round,
            invited: self.invited,
            candidates: self.candidates,
            relay: self.relay,
            start_in_ms: self.start_in_ms,
        }
    }
}

fn whole_ms(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

impl Registry {
    /// Has somebody invited who may be logged in to another node.
    pub(super) fn invite_elsewhere(
        &mut self,
        now: Instant,
        inviter: SessionId,
        id: IntroductionId,
        invitee: Invitee<'_>,
        wanted: InviteRequest,
    ) {
        let Some(session) = self.sessions.get(&inviter) else {
            return;
        };
        let found = self.cluster.find(invitee.name);
        let Some((node, login)) = found.filter(|&(node, _)| self.cluster.is_linked(node)) else {
            return self.fail(inviter, id, IntroductionFailure::Offline);
        };
        let InviteRequest {
            round,
            reachability,
            credential,
        } = wanted;
        let party = session.party();
        let between = self.cluster.rtt(node).unwrap_or_default();
        let token = (reachability.relay && !self.has_no_relay).then_some(invitee.fresh_token);
        let addresses = match self.cluster.relay_addresses.is_empty() {
            true => vec![session.came_to],
            false => self.cluster.relay_addresses.clone(),
        };
        let message = NodeMessage::Invite(NodeInvitation {
            introduction: id,
            round,
            inviter: NodeInviter {
                identity: party.identity.clone(),
                observed: party.observed,
                is_known: session.is_known,
                rtt_ms: party.rtt.map(|rtt| whole_ms(rtt + between)),
                reachability,
            },
            invited: PeerIdentity {
                name: invitee.name.clone(),
                key: login.key,
            },
            relay: token.map(|token| NodeRelay { token, addresses }),
            credential,
        });
        // The invited may be at the relay before this node hears of its answer.
        self.issue(now, token, &party, login.key);
        self.take_introduction(id);
        let invited = Invited::Elsewhere {
            node,
            identity: PeerIdentity {
                name: invitee.name.clone(),
                key: login.key,
            },
            token,
        };
        let introduction = Introduction {
            round,
            inviter: Inviting::Here(inviter),
            invited,
            expires_at: now + ANSWER_TIMEOUT,
        };
        self.await_answer(id, introduction);
        self.send_to_node(node, message);
    }

    /// Somebody at another node invites somebody who was logged in here.
    pub(in crate::registry) fn invited_from(
        &mut self,
        now: Instant,
        node: NodeId,
        invitation: NodeInvitation,
    ) {
        let NodeInvitation {
            introduction: id,
            round,
            inviter,
            invited,
            relay,
            credential,
        } = invitation;
        let session = self.online.get(&invited.name).copied();
        let is_theirs = |id: &SessionId| {
            let session = self.sessions.get(id);
            session.is_some_and(|it| it.identity == invited)
        };
        let Some(session) = session.filter(is_theirs) else {
            return self.fail_at_node(node, id, IntroductionFailure::Offline);
        };
        if let Some(earlier) = self.introductions.get(&id) {
            let is_same = matches!(&earlier.inviter, Inviting::Elsewhere(it)
                if it.node == node && it.party.identity == inviter.identity)
                && matches!(earlier.invited, Invited::Here { session: it, .. } if it == session);
            if !is_same {
                return self.fail_at_node(node, id, IntroductionFailure::Offline);
            }
            if round <= earlier.round {
                return;
            }
        }
        let party = Party {
            identity: inviter.identity,
            observed: inviter.observed,
            rtt: inviter.rtt_ms.map(|ms| Duration::from_millis(ms.into())),
        };
        let elsewhere = InviterElsewhere {
            node,
            party,
            is_known: inviter.is_known,
            relay,
        };
        let wanted = InviteRequest {
            round,
            reachability: inviter.reachability,
            credential,
        };
        let inviting = Inviting::Elsewhere(Box::new(elsewhere));
        self.invite(now, id, inviting, session, wanted);
    }

    /// Somebody at another node has answered an invitation of somebody here.
    pub(in crate::registry) fn introduced_elsewhere(
        &mut self,
        from: NodeId,
        id: IntroductionId,
        answered: Answered,
    ) {
        let is_awaited = |it: &Introduction| {
            it.round == answered.round
                && matches!(&it.invited, Invited::Elsewhere { node, identity, .. }
                    if *node == from && *identity == answered.invited)
        };
        if self.introductions.get(&id).is_some_and(is_awaited)
            && let Some(introduction) = self.take_introduction(id)
            && let Invited::Elsewhere { token, .. } = introduction.invited
        {
            self.tell_inviter(&introduction.inviter, id, answered, token);
        }
    }

    /// Another node says that an introduction with somebody there will not happen.
    pub(in crate::registry) fn failed_elsewhere(
        &mut self,
        from: NodeId,
        id: IntroductionId,
        failed: Failed,
    ) {
        if self
            .introductions
            .get(&id)
            .is_some_and(|it| it.is_with(from))
        {
            self.fail_here(id, failed);
        }
    }

    /// The link to a node is down: nobody shall wait for those who are logged in there.
    pub(in crate::registry) fn fail_introductions_with(&mut self, node: NodeId) {
        let all = self.introductions.iter();
        let concerned: Vec<_> = all
            .filter(|(_, it)| it.is_with(node))
            .map(|(&id, _)| id)
            .collect();
        for id in concerned {
            self.fail_here(id, IntroductionFailure::Offline);
        }
    }

    /// Tells the side that is logged in here.
    fn fail_here(&mut self, id: IntroductionId, failed: impl Into<Failed>) {
        let Some(introduction) = self.take_introduction(id) else {
            return;
        };
        match (introduction.inviter, introduction.invited) {
            (Inviting::Here(session), Invited::Elsewhere { .. })
            | (Inviting::Elsewhere(_), Invited::Here { session, .. }) => {
                self.fail(session, id, failed);
            }
            _ => {}
        }
    }
}

impl Introduction {
    /// Whether one side is logged in to this node.
    fn is_with(&self, other: NodeId) -> bool {
        matches!(&self.inviter, Inviting::Elsewhere(it) if it.node == other)
            || matches!(self.invited, Invited::Elsewhere { node, .. } if node == other)
    }
}
