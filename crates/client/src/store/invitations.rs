//! Invitations that others may still use, and those that we have used and whose inviter
//! does not know it yet. Kept in `invitations.json` of the profile.

use blake3::Hash;
use pinhole_net::{Fingerprint, PeerIdentity, PeerKey};
use serde::{Deserialize, Serialize};

use crate::invitation::link::Pass;
use crate::invitation::proof::Secret;

/// Most invitations that are open, and most that are used and not known of. One more takes
/// the place of the one that ends first.
const INVITATIONS_MAX: usize = 64;

/// How often an invitation can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Uses {
    /// By the first who does.
    Once,
    /// By everybody who has the link, until it ends.
    Many,
}

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Invitations {
    #[serde(default)]
    open: Vec<OpenInvitation>,
    #[serde(default)]
    used: Vec<UsedInvitation>,
}

/// One of ours. Whoever proves to have it is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct OpenInvitation {
    #[serde(flatten)]
    pass: Pass,
    uses: Uses,
}

/// One of somebody else, which we have used. The inviter has yet to hear of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UsedInvitation {
    /// The fingerprint of the server's key.
    pub(crate) server: Fingerprint,
    pub(crate) inviter: PeerIdentity,
    #[serde(flatten)]
    pub(crate) pass: Pass,
}

impl Invitations {
    /// Opens one of ours.
    pub(crate) fn open(&mut self, pass: Pass, uses: Uses, now_s: u64) {
        self.forget_ended(now_s);
        make_room(&mut self.open, |it| it.pass);
        self.open.push(OpenInvitation { pass, uses });
    }

    /// The invitation that a joiner proves to have, with how often it can be used.
    pub(crate) fn proven(
        &self,
        proof: Hash,
        inviter: PeerKey,
        joiner: PeerKey,
        now_s: u64,
    ) -> Option<(Secret, Uses)> {
        let is_meant = |it: &&OpenInvitation| {
            now_s < it.pass.ends_at_s && it.pass.secret.proof(inviter, joiner) == proof
        };
        let found = self.open.iter().find(is_meant)?;
        Some((found.pass.secret, found.uses))
    }

    /// Somebody has joined by one of ours. Returns whether anything changed.
    pub(crate) fn use_up(&mut self, secret: Secret) -> bool {
        let before = self.open.len();
        let is_used_up = |it: &OpenInvitation| it.pass.secret == secret && it.uses == Uses::Once;
        self.open.retain(|it| !is_used_up(it));
        self.open.len() < before
    }

    /// We have used one of somebody else.
    pub(crate) fn use_one(&mut self, used: UsedInvitation, now_s: u64) {
        self.forget_ended(now_s);
        self.used.retain(|it| it.inviter.key != used.inviter.key);
        make_room(&mut self.used, |it| it.pass);
        self.used.push(used);
    }

    /// Those whose inviters have yet to hear of it, at one server.
    pub(crate) fn used_at(&self, server: Fingerprint) -> impl Iterator<Item = &UsedInvitation> {
        self.used.iter().filter(move |it| it.server == server)
    }

    /// The inviter knows, or does not want to. Returns whether anything changed.
    pub(crate) fn settle(&mut self, inviter: PeerKey) -> bool {
        let before = self.used.len();
        self.used.retain(|it| it.inviter.key != inviter);
        self.used.len() < before
    }

    fn forget_ended(&mut self, now_s: u64) {
        self.open.retain(|it| now_s < it.pass.ends_at_s);
        self.used.retain(|it| now_s < it.pass.ends_at_s);
    }
}

/// Removes those that end first until there is room for one more.
fn make_room<T>(all: &mut Vec<T>, pass: impl Fn(&T) -> Pass) {
    while all.len() >= INVITATIONS_MAX {
        let places = all.iter().enumerate();
        let first = places.min_by_key(|(_, it)| pass(it).ends_at_s);
        match first.map(|(place, _)| place) {
            Some(place) => drop(all.remove(place)),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> PeerKey {
        PeerKey::from_bytes([n; 32])
    }

    fn pass(n: u8, ends_at_s: u64) -> Pass {
        Pass {
            secret: Secret::from_bytes([n; 16]),
            ends_at_s,
        }
    }

    const ALICE: PeerKey = PeerKey::from_bytes([1; 32]);
    const BOB: PeerKey = PeerKey::from_bytes([2; 32]);

    fn proof(n: u8) -> Hash {
        pass(n, 0).secret.proof(ALICE, BOB)
    }

    #[test]
    fn one_that_is_good_once_is_used_up() {
        let mut all = Invitations::default();
        all.open(pass(7, 100), Uses::Once, 0);
        all.open(pass(8, 100), Uses::Many, 0);
        for n in [7, 8] {
            let (secret, _) = all.proven(proof(n), ALICE, BOB, 99).unwrap();
            assert_eq!(all.use_up(secret), n == 7);
        }
        assert_eq!(all.proven(proof(7), ALICE, BOB, 99), None);
        assert!(all.proven(proof(8), ALICE, BOB, 99).is_some());
        assert_eq!(all.proven(proof(8), ALICE, BOB, 100), None, "it is over");
        assert_eq!(
            all.proven(proof(9), ALICE, BOB, 0),
            None,
            "nobody has made it"
        );
        assert_eq!(all.proven(proof(8), ALICE, key(3), 0), None);
    }

    #[test]
    fn there_are_at_most_so_many_and_the_first_to_end_gives_way() {
        let mut all = Invitations::default();
        for n in 0..=64 {
            all.open(pass(n, 200 - u64::from(n)), Uses::Many, 0);
            all.use_one(used(n, 200 - u64::from(n)), 0);
        }
        assert_eq!((all.open.len(), all.used.len()), (64, 64));
        assert_eq!(all.proven(proof(63), ALICE, BOB, 0), None);
        assert!(all.proven(proof(64), ALICE, BOB, 0).is_some());
        all.open(pass(65, 300), Uses::Many, 199);
        assert_eq!((all.open.len(), all.used.len()), (2, 1));
    }

    fn used(n: u8, ends_at_s: u64) -> UsedInvitation {
        UsedInvitation {
            server: key(9).fingerprint(),
            inviter: PeerIdentity {
                name: "alice".parse().unwrap(),
                key: key(n),
            },
            pass: pass(n, ends_at_s),
        }
    }

    #[test]
    fn the_inviter_hears_of_it_once() {
        let mut all = Invitations::default();
        all.use_one(used(1, 100), 0);
        all.use_one(used(1, 200), 0);
        let at = |server: PeerKey| all.used_at(server.fingerprint()).count();
        assert_eq!((at(key(9)), at(key(8))), (1, 0));
        assert!(all.settle(key(1)));
        assert!(!all.settle(key(1)));
    }

    #[test]
    fn they_are_stored_as_text() {
        let mut all = Invitations::default();
        all.open(pass(1, 100), Uses::Once, 0);
        all.use_one(used(2, 100), 0);
        let stored = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Invitations>(&stored).unwrap(), all);
        assert_eq!(
            serde_json::from_str::<Invitations>("{}").unwrap(),
            Invitations::default()
        );
    }
}
