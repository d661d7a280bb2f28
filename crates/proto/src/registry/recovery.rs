//! What has become of keys: who is told, and whose sessions end.

use std::time::Instant;

use crate::key::PeerKey;
use crate::name::PeerName;
use crate::recovery::{KeyHistory, RecoveryCertificate, Revocation};
use crate::rendezvous::{PeerIdentity, Refusal, ServerMessage};

use super::{Action, Registry, SessionId};

/// Most names of revoked keys that are remembered for those who come to watch them.
pub const REVOKED_NAMES: usize = 65_536;

impl Registry {
    /// A session has looked for this certificate. To be called before
    /// [`Registry::handle_claim`], which ends it.
    pub fn handle_certificate(&mut self, session: SessionId, certificate: RecoveryCertificate) {
        if self.sessions.contains_key(&session) {
            self.send(session, ServerMessage::RecoveryCertificate(certificate));
        }
    }

    /// The outcome of [`Action::FindKeyHistory`].
    pub fn handle_key_history(&mut self, session: SessionId, history: KeyHistory) {
        if self.sessions.contains_key(&session) {
            self.send(session, ServerMessage::KeyHistory(Box::new(history)));
        }
    }

    /// A key was revoked, or another one has taken its place: its sessions end.
    pub fn handle_key_ended(&mut self, key: PeerKey) {
        let sessions = self.sessions.iter();
        let of_key = sessions.filter(|(_, it)| it.identity.key == key);
        let of_key: Vec<_> = of_key.map(|(&id, _)| id).collect();
        for session in of_key {
            self.close(session, Some(Refusal::KeyRevoked));
        }
    }

    /// Keys were revoked that have these names, here, on another node, or before the server
    /// started. Their sessions end, and whoever watches a name is told, once, now or when it
    /// begins to.
    pub fn handle_revocations(&mut self, revoked: Vec<(PeerName, Revocation)>) {
        for (name, revocation) in revoked {
            self.handle_key_ended(revocation.key);
            if self.revoked.get(&name) == Some(&revocation) {
                continue;
            }
            let watchers = self.presence.watchers_of(&name);
            self.broadcast(watchers, told(name.clone(), revocation));
            if self.revoked.len() < REVOKED_NAMES || self.revoked.contains_key(&name) {
                self.revoked.insert(name, revocation);
            }
        }
    }

    /// The name belongs to this key now, whichever node it is logged in to.
    pub(super) fn forget_revocation(&mut self, name: &PeerName, key: PeerKey) {
        if self.revoked.get(name).is_some_and(|it| it.key != key) {
            self.revoked.remove(name);
        }
    }

    pub(super) fn tell_revocations(&mut self, id: SessionId, names: &[PeerName]) {
        for name in names {
            if let Some(&revocation) = self.revoked.get(name) {
                self.send(id, told(name.clone(), revocation));
            }
        }
    }

    pub(super) fn find_key_history(
        &mut self,
        now: Instant,
        session: SessionId,
        name: PeerName,
        key: PeerKey,
    ) {
        let Some(asker) = self.sessions.get(&session) else {
            return;
        };
        let PeerIdentity { key: own, .. } = asker.identity;
        let newcomer_at = (!asker.is_known).then_some(asker.observed.ip());
        if self.presence.may_look_up(now, own, newcomer_at) {
            self.actions
                .push_back(Action::FindKeyHistory { session, name, key });
        } else {
            self.handle_key_history(session, KeyHistory::unknown(name, key));
        }
    }
}

fn told(name: PeerName, revocation: Revocation) -> ServerMessage {
    ServerMessage::KeyHistory(Box::new(KeyHistory {
        revocation: Some(revocation),
        ..KeyHistory::unknown(name, revocation.key)
    }))
}
