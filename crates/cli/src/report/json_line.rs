//! The lines of `--json`, on which scripts rely.

use std::net::SocketAddr;

use pinhole_client::{Attempt, Diagnosis, Fingerprint, HistoryEntry, PathKind, PeerKey, PeerName};
use serde::Serialize;

/// One line. Fields are added, never renamed or removed.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum JsonLine<'a> {
    LoggedIn {
        name: &'a PeerName,
        observed: SocketAddr,
        server: String,
    },
    Nearby {
        name: &'a PeerName,
        port: Option<u16>,
    },
    NearbyOnly {
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    Disconnected {
        reason: String,
        retry_in_ms: u64,
    },
    Moved {
        peer: &'a PeerName,
        path: PathKind,
        local: SocketAddr,
        remote: SocketAddr,
    },
    Connected {
        peer: &'a PeerName,
        path: PathKind,
        local: SocketAddr,
        remote: SocketAddr,
        elapsed_ms: u64,
    },
    KeyRefused {
        peer: &'a PeerName,
        fingerprint: Fingerprint,
        known: Fingerprint,
        released: bool,
    },
    KeySucceeded {
        peer: &'a PeerName,
        fingerprint: Fingerprint,
        was: Fingerprint,
    },
    KeyRevoked {
        peer: &'a PeerName,
        fingerprint: Fingerprint,
    },
    Invitation {
        link: &'a str,
    },
    Joined {
        name: &'a PeerName,
        peer: &'a PeerName,
        fingerprint: Fingerprint,
        told: bool,
    },
    Welcomed {
        peer: &'a PeerName,
        fingerprint: Fingerprint,
    },
    Code {
        code: &'a str,
    },
    RecoveryWords {
        words: &'a str,
    },
    Recovered {
        name: &'a PeerName,
        fingerprint: Fingerprint,
    },
    Revoked {
        name: &'a PeerName,
    },
    Trusted {
        name: &'a PeerName,
        fingerprint: Fingerprint,
    },
    Claimed {
        peer: &'a PeerName,
        fingerprint: Fingerprint,
    },
    Asked {
        peer: &'a PeerName,
        fingerprint: Fingerprint,
    },
    Offered {
        peer: &'a PeerName,
        fingerprint: Fingerprint,
        claimed: bool,
        stranger: bool,
        text: bool,
        files: u64,
        folders: u64,
        bytes: Option<u64>,
        existing: u32,
        unread: u64,
        existing_names: &'a [String],
        entries: Vec<JsonEntry<'a>>,
    },
    Waiting {
        peer: &'a PeerName,
        until: AwaitedState,
    },
    LeftOut {
        peer: &'a PeerName,
        path: &'a str,
        reason: &'a str,
    },
    Warning {
        kind: &'a str,
        reason: String,
    },
    Reconnecting {
        peer: &'a PeerName,
    },
    Text {
        peer: &'a PeerName,
        text: &'a str,
    },
    Started {
        peer: &'a PeerName,
        files: u64,
        folders: u64,
        bytes: Option<u64>,
    },
    Paused {
        peer: &'a PeerName,
        paused: bool,
    },
    Progress {
        peer: &'a PeerName,
        bytes: u64,
        total: Option<u64>,
        files: u64,
        files_total: u64,
    },
    FileFailed {
        path: &'a str,
        kind: &'a str,
        reason: String,
    },
    Completed {
        peer: &'a PeerName,
        files: u64,
        bytes: u64,
        here_bytes: u64,
        resent_bytes: u64,
        failed_files: u64,
        unread: u64,
        skipped_files: u64,
        skipped: &'a [String],
        elapsed_ms: u64,
        path: Option<PathKind>,
        digest: Option<&'a str>,
        folder: Option<String>,
        paths: Vec<String>,
        renamed: &'a [(String, String)],
    },
    Failed {
        #[serde(skip_serializing_if = "Option::is_none")]
        peer: Option<&'a PeerName>,
        kind: &'a str,
        reason: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
    },
    Peer {
        name: &'a PeerName,
        key: PeerKey,
        fingerprint: Fingerprint,
        contact: bool,
        key_changed: bool,
        nearby: bool,
        claimed: bool,
        released: bool,
        revoked: bool,
    },
    Absent {
        name: &'a PeerName,
    },
    DirectoryClosed,
    Contact {
        name: &'a PeerName,
        fingerprint: Fingerprint,
        blocked: bool,
    },
    Forgotten {
        name: &'a PeerName,
        fingerprint: Fingerprint,
    },
    History(&'a HistoryEntry),
    Diagnosis(&'a Diagnosis),
    Attempt(&'a Attempt),
    Id {
        name: Option<&'a PeerName>,
        key: PeerKey,
        fingerprint: Fingerprint,
    },
}

/// What the peer has to do before a transfer goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AwaitedState {
    /// The peer comes online.
    Online,
    /// It starts receiving. It is online for something else, or has gone away.
    Receiving,
    /// It accepts the offer.
    Accepted,
}

#[derive(Debug, Serialize)]
pub(super) struct JsonEntry<'a> {
    pub(super) path: &'a str,
    pub(super) size_bytes: Option<u64>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    /// The fields of every event that is declared here. An event that only wraps another
    /// type has none.
    fn declared() -> BTreeMap<String, Vec<String>> {
        let source = include_str!("json_line.rs");
        let (_, variants) = source.split_once("enum JsonLine<'a> {\n").unwrap();
        let (variants, _) = variants.split_once("\n}\n").unwrap();
        let mut events = BTreeMap::new();
        let mut last = String::new();
        for line in variants.lines() {
            let indent = line.len() - line.trim_start().len();
            let word = line.trim_start().split([' ', '(', ':', ',']).next();
            let word = word.unwrap().to_owned();
            if indent == 4 && word.starts_with(char::is_uppercase) {
                last = snake_case(&word);
                events.insert(last.clone(), Vec::new());
            } else if indent == 8 && word.starts_with(char::is_lowercase) {
                events.get_mut(&last).unwrap().push(word);
            }
        }
        events
    }

    fn snake_case(name: &str) -> String {
        let mut snake = String::new();
        for character in name.chars() {
            if character.is_uppercase() && !snake.is_empty() {
                snake.push('_');
            }
            snake.extend(character.to_lowercase());
        }
        snake
    }

    #[test]
    fn the_readme_names_every_event_and_its_fields() {
        let readme = include_str!("../../../../README.md");
        let (_, table) = readme
            .split_once("| event | fields | when |\n|---|---|---|\n")
            .unwrap();
        let rows = table.lines().take_while(|line| line.starts_with('|'));
        let words = |cell: &str| {
            cell.split_whitespace()
                .map(|it| it.trim_matches('`').to_owned())
                .collect::<Vec<_>>()
        };
        let told: BTreeMap<_, _> = rows
            .map(|row| {
                let mut cells = row.split('|').skip(1);
                let event = words(cells.next().unwrap()).remove(0);
                (event, words(cells.next().unwrap()))
            })
            .collect();
        assert_eq!(told, declared());
    }
}
