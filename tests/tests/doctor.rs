//! `pinhole doctor`, with the real binaries.
#![allow(clippy::indexing_slicing, reason = "a test fails by a panic")]

use pinhole_tests::scene::{SOON, Scene};

#[test]
fn the_doctor_says_what_works_and_what_the_last_connections_tried() {
    let scene = Scene::on_loopback();
    let (alice, bob) = (scene.peer("alice"), scene.peer("bob"));
    let nothing = alice.start(&["doctor", "--last"]).end(SOON);
    assert_eq!(
        (nothing.code, nothing.events.len()),
        (Some(0), 0),
        "{nothing:#?}"
    );
    let receiving = bob.receive(&["--once"]);
    let file = scene.file("notes.txt", b"words");
    let sent = alice.send("bob", &[&file]).end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    assert_eq!(receiving.end(SOON).code, Some(0));

    let ended = alice.start(&["doctor"]).end(SOON);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    let diagnosis = ended.event("diagnosis");
    assert_eq!(diagnosis["reach"], "everybody", "{diagnosis:#}");
    assert_eq!(diagnosis["mapping"], "no_nat");
    assert_eq!(diagnosis["measurements"]["port_mapping"], "not_asked");
    assert_eq!(diagnosis["findings"][0]["topic"], "What works");
    let attempt = ended.event("attempt");
    assert_eq!(
        (&attempt["peer"], &attempt["invited"]),
        (&"bob".into(), &false.into())
    );
    assert_eq!(attempt["path"], sent.event("completed")["path"]);
    let tried = attempt["tried"].as_array().expect("a list");
    assert!(
        tried
            .iter()
            .any(|line| line.as_str().is_some_and(|l| l.ends_with("chosen")))
    );

    let of_bob = bob.start(&["doctor", "--last"]).end(SOON);
    let attempt = of_bob.event("attempt");
    assert_eq!(
        (&attempt["peer"], &attempt["invited"]),
        (&"alice".into(), &true.into())
    );
}

#[test]
fn a_server_that_is_gone_is_explained_and_the_exit_code_says_so() {
    let mut scene = Scene::on_loopback();
    let alice = scene.peer("alice");
    scene.stop_server();
    let ended = alice.start(&["doctor"]).end(SOON);
    assert_eq!(ended.code, Some(6), "{ended:#?}");
    let diagnosis = ended.event("diagnosis");
    assert_eq!(diagnosis["reach"], "nobody", "{diagnosis:#}");
    let advice = diagnosis["findings"].as_array().expect("a list").iter();
    let advice: Vec<_> = advice
        .filter_map(|found| found["advice"].as_str())
        .collect();
    assert!(
        advice
            .iter()
            .any(|words| words.contains("does not run on it")),
        "{advice:?}"
    );
}
