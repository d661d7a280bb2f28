//! A server that does not list everybody: people find each other by name.

use pinhole_tests::process::EndedProcess;
use pinhole_tests::scene::{SOON, Scene};

/// The names in events of this kind.
fn names(ended: &EndedProcess, event: &str) -> Vec<String> {
    let of_kind = ended.events.iter().filter(|it| it["event"] == event);
    of_kind
        .map(|it| it["name"].as_str().expect("a name").to_owned())
        .collect()
}

fn says_closed(ended: &EndedProcess) -> bool {
    let mut events = ended.events.iter();
    events.any(|event| event["event"] == "directory_closed")
}

#[test]
fn in_a_closed_directory_people_are_found_by_name_and_contacts_are_seen() {
    let scene = Scene::with_server(&["--directory", "closed"]);
    let (alice, bob) = (scene.peer("alice"), scene.peer("bob"));
    let _receiving = bob.receive(&[]);
    let listed = alice.start(&["peers"]).end(SOON);
    assert_eq!((listed.code, names(&listed, "peer").len()), (Some(0), 0));
    assert!(says_closed(&listed), "{listed:#?}");
    let found = alice.start(&["peers", "bob"]).end(SOON);
    assert_eq!(
        (found.code, names(&found, "peer")),
        (Some(0), vec!["bob".to_owned()])
    );
    let one_absent = alice.start(&["peers", "bob", "nobody"]).end(SOON);
    assert_eq!(one_absent.code, Some(4), "{one_absent:#?}");
    assert_eq!(names(&one_absent, "absent"), ["nobody"]);
    let file = scene.file("file", b"content");
    let to_nobody = alice.send("nobody", &[&file]).end(SOON);
    assert_eq!(to_nobody.code, Some(4), "{to_nobody:#?}");
    let sent = alice.send("bob", &[&file]).end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    let listed = alice.start(&["peers"]).end(SOON);
    assert_eq!(names(&listed, "peer"), ["bob"], "a contact");
}

#[test]
fn a_sender_waits_for_a_name_in_a_closed_directory() {
    let scene = Scene::with_server(&["--directory", "closed"]);
    let (alice, bob) = (scene.peer("alice"), scene.peer("bob"));
    let file = scene.file("file", b"content");
    let file = file.to_str().expect("a path in UTF-8");
    let mut sending = alice.start(&["send", "--wait", "bob", file]);
    sending.event("waiting", SOON);
    let _receiving = bob.receive(&[]);
    let sent = sending.end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
}

#[test]
fn a_directory_that_is_full_is_closed() {
    let scene = Scene::with_server(&["--directory-max", "2"]);
    let [alice, bob, carol, dave] = ["alice", "bob", "carol", "dave"].map(|name| scene.peer(name));
    let _bob = bob.receive(&[]);
    let listed = alice.start(&["peers"]).end(SOON);
    assert_eq!(names(&listed, "peer"), ["bob"]);
    let _carol = carol.receive(&[]);
    let _dave = dave.receive(&[]);
    let listed = alice.start(&["peers"]).end(SOON);
    assert!(says_closed(&listed), "{listed:#?}");
    assert_eq!(names(&listed, "peer").len(), 0);
}
