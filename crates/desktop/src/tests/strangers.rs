//! Strangers: one question, and its answers.

use super::faults::{slowly, wait};
use super::*;

fn stranger(name: &str, n: u8) -> TransferView {
    TransferView {
        id: TransferId(u64::from(n)),
        peer: identity(name, n),
        stranger: true,
        ..incoming(&[("a.txt", 10)])
    }
}

fn crowd(people: u8) -> Vec<TransferView> {
    (0..people)
        .map(|n| stranger(&format!("person{n}"), 20 + n))
        .collect()
}

fn shows(harness: &Harness<'_, App>, label: &str) -> bool {
    harness.query_all_by_label(label).next().is_some()
}

/// Long enough in sight to be answered.
fn read(harness: &mut Harness<'_, App>) {
    for _ in 0..4 {
        harness.step();
    }
    harness.run();
}

#[test]
fn many_strangers_are_one_question() {
    let (mut harness, play) = window(with_peers());
    play.change(|s| {
        s.transfers = crowd(4);
        s.asking = vec![identity("person9", 99)];
    });
    harness.run();
    read(&mut harness);
    assert!(shows(
        &harness,
        "5 people you do not know want to reach you"
    ));
    assert!(!shows(&harness, text::ACCEPT));
    click(&mut harness, text::DECLINE_ALL);
    assert_eq!(play.commands(), [Command::DeclineAll]);
}

#[test]
fn each_stranger_can_be_reviewed_allowed_or_blocked() {
    let (mut harness, play) = window(with_peers());
    play.change(|s| {
        s.transfers = crowd(2);
        s.asking = vec![identity("person9", 99)];
    });
    harness.run();
    read(&mut harness);
    click(&mut harness, "Block person0");
    click(&mut harness, "Allow person9 to connect");
    let expected = [
        Command::Block { peer: key(20) },
        Command::Allow { peer: key(99) },
    ];
    assert_eq!(play.commands(), expected);
    click(&mut harness, "Look at what person1 offers");
    read(&mut harness);
    assert!(shows(&harness, "person1 wants to send you files"));
    click(&mut harness, text::DECLINE);
    let declined = Command::Decline {
        transfer: TransferId(21),
    };
    assert_eq!(play.commands(), [declined]);
}

#[test]
fn postponed_strangers_stay_in_reach_as_one_card() {
    let (mut harness, play) = window(with_peers());
    play.change(|s| s.transfers = crowd(12));
    harness.run();
    read(&mut harness);
    harness.key_press(Key::Escape);
    harness.run();
    assert!(!shows(&harness, text::DECIDE_LATER_BUTTON));
    assert!(!shows(&harness, text::LOOK), "no card for each of them");
    click(&mut harness, text::REVIEW);
    assert!(shows(&harness, text::DECIDE_LATER_BUTTON));
    assert_eq!(play.commands(), []);
}

#[test]
fn known_peers_come_before_strangers() {
    let (mut harness, play) = window(with_peers());
    play.change(|s| {
        s.transfers = crowd(12);
        s.transfers.push(incoming(&[("b.txt", 10)]));
    });
    harness.run();
    assert!(shows(&harness, "bob wants to send you files"));
}

#[test]
fn a_single_stranger_s_offer_is_asked_about_alone_and_can_be_blocked() {
    let (mut harness, play) = window(with_peers());
    play.change(|s| s.transfers = crowd(1));
    harness.run();
    read(&mut harness);
    assert!(shows(&harness, "person0 wants to send you files"));
    click(&mut harness, text::BLOCK);
    assert_eq!(play.commands(), [Command::Block { peer: key(20) }]);
}

#[test]
fn a_stranger_s_message_is_behind_a_question() {
    let (mut harness, play) = window(with_peers());
    play.change(|s| {
        let mut words = stranger("mallory", 66);
        words.is_text = true;
        s.transfers = vec![words];
    });
    harness.run();
    read(&mut harness);
    assert!(shows(&harness, "mallory wants to send you a message"));
    click(&mut harness, text::SHOW_WORDS);
    let accepted = Command::Accept {
        transfer: TransferId(66),
        into: None,
        unwanted: std::collections::BTreeSet::new(),
        existing: None,
    };
    assert_eq!(play.commands(), [accepted]);
}

/// When strangers come or go, a click that was meant for one row hits no other.
#[test]
fn moved_rows_cannot_be_clicked_at_once() {
    let (mut harness, play) = slowly(with_peers());
    play.change(|s| {
        s.asking = (0..4)
            .map(|n| identity(&format!("person{n}"), 20 + n))
            .collect();
    });
    harness.run();
    wait(&mut harness, 1.0);
    let rect = |harness: &Harness<'_, App>, label: &str| harness.get_by_label(label).rect();
    let before = (
        rect(&harness, "Allow person1 to connect"),
        rect(&harness, text::DECLINE_ALL),
    );
    play.change(|s| s.asking.push(identity("person9", 99)));
    harness.run();
    let after = (
        rect(&harness, "Allow person1 to connect"),
        rect(&harness, text::DECLINE_ALL),
    );
    assert_eq!(before, after, "who comes moves nothing");
    play.change(|s| drop(s.asking.remove(0)));
    harness.step();
    harness.get_by_label("Allow person1 to connect").click();
    harness.step();
    assert_eq!(play.commands(), []);
}

#[test]
fn contacts_are_removed_by_the_second_click_and_blocked_people_can_be_unblocked() {
    let (mut harness, play) = window(with_peers());
    play.change(|s| {
        s.peers[0].contact = true;
        s.blocked = vec![identity("mallory", 66)];
    });
    harness.run();
    click(&mut harness, text::SETTINGS);
    harness
        .get_by_label(text::CONTACTS_AND_BLOCKED)
        .scroll_to_me();
    harness.run();
    click(&mut harness, text::CONTACTS_AND_BLOCKED);
    assert!(!shows(&harness, "Remove carol"), "no contact");
    click(&mut harness, "Unblock mallory");
    click(&mut harness, "Remove bob");
    let unblocked = Command::Unblock { peer: key(66) };
    assert_eq!(play.commands(), [unblocked]);
    read(&mut harness);
    click(&mut harness, "Remove bob");
    assert_eq!(play.commands(), [Command::Forget { peer: key(2) }]);
}

#[test]
fn how_strangers_reach_the_user_is_a_setting() {
    let high = [SIZE[0], 2_000.0];
    for (words, strangers) in [
        (text::STRANGERS_DIRECT, Strangers::Direct),
        (text::STRANGERS_ASK, Strangers::Ask),
    ] {
        let (mut harness, play) = window_sized(with_peers(), high, LoginPrefill::default());
        click(&mut harness, text::SETTINGS);
        click(&mut harness, words);
        assert_eq!(play.commands(), [Command::SetStrangers { strangers }]);
    }
}

#[test]
fn a_stream_of_strangers_does_not_ask_again_and_again() {
    for button in [text::DECIDE_LATER_BUTTON, text::DECLINE_ALL] {
        let (mut harness, play) = window(with_peers());
        play.change(|s| s.transfers = crowd(3));
        harness.run();
        read(&mut harness);
        click(&mut harness, button);
        play.change(|s| s.transfers = crowd(5));
        harness.run();
        assert!(!shows(&harness, text::DECIDE_LATER_BUTTON), "{button}");
        assert!(shows(&harness, text::REVIEW), "{button}: in reach");
        for _ in 0..130 {
            harness.step();
        }
        assert!(shows(&harness, text::DECIDE_LATER_BUTTON), "{button}");
    }
}
