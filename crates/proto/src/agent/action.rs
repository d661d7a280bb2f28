//! What the agent asks of its driver.

use std::net::SocketAddr;

use super::{CheckId, ConnectionId, PathKind};

/// What the driver is to do. Nothing of it blocks: each has its outcome
/// reported by a `handle_*` call, unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Accept connections on the round's local port; report each with
    /// [`Agent::handle_accepted`](super::Agent::handle_accepted).
    Listen {
        /// The round whose port it is.
        round: u8,
    },
    /// Connect from the round's local port. Leave it pending however long it
    /// takes; report [`Agent::handle_connected`](super::Agent::handle_connected) or [`Agent::handle_dial_failed`](super::Agent::handle_dial_failed).
    Dial {
        /// To be named in the report.
        check: CheckId,
        /// The round whose local port to dial from.
        round: u8,
        /// The address to dial.
        remote: SocketAddr,
    },
    /// Connect to the relay with the round's token and wait for the other
    /// side; report [`Agent::handle_relay_connected`](super::Agent::handle_relay_connected) or
    /// [`Agent::handle_relay_failed`](super::Agent::handle_relay_failed).
    OpenRelay {
        /// The round whose token to use.
        round: u8,
    },
    /// Controlling: begin the TLS handshake as its client. Controlled: be its
    /// server, and wait for the ClientHello, and then for the word that this
    /// connection is selected, as long as it takes. Report
    /// [`Agent::handle_authenticated`](super::Agent::handle_authenticated), [`Agent::handle_handshake_failed`](super::Agent::handle_handshake_failed) or
    /// [`Agent::handle_connection_lost`](super::Agent::handle_connection_lost).
    Handshake {
        /// The connection to use.
        connection: ConnectionId,
    },
    /// Close this connection. Nothing is reported.
    Close {
        /// The connection, which is forgotten.
        connection: ConnectionId,
    },
    /// Close the listener, the pending dials and a pending relay connection of
    /// this round, not the connections that came up. Nothing is reported.
    CloseRound {
        /// The round that is over.
        round: u8,
    },
    /// Prepare a fresh local port and ask the server for this round. Controlling
    /// side only; answered by [`Agent::handle_round`](super::Agent::handle_round).
    RequestRound {
        /// The number of the round.
        round: u8,
    },
    /// This connection is the session, or the better path to which the session
    /// is to be moved. The controlling side tells the other one, whose agent
    /// selects it by that. More may follow until [`Action::Finished`].
    Selected {
        /// The selected connection.
        connection: ConnectionId,
        /// How it reaches the other side.
        path: PathKind,
    },
    /// The end: nothing better can come. Drop all that was not selected.
    Finished,
    /// The end: there is no path. Drop everything.
    Failed,
}
