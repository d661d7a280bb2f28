//! Alice at A sends to bob at B, again and again.

use std::fs;

use crate::lab::{Host, Lab};
use crate::process::Process;
use crate::scene::{Peer, SOON, Scene};

/// A server, and bob, who receives what alice sends.
pub struct Pair<'a> {
    /// With the server.
    pub scene: Scene,
    /// Logs in for every file.
    pub alice: Peer<'a>,
    /// Logged in all the time.
    pub bob: Peer<'a>,
    receiving: Option<Process>,
    files: usize,
}

/// How a file travelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The class of the path, as `pinhole` calls it.
    pub path: String,
    /// From the introduction that alice asked for to a path that stood.
    pub elapsed_ms: u64,
}

impl<'a> Pair<'a> {
    /// In this laboratory.
    #[must_use]
    pub fn in_lab(lab: &'a Lab) -> Self {
        let scene = Scene::in_lab(lab);
        Self {
            alice: scene.peer_in(lab, Host::A, "alice"),
            bob: scene.peer_in(lab, Host::B, "bob"),
            scene,
            receiving: None,
            files: 0,
        }
    }

    /// Sends a small file, which arrives.
    ///
    /// # Panics
    /// When it does not.
    pub fn send(&mut self) -> Connection {
        let content = format!("content {}", self.files);
        self.send_content(content.as_bytes())
    }

    /// Sends a file with this content, which arrives.
    ///
    /// # Panics
    /// When it does not.
    pub fn send_content(&mut self, content: &[u8]) -> Connection {
        if self.receiving.is_none() {
            self.receiving = Some(self.bob.receive(&[]));
        }
        self.files += 1;
        let name = format!("file-{}", self.files);
        let file = self.scene.file(&name, content);
        let sent = self.alice.send("bob", &[&file]).end(SOON);
        assert_eq!(sent.code, Some(0), "{name} ended with {sent:?}");
        let arrived = fs::read(self.bob.inbox.join(&name)).expect("the file has arrived");
        assert!(arrived == content, "{name} differs");
        let event = sent.event("connected");
        Connection {
            path: event["path"].as_str().expect("a path").to_owned(),
            elapsed_ms: event["elapsed_ms"].as_u64().expect("a time"),
        }
    }
}

/// Sends so many small files from A to B, and tells the path of each.
#[must_use]
pub fn paths(lab: &Lab, runs: usize) -> Vec<String> {
    let mut pair = Pair::in_lab(lab);
    (0..runs).map(|_| pair.send().path).collect()
}
