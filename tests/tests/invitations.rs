//! Two people meet for the first time, by a link or a code, with the real binaries.

use std::fs;
use std::path::Path;

use pinhole_tests::process::{EndedProcess, Process};
use pinhole_tests::scene::{Peer, SOON, Scene};

/// Makes a link.
fn invite(peer: &Peer<'_>, more: &[&str]) -> String {
    let ended = peer.start(&[&["invite"], more].concat()).end(SOON);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    text(&ended, "invitation", "link")
}

/// Joins by a link, as somebody who has never chosen a name.
fn join(peer: &Peer<'_>, link: &str) -> EndedProcess {
    peer.start_nameless(&["join", link]).end(SOON)
}

fn text(ended: &EndedProcess, event: &str, field: &str) -> String {
    let text = ended.event(event)[field].as_str();
    text.unwrap_or_else(|| panic!("no {field} in {ended:#?}"))
        .to_owned()
}

/// That it ends with this code, and what it says in the end.
fn refused(ended: &EndedProcess, code: i32, kind: &str) -> String {
    assert_eq!(ended.code, Some(code), "{ended:#?}");
    let failed = ended.event("failed");
    assert_eq!(failed["kind"], kind, "{ended:#?}");
    failed["reason"].as_str().expect("a reason").to_owned()
}

/// The names of its contacts.
fn contacts(peer: &Peer<'_>) -> Vec<String> {
    let ended = peer.start_nameless(&["contacts"]).end(SOON);
    let contacts = ended.events.iter().filter(|it| it["event"] == "contact");
    contacts
        .map(|it| it["name"].as_str().expect("a name").to_owned())
        .collect()
}

/// Receives, asking for everything: the answer to an offer would be no.
fn receive_asking(peer: &Peer<'_>) -> Process {
    let inbox = peer.inbox.to_str().expect("UTF-8");
    let mut process = peer.start_nameless(&[
        "receive",
        "--into",
        inbox,
        "--accept",
        "contacts",
        "--strangers",
        "ask",
    ]);
    process.event("logged_in", SOON);
    process
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn a_link_makes_contacts_of_two_who_have_never_met() {
    let scene = Scene::on_loopback();
    let (alice, bob) = (scene.peer("alice"), scene.peer("bob"));
    let link = invite(&alice, &[]);
    let _receiving = receive_asking_as(&alice);
    let joined = join(&bob, &link);
    assert_eq!(joined.code, Some(0), "{joined:#?}");
    assert_eq!(text(&joined, "joined", "peer"), "alice");
    let name = text(&joined, "joined", "name");
    assert!(name.starts_with("guest-"), "{name}");
    assert_eq!(joined.event("joined")["told"], true);

    // Nobody is asked for anything, although strangers would have to be let in.
    let file = scene.file("hello.txt", b"hello");
    let sent = bob
        .start_nameless(&["send", "alice", path(&file)])
        .end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    assert_eq!(
        fs::read(alice.inbox.join("hello.txt")).expect("a file"),
        b"hello"
    );
    assert_eq!(contacts(&bob), ["alice"]);
}

/// As [`receive_asking`], logged in under its name for the first time.
fn receive_asking_as(peer: &Peer<'_>) -> Process {
    let inbox = peer.inbox.to_str().expect("UTF-8");
    let mut process = peer.start(&[
        "receive",
        "--into",
        inbox,
        "--accept",
        "contacts",
        "--strangers",
        "ask",
    ]);
    process.event("logged_in", SOON);
    process
}

#[test]
fn the_inviter_may_be_away_and_hears_of_it_later() {
    let scene = Scene::on_loopback();
    let (alice, bob) = (scene.peer("alice"), scene.peer("bob"));
    let link = invite(&alice, &["--once", "--for", "2h"]);
    let joined = join(&bob, &link);
    assert_eq!(joined.code, Some(0), "{joined:#?}");
    assert_eq!(joined.event("joined")["told"], false);
    assert_eq!(contacts(&bob), ["alice"]);
    assert_eq!(contacts(&alice), [""; 0]);

    let mut bob_receives = receive_asking(&bob);
    let mut alice_receives = receive_asking_as(&alice);
    let name = text(&joined, "joined", "name");
    assert_eq!(alice_receives.event("welcomed", SOON)["peer"], name);
    bob_receives.event("connected", SOON);
    alice_receives.interrupt();
    alice_receives.wait(SOON);
    assert_eq!(contacts(&alice), std::slice::from_ref(&name));
    let file = scene.file("back.txt", b"back");
    let sent = alice
        .start_nameless(&["send", &name, path(&file)])
        .end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    assert_eq!(
        fs::read(bob.inbox.join("back.txt")).expect("a file"),
        b"back"
    );
}

#[test]
fn a_link_that_is_good_once_lets_one_in() {
    let scene = Scene::on_loopback();
    let (alice, bob, carol) = (scene.peer("alice"), scene.peer("bob"), scene.peer("carol"));
    let link = invite(&alice, &["--once"]);
    let mut receiving = receive_asking_as(&alice);
    assert_eq!(join(&bob, &link).code, Some(0));
    receiving.event("welcomed", SOON);
    let reason = refused(&join(&carol, &link), 4, "invitation_over");
    assert!(reason.contains("used up or over"), "{reason}");
    assert_eq!(contacts(&carol), [""; 0], "nobody was joined");
    // Whoever has used it is a contact already.
    assert_eq!(join(&bob, &link).code, Some(0));
}

#[test]
fn a_link_for_many_lets_many_in() {
    let scene = Scene::on_loopback();
    let alice = scene.peer("alice");
    let link = invite(&alice, &[]);
    let mut receiving = receive_asking_as(&alice);
    for name in ["bob", "carol", "dave"] {
        let joined = join(&scene.peer(name), &link);
        assert_eq!(joined.event("joined")["told"], true);
        receiving.event("welcomed", SOON);
    }
}

#[test]
fn a_link_that_is_over_damaged_or_ones_own_is_refused_in_words() {
    let scene = Scene::on_loopback();
    let (alice, bob) = (scene.peer("alice"), scene.peer("bob"));
    let link = invite(&alice, &[]);
    let parts: Vec<_> = link.rsplitn(3, '.').collect();
    let [secret, _, rest] = parts[..] else {
        panic!("{link}");
    };
    let over = format!("{rest}.1000000000.{secret}");
    let reason = refused(&join(&bob, &over), 4, "invitation_over");
    assert!(reason.contains("Ask alice for another"), "{reason}");
    let reason = refused(&join(&bob, &link[..link.len() - 1]), 2, "usage");
    assert!(reason.contains("Copy all of the link"), "{reason}");
    let reason = refused(&join(&bob, "https://example.org/"), 2, "usage");
    assert!(reason.contains("begins with pinhole://join/"), "{reason}");
    let reason = refused(&join(&alice, &link), 1, "not_possible");
    assert!(reason.contains("your own invitation"), "{reason}");
    assert_eq!(contacts(&bob), [""; 0]);
}

#[test]
fn another_server_and_another_person_behind_the_names_are_noticed() {
    let scene = Scene::on_loopback();
    let (alice, bob, mallory) = (
        scene.peer("alice"),
        scene.peer("bob"),
        scene.peer("mallory"),
    );
    let link = invite(&alice, &[]);
    let (_, fingerprint) = scene.server_address.split_once('#').expect("a fingerprint");
    let ended = mallory.start(&["id"]).end(SOON);
    let other_server = link.replace(fingerprint, &text(&ended, "id", "fingerprint"));
    let reason = refused(&join(&bob, &other_server), 7, "server_key_changed");
    assert!(reason.contains("another key than"), "{reason}");

    // Somebody else has the inviter's name at the server.
    let mut impostor = scene.peer("impostor");
    "alice".clone_into(&mut impostor.name);
    let _impostor = impostor.receive(&[]);
    let reason = refused(&join(&bob, &link), 7, "inviter_key_differs");
    assert!(
        reason.contains("another key than the one that invites"),
        "{reason}"
    );
    assert_eq!(contacts(&bob), [""; 0], "nobody was joined");
}

#[test]
fn without_a_server_a_link_is_a_name_and_a_key() {
    let scene = Scene::on_loopback();
    let (alice, bob) = (scene.peer("alice"), scene.peer("bob"));
    let ended = alice.start_nameless(&["invite"]).end(SOON);
    let reason = refused(&ended, 1, "not_possible");
    assert!(reason.contains("no name yet"), "{reason}");
    let ended = alice
        .start_nameless(&["--name", "alice", "invite"])
        .end(SOON);
    let link = text(&ended, "invitation", "link");
    assert!(link.starts_with("pinhole://join/alice."), "{link}");
    let joined = join(&bob, &link);
    assert_eq!(joined.code, Some(0), "{joined:#?}");
    assert_eq!(contacts(&bob), ["alice"]);
}

/// Offers a file to whoever says the code, as somebody who has never chosen a name.
fn send_by_code(peer: &Peer<'_>, what: &[&str]) -> (Process, String) {
    let server = ["--server", &peer.server_address, "send", "--code"];
    let mut process = peer.start_nameless(&[&server, what].concat());
    let code = process.event("code", SOON);
    let code = code.get("code").and_then(|it| it.as_str());
    let code = code.expect("a code").to_owned();
    (process, code)
}

fn receive_by_code(peer: &Peer<'_>, code: &str) -> Process {
    let into = [
        "--server",
        &peer.server_address,
        "receive",
        "--into",
        path(&peer.inbox),
    ];
    let words = code.split(' ');
    peer.start_nameless(&into.into_iter().chain(words).collect::<Vec<_>>())
}

/// The same code with another second word.
fn with_other_words(code: &str) -> String {
    let (rest, last) = code.rsplit_once('-').expect("words");
    let other = if last == "zoo" { "zone" } else { "zoo" };
    format!("{rest}-{other}")
}

#[test]
fn a_file_goes_by_a_code_between_two_without_names() {
    let scene = Scene::on_loopback();
    let (alice, bob) = (scene.peer("alice"), scene.peer("bob"));
    let file = scene.file("hello.txt", b"hello");
    let (sending, code) = send_by_code(&alice, &[path(&file)]);
    // As it was heard.
    let heard = code.replace('-', " ").to_uppercase();
    let received = receive_by_code(&bob, &heard).end(SOON);
    assert_eq!(received.code, Some(0), "{received:#?}");
    let sent = sending.end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    assert_eq!(
        fs::read(bob.inbox.join("hello.txt")).expect("a file"),
        b"hello"
    );
    let (ours, theirs) = (
        text(&received, "joined", "name"),
        text(&received, "joined", "peer"),
    );
    assert!(ours.starts_with("guest-") && theirs.starts_with("guest-"));
    assert_eq!(text(&sent, "welcomed", "peer"), ours);
    assert_eq!(contacts(&alice), [ours]);
    assert_eq!(contacts(&bob), [theirs]);
    // It was good once.
    let again = receive_by_code(&scene.peer("carol"), &code).end(SOON);
    let reason = refused(&again, 4, "code_unknown");
    assert!(reason.contains("Nobody waits with this code"), "{reason}");
}

#[test]
fn words_go_by_a_code_too() {
    let scene = Scene::on_loopback();
    let (alice, bob) = (scene.peer("alice"), scene.peer("bob"));
    let (sending, code) = send_by_code(&alice, &["--text", "hello"]);
    let received = receive_by_code(&bob, &code).end(SOON);
    assert_eq!(received.code, Some(0), "{received:#?}");
    assert_eq!(text(&received, "text", "text"), "hello");
    assert_eq!(sending.end(SOON).code, Some(0));
}

#[test]
fn three_wrong_tries_close_a_code() {
    let scene = Scene::on_loopback();
    let alice = scene.peer("alice");
    let file = scene.file("secret.txt", b"secret");
    let (sending, code) = send_by_code(&alice, &[path(&file)]);
    let mallory = scene.peer("mallory");
    for _ in 0..3 {
        let ended = receive_by_code(&mallory, &with_other_words(&code)).end(SOON);
        let reason = refused(&ended, 4, "code_wrong");
        assert!(reason.contains("Nothing was sent"), "{reason}");
    }
    let late = receive_by_code(&scene.peer("bob"), &code).end(SOON);
    refused(&late, 4, "code_unknown");
    let ended = sending.end(SOON);
    let reason = refused(&ended, 4, "code_exhausted");
    assert!(reason.contains("three times"), "{reason}");
    assert_eq!(contacts(&mallory), [""; 0]);
    assert_eq!(contacts(&alice), [""; 0]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_closes_a_code() {
    let scene = Scene::on_loopback();
    let file = scene.file("hello.txt", b"hello");
    let (sending, code) = send_by_code(&scene.peer("alice"), &[path(&file)]);
    sending.interrupt();
    assert_eq!(sending.end(SOON).code, Some(130));
    let late = receive_by_code(&scene.peer("bob"), &code).end(SOON);
    refused(&late, 4, "code_unknown");
}

#[test]
fn what_is_no_code_and_nobody_s_code_are_told_apart() {
    let scene = Scene::on_loopback();
    let bob = scene.peer("bob");
    for (code, said) in [
        ("7-acid", "a number and two words"),
        ("1000-acid-zoo", "from 1 to 999"),
        ("7-acid-zoom", "zoom is not one of the words"),
        ("7-acid-a", "several words begin with a"),
    ] {
        let reason = refused(&receive_by_code(&bob, code).end(SOON), 2, "usage");
        assert!(reason.contains(said), "{reason}");
    }
    refused(
        &receive_by_code(&bob, "7-acid-zoo").end(SOON),
        4,
        "code_unknown",
    );
    let nothing = ["--server", &bob.server_address, "send", "--code"];
    let ended = bob.start_nameless(&nothing).end(SOON);
    let reason = refused(&ended, 2, "usage");
    assert!(reason.contains("nothing to send"), "{reason}");
}

#[cfg(target_os = "linux")]
mod behind_nats {
    use pinhole_tests::lab::{self, Host, Lab, Plan, Router};

    use super::*;

    fn two_homes() -> Option<Lab> {
        lab::build_or_skip(Plan::two_sites(Router::HOME, Router::HOME))
    }

    #[test]
    fn a_link_works_from_nothing_through_two_nats() {
        let Some(lab) = two_homes() else {
            return;
        };
        let scene = Scene::in_lab(&lab);
        let alice = scene.peer_in(&lab, Host::A, "alice");
        let bob = scene.peer_in(&lab, Host::B, "bob");
        let link = invite(&alice, &["--once"]);
        let _receiving = receive_asking_as(&alice);
        let joined = join(&bob, &link);
        assert_eq!(joined.event("joined")["told"], true, "{joined:#?}");
        let file = scene.file("hello.txt", b"hello");
        let sent = bob
            .start_nameless(&["send", "alice", path(&file)])
            .end(SOON);
        assert_eq!(sent.code, Some(0), "{sent:#?}");
        assert_eq!(sent.event("completed")["path"], "punched");
        assert_eq!(
            fs::read(alice.inbox.join("hello.txt")).expect("a file"),
            b"hello"
        );
    }

    #[test]
    fn a_code_works_from_nothing_through_two_nats() {
        let Some(lab) = two_homes() else {
            return;
        };
        let scene = Scene::in_lab(&lab);
        let alice = scene.peer_in(&lab, Host::A, "alice");
        let bob = scene.peer_in(&lab, Host::B, "bob");
        let file = scene.file("hello.txt", b"hello");
        let (sending, code) = send_by_code(&alice, &[path(&file)]);
        let received = receive_by_code(&bob, &code).end(SOON);
        assert_eq!(received.code, Some(0), "{received:#?}");
        let sent = sending.end(SOON);
        assert_eq!(sent.event("completed")["path"], "punched", "{sent:#?}");
        assert_eq!(
            fs::read(bob.inbox.join("hello.txt")).expect("a file"),
            b"hello"
        );
    }
}
