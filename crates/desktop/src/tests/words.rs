//! A few words, written and received.

use super::*;

fn field(harness: &Harness<'_, App>) -> String {
    let field = harness.get_by_role_and_label(Role::MultilineTextInput, "Message to bob");
    field.accesskit_node().value().unwrap_or_default()
}

fn said(text: &str) -> Command {
    Command::SendText {
        peer: key(2),
        text: text.to_owned(),
    }
}

#[test]
fn words_are_written_and_sent_by_keyboard() {
    let (mut harness, play) = window(with_peers());
    harness.get_by_label("Message to bob").focus();
    harness.key_press(Key::Enter);
    harness.run();
    for key in ["hello", "world"] {
        harness.event(Input::Text(key.to_owned()));
        harness.key_press(Key::Enter);
        harness.run();
    }
    harness.key_press_modifiers(egui::Modifiers::COMMAND, Key::Enter);
    harness.run();
    assert_eq!(play.commands(), [said("hello\nworld\n")]);
    assert!(
        harness.query_by_label(text::SEND).is_none(),
        "the sheet is gone"
    );
}

#[test]
fn pasted_text_goes_to_the_peer_under_the_pointer_or_the_focus() {
    let (mut harness, play) = window(with_peers());
    harness.hover_at(harness.get_by_label("bob").rect().center());
    harness.run();
    harness.event(Input::Paste("see\nthis".to_owned()));
    harness.run();
    assert_eq!(field(&harness), "see\nthis");
    harness.key_press(Key::Escape);
    harness.run();
    harness.remove_cursor();
    harness.get_by_label("Send files to bob").focus();
    harness.run();
    harness.event(Input::Paste("and this".to_owned()));
    harness.run();
    let both = "see\nthis\nand this";
    assert_eq!(field(&harness), both);
    click(&mut harness, text::SEND);
    assert_eq!(play.commands(), [said(both)]);
}

#[test]
fn too_long_a_text_says_so_before_it_is_sent() {
    let (mut harness, play) = window(with_peers());
    click(&mut harness, "Message to bob");
    let send = |harness: &mut Harness<'_, App>| {
        harness.key_press_modifiers(egui::Modifiers::COMMAND, Key::Enter);
        click(harness, text::SEND);
        harness.get_by_role(Role::MultilineTextInput).focus();
        harness.run();
    };
    send(&mut harness);
    assert_eq!(play.commands(), [], "nothing is no message");
    harness.event(Input::Paste("x".repeat(TEXT_BYTES_MAX + 1)));
    harness.run();
    assert!(harness.query_by_label_contains("Too long by 1 B").is_some());
    send(&mut harness);
    assert_eq!(play.commands(), []);
    harness.key_press(Key::Backspace);
    harness.run();
    assert!(harness.query_by_label_contains("Too long").is_none());
    click(&mut harness, text::SEND);
    assert_eq!(play.commands(), [said(&"x".repeat(TEXT_BYTES_MAX))]);
}

#[test]
fn a_draft_outlives_the_absence_of_its_reader() {
    let (mut harness, play) = window(with_peers());
    click(&mut harness, "Message to bob");
    harness.event(Input::Text("hello".to_owned()));
    harness.run();
    play.change(|s| {
        s.peers.remove(0);
    });
    harness.run();
    assert!(harness.query_by_label_contains("bob is offline").is_some());
    click(&mut harness, text::SEND);
    assert_eq!(play.commands(), []);
    play.change(|s| *s = with_peers());
    harness.run();
    click(&mut harness, text::SEND);
    assert_eq!(play.commands(), [said("hello")]);
}

#[test]
fn received_words_are_shown_safely_and_copied_as_they_came() {
    let words = "first\nsecond \u{202e}drawkcab";
    let done = Completion {
        files: 0,
        bytes: 0,
        here_bytes: 0,
        skipped_files: 0,
        skipped: Vec::new(),
        resent_bytes: 0,
        failed_files: 0,
        unread: 0,
        elapsed: Duration::ZERO,
        digest: None,
        folder: None,
        paths: Vec::new(),
        renamed: Renamed::default(),
    };
    let (mut harness, play) = window(with_peers());
    play.change(|s| {
        let mut message = transfer(1, Direction::Receiving, Stage::Completed(done));
        message.text = Some(words.into());
        s.transfers.push(message);
    });
    harness.run();
    assert!(harness.query_by_label("Message from bob").is_some());
    let shown = harness.get_by_role(Role::MultilineTextInput);
    let shown = shown.accesskit_node().value().unwrap_or_default();
    assert_eq!(shown, "first\nsecond \\u{202e}drawkcab");
    harness.get_by_label(text::COPY).click();
    harness.step();
    let copied = harness.output().platform_output.commands.iter();
    let mut copied = copied.filter_map(|command| match command {
        egui::OutputCommand::CopyText(text) => Some(text.as_str()),
        _ => None,
    });
    assert_eq!(copied.next(), Some(words));
}
