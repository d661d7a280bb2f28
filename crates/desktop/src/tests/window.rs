//! What the window shows and how it is reached, with and without people.

use super::*;

#[test]
fn tab_reaches_every_button_from_above() {
    let (mut harness, _) = window(with_peers());
    for expected in [
        text::SETTINGS,
        text::SEND_TO_SEVERAL,
        text::JOIN,
        text::INVITE,
        "Send files to bob",
        "Send a folder to bob",
        "Message to bob",
        "Send files to carol",
    ] {
        harness.key_press(Key::Tab);
        harness.run();
        assert!(harness.get_by_label(expected).is_focused(), "{expected}");
    }
    for _ in 0..3 {
        harness.key_press(Key::Tab);
    }
    harness.run();
    assert!(harness.get_by_label("Send files to dave").is_focused());
}

#[test]
fn alone_the_window_says_what_to_do() {
    let (harness, _) = window(alone());
    assert!(harness.query_by_label(text::NOBODY).is_some());
    assert!(
        harness
            .query_by_label_contains("log in to\nmeet.example.org:7878")
            .is_some()
    );
}

#[test]
fn settings_change_the_engine_and_show_the_fingerprint() {
    let (mut harness, play) = window(with_peers());
    harness.get_by_label(text::SETTINGS).click();
    harness.run();
    let own = text::grouped(&key(1).fingerprint().to_string());
    assert!(harness.query_by_label(&own).is_some());
    harness.get_by_label(text::ACCEPT_CONTACTS).click();
    harness.run();
    let expected = Command::SetAcceptPolicy {
        policy: AcceptPolicy::Contacts,
    };
    assert_eq!(play.commands(), [expected]);
    harness.key_press(Key::Escape);
    harness.run();
    assert!(harness.query_by_label(text::LOG_OUT).is_none());
}

fn typed(harness: &mut Harness<'_, App>, label: &str, text: &str) {
    harness
        .get_by_role_and_label(Role::TextInput, label)
        .focus();
    harness.run();
    harness.event(Input::Text(text.to_owned()));
    harness.run();
    harness.key_press(Key::Tab);
    harness.run();
}

#[test]
fn settings_set_limits_and_what_is_kept() {
    let (mut harness, play) = window(with_peers());
    play.change(|s| {
        s.settings.accept = AcceptPolicy::All;
        s.settings.receive_limit = Some(2_500_000);
    });
    harness.run();
    click(&mut harness, text::SETTINGS);
    typed(&mut harness, text::UNASKED_MAX, "500");
    typed(&mut harness, text::SEND_LIMIT, "1.5");
    let receive = Some(2_500_000);
    let send = Some(1_500_000);
    let bytes = Some(500_000_000);
    let expected = [
        Command::SetUnaskedBytesMax { bytes },
        Command::SetLimits { send, receive },
    ];
    assert_eq!(play.commands(), expected);
    typed(&mut harness, text::RECEIVE_LIMIT, "x");
    assert!(harness.query_by_label(text::NOT_A_NUMBER).is_some());
    assert_eq!(play.commands(), []);
    click(&mut harness, text::REPLACE);
    click(&mut harness, text::KEEPS_EXECUTABLE);
    let (existing, keeps) = (Existing::Replace, true);
    let expected = [
        Command::SetExisting { existing },
        Command::SetKeepsExecutable { keeps },
    ];
    assert_eq!(play.commands(), expected);
    play.change(|s| s.settings.accept = AcceptPolicy::Ask);
    harness.run();
    assert!(harness.query_by_label(text::UNASKED_MAX).is_none());
}

#[test]
fn a_proxy_is_typed_before_the_first_login() {
    // Tall enough to show all settings without scrolling.
    let (mut harness, play) = window_sized(logged_out(), [480.0, 1_200.0], LoginPrefill::default());
    click(&mut harness, text::SETTINGS);
    assert!(harness.query_by_label(text::LOG_OUT).is_none());
    typed(&mut harness, text::PROXY, "socks5://proxy:1080");
    assert!(
        harness
            .query_by_label_contains("only HTTP proxies")
            .is_some()
    );
    assert_eq!(play.commands(), []);
    click(&mut harness, text::CLOSE);
    click(&mut harness, text::SETTINGS);
    typed(&mut harness, text::PROXY, "http://me:a%40b@proxy:3128");
    let proxy = "http://me:a%40b@proxy:3128".parse().unwrap();
    assert_eq!(play.commands(), [Command::SetProxy { proxy }]);
}

#[test]
fn the_connection_is_checked_and_what_was_found_stays() {
    let found = |tone, topic: &str, advice: Option<&str>| Finding {
        tone,
        topic: topic.to_owned(),
        text: format!("All about {topic}."),
        advice: advice.map(str::to_owned),
    };
    // All of the settings is to be seen.
    let high = [SIZE[0], 2_000.0];
    let (mut harness, play) = window_sized(with_peers(), high, LoginPrefill::default());
    click(&mut harness, text::SETTINGS);
    click(&mut harness, text::PORT_MAPPING);
    click(&mut harness, text::DIAGNOSE);
    let enabled = false;
    let expected = [
        Command::SetPortMapping { enabled },
        Command::Diagnose { server: None },
    ];
    assert_eq!(play.commands(), expected);
    play.change(|s| s.is_diagnosing = true);
    harness.run();
    assert!(harness.query_by_label(text::DIAGNOSE).is_none());
    assert!(harness.query_by_label(text::DIAGNOSING).is_some());
    play.change(|s| {
        s.is_diagnosing = false;
        let mut diagnosis = Diagnosis::of(diagnosis::Measurements {
            server: "example.org:4747".to_owned(),
            unresolved: Some("no such host".to_owned()),
            server_probes: Vec::new(),
            observations: Vec::new(),
            own: Vec::new(),
            probes: None,
            port_mapping: diagnosis::PortMappingAnswer::NotAsked,
            router_outside: diagnosis::RouterOutside::Unsaid,
            proxy: None,
        });
        diagnosis.findings = vec![
            found(Tone::Good, "NAT", None),
            found(Tone::Trouble, "Server", Some("Do this.")),
        ];
        s.diagnosis = Some(Arc::new(diagnosis));
        s.attempts = Arc::new(vec![Attempt {
            ended_at_s: 0,
            peer: "bob".parse().unwrap(),
            invited: true,
            path: Some(PathKind::Mapped),
            elapsed_ms: Some(350),
            why: "It was the first.".to_owned(),
            tried: vec!["round 1: relay: connected, not chosen".to_owned()],
        }]);
    });
    harness.run();
    for shown in [
        text::DIAGNOSE,
        "NAT",
        "All about NAT.",
        "All about Server.",
        "Do this.",
    ] {
        assert!(harness.query_by_label(shown).is_some(), "{shown}");
    }
    let tried = "round 1: relay: connected, not chosen";
    for shown in [text::LAST_CONNECTIONS, tried, "It was the first."] {
        assert!(harness.query_by_label(shown).is_some(), "{shown}");
    }
    assert!(harness.query_by_label_contains("From bob").is_some());
}

#[test]
fn history_is_shown_newest_first_and_cleared_by_the_second_click() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now_s = now.unwrap().as_secs();
    let entry = |title: &str, ended_at_s, outcome| HistoryEntry {
        ended_at_s,
        peer: identity("bob", 2),
        direction: Direction::Receiving,
        title: title.to_owned(),
        files: 1,
        bytes: 734_003_200,
        here_bytes: 0,
        path: Some(PathKind::Punched),
        elapsed_ms: Some(10_000),
        digest: None,
        outcome,
        folder: None,
    };
    let reason = "Cancelled.".to_owned();
    let (mut harness, play) = window(with_peers());
    play.change(|s| {
        s.history = Arc::new(vec![
            entry("old", now_s - 7_300, Outcome::Completed { failed_files: 0 }),
            entry("new", now_s, Outcome::Failed { reason }),
        ]);
    });
    harness.run();
    click(&mut harness, text::HISTORY);
    let height = |label: &str| harness.get_by_label(label).rect().top();
    assert!(height("new") < height("old"));
    for shown in [
        "From bob  ·  2 hours ago  ·  734 MB  ·  73.4 MB/s",
        "Direct, punched through both NATs",
        "Cancelled.",
    ] {
        assert!(harness.query_by_label(shown).is_some(), "{shown}");
    }
    click(&mut harness, text::CLEAR_HISTORY);
    assert_eq!(play.commands(), []);
    click(&mut harness, text::CLEAR_FOR_GOOD);
    assert_eq!(play.commands(), [Command::ClearHistory]);
    play.change(|s| s.history = Arc::default());
    harness.run();
    assert!(harness.query_by_label(text::NO_HISTORY).is_some());
}

#[test]
fn a_failed_command_is_a_notice_that_can_be_dismissed() {
    let (mut harness, play) = window(with_peers());
    let failure = Failure::PeerOffline {
        peer: "bob".to_owned(),
    };
    play.happen(Event::CommandFailed { failure });
    harness.run();
    assert!(
        harness
            .query_by_label_contains("Nobody called bob is online")
            .is_some()
    );
    harness.get_by_label(text::DISMISS).click();
    harness.run();
    assert!(
        harness
            .query_by_label_contains("Nobody called bob")
            .is_none()
    );
}

#[test]
fn a_title_that_no_font_can_draw_suggests_fonts_once() {
    let play = Play::new(with_peers());
    let given = play.clone();
    // The harness has no fonts of the system, as a bare machine has none.
    let mut harness = Harness::builder()
        .with_size(SIZE)
        .allow_missing_glyphs()
        .build_eframe(|cc| {
            let snapshot = given.snapshot();
            App::new(cc, Bridge::played(given), snapshot, LoginPrefill::default())
        });
    harness.run();
    assert!(harness.query_by_label(text::NO_FONT).is_none());
    play.change(|s| {
        let mut titled = incoming(&[("report.pdf", 10)]);
        Arc::make_mut(&mut titled.offer).title = "\u{5831}\u{544a}.pdf".to_owned();
        s.transfers.push(titled);
    });
    harness.run();
    assert!(harness.query_by_label(text::NO_FONT).is_some());
}

fn assert_at_rest(harness: &mut Harness<'_, App>, what: &str) {
    harness.step();
    let outputs = harness.output().viewport_output.values();
    let delay = outputs.map(|output| output.repaint_delay).min();
    assert_eq!(delay, Some(Duration::MAX), "{what}");
}

#[test]
fn nothing_is_drawn_while_nothing_happens() {
    for snapshot in [logged_out(), alone(), with_peers()] {
        let (mut harness, _) = window(snapshot);
        assert_at_rest(&mut harness, "a screen");
    }
    let (mut harness, play) = window(with_peers());
    for sheet in [text::SETTINGS, "Message to bob"] {
        click(&mut harness, sheet);
        assert_at_rest(&mut harness, sheet);
        harness.key_press(Key::Escape);
        harness.run();
    }
    let mut paused = transfer(1, Direction::Sending, Stage::Transferring);
    paused.progress.paused.by_peer = true;
    let mut message = transfer(2, Direction::Sending, Stage::Queued);
    message.text = Some("hello".into());
    play.change(|s| s.transfers = vec![paused, message]);
    harness.run();
    assert_at_rest(&mut harness, "transfers");
    play.change(|s| s.transfers.push(incoming(&[("a", 1), ("b", 1)])));
    harness.run();
    assert_at_rest(&mut harness, "an offer");
}

#[test]
fn where_not_everybody_is_listed_people_are_searched_for() {
    let (mut harness, play) = window(alone());
    assert!(harness.query_by_label(text::SEARCH).is_none());
    play.change(|s| s.directory = Some(Directory::Closed));
    harness.run();
    assert!(harness.query_by_label(text::SEARCH_HELP).is_some());
    assert!(harness.query_by_label(text::NOBODY_KNOWN).is_some());
    typed(&mut harness, text::SEARCH_FOR_A_NAME, "bo");
    click(&mut harness, text::SEARCH);
    assert!(harness.query_by_label_contains("3 to 32").is_some());
    assert_eq!(play.commands(), []);
    typed(&mut harness, text::SEARCH_FOR_A_NAME, "b");
    harness.key_press(Key::Enter);
    harness.run();
    let name: PeerName = "bob".parse().unwrap();
    assert_eq!(play.commands(), [Command::LookUp { name: name.clone() }]);
    let looked_up = |state| {
        let name = name.clone();
        move |s: &mut Snapshot| s.looked_up = vec![LookedUp { name, state }]
    };
    play.change(looked_up(LookUpState::Searching));
    harness.run();
    assert!(harness.query_by_label(text::SEARCHING).is_some());
    play.change(looked_up(LookUpState::NotOnline));
    harness.run();
    assert!(harness.query_by_label(&text::not_found("bob")).is_some());
}

#[test]
fn the_engine_is_told_when_the_window_comes_to_the_front_and_leaves_it() {
    let (mut harness, play) = window(alone());
    play.attended();
    let focus = |harness: &mut Harness<'_, App>, is_in_front: bool| {
        harness.input_mut().focused = is_in_front;
        harness.run();
    };
    focus(&mut harness, false);
    play.attended();
    focus(&mut harness, true);
    assert_eq!(play.attended(), [true]);
    harness.run();
    assert!(play.attended().is_empty(), "told once");
    focus(&mut harness, false);
    assert_eq!(play.attended(), [false]);
    // An engine that was busy is told later.
    play.be_busy(true);
    focus(&mut harness, true);
    play.be_busy(false);
    harness.run();
    assert_eq!(play.attended(), [true]);
}
