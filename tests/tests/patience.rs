//! People take their time.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use pinhole_client::{Client, Command, Event, Events, Options, Overrides, TransferId};
use pinhole_tests::scene::{SOON, Scene};

/// Longer than a session is kept that carries nothing.
const A_WHILE: Duration = Duration::from_secs(63);

struct Person {
    client: Client,
    events: Events,
}

impl Person {
    async fn log_in(scene: &Scene, name: &str) -> Self {
        let options = Options {
            data_dir: Some(scene.folder.path().join(name)),
            overrides: Overrides {
                nearby: Some(false),
                ..Overrides::default()
            },
            ..Options::default()
        };
        let (client, events) = pinhole_client::start(options, || {}).expect("an engine");
        let mut person = Self { client, events };
        person.command(Command::LogIn {
            name: name.parse().expect("a name"),
            server: scene.server_address.parse().expect("an address"),
            patient: false,
        });
        person
            .event(|e| matches!(e, Event::LoggedIn { .. }).then_some(()))
            .await;
        person
    }

    fn command(&self, command: Command) {
        self.client.command(command).expect("room for a command");
    }

    async fn event<T>(&mut self, wanted: impl Fn(&Event) -> Option<T>) -> T {
        let search = async {
            loop {
                let event = self.events.next().await.expect("a running engine");
                if let Some(found) = wanted(&event) {
                    return found;
                }
            }
        };
        tokio::time::timeout(SOON, search).await.expect("the event")
    }

    fn send(&self, to: &str, file: PathBuf) {
        let snapshot = self.client.snapshot();
        let mut peers = snapshot.peers.iter();
        let peer = peers.find(|p| p.identity.name.as_str() == to);
        self.command(Command::Send {
            peer: peer.expect("a peer").identity.key,
            paths: vec![file],
        });
    }

    async fn offered(&mut self) -> TransferId {
        self.event(|e| match e {
            Event::Offered { transfer } => Some(*transfer),
            _ => None,
        })
        .await
    }

    fn accept(&self, transfer: TransferId) {
        self.command(Command::Accept {
            transfer,
            into: None,
            unwanted: BTreeSet::new(),
            existing: None,
        });
    }

    async fn finishes(&mut self) {
        let failure = self.event(|e| match e {
            Event::Finished { failure, .. } => Some(failure.clone()),
            _ => None,
        });
        assert_eq!(failure.await, None);
    }
}

#[tokio::test]
#[ignore = "takes a minute"]
async fn an_offer_on_an_idle_session_waits_longer_than_that_would() {
    let scene = Scene::on_loopback();
    let mut bob = Person::log_in(&scene, "bob").await;
    let mut alice = Person::log_in(&scene, "alice").await;
    alice.send("bob", scene.file("first.txt", b"1"));
    let first = bob.offered().await;
    bob.accept(first);
    alice.finishes().await;
    // The list of its files is made while the session carries nothing.
    alice.send("bob", scene.file("second.txt", b"2"));
    let second = bob.offered().await;
    tokio::time::sleep(A_WHILE).await;
    bob.accept(second);
    alice.finishes().await;
    alice.client.shut_down(alice.events);
    bob.client.shut_down(bob.events);
}
