//! A name outlives its key: two engines or commands, and the real server between them.

mod person;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command as Program, Output, Stdio};

use person::Person;
use pinhole_client::{Command, Event, Failure, Fingerprint, PeerKey, RecoveryWords};
use pinhole_tests::process::{Process, binary};
use pinhole_tests::scene::{Peer, SOON, Scene};

/// Starts a profile and makes recovery words for it before it logs in.
async fn with_words(scene: &Scene, profile: &str, name: &str) -> (Person, RecoveryWords) {
    let mut person = Person::start(scene, profile);
    person.command(Command::NewRecoveryKey);
    let words = person.event(|e| match e {
        Event::RecoveryWords { words } => Some(words.clone()),
        _ => None,
    });
    let words = words.await;
    log_in(scene, &mut person, name).await;
    (person, words)
}

async fn log_in(scene: &Scene, person: &mut Person, name: &str) {
    person.command(Command::LogIn {
        name: name.parse().expect("a name"),
        server: scene.server_address.parse().expect("an address"),
        patient: false,
    });
    person.logged_in().await;
}

fn recover(scene: &Scene, person: &Person, name: &str, words: &RecoveryWords) {
    person.command(Command::Recover {
        name: name.parse().expect("a name"),
        server: scene.server_address.parse().expect("an address"),
        words: words.clone(),
    });
}

fn key_of(person: &Person) -> PeerKey {
    person.client.snapshot().key
}

/// Sends a file, which the other side has to accept.
async fn send(scene: &Scene, from: &mut Person, to: &mut Person, name: &str) {
    let file = scene.file(name, name.as_bytes());
    from.send("bob", &file).await;
    let offer = to.offered().await;
    to.accept(offer);
    assert_eq!(from.finished().await, None);
    assert_eq!(to.received(name), name.as_bytes());
}

/// The new key of which a notice tells, and the former fingerprint.
async fn succession(person: &mut Person) -> (PeerKey, Fingerprint) {
    let told = person.event(|e| match e {
        Event::KeySucceeded { peer, was } => Some((peer.key, *was)),
        _ => None,
    });
    told.await
}

async fn command_failure(person: &mut Person) -> Failure {
    let failed = person.event(|e| match e {
        Event::CommandFailed { failure } => Some(failure.clone()),
        _ => None,
    });
    failed.await
}

/// The alarm about bob's changed key, and that nothing is sent to it.
async fn alarm(scene: &Scene, alice: &mut Person) {
    alice.sees("bob", |p| p.changed_from.is_some()).await;
    let file = scene.file("secret.txt", b"for bob alone");
    alice.send("bob", &file).await;
    let refused = alice.finished().await;
    assert!(
        matches!(refused, Some(Failure::PeerKeyChanged { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_contact_with_a_signed_new_key_is_sent_to_without_a_question() {
    let scene = Scene::on_loopback();
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    let (mut bob, words) = with_words(&scene, "b", "bob").await;
    send(&scene, &mut alice, &mut bob, "before.txt").await;
    let former = key_of(&bob);
    bob.end();

    let mut anew = Person::start(&scene, "b-anew");
    recover(&scene, &anew, "bob", &words);
    anew.logged_in().await;
    let told = (key_of(&anew), former.fingerprint());
    assert_eq!(succession(&mut alice).await, told);
    send(&scene, &mut alice, &mut anew, "after.txt").await;
    alice.end();
    anew.end();

    // The words stay good, and whoever was away hears of all that has happened.
    let mut third = Person::start(&scene, "b-third");
    recover(&scene, &third, "bob", &words);
    third.logged_in().await;
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    send(&scene, &mut alice, &mut third, "third.txt").await;
    let mut old = Person::start(&scene, "b");
    old.command(Command::LogIn {
        name: "bob".parse().expect("a name"),
        server: scene.server_address.parse().expect("an address"),
        patient: false,
    });
    let refused = old.event(|e| match e {
        Event::LogInFailed { failure } => Some(failure.clone()),
        _ => None,
    });
    assert_eq!(refused.await, Failure::KeyRevoked);
    for person in [alice, third, old] {
        person.end();
    }
}

#[tokio::test]
async fn the_new_owner_of_a_name_can_invite_its_contacts_at_once() {
    let scene = Scene::on_loopback();
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    let (mut bob, words) = with_words(&scene, "b", "bob").await;
    send(&scene, &mut alice, &mut bob, "before.txt").await;
    bob.end();
    let mut anew = Person::start(&scene, "b-anew");
    recover(&scene, &anew, "bob", &words);
    anew.logged_in().await;
    let file = scene.file("hello.txt", b"it is me");
    anew.send("alice", &file).await;
    let offer = alice.offered().await;
    alice.accept(offer);
    assert_eq!(anew.finished().await, None);
    alice.end();
    anew.end();
}

#[tokio::test]
async fn wrong_words_and_a_name_that_only_the_server_has_moved_change_nothing() {
    let mut scene = Scene::on_loopback();
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    let (mut bob, _) = with_words(&scene, "b", "bob").await;
    send(&scene, &mut alice, &mut bob, "before.txt").await;
    bob.end();

    let (mut mallory, own_words) = with_words(&scene, "m", "mallory").await;
    recover(&scene, &mallory, "bob", &own_words);
    let refused = command_failure(&mut mallory).await;
    let name = "bob".parse().expect("a name");
    assert_eq!(refused, Failure::NotRecoverable { name });
    let key = key_of(&mallory).to_string();
    let data_dir = scene.server_data_dir();
    let mut transfer = Program::new(binary("pinhole-server"));
    transfer.args(["names", "transfer", "bob", &key, "--data-dir"]);
    let moved = transfer.arg(&data_dir).status();
    assert!(moved.expect("pinhole-server").success());
    log_in(&scene, &mut mallory, "bob").await;
    alarm(&scene, &mut alice).await;
    mallory.end();
    alice.end();

    // Nor does it help to lose all that is known of the name.
    scene.forget_names();
    let impostor = Person::log_in(&scene, "i", "bob").await;
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    alarm(&scene, &mut alice).await;
    impostor.end();
    alice.end();
}

#[tokio::test]
async fn a_revoked_key_is_refused_and_contacts_are_told_until_there_is_a_successor() {
    let scene = Scene::on_loopback();
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    let mut carol = Person::log_in(&scene, "c", "carol").await;
    let (mut bob, words) = with_words(&scene, "b", "bob").await;
    send(&scene, &mut alice, &mut bob, "one.txt").await;
    send(&scene, &mut carol, &mut bob, "two.txt").await;
    carol.end();

    let mut elsewhere = Person::start(&scene, "elsewhere");
    elsewhere.command(Command::Revoke {
        name: "bob".parse().expect("a name"),
        server: scene.server_address.parse().expect("an address"),
        words: Some(words.clone()),
    });
    let done = |e: &Event| matches!(e, Event::Revoked { .. }).then_some(());
    elsewhere.event(done).await;
    let ended = bob.event(|e| match e {
        Event::LogInFailed { failure } => Some(failure.clone()),
        _ => None,
    });
    assert_eq!(ended.await, Failure::KeyRevoked);
    let told = |e: &Event| matches!(e, Event::KeyRevoked { .. }).then_some(());
    alice.event(told).await;
    alice.sees("bob", |p| p.revoked).await;
    // Whoever was away is told as well.
    let mut carol = Person::log_in(&scene, "c", "carol").await;
    carol.sees("bob", |p| p.revoked).await;

    // The same profile gets a new key for its name.
    let former = key_of(&bob);
    recover(&scene, &bob, "bob", &words);
    bob.logged_in().await;
    assert_ne!(key_of(&bob), former);
    succession(&mut alice).await;
    send(&scene, &mut alice, &mut bob, "three.txt").await;
    carol.sees("bob", |p| p.online && !p.revoked).await;
    for person in [alice, carol, bob, elsewhere] {
        person.end();
    }
}

#[tokio::test]
async fn a_profile_revokes_its_own_key() {
    let scene = Scene::on_loopback();
    let mut bob = Person::log_in(&scene, "b", "bob").await;
    bob.command(Command::Revoke {
        name: "bob".parse().expect("a name"),
        server: scene.server_address.parse().expect("an address"),
        words: None,
    });
    let done = |e: &Event| matches!(e, Event::Revoked { .. }).then_some(());
    bob.event(done).await;
    bob.end();
}

/// `pinhole` with these words on standard input.
fn typing(peer: &Peer<'_>, words: &str, arguments: &[&str]) -> Output {
    let mut command = peer.command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("pinhole");
    let mut stdin = child.stdin.take().expect("its input");
    stdin.write_all(words.as_bytes()).expect("room");
    drop(stdin);
    child.wait_with_output().expect("its end")
}

fn received(peer: &Peer<'_>, name: &str) -> Vec<u8> {
    fs::read(peer.inbox.join(name)).expect("the received file")
}

#[test]
fn a_name_is_recovered_on_the_command_line() {
    let scene = Scene::on_loopback();
    let (alice, bob) = (scene.peer("alice"), scene.peer("bob"));
    let made = bob.start(&["recovery", "new"]).end(SOON);
    let words = made.event("recovery_words")["words"].as_str();
    let words = words.expect("words").to_owned();
    let one = scene.file("one.txt", b"one");
    let receiving = bob.receive(&["--once"]);
    assert_eq!(alice.send("bob", &[&one]).end(SOON).code, Some(0));
    assert_eq!(receiving.end(SOON).code, Some(0));

    let mut anew = scene.peer("bob-anew");
    "bob".clone_into(&mut anew.name);
    let wrong = "abandon ".repeat(11) + "about";
    let refused = typing(&anew, &wrong, &["recover", "bob"]);
    assert_eq!(refused.status.code(), Some(7), "{refused:?}");
    let misspelt = typing(&anew, "abandon", &["recover", "bob"]);
    assert_eq!(misspelt.status.code(), Some(2), "{misspelt:?}");
    let numbered = words.replace(' ', "\n1. ");
    let recovered = typing(&anew, &numbered, &["recover", "bob"]);
    assert!(recovered.status.success(), "{recovered:?}");

    let receiving = anew.receive(&["--once"]);
    let two = scene.file("two.txt", b"two");
    let sent = alice.send("bob", &[&two]).end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:?}");
    assert_eq!(sent.event("key_succeeded")["peer"], "bob");
    assert_eq!(receiving.end(SOON).code, Some(0));
    assert_eq!(received(&anew, "two.txt"), b"two");

    let revoked = anew.start(&["revoke", "bob"]).end(SOON);
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    let refused = anew.start(&["peers"]).end(SOON);
    assert_eq!(refused.event("failed")["kind"], "key_revoked");
    let shown = operator(&scene.server_data_dir(), &["names", "show", "bob"]);
    assert!(shown.contains("its key revoked since"), "{shown}");
    let sent = alice.send("bob", &[&two]).end(SOON);
    assert_ne!(sent.code, Some(0));
}

fn operator(data_dir: &Path, arguments: &[&str]) -> String {
    let mut command = Program::new(binary("pinhole-server"));
    let done = command.args(arguments).arg("--data-dir").arg(data_dir);
    let done = done.output().expect("pinhole-server");
    String::from_utf8(done.stdout).expect("text")
}

/// Without a terminal nobody would write them down, and a log would keep them.
#[test]
fn a_first_start_shows_words_on_a_terminal_and_nowhere_else() {
    let scene = Scene::on_loopback();
    let piped = scene.peer("alice").start(&["peers"]).end(SOON);
    assert!(
        !piped
            .events
            .iter()
            .any(|it| it["event"] == "recovery_words")
    );
    assert!(!piped.errors.contains("recovery words"), "{piped:?}");
    let peer = scene.peer("bob");
    let json = peer.command(&["peers"]);
    let mut command = Program::new(json.get_program());
    command.args(json.get_args().filter(|it| *it != "--json"));
    command.arg("--no-nearby");
    let mut shown = Process::on_terminal("bob", &command);
    let mut lines = Vec::new();
    while !lines
        .last()
        .is_some_and(|line: &String| line.contains("Write them down"))
    {
        lines.push(shown.line(SOON));
    }
    let is_of_words = |line: &&String| line.split(' ').filter(|it| !it.is_empty()).count() == 6;
    let words = lines.iter().filter(is_of_words).map(|line| line.trim());
    let words = words.collect::<Vec<_>>().join(" ");
    assert!(words.parse::<RecoveryWords>().is_ok(), "{lines:?}");
    shown.wait(SOON);
}
