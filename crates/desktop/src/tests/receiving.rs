//! Offers, and what came of them.

use super::*;

#[test]
fn an_offer_asks_with_its_whole_list() {
    let (mut harness, play) = window(with_peers());
    play.change(|s| {
        s.transfers
            .push(incoming(&[("a.txt", 10), ("b/c.bin", 2_000_000)]));
    });
    play.happen(Event::Offered {
        transfer: TransferId(7),
    });
    harness.run();
    for shown in [
        "bob wants to send you files",
        "a.txt",
        "b/c.bin",
        "2 files, 2.00 MB",
    ] {
        assert!(
            harness.query_all_by_label(shown).next().is_some(),
            "{shown}"
        );
    }
    harness.get_by_label(text::ACCEPT).click();
    harness.run();
    assert_eq!(play.commands(), [accepted(&[], None)]);
}

/// d with two files, and f.
fn album() -> TransferView {
    let mut transfer = incoming(&[("d", 0), ("d/1", 1_000), ("d/2", 2_000), ("f", 4_000)]);
    let offer = Arc::make_mut(&mut transfer.offer);
    offer.entries[0].size_bytes = None;
    offer.entries[1].folder = Some(0);
    offer.entries[2].folder = Some(0);
    (offer.files, offer.folders) = (3, 1);
    transfer
}

fn accepted(unwanted: &[u32], existing: Option<Existing>) -> Command {
    Command::Accept {
        transfer: TransferId(7),
        into: None,
        unwanted: unwanted.iter().copied().collect(),
        existing,
    }
}

#[test]
fn a_part_of_an_offer_is_taken() {
    let (mut harness, play) = window(with_peers());
    play.change(|s| s.transfers.push(album()));
    harness.run();
    assert!(
        harness
            .query_by_label("3 files in 1 folder, 7.00 kB")
            .is_some()
    );
    click(&mut harness, "d/1");
    click(&mut harness, "f");
    assert!(
        harness
            .query_by_label("1 file in 1 folder, 2.00 kB")
            .is_some()
    );
    click(&mut harness, text::ACCEPT);
    assert_eq!(play.commands(), [accepted(&[1, 3], None)]);
}

#[test]
fn with_nothing_ticked_there_is_nothing_to_accept() {
    let (mut harness, play) = window(with_peers());
    play.change(|s| s.transfers.push(album()));
    harness.run();
    click(&mut harness, "3 files in 1 folder, 7.00 kB");
    harness.get_by_label("0 files, 0 B").focus();
    harness.run();
    assert!(
        harness
            .get_by_label(text::ACCEPT)
            .accesskit_node()
            .is_disabled()
    );
    harness.key_press_modifiers(egui::Modifiers::COMMAND, Key::Enter);
    click(&mut harness, text::ACCEPT);
    click(&mut harness, text::SAVE_ELSEWHERE);
    assert_eq!(play.commands(), []);
    // The folder brings back what it holds, and only that.
    click(&mut harness, "d");
    click(&mut harness, text::ACCEPT);
    assert_eq!(play.commands(), [accepted(&[3], None)]);
}

#[test]
fn accepting_by_keyboard_does_not_tick_what_has_the_focus() {
    let (mut harness, play) = window(with_peers());
    play.change(|s| s.transfers.push(album()));
    harness.run();
    harness.get_by_label("f").focus();
    harness.key_press(Key::Space);
    harness.run();
    harness.key_press_modifiers(egui::Modifiers::COMMAND, Key::Enter);
    harness.run();
    assert_eq!(play.commands(), [accepted(&[3], None)]);
}

#[test]
fn a_key_meant_for_a_message_accepts_no_offer() {
    let (mut harness, play) = window(with_peers());
    click(&mut harness, "Message to bob");
    harness.event(Input::Text("hello".to_owned()));
    harness.run();
    play.change(|s| s.transfers.push(album()));
    for _ in 0..2 {
        harness.key_press_modifiers(egui::Modifiers::COMMAND, Key::Enter);
        harness.run();
    }
    assert_eq!(play.commands(), []);
    harness.key_press(Key::Escape);
    harness.run();
    let field = harness.get_by_role(Role::MultilineTextInput);
    assert_eq!(field.accesskit_node().value().as_deref(), Some("hello"));
    assert!(field.is_focused(), "typing goes on");
}

#[test]
fn tab_walks_through_a_long_offer_line_by_line() {
    let names: Vec<String> = (0..60).map(|n| format!("{n}.txt")).collect();
    let many: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let (mut harness, play) = window(with_peers());
    play.change(|s| s.transfers.push(incoming(&many)));
    harness.run();
    harness.key_press(Key::Tab);
    harness.run();
    for name in &names {
        harness.key_press(Key::Tab);
        harness.run();
        assert!(harness.get_by_label(name).is_focused(), "{name}");
    }
    harness.key_press(Key::Tab);
    harness.run();
    assert!(harness.get_by_label(text::ACCEPT).is_focused());
}

#[test]
fn names_that_are_there_already_ask_what_to_do() {
    let (mut harness, play) = window(Snapshot {
        settings: Settings {
            existing: Existing::Skip,
            ..Settings::default()
        },
        ..with_peers()
    });
    play.change(|s| s.transfers.push(album()));
    harness.run();
    assert!(
        harness.query_by_label(text::REPLACE).is_none(),
        "none is there"
    );
    play.change(|s| Arc::make_mut(&mut s.transfers[0].offer).existing = 2);
    harness.run();
    assert!(
        harness
            .query_by_label("2 names are there already:")
            .is_some()
    );
    let chosen = |harness: &Harness<'_, App>, label| {
        let toggled = harness.get_by_label(label).accesskit_node().toggled();
        toggled == Some(egui::accesskit::Toggled::True)
    };
    assert!(chosen(&harness, text::SKIP), "as the settings say");
    click(&mut harness, text::REPLACE);
    assert!(chosen(&harness, text::REPLACE) && !chosen(&harness, text::SKIP));
    click(&mut harness, text::ACCEPT);
    assert_eq!(play.commands(), [accepted(&[], Some(Existing::Replace))]);
}

#[test]
fn an_offer_is_answered_by_keyboard() {
    let (mut harness, play) = window(with_peers());
    play.change(|s| s.transfers.push(incoming(&[("a.txt", 10)])));
    harness.run();
    harness.key_press(Key::Enter);
    harness.run();
    assert_eq!(play.commands(), [], "a stray Enter answers nothing");
    harness.key_press(Key::Tab);
    harness.run();
    assert!(harness.get_by_label(text::ACCEPT).is_focused());
    harness.key_press(Key::Tab);
    harness.run();
    harness.key_press(Key::Enter);
    harness.run();
    assert_eq!(
        play.commands(),
        [Command::Decline {
            transfer: TransferId(7)
        }]
    );
}

#[test]
fn an_offer_can_wait() {
    let (mut harness, play) = window(with_peers());
    play.change(|s| s.transfers.push(incoming(&[("a.txt", 10)])));
    harness.run();
    harness.key_press(Key::Escape);
    harness.run();
    assert!(harness.query_by_label(text::ACCEPT).is_none());
    assert_eq!(play.commands(), []);
    harness.get_by_label(text::LOOK).click();
    harness.run();
    assert!(harness.query_by_label(text::ACCEPT).is_some());
}

#[test]
fn names_of_four_kilobytes_leave_the_answer_on_the_screen() {
    let long = format!("{}.pdf.exe", "x".repeat(4_090));
    let many: Vec<(&str, u64)> = (0..500).map(|_| (long.as_str(), 1)).collect();
    for size in [[400.0, 480.0], SIZE] {
        let (mut harness, play) = window_sized(with_peers(), size, LoginPrefill::default());
        play.change(|s| {
            let mut offer = incoming(&many);
            Arc::make_mut(&mut offer.offer).existing = 500;
            s.transfers.push(offer);
        });
        harness.run();
        let screen = egui::Rect::from_min_size(egui::Pos2::ZERO, size.into());
        for answer in [text::ACCEPT, text::DECLINE, text::SAVE_ELSEWHERE] {
            let rect = harness.get_by_label(answer).rect();
            assert!(
                screen.contains_rect(rect),
                "{answer} at {rect:?} in {screen:?}"
            );
        }
        let elided = harness
            .get_all_by_label_contains("….".trim_end_matches('.'))
            .filter_map(|n| {
                n.accesskit_node()
                    .label()
                    .or_else(|| n.accesskit_node().value())
            });
        let names: Vec<String> = elided.filter(|label| label.contains("xxx")).collect();
        assert!(!names.is_empty());
        for name in names {
            assert!(
                name.ends_with(".pdf.exe"),
                "the extension stays in sight: {name}"
            );
        }
    }
}

#[test]
fn finished_transfers_show_their_outcome_and_can_be_dismissed() {
    let (mut harness, play) = window(with_peers());
    let done = Completion {
        files: 1,
        bytes: 734_003_200,
        here_bytes: 0,
        skipped_files: 3,
        skipped: vec!["notes.txt".to_owned()],
        resent_bytes: 0,
        failed_files: 1,
        unread: 0,
        digest: None,
        elapsed: Duration::from_secs(10),
        folder: Some("/home/alice/Downloads".into()),
        paths: Vec::new(),
        renamed: Renamed::default(),
    };
    let refused = Failure::Declined {
        peer: "bob".parse().unwrap(),
    };
    play.change(|s| {
        s.transfers
            .push(transfer(1, Direction::Receiving, Stage::Completed(done)));
        s.transfers
            .push(transfer(2, Direction::Sending, Stage::Failed(refused)));
    });
    play.happen(Event::FileFailed {
        transfer: TransferId(1),
        path: "holiday.mp4".to_owned(),
        failure: Failure::LocalFiles {
            detail: "The disk is full.".to_owned(),
        },
    });
    harness.run();
    for shown in [
        "Received from bob",
        "bob declined.",
        "734 MB  ·  in 10 s  ·  73.4 MB/s  ·  3 files skipped",
        "Skipped, because they were there already:",
        "notes.txt",
    ] {
        assert!(harness.query_by_label(shown).is_some(), "{shown}");
    }
    assert!(
        harness
            .query_by_label_contains("The disk is full.")
            .is_some()
    );
    assert!(harness.query_by_label(text::OPEN_FOLDER).is_some());
    harness.get_by_label(text::SEND_AGAIN).click();
    harness.run();
    let transfer = TransferId(2);
    assert_eq!(play.commands(), [Command::Retry { transfer }]);
    harness.get_by_label(text::DISMISS_ALL).click();
    harness.run();
    let dismissed = [1, 2].map(|id| Command::Dismiss {
        transfer: TransferId(id),
    });
    assert_eq!(play.commands(), dismissed);
}

#[test]
fn names_that_had_to_change_and_files_that_failed_are_told() {
    let (mut harness, play) = window(with_peers());
    let changed = |n| ("12:30.png".to_owned(), format!("12_30 ({n}).png"));
    let renamed = Renamed {
        first: (1..=7).map(changed).collect(),
        count: 7,
    };
    let done = Completion {
        files: 7,
        bytes: 7,
        failed_files: 9,
        renamed,
        ..Completion::default()
    };
    let received = transfer(1, Direction::Receiving, Stage::Completed(done));
    play.change(|s| s.transfers.push(received));
    harness.run();
    for shown in [
        "7 names had to change:",
        "12:30.png → 12_30 (1).png",
        "and 2 more",
        "9 files failed:",
    ] {
        assert!(harness.query_by_label(shown).is_some(), "{shown}");
    }
}
