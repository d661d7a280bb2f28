//! Anything, in any order.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    LogIn { who: u8, key: u8 },
    Settle,
    Disconnect { session: u8 },
    Say { session: u8, message: ClientMessage },
    Wait { ms: u64 },
    Relay { key: u8, token: u8 },
    RelayLeaves { relay: u8 },
    Pong { session: u8 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let small = 0..4u8;
    let id = (0..3u8).prop_map(introduction);
    let who = (0..4u8).prop_map(|n| name(&format!("peer{n}")));
    let watched = who.clone();
    let at = any::<bool>().prop_map(|relay| Reachability {
        relay,
        ..reachability(&[(HOST, "192.168.1.5:5000")])
    });
    let credential = proptest::option::of("[a-z]{1,4}".prop_map(|it| it.parse().unwrap()));
    let answered = credential.clone();
    let number = (1..4u16).prop_map(|it| it.try_into().unwrap());
    let message = prop_oneof![
        4 => (id.clone(), 0..6u8, who.clone(), at.clone(), credential).prop_map(
            |(introduction, round, peer, reachability, credential)| ClientMessage::Introduce {
                introduction,
                round,
                peer,
                reachability,
                credential,
            }
        ),
        4 => (id.clone(), 0..6u8, at).prop_map(|(introduction, round, reachability)| {
            ClientMessage::Answer {
                introduction,
                round,
                reachability,
            }
        }),
        1 => (id, answered).prop_map(|(introduction, credential)| ClientMessage::Refuse {
            introduction,
            reason: RefuseReason::Credential,
            credential,
        }),
        2 => Just(ClientMessage::OpenCode),
        1 => Just(ClientMessage::CloseCode),
        2 => number.prop_map(|number| ClientMessage::FindCode { number }),
        1 => any::<u64>().prop_map(|nonce| ClientMessage::Pong { nonce }),
        2 => proptest::collection::vec(watched.clone(), 0..4)
            .prop_map(|names| ClientMessage::Watch { names }),
        1 => proptest::collection::vec(watched, 0..4)
            .prop_map(|names| ClientMessage::Unwatch { names }),
        1 => Just(ClientMessage::Observe),
    ];
    let step = prop_oneof![
        4 => (small.clone(), small.clone()).prop_map(|(who, key)| Step::LogIn { who, key }),
        3 => Just(Step::Settle),
        1 => any::<u8>().prop_map(|session| Step::Disconnect { session }),
        8 => (any::<u8>(), message).prop_map(|(session, message)| Step::Say { session, message }),
        2 => (0..70_000u64).prop_map(|ms| Step::Wait { ms }),
        2 => (small, any::<u8>()).prop_map(|(key, token)| Step::Relay { key, token }),
        1 => any::<u8>().prop_map(|relay| Step::RelayLeaves { relay }),
        3 => any::<u8>().prop_map(|session| Step::Pong { session }),
    ];
    proptest::collection::vec(step, 0..120)
}

impl World {
    fn step(&mut self, step: Step) {
        // Any session there ever was, the ended ones too.
        let session = |n: u8, last: u64| SessionId(u64::from(n) % (last + 1));
        let last = self.last_id;
        match step {
            Step::LogIn { who, key: number } => {
                self.log_in(&format!("peer{who}"), key(number), "198.51.100.1:1000");
            }
            Step::Settle => {
                self.settle_claims();
                self.drain();
            }
            Step::Disconnect { session: n } => self.disconnect(session(n, last)),
            Step::Say {
                session: n,
                message,
            } => self.say(session(n, last), message),
            Step::Wait { ms } => self.wait(Duration::from_millis(ms)),
            Step::Relay { key: k, token } => {
                self.relay(key(k), RelayToken::from_random([token; 32]));
            }
            Step::RelayLeaves { relay } => {
                self.registry
                    .handle_relay_disconnected(RelayId(relay.into()));
            }
            Step::Pong { session: n } => self.pong(session(n, last)),
        }
    }

    /// Who a session must think is online, from what it was told.
    fn view(&self, session: SessionId) -> BTreeSet<PeerName> {
        let watched = &self.registry.sessions[&session].watched;
        let own = &self.registry.sessions[&session].identity.name;
        let mut view = BTreeSet::new();
        for message in self.mail.get(&session).map_or(&[][..], Vec::as_slice) {
            if let ServerMessage::Presence {
                directory,
                online,
                offline,
                ..
            } = message
            {
                view.extend(online.iter().map(|peer| peer.name.clone()));
                view.retain(|name| !offline.contains(name));
                if *directory == Directory::Closed {
                    view.retain(|name| watched.is_watched(name));
                }
            }
        }
        view.remove(own);
        view
    }

    /// Who a session has to know of.
    fn truth(&self, session: SessionId) -> BTreeSet<PeerName> {
        let watched = &self.registry.sessions[&session].watched;
        let own = &self.registry.sessions[&session].identity.name;
        let is_told = |name: &&PeerName| match self.registry.presence.directory() {
            Directory::Open => *name != own,
            Directory::Closed => watched.is_watched(name),
        };
        let online = self.registry.online.keys();
        online.filter(is_told).cloned().collect()
    }
}

proptest! {
    #[test]
    fn any_order_of_events_keeps_everybodys_view_true_and_leaves_nothing_behind(
        steps in steps(),
        directory_people in 0..5usize,
    ) {
        let mut world = World::new();
        world.registry = Registry::new().with_directory(directory_people);
        world.storage_is_slow = true;
        for step in steps {
            world.step(step);
            world.wait(PRESENCE_INTERVAL);
            for session in world.registry.online.values() {
                prop_assert_eq!(world.view(*session), world.truth(*session));
                prop_assert!(!world.closed.contains_key(session));
            }
            let sessions = world.registry.sessions.values();
            let pending: u64 = sessions.map(|s| s.pending_invitations.used()).sum();
            prop_assert_eq!(pending, world.registry.introductions.len() as u64);
            let sessions = world.registry.sessions.iter();
            let codes = sessions.filter_map(|(&id, it)| Some((it.code.open?, id)));
            let codes: Vec<_> = BTreeSet::from_iter(codes).into_iter().collect();
            prop_assert_eq!(codes, world.registry.codes.owners());
        }
        for session in world.registry.sessions.keys().copied().collect::<Vec<_>>() {
            world.disconnect(session);
        }
        world.wait(TOKEN_LIFETIME);
        let left = &world.registry;
        prop_assert!(left.online.is_empty() && left.introductions.is_empty());
        prop_assert!(left.timers.is_empty() && left.observed.is_empty() && left.relay.is_empty());
        prop_assert!(left.presence.is_empty() && left.codes.is_empty());
    }
}
