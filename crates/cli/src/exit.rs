//! Exit codes, on which scripts rely.

use std::process::ExitCode;

use pinhole_client::Failure;

/// How the program ends. The worst is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Exit {
    Done = 0,
    Trouble = 1,
    Usage = 2,
    NameTaken = 3,
    PeerOffline = 4,
    Declined = 5,
    NoPath = 6,
    Verification = 7,
    LocalFiles = 8,
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<&Failure> for Exit {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::Broken { cause, .. } => Self::from(&**cause),
            Failure::NameTaken { .. } => Self::NameTaken,
            Failure::PeerOffline { .. }
            | Failure::InvitationOver { .. }
            | Failure::CodeUnknown
            | Failure::CodeWrong
            | Failure::CodeExhausted
            | Failure::CodeUnused => Self::PeerOffline,
            Failure::Declined { .. }
            | Failure::NeedsPermission { .. }
            | Failure::CancelledByPeer { .. }
            | Failure::InterruptedByPeer { .. } => Self::Declined,
            Failure::ServerUnreachable { .. }
            | Failure::Proxy { .. }
            | Failure::RelayEnded { .. }
            | Failure::ServerLost { .. }
            | Failure::NoPath { .. }
            | Failure::PeerBusy { .. }
            | Failure::ConnectionLost { .. } => Self::NoPath,
            Failure::ServerKeyChanged { .. }
            | Failure::PeerKeyChanged { .. }
            | Failure::PeerKeyRevoked { .. }
            | Failure::NameReleased { .. }
            | Failure::KeyRevoked
            | Failure::NotRecoverable { .. }
            | Failure::PeerNotAuthentic { .. }
            | Failure::InviterKeyDiffers { .. }
            | Failure::RefusedByPeer { .. }
            | Failure::Verification { .. } => Self::Verification,
            Failure::LocalFiles { .. } | Failure::RemoteFiles { .. } | Failure::Profile { .. } => {
                Self::LocalFiles
            }
            Failure::Cancelled | Failure::Interrupted => Self::Interrupted,
            Failure::ServerRefused { .. } | Failure::Replaced | Failure::NotPossible { .. } => {
                Self::Trouble
            }
        }
    }
}
