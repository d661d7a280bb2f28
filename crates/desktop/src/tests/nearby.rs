//! People on the same network, with and without a server.

use super::*;

fn nearby_only() -> Snapshot {
    Snapshot {
        nearby: Some("alice".parse().unwrap()),
        ..logged_out()
    }
}

fn near(name: &str, n: u8, claimed: bool) -> PeerView {
    PeerView {
        nearby: true,
        claimed,
        ..peer(name, n)
    }
}

#[test]
fn the_first_screen_does_without_a_server() {
    let (mut harness, play) = window(logged_out());
    click(&mut harness, text::WITHOUT_SERVER);
    assert!(harness.query_by_label_contains("has 3 to 32").is_some());
    assert_eq!(play.commands(), []);
    harness.get_by_label(text::NAME_FIELD.label).focus();
    harness.run();
    harness.event(Input::Text("alice".to_owned()));
    harness.run();
    click(&mut harness, text::WITHOUT_SERVER);
    let go = Command::GoNearby {
        name: "alice".parse().unwrap(),
        announces: true,
        alone: true,
    };
    let stays_out = || Command::SetAutoLogIn { on: false };
    assert_eq!(play.commands(), [stays_out(), go.clone()]);
    play.change(|s| s.settings.nearby = false);
    harness.run();
    click(&mut harness, text::WITHOUT_SERVER);
    let on = Command::SetNearby { on: true };
    assert_eq!(play.commands(), [on, stays_out(), go]);
}

#[test]
fn where_addresses_are_hidden_nearby_is_not_offered() {
    let mut snapshot = logged_out();
    snapshot.settings.path = PathPolicy::RelayOnly;
    let (harness, _play) = window(snapshot);
    assert!(harness.query_by_label(text::WITHOUT_SERVER).is_none());
}

#[test]
fn without_a_server_people_nearby_are_in_sight() {
    let (mut harness, play) = window(nearby_only());
    assert!(harness.query_by_label(text::NEARBY_ONLY).is_some());
    assert!(harness.query_by_label(text::NOBODY_NEARBY).is_some());
    play.change(|s| {
        s.peers = vec![near("bob", 2, false), near("carol", 3, true)];
    });
    harness.run();
    assert!(harness.query_by_label(text::NEARBY).is_some());
    assert!(harness.query_by_label(text::CLAIMED).is_some());
    let position = harness.get_by_label("bob").rect().center();
    hover_file(&mut harness, position);
    drop_file(&mut harness);
    let expected = Command::Send {
        peer: key(2),
        paths: report(),
    };
    assert_eq!(play.commands(), [expected]);
}

#[test]
fn a_login_that_has_ended_says_why_and_leaves_those_nearby() {
    let (harness, _play) = window(Snapshot {
        login: LoginState::LoggedOut {
            failure: Some(Failure::Replaced),
        },
        peers: vec![near("bob", 2, false)],
        ..nearby_only()
    });
    assert!(harness.query_by_label("bob").is_some());
    let why = harness.query_by_label_contains("from another place");
    assert!(why.is_some());
}

#[test]
fn the_switch_is_in_the_settings() {
    let (mut harness, play) = window(with_peers());
    click(&mut harness, text::SETTINGS);
    harness.get_by_label(text::FIND_NEARBY).scroll_to_me();
    harness.run();
    click(&mut harness, text::FIND_NEARBY);
    assert_eq!(play.commands(), [Command::SetNearby { on: false }]);
}

#[test]
fn an_offer_tells_that_a_name_is_not_confirmed() {
    for claimed in [true, false] {
        let offer = TransferView {
            claimed,
            ..incoming(&[("report.pdf", 1)])
        };
        let (harness, _play) = window(Snapshot {
            transfers: vec![offer],
            ..nearby_only()
        });
        let told = harness.query_by_label_contains(text::CLAIMED_HELP);
        assert_eq!(told.is_some(), claimed);
    }
}
