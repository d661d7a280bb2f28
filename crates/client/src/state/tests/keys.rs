//! Contacts whose keys have changed or were revoked, as the server tells it and as it is
//! signed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pinhole_net::{
    Directory, Identity, KeyHistory, PeerIdentity, PeerKey, Presence, RecoveryCertificate,
    RecoveryKey, RefuseReason, Revocation, Succession, generate_identity,
};

use super::party::{Party, identity, introduced};
use crate::command::Command;
use crate::event::Event;
use crate::failure::Failure;
use crate::model::Stage;
use crate::snapshot::{LoginState, PeerView};
use crate::state::{ConnectionId, Effect, LoggedInTo, LoginEffect, LoginInput, Told};
use crate::store::{Acquaintance, Settings};

/// Somebody with a key pair.
fn person() -> Identity {
    generate_identity().unwrap().0
}

fn words(number: u8) -> RecoveryKey {
    RecoveryKey::from_entropy(&[number; RecoveryKey::ENTROPY_BYTES]).unwrap()
}

fn bob(key: PeerKey) -> PeerIdentity {
    PeerIdentity {
        key,
        ..identity("bob", 0)
    }
}

fn unknown(key: PeerKey) -> KeyHistory {
    KeyHistory::unknown(bob(key).name, key)
}

fn server() -> PeerKey {
    identity("server", 9).key
}

/// How one key after the other has taken the place of the first.
fn chain(people: &[&Identity]) -> Vec<Succession> {
    let pairs = people.iter().zip(people.iter().skip(1));
    let changes = pairs.map(|(former, next)| {
        let certificate = RecoveryCertificate::sign(former, words(1).key());
        Succession::sign(&words(1), certificate, next.key())
    });
    changes.collect()
}

/// Alice, who knows bob as the server names him.
struct Alice {
    party: Party,
    now: Instant,
    connection: ConnectionId,
    asked: Vec<PeerIdentity>,
    events: Vec<Event>,
}

impl Alice {
    fn knowing(known: PeerKey) -> Self {
        let now = Instant::now();
        let settings = Settings {
            nearby: false,
            ..Settings::default()
        };
        let mut party = Party::new(identity("alice", 1), settings, now);
        let contacts = &mut party.state.contacts;
        assert!(contacts.meet(server(), &bob(known)));
        assert!(contacts.mark_contact(server(), &bob(known)));
        let mut alice = Self {
            party,
            now,
            connection: ConnectionId(0),
            asked: Vec::new(),
            events: Vec::new(),
        };
        alice.log_in();
        alice
    }

    fn log_in(&mut self) {
        self.command(Command::LogIn {
            name: "alice".parse().unwrap(),
            server: "server.test".parse().unwrap(),
            patient: true,
        });
        self.input(LoginInput::LoggedIn(LoggedInTo {
            server_key: server(),
            observed: SocketAddr::from(([192, 0, 2, 1], 4000)),
            has_relay: true,
            has_codes: true,
            round_trip: Duration::from_millis(40),
        }));
    }

    fn command(&mut self, command: Command) {
        self.party.state.handle_command(command, self.now);
        self.run();
    }

    fn input(&mut self, input: LoginInput) {
        let (state, now) = (&mut self.party.state, self.now);
        state.handle_login(self.connection, input, now);
        self.run();
    }

    fn online(&mut self, key: PeerKey) {
        self.input(LoginInput::Presence(Presence {
            directory: Directory::Closed,
            online: vec![bob(key)],
            offline: Vec::new(),
        }));
    }

    fn history(&mut self, history: KeyHistory) {
        self.input(LoginInput::KeyHistory(Box::new(history)));
    }

    fn run(&mut self) {
        while let Some(effect) = self.party.state.poll_effect() {
            match effect {
                Effect::Login(LoginEffect::LogIn { connection, .. }) => {
                    self.connection = connection;
                }
                Effect::Login(LoginEffect::AskHistory(known)) => self.asked.push(known),
                Effect::Emit(event) => self.events.push(event),
                _ => {}
            }
        }
    }

    fn views(&self) -> Vec<PeerView> {
        self.party.state.snapshot(self.party.identity.key).peers
    }

    fn is_logged_in(&self) -> bool {
        let snapshot = self.party.state.snapshot(self.party.identity.key);
        matches!(snapshot.login, LoginState::LoggedIn { .. })
    }

    fn known(&self, key: PeerKey) -> Acquaintance {
        self.party.state.contacts.acquaintance(server(), &bob(key))
    }

    fn send(&mut self, peer: PeerKey) -> Stage {
        let paths = vec![PathBuf::from("/tmp/file")];
        self.command(Command::Send { peer, paths });
        let snapshot = self.party.state.snapshot(self.party.identity.key);
        snapshot.transfers.last().unwrap().stage.clone()
    }

    /// The notices of signed changes.
    fn successions(&self) -> Vec<PeerKey> {
        let events = self.events.iter().filter_map(|event| match event {
            Event::KeySucceeded { peer, .. } => Some(peer.key),
            _ => None,
        });
        events.collect()
    }
}

const CONTACT: Acquaintance = Acquaintance::Known { contact: true };

#[test]
fn a_contact_is_followed_through_signed_changes_without_a_question() {
    let (first, second, third) = (person(), person(), person());
    let mut alice = Alice::knowing(first.key());
    alice.online(third.key());
    assert_eq!(alice.asked, [bob(first.key())]);
    assert!(!alice.is_logged_in(), "she is told once bob is certain");
    alice.history(KeyHistory {
        successions: chain(&[&first, &second, &third]),
        ..unknown(first.key())
    });
    assert!(alice.is_logged_in());
    assert_eq!(alice.known(third.key()), CONTACT);
    assert_eq!(alice.successions(), [third.key()]);
    let [view] = &*alice.views() else {
        panic!("bob alone");
    };
    assert!(view.online && view.contact && view.changed_from.is_none());
    assert!(matches!(alice.send(third.key()), Stage::Preparing));
}

#[test]
fn without_a_sound_statement_the_alarm_stays() {
    let (first, impostor) = (person(), person());
    let certificate = RecoveryCertificate::sign(&first, words(1).key());
    let forged = [
        Vec::new(),
        vec![Succession::sign(&words(2), certificate, impostor.key())],
        chain(&[&impostor, &first]),
        chain(&[&person(), &impostor]),
    ];
    for successions in forged {
        let mut alice = Alice::knowing(first.key());
        alice.online(impostor.key());
        alice.history(KeyHistory {
            successions,
            ..unknown(first.key())
        });
        assert!(alice.is_logged_in());
        let pinned = first.key();
        assert_eq!(
            alice.known(impostor.key()),
            Acquaintance::KeyChanged { pinned }
        );
        assert_eq!(alice.successions(), []);
        let Stage::Failed(Failure::PeerKeyChanged { .. }) = alice.send(impostor.key()) else {
            panic!("sent to the impostor");
        };
        alice.online(impostor.key());
        assert_eq!(alice.asked.len(), 1, "asked once");
    }
}

#[test]
fn a_chain_that_leads_elsewhere_moves_the_pin_and_raises_the_alarm() {
    let (first, second, impostor) = (person(), person(), person());
    let mut alice = Alice::knowing(first.key());
    alice.online(impostor.key());
    alice.history(KeyHistory {
        successions: chain(&[&first, &second]),
        ..unknown(first.key())
    });
    assert_eq!(alice.asked, [bob(first.key()), bob(second.key())]);
    alice.history(unknown(second.key()));
    let pinned = second.key();
    assert_eq!(
        alice.known(impostor.key()),
        Acquaintance::KeyChanged { pinned }
    );
    assert!(alice.is_logged_in());
}

#[test]
fn a_long_chain_is_followed_in_parts() {
    let people: Vec<_> = (0..12).map(|_| person()).collect();
    let all: Vec<_> = people.iter().collect();
    let changes = chain(&all);
    let (first, last) = (people[0].key(), people[11].key());
    let mut alice = Alice::knowing(first);
    alice.online(last);
    alice.history(KeyHistory {
        successions: changes[..8].to_vec(),
        ..unknown(first)
    });
    assert_eq!(alice.asked.last(), Some(&bob(people[8].key())));
    alice.history(KeyHistory {
        successions: changes[8..].to_vec(),
        ..unknown(people[8].key())
    });
    assert_eq!(alice.known(last), CONTACT);
}

#[test]
fn an_invitation_waits_for_the_history() {
    let (first, second) = (person(), person());
    let mut alice = Alice::knowing(first.key());
    alice.online(first.key());
    let peer = bob(second.key());
    let state = &mut alice.party.state;
    assert!(state.handle_doubtful(&peer, alice.now));
    alice.run();
    alice.history(KeyHistory {
        successions: chain(&[&first, &second]),
        ..unknown(first.key())
    });
    let state = &mut alice.party.state;
    assert!(!state.handle_doubtful(&peer, alice.now));
    let told = state.handle_invitation(introduced(peer), alice.now);
    // This run of hers accepts only what contacts may do.
    assert_ne!(told, Told::No(RefuseReason::KeyMismatch));
}

#[test]
fn what_waits_for_a_contact_goes_to_the_new_key() {
    let (first, second) = (person(), person());
    let mut alice = Alice::knowing(first.key());
    alice.input(LoginInput::Presence(Presence {
        directory: Directory::Closed,
        online: Vec::new(),
        offline: vec![bob(first.key()).name],
    }));
    assert!(matches!(alice.send(first.key()), Stage::Queued));
    alice.online(second.key());
    alice.history(KeyHistory {
        successions: chain(&[&first, &second]),
        ..unknown(first.key())
    });
    let snapshot = alice.party.state.snapshot(alice.party.identity.key);
    let transfer = snapshot.transfers.last().unwrap();
    assert_eq!(transfer.peer, bob(second.key()));
    assert!(!matches!(transfer.stage, Stage::Queued));
}

#[test]
fn a_revoked_contact_is_sent_nothing_until_it_has_a_successor() {
    let (first, second) = (person(), person());
    let mut alice = Alice::knowing(first.key());
    let forged = Revocation {
        key: first.key(),
        ..Revocation::sign(&second)
    };
    alice.history(KeyHistory {
        revocation: Some(forged),
        ..unknown(first.key())
    });
    assert_eq!(alice.known(first.key()), CONTACT, "anybody could say so");
    let revoked = KeyHistory {
        revocation: Some(Revocation::sign(&first)),
        ..unknown(first.key())
    };
    alice.history(revoked.clone());
    alice.history(revoked);
    let told = |event: &&Event| matches!(event, Event::KeyRevoked { .. });
    assert_eq!(alice.events.iter().filter(told).count(), 1);
    alice.online(first.key());
    assert!(alice.views()[0].revoked);
    let Stage::Failed(Failure::PeerKeyRevoked { .. }) = alice.send(first.key()) else {
        panic!("sent to a revoked key");
    };
    let (state, now) = (&mut alice.party.state, alice.now);
    let told = state.handle_invitation(introduced(bob(first.key())), now);
    assert_eq!(told, Told::No(RefuseReason::KeyMismatch));
    let told = state.handle_visitor(&bob(first.key()), now);
    assert_eq!(told, Told::No(RefuseReason::KeyMismatch));
    alice.online(second.key());
    alice.history(KeyHistory {
        successions: chain(&[&first, &second]),
        ..unknown(first.key())
    });
    assert_eq!(alice.known(second.key()), CONTACT);
}

#[test]
fn the_alarm_about_a_released_name_says_so() {
    let (first, other) = (person(), person());
    let mut alice = Alice::knowing(first.key());
    alice.online(other.key());
    alice.history(KeyHistory {
        released_at_s: Some(7),
        ..unknown(first.key())
    });
    assert!(alice.views()[0].released && alice.views()[0].changed_from.is_some());
    let Stage::Failed(Failure::NameReleased { .. }) = alice.send(other.key()) else {
        panic!("sent to somebody else");
    };
}

#[test]
fn what_is_said_of_a_stranger_s_key_changes_nothing() {
    let (known, stranger, next) = (person(), person(), person());
    let mut alice = Alice::knowing(known.key());
    alice.history(KeyHistory {
        successions: chain(&[&stranger, &next]),
        revocation: Some(Revocation::sign(&stranger)),
        ..unknown(stranger.key())
    });
    assert!(alice.successions().is_empty());
    let told = |event: &Event| matches!(event, Event::KeyRevoked { .. });
    assert!(!alice.events.iter().any(told));
}

#[test]
fn an_answer_about_somebody_who_has_left_brings_nobody_back() {
    let (first, second) = (person(), person());
    let mut alice = Alice::knowing(first.key());
    alice.online(second.key());
    alice.online(first.key());
    assert!(alice.is_logged_in());
    alice.history(unknown(first.key()));
    let views = alice.views();
    assert!(views[0].online && views[0].identity.key == first.key());
    alice.online(second.key());
    let name = bob(first.key()).name;
    alice.input(LoginInput::Presence(Presence {
        directory: Directory::Closed,
        online: Vec::new(),
        offline: vec![name],
    }));
    alice.history(unknown(first.key()));
    assert!(!alice.views()[0].online);
}
