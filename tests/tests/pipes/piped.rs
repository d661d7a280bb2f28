//! A `pinhole` between two pipes.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use pinhole_tests::scene::Peer;
use serde_json::Value;

use crate::LONG;

/// A `pinhole` of which the tests hold the pipes. Killed when dropped.
pub(crate) struct Piped {
    pub(crate) child: Child,
    pub(crate) lines: Receiver<String>,
    pub(crate) told: Vec<Value>,
    /// Whatever was not JSON.
    pub(crate) words: Vec<String>,
}

pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) told: Vec<Value>,
}

impl Piped {
    pub(crate) fn new(child: Child, told: impl Read + Send + 'static) -> Self {
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(told).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            lines,
            told: Vec::new(),
            words: Vec::new(),
        }
    }

    /// Sends standard input to bob as `s`.
    pub(crate) fn sending(peer: &Peer<'_>, stdin: Stdio) -> Self {
        let mut command = peer.command(&["send", "bob", "--as", "s", "-"]);
        command.stdin(stdin).stdout(Stdio::piped());
        let mut child = command.spawn().expect("pinhole send");
        let told = child.stdout.take().expect("piped");
        Self::new(child, told)
    }

    /// Receives one file to standard output; ready when this returns.
    pub(crate) fn receiving(peer: &Peer<'_>, more: &[&str], stdout: Stdio) -> Self {
        let arguments = [&["receive", "--once", "--stdout"], more].concat();
        let mut command = peer.command(&arguments);
        command.stdin(Stdio::null()).stdout(stdout);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("pinhole");
        let told = child.stderr.take().expect("piped");
        let mut receiving = Self::new(child, told);
        receiving.event("logged_in");
        receiving
    }

    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("piped")
    }

    pub(crate) fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("piped")
    }

    pub(crate) fn note(&mut self, line: String) {
        match serde_json::from_str(&line) {
            Ok(event) => self.told.push(event),
            Err(_) => self.words.push(line),
        }
    }

    #[track_caller]
    pub(crate) fn event(&mut self, name: &str) -> Value {
        let deadline = Instant::now() + LONG;
        while let Ok(line) = self.lines.recv_timeout(deadline - Instant::now()) {
            self.note(line);
            if let Some(event) = self.told.last().filter(|event| event["event"] == name) {
                return event.clone();
            }
        }
        panic!("no {name}: {:#?} {:?}", self.told, self.words);
    }

    #[track_caller]
    pub(crate) fn end(mut self) -> Ended {
        let deadline = Instant::now() + LONG;
        loop {
            match self.lines.recv_timeout(deadline - Instant::now()) {
                Ok(line) => self.note(line),
                Err(_) if Instant::now() >= deadline => panic!("it runs: {:#?}", self.told),
                Err(_) => break,
            }
        }
        Ended {
            code: self.child.wait().expect("its end").code(),
            told: std::mem::take(&mut self.told),
        }
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        // Fails only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    pub(crate) fn find(&self, name: &str) -> Option<&Value> {
        self.told.iter().rfind(|event| event["event"] == name)
    }

    #[track_caller]
    pub(crate) fn event(&self, name: &str) -> &Value {
        let found = self.find(name);
        found.unwrap_or_else(|| panic!("no {name}: {:#?}", self.told))
    }

    /// Whole, and this digest was confirmed.
    #[track_caller]
    pub(crate) fn digest(&self) -> &Value {
        assert_eq!(self.code, Some(0), "{:#?}", self.told);
        &self.event("completed")["digest"]
    }

    /// Broken off with this code and word. Returns how many bytes had arrived.
    #[track_caller]
    pub(crate) fn broken(&self, code: i32, word: &str) -> u64 {
        assert_eq!(self.code, Some(code), "{:#?}", self.told);
        let failed = self.event("failed");
        let reason = failed["reason"].as_str().expect("a reason");
        assert!(reason.contains(word), "{word:?} is not in {reason:?}");
        let bytes = failed["bytes"].as_u64().expect("how many bytes");
        assert!(reason.contains(&format!("{bytes} bytes")), "{reason}");
        assert!(!reason.contains("goes on from"), "{reason}");
        assert!(self.find("completed").is_none(), "{:#?}", self.told);
        bytes
    }
}
