//! What a user may lose or do by accident, case by case: ways out of every
//! state, questions that answer nothing by themselves, words and files that stay.

use std::path::PathBuf;

use super::*;

/// The steps of the harness are this long, in seconds of the window's clock.
const STEP_S: f32 = 0.02;

/// A window whose clock goes in small steps.
pub(super) fn slowly(snapshot: Snapshot) -> (Harness<'static, App>, Play) {
    let play = Play::new(snapshot);
    let given = play.clone();
    let mut harness = Harness::builder()
        .with_size(SIZE)
        .with_step_dt(STEP_S)
        .with_max_steps(200)
        .build_eframe(|cc| {
            let snapshot = given.snapshot();
            App::new(cc, Bridge::played(given), snapshot, LoginPrefill::default())
        });
    harness.run();
    (harness, play)
}

pub(super) fn wait(harness: &mut Harness<'_, App>, seconds: f32) {
    let mut left = seconds;
    while left > 0.0 {
        harness.step();
        left -= STEP_S;
    }
}

pub(super) fn shows(harness: &Harness<'_, App>, label: &str) -> bool {
    harness.query_all_by_label(label).next().is_some()
}

pub(super) fn shows_part(harness: &Harness<'_, App>, label: &str) -> bool {
    harness.query_all_by_label_contains(label).next().is_some()
}

fn failures() -> Vec<Failure> {
    let (known, shown) = (Some(key(8).fingerprint()), Some(key(9).fingerprint()));
    vec![
        Failure::NameTaken {
            name: "alice".parse().unwrap(),
        },
        Failure::ServerKeyChanged {
            server: server(),
            known,
            shown,
        },
        Failure::ServerUnreachable {
            server: server(),
            reason: "refused".to_owned(),
        },
        Failure::Replaced,
    ]
}

fn states() -> Vec<LoginState> {
    let name = || "alice".parse().unwrap();
    let mut states = vec![
        LoginState::LoggedOut { failure: None },
        LoginState::LoggingIn {
            name: name(),
            server: server(),
        },
        LoginState::LoggedIn {
            name: name(),
            server: server(),
        },
    ];
    for failure in failures() {
        states.push(LoginState::Reconnecting {
            name: name(),
            server: server(),
            failure: failure.clone(),
            next_attempt: Instant::now() + Duration::from_secs(100),
        });
        let failure = Some(failure);
        states.push(LoginState::LoggedOut { failure });
    }
    states
}

/// What of the sheets is open in a state: by the button that opens it there.
const SHEETS: [Option<&str>; 5] = [
    None,
    Some(text::SETTINGS),
    Some("Message to bob"),
    Some(text::HISTORY),
    Some(text::LOG_IN),
];

/// By what is to be seen, a user gets out of every state: logs in, logs out, or
/// stops trying to.
#[test]
fn every_state_has_a_way_on() {
    for login in states() {
        for nearby in [None, Some("alice".parse().unwrap())] {
            for sheet in SHEETS {
                let at = format!("{login:?}, nearby {nearby:?}, {sheet:?}");
                let (mut harness, play) = slowly(Snapshot {
                    login: login.clone(),
                    nearby: nearby.clone(),
                    peers: vec![peer("bob", 2)],
                    ..logged_out()
                });
                if let Some(sheet) = sheet {
                    let Some(button) = harness.query_by_label(sheet) else {
                        continue;
                    };
                    button.click();
                    harness.run();
                    harness.key_press(Key::Escape);
                    harness.run();
                }
                play.commands();
                let is_out = matches!(login, LoginState::LoggedOut { .. });
                if is_out {
                    if nearby.is_some() {
                        click(&mut harness, text::LOG_IN);
                    }
                    assert!(shows(&harness, text::SERVER_FIELD.label), "{at}");
                    assert!(shows(&harness, text::LOG_IN), "{at}");
                    harness.key_press(Key::Escape);
                    harness.run();
                }
                if is_out && nearby.is_none() {
                    continue;
                }
                if !is_out && nearby.is_none() && shows(&harness, text::CANCEL) {
                    click(&mut harness, text::CANCEL);
                } else {
                    click(&mut harness, text::SETTINGS);
                    click(&mut harness, text::LOG_OUT);
                }
                assert_eq!(play.commands().last(), Some(&Command::LogOut), "{at}");
            }
        }
    }
}

/// Both fingerprints, what to do, and a way to do it, with people nearby and
/// without.
#[test]
fn a_changed_server_key_is_shown_beside_the_known_one() {
    for nearby in [None, Some("alice".parse().unwrap())] {
        let mut snapshot = Snapshot {
            login: LoginState::LoggedOut {
                failure: Some(failures().swap_remove(1)),
            },
            nearby,
            ..logged_out()
        };
        snapshot.settings.name = Some("alice".parse().unwrap());
        snapshot.settings.server = Some(server());
        snapshot.settings.auto_log_in = false;
        let (mut harness, play) = slowly(snapshot);
        for n in [8, 9] {
            let shown = text::grouped(&key(n).fingerprint().to_string());
            assert!(shows(&harness, &shown), "{shown}");
        }
        assert!(shows(&harness, text::SERVER_KEY_HELP));
        click(&mut harness, text::TRUST_SERVER);
        let expected = Command::LogIn {
            name: "alice".parse().unwrap(),
            server: server().with_fingerprint(key(9).fingerprint()),
            patient: false,
        };
        assert_eq!(play.commands(), [expected]);
    }
}

#[test]
fn logging_in_over_people_nearby_ends_when_it_has_worked() {
    let nearby = || Snapshot {
        nearby: Some("alice".parse().unwrap()),
        ..logged_out()
    };
    let (mut harness, play) = slowly(nearby());
    click(&mut harness, text::LOG_IN);
    assert!(shows(&harness, text::LOG_IN_TO_SERVER));
    harness
        .get_by_role_and_label(Role::TextInput, text::NAME_FIELD.label)
        .focus();
    harness.run();
    harness.event(Input::Text("alice".to_owned()));
    harness.key_press(Key::Tab);
    harness.run();
    harness.event(Input::Text("meet.example.org:7878".to_owned()));
    harness.key_press(Key::Enter);
    harness.run();
    let expected = Command::LogIn {
        name: "alice".parse().unwrap(),
        server: server(),
        patient: false,
    };
    assert_eq!(play.commands().last(), Some(&expected));
    play.change(|s| {
        s.login = LoginState::LoggingIn {
            name: "alice".parse().unwrap(),
            server: server(),
        };
    });
    harness.run();
    assert!(shows_part(&harness, "Logging in to"));
    play.change(|s| s.login = alone().login);
    harness.run();
    assert!(!shows(&harness, text::LOG_IN_TO_SERVER));
}

fn remembered() -> Snapshot {
    let mut snapshot = logged_out();
    snapshot.settings.name = Some("alice".parse().unwrap());
    snapshot.settings.server = Some(server());
    snapshot
}

#[test]
fn the_remembered_login_is_used_at_the_start_unless_the_user_has_logged_out() {
    let patiently = Command::LogIn {
        name: "alice".parse().unwrap(),
        server: server(),
        patient: true,
    };
    let (_harness, play) = window(remembered());
    assert_eq!(play.commands(), [patiently]);
    let mut out = remembered();
    out.settings.auto_log_in = false;
    let (_harness, play) = window(out);
    assert_eq!(play.commands(), []);
    let elsewhere = LoginPrefill {
        server: Some("other.example.org".to_owned()),
        ..LoginPrefill::default()
    };
    let (_harness, play) = window_sized(remembered(), SIZE, elsewhere);
    assert_eq!(play.commands(), [], "nobody has asked for that server yet");
}

#[test]
fn logging_in_and_out_are_remembered() {
    let (mut harness, play) = slowly(Snapshot {
        login: LoginState::LoggedOut { failure: None },
        settings: Settings {
            auto_log_in: false,
            ..remembered().settings
        },
        ..logged_out()
    });
    click(&mut harness, text::LOG_IN);
    let on = Command::SetAutoLogIn { on: true };
    assert_eq!(play.commands().first(), Some(&on));
    play.change(|s| *s = with_peers());
    harness.run();
    click(&mut harness, text::SETTINGS);
    click(&mut harness, text::LOG_OUT);
    let out = [Command::SetAutoLogIn { on: false }, Command::LogOut];
    assert_eq!(play.commands(), out);
}

fn offers(n: u64) -> Vec<TransferView> {
    let offer = |id| TransferView {
        id: TransferId(id),
        ..incoming(&[("a.txt", 10)])
    };
    (1..=n).map(offer).collect()
}

/// Presses and releases the button at this place, in three frames.
fn click_at(harness: &mut Harness<'_, App>, at: egui::Pos2) {
    for pressed in [true, false] {
        harness.event(Input::PointerButton {
            pos: at,
            button: egui::PointerButton::Primary,
            pressed,
            modifiers: egui::Modifiers::NONE,
        });
    }
    harness.step();
}

fn answers(play: &Play) -> Vec<u64> {
    let commands = play.commands().into_iter();
    let answered = commands.filter_map(|command| match command {
        Command::Accept { transfer, .. } | Command::Decline { transfer } => Some(transfer.0),
        _ => None,
    });
    answered.collect()
}

#[test]
fn a_double_click_answers_one_offer() {
    for button in [text::ACCEPT, text::DECLINE] {
        let (mut harness, play) = slowly(with_peers());
        play.change(|s| s.transfers = offers(3));
        wait(&mut harness, 1.0);
        let at = harness.get_by_label(button).rect().center();
        harness.hover_at(at);
        harness.step();
        click_at(&mut harness, at);
        assert_eq!(answers(&play), [1], "{button}");
        play.change(|s| drop(s.transfers.remove(0)));
        harness.step();
        click_at(&mut harness, at);
        wait(&mut harness, 0.2);
        click_at(&mut harness, at);
        assert_eq!(answers(&play), [0_u64; 0], "{button}");
        wait(&mut harness, 0.5);
        click_at(&mut harness, at);
        assert_eq!(answers(&play), [2], "{button}");
    }
}

#[test]
fn a_click_meant_for_something_else_answers_no_new_question() {
    let (mut harness, play) = slowly(with_peers());
    play.change(|s| s.transfers = offers(1));
    wait(&mut harness, 1.0);
    let at = harness.get_by_label(text::ACCEPT).rect().center();
    play.change(|s| s.transfers.clear());
    harness.run();
    // Pressed on nothing, released when the question has popped up.
    harness.hover_at(at);
    harness.event(Input::PointerButton {
        pos: at,
        button: egui::PointerButton::Primary,
        pressed: true,
        modifiers: egui::Modifiers::NONE,
    });
    harness.step();
    play.change(|s| s.transfers = offers(1));
    wait(&mut harness, 1.0);
    harness.event(Input::PointerButton {
        pos: at,
        button: egui::PointerButton::Primary,
        pressed: false,
        modifiers: egui::Modifiers::NONE,
    });
    harness.step();
    assert_eq!(answers(&play), [0_u64; 0]);
    // Keys that were on their way.
    play.change(|s| s.transfers.clear());
    harness.run();
    play.change(|s| s.transfers = offers(2));
    harness.step();
    harness.key_press(Key::Tab);
    harness.key_press(Key::Enter);
    harness.key_press_modifiers(egui::Modifiers::COMMAND, Key::Enter);
    harness.key_press(Key::Escape);
    harness.run();
    assert_eq!(answers(&play), [0_u64; 0]);
    assert!(shows(&harness, text::ACCEPT), "it is still asked");
    // Buttons that move are other buttons.
    wait(&mut harness, 1.0);
    play.change(|s| Arc::make_mut(&mut s.transfers[0].offer).existing = 2);
    harness.step();
    let at = harness.get_by_label(text::DECLINE).rect().center();
    harness.hover_at(at);
    click_at(&mut harness, at);
    assert_eq!(answers(&play), [0_u64; 0]);
}

fn entry() -> HistoryEntry {
    HistoryEntry {
        ended_at_s: 0,
        peer: identity("bob", 2),
        direction: Direction::Sending,
        title: "a.txt".to_owned(),
        files: 1,
        bytes: 1,
        here_bytes: 0,
        path: None,
        elapsed_ms: None,
        digest: None,
        outcome: Outcome::Completed { failed_files: 0 },
        folder: None,
    }
}

#[test]
fn a_double_click_clears_no_history() {
    let (mut harness, play) = slowly(with_peers());
    play.change(|s| s.history = Arc::new(vec![entry()]));
    harness.run();
    click(&mut harness, text::HISTORY);
    wait(&mut harness, 1.0);
    let at = harness.get_by_label(text::CLEAR_HISTORY).rect().center();
    harness.hover_at(at);
    harness.step();
    click_at(&mut harness, at);
    click_at(&mut harness, at);
    assert_eq!(play.commands(), []);
    wait(&mut harness, 1.0);
    assert!(shows(&harness, text::CLEAR_FOR_GOOD));
}

fn field(harness: &Harness<'_, App>) -> String {
    let field = harness.get_by_role(Role::MultilineTextInput);
    field.accesskit_node().value().unwrap_or_default()
}

pub(super) fn begun() -> (Harness<'static, App>, Play) {
    let (mut harness, play) = slowly(with_peers());
    click(&mut harness, "Message to bob");
    harness.event(Input::Text("hello".to_owned()));
    harness.run();
    (harness, play)
}

/// However a message that was begun gets out of sight, it is there again.
#[test]
fn a_draft_is_never_lost() {
    type Happens = fn(&mut Harness<'_, App>, &Play);
    let happens: [(&str, bool, Happens); 7] = [
        ("a click beside it", false, |harness, _| {
            let corner = egui::pos2(4.0, 4.0);
            harness.hover_at(corner);
            click_at(harness, corner);
        }),
        ("Escape", false, |harness, _| harness.key_press(Key::Escape)),
        ("files are dropped", true, |harness, _| {
            hover_file(harness, egui::pos2(240.0, 700.0));
            drop_file(harness);
            harness.run();
            assert!(shows(harness, text::SEND_TO_WHOM));
            harness.key_press(Key::Escape);
        }),
        (
            "an offer pops up, and is answered",
            true,
            |harness, play| {
                play.change(|s| s.transfers = offers(1));
                wait(harness, 1.0);
                click(harness, text::ACCEPT);
                play.change(|s| s.transfers.clear());
            },
        ),
        ("the engine has too much to do", true, |harness, play| {
            play.be_busy(true);
            click(harness, text::SEND);
            play.be_busy(false);
        }),
        ("a message to somebody else", false, |harness, _| {
            harness.key_press(Key::Escape);
            harness.run();
            click(harness, "Message to carol");
            assert_eq!(field(harness), "");
            click(harness, text::CANCEL);
        }),
        ("the login ends and comes back", true, |harness, play| {
            play.change(|s| *s = logged_out());
            harness.run();
            play.change(|s| *s = with_peers());
        }),
    ];
    for (what, is_open, happens) in happens {
        let (mut harness, play) = begun();
        happens(&mut harness, &play);
        harness.run();
        if !is_open {
            assert!(!shows(&harness, text::SEND), "{what}");
            click(&mut harness, "Message to bob");
        }
        assert_eq!(field(&harness), "hello", "{what}");
    }
}

#[test]
fn a_message_is_thrown_away_only_by_the_button_that_says_so() {
    let (mut harness, _play) = begun();
    click(&mut harness, text::DISCARD);
    click(&mut harness, "Message to bob");
    assert_eq!(field(&harness), "");
}

#[test]
fn pasted_text_is_appended_to_a_draft() {
    let (mut harness, _play) = begun();
    harness.key_press(Key::Escape);
    harness.run();
    harness.hover_at(harness.get_by_label("bob").rect().center());
    harness.run();
    harness.event(Input::Paste("world".to_owned()));
    harness.run();
    assert_eq!(field(&harness), "hello\nworld");
}

fn drop_named(harness: &mut Harness<'_, App>, name: &str) {
    let file = Arc::new(Dropped(PathBuf::from(name)));
    harness.hover_at(egui::pos2(240.0, 700.0));
    harness.input_mut().dropped_files.push(file);
    harness.step();
    harness.run();
}

/// Files that wait for an answer stay when others come.
#[test]
fn a_second_drop_adds_to_the_first() {
    for start in [logged_out(), with_peers()] {
        let (mut harness, play) = slowly(start);
        drop_named(&mut harness, "/tmp/1.txt");
        drop_named(&mut harness, "/tmp/2.txt");
        drop_named(&mut harness, "/tmp/1.txt");
        drop_named(&mut harness, "/tmp/3.txt");
        assert!(shows_part(&harness, "1.txt and 2 more"));
        play.change(|s| *s = with_peers());
        harness.run();
        harness.get_by_role_and_label(Role::Button, "bob").click();
        harness.run();
        click(&mut harness, text::SEND);
        let paths = ["/tmp/1.txt", "/tmp/2.txt", "/tmp/3.txt"].map(PathBuf::from);
        let expected = Command::Send {
            peer: key(2),
            paths: paths.into(),
        };
        assert_eq!(play.commands().last(), Some(&expected));
    }
}

#[test]
fn files_for_a_changed_key_stay_when_its_holder_goes_away() {
    let (mut harness, play) = slowly(with_peers());
    play.change(|s| s.peers[0].changed_from = Some(key(9).fingerprint()));
    harness.run();
    let bob = harness.get_by_label("bob").rect().center();
    hover_file(&mut harness, bob);
    drop_file(&mut harness);
    harness.run();
    assert!(shows(&harness, text::TRUST));
    play.change(|s| drop(s.peers.remove(0)));
    harness.run();
    assert!(shows(&harness, text::SEND_TO_WHOM));
    assert!(shows(&harness, "report.pdf"));
}
