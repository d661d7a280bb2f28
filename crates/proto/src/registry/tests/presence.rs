//! Who is told of whom, and when.

use super::*;

const HOME: &str = "198.51.100.1:1000";

impl World {
    /// With a directory for this many people.
    fn with_directory(people: usize) -> Self {
        Self {
            registry: Registry::new().with_directory(people),
            ..Self::new()
        }
    }

    fn log_in_watching(&mut self, who: &str, number: u8, watch: &[&str]) -> SessionId {
        self.ask(LogIn {
            key: key(number),
            is_known: false,
            observed: address(HOME),
            came_to: address("203.0.113.1:4747"),
            at_ms: 0,
            observer_ports: vec![4747, 4748],
            version: PROTOCOL_VERSION,
            name: name(who),
            watch: watch.iter().map(|&text| name(text)).collect(),
            recovery: None,
        })
    }

    fn watch(&mut self, session: SessionId, names: &[&str]) {
        let names = names.iter().map(|&text| name(text)).collect();
        self.say(session, ClientMessage::Watch { names });
    }

    /// The messages about presence, without the others.
    fn take_presence(&mut self, session: SessionId) -> Vec<ServerMessage> {
        let mut mail = self.take_mail(session);
        mail.retain(|message| matches!(message, ServerMessage::Presence { .. }));
        mail
    }
}

#[test]
fn long_presence_comes_in_pages_that_fit_a_frame() {
    let mut world = World::with_directory(PRESENCE_PAGE_PEERS + 2);
    for number in 0..=PRESENCE_PAGE_PEERS {
        world.log_in(&format!("{number:032}"), key(9), HOME);
    }
    let last = world.log_in_watching("last", 1, &["nobody", "none"]);
    let pages = world.take_presence(last);
    let sizes: Vec<_> = pages
        .iter()
        .map(|page| match page {
            ServerMessage::Presence {
                online,
                offline,
                more,
                ..
            } => (online.len(), offline.len(), *more),
            _ => unreachable!(),
        })
        .collect();
    assert_eq!(sizes, [(PRESENCE_PAGE_PEERS, 0, true), (1, 2, false)]);
    for page in pages {
        crate::frame::encode(crate::frame::FrameKind::Server, &page).unwrap();
    }
}

#[test]
fn changes_of_a_fifth_of_a_second_are_told_in_one_message() {
    let mut world = World::new();
    let alice = world.log_in("alice", key(1), HOME);
    world.wait(PRESENCE_INTERVAL);
    world.take_mail(alice);
    let bob = world.log_in("bob", key(2), HOME);
    let at_once = presence(Directory::Open, &[peer("bob", 2)], &[]);
    assert_eq!(world.take_mail(alice), [at_once]);
    world.log_in("carol", key(3), HOME);
    world.log_in("dave", key(4), HOME);
    world.disconnect(bob);
    assert_eq!(world.take_mail(alice), []);
    world.wait(PRESENCE_INTERVAL);
    let together = [peer("carol", 3), peer("dave", 4)];
    let later = presence(Directory::Open, &together, &["bob"]);
    assert_eq!(world.take_mail(alice), [later]);
}

#[test]
fn in_a_closed_directory_a_client_is_told_of_whom_it_watches_and_of_nobody_else() {
    let mut world = World::with_directory(0);
    world.log_in("bob", key(2), HOME);
    let alice = world.log_in_watching("alice", 1, &["bob", "carol", "alice"]);
    let first = presence(Directory::Closed, &[peer("bob", 2)], &["carol"]);
    assert_eq!(world.take_presence(alice), [first]);
    let carol = world.log_in("carol", key(3), HOME);
    world.log_in("dave", key(4), HOME);
    world.wait(PRESENCE_INTERVAL);
    let came = presence(Directory::Closed, &[peer("carol", 3)], &[]);
    assert_eq!(world.take_presence(alice), [came]);
    assert_eq!(world.take_presence(carol).len(), 1, "the first alone");
    world.watch(alice, &["dave", "erin"]);
    let found = presence(Directory::Closed, &[peer("dave", 4)], &["erin"]);
    assert_eq!(world.take_presence(alice), [found], "at once");
    world.say(
        alice,
        ClientMessage::Unwatch {
            names: vec![name("carol")],
        },
    );
    world.disconnect(carol);
    world.wait(PRESENCE_INTERVAL);
    assert_eq!(world.take_presence(alice), []);
}

#[test]
fn the_directory_closes_when_it_is_full_and_opens_when_it_has_room() {
    let mut world = World::with_directory(4);
    let alice = world.log_in_watching("alice", 1, &["bob"]);
    let others: Vec<_> = ["bob", "carol", "dave", "erin", "frank"]
        .into_iter()
        .zip(2..)
        .map(|(who, number)| world.log_in(who, key(number), HOME))
        .collect();
    world.wait(PRESENCE_INTERVAL);
    let told = world.take_presence(alice);
    assert_eq!(told.last(), Some(&presence(Directory::Closed, &[], &[])));
    let newcomer = world.log_in("grace", key(9), HOME);
    let nobody = presence(Directory::Closed, &[], &[]);
    assert_eq!(world.take_presence(newcomer), [nobody]);
    world.disconnect(newcomer);
    for &session in others.iter().skip(2) {
        world.disconnect(session);
        world.wait(PRESENCE_INTERVAL);
    }
    let everybody = [peer("alice", 1), peer("bob", 2), peer("carol", 3)];
    let open = presence(Directory::Open, &everybody, &[]);
    assert_eq!(world.take_presence(alice), [open]);
}

#[test]
fn nobody_is_told_of_more_people_than_the_directory_has_room_for() {
    let mut world = World::with_directory(2);
    for (who, number) in [("alice", 1), ("bob", 2)] {
        world.log_in(who, key(number), HOME);
    }
    let carol = world.log_in("carol", key(3), HOME);
    let nobody = presence(Directory::Closed, &[], &[]);
    assert_eq!(world.take_presence(carol), [nobody]);
}

#[test]
fn names_beyond_the_rate_are_looked_up_later() {
    let mut world = World::with_directory(0);
    let mut sessions = Vec::new();
    let mut looked_up = 0;
    while looked_up < LOOKUPS_OF_KEY.burst {
        let session = world.log_in(&format!("own-{looked_up}"), key(1), HOME);
        sessions.push(session);
        for page in 0..2 {
            let names: Vec<_> = (0..250).map(|n| format!("page-{page}-{n}")).collect();
            world.watch(
                session,
                &names.iter().map(String::as_str).collect::<Vec<_>>(),
            );
        }
        looked_up += 500;
    }
    let patient = world.log_in("patient", key(1), HOME);
    world.take_mail(patient);
    world.watch(patient, &["first", "second"]);
    assert_eq!(
        world.take_presence(patient),
        [],
        "the key has looked up too many"
    );
    world.wait(LOOKUPS_OF_KEY.interval);
    let first = presence(Directory::Closed, &[], &["first"]);
    assert_eq!(world.take_presence(patient), [first]);
    world.wait(LOOKUPS_OF_KEY.interval);
    let second = presence(Directory::Closed, &[], &["second"]);
    assert_eq!(world.take_presence(patient), [second]);
    let other = world.log_in("other", key(2), HOME);
    world.take_mail(other);
    world.watch(other, &["first"]);
    assert_eq!(
        world.take_presence(other).len(),
        1,
        "another key has its own"
    );
}

#[test]
fn who_watches_more_names_than_there_may_be_is_dropped() {
    let mut world = World::with_directory(0);
    let alice = world.log_in("alice", key(1), HOME);
    let names: Vec<_> = (0..=WATCH_PAGE_NAMES)
        .map(|n| format!("name-{n}"))
        .collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    world.watch(alice, &names[..WATCH_PAGE_NAMES]);
    assert!(!world.closed.contains_key(&alice));
    world.watch(alice, &names);
    assert_eq!(world.closed.get(&alice), Some(&None));
    let bob = world.log_in_watching("bob", 2, &names);
    assert_eq!(world.closed.get(&bob), Some(&None));
}

#[test]
fn what_a_login_costs_does_not_grow_with_those_who_are_online() {
    let sent_for_one_more = |online: u32| {
        let mut world = World::with_directory(DIRECTORY_PEOPLE);
        for number in 0..online {
            world.log_in(&format!("peer-{number}"), key(9), HOME);
        }
        world.wait(PRESENCE_INTERVAL);
        world.mail.clear();
        world.log_in("one-more", key(1), HOME);
        world.wait(PRESENCE_INTERVAL);
        world.mail.values().map(Vec::len).sum::<usize>()
    };
    let of_many = sent_for_one_more(2_000);
    assert_eq!(of_many, sent_for_one_more(1_000));
    assert_eq!(of_many, 3, "logged in, presence, ping");
}
