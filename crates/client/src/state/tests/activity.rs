//! When a port is kept ready: from the first sign of life until a minute after the last.

use std::time::{Duration, Instant};

use pinhole_net::{Directory, PeerIdentity, Presence, Warmth};
use pinhole_transfer::Side;

use super::party::{Party, identity};
use crate::command::Command;
use crate::failure::Failure;
use crate::state::{
    Connected, ConnectionId, Effect, LoggedInTo, LoginEffect, LoginInput, SessionEffect, State,
};
use crate::store::Settings;

const MINUTE: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(1);

/// A state, and what it was last told of a port.
struct Scene {
    state: State,
    begun: Instant,
    warmth: Warmth,
    connection: ConnectionId,
    effects: Vec<Effect>,
}

impl Scene {
    /// Logged in just now, as the user has asked for.
    fn new() -> Self {
        let begun = Instant::now();
        let settings = Settings {
            nearby: false,
            ..Settings::default()
        };
        let mut scene = Self {
            state: Party::new(identity("alice", 1), settings, begun).state,
            begun,
            warmth: Warmth::Cold,
            connection: ConnectionId(0),
            effects: Vec::new(),
        };
        let log_in = Command::LogIn {
            name: "alice".parse().unwrap(),
            server: "server.example:4747".parse().unwrap(),
            patient: true,
        };
        scene.command(log_in, Duration::ZERO);
        scene.log_in(Duration::ZERO);
        scene
    }

    fn at(&self, after: Duration) -> Instant {
        self.begun + after
    }

    fn command(&mut self, command: Command, after: Duration) {
        self.state.handle_command(command, self.at(after));
        self.drain();
    }

    fn hear(&mut self, input: LoginInput, after: Duration) {
        let now = self.at(after);
        self.state.handle_login(self.connection, input, now);
        self.drain();
    }

    fn log_in(&mut self, after: Duration) {
        let to = LoggedInTo {
            server_key: identity("server", 9).key,
            observed: ([192, 0, 2, 1], 4747).into(),
            has_relay: true,
            has_codes: true,
            round_trip: Duration::from_millis(50),
        };
        self.hear(LoginInput::LoggedIn(to), after);
        let presence = Presence {
            directory: Directory::Open,
            online: vec![bob()],
            offline: Vec::new(),
        };
        self.hear(LoginInput::Presence(presence), after);
    }

    fn time_passes(&mut self, after: Duration) {
        self.state.handle_timeout(self.at(after));
        self.drain();
    }

    fn drain(&mut self) {
        self.effects.clear();
        while let Some(effect) = self.state.poll_effect() {
            match &effect {
                Effect::Login(LoginEffect::SetWarmth(warmth)) => {
                    assert_ne!(*warmth, self.warmth, "told twice");
                    self.warmth = *warmth;
                }
                Effect::Login(LoginEffect::LogIn { connection, .. }) => {
                    self.connection = *connection;
                }
                _ => {}
            }
            self.effects.push(effect);
        }
        assert_eq!(self.state.warmth(), self.warmth);
    }

    /// Nothing is kept exactly from this moment on, and nobody has to look before.
    fn cools_at(&mut self, after: Duration) {
        assert_eq!(self.state.poll_timeout(), Some(self.at(after)));
        self.time_passes(after - MOMENT);
        assert_eq!(self.warmth, Warmth::Warm);
        self.time_passes(after);
        assert_eq!(self.warmth, Warmth::Cold);
        assert_eq!(
            self.state.poll_timeout(),
            None,
            "whoever is idle wakes nobody"
        );
    }
}

fn bob() -> PeerIdentity {
    identity("bob", 2)
}

#[test]
fn a_port_is_kept_for_a_minute_after_the_login() {
    let mut scene = Scene::new();
    assert_eq!(scene.warmth, Warmth::Warm);
    scene.cools_at(MINUTE);
}

#[test]
fn each_command_is_a_sign_of_life() {
    let mut scene = Scene::new();
    scene.cools_at(MINUTE);
    scene.command(Command::SetNearby { on: false }, 10 * MINUTE);
    assert_eq!(scene.warmth, Warmth::Warm);
    let half = MINUTE / 2;
    scene.command(Command::Attend { stays: false }, 10 * MINUTE + half);
    scene.cools_at(11 * MINUTE + half);
    // The face confirms words by itself.
    let shown = Command::TextShown {
        transfer: crate::model::TransferId(77),
    };
    scene.command(shown, 12 * MINUTE);
    assert_eq!(scene.warmth, Warmth::Cold);
}

#[test]
fn whoever_stays_keeps_the_port() {
    let mut scene = Scene::new();
    scene.command(Command::Attend { stays: true }, MINUTE / 2);
    assert_eq!(scene.state.poll_timeout(), None);
    scene.time_passes(60 * MINUTE);
    assert_eq!(scene.warmth, Warmth::Warm);
    scene.command(Command::Attend { stays: false }, 61 * MINUTE);
    scene.cools_at(62 * MINUTE);
}

#[test]
fn a_connection_that_is_made_again_by_itself_is_no_sign_of_life() {
    let mut scene = Scene::new();
    scene.cools_at(MINUTE);
    let reason = "gone".to_owned();
    scene.hear(LoginInput::Lost(Failure::ServerLost { reason }), 5 * MINUTE);
    scene.time_passes(6 * MINUTE);
    scene.log_in(6 * MINUTE);
    assert_eq!(scene.warmth, Warmth::Cold);
}

#[test]
fn what_goes_on_keeps_the_port_and_a_minute_more() {
    let mut scene = Scene::new();
    scene.cools_at(MINUTE);
    let send = Command::SendText {
        peer: bob().key,
        text: "hello".to_owned(),
    };
    scene.command(send, 5 * MINUTE);
    assert_eq!(scene.warmth, Warmth::Warm);
    let connecting = scene.effects.iter().find_map(|effect| match effect {
        Effect::Session(SessionEffect::Connect { epoch, .. }) => Some(*epoch),
        _ => None,
    });
    scene.time_passes(8 * MINUTE);
    assert_eq!(scene.warmth, Warmth::Warm);
    let connected = Connected {
        epoch: connecting.expect("an attempt to connect"),
        peer: bob(),
        is_vouched: true,
        side: Side::Initiator,
        outcome: Err(Failure::Cancelled.into()),
    };
    let now = scene.at(9 * MINUTE);
    assert_eq!(scene.state.handle_connected(connected, now), None);
    scene.drain();
    scene.cools_at(10 * MINUTE);
}
