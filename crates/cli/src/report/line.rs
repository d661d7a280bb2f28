//! The lines of `--json`, on which scripts rely.

use std::net::SocketAddr;

use pinhole_client::{Attempt, Diagnosis, Fingerprint, HistoryEntry, PathKind, PeerKey, PeerName};
use serde::Serialize;

/// One line. Fields are added, never renamed or removed.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Line<'a> {
    LoggedIn {
        name: &'a PeerName,
        observed: SocketAddr,
        server: String,
    },
    Disconnected {
        reason: String,
        retry_in_ms: u64,
    },
    Connected {
        peer: &'a PeerName,
        path: PathKind,
        local: SocketAddr,
        remote: SocketAddr,
        elapsed_ms: u64,
    },
    Offered {
        peer: &'a PeerName,
        fingerprint: Fingerprint,
        files: u64,
        folders: u64,
        bytes: u64,
        existing: u32,
        entries: Vec<Entry<'a>>,
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
        bytes: u64,
    },
    Paused {
        peer: &'a PeerName,
        paused: bool,
    },
    Progress {
        peer: &'a PeerName,
        bytes: u64,
        total: u64,
        files: u64,
        files_total: u64,
    },
    FileFailed {
        path: &'a str,
        reason: String,
    },
    Completed {
        peer: &'a PeerName,
        files: u64,
        bytes: u64,
        resent_bytes: u64,
        failed_files: u64,
        skipped_files: u64,
        elapsed_ms: u64,
        path: Option<PathKind>,
        digest: Option<&'a str>,
        folder: Option<String>,
    },
    Failed {
        #[serde(skip_serializing_if = "Option::is_none")]
        peer: Option<&'a PeerName>,
        reason: &'a str,
    },
    Peer {
        name: &'a PeerName,
        key: PeerKey,
        fingerprint: Fingerprint,
        contact: bool,
        key_changed: bool,
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

#[derive(Debug, Serialize)]
pub(super) struct Entry<'a> {
    pub(super) path: &'a str,
    pub(super) size_bytes: Option<u64>,
}
