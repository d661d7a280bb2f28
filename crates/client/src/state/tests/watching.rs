//! Whom the server is asked to tell about, where it does not list everybody.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pinhole_net::{Directory, PeerIdentity, PeerName, Presence, WATCHED_NAMES};

use super::party::{Party, identity, introduced};
use crate::command::Command;
use crate::snapshot::LookUpState;
use crate::state::{ConnectionId, Effect, LoggedInTo, LoginEffect, LoginInput, Told};
use crate::store::Settings;

/// One client, and what it asks of the server.
struct Client {
    party: Party,
    now: Instant,
    connection: ConnectionId,
    /// In the order in which they were asked for.
    watched: Vec<PeerName>,
    unwatched: Vec<PeerName>,
}

impl Client {
    fn new() -> Self {
        let now = Instant::now();
        let settings = Settings {
            nearby: false,
            ..Settings::default()
        };
        Self {
            party: Party::new(identity("alice", 1), settings, now),
            now,
            connection: ConnectionId(0),
            watched: Vec::new(),
            unwatched: Vec::new(),
        }
    }

    fn command(&mut self, command: Command) {
        self.party.state.handle_command(command, self.now);
        self.run();
    }

    fn look_up(&mut self, name: &str) {
        let name = name.parse().unwrap();
        self.command(Command::LookUp { name });
    }

    fn input(&mut self, input: LoginInput) {
        let (state, now) = (&mut self.party.state, self.now);
        state.handle_login(self.connection, input, now);
        self.run();
    }

    /// The server tells who is online.
    fn told(&mut self, directory: Directory, online: &[PeerIdentity], offline: &[&str]) {
        self.input(LoginInput::Presence(Presence {
            directory,
            online: online.to_vec(),
            offline: offline.iter().map(|name| name.parse().unwrap()).collect(),
        }));
    }

    fn log_in(&mut self) {
        self.command(Command::LogIn {
            name: "alice".parse().unwrap(),
            server: "server.test".parse().unwrap(),
            patient: true,
        });
        self.input(LoginInput::LoggedIn(LoggedInTo {
            server_key: identity("server", 9).key,
            observed: SocketAddr::from(([192, 0, 2, 1], 4000)),
            has_relay: true,
            has_codes: true,
            round_trip: Duration::from_millis(40),
        }));
    }

    fn run(&mut self) {
        while let Some(effect) = self.party.state.poll_effect() {
            match effect {
                Effect::Login(LoginEffect::LogIn {
                    connection, watch, ..
                }) => {
                    self.connection = connection;
                    self.watched = watch;
                }
                Effect::Login(LoginEffect::Watch(names)) => self.watched.extend(names),
                Effect::Login(LoginEffect::Unwatch(names)) => self.unwatched.extend(names),
                _ => {}
            }
        }
    }

    fn online(&self) -> Vec<String> {
        let snapshot = self.party.state.snapshot(self.party.identity.key);
        let online = snapshot.peers.iter().filter(|peer| peer.online);
        online.map(|peer| peer.identity.name.to_string()).collect()
    }

    fn state_of(&self, name: &str) -> LookUpState {
        let snapshot = self.party.state.snapshot(self.party.identity.key);
        let mut looked_up = snapshot.looked_up.iter();
        looked_up.find(|it| it.name.as_str() == name).unwrap().state
    }
}

#[test]
fn who_was_looked_up_before_the_login_is_asked_for_with_it() {
    let mut alice = Client::new();
    alice.look_up("bob");
    alice.look_up("carol");
    alice.log_in();
    let watched: Vec<_> = alice.watched.iter().map(PeerName::as_str).collect();
    assert_eq!(watched, ["carol", "bob"], "the latest first");
    assert_eq!(alice.state_of("bob"), LookUpState::Searching);
    alice.told(Directory::Closed, &[identity("bob", 2)], &["carol"]);
    assert_eq!(alice.state_of("bob"), LookUpState::Online);
    assert_eq!(alice.state_of("carol"), LookUpState::NotOnline);
    assert_eq!(alice.online(), ["bob"]);
    alice.look_up("dave");
    assert_eq!(alice.watched.last(), Some(&"dave".parse().unwrap()));
    assert_eq!(alice.state_of("dave"), LookUpState::Searching);
}

#[test]
fn when_the_directory_closes_only_those_who_concern_us_are_left() {
    let mut alice = Client::new();
    alice.look_up("bob");
    alice.log_in();
    let everybody = [
        identity("bob", 2),
        identity("carol", 3),
        identity("alice", 1),
    ];
    alice.told(Directory::Open, &everybody, &[]);
    assert_eq!(alice.online(), ["bob", "carol"]);
    alice.told(Directory::Closed, &[], &[]);
    assert_eq!(alice.online(), ["bob"]);
    alice.told(Directory::Open, &everybody, &[]);
    assert_eq!(alice.online(), ["bob", "carol"]);
}

#[test]
fn who_invites_us_is_online_and_watched() {
    let mut alice = Client::new();
    alice.log_in();
    alice.told(Directory::Closed, &[], &[]);
    let carol = identity("carol", 3);
    let told = alice
        .party
        .state
        .handle_invitation(introduced(carol.clone()), alice.now);
    let is_vouched = |told: &Told| {
        matches!(
            told,
            Told::Yes {
                is_vouched: true,
                ..
            }
        )
    };
    assert!(is_vouched(&told), "{told:?}");
    alice.run();
    assert_eq!(alice.watched, [carol.name]);
    assert_eq!(alice.online(), ["carol"]);
    alice.told(Directory::Closed, &[], &["carol"]);
    assert_eq!(alice.online(), [""; 0]);
}

#[test]
fn no_more_names_are_watched_than_the_server_allows() {
    let mut alice = Client::new();
    alice.log_in();
    for number in 0..WATCHED_NAMES {
        alice.look_up(&format!("name-{number}"));
    }
    assert_eq!(alice.watched.len(), WATCHED_NAMES);
    let left = alice.watched.len() - alice.unwatched.len();
    assert!(left <= 64, "names that were looked up long ago are let go");
}
