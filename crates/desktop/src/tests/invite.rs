//! Links and codes in the window.

use super::*;

const LINK: &str = "pinhole://join/alice.aeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaq/1";

fn link() -> InvitationLink {
    LINK.parse().unwrap()
}

fn dropped_beside_the_people(harness: &mut Harness<'_, App>) {
    hover_file(harness, egui::pos2(240.0, 700.0));
    drop_file(harness);
    harness.run();
}

fn pasted(harness: &mut Harness<'_, App>, text: &str) {
    harness.event(Input::Text(text.to_owned()));
    harness.run();
}

#[test]
fn a_link_is_made_shown_and_copied() {
    let (mut harness, play) = window(with_peers());
    click(&mut harness, text::INVITE);
    click(&mut harness, text::FOR_MANY);
    click(&mut harness, text::A_WEEK);
    click(&mut harness, text::MAKE_LINK);
    let expected = Command::Invite {
        name: None,
        server: None,
        uses: Uses::Many,
        lasts: Duration::from_secs(7 * 24 * 60 * 60),
    };
    assert_eq!(play.commands(), [expected]);
    play.happen(Event::Invitation { link: link() });
    harness.run();
    assert!(harness.query_by_label(text::QR_CODE).is_some());
    assert!(harness.query_by_label(LINK).is_some());
    assert!(harness.query_by_label(text::NEARBY_LINK).is_some());
    click(&mut harness, text::COPY_LINK);
    let copied = &harness.output().platform_output.commands;
    let is_copied = |it: &egui::OutputCommand| matches!(it, egui::OutputCommand::CopyText(text) if text == LINK);
    let notice = harness.query_by_label(text::COPIED);
    assert!(copied.iter().any(is_copied) || notice.is_some());
    click(&mut harness, text::DONE);
    assert!(harness.query_by_label(text::QR_CODE).is_none());
}

#[test]
fn whoever_is_alone_is_shown_how_to_invite() {
    let (mut harness, _play) = window(alone());
    click(&mut harness, text::INVITE_TITLE);
    assert!(harness.query_by_label(text::MAKE_LINK).is_some());
}

#[test]
fn a_link_on_the_first_screen_logs_in_where_it_says_and_joins() {
    let (mut harness, play) = window(logged_out());
    let fingerprint = key(9).fingerprint();
    let server = format!("meet.example.org:7878#{fingerprint}");
    let with_server = LINK.replace("join/", &format!("join/{}/", server.replace('#', "%23")));
    // It may be pasted into a field for something else.
    pasted(&mut harness, &with_server);
    assert!(harness.query_by_label(text::JOIN_TITLE).is_some());
    click(&mut harness, text::JOIN_NOW);
    let log_in = Command::LogIn {
        name: PeerName::guest(key(1)),
        server: server.parse().unwrap(),
        patient: false,
    };
    let join = Command::Join {
        link: with_server.parse().unwrap(),
    };
    assert_eq!(play.commands(), [log_in, join]);
    assert!(harness.query_by_label(text::JOIN_TITLE).is_none());
}

#[test]
fn a_link_that_was_opened_elsewhere_waits_for_a_click() {
    let prefill = LoginPrefill {
        link: Some(LINK.to_owned()),
        ..LoginPrefill::default()
    };
    let (mut harness, play) = window_sized(logged_out(), SIZE, prefill);
    assert_eq!(play.commands(), []);
    click(&mut harness, text::JOIN_NOW);
    assert_eq!(play.commands(), [Command::Join { link: link() }]);
}

#[test]
fn a_code_is_typed_in_and_what_is_none_is_explained() {
    let (mut harness, play) = window(with_peers());
    click(&mut harness, text::JOIN);
    pasted(&mut harness, "7 acid zoom");
    click(&mut harness, text::JOIN_NOW);
    assert!(
        harness
            .query_by_label_contains("zoom is not one of")
            .is_some()
    );
    assert_eq!(play.commands(), []);
    harness.key_press(Key::Escape);
    harness.run();
    click(&mut harness, text::JOIN);
    pasted(&mut harness, "7 acid zoo");
    harness.key_press(Key::Enter);
    harness.run();
    let code = "7-acid-zoo".parse().unwrap();
    assert_eq!(play.commands(), [Command::JoinCode { code }]);
    play.happen(Event::Joined {
        peer: identity("erin", 6),
        is_told: true,
    });
    harness.run();
    let told = text::joined("erin", true);
    assert!(harness.query_by_label(&told).is_some());
}

#[test]
fn files_go_to_whoever_says_the_code() {
    let (mut harness, play) = window(with_peers());
    dropped_beside_the_people(&mut harness);
    click(&mut harness, text::BY_CODE);
    assert_eq!(play.commands(), [Command::OpenCode]);
    play.change(|s| s.code = Some("7-acid-zoo".parse().unwrap()));
    harness.run();
    assert!(harness.query_by_label("7-acid-zoo").is_some());
    // Somebody else comes by a link meanwhile.
    play.happen(Event::Welcomed {
        peer: identity("frank", 7),
        is_by_code: false,
    });
    harness.run();
    assert_eq!(play.commands(), []);
    play.happen(Event::Welcomed {
        peer: identity("erin", 6),
        is_by_code: true,
    });
    harness.run();
    let expected = Command::Send {
        peer: key(6),
        paths: report(),
    };
    assert_eq!(play.commands(), [expected]);
    assert!(harness.query_by_label(text::CODE_TITLE).is_none());
}

#[test]
fn a_code_that_is_given_up_is_closed_and_one_that_is_over_gives_the_files_back() {
    let (mut harness, play) = window(with_peers());
    dropped_beside_the_people(&mut harness);
    click(&mut harness, text::BY_CODE);
    harness.key_press(Key::Escape);
    harness.run();
    assert_eq!(play.commands(), [Command::OpenCode, Command::CloseCode]);
    dropped_beside_the_people(&mut harness);
    click(&mut harness, text::BY_CODE);
    play.happen(Event::CodeClosed {
        failure: Failure::CodeUnused,
    });
    harness.run();
    assert!(
        harness
            .query_by_label_contains("within ten minutes")
            .is_some()
    );
    assert!(harness.query_by_label(text::SEND_TO_WHOM).is_some());
}
