//! Consent: what a stranger, and a peer that has had one yes, may do. Bob's engine is
//! the real one; who tries him keeps to no rule but the protocol's.

mod person;
mod rogue;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use person::Person;
use pinhole_client::{
    AcceptPolicy, Command, Event, Existing, Failure, PathKind, PeerIdentity, Snapshot, Stage,
    Strangers, TransferId, TransferView,
};
use pinhole_tests::scene::{SOON, Scene};
use pinhole_transfer::{DeclineReason, ExchangeEvent, ResumeState, Source, Summary, TransferError};
use rogue::{Raid, Rogue};

fn own_identity(person: &Person, name: &str) -> PeerIdentity {
    PeerIdentity {
        name: name.parse().expect("a name"),
        key: person.client.snapshot().key,
    }
}

impl Person {
    fn transfer(&self, id: TransferId) -> TransferView {
        let snapshot = self.client.snapshot();
        let found = snapshot.transfers.iter().find(|t| t.id == id);
        found.expect("a transfer").clone()
    }

    async fn text(&mut self, to: &str, text: &str) {
        let peer = self.sees(to, |_| true).await.identity.key;
        let text = text.to_owned();
        self.command(Command::SendText { peer, text });
    }

    async fn text_received(&mut self) -> TransferId {
        self.event(|e| match e {
            Event::TextReceived { transfer } => Some(*transfer),
            _ => None,
        })
        .await
    }

    fn decline(&self, transfer: TransferId) {
        self.command(Command::Decline { transfer });
    }

    fn contacts(&self) -> Vec<PeerIdentity> {
        self.client.snapshot().contacts.to_vec()
    }
}

fn path_of(snapshot: &Snapshot, name: &str) -> Option<PathKind> {
    let mut peers = snapshot.peers.iter();
    peers.find(|p| p.identity.name.as_str() == name)?.path
}

#[tokio::test]
async fn words_of_a_stranger_wait_for_a_yes() {
    let scene = Scene::on_loopback();
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    let mut bob = Person::log_in(&scene, "b", "bob").await;
    alice.text("bob", "buy now").await;
    let offer = bob.offered().await;
    let waiting = bob.transfer(offer);
    assert!(waiting.is_text && waiting.stranger);
    assert_eq!(
        (waiting.text, waiting.offer.title.as_str()),
        (None, "a message")
    );
    bob.decline(offer);
    let declined = alice.finished().await;
    assert!(
        matches!(declined, Some(Failure::Declined { .. })),
        "{declined:?}"
    );
    assert!(bob.client.snapshot().history.is_empty(), "nobody said yes");

    alice.text("bob", "hello").await;
    let offer = bob.offered().await;
    bob.accept(offer);
    assert_eq!(bob.text_received().await, offer);
    assert_eq!(bob.transfer(offer).text.as_deref(), Some("hello"));
    let is_second = |t: &TransferView| matches!(t.stage, Stage::Transferring);
    let is_under_way = |s: &Snapshot| s.transfers.get(1).is_some_and(is_second);
    alice.shows(is_under_way).await;
    bob.command(Command::TextShown { transfer: offer });
    assert_eq!(alice.finished().await, None);

    // Whom the user has chosen needs no further yes to words.
    alice.text("bob", "again").await;
    let shown = bob.text_received().await;
    assert!(!bob.transfer(shown).stranger);
    bob.command(Command::TextShown { transfer: shown });
    assert_eq!(alice.finished().await, None);
    alice.end();
    bob.end();
}

#[tokio::test]
async fn whoever_comes_by_is_not_pinned() {
    let mut scene = Scene::on_loopback();
    let file = scene.file("gift.txt", b"gift");
    let mut bob = Person::log_in(&scene, "b", "bob").await;
    let mut visitor = Person::log_in(&scene, "visitor", "carol").await;
    visitor.send("bob", &file).await;
    let offer = bob.offered().await;
    bob.decline(offer);
    assert!(visitor.finished().await.is_some());
    visitor.end();
    assert_eq!(bob.contacts(), []);

    // The name is another's now, and that one is not refused.
    scene.forget_names();
    bob.logged_in().await;
    let mut carol = Person::log_in(&scene, "c", "carol").await;
    carol.send("bob", &file).await;
    let offer = bob.offered().await;
    bob.accept(offer);
    assert_eq!(carol.finished().await, None);
    let her = own_identity(&carol, "carol");
    assert_eq!(
        bob.contacts(),
        std::slice::from_ref(&her),
        "the user has chosen her"
    );
    bob.command(Command::Forget { peer: her.key });
    bob.shows(|s| s.contacts.is_empty()).await;
    carol.end();
    bob.end();
}

#[tokio::test]
async fn a_standing_yes_pins_nobody() {
    let scene = Scene::on_loopback();
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    let bob = Person::log_in(&scene, "b", "bob").await;
    bob.command(Command::SetAcceptPolicy {
        policy: AcceptPolicy::All,
    });
    alice.send("bob", &scene.file("a.txt", b"a")).await;
    assert_eq!(alice.finished().await, None);
    assert_eq!(bob.received("a.txt"), b"a");
    assert_eq!(bob.contacts(), []);
    let (contacts, key) = (
        bob.profile.join("contacts.json"),
        own_identity(&alice, "alice").key,
    );
    alice.end();
    bob.end();
    let stored = fs::read_to_string(contacts).expect("the server is there");
    assert!(!stored.contains(&key.to_string()), "{stored}");
}

#[tokio::test]
async fn a_stranger_is_met_at_the_relay_until_there_is_a_yes() {
    let scene = Scene::on_loopback();
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    let mut bob = Person::log_in(&scene, "b", "bob").await;
    // Long enough to move under.
    alice.command(Command::SetLimits {
        send: Some(2_000_000),
        receive: None,
    });
    alice
        .send("bob", &scene.file("film", &vec![7; 6_000_000]))
        .await;
    let offer = bob.offered().await;
    for (person, other) in [(&alice, "bob"), (&bob, "alice")] {
        assert_eq!(
            path_of(&person.client.snapshot(), other),
            Some(PathKind::Relay)
        );
    }
    bob.accept(offer);
    let begin = Instant::now();
    let moved = alice.event(|e| match e {
        Event::Moved { path, .. } if *path != PathKind::Relay => Some(*path),
        Event::Finished { .. } => panic!("it was over before it moved"),
        _ => None,
    });
    assert_eq!(moved.await, PathKind::Lan);
    // The schedule alone would have looked after five.
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(alice.finished().await, None);
    assert_eq!(bob.received("film"), vec![7; 6_000_000]);
    alice.end();
    bob.end();
}

#[tokio::test]
async fn without_a_relay_a_stranger_needs_permission() {
    let scene = Scene::with_server(&["--no-relay"]);
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    let mut bob = Person::log_in(&scene, "b", "bob").await;
    let file = scene.file("a.txt", b"a");
    alice.send("bob", &file).await;
    let refused = alice.finished().await;
    assert!(
        matches!(refused, Some(Failure::NeedsPermission { .. })),
        "{refused:?}"
    );
    let asked = bob.event(|e| match e {
        Event::Asked { peer } => Some(peer.clone()),
        _ => None,
    });
    let peer = asked.await;
    assert_eq!(peer, own_identity(&alice, "alice"));
    assert_eq!(bob.client.snapshot().asking, std::slice::from_ref(&peer));
    bob.command(Command::Allow { peer: peer.key });
    bob.shows(|s| s.asking.is_empty()).await;
    alice.send("bob", &file).await;
    let offer = bob.offered().await;
    bob.accept(offer);
    assert_eq!(alice.finished().await, None);
    alice.end();
    bob.end();
}

#[tokio::test]
async fn a_user_may_want_to_be_asked_or_not() {
    let scene = Scene::on_loopback();
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    let mut bob = Person::log_in(&scene, "b", "bob").await;
    let file = scene.file("a.txt", b"a");
    let set = |strangers| Command::SetStrangers { strangers };
    bob.command(set(Strangers::Ask));
    bob.shows(|s| s.settings.strangers == Strangers::Ask).await;
    alice.send("bob", &file).await;
    let refused = alice.finished().await;
    assert!(
        matches!(refused, Some(Failure::NeedsPermission { .. })),
        "{refused:?}"
    );
    bob.command(set(Strangers::Direct));
    bob.command(Command::DeclineAll);
    bob.shows(|s| s.settings.strangers == Strangers::Direct && s.asking.is_empty())
        .await;
    alice.send("bob", &file).await;
    bob.offered().await;
    bob.shows(|s| path_of(s, "alice") == Some(PathKind::Lan))
        .await;
    bob.command(Command::DeclineAll);
    let declined = alice.finished().await;
    assert!(
        matches!(declined, Some(Failure::Declined { .. })),
        "{declined:?}"
    );
    alice.end();
    bob.end();
}

#[tokio::test]
async fn whoever_is_blocked_finds_nobody() {
    let scene = Scene::on_loopback();
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    let mut bob = Person::log_in(&scene, "b", "bob").await;
    let file = scene.file("a.txt", b"a");
    alice.send("bob", &file).await;
    bob.offered().await;
    let peer = own_identity(&alice, "alice").key;
    bob.command(Command::Block { peer });
    let declined = alice.finished().await;
    assert!(
        matches!(declined, Some(Failure::Declined { .. })),
        "{declined:?}"
    );
    bob.shows(|s| s.blocked == [own_identity(&alice, "alice")])
        .await;
    alice.sees("bob", |p| p.path.is_none()).await;
    alice.send("bob", &file).await;
    let offline = alice.finished().await;
    assert!(
        matches!(offline, Some(Failure::PeerOffline { .. })),
        "{offline:?}"
    );
    bob.command(Command::Unblock { peer });
    bob.shows(|s| s.blocked.is_empty()).await;
    alice.send("bob", &file).await;
    let offer = bob.offered().await;
    bob.accept(offer);
    assert_eq!(alice.finished().await, None);
    alice.end();
    bob.end();
}

#[tokio::test]
async fn one_key_has_few_sessions() {
    let scene = Scene::on_loopback();
    let bob = Person::log_in(&scene, "b", "bob").await;
    let target = own_identity(&bob, "bob");
    let rogue = Rogue::log_in(&scene, "mallory").await;
    let mut raids = Vec::new();
    for _ in 0..12 {
        let raid = rogue.raid(&target).await;
        raid.exchange
            .send_text("hello".to_owned())
            .expect("an open exchange");
        raids.push(raid);
    }
    let all_but_eight_end = async {
        loop {
            let open = raids.iter_mut().map(|raid| !raid.is_over());
            if open.filter(|is_open| *is_open).count() <= 8 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let in_time = tokio::time::timeout(SOON, all_but_eight_end).await;
    in_time.expect("no more than eight sessions of one key");
    assert!(
        !raids.last_mut().expect("a raid").is_over(),
        "the newest stays"
    );
    bob.end();
}

/// Words without end make nobody wait, and leave nothing.
#[tokio::test]
async fn a_flood_of_words_does_not_slow_an_honest_transfer() {
    let scene = Scene::on_loopback();
    let mut alice = Person::log_in(&scene, "a", "alice").await;
    let mut bob = Person::log_in(&scene, "b", "bob").await;
    alice.send("bob", &scene.file("first", b"1")).await;
    let offer = bob.offered().await;
    bob.accept(offer);
    assert_eq!(alice.finished().await, None);
    assert_eq!(bob.finished().await, None);
    let kept = bob.client.snapshot().history.len();
    bob.command(Command::SetAcceptPolicy {
        policy: AcceptPolicy::Contacts,
    });
    let target = own_identity(&bob, "bob");
    let rogue = Rogue::log_in(&scene, "mallory").await;
    let flood = tokio::spawn(async move {
        let mut said = 0;
        while said < 20_000 {
            let Some(mut raid) = rogue.try_raid(&target).await else {
                tokio::task::yield_now().await;
                continue;
            };
            while raid.exchange.send_text("buy now".to_owned()).is_ok() {
                said += 1;
            }
            while let ExchangeEvent::Finished { .. } = raid.event().await {
                if raid.exchange.send_text("buy now".to_owned()).is_ok() {
                    said += 1;
                }
            }
        }
    });
    bob.shows(|s| s.transfers.iter().any(|t| t.is_text)).await;
    let begin = Instant::now();
    alice
        .send("bob", &scene.file("second", &vec![1; 100_000]))
        .await;
    assert_eq!(alice.finished().await, None);
    let elapsed = begin.elapsed();
    assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
    flood.abort();
    assert_eq!(bob.received("second").len(), 100_000);
    let snapshot = bob.client.snapshot();
    let waiting = snapshot.transfers.iter().filter(|t| t.is_text).count();
    assert!(waiting <= 64, "{waiting} of one stranger on the list");
    assert!(snapshot.transfers.iter().all(|t| t.text.is_none()));
    bob.shows(|s| s.history.len() == kept + 1).await;
    alice.end();
    bob.end();
}

/// Words of a contact are shown as fast as somebody may read them.
#[tokio::test]
async fn the_words_of_a_contact_are_paced() {
    let scene = Scene::on_loopback();
    let bob = Person::log_in(&scene, "b", "bob").await;
    let target = own_identity(&bob, "bob");
    bob.command(Command::SetAcceptPolicy {
        policy: AcceptPolicy::All,
    });
    let rogue = Rogue::log_in(&scene, "mallory").await;
    let mut raid = rogue.raid(&target).await;
    let mut declined = 0;
    let mut bob = bob;
    let refused = async {
        loop {
            let _ = raid.exchange.send_text("again".to_owned());
            while let Ok(event) = raid.events.try_recv() {
                match event {
                    ExchangeEvent::Finished {
                        outcome: Err(TransferError::Declined(DeclineReason::Busy)),
                        ..
                    } => declined += 1,
                    ExchangeEvent::Closed { .. } => return declined,
                    _ => {}
                }
            }
            tokio::task::yield_now().await;
        }
    };
    let show = async {
        let mut shown = 0;
        loop {
            let transfer = bob.text_received().await;
            bob.command(Command::TextShown { transfer });
            shown += 1;
            assert!(shown < 200, "the pace is not kept");
        }
    };
    let declined = tokio::select! {
        declined = refused => declined,
        () = show => 0,
    };
    assert!(
        declined >= 64,
        "{declined} refused before the session was ended"
    );
    bob.end();
}

/// The files of a folder, with what is in them.
fn listing(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut all: Vec<_> = entries
        .map(|entry| {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).expect("a file"))
        })
        .collect();
    all.sort();
    all
}

/// A file of this name and content, in a folder of its own.
fn file_in(scene: &Scene, folder: &str, name: &str, content: &[u8]) -> PathBuf {
    let folder = scene.folder.path().join(folder);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(name), content).expect("a file");
    folder.join(name)
}

fn source(path: &Path) -> Source {
    Source::scan(&[path.to_owned()]).expect("a file")
}

/// What mallory may offer once `reviewed` was delivered. With the state of that
/// delivery an offer says that all of it was sent before.
fn attacks(
    scene: &Scene,
    reviewed: PathBuf,
    said: ResumeState,
) -> [(&'static str, PathBuf, Option<ResumeState>); 7] {
    let content = file_in(scene, "2", "report", b"poisoned");
    let size = file_in(scene, "3", "report", b"longer than reviewed");
    let name = file_in(scene, "4", "passwords", b"reviewed");
    let again = Some(said);
    [
        ("the same", reviewed.clone(), None),
        ("other content", content.clone(), None),
        ("other content as delivered", content, again.clone()),
        ("another size", size.clone(), None),
        ("another size as delivered", size, again.clone()),
        ("another name", name, None),
        ("the same as delivered", reviewed, again),
    ]
}

/// How an offer of mallory's ends, and whether bob was asked, who says no.
async fn outcome_of(
    raid: &mut Raid,
    bob: &mut Person,
    offer: pinhole_transfer::TransferId,
) -> (Result<Summary, TransferError>, bool) {
    let mut was_asked = false;
    loop {
        tokio::select! {
            question = bob.offered() => {
                was_asked = true;
                bob.decline(question);
            }
            event = raid.event() => match event {
                ExchangeEvent::Finished { id, outcome } if id == offer => {
                    return (outcome, was_asked);
                }
                ExchangeEvent::Accepted { .. } => panic!("it was accepted"),
                _ => {}
            },
        }
    }
}

/// Bob has said yes to one offer of mallory's. Whatever she offers afterwards, and
/// whenever, is a question, and nothing comes of it; and what she may hear once more
/// she hears for two minutes at most.
async fn a_yes_is_not_used_again(lasts: Duration) {
    const REMEMBERED: Duration = Duration::from_secs(120);
    let scene = Scene::on_loopback();
    let mut bob = Person::log_in(&scene, "b", "bob").await;
    bob.command(Command::SetExisting {
        existing: Existing::Replace,
    });
    let target = own_identity(&bob, "bob");
    let rogue = Rogue::log_in(&scene, "mallory").await;
    let mut raid = rogue.raid(&target).await;
    let reviewed = file_in(&scene, "1", "report", b"reviewed");
    let said = ResumeState::default();
    let sent = raid.exchange.send_resumable(source(&reviewed), &said);
    let sent = sent.expect("an offer");
    let offer = bob.offered().await;
    bob.accept(offer);
    assert_eq!(bob.finished().await, None);
    let delivered = Instant::now();
    let is_sent = |e: &ExchangeEvent| matches!(e, ExchangeEvent::Finished { id, outcome: Ok(_) } if *id == sent);
    while !is_sent(&raid.event().await) {}

    let attacks = attacks(&scene, reviewed, said);
    let inbox = bob.profile.join("received");
    let mut round = 0;
    while round < 2 || delivered.elapsed() < lasts {
        // Afterwards the user has taken it away.
        if round == 1 {
            fs::remove_file(inbox.join("report")).expect("the file");
        }
        let before = listing(&inbox);
        for (attack, path, resume) in &attacks {
            if round % 2 == 0 {
                raid.exchange.close().await;
                raid = rogue.raid(&target).await;
            }
            let resume = resume.clone().unwrap_or_default();
            let offer = raid.exchange.send_resumable(source(path), &resume);
            let begin = delivered.elapsed();
            let offer = offer.expect("an offer");
            let (outcome, was_asked) = outcome_of(&mut raid, &mut bob, offer).await;
            if was_asked {
                let declined = TransferError::Declined(DeclineReason::Declined);
                assert_eq!(outcome, Err(declined), "{attack}");
            } else {
                let said = attack.ends_with("as delivered");
                assert!(said, "nobody was asked: {attack}");
                assert!(begin < REMEMBERED, "{attack} after {begin:?}");
            }
            assert_eq!(listing(&inbox), before, "{attack}");
        }
        round += 1;
        // Sessions of one key are paced.
        tokio::time::sleep(lasts / 8).await;
    }
    bob.end();
}

#[tokio::test]
async fn one_yes_is_a_yes_to_one_offer() {
    a_yes_is_not_used_again(Duration::from_secs(2)).await;
}

#[tokio::test]
#[ignore = "five minutes, in tests/nightly.sh"]
async fn one_yes_is_a_yes_to_one_offer_for_five_minutes() {
    a_yes_is_not_used_again(Duration::from_secs(300)).await;
}
