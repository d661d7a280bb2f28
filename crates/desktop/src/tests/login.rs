//! Logging in, and being away from the server.

use super::*;

#[test]
fn logs_in_by_keyboard_alone() {
    let (mut harness, play) = window(logged_out());
    assert!(harness.get_by_label(text::NAME_FIELD.label).is_focused());
    harness.event(Input::Text("alice".to_owned()));
    harness.run();
    harness.key_press(Key::Tab);
    harness.run();
    harness.event(Input::Text("meet.example.org:7878".to_owned()));
    harness.run();
    harness.key_press(Key::Enter);
    harness.run();
    let expected = Command::LogIn {
        name: "alice".parse().unwrap(),
        server: server(),
        patient: false,
    };
    assert_eq!(play.commands(), [expected]);
}

#[test]
fn a_bad_name_is_explained_beside_its_field() {
    let (mut harness, play) = window(logged_out());
    harness.event(Input::Text("Alice".to_owned()));
    harness.run();
    harness.get_by_label(text::LOG_IN).click();
    harness.run();
    assert!(harness.query_by_label_contains("not 'A'").is_some());
    assert!(harness.get_by_label(text::NAME_FIELD.label).is_focused());
    assert_eq!(play.commands(), []);
}

#[test]
fn name_and_server_given_expressly_log_in_at_once() {
    let given = |log_in| LoginPrefill {
        name: Some("alice".to_owned()),
        server: Some("meet.example.org:7878".to_owned()),
        link: None,
        paths: Vec::new(),
        log_in,
    };
    let (_harness, play) = window_sized(logged_out(), SIZE, given(true));
    assert_eq!(play.commands().len(), 1);
    let (harness, play) = window_sized(logged_out(), SIZE, given(false));
    assert_eq!(play.commands(), []);
    assert!(harness.get_by_label(text::LOG_IN).is_focused());
}

#[test]
fn a_failed_login_says_why_and_logging_in_can_be_cancelled() {
    let (mut harness, play) = window(Snapshot {
        login: LoginState::LoggedOut {
            failure: Some(Failure::NameTaken {
                name: "alice".parse().unwrap(),
            }),
        },
        ..logged_out()
    });
    assert!(
        harness
            .query_by_label_contains("belongs to somebody else")
            .is_some()
    );
    play.change(|s| {
        s.login = LoginState::LoggingIn {
            name: "alice".parse().unwrap(),
            server: server(),
        };
    });
    harness.run();
    harness.get_by_label(text::CANCEL).click();
    harness.run();
    assert_eq!(play.commands(), [Command::LogOut]);
}

#[test]
fn while_the_server_is_away_the_next_attempt_is_announced() {
    let (mut harness, play) = window(with_peers());
    play.change(|s| {
        s.login = LoginState::Reconnecting {
            name: "alice".parse().unwrap(),
            server: server(),
            failure: Failure::ServerUnreachable {
                server: server(),
                reason: "refused".to_owned(),
            },
            next_attempt: Instant::now() + Duration::from_secs(100),
        };
    });
    harness.run();
    assert!(harness.query_by_label_contains("Reconnecting in").is_some());
    assert!(
        harness
            .query_by_label_contains("Cannot reach the server")
            .is_some()
    );
    assert!(
        harness.query_by_label("bob").is_some(),
        "people stay in sight"
    );
}
