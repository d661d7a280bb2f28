//! Recovery words: shown once, and typed to take a name back.

use pinhole_client::RecoveryWords;

use super::faults::{shows, shows_part};
use super::*;

const WORDS: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon \
                     abandon abandon about";

fn words() -> RecoveryWords {
    WORDS.parse().unwrap()
}

#[test]
fn a_new_user_s_first_login_comes_with_words_that_are_shown_until_written_down() {
    let mut new = logged_out();
    (new.settings.name, new.has_recovery_key) = (None, false);
    let given = LoginPrefill {
        name: Some("alice".to_owned()),
        server: Some("meet.example.org:7878".to_owned()),
        link: None,
        paths: Vec::new(),
        log_in: false,
    };
    let (mut harness, play) = window_sized(new, SIZE, given);
    click(&mut harness, text::LOG_IN);
    let commands = play.commands();
    let made = commands
        .iter()
        .position(|it| *it == Command::NewRecoveryKey);
    let logged_in = commands
        .iter()
        .position(|it| matches!(it, Command::LogIn { .. }));
    assert!(made.is_some() && made < logged_in, "{commands:?}");
    play.happen(Event::RecoveryWords { words: words() });
    play.change(|s| s.has_recovery_key = true);
    harness.run();
    assert!(shows(&harness, WORDS));
    harness.key_press(Key::Escape);
    harness.run();
    assert!(shows(&harness, WORDS), "they are not shown again");
    click(&mut harness, text::WRITTEN_DOWN);
    assert!(!shows(&harness, WORDS));
    click(&mut harness, text::LOG_IN);
    assert!(!play.commands().contains(&Command::NewRecoveryKey));
}

#[test]
fn a_window_that_logs_in_by_itself_is_not_covered_by_words() {
    let mut new = logged_out();
    (new.settings.name, new.has_recovery_key) = (None, false);
    let given = LoginPrefill {
        name: Some("alice".to_owned()),
        server: Some("meet.example.org:7878".to_owned()),
        link: None,
        paths: Vec::new(),
        log_in: true,
    };
    let (_harness, play) = window_sized(new, SIZE, given);
    assert!(matches!(&*play.commands(), [Command::LogIn { .. }]));
}

#[test]
fn whoever_is_not_new_makes_words_in_the_settings() {
    let (mut harness, play) = window(Snapshot {
        has_recovery_key: false,
        ..logged_out()
    });
    click(&mut harness, text::SETTINGS);
    assert!(shows(&harness, text::HAS_NO_WORDS));
    click(&mut harness, text::NEW_WORDS);
    assert_eq!(play.commands(), [Command::NewRecoveryKey]);
    play.change(|s| s.has_recovery_key = true);
    harness.run();
    assert!(shows(&harness, text::HAS_WORDS));
}

#[test]
fn a_name_is_taken_back_with_its_words() {
    let given = LoginPrefill {
        name: Some("bob".to_owned()),
        server: Some("meet.example.org:7878".to_owned()),
        link: None,
        paths: Vec::new(),
        log_in: false,
    };
    let (mut harness, play) = window_sized(logged_out(), SIZE, given);
    click(&mut harness, text::RECOVER);
    let type_words = |harness: &mut Harness<'_, App>, words: &str| {
        harness.get_by_role(Role::MultilineTextInput).focus();
        harness.run();
        harness.event(Input::Text(words.to_owned()));
        harness.run();
        click(harness, text::TAKE_NAME_BACK);
    };
    let (first, others) = WORDS.split_once(' ').unwrap();
    type_words(&mut harness, first);
    assert!(shows_part(&harness, "recovery words are twelve"));
    assert_eq!(play.commands(), []);
    type_words(&mut harness, &format!(" {others}"));
    let expected = Command::Recover {
        name: "bob".parse().unwrap(),
        server: server(),
        words: words(),
    };
    assert_eq!(play.commands(), [expected]);
    assert!(!shows(&harness, text::TAKE_NAME_BACK));
}

#[test]
fn signed_changes_and_revocations_are_told() {
    let (mut harness, play) = window(with_peers());
    let peer = identity("bob", 9);
    let was = key(2).fingerprint();
    play.happen(Event::KeySucceeded {
        peer: peer.clone(),
        was,
    });
    harness.run();
    assert!(shows_part(&harness, "signed with bob's recovery key"));
    play.happen(Event::KeyRevoked { peer });
    play.change(|s| s.peers[0].revoked = true);
    harness.run();
    assert!(shows_part(&harness, "bob has revoked a key"));
    assert!(shows(&harness, text::KEY_REVOKED));
    play.change(|s| {
        s.peers[1].changed_from = Some(key(9).fingerprint());
        s.peers[1].released = true;
    });
    harness.run();
    assert!(shows(&harness, text::NAME_RELEASED));
}

#[test]
fn what_is_missing_for_a_recovery_is_said() {
    let (mut harness, play) = window(logged_out());
    click(&mut harness, text::RECOVER);
    click(&mut harness, text::TAKE_NAME_BACK);
    assert!(shows_part(&harness, "a name has"));
    assert!(play.commands().is_empty());
}
