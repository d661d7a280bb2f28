//! What the window shows and how it is reached, whoever is there.

use super::*;

#[test]
fn tab_reaches_every_button_from_above() {
    let (mut harness, _) = window(with_peers());
    for expected in [
        text::SETTINGS,
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

#[test]
fn what_the_engine_cannot_do_is_said_and_dismissed() {
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
            App::new(cc, Bridge::played(given), snapshot, Prefill::default())
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

#[test]
fn nothing_is_drawn_while_nothing_happens() {
    for snapshot in [logged_out(), alone(), with_peers()] {
        let (mut harness, _) = window(snapshot);
        harness.step();
        let delay = harness
            .output()
            .viewport_output
            .values()
            .map(|v| v.repaint_delay)
            .min();
        assert_eq!(delay, Some(Duration::MAX));
    }
}
