//! One engine, as a face runs it.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pinhole_client::{
    Client, Command, Event, Events, Failure, Options, Overrides, PathPolicy, PeerView, Snapshot,
    TransferId,
};
use pinhole_tests::scene::{SOON, Scene};
use pinhole_tests::wire::Wire;

/// One running engine and its profile.
pub(crate) struct Person {
    pub(crate) client: Client,
    pub(crate) events: Events,
    pub(crate) profile: PathBuf,
}

impl Person {
    /// Starts the engine of a profile in the scene's folder and logs in.
    pub(crate) async fn log_in(scene: &Scene, profile: &str, name: &str) -> Self {
        let mut person = Self::start(scene, profile);
        person.log_in_at(&scene.server_address, name).await;
        person
    }

    /// The same over a wire, which carries what passes between the peers, too.
    pub(crate) async fn log_in_over(scene: &Scene, wire: &Wire, profile: &str, name: &str) -> Self {
        let overrides = Overrides {
            path: Some(PathPolicy::RelayOnly),
            ..Overrides::default()
        };
        let mut person = Self::start_with(scene, profile, overrides);
        let (_, fingerprint) = scene.server_address.split_once('#').expect("a fingerprint");
        let server = format!("{}#{fingerprint}", wire.address());
        person.log_in_at(&server, name).await;
        person
    }

    async fn log_in_at(&mut self, server: &str, name: &str) {
        self.command(Command::LogIn {
            name: name.parse().expect("a name"),
            server: server.parse().expect("an address"),
            patient: false,
        });
        self.logged_in().await;
    }

    pub(crate) fn start(scene: &Scene, profile: &str) -> Self {
        Self::start_with(scene, profile, Overrides::default())
    }

    fn start_with(scene: &Scene, profile: &str, overrides: Overrides) -> Self {
        let profile = scene.folder.path().join(profile);
        let options = Options {
            data_dir: Some(profile.clone()),
            overrides: Overrides {
                nearby: Some(false),
                ..overrides
            },
            ..Options::default()
        };
        let (client, events) = pinhole_client::start(options, || {}).expect("an engine");
        Self {
            client,
            events,
            profile,
        }
    }

    pub(crate) fn command(&self, command: Command) {
        self.client.command(command).expect("room for a command");
    }

    /// The first event that `wanted` takes.
    pub(crate) async fn event<T>(&mut self, wanted: impl Fn(&Event) -> Option<T>) -> T {
        let mut seen = Vec::new();
        let search = async {
            loop {
                let event = self.events.next().await.expect("a running engine");
                if let Some(found) = wanted(&event) {
                    return found;
                }
                seen.push(event);
            }
        };
        let found = tokio::time::timeout(SOON, search).await;
        found.unwrap_or_else(|_| panic!("not among {seen:#?}"))
    }

    pub(crate) async fn logged_in(&mut self) {
        self.event(|e| matches!(e, Event::LoggedIn { .. }).then_some(()))
            .await;
    }

    pub(crate) async fn offered(&mut self) -> TransferId {
        self.event(|e| match e {
            Event::Offered { transfer } => Some(*transfer),
            _ => None,
        })
        .await
    }

    pub(crate) async fn finished(&mut self) -> Option<Failure> {
        self.event(|e| match e {
            Event::Finished { failure, .. } => Some(failure.clone()),
            _ => None,
        })
        .await
    }

    /// Waits until this peer is shown as `wanted` says.
    pub(crate) async fn sees(
        &mut self,
        name: &str,
        wanted: impl Fn(&PeerView) -> bool,
    ) -> PeerView {
        let named = |s: &Snapshot| {
            let mut peers = s.peers.iter();
            let found = peers.find(|p| p.identity.name.as_str() == name && wanted(p));
            found.cloned()
        };
        self.shows(|s| named(s).is_some()).await;
        named(&self.client.snapshot()).unwrap_or_else(|| panic!("{name} gone again"))
    }

    /// Waits until the snapshot is as `wanted` says.
    pub(crate) async fn shows(&mut self, wanted: impl Fn(&Snapshot) -> bool) {
        let search = async {
            while !wanted(&self.client.snapshot()) {
                assert!(self.client.changed().await, "the engine has ended");
            }
        };
        let found = tokio::time::timeout(SOON, search).await;
        found.unwrap_or_else(|_| panic!("never shown: {:#?}", self.client.snapshot()));
    }

    pub(crate) async fn send(&mut self, to: &str, file: &Path) {
        let peer = self.sees(to, |_| true).await.identity.key;
        let paths = vec![file.to_owned()];
        self.command(Command::Send { peer, paths });
    }

    pub(crate) fn accept(&self, transfer: TransferId) {
        self.command(Command::Accept {
            transfer,
            into: None,
            unwanted: BTreeSet::new(),
            existing: None,
        });
    }

    pub(crate) fn received(&self, name: &str) -> Vec<u8> {
        fs::read(self.profile.join("received").join(name)).expect("the received file")
    }

    pub(crate) fn end(self) {
        self.client.shut_down(self.events);
    }
}
