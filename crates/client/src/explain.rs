//! Errors of the crates below, as what the user needs to know.

use pinhole_net::{
    ConnectError, DisconnectReason, IntroductionFailure, LogInError, PathAttempt, PathPolicy,
    PeerIdentity, PeerName, Refusal, Report, ServerAddress, ServerConnectError,
};
use pinhole_transfer::{DeclineReason, FileError, FileErrorKind, Party, Streamed, TransferError};

use crate::failure::Failure;

/// Why there is no login.
pub(crate) fn log_in(name: &PeerName, server: &ServerAddress, error: &LogInError) -> Failure {
    let unreachable = |reason: String| Failure::ServerUnreachable {
        server: server.clone(),
        reason,
    };
    match error {
        LogInError::Connect(ServerConnectError::WrongKey { known, shown, .. }) => {
            Failure::ServerKeyChanged {
                server: server.clone(),
                known: *known,
                shown: *shown,
            }
        }
        LogInError::Connect(ServerConnectError::Unresolved { reason, .. }) => {
            unreachable(format!("its name is not known ({reason})"))
        }
        LogInError::Connect(ServerConnectError::Unreachable { tried, .. }) => {
            let answers: Vec<_> = tried.iter().map(ToString::to_string).collect();
            unreachable(answers.join("; "))
        }
        LogInError::Connect(ServerConnectError::Proxy { proxy, error, .. }) => Failure::Proxy {
            proxy: proxy.to_string(),
            reason: error.to_string(),
        },
        LogInError::Connect(ServerConnectError::Handshake { reason, .. }) => {
            unreachable(format!("it does not answer as a Pinhole server ({reason})"))
        }
        LogInError::NameTaken { .. } => Failure::NameTaken { name: name.clone() },
        LogInError::Refused(refusal) => refused(*refusal),
        LogInError::Wire(e) => unreachable(e.to_string()),
    }
}

/// Why a login ended.
pub(crate) fn disconnect(reason: &DisconnectReason) -> Failure {
    match reason {
        DisconnectReason::Refused(refusal) => refused(*refusal),
        DisconnectReason::Lost(e) => Failure::ServerLost {
            reason: e.to_string(),
        },
    }
}

fn refused(refusal: Refusal) -> Failure {
    match refusal {
        Refusal::Replaced => Failure::Replaced,
        Refusal::KeyRevoked => Failure::KeyRevoked,
        Refusal::ShuttingDown => Failure::ServerLost {
            reason: refusal.to_string(),
        },
        other => Failure::ServerRefused {
            reason: other.to_string(),
        },
    }
}

/// Why there is no session with a peer.
pub(crate) fn connect(peer: &PeerIdentity, path: PathPolicy, error: &ConnectError) -> Failure {
    let (identity, peer) = (peer, peer.name.clone());
    match error {
        ConnectError::Disconnected | ConnectError::ServerSilent => Failure::ServerLost {
            reason: error.to_string(),
        },
        ConnectError::Introduction { reason, .. } => not_introduced(peer, *reason),
        ConnectError::Refused { reason, .. } => not_introduced(peer, (*reason).into()),
        ConnectError::WrongPeerKey {
            found: Some(found), ..
        } => Failure::PeerKeyChanged {
            peer,
            known: identity.key.fingerprint(),
            now: found.fingerprint(),
        },
        ConnectError::WrongPeerKey { found: None, .. } | ConnectError::OtherName { .. } => {
            Failure::PeerNotAuthentic { peer }
        }
        ConnectError::Proxy { proxy, error } => Failure::Proxy {
            proxy: proxy.to_string(),
            reason: error.to_string(),
        },
        ConnectError::NoPath { report, .. } => Failure::NoPath {
            peer,
            detail: no_path(path, report),
        },
        ConnectError::LocalPort(_) | ConnectError::Busy | ConnectError::Random => Failure::NoPath {
            peer,
            detail: format!("{error}."),
        },
    }
}

/// Why the server, or the peer itself, has not let the two meet.
fn not_introduced(peer: PeerName, reason: IntroductionFailure) -> Failure {
    match reason {
        IntroductionFailure::Offline => Failure::PeerOffline {
            peer: peer.to_string(),
        },
        IntroductionFailure::KeyMismatch => Failure::RefusedByPeer { peer },
        IntroductionFailure::NeedsPermission => Failure::NeedsPermission { peer },
        // Its answer is looked at before this; without one, it has lost its words.
        IntroductionFailure::Credential | IntroductionFailure::InvitationOver => {
            Failure::InvitationOver { peer }
        }
        IntroductionFailure::Busy => Failure::PeerBusy { peer },
        IntroductionFailure::TimedOut => Failure::NoPath {
            peer,
            detail: "it did not answer. It may have just gone offline; try again.".to_owned(),
        },
        IntroductionFailure::Limited => Failure::ServerRefused {
            reason: reason.to_string(),
        },
    }
}

/// Why there is no session with a peer that was to be nearby.
pub(crate) fn nearby(peer: &PeerIdentity, error: &ConnectError) -> Failure {
    match error {
        ConnectError::NoPath { report, .. } => Failure::NoPath {
            peer: peer.name.clone(),
            detail: format!(
                "it was seen on your network, but does not answer there. A firewall on either computer may be in the way. Tried: {report}"
            ),
        },
        error => connect(peer, PathPolicy::Auto, error),
    }
}

/// The connection broke before it was of use.
pub(crate) fn lost(peer: &PeerIdentity, error: &std::io::Error) -> Failure {
    Failure::ConnectionLost {
        peer: peer.name.clone(),
        reason: error.to_string(),
    }
}

fn no_path(path: PathPolicy, report: &Report) -> String {
    let has_relay = report
        .tried
        .iter()
        .any(|tried| tried.way == PathAttempt::Relay);
    let advice = match path {
        PathPolicy::Auto if !has_relay => {
            "no direct path was found, and there is no relay: the server offers none, or the other side does not want it. Try from another network."
        }
        PathPolicy::RelayOnly if !has_relay => {
            "there is no relay: the server offers none, or the other side does not want it. Allow direct paths (--path auto), which show your address."
        }
        PathPolicy::DirectOnly => {
            "no direct path was found and the relay is switched off. Allow the relay (--path auto), or try from another network."
        }
        PathPolicy::RelayOnly => {
            "the relay could not be used. Check that the server is up, or allow direct paths (--path auto)."
        }
        PathPolicy::Auto => {
            "neither a direct path nor the relay came up. A firewall may block outgoing connections; try from another network."
        }
    };
    format!("{advice} Tried: {report}")
}

/// Why a transfer ended early. `location` is where it writes to or reads from.
pub(crate) fn transfer(peer: &PeerIdentity, error: &TransferError) -> Failure {
    let (identity, peer) = (peer, peer.name.clone());
    match error {
        TransferError::Declined(reason) => match reason {
            DeclineReason::Declined => Failure::Declined { peer },
            // It only sends, or asks.
            DeclineReason::Unanswered => Failure::PeerOffline {
                peer: peer.to_string(),
            },
            other => Failure::RemoteFiles {
                peer,
                detail: format!("{}.", not_taken(*other)),
            },
        },
        TransferError::GaveWay => Failure::NotPossible {
            detail: format!("{peer}'s offer was declined unasked: {error}."),
        },
        TransferError::Cancelled(Party::Us) => Failure::Cancelled,
        TransferError::Interrupted(Party::Us) => Failure::Interrupted,
        TransferError::Cancelled(Party::Peer) => Failure::CancelledByPeer { peer },
        TransferError::Interrupted(Party::Peer) => Failure::InterruptedByPeer { peer },
        TransferError::Verification(_) => Failure::Verification {
            detail: error.to_string(),
        },
        TransferError::LocalFile { trouble, .. } => Failure::LocalFiles {
            detail: format!("{error}.{}", what_is_kept(*trouble)),
        },
        TransferError::PeerFile(trouble) => Failure::RemoteFiles {
            peer,
            detail: format!("reports: {trouble}.{}", what_is_kept(*trouble)),
        },
        TransferError::ConnectionLost => Failure::ConnectionLost {
            peer,
            reason: "it ended unexpectedly".to_owned(),
        },
        TransferError::Violation(_) => Failure::ConnectionLost {
            peer,
            reason: error.to_string(),
        },
        TransferError::Broken {
            arrived_bytes,
            streamed,
            reason,
        } => broken(identity, *arrived_bytes, *streamed, reason),
    }
}

/// Why a stream, or what was passed on into a pipe, ended before its end.
pub(crate) fn broken(
    peer: &PeerIdentity,
    arrived_bytes: u64,
    streamed: Streamed,
    reason: &TransferError,
) -> Failure {
    let name = &peer.name;
    let why = match reason {
        TransferError::Cancelled(Party::Us) | TransferError::Interrupted(Party::Us) => {
            "Cancelled.".to_owned()
        }
        TransferError::Cancelled(Party::Peer) | TransferError::Interrupted(Party::Peer) => {
            format!("{name} stopped.")
        }
        TransferError::ConnectionLost => format!("The connection to {name} was lost."),
        TransferError::Violation(_) => format!("The connection to {name} was lost: {reason}."),
        TransferError::Verification(_) => "What arrived does not match what was sent.".to_owned(),
        TransferError::PeerFile(trouble) => format!("{name} reports: {trouble}."),
        other => format!("{other}."),
    };
    let rest = match streamed {
        Streamed::Sent => format!(
            "{arrived_bytes} bytes had arrived at {name}. A stream does not go on from there: it has to be sent again from its beginning."
        ),
        Streamed::PassedOn => {
            format!("{arrived_bytes} bytes were passed on. They are not all of it.")
        }
        Streamed::Removed => format!(
            "{arrived_bytes} bytes had arrived and were removed, because a stream does not go on from there."
        ),
    };
    Failure::Broken {
        cause: Box::new(transfer(peer, reason)),
        arrived_bytes,
        detail: format!("{why} {rest}"),
    }
}

/// What becomes of what has arrived on a disk that takes no more.
const fn what_is_kept(trouble: FileErrorKind) -> &'static str {
    match trouble.leaves_room_later() {
        true => " What has arrived is kept; sent again, it goes on from there.",
        false => "",
    }
}

/// What the other side did, or could not do.
const fn not_taken(reason: DeclineReason) -> &'static str {
    match reason {
        DeclineReason::Declined => "declined",
        DeclineReason::Unanswered => "did not answer",
        DeclineReason::NoSpace => "has not enough free space",
        DeclineReason::NotWritable => "cannot write to the folder it receives into",
        DeclineReason::Busy => "has too many transfers open",
        DeclineReason::OnlyOneFile => {
            "takes only a single file, because it hands it to another program"
        }
    }
}

/// Why one file did not make it.
pub(crate) fn file(peer: &PeerIdentity, error: &FileError) -> Failure {
    match error {
        FileError::Local { .. } => Failure::LocalFiles {
            detail: error.to_string(),
        },
        FileError::Peer(trouble) => Failure::RemoteFiles {
            peer: peer.name.clone(),
            detail: format!("reports: {trouble}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use pinhole_net::PeerKey;

    use super::*;

    #[test]
    fn what_broke_off_says_how_much_had_arrived_and_promises_nothing() {
        let peer = PeerIdentity {
            name: "bob".parse().unwrap(),
            key: PeerKey::from_bytes([1; 32]),
        };
        let full = TransferError::LocalFile {
            path: "standard output".to_owned(),
            trouble: FileErrorKind::DiskFull,
            detail: String::new(),
        };
        for (reason, kind, words) in [
            (
                TransferError::Cancelled(Party::Us),
                "cancelled",
                "Cancelled.",
            ),
            (
                TransferError::Interrupted(Party::Peer),
                "interrupted_by_peer",
                "bob stopped.",
            ),
            (
                TransferError::ConnectionLost,
                "connection_lost",
                "The connection to bob was lost.",
            ),
            (
                TransferError::PeerFile(FileErrorKind::DiskFull),
                "remote_files",
                "bob reports: the disk is full.",
            ),
            (full, "local_files", "standard output: the disk is full."),
            (
                TransferError::Verification(Party::Us),
                "verification",
                "What arrived does not match what was sent.",
            ),
        ] {
            for streamed in [Streamed::Sent, Streamed::PassedOn, Streamed::Removed] {
                let failure = broken(&peer, 1234, streamed, &reason);
                assert_eq!(failure.kind(), kind);
                let said = failure.to_string();
                assert!(said.starts_with(&format!("{words} 1234 bytes ")), "{said}");
                assert!(!said.contains("it goes on"), "{said}");
            }
        }
    }
}
