//! Choosing recipients: drops, pastes, changed keys, and what follows.

use super::*;

#[test]
fn a_drop_on_the_second_peer_goes_to_that_peer() {
    let (mut harness, play) = window(with_peers());
    let carol = harness.get_by_label("carol").rect().center();
    hover_file(&mut harness, carol);
    assert!(harness.query_by_label("Drop to send to carol").is_some());
    assert!(harness.query_by_label("Drop to send to bob").is_none());
    drop_file(&mut harness);
    assert_eq!(
        play.commands(),
        [Command::Send {
            peer: key(3),
            paths: report()
        }]
    );
    harness.run();
    assert!(harness.query_by_label("Drop to send to carol").is_none());
}

#[test]
fn a_drop_follows_the_key_when_the_list_changes_under_it() {
    let (mut harness, play) = window(with_peers());
    let carol = harness.get_by_label("carol").rect().center();
    hover_file(&mut harness, carol);
    play.change(|s| {
        s.peers.remove(0);
    });
    drop_file(&mut harness);
    assert_eq!(
        play.commands(),
        [Command::Send {
            peer: key(4),
            paths: report()
        }],
        "what is lit under the pointer when it falls is what counts"
    );
}

#[test]
fn a_drop_without_a_position_asks_for_recipients() {
    let (mut harness, play) = window(with_peers());
    harness.remove_cursor();
    harness.run();
    drop_file(&mut harness);
    assert!(
        harness.query_by_label(text::SEND_TO_WHOM).is_none(),
        "it waits for a position"
    );
    let fallen = Instant::now();
    while harness.query_by_label(text::SEND_TO_WHOM).is_none() {
        assert!(
            fallen.elapsed() < Duration::from_secs(10),
            "no question came"
        );
        harness.step();
    }
    harness.run();
    assert!(harness.query_by_label("report.pdf").is_some());
    harness.get_by_role_and_label(Role::Button, "dave").click();
    harness.run();
    assert_eq!(play.commands(), [], "others may be chosen, too");
    click(&mut harness, text::SEND);
    assert_eq!(
        play.commands(),
        [Command::Send {
            peer: key(4),
            paths: report()
        }]
    );
    assert!(harness.query_by_label(text::SEND_TO_WHOM).is_none());
}

#[test]
fn a_drop_beside_the_peers_asks_and_esc_forgets_it() {
    let (mut harness, play) = window(with_peers());
    hover_file(&mut harness, egui::pos2(240.0, 700.0));
    drop_file(&mut harness);
    harness.run();
    assert!(harness.query_by_label(text::SEND_TO_WHOM).is_some());
    harness.key_press(Key::Escape);
    harness.run();
    assert!(harness.query_by_label(text::SEND_TO_WHOM).is_none());
    assert_eq!(play.commands(), []);
}

#[test]
fn files_dropped_before_the_login_wait_for_it() {
    let (mut harness, play) = window(logged_out());
    drop_file(&mut harness);
    harness.run();
    assert!(
        harness
            .query_by_label_contains("report.pdf is waiting")
            .is_some()
    );
    play.change(|s| *s = with_peers());
    harness.run();
    assert!(harness.query_by_label(text::SEND_TO_WHOM).is_some());
}

#[test]
fn files_of_another_start_wait_for_somebody_to_be_chosen() {
    let (mut harness, play) = window(with_peers());
    play.happen(Event::Raised {
        paths: Vec::new(),
        link: None,
    });
    harness.run();
    assert!(harness.query_by_label(text::SEND_TO_WHOM).is_none());
    play.happen(Event::Raised {
        paths: report(),
        link: None,
    });
    harness.run();
    assert!(harness.query_by_label(text::SEND_TO_WHOM).is_some());
    harness.get_by_role_and_label(Role::Button, "dave").click();
    harness.run();
    click(&mut harness, text::SEND);
    let paths = report();
    assert_eq!(
        play.commands(),
        [Command::Send {
            peer: key(4),
            paths
        }]
    );
}

#[test]
fn pasted_files_ask_for_recipients_and_pasted_prose_does_nothing() {
    let (mut harness, _) = window(with_peers());
    harness.event(Input::Paste("hello".to_owned()));
    harness.run();
    assert!(harness.query_by_label(text::SEND_TO_WHOM).is_none());
    harness.event(Input::Paste("file:///tmp/report.pdf\n".to_owned()));
    harness.run();
    assert!(harness.query_by_label(text::SEND_TO_WHOM).is_some());
}

#[test]
fn a_changed_key_asks_before_anything_is_sent() {
    let (mut harness, play) = window(with_peers());
    play.change(|s| s.peers[1].changed_from = Some(key(9).fingerprint()));
    harness.run();
    assert!(harness.query_by_label(text::KEY_CHANGED).is_some());
    assert!(harness.query_by_label("Send files to carol").is_none());
    let carol = harness.get_by_label("carol").rect().center();
    hover_file(&mut harness, carol);
    drop_file(&mut harness);
    harness.run();
    assert_eq!(play.commands(), []);
    for compared in [key(3), key(9)] {
        let shown = text::grouped(&compared.fingerprint().to_string());
        assert!(harness.query_by_label(&shown).is_some(), "{shown}");
    }
    harness.get_by_label(text::TRUST).click();
    harness.run();
    let expected = [
        Command::TrustNewKey { peer: key(3) },
        Command::Send {
            peer: key(3),
            paths: report(),
        },
    ];
    assert_eq!(play.commands(), expected);
}

#[test]
fn a_contact_who_is_away_can_be_sent_to() {
    let mut away = peer("bob", 2);
    away.online = false;
    let (mut harness, play) = window(Snapshot {
        peers: vec![away],
        ..alone()
    });
    harness.run();
    assert!(harness.query_by_label(text::OFFLINE).is_some());
    let mut waiting = transfer(1, Direction::Sending, Stage::Queued);
    waiting.peer = peer("bob", 2).identity;
    play.change(|s| s.transfers.push(waiting));
    harness.run();
    assert!(
        harness
            .query_by_label("Waiting until bob is online")
            .is_some()
    );
    harness.get_by_label(text::CANCEL).click();
    harness.run();
    let transfer = TransferId(1);
    assert_eq!(play.commands(), [Command::Cancel { transfer }]);
}

#[test]
fn the_same_files_go_to_several_people() {
    let (mut harness, play) = window(with_peers());
    harness.event(Input::Paste("/tmp/report.pdf".to_owned()));
    harness.run();
    click(&mut harness, text::SEND);
    assert_eq!(play.commands(), [], "nobody is chosen yet");
    for name in ["dave", "carol", "bob", "carol"] {
        harness.get_by_role_and_label(Role::Button, name).click();
        harness.run();
    }
    click(&mut harness, "Send to 2 people");
    let to = |n| Command::Send {
        peer: key(n),
        paths: report(),
    };
    assert_eq!(play.commands(), [to(2), to(4)]);
    assert!(harness.query_by_label(text::SEND_TO_WHOM).is_none());
}

#[test]
fn the_only_possible_recipient_is_chosen() {
    let (mut harness, play) = window(Snapshot {
        peers: vec![peer("bob", 2)],
        ..alone()
    });
    harness.event(Input::Paste("/tmp/report.pdf".to_owned()));
    harness.run();
    click(&mut harness, text::SEND);
    assert_eq!(play.commands().len(), 1);
}
