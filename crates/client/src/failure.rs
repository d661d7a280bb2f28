//! Why something did not happen, in words that say what to do.

use pinhole_net::{Fingerprint, PeerName, ServerAddress};
use serde::{Deserialize, Serialize};

/// Why something did not happen. `Display` is a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Failure {
    /// The name is bound to another key.
    #[error("The name {name} belongs to somebody else. Choose another name.")]
    NameTaken {
        /// The name wanted.
        name: PeerName,
    },
    /// The server cannot be reached.
    #[error("Cannot reach the server {server}: {reason}. Check the address and your connection.")]
    ServerUnreachable {
        /// Which.
        server: ServerAddress,
        /// What the system said.
        reason: String,
    },
    /// The proxy could not connect to the server.
    #[error("Cannot reach the server through the proxy {proxy}: {reason}.")]
    Proxy {
        /// Which, without its password.
        proxy: String,
        /// What went wrong, and what to do.
        reason: String,
    },
    /// The server's key is not the one in its address, or not the one pinned.
    #[error("{}", server_key_changed(server, *known, *shown))]
    ServerKeyChanged {
        /// Which.
        server: ServerAddress,
        /// The fingerprint that its key should have.
        known: Option<Fingerprint>,
        /// The fingerprint of the key that it shows.
        shown: Option<Fingerprint>,
    },
    /// The connection to the server broke.
    #[error("Lost the connection to the server: {reason}.")]
    ServerLost {
        /// What the system or the server said.
        reason: String,
    },
    /// The server refused for another reason.
    #[error("The server refused: {reason}.")]
    ServerRefused {
        /// What it said.
        reason: String,
    },
    /// This identity has logged in from elsewhere.
    #[error("You have logged in from another place, which ended this session.")]
    Replaced,
    /// No peer with that name is online.
    #[error("Nobody called {peer} is online. Check the name, or ask them to start Pinhole.")]
    PeerOffline {
        /// The name as the user gave it.
        peer: String,
    },
    /// An invitation cannot be used any more.
    #[error(
        "This invitation of {peer} is used up or over. Ask {peer} for another one; if it was good once and you have not used it, somebody else has."
    )]
    InvitationOver {
        /// Who has made it.
        peer: PeerName,
    },
    /// The server knows another key under the name of whoever has made an invitation.
    #[error(
        "The server says that {peer} has another key than the one that invites you. It may be a new device, or somebody else: ask {peer} for a new invitation. Nobody was joined."
    )]
    InviterKeyDiffers {
        /// Who has made it.
        peer: PeerName,
        /// The fingerprint of the key in it.
        invited: Fingerprint,
        /// The fingerprint of the key that the server names.
        found: Fingerprint,
    },
    /// Nobody waits with a code.
    #[error(
        "Nobody waits with this code. It may be mistyped, used already or over: a code is good once, for ten minutes and three tries, and only while whoever has made it waits."
    )]
    CodeUnknown,
    /// The other side does not know the words of a code.
    #[error(
        "The words of the code are not the right ones, or somebody stands between the two of you. Nothing was sent. Check the code, and ask for a new one."
    )]
    CodeWrong,
    /// Our code was tried too often.
    #[error(
        "The code was tried three times with other words, so it is closed. Make a new one, and say it to one person only."
    )]
    CodeExhausted,
    /// Nobody has used our code in time.
    #[error("Nobody has used the code within ten minutes, so it is closed. Make a new one.")]
    CodeUnused,
    /// Our own key is not believed any more.
    #[error(
        "Your key was revoked, or a newer one has taken its place. With your recovery words you get your name back."
    )]
    KeyRevoked,
    /// The server knows no name with these recovery words.
    #[error(
        "The server does not know {name} with these words. Check the name, the words and the server. New words count 30 days after the server first heard of them; until then, use the words before."
    )]
    NotRecoverable {
        /// The name wanted.
        name: PeerName,
    },
    /// A peer's key was revoked.
    #[error(
        "{peer} has revoked this key, because it may be in the wrong hands. Nothing is sent to it. Wait until {peer} is back with a new one."
    )]
    PeerKeyRevoked {
        /// Who.
        peer: PeerName,
    },
    /// Somebody else has a peer's name.
    #[error(
        "{peer}'s name was not used for so long that the server released it. Whoever has it now is somebody else, unless they can show you their fingerprint."
    )]
    NameReleased {
        /// The name.
        peer: PeerName,
        /// The fingerprint of the pinned key.
        known: Fingerprint,
        /// The fingerprint of the new key.
        now: Fingerprint,
    },
    /// A peer's key differs from the one pinned.
    #[error(
        "{peer}'s key has changed. It may be a new device, or somebody else: compare fingerprints before you trust it."
    )]
    PeerKeyChanged {
        /// Who.
        peer: PeerName,
        /// The fingerprint of the pinned key.
        known: Fingerprint,
        /// The fingerprint of the new key.
        now: Fingerprint,
    },
    /// The other side would not connect: it knows another key under our name.
    #[error(
        "{peer}'s Pinhole refused to connect: it knows another key under your name. Ask {peer} to compare fingerprints with you and to trust your new key."
    )]
    RefusedByPeer {
        /// Who.
        peer: PeerName,
    },
    /// The other side's user has to allow the connection first.
    #[error(
        "{peer} has to allow you to connect first, and has been told that you asked. Try again when they have."
    )]
    NeedsPermission {
        /// Who.
        peer: PeerName,
    },
    /// The other side has too much to do.
    #[error("{peer}'s Pinhole is busy with too many connections. Try again in a minute.")]
    PeerBusy {
        /// Who.
        peer: PeerName,
    },
    /// The side that answered does not hold the key that the server introduced.
    #[error("Whoever answered as {peer} could not prove it. Nothing was sent.")]
    PeerNotAuthentic {
        /// Who it should have been.
        peer: PeerName,
    },
    /// Neither a direct path nor the relay came up.
    #[error("No path to {peer}: {detail}")]
    NoPath {
        /// Who.
        peer: PeerName,
        /// What was tried, and what the user can do.
        detail: String,
    },
    /// The other side turned the offer down.
    #[error("{peer} declined.")]
    Declined {
        /// Who.
        peer: PeerName,
    },
    /// Cancelled here.
    #[error("Cancelled.")]
    Cancelled,
    /// Stopped on this side, to go on another day.
    #[error("Stopped. What has arrived is kept; sent again, it goes on from there.")]
    Interrupted,
    /// Stopped by the other side, or the other side quit.
    #[error("{peer} stopped. What has arrived is kept; sent again, it goes on from there.")]
    InterruptedByPeer {
        /// Who.
        peer: PeerName,
    },
    /// Cancelled by the other side.
    #[error("{peer} cancelled.")]
    CancelledByPeer {
        /// Who.
        peer: PeerName,
    },
    /// Bytes did not match their digests.
    #[error(
        "What arrived does not match what was sent: {detail}. Nothing was kept; it has to be sent again."
    )]
    Verification {
        /// Which file.
        detail: String,
    },
    /// A file or folder here could not be read or written.
    #[error("{detail}")]
    LocalFiles {
        /// Which, why, and what to do.
        detail: String,
    },
    /// A file or folder on the other side could not be read or written.
    #[error("{peer} {detail}")]
    RemoteFiles {
        /// Who.
        peer: PeerName,
        /// What it says or could not do, after its name.
        detail: String,
    },
    /// The connection broke.
    #[error(
        "The connection to {peer} was lost: {reason}. Once it is sent again, it goes on where it stopped."
    )]
    ConnectionLost {
        /// Who.
        peer: PeerName,
        /// What the system said.
        reason: String,
    },
    /// A stream, or what was passed on into a pipe, ended before its end.
    #[error("{detail}")]
    Broken {
        /// What ended it.
        cause: Box<Failure>,
        /// How many bytes of it had arrived.
        arrived_bytes: u64,
        /// What happened, how much had arrived, and what has become of that.
        detail: String,
    },
    /// The server stopped relaying.
    #[error(
        "The relay between you and {peer} has ended: {reason}. Sent again tomorrow, or from a network that lets you connect directly, it goes on where it stopped."
    )]
    RelayEnded {
        /// Who.
        peer: PeerName,
        /// What the server said.
        reason: String,
    },
    /// The profile could not be read or written.
    #[error("The profile cannot be used: {detail}")]
    Profile {
        /// Which file and why.
        detail: String,
    },
    /// A command that does not fit the present state.
    #[error("{detail}")]
    NotPossible {
        /// Why not.
        detail: String,
    },
}

fn server_key_changed(
    server: &ServerAddress,
    known: Option<Fingerprint>,
    shown: Option<Fingerprint>,
) -> String {
    let place = server.host_port();
    let told = |what: &str, fingerprint: Option<Fingerprint>| {
        fingerprint.map_or_else(String::new, |it| format!(" {what} {it}."))
    };
    let shows = told("It shows", shown);
    match (server.fingerprint(), shown) {
        (Some(fingerprint), _) => format!(
            "The server at {place} has another key than {fingerprint}.{shows} Ask its operator for the right fingerprint."
        ),
        (None, shown) => format!(
            "The server {place} is not the one you know: its key has changed.{}{shows} If its operator confirms the new key, log in with {place}#{}.",
            told("It was", known),
            shown.map_or_else(|| "FINGERPRINT".to_owned(), |it| it.to_string()),
        ),
    }
}

impl Failure {
    /// A stable identifier for programs. It stays the same when the sentence changes. Of
    /// what was broken off it is that of the cause.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Broken { cause, .. } => cause.kind(),
            Self::NameTaken { .. } => "name_taken",
            Self::ServerUnreachable { .. } => "server_unreachable",
            Self::Proxy { .. } => "proxy",
            Self::ServerKeyChanged { .. } => "server_key_changed",
            Self::ServerLost { .. } => "server_lost",
            Self::ServerRefused { .. } => "server_refused",
            Self::Replaced => "replaced",
            Self::KeyRevoked => "key_revoked",
            Self::NotRecoverable { .. } => "not_recoverable",
            Self::InvitationOver { .. } => "invitation_over",
            Self::InviterKeyDiffers { .. } => "inviter_key_differs",
            Self::CodeUnknown => "code_unknown",
            Self::CodeWrong => "code_wrong",
            Self::CodeExhausted => "code_exhausted",
            Self::CodeUnused => "code_unused",
            Self::PeerKeyRevoked { .. } => "peer_key_revoked",
            Self::NameReleased { .. } => "name_released",
            Self::PeerOffline { .. } => "peer_offline",
            Self::PeerKeyChanged { .. } => "peer_key_changed",
            Self::RefusedByPeer { .. } => "refused_by_peer",
            Self::NeedsPermission { .. } => "needs_permission",
            Self::PeerBusy { .. } => "peer_busy",
            Self::PeerNotAuthentic { .. } => "peer_not_authentic",
            Self::NoPath { .. } => "no_path",
            Self::Declined { .. } => "declined",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
            Self::InterruptedByPeer { .. } => "interrupted_by_peer",
            Self::CancelledByPeer { .. } => "cancelled_by_peer",
            Self::Verification { .. } => "verification",
            Self::LocalFiles { .. } => "local_files",
            Self::RemoteFiles { .. } => "remote_files",
            Self::ConnectionLost { .. } => "connection_lost",
            Self::RelayEnded { .. } => "relay_ended",
            Self::Profile { .. } => "profile",
            Self::NotPossible { .. } => "not_possible",
        }
    }
}

#[cfg(test)]
mod tests {
    use pinhole_net::PeerKey;

    use super::*;

    #[test]
    fn the_kind_is_the_name_of_the_variant() {
        let peer = || "bob".parse().unwrap();
        for (failure, kind) in [
            (Failure::Cancelled, "cancelled"),
            (Failure::Declined { peer: peer() }, "declined"),
            (
                Failure::PeerNotAuthentic { peer: peer() },
                "peer_not_authentic",
            ),
        ] {
            assert_eq!(failure.kind(), kind);
        }
    }

    #[test]
    fn a_server_with_another_key_than_was_said_has_not_changed_it() {
        let said = |server: &str| {
            let server = server.parse().unwrap();
            let of = |n| Some(PeerKey::from_bytes([n; 32]).fingerprint());
            let (known, shown) = (of(1), of(2));
            Failure::ServerKeyChanged {
                server,
                known,
                shown,
            }
            .to_string()
        };
        let fingerprint = PeerKey::from_bytes([1; 32]).fingerprint();
        let new = PeerKey::from_bytes([2; 32]).fingerprint();
        let changed = said("example.org");
        assert!(changed.contains("its key has changed"), "{changed}");
        let both = [
            format!("It was {fingerprint}. It shows {new}."),
            format!("log in with example.org#{new}."),
        ];
        for told in both {
            assert!(changed.contains(&told), "{told}: {changed}");
        }
        let said = said(&format!("example.org#{fingerprint}"));
        assert!(
            said.contains("another key than") && !said.contains("changed"),
            "{said}"
        );
    }
}
