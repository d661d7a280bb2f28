//! Observation connections: the server tells from where it sees them come.

use std::net::{IpAddr, SocketAddr};

use pinhole_proto::rendezvous::{ClientMessage, ServerMessage};
use tokio::io::{AsyncRead, AsyncWrite};

use super::wire::{self, WireError};

/// What the server tells on an observation connection.
#[derive(Debug)]
pub(crate) struct Observed {
    /// From where it sees the connection come.
    pub(crate) address: SocketAddr,
    /// Another address of the server.
    pub(crate) other_address: Option<IpAddr>,
    /// The ports on which it observes.
    pub(crate) observer_ports: Vec<u16>,
}

/// Makes an observation connection of this one.
pub(crate) async fn observe(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<Observed, WireError> {
    wire::write_message(stream, &ClientMessage::Observe).await?;
    match wire::read_message(stream, &mut wire::server_decoder()).await? {
        ServerMessage::Observed {
            address,
            other_address,
            observer_ports,
        } => Ok(Observed {
            address,
            other_address,
            observer_ports,
        }),
        _ => Err(WireError::Unexpected),
    }
}
