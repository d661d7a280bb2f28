//! Several faces at one engine.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pinhole_net::{Directory, PeerIdentity, Presence, Warmth};

use super::party::{Party, identity};
use crate::command::Command;
use crate::event::Event;
use crate::failure::Failure;
use crate::model::{FaceId, Stage};
use crate::snapshot::TransferView;
use crate::state::{ConnectionId, Effect, LoggedInTo, LoginEffect, LoginInput, State};
use crate::store::Settings;

const SERVER: &str = "server.example:4747";
const ONE: FaceId = FaceId(1);
const OTHER: FaceId = FaceId(2);

/// A state that is logged in, and what it answers to the face that asks.
struct Scene {
    state: State,
    now: Instant,
    connection: ConnectionId,
    answers: Vec<Event>,
}

impl Scene {
    fn new() -> Self {
        let now = Instant::now();
        let settings = Settings {
            nearby: false,
            ..Settings::default()
        };
        let mut scene = Self {
            state: Party::new(identity("alice", 1), settings, now).state,
            now,
            connection: ConnectionId(0),
            answers: Vec::new(),
        };
        scene.log_in(FaceId::OWN, "alice", SERVER);
        scene.hear(LoginInput::LoggedIn(LoggedInTo {
            server_key: identity("server", 9).key,
            observed: SocketAddr::from(([192, 0, 2, 1], 4000)),
            has_relay: true,
            has_codes: true,
            round_trip: Duration::from_millis(40),
        }));
        scene.hear(LoginInput::Presence(Presence {
            directory: Directory::Open,
            online: vec![bob()],
            offline: Vec::new(),
        }));
        scene
    }

    fn command(&mut self, face: FaceId, command: Command) {
        self.state.handle_command_of(face, command, self.now);
        self.drain();
    }

    fn log_in(&mut self, face: FaceId, name: &str, server: &str) {
        let log_in = Command::LogIn {
            name: name.parse().unwrap(),
            server: server.parse().unwrap(),
            patient: true,
        };
        self.command(face, log_in);
    }

    fn hear(&mut self, input: LoginInput) {
        self.state.handle_login(self.connection, input, self.now);
        self.drain();
    }

    fn send(&mut self, face: FaceId) {
        let send = Command::Send {
            peer: bob().key,
            paths: vec!["/a".into()],
        };
        self.command(face, send);
    }

    fn drain(&mut self) {
        while let Some(effect) = self.state.poll_effect() {
            match effect {
                Effect::Login(LoginEffect::LogIn { connection, .. }) => {
                    self.connection = connection;
                }
                Effect::Answer(event) => self.answers.push(event),
                _ => {}
            }
        }
    }

    fn gone(&mut self, face: FaceId) {
        self.state.handle_face_gone(face, self.now);
        self.drain();
    }

    fn transfers(&self) -> Vec<TransferView> {
        self.state.snapshot(identity("alice", 1).key).transfers
    }
}

fn bob() -> PeerIdentity {
    identity("bob", 2)
}

#[test]
fn a_face_that_logs_in_as_it_is_already_hears_that_it_is() {
    let mut scene = Scene::new();
    let connection = scene.connection;
    for (name, server, is_same) in [
        ("alice", SERVER.to_owned(), true),
        (
            "alice",
            format!("{SERVER}#{}", identity("server", 9).key.fingerprint()),
            true,
        ),
        ("alicia", SERVER.to_owned(), false),
        ("alice", "other.example:4747".to_owned(), false),
        (
            "alice",
            format!("{SERVER}#{}", identity("server", 8).key.fingerprint()),
            false,
        ),
    ] {
        scene.log_in(ONE, name, &server);
        match (scene.answers.pop(), is_same) {
            (Some(Event::LoggedIn { .. }), true) => {}
            (Some(Event::LogInFailed { failure }), false) => {
                let text = failure.to_string();
                assert!(text.contains("as alice at server"), "{text}");
            }
            answer => panic!("{name} {server}: {answer:?}"),
        }
        assert!(scene.state.is_connected_by(connection), "{name} {server}");
    }
}

#[test]
fn a_face_that_logs_in_while_the_server_is_away_hears_why() {
    let mut scene = Scene::new();
    let reason = "gone".to_owned();
    scene.hear(LoginInput::Lost(Failure::ServerLost { reason }));
    scene.log_in(ONE, "alice", SERVER);
    assert!(matches!(
        scene.answers.pop(),
        Some(Event::Disconnected { .. })
    ));
}

#[test]
fn what_a_face_has_begun_ends_with_it_and_nothing_else() {
    let mut scene = Scene::new();
    for face in [ONE, OTHER, FaceId::OWN] {
        scene.send(face);
    }
    let faces = |scene: &Scene| {
        scene
            .transfers()
            .iter()
            .map(|it| it.face)
            .collect::<Vec<_>>()
    };
    assert_eq!(faces(&scene), [ONE, OTHER, FaceId::OWN]);
    scene.gone(ONE);
    assert_eq!(faces(&scene), [OTHER, FaceId::OWN]);
    assert!(scene.transfers().iter().all(|it| !it.stage.is_final()));
    scene.gone(OTHER);
    assert_eq!(faces(&scene), [FaceId::OWN]);
}

#[test]
fn what_waits_for_its_peer_goes_on_waiting_without_the_face() {
    let mut scene = Scene::new();
    let server = identity("server", 9).key;
    assert!(scene.state.contacts.meet(server, &bob()));
    assert!(scene.state.contacts.mark_contact(server, &bob()));
    scene.hear(LoginInput::Presence(Presence {
        directory: Directory::Open,
        online: Vec::new(),
        offline: vec![bob().name],
    }));
    scene.send(ONE);
    scene.gone(ONE);
    let transfers = scene.transfers();
    let [waiting] = &transfers[..] else {
        panic!("{transfers:?}");
    };
    assert!(matches!(waiting.stage, Stage::Queued), "{waiting:?}");
    assert_eq!(waiting.face, FaceId::OWN);
}

#[test]
fn a_face_that_is_gone_keeps_no_port() {
    let mut scene = Scene::new();
    scene.command(ONE, Command::Attend { stays: true });
    scene.command(OTHER, Command::Attend { stays: true });
    scene.command(OTHER, Command::Attend { stays: false });
    scene.now += Duration::from_secs(3_600);
    scene.state.handle_timeout(scene.now);
    assert_eq!(scene.state.warmth(), Warmth::Warm);
    scene.gone(ONE);
    scene.now += Duration::from_secs(120);
    scene.state.handle_timeout(scene.now);
    assert_eq!(scene.state.warmth(), Warmth::Cold);
}
