//! Alice at A sends to bob at B, again and again.
//!
//! A session may begin on the relay, because that stands first, and move to a
//! direct path a moment later. So both are told: where it began, and where it
//! was after [`MOVES_WITHIN`] at most. While a session is on the relay the line
//! is slow, so that the file is not over before it can move.

use std::fs;
use std::time::Duration;

use crate::lab::{Host, Lab};
use crate::process::Process;
use crate::scene::{Peer, SOON, Scene};

/// So long a session that began on the relay has to become a direct one. The
/// first time that one looks for a better path anew is after five seconds.
pub const MOVES_WITHIN: Duration = Duration::from_secs(8);
/// Of a slow line. In that time it carries less than a file has.
const SLOW_MBIT: u32 = 5;
const FILE_BYTES: usize = 8 << 20;

/// A server, and bob, who receives what alice sends.
pub struct Pair<'a> {
    /// With the server.
    pub scene: Scene,
    /// Logs in for every file.
    pub alice: Peer<'a>,
    /// Logged in all the time.
    pub bob: Peer<'a>,
    lab: &'a Lab,
    receiving: Option<Process>,
    files: u8,
}

/// How a file travelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairConnection {
    /// The class of the path on which it began, as `pinhole` calls it.
    pub began: String,
    /// And of the last one.
    pub path: String,
    /// From the introduction that alice asked for to a path that stood.
    pub elapsed_ms: u64,
    /// From then on until the session moved, if it did.
    pub moved_after: Option<Duration>,
}

impl PairConnection {
    /// Whether it was on a direct path so long after it began.
    #[must_use]
    pub fn is_direct_within(&self, limit: Duration) -> bool {
        self.path != "relay" && self.moved_after.is_none_or(|after| after <= limit)
    }
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
            lab,
            receiving: None,
            files: 0,
        }
    }

    /// Sends a file long enough to move under, which arrives.
    ///
    /// # Panics
    /// When it does not.
    pub fn send(&mut self) -> PairConnection {
        self.send_bytes(FILE_BYTES)
    }

    /// Sends a file of that size, which arrives.
    ///
    /// # Panics
    /// When it does not.
    pub fn send_bytes(&mut self, bytes: usize) -> PairConnection {
        if self.receiving.is_none() {
            self.receiving = Some(self.bob.receive(&[]));
        }
        self.files += 1;
        let content = vec![self.files; bytes];
        let name = format!("file-{}", self.files);
        let file = self.scene.file(&name, &content);
        let mut sending = self.alice.send("bob", &[&file]);
        let (connected, since) = sending.event_at("connected", SOON);
        let began = connected["path"].as_str().expect("a path").to_owned();
        let moved = if began == "relay" {
            self.lab.limit(SLOW_MBIT, 100);
            let moved = sending.event_within("moved", MOVES_WITHIN);
            self.lab.unlimit();
            moved.map(|(moved, at)| (at - since, moved))
        } else {
            None
        };
        let sent = sending.end(SOON);
        assert_eq!(sent.code, Some(0), "{name} ended with {sent:?}");
        let arrived = fs::read(self.bob.inbox.join(&name)).expect("the file has arrived");
        assert!(arrived == content, "{name} differs");
        let _ = fs::remove_file(self.bob.inbox.join(&name));
        PairConnection {
            path: match &moved {
                Some((_, moved)) => moved["path"].as_str().expect("a path").to_owned(),
                None => began.clone(),
            },
            began,
            elapsed_ms: connected["elapsed_ms"].as_u64().expect("a time"),
            moved_after: moved.map(|(after, _)| after),
        }
    }
}

/// Sends so many files from A to B, and tells the path that each ended on.
#[must_use]
pub fn paths(lab: &Lab, runs: usize) -> Vec<String> {
    let mut pair = Pair::in_lab(lab);
    (0..runs).map(|_| pair.send().path).collect()
}
