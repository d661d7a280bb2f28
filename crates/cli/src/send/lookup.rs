//! Resolving a name to a peer.

use pinhole_client::PeerView;

use crate::arguments::PeerSpec;

/// What is known so far about the owner of a name.
#[derive(Debug, Clone, Copy)]
pub(super) struct LookupProgress {
    /// There is a server that knows the owner of each name.
    pub(super) has_server: bool,
    /// The server has answered or cannot be reached.
    pub(super) is_settled: bool,
    /// Peers nearby may not have answered yet.
    pub(super) searches_nearby: bool,
}

/// The peer that a name stands for now.
pub(super) enum Resolution<'a> {
    Peer(&'a PeerView),
    /// The answer may come in a moment.
    NotYet,
    /// Several peers claim the name, and none of them is known.
    Several,
    /// A peer nearby claims the name, but there is a server that could confirm it.
    Unconfirmed(&'a PeerView),
    /// A peer has the name, but not the given key.
    OtherKey(&'a PeerView),
    Nobody,
}

/// Resolves a name. With a fingerprint it is the peer with that key. Otherwise it is a
/// peer whom a server confirms or whom we know. A peer nearby that only claims the name
/// is chosen only without a server, because a server may know its real owner, who is just
/// offline.
pub(super) fn resolve<'a>(
    peers: &'a [PeerView],
    spec: &PeerSpec,
    progress: LookupProgress,
) -> Resolution<'a> {
    let may_show = !progress.is_settled || progress.searches_nearby;
    let named = || {
        let online = peers.iter().filter(|peer| peer.online);
        online.filter(|peer| peer.identity.name == spec.name)
    };
    if let Some(fingerprint) = spec.fingerprint {
        let is_said = |peer: &&PeerView| peer.identity.key.fingerprint() == fingerprint;
        return match (named().find(is_said), named().next()) {
            (Some(peer), _) => Resolution::Peer(peer),
            (None, _) if may_show => Resolution::NotYet,
            (None, Some(other)) => Resolution::OtherKey(other),
            (None, None) => Resolution::Nobody,
        };
    }
    let with_right_key = || named().filter(|peer| peer.changed_from.is_none());
    if let Some(peer) = with_right_key().find(|peer| !peer.claimed) {
        return Resolution::Peer(peer);
    }
    if !progress.is_settled {
        return Resolution::NotYet;
    }
    let mut strangers = with_right_key();
    match (strangers.next(), strangers.next()) {
        // A known peer may still answer.
        (Some(_), _) if progress.has_server && may_show => Resolution::NotYet,
        (Some(stranger), _) if progress.has_server => Resolution::Unconfirmed(stranger),
        (Some(_), Some(_)) => Resolution::Several,
        (Some(stranger), None) => Resolution::Peer(stranger),
        (None, _) if progress.searches_nearby => Resolution::NotYet,
        // The engine refuses it and says why.
        (None, _) => named().next().map_or(Resolution::Nobody, Resolution::Peer),
    }
}

#[cfg(test)]
mod tests {
    use pinhole_client::{PeerIdentity, PeerKey};

    use super::*;

    fn peer(key: u8) -> PeerView {
        PeerView {
            identity: PeerIdentity {
                name: "bob".parse().unwrap(),
                key: PeerKey::from_bytes([key; 32]),
            },
            online: true,
            nearby: false,
            claimed: false,
            contact: false,
            changed_from: None,
            released: false,
            revoked: false,
            path: None,
        }
    }

    fn claimed(key: u8) -> PeerView {
        PeerView {
            nearby: true,
            claimed: true,
            ..peer(key)
        }
    }

    fn changed(key: u8) -> PeerView {
        PeerView {
            changed_from: Some(peer(1).identity.key.fingerprint()),
            ..claimed(key)
        }
    }

    /// The first byte of the key that `bob` means, or a word.
    fn chosen(peers: &[PeerView], key: Option<u8>, progress: LookupProgress) -> String {
        let spec = PeerSpec {
            name: "bob".parse().unwrap(),
            fingerprint: key.map(|key| peer(key).identity.key.fingerprint()),
        };
        let first = |peer: &PeerView| peer.identity.key.as_bytes()[0].to_string();
        match resolve(peers, &spec, progress) {
            Resolution::Peer(peer) => first(peer),
            Resolution::Unconfirmed(peer) => format!("unconfirmed {}", first(peer)),
            Resolution::OtherKey(peer) => format!("not {}", first(peer)),
            Resolution::NotYet => "not yet".to_owned(),
            Resolution::Several => "several".to_owned(),
            Resolution::Nobody => "nobody".to_owned(),
        }
    }

    fn progress(has_server: bool, is_settled: bool, searches_nearby: bool) -> LookupProgress {
        LookupProgress {
            has_server,
            is_settled,
            searches_nearby,
        }
    }

    #[test]
    fn a_name_means_the_peer_that_a_server_confirms() {
        let offline = PeerView {
            online: false,
            ..peer(1)
        };
        let (asking, asked) = (progress(true, false, true), progress(true, true, true));
        let settled = progress(true, true, false);
        for (peers, progress, expected) in [
            (vec![], asking, "not yet"),
            (vec![], asked, "not yet"),
            (vec![], settled, "nobody"),
            (vec![offline.clone()], settled, "nobody"),
            (vec![claimed(2), peer(1)], asking, "1"),
            (vec![changed(2), peer(1)], asking, "1"),
            // The server may know another, or somebody we know may answer.
            (vec![claimed(2)], asking, "not yet"),
            (vec![claimed(2)], asked, "not yet"),
            (vec![claimed(2)], settled, "unconfirmed 2"),
            (vec![offline, claimed(2)], settled, "unconfirmed 2"),
            (vec![claimed(2), claimed(3)], settled, "unconfirmed 2"),
            // The right one may show yet; else the engine refuses.
            (vec![changed(2)], asked, "not yet"),
            (vec![changed(2)], settled, "2"),
        ] {
            assert_eq!(chosen(&peers, None, progress), expected, "{peers:#?}");
        }
    }

    #[test]
    fn without_a_server_a_name_means_its_only_claimant() {
        let (searching, settled) = (progress(false, true, true), progress(false, true, false));
        for (peers, progress, expected) in [
            (vec![], searching, "not yet"),
            (vec![], settled, "nobody"),
            (vec![claimed(2)], searching, "2"),
            (vec![claimed(2), claimed(3)], searching, "several"),
            (vec![changed(2)], searching, "not yet"),
            (vec![changed(2)], settled, "2"),
        ] {
            assert_eq!(chosen(&peers, None, progress), expected, "{peers:#?}");
        }
    }

    #[test]
    fn a_fingerprint_means_one_key_confirmed_or_not() {
        let (asking, settled) = (progress(true, false, true), progress(true, true, false));
        for (peers, progress, expected) in [
            (vec![claimed(2), peer(1)], asking, "2"),
            (vec![claimed(2)], settled, "2"),
            (vec![peer(1)], asking, "not yet"),
            (vec![peer(1)], settled, "not 1"),
            (vec![], settled, "nobody"),
        ] {
            assert_eq!(chosen(&peers, Some(2), progress), expected, "{peers:#?}");
        }
    }
}
