//! Links and codes step by step: whom they let in, and whom they do not.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pinhole_net::{Directory, PeerIdentity, Presence, RefuseReason};
use pinhole_transfer::Side;

use super::party::{Party, identity, introduced};
use crate::command::Command;
use crate::event::Event;
use crate::failure::Failure;
use crate::invitation::code::{Code, CodeWords};
use crate::invitation::evidence::Evidence;
use crate::invitation::link::{InvitationLink, Pass};
use crate::invitation::proof::Secret;
use crate::state::{
    ConnectPlan, Connected, ConnectionId, Effect, Epoch, Introduced, LoggedInTo, LoginEffect,
    LoginInput, NewInvitation, NoSession, SessionEffect, Told,
};
use crate::store::{Acquaintance, Settings, Strangers, Uses};

/// One person, logged in, who lets no stranger in without asking.
struct Client {
    party: Party,
    now: Instant,
    connection: ConnectionId,
    events: Vec<Event>,
    /// The last attempt to connect.
    attempt: Option<(PeerIdentity, Epoch, ConnectPlan)>,
}

impl Client {
    fn logged_in(who: PeerIdentity) -> Self {
        let now = Instant::now();
        let settings = Settings {
            nearby: false,
            strangers: Strangers::Ask,
            ..Settings::default()
        };
        let name = who.name.clone();
        let mut client = Self {
            party: Party::new(who, settings, now),
            now,
            connection: ConnectionId(0),
            events: Vec::new(),
            attempt: None,
        };
        client.command(Command::LogIn {
            name,
            server: "server.test".parse().unwrap(),
            patient: true,
        });
        client.input(LoginInput::LoggedIn(LoggedInTo {
            server_key: identity("server", 9).key,
            observed: SocketAddr::from(([192, 0, 2, 1], 4000)),
            has_relay: true,
            has_codes: true,
            round_trip: Duration::from_millis(40),
        }));
        client.sees(&[]);
        client
    }

    fn sees(&mut self, online: &[PeerIdentity]) {
        self.input(LoginInput::Presence(Presence {
            directory: Directory::Open,
            online: online.to_vec(),
            offline: Vec::new(),
        }));
    }

    fn command(&mut self, command: Command) {
        self.party.state.handle_command(command, self.now);
        self.run();
    }

    fn input(&mut self, input: LoginInput) {
        let (connection, now) = (self.connection, self.now);
        self.party.state.handle_login(connection, input, now);
        self.run();
    }

    fn run(&mut self) {
        while let Some(effect) = self.party.state.poll_effect() {
            match effect {
                Effect::Login(LoginEffect::LogIn { connection, .. }) => {
                    self.connection = connection;
                }
                Effect::Session(SessionEffect::Connect { peer, epoch, plan }) => {
                    self.attempt = Some((peer, epoch, plan));
                }
                Effect::Emit(event) => self.events.push(event),
                _ => {}
            }
        }
    }

    /// Opens a code with number 7.
    fn opens_code(&mut self) -> Code {
        let words = CodeWords::generate().unwrap();
        self.party.state.handle_open_code(words, self.now);
        let number = 7.try_into().unwrap();
        self.input(LoginInput::CodeOpened(Some(number)));
        Code::new(number, words)
    }

    /// Types a code in, and is told that this one has opened it.
    fn types(&mut self, code: Code, opener: &PeerIdentity) {
        self.command(Command::JoinCode { code });
        self.input(LoginInput::CodeFound {
            number: code.number(),
            peer: Some(opener.clone()),
        });
    }

    /// What it shows with its last attempt to connect.
    fn shows(&self) -> Option<Evidence> {
        self.attempt.as_ref().and_then(|(_, _, plan)| plan.evidence)
    }

    fn is_shown(&mut self, by: &PeerIdentity, evidence: Option<Evidence>) -> Told {
        let introduced = Introduced {
            evidence,
            ..introduced(by.clone())
        };
        let told = self.party.state.handle_invitation(introduced, self.now);
        self.run();
        told
    }

    /// Its last attempt has failed, perhaps with an answer.
    fn fails(&mut self, failure: Failure, answer: Option<Evidence>) {
        self.ends(Err(NoSession { failure, answer }));
    }

    fn ends(&mut self, outcome: Result<crate::state::NewSession, NoSession>) -> bool {
        let (peer, epoch, _) = self.attempt.take().expect("an attempt");
        let connected = Connected {
            epoch,
            peer,
            is_vouched: true,
            side: Side::Initiator,
            outcome,
        };
        let admitted = self.party.state.handle_connected(connected, self.now);
        self.run();
        admitted.is_some()
    }

    fn is_contact(&self, peer: &PeerIdentity) -> bool {
        let server = identity("server", 9).key;
        let known = self.party.state.contacts().acquaintance(server, peer);
        known == Acquaintance::Known { contact: true }
    }

    /// Why its last command has failed.
    fn failure(&self) -> Option<&Failure> {
        self.events.iter().rev().find_map(|event| match event {
            Event::CommandFailed { failure } | Event::CodeClosed { failure } => Some(failure),
            _ => None,
        })
    }
}

fn alice() -> PeerIdentity {
    identity("alice", 1)
}

fn bob() -> PeerIdentity {
    identity("bob", 2)
}

fn declined() -> Failure {
    let peer = alice().name;
    Failure::InvitationOver { peer }
}

#[test]
fn a_server_in_between_gets_nobody_to_join() {
    let (mut opener, mut joiner) = (Client::logged_in(alice()), Client::logged_in(bob()));
    let code = opener.opens_code();
    // To each it names a key of its own under the other's name.
    let (false_alice, false_bob) = (identity("alice", 8), identity("bob", 8));
    for _ in 0..3 {
        joiner.types(code, &false_alice);
        let shown = joiner.shows();
        let Told::Answer(answer) = opener.is_shown(&false_bob, shown) else {
            panic!("no answer");
        };
        joiner.fails(declined(), Some(answer));
        assert_eq!(joiner.failure(), Some(&Failure::CodeWrong));
        assert!(joiner.attempt.is_none(), "nothing more is said");
    }
    assert!(!opener.is_contact(&false_bob) && !joiner.is_contact(&false_alice));
    // The right words come too late.
    joiner.types(code, &alice());
    let told = opener.is_shown(&bob(), joiner.shows());
    assert_eq!(told, Told::No(RefuseReason::InvitationOver));
    joiner.fails(declined(), None);
    assert_eq!(joiner.failure(), Some(&Failure::CodeUnknown));
    let late = opener.now + Duration::from_secs(20);
    opener.party.state.handle_timeout(late);
    opener.run();
    assert_eq!(opener.failure(), Some(&Failure::CodeExhausted));
}

#[test]
fn the_right_words_make_contacts_of_both_and_are_good_once() {
    let (mut opener, mut joiner) = (Client::logged_in(alice()), Client::logged_in(bob()));
    // Whoever only sends lets nobody else in.
    opener.party.state.overrides.takes_nothing = true;
    let code = opener.opens_code();
    let carol = identity("carol", 3);
    let unavailable = Told::No(RefuseReason::Unavailable);
    assert_eq!(opener.is_shown(&carol, None), unavailable);
    joiner.types(code, &alice());
    let Told::Answer(answer) = opener.is_shown(&bob(), joiner.shows()) else {
        panic!("no answer");
    };
    assert!(!opener.is_contact(&bob()), "bob has only asked so far");
    joiner.fails(declined(), Some(answer));
    assert!(joiner.is_contact(&alice()));
    let confirmation = joiner.shows();
    // Nobody else can say it.
    let told = opener.is_shown(&carol, confirmation);
    assert_eq!(told, Told::No(RefuseReason::InvitationOver));
    let told = opener.is_shown(&bob(), confirmation);
    assert!(matches!(told, Told::Yes { .. }), "{told:?}");
    assert!(opener.is_contact(&bob()));
    // A second time it is nothing, and bob needs it no more.
    let told = opener.is_shown(&carol, confirmation);
    assert_eq!(told, Told::No(RefuseReason::InvitationOver));
    let told = opener.is_shown(&bob(), None);
    assert!(matches!(told, Told::Yes { .. }), "{told:?}");
    assert_eq!(opener.is_shown(&carol, None), unavailable);
}

#[test]
fn whoever_lets_us_in_without_the_words_is_not_joined() {
    let mut joiner = Client::logged_in(bob());
    let code = "7-acid-zoo".parse().unwrap();
    joiner.types(code, &alice());
    assert!(!joiner.ends(Ok(super::world::new_session(Side::Initiator))));
    assert_eq!(joiner.failure(), Some(&Failure::CodeWrong));
    assert!(!joiner.is_contact(&alice()));
}

fn invites(inviter: &mut Client, uses: Uses) -> InvitationLink {
    let new = NewInvitation {
        name: None,
        server: None,
        uses,
        pass: Pass {
            secret: Secret::from_bytes([5; 16]),
            ends_at_s: 100,
        },
        now_s: 0,
    };
    inviter.party.state.handle_invite(&new, inviter.now);
    inviter.run();
    let made = inviter.events.iter().rev().find_map(|event| match event {
        Event::Invitation { link } => Some(link.clone()),
        _ => None,
    });
    made.expect("a link")
}

#[test]
fn a_proof_is_good_for_one_key_until_it_ends_and_not_for_whoever_is_kept_out() {
    let mut inviter = Client::logged_in(alice());
    let link = invites(&mut inviter, Uses::Many);
    let mut joiner = Client::logged_in(bob());
    joiner.sees(&[alice()]);
    joiner.party.state.handle_join(link, 0, joiner.now);
    joiner.run();
    let proof = joiner.shows();
    assert!(matches!(proof, Some(Evidence::Proof(_))), "{proof:?}");
    let over = Told::No(RefuseReason::InvitationOver);
    assert_eq!(inviter.is_shown(&identity("carol", 3), proof), over);
    let late = Introduced {
        evidence: proof,
        at_s: 100,
        ..introduced(bob())
    };
    let now = inviter.now;
    assert_eq!(inviter.party.state.handle_invitation(late, now), over);
    // Without it, strangers are asked about.
    let asked = Told::No(RefuseReason::NeedsPermission);
    assert_eq!(inviter.is_shown(&bob(), None), asked);
    let told = inviter.is_shown(&bob(), proof);
    assert!(matches!(told, Told::Yes { .. }), "{told:?}");
    inviter.command(Command::Block { peer: bob().key });
    let told = inviter.is_shown(&bob(), proof);
    assert_eq!(told, Told::No(RefuseReason::Unavailable));
}

#[test]
fn a_link_whose_end_has_come_meanwhile_leaves_no_contact_behind() {
    let mut inviter = Client::logged_in(alice());
    let link = invites(&mut inviter, Uses::Once);
    let mut joiner = Client::logged_in(bob());
    joiner.sees(&[alice()]);
    joiner.party.state.handle_join(link, 0, joiner.now);
    joiner.run();
    assert!(joiner.is_contact(&alice()));
    joiner.fails(declined(), None);
    assert_eq!(joiner.failure(), Some(&declined()));
    assert!(!joiner.is_contact(&alice()));
    assert!(joiner.attempt.is_none());
}
