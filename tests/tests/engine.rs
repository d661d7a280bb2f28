//! Two engines, as a face runs them, and the real server between them: what
//! happens when servers restart, identities move, and keys change.

mod person;

use std::fs;
use std::time::{Duration, Instant};

use person::Person;
use pinhole_client::{
    AcceptPolicy, Command, Direction, Event, Failure, LoginState, PathKind, Snapshot, Stage,
};
use pinhole_tests::scene::{SOON, Scene};
use pinhole_tests::tree;

#[tokio::test]
async fn a_server_that_restarts_is_found_again() {
    let mut scene = Scene::on_loopback();
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    let mut bob = Person::log_in(&scene, "b", "bob").await;
    scene.stop_server();
    let lost = |e: &Event| matches!(e, Event::Disconnected { .. }).then_some(());
    alice.event(lost).await;
    bob.event(lost).await;
    let login = alice.client.snapshot().login.clone();
    assert!(
        matches!(login, LoginState::Reconnecting { .. }),
        "{login:?}"
    );
    scene.start_server();
    alice.logged_in().await;
    bob.logged_in().await;
    let file = scene.file("after.txt", b"after the restart");
    alice.send("bob", &file).await;
    let offer = bob.offered().await;
    bob.accept(offer);
    assert_eq!(alice.finished().await, None);
    assert_eq!(bob.received("after.txt"), b"after the restart");
    alice.end();
    bob.end();
}

#[tokio::test]
async fn the_newest_login_of_an_identity_wins_and_the_older_is_told() {
    let scene = Scene::on_loopback();
    let mut old = Person::log_in(&scene, "old", "alice").await;
    let moved = scene.folder.path().join("moved");
    fs::create_dir(&moved).expect("a folder");
    let key = "identity.pkcs8";
    fs::copy(old.profile.join(key), moved.join(key)).expect("the identity");
    let new = Person::log_in(&scene, "moved", "alice").await;
    let failure = old.event(|e| match e {
        Event::LogInFailed { failure } => Some(failure.clone()),
        _ => None,
    });
    assert_eq!(failure.await, Failure::Replaced);
    let login = new.client.snapshot().login.clone();
    assert!(matches!(login, LoginState::LoggedIn { .. }), "{login:?}");
    old.end();
    new.end();
}

#[tokio::test]
async fn a_changed_key_blocks_both_directions_until_the_user_decides() {
    let mut scene = Scene::on_loopback();
    let file = scene.file("note.txt", b"for bob");
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    let mut bob = Person::log_in(&scene, "b", "bob").await;
    alice.send("bob", &file).await;
    let offer = bob.offered().await;
    bob.accept(offer);
    assert_eq!(alice.finished().await, None);
    bob.end();

    scene.forget_names();
    alice.logged_in().await;
    let mut other_bob = Person::log_in(&scene, "other-b", "bob").await;
    let changed = alice.sees("bob", |p| p.changed_from.is_some()).await;
    alice.send("bob", &file).await;
    let (peer, now) = (changed.identity.name, changed.identity.key.fingerprint());
    let known = changed.changed_from.expect("another key");
    let blocked = Failure::PeerKeyChanged { peer, known, now };
    assert_eq!(alice.finished().await, Some(blocked));
    other_bob.send("alice", &file).await;
    let refused = other_bob.finished().await;
    assert!(
        matches!(refused, Some(Failure::RefusedByPeer { .. })),
        "{refused:?}"
    );
    let told = alice.event(|e| match e {
        Event::KeyRefused { peer, known, .. } => Some((peer.key.fingerprint(), *known)),
        _ => None,
    });
    assert_eq!(told.await, (now, known));

    let peer = changed.identity.key;
    alice.command(Command::TrustNewKey { peer });
    alice.sees("bob", |p| p.changed_from.is_none()).await;
    alice.send("bob", &file).await;
    let offer = other_bob.offered().await;
    other_bob.accept(offer);
    assert_eq!(alice.finished().await, None);
    assert_eq!(other_bob.received("note.txt"), b"for bob");
    alice.end();
    other_bob.end();
}

#[tokio::test]
async fn another_key_at_the_servers_address_is_refused() {
    let mut scene = Scene::on_loopback();
    let place = scene.server_address.split('#').next().expect("an address");
    let server = place.parse().expect("an address");
    Person::log_in(&scene, "a", "alice").await.end();
    scene.stop_server();
    fs::remove_dir_all(scene.server_data_dir()).expect("the server's key");
    scene.start_server();
    let mut alice = Person::start(&scene, "a");
    let name = "alice".parse().expect("a name");
    alice.command(Command::LogIn {
        name,
        server,
        patient: true,
    });
    let failure = alice.event(|e| match e {
        Event::LogInFailed { failure } => Some(failure.clone()),
        _ => None,
    });
    let failure = failure.await;
    assert!(
        matches!(failure, Failure::ServerKeyChanged { .. }),
        "{failure:?}"
    );
    alice.end();
}

#[tokio::test]
async fn a_proxy_counts_from_the_next_attempt_to_connect() {
    let mut scene = Scene::on_loopback();
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    // Nothing listens there.
    let nowhere = "http://127.0.0.1:1";
    let proxy = |text: &str| text.parse().expect("a proxy");
    alice.command(Command::SetProxy {
        proxy: proxy(nowhere),
    });
    scene.stop_server();
    scene.start_server();
    let through = alice.event(|e| match e {
        Event::Disconnected {
            failure: Failure::Proxy { proxy, .. },
            ..
        } => Some(proxy.clone()),
        _ => None,
    });
    assert_eq!(through.await, nowhere);
    alice.command(Command::SetProxy {
        proxy: proxy("none"),
    });
    alice.logged_in().await;
    alice.end();
}

#[tokio::test]
async fn contacts_are_taken_without_asking_once_there_is_trust() {
    let scene = Scene::on_loopback();
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    let mut bob = Person::log_in(&scene, "b", "bob").await;
    bob.command(Command::SetAcceptPolicy {
        policy: AcceptPolicy::Contacts,
    });
    alice.send("bob", &scene.file("first.txt", b"1")).await;
    let offer = bob.offered().await;
    bob.accept(offer);
    assert_eq!(alice.finished().await, None);
    assert_eq!(bob.finished().await, None);
    alice.send("bob", &scene.file("second.txt", b"2")).await;
    assert_eq!(alice.finished().await, None);
    assert_eq!(bob.finished().await, None);
    assert_eq!(bob.received("second.txt"), b"2");
    alice.end();
    bob.end();
}

#[tokio::test]
async fn one_session_serves_transfers_in_both_directions() {
    let scene = Scene::on_loopback();
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    let mut bob = Person::log_in(&scene, "b", "bob").await;
    alice.send("bob", &scene.file("there.txt", b"there")).await;
    let offer = bob.offered().await;
    bob.accept(offer);
    assert_eq!(alice.finished().await, None);
    // A stranger's session begins on the relay.
    alice.sees("bob", |p| p.path == Some(PathKind::Lan)).await;
    bob.send("alice", &scene.file("back.txt", b"back")).await;
    let offer = alice
        .event(|e| match e {
            Event::Connected { .. } => panic!("a second session"),
            Event::Offered { transfer } => Some(*transfer),
            _ => None,
        })
        .await;
    alice.accept(offer);
    assert_eq!(alice.finished().await, None);
    assert_eq!(alice.received("back.txt"), b"back");
    alice.end();
    bob.end();
}

#[tokio::test]
async fn a_transfer_cancelled_on_one_side_ends_on_both_and_leaves_nothing() {
    let scene = Scene::on_loopback();
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    let mut bob = Person::log_in(&scene, "b", "bob").await;
    // Far more than arrives before the cancel, and no more than a hole on disk.
    let file = scene.file("large.bin", b"");
    let sparse = fs::File::options().write(true).open(&file);
    sparse.and_then(|f| f.set_len(8 << 30)).expect("a hole");
    alice.send("bob", &file).await;
    let transfer = bob.offered().await;
    bob.accept(transfer);
    alice
        .event(|e| matches!(e, Event::Started { .. }).then_some(()))
        .await;
    bob.command(Command::Cancel { transfer });
    assert_eq!(bob.finished().await, Some(Failure::Cancelled));
    let told = alice.finished().await;
    assert!(
        matches!(told, Some(Failure::CancelledByPeer { .. })),
        "{told:?}"
    );
    let inbox = bob.profile.join("received");
    bob.end();
    alice.end();
    assert_eq!(fs::read_dir(inbox).expect("the inbox").count(), 0);
}

#[tokio::test]
async fn an_offer_waits_for_its_answer_and_shows_everything_it_brings() {
    let scene = Scene::on_loopback();
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    let mut bob = Person::log_in(&scene, "b", "bob").await;
    let folder = scene.folder.path().join("photos");
    fs::create_dir_all(folder.join("empty")).expect("folders");
    fs::write(folder.join("one\u{202e}gpj.txt"), b"123").expect("a file");
    alice.send("bob", &folder).await;
    let id = bob.offered().await;
    let snapshot = bob.client.snapshot();
    let offer = snapshot.transfers.iter().find(|t| t.id == id);
    let offer = offer.expect("the offer");
    assert_eq!(offer.direction, Direction::Receiving);
    assert!(matches!(offer.stage, Stage::AwaitingDecision));
    let offer = &offer.offer;
    assert_eq!((offer.files, offer.folders, offer.bytes), (1, 2, 3));
    assert_eq!(offer.title, "photos");
    assert!(
        offer.entries.iter().all(|e| !e.path.contains('\u{202e}')),
        "{offer:?}"
    );
    bob.command(Command::Decline { transfer: id });
    let declined = alice.finished().await;
    assert!(
        matches!(declined, Some(Failure::Declined { .. })),
        "{declined:?}"
    );
    alice.end();
    bob.end();
}

#[tokio::test]
async fn nothing_is_said_to_be_kept_of_what_never_began() {
    let scene = Scene::on_loopback();
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    let mut bob = Person::log_in(&scene, "b", "bob").await;
    let file = scene.file("file.txt", b"content");
    alice.send("bob", &file).await;
    bob.offered().await;
    let transfer = alice.client.snapshot().transfers[0].id;
    alice.command(Command::Interrupt { transfer });
    assert_eq!(alice.finished().await, Some(Failure::Cancelled));
    let told = bob.finished().await;
    assert!(
        matches!(told, Some(Failure::CancelledByPeer { .. })),
        "{told:?}"
    );
    alice.send("bob", &file).await;
    bob.offered().await;
    bob.end();
    let told = alice.finished().await;
    assert!(
        matches!(told, Some(Failure::CancelledByPeer { .. })),
        "{told:?}"
    );
    alice.end();
}

#[tokio::test]
async fn what_was_declined_can_be_tried_again() {
    let scene = Scene::on_loopback();
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    let mut bob = Person::log_in(&scene, "b", "bob").await;
    alice.send("bob", &scene.file("again.txt", b"again")).await;
    let transfer = bob.offered().await;
    bob.command(Command::Decline { transfer });
    assert!(alice.finished().await.is_some());
    let transfer = alice.client.snapshot().transfers[0].id;
    alice.command(Command::Retry { transfer });
    let offer = bob.offered().await;
    bob.accept(offer);
    assert_eq!(alice.finished().await, None);
    assert_eq!(bob.received("again.txt"), b"again");
    let left = alice.client.snapshot().transfers.len();
    assert_eq!(left, 1, "the new one took the failed one's place");
    alice.end();
    bob.end();
}

#[tokio::test]
async fn files_for_a_contact_who_is_away_wait_and_survive_a_restart() {
    let scene = Scene::on_loopback();
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    let mut bob = Person::log_in(&scene, "b", "bob").await;
    alice.send("bob", &scene.file("first.txt", b"1")).await;
    let offer = bob.offered().await;
    bob.accept(offer);
    assert_eq!(alice.finished().await, None);
    bob.end();
    alice.sees("bob", |p| !p.online).await;
    alice.send("bob", &scene.file("later.txt", b"later")).await;
    alice.send("bob", &scene.file("never.txt", b"never")).await;
    alice.shows(|s| s.transfers.len() == 3).await;
    let transfers = alice.client.snapshot().transfers.clone();
    assert!(matches!(transfers[1].stage, Stage::Queued));
    assert_eq!(transfers[1].offer.title, "later.txt");
    alice.command(Command::Cancel {
        transfer: transfers[2].id,
    });
    alice.shows(|s| s.transfers.len() == 2).await;
    alice.end();

    let mut alice = Person::log_in(&scene, "a", "alice").await;
    let mut bob = Person::log_in(&scene, "b", "bob").await;
    let offer = bob.offered().await;
    bob.accept(offer);
    assert_eq!(alice.finished().await, None);
    assert_eq!(bob.received("later.txt"), b"later");
    alice.end();
    let alice = Person::start(&scene, "a");
    let left = &alice.client.snapshot().transfers;
    assert!(left.is_empty(), "{left:?}");
    alice.end();
    bob.end();
}

#[tokio::test]
async fn what_waited_for_a_contact_is_not_lost_when_the_program_ends_meanwhile() {
    let scene = Scene::on_loopback();
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    let mut bob = Person::log_in(&scene, "b", "bob").await;
    alice.send("bob", &scene.file("first.txt", b"1")).await;
    let offer = bob.offered().await;
    bob.accept(offer);
    assert_eq!(alice.finished().await, None);
    bob.end();
    alice.sees("bob", |p| !p.online).await;
    alice.send("bob", &scene.file("later.txt", b"later")).await;
    alice.shows(|s| s.transfers.len() == 2).await;

    let mut bob = Person::log_in(&scene, "b", "bob").await;
    bob.offered().await;
    alice.end();
    assert!(bob.finished().await.is_some());
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    let offer = bob.offered().await;
    bob.accept(offer);
    assert_eq!(alice.finished().await, None);
    assert_eq!(bob.received("later.txt"), b"later");
    alice.end();
    let alice = Person::start(&scene, "a");
    let left = &alice.client.snapshot().transfers;
    assert!(left.is_empty(), "{left:?}");
    alice.end();
    bob.end();
}

#[tokio::test]
async fn what_waited_for_a_contact_waits_again_when_the_contact_leaves_without_it() {
    let scene = Scene::on_loopback();
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    let mut bob = Person::log_in(&scene, "b", "bob").await;
    alice.send("bob", &scene.file("first.txt", b"1")).await;
    let offer = bob.offered().await;
    bob.accept(offer);
    assert_eq!(alice.finished().await, None);
    bob.end();
    alice.sees("bob", |p| !p.online).await;
    alice.send("bob", &scene.file("later.txt", b"later")).await;
    alice.shows(|s| s.transfers.len() == 2).await;

    // As `pinhole peers` does, which has no time for offers.
    let mut bob = Person::log_in(&scene, "b", "bob").await;
    bob.offered().await;
    bob.end();
    alice.sees("bob", |p| !p.online).await;
    let is_queued = |s: &Snapshot| matches!(s.transfers[1].stage, Stage::Queued);
    alice.shows(is_queued).await;
    let mut bob = Person::log_in(&scene, "b", "bob").await;
    let offer = bob.offered().await;
    bob.accept(offer);
    assert_eq!(alice.finished().await, None);
    assert_eq!(bob.received("later.txt"), b"later");
    alice.end();
    bob.end();
}

#[tokio::test]
async fn a_pause_is_told_on_the_command_line() {
    let scene = Scene::on_loopback();
    let file = scene.folder.path().join("file");
    tree::write_file(&file, 8_000_000, 1).expect("a file");
    let mut bob = Person::log_in(&scene, "b", "bob").await;
    bob.command(Command::SetAcceptPolicy {
        policy: AcceptPolicy::All,
    });
    bob.command(Command::SetLimits {
        send: None,
        receive: Some(8_000_000),
    });
    let mut sending = scene.peer("alice").send("bob", &[&file]);
    bob.event(|e| matches!(e, Event::Started { .. }).then_some(()))
        .await;
    let transfer = bob.client.snapshot().transfers[0].id;
    for paused in [true, false] {
        bob.command(Command::Pause { transfer, paused });
        let told = sending.event("paused", SOON);
        assert_eq!(
            (&told["peer"], &told["paused"]),
            (&"bob".into(), &paused.into())
        );
    }
    assert_eq!(sending.end(SOON).code, Some(0));
    bob.end();
}

#[tokio::test]
async fn both_send_to_each_other_at_once() {
    const SIZE_BYTES: u64 = 8_000_000;
    let scene = Scene::on_loopback();
    let mut people = Vec::new();
    let mut files = Vec::new();
    for (name, seed) in [("alice", 1), ("bob", 2)] {
        let person = Person::log_in(&scene, name, name).await;
        person.command(Command::SetAcceptPolicy {
            policy: AcceptPolicy::All,
        });
        // A second each, one way; two if they took turns.
        person.command(Command::SetLimits {
            send: Some(SIZE_BYTES),
            receive: None,
        });
        people.push(person);
        let file = scene.folder.path().join(format!("from-{name}"));
        tree::write_file(&file, SIZE_BYTES, seed).expect("a file");
        files.push(file);
    }
    people[0].send("bob", &files[0]).await;
    people[1].send("alice", &files[1]).await;
    let start = Instant::now();
    for person in &mut people {
        for _ in 0..2 {
            assert_eq!(person.finished().await, None);
        }
    }
    let elapsed = start.elapsed();
    assert!(
        elapsed < Duration::from_millis(1_700),
        "{elapsed:?}: in turn"
    );
    for (person, file) in people.iter().zip(files.iter().rev()) {
        let name = file.file_name().expect("a name").to_string_lossy();
        assert!(person.received(&name) == fs::read(file).expect("the original"));
    }
    for person in people {
        person.end();
    }
}
